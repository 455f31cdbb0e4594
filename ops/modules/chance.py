"""Random values: whoever runs the model draws the noise, so these only shape it."""

from __future__ import annotations

import torch
from torch import Tensor

from graphspec.ops.modules.contract import Stateless


class Drawn(Stateless):
    """The noise itself: static `[b]`, or `[B, T, ..., C]` in the shape of the operand, which is not looked at."""

    def forward(self, *x: Tensor, noise: Tensor) -> Tensor:
        return noise


class RandomInt(Stateless):
    """Uniform noise `[b]` in (0, 1) -> int64 `[b]` in low .. high - 1."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        if not 0 <= low < high:
            raise ValueError(f"random_int: 0 <= low < high, not {low} and {high}")
        self.low, self.high = low, high

    def forward(self, *, noise: Tensor) -> Tensor:
        wide = noise.to(torch.promote_types(noise.dtype, torch.float32))
        # Rounding may bring the product up to high itself.
        return (self.low + (wide * (self.high - self.low)).long()).clamp(max=self.high - 1)

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"
