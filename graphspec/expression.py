"""Expression text -> AST. Every node keeps its span in the file, so that errors underline the exact place.

Long because the node types and the grammar's transformer are one table seen from two sides. What cannot be parsed at
all is told by expression_faults.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from graphspec.diagnostic import Edit, Fix, SpecError, fail
from graphspec.expression_faults import ends_early, unexpected
from graphspec.span import Source, Span

MAX_LENGTH = 2_000  # characters of one expression
MAX_DEPTH = 32  # brackets inside brackets
MAX_TOKENS = 250  # words and signs; with it, no walk over an expression meets the interpreter's recursion limit
MAX_NUMBER = 2**53


@dataclass(frozen=True)
class Expr:
    """A node. `grouped` says that parentheses stood around it."""

    span: Span
    grouped: bool


@dataclass(frozen=True)
class Number(Expr):
    value: int | float


@dataclass(frozen=True)
class Text(Expr):
    value: str


@dataclass(frozen=True)
class Truth(Expr):
    value: bool


@dataclass(frozen=True)
class Nothing(Expr):
    pass


@dataclass(frozen=True)
class Name(Expr):
    name: str


@dataclass(frozen=True)
class Attribute(Expr):
    of: Expr
    name: str
    name_span: Span


@dataclass(frozen=True)
class Argument:
    name: str | None
    value: Expr
    span: Span


@dataclass(frozen=True)
class Comprehension:
    """`value for targets in over`; a target is a name or a tuple of names."""

    value: Expr
    targets: tuple[str | tuple[str, ...], ...]
    over: Expr
    span: Span

    def target_span(self, name: str) -> Span:
        """Where the target of that name stands."""
        begin, end = self.value.span.end, self.over.span.start
        found = re.search(rf"\b{re.escape(name)}\b", self.span.source.text[begin:end])
        return Span(self.span.source, begin + found.start(), begin + found.end()) if found else self.span


@dataclass(frozen=True)
class Call(Expr):
    function: Expr
    arguments: tuple[Argument | Comprehension, ...]


@dataclass(frozen=True)
class History(Expr):
    of: Expr
    delay: Expr


@dataclass(frozen=True)
class Index(Expr):
    of: Expr
    at: Expr


@dataclass(frozen=True)
class Unary(Expr):
    operator: str  # "-" | "not"
    operand: Expr


@dataclass(frozen=True)
class Binary(Expr):
    operator: str  # + - * / // % ** and the comparisons
    left: Expr
    right: Expr
    operator_span: Span


@dataclass(frozen=True)
class Logic(Expr):
    operator: str  # "and" | "or"
    left: Expr
    right: Expr


@dataclass(frozen=True)
class IfElse(Expr):
    then: Expr
    condition: Expr
    otherwise: Expr


@dataclass(frozen=True)
class Pipe(Expr):
    value: Expr
    stage: Expr


@dataclass(frozen=True)
class ListOf(Expr):
    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Known(Expr):
    """An expression that was worked out already: `value`, written as `written`."""

    value: Any
    written: Expr


@dataclass(frozen=True)
class Ellipsis_(Expr):
    """`...` among the dims of a signature."""


@dataclass(frozen=True)
class TypeExpr:
    """`NAME(args)[dims] @ rate` as written."""

    name: str
    arguments: tuple[Argument | Comprehension, ...]
    dims: tuple[Expr, ...] | None
    rate: Expr | None
    span: Span
    name_span: Span


@dataclass(frozen=True)
class Operand:
    name: str
    type: TypeExpr
    variadic: bool
    optional: bool


@dataclass(frozen=True)
class Signature:
    """An op's type rule as written."""

    operands: tuple[Operand, ...]
    results: tuple[tuple[str | None, TypeExpr], ...]
    conditions: tuple[Expr, ...]
    text: str


def children(node: Expr) -> Iterator[Expr]:
    """The expressions directly inside a node, in source order."""
    for f in fields(node):
        value = getattr(node, f.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Expr):
                yield item
            elif isinstance(item, Argument):
                yield item.value
            elif isinstance(item, Comprehension):
                yield item.value
                yield item.over


def names(node: Expr) -> Iterator[Name]:
    """All bare names in it, called or not."""
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, Name):
            yield top
        stack.extend(children(top))


