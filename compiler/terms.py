"""`losses`, `metrics`, `outputs` and `causal`: what is asked of the values of a graph."""

from __future__ import annotations

from graphspec.compiler.arithmetic import evaluate, is_number
from graphspec.compiler.context import Context
from graphspec.compiler.stages import POISON
from graphspec.compiler.written import check_keys, check_name, sorted_by_dataflow, value_expression
from graphspec.diagnostic import Related, fail
from graphspec.document import Entry, Node, Scalar, Sequence
from graphspec.document import Mapping as Tree
from graphspec.expression import Expr, parse_expression
from graphspec.graph import Assertion, Term, Value

TERM_KEYS = ("is", "op", "in", "weight", "mask", "when", "doc")


def read_terms(context: Context, section: str) -> tuple[Term, ...]:
    """The losses or metrics. They may name each other; inside expressions a bare name is the value before the loss."""
    out = []
    visible = dict(context.scope.names)
    entries = {e.key.text: e for e in context.entries(section)}
    expressions: dict[str, Expr] = {}

    def read(name: str, entry: Entry) -> None:
        expressions[name] = value_expression(entry.value)

    for name, entry in entries.items():
        context.attempt(None, read, name, entry)
    others = {n: e for n, e in expressions.items() if n not in visible}
    order = sorted_by_dataflow(others, "value")
    context.findings.add(*order.faults)
    for name in order.circular:
        context.scope.names[name] = POISON
    for name in [*order.names, *(n for n in expressions if n not in others)]:
        term = context.attempt(None, _term, context, section, name, expressions[name], entries[name])
        if term is POISON:
            if name not in visible:
                context.scope.names[name] = POISON
            continue
        if term is not None:
            out.append(term)
        if name not in visible:
            context.scope.names[name] = None if term is None else term.value
    return tuple(out)


def _term(context: Context, section: str, name: str, expr: Expr, entry: Entry) -> Term | None:
    """None where its `when` does not hold."""
    weight: float | Value = 1.0
    mask = None
    check_name(name, entry.key.span)
    what = "a loss" if section == "losses" else "a metric"
    path = name if name not in context.scope.names else f"{section}_{name}"
    if name in context.named and section == "losses":
        there = context.named[name]
        related = [Related("here", there.span)] if isinstance(there, Value) else []
        fail("GS0224", f"'{name}' is also a value of graph:", entry.key.span, related=related)
    with context.elaborator.entered(path):
        made = context.elaborator.value(expr, context.scope)
        if made is None and isinstance(entry.value, Tree) and entry.value.get("when") is not None:
            return None
        if isinstance(entry.value, Tree):
            tree = entry.value
            if tree.get("op") is None:
                check_keys(tree, TERM_KEYS, what)
            if tree.get("weight") is not None:
                weight = _weight(context, tree.get("weight"))  # type: ignore[arg-type]
            if tree.get("mask") is not None:
                mask = _mask(context, tree.get("mask"))  # type: ignore[arg-type]
    value = context.single(made, name, expr.span)
    if value.type.dtype.kind != "float" or value.type.meaning is not None:
        fail("GS0303", f"'{name}' is averaged and so must be float, not {value.type}", expr.span)
    if mask is not None:
        _check_mask(context, name, value, mask, entry)
    return Term(name, value, weight, entry.key.span, mask)


def _weight(context: Context, node: Node) -> float | Value:
    value = node.value if isinstance(node, Scalar) else None
    if not is_number(value):
        with context.elaborator.entered("weight"):
            value = context.elaborator.value(value_expression(node), context.scope)
    if isinstance(value, Value):
        if value.type.dims or value.type.timed or value.type.dtype.kind == "bool":
            fail("GS0306", f"a weight is one number, not {value.type}", node.span)
        return value
    if not is_number(value):
        fail("GS0133", "a weight is a number, or a value without axes", node.span)
    return float(value)  # type: ignore[arg-type]


