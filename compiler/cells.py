"""`cells:`, registers of one tick: reading a cell gives its old value, `next` what it will be (LANGUAGE 7)."""

from __future__ import annotations

from typing import Any

from graphspec.compiler.arithmetic import is_number
from graphspec.compiler.context import Context
from graphspec.compiler.inputs import read_type
from graphspec.compiler.stages import POISON
from graphspec.compiler.written import check_keys, check_name, value_expression
from graphspec.diagnostic import Related, fail
from graphspec.document import Entry, Node, Scalar
from graphspec.document import Mapping as Tree
from graphspec.expression import Call, Expr, Name, parse_type
from graphspec.graph import Back, Value
from graphspec.span import Span

KEYS = ("per", "type", "init", "next", "reset", "detach_every", "require", "doc")


def declare_cells(context: Context) -> list[tuple[Entry, Value]]:
    """Put each cell's name in scope as what it was a tick ago. Their `next` is read when the graph is there."""
    found = []
    for entry in context.entries("cells"):
        carry = context.attempt(entry.key.text, _declare, context, entry)
        if carry is not POISON:
            found.append((entry, carry))
    return found


def _declare(context: Context, entry: Entry) -> Value:
    name, tree = entry.key.text, entry.value
    check_name(name, entry.key.span)
    there = {**context.inputs, **context.symbols, **context.spec.home.params, **context.spec.home.shared}
    if name in there or name in context.absent or name in context.features:
        fail("GS0224", f"'{name}' is already an input, a param, a size or one of shared:", entry.key.span)
    if not isinstance(tree, Tree):
        fail("GS0133", f"cell '{name}' is a mapping with type and next", tree.span)
    check_keys(tree, KEYS, "a cell")
    per = tree.get("per")
    if per is not None and not (isinstance(per, Scalar) and per.text in ("tick", "update")):
        fail("GS0222", "'per' of a cell is tick or update", per.span)
    if isinstance(per, Scalar) and per.text == "update":
        fail("GS0190", f"cell '{name}': per: update is not built yet", per.span)
    for key in ("reset", "detach_every"):
        if tree.get(key) is not None:
            fail("GS0190", f"'{key}' of a cell is not built yet", tree.key(key).span)  # type: ignore[union-attr]
    for needed in ("type", "next"):
        if tree.get(needed) is None:
            fail("GS0506", f"cell '{name}' has no '{needed}'", entry.key.span)
    written = tree.get("type")
    if not isinstance(written, Scalar):
        fail(
            "GS0133", "a type belongs here, as float[T, 16] @ 100", entry.key.span if written is None else written.span
        )
    type_ = read_type(context, parse_type(written.content))
    if not type_.timed:
        fail("GS0304", f"cell '{name}' is static; a cell per tick has a rate", written.span)
    carry = context.elaborator.carry(name, type_, 1, entry.key.span)
    context.cells.add(name)
    context.scope.names[name] = carry
    context.scope.spans[name] = entry.key.span
    return carry


def close_cells(context: Context, cells: list[tuple[Entry, Value]]) -> None:
    for entry, carry in cells:
        if context.attempt(None, _close, context, entry, carry) is POISON:
            context.elaborator.backs.setdefault(carry, Back(carry, 0.0, span=entry.key.span))


def _close(context: Context, entry: Entry, carry: Value) -> None:
    tree = entry.value
    assert isinstance(tree, Tree)
    name, node = entry.key.text, tree.get("next")
    assert node is not None
    with context.elaborator.entered(f"{name}_next"):
        made = context.single(context.elaborator.value(value_expression(node), context.scope), "next", node.span)
    facts = context.elaborator.inference.facts
    a, b = carry.type, made.type
    same = len(a.dims) == len(b.dims) and all(facts.same(x, y) for x, y in zip(a.dims, b.dims, strict=True))
    if not same or a.rate != b.rate or a.dtype.kind != b.dtype.kind or b.meaning:
        fail(
            "GS0407", f"cell '{name}' is {a}, but its next is {b}", node.span, related=[Related("declared", carry.span)]
        )
    require = tree.get("require")
    if require is not None and not (isinstance(require, Scalar) and require.text == "parallel"):
        fail("GS0222", "'require' of a cell is parallel", require.span)
    init = _init(context, name, carry, tree.get("init"))
    context.elaborator.backs[carry] = Back(made, init, require is not None, require.span if require else carry.span)


def _init(context: Context, name: str, carry: Value, node: Node | None) -> Any:
    """A number, or a static value; `learned` is a weight of that shape."""
    if node is None:
        if carry.type.dtype.kind == "int":
            fail("GS0404", f"cell '{name}' is an integer; 'init' says what it begins with", carry.span)
        return 0.0
    if isinstance(node, Scalar) and is_number(node.value):
        return node.value
    expr: Expr = value_expression(node)
    called = expr.function if isinstance(expr, Call) else expr
    if isinstance(called, Name) and called.name == "first":
        fail("GS0190", "'init: first' is not built yet", node.span)
    if isinstance(expr, Name) and expr.name == "learned":
        return _learned(context, name, carry, node.span)
    with context.elaborator.entered(f"{name}_init"):
        made = context.elaborator.value(expr, context.scope)
    if is_number(made):
        return made
    value = context.single(made, "init", node.span)
    facts = context.elaborator.inference.facts
    after = carry.type.after_time
    same = len(value.type.dims) == len(after) and all(map(facts.same, value.type.dims, after))
    if value.type.timed or not same:
        told = ", ".join(map(str, after))
        fail("GS0407", f"cell '{name}' begins with [{told}], static, not with {value.type}", node.span)
    return value


def _learned(context: Context, name: str, carry: Value, span: Span) -> Value:
    op = context.elaborator.catalogue.spellings.get("init: learned")
    if op is None:
        fail("GS0202", "the catalogue has no op for 'init: learned'", span)
    with context.elaborator.entered(name):
        shape = [d.as_int() for d in carry.type.after_time]
        made: Value = context.elaborator._op_call(op, {}, {"shape": shape}, span, {})
    return made
