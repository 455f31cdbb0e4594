"""Op calls -> values: operands in their slots, types by inference, windows in time, unique paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from graphspec.compiler.arithmetic import describe, is_number
from graphspec.compiler.infer import NUMBER_INT, Given, Inference, window_of
from graphspec.declare import Declaration
from graphspec.diagnostic import Fix, Related, fail
from graphspec.dims import Dim
from graphspec.graph import Constant, Site, Value
from graphspec.span import Span
from graphspec.time import everything, pointwise
from graphspec.types import FLOAT, Type

MAX_VALUES = 20_000


class Calls:
    """Makes values, in dataflow order. `values` grows; nothing else is kept between calls."""

    _trail: tuple[Span, ...] = ()  # calls of blocks that we are in

    def __init__(self, inference: Inference):
        self.inference = inference
        self.catalogue = inference.catalogue
        self.values: list[Value] = []
        self._path: list[str] = []
        self._used: dict[tuple[str, ...], dict[str, int]] = {}

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Names made inside start with this one; a second use in one scope is `_2`."""
        self._path.append(self.claim(name))
        try:
            yield
        finally:
            self._path.pop()

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
        return name if used[name] == 1 else f"{name}_{used[name]}"

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
        fail("GS0217", f"a value belongs here, not {describe(value)}", span)

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
        params = dict(params)
        delays = op.spelled == "x[t-k]"
        if delays:
            if params["k"] == 0:
                return values[0]
            params["before"] = self._before(values[0], params, span)
        results, bound_names = self.inference.results(op, given, params, span)
        noise = self.inference.noise(op, bound_names, span)
        type_ = results[0][1]
        sizes = {n: v for n, v in bound_names.values.items() if isinstance(v, int)}
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
            )
        )
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

    def _window(
        self, op: Declaration, slot: str, operand: Value | Constant, result: Type, params: Mapping[str, Any]
    ) -> Any:
        if isinstance(operand, Constant):
            return pointwise()
        if not operand.type.timed or not result.timed:
            return everything()
        return window_of(op, slot, params)

    def _before(self, of: Value, params: Mapping[str, Any], span: Span) -> int | float:
        """What a delay reads before the start: as declared, else 0; integers must say (class 0 is hardly silence)."""
        if params.get("before") is not None:
            return params["before"]
        if of.type.dtype.kind != "int":
            return of.before or 0
        if of.before is None:
            fail(
                "GS0404",
                f"{of.path} is an integer; nothing says what its history reads before the start",
                span,
                related=[Related(str(of), of.span)],
                fixes=[
                    Fix("give the input `before:` (silence is 2**(bits - 1), not class 0), or shift(x, k, before=...)")
                ],
            )
        return of.before

    def _add(self, value: Value) -> Value:
        if len(self.values) >= MAX_VALUES:
            fail("GS0804", f"the spec unfolds to more than {MAX_VALUES} values", value.span)
        self.values.append(value)
        return value


def _given(operand: Value | Constant, site: Site) -> Given:
    if isinstance(operand, Constant):
        return Given(operand.type, site.span, str(operand.value))
    text = site.span.text
    return Given(operand.type, site.span, f"'{text}'" if len(text) <= 40 and "\n" not in text else operand.path)
