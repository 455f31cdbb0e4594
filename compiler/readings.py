"""`a + b |> f` has two readings (LANGUAGE 3): what each of them would be, so that one can be chosen by its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphspec.compiler.context import Context
from graphspec.compiler.stages import PoisonedError
from graphspec.diagnostic import Diagnostic, Fix, SpecError
from graphspec.expression import parse_expression
from graphspec.graph import Value
from graphspec.span import Source, Span


def typed(context: Context) -> Callable[[Diagnostic], Diagnostic]:
    """Adds to the readings of each GS0122 their types, where they can be worked out; what fits comes first.

    The parser refuses such an expression before any type is known, so the readings are elaborated here, once all that
    they may read is there. The values made on the way are lost: the spec is refused anyway.
    """

    def each(d: Diagnostic) -> Diagnostic:
        if d.code != "GS0122":
            return d
        told = [_told(fix, context) for fix in d.fixes]
        return replace(d, fixes=tuple(fix for fix, _ in sorted(told, key=lambda t: not t[1])))

    return each


def _told(fix: Fix, context: Context) -> tuple[Fix, bool]:
    """The fix with what its text would give, and whether it may be meant: it types, or nobody knows."""
    if len(fix.edits) != 1:
        return fix, False
    text = fix.edits[0].text
    try:
        expr = parse_expression(Span(Source("<reading>", text), 0, len(text)))
        with context.elaborator.entered("reading"):
            made = context.elaborator.value(expr, context.scope)
    except PoisonedError:
        return fix, True
    except SpecError as error:
        first = error.diagnostics[0]
        if not first.code.startswith("GS03"):
            return fix, True
        return replace(fix, title=f"{fix.title}, which does not fit: {first.message}"), False
    return (replace(fix, title=f"{fix.title}, which is {made.type}") if isinstance(made, Value) else fix), True
