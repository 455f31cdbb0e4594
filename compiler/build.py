"""Pass 2 continued: the sections of a spec -> one typed Graph. Every independent error is found in one run.

Long because a section is a method and there are nine; they share the scope, and the poison that keeps errors apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphspec.compiler import arithmetic
from graphspec.compiler.arithmetic import describe, evaluate, is_number
from graphspec.compiler.elaborate import Elaborator
from graphspec.compiler.infer import Inference, exact_fraction
from graphspec.compiler.resolve import Spec, check_name, dataflow_order, requirements, value_expression
from graphspec.compiler.stages import POISON, PoisonedError, Scope
from graphspec.declare import Catalogue
from graphspec.diagnostic import Findings, Fix, Related, SpecError, did_you_mean, fail
from graphspec.dims import Dim, DimError, Facts
from graphspec.document import Entry, Node, Scalar, Sequence
from graphspec.document import Mapping as Tree
from graphspec.expression import Binary, Expr, Name, TypeExpr, parse_expression, parse_type
from graphspec.graph import Assertion, Feed, Graph, Input, Term, Value
from graphspec.span import Span
from graphspec.types import BOOL, FLOAT, DType, Type


def build(spec: Spec, catalogue: Catalogue, findings: Findings) -> Graph:
    """The spec's graph. Errors go to `findings`; what depends on a broken value is left out, not reported again."""
    return _Builder(spec, catalogue, findings).graph()


MAX_RATE = 10**9  # Hz


