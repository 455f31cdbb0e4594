"""A training step of ddsp_solo_instrument beside a plain rewriting of the reference: time turn by turn, memory apart.

The reference is the published decoder and synth as they are told (Engel et al. 2020; facts of magenta/ddsp 3.7), in
torch: every harmonic of every sample as a tensor [B, N, K], phases by a float32 cumulative sum, torch.stft for the
loss, torch.optim.Adam. Controls are given to both; 4 s at 16 kHz.

    python bench/ddsp_step.py --batch 16 --rounds 3         # CPU seconds of a step, one thread, medians of pairs
    python bench/ddsp_step.py --batch 16 --memory           # peak memory, each side in a process of its own
    python bench/ddsp_step.py --batch 16 --synth            # heads, synths, room and loss, without the decoder
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.cli.load import check_document, compile_spec
from graphspec.compiler.lower import lower
from graphspec.reader import read_text
from graphspec.runtime.forward import training_noise
from graphspec.runtime.terms import Terms

RATE, HOP, HARMONICS, BANDS, SECONDS = 16000, 64, 60, 65, 4


def stack(channels: int, width: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for i in range(layers):
        parts += [nn.Linear(channels if i == 0 else width, width), nn.LayerNorm(width, 1e-3), nn.LeakyReLU(0.2)]
    return nn.Sequential(*parts)


class Reference(nn.Module):
    """Controls `[B, N, 1]` and audio `[B, T, 1]` -> the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.pitch, self.loud, self.out = stack(1, 512, 3), stack(1, 512, 3), stack(1536, 512, 3)
        self.gru = nn.GRU(1024, 512, batch_first=True)
        self.last = nn.Linear(512, 1 + HARMONICS + BANDS)
        self.ir = nn.Parameter(torch.randn(48000) * 1e-6)

    def forward(self, f0: Tensor, loud: Tensor, audio: Tensor) -> Tensor:
        return self.heard(self.decoded(f0, loud), f0, audio)

    def decoded(self, f0: Tensor, loud: Tensor) -> Tensor:
        midi = torch.where(f0 > 0, 12 * torch.log2(f0.clamp(min=1e-7) / 440) + 69, 0.0)
        z = torch.cat([self.pitch(midi / 127), self.loud(loud / 80 + 1)], -1)
        return self.last(self.out(torch.cat([z, self.gru(z)[0]], -1)))

    def heard(self, ctl: Tensor, f0: Tensor, audio: Tensor) -> Tensor:
        amp, shape, noise = ctl.split([1, HARMONICS, BANDS], -1)
        dry = harmonic(f0, exp_sigmoid(amp), exp_sigmoid(shape)) + filtered_noise(exp_sigmoid(noise - 5))
        n = 2 ** math.ceil(math.log2(dry.shape[1] + 48000))
        ir = torch.cat([torch.zeros_like(self.ir[:1]), self.ir[1:]])
        wet = torch.fft.irfft(torch.fft.rfft(dry, n) * torch.fft.rfft(ir, n), n)[:, : dry.shape[1]]
        return spectral_loss(dry + wet, audio[..., 0])


def exp_sigmoid(x: Tensor) -> Tensor:
    return 2 * torch.sigmoid(x) ** math.log(10) + 1e-7


def harmonic(f0: Tensor, amp: Tensor, shape: Tensor) -> Tensor:
    k = torch.arange(1, HARMONICS + 1)
    shape = shape * (f0 * k < RATE / 2)
    shape = shape / shape.sum(-1, keepdim=True).clamp(min=1e-7)
    a, f = window_upsampled(amp * shape), linear_upsampled(f0 * k)
    phase = torch.cumsum(2 * math.pi * f / RATE, 1)
    return (a * (f < RATE / 2) * torch.sin(phase)).sum(-1)


def linear_upsampled(x: Tensor) -> Tensor:
    after = torch.cat([x[:, 1:], x[:, -1:]], 1)
    w = (torch.arange(HOP) / HOP)[:, None]
    return (x[:, :, None] * (1 - w) + after[:, :, None] * w).flatten(1, 2)


def window_upsampled(x: Tensor) -> Tensor:
    after = torch.cat([x[:, 1:], x[:, -1:]], 1)
    w = (0.5 - 0.5 * torch.cos(math.pi * torch.arange(HOP) / HOP))[:, None]
    return (x[:, :, None] * (1 - w) + after[:, :, None] * w).flatten(1, 2)


