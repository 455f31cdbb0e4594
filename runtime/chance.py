"""The random operands of a graph, from the counter: a function of seed, value, row and absolute index (DESIGN 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from graphspec.graph import Value
from graphspec.ops.modules.noise import normal, stream_id, uniform


class Noise:
    """The random operands of a run; `rows` `[B]` are the numbers of its rows. Dtype and device of `like`."""

    def __init__(self, seed: int, rows: Tensor, like: Tensor) -> None:
        self.seed, self.rows, self.like = seed, rows, like

    def __call__(self, v: Value, first: int, count: int) -> Tensor | None:
        """`[B, count, ...]` of elements first .. first + count - 1 of a value; none where only training is random.

        A static value has the one element 0.
        """
        if v.noise is None or v.op is None or v.op.training_noise:
            return None
        after = [int(d.as_int() or 1) for d in v.noise.after_time]
        kind = normal if v.op.noise.startswith("normal") else uniform
        at, width = torch.arange(first, first + count), math.prod(after)
        made = kind(self.seed, stream_id(v.path), self.rows, at, width, self.like.dtype, self.like.device)
        return made.reshape(len(self.rows), count, *after)

    def of(self, values: Iterable[Value], elements: Callable[[Value], int] = lambda v: 1) -> dict[str, Tensor]:
        """As a form takes it, by path: `[B, elements(v), ...]` from the start, of a static value `[B, ...]`."""
        out: dict[str, Tensor] = {}
        for v in values:
            if v.noise is None:
                continue
            made = self(v, 0, elements(v) if v.noise.timed else 1)
            if made is not None:
                out[v.path] = made if v.noise.timed else made[:, 0]
        return out
