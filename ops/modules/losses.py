"""Distances between two values, element by element, and two measures of probabilities over the channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphspec.ops.modules.contract import Stateless
from graphspec.ops.modules.elementwise import Joined
from graphspec.types import Type


class Difference(Joined):
    """l1 |a - b|, l2 (a - b)^2 or huber of a - b: two operands that join, at least one of them a tensor."""

    def __init__(self, name: str, a: Type, b: Type, delta: float = 1.0) -> None:
        super().__init__(a, b, into_float=True)
        self.name, self.delta = name, delta

    def forward(self, a: Any, b: Any) -> Tensor:
        a, b = self.lined_up(a, b)
        if self.into_float:
            a, b = self.floats(a), self.floats(b)
        d = a - b
        if self.name == "l1":
            return d.abs()
        if self.name == "l2":
            return d.square()
        # Zero is of the same rows and dtype as the difference.
        return F.huber_loss(d, torch.zeros_like(d), reduction="none", delta=self.delta)

    def extra_repr(self) -> str:
        return self.name


class CrossEntropy(Stateless):
    """Logits `[B, T, ..., k]` and classes `[B, T, ..., 1]` -> -log p of each, nats `[B, T, ..., 1]`."""

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        rows = max(wide.shape[0], x.shape[0])  # a static value of one row goes with any batch
        wide, x = wide.expand(rows, *wide.shape[1:]), x.expand(rows, *x.shape[1:])
        return -F.log_softmax(wide, -1).gather(-1, x)


class Accuracy(Stateless):
    """Logits `[B, T, ..., C, n]` and classes `[B, T, ..., C]` -> 1 where fewer than k classes are likelier, else 0."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        own = logits.gather(-1, x[..., None])
        return ((logits > own).sum(-1) < self.k).to(logits.dtype)


class Entropy(Stateless):
    """Probabilities `[B, T, ..., C]` -> `[B, T, ..., 1]`: -sum p log p, nats."""

    def forward(self, p: Tensor) -> Tensor:
        wide = p.to(torch.promote_types(p.dtype, torch.float32))
        # Not -p log p as it stands: at 0 its gradient is infinite, and infinity times 0 spoils all weights before it.
        return -(wide * wide.clamp(min=torch.finfo(wide.dtype).tiny).log()).sum(-1, keepdim=True)
