"""Pass 5, plan: the schedule of sampling. When does each element of each value run, tick by tick (DESIGN 4 and 7)?

Time is counted in phases of a tick of the fed source. With one feed there are two, before and after its element is
drawn; where one feed hears another of the same tick (a fine byte its coarse one), there is one more for each that
waits. Element e of a value with s ticks per element fires at max(phases*floor(e*s), the latest of the elements it
consumes): never before its own
time, so that after a whole block every op has consumed exactly what `step` on that block would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, lcm

from graphspec.compiler.clock import reaches
from graphspec.compiler.taking import group_of
from graphspec.diagnostic import Fix, Related, fail
from graphspec.graph import Constant, Feed, Graph, Value
from graphspec.time import excess

MAX_BLOCK = 65_536  # ticks


@dataclass(frozen=True)
class Fire:
    """Run `value` for elements first .. first + count - 1 of the block, at phase `at` of the block."""

    value: Value
    first: int
    count: int
    at: int


@dataclass(frozen=True)
class Schedule:
    """One period of sampling. `block` ticks; `elements[v]` of value v; `fires` in the order in which they run."""

    block: int
    values: tuple[Value, ...]
    fed: tuple[tuple[Value, Value], ...]  # (input, what is drawn for it)
    elements: Mapping[Value, int]
    fires: tuple[Fire, ...]
    static: tuple[Value, ...]  # computed once, before the first tick
    phases: int = 2  # of a tick
    turns: tuple[int, ...] = ()  # for each feed the phase at whose end it is drawn


def block_of(values: Sequence[Value], rate: Fraction) -> int:
    """The smallest number of ticks of `rate` that is a whole number of every value's elements, and of their groups."""
    out = 1
    for v in values:
        if v.type.rate is not None:
            together = lcm(1, *(w.group for w in v.windows))
            out = lcm(out, (together * rate / v.type.rate).numerator)
    return out


