"""Linear recurrences as modules: the solvers of scan.py and companion.py with the contract of an op around them."""

from __future__ import annotations

from collections.abc import Sequence
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
    """b -> y with y_t = sum_i g_i y_{t-i} + b_t; `solve` takes gains of any kind, and the past."""

    def __init__(self, b: Type | None, gains: Sequence[float] | None) -> None:
        super().__init__(b)
        self.gains = tuple(gains or (0.0,))
        if not 1 <= len(self.gains) <= 4 or not all(isinstance(g, (int, float)) for g in self.gains):
            raise ValueError(f"companion_scan: gains are 1 to 4 numbers, not {list(self.gains)}")
        self.lags = len(self.gains)

    def solve(self, c: Tensor, b: Tensor, before: Tensor) -> Tensor:
        """c `[1 or B, 1 or T, lags, ...]`, b `[B, T, ...]`, before `[B, lags, ...]`, oldest first."""
        return companion_scan(c, b, before)

    def forward(self, b: Tensor) -> Tensor:
        return self._from(b, b.new_zeros(b.shape[0], self.lags, *b.shape[2:]))

    def step(self, b: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        y = self._from(b, state["past"])
        return y, {"past": torch.cat([state["past"], y], 1)[:, -self.lags :].contiguous()}

    def _from(self, b: Tensor, before: Tensor) -> Tensor:
        c = torch.stack([b.new_full((1, 1, *[1] * (b.ndim - 2)), g) for g in self.gains], 2)
        return self.solve(c.expand(1, 1, self.lags, *b.shape[2:]), b, before)


def _gain(a: Any, b: Tensor) -> Tensor:
    """A number, static or timed gain with the rank of b."""
    if not isinstance(a, Tensor):
        return b.new_full((1,) * b.ndim, float(a))
    missing = b.ndim - a.ndim
    return a.reshape(a.shape[0], *[1] * missing, *a.shape[1:]) if missing else a
