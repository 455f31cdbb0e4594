"""Types of op calls: match operands against a declared signature, and work out what comes back.

Long because it is one algorithm, unification, over one small language: the cases of a signature's dtypes, dims, rates
and results read each other's bindings, and splitting them would only spread the table of what is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from typing import Any, NoReturn

from graphspec.compiler import axes
from graphspec.compiler.arithmetic import NO_FACTS, binary, evaluate, is_number, unary
from graphspec.compiler.windows import exact_fraction
from graphspec.declare import Catalogue, Declaration, values_told
from graphspec.diagnostic import Fix, Related, fail
from graphspec.dims import Dim, DimError, Facts
from graphspec.expression import (
    Argument,
    Binary,
    Call,
    Ellipsis_,
    Expr,
    Name,
    Nothing,
    Number,
    TypeExpr,
    Unary,
    parse_free,
    parse_type,
)
from graphspec.span import Source, Span
from graphspec.types import BOOL, FLOAT, INT, UNKNOWN, DType, Meaning, Type, show_rate

NO_SITES: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Given:
    """One operand of a call, with the place that made it, for the other side of a conflict."""

    type: Type
    span: Span
    label: str


@dataclass
class Bound:
    """What the names of a signature stand for in one call, and which operand said so."""

    values: dict[str, Any]
    rates: dict[str, Fraction | None] = field(default_factory=dict)
    axes: dict[str, tuple[Dim, ...]] = field(default_factory=dict)  # what `...` matched, by operand
    who: dict[str, Given] = field(default_factory=dict)
    rest: tuple[Dim, ...] | None = None
    types: dict[str, Type] = field(default_factory=dict)
    many: dict[str, tuple[Type, ...]] = field(default_factory=dict)  # of a variadic
    params: Mapping[str, Any] = field(default_factory=dict)
    any: DType | None = None
    sites: Mapping[str, Any] = field(default_factory=dict)  # where parameters are written


class Inference:
    """The rules, with the facts about sizes that hold in this spec."""

    def __init__(self, catalogue: Catalogue, facts: Facts = NO_FACTS):
        self.catalogue = catalogue
        self.facts = facts
        self.clock: tuple[Dim, Fraction] | None = None  # of the loop whose types are being found out

    def results(
        self,
        op: Declaration,
        operands: Mapping[str, Given | tuple[Given, ...] | None],
        params: Mapping[str, Any],
        span: Span,
        sites: Mapping[str, Any] = NO_SITES,
    ) -> tuple[list[tuple[str | None, Type]], Bound]:
        """The results' names and types. Raises what does not fit, with both sides.

        sites: where the parameters are written, by name; one that is alone to blame is underlined.
        """
        bound = Bound(dict(params), params=params, sites=sites)
        given_all = [g for o in operands.values() for g in (o if isinstance(o, tuple) else (o,)) if g is not None]
        if any(g.type.dtype == UNKNOWN for g in given_all):
            return self._guessed(op, given_all, params), bound
        for declared in op.parsed.operands:
            given = operands.get(declared.name)
            if given is None:
                continue
            if declared.variadic:
                assert isinstance(given, tuple)
                self._match_all(op, declared.name, declared.type, given, bound, span)
            else:
                assert isinstance(given, Given)
                self._match(op, declared.name, declared.type, given, bound, span)
        self._offered(op, operands, bound, span)
        if op.parts:
            bound.values["parts"] = tuple(width for name, width in params.items() if op.parameter(name) is None)
        for name, rate in bound.rates.items():  # conditions may speak of Hz
            if rate is not None:
                bound.values.setdefault(name, int(rate) if rate.denominator == 1 else float(rate))
        for condition in op.parsed.conditions:
            if not self._dim(condition, bound, span):
                self._unmet(op, condition, bound, span)
        if op.parts:
            rule = op.parsed.results[0][1]
            out: list[tuple[str | None, Type]] = []
            for name, width in params.items():
                if op.parameter(name) is None:
                    bound.values["part"] = width
                    out.append((name, self._result(op, rule, bound, span)))
            return out, bound
        return [(name, self._result(op, rule, bound, span)) for name, rule in op.parsed.results], bound

    def _offered(self, op: Declaration, operands: Mapping[str, Any], bound: Bound, span: Span) -> None:
        """GS0318: is there such a function of this distribution, and does it take what it is given?"""
        of = next((o.name for o in op.parsed.operands if o.type.name == "dist" and o.name in bound.types), None)
        meaning = bound.types[of].meaning if of else None
        if of is None or meaning is None:
            return
        declared = self.catalogue.meanings[meaning.name]
        sides = [Related(f"{bound.who[of].label}: {bound.who[of].type}", bound.who[of].span)]
        if op.name not in declared.functions:
            notes = [f"it has: {', '.join(declared.functions)}"]
            fail("GS0318", f"{meaning} has no {op.name}", span, related=sides, notes=notes)
        for name in declared.without.get(op.name, ()):
            p = op.parameter(name)
            asked = operands.get(name) is not None if p is None else bound.params.get(name, p.default) != p.default
            if asked:
                blamed = bound.sites[name].span if name in bound.sites else span
                notes = [f"'{name}' is about single classes, and {meaning.name} has none"]
                fail("GS0318", f"{op.name} of {meaning} takes no '{name}'", blamed, related=sides, notes=notes)

    def _unmet(self, op: Declaration, condition: Expr, bound: Bound, span: Span) -> NoReturn:
        """GS0305: what the condition says, what its names stand for here, and the operands that say so."""
        used = sorted((n for n in _names(condition) if n.name in bound.values), key=lambda n: n.span.start)
        sides = {id(g): g for n in used if (g := bound.who.get("#" + n.name) or bound.who.get("@" + n.name))}
        related = [Related(f"{g.label}: {g.type}", g.span) for g in sides.values()]
        if op.parts and any(n.name == "parts" for n in used):
            parts = [f"{n}={w}" for n, w in bound.params.items() if op.parameter(n) is None]
            whole = next((bound.values[n.name] for n in used if n.name != "parts"), "other")
            told = f"{op.name}: {' + '.join(parts)} are {sum(bound.values['parts'])} channels, but there are {whole}"
            fail("GS0305", told, span, related=related)
        known = values_told((n.name for n in used), bound.values)
        told = f"{op.name} needs {condition.span.text}; {known}"
        fail("GS0305", told, _blamed(op, condition, bound.sites, span), related=related)

    def _guessed(self, op: Declaration, given: list[Given], params: Mapping[str, Any]) -> list[tuple[str | None, Type]]:
        """Results while what comes back in a loop is not known: elementwise ops are like their other operands."""
        known = [g.type for g in given if g.type.dtype != UNKNOWN and g.type.dims]
        names: list[str | None] = [n for n, _ in op.parsed.results]
        if op.parts:
            names = [n for n in params if op.parameter(n) is None]
        if not _elementwise(op):
            return [(n, self._without_operands(op, params, n)) for n in names]
        if not known:
            return [(n, Type(UNKNOWN)) for n in names]
        widest = max(known, key=lambda t: (t.timed, len(t.dims)))
        kinds = [t.dtype for t in known if t.dtype.kind != "bool"] or [widest.dtype]  # a mask says nothing of it
        dtype = BOOL if op.parsed.results[0][1].name == "bool" else kinds[0]
        dtype = INT if dtype.kind == "int" and op.spelled else dtype
        return [(n, Type(dtype, widest.dims, widest.rate)) for n in names]

    def _without_operands(self, op: Declaration, params: Mapping[str, Any], part: str | None) -> Type:
        """What the parameters alone tell, on the loop's clock: `linear(64)` gives [T, 64] whatever it is given."""
        rule = op.parsed.results[0][1]
        if self.clock is None or rule.name not in ("float", "any", "f32") or not rule.dims:
            return Type(UNKNOWN)
        length, rate = self.clock
        values = {**params, "part": params.get(part or "")}
        sizes: list[Dim] = []
        for d in rule.dims:
            if isinstance(d, Ellipsis_) or (isinstance(d, Name) and d.name == "T"):
                sizes.append(length)
            elif all(isinstance(values.get(n.name), int) for n in _names(d)) and not isinstance(d, Call):
                sizes.append(Dim.of(evaluate(d, values)))
            else:
                return Type(UNKNOWN)
        return Type(FLOAT, tuple(sizes), rate)

    def noise(self, op: Declaration, bound: Bound, span: Span) -> Type | None:
        """The random operand of a call, if it has one."""
        if not op.noise or (op.noise_when and not self._dim(parse_free(op.noise_when), bound, span)):
            return None
        rule = parse_type(Span(Source("<noise>", op.noise), 0, len(op.noise)))
        dims, _ = self._dims(op, rule, bound, span)
        for m in (t.meaning for t in bound.types.values() if t.meaning is not None):
            declared = self.catalogue.meanings[m.name]
            if op.name in declared.noise:
                many = evaluate(parse_free(declared.noise[op.name]), declared.bound(m.arguments))
                dims = (*dims, Dim.of(many))
        timed = next((t.rate for t in bound.types.values() if t.timed), None)
        rate = self._rate_of(rule.rate, bound, span) if rule.rate is not None else timed
        return Type(FLOAT, dims, rate)

    # ---- operands ---------------------------------------------------------------------------------------------

    def _match(self, op: Declaration, name: str, rule: TypeExpr, given: Given, bound: Bound, span: Span) -> None:
        self._dtype(op, name, rule, given, bound, span)
        bound.types[name] = given.type
        bound.who.setdefault(name, given)
        if rule.rate is not None:
            self._rate(op, rule.rate, given, bound, span)
        if rule.dims is not None:
            self._axes(op, rule.dims, given, bound, span)

    def _match_all(
        self, op: Declaration, name: str, rule: TypeExpr, given: tuple[Given, ...], bound: Bound, span: Span
    ) -> None:
        """A variadic: every operand fits the rule; a channel name collects one size an operand."""
        own = [d.name for d in rule.dims or () if isinstance(d, Name) and d.name not in bound.values]
        collected: dict[str, list[Any]] = {n: [] for n in own}
        for g in given:
            for n in own:
                bound.values.pop(n, None)
            self._match(op, name, rule, g, bound, span)
            for n in own:
                collected[n].append(bound.values[n])
        bound.many[name] = tuple(g.type for g in given)
        for n, sizes in collected.items():
            bound.values[n] = tuple(sizes)

    def _dtype(self, op: Declaration, name: str, rule: TypeExpr, given: Given, bound: Bound, span: Span) -> None:
        type_ = given.type
        want = rule.name
        meaning = type_.meaning

        def refuse(hint: str = "") -> NoReturn:
            is_ = f"a distribution, {meaning}" if meaning else str(type_.dtype)
            wanted = {"event": "what the distribution is over", "dist": "a distribution"}.get(want, want)
            needs = f"{_as_written(op, span)} works on" if op.spelled else f"{op.name} needs"
            of = "" if op.spelled else f" for '{name}'"
            fail(
                "GS0303",
                f"{needs} {wanted}{of}, but {given.label} is {is_}",
                span,
                related=[Related(f"{given.label}: {type_}", given.span)],
                fixes=[Fix(hint)] if hint else [],
            )

        if want == "dist":
            if meaning is None:
                refuse("make a distribution first, as categorical(classes)")
            return
        if want == "event":
            of = rule.arguments[0].value
            assert isinstance(of, Name)
            dist = bound.types[of.name].meaning
            assert dist is not None
            if meaning is not None or type_.dtype.kind != dist.event.kind:
                refuse()
            if dist.event.classes and type_.dtype.classes != dist.event.classes:
                other = bound.who[of.name]
                fail(
                    "GS0303",
                    f"{other.label} is over {dist.event.classes} classes, but {given.label} has "
                    f"{type_.dtype.classes or 'an unknown number'}",
                    span,
                    related=[
                        Related(f"{other.label}: {other.type}", other.span),
                        Related(f"{given.label}: {type_}", given.span),
                    ],
                )
            return
        if want in self.catalogue.meanings:
            if meaning is None or meaning.name != want:
                refuse()
            told = self.catalogue.meanings[want].bound(meaning.arguments).values()
            for argument, value in zip(rule.arguments, told, strict=False):
                self._bind(op, argument.value, value, given, bound, span)
            return
        if meaning is not None:
            if op.name == "cross_entropy":
                label = given.label.strip("'")
                refuse(f"its loss is nll({label}, x)")
            refuse("a distribution goes to nll, draw and what else takes one")
        kind = type_.dtype.kind
        if want == "any":
            if bound.any is None:
                bound.any = type_.dtype
            elif not _mixes(bound.any, type_.dtype) and not rule.arguments:
                first = next(g for g in bound.who.values())
                fail(
                    "GS0303",
                    f"{_as_written(op, span)} mixes {bound.any} and {type_.dtype}",
                    span,
                    related=[
                        Related(f"{first.label}: {first.type}", first.span),
                        Related(f"{given.label}: {type_}", given.span),
                    ],
                    fixes=[Fix("dequantise or embed the integers first")],
                )
            elif bound.any != type_.dtype:
                before = bound.any
                bound.any = _joined_dtype(bound.any, type_.dtype)
                ranges = (before.classes, type_.dtype.classes)
                if op.rearranges and bound.any == INT and all(ranges):  # elements stay what they are
                    bound.any = DType("int", max(r or 0 for r in ranges))
        elif want in ("float", "f32"):
            if kind != "float" and type_.dtype != NUMBER_INT:
                hints = {
                    "int": "dequantise or embed the integers first",
                    "bool": "where(mask, a, b) makes numbers of it",
                }
                refuse(hints.get(kind, ""))
        elif want == "int":
            if kind != "int":
                refuse("quantise(bits) makes integers of audio" if kind == "float" else "")
            if rule.arguments:
                if type_.dtype.classes is None:
                    refuse("give the type its number of classes, as int(256)")
                self._bind(op, rule.arguments[0].value, type_.dtype.classes, given, bound, span)
        elif want == "bool" and kind != "bool":
            refuse("compare something, as x > 0")

    def _rate(self, op: Declaration, rule: Expr, given: Given, bound: Bound, span: Span) -> None:
        assert isinstance(rule, Name)
        known = bound.rates.setdefault(rule.name, given.type.rate)
        bound.who.setdefault("@" + rule.name, given)
        if known != given.type.rate:
            other = bound.who["@" + rule.name]
            a, b = (show_rate(t.rate) if t.rate is not None else "static" for t in (other.type, given.type))
            fail(
                "GS0302",
                f"{_as_written(op, span)} joins values of different rates: {other.label} {a}, {given.label} {b}",
                span,
                related=[
                    Related(f"{other.label}: {other.type}", other.span),
                    Related(f"{given.label}: {given.type}", given.span),
                ],
            )

    def _axes(self, op: Declaration, rule: tuple[Expr, ...], given: Given, bound: Bound, span: Span) -> None:
        dims = given.type.dims
        rest_at = next((i for i, d in enumerate(rule) if isinstance(d, Ellipsis_)), None)
        fixed = len(rule) - (rest_at is not None)
        wants_time = bool(rule) and isinstance(rule[0], Name) and rule[0].name == "T"
        if wants_time and not given.type.timed:
            fail(
                "GS0304",
                f"{_as_written(op, span)} works along time, but {given.label} is static",
                span,
                related=[Related(f"{given.label}: {given.type}", given.span)],
            )
        free = len(dims) - (1 if given.type.timed and rest_at == 0 else 0)
        if (rest_at is None and len(dims) != fixed) or (rest_at is not None and free < fixed):
            shape = ", ".join(d.span.text for d in rule)
            fail(
                "GS0304",
                f"{op.name} wants axes [{shape}], but {given.label} has [{', '.join(map(str, dims))}]",
                span,
                related=[Related(f"{given.label}: {given.type}", given.span)],
            )
        before = rule[:rest_at] if rest_at is not None else rule
        after = rule[rest_at + 1 :] if rest_at is not None else ()
        for pattern, dim in zip(before, dims, strict=False):
            self._bind(op, pattern, _plain(dim), given, bound, span)
        for pattern, dim in zip(reversed(after), reversed(dims), strict=False):
            if dim.as_int() is None:
                fail("GS0306", f"the channels of {given.label} are not a known number: {dim}", span)
            self._bind(op, pattern, _plain(dim), given, bound, span)
        if rest_at is not None:
            rest = dims[len(before) : len(dims) - len(after)]
            if bound.rest is not None and not _joins(op) and not self._same(bound.rest, rest):
                other = next(iter(bound.who.values()))
                fail(
                    "GS0301",
                    f"{_as_written(op, span)}: the axes of {other.label} and {given.label} differ",
                    span,
                    related=[
                        Related(f"{other.label}: {other.type}", other.span),
                        Related(f"{given.label}: {given.type}", given.span),
                    ],
                )
            bound.rest = rest

    def _same(self, a: Sequence[Dim], b: Sequence[Dim]) -> bool:
        return len(a) == len(b) and all(self.facts.same(x, y) for x, y in zip(a, b, strict=True))

    def _bind(self, op: Declaration, pattern: Expr, value: Any, given: Given, bound: Bound, span: Span) -> None:
        if isinstance(pattern, Name) and pattern.name not in bound.values:
            bound.values[pattern.name] = value
            bound.who.setdefault("#" + pattern.name, given)
            return
        want = self._dim(pattern, bound, span)
        if not self.facts.same(Dim.of(want), Dim.of(value)):
            other = bound.who.get("#" + pattern.name) if isinstance(pattern, Name) else None
            sides = [Related(f"{other.label}: {other.type}", other.span)] if other else []
            fail(
                "GS0301",
                f"{op.name}: {given.label} has {value} where {other.label + ' has ' if other else ''}{want}",
                span,
                related=[*sides, Related(f"{given.label}: {given.type}", given.span)],
            )

    # ---- results ----------------------------------------------------------------------------------------------

    def _result(self, op: Declaration, rule: TypeExpr, bound: Bound, span: Span) -> Type:
        if rule.name == "join":
            return self._joined(op, rule.arguments, bound, span)
        dims, joined = self._dims(op, rule, bound, span)
        if joined is not None:
            rate = joined.rate
        elif rule.rate is None:
            rate = None
        else:
            rate = self._rate_of(rule.rate, bound, span)
        if rule.name in self.catalogue.meanings:
            meaning = self.meaning(rule.name, [self._dim(a.value, bound, span) for a in rule.arguments])
            return Type(FLOAT, dims, rate, meaning)
        return Type(self._result_dtype(rule, bound, span), dims, rate)

    def meaning(self, name: str, arguments: list[Any]) -> Meaning:
        """`categorical(256)` with its event and axes worked out."""
        declared = self.catalogue.meanings[name]
        values = declared.bound(arguments)
        event = parse_type(Span(Source("<event>", declared.event), 0, len(declared.event)))
        classes = evaluate(event.arguments[0].value, values) if event.arguments else None
        axes = tuple(evaluate(parse_free(a), values) for a in declared.axes)
        return Meaning(name, declared.told(arguments), axes, DType(event.name, classes))

    def _result_dtype(self, rule: TypeExpr, bound: Bound, span: Span) -> DType:
        if rule.name == "any":
            assert bound.any is not None
            return bound.any
        if rule.name == "event":
            of = rule.arguments[0].value
            assert isinstance(of, Name)
            dist = bound.types[of.name].meaning
            assert dist is not None
            return dist.event
        if rule.name == "int":
            return DType("int", self._dim(rule.arguments[0].value, bound, span)) if rule.arguments else INT
        return BOOL if rule.name == "bool" else FLOAT

    def _dims(self, op: Declaration, rule: TypeExpr, bound: Bound, span: Span) -> tuple[tuple[Dim, ...], Type | None]:
        out: list[Dim] = []
        for d in rule.dims or ():
            if isinstance(d, Ellipsis_):
                rest = bound.rest
                if rest is None:  # an operand given with all its axes open
                    rest = next(iter(bound.types.values())).dims
                out.extend(rest)
            elif isinstance(d, Call) and isinstance(d.function, Name) and d.function.name in ("join", "reduced"):
                if d.function.name == "join":
                    joined = self._joined(op, d.arguments, bound, span)
                else:
                    joined = self._reduced(d.arguments, bound)
                return joined.dims, joined
            elif isinstance(d, Call) and isinstance(d.function, Name) and d.function.name in _AXES:
                ruled = self._by_rule(op, d, bound, span)
                return ruled.dims, ruled
            else:
                size = Dim.of(self._dim(d, bound, span))
                self._exact(op, size, d, bound, span)
                out.append(size)
        return tuple(out), None

    def _by_rule(self, op: Declaration, rule: Call, bound: Bound, span: Span) -> Type:
        """A rule of axes.py, given operands' types and parameters by their names."""
        assert isinstance(rule.function, Name)
        function = _AXES[rule.function.name]
        given: list[Any] = []
        for a in rule.arguments:
            assert isinstance(a, Argument) and isinstance(a.value, Name)
            name = a.value.name
            given.append(bound.many.get(name) or bound.types.get(name) or bound.values[name])
        if op.sizes:
            given.append({n: v for n, v in bound.params.items() if op.parameter(n) is None})
        if "facts" in function.__code__.co_varnames:
            given.append(self.facts)
        try:
            return function(*given)
        except axes.Misfit as misfit:
            sides = [Related(f"{g.label}: {g.type}", g.span) for g in bound.who.values()]
            fail(misfit.code, str(misfit), span, related=sides[:3])

    def _exact(self, op: Declaration, size: Dim, rule: Expr, bound: Bound, span: Span) -> None:
        sites = bound.sites
        if self.facts.exact(size):
            return
        needed = self.facts.needed(size)
        whole = size.as_int() is None and size.is_constant
        known = values_told((n.name for n in _names(rule)), bound.values)
        if whole and isinstance(rule, Binary) and isinstance(rule.left, Name) and isinstance(rule.right, Name):
            parts, by = (bound.values[n.name] for n in (rule.left, rule.right))
            given = bound.who.get("#" + rule.left.name)
            if given is not None and isinstance(parts, int) and isinstance(by, int):
                last = given.type.dims and given.type.dims[-1].as_int() == parts
                what = "channels" if last else f"elements ({rule.left.name})"
                fail(
                    "GS0310",
                    f"{parts} {what} are not a multiple of {by}",
                    _blamed(op, rule, sites, span),
                    related=[Related(f"{given.label}: {given.type}", given.span)],
                )
        fail(
            "GS0310",
            f"{op.name} makes an axis of {size}, which "
            + ("is not a whole number" if whole else "is not known to be a whole number")
            + (f" ({rule.span.text} with {known})" if whole else ""),
            span,
            fixes=[Fix(f"require: {needed}")] if needed and not whole else [],
        )

    def _rate_of(self, rule: Expr, bound: Bound, span: Span) -> Fraction | None:
        if isinstance(rule, Name):
            return bound.rates.get(rule.name)
        values = {**bound.values, **bound.rates}
        if any(values.get(n.name, 0) is None for n in _names(rule)):
            return None
        return exact_fraction(rule, values, span)

    def _reduced(self, arguments: tuple[Any, ...], bound: Bound) -> Type:
        of = bound.types[arguments[0].value.name]
        axis = bound.values[arguments[1].value.name]
        if axis is None:
            return Type(of.dtype)
        if not of.after_time:
            fail("GS0304", f"{of} has no channels to reduce", bound.who[arguments[0].value.name].span)
        return of.with_dims(*of.dims[:-1], Dim.of(1))

    def _joined(self, op: Declaration, arguments: tuple[Any, ...], bound: Bound, span: Span) -> Type:
        given = [bound.who[a.value.name] for a in arguments]
        out = given[0].type
        maker = given[0]
        for g in given[1:]:
            out = self.join(_as_written(op, span), maker, Given(out, maker.span, maker.label), g, span)
            maker = g if len(g.type.dims) > len(maker.type.dims) else maker
        if op.number is not None and out.dtype.kind == "bool":
            sides = [Related(f"{g.label}: {g.type}", g.span) for g in given]
            fail("GS0303", f"{_as_written(op, span)} does not work on truth values", span, related=sides)
        if op.spelled and out.dtype.kind == "int":  # a sum of classes is not a class
            return replace(out, dtype=INT)
        return out

    def join(self, what: str, maker: Given, a: Given, b: Given, span: Span) -> Type:
        """Elementwise joining (LANGUAGE 6): numbers, static vectors, equal shapes; nothing else broadcasts."""
        dtype = _joined_dtype(a.type.dtype, b.type.dtype)
        both = [Related(f"{g.label}: {g.type}", g.span) for g in (a, b)]
        if not a.type.dims:
            return Type(dtype, b.type.dims, b.type.rate)
        if not b.type.dims:
            return Type(dtype, a.type.dims, a.type.rate)
        if a.type.timed and b.type.timed and a.type.rate != b.type.rate:
            rates = [show_rate(t.rate) for t in (a.type, b.type) if t.rate is not None]
            fail(
                "GS0302",
                f"{what} joins values of different rates: {a.label} {rates[0]}, {b.label} {rates[1]}",
                span,
                related=both,
            )
        x, y = a.type.dims, b.type.dims
        if a.type.timed != b.type.timed:
            timed, static = (a.type, b.type) if a.type.timed else (b.type, a.type)
            if len(static.dims) == 1:
                if timed.dims[1:] and self.facts.same(static.dims[0], timed.dims[-1]):
                    return Type(dtype, timed.dims, timed.rate)
            elif len(static.dims) == len(timed.after_time):
                pairs = list(zip(static.dims, timed.after_time, strict=True))
                ones = {i.as_int() == 1 for i, j in pairs if not self.facts.same(i, j)}
                fits = all(self.facts.same(i, j) or 1 in (i.as_int(), j.as_int()) for i, j in pairs)
                if fits and len(ones) <= 1:  # only one of the two is stretched
                    wide = [j if i.as_int() == 1 else i for i, j in pairs]
                    return Type(dtype, (timed.length, *wide), timed.rate)
            fail(
                "GS0301",
                f"{what}: [{_show(static.dims)}] does not fit the axes after time, [{_show(timed.after_time)}]",
                span,
                related=both,
            )
        if len(x) != len(y):
            fail("GS0301", f"{what}: {a.label} has {len(x)} axes, {b.label} has {len(y)}", span, related=both)
        out, sides = [], set()
        for i, j in zip(x, y, strict=True):
            if self.facts.same(i, j):
                out.append(i)
            elif i.as_int() == 1 or j.as_int() == 1:
                sides.add("a" if i.as_int() == 1 else "b")
                out.append(j if i.as_int() == 1 else i)
            else:
                fail("GS0301", f"{what}: {a.label} has {i} where {b.label} has {j}", span, related=both)
        if len(sides) > 1:
            fail(
                "GS0307",
                f"{what} would stretch both sides, [{_show(x)}] and [{_show(y)}]",
                span,
                related=both,
                fixes=[Fix("say what is meant: one side must have all axes")],
            )
        return Type(dtype, tuple(out), a.type.rate)

    # ---- expressions of a signature -------------------------------------------------------------------------------

    def _dim(self, expr: Expr, bound: Bound, span: Span) -> Any:
        if isinstance(expr, Number):
            return expr.value
        if isinstance(expr, Nothing):
            return None
        if isinstance(expr, Name):
            if expr.name not in bound.values:
                raise AssertionError(f"signature names {expr.name}, which nothing binds")
            return bound.values[expr.name]
        if isinstance(expr, Binary):
            a, b = self._dim(expr.left, bound, span), self._dim(expr.right, bound, span)
            if expr.operator == "/" and is_number(a) and is_number(b):
                return _plain(Dim.of(a) / b)
            try:
                return binary(expr.operator, a, b, span, self.facts)
            except DimError as error:
                fail("GS0306", str(error), span)
        if isinstance(expr, Unary):
            return unary(expr.operator, self._dim(expr.operand, bound, span), span)
        if isinstance(expr, Call) and isinstance(expr.function, Name) and expr.function.name == "sum":
            sizes = self._dim(expr.arguments[0].value, bound, span)
            return sum(sizes)
        return evaluate(expr, bound.values)


