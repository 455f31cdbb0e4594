"""The fundamental frequency of a frame and how periodic it is, by the difference function (YIN).

The difference function here adds up over all pairs of samples of the frame that lie a lag apart, whatever the lag, and
is divided by their number. So it is symmetric about the middle of the frame: a pitch that glides is that of the frame's
middle, where a window of fixed length under a growing lag sees it half a period early.
"""

from __future__ import annotations

from math import ceil, floor

import torch
from torch import Tensor

from graphspec.ops.modules.frames import Frames
from graphspec.types import Type

ROWS = 256  # frames that are in memory at a time, each as some spectra and lags
DOUBLINGS = 3  # a period is measured on its double, that on its own, ... so often, as far as lags go


class Yin(Frames):
    """`[B, T, 1]` -> `[B, T/hop, 1]`: Hz, 0 where not voiced (`pitch`), or 0 .. 1 (`voicing`); without a gradient.

    A frame's period is the first lag at which the cumulative mean normalised difference (de Cheveigne & Kawahara 2002)
    has a dip at most `threshold` above its lowest one. Voicing is 1 minus that dip, 0 for a frame below `silence` dB.
    """

    def __init__(
        self,
        x: Type,
        hop: int,
        *,
        fmin: float = 50.0,
        fmax: float = 1000.0,
        size: int = 1024,
        threshold: float = 0.2,
        voiced: float = 0.5,
        silence: float = -60.0,
        framing: str = "same",
        wanted: str = "pitch",
    ) -> None:
        super().__init__(size, hop, framing)
        if x.rate is None:
            raise ValueError("pitch is of a timed value: its rate says what the frequencies are")
        self.rate = float(x.rate)
        if not 0 < fmin < fmax <= self.rate / 4:
            raise ValueError(
                f"fmin and fmax are 0 < fmin < fmax <= {self.rate / 4:g} Hz here, not {fmin:g} and {fmax:g}"
            )
        self.fmin, self.fmax = fmin, fmax
        self.shortest, self.longest = max(2, floor(self.rate / fmax)), ceil(self.rate / fmin)
        if size < 2 * (self.longest + 1):
            need = 2 ** (2 * self.longest + 1).bit_length()
            raise ValueError(
                f"size {size} is too short for a pitch of {fmin:g} Hz at {self.rate:g} Hz, which wants two periods: "
                f"size={need}, or a higher fmin"
            )
        self.threshold, self.voiced, self.silence, self.wanted = threshold, voiced, silence, wanted
        self.n_fft = _fast_length(size + self.longest + 2)

    @torch.no_grad()
    def measure(self, x: Tensor) -> Tensor:
        frames, rows = x.unfold(1, self.size, self.hop), x.shape[0]
        # Some frames at a time: they overlap, and all of them would be size/hop times the sound.
        parts = [self._of(part.flatten(0, 1)).view(rows, -1) for part in frames.split(max(1, ROWS // rows), 1)]
        return torch.cat(parts, 1)

    def _of(self, frames: Tensor) -> Tensor:
        """`[rows, size]` -> `[rows]`."""
        frames = frames - frames.mean(-1, keepdim=True)
        difference = self._difference(frames)
        lag = torch.arange(1, difference.shape[-1], device=frames.device)
        running = difference[:, 1:].cumsum(-1) / lag
        # At lag 0 it is 1 by definition; a frame of zeros is 1 everywhere.
        normal = difference[:, 1:] / running.clamp(min=torch.finfo(running.dtype).tiny)
        normal = torch.where(running > 0, normal, 1.0)
        middle = normal[:, self.shortest - 1 : self.longest]  # lags shortest .. longest
        dips = (middle <= normal[:, self.shortest - 2 : self.longest - 1]) & (
            middle <= normal[:, self.shortest : self.longest + 1]
        )
        # Not the lowest of all: two periods, or what two notes have in common, may be a hair lower than one.
        depths = torch.where(dips, middle, torch.inf)
        near = depths <= depths.amin(-1, keepdim=True) + self.threshold
        at = near.to(torch.uint8).argmax(-1, keepdim=True)
        depth = middle.gather(-1, at)[:, 0]
        power = frames.square().mean(-1)
        loud = power >= 10 ** (self.silence / 10)
        # A frame with NaN in it is neither voiced nor silent: it stays NaN.
        sure = torch.where(loud & dips.any(-1), (1 - depth).clamp(0, 1), 0.0 * power)
        if self.wanted == "voicing":
            return sure
        period = self._refined(difference, at + self.shortest)[:, 0]
        return torch.where((sure >= self.voiced) & (sure > 0), self.rate / period, 0.0 * power)

    def _difference(self, frames: Tensor) -> Tensor:
        """`[rows, size]` -> `[rows, longest + 2]`: the mean square difference of samples so many apart."""
        lags = self.longest + 2
        spectrum = torch.fft.rfft(frames, self.n_fft)
        products = torch.fft.irfft(spectrum.real.square() + spectrum.imag.square(), self.n_fft)[:, :lags]
        energy = frames.square()
        total = energy.sum(-1, keepdim=True)
        # What the pairs leave out at either end of the frame.
        ends = (energy[:, : lags - 1] + energy[:, -(lags - 1) :].flip(-1)).cumsum(-1)
        both = 2 * total - torch.cat([torch.zeros_like(total), ends], -1)
        pairs = self.size - torch.arange(lags, device=frames.device)
        return (both - 2 * products).clamp(min=0) / pairs

    def _refined(self, difference: Tensor, lag: Tensor) -> Tensor:
        """The period between samples: where a parabola through a dip and its neighbours is lowest.

        A harmonic's parabola is the worse the fewer samples a period has, and the same error counts half at the double.
        """
        period, _ = self._dip(difference, lag)
        for doubling in range(1, DOUBLINGS + 1):
            many = 2**doubling
            far = (period * many).round()
            found, sound = self._dip(difference, far.nan_to_num(1.0).clamp(1, self.longest).long())
            period = torch.where(sound & (far <= self.longest), found / many, period)
        return period

    def _dip(self, difference: Tensor, lag: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest place around a lag, and whether there is a dip at all."""
        before, here, after = (difference.gather(-1, lag + d) for d in (-1, 0, 1))
        bend = before - 2 * here + after
        shift = (before - after) / (2 * bend.clamp(min=torch.finfo(here.dtype).tiny))
        return lag + shift.clamp(-1, 1), (bend > 0) & (shift.abs() <= 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fmin={self.fmin:g}, fmax={self.fmax:g}, wanted={self.wanted}"


def _fast_length(n: int) -> int:
    """The smallest 2^a or 3 * 2^a from n on: lengths that every FFT does well."""
    whole = 1 << max(n - 1, 1).bit_length()
    return whole * 3 // 4 if whole * 3 // 4 >= n else whole
