"""Op calls -> values: operands in their slots, types by inference, windows in time, unique paths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from graphspec.compiler.arithmetic import describe, is_number
from graphspec.compiler.infer import NUMBER_INT, Given, Inference
from graphspec.compiler.stages import BlockStage, Instance, OpStage
from graphspec.compiler.windows import window_of
from graphspec.declare import Declaration
from graphspec.diagnostic import Edit, Fix, Related, fail
from graphspec.dims import Dim
from graphspec.graph import Back, Constant, Site, Value
from graphspec.span import Span
from graphspec.time import everything, pointwise
from graphspec.types import FLOAT, UNKNOWN, Type

MAX_VALUES = 20_000


class Owner:
    """Names the weights of one use of an instance: the same names at every use."""

    def __init__(self, instance: Instance):
        self.instance = instance
        self._path = [instance.path]
        self._used: dict[tuple[str, ...], dict[str, int]] = {}
        self._direct = isinstance(instance.stage, (OpStage, BlockStage))  # then its name stands for the op or block

    def enter(self, name: str) -> None:
        self._path.append("" if self._direct and len(self._path) == 1 else self._numbered(name))

    def leave(self) -> None:
        self._path.pop()

    def claim(self, op: Declaration, sizes: Mapping[str, Any]) -> str:
        """Where the weights of this op are named."""
        if op.of:
            return self.instance.path
        if self._direct and isinstance(self.instance.stage, OpStage):
            self.instance.sizes.update(sizes)
            return self.instance.path
        return ".".join(p for p in (*self._path, self._numbered(op.name)) if p)

    def _numbered(self, name: str) -> str:
        used = self._used.setdefault(tuple(self._path), {})
        used[name] = used.get(name, 0) + 1
        return name if used[name] == 1 else f"{name}_{used[name]}"


class Calls:
    """Makes values, in dataflow order. `values` grows; nothing else is kept between calls."""

    _trail: tuple[Span, ...] = ()  # calls of blocks that we are in
    _owner: Owner | None = None  # the instance that we are in
    _frozen = False
    _precision = ""

    def __init__(self, inference: Inference):
        self.inference = inference
        self.catalogue = inference.catalogue
        self.values: list[Value] = []
        self._path: list[str] = []
        self._used: dict[tuple[str, ...], dict[str, int]] = {}
        self._journal: list[tuple[dict[str, int], str]] | None = None  # claims to be undone
        self.backs: dict[Value, Back] = {}  # loops that are closed, by carry
        self.pads: dict[str, int | float] = {}  # inputs with `pad:`
        self._instances: dict[str, tuple[Value, Any]] = {}

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Names made inside start with this one; a second use in one scope is `_2`."""
        self._path.append(self.claim(name))
        owner = self._owner
        if owner is not None:
            owner.enter(name)
        try:
            yield
        finally:
            self._path.pop()
            if owner is not None:
                owner.leave()

    @contextmanager
    def owned(self, instance: Instance) -> Iterator[None]:
        """Weights of the values made inside are the instance's."""
        outside = self._owner
        self._owner = Owner(instance)
        try:
            with self.treated(instance.frozen, ""):
                yield
        finally:
            self._owner = outside

    @contextmanager
    def treated(self, frozen: bool, precision: str) -> Iterator[None]:
        """Values made inside keep their weights as drawn (`freeze`), or compute in float32 (`dtype: f32`)."""
        outside = self._frozen, self._precision
        self._frozen, self._precision = frozen or self._frozen, precision or self._precision
        try:
            yield
        finally:
            self._frozen, self._precision = outside

    @contextmanager
    def called_from(self, span: Span) -> Iterator[int]:
        """Values made inside tell that this call led to them. Gives how many calls deep that is."""
        outside = self._trail
        self._trail = (*outside, span)
        try:
            yield len(outside)
        finally:
            self._trail = outside

    def claim(self, name: str) -> str:
        """The name, or `name_2` where this scope has it already."""
        used = self._used.setdefault(tuple(self._path), {})
        used[name] = used.get(name, 0) + 1
        if self._journal is not None:
            self._journal.append((used, name))
        return name if used[name] == 1 else f"{name}_{used[name]}"

    @contextmanager
    def tried(self) -> Iterator[None]:
        """What is made inside leaves no trace: types are found out this way."""
        outside, count, instances = self._journal, len(self.values), dict(self._instances)
        self._journal = []
        try:
            yield
        finally:
            for used, name in self._journal:
                used[name] -= 1
            del self.values[count:]
            self._instances = instances
            self._journal = outside

    def operand(self, value: Any, span: Span) -> Value | Constant:
        if isinstance(value, Value):
            return value
        if is_number(value):
            return Constant(value, Type(NUMBER_INT if isinstance(value, int) else FLOAT))
        if isinstance(value, dict):
            fields = ", ".join(value)
            fail("GS0217", f"this is a record; name one of its fields ({fields})", span)
        if isinstance(value, Dim):
            fail("GS0217", f"the size {value} is not known at compile time and cannot be a number here", span)
        joining = [Fix("cat, stack or sum make one value of a list")] if isinstance(value, tuple) else []
        fail("GS0217", f"a value belongs here, not {describe(value)}", span, fixes=joining)

    def _op_call(
        self,
        op: Declaration,
        inputs: Mapping[str, Any],
        params: Mapping[str, Any],
        span: Span,
        sites: Mapping[str, Any],  # a Site, or for a variadic one an operand
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
            where = place if isinstance(place, tuple) else (place,) * len(each)
            told = tuple(_given(v, p) for v, p in zip(each, where, strict=True))
            given[declared.name] = told if declared.variadic else told[0]
            operands += each
            slots += [declared.name] * len(each)
            places += where
        values = [o for o in operands if isinstance(o, Value)]
        face = self._owner.instance if op.of and self._owner else None
        params = dict(params)
        # Keywords that any op with weights takes; those it declares itself are its own.
        init = params.pop("init") if "init" in params and op.parameter("init") is None else None
        frozen = params.pop("freeze") if "freeze" in params and op.parameter("freeze") is None else False
        delays = op.spelled == "x[t-k]"
        if delays:
            if params["k"] == 0:
                return values[0]
            params["before"] = self._before(values[0], params, span)
        if face is not None and not face.sizes:
            fail(
                "GS0519", f"'{face.path}' is not used before its face '{op.name}' is; nothing trains its weights", span
            )
        known = {**face.sizes, **params} if face else params  # a face knows the sizes of its instance
        results, bound_names = self.inference.results(op, given, known, span, sites)
        if delays and params["before"] is not None:
            results = [(n, _widened(t, params["before"])) for n, t in results]
        owner = "" if self._owner is None else self._owner.claim(op, bound_names.values)
        guessed = any(v.type.dtype == UNKNOWN for v in values)
        noise = None if guessed else self.inference.noise(op, bound_names, span)
        type_ = results[0][1]
        sizes: dict[str, Any] = {n: v for n, v in bound_names.values.items() if isinstance(v, int)}
        for d in op.parsed.operands:
            if d.optional:  # a rule may ask whether it is given: `pointwise() if context != none else recurrent()`
                sizes[d.name] = "given" if inputs.get(d.name) is not None else None
        windows = tuple(
            self._window(op, slot, o, type_, {**sizes, **params}) for slot, o in zip(slots, operands, strict=True)
        )
        before = None
        if op.rearranges:
            befores = {v.before for v in values}
            before = befores.pop() if len(befores) == 1 else None
        several = len(results) > 1 or results[0][0] is not None
        made = self._add(
            Value(
                path=".".join([*self._path, self.claim(op.name)]),
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
                owner=owner,
                frozen=self._frozen or frozen,
                init=init,
                precision=self._precision,
            )
        )
        if owner:
            self._agree(made)
        if not several:
            return made
        step = pointwise() if type_.timed else everything()
        return {
            str(n): self._add(
                Value(
                    path=f"{made.path}.{n}",
                    type=t,
                    span=span,
                    operands=(made,),
                    slots=("",),
                    sites=(Site(span, True),),
                    windows=(step,),
                    part=str(n),
                    before=before,
                    trail=self._trail,
                )
            )
            for n, t in results
        }

    def _agree(self, value: Value) -> None:
        """All uses of an instance's op have operands of one shape after time, or its weights would not fit."""
        if value.op is None or value.op.of or not value.op.weights:
            return
        shape = [(o.type.dtype, o.type.after_time) for o in value.values()]
        first, there = self._instances.setdefault(value.owner, (value, shape))
        if there != shape or first.arguments != value.arguments:
            made_of = ", ".join(str(o.type) for o in first.values())
            fail(
                "GS0517",
                f"'{value.owner}' is one set of weights, made for {made_of}, but here it gets "
                f"{', '.join(str(o.type) for o in value.values())}",
                value.span,
                related=[Related("first used here", first.span)],
            )

    def _window(
        self, op: Declaration, slot: str, operand: Value | Constant, result: Type, params: Mapping[str, Any]
    ) -> Any:
        if isinstance(operand, Constant):
            return pointwise()
        if not operand.type.timed or not result.timed:
            return everything()
        found = window_of(op, slot, params)
        if found != everything() or operand.type.rate is None or result.rate is None:
            return found
        # A context may be at another rate than what attends to it, a tracker reads samples and gives frames.
        return replace(found, stride=operand.type.rate / result.rate)

    def _before(self, of: Value, params: Mapping[str, Any], span: Span) -> int | float:
        """What a delay reads before the start: as declared, else 0; integers must say (class 0 is hardly silence)."""
        if params.get("before") is not None:
            return params["before"]
        if of.type.dtype.kind != "int":
            return of.before or 0
        if of.before is None:
            fail(
                "GS0404",
                f"'{of.path}' is integers, and nothing says what its history reads before the start",
                span,
                related=[Related(str(of), of.span)],
                fixes=_say_before(of, params["k"], span),
            )
        return of.before

    def _add(self, value: Value) -> Value:
        if len(self.values) >= MAX_VALUES:
            fail("GS0804", f"the spec unfolds to more than {MAX_VALUES} values", value.span)
        self.values.append(value)
        return value


def _say_before(of: Value, k: int, span: Span) -> list[Fix]:
    """Says what a history of integers reads before its start: the middle class, silence of quantised sound."""
    middle = (of.type.dtype.classes or 2) // 2
    if not of.is_input:
        text = span.text.removesuffix(f"[t-{k}]")
        edits = (Edit(span, f"shift({text}, {k}, before={middle})"),) if text != span.text else ()
        advice = f"say what it reads: shift(x, {k}, before={middle}); {middle} is silence of quantised sound"
        return [Fix(advice, edits)]
    line, key = of.span.source.line(of.span.line), of.span
    told = re.fullmatch(r"(\s*)[^\s:]+:[ ]+(?![{|>#])(\S.*?)\s*(?:[ ]#.*)?", line)
    edits = ()
    after = key.source.line(key.line + 1) if key.line < len(key.source.line_starts()) else ""
    deeper = len(after) - len(after.lstrip(" ")) > key.column - 1 and bool(after.strip())
    if told and not deeper:
        start = key.start - key.column + 1
        inner = "\n" + told[1] + "  "
        span = Span(key.source, start + len(line[: told.start(2)].rstrip()), start + told.end(2))
        edits = (Edit(span, f"{inner}type: {told[2]}{inner}before: {middle}"),)
    elif not told and deeper and re.fullmatch(r"\s*[^\s:]+:\s*(#.*)?", line):
        start = key.source.line_starts()[key.line]
        indent = after[: len(after) - len(after.lstrip(" "))]
        edits = (Edit(Span(key.source, start, start), f"{indent}before: {middle}\n"),)
    return [Fix(f"give the input `before: {middle}` (silence of quantised sound is the middle class, not 0)", edits)]


def _widened(type_: Type, before: int | float) -> Type:
    """A delay's `before` may be one more class: K of int(K), as a class of its own for "not yet"."""
    classes = type_.dtype.classes
    if type_.dtype.kind != "int" or not classes or before < classes:
        return type_
    return replace(type_, dtype=replace(type_.dtype, classes=int(before) + 1))


def _given(operand: Value | Constant, site: Site) -> Given:
    if isinstance(operand, Constant):
        return Given(operand.type, site.span, str(operand.value))
    text = site.span.text
    return Given(operand.type, site.span, f"'{text}'" if len(text) <= 40 and "\n" not in text else operand.path)
