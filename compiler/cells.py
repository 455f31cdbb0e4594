"""`cells:`, registers of one tick: reading a cell gives its old value, `next` what it will be (LANGUAGE 7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from graphspec.compiler.arithmetic import is_number
from graphspec.compiler.context import Context
from graphspec.compiler.inputs import read_type
from graphspec.compiler.stages import POISON
from graphspec.compiler.written import check_keys, check_name, value_expression
from graphspec.diagnostic import Fix, Related, fail
from graphspec.document import Entry, Node, Scalar
from graphspec.document import Mapping as Tree
from graphspec.expression import Argument, Call, Expr, ListOf, Name, parse_type
from graphspec.graph import Back, Value
from graphspec.span import Span
from graphspec.types import UNKNOWN, Type

KEYS = ("per", "type", "init", "next", "reset", "detach_every", "require", "doc")


@dataclass
class Cell:
    """One cell while it is built. `parts`: which of reset and first its `reading` holds, an expression for each."""

    name: str
    tree: Tree
    carry: Value
    parts: tuple[str, ...] = ()
    reading: ListOf | None = None
    every: int = 0
    begins: Any = None  # a number or static value, if it was read already
    next: Value | None = None  # where it had to be made early, as the cell begins with it


class Cells:
    """The cells of a spec. Those that are not read as they are, `readings`, wait for their turn among the values."""

    def __init__(self) -> None:
        self.of: dict[str, Cell] = {}

    @property
    def readings(self) -> dict[str, Expr]:
        """What must be there before the cell can be read, by its name."""
        return {c.name: c.reading for c in self.of.values() if c.reading is not None}

    def read(self, context: Context, name: str, expr: Expr) -> Value:
        """What the cell's readers see; `expr` is its reading, maybe with names for history in it."""
        assert isinstance(expr, ListOf)
        return _read(context, self.of[name], dict(zip(self.of[name].parts, expr.items, strict=True)))


def declare_cells(context: Context) -> Cells:
    """Put each cell's name in scope as what it was a tick ago. Their `next` is read when the graph is there."""
    found = Cells()
    for entry in context.entries("cells"):
        cell = context.attempt(entry.key.text, _declare, context, entry)
        if cell is not POISON:
            found.of[cell.name] = cell
    return found


def _declare(context: Context, entry: Entry) -> Cell:
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
    context.scope.spans[name] = entry.key.span
    cell = Cell(name, tree, carry, every=_every(context, carry, tree.get("detach_every")))
    parts = _parts(tree)
    if parts or cell.every:
        cell.parts, cell.reading = tuple(parts), ListOf(entry.key.span, False, tuple(parts.values()))
    else:
        context.scope.names[name] = carry
    return cell


def _every(context: Context, carry: Value, node: Node | None) -> int:
    if node is None:
        return 0
    ticks = context.number(node)
    if not isinstance(ticks, int) or ticks < 1:
        fail("GS0223", f"'detach_every' is a whole number of ticks from 1, not {ticks}", node.span)
    if carry.type.dtype.kind != "float":
        fail("GS0303", f"no gradient goes through cell '{carry.path}': it is {carry.type.dtype}", node.span)
    return ticks


def _parts(tree: Tree) -> dict[str, Expr]:
    """What is read beside what came back: `reset`, and `first`, which may be the cell's own `next`."""
    out: dict[str, Expr] = {}
    reset, init, following = tree.get("reset"), tree.get("init"), tree.get("next")
    assert following is not None
    if reset is not None:
        out["reset"] = value_expression(reset)
    first = _first(init)
    if isinstance(first, Call):
        if len(first.arguments) != 1 or not isinstance(first.arguments[0], Argument) or first.arguments[0].name:
            fail("GS0203", "first takes one value", first.span)
        out["first"] = first.arguments[0].value
    elif first is not None:
        out["next"] = value_expression(following)
    elif reset is not None and init is not None and not (isinstance(init, Scalar) and is_number(init.value)):
        out["init"] = value_expression(init)
    return out


def _first(init: Node | None) -> Expr | None:
    """`first` or `first(expr)`, if that is what it begins with."""
    if init is None or isinstance(init, Scalar) and is_number(init.value):
        return None
    expr = value_expression(init)
    called = expr.function if isinstance(expr, Call) else expr
    return expr if isinstance(called, Name) and called.name == "first" else None


def _read(context: Context, cell: Cell, parts: dict[str, Expr]) -> Value:
    """The carry; detached now and then; its first value at the start; what it begins with where it is reset."""
    elaborator = context.elaborator
    begins: Any = None
    first = parts.get("first", parts.get("next"))
    if first is not None:
        with elaborator.entered(f"{cell.name}_{'next' if 'next' in parts else 'init'}"):
            begins = elaborator.value(first, context.scope)
        if not is_number(begins):
            begins = context.single(begins, "first", first.span)
            _check_first(context, cell, begins, first.span)
        cell.next = begins if "next" in parts and isinstance(begins, Value) else None
    if "reset" in parts:
        with elaborator.entered(f"{cell.name}_reset"):
            mask = elaborator.value(parts["reset"], context.scope)
        _check_reset(context, cell, mask, parts["reset"].span)
        if first is None:
            begins = cell.begins = _init(context, cell.name, cell.carry, cell.tree.get("init"))
    start = elaborator.operand(begins, cell.carry.span) if begins is not None else None
    read = cell.carry
    with elaborator.entered(f"{cell.name}_now"):
        if cell.every:
            read = _called(context, cell, "detach_every: n", [read], {"every": cell.every})
        if first is not None:
            read = _called(context, cell, "init: first", [read, start], {})
        if "reset" in parts:
            read = _called(context, cell, "where", [mask, start, read], {})
    return read


