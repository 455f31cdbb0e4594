"""What stands in a spec's tree, read: names, expressions in short and long form, facts; and their order by dataflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from typing import Any

from graphspec.diagnostic import Diagnostic, Edit, Fix, Related, SpecError, did_you_mean, fail
from graphspec.document import Mapping as Tree
from graphspec.document import Node, Scalar, Sequence
from graphspec.expression import (
    Argument,
    Call,
    Comprehension,
    Expr,
    History,
    IfElse,
    ListOf,
    Name,
    Nothing,
    Text,
    children,
    parse_expression,
    read_names,
)
from graphspec.span import Span

SECTIONS = (
    "graphspec model library doc params inputs require use extends override add remove moved blocks shared cells "
    "graph causal losses metrics outputs eval entries sample data train"
).split()
RESERVED = {*SECTIONS, "t", "step"}  # for params, which the command line sets by their bare names
KEYWORDS = {"if", "else", "for", "in", "and", "or", "not", "true", "false", "none"}
VALUE_KEYS = ("is", "op", "in", "type", "doc", "when", "freeze", "dtype")


def check_name(name: str, span: Span, reserved: Iterable[str] = ("t", "step")) -> None:
    if not name.isascii() or not name.isidentifier():
        told = f"'{name[:60]}' is not a name: letters a-z, digits and _ only, not starting with a digit"
        instead = re.sub(r"[\s.-]+", "_", name)
        fits = instead.isascii() and instead.isidentifier() and len(name) <= 60
        fail("GS0213", told, span, fixes=[Fix(f"call it {instead}", (Edit(span, instead),))] if fits else [])
    if name in reserved or name in KEYWORDS:
        meaning = {"t": "the running tick of x[t-k]", "step": "the count of updates"}.get(name, "a section")
        meaning = "a word of expressions" if name in KEYWORDS else meaning
        fail("GS0214", f"'{name}' is reserved: it is {meaning}", span, fixes=[Fix(f"call it {name}_")])


# ---- order --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """`names`: each behind those its expression reads; of a loop only its first name, for which `loops` has the members
    in the order of one tick. `circular`: those in a circle within a tick, which `faults` tell.

    expressions: those given; inside a loop, history of more than a name (`cat(a, b)[t-1]`) has a name of its own.
    """

    names: list[str]
    expressions: Mapping[str, Expr]
    loops: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    circular: frozenset[str] = frozenset()
    faults: tuple[Diagnostic, ...] = ()


def dataflow_order(expressions: Mapping[str, Expr], what: str) -> list[str]:
    """Names so that each stands behind those its expression reads. Any circle is an error."""
    order = sorted_by_dataflow(expressions, what)
    if order.faults:
        raise SpecError(*order.faults)
    for first, members in order.loops.items():
        needs = {
            n: [m.name for m in read_names(expressions[n]) if m.name in members] for n in members if n in expressions
        }
        raise SpecError(_circle(_shortest(needs, first), what, expressions, first))
    return order.names


def sorted_by_dataflow(expressions: Mapping[str, Expr], what: str) -> Order:
    """The order, with loops through history as groups, and circles within a tick as faults."""
    needs = {n: [m.name for m in read_names(e) if m.name in expressions] for n, e in expressions.items()}
    names, circular = _topological(needs)
    if not circular:
        return Order(names, expressions)
    import networkx  # only loops pay for it

    lifted = dict(expressions)
    faults: list[Diagnostic] = []
    broken: set[str] = set()
    loops: dict[str, tuple[str, ...]] = {}
    home: dict[str, str] = {}  # member of a loop -> its first name
    for members in networkx.strongly_connected_components(_digraph({n: needs[n] for n in circular})):
        if len(members) == 1 and not any(n in needs[n] for n in members):
            continue
        first = min(members, key=lambda n: expressions[n].span.start)
        inside = {n: [m.name for m in _read_now(expressions[n]) if m.name in members] for n in members}
        instant = set(_topological(inside)[1])
        if instant:
            start = min(instant, key=lambda n: expressions[n].span.start)
            faults.append(_circle(_shortest(inside, start), what, expressions, first))
            broken |= members
            continue
        mine = {n: _lift(n, expressions[n], members, lifted) for n in sorted(members, key=list(expressions).index)}
        for more in mine.values():
            inside |= {n: [m.name for m in _read_now(lifted[n]) if m.name in members] for n in more}
        inside = {n: [m.name for m in _read_now(lifted[n]) if m.name in inside] for n in inside}
        loops[first] = tuple(_topological(inside)[0])
        home |= dict.fromkeys(members, first)
    whole = {
        n: [home.get(m, m) for m in ms if home.get(m, m) != n] for n, ms in needs.items() if n not in home or n in loops
    }
    for n, first in home.items():
        whole[first] += [home.get(m, m) for m in needs[n] if home.get(m, m) != first]
    order, left = _topological({n: [m for m in ms if m not in broken] for n, ms in whole.items() if n not in broken})
    assert not left
    return Order(order, lifted, loops, frozenset(broken), tuple(faults))


def _lift(name: str, expr: Expr, members: Set[str], lifted: dict[str, Expr]) -> list[str]:
    """Give history of an expression of the loop's members a name of its own in `lifted`; the new names."""
    made: list[str] = []

    def walk(node: Expr) -> Expr:
        if isinstance(node, History) and not isinstance(node.of, Name):
            of = walk(node.of)
            if any(n.name in members for n in read_names(of)):
                made.append(f"{name}.{len(made)}")
                lifted[made[-1]] = of
                of = Name(node.of.span, False, made[-1])
            return replace(node, of=of)
        return _mapped(node, walk)

    lifted[name] = walk(expr)
    return made


