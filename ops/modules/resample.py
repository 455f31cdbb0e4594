"""Another rate: ticks held, interpolated or left out, and signals resampled."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from graphspec.ops.modules.contract import OverWindows, Stateless, Windowed


class Hold(Stateless):
    """`[B, T, ...]` -> `[B, T*factor, ...]`, every tick repeated."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.factor, 1)


class Interpolate(Windowed):
    """`[B, T, ...]` -> `[B, T*factor, ...]`: tick j*factor + m is x_j + w_m (x_{j+1} - x_j), the last tick held.

    w_m = m/factor, or with `smooth` (1 - cos(pi m/factor))/2: overlapping Hann windows of 2*factor, which add up to 1.
    """

    holds_the_end = True

    def __init__(self, factor: int, smooth: bool = False) -> None:
        super().__init__()
        self.factor, self.smooth = factor, smooth

    def forward(self, x: Tensor) -> Tensor:
        return self.windows(torch.cat([x, x[:, -1:]], 1))

    def windows(self, x: Tensor) -> Tensor:
        """Between the ticks of `[B, n + 1, ...]`."""
        w = torch.arange(self.factor, device=x.device, dtype=x.dtype) / self.factor
        if self.smooth:
            w = 0.5 - 0.5 * torch.cos(torch.pi * w)
        w = w.view(-1, *[1] * (x.ndim - 2))
        return torch.lerp(x[:, :-1, None], x[:, 1:, None], w).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.factor}, smooth={self.smooth}"


class Downsample(OverWindows, Stateless):
    """`[B, T, ...]` -> `[B, T/p, ...]`, ticks 0, p, 2p, ... A step takes a multiple of p ticks."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :: self.p]

    def windows(self, x: Tensor) -> Tensor:
        """From the first tick of a group to the first of another: no need to wait for those behind it."""
        return self(x)


_BETA = 8.96  # of the Kaiser window: 0.1102 (A - 8.7) for A = 90 dB
_HALF_BAND = 2.86  # half its transition, in zero crossings per side: (A - 8) / (2.285 * 2 * pi * 2)


class Resample(Windowed):
    """`[B, T, ...]` -> `[B, T*up/down, ...]` by a Kaiser-windowed sinc of `zeros` crossings a side at the lower rate.

    Group g of `up` results reads the inputs from g*down - (half-1) on: one strided convolution with `up` kernels.
    """

    def __init__(self, up: int, down: int, zeros: int = 64) -> None:
        super().__init__()
        if min(up, down) < 1 or zeros < 6:
            raise ValueError(f"resample: up and down are at least 1, zeros at least 6, not {up}, {down} and {zeros}")
        common = math.gcd(up, down)
        self.up, self.down, self.zeros = up // common, down // common, zeros
        self.half = -(-zeros * max(self.up, self.down) // self.up)  # ticks of x on either side, rounded up

    def forward(self, x: Tensor) -> Tensor:
        if self.up == self.down:
            return x
        behind = self.reach - self.half + 1 - self.down  # of the last group's taps, those after the end
        return self.windows(F.pad(x, (*[0, 0] * (x.ndim - 2), self.half - 1, behind)))

    @property
    def reach(self) -> int:
        """Ticks that a group of `up` results reads."""
        return (self.up - 1) * self.down // self.up + 2 * self.half

    def windows(self, x: Tensor) -> Tensor:
        """Of `[B, (n-1)*down + reach, ...]`: n groups."""
        if self.up == self.down:
            return x[:, self.half - 1 : x.shape[1] - self.half]
        flat = x.flatten(2).transpose(1, 2).flatten(0, 1)[:, None]  # [B*channels, 1, ticks]
        y = F.conv1d(flat, self.kernels(x)[:, None], stride=self.down)  # [B*channels, up, T/down]
        return y.transpose(1, 2).flatten(1).unflatten(0, (x.shape[0], -1)).transpose(1, 2).unflatten(2, x.shape[2:])

    def kernels(self, like: Tensor) -> Tensor:
        """`[up, reach]`, each adding up to 1. Made anew from whole numbers: nothing to store or to load."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        taps = torch.arange(self.reach, device=like.device) - (self.half - 1)
        phases = torch.arange(self.up, device=like.device) * self.down
        # Distance in ticks of the lower rate, from whole numbers: exact to the last bit of one division.
        t = (phases[:, None] - taps * self.up).to(dtype) / max(self.up, self.down)
        inside = (1 - (t / self.zeros) ** 2).clamp(min=0)
        window = torch.special.i0(_BETA * inside.sqrt()) * (inside > 0)
        h = torch.sinc((1 - _HALF_BAND / self.zeros) * t) * window
        return (h / h.sum(1, keepdim=True)).to(like.dtype)

    def extra_repr(self) -> str:
        return f"up={self.up}, down={self.down}, zeros={self.zeros}"
