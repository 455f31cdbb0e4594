"""The time axis itself: delayed, folded into channels, unfolded from them, pooled; and its differences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphspec.ops.modules import history
from graphspec.ops.modules.contract import Generator, State, Stateless
from graphspec.types import Type


class Fold(Stateless):
    """`[B, T, C]` -> `[B, T/p, C*p]`, index h*p + s for channel h of tick s. A step takes a multiple of p ticks."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.p)).transpose(2, 3).flatten(2)


class Unfold(Stateless):
    """`[B, T, C*p]` -> `[B, T*p, C]`, the inverse of `Fold`."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.p)).transpose(2, 3).flatten(1, 2)


class Shift(nn.Module):
    """y_t = x_{t-k}, and `before` where that is before the start: `[B, T, ...]` -> the same, of any dtype.

    State {"past"}: the last k elements, oldest first.
    """

    def __init__(self, x: Type, k: int, before: float | None = None) -> None:
        super().__init__()
        if k < 0:
            raise ValueError(f"shift: k is at least 0, not {k}")
        sizes = tuple(d.as_int() for d in x.tensor_axes[1:])
        if None in sizes:
            raise ValueError(f"shift: the axes after time of {x} are not known numbers")
        self.sizes, self.k, self.before = sizes, k, before or 0
        self.dtype = None if x.dtype.kind == "float" else torch.bool if x.dtype.kind == "bool" else torch.int64

    def reset(self, generator: Generator) -> None:
        """Draws nothing."""

    def forward(self, x: Tensor) -> Tensor:
        if self.k == 0:
            return x
        T = x.shape[1]
        n = min(self.k, T)
        return torch.cat([self._start(x, x.shape[0], n, x.dtype), x[:, : T - n]], 1)

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        """{"past"} [batch, k, ...] filled with `before`; an integer's stays integer whatever `like` is."""
        return {"past": self._start(like, batch, self.k, self.dtype or like.dtype)} if self.k else {}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        if self.k == 0:
            return x, state
        joined, n = torch.cat([state["past"], x], 1), x.shape[1]
        return joined[:, :n], {"past": history.after(joined, n)}

    def _start(self, like: Tensor, batch: int, n: int, dtype: torch.dtype) -> Tensor:
        value = self.before if dtype.is_floating_point else int(self.before)
        return like.new_full((batch, n, *self.sizes), value, dtype=dtype)

    def extra_repr(self) -> str:
        return f"k={self.k}, before={self.before}"


class MaxPool(Stateless):
    """`[B, T, ...]` -> `[B, T/p, ...]`, the largest of each p. A step takes a multiple of p ticks."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.p)).amax(2)


class MeanPool(Stateless):
    """`[B, T, ...]` -> `[B, T/p, ...]`, the mean of each p. A step takes a multiple of p ticks."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.p)).mean(2)


class Delta(nn.Module):
    """The difference of that order along time, x_0 before the start: `[B, T, ...]` -> the same.

    State {"past"}: the last `order` elements, oldest first, and {"begun"} [B]: 0 before the first tick, then 1.
    """

    def __init__(self, x: Type, order: int = 1) -> None:
        super().__init__()
        if order < 1:
            raise ValueError(f"delta: order is at least 1, not {order}")
        sizes = tuple(d.as_int() for d in x.tensor_axes[1:])
        if None in sizes:
            raise ValueError(f"delta: the axes after time of {x} are not known numbers")
        self.sizes, self.order = sizes, order

    def reset(self, generator: Generator) -> None:
        """Draws nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.diff(torch.cat([x[:, :1]] * self.order + [x], 1), self.order, 1)

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"past": like.new_zeros(batch, self.order, *self.sizes), "begun": like.new_zeros(batch)}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        begun = state["begun"].view(-1, *[1] * (x.ndim - 1)) > 0
        joined = torch.cat([torch.where(begun, state["past"], x[:, :1]), x], 1)
        past = history.after(joined, x.shape[1])
        return torch.diff(joined, self.order, 1), {"past": past, "begun": torch.ones_like(state["begun"])}

    def extra_repr(self) -> str:
        return f"order={self.order}"
