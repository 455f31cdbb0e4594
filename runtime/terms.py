"""Losses and metrics from values to numbers: means over elements, rows, micro-batches and processes together.

A loss with a mask is divided by the sum of the mask over all of them, so a part of an update cannot be averaged by
itself: `means` takes that sum, and gives what makes the plain mean over the parts come out right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from graphspec.graph import Graph, Term, Value
from graphspec.types import Type

MOST_CHANNELS = 8

Found = Mapping[str, Tensor]  # targets by name: losses.NAME, masks.NAME, weights.NAME, metrics.NAME


@dataclass(frozen=True)
class _Sums:
    """Of one loss and one forward pass: its sum, that of its product with its weight, and what both are divided by."""

    loss: Tensor
    weighted: Tensor
    weight: Tensor | float
    count: Tensor | float


class Terms:
    """What a graph is trained on and measured by.

    columns: names of what `means` gives: each loss (`loss.NAME`), each metric (`NAME`; of a few channels also each of
    them, `NAME[0]`), and for a weight that is a value `weight.NAME` and `weighted.NAME`, the product.
    """

    def __init__(self, graph: Graph) -> None:
        self.losses, self.metrics = graph.losses, graph.metrics
        self.channels = {t.name: _channels(t.value.type) for t in self.metrics}
        measured = [n for t in self.metrics for n in _columns(t.name, self.channels[t.name])]
        self.names = [*(t.name for t in self.losses), *measured]
        self.masks = {t.name: t.mask for t in self.losses if t.mask is not None}
        valued = [t.name for t in self.losses if isinstance(t.weight, Value)]
        self.columns = [f"loss.{t.name}" for t in self.losses] + measured
        self.columns += [f"{what}.{name}" for name in valued for what in ("weight", "weighted")]

    def means(self, found: Found, shares: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """One number a column, and the total that is minimised; their plain means over all parts are the means.

        shares: for each loss with a mask the mean, over the parts of the update, of the mask's sum in it (none: this
        pass is the whole update).
        """
        columns, more, total = [], [], torch.zeros(())
        for i, term in enumerate(self.losses):
            s = _sums(term, found)
            count = shares[term.name].to(s.loss) if term.name in shares else s.count
            loss, weighted = _divided(s.loss, count), _divided(s.weighted, count)
            total = weighted if i == 0 else total + weighted
            columns.append(loss)
            if isinstance(term.weight, Value):
                more += [torch.as_tensor(s.weight).to(loss), weighted]
        columns += self._measured(found)
        return columns + more, total

    def tallies(self, found: Found) -> Tensor:
        """float64 `[2 * (len(names) + 1)]` of one pass: sums, the total's last, then what each is divided by.

        Added up over passes and divided, they are means (see `scores`).
        """
        sums = [_sums(t, found) for t in self.losses]
        measured = self._measured(found)
        values = [s.loss for s in sums] + measured
        counts = [s.count for s in sums] + [1.0] * len(measured)
        weighted = [_divided(s.weighted, s.count) for s in sums]
        every = [*values, sum(weighted), *counts, 1.0]
        return torch.stack([torch.as_tensor(x, device=values[0].device).double() for x in every])

    def _measured(self, found: Found) -> list[Tensor]:
        """Each metric's mean, and behind it those of its channels."""
        out = []
        for name, n in self.channels.items():
            x = _wide(found[f"metrics.{name}"])
            out += [x.mean(), *(x.reshape(-1, n).mean(0) if n > 1 else ())]
        return out

    def scores(self, tallies: Tensor) -> tuple[dict[str, float], float]:
        """Means by name, and that of the total, of tallies `[passes, ...]`."""
        values, counts = tallies.sum(0).chunk(2)
        *means, total = torch.where(counts == 0, 0.0, values / counts).tolist()
        return dict(zip(self.names, means, strict=True)), total


def _channels(type_: Type) -> int:
    """How many numbers of a tick are told apart: those of stereo, say, not those of a spectrum."""
    sizes = [d.as_int() or MOST_CHANNELS + 1 for d in type_.after_time]
    n = prod(sizes) if type_.timed else 1
    return n if n <= MOST_CHANNELS else 1


def _columns(name: str, channels: int) -> list[str]:
    return [name, *(f"{name}[{i}]" for i in range(channels if channels > 1 else 0))]


def _sums(term: Term, found: Found) -> _Sums:
    value = _wide(found[f"losses.{term.name}"])
    mask = found.get(f"masks.{term.name}")
    weights = mask.to(value.dtype) if mask is not None else None

    def reduced(x: Tensor) -> Tensor:
        # where, not a product: what is masked away counts as nothing even if it is infinite.
        return x.mean() if weights is None else torch.where(weights == 0, 0.0, x * weights).sum()

    count = weights.sum() if weights is not None else 1.0
    loss = reduced(value)
    if not isinstance(term.weight, Value):
        return _Sums(loss, loss * term.weight, term.weight, count)
    weight = torch.as_tensor(found[f"weights.{term.name}"]).to(value)
    each = weight.reshape(-1, *[1] * (value.dim() - 1)) if weight.dim() else weight
    return _Sums(loss, reduced(value * each), weight.detach().mean(), count)


def _divided(x: Tensor, count: Tensor | float) -> Tensor:
    """x / count, 0 where a mask holds nowhere."""
    return torch.where(count == 0, 0.0, x / count) if isinstance(count, Tensor) else x if count == 1 else x / count


def _wide(x: Tensor) -> Tensor:
    """At least float32: a mean of half precision is none."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