def read_names(node: Expr) -> Iterator[Name]:
    """The names it may read as values: not those that are called or stand as a bare stage behind `|>`."""
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, Name):
            yield top
        skipped = top.function if isinstance(top, Call) else top.stage if isinstance(top, Pipe) else None
        stack.extend(c for c in children(top) if not (c is skipped and isinstance(c, Name)))


def parse_expression(span: Span) -> Expr:
    """The expression written at a span."""
    return _parse(span, "expr")


def parse_type(span: Span) -> TypeExpr:
    """`int(2**bits)[T, 1] @ rate` written at a span."""
    return _parse(span, "type")


@cache
def parse_signature(text: str) -> Signature:
    """An op's declared signature, e.g. `x: float[T, c] @ r -> float[T/stride, units] @ r/stride`."""
    source = Source("<signature>", text)
    operands, results, conditions = _parse(Span(source, 0, len(text)), "signature")
    return Signature(operands, results, conditions, text)


@cache
def parse_free(text: str) -> Expr:
    """An expression that is not in a file (a declaration's time rule, a command-line override)."""
    return parse_expression(Span(Source("<text>", text), 0, len(text)))


def _parse(span: Span, start: str) -> Any:
    """Parsed once a place: several passes ask for the same expression."""
    key = (span.start, span.end, start)
    found = span.source.parsed.get(key)
    if found is None:
        found = span.source.parsed[key] = _parse_anew(span, start)
    return found


def _parse_anew(span: Span, start: str) -> Any:
    text = span.text
    _check_limits(text, span)
    parser, builder = _machine()
    from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken, VisitError

    builder.source, builder.base = span.source, span.start
    try:
        return builder.transform(parser.parse(text, start=start))
    except UnexpectedCharacters as error:
        at = span.start + (error.pos_in_stream or 0)
        unexpected(Span(span.source, at, at + 1), span)
    except (UnexpectedToken, UnexpectedEOF) as error:
        token: Any = getattr(error, "token", None)
        if token is None or token.type == "$END" or token.start_pos is None:
            ends_early(span)
        at = span.start + token.start_pos
        unexpected(Span(span.source, at, at + max(1, len(token))), span)
    except VisitError as error:
        if isinstance(error.orig_exc, SpecError):
            raise error.orig_exc from None
        raise


def _check_limits(text: str, span: Span) -> None:
    if len(text) > MAX_LENGTH:
        fail("GS0802", f"the expression has {len(text)} characters; the limit is {MAX_LENGTH}", span.at_start())
    tokens = len(_TOKEN.findall(text))
    if tokens > MAX_TOKENS:
        advice = [Fix("give parts of it names of their own")]
        fail("GS0802", f"the expression has {tokens} words and signs; the limit is {MAX_TOKENS}", span, fixes=advice)
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if depth > MAX_DEPTH:
            at = Span(span.source, span.start + i, span.start + i + 1)
            fail("GS0802", f"brackets are nested deeper than {MAX_DEPTH}", at)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


_TOKEN = re.compile(r"\w+|[^\w\s]")


