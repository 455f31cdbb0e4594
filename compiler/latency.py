"""The plan of a stream's latency: after which tick each element is out, who waits for whom, what would save most.

Everything follows from the windows by which a stream takes elements (taking.py). Element k of a value begins at tick
floor(k*step) of the fastest input; its latency is how many ticks later the last of what it waits for comes in. At a
join the earlier operand is delayed by the difference: those are the inserted delays. Inside a loop there are none.

>>> from graphspec.time import Reach, window
>>> later(Reach.source().through(window(past=3, future=2)))     # a centred convolution is two ticks late
2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor, inf, lcm
from typing import Any

from graphspec.compiler import taking
from graphspec.compiler.regions import Region
from graphspec.compiler.taking import Node
from graphspec.compiler.windows import window_of
from graphspec.diagnostic import SpecError, fail
from graphspec.graph import Graph, Value
from graphspec.time import Reach, Ticks, Window, join, join_all


@dataclass(frozen=True)
class Wait:
    """An inserted delay: at `value`, elements of `operand` wait up to so many ticks for its other operands."""

    value: Value
    operand: Value
    ticks: int


@dataclass(frozen=True)
class Hop:
    """One value of the critical path, from the input on; `ticks`: how late its element of the path is by then."""

    value: Value
    ticks: int
    added: int


@dataclass(frozen=True)
class Saving:
    """What the latency would be with this parameter of a value's op; without one, if it waited for nothing at all."""

    value: Value
    change: str
    ticks: int


@dataclass(frozen=True)
class Plan:
    """Of one target. rate: of the ticks that are counted, those of the fastest input. waits: longest first."""

    target: Value
    rate: Fraction
    ticks: int
    path: tuple[Hop, ...]
    waits: tuple[Wait, ...]
    savings: tuple[Saving, ...]

    @property
    def seconds(self) -> Fraction:
        return self.ticks / self.rate


