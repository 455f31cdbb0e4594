"""Dense maps of the channels at one tick: a matrix, and a table of vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import initial
from graphspec.ops.modules.contract import Generator, Stateless


class Linear(Stateless):
    """y = W x + b: `[B, T, ..., channels]` -> `[B, T, ..., units]`. Weights weight [units, channels], bias [units]."""

    def __init__(self, channels: int, units: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(units, channels))
        self.bias = nn.Parameter(torch.empty(units)) if bias else None

    def reset(self, generator: Generator) -> None:
        """Uniform in +-1/sqrt(channels), both: what kaiming_uniform with a = sqrt(5) comes to."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        initial.uniform(self.weight, bound, generator("weight"))
        if self.bias is not None:
            initial.uniform(self.bias, bound, generator("bias"))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    @staticmethod
    def stacked(modules: Sequence[Linear]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """Several of them on one operand as one product, for loops that run tick by tick."""
        weight = torch.cat([m.weight for m in modules])
        none = all(m.bias is None for m in modules)
        zero = modules[0].weight.new_zeros
        each = [m.bias if m.bias is not None else zero(m.weight.shape[0]) for m in modules]
        bias = None if none else torch.cat(each)
        sizes = [m.weight.shape[0] for m in modules]
        return lambda x: F.linear(x, weight, bias).split(sizes, -1)


class Embed(Stateless):
    """Classes `[B, T, ..., channels]` -> `[B, T, ..., channels*width]`; weight [channels, classes, width]."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, classes, width))

    def reset(self, generator: Generator) -> None:
        """Standard normal."""
        initial.normal(self.weight, generator("weight"))

    def forward(self, x: Tensor) -> Tensor:
        channels, classes, _ = self.weight.shape
        if channels > 1:  # all tables as one, each channel at its own offset
            x = x + torch.arange(channels, device=x.device) * classes
        return F.embedding(x, self.weight.flatten(0, 1)).flatten(-2)


class Face(Stateless):
    """Another function over the weights of `of`, which stays their only owner."""

    def __init__(self, of: nn.Module) -> None:
        super().__init__()
        self._of = (of,)  # not a submodule: its weights are named once

    @property
    def of(self) -> nn.Module:
        return self._of[0]


class TiedLogits(Face):
    """`[B, T, ..., width]` -> `[B, T, ..., classes]` by the table of an `Embed` of one channel."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.of.weight[0])


class Table(Face):
    """The tables of an `Embed`, one below the other: `[1, channels*classes, width]`."""

    def forward(self) -> Tensor:
        return self.of.weight.flatten(0, 1)[None]


class Param(Stateless):
    """A learned value `[1, *shape]`, the same for all rows; zeros at first."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))

    def reset(self, generator: Generator) -> None:
        initial.constant(self.weight, 0.0)

    def forward(self) -> Tensor:
        return self.weight[None]
