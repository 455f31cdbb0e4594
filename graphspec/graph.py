"""The typed graph: values in dataflow order. Built once by the compiler, read by everything after; never changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphspec.declare import Declaration, Init
from graphspec.dims import Facts
from graphspec.span import Span
from graphspec.time import Window
from graphspec.types import Type


@dataclass(frozen=True)
class Constant:
    """A number where a value may stand."""

    value: int | float
    type: Type


@dataclass(frozen=True)
class Site:
    """The expression that gives an operand; `piped`: it ends in a stage, so one more stage may follow it."""

    span: Span
    piped: bool


@dataclass(frozen=True, eq=False, repr=False)
class Value:
    """One typed result of an op, or an input (`op` is none). Compared by identity.

    path: where it lives, as weights are named (`m.residual.3.s4_ff.s4_res.linear`).
    slots: for each operand its place among the op's declared operands. sites: where it was written.
    windows: for each operand what element k of the result reads of it.
    part: which result of an op with several (`split`), by name.
    noise: type of the random operand the runtime fills.
    """

    path: str
    type: Type
    span: Span
    op: Declaration | None = None
    operands: tuple[Value | Constant, ...] = ()
    slots: tuple[str, ...] = ()
    sites: tuple[Site, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    noise: Type | None = None
    before: int | float | None = None  # what a delay of it reads before the start
    carry: int = 0  # k > 0: what another value was k ticks ago; Graph.backs says which
    part: str | None = None  # this is one result of `operands[0]`, an op with several
    parts: Mapping[str, Type] | None = None  # the results of an op with several
    trail: tuple[Span, ...] = ()  # calls of blocks that lead here, outermost first
    owner: str = ""  # path of its weights, where it shares them with other values (an instance of `shared:`)
    frozen: bool = False  # its weights are not trained
    init: Init | None = None  # how its weights begin, where the spec says so
    precision: str = ""  # "f32": computed in float32 whatever the policy of its op

    @property
    def weights_path(self) -> str:
        """Where its weights are named: its own path, or the instance's."""
        return self.owner or self.path

    @property
    def is_input(self) -> bool:
        return self.op is None and self.part is None and not self.carry

    def values(self) -> Iterator[Value]:
        """The operands that are values."""
        for o in self.operands:
            if isinstance(o, Value):
                yield o

    def called(self, of: Callable[[int, Value | Constant], Any]) -> tuple[list[Any], dict[str, Any]]:
        """What its module is called with: the operands in order, and the optional ones by name.

        of: what stands for an operand, by its place among `operands`.
        """
        plain: list[Any] = []
        named: dict[str, Any] = {}
        optional = self.op.optional if self.op else frozenset()
        for i, (operand, slot) in enumerate(zip(self.operands, self.slots, strict=True)):
            if slot in optional:
                named[slot] = of(i, operand)
            else:
                plain.append(of(i, operand))
        return plain, named

    def __str__(self) -> str:
        return f"{self.path}: {self.type}"

    def __repr__(self) -> str:  # of its operands, too, it would grow exponentially
        return f"<{self}>"


@dataclass(frozen=True)
class Input:
    """What comes from outside. `default` makes it optional (a knob)."""

    value: Value
    default: float | int | None = None
    optional: bool = False


@dataclass(frozen=True)
class Term:
    """A loss or metric: the value that is averaged (over where `mask` holds), and its weight, a number or a value."""

    name: str
    value: Value
    weight: float | Value
    span: Span
    mask: Value | None = None


@dataclass(frozen=True)
class Assertion:
    """`causal:` says that value reads source only `allowed`: "strict" or a look-ahead in ticks of the value."""

    name: str
    value: Value
    sources: tuple[Value, ...]
    allowed: str | int
    span: Span


@dataclass(frozen=True)
class Feed:
    """`feed:` of an entry: the value that is replaced, and what is drawn for it."""

    source: Value
    drawn: Value
    span: Span


