"""Pass 2, build: expressions -> values of the graph. What stands in value position, and what in stage position.

One class because the two positions call each other at every level (an expression holds stages, a stage expressions),
which is why this file is longer than most. Arguments are arguments.py, op calls calls.py, blocks and repeat unfold.py.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from graphspec.compiler import arithmetic
from graphspec.compiler.arguments import bind, bind_block
from graphspec.compiler.arithmetic import FUNCTIONS, bindings, describe, is_compile_time
from graphspec.compiler.calls import MAX_VALUES
from graphspec.compiler.instances import Instances
from graphspec.compiler.resolve import Block
from graphspec.compiler.stages import (
    POISON,
    BlockStage,
    Chain,
    FaceStage,
    Instance,
    OpStage,
    PoisonedError,
    Repeat,
    Scope,
    Stage,
)
from graphspec.diagnostic import Fix, Related, did_you_mean, fail
from graphspec.expression import (
    Argument,
    Attribute,
    Binary,
    Call,
    Comprehension,
    Expr,
    History,
    IfElse,
    Index,
    Known,
    ListOf,
    Logic,
    Name,
    Nothing,
    Number,
    Pipe,
    Text,
    Truth,
    Unary,
    children,
    names,
)
from graphspec.graph import Constant, Site, Value
from graphspec.span import Span
from graphspec.types import FLOAT, UNKNOWN, Type

MAX_DELAY = 1 << 24  # ticks


class Elaborator(Instances):
    """Evaluates expressions; run-time values are made on the way."""

    steps: Value | None = None
    told: Set[Span | None] = frozenset()  # calls of unknown names, reported before

    # ---- value position ---------------------------------------------------------------------------------------

    def value(self, expr: Expr, scope: Scope) -> Any:
        """What an expression stands for: a number, text, size, list, record, stage-free value."""
        handler = self._handlers.get(type(expr))
        if handler is None:
            fail("GS0204", f"'{expr.span.text[:60]}' cannot stand here", expr.span)
        return handler(self, expr, scope)

    def _literal(self, expr: Any, scope: Scope) -> Any:
        return expr.value

    def _nothing(self, expr: Expr, scope: Scope) -> Any:
        return None

    def _name(self, expr: Name, scope: Scope) -> Any:
        if expr.name in scope.names:
            found = scope.names[expr.name]
            if found is POISON:
                raise PoisonedError
            return found
        if expr.name in scope.home.params:
            return scope.home.params[expr.name]
        if expr.name in scope.home.shared:
            return scope.home.shared[expr.name]
        if expr.name == "step":
            return self.update_count(expr.span)
        self._unknown(expr, scope)

    def update_count(self, span: Span) -> Value:
        """`step`, the count of optimizer updates: an input that the runtime fills."""
        if self.steps is None:
            self.steps = Value(path="step", type=Type(FLOAT), span=span)
            self.values.insert(0, self.steps)
        return self.steps

    def _unknown(self, expr: Name, scope: Scope) -> Any:
        if expr.name in scope.home.choices:
            fail("GS0204", f"'{expr.name}' is a stage; pipe into it, x |> {expr.name}", expr.span)
        if expr.name in self.catalogue.ops or scope.home.block(expr.name, expr.span):
            fail(
                "GS0204",
                f"'{expr.name}' is {'an op' if expr.name in self.catalogue.ops else 'a block'}; here a value is wanted",
                expr.span,
                fixes=[Fix(f"call it with its input, {expr.name}(x), or pipe into it, x |> {expr.name}")],
            )
        if expr.name in FUNCTIONS:
            fail("GS0204", f"'{expr.name}' is a function; call it", expr.span)
        arithmetic.unknown(expr, scope.known(), f"there is no '{expr.name}' here")

    def _attribute(self, expr: Attribute, scope: Scope) -> Any:
        of = self.value(expr.of, scope)
        if isinstance(of, Instance):
            op = self._face(of, expr)
            if op.parsed.operands:
                fail("GS0204", f"'{expr.span.text}' is a function; call it or pipe into it", expr.span)
            return self._apply_face(FaceStage(of, op, {}, self._defaults(op, expr.span), expr.span, {}))
        if isinstance(of, dict):
            if expr.name not in of:
                fail(
                    "GS0216",
                    f"the record has no '{expr.name}'{did_you_mean(expr.name, of)}",
                    expr.name_span,
                    notes=[f"its fields: {', '.join(of)}"],
                )
            return of[expr.name]
        if isinstance(of, Value) and expr.name == "valid" and of.path in self.pads:
            return self._operator("a != b", expr, [(of, expr), (self.pads[of.path], expr)])
        if isinstance(of, Value) and of.type.meaning is not None:
            return self._field(of, expr)
        fail("GS0216", f"{describe(of)} has no field '{expr.name}'", expr.name_span)

    def _field(self, of: Value, expr: Attribute) -> Any:
        """`dist.scale`: what a distribution's parameters say, as a value of its own."""
        assert of.type.meaning is not None
        fields = self.catalogue.meanings[of.type.meaning.name].fields
        if expr.name not in fields:
            fail(
                "GS0216",
                f"{of.type.meaning} has no field '{expr.name}'{did_you_mean(expr.name, fields)}",
                expr.name_span,
                notes=[f"its fields: {', '.join(fields)}"],
            )
        op = fields[expr.name]
        slot = op.parsed.operands[0].name
        return self._op_call(op, {slot: of}, {}, expr.span, {slot: Site(expr.of.span, False)})

    def _history(self, expr: History, scope: Scope) -> Any:
        comes_back = scope.loops.get(expr.of.name) if isinstance(expr.of, Name) else None
        of = None if comes_back is not None else self.value(expr.of, scope)
        k = self.value(expr.delay, scope)
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            fail(
                "GS0123",
                f"history looks back 1 tick or more, a compile-time integer; this is {describe(k)}",
                expr.delay.span,
            )
        if k > MAX_DELAY:
            fail("GS0804", f"history of {k} ticks; the limit is {MAX_DELAY}", expr.delay.span)
        if comes_back is not None:
            return comes_back.at(k, expr.span)
        if isinstance(of, Value) and of.type.dtype == UNKNOWN:
            return of
        if not isinstance(of, Value):
            fail("GS0304", f"{describe(of)} has no history; only values along time do", expr.span)
        if not of.type.timed:
            fail("GS0304", f"{of.path} is static and has no history", expr.span, related=[Related(str(of), of.span)])
        op = self.catalogue.spellings["x[t-k]"]
        return self._op_call(
            op,
            {op.parsed.operands[0].name: of},
            {"k": k},
            expr.span,
            {op.parsed.operands[0].name: Site(expr.of.span, False)},
        )

    def _index(self, expr: Index, scope: Scope) -> Any:
        of = self.value(expr.of, scope)
        if isinstance(of, Value):
            fail(
                "GS0206",
                "a value is not indexed",
                expr.span,
                fixes=[Fix("channels: take(x, first, count); history: x[t-k]")],
            )
        return arithmetic.index(of, self.value(expr.at, scope), expr.span)

    def _unary(self, expr: Unary, scope: Scope) -> Any:
        operand = self.value(expr.operand, scope)
        if isinstance(operand, Value) and expr.operator == "-":
            return self._operator("-a", expr, [(operand, expr.operand)])
        if isinstance(operand, Value):
            fail("GS0205", "'not' decides at compile time; this is a run-time value", expr.span)
        return arithmetic.unary(expr.operator, operand, expr.span)

    def _binary(self, expr: Binary, scope: Scope) -> Any:
        a, b = self.value(expr.left, scope), self.value(expr.right, scope)
        if not isinstance(a, Value) and not isinstance(b, Value):
            arithmetic.check_divisor(expr, b, lambda e: self.value(e, scope))
            return arithmetic.binary(expr.operator, a, b, expr.span, self.inference.facts)
        return self._operator(f"a {expr.operator} b", expr, [(a, expr.left), (b, expr.right)])

    def _operator(self, spelled: str, expr: Expr, sides: list[tuple[Any, Expr]]) -> Any:
        op = self.catalogue.spellings.get(spelled)
        if op is None:
            fail("GS0204", f"'{spelled}' does not work on run-time values", expr.span)
        inputs = {d.name: self.operand(v, e.span) for d, (v, e) in zip(op.parsed.operands, sides, strict=True)}
        sites = {
            d.name: Site(e.span, isinstance(e, Pipe) and not e.grouped)
            for d, (_, e) in zip(op.parsed.operands, sides, strict=True)
        }
        return self._op_call(op, inputs, {}, expr.span, sites)

    def _logic(self, expr: Logic, scope: Scope) -> Any:
        return arithmetic.logic(
            expr.operator, self.value(expr.left, scope), lambda: self.value(expr.right, scope), expr.span
        )

    def _if_else(self, expr: IfElse, scope: Scope) -> Any:
        return self.value(self._chosen(expr, scope), scope)

    def _chosen(self, expr: IfElse, scope: Scope) -> Expr:
        yes = arithmetic.truth(self.value(expr.condition, scope), expr.condition.span)
        chosen, other = (expr.then, expr.otherwise) if yes else (expr.otherwise, expr.then)
        loops = {t for n in _comprehensions(other) for t in _flat(n.targets)}
        members = {
            c for n in names(other) if (op := self.catalogue.ops.get(n.name)) for p in op.parameters for c in p.choices
        }
        for n in names(other):  # the other branch is not typed, but its names must exist
            known = n.name in scope.names or n.name in scope.home.params or n.name in self.catalogue.ops
            if not (
                known
                or n.name in FUNCTIONS
                or n.name in _SPECIAL
                or n.name in loops
                or n.name in members
                or scope.home.block(n.name, n.span)
            ):
                self._unknown(n, scope)
        return chosen

    def _list(self, expr: ListOf, scope: Scope) -> Any:
        return tuple(self.value(i, scope) for i in expr.items)

    def _pipe(self, expr: Pipe, scope: Scope) -> Any:
        first = self.value(expr.value, scope)
        stage = self.stage(expr.stage, scope)
        return self.apply(stage, first, Site(expr.value.span, isinstance(expr.value, Pipe) and not expr.value.grouped))

    def _call(self, expr: Call, scope: Scope) -> Any:
        face = self._face_of(expr.function, scope)
        if face is not None:
            return self._apply_face(self._face_stage(face, expr, scope, piped=False))
        if not isinstance(expr.function, Name):
            block = self._qualified(expr.function, scope)
            if block is None:
                fail("GS0204", f"'{expr.function.span.text[:60]}' cannot be called", expr.function.span)
            return self._call_block(block, expr, scope)
        name = expr.function.name
        if name in ("repeat",):
            fail("GS0204", "'repeat' is a stage; pipe into it, x |> repeat(n, block)", expr.span)
        bound = scope.names.get(name, scope.home.params.get(name, scope.home.shared.get(name)))
        if isinstance(bound, Instance):
            return self._call_instance(bound, expr, scope)
        if name in scope.home.choices:
            fail("GS0204", f"'{name}' is a stage here; pipe into it, x |> {name}", expr.span)
        if isinstance(bound, Stage):
            fail("GS0204", f"'{name}' is a stage here; pipe into it, x |> {name}", expr.span)
        block = scope.home.block(name, expr.function.span)
        if block is not None:
            return self._call_block(block, expr, scope)
        if name == "stages":
            return self._stages(expr, scope)
        if name == "given":
            return self._given(expr, scope)
        if name in self.catalogue.ops or name in FUNCTIONS:
            return self._call_function(name, expr, scope)
        if expr.function.span in self.told or bound is POISON:
            raise PoisonedError
        known = [*self.catalogue.ops, *FUNCTIONS, *scope.home.block_names()]
        fail("GS0202", f"there is no op, block or function '{name}'{did_you_mean(name, known)}", expr.function.span)

    def _given(self, expr: Call, scope: Scope) -> bool:
        if len(expr.arguments) != 1 or not isinstance(expr.arguments[0], Argument):
            fail("GS0203", "given takes one name", expr.span)
        return self.value(expr.arguments[0].value, scope) is not None

    def _call_block(self, block: Block, expr: Call, scope: Scope) -> Any:
        inputs, params = bind_block(self, block, expr, scope, piped=False)
        return self._block(BlockStage(block, inputs, params, expr.span))

    def _call_function(self, name: str, expr: Call, scope: Scope) -> Any:
        """An op, a compile-time function, or a reduction of a list of values: told by what the arguments are."""
        op = self.catalogue.ops.get(name)
        arguments = expr.arguments
        if name in FUNCTIONS:
            given, named = self._evaluated(expr, scope)
            if name in _REDUCTIONS and len(given) == 1 and isinstance(given[0], tuple):
                if any(isinstance(v, Value) for v in given[0]):
                    return self._reduce(name, given[0], expr)
            of_lists = name in _LISTS and not named
            if of_lists or all(is_compile_time(v) and not _holds_values(v) for v in [*given, *named.values()]):
                return arithmetic.call(name, given, named, expr.span)
            if op is None:
                first = next(iter([*given, *named.values()]), None)
                message = f"'{name}' is a compile-time function; it does not take {describe(first)}"
                fail("GS0202", message, expr.span)
            arguments = _known(arguments, given, named)
        assert op is not None
        inputs, params, sites = bind(self, op, arguments, scope, piped=False, span=expr.span)
        numbers = [v.value for v in inputs.values() if isinstance(v, Constant)]
        if op.number is not None and numbers and len(numbers) == len(inputs):
            return arithmetic.folded(op.number, op.name, op.spelled, numbers, expr.span)
        return self._op_call(op, inputs, params, expr.span, sites)

    def _evaluated(self, expr: Call, scope: Scope) -> tuple[list[Any], dict[str, Any]]:
        given: list[Any] = []
        named: dict[str, Any] = {}
        for a in expr.arguments:
            if isinstance(a, Comprehension):
                given.append(self.unrolled(a, scope, self.value))
            elif a.name:
                named[a.name] = self.value(a.value, scope)
            else:
                given.append(self.value(a.value, scope))
        return given, named

    def unrolled(self, loop: Comprehension, scope: Scope, position: Callable[[Expr, Scope], Any]) -> tuple[Any, ...]:
        """The elements of `value for x in list`."""
        for target in _flat(loop.targets):
            if target in scope.names or target in scope.home.params:
                fail(
                    "GS0218",
                    f"the 'for' name '{target}' hides a name that is visible here",
                    loop.target_span(target),
                    fixes=[Fix("choose another name")],
                )
        over = self.value(loop.over, scope)
        return arithmetic.collected((position(loop.value, scope.inner(b)) for b in bindings(loop, over)), loop.span)

    def _reduce(self, name: str, items: tuple[Any, ...], expr: Call) -> Any:
        """`sum(list of values)` and its like: a chain of the operator that the name stands for."""
        operands = [(self.operand(v, expr.span), expr) for v in items]
        total = operands[0][0]
        spelled = {"sum": "a + b", "mean": "a + b"}.get(name)
        for v, _ in operands[1:]:
            if spelled:
                total = self._operator(spelled, expr, [(_unwrapped(total), expr), (_unwrapped(v), expr)])
            else:
                op = self.catalogue.ops[{"max": "maximum", "min": "minimum"}[name]]
                slots = [d.name for d in op.parsed.operands]
                total = self._op_call(
                    op,
                    dict(zip(slots, (total, v), strict=True)),
                    {},
                    expr.span,
                    {s: Site(expr.span, False) for s in slots},
                )
        if name == "mean":
            total = self._operator("a / b", expr, [(_unwrapped(total), expr), (float(len(items)), expr)])
        return total

    def _stages(self, expr: Call, scope: Scope) -> tuple[Any, ...]:
        out: list[Any] = []
        for a in expr.arguments:
            if isinstance(a, Comprehension):
                out.extend(self.unrolled(a, scope, self.stage))
            else:
                out.append(self.stage(a.value, scope))
        return tuple(out)

    # ---- stage position ---------------------------------------------------------------------------------------

    def stage(self, expr: Expr, scope: Scope) -> Any:
        """A function that lacks its first input."""
        if isinstance(expr, Pipe):
            left, right = self.stage(expr.value, scope), self.stage(expr.stage, scope)
            return Chain((*(left.stages if isinstance(left, Chain) else (left,)), right), expr.span)
        if isinstance(expr, IfElse):
            return self.stage(self._chosen(expr, scope), scope)
        if isinstance(expr, Name):
            return self._stage_named(expr, scope)
        face = self._face_of(expr.function if isinstance(expr, Call) else expr, scope)
        if face is not None:
            called = expr if isinstance(expr, Call) else Call(expr.span, False, expr, ())
            return self._face_stage(face, called, scope, piped=True)
        if isinstance(expr, Attribute):
            block = self._qualified(expr, scope)
            if block is not None:
                return self._block_stage(block, Call(expr.span, False, expr, ()), scope)
        if isinstance(expr, Call):
            return self._stage_call(expr, scope)
        if isinstance(expr, Index):
            found = self.value(expr, scope)
            if isinstance(found, Stage):
                return found
        fail(
            "GS0219",
            f"'{expr.span.text[:60]}' is not a stage: an op, a block, or a call of one without its first input",
            expr.span,
        )

    def _stage_named(self, expr: Name, scope: Scope) -> Any:
        bound = scope.names.get(expr.name, scope.home.shared.get(expr.name))
        if isinstance(bound, Stage):
            return bound
        if bound is POISON:
            raise PoisonedError
        if bound is not None:
            joining = [Fix(f"values are joined in a call or a sum, as cat(x, {expr.name})")] * isinstance(bound, Value)
            fail("GS0219", f"'{expr.name}' is {describe(bound)} here, not a stage", expr.span, fixes=joining)
        choice = scope.home.choices.get(expr.name)
        if choice is not None:
            return self.stage(choice.stage, Scope(scope.home))
        return self._stage_call(Call(expr.span, False, expr, ()), scope)

    def _stage_call(self, expr: Call, scope: Scope) -> Any:
        if not isinstance(expr.function, Name):
            block = self._qualified(expr.function, scope)
            if block is None:
                fail("GS0219", f"'{expr.function.span.text[:60]}' is not a stage", expr.function.span)
            return self._block_stage(block, expr, scope)
        name = expr.function.name
        bound = scope.names.get(name, scope.home.shared.get(name))
        if isinstance(bound, Instance):
            return self._use(bound, expr, scope, piped=True)
        if isinstance(bound, Stage):
            fail("GS0219", f"'{name}' is a stage already and takes no arguments", expr.span)
        block = scope.home.block(name, expr.function.span)
        if block is not None:
            return self._block_stage(block, expr, scope)
        if name == "repeat":
            return self._repeat(expr, scope)
        op = self.catalogue.ops.get(name)
        if op is None:
            if expr.function.span in self.told or bound is POISON:
                raise PoisonedError
            known = [*self.catalogue.ops, *scope.home.block_names(), "repeat"]
            fail("GS0202", f"there is no op or block '{name}'{did_you_mean(name, known)}", expr.function.span)
        inputs, params, sites = bind(self, op, expr.arguments, scope, piped=True, span=expr.span)
        return OpStage(op, inputs, params, expr.span, sites)

    def _qualified(self, expr: Expr, scope: Scope) -> Block | None:
        """`sashimi.s4_res`: a block of a library by its full name."""
        if isinstance(expr, Attribute) and isinstance(expr.of, Name) and expr.of.name in scope.home.libraries:
            library = scope.home.libraries[expr.of.name]
            if expr.name not in library.blocks:
                fail(
                    "GS0202",
                    f"library '{expr.of.name}' has no block '{expr.name}'{did_you_mean(expr.name, library.blocks)}",
                    expr.name_span,
                )
            return library.blocks[expr.name]
        return None

    def _block_stage(self, block: Block, expr: Call, scope: Scope) -> BlockStage:
        inputs, params = bind_block(self, block, expr, scope, piped=True)
        return BlockStage(block, inputs, params, expr.span)

    def _repeat(self, expr: Call, scope: Scope) -> Repeat:
        a = expr.arguments
        if len(a) == 1 and isinstance(a[0], Comprehension):
            return Repeat(self.unrolled(a[0], scope, self.stage), expr.span)
        if len(a) != 2 or not all(isinstance(x, Argument) and not x.name for x in a):
            fail("GS0203", "repeat takes a count and a stage, or 'stage for x in list'", expr.span)
        assert isinstance(a[0], Argument) and isinstance(a[1], Argument)
        count = self.value(a[0].value, scope)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            fail("GS0220", f"repeat's count is a whole number from 0, not {describe(count)}", a[0].span)
        if count > MAX_VALUES:
            fail("GS0804", f"repeat would make {count} copies; the limit is {MAX_VALUES} values", a[0].span)
        stage = self.stage(a[1].value, scope)
        return Repeat((stage,) * count, expr.span, body=stage)

    _handlers: dict[type, Callable[..., Any]] = {
        Known: _literal,
        Number: _literal,
        Text: _literal,
        Truth: _literal,
        Nothing: _nothing,
        Name: _name,
        Attribute: _attribute,
        History: _history,
        Index: _index,
        Unary: _unary,
        Binary: _binary,
        Logic: _logic,
        IfElse: _if_else,
        ListOf: _list,
        Pipe: _pipe,
        Call: _call,
    }


