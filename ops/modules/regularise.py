"""Noise that only training sees."""

from __future__ import annotations

import torch
from torch import Tensor

from graphspec.ops.modules.contract import Stateless


class Dropout(Stateless):
    """Inverted dropout of `[B, T, ..., C]`; `noise` is uniform in (0, 1), of the same shape, or None for identity."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout: p is in [0, 1), not {p}")
        self.p = p

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None or self.p == 0:
            return x
        # where, not a product: a dropped element is 0 even if it was infinite.
        return torch.where(noise < self.p, 0.0, x * (1 / (1 - self.p)))

    def extra_repr(self) -> str:
        return f"p={self.p}"