@cache
def _machine() -> tuple[Any, Any]:
    from lark import Lark, Transformer, v_args

    @v_args(meta=True)
    class Builder(Transformer):  # type: ignore[misc, type-arg]
        """lark's tree, bottom up, to our nodes."""

        source: Source
        base: int

        def _span(self, meta: Any) -> Span:
            if meta.empty:
                return Span(self.source, self.base, self.base)
            return Span(self.source, self.base + meta.start_pos, self.base + meta.end_pos)

        def _token(self, token: Any) -> Span:
            return Span(self.source, self.base + token.start_pos, self.base + token.end_pos)

        def number(self, meta: Any, c: list[Any]) -> Expr:
            word = str(c[0])
            span = self._span(meta)
            whole = word.isdigit()
            if whole and len(word) > 1 and word[0] == "0":
                fail("GS0105", f"'{word}' is not a plain integer", span, fixes=[Fix(f"write {int(word)}")])
            value = int(word) if whole and len(word) < 20 else float(word)
            if abs(value) > MAX_NUMBER and (whole or value == float("inf")):
                fail("GS0106", f"'{word[:30]}' is over 2**53" if whole else f"'{word[:30]}' is not finite", span)
            return Number(span, False, value)

        def text(self, meta: Any, c: list[Any]) -> Expr:
            return Text(self._span(meta), False, str(c[0])[1:-1])

        def true(self, meta: Any, c: list[Any]) -> Expr:
            return Truth(self._span(meta), False, True)

        def false(self, meta: Any, c: list[Any]) -> Expr:
            return Truth(self._span(meta), False, False)

        def none(self, meta: Any, c: list[Any]) -> Expr:
            return Nothing(self._span(meta), False)

        def name(self, meta: Any, c: list[Any]) -> Expr:
            span = self._span(meta)
            if c[0] == "t":
                fail("GS0123", "'t' is the running tick; it stands only in x[t-k]", span)
            return Name(span, False, str(c[0]))

        def grouped(self, meta: Any, c: list[Any]) -> Expr:
            return replace(c[0], span=self._span(meta), grouped=True)

        def list_of(self, meta: Any, c: list[Any]) -> Expr:
            return ListOf(self._span(meta), False, tuple(x for x in c if x is not None))

        def ellipsis(self, meta: Any, c: list[Any]) -> Expr:
            return Ellipsis_(self._span(meta), False)

        def attribute(self, meta: Any, c: list[Any]) -> Expr:
            return Attribute(self._span(meta), False, c[0], str(c[1]), self._token(c[1]))

        def call(self, meta: Any, c: list[Any]) -> Expr:
            return Call(self._span(meta), False, c[0], c[1])

        def history(self, meta: Any, c: list[Any]) -> Expr:
            span = self._span(meta)
            if c[2] == "+":
                fail(
                    "GS0123",
                    f"'{span.text}' reads the future; history looks back",
                    span,
                    fixes=[Fix("write x[t-k] with k >= 1; look-ahead is an op's (a centred conv, say)")],
                )
            return History(span, False, c[0], c[3])

        def now(self, meta: Any, c: list[Any]) -> Expr:
            span = self._span(meta)
            fail("GS0123", f"'{span.text}' is just '{c[0].span.text}'", span, fixes=[Fix("drop the brackets")])

        def index(self, meta: Any, c: list[Any]) -> Expr:
            return Index(self._span(meta), False, c[0], c[1])

        def signed(self, meta: Any, c: list[Any]) -> Expr:
            span = self._span(meta)
            if c[0] == "+":
                return c[1]
            if isinstance(c[1], Number) and not c[1].grouped:
                return Number(span, False, -c[1].value)
            return Unary(span, False, "-", c[1])

        def negation(self, meta: Any, c: list[Any]) -> Expr:
            return Unary(self._span(meta), False, "not", c[0])

        def binary(self, meta: Any, c: list[Any]) -> Expr:
            left, operator, right = c
            return Binary(self._span(meta), False, str(operator), left, right, self._token(operator))

        comparison = binary

        def either(self, meta: Any, c: list[Any]) -> Expr:
            return Logic(self._span(meta), False, "or", c[0], c[1])

        def both(self, meta: Any, c: list[Any]) -> Expr:
            return Logic(self._span(meta), False, "and", c[0], c[1])

        def if_else(self, meta: Any, c: list[Any]) -> Expr:
            return IfElse(self._span(meta), False, c[0], c[1], c[2])

        def pipe(self, meta: Any, c: list[Any]) -> Expr:
            value, stage = c
            span = self._span(meta)
            loose = (Binary, Unary, Logic)
            if isinstance(value, loose) and not value.grouped:
                self._touching(span, value, stage, on_the_left=True)
            if isinstance(stage, loose) and not stage.grouped:
                self._touching(span, value, stage, on_the_left=False)
            if stage.grouped:
                bare = isinstance(stage, (Name, Call))
                edits = (Edit(stage.span, stage.span.text[1:-1].strip()),) if bare else ()
                fail(
                    "GS0124",
                    "right of '|>' stands a stage name or a call of one, without parentheses",
                    stage.span,
                    fixes=[Fix("take the parentheses away" if bare else "name the stage: write a block for it", edits)],
                )
            called = stage.function if isinstance(stage, Call) else stage
            plain = isinstance(called, Name) or (isinstance(called, Attribute) and isinstance(called.of, Name))
            if not plain:
                fail(
                    "GS0124",
                    f"'{stage.span.text[:60]}' is not a stage: right of '|>' stands a name or a call of one",
                    stage.span,
                    fixes=[Fix("give the value a name of its own and go on from there")],
                )
            return Pipe(span, False, value, stage)

        def _touching(self, span: Span, value: Expr, stage: Expr, on_the_left: bool) -> None:
            a, b = value.span.text, stage.span.text
            if on_the_left:
                last = value.right if isinstance(value, (Binary, Logic)) else value
                head = a[: last.span.start - value.span.start]
                readings = [f"({a}) |> {b}", f"{head}({last.span.text} |> {b})"]
            else:
                first = stage.left if isinstance(stage, (Binary, Logic)) else stage
                rest = b[first.span.end - stage.span.start :]
                readings = [f"({a} |> {first.span.text}){rest}"]
            fixes = [Fix(f"write {_in_one_line(r)}", (Edit(span, r),)) for r in readings]
            if not on_the_left:
                fixes.append(Fix(f"write {_in_one_line(a)} |> f, with f a block that is {_in_one_line(b)}"))
            fail(
                "GS0122",
                "'|>' and arithmetic touch without parentheses; this has two readings",
                span,
                fixes=fixes,
            )

        def arguments(self, meta: Any, c: list[Any]) -> Any:
            found = tuple(a for a in c if a is not None)
            loops = [a for a in found if isinstance(a, Comprehension)]
            if len(loops) > 1:
                fail("GS0125", "a call takes at most one 'for'", loops[1].span)
            seen: set[str] = set()
            for a in found:
                if isinstance(a, Argument) and a.name:
                    if a.name in seen:
                        fail("GS0203", f"argument '{a.name}' is given twice", a.span)
                    seen.add(a.name)
                elif isinstance(a, Argument) and seen:
                    fail("GS0203", "an argument by position stands after one by name", a.span)
            return found

        def named(self, meta: Any, c: list[Any]) -> Any:
            return Argument(str(c[0]), c[1], self._span(meta))

        def positional(self, meta: Any, c: list[Any]) -> Any:
            return Argument(None, c[0], self._span(meta))

        def comprehension(self, meta: Any, c: list[Any]) -> Any:
            return Comprehension(c[0], c[1], c[2], self._span(meta))

        def targets(self, meta: Any, c: list[Any]) -> Any:
            return tuple(c)

        def single(self, meta: Any, c: list[Any]) -> Any:
            return str(c[0])

        def several(self, meta: Any, c: list[Any]) -> Any:
            return tuple(str(x) for x in c)

        def dims(self, meta: Any, c: list[Any]) -> Any:
            return tuple(x for x in c if x is not None)

        def type(self, meta: Any, c: list[Any]) -> Any:
            return TypeExpr(str(c[0]), c[1] or (), c[2], c[3], self._span(meta), self._token(c[0]))

        def operand(self, meta: Any, c: list[Any]) -> Any:
            return Operand(str(c[1]), c[3], c[0] is not None, c[2] is not None)

        def operands(self, meta: Any, c: list[Any]) -> Any:
            return tuple(c)

        def one_result(self, meta: Any, c: list[Any]) -> Any:
            return ((None, c[0]),)

        def several_results(self, meta: Any, c: list[Any]) -> Any:
            return tuple(c)

        def result(self, meta: Any, c: list[Any]) -> Any:
            return (str(c[0]), c[1])

        def signature(self, meta: Any, c: list[Any]) -> Any:
            return (c[0] or (), c[1], tuple(x for x in c[2:] if x is not None))

    builder = Builder()
    here = Path(__file__)
    grammar = here.with_name("grammar.lark").read_text()
    parser = Lark(
        grammar,
        parser="lalr",
        lexer="contextual",
        start=["expr", "type", "signature"],
        propagate_positions=True,
        maybe_placeholders=True,
        # The tables of the parser, kept beside the grammar (built again when it changes, or not kept where the
        # package cannot be written). Not lark's default place, which anyone on the machine could guess and fill.
        cache=str(here.with_name("grammar.cache")),
    )
    return parser, builder
