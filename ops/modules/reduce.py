"""Many elements to one: over everything after batch, or over channels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from graphspec.ops.modules.contract import CannotStep, MakesFloats
from graphspec.types import Type

_REDUCTIONS: dict[str, Callable[..., Tensor]] = {"mean": Tensor.mean, "sum": Tensor.sum, "max": Tensor.amax}


class OverChannels(MakesFloats):
    """`[B, T, ..., C]` -> `[B, T, ..., 1]`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.name == "max" else self.floats(x)
        return _REDUCTIONS[self.name](x, -1, keepdim=True)

    def extra_repr(self) -> str:
        return self.name


class OverAll(OverChannels):
    """Static `[b, ..., C]` -> `[b]`."""

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.name == "max" else self.floats(x)
        return _REDUCTIONS[self.name](x.reshape(x.shape[0], -1), -1)


class OverAllTime(CannotStep, OverAll):
    """Timed `[B, T, ..., C]` -> `[B]`, a static value."""


def reduction(name: str, x: Type, axis: int | None) -> OverChannels:
    """The module of `mean`, `sum` or `max` of x; axis none is everything, -1 the channels, another a ValueError."""
    if axis not in (None, -1):
        raise ValueError(f"{name}: axis is none (everything) or -1 (the channels), not {axis}")
    if axis == -1:
        return OverChannels(name)
    return OverAllTime(name) if x.timed else OverAll(name)
