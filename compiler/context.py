"""What the readers of a spec's sections share: names in scope, values made so far, errors kept apart by poison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphspec.compiler.arithmetic import describe, evaluate, is_number
from graphspec.compiler.elaborate import Elaborator
from graphspec.compiler.infer import Inference
from graphspec.compiler.resolve import Spec
from graphspec.compiler.stages import POISON, PoisonedError, Scope
from graphspec.compiler.written import value_expression
from graphspec.declare import Catalogue
from graphspec.diagnostic import Findings, SpecError, fail
from graphspec.dims import Dim
from graphspec.document import Entry, Node, Scalar
from graphspec.expression import Attribute, Expr, Name, parse_expression
from graphspec.graph import Input, Value
from graphspec.span import Span


class Context:
    """One spec being built. `named` holds the values of `graph:`, `inputs` what comes from outside."""

    def __init__(self, spec: Spec, catalogue: Catalogue, findings: Findings):
        self.spec, self.findings = spec, findings
        self.scope = Scope(spec.home)
        self.elaborator = Elaborator(Inference(catalogue))
        self.symbols: dict[str, Dim] = {}
        self.inputs: dict[str, Input] = {}
        self.features: dict[str, Entry] = {}  # inputs that are computed unless given
        self.cached: dict[str, Span] = {}  # those of them that are computed once with the data
        self.absent: set[str] = set()  # inputs that are not there: removed by `when`, or not given
        self.cells: set[str] = set()
        self.named: dict[str, Any] = {}
        self.broken = False  # an input's type was refused: names may be missing that are not the reader's fault

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

    def entries(self, section: str) -> tuple[Entry, ...]:
        found = self.attempt(None, lambda: self.spec.entries(section))
        return () if found is POISON else found

    def expression(self, node: Node, path: str) -> Any:
        with self.elaborator.entered(path):
            return self.elaborator.value(value_expression(node), self.scope)

    def single(self, value: Any, name: str, span: Span) -> Value:
        if not isinstance(value, Value):
            fail("GS0217", f"'{name}' must be one value, not {describe(value)}", span)
        return value

    def lookup(self, name: str, span: Span) -> Any:
        """The value, or field of a record (`cb.out`), of that name, written at a place."""
        first, *fields = name.split(".")
        expr: Expr = Name(span, False, first)
        for field in fields:
            expr = Attribute(span, False, expr, field, span)
        return self.elaborator.value(expr, self.scope)

    def number(self, node: Node) -> int | float:
        if not isinstance(node, Scalar):
            fail("GS0133", "a number belongs here", node.span)
        value: Any = node.value
        if not is_number(value):
            value = evaluate(parse_expression(node.content), self.spec.home.params)
        if not is_number(value):
            fail("GS0133", f"a number belongs here, not {describe(value)}", node.span)
        return value
