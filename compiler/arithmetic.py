"""Compile-time arithmetic: numbers, texts, lists and symbolic sizes. Bounded, and never Python's eval.

Long because the operators, the functions and what each says of a wrong operand are one table of the language.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from graphspec.diagnostic import Edit, Fix, did_you_mean, fail, nearest
from graphspec.dims import Dim, DimError, Facts
from graphspec.excerpt import shown
from graphspec.expression import (
    Argument,
    Attribute,
    Binary,
    Call,
    Comprehension,
    Expr,
    IfElse,
    Index,
    ListOf,
    Logic,
    Name,
    Nothing,
    Number,
    Text,
    Truth,
    Unary,
)
from graphspec.span import Span

MAX_NUMBER = 2**53
MAX_LIST = 20_000
MAX_ELEMENTS = 100_000  # of lists inside lists, all counted

NO_FACTS = Facts()


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_compile_time(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, bool, str, Dim, tuple))


def evaluate(expr: Expr, params: Mapping[str, Any]) -> Any:
    """A compile-time expression of params: all that params, settings and signatures need."""
    if isinstance(expr, (Number, Text, Truth)):
        return expr.value
    if isinstance(expr, Nothing):
        return None
    if isinstance(expr, Name):
        if expr.name not in params:
            text = Fix(f'write "{expr.name}" if text is meant', (Edit(expr.span, f'"{expr.name}"'),))
            unknown(expr, params, f"'{expr.name}' is not a param", text)
        return params[expr.name]
    if isinstance(expr, Unary):
        return unary(expr.operator, evaluate(expr.operand, params), expr.span)
    if isinstance(expr, Binary):
        a, b = evaluate(expr.left, params), evaluate(expr.right, params)
        check_divisor(expr, b, lambda e: evaluate(e, params))
        return binary(expr.operator, a, b, expr.span)
    if isinstance(expr, Logic):
        left = evaluate(expr.left, params)
        return logic(expr.operator, left, lambda: evaluate(expr.right, params), expr.span)
    if isinstance(expr, IfElse):
        return evaluate(
            expr.then if truth(evaluate(expr.condition, params), expr.condition.span) else expr.otherwise, params
        )
    if isinstance(expr, ListOf):
        return tuple(evaluate(i, params) for i in expr.items)
    if isinstance(expr, Index):
        return index(evaluate(expr.of, params), evaluate(expr.at, params), expr.span)
    if isinstance(expr, Call) and isinstance(expr.function, Name):
        name = expr.function.name
        if name not in FUNCTIONS:
            fail(
                "GS0202",
                f"'{name}' is not a compile-time function{did_you_mean(name, FUNCTIONS)}",
                expr.function.span,
                notes=[f"there are: {', '.join(sorted(FUNCTIONS))}"],
            )
        given, named = [], {}
        for a in expr.arguments:
            if isinstance(a, Comprehension):
                each = bindings(a, evaluate(a.over, params))
                given.append(collected((evaluate(a.value, {**params, **b}) for b in each), a.span))
            elif isinstance(a, Argument) and a.name:
                named[a.name] = evaluate(a.value, params)
            else:
                given.append(evaluate(a.value, params))
        return call(name, given, named, expr.span)
    what = "an attribute" if isinstance(expr, Attribute) else "this"
    fail("GS0204", f"{what} cannot stand in a compile-time expression: '{expr.span.text[:60]}'", expr.span)


def unknown(expr: Name, known: Iterable[str], message: str, *fixes: Fix) -> NoReturn:
    """GS0201, with the name that may be meant and the edit to it."""
    python = {"True": "true", "False": "false", "None": "none"}.get(expr.name)
    close = [python] if python else nearest(expr.name, known)
    meant = [Fix(f"write {name}", (Edit(expr.span, name),)) for name in close]
    hint = f"; did you mean '{close[0]}'?" if close else ""
    there = sorted(known)
    notes = [f"there are: {', '.join(there)}"] if not close and 0 < len(there) <= 12 else []
    fail("GS0201", message + hint, expr.span, fixes=[*meant, *(fixes if not python else ())], notes=notes)


def check_divisor(expr: Binary, divisor: Any, worth: Callable[[Expr], Any]) -> None:
    """GS0208 names the factor below the line that is 0. `worth` works out a part of the divisor."""
    if expr.operator not in ("/", "//", "%") or isinstance(divisor, Dim) or not is_number(divisor) or divisor != 0:
        return
    zero = expr.right
    while isinstance(zero, Binary) and zero.operator == "*":
        left = worth(zero.left)
        zero = zero.left if is_number(left) and left == 0 else zero.right
    text = zero.span.text.removeprefix("(").removesuffix(")") if zero.grouped else zero.span.text
    what = "division by zero" if text == "0" else f"division by zero: '{shown(text)}' is 0"
    fail("GS0208", what, zero.span)


def bindings(loop: Comprehension, over: Any) -> list[dict[str, Any]]:
    """What the targets of a `for` stand for, one dict an element."""
    if not isinstance(over, (tuple, list)):
        fail("GS0206", f"'for' runs over a list, not {describe(over)}", loop.over.span)
    out = []
    for item in over:
        bound: dict[str, Any] = {}
        if len(loop.targets) == 1 and isinstance(loop.targets[0], str):
            bound[loop.targets[0]] = item
        else:
            _unpack(loop.targets, item, bound, loop.span)
        out.append(bound)
    return out


def _unpack(targets: tuple[str | tuple[str, ...], ...], item: Any, bound: dict[str, Any], span: Span) -> None:
    if not isinstance(item, (tuple, list)) or len(item) != len(targets):
        size = len(item) if isinstance(item, (tuple, list)) else 1
        fail("GS0206", f"{len(targets)} names after 'for', but an element has {size} parts", span)
    for target, part in zip(targets, item, strict=True):
        if isinstance(target, str):
            bound[target] = part
        else:
            _unpack(target, part, bound, span)


def describe(value: Any) -> str:
    """`a number`, `a list`, ... for messages."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "a truth value"
    if is_number(value):
        return f"the number {value}"
    if isinstance(value, Dim):
        return f"the size {value}"
    if isinstance(value, str):
        return f"the text '{value[:30]}'"
    if isinstance(value, (tuple, list)):
        return "a list"
    if isinstance(value, dict):
        return f"a record of {', '.join(value)}"
    return "a value" if not callable(value) else "a stage"