@dataclass(frozen=True)
class Back:
    """The edge that closes a loop: a carry reads `source`, k ticks back; `init` before the start."""

    source: Value
    init: Value | int | float
    parallel: bool = False  # the spec requires the loop to run in parallel
    span: Span | None = None


@dataclass(frozen=True, repr=False)
class Graph:
    """A whole spec, typed. `values` holds every value in an order in which operands come first."""

    name: str
    doc: str
    inputs: Mapping[str, Input]
    values: tuple[Value, ...]
    named: Mapping[str, Any]  # name in `graph:` -> Value, record (dict) or list
    facts: Facts
    losses: tuple[Term, ...]
    metrics: tuple[Term, ...]
    outputs: Mapping[str, Value]
    assertions: tuple[Assertion, ...]
    feeds: tuple[Feed, ...]
    params: Mapping[str, Any]
    backs: Mapping[Value, Back] = field(default_factory=dict)  # by carry
    # Features by input name that are computed once, with the data, and may be given in place of their computation.
    cached: Mapping[str, Value] = field(default_factory=dict)
    # Views of this graph: the entries by name (`sample` is one), and what holds outside training where `eval:` differs.
    entries: Mapping[str, Graph] = field(default_factory=dict)
    evaluation: Graph | None = None

    def __repr__(self) -> str:
        return f"<graph {self.name} of {len(self.values)} values>"

    def needed_for(self, targets: list[Value]) -> list[Value]:
        """The values that targets depend on, themselves included, in dataflow order."""
        wanted: set[Value] = set()
        stack = list(targets)
        while stack:
            v = stack.pop()
            if v not in wanted:
                wanted.add(v)
                stack.extend(v.values())
                stack.extend(self.carried_from(v))
        return [v for v in self.values if v in wanted]

    def carried_from(self, value: Value) -> Iterator[Value]:
        """What a carry depends on, which are no operands: the end of its loop, and where it begins."""
        back = self.backs.get(value) if value.carry else None
        if back is not None:
            yield back.source
            if isinstance(back.init, Value):
                yield back.init

    def targets(self) -> dict[str, Value]:
        """Losses, their masks and weights, metrics and outputs by the name under which they are computed."""
        out = {f"losses.{t.name}": t.value for t in self.losses}
        out |= {f"masks.{t.name}": t.mask for t in self.losses if t.mask is not None}
        out |= {f"weights.{t.name}": t.weight for t in self.losses if isinstance(t.weight, Value)}
        out |= {f"metrics.{t.name}": t.value for t in self.metrics}
        return out | dict(self.outputs)

    def text(self) -> str:
        """The graph as text, one value a line."""
        lines = []
        for v in self.values:
            if v.is_input:
                lines.append(f"{v.path} = input: {v.type}")
                continue
            if v.carry:
                lines.append(f"{v.path} = {self.backs[v].source.path}[t-{v.carry}]: {v.type}")
                continue
            what = f".{v.part}" if v.part else f"{v.op.name}" if v.op else ""
            given = [o.path if isinstance(o, Value) else str(o.value) for o in v.operands]
            given += [f"{k}={a}" for k, a in v.arguments.items()]
            lines.append(f"{v.path} = {what}({', '.join(given)}): {v.type}")
        return "\n".join(lines)


def lint(graph: Graph) -> None:
    """The law of a graph: operands come before their readers, and paths are unique. Broken: our own fault."""
    seen: set[Value] = set()
    paths: set[str] = set()
    for v in graph.values:
        for o in v.values():
            if o not in seen:
                raise AssertionError(f"{v.path} reads {o.path} before it is computed")
        if v.path in paths:
            raise AssertionError(f"two values are called {v.path}")
        if len(v.windows) != len(v.operands) or (v.op and len(v.slots) != len(v.operands)):
            raise AssertionError(f"{v.path} lacks a window or a slot for an operand")
        seen.add(v)
        paths.add(v.path)