def filtered_noise(mags: Tensor) -> Tensor:
    b, n, _ = mags.shape
    size = 2 * (BANDS - 1)
    ir = torch.fft.irfft(mags).roll(size // 2, -1) * torch.hann_window(size)
    noise = torch.rand(b, n, HOP) * 2 - 1
    fft = 2 ** math.ceil(math.log2(HOP + size - 1))
    y = torch.fft.irfft(torch.fft.rfft(noise, fft) * torch.fft.rfft(ir, fft), fft)
    added = F.fold(y.transpose(1, 2), (1, (n - 1) * HOP + fft), (1, fft), stride=(1, HOP))[:, 0, 0]
    start = (size - 1) // 2 - 1
    return added[:, start : start + n * HOP]


def spectral_loss(y: Tensor, x: Tensor) -> Tensor:
    total = torch.zeros(())
    for n in (2048, 1024, 512, 256, 128, 64):
        hop, frames = n // 4, math.ceil(y.shape[1] / (n // 4))

        def magnitudes(s: Tensor, n: int = n, hop: int = hop, frames: int = frames) -> Tensor:
            s = F.pad(s, (0, (frames - 1) * hop + n - s.shape[1]))
            return torch.stft(s, n, hop, window=torch.hann_window(n), center=False, return_complex=True).abs()

        a, b = magnitudes(y), magnitudes(x)
        total = total + (a - b).abs().mean() + (torch.log(a + 1e-5) - torch.log(b + 1e-5)).abs().mean()
    return total


def batch(rows: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    frames = SECONDS * RATE // HOP
    f0 = 220 * 2 ** torch.rand(rows, frames, 1, generator=g).cumsum(1).sin()
    loud = -20 - 30 * torch.rand(rows, frames, 1, generator=g)
    return {"f0": f0, "loud": loud, "audio": 0.1 * torch.randn(rows, frames * HOP, 1, generator=g)}


def ours(rows: int) -> Callable[[], None]:
    model = compile_spec("ddsp_solo_instrument").train()
    optimizer, terms, given = torch.optim.Adam(model.parameters(), 3e-4, eps=1e-7), Terms(model.graph), batch(rows)
    noise = training_noise(model, given, 0, 0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        _, total = terms.means(model(given, noise), {})
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()

    return step


def reference(rows: int) -> Callable[[], None]:
    model, given = Reference(), batch(rows)
    optimizer = torch.optim.Adam(model.parameters(), 3e-4, eps=1e-7)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(**given).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()

    return step


SYNTH = """\
graphspec: 1
model: synth
extends: ddsp_solo_instrument
remove: [causal, graph.change, graph.amp_in, graph.midi, graph.level, graph.pitch_in, graph.loud_in, graph.z, graph.r,
  graph.h, inputs.loud, entries]
override:
  graph.ctl: said |> split(amp=1, shape=harmonics, noise=bands)
  graph.amp: ctl.amp |> control(loudness_head(head), smoothing, smooth_amp, smooth_logits)
add:
  inputs.said: f32[N, 1 + harmonics + bands] @ rate/hop
"""


def controls(rows: int) -> dict[str, Tensor]:
    """A batch, and what a decoder might have said, of which a gradient is asked."""
    given = batch(rows)
    frames = given.pop("loud").shape[1]
    said = torch.randn(rows, frames, 1 + HARMONICS + BANDS, generator=torch.Generator().manual_seed(1))
    return {**given, "said": said.requires_grad_()}


def our_synth(rows: int) -> Callable[[], None]:
    model = lower(check_document(read_text("synth.yaml", SYNTH), Path()), seed=0).train()
    terms, given = Terms(model.graph), controls(rows)
    noise = training_noise(model, given, 0, 0)

    def step() -> None:
        _, total = terms.means(model(given, noise), {})
        torch.autograd.grad(total, [given["said"], *model.parameters()])

    return step


def reference_synth(rows: int) -> Callable[[], None]:
    model, given = Reference(), controls(rows)

    def step() -> None:
        loss = model.heard(given["said"], given["f0"], given["audio"])
        torch.autograd.grad(loss, [given["said"], model.ir])

    return step


SIDES = {"ours": ours, "reference": reference}
SYNTHS = {"ours": our_synth, "reference": reference_synth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--synth", action="store_true")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sides = SYNTHS if arguments.synth else SIDES
    if arguments.one:
        step = sides[arguments.one](arguments.batch)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step()
        step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{arguments.one:10} {peak / 2**20:6.2f} GB, of which the steps {(peak - before) / 2**20:6.2f} GB",
            flush=True,
        )
        return
    if arguments.memory:
        for side in sides:
            words = ["--batch", str(arguments.batch), "--one", side, *(["--synth"] if arguments.synth else [])]
            subprocess.run([sys.executable, __file__, *words], check=True)
        return
    steps = {name: make(arguments.batch) for name, make in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    for k in range(arguments.rounds + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if k:
                seconds[name].append(time.process_time() - start)
    pairs = [b / a for a, b in zip(seconds["ours"], seconds["reference"], strict=True)]
    for name, each in seconds.items():
        print(f"{name:10} {statistics.median(each):6.2f} CPU s a step")
    print(f"ours is {statistics.median(pairs):.2f}x as fast (pairs {min(pairs):.2f} to {max(pairs):.2f})")


if __name__ == "__main__":
    main()
