"""What each value takes of its operands when it is streamed, and when: counted in elements, without tensors.

A value makes `group` elements at once. Most ops take whole steps: for a group all the operand elements that belong to
it. An op whose declared window ends elsewhere (it looks ahead, or needs less than its step) takes windows. A delay
makes nothing, it only counts on; loops are one with all that goes round in them. The planner of latency and the
executor of streams both follow this page, which is why what is planned is what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf, lcm

from graphspec.compiler.regions import Region
from graphspec.diagnostic import Diagnostic, Related, SpecError
from graphspec.graph import Graph, Value
from graphspec.time import Window


@dataclass(frozen=True, eq=False)
class Node:
    """Values that are made together. kind: source, delay, window, step, part, loop.

    reads: for each timed operand the window by groups in which it is taken. waits: its elements are not made before
    their own time, though what they read may be there.
    """

    kind: str
    values: tuple[Value, ...]
    reads: tuple[tuple[Value, Window], ...] = ()
    region: Region | None = None
    waits: bool = False

    @property
    def value(self) -> Value:
        return self.values[0]

    @property
    def group(self) -> int:
        return self.reads[0][1].group if self.reads else 1


def group_of(value: Value) -> int:
    """How many elements come out at once: p for an op that turns one element into p, or reads p together."""
    return lcm(*(lcm(w.stride.denominator, w.group) for w in value.windows)) if value.windows else 1


def nodes(graph: Graph, targets: Sequence[Value], regions: Sequence[Region]) -> list[Node]:
    """The nodes that the targets need, in an order in which operands come first. Static values have none.

    Raises SpecError GS0640 at a value that reads all of time, or that makes time of what has none.
    """
    needed = graph.needed_for(list(targets))
    wanted = set(needed)
    region_of = {v: r for r in regions for v in (*r.carries, *r.members) if v in wanted}
    out: list[Node] = []
    done: set[Region] = set()
    for v in ordered(needed, region_of):
        if not v.type.timed:
            heard = next((o for o in v.values() if o.type.timed), None)
            if heard is not None:
                raise _refused(f"{v.path} reads all of {heard.path}, to its end, so it cannot be streamed", v)
            continue
        region = region_of.get(v)
        if region is None:
            out.append(node(v))
        elif region not in done:
            done.add(region)
            out += _loop(graph, region, wanted)
    return out


def ordered(values: Sequence[Value], region_of: dict[Value, Region]) -> list[Value]:
    """The values so that all that a loop reads of others stands before its first value."""
    order: dict[Value, None] = {}
    for start in values:
        stack = [start]
        while stack:
            v = stack[-1]
            region = region_of.get(v)
            missing = [o for o in (region.outside if region is not None else tuple(v.values())) if o not in order]
            if v in order or not missing:
                stack.pop()
                order |= dict.fromkeys((v,) if region is None else (*region.carries, *region.members))
            else:
                stack += missing
    known = set(values)
    return [v for v in order if v in known]


def _loop(graph: Graph, region: Region, wanted: set[Value]) -> list[Node]:
    if not region.members:  # cells that something else fills: delays
        return [
            Node("delay", (c,), ((graph.backs[c].source, Window(past=c.carry, future=-c.carry)),), region, waits=True)
            for c in region.carries
            if c in wanted
        ]
    inits = {graph.backs[c].init for c in region.carries}
    read = tuple((o, Window()) for o in region.outside if o.type.timed and o not in inits)
    return [Node("loop", (*region.carries, *region.members), read, region)]


def node(v: Value) -> Node:
    """The node of a value that stands in no loop."""
    if v.is_input:
        return Node("source", (v,))
    if v.part is not None:
        whole = v.operands[0]
        assert isinstance(whole, Value)
        return Node("part", (v,), ((whole, Window()),))
    timed = [(o, w) for o, w in zip(v.operands, v.windows, strict=True) if isinstance(o, Value) and o.type.timed]
    if not timed:
        raise _refused(f"{v.path} makes time of what has none, so it has no beginning to stream from", v)
    for o, w in timed:
        if w.future == inf:
            raise _refused(f"{v.path} reads all of {o.path}, to its end, so it cannot be streamed", v)
    if all(w.copies for _, w in timed):
        return Node("delay", (v,), tuple(timed), waits=True)
    group = group_of(v)
    stepped = [(o, _step(w, group)) for o, w in timed]
    # What is read of a past without end is remembered.
    windowed = [(o, replace(w, group=group, past=0 if w.past == inf else w.past)) for o, w in timed]
    ends = [(a.reads(0)[1], b.reads(0)[1]) for (_, a), (_, b) in zip(stepped, windowed, strict=True)]
    if all(whole == last for whole, last in ends):
        return Node("step", (v,), tuple(stepped))
    return Node("window", (v,), tuple(windowed), waits=max(last for _, last in ends) < 0)


def _step(w: Window, group: int) -> Window:
    """All the elements that belong to a group, besides what the op remembers."""
    span = int(group * w.stride)
    return Window(w.stride, 0, span - 1 - (group - 1) * w.stride.numerator // w.stride.denominator, group=group)


def span(w: Window) -> int:
    """Operand elements from one group to the next."""
    return int(w.group * w.stride)


def within(of: Node, made: dict[Value, int]) -> int:
    """How many elements the node can have made when so many of its operands are."""
    groups = []
    for o, w in of.reads:
        _, last = w.reads(0)
        groups.append((made[o] - 1 - int(last)) // span(w) + 1)
    return max(0, min(groups)) * of.group


def begun(ticks: Fraction, step: Fraction) -> int:
    """How many elements of `step` ticks have begun after so many ticks."""
    return -(-ticks // step)


def _refused(message: str, value: Value) -> SpecError:
    related = tuple(Related("called here", s) for s in value.trail[-2:])
    return SpecError(Diagnostic("GS0640", message, value.span, related=related))
