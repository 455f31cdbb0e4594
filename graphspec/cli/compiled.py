"""What `graphspec.compile` gives: the lowered model, with what the runtime does with one at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphspec.compiler.lower import Model
from graphspec.runtime.stream import Stream


class Compiled(Model):
    """A lowered spec that also streams.

    >>> import graphspec, torch
    >>> stream = graphspec.compile("filters").stream(["low"])
    >>> stream.push(torch.zeros(1, 100, 1))["low"].shape
    torch.Size([1, 100, 1])
    """

    def stream(
        self,
        values: Sequence[str] = (),
        rows: int = 1,
        knobs: Mapping[str, Any] | None = None,
        entry: str | None = None,
        seed: int = 0,
    ) -> Stream:
        """Outputs along time (all, unless named) as a stream of any chunk size; of an entry, if one is named."""
        view = self.outside_training if entry is None else self.entries[entry]
        names = list(values) or [n for n, v in view.graph.outputs.items() if v.type.timed]
        return Stream(view, names, rows, knobs, seed)
