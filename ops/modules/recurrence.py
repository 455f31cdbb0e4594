"""Linear recurrences as modules: the solvers of scan.py and companion.py with the contract of an op around them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphspec.ops.modules.companion import companion_scan
from graphspec.ops.modules.contract import Generator, State
from graphspec.ops.modules.scan import affine_scan
from graphspec.types import Type


class _Recurrence(nn.Module):
    """State {"past"}: the last `lags` results `[B, lags, ...]`, oldest first."""

    lags = 1

    def __init__(self, result: Type | None) -> None:
        super().__init__()
        self.sizes = tuple(int(d.as_int() or 1) for d in result.after_time) if result is not None else ()

    def reset(self, generator: Generator) -> None:
        """Draws nothing."""

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"past": like.new_zeros(batch, self.lags, *self.sizes)}


class LinearScan(_Recurrence):
    """a, b -> y with y_t = a_t y_{t-1} + b_t; `solve` takes the past, too."""

    def __init__(self, a: Type | None, b: Type | None) -> None:
        wide = [t for t in (a, b) if t is not None and t.timed]
        super().__init__(max(wide, key=lambda t: max(d.as_int() or 0 for d in t.after_time)) if wide else None)
        self.rank = len(wide[0].dims) + 1 if wide else 0

    def solve(self, a: Tensor, b: Tensor, before: Tensor) -> Tensor:
        """a broadcasts to b `[B, T, ...]`; before `[B, ...]` is the result one tick before."""
        return affine_scan(a, b, before)

    def forward(self, a: Any, b: Any) -> Tensor:
        return self._from(a, b, b.new_zeros(b.shape[0], *self.sizes))

    def step(self, a: Any, b: Any, state: State, prepared: State) -> tuple[Tensor, State]:
        y = self._from(a, b, state["past"][:, 0])
        return y, {"past": y[:, -1:].contiguous()}

    def _from(self, a: Any, b: Tensor, before: Tensor) -> Tensor:
        return self.solve(_gain(a, b), b, before)


class CompanionScan(_Recurrence):
    """b, c_1, c_2, ... -> y with y_t = sum_i c_i y_{t-i} + b_t; `solve` takes the past, too."""

    def __init__(self, b: Type | None, *c: Type | None) -> None:
        super().__init__(b)
        self.lags = len([t for t in c if t is not None]) or 1

    def solve(self, c: Tensor, b: Tensor, before: Tensor) -> Tensor:
        """c `[1 or B, 1 or T, lags, ...]`, b `[B, T, ...]`, before `[B, lags, ...]`, oldest first."""
        constant = c.shape[0] == 1 and c.shape[1] == 1
        return companion_scan(c[0, 0] if constant else c.expand(b.shape[0], b.shape[1], *c.shape[2:]), b, before)

    def forward(self, b: Tensor, *c: Any) -> Tensor:
        return self.solve(self._gains(b, c), b, b.new_zeros(b.shape[0], self.lags, *b.shape[2:]))

    def step(self, b: Tensor, *c: Any, state: State, prepared: State) -> tuple[Tensor, State]:
        y = self.solve(self._gains(b, c), b, state["past"])
        return y, {"past": torch.cat([state["past"], y], 1)[:, -self.lags :].contiguous()}

    def _gains(self, b: Tensor, c: tuple[Any, ...]) -> Tensor:
        each = [_gain(x, b) for x in c]
        time = max(x.shape[1] for x in each)
        rows = max(x.shape[0] for x in each)
        return torch.stack([x.expand(rows, time, *b.shape[2:]) for x in each], 2)


def _gain(a: Any, b: Tensor) -> Tensor:
    """A number, static or timed gain with the rank of b."""
    if not isinstance(a, Tensor):
        return b.new_full((1,) * b.ndim, float(a))
    missing = b.ndim - a.ndim
    return a.reshape(a.shape[0], *[1] * missing, *a.shape[1:]) if missing else a
