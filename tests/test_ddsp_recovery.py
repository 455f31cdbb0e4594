"""A ladder for gradient descent: each part of the DDSP synthesizer alone finds again what made a sound, then all of it.

Each rung has a gate in numbers, so that a gradient that is wrong by a factor or dies in float32 shows where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphspec.cli.load import check_document, check_spec
from graphspec.compiler.lower import Model, lower
from graphspec.reader import read_text
from graphspec.runtime.corpus import pieces
from graphspec.runtime.forward import training_noise, with_step
from graphspec.runtime.terms import Terms

torch.set_num_threads(1)
RATE = 8000


def model(text: str, seed: int = 0) -> Model:
    head = f"graphspec: 1\nmodel: recovery\nparams:\n  rate: {RATE}\n  hop: 80\nuse: [std/core, std/ddsp]\n"
    return lower(check_document(read_text("recovery.yaml", head + text), Path()), seed=seed)


def descend(m: Model, inputs: Mapping[str, Tensor], steps: int, lr: float) -> list[float]:
    """The total loss at each update of Adam, its rate falling to a tenth, with new noise each time."""
    optimizer = torch.optim.Adam([w for w in m.weights().values() if w.requires_grad], lr=lr, eps=1e-7)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / steps))
    terms, losses = Terms(m.graph), []
    for update in range(steps):
        given = with_step(m, inputs, update)
        found = m(given, training_noise(m, given, 0, update))
        _, total = terms.means(found, {})
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 3.0)
        optimizer.step()
        schedule.step()
        losses.append(float(total.detach()))
    return losses


@torch.no_grad()
def output(m: Model, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
    return m.evaluate([m.graph.outputs[name]], inputs, training_noise(m, dict(inputs), 1, 0))[0]


# ---- oscillators -----------------------------------------------------------------------------------------------------

TONE = """\
inputs:
  audio: f32[T, 1] @ rate
  f0: f32[N, 1] @ rate/hop
require:
  - T == N * hop
  - N == 50
graph:
  amp: param([50, 1], init=normal(0.1)) |> as_time(rate/hop) |> exp_sigmoid
  shape: harmonic_shape((0.0 * f0) |> linear(6) |> exp_sigmoid, f0, hop)    # a bias for each
  out: harmonic(f0, amp, shape, hop)
losses:
  spec: multiscale_stft(out, audio, sizes=[512, 256, 128, 64], log_weight=1)
outputs: [out, amp, shape]
"""


def test_amplitudes_of_a_known_tone_are_found_again() -> None:
    """A tone that swells and dies, of six harmonics: how loud it is at each frame, and what of it each harmonic has."""
    m, known = model(TONE), {}
    frames = torch.arange(50.0)[None, :, None]
    f0 = 220 + 10 * torch.sin(frames / 4)
    with torch.no_grad():
        known["amp"] = 0.3 * torch.sin(torch.pi * (frames + 3) / 56) ** 2
        known["shape"] = torch.tensor([0.4, 0.05, 0.25, 0.02, 0.2, 0.08])
        (harm,) = [v for v in m.graph.values if v.op and v.op.name == "harmonic"]
        synth = m.modules_of[harm]
        audio = synth(f0, known["amp"], known["shape"].expand(1, 50, 6))
    inputs = {"audio": audio, "f0": f0}
    losses = descend(m, inputs, 150, 0.1)
    amp, shape = output(m, "amp", inputs), output(m, "shape", inputs)[0, 0]
    print(losses[0], losses[-1], (amp - known["amp"]).abs().max(), (shape - known["shape"]).abs().max())
    assert losses[-1] < 0.02 * losses[0]
    assert (amp - known["amp"]).abs().max() < 0.01 and (shape - known["shape"]).abs().max() < 0.005


# ---- noise -----------------------------------------------------------------------------------------------------------

NOISE = """\
inputs:
  audio: f32[T, 1] @ rate
  f0: f32[N, 1] @ rate/hop
require:
  - T == N * hop
graph:
  mags: exp_sigmoid(((0.0 * f0) |> linear(9)) - 3)
  out: filtered_noise(mags, hop)
losses:
  spec: multiscale_stft(out, audio, sizes=[256, 128], mag_weight=0, log_weight=1)