def later(reach: Reach) -> int:
    """The latency of the worst element, in ticks: never less than 0."""
    n, d = reach.step.numerator, reach.step.denominator
    return int(max(0, max(x - k * n // d for k, x in enumerate(reach.last))))


def plan(graph: Graph, target: Value, regions: Sequence[Region], rate: Fraction | None = None) -> Plan:
    """rate: whose ticks are counted, where a stream has a faster input than leads to the target.

    Raises SpecError GS0640 where something on the way reads all of time.
    """
    planner = _Planner(graph, target, regions, rate)
    table = planner.table()
    ticks = later(table[target])
    path = planner.path(table)
    savings: list[Saving] = []
    for hop in path:
        if hop.added > 0 and planner.node_of[hop.value].kind in ("window", "step"):
            tried = [Saving(hop.value, c, later(planner.table(hop.value, n)[target])) for c, n in _changes(hop.value)]
            saved = [s for s in tried if s.ticks < ticks]
            savings += [s for s in saved if s.change] or saved
    savings.sort(key=lambda s: s.ticks)
    return Plan(target, planner.rate, ticks, tuple(path), tuple(planner.waits(table)), tuple(savings))


class _Planner:
    def __init__(self, graph: Graph, target: Value, regions: Sequence[Region], rate: Fraction | None) -> None:
        self.target = target
        self.nodes = taking.nodes(graph, [target], regions)
        self.node_of = {v: n for n in self.nodes for v in n.values}
        rates = [n.value.type.rate for n in self.nodes if n.kind == "source" and n.value.type.rate is not None]
        if not rates:
            fail("GS0640", f"nothing along time leads to {target.path}, so there is nothing to stream", target.span)
        self.rate = rate or max(rates)

    def step(self, v: Value) -> Fraction:
        assert v.type.rate is not None
        return self.rate / v.type.rate

    def table(self, changed: Value | None = None, into: Node | None = None) -> dict[Value, Reach]:
        """For each value the tick after which each element is there; `changed` as if its node were another."""
        out: dict[Value, Reach] = {}
        for n in self.nodes:
            as_is = into if into is not None and n.value is changed else n
            own = _own_time(self.step(n.value), as_is.group)
            parts = [out[o].through(_last(w)) for o, w in as_is.reads]
            reach = join_all([*parts, own] if as_is.waits or n.kind == "source" else parts)
            assert reach is not None
            out |= dict.fromkeys(n.values, reach)
        return out

    def path(self, table: Mapping[Value, Reach]) -> list[Hop]:
        """From the input whose tick comes last to the target, at the target's latest element."""
        v: Value = self.target
        reach = table[v]
        k = max(range(reach.period), key=lambda i: reach.last[i] - _begins(reach, i))
        found: list[tuple[Value, int]] = []
        while True:
            found.append((v, k))
            best: tuple[Ticks, Value, int] | None = None
            for o, w in self.node_of[v].reads:
                e = int(w.reads(k)[1])
                at = table[o].last_at(e)
                if best is None or at > best[0]:
                    best = (at, o, e)
            if best is None or best[0] < table[v].last_at(k):  # an input, or it waits for its own time
                break
            _, v, k = best
        hops = []
        origin, e = found[-1]
        before: Ticks = 0
        for value, index in reversed(found):
            # How much later the path's tick is than the element's own time; what a value adds is what that grew by.
            late = table[origin].last_at(e) - _begins(table[value], index)
            hops.append(Hop(value, int(max(late, 0)), int(late - before)))
            before = late
        return hops

    def waits(self, table: Mapping[Value, Reach]) -> list[Wait]:
        out = []
        for n in self.nodes:
            if len(n.reads) < 2:
                continue
            together = table[n.value]
            for o, w in n.reads:
                alone = table[o].through(_last(w))
                ticks = _apart(together, alone)
                if ticks > 0:
                    out.append(Wait(n.values[-1], o, ticks))
        return sorted(out, key=lambda w: -w.ticks)


def _own_time(step: Fraction, group: int) -> Reach:
    """Element k is there at the first tick of its own time; a whole group with its first element."""
    period = lcm(step.denominator, group)
    last = tuple(floor((k // group * group) * step) for k in range(period))
    return Reach(step, period, last, last)


def _last(w: Window) -> Window:
    """What is waited for: the last element that a group takes."""
    past = w.past if w.past < inf else 0
    return Window(w.stride, max(past, -w.future), w.future, group=w.group)


def _changes(v: Value) -> Iterator[tuple[str, Node]]:
    """Other settings of the op's flags and choices, and how its elements would be taken then; and at best."""
    assert v.op is not None
    for p in v.op.parameters:
        others: Sequence[Any] = p.choices or ((True, False) if p.kind == "bool" else ())
        for other in others:
            if other == v.arguments.get(p.name, p.default):
                continue
            params = {q.name: q.default for q in v.op.parameters if not q.required} | dict(v.arguments)
            params[p.name] = other
            try:
                windows = tuple(
                    window_of(v.op, slot, params) if isinstance(o, Value) and o.type.timed else w
                    for o, slot, w in zip(v.operands, v.slots, v.windows, strict=True)
                )
                if all(w.stride == u.stride for w, u in zip(windows, v.windows, strict=True)):
                    shown = str(other).lower() if isinstance(other, bool) else other
                    yield f"{p.name}={shown}", taking.node(replace(v, windows=windows))
            except SpecError:  # no such window, or it could not stream
                continue
    prompt = tuple(w if w.copies else Window(w.stride) for w in v.windows)
    reads = tuple((o, w) for o, w in zip(v.operands, prompt, strict=True) if isinstance(o, Value) and o.type.timed)
    yield "", Node("window", (v,), reads, waits=True)


def _begins(reach: Reach, k: int) -> int:
    return k * reach.step.numerator // reach.step.denominator


def _apart(late: Reach, early: Reach) -> int:
    """How many ticks the one comes after the other, at worst."""
    joined = join(late, early)
    period = joined.period
    return int(max(late.last_at(k) - early.last_at(k) for k in range(period)))
