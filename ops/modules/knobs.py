"""Numbers that shape a draw while it runs: a Python number, or a static value `[b]` with one number a batch row."""

from __future__ import annotations

import torch
from torch import Tensor

Knob = float | Tensor | None  # a static `[]` value: a number, or one per batch row `[b]`


def wide(x: Tensor) -> Tensor:
    """At least float32: probabilities of half precision do not add up to 1."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def per_row(knob: float | Tensor, like: Tensor) -> float | Tensor:
    """One number a batch row, lined up with `like`."""
    if not isinstance(knob, Tensor):
        return knob
    return knob.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


def bounded(x: float | Tensor, low: float, high: float) -> float | Tensor:
    """The knob within its range."""
    return x.clamp(low, high) if isinstance(x, Tensor) else min(max(x, low), high)
