"""Pass 2, build: expressions -> values of the graph. Stages, blocks and `repeat` are unfolded here, each op call is typed.

One class because its methods call each other at every level (an expression holds stages, a stage expressions), which
is why this file is longer than most. What a call's arguments mean is in arguments.py, types are in infer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from graphspec.compiler import arithmetic
from graphspec.compiler.arguments import bind, bind_block
from graphspec.compiler.arithmetic import FUNCTIONS, bindings, describe, is_compile_time, is_number
from graphspec.compiler.infer import NUMBER_INT, Given, Inference, window_of
from graphspec.compiler.resolve import Block, Home, dataflow_order
from graphspec.declare import Declaration
from graphspec.diagnostic import Fix, Related, SpecError, did_you_mean, fail
from graphspec.dims import Dim, DimError
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
    ListOf,
    Logic,
    Name,
    Nothing,
    Number,
    Pipe,
    Text,
    Truth,
    Unary,
    names,
)
from graphspec.graph import Constant, Site, Value
from graphspec.span import Span
from graphspec.time import everything, pointwise
from graphspec.types import FLOAT, Type

MAX_VALUES = 20_000
MAX_NESTING = 64  # blocks inside blocks


class Poison:
    """Stands for a value whose own error was reported; whatever touches it stays silent."""


POISON = Poison()


class PoisonedError(Exception):
    """An expression touched a poisoned value."""


@dataclass(eq=False)
class Scope:
    """Names an expression sees: `for` names, block params, inputs and graph, then the file's."""

    home: Home
    names: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)

    def inner(self, bound: Mapping[str, Any]) -> Scope:
        return Scope(self.home, {**self.names, **bound}, self.spans)

    def known(self) -> list[str]:
        return [*self.names, *self.home.params]


# ---- stages: functions that lack their first input -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OpStage:
    op: Declaration
    inputs: Mapping[str, Any]  # all but the first
    params: Mapping[str, Any]
    span: Span
    sites: Mapping[str, Site]


@dataclass(frozen=True, eq=False)
class BlockStage:
    block: Block
    inputs: Mapping[str, Any]
    params: Mapping[str, Any]
    span: Span


@dataclass(frozen=True, eq=False)
class Chain:
    stages: tuple[Any, ...]
    span: Span


@dataclass(frozen=True, eq=False)
class Repeat:
    stages: tuple[Any, ...]  # one a copy
    span: Span
    body: Any = None  # what would be repeated, when there is no copy


Stage = OpStage | BlockStage | Chain | Repeat


