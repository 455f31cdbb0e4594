"""The axes after time: made, moved, multiplied together; time and channels exchanged; time made static and back.

Axes are counted after time, -1 is the last. Tensors are `[B, T, ..., C]`, static ones `[b, ..., C]` with b = B or 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from graphspec.axes import axes_of
from graphspec.ops.modules.contract import CannotStep, MakesFloats, Stateless
from graphspec.types import Type


class Interleave(Stateless):
    """`[B, T, C]` -> `[B, T*C, 1]`, channel i of tick t at tick t*C + i."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, 1)


class Deinterleave(Stateless):
    """`[B, T, 1]` -> `[B, T/n, n]`, the inverse of `Interleave`. A step takes a multiple of n ticks."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, self.n)


class Expand(Stateless):
    """A new axis of 1 at a place counted after time in the result: -1 is behind all."""

    def __init__(self, x: Type, axis: int) -> None:
        super().__init__()
        rank = len(x.after_time)
        if not -rank - 1 <= axis <= rank:
            raise ValueError(f"expand: axis is {-rank - 1}..{rank} for {x}, not {axis}")
        self.at = axis if axis < 0 else axis + (2 if x.timed else 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(self.at)


class Outer(Stateless):
    """`[B, T, ..., m]` and `[B, T, ..., n]` -> `[B, T, ..., m, n]`; a static vector `[b, n]` goes with any other."""

    def __init__(self, a: Type, b: Type) -> None:
        super().__init__()
        ranks = [len(t.dims) for t in (a, b)]
        alike = a.timed == b.timed and ranks[0] == ranks[1]
        if not alike and not any(len(t.dims) == 1 and not t.timed for t in (a, b)):
            raise ValueError(f"outer: {a} and {b} have different axes")
        self.lifts = tuple(max(ranks) - rank for rank in ranks)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = (
            x.reshape(x.shape[0], *[1] * lift, *x.shape[1:]) if lift else x
            for x, lift in zip((a, b), self.lifts, strict=True)
        )
        return a[..., :, None] * b[..., None, :]


class Einsum(Stateless):
    """A sum of products by letters, `en,n->e`: letters name axes after time; time and batch stay as they are."""

    def __init__(self, pattern: str, *types: Type) -> None:
        super().__init__()
        sides = pattern.replace(" ", "").split("->")
        inputs = sides[0].split(",")
        if len(sides) != 2 or len(inputs) != len(types):
            raise ValueError(f"einsum: '{pattern}' is not for {len(types)} operands")
        for letters, t in zip(inputs, types, strict=True):
            if len(letters) != len(t.after_time):
                raise ValueError(f"einsum: '{letters}' does not name the axes after time of {t}")
        batch, time = [c for c in "BTXYZUVW" if c not in pattern][:2]
        heads = [batch + (time if t.timed else "") for t in types]
        whole = batch + (time if any(t.timed for t in types) else "")
        self.pattern = pattern
        self.equation = ",".join(h + i for h, i in zip(heads, inputs, strict=True)) + "->" + whole + sides[1]

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.einsum(self.equation, *xs)  # axes of 1 (a static value's batch) stretch

    def extra_repr(self) -> str:
        return self.pattern


class Rearrange(Stateless):
    """Axes after time split, joined and reordered, `(h c) -> h c`, by the names in a pattern (Rogozhnikov 2022)."""

    def __init__(self, pattern: str, x: Type, sizes: Mapping[str, int]) -> None:
        super().__init__()
        left, right = (axes_of(side) for side in pattern.split("->"))
        if len(left) != len(x.after_time):
            raise ValueError(f"rearrange: '{pattern}' names {len(left)} axes, {x} has {len(x.after_time)} after time")
        known = dict(sizes)
        for group, dim in zip(left, x.after_time, strict=True):
            size = dim.as_int()
            if size is None:
                raise ValueError(f"rearrange: an axis of {x} is not a known number")
            unknown = [n for n in group if n not in known]
            rest = math.prod(known[n] for n in group if n in known)
            if len(unknown) > 1 or size % rest or (not unknown and size != rest):
                raise ValueError(f"rearrange: '{pattern}' does not say how {size} is split")
            known |= dict.fromkeys(unknown, size // rest)
        names = [n for group in left for n in group]
        if sorted(names) != sorted(n for group in right for n in group) or len(set(names)) < len(names):
            raise ValueError(f"rearrange: '{pattern}' does not have the same names on both sides, once each")
        self.pattern = pattern
        self.keep = 2 if x.timed else 1
        self.split = tuple(known[n] for n in names)
        self.order = tuple(names.index(n) for group in right for n in group)
        self.joined = tuple(math.prod(known[n] for n in group) for group in right)

    def forward(self, x: Tensor) -> Tensor:
        head = x.shape[: self.keep]
        x = x.reshape(*head, *self.split)
        x = x.permute(*range(self.keep), *(self.keep + i for i in self.order))
        return x.reshape(*head, *self.joined)

    def extra_repr(self) -> str:
        return self.pattern


class AsStatic(CannotStep):
    """Timed `[B, T, ..., C]` -> static `[B, T, ..., C]`: the same tensor, of which all may be read at once."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class AsTime(CannotStep):
    """Static `[b, n, ..., C]` -> timed `[b, n, ..., C]`: the same tensor, its first axis now time."""

    def forward(self, y: Tensor) -> Tensor:
        return y


class OneHot(MakesFloats):
    """Classes `[B, T, ..., C]` -> `[B, T, ..., C*classes]`, one 1 in each group. A class out of range is all zeros."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return self.floats(x[..., None] == torch.arange(self.classes, device=x.device)).flatten(-2)

    def extra_repr(self) -> str:
        return f"classes={self.classes}"


class ArgMax(Stateless):
    """`[B, T, ..., C]` -> the first largest channel `[B, T, ..., 1]`, int64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(-1, keepdim=True)