class _Builder:
    def __init__(self, spec: Spec, catalogue: Catalogue, findings: Findings):
        self.spec = spec
        self.findings = findings
        self.symbols: dict[str, Dim] = {}
        self.inputs: dict[str, Input] = {}
        self.scope = Scope(spec.home)
        self.elaborator = Elaborator(Inference(catalogue))
        self.named: dict[str, Any] = {}
        self.broken = False  # an input's type was refused: names may be missing that are not the reader's fault

    def graph(self) -> Graph:
        spec = self.spec
        for entry in spec.entries("inputs"):
            self.broken |= self.attempt(entry.key.text, self.input, entry) is POISON
        facts = self.facts()
        self.elaborator.inference.facts = facts
        self.values()
        losses = self.terms("losses")
        metrics = self.terms("metrics")
        outputs = self.outputs()
        assertions = self.assertions()
        feeds = self.feeds()
        return Graph(
            name=spec.name,
            doc=spec.doc,
            inputs=self.inputs,
            values=tuple(self.elaborator.values),
            named=self.named,
            facts=facts,
            losses=losses,
            metrics=metrics,
            outputs=outputs,
            assertions=assertions,
            feeds=feeds,
            params=spec.home.params,
        )

    def attempt(self, name: str | None, make: Callable[..., Any], *given: Any) -> Any:
        """Run one independent piece; its error is kept, and the name it would have had is poisoned."""
        try:
            return make(*given)
        except SpecError as error:
            self.findings.absorb(error)
        except PoisonedError:
            pass
        if name is not None:
            self.scope.names[name] = POISON
        return POISON

    # ---- inputs and facts -------------------------------------------------------------------------------------

    def input(self, entry: Entry) -> None:
        name, written = entry.key.text, entry.value
        check_name(name, entry.key.span)
        default: Any = None
        before_node: Node | None = None
        optional = False
        if isinstance(written, Tree):
            for e in written.entries:
                if e.key.text in ("pad", "cache", "when"):
                    fail("GS0190", f"'{e.key.text}' of an input is not built yet", e.key.span)
                known = ("type", "before", "default")
                if e.key.text not in known:
                    fail("GS0130", f"an input has no '{e.key.text}'{did_you_mean(e.key.text, known)}", e.key.span)
            before_node = written.get("before")
            default_node = written.get("default")
            if default_node is not None:
                optional = True
                default = self.number(default_node)
            inner = written.get("type")
            if inner is None:
                fail("GS0506", f"input '{name}' has no 'type'", entry.key.span)
            written = inner
        if not isinstance(written, Scalar):
            fail("GS0133", "a type belongs here, as float[T, 1] @ 16000", written.span)
        type_ = self.type(parse_type(written.content))
        before = self.before(before_node, type_) if before_node is not None else None
        if optional and type_.dims:
            fail(
                "GS0190",
                f"a default for '{name}', which has axes, is not built yet; knobs are plain f32",
                entry.key.span,
            )
        value = Value(path=name, type=type_, span=entry.key.span, before=before)
        self.elaborator.values.append(value)
        self.elaborator.claim(name)
        self.inputs[name] = Input(value, default, optional)
        self.scope.names[name] = value
        self.scope.spans[name] = entry.key.span

    def number(self, node: Node) -> int | float:
        if not isinstance(node, Scalar):
            fail("GS0133", "a number belongs here", node.span)
        value: Any = node.value
        if not is_number(value):
            value = evaluate(parse_expression(node.content), self.spec.home.params)
        if not is_number(value):
            fail("GS0190", f"a default that is {describe(value)} is not built yet; it is a number", node.span)
        return value

    def before(self, node: Node, type_: Type) -> int | float:
        value = self.number(node)
        if type_.dtype.kind == "int":
            classes = type_.dtype.classes
            if not isinstance(value, int) or value < 0 or (classes and value >= classes):
                fail("GS0312", f"'before' must be one of the classes 0..{(classes or 1) - 1}, not {value}", node.span)
        return value

    def type(self, written: TypeExpr) -> Type:
        kinds = {"f32": DType("float", concrete=True), "float": FLOAT, "bool": BOOL, "int": DType("int")}
        if written.name not in kinds:
            fail(
                "GS0313",
                f"'{written.name}' is not a dtype{did_you_mean(written.name, kinds)}",
                written.name_span,
                notes=["dtypes: f32, float, int(classes), bool"],
            )
        dtype = kinds[written.name]
        params = self.spec.home.params
        if written.arguments:
            if written.name != "int" or len(written.arguments) != 1:
                fail("GS0313", f"{written.name} takes no arguments", written.span)
            classes = evaluate(written.arguments[0].value, params)
            if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
                fail("GS0313", f"the number of classes is a whole number from 1, not {describe(classes)}", written.span)
            dtype = DType("int", classes)
        dims = tuple(self.size(d) for d in written.dims or ())
        rate = None
        if written.rate is not None and not (isinstance(written.rate, Name) and written.rate.name == "static"):
            rate = exact_fraction(written.rate, params, written.rate.span) if self.known(written.rate) else None
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

    def known(self, expr: Expr) -> bool:
        evaluate_names = [n for n in _names(expr) if n.name not in self.spec.home.params]
        if evaluate_names:
            n = evaluate_names[0]
            fail("GS0201", f"'{n.name}' is not a param{did_you_mean(n.name, self.spec.home.params)}", n.span)
        return True

    def size(self, expr: Expr) -> Dim:
        """One axis of an input: a number of params, or a new symbol."""
        if isinstance(expr, Name) and expr.name not in self.spec.home.params:
            symbol = self.symbols.setdefault(expr.name, Dim.symbol(expr.name))
            self.scope.names[expr.name] = symbol
            return symbol
        value = evaluate(expr, self.spec.home.params)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            fail("GS0306", f"an axis is a whole number from 1, not {describe(value)}", expr.span)
        return Dim.of(value)

    def facts(self) -> Facts:
        facts = Facts()

        def add(expr: Expr) -> None:
            nonlocal facts
            facts = self.fact(expr, facts)

        def each() -> None:
            for expr in requirements(self.spec.section("require")):
                self.attempt(None, add, expr)

        self.attempt(None, each)
        return facts

    def fact(self, expr: Expr, facts: Facts) -> Facts:
        """`X % k == 0` and `X == Y` of sizes; of params alone, anything that holds."""
        scope = {**self.spec.home.params, **self.symbols}
        if self.broken and any(n.name not in scope for n in _names(expr)):
            raise PoisonedError  # it may be a size of an input whose type was refused
        symbolic = any(n.name in self.symbols for n in _names(expr))
        if not symbolic:
            if arithmetic.truth(evaluate(expr, scope), expr.span) is False:
                values = ", ".join(f"{n.name} is {scope.get(n.name)}" for n in _names(expr) if n.name in scope)
                fail("GS0305", f"the spec requires {expr.span.text}; {values}", expr.span)
            return facts
        if not (isinstance(expr, Binary) and expr.operator == "=="):
            fail(
                "GS0314", f"a fact about sizes is 'T % 16 == 0' or 'T == N*hop', not '{expr.span.text[:60]}'", expr.span
            )
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

    # ---- graph and what stands on it ----------------------------------------------------------------------------

    def values(self) -> None:
        entries: dict[str, Entry] = {}
        expressions: dict[str, Expr] = {}
        for entry in self.spec.entries("graph"):
            name = entry.key.text

            def read(e: Entry, n: str) -> None:
                check_name(n, e.key.span)
                if n in self.symbols:
                    fail("GS0224", f"'{n}' is the name of a size", e.key.span)
                if n in self.inputs or n in self.spec.home.params:
                    where = self.scope.spans.get(n) or self.spec.home.param_spans[n]
                    fail(
                        "GS0224",
                        f"'{n}' is already {'an input' if n in self.inputs else 'a param'}",
                        e.key.span,
                        related=[Related("here", where)],
                    )
                expressions[n] = value_expression(e.value)

            entries[name] = entry
            self.attempt(name, read, entry, name)
        try:
            order = dataflow_order(expressions, "value")
        except SpecError as error:
            self.findings.absorb(error)
            for name in expressions:
                self.scope.names[name] = POISON
            return
        for name in order:
            made = self.attempt(name, self.graph_value, name, expressions[name], entries[name])
            if made is not POISON:
                self.scope.names[name] = made
                self.named[name] = made

    def graph_value(self, name: str, expr: Expr, entry: Entry) -> Any:
        with self.elaborator.entered(name):
            made = self.elaborator.value(expr, self.scope)
        if isinstance(entry.value, Tree):
            for e in entry.value.entries:
                if e.key.text not in ("is", "type", "doc"):
                    fail("GS0190", f"'{e.key.text}' of a value is not built yet", e.key.span)
            asserted = entry.value.get("type")
            if asserted is not None and isinstance(made, Value):
                if not isinstance(asserted, Scalar):
                    fail("GS0133", "a type belongs here, as float[T, 1] @ 16000", asserted.span)
                self.assert_type(name, made, parse_type(asserted.content))
        return made

    def assert_type(self, name: str, value: Value, written: TypeExpr) -> None:
        want = self.type(written)
        facts = self.elaborator.inference.facts
        same = len(want.dims) == len(value.type.dims) and all(
            facts.same(a, b) for a, b in zip(want.dims, value.type.dims, strict=True)
        )
        if not same or want.rate != value.type.rate or want.dtype.kind != value.type.dtype.kind:
            fail(
                "GS0315",
                f"'{name}' is declared {want} but is {value.type}",
                written.span,
                related=[Related("made here", value.span)],
            )

    def expression(self, node: Node, path: str) -> Any:
        with self.elaborator.entered(path):
            return self.elaborator.value(value_expression(node), self.scope)

    def terms(self, section: str) -> tuple[Term, ...]:
        out = []
        visible = dict(self.scope.names)
        entries = {e.key.text: e for e in self.entries(section)}
        expressions: dict[str, Expr] = {}

        def read(name: str, entry: Entry) -> None:
            expressions[name] = value_expression(entry.value)

        for name, entry in entries.items():
            self.attempt(None, read, name, entry)
        others = {n: e for n, e in expressions.items() if n not in visible}
        try:
            order = [*dataflow_order(others, "value"), *(n for n in expressions if n not in others)]
        except SpecError as error:
            self.findings.absorb(error)
            return ()
        for name in order:
            term = self.attempt(None, self.term, section, name, expressions[name], entries[name])
            if term is POISON:
                if name not in visible:
                    self.scope.names[name] = POISON
                continue
            out.append(term)
            if name not in visible:  # inside expressions a bare name is the input or value before the loss
                self.scope.names[name] = term.value
        return tuple(out)

    def entries(self, section: str) -> tuple[Entry, ...]:
        found = self.attempt(None, lambda: self.spec.entries(section))
        return () if found is POISON else found

    def term(self, section: str, name: str, expr: Expr, entry: Entry) -> Term:
        weight = 1.0
        check_name(name, entry.key.span)
        if isinstance(entry.value, Tree):
            for e in entry.value.entries:
                if e.key.text in ("mask", "when"):
                    fail("GS0190", f"'{e.key.text}' of a loss is not built yet", e.key.span)
                if e.key.text not in ("is", "weight", "doc"):
                    fail(
                        "GS0130",
                        f"a loss has no '{e.key.text}'{did_you_mean(e.key.text, ('is', 'weight', 'doc'))}",
                        e.key.span,
                    )
            given = entry.value.get("weight")
            weight = float(self.number(given)) if given is not None else 1.0
        if name in self.named and section == "losses":
            there = self.named[name]
            related = [Related("here", there.span)] if isinstance(there, Value) else []
            fail("GS0224", f"'{name}' is also a value of graph:", entry.key.span, related=related)
        with self.elaborator.entered(name if name not in self.scope.names else f"{section}_{name}"):
            value = self.elaborator.value(expr, self.scope)
        value = self.single(value, name, expr.span)
        if value.type.dtype.kind != "float" or value.type.meaning is not None:
            fail("GS0303", f"'{name}' is averaged and so must be float, not {value.type}", expr.span)
        return Term(name, value, weight, entry.key.span)

    def single(self, value: Any, name: str, span: Span) -> Value:
        if not isinstance(value, Value):
            fail("GS0217", f"'{name}' must be one value, not {describe(value)}", span)
        return value

    def outputs(self) -> dict[str, Value]:
        node = self.spec.section("outputs")
        if node is None:
            return {}
        out: dict[str, Value] = {}

        def add(name: str, item: Node) -> None:
            out[name] = self.single(self.expression(item, f"outputs_{name}"), name, item.span)

        if isinstance(node, Sequence):
            for item in node.items:
                text = item.text if isinstance(item, Scalar) else ""
                self.attempt(None, add, text, item)
        elif isinstance(node, Tree):
            for e in node.entries:
                self.attempt(None, add, e.key.text, e.value)
        else:
            self.attempt(None, lambda: fail("GS0133", "'outputs' is a list of values, as [dist]", node.span))
        return out

    def assertions(self) -> tuple[Assertion, ...]:
        out: list[Assertion] = []
        for entry in self.entries("causal"):
            made = self.attempt(None, self.assertion, entry)
            out += [] if made is POISON else made
        return tuple(out)

    def assertion(self, entry: Entry) -> list[Assertion]:
        name = entry.key.text
        value = self.single(self.lookup(name, entry.key.span), name, entry.key.span)
        if not value.type.timed:
            fail("GS0304", f"'{name}' is static; causality is about values along time", entry.key.span)
        timed = tuple(i.value for i in self.inputs.values() if i.value.type.timed)
        if isinstance(entry.value, Tree):
            out = []
            for e in entry.value.entries:
                source = self.single(self.lookup(e.key.text, e.key.span), e.key.text, e.key.span)
                if not source.type.timed:
                    fail("GS0304", f"'{e.key.text}' is static; causality is about values along time", e.key.span)
                out.append(Assertion(name, value, (source,), self.allowed(e.value), e.value.span))
            return out
        return [Assertion(name, value, timed, self.allowed(entry.value), entry.value.span)]

    def lookup(self, name: str, span: Span) -> Any:
        return self.elaborator.value(parse_expression(span), self.scope)

    def allowed(self, node: Node) -> str | int:
        if isinstance(node, Scalar) and node.text == "strict":
            return "strict"
        if isinstance(node, Scalar) and node.text.isidentifier() and node.text not in self.spec.home.params:
            fail("GS0406", f"write strict or a number of ticks, not '{node.text[:30]}'", node.span)
        if isinstance(node, Scalar):
            value = (
                node.value if is_number(node.value) else evaluate(parse_expression(node.content), self.spec.home.params)
            )
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
        fail("GS0406", "write strict, or the look-ahead allowed: a whole number of ticks", node.span)

    def feeds(self) -> tuple[Feed, ...]:
        node = self.spec.section("sample")
        if node is None:
            return ()
        out: list[Feed] = []

        def read() -> None:
            if not isinstance(node, Tree):
                fail("GS0133", "'sample' is a mapping with 'feed'", node.span)
            for e in node.entries:
                if e.key.text in ("from", "set", "iterate"):
                    fail("GS0190", f"'sample.{e.key.text}' is not built yet", e.key.span)
                if e.key.text not in ("feed", "to"):
                    fail(
                        "GS0130",
                        f"'sample' has no '{e.key.text}'{did_you_mean(e.key.text, ('feed', 'to'))}",
                        e.key.span,
                    )
            feed = node.get("feed")
            if not isinstance(feed, Tree):
                fail("GS0506", "'sample' needs 'feed: {input: draw(...)}'", node.span)
            for e in feed.entries:
                made = self.attempt(None, self.feed, e)
                out.extend([] if made is POISON else [made])
            self.check_to(node.get("to"), [e.key.text for e in feed.entries])

        self.attempt(None, read)
        return tuple(out)

    def check_to(self, node: Node | None, fed: list[str]) -> None:
        if node is None:
            return
        items = node.items if isinstance(node, Sequence) else (node,)
        for item in items:
            if not isinstance(item, Scalar) or item.text not in fed:
                fail("GS0190", "'sample.to' of anything but what is fed is not built yet", item.span)

    def feed(self, entry: Entry) -> Feed:
        name = entry.key.text
        if self.scope.names.get(name) is POISON:
            raise PoisonedError
        if name not in self.inputs:
            if name in self.named:
                fail("GS0190", f"feeding '{name}', which is not an input, is not built yet", entry.key.span)
            fail("GS0201", f"there is no input '{name}'{did_you_mean(name, self.inputs)}", entry.key.span)
        source = self.inputs[name].value
        with self.elaborator.entered("sample"):
            drawn = self.single(
                self.elaborator.value(value_expression(entry.value), self.scope), name, entry.value.span
            )
        facts = self.elaborator.inference.facts
        a, b = source.type, drawn.type
        shapes = len(a.dims) == len(b.dims) and all(facts.same(x, y) for x, y in zip(a.dims, b.dims, strict=True))
        if not shapes or a.rate != b.rate or a.dtype != b.dtype or b.meaning:
            fail(
                "GS0316",
                f"'{name}' is {a}, but what is fed is {b}",
                entry.value.span,
                related=[Related("declared here", source.span)],
            )
        return Feed(source, drawn, entry.value.span)


def _names(expr: Expr) -> list[Name]:
    from graphspec.expression import names

    return list(names(expr))
