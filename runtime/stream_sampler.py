"""Sampling by the stream executor: whatever the schedule of ticks (compiler/plan.py) does not reach.

Values that run ahead of their own time, look-ahead behind a delay, inputs along time that are given beside what is
drawn, feeds of unlike rates. It asks at every tick what can be made, so it is slower than the schedule, and as exact:
the same noise at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from graphspec.compiler.lower import Model
from graphspec.compiler.taking import begun
from graphspec.diagnostic import Fix, SpecError, fail
from graphspec.graph import Value
from graphspec.runtime.chance import Noise
from graphspec.runtime.sample import Sampler, checked_prompt, chosen_knobs, fits


def sampler(
    model: Model,
    rows: int,
    seed: int,
    knobs: Mapping[str, Any] | None = None,
    entry: str = "sample",
    given: Mapping[str, Tensor] | None = None,
    backend: str = "auto",
    warn: Callable[[str], None] = lambda told: None,
) -> Sampler | StreamSampler:
    """By the schedule of ticks where it reaches, on a backend; else by the stream executor."""
    if given:
        return StreamSampler(model, rows, seed, knobs, entry=entry, given=given)
    try:
        return Sampler(model, rows, seed, knobs, entry=entry, backend=backend, warn=warn)
    except SpecError as refused:
        if {d.code for d in refused.diagnostics} != {"GS0641"} or backend not in ("auto", "eager"):
            raise
    return StreamSampler(model, rows, seed, knobs, entry=entry)


class StreamSampler:
    """A model ready to sample a batch of rows. given: inputs along time from outside, whole, `[B, n, C]` by name."""

    chosen = "stream"

    def __init__(
        self,
        model: Model,
        rows: int,
        seed: int,
        knobs: Mapping[str, Any] | None = None,
        first_row: int = 0,
        entry: str = "sample",
        given: Mapping[str, Tensor] | None = None,
    ) -> None:
        view = model.eval().entries.get(entry)
        if view is None or not view.graph.feeds:
            fail("GS0627", f"the spec has no '{entry}' with a feed, so nothing says what is drawn", None)
        graph = view.graph
        self.fed = tuple((f.source, f.drawn) for f in graph.feeds)
        self.played = {n: v for n, v in graph.outputs.items() if v.type.timed}
        self.like = next(model.parameters()).detach()
        self._noise = Noise(seed, torch.arange(first_row, first_row + rows), self.like)
        self.flow = view.flow([*(d for _, d in self.fed), *self.played.values()], ahead=True)
        self.rows = rows
        given = dict(given or {})
        sources = {s for s, _ in self.fed}
        for v in self.flow.sources:
            if v not in sources and v.path not in given:
                fixes = [Fix(f"give it whole: --given {v.path}=FILE")]
                fail("GS0629", f"'{v.path}' is heard while sampling, beside what is drawn", v.span, fixes=fixes)
            if v.path in given:
                fits(f"what is given for '{v.path}'", given[v.path], v.type, rows)
        static = chosen_knobs(graph, knobs or {})
        noise = self._noise.of(self.flow.static)
        with torch.no_grad():
            self.prepared = self.flow.prepare(lambda values: view.evaluate(values, static, noise), static)
            self.state = self.flow.begin(rows, self.like, self.prepared)
        self.waiting: dict[Value, list[Tensor]] = {s: [] for s, _ in self.fed}  # drawn, not fed yet: [B, 1, C] each
        self.left: dict[str, list[Tensor]] = {n: [] for n in self.played}
        self.told = dict.fromkeys(self.played, 0)  # elements of each that have been handed out
        self._push({n: x.to(self.like.device) for n, x in given.items()}, end=set(given))

    @torch.no_grad()
    def _push(self, given: Mapping[str, Tensor], end: set[str] | None = None) -> None:
        made, self.state = self.flow.push(given, self.state, self.prepared, self._noise, end or ())
        for (source, _), x in zip(self.fed, made, strict=False):
            self.waiting[source] += x.split(1, 1) if x.shape[1] else ()
        for name, x in zip(self.played, made[len(self.fed) :], strict=True):
            self.left[name].append(x)

    def prefill(self, prompt: Mapping[str, Tensor]) -> None:
        """Take in a prompt [B, n, C] for every fed input, all at once."""
        sources = [s for s, _ in self.fed]
        prompt = checked_prompt(prompt, sources, self.rows, begun=any(self._at(s) for s in sources))
        self._push(prompt)
        for source in sources:
            del self.waiting[source][: prompt[source.path].shape[1]]
        self._leave()

    def settle(self, ticks: int) -> None:
        """Nothing is built ahead."""

    def draw(self, ticks: int, tell: Callable[[int], None] = lambda done: None) -> dict[str, Tensor]:
        """The next `ticks` of what is fed; of each value in `to:` what leaves meanwhile, [B, n, C] each."""
        if ticks < 1:
            fail("GS0629", f"draw 1 tick or more, not {ticks}", None)
        first, done = self.fed[0][0], 0
        for source, _ in self.elements(ticks):
            done += source is first
            if source is first and done % 256 == 0:
                tell(done)
        return self._leave()

    def elements(self, ticks: int) -> Iterator[tuple[Value, Tensor]]:
        """The next `ticks` of the first fed input: each fed input with the element `[B, 1, C]` drawn for it."""
        first = self.fed[0][0]
        end = self._at(first) + ticks * self.flow.step_of[first]
        while (source := min((s for s, _ in self.fed), key=self._due)) and self._at(source) < end:
            if not self.waiting[source] and len(self.flow.sources) > len(self.fed):
                fail("GS0629", f"nothing more can be drawn for '{source.path}': what it hears has ended", source.span)
            if not self.waiting[source]:
                told = f"a loop hears '{source.path}' and what it is drawn after in one tick"
                fail("GS0190", f"{told}; beside values ahead of their time that is not built yet", source.span)
            element = self.waiting[source].pop(0)
            self._push({source.path: element})
            yield source, element

    def _at(self, source: Value) -> Fraction:
        return self.flow.pushed(self.state, source)

    def _due(self, source: Value) -> tuple[Fraction, bool]:
        """The earliest first; of those of one tick, one that has been drawn."""
        return self._at(source), not self.waiting[source]

    def _leave(self) -> dict[str, Tensor]:
        """Of each played value the elements that have begun, and were not handed out yet."""
        time = min(self._at(s) for s, _ in self.fed)
        out = {}
        for name, v in self.played.items():
            if not self.left[name]:
                continue
            joined = torch.cat(self.left[name], 1)
            n = max(0, begun(time, self.flow.step_of[v]) - self.told[name])
            out[name], self.left[name] = joined[:, :n], [joined[:, n:]]
            self.told[name] += out[name].shape[1]
        return out
