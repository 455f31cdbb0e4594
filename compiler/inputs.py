"""`inputs:` and `require:`: typed values from outside, features computed unless given, and facts about sizes."""

from __future__ import annotations

from typing import Any

from graphspec.compiler import arithmetic
from graphspec.compiler.arithmetic import describe, evaluate, is_number
from graphspec.compiler.context import Context
from graphspec.compiler.stages import POISON, PoisonedError
from graphspec.compiler.windows import exact_fraction
from graphspec.compiler.written import check_keys, check_name, requirements
from graphspec.declare import values_told
from graphspec.diagnostic import Fix, Related, did_you_mean, fail
from graphspec.dims import Dim, DimError, Facts
from graphspec.document import Entry, Node, Scalar
from graphspec.document import Mapping as Tree
from graphspec.expression import Binary, Expr, IfElse, Name, Nothing, TypeExpr, names, parse_expression, parse_type
from graphspec.graph import Input, Value
from graphspec.types import BOOL, FLOAT, DType, Type

MAX_RATE = 10**9  # Hz
KEYS = ("type", "before", "pad", "default", "cache", "when", "doc")
DTYPES = {"f32": DType("float", concrete=True), "float": FLOAT, "bool": BOOL, "int": DType("int")}


def read_inputs(context: Context) -> None:
    for entry in context.entries("inputs"):
        context.broken |= context.attempt(entry.key.text, _input, context, entry) is POISON


def _input(context: Context, entry: Entry) -> None:
    name, written = entry.key.text, entry.value
    check_name(name, entry.key.span)
    check_keys(written, KEYS, "an input")
    home = context.spec.home
    if name in home.param_spans:
        related = [Related("here", home.param_spans[name])]
        fail("GS0224", f"'{name}' is already a param", entry.key.span, related=related)
    if name in context.symbols:
        fail("GS0224", f"'{name}' is the name of a size", entry.key.span)
    context.scope.spans[name] = entry.key.span
    tree = written if isinstance(written, Tree) else Tree((), written.span)
    when = tree.get("when")
    if when is not None and not _holds(context, when):
        _leave_out(context, name)
        return
    cache = tree.get("cache")
    if cache is not None and not (isinstance(cache, Scalar) and isinstance(cache.value, bool)):
        fail("GS0133", "'cache' is true or false", cache.span)
    node = tree.get("type") if isinstance(written, Tree) else written
    if node is None:
        fail("GS0506", f"input '{name}' has no 'type'", entry.key.span)
    if not isinstance(node, Scalar):
        fail("GS0133", "a type belongs here, as float[T, 1] @ 16000", node.span)
    type_ = read_type(context, parse_type(node.content))
    default = tree.get("default")
    number: int | float | None = None
    if default is not None and not _supplied(context, name):
        meant = _default(context, default)
        if meant is None:
            _leave_out(context, name)
            return
        if not is_number(meant):
            context.features[name] = entry
            if cache is not None and cache.value:
                context.cached[name] = cache.span
            return
        number = meant
        if type_.dims:
            fail("GS0190", f"a number as default for '{name}', which has axes, is not built yet", default.span)
    if cache is not None and default is None:
        fail("GS0527", f"'{name}' has no default, so there is nothing of it to be cached", cache.span)
    before_node, pad_node = tree.get("before"), tree.get("pad")
    before = _class(context, before_node, type_, "before") if before_node is not None else None
    value = Value(path=name, type=type_, span=entry.key.span, before=before)
    if pad_node is not None:
        context.elaborator.pads[name] = _class(context, pad_node, type_, "pad")
    context.elaborator.values.append(value)
    context.elaborator.claim(name)
    context.inputs[name] = Input(value, number, number is not None)
    context.scope.names[name] = value


def _leave_out(context: Context, name: str) -> None:
    context.absent.add(name)
    context.scope.names[name] = None


def _holds(context: Context, node: Node) -> bool:
    if not isinstance(node, Scalar):
        fail("GS0133", "'when' is a condition of params, as mels > 0", node.span)
    value: Any = node.value
    if not isinstance(value, bool):
        value = evaluate(parse_expression(node.content), context.spec.home.params)
    return arithmetic.truth(value, node.span)


def _supplied(context: Context, name: str) -> bool:
    """Does `data:` bring it?"""
    return any(e.key.text == name for e in context.spec.entries("data"))


def _default(context: Context, node: Node) -> Any:
    """A number (a knob), none (it may be absent), or the expression of a feature."""
    if not isinstance(node, Scalar):
        fail("GS0133", "a default is a number, none, or an expression of other inputs", node.span)
    if is_number(node.value):
        return node.value
    expr = parse_expression(node.content)
    if all(n.name in context.spec.home.params or n.name in arithmetic.FUNCTIONS for n in names(expr)):
        value = evaluate(expr, context.spec.home.params)
        if value is not None and not is_number(value):
            fail(
                "GS0133",
                f"a default is a number, none, or an expression of other inputs, not {describe(value)}",
                node.span,
            )
        return value
    return expr


def _class(context: Context, node: Node, type_: Type, what: str) -> int | float:
    value = context.number(node)
    if type_.dtype.kind == "int":
        classes = type_.dtype.classes
        if not isinstance(value, int) or value < 0 or (classes and value >= classes):
            fail("GS0312", f"'{what}' must be one of the classes 0..{(classes or 1) - 1}, not {value}", node.span)
    return value


# ---- types ----------------------------------------------------------------------------------------------------------