class Elaborator:
    """Builds values in dataflow order. `values` grows; nothing else is kept between calls."""

    def __init__(self, inference: Inference):
        self.inference = inference
        self.catalogue = inference.catalogue
        self.values: list[Value] = []
        self._path: list[str] = []
        self._used: dict[tuple[str, ...], dict[str, int]] = {}
        self._trail: tuple[Span, ...] = ()

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Names made inside start with this one; a second use in one scope is `_2`."""
        self._path.append(self._unique(name))
        try:
            yield
        finally:
            self._path.pop()

    def _unique(self, name: str) -> str:
        used = self._used.setdefault(tuple(self._path), {})
        used[name] = used.get(name, 0) + 1
        return name if used[name] == 1 else f"{name}_{used[name]}"

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
        self._unknown(expr, scope)

    def _unknown(self, expr: Name, scope: Scope) -> Any:
        if expr.name in self.catalogue.ops or scope.home.block(expr.name, expr.span):
            fail(
                "GS0204",
                f"'{expr.name}' is {'an op' if expr.name in self.catalogue.ops else 'a block'}; here a value is wanted",
                expr.span,
                fixes=[Fix(f"call it with its input, {expr.name}(x), or pipe into it, x |> {expr.name}")],
            )
        if expr.name in FUNCTIONS:
            fail("GS0204", f"'{expr.name}' is a function; call it", expr.span)
        fail("GS0201", f"there is no '{expr.name}' here{did_you_mean(expr.name, scope.known())}", expr.span)

    def _attribute(self, expr: Attribute, scope: Scope) -> Any:
        of = self.value(expr.of, scope)
        if isinstance(of, dict):
            if expr.name not in of:
                fail(
                    "GS0216",
                    f"the record has no '{expr.name}'{did_you_mean(expr.name, of)}",
                    expr.name_span,
                    notes=[f"its fields: {', '.join(of)}"],
                )
            return of[expr.name]
        if isinstance(of, Value) and of.type.meaning is not None:
            fail("GS0190", f"fields of distributions ('.{expr.name}') are not built yet", expr.name_span)
        fail("GS0216", f"{describe(of)} has no field '{expr.name}'", expr.name_span)

    def _history(self, expr: History, scope: Scope) -> Any:
        of = self.value(expr.of, scope)
        k = self.value(expr.delay, scope)
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            fail("GS0123", f"history looks back 1 tick or more, a compile-time integer; this is {describe(k)}", expr.delay.span)
        if not isinstance(of, Value):
            fail("GS0304", f"{describe(of)} has no history; only values along time do", expr.span)
        if not of.type.timed:
            fail("GS0304", f"{of.path} is static and has no history", expr.span, related=[Related(str(of), of.span)])
        op = self.catalogue.spellings["x[t-k]"]
        return self._op_call(op, {op.parsed.operands[0].name: of}, {"k": k}, expr.span, {op.parsed.operands[0].name: Site(expr.of.span, False)})

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
            return arithmetic.binary(expr.operator, a, b, expr.span, self.inference.facts)
        return self._operator(f"a {expr.operator} b", expr, [(a, expr.left), (b, expr.right)])

    def _operator(self, spelled: str, expr: Expr, sides: list[tuple[Any, Expr]]) -> Any:
        op = self.catalogue.spellings.get(spelled)
        if op is None:
            fail("GS0204", f"'{spelled}' does not work on run-time values", expr.span)
        inputs = {d.name: self._operand(v, e.span) for d, (v, e) in zip(op.parsed.operands, sides, strict=True)}
        sites = {d.name: Site(e.span, isinstance(e, Pipe) and not e.grouped) for d, (_, e) in zip(op.parsed.operands, sides, strict=True)}
        return self._op_call(op, inputs, {}, expr.span, sites)

    def _operand(self, value: Any, span: Span) -> Value | Constant:
        if isinstance(value, Value):
            return value
        if is_number(value):
            return Constant(value, Type(NUMBER_INT if isinstance(value, int) else FLOAT))
        if isinstance(value, dict):
            fields = ", ".join(value)
            fail("GS0217", f"this is a record; name one of its fields ({fields})", span)
        if isinstance(value, Dim):
            fail("GS0217", f"the size {value} is not known at compile time and cannot be a number here", span)
        fail("GS0217", f"a value belongs here, not {describe(value)}", span)

    def _logic(self, expr: Logic, scope: Scope) -> Any:
        return arithmetic.logic(expr.operator, self.value(expr.left, scope), lambda: self.value(expr.right, scope), expr.span)

    def _if_else(self, expr: IfElse, scope: Scope) -> Any:
        return self.value(self._chosen(expr, scope), scope)

    def _chosen(self, expr: IfElse, scope: Scope) -> Expr:
        yes = arithmetic.truth(self.value(expr.condition, scope), expr.condition.span)
        chosen, other = (expr.then, expr.otherwise) if yes else (expr.otherwise, expr.then)
        loops = {t for n in _comprehensions(other) for t in _flat(n.targets)}
        for n in names(other):  # the other branch is not typed, but its names must exist
            known = n.name in scope.names or n.name in scope.home.params or n.name in self.catalogue.ops
            if not (known or n.name in FUNCTIONS or n.name in _SPECIAL or n.name in loops or scope.home.block(n.name, n.span)):
                self._unknown(n, scope)
        return chosen

    def _list(self, expr: ListOf, scope: Scope) -> Any:
        return tuple(self.value(i, scope) for i in expr.items)

    def _pipe(self, expr: Pipe, scope: Scope) -> Any:
        first = self.value(expr.value, scope)
        stage = self.stage(expr.stage, scope)
        return self.apply(stage, first, Site(expr.value.span, isinstance(expr.value, Pipe) and not expr.value.grouped))

    def _call(self, expr: Call, scope: Scope) -> Any:
        if not isinstance(expr.function, Name):
            block = self._qualified(expr.function, scope)
            if block is None:
                fail("GS0204", f"'{expr.function.span.text[:60]}' cannot be called", expr.function.span)
            return self._call_block(block, expr, scope)
        name = expr.function.name
        if name in ("repeat",):
            fail("GS0204", "'repeat' is a stage; pipe into it, x |> repeat(n, block)", expr.span)
        bound = scope.names.get(name, scope.home.params.get(name))
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
        reduces = name in _REDUCTIONS and len([a for a in expr.arguments if not (isinstance(a, Argument) and a.name)]) == 1
        if name in FUNCTIONS and (op is None or op.number is not None or reduces or name in _REDUCTIONS):
            first = expr.arguments[0] if expr.arguments else None
            given = self._evaluated(expr, scope)
            if reduces and first is not None and isinstance(given[0][0], tuple) and any(isinstance(v, Value) for v in given[0][0]):
                return self._reduce(name, given[0][0], expr)
            if all(is_compile_time(v) and not _holds_values(v) for v in [*given[0], *given[1].values()]):
                return arithmetic.call(name, given[0], given[1], expr.span)
            if op is None:
                if name in ("reverse", "zip", "enumerate", "len", "list") and not given[1]:
                    return arithmetic.call(name, given[0], given[1], expr.span)
                fail("GS0202", f"'{name}' is a compile-time function; it does not take {describe(given[0][0])}", expr.span)
        assert op is not None
        inputs, params, sites = bind(self, op, expr.arguments, scope, piped=False, span=expr.span)
        numbers = [v.value for v in inputs.values() if isinstance(v, Constant)]
        if op.number is not None and numbers and len(numbers) == len(inputs):
            return arithmetic.bounded(op.number(*numbers), expr.span)
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
                fail("GS0218", f"the 'for' name '{target}' hides a name that is visible here", loop.span, fixes=[Fix("choose another name")])
        over = self.value(loop.over, scope)
        return tuple(position(loop.value, scope.inner(b)) for b in bindings(loop, over))

    def _reduce(self, name: str, items: tuple[Any, ...], expr: Call) -> Any:
        """`sum(list of values)` and its like: a chain of the operator that the name stands for."""
        operands = [(self._operand(v, expr.span), expr) for v in items]
        if name in ("cat", "stack"):
            op = self.catalogue.ops[name]
            slot = op.parsed.operands[0].name
            return self._op_call(op, {slot: tuple(v for v, _ in operands)}, {}, expr.span, {slot: Site(expr.span, False)})
        total = operands[0][0]
        spelled = {"sum": "a + b", "mean": "a + b"}.get(name)
        for v, _ in operands[1:]:
            if spelled:
                total = self._operator(spelled, expr, [(_unwrapped(total), expr), (_unwrapped(v), expr)])
            else:
                op = self.catalogue.ops[{"max": "maximum", "min": "minimum"}[name]]
                slots = [d.name for d in op.parsed.operands]
                total = self._op_call(op, dict(zip(slots, (total, v), strict=True)), {}, expr.span, {s: Site(expr.span, False) for s in slots})
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
        fail("GS0219", f"'{expr.span.text[:60]}' is not a stage: an op, a block, or a call of one without its first input", expr.span)

    def _stage_named(self, expr: Name, scope: Scope) -> Any:
        bound = scope.names.get(expr.name)
        if isinstance(bound, Stage):
            return bound
        if bound is POISON:
            raise PoisonedError
        if bound is not None:
            fail("GS0219", f"'{expr.name}' is {describe(bound)} here, not a stage", expr.span)
        return self._stage_call(Call(expr.span, False, expr, ()), scope)

    def _stage_call(self, expr: Call, scope: Scope) -> Any:
        if not isinstance(expr.function, Name):
            block = self._qualified(expr.function, scope)
            if block is None:
                fail("GS0219", f"'{expr.function.span.text[:60]}' is not a stage", expr.function.span)
            return self._block_stage(block, expr, scope)
        name = expr.function.name
        if isinstance(scope.names.get(name), Stage):
            fail("GS0219", f"'{name}' is a stage already and takes no arguments", expr.span)
        block = scope.home.block(name, expr.function.span)
        if block is not None:
            return self._block_stage(block, expr, scope)
        if name == "repeat":
            return self._repeat(expr, scope)
        op = self.catalogue.ops.get(name)
        if op is None:
            known = [*self.catalogue.ops, *scope.home.block_names(), "repeat"]
            fail("GS0202", f"there is no op or block '{name}'{did_you_mean(name, known)}", expr.function.span)
        inputs, params, sites = bind(self, op, expr.arguments, scope, piped=True, span=expr.span)
        return OpStage(op, inputs, params, expr.span, sites)

    def _qualified(self, expr: Expr, scope: Scope) -> Block | None:
        """`sashimi.s4_res`: a block of a library by its full name."""
        if isinstance(expr, Attribute) and isinstance(expr.of, Name) and expr.of.name in scope.home.libraries:
            library = scope.home.libraries[expr.of.name]
            if expr.name not in library.blocks:
                fail("GS0202", f"library '{expr.of.name}' has no block '{expr.name}'{did_you_mean(expr.name, library.blocks)}", expr.name_span)
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

    # ---- application ------------------------------------------------------------------------------------------

    def apply(self, stage: Any, first: Any, site: Site) -> Any:
        """The stage with its first input given."""
        if isinstance(stage, Chain):
            for s in stage.stages:
                if isinstance(first, dict):
                    fail("GS0217", f"a record of {', '.join(first)} cannot be piped on; name the value and take a field", s.span)
                first = self.apply(s, first, site)
                site = Site(s.span, True)
            return first
        if isinstance(stage, Repeat):
            return self._copies(stage, first, site)
        if isinstance(stage, OpStage):
            slot = stage.op.parsed.operands[0]
            given = self._operand(first, site.span)
            rest = stage.inputs.get(slot.name, ())
            inputs = {**stage.inputs, slot.name: (given, *rest) if slot.variadic else given}
            return self._op_call(stage.op, inputs, stage.params, stage.span, {slot.name: site, **stage.sites})
        block = stage.block
        return self._block(replace(stage, inputs={block.inputs[0].name: first, **stage.inputs}))

    def _copies(self, stage: Repeat, first: Any, site: Site) -> Any:
        body = stage.stages[0] if stage.stages else stage.body
        block = body.block if isinstance(body, BlockStage) else None
        fields = block.result_names if block else ()
        if not fields:
            for i, s in enumerate(stage.stages):
                with self.entered(str(i)):
                    first = self.apply(s, first, site)
                if isinstance(first, dict):
                    fail("GS0217", "repeat of a composite that gives a record; make it a block with named outputs", s.span)
                site = Site(s.span, True)
            return first
        assert block is not None
        inputs = [i.name for i in block.inputs]
        if inputs[0] not in fields:
            fail("GS0507", f"the block does not return its first input '{inputs[0]}'", stage.span, related=[Related("the block", block.span)])
        carried: dict[str, Any] = {inputs[0]: first}
        collected: dict[str, list[Any]] = {f: [] for f in fields if f not in inputs}
        for i, s in enumerate(stage.stages):
            with self.entered(str(i)):
                result = self._block(replace(s, inputs={**s.inputs, **carried}))
            carried = {f: result[f] for f in fields if f in inputs}
            for f, items in collected.items():
                items.append(result[f])
        start = {f: carried.get(f, body.inputs.get(f)) for f in fields if f in inputs}
        return {f: start[f] if f in start else tuple(collected[f]) for f in fields}

    def _block(self, stage: BlockStage) -> Any:
        """Unfold a block: bind its inputs' sizes, check its facts, build its graph."""
        block = stage.block
        if len(self._trail) > MAX_NESTING:
            fail("GS0508", f"blocks nest deeper than {MAX_NESTING}; does '{block.name}' use itself?", stage.span)
        scope = Scope(block.home, {**stage.params, **{i.name: stage.inputs.get(i.name) for i in block.inputs}})
        outside, self._trail = self._trail, (*self._trail, stage.span)
        try:
            with self.entered(block.name):
                self._bind_sizes(block, stage, scope)
                for fact in block.require:
                    self._check_fact(block, fact, scope)
                graph = dict(block.graph)
                for name in dataflow_order(graph, set(graph), "value"):
                    with self.entered(name):
                        scope.names[name] = self.value(graph[name], scope)
                if isinstance(block.out, tuple):
                    return {name: self.value(e, scope) for name, e in block.out}
                return self.value(block.out, scope)
        except SpecError as error:
            here = Related(f"in this use of '{block.name}'", stage.span)
            raise SpecError(*(_told(d, here) for d in error.diagnostics)) from None
        finally:
            self._trail = outside

    def _bind_sizes(self, block: Block, stage: BlockStage, scope: Scope) -> None:
        for declared in block.inputs:
            given = stage.inputs.get(declared.name)
            if given is None:
                if not declared.optional:
                    fail("GS0203", f"block '{block.name}' needs its input '{declared.name}'", stage.span)
                continue
            if declared.type is None or declared.type.name == "any" and declared.type.dims is None:
                continue
            if not isinstance(given, Value):
                if isinstance(given, (dict, tuple)):
                    fail("GS0217", f"input '{declared.name}' of '{block.name}' takes a value, not {describe(given)}", stage.span)
                continue
            self._match_input(block, declared, given, stage, scope)

    def _match_input(self, block: Block, declared: Any, given: Value, stage: BlockStage, scope: Scope) -> None:
        rule, type_ = declared.type, given.type
        both = [Related(f"declared as {rule.span.text}", rule.span), Related(str(given), given.span)]
        kinds = {"float": "float", "f32": "float", "int": "int", "bool": "bool"}
        if rule.name in kinds and (type_.meaning is not None or type_.dtype.kind != kinds[rule.name]):
            what = type_.meaning or type_.dtype
            fail("GS0303", f"block '{block.name}' wants {rule.name} for '{declared.name}', not {what}", stage.span, related=both)
        if rule.dims is None:
            return
        if len(rule.dims) != len(type_.dims):
            fail("GS0304", f"block '{block.name}' wants axes [{', '.join(d.span.text for d in rule.dims)}], not [{', '.join(map(str, type_.dims))}]", stage.span, related=both)
        for pattern, dim in zip(rule.dims, type_.dims, strict=True):
            size = dim.as_int() if dim.as_int() is not None else dim
            fresh = isinstance(pattern, Name) and pattern.name not in scope.names and pattern.name not in scope.home.params
            if fresh:
                assert isinstance(pattern, Name)
                scope.names[pattern.name] = size
                continue
            want = self.value(pattern, scope)
            if not self.inference.facts.same(Dim.of(want), dim):
                fail("GS0301", f"block '{block.name}': {declared.name} has {size} where {pattern.span.text} is {want}", stage.span, related=both)

    def _check_fact(self, block: Block, fact: Expr, scope: Scope) -> None:
        """A block's `require` must follow from the spec's facts, or hold of the numbers."""
        facts = self.inference.facts
        if isinstance(fact, Binary) and fact.operator == "==":
            left = fact.left
            if isinstance(left, Binary) and left.operator == "%":
                a, b = self.value(left.left, scope), self.value(left.right, scope)
                zero = self.value(fact.right, scope)
                if isinstance(a, Dim) and zero == 0 and isinstance(b, int) and b > 0:
                    if not facts.exact(a / b):
                        needed = facts.needed(a / b)
                        fail(
                            "GS0311",
                            f"'{block.name}' requires {fact.span.text}; here that is {a} % {b}, which nothing says is 0",
                            fact.span,
                            fixes=[Fix(f"add to the spec's require: {needed}")] if needed else [],
                        )
                    return
                if is_number(a) and is_number(b):
                    if arithmetic.binary("%", a, b, fact.span) != zero:
                        fail("GS0305", f"'{block.name}' requires {fact.span.text}; here {a} % {b} is {a % b}", fact.span)
                    return
            a, b = self.value(left, scope), self.value(fact.right, scope)
            try:
                if not facts.same(Dim.of(a), Dim.of(b)):
                    fail("GS0305", f"'{block.name}' requires {fact.span.text}; here the sides are {a} and {b}", fact.span)
            except DimError:
                if a != b:
                    fail("GS0305", f"'{block.name}' requires {fact.span.text}; here the sides are {a} and {b}", fact.span)
            return
        if not arithmetic.truth(self.value(fact, scope), fact.span):
            fail("GS0305", f"'{block.name}' requires {fact.span.text}, which does not hold here", fact.span)

    # ---- op calls ---------------------------------------------------------------------------------------------

    def _op_call(
        self,
        op: Declaration,
        inputs: Mapping[str, Any],
        params: Mapping[str, Any],
        span: Span,
        sites: Mapping[str, Site],
    ) -> Any:
        given: dict[str, Any] = {}
        operands: list[Value | Constant] = []
        slots: list[str] = []
        places: list[Site] = []
        for declared in op.parsed.operands:
            bound = inputs.get(declared.name)
            if bound is None:
                continue
            each = bound if isinstance(bound, tuple) else (bound,)
            place = sites.get(declared.name, Site(span, False))
            told = tuple(_given(v, place) for v in each)
            given[declared.name] = told if declared.variadic else told[0]
            operands += each
            slots += [declared.name] * len(each)
            places += [place] * len(each)
        values = [o for o in operands if isinstance(o, Value)]
        params = dict(params)
        delays = op.spelled == "x[t-k]"
        if delays:
            if params["k"] == 0:
                return values[0]
            params["before"] = self._before(values[0], params, span)
        results, bound_names = self.inference.results(op, given, params, span)
        noise = self.inference.noise(op, bound_names, span)
        type_ = results[0][1]
        windows = tuple(self._window(op, slot, o, type_, params) for slot, o in zip(slots, operands, strict=True))
        before = None
        if op.rearranges:
            befores = {v.before for v in values}
            before = befores.pop() if len(befores) == 1 else None
        several = len(results) > 1 or results[0][0] is not None
        made = self._add(
            Value(
                path=".".join([*self._path, self._unique(op.name)]),
                type=type_,
                span=span,
                op=op,
                operands=tuple(operands),
                slots=tuple(slots),
                sites=tuple(places),
                arguments=params,
                windows=windows,
                noise=noise,
                before=before,
                parts={str(n): t for n, t in results} if several else None,
                trail=self._trail,
            )
        )
        if not several:
            return made
        step = pointwise() if type_.timed else everything()
        return {
            str(n): self._add(
                Value(
                    path=f"{made.path}.{n}", type=t, span=span, operands=(made,), slots=("",), sites=(Site(span, True),),
                    windows=(step,), part=str(n), before=before, trail=self._trail,
                )
            )
            for n, t in results
        }  # fmt: skip

    def _window(self, op: Declaration, slot: str, operand: Value | Constant, result: Type, params: Mapping[str, Any]) -> Any:
        if isinstance(operand, Constant):
            return pointwise()
        if not operand.type.timed or not result.timed:
            return everything()
        return window_of(op, slot, params)

    def _before(self, of: Value, params: Mapping[str, Any], span: Span) -> int | float:
        """What a delay reads before the start: 0 for floats; integers must say, class 0 is almost never silence."""
        if params.get("before") is not None:
            return params["before"]
        if of.type.dtype.kind != "int":
            return 0
        if of.before is None:
            fail(
                "GS0404",
                f"{of.path} is an integer; nothing says what its history reads before the start",
                span,
                related=[Related(str(of), of.span)],
                fixes=[Fix("give the input `before:` (silence is 2**(bits - 1), not class 0), or shift(x, k, before=...)")],
            )
        return of.before

    def _add(self, value: Value) -> Value:
        if len(self.values) >= MAX_VALUES:
            fail("GS0804", f"the spec unfolds to more than {MAX_VALUES} values", value.span)
        self.values.append(value)
        return value

    _handlers: dict[type, Callable[..., Any]] = {
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
_REDUCTIONS = {"sum", "mean", "max", "min", "cat", "stack"}


def _given(operand: Value | Constant, site: Site) -> Given:
    if isinstance(operand, Constant):
        return Given(operand.type, site.span, str(operand.value))
    text = site.span.text
    return Given(operand.type, site.span, f"'{text}'" if len(text) <= 40 and "\n" not in text else operand.path)


def _unwrapped(operand: Value | Constant) -> Any:
    return operand.value if isinstance(operand, Constant) else operand


def _holds_values(value: Any) -> bool:
    return isinstance(value, tuple) and any(not is_compile_time(v) or _holds_values(v) for v in value)


def _flat(targets: tuple[Any, ...]) -> list[str]:
    return [n for t in targets for n in (t if isinstance(t, tuple) else (t,))]


def _comprehensions(expr: Expr) -> list[Comprehension]:
    out, stack = [], [expr]
    while stack:
        top = stack.pop()
        if isinstance(top, Call):
            out += [a for a in top.arguments if isinstance(a, Comprehension)]
        from graphspec.expression import children

        stack.extend(children(top))
    return out


def _told(diagnostic: Any, here: Related) -> Any:
    """The diagnostic with the call that led to it; only the three innermost calls are kept."""
    if len(diagnostic.related) >= 6:
        return diagnostic
    return replace(diagnostic, related=(*diagnostic.related, here))
