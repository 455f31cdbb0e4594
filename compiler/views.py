"""Views of one graph: some values cut and given from outside, some replaced by others, dead parts gone.

Values that nothing of this touches are the same objects in every view, so their modules and weights are, too. The
others are copies under the same path, with the operands of the view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from graphspec.diagnostic import Related, fail
from graphspec.graph import Back, Constant, Feed, Graph, Input, Value
from graphspec.span import Span


@dataclass(frozen=True)
class Swap:
    """What stands for a value in the view, and where that is written."""

    by: Value | Constant
    span: Span
    cut: bool = False  # it comes from outside, and is not computed from anything
    name: str = ""  # the value, as the spec calls it


class Substitution:
    """The values of a view, in dataflow order, made as they are asked for."""

    def __init__(self, swaps: Mapping[Value, Swap], backs: Mapping[Value, Back]):
        self.swaps, self._backs = swaps, backs
        self.backs: dict[Value, Back] = {}  # of the view
        self.order: list[Value] = []
        self._made: dict[Value, Value | Constant] = {}

    def of(self, value: Value) -> Value | Constant:
        """What stands for this value in the view."""
        open_: set[Value] = set()
        stack = [value]
        while stack:
            v = stack[-1]
            if v in self._made:
                stack.pop()
                continue
            swap = self.swaps.get(v)
            needs = self._needs(v, swap)
            waiting = [n for n in needs if n not in self._made]
            if waiting:
                if v in open_:
                    assert swap is not None or any(n in open_ for n in waiting)
                    at = swap or next(self.swaps[n] for n in open_ if n in self.swaps)
                    fail(
                        "GS0525",
                        "what is set depends on itself in this view",
                        at.span,
                        related=[Related(str(v), v.span)],
                    )
                open_.add(v)
                stack += waiting
                continue
            stack.pop()
            open_.discard(v)
            self._made[v] = self._make(v, swap)
        return self._made[value]

    def close(self) -> None:
        """Close the loops of the carries that were met."""
        done: set[Value] = set()
        while True:
            open_ = [c for c in self._backs if c in self._made and c not in done]
            if not open_:
                return
            for c in open_:
                done.add(c)
                back, carry = self._backs[c], self._made[c]
                source = self.of(back.source)
                init = self.of(back.init) if isinstance(back.init, Value) else back.init
                assert isinstance(carry, Value) and isinstance(source, Value)
                self.backs[carry] = replace(
                    back, source=source, init=init.value if isinstance(init, Constant) else init
                )

    def _needs(self, v: Value, swap: Swap | None) -> list[Value]:
        if swap is None:
            return list(v.values())
        if swap.cut or isinstance(swap.by, Constant):
            return []
        return [swap.by]

    def _make(self, v: Value, swap: Swap | None) -> Value | Constant:
        if swap is not None and not swap.cut:
            return swap.by if isinstance(swap.by, Constant) else self._made[swap.by]
        if swap is not None:
            assert isinstance(swap.by, Value)
            made = swap.by
        else:
            operands = tuple(o if isinstance(o, Constant) else self._made[o] for o in v.operands)
            made = (
                v if all(a is b for a, b in zip(operands, v.operands, strict=True)) else replace(v, operands=operands)
            )
        self.order.append(made)
        return made


def cut(value: Value, name: str) -> Value:
    """The value as something that comes from outside."""
    return value if value.is_input else Value(path=name, type=value.type, span=value.span, before=value.before)


def view(
    graph: Graph, name: str, swaps: Mapping[Value, Swap], targets: Mapping[str, Value], feeds: Iterable[Feed] = ()
) -> Graph:
    """The graph that computes the targets (values of `graph`) under the swaps."""
    made = Substitution(swaps, graph.backs)
    found: dict[str, Value] = {}
    for target, value in targets.items():
        there = made.of(value)
        if isinstance(there, Constant):
            at = swaps[value].span if value in swaps else value.span
            fail("GS0524", f"'{target}' is the number {there.value} in this view; nothing is computed", at)
        found[target] = there
    fed = []
    for f in feeds:
        source, drawn = made.of(f.source), made.of(f.drawn)
        assert isinstance(source, Value) and isinstance(drawn, Value)
        fed.append(Feed(source, drawn, f.span))
    made.close()
    inputs = {v.path: graph.inputs.get(v.path) or Input(v) for v in made.order if v.is_input}
    inputs = {
        n: i if i.value in made.order else Input(v)
        for v in made.order
        if v.is_input
        for n, i in [(v.path, inputs[v.path])]
    }
    return Graph(
        name=name,
        doc="",
        inputs=inputs,
        values=tuple(made.order),
        named=found,
        facts=graph.facts,
        losses=(),
        metrics=(),
        outputs=found,
        assertions=(),
        feeds=tuple(fed),
        params=graph.params,
        backs=made.backs,
    )


def evaluation(graph: Graph, swaps: Mapping[Value, Swap]) -> Graph:
    """The whole graph as it is outside training."""
    made = Substitution(swaps, graph.backs)

    def of(value: Value) -> Value:
        there = made.of(value)
        if isinstance(there, Constant):
            fail("GS0524", f"'{value.path}' is the number {there.value} outside training", value.span)
        return there

    def term(t):  # type: ignore[no-untyped-def]
        weight = t.weight
        if isinstance(weight, Value):
            there = made.of(weight)
            weight = float(there.value) if isinstance(there, Constant) else there
        return replace(t, value=of(t.value), weight=weight, mask=of(t.mask) if t.mask is not None else None)

    losses, metrics = tuple(map(term, graph.losses)), tuple(map(term, graph.metrics))
    outputs = {n: of(v) for n, v in graph.outputs.items()}
    cached = {n: v for n, v in graph.cached.items() if made.of(v) is v}
    made.close()
    return replace(
        graph,
        values=tuple(made.order),
        inputs={n: i for n, i in graph.inputs.items() if i.value in set(made.order)},
        named={},
        losses=losses,
        metrics=metrics,
        outputs=outputs,
        assertions=(),
        feeds=(),
        cached=cached,
        entries={},
        evaluation=None,
        backs=made.backs,
    )
