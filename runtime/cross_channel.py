"""Does a model of several channels use what lies between them? Each channel's bits, with and without the others' past.

A channel is scored as it is, then again beside other channels that do not belong to it: the same channels of another
recording from another moment (of the same recording, where there is only one), so that their statistics stay as they
are and only the relation is gone. What it costs in bits a sample is what the model had learnt from it. A head that
gives a tick's channels one after the other (`joint`) hears the earlier ones of this very tick, so for it the cost
counts that as well.

The cost is what the model loses, no measure of what the channels share: a model that trusts a relation is surprised
beyond measure where it is broken. What sharing is worth is the score as it is, against that of a model of each channel
by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from graphspec.compiler.lower import Model
from graphspec.diagnostic import fail
from graphspec.runtime.data import Dataset, Piece
from graphspec.runtime.score import heads_of, score


@dataclass(frozen=True)
class Relation:
    """Of one head and one channel, in bits a sample.

    own: the others as they are. shuffled: the others from elsewhere. error: the standard error of the difference, from
    its spread over the recordings; none of fewer than two.
    """

    head: str
    channel: int
    own: float
    shuffled: float
    error: float | None

    @property
    def difference(self) -> float:
        return self.shuffled - self.own


def cross_channel(
    model: Model,
    data: Dataset,
    given: Sequence[Mapping[str, Piece]],
    seed: int = 0,
    step: int = 0,
    tell: Callable[[str], None] = lambda told: None,
) -> list[Relation]:
    """What each channel's score owes to the others, for every head that scores an input of several channels.

    given: the recordings (`rows`). step: as in `score`. tell: is told what is being scored. Raises GS0660 where no
    head scores an input of several channels.
    """
    found = []
    for head, name in _heads(model, data).items():
        channels = data.tracks[name].audio.tensor(next(iter(given))[name].samples[:1]).shape[-1]
        tell(f"{head}: '{name}' as it is")
        own, each = _scored(model, data, given, step)
        for c in range(channels):
            tell(f"{head}: channel {c} of '{name}' beside others' channels")
            torn = [{**row, name: _torn(given, name, i, c, seed)} for i, row in enumerate(given)]
            shuffled, each_torn = _scored(model, data, torn, step)
            key = f"{head}.bits[{c}]"
            costs = [after[key] - before[key] for before, after in zip(each, each_torn, strict=True)]
            error = stdev(costs) / len(costs) ** 0.5 if len(costs) > 1 else None
            found.append(Relation(head, c, own[key], shuffled[key], error))
    return found


def _heads(model: Model, data: Dataset) -> dict[str, str]:
    """For each head that scores an input with data, of several channels, the input's name."""
    found = {}
    for head, v in heads_of(model.outside_training).items():
        scored = [o for o, slot in zip(v.operands, v.slots, strict=True) if slot == "x"]
        if any(o.path in data.tracks and o.is_input and o.type.channels > 1 for o in scored):  # type: ignore[union-attr]
            found[head] = scored[0].path  # type: ignore[union-attr]
    if not found:
        fail("GS0660", "no head scores an input of several channels, so there is nothing between channels to ask", None)
    return found


def _scored(
    model: Model, data: Dataset, given: Sequence[Mapping[str, Piece]], step: int
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """(means over all recordings, those of each)"""
    each: list[dict[str, float]] = []
    return score(model, data, given, lambda name, row: each.append(row), step, heads=True), each


def _torn(given: Sequence[Mapping[str, Piece]], name: str, i: int, kept: int, seed: int) -> Piece:
    """Recording i with one channel kept, the others from another recording and another moment, of the same length."""
    piece = given[i][name]
    rng = Generator(PCG64(SeedSequence([seed, i, kept])))
    other = (i + int(rng.integers(1, len(given)))) % len(given) if len(given) > 1 else i
    donor: NDArray[Any] = given[other][name].samples
    n = len(donor)
    # Of itself, from far away: neither its own start nor its end comes near where it was.
    shift = int(rng.integers(n)) if other != i else int(rng.integers(n // 4, max(n // 4 + 1, 3 * n // 4)))
    samples = np.take(donor, np.arange(piece.frames) + shift, axis=0, mode="wrap")
    samples[:, kept] = piece.samples[:, kept]
    return Piece(piece.name, samples)