@cache
def _elementwise(op: Declaration) -> bool:
    rule = op.parsed.results[0][1]
    joins = rule.name == "join" or any(isinstance(d, Call) and d.function.name == "join" for d in rule.dims or ())  # type: ignore[attr-defined]
    same = len(op.parsed.operands) == 1 and [type(d) for d in rule.dims or ()] == [Ellipsis_]
    return joins or same


@cache
def _joins(op: Declaration) -> bool:
    """Does its result join the operands' shapes (so that they may differ)?"""
    rules = [rule for _, rule in op.parsed.results]
    return any(r.name == "join" or any(isinstance(d, Call) for d in r.dims or ()) for r in rules)


def _as_written(op: Declaration, span: Span) -> str:
    """The op for a message: its name, or the text of the expression where it is an operator."""
    if not op.spelled:
        return op.name
    text = " ".join(span.text.split())
    if text.startswith("(") and text.endswith(")") and text.find(")") == len(text) - 1:
        text = text[1:-1]
    return f"'{text}'" if text and len(text) <= 60 else f"'{op.spelled}'"


def _blamed(op: Declaration, condition: Expr, sites: Mapping[str, Any], span: Span) -> Span:
    """The one written argument that a condition is about, else the whole call."""
    told = {n.name: sites[n.name] for n in _names(condition) if op.parameter(n.name) and n.name in sites}
    return next(iter(told.values())).span if len(told) == 1 else span