def bounded(value: Any, span: Span) -> Any:
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        fail("GS0106", "the number is over 2**53", span)
    if isinstance(value, float) and not math.isfinite(value):
        fail("GS0106", "the number is too large, or not a number", span)
    if isinstance(value, Dim):
        whole = value.as_int()
        return value if whole is None else whole
    return value


def unary(operator: str, value: Any, span: Span) -> Any:
    if operator == "not":
        return not truth(value, span)
    if not (is_number(value) or isinstance(value, Dim)):
        fail("GS0204", f"'-' takes a number, not {describe(value)}", span)
    return bounded(value * -1, span)


def truth(value: Any, span: Span) -> bool:
    if not isinstance(value, bool):
        run_time = not is_compile_time(value)
        fixes = [Fix("choose at run time with where(mask, a, b)")] if run_time else []
        fail("GS0205", f"a condition is true or false at compile time, not {describe(value)}", span, fixes=fixes)
    return value


def logic(operator: str, left: Any, right: Callable[[], Any], span: Span) -> bool:
    first = truth(left, span)
    if operator == "and":
        return first and truth(right(), span)
    return first or truth(right(), span)


def binary(operator: str, a: Any, b: Any, span: Span, facts: Facts = NO_FACTS) -> Any:
    """One operation on compile-time operands. `//` on sizes must be exact by the facts."""
    if operator in ("==", "!="):
        same = a == b
        if not same and (isinstance(a, Dim) or isinstance(b, Dim)) and a is not None and b is not None:
            fail("GS0204", f"sizes that are not known yet cannot be compared: '{span.text[:60]}'", span)
        return same if operator == "==" else not same
    if isinstance(a, tuple) or isinstance(b, tuple):
        if operator == "+" and isinstance(a, tuple) and isinstance(b, tuple):
            return _list(a + b, span)
        if operator == "*" and isinstance(a, tuple) and isinstance(b, int):
            if len(a) * b > MAX_LIST:
                fail("GS0804", f"the list would have {len(a) * b} elements; the limit is {MAX_LIST}", span)
            return _list(a * b, span)
        fail("GS0204", f"'{operator}' does not work on {describe(a)} and {describe(b)}", span)
    for side in (a, b):
        if not (is_number(side) or isinstance(side, Dim)):
            fail("GS0204", f"'{operator}' takes numbers, not {describe(side)}", span)
    if operator in ("<", "<=", ">", ">="):
        if isinstance(a, Dim) or isinstance(b, Dim):
            fail("GS0204", f"sizes that are not known yet cannot be compared: '{span.text[:60]}'", span)
        return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator]
    if operator in ("/", "//", "%") and b == 0:
        fail("GS0208", f"division by zero in '{span.text[:60]}'", span)
    if isinstance(a, Dim) or isinstance(b, Dim):
        try:
            return bounded(_sizes(operator, a, b, span, facts), span)
        except DimError as error:
            fail("GS0204", str(error), span)
    if operator == "**":
        return _power(a, b, span)
    if operator == "/":
        whole = isinstance(a, int) and isinstance(b, int) and a % b == 0
        return a // b if whole else bounded(a / b, span)
    results: dict[str, Callable[[Any, Any], Any]] = {
        "+": lambda x, y: x + y,
        "-": lambda x, y: x - y,
        "*": lambda x, y: x * y,
        "//": lambda x, y: x // y,
        "%": lambda x, y: x % y,
    }
    return bounded(results[operator](a, b), span)


