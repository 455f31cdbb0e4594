"""The coarse and the fine part of classes."""

from __future__ import annotations

from torch import Tensor

from graphspec.ops.modules.contract import Stateless


class Quotient(Stateless):
    """Classes `[B, T, ...]` -> x // by."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x // self.by


class Remainder(Stateless):
    """Classes `[B, T, ...]` -> x % by."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x % self.by


class Combine(Stateless):
    """Coarse and fine classes `[B, T, ...]` -> coarse * classes + fine."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return coarse * self.classes + fine