def _plain(dim: Dim) -> Any:
    whole = dim.as_int()
    return dim if whole is None else whole


def _show(dims: Sequence[Dim]) -> str:
    return ", ".join(map(str, dims))


def _names(expr: Expr) -> list[Name]:
    from graphspec.expression import names

    seen: dict[str, Name] = {}
    for n in names(expr):
        seen.setdefault(n.name, n)
    return list(seen.values())


def _mixes(a: DType, b: DType) -> bool:
    """May these meet in one operation? Whole numbers written in the spec fit floats and integers."""
    return a.kind == b.kind or NUMBER_INT in (a, b)


NUMBER_INT = DType("int", 0)  # a whole number written in the spec: joins integers and floats


def _joined_dtype(a: DType, b: DType) -> DType:
    """Float wins; a mask gives way; integers of one range keep it, else their range is not known."""
    if a.kind == "float" or b.kind == "float":
        return FLOAT
    if a.kind == "bool" or b.kind == "bool":
        return b if a.kind == "bool" else a
    return a if a == b and a != NUMBER_INT else INT


_AXES: dict[str, Callable[..., Type]] = {
    rule.__name__: rule  # type: ignore[attr-defined]
    for rule in (axes.expanded, axes.outer, axes.einsum, axes.rearranged, axes.fixed, axes.timed, axes.shaped)
}