def read_type(context: Context, written: TypeExpr) -> Type:
    if written.name not in DTYPES:
        fail(
            "GS0313",
            f"'{written.name}' is not a dtype{did_you_mean(written.name, DTYPES)}",
            written.name_span,
            notes=["dtypes: f32, float, int(classes), bool"],
        )
    dtype = DTYPES[written.name]
    params = context.spec.home.params
    if written.arguments:
        if written.name != "int" or len(written.arguments) != 1:
            fail("GS0313", f"{written.name} takes no arguments", written.span)
        classes = evaluate(written.arguments[0].value, params)
        if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
            where = written.arguments[0].span
            fail("GS0313", f"the number of classes is a whole number from 1, not {describe(classes)}", where)
        dtype = DType("int", classes)
    dims = tuple(_size(context, d) for d in written.dims or ())
    rate = None
    if written.rate is not None and not (isinstance(written.rate, Name) and written.rate.name == "static"):
        rate = exact_fraction(written.rate, params, written.rate.span) if _known(context, written.rate) else None
        if rate is None or not 0 < rate <= MAX_RATE:
            fail(
                "GS0302",
                f"a rate is more than 0 Hz and at most {MAX_RATE:g}, not {float(rate or 0):g}",
                written.rate.span,
            )
        if not dims:
            fail("GS0304", "a value with a rate needs a time axis, as [T, 1]", written.span)
    elif written.rate is None and any(d.as_int() is None for d in dims):
        fail(
            "GS0304",
            f"{written.span.text} has a symbolic axis but no rate",
            written.span,
            fixes=[Fix("write '@ rate' for time, or '@ static' for an axis that is not time")],
        )
    if rate is not None and dims[0].as_int() is not None:
        fail("GS0304", f"the time axis is a name, as T, not the number {dims[0]}", written.span)
    return Type(dtype, dims, rate)


def _known(context: Context, expr: Expr) -> bool:
    evaluate_names = [n for n in names(expr) if n.name not in context.spec.home.params]
    if evaluate_names:
        n = evaluate_names[0]
        fail("GS0201", f"'{n.name}' is not a param{did_you_mean(n.name, context.spec.home.params)}", n.span)
    return True


def _size(context: Context, expr: Expr) -> Dim:
    """One axis of an input: a number of params, or a new symbol."""
    if isinstance(expr, Name) and expr.name not in context.spec.home.params:
        if expr.name in context.inputs:
            fail("GS0224", f"'{expr.name}' is already an input", expr.span)
        symbol = context.symbols.setdefault(expr.name, Dim.symbol(expr.name))
        context.scope.names[expr.name] = symbol
        return symbol
    value = evaluate(expr, context.spec.home.params)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        fail("GS0306", f"an axis is a whole number from 1, not {describe(value)}", expr.span)
    return Dim.of(value)


# ---- facts ----------------------------------------------------------------------------------------------------------


def read_facts(context: Context) -> Facts:
    facts = Facts()

    def add(expr: Expr) -> None:
        nonlocal facts
        facts = _fact(context, expr, facts)

    def each() -> None:
        for expr in requirements(context.spec.section("require")):
            context.attempt(None, add, expr)

    context.attempt(None, each)
    return facts


def _fact(context: Context, expr: Expr, facts: Facts) -> Facts:
    """`X % k == 0` and `X == Y` of sizes; of params alone, anything that holds."""
    for n in names(expr):  # `T == N*hop` may be the first to name N; sizes are written large
        if n.name[0].isupper() and n.name not in context.spec.home.params and n.name not in context.symbols:
            context.symbols[n.name] = context.scope.names[n.name] = Dim.symbol(n.name)
    scope = {**context.spec.home.params, **context.symbols}
    if isinstance(expr, IfElse):  # {is: fact, when: condition of params}
        expr = expr.then if arithmetic.truth(evaluate(expr.condition, scope), expr.condition.span) else expr.otherwise
    if isinstance(expr, Nothing):
        return facts
    if context.broken and any(n.name not in scope for n in names(expr)):
        raise PoisonedError  # it may be a size of an input whose type was refused
    symbolic = any(n.name in context.symbols for n in names(expr))
    if not symbolic:
        if arithmetic.truth(evaluate(expr, scope), expr.span) is False:
            values = values_told((n.name for n in names(expr)), scope)
            fail("GS0305", f"the spec requires {expr.span.text}; {values}", expr.span)
        return facts
    if not (isinstance(expr, Binary) and expr.operator == "=="):
        fail("GS0314", f"a fact about sizes is 'T % 16 == 0' or 'T == N*hop', not '{expr.span.text[:60]}'", expr.span)
    try:
        if isinstance(expr.left, Binary) and expr.left.operator == "%":
            modulus = evaluate(expr.left.right, scope)
            zero = evaluate(expr.right, scope)
            if zero != 0 or not isinstance(modulus, int):
                fail("GS0314", "write a divisibility as 'T % 16 == 0'", expr.span)
            return facts.divisible(Dim.of(evaluate(expr.left.left, scope)), modulus)
        for side in (expr.left, expr.right):
            number = evaluate(side, scope)
            if is_number(number) and number < 1:
                fail("GS0314", f"a size is 1 or more, not {number}", expr.span)
        return facts.equal(Dim.of(evaluate(expr.left, scope)), Dim.of(evaluate(expr.right, scope)))
    except DimError as error:
        fail("GS0314", str(error), expr.span)