def _sizes(operator: str, a: Any, b: Any, span: Span, facts: Facts) -> Any:
    if operator in "+-*":
        x, y = (v if isinstance(v, Dim) else _whole_dim(v, span) for v in (a, b))
        return x + y if operator == "+" else x - y if operator == "-" else x * y
    if operator == "**" and isinstance(b, int):
        return a**b
    if operator in ("/", "//"):
        quotient = (a if isinstance(a, Dim) else _whole_dim(a, span)) / b
        if operator == "//" and not facts.exact(quotient):
            needed = facts.needed(quotient)
            fixes = [Fix(f"require: {needed}")] if needed else []
            fail("GS0310", f"'{span.text[:60]}' is not known to be a whole number", span, fixes=fixes)
        return quotient
    fail("GS0204", f"'{operator}' on sizes stands only in require, as 'T % 16 == 0'", span)


def _whole_dim(value: Any, span: Span) -> Dim:
    if not isinstance(value, int):
        fail("GS0204", f"a size is a whole number, not {value}", span)
    return Dim.of(value)


def _power(a: Any, b: Any, span: Span) -> Any:
    if isinstance(a, int) and isinstance(b, int) and abs(b) > 64:
        fail("GS0106", f"the exponent {b} is over 64", span)
    if a == 0 and b < 0:
        fail("GS0208", "division by zero: 0 to a negative power", span)
    if isinstance(a, int) and isinstance(b, int) and b > 0 and a.bit_length() * b > 64:
        fail("GS0106", "the number is over 2**53", span)
    try:
        value = a**b
    except OverflowError:
        fail("GS0106", "the number is too large", span)
    if isinstance(value, complex):
        fail("GS0204", "a negative number to a broken power is not real", span)
    return bounded(value, span)


def index(of: Any, at: Any, span: Span) -> Any:
    if not isinstance(of, (tuple, list)):
        fail("GS0206", f"{describe(of)} is not a list; history is written x[t-k]", span)
    if not isinstance(at, int) or isinstance(at, bool):
        fail("GS0206", "a list is indexed by a whole number", span)
    if not -len(of) <= at < len(of):
        fail("GS0206", f"the list has {len(of)} elements; there is no element {at}", span)
    return of[at]


def _list(items: tuple[Any, ...], span: Span) -> tuple[Any, ...]:
    if len(items) > MAX_LIST:
        fail("GS0804", f"the list has {len(items)} elements; the limit is {MAX_LIST}", span)
    if elements(items) > MAX_ELEMENTS:
        fail("GS0804", f"the lists have over {MAX_ELEMENTS} elements in all", span)
    return items


def elements(value: Any, seen: dict[int, int] | None = None) -> int:
    """How many elements a list of lists has, each shared list walked once."""
    if not isinstance(value, tuple):
        return 1
    seen = {} if seen is None else seen
    if id(value) not in seen:
        seen[id(value)] = sum(elements(v, seen) for v in value)
    return seen[id(value)]


def collected(items: Iterable[Any], span: Span) -> tuple[Any, ...]:
    """The elements of a comprehension, counted while they are made."""
    out: list[Any] = []
    total = 0
    for item in items:
        total += elements(item)
        if total > MAX_ELEMENTS:
            fail("GS0804", f"the lists have over {MAX_ELEMENTS} elements in all", span)
        out.append(item)
    return tuple(out)


def folded(function: Callable[..., Any], name: str, spelled: str, numbers: list[Any], span: Span) -> Any:
    """An op's meaning on compile-time numbers, within bounds."""
    if len(numbers) == 2 and spelled.startswith("a "):
        return binary(spelled.split()[1], numbers[0], numbers[1], span)
    try:
        return bounded(function(*numbers), span)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        fail("GS0209", f"{name} {_refusal(name, numbers, error)}", span)


class RefusedError(ValueError):
    """A compile-time function says itself why it does not work."""