_SPECIAL = {"repeat", "stages", "given", "step"}
_REDUCTIONS = {"sum", "mean", "max", "min"}
_LISTS = {"reverse", "zip", "enumerate", "len", "list"}


def _known(arguments: Any, given: list[Any], named: dict[str, Any]) -> tuple[Argument, ...]:
    """The arguments with what they came to, so that nothing is elaborated twice."""
    by_place = iter(given)
    return tuple(
        Argument(a.name, Known(a.span, False, named[a.name] if a.name else next(by_place), a.value), a.span)
        if isinstance(a, Argument)
        else Argument(None, Known(a.span, False, next(by_place), a.value), a.span)
        for a in arguments
    )


def _unwrapped(operand: Value | Constant) -> Any:
    return operand.value if isinstance(operand, Constant) else operand


def _holds_values(value: Any, seen: set[int] | None = None) -> bool:
    """Is there anything but compile-time values in a list of lists? Each shared list is walked once."""
    seen = set() if seen is None else seen
    if not isinstance(value, tuple) or id(value) in seen:
        return False
    seen.add(id(value))
    return any(not is_compile_time(v) or _holds_values(v, seen) for v in value)


def _flat(targets: tuple[Any, ...]) -> list[str]:
    return [n for t in targets for n in (t if isinstance(t, tuple) else (t,))]


def _comprehensions(expr: Expr) -> list[Comprehension]:
    out, stack = [], [expr]
    while stack:
        top = stack.pop()
        if isinstance(top, Call):
            out += [a for a in top.arguments if isinstance(a, Comprehension)]
        stack.extend(children(top))
    return out