def _mask(context: Context, node: Node) -> Value:
    with context.elaborator.entered("mask"):
        return context.single(context.elaborator.value(value_expression(node), context.scope), "mask", node.span)


def _check_mask(context: Context, name: str, value: Value, mask: Value, entry: Entry) -> None:
    facts = context.elaborator.inference.facts
    a, b = value.type, mask.type
    same = len(a.dims) == len(b.dims) and all(facts.same(x, y) for x, y in zip(a.dims, b.dims, strict=True))
    if b.dtype.kind == "int" or b.meaning is not None or not same or a.rate != b.rate:
        fail(
            "GS0301",
            f"the mask of '{name}' is {b}, but what it masks is {a}",
            mask.span,
            related=[Related("the loss", value.span)],
        )


# ---- outputs -------------------------------------------------------------------------------------------------------


def read_outputs(context: Context) -> dict[str, Value]:
    node = context.spec.section("outputs")
    if node is None:
        return {}
    return read_targets(context, node, "outputs")


def read_targets(context: Context, node: Node, section: str) -> dict[str, Value]:
    """A list of values (named by their text), or a mapping of names to expressions."""
    out: dict[str, Value] = {}

    def add(name: str, item: Node) -> None:
        made = context.expression(item, f"{section}_{name}" if name.isidentifier() else section)
        if made is not None or not isinstance(item, Scalar) or item.text not in context.absent:
            out[name] = context.single(made, name, item.span)

    if isinstance(node, Sequence):
        for item in node.items:
            text = item.text if isinstance(item, Scalar) else ""
            context.attempt(None, add, text, item)
    elif isinstance(node, Tree):
        for e in node.entries:
            context.attempt(None, add, e.key.text, e.value)
    else:
        context.attempt(None, lambda: fail("GS0133", f"'{section}' is a list of values, as [dist]", node.span))
    return out


# ---- causal --------------------------------------------------------------------------------------------------------


def read_assertions(context: Context) -> tuple[Assertion, ...]:
    out: list[Assertion] = []
    for entry in context.entries("causal"):
        made = context.attempt(None, _assertion, context, entry)
        out += [] if made is POISON else made
    return tuple(out)


def _assertion(context: Context, entry: Entry) -> list[Assertion]:
    name = entry.key.text
    value = context.single(context.lookup(name, entry.key.span), name, entry.key.span)
    if not value.type.timed:
        fail("GS0304", f"'{name}' is static; causality is about values along time", entry.key.span)
    timed = tuple(i.value for i in context.inputs.values() if i.value.type.timed)
    if isinstance(entry.value, Tree):
        out = []
        for e in entry.value.entries:
            found = context.lookup(e.key.text, e.key.span)
            if found is None and e.key.text in context.absent:
                continue
            source = context.single(found, e.key.text, e.key.span)
            if not source.type.timed:
                fail("GS0304", f"'{e.key.text}' is static; causality is about values along time", e.key.span)
            if (allowed := _allowed(context, e.value)) is not None:
                out.append(Assertion(name, value, (source,), allowed, e.value.span))
        return out
    allowed = _allowed(context, entry.value)
    return [Assertion(name, value, timed, allowed, entry.value.span)] if allowed is not None else []


def _allowed(context: Context, node: Node) -> str | int | None:
    """None where a condition of params says that nothing is claimed: `none if both_ways else 0`."""
    params = context.spec.home.params
    if isinstance(node, Scalar) and node.text == "strict":
        return "strict"
    if isinstance(node, Scalar) and node.text.isidentifier() and node.text not in params:
        fail("GS0406", f"write strict or a number of ticks, not '{node.text[:30]}'", node.span)
    if isinstance(node, Scalar):
        value = node.value if is_number(node.value) else evaluate(parse_expression(node.content), params)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
    fail("GS0406", "write strict, or the look-ahead allowed: a whole number of ticks", node.span)