def _brief(value: Any) -> str:
    return str(value) if is_number(value) else describe(value)


def _refusal(name: str, given: list[Any], error: Exception, named: Mapping[str, Any] | None = None) -> str:
    """What stands behind the function's name in GS0209: never Python's own words."""
    shown_ = describe(given[0]) if len(given) == 1 else f"({', '.join(map(_brief, given))})"
    if named:
        shown_ = f"({', '.join([*map(_brief, given), *(f'{n}={_brief(v)}' for n, v in named.items())])})"
    if isinstance(error, RefusedError):
        return f"does not work on {shown_}: {error}"
    if isinstance(error, OverflowError):
        return f"of {shown_} is too large a number"
    takes = TAKES.get(name)
    return f"takes {takes}, not {shown_}" if takes else f"does not work on {shown_}"


def _range(*bounds: int) -> tuple[int, ...]:
    steps = range(*bounds)
    if len(steps) > MAX_LIST:
        raise RefusedError(f"it has {len(steps)} elements; the limit is {MAX_LIST}")
    return tuple(steps)


def _zip(*lists: tuple[Any, ...]) -> tuple[Any, ...]:
    if len({len(x) for x in lists}) > 1:
        raise RefusedError(f"the lists have {', '.join(str(len(x)) for x in lists)} elements")
    return tuple(zip(*lists, strict=True))


def _cosine(step: float, start: float, end: float, *, over: float) -> float:
    """From start to end along half a cosine in `over` updates."""
    done = min(max(step / over, 0.0), 1.0)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def _linear(step: float, start: float, end: float, *, over: float) -> float:
    return start + (end - start) * min(max(step / over, 0.0), 1.0)


def _warmup_cosine(step: float, peak: float, *, warmup: float, over: float, floor: float = 0.0) -> float:
    """Linear from 0 to peak in `warmup` updates, then half a cosine down to `floor` at `over`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return _cosine(step - warmup, peak, floor, over=max(over - warmup, 1))


def _exponential(step: float, start: float, *, rate: float, over: float) -> float:
    """start * rate ** (step / over)."""
    return float(start * rate ** (step / over))


def _some(xs: Any) -> Any:
    if len(xs) == 0:
        raise RefusedError("the list is empty, which has no shape")
    return xs


def _extreme(pick: Callable[..., Any]) -> Callable[..., Any]:
    return lambda first, *more: pick(first, *more) if more else pick(_some(first))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "range": _range,
    "len": len,
    "zip": _zip,
    "enumerate": lambda xs: tuple(enumerate(xs)),
    "reverse": lambda xs: tuple(reversed(xs)),
    "product": lambda xs: math.prod(xs),
    "sum": lambda xs: sum(_some(xs)),
    "mean": lambda xs: sum(xs) / len(_some(xs)),
    "min": _extreme(min),
    "max": _extreme(max),
    "list": lambda *xs: tuple(xs[0]) if len(xs) == 1 and isinstance(xs[0], tuple) else tuple(xs),
    "log": math.log,
    "log2": math.log2,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "cosine": _cosine,
    "ramp": _linear,
    "warmup_cosine": _warmup_cosine,
    "exponential": _exponential,
}


TAKES = {  # said where a function does not work on what it is given
    "range": "1 to 3 whole numbers (start, stop, step), the step not 0",
    "len": "one list",
    "zip": "lists of one length",
    "enumerate": "one list",
    "reverse": "one list",
    "product": "one list of numbers",
    "sum": "one list of numbers or of values",
    "mean": "one list of numbers or of values",
    "min": "numbers, or one list of them",
    "max": "numbers, or one list of them",
    "log": "a number above 0, and perhaps a base above 0 that is not 1",
    "log2": "a number above 0",
    "exp": "one number",
    "sqrt": "a number from 0",
    "abs": "one number",
    "floor": "one number",
    "ceil": "one number",
    "round": "one number, and perhaps how many digits",
    "cosine": "step, start, end and over=updates, over more than 0",
    "ramp": "step, start, end and over=updates, over more than 0",
    "warmup_cosine": "step, peak, warmup=updates and over=updates, warmup more than 0",
    "exponential": "step, start, rate= and over=updates, over not 0",
}


def call(name: str, given: list[Any], named: dict[str, Any], span: Span) -> Any:
    """A compile-time function. What goes wrong inside is told at the call."""
    try:
        made = FUNCTIONS[name](*given, **named)
        return _list(made, span) if isinstance(made, tuple) else bounded(made, span)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        fail("GS0209", f"{name} {_refusal(name, given, error, named)}", span)
