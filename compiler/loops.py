"""Loops while they are elaborated: what comes back gets a type before it is made, and the loop is closed behind it.

`h: z * h[t-1] + x`: the first pass finds out types with h[t-1] unknown, and leaves no trace; the second makes the
values, with a carry where h[t-1] stands. The carry's `Back` is the edge that the graph itself does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from graphspec.compiler.stages import POISON, Scope
from graphspec.compiler.unfold import Unfolding
from graphspec.diagnostic import Fix, Related, SpecError, fail
from graphspec.dims import Dim
from graphspec.expression import Expr, History, Name, children, read_names
from graphspec.graph import Back, Value
from graphspec.span import Span
from graphspec.types import UNKNOWN, Type


class Carried:
    """One value of a loop as its readers see it in the past; a carry for each number of ticks."""

    def __init__(self, loops: Loops, name: str, type_: Type, span: Span):
        self.loops, self.name, self.type, self.span = loops, name, type_, span
        self.carries: dict[int, Value] = {}

    def at(self, k: int, span: Span) -> Value:
        if k not in self.carries:
            self.carries[k] = self.loops.carry(f"{self.name.replace('.', '_')}_past{k}", self.type, k, span)
        return self.carries[k]


class Loops(Unfolding):
    """Loops through x[t-k], at the top and in blocks."""

    _first_fault: SpecError | None = None  # of the pass that finds out types

    def carry(self, name: str, type_: Type, k: int, span: Span) -> Value:
        """A value that is what another was k ticks ago; whoever makes it closes the loop."""
        path = ".".join([*self._path, self.claim(name)])
        return self._add(Value(path=path, type=type_, span=span, carry=k, trail=self._trail))

    def loop(
        self,
        members: tuple[str, ...],
        expressions: Mapping[str, Expr],
        scope: Scope,
        make: Callable[[str], Any],
    ) -> None:
        """Elaborate the members in this order, each by `make`, which returns its value; close the loop."""
        read = {n for m in members for n in _delayed(expressions[m]) if n in members}
        spans = {m: expressions[m].span for m in members}
        types = {m: Type(UNKNOWN) for m in read}
        outside, self.inference.clock = self.inference.clock, self._clock(members, expressions, scope)
        with self.tried():
            types = self._types(members, spans, types, scope, make)
        self.inference.clock = outside
        unknown = [m for m, t in types.items() if t.dtype == UNKNOWN]
        if unknown and self._first_fault is not None:
            raise self._first_fault  # what is wrong inside, rather than that it hides the type
        if unknown:
            fail(
                "GS0407",
                f"the type of '{unknown[0].split('.')[0]}' is not known from its loop",
                spans[unknown[0]],
                fixes=[Fix("make it a cell, which declares its type: cells: {NAME: {type: ..., next: ...}}")],
            )
        carried = {m: Carried(self, m, t, spans[m]) for m, t in types.items()}
        around = scope.loops
        scope.loops = {**around, **carried}
        try:
            for m in members:
                scope.names[m] = make(m)
        finally:
            scope.loops = around  # outside the loop, x[t-1] is a delay as of any value
        for m, c in carried.items():
            self._close(m, c, scope.names[m], spans[m])

    def _clock(
        self, members: tuple[str, ...], expressions: Mapping[str, Expr], scope: Scope
    ) -> tuple[Dim, Fraction] | None:
        """Length and rate of the first timed value that the loop reads of others: a loop has one clock."""
        for m in members:
            for n in read_names(expressions[m]):
                found = scope.names.get(n.name)
                for v in found.values() if isinstance(found, dict) else (found,):
                    if isinstance(v, Value) and v.type.rate is not None:
                        return v.type.length, v.type.rate
        return None

    def _types(
        self,
        members: tuple[str, ...],
        spans: Mapping[str, Span],
        types: dict[str, Type],
        scope: Scope,
        make: Callable[[str], Any],
    ) -> dict[str, Type]:
        """The types of the members that come back, as far as one pass finds them out."""
        inner = Scope(scope.home, dict(scope.names), scope.spans, dict(scope.loops))
        outside = scope.names, scope.loops
        scope.names, scope.loops = (
            inner.names,
            {**scope.loops, **{m: Carried(self, m, t, spans[m]) for m, t in types.items()}},
        )
        self._first_fault = None
        try:
            for m in members:
                try:
                    made = make(m)
                except SpecError as error:  # told by the second pass, if it is one
                    self._first_fault = self._first_fault or error
                    made = self._add(Value(path=f"#{m}", type=Type(UNKNOWN), span=spans[m]))
                scope.names[m] = made
                if m in types and isinstance(made, Value):
                    types[m] = made.type
        finally:
            scope.names, scope.loops = outside
        return types

    def _close(self, name: str, carried: Carried, made: Any, span: Span) -> None:
        if made is POISON:
            return
        told = name.split(".")[0]
        if not isinstance(made, Value):
            fail("GS0407", f"'{told}' comes back in a loop and must be one value", span)
        facts = self.inference.facts
        a, b = carried.type, made.type
        same = len(a.dims) == len(b.dims) and all(facts.same(x, y) for x, y in zip(a.dims, b.dims, strict=True))
        if not same or a.rate != b.rate or a.dtype.kind != b.dtype.kind:
            fail(
                "GS0407",
                f"'{told}' goes into its loop as {a} and comes out as {b}",
                span,
                related=[Related("made here", made.span)],
            )
        for carry in carried.carries.values():
            if a.dtype.kind == "int":
                fail(
                    "GS0404",
                    f"'{told}' is an integer; nothing says what its history reads before the start",
                    span,
                    fixes=[Fix("make it a cell with init:")],
                )
            self.backs[carry] = Back(made, 0.0, span=carry.span)


def _delayed(expr: Expr) -> set[str]:
    """Names under x[t-k]."""
    found, stack = set(), [expr]
    while stack:
        top = stack.pop()
        if isinstance(top, History) and isinstance(top.of, Name):
            found.add(top.of.name)
        stack.extend(children(top))
    return found
