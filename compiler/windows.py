"""What an op's declaration says of time: rates as exact fractions, and windows from its rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from graphspec import time
from graphspec.compiler.arithmetic import describe, evaluate, is_number
from graphspec.declare import Declaration
from graphspec.diagnostic import fail
from graphspec.expression import Argument, Binary, Call, Expr, IfElse, Name, Number, parse_free
from graphspec.span import Span


def exact_fraction(expr: Expr, values: Mapping[str, Any], span: Span) -> Fraction:
    if isinstance(expr, Number):
        return Fraction(expr.value)
    if isinstance(expr, Name):
        value = values[expr.name]
        if not is_number(value) and not isinstance(value, Fraction):
            fail("GS0302", f"a rate cannot be made of {describe(value)}", span)
        return Fraction(value)
    if isinstance(expr, Binary) and expr.operator in "+-*/":
        a, b = exact_fraction(expr.left, values, span), exact_fraction(expr.right, values, span)
        if expr.operator == "/":
            if b == 0:
                fail("GS0208", "division by zero in a rate", span)
            return a / b
        return a + b if expr.operator == "+" else a - b if expr.operator == "-" else a * b
    if isinstance(expr, Binary) and expr.operator == "//":
        return Fraction(exact_fraction(expr.left, values, span) // exact_fraction(expr.right, values, span))
    if isinstance(expr, IfElse):
        return exact_fraction(expr.then if evaluate(expr.condition, values) else expr.otherwise, values, span)
    fail("GS0302", f"'{expr.span.text[:60]}' is not a rate", span)


_BEHAVIOURS: dict[str, Callable[..., time.Window]] = {
    "pointwise": time.pointwise,
    "delay": time.delay,
    "window": time.window,
    "fold": time.fold,
    "unfold": time.unfold,
    "recurrent": time.recurrent,
    "everything": time.everything,
}


def window_of(op: Declaration, operand: str, params: Mapping[str, Any]) -> time.Window:
    """What element k of the op's result reads of this operand. Undeclared: all of it.

    params: the op's parameters, and what else its signature bound (sizes).
    """
    rule = op.window_of(operand)
    if not rule:
        return time.everything()
    return _window(rule, tuple(sorted((k, _hashable(v)) for k, v in params.items() if _plain(v))))


def _plain(value: Any) -> bool:
    """What a rule may speak of: a number, a word, none, a list of numbers."""
    if isinstance(value, (list, tuple)):
        return all(isinstance(n, (int, float)) for n in value)
    return value is None or isinstance(value, (int, float, str))


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=4096)
def _window(rule: str, params: tuple[tuple[str, Any], ...]) -> time.Window:
    values = dict(params)

    def run(expr: Expr) -> time.Window:
        if isinstance(expr, IfElse):
            return run(expr.then if evaluate(expr.condition, values) else expr.otherwise)
        assert isinstance(expr, Call) and isinstance(expr.function, Name), rule
        written = [a for a in expr.arguments if isinstance(a, Argument)]
        given = [evaluate(a.value, values) for a in written if not a.name]
        named = {  # a stride is exact: a third of a tick is no float
            a.name: exact_fraction(a.value, values, a.value.span) if a.name == "stride" else evaluate(a.value, values)
            for a in written
            if a.name
        }
        return _BEHAVIOURS[expr.function.name](*given, **named)

    return run(parse_free(rule))
