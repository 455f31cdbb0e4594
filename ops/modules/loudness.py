"""How loud a frame is, in dB: A-weighted by its spectrum, or the bare power of its samples."""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from graphspec.ops.modules.contract import Generator
from graphspec.ops.modules.frames import FRAMINGS, Frames
from graphspec.ops.modules.spectral import STFT
from graphspec.types import Type

A_WEIGHT_POLES = (20.598997, 107.65265, 737.86223, 12194.217)
"""Hz: the first and the last double (IEC 61672-1)."""
FORMS = {"power_mean": (0.0, -80.0), "mean_db": (20.7, -120.0)}
"""The reference that is subtracted and the floor of each form, in dB."""


def a_weights(frequencies: Tensor) -> Tensor:
    """The A-weighting of frequencies in Hz, in dB, not below -80: 0 dB at 1 kHz, -19.1 at 100 Hz (IEC 61672-1)."""
    f = frequencies.clamp(min=1e-10).square()
    first, second, third, last = (p * p for p in A_WEIGHT_POLES)
    log10 = torch.log10
    gain = log10(torch.tensor(last, dtype=f.dtype)) + 2 * log10(f) - log10(f + last) - log10(f + first)
    return (2 + 20 * (gain - 0.5 * log10(f + second) - 0.5 * log10(f + third))).clamp(min=-80)


class Loudness(STFT):
    """`[B, T, 1]` -> `[B, T/hop, 1]`: A-weighted loudness in dB, of at least `floor`.

    power_mean: the dB of the mean weighted power of the bins. mean_db: the mean of the bins' weighted dB.
    """

    weights: Tensor

    def __init__(
        self,
        x: Type,
        n_fft: int,
        hop: int,
        form: str = "power_mean",
        framing: str = "same",
        reference: float | None = None,
        floor: float | None = None,
    ) -> None:
        super().__init__(n_fft, hop, "same" if framing == "ahead" else framing)
        if form not in FORMS or framing not in FRAMINGS:
            raise ValueError(f"loudness: form is {' or '.join(FORMS)}, framing {', '.join(FRAMINGS)}")
        if x.rate is None:
            raise ValueError("loudness is of a timed value: its rate says what the frequencies are")
        if framing == "ahead":
            self.framing, self.before, self.ahead = framing, 0, max(0, n_fft - hop)
        self.rate, self.form = x.rate, form
        self.reference = FORMS[form][0] if reference is None else reference
        self.floor = FORMS[form][1] if floor is None else floor
        self.register_buffer("weights", torch.empty(n_fft // 2 + 1), persistent=False)

    def reset(self, generator: Generator) -> None:
        super().reset(generator)
        bins = len(self.weights)
        decibels = a_weights(torch.linspace(0, float(self.rate) / 2, bins, dtype=torch.float64, device="cpu"))
        self.weights.copy_(10 ** (decibels / 10) if self.form == "power_mean" else decibels)

    def features(self, z: Tensor) -> Tensor:
        power, weights = z.real.square() + z.imag.square(), self.weights.to(z.real.dtype)
        if self.form == "power_mean":
            power = (power * weights).mean(-1, keepdim=True)
            # Held twice, as the reference: where the power is at the floor it has no gradient.
            decibels = 10 * power.clamp(min=10 ** (self.floor / 10)).log10() - self.reference
            return decibels.clamp(min=self.floor)
        # 1e-30 is far below any floor, and not yet a denormal number of float32.
        decibels = 10 * power.clamp(min=1e-30).log10() + weights - self.reference
        return decibels.clamp(min=self.floor).mean(-1, keepdim=True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, form={self.form}, rate={self.rate}"


class Power(Frames):
    """`[B, T, 1]` -> `[B, T/hop, 1]`: the mean square of a frame in dB, of at least `floor`."""

    def __init__(self, size: int, hop: int, framing: str = "causal", floor: float = -80.0) -> None:
        super().__init__(size, hop, framing)
        self.floor = floor

    def measure(self, x: Tensor) -> Tensor:
        # In two stages, as frames share whole blocks of this many samples.
        block = gcd(self.size, self.hop)
        power = F.avg_pool1d(x.square()[:, None], block)
        power = F.avg_pool1d(power, self.size // block, self.hop // block)[:, 0]
        return 10 * power.clamp(min=10 ** (self.floor / 10)).log10()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, floor={self.floor}"
