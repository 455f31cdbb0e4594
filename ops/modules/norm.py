"""Normalisation over the channels of one tick."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import initial
from graphspec.ops.modules.contract import Generator, Stateless


class LayerNorm(Stateless):
    """`[B, T, ..., channels]` -> the same, mean 0 and biased variance 1. Weights weight and bias [channels]."""

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.empty(channels)) if affine else None
        self.bias = nn.Parameter(torch.empty(channels)) if affine else None

    def reset(self, generator: Generator) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None and self.bias is not None:
            initial.constant(self.weight, 1.0)
            initial.constant(self.bias, 0.0)

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