def _called(context: Context, cell: Cell, spelled: str, operands: list[Any], params: dict[str, Any]) -> Value:
    catalogue = context.elaborator.catalogue
    op = catalogue.spellings.get(spelled) or catalogue.ops.get(spelled)
    if op is None:
        fail("GS0202", f"the catalogue has no op for '{spelled}'", cell.carry.span)
    inputs = {d.name: o for d, o in zip(op.parsed.operands, operands, strict=True)}
    made: Value = context.elaborator._op_call(op, inputs, params, cell.carry.span, {})
    if made.type != cell.carry.type:  # integers written beside it do not make a class of it less
        at = context.elaborator.values.index(made)
        made = context.elaborator.values[at] = replace(made, type=cell.carry.type)
    return made


def _check_first(context: Context, cell: Cell, value: Value, span: Span) -> None:
    if value.type.dtype == UNKNOWN:
        return
    facts = context.elaborator.inference.facts
    wanted = cell.carry.type.dims if value.type.timed else cell.carry.type.after_time
    same = len(value.type.dims) == len(wanted) and all(map(facts.same, value.type.dims, wanted))
    rate = value.type.rate in (None, cell.carry.type.rate)
    if not same or not rate or value.type.dtype.kind != cell.carry.type.dtype.kind or value.type.meaning:
        related = [Related("declared", cell.carry.span)]
        fail(
            "GS0407",
            f"cell '{cell.name}' is {cell.carry.type}, but its first value {value.type}",
            span,
            related=related,
        )


def _check_reset(context: Context, cell: Cell, mask: Any, span: Span) -> None:
    facts = context.elaborator.inference.facts
    a = cell.carry.type
    told = (
        f"'reset' of cell '{cell.name}' is bool[{', '.join(map(str, a.dims))}] at its rate (axes after time may be 1)"
    )
    if not isinstance(mask, Value):
        fail("GS0407", f"{told}, not known at compile time", span)
    b = mask.type
    if b.dtype == UNKNOWN:
        return
    fits = len(a.dims) == len(b.dims) and all(
        facts.same(x, y) or i and y.as_int() == 1 for i, (x, y) in enumerate(zip(a.dims, b.dims, strict=True))
    )
    if not fits or b.rate != a.rate or b.dtype.kind != "bool":
        fixes = [Fix(fix)] if (fix := _as_reset(a, b, span.text)) else []
        fail("GS0407", f"{told}, not {b}", span, related=[Related("declared", cell.carry.span)], fixes=fixes)


def _as_reset(cell: Type, mask: Type, text: str) -> str:
    """What makes a reset of it, where the kind or the rate is wrong."""
    if mask.rate is None or cell.rate is None:
        return "a reset is said at every tick: compare something along time, as x > 0"
    if mask.dtype.kind != "bool":
        return "compare something, as x > 0"
    flag = f"where({text if len(text) <= 30 else 'mask'}, 1.0, 0.0)"
    slower, faster = cell.rate / mask.rate, mask.rate / cell.rate
    if slower > 1 and slower.denominator == 1:
        return f"hold it to the rate of the cell: ({flag} |> upsample({slower})) > 0.5"
    if faster > 1 and faster.denominator == 1:
        return f"bring it to the rate of the cell: ({flag} |> max_pool({faster})) > 0.5"
    return ""


def close_cells(context: Context, cells: Cells) -> None:
    for cell in cells.of.values():
        if context.attempt(None, _close, context, cell) is POISON:
            context.elaborator.backs.setdefault(cell.carry, Back(cell.carry, 0.0, span=cell.carry.span))


def _close(context: Context, cell: Cell) -> None:
    name, carry, node = cell.name, cell.carry, cell.tree.get("next")
    assert node is not None
    made = cell.next
    if made is None:
        with context.elaborator.entered(f"{name}_next"):
            made = context.single(context.elaborator.value(value_expression(node), context.scope), "next", node.span)
    facts = context.elaborator.inference.facts
    a, b = carry.type, made.type
    same = len(a.dims) == len(b.dims) and all(facts.same(x, y) for x, y in zip(a.dims, b.dims, strict=True))
    if not same or a.rate != b.rate or a.dtype.kind != b.dtype.kind or b.meaning:
        fail(
            "GS0407", f"cell '{name}' is {a}, but its next is {b}", node.span, related=[Related("declared", carry.span)]
        )
    require = cell.tree.get("require")
    if require is not None and not (isinstance(require, Scalar) and require.text == "parallel"):
        fail("GS0222", "'require' of a cell is parallel", require.span)
    init = cell.begins
    if init is None:  # where it has a first value, nothing reads what was before
        init = 0 if _first(cell.tree.get("init")) else _init(context, name, carry, cell.tree.get("init"))
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
