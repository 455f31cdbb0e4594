"""The elements a module remembers between steps."""

from __future__ import annotations

from torch import Tensor


def after(joined: Tensor, n: int) -> Tensor:
    """What remains of `[B, k + n, ...]` (k remembered, n new) when n have been used up: the last k, contiguous.

    A copy where n > k: a view of a long prompt would keep all of it in memory.
    """
    last = joined[:, n:]
    return last.clone() if 2 * n > joined.shape[1] else last.contiguous()