outputs: [out, mags]
"""


def test_the_colour_of_a_known_noise_is_found_again() -> None:
    """From other noise of the same colour: the logarithms' distance is least at the right gain, in every band."""
    m = model(NOISE)
    frames = 200
    known = torch.tensor([0.02, 0.05, 0.2, 0.3, 0.2, 0.1, 0.05, 0.05, 0.03])
    inputs = {"f0": torch.full((1, frames, 1), 100.0)}
    (hiss,) = [v for v in m.graph.values if v.op and v.op.name == "filtered_noise"]
    given = torch.rand(1, frames * 80, 1, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        inputs["audio"] = m.modules_of[hiss](known.expand(1, frames, 9), noise=given)
    descend(m, inputs, 300, 0.2)
    decibels = 20 * torch.log10(heard(output(m, "mags", inputs)[0, 0]) / heard(known))
    print(decibels)
    assert decibels.abs().max() < 1.0, "of magnitudes from -30 to -11 dB"


def heard(mags: Tensor) -> Tensor:
    """What the Hann window over the taps makes of magnitudes: each with a half of its two neighbours' mean.

    Only so much of them is in the sound; one that goes up and down from band to band is not heard at all.
    """
    mirrored = torch.cat([mags[1:2], mags, mags[-2:-1]])
    return 0.5 * mirrored[1:-1] + 0.25 * (mirrored[:-2] + mirrored[2:])


# ---- room ------------------------------------------------------------------------------------------------------------

ROOM = """\
inputs:
  dry: f32[T, 1] @ rate
  audio: f32[T, 1] @ rate
graph:
  out: dry |> reverb(300)
losses:
  fit: l2(out, audio)
outputs: [out]
"""


def test_the_response_of_a_known_room_is_found_again() -> None:
    m = model(ROOM)
    g = torch.Generator().manual_seed(3)
    dry = torch.randn(1, 4000, 1, generator=g)
    known = 0.3 * torch.randn(300, generator=g) * torch.exp(-torch.arange(300) / 60)
    known[0] = 0
    wet = torch.nn.functional.conv1d(torch.nn.functional.pad(dry[..., 0], (299, 0))[:, None], known.flip(0)[None, None])
    losses = descend(m, {"dry": dry, "audio": dry + wet.transpose(1, 2)}, 150, 0.05)
    (ir,) = m.weights().values()
    error = float((ir.detach()[1:, 0] - known[1:]).norm() / known[1:].norm())
    print(losses[0], losses[-1], error)
    assert losses[-1] < 1e-3 * losses[0] and error < 0.02


# ---- bodies ----------------------------------------------------------------------------------------------------------

BODY = """\
inputs:
  struck: f32[T, 1] @ rate
  audio: f32[T, 1] @ rate
graph:
  out: struck |> BODY |> linear(1)
losses:
  fit: l2(out, audio)
outputs: [out]
"""
BODIES = {
    "gru": "gru(12)",
    "lstm": "lstm(12)",
    "micro_rnn": "micro_rnn(12)",
    "transformer": "transformer_body(12, window=24)",
    "mlp": "tanh_layers(12)",
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_with_a_memory_learns_a_decay(body: str) -> None:
    """A frame in which something is struck, and a level that falls for twenty frames behind it."""
    m = model(BODY.replace("BODY", BODIES[body]))
    struck = torch.zeros(4, 40, 1)
    for row, at in enumerate((2, 9, 15, 5)):
        struck[row, at] = 1
    level = torch.zeros_like(struck)
    held = torch.zeros(4, 1)
    for t in range(40):
        held = 0.85 * held + struck[:, t]
        level[:, t] = held
    losses = descend(m, {"struck": struck, "audio": level}, 150, 0.02)
    still = float(level.var())
    print(body, losses[0], losses[-1], still)
    assert (losses[-1] < 0.15 * still) == (body != "mlp"), "what has no memory does not"


# ---- all of it -------------------------------------------------------------------------------------------------------


def clips(count: int, seconds: float) -> Tensor:
    """`[count, T, 1]`: a second of each piece of the corpus."""
    samples = int(16000 * seconds) // 64 * 64
    return torch.from_numpy(np.stack([p[8000 : 8000 + samples] for p in pieces(count=count, seconds=2.0)])).float()


def learned(name: str, sounds: Tensor, steps: int, *params: str) -> list[float]:
    checked = check_spec(name, ("memory=48", "harmonics=24", "bands=17", "room=0", *params))
    m = lower(checked, seed=0)
    inputs = {"audio": sounds.reshape(len(sounds), -1, 1)}
    with torch.no_grad():
        names = [n for n in ("f0", "loud") if n in m.graph.cached]
        inputs |= dict(zip(names, m.evaluate([m.graph.cached[n] for n in names], inputs), strict=True))
    losses = descend(m, inputs, steps, 1e-2)
    print(name, losses[0], losses[-1])
    return losses


def test_a_clip_is_learned_by_heart() -> None:
    losses = learned("ddsp_tiny", clips(1, 0.5), 60)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.full
@pytest.mark.parametrize("name", ["ddsp_mlp", "ddsp_smoothed", "ddsp_micro_rnn", "ddsp_transformer", "ddsp_tiny"])
def test_several_clips_are_learned(name: str) -> None:
    losses = learned(name, clips(4, 1.0), 150)
    assert losses[-1] < 0.5 * losses[0]
