"""What stands in a spec's tree, read: names, expressions in short and long form, facts; and their order by dataflow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphspec.diagnostic import Diagnostic, Edit, Fix, Related, SpecError, did_you_mean, fail
from graphspec.document import Mapping as Tree
from graphspec.document import Node, Scalar, Sequence
from graphspec.expression import (
    Argument,
    Call,
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
    """`names`: each behind those its expression reads. `circular`: those in a circle, which `faults` tell."""

    names: list[str]
    circular: frozenset[str] = frozenset()
    faults: tuple[Diagnostic, ...] = ()


def dataflow_order(expressions: Mapping[str, Expr], what: str) -> list[str]:
    """Names so that each stands behind those its expression reads. Raises what is wrong with circles."""
    order = sorted_by_dataflow(expressions, what)
    if order.faults:
        raise SpecError(*order.faults)
    return order.names


def sorted_by_dataflow(expressions: Mapping[str, Expr], what: str) -> Order:
    """The same, with the circles told apart: a loop through history is legal, and not built yet."""
    needs = {n: [m.name for m in read_names(e) if m.name in expressions] for n, e in expressions.items()}
    names, circular = _topological(needs)
    if not circular:
        return Order(names)
    import networkx  # only errors pay for it

    now = {n: [m.name for m in _read_now(expressions[n]) if m.name in circular] for n in circular}
    faults, looping = [], set()
    for members in networkx.strongly_connected_components(_digraph({n: needs[n] for n in circular})):
        if len(members) == 1 and not any(n in needs[n] for n in members):
            continue
        looping |= members
        first = min(members, key=lambda n: expressions[n].span.start)
        inside = {n: [m for m in now[n] if m in members] for n in members}
        instant = set(_topological(inside)[1])
        start = min(instant, key=lambda n: expressions[n].span.start) if instant else first
        circle = _shortest(inside if instant else {n: [m for m in needs[n] if m in members] for n in members}, start)
        faults.append(_circle(circle, bool(instant), what, expressions, first))
    blocked = {n for n in circular if n not in looping}  # they wait for a loop, and are poisoned with it
    rest, _ = _topological({n: [m for m in needs[n] if m in blocked] for n in blocked})
    return Order(names + rest, frozenset(looping), tuple(faults))


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


def _circle(circle: list[str], instant: bool, what: str, expressions: Mapping[str, Expr], first: str) -> Diagnostic:
    shown = [*circle, circle[0]]
    if len(shown) > 10:
        shown = [*shown[:5], "...", *shown[-4:]]
    path = " -> ".join(reversed(shown))
    at = expressions[first].span
    related = tuple(Related(f"'{n}' is here", expressions[n].span) for n in shown[1:-1] if n in expressions)
    if instant:
        return Diagnostic("GS0405", f"{what}s depend on each other: {path}", at, related=related)
    return Diagnostic("GS0190", f"the loop {path} through x[t-k] is not built yet", at, related=related)


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
