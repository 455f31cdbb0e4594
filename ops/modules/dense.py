"""Dense maps of the channels at one tick: a matrix, and a table of vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import initial
from graphspec.ops.modules.contract import Generator, State, Stateless


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

    @staticmethod
    def onto(modules: Sequence[Linear]) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        """As `stacked`, on top of what `beside` made of it at this tick: `[B, 1, ..., C]`, `[B, ..., units]`."""
        weight = torch.cat([m.weight for m in modules]).t()
        sizes = [m.weight.shape[0] for m in modules]

        def call(x: Tensor, plus: Tensor) -> tuple[Tensor, ...]:
            plus = plus if plus.ndim == 2 else plus.flatten(0, -2)
            return torch.addmm(plus, x.flatten(0, -2), weight).unflatten(0, x.shape[:-1]).split(sizes, -1)

        return call

    @staticmethod
    def beside(modules: Sequence[Linear], added: Sequence[Tensor | None]) -> Tensor:
        """What is added to several maps, and their biases, side by side: `[B, T, ..., units]` of all of them."""
        some = next(a for a in added if a is not None)
        each = []
        for m, a in zip(modules, added, strict=True):
            bias = m.bias if m.bias is not None else None
            if a is None:
                zero = some.new_zeros(()) if bias is None else bias
                a = zero.expand(*some.shape[:-1], m.weight.shape[0])
            elif bias is not None:
                a = a + bias
            each.append(a)
        return torch.cat(each, -1)


class NormedLinear(Stateless):
    """A Linear with W = g v / ||v|| row by row (weight normalisation, Salimans and Kingma 2016, arXiv 1602.07868).

    `[B, T, ..., channels]` -> `[B, T, ..., units]`. Weights g [units], v [units, channels], bias [units].
    """

    def __init__(self, channels: int, units: int, bias: bool = True) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.empty(units))
        self.v = nn.Parameter(torch.empty(units, channels))
        self.bias = nn.Parameter(torch.empty(units)) if bias else None

    def reset(self, generator: Generator) -> None:
        """v as a Linear draws its W; g 1/sqrt(3), what the length of such a row is by its mean square."""
        bound = 1 / math.sqrt(self.v.shape[1])
        initial.uniform(self.v, bound, generator("v"))
        initial.constant(self.g, math.sqrt(1 / 3))
        if self.bias is not None:
            initial.uniform(self.bias, bound, generator("bias"))

    def weight(self) -> Tensor:
        """W [units, channels]."""
        return self.v * (self.g / torch.linalg.vector_norm(self.v, dim=1))[:, None]

    def prepare(self) -> State:
        """W as `weight`, made once instead of at every tick."""
        return {"weight": self.weight()}

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(), self.bias)

    def step(self, x: Tensor, *, state: State, prepared: State) -> tuple[Tensor, State]:
        return F.linear(x, prepared["weight"], self.bias), state


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
