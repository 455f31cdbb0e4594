"""What a cell reads where it is not simply what it was a tick ago: its first value, and gradients that end.

Both count ticks. In a loop that runs as a scan they are not stepped through: `begins` and `cuts` say at which ticks
they act, and the scan is made of that (compiler/scanning.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphspec.ops.modules.contract import State, Stateless
from graphspec.ops.modules.elementwise import Joined
from graphspec.types import Type


class Begin(Joined):
    """x `[B, T, ...]` and first (timed, static `[b, ...]` or a number) -> x, but `first` at tick 0.

    State {"begun": [B] bool}: whether tick 0 is past.
    """

    def __init__(self, x: Type, first: Type) -> None:
        super().__init__(x, first)

    def forward(self, x: Tensor, first: Any) -> Tensor:
        return self._chosen(x, first, None)

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"begun": torch.zeros(batch, dtype=torch.bool, device=like.device)}

    def step(self, x: Tensor, first: Any, state: State, prepared: State) -> tuple[Tensor, State]:
        return self._chosen(x, first, state["begun"]), self.after(state, x.shape[1])

    def after(self, state: State, ticks: int) -> State:
        """The state so many ticks later."""
        return {"begun": torch.ones_like(state["begun"])}

    def begins(self, before: Tensor, first: Any, begun: Tensor | None) -> Tensor:
        """What stands for the element before the first of a block: `before` `[B, ...]`, or `first`'s where x begins."""
        _, first = self.lined_up(before, first)
        if isinstance(first, Tensor):
            first = first[:, 0].expand(torch.broadcast_shapes(first[:, 0].shape, before.shape))
        else:
            first = torch.full_like(before, first)
        if begun is None:
            return first
        return torch.where(begun.reshape(-1, *[1] * (before.ndim - 1)), before, first)

    def _chosen(self, x: Tensor, first: Any, begun: Tensor | None) -> Tensor:
        x, first = self.lined_up(x, first)
        if self.into_float:
            x, first = self.floats(x), self.floats(first)
        acts = torch.zeros(1, x.shape[1], dtype=torch.bool, device=x.device)
        acts[:, 0] = True
        if begun is not None:
            acts = acts & ~begun[:, None]
        return torch.where(acts.reshape(*acts.shape, *[1] * (x.ndim - 2)), first, x)


class DetachEvery(Stateless):
    """`[B, T, ...]` -> the same, detached at ticks every, 2 every, ... State {"tick": [B] int64}: the next tick."""

    def __init__(self, every: int) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"detach_every: every is 1 or more, not {every}")
        self.every = every

    def forward(self, x: Tensor) -> Tensor:
        return self._cut(x, None)

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"tick": torch.zeros(batch, dtype=torch.int64, device=like.device)}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        return self._cut(x, state["tick"]), self.after(state, x.shape[1])

    def after(self, state: State, ticks: int) -> State:
        """The state so many ticks later."""
        return {"tick": state["tick"] + ticks}

    def cuts(self, ticks: int, tick: Tensor | None, device: torch.device) -> Tensor:
        """[B or 1, ticks] bool: where the gradient ends. tick: [B], the number of the first; none: 0."""
        at = torch.arange(ticks, device=device)[None]
        at = at if tick is None else at + tick[:, None]
        return (at % self.every == 0) & (at > 0)

    def _cut(self, x: Tensor, tick: Tensor | None) -> Tensor:
        if not x.requires_grad:
            return x
        acts = self.cuts(x.shape[1], tick, x.device)
        return torch.where(acts.reshape(*acts.shape, *[1] * (x.ndim - 2)), x.detach(), x)

    def extra_repr(self) -> str:
        return f"every={self.every}"