def consumed(value: Value, i: int, first: int, count: int) -> tuple[int, int]:
    """The elements of operand i that elements first .. first+count-1 of the value consume, as (first, end)."""
    n, d = value.windows[i].stride.numerator, value.windows[i].stride.denominator
    return -(-first * n // d), -(-(first + count) * n // d)  # rounded up


def schedule(graph: Graph) -> Schedule:
    """The schedule of an entry with feeds, which have been proven strictly causal.

    Raises SpecError GS0641 for what it does not reach; the stream executor may (runtime/stream_sampler.py).
    """
    feeds = graph.feeds
    played = [v for v in graph.outputs.values() if v.type.timed]
    values = graph.needed_for([f.drawn for f in feeds] + played)
    values += [f.source for f in feeds if f.source not in values]
    sources = [f.source for f in feeds]
    rate = sources[0].type.rate
    assert rate is not None
    for f in feeds:
        if f.source.type.rate != rate:
            fail("GS0641", "what is fed has unlike rates", f.span)
    for v in values:
        if v.is_input and v.type.timed and v not in sources:
            fail("GS0641", f"'{v.path}' is given from outside, beside what is drawn", v.span)
    block = block_of(values, rate)
    if block > MAX_BLOCK:
        fail("GS0804", f"the schedule repeats after {block} ticks; the limit is {MAX_BLOCK}", feeds[0].span)
    elements = {v: int(block * v.type.rate / rate) for v in values if v.type.rate is not None}
    drawn = {f.source: f.drawn for f in feeds}
    turns = _turns(graph, feeds)
    turn_of = {f.source: turn for f, turn in zip(feeds, turns, strict=True)}
    phases = max(turns) + 2
    ready: dict[Value, list[int]] = {}
    fires: list[Fire] = []
    for v in values:
        if not v.type.timed:
            continue
        if v in drawn:
            ready[v] = [phases * k + turn_of[v] + 1 for k in range(elements[v])]
            continue
        step = rate / v.type.rate if v.type.rate is not None else Fraction(1)
        if v.carry:  # an element of the past is there when its own time begins
            ready[v] = [phases * (e * step.numerator // step.denominator) for e in range(elements[v])]
            fires += [Fire(v, e, 1, at) for e, at in enumerate(ready[v])]
            continue
        group = group_of(v)
        times: list[int] = []
        for first in range(0, elements[v], group):
            at = phases * (first * step.numerator // step.denominator)
            for i, operand in enumerate(v.operands):
                if isinstance(operand, Constant) or not operand.type.timed:
                    continue
                at = max(at, _latest(v, i, operand, first, group, ready[operand], phases * block))
            if at >= phases * block:
                fail(
                    "GS0641",
                    f"{v.path} looks ahead of its block while sampling",
                    v.span,
                    related=[Related("needed for what is fed", feeds[0].span)],
                )
            fires.append(Fire(v, first, group, at))
            times += [at] * group
        ready[v] = times
    order = {v: n for n, v in enumerate(values)}
    fires.sort(key=lambda f: (f.at, order[f.value], f.first))
    _in_time(feeds, ready, phases, turns)
    for v in values:
        if v.carry:
            there = ready[graph.backs[v].source]
            ago = [(e - v.carry) for e in range(len(there))]
            made = [there[e % len(there)] + phases * block * (e // len(there)) for e in ago]
            if any(m > at for m, at in zip(made, ready[v], strict=True)):
                told = f"sampling the loop of {v.path} needs values ahead of their time"
                fail("GS0641", told, v.span)
    static = tuple(v for v in values if not v.type.timed and not v.is_input)
    fed = tuple((f.source, f.drawn) for f in feeds)
    return Schedule(block, tuple(values), fed, elements, tuple(fires), static, phases, turns)


def _turns(graph: Graph, feeds: Sequence[Feed]) -> tuple[int, ...]:
    """In which phase each feed is drawn: after those whose element of the same tick it hears."""
    hears = {f: [g for g in feeds if g is not f and _same_tick(graph, f.drawn, g.source)] for f in feeds}
    turns: dict[Feed, int] = {}
    while len(turns) < len(feeds):
        free = [f for f in feeds if f not in turns and all(g in turns for g in hears[f])]
        if not free:
            told = " and ".join(f"'{f.source.path}'" for f in feeds if f not in turns)
            fail("GS0403", f"{told} hear each other in the same tick; one of them must be drawn first", feeds[0].span)
        turns |= {f: max((turns[g] + 1 for g in hears[f]), default=0) for f in free}
    return tuple(turns[f] for f in feeds)


def _same_tick(graph: Graph, value: Value, source: Value) -> bool:
    """Does element k of the value read tick k of the source?"""
    reach = reaches(graph, source).get(value)
    return reach is not None and excess(reach, "strict") > 0


def looks_ahead(values: Sequence[Value]) -> Value | None:
    """A value that reads elements of an operand beyond those a step of its own elements is given, if there is one."""
    for v in values:
        for w, o in zip(v.windows, v.operands, strict=True):
            if isinstance(o, Value) and o.type.timed and v.type.timed:
                group = group_of(v)
                if any(w.reads(k)[1] >= group * w.stride for k in range(group)):
                    return v
    return None


def _latest(v: Value, i: int, operand: Value, first: int, count: int, ready: list[int], period: int) -> int:
    """The phase at which everything that these elements consume of operand i is there."""
    window = v.windows[i]
    size = len(ready)
    if window.copies:  # a delay: element e is element e - n of the operand
        wanted = range(first - int(window.past), first - int(window.past) + count)
    else:
        a, b = consumed(v, i, first, count)
        n, d = window.stride.numerator, window.stride.denominator
        if window.future != inf and (first + count - 1) * n // d + window.future >= b:
            fail("GS0641", f"{v.path} looks ahead", v.span)
        wanted = range(a, b)
    return max((ready[e % size] + period * (e // size) for e in wanted if e >= 0), default=0)


def _in_time(feeds: Sequence[Feed], ready: Mapping[Value, list[int]], phases: int, turns: Sequence[int]) -> None:
    """What is drawn for tick k must have fired before tick k ends.

    The proof of time promises that the inputs are there; but a value that is delayed first and gathered over later
    ticks afterwards would have to run ahead of its own time, which this schedule never does.
    """
    for f, turn in zip(feeds, turns, strict=True):
        late = [k for k, at in enumerate(ready[f.drawn]) if at > phases * k + turn]
        if late:
            fail(
                "GS0641",
                f"sampling '{f.source.path}' needs values ahead of their own time (at tick {late[0]} of the schedule)",
                f.span,
                fixes=[Fix("put the delay behind the fold: x |> fold(p) |> shift(1), not x |> shift(k) |> fold(p)")],
            )
