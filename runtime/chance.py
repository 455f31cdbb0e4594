"""The random operands of a graph, from the counter: a function of seed, value, row and absolute index (DESIGN 5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphspec.graph import Value
from graphspec.ops.modules.noise import normal, stream_id, uniform


def drawn(v: Value, seed: int, rows: Tensor, start: int, count: int, like: Tensor) -> Tensor:
    """Noise `[B, count, ...]` of a value's elements start .. start + count - 1; rows `[B]` are their numbers.

    Dtype and device of `like`. A static value has the one element 0.
    """
    assert v.noise is not None and v.op is not None
    after = [int(d.as_int() or 1) for d in v.noise.after_time]
    kind = normal if v.op.noise.startswith("normal") else uniform
    made = kind(
        seed, stream_id(v.path), rows, torch.arange(start, start + count), math.prod(after), like.dtype, like.device
    )
    return made.reshape(len(rows), count, *after)
