"""The goldens of DDSP that no op's own test takes: as a user writes them, and the plug-in's hop by hop."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.ops.parity.vst_harmonic import hop_of
from graphspec.reader import read_text
from graphspec.runtime.optimize import Optimizing

GOLDEN = {k: torch.from_numpy(v) for k, v in np.load(Path(__file__).parent / "goldens" / "ddsp_small.npz").items()}

SPEC = """\
graphspec: 1
model: small
inputs:
  x: float[T, 3] @ 100
  a: float[3]
  y0: float[3]
  leak: float[3]
  b0: float[3]
  b1: float[3]
  b2: float[3]
  a1: float[3]
  a2: float[3]
  one: float[N, 1] @ 10
  controls: float[M, 2] @ 1
cells:
  summed:
    type: float[T, 3] @ 100
    init: y0
    next: integrator
  seven:
    type: float[N, 1] @ 10
    init: 7
    next: one
graph:
  first: a * begin(first[t-1], x) + (1 - a) * x
  integrator: leak * summed + x
  delta: x - begin(x[t-1], x)
  held_first: begin(held_first[t-1], x)
  moved: x - held_first
  filtered: b0 * moved + b1 * moved[t-1] + b2 * moved[t-2] - a1 * filtered[t-1] - a2 * filtered[t-2]
  from_rest: filtered + (b0 + b1 + b2) / (1 + a1 + a2) * held_first
  before: one[t-1]
  sevens: seven
  straight: upsample(controls, 64, method=linear)
  bent: upsample(controls, 64, method=window)
  held: upsample(controls, 64)
outputs: [first, integrator, delta, from_rest, before, sevens, straight, bent, held]
"""


def test_small_recursions_and_controls_are_the_golden_ones() -> None:
    g = {k.removeprefix("recurrent_lite."): v for k, v in GOLDEN.items()}
    inputs: dict[str, Tensor] = {n: g[n][None] for n in ("x", "a", "y0", "leak")}
    inputs |= {f"b{i}": g["bq_b"][:, i][None] for i in range(3)} | {f"a{i}": g["bq_a"][:, i][None] for i in (1, 2)}
    inputs |= {"one": g["history.x"][None, :, None], "controls": g["resample.x"][None]}
    found = lower(check_document(read_text("small.yaml", SPEC), Path())).double()(inputs)
    wanted = {
        "first": "onepole_init_first",
        "integrator": "ar_integrator_y0",
        "delta": "delta_first",
        "from_rest": "biquad_steady",
        "straight": "resample.linear",
        "bent": "resample.window",
        "held": "resample.nearest",
    }
    for name, golden in wanted.items():
        assert (found[name][0] - g[golden]).abs().max() < 1e-9, name
    for name, golden in {"before": "history.read_before_write", "sevens": "history.read_init7"}.items():
        assert torch.equal(found[name][0, :, 0], g[golden]), name


def test_the_plug_ins_hops_are_the_golden_ones() -> None:
    loud = GOLDEN["harmonic_stream_vst.amp"][:, None] * GOLDEN["harmonic_stream_vst.hd"]
    f0 = GOLDEN["harmonic_stream_vst.f0"][:, None]
    before, phase, made, phases = (torch.zeros_like(loud[:1]), torch.zeros_like(f0[:1])), f0.new_zeros(1), [], []
    for i in range(4):
        now = loud[i : i + 1], f0[i : i + 1]
        sound, phase = hop_of(*now, before, phase, hop=64, rate=16000)
        before = now
        made.append(sound[0])
        phases.append(phase)
    assert (torch.cat(made) - GOLDEN["harmonic_stream_vst.audio"]).abs().max() < 1e-9
    assert (torch.cat(phases) - GOLDEN["harmonic_stream_vst.final_phase_per_hop"]).abs().max() < 1e-9


def test_gradients_are_clipped_by_their_global_norm() -> None:
    """To 1e-7 only: torch divides by the norm plus 1e-6."""
    weights = {n: nn.Parameter(torch.zeros_like(GOLDEN[f"global_clip.g{i}"])) for i, n in enumerate("ab")}
    for i, w in enumerate(weights.values()):
        w.grad = GOLDEN[f"global_clip.g{i}"].clone()
    norm = Optimizing.clip(SimpleNamespace(weights=weights), 3.0)  # type: ignore[arg-type]
    assert abs(float(norm) - float(GOLDEN["global_clip.norm"])) < 1e-9
    for i, w in enumerate(weights.values()):
        assert w.grad is not None
        assert (w.grad - GOLDEN[f"global_clip.c{i}"]).abs().max() < 3e-7