def _mapped(node: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The node with every expression directly inside it changed."""

    def each(item: Any) -> Any:
        if isinstance(item, Expr):
            return change(item)
        if isinstance(item, Argument):
            return replace(item, value=change(item.value))
        if isinstance(item, Comprehension):
            return replace(item, value=change(item.value), over=change(item.over))
        return tuple(map(each, item)) if isinstance(item, tuple) else item

    found = {f.name: getattr(node, f.name) for f in fields(node)}
    new = {n: each(v) for n, v in found.items()}
    return replace(node, **{n: v for n, v in new.items() if v is not found[n]})


def _topological(needs: Mapping[str, list[str]]) -> tuple[list[str], set[str]]:
    """(names in order, as written where that is possible; names that wait for a circle)."""
    waiting = {n: len(set(ms)) for n, ms in needs.items()}
    readers: dict[str, list[str]] = {}
    for n, ms in needs.items():
        for m in dict.fromkeys(ms):
            readers.setdefault(m, []).append(n)
    ready = [n for n, k in waiting.items() if k == 0]
    for n in ready:
        for r in readers.get(n, ()):
            waiting[r] -= 1
            if waiting[r] == 0:
                ready.append(r)
    circular = {n for n, k in waiting.items() if k}
    order: dict[str, None] = {}
    for start in needs:
        stack = [start] if start not in circular else []
        while stack:
            missing = [m for m in needs[stack[-1]] if m not in order]
            if missing:
                stack.append(missing[0])
            else:
                order[stack.pop()] = None
    return list(order), circular


def _digraph(edges: Mapping[str, list[str]]) -> "networkx.DiGraph":  # type: ignore[name-defined]  # noqa: F821, UP037
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(edges)
    graph.add_edges_from((n, m) for n, ms in edges.items() for m in ms if m in edges)
    return graph


def _shortest(needs: Mapping[str, list[str]], start: str) -> list[str]:
    """A shortest circle through `start`, or through the first name behind it that is in one."""
    tried: set[str] = set()
    while start not in tried:
        tried.add(start)
        came: dict[str, str] = {}
        queue = [start]
        for n in queue:
            for m in needs[n]:
                if m == start:
                    circle = [n]
                    while circle[-1] != start:
                        circle.append(came[circle[-1]])
                    return circle[::-1]
                if m not in came:
                    came[m] = n
                    queue.append(m)
        start = next((m for m in queue if m not in tried), start)  # it waits for a circle, and is not in it
    return [start]


def _read_now(expr: Expr) -> Iterable[Name]:
    """The names it reads in the same tick: not those under x[t-k]."""
    stack = [expr]
    while stack:
        top = stack.pop()
        if isinstance(top, Name):
            yield top
        skipped = top.of if isinstance(top, History) else top.function if isinstance(top, Call) else None
        stack.extend(c for c in children(top) if c is not skipped)


def _circle(circle: list[str], what: str, expressions: Mapping[str, Expr], first: str) -> Diagnostic:
    shown = [*circle, circle[0]]
    if len(shown) > 10:
        shown = [*shown[:5], "...", *shown[-4:]]
    path = " -> ".join(reversed(shown))
    related = tuple(Related(f"'{n}' is here", expressions[n].span) for n in shown[1:-1] if n in expressions)
    fixes = (Fix("let one of them read the past, as x[t-1]"),) if what == "value" else ()
    return Diagnostic(
        "GS0405", f"{what}s depend on each other: {path}", expressions[first].span, related=related, fixes=fixes
    )


# ---- expressions --------------------------------------------------------------------------------------------------


def requirements(node: Node | None) -> Iterable[Expr]:
    """The facts of a `require:` list."""
    if node is None:
        return
    if not isinstance(node, Sequence):
        fail("GS0133", "'require' is a list of facts, as '- T % 16 == 0'", node.span)
    for item in node.items:
        yield value_expression(item)


def value_expression(node: Node) -> Expr:
    """The expression of an entry: a scalar, `{is: ...}`, or the long form `{op: conv, in: x, units: 64}`.

    With `when: cond` it is none where cond does not hold.
    """
    if not isinstance(node, Tree):
        return _plain(node)
    inner, op, when = node.get("is"), node.get("op"), node.get("when")
    if (inner is None) == (op is None):
        what = "both 'is' and 'op'" if op is not None else "neither 'is' (an expression) nor 'op' (the long form)"
        fail("GS0506", f"the entry has {what}", node.span)
    expr = _plain(inner) if inner is not None else _long_form(node)
    if when is None:
        return expr
    return IfElse(node.span, True, expr, _plain(when), Nothing(node.span, False))


def _plain(node: Node) -> Expr:
    if not isinstance(node, Scalar):
        fail("GS0126", "an expression belongs here; lists live inside calls", node.span)
    if node.plain and node.value is None:
        fail("GS0120", "an expression is missing here", node.span)
    return parse_expression(node.content)


def _long_form(node: Tree) -> Expr:
    """`{op: NAME, in: x | [x, y] | {x: ..., y: ...}, PARAM: ...}` as the call it means."""
    op = node.get("op")
    if not isinstance(op, Scalar) or not op.text.isidentifier():
        fail("GS0133", "'op' is the name of one op or block", node.span if op is None else op.span)
    function = Name(op.content, False, op.text)
    arguments: list[Argument] = []
    given = node.get("in")
    if isinstance(given, Tree):
        arguments += [Argument(e.key.text, _plain(e.value), e.value.span) for e in given.entries]
    elif given is not None:
        each = given.items if isinstance(given, Sequence) else (given,)
        arguments += [Argument(None, _plain(i), i.span) for i in each]
    for e in node.entries:
        if e.key.text not in VALUE_KEYS:
            arguments.append(Argument(e.key.text, _argument(e.value), e.value.span))
    return Call(node.span, True, function, tuple(arguments))


def _argument(node: Node) -> Expr:
    if isinstance(node, Sequence):
        return ListOf(node.span, False, tuple(_argument(i) for i in node.items))
    if isinstance(node, Scalar) and not node.plain:
        return Text(node.span, False, node.text)
    return _plain(node)


def check_keys(node: Node, known: Iterable[str], what: str) -> None:
    """An entry written as a mapping has only keys that are read."""
    if isinstance(node, Tree):
        for e in node.entries:
            if e.key.text not in known:
                fail("GS0130", f"{what} has no '{e.key.text}'{did_you_mean(e.key.text, known)}", e.key.span)
