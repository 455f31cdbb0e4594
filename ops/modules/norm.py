"""Normalisation over the channels of one tick, their groups, or time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import initial
from graphspec.ops.modules.contract import CannotStep, Generator, Stateless


class _Scaled(Stateless):
    """Scale and shift per channel after normalising. Weights weight and bias [channels], or none."""

    def __init__(self, channels: int, eps: float, affine: bool) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.empty(channels)) if affine else None
        self.bias = nn.Parameter(torch.empty(channels)) if affine else None

    def reset(self, generator: Generator) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None and self.bias is not None:
            initial.constant(self.weight, 1.0)
            initial.constant(self.bias, 0.0)

    def normalised(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Mean 0 and biased variance 1 over these axes."""
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.eps)

    def scaled(self, x: Tensor) -> Tensor:
        return x if self.weight is None or self.bias is None else torch.addcmul(self.bias, x, self.weight)


class LayerNorm(_Scaled):
    """`[B, T, ..., channels]` -> the same, mean 0 and biased variance 1. Weights weight and bias [channels]."""

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(channels, eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.channels,), self.weight, self.bias, self.eps)


class RMSNorm(Stateless):
    """`[B, T, ..., channels]` -> the same, root mean square 1. Weight weight [channels]."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.empty(channels))

    def reset(self, generator: Generator) -> None:
        """Scale 1."""
        initial.constant(self.weight, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.channels,), self.weight, self.eps)


class ChannelNorm(Stateless):
    """`[B, T, ..., channels]` -> the same, s (x - mean + m) / std with scalars. Weights m [1] and s [1]."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.m = nn.Parameter(torch.empty(1))
        self.s = nn.Parameter(torch.empty(1))

    def reset(self, generator: Generator) -> None:
        """Mean 0, deviation 1."""
        initial.constant(self.m, 0.0)
        initial.constant(self.s, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - (mean - self.m)) * (self.s * torch.rsqrt(variance + self.eps))


class GroupNorm(_Scaled):
    """`[B, T, ..., channels]` (or static `[b, ..., channels]`) -> the same, per group over the axes but B and T."""

    def __init__(self, channels: int, groups: int, eps: float = 1e-5, affine: bool = True, timed: bool = True) -> None:
        super().__init__(channels, eps, affine)
        if groups < 1 or channels % groups:
            raise ValueError(f"group_norm: {groups} groups do not divide {channels} channels")
        self.groups, self.timed = groups, timed

    def forward(self, x: Tensor) -> Tensor:
        lead = 2 if self.timed else 1
        between = tuple(range(lead, x.dim() - 1))
        grouped = x.unflatten(-1, (self.groups, -1))
        return self.scaled(self.normalised(grouped, (*between, x.dim())).flatten(-2))


class NormOverTime(CannotStep, _Scaled):
    """`[B, T, ..., channels]` -> the same, mean 0 and biased variance 1 along T."""

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(channels, eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(self.normalised(x, (1,)))
