"""Channels put together, taken apart and picked."""

from __future__ import annotations

import torch
from torch import Tensor

from graphspec.ops.modules.contract import Stateless


class Cat(Stateless):
    """`[B, T, ..., C_i]` each -> `[B, T, ..., sum C_i]`. A static value of one row goes with batches of any size."""

    def forward(self, *xs: Tensor) -> Tensor:
        batch = max(x.shape[0] for x in xs)
        return torch.cat([x if x.shape[0] == batch else x.expand(batch, *x.shape[1:]) for x in xs], -1)


class Split(Stateless):
    """`[B, T, ..., C]` -> a tuple of `[B, T, ..., width]`; the widths add up to C."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(self.widths, -1)


class Take(Stateless):
    """`[B, T, ..., C]` -> `[B, T, ..., count]`, the channels from `first` on."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__()
        self.first, self.count = first, count

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(-1, self.first, self.count)
