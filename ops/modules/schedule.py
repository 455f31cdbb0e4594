"""Functions of the update count, on tensors of any shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphspec.ops.modules.contract import Stateless


def _tensor(x: Tensor | float) -> Tensor:
    """The count of updates may come as a number."""
    return x if isinstance(x, Tensor) else torch.tensor(float(x))


class Cosine(Stateless):
    """From start at 0 to end at `over`, half a cosine."""

    def __init__(self, start: float, end: float, over: float) -> None:
        super().__init__()
        self.start, self.end, self.over = start, end, over

    def forward(self, x: Tensor | float) -> Tensor:
        x = _tensor(x)
        done = (x / self.over).clamp(0, 1)
        return self.end + (self.start - self.end) * 0.5 * (1 + torch.cos(math.pi * done))


class Ramp(Stateless):
    """From start at 0 to end at `over`, a straight line."""

    def __init__(self, start: float, end: float, over: float) -> None:
        super().__init__()
        self.start, self.end, self.over = start, end, over

    def forward(self, x: Tensor | float) -> Tensor:
        x = _tensor(x)
        return self.start + (self.end - self.start) * (x / self.over).clamp(0, 1)


class WarmupCosine(Stateless):
    """peak * (x + 1) / warmup below warmup, then a cosine to floor at `over`."""

    def __init__(self, peak: float, warmup: float, over: float, floor: float) -> None:
        super().__init__()
        self.peak, self.warmup = peak, warmup
        self.down = Cosine(peak, floor, max(over - warmup, 1))

    def forward(self, x: Tensor | float) -> Tensor:
        x = _tensor(x)
        rising = self.peak * (x + 1) / max(self.warmup, 1)
        return torch.where(x < self.warmup, rising, self.down(x - self.warmup))


class Exponential(Stateless):
    """start * rate ** (x / over)."""

    def __init__(self, start: float, rate: float, over: float) -> None:
        super().__init__()
        self.start, self.rate, self.over = start, rate, over

    def forward(self, x: Tensor | float) -> Tensor:
        x = _tensor(x)
        return self.start * self.rate ** (x / self.over)
