"""Pass 2: the sections of a spec -> one typed Graph with its views. Every independent error is found in one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from graphspec.compiler import arithmetic
from graphspec.compiler.arithmetic import evaluate
from graphspec.compiler.cells import Cells, close_cells, declare_cells
from graphspec.compiler.context import Context
from graphspec.compiler.entries import read_entries, read_evaluation, views
from graphspec.compiler.inputs import read_facts, read_inputs, read_type
from graphspec.compiler.naming import unknown_calls
from graphspec.compiler.readings import typed
from graphspec.compiler.resolve import Files, Spec
from graphspec.compiler.stages import POISON, Chain, Instance, Scope
from graphspec.compiler.terms import read_assertions, read_outputs, read_terms
from graphspec.compiler.written import VALUE_KEYS, check_keys, check_name, sorted_by_dataflow, value_expression
from graphspec.declare import Catalogue
from graphspec.diagnostic import Diagnostic, Findings, Related, fail
from graphspec.document import Entry, Scalar
from graphspec.document import Mapping as Tree
from graphspec.expression import Call, Comprehension, Expr, IfElse, Name, Nothing, TypeExpr, names, parse_type
from graphspec.graph import Graph, Input, Value


def build(spec: Spec, catalogue: Catalogue, files: Files, findings: Findings) -> Graph:
    """The spec's graph. Errors go to `findings`; what depends on a broken value is left out, not reported again."""
    context = Context(spec, catalogue, findings)
    unknown = unknown_calls(spec, catalogue, files)
    findings.add(*unknown)
    context.elaborator.told = {d.span for d in unknown}
    read_inputs(context)
    context.elaborator.inference.facts = facts = read_facts(context)
    _shared(context)
    cells = declare_cells(context)
    _values(context, cells)
    close_cells(context, cells)
    losses = read_terms(context, "losses")
    metrics = read_terms(context, "metrics")
    outputs = read_outputs(context)
    assertions = read_assertions(context)
    outside_training = context.attempt(None, read_evaluation, context)
    outside_training = {} if outside_training is POISON else outside_training
    entries = read_entries(context, outside_training)
    if context.elaborator.steps is not None:
        context.inputs["step"] = Input(context.elaborator.steps, 0.0, True)
    sample = next((e for e in entries if e.name == "sample"), None)
    graph = Graph(
        name=spec.name,
        doc=spec.doc,
        inputs=context.inputs,
        values=tuple(context.elaborator.values),
        named=context.named,
        facts=facts,
        losses=losses,
        metrics=metrics,
        outputs=outputs,
        assertions=assertions,
        feeds=tuple(sample.feeds) if sample else (),
        params=spec.home.params,
        backs=context.elaborator.backs,
    )
    graph = replace(graph, cached=dict(_cached(context, graph)))
    other, made = views(context, graph, outside_training, entries)
    findings.revise(typed(context))
    return replace(graph, entries=made, evaluation=other)


# ---- shared ----------------------------------------------------------------------------------------------------------


def _shared(context: Context) -> None:
    for entry in context.entries("shared"):
        made = context.attempt(entry.key.text, _instances, context, entry)
        if made is not POISON:
            context.spec.home.shared[entry.key.text] = made


def _instances(context: Context, entry: Entry) -> Any:
    """One instance, or a list of them: `tables: list(embed(dim) for i in range(n_q))`."""
    name = entry.key.text
    check_name(name, entry.key.span)
    for taken, what in (
        (context.inputs, "an input"),
        (context.spec.home.params, "a param"),
        (context.symbols, "a size"),
    ):
        if name in taken:
            fail("GS0224", f"'{name}' is already {what}", entry.key.span)
    if not (isinstance(entry.value, Tree) and entry.value.get("op") is not None):
        check_keys(entry.value, ("is", "doc", "freeze"), "an instance")
    frozen = entry.value.get("freeze") if isinstance(entry.value, Tree) else None
    if frozen is not None and not (isinstance(frozen, Scalar) and isinstance(frozen.value, bool)):
        fail("GS0133", "'freeze' is true or false", frozen.span)
    keeps = isinstance(frozen, Scalar) and frozen.value is True
    expr = value_expression(entry.value)
    scope, elaborator = Scope(context.spec.home), context.elaborator
    if isinstance(expr, Call) and isinstance(expr.function, Name) and expr.function.name == "list":
        each: list[Any] = []
        for a in expr.arguments:
            each += (
                elaborator.unrolled(a, scope, elaborator.stage)
                if isinstance(a, Comprehension)
                else [elaborator.stage(a.value, scope)]
            )
        return tuple(Instance(f"{name}.{i}", _unchained(s), entry.key.span, frozen=keeps) for i, s in enumerate(each))
    return Instance(name, _unchained(elaborator.stage(expr, scope)), entry.key.span, frozen=keeps)


def _unchained(stage: Any) -> Any:
    return stage.stages[0] if isinstance(stage, Chain) and len(stage.stages) == 1 else stage


def _cached(context: Context, graph: Graph) -> Iterator[tuple[str, Value]]:
    """The features that are computed once. What changes while a model is trained cannot be."""
    for name, span in context.cached.items():
        value = context.named.get(name)
        if not isinstance(value, Value):
            continue
        for v in graph.needed_for([value]):
            why = ""
            if v.op is not None and v.op.weights:
                why = "has weights, which training changes"
            elif v.noise is not None:
                why = "is random"
            elif v.is_input and not v.type.timed:
                why = "is given anew each time"
            if why:
                told = f"'{name}' cannot be computed once: {v.path} {why}"
                context.findings.add(Diagnostic("GS0527", told, span, related=(Related(str(v), v.span),)))
                break
        else:
            yield name, value


# ---- graph -----------------------------------------------------------------------------------------------------------


def _values(context: Context, cells: Cells) -> None:
    """The values of `graph:` and the features among the inputs, in an order in which what is read comes first."""
    entries: dict[str, Entry] = {}
    expressions: dict[str, Expr] = {}
    for name, entry in context.features.items():
        assert isinstance(entry.value, Tree)
        default = entry.value.get("default")
        assert default is not None
        entries[name], expressions[name] = entry, value_expression(default)
    for entry in context.entries("graph"):
        entries.setdefault(entry.key.text, entry)
        context.attempt(entry.key.text, _read, context, entry, expressions)
    expressions |= cells.readings
    order = sorted_by_dataflow(expressions, "value")
    context.findings.add(*order.faults)
    for name in order.circular:
        context.scope.names[name] = POISON

    def make(name: str) -> Any:
        if name in entries:
            return _value(context, name, order.expressions[name], entries[name])
        if name in cells.of:
            return cells.read(context, name, order.expressions[name])
        with context.elaborator.entered(name.replace(".", "_")):  # history inside a loop that was given a name
            return context.elaborator.value(order.expressions[name], context.scope)

    for name in order.names:
        members = order.loops.get(name, (name,))
        if name in order.loops:
            done = context.attempt(None, context.elaborator.loop, members, order.expressions, context.scope, make)
            if done is POISON:
                context.scope.names |= dict.fromkeys(members, POISON)
        else:
            made = context.attempt(name, make, name)
            if made is not POISON:
                context.scope.names[name] = made
        for member in members:
            made = context.scope.names.get(member, POISON)
            if made is None:
                context.absent.add(member)
            elif made is not POISON and member in entries:
                context.named[member] = made


def _read(context: Context, entry: Entry, expressions: dict[str, Expr]) -> None:
    name, span = entry.key.text, entry.key.span
    check_name(name, span)
    home = context.spec.home
    if name in context.symbols:
        fail("GS0224", f"'{name}' is the name of a size", span)
    if name in context.inputs or name in context.features or name in context.absent or name in home.param_spans:
        there = "a param" if name in home.param_spans else "an input"
        where = home.param_spans.get(name) or context.scope.spans[name]
        fail("GS0224", f"'{name}' is already {there}", span, related=[Related("here", where)])
    if name in home.shared or name in context.cells:
        fail("GS0224", f"'{name}' is already {'a cell' if name in context.cells else 'one of shared:'}", span)
    expr = value_expression(entry.value)
    if isinstance(expr, IfElse) and isinstance(expr.otherwise, Nothing) and isinstance(entry.value, Tree):
        known = all(n.name in home.params for n in names(expr.condition))
        if known and not arithmetic.truth(evaluate(expr.condition, home.params), expr.condition.span):
            expr = expr.otherwise  # `when` does not hold: what it would read, a loop for one, is not there either
    expressions[name] = expr


def _value(context: Context, name: str, expr: Expr, entry: Entry) -> Any:
    node = entry.value
    tree = node if isinstance(node, Tree) else Tree((), node.span)
    if name not in context.features and tree.get("op") is None:
        check_keys(node, VALUE_KEYS, "a value")
    frozen, precision = tree.get("freeze"), tree.get("dtype")
    if frozen is not None and not (isinstance(frozen, Scalar) and isinstance(frozen.value, bool)):
        fail("GS0133", "'freeze' is true or false", frozen.span)
    if precision is not None and not (isinstance(precision, Scalar) and precision.text in ("f32", "any")):
        fail("GS0222", "'dtype' of a value is f32 (computed in float32 always), or any", precision.span)
    keeps = isinstance(frozen, Scalar) and frozen.value is True
    wide = precision.text if isinstance(precision, Scalar) and precision.text == "f32" else ""
    with context.elaborator.entered(name), context.elaborator.treated(keeps, wide):
        made = context.elaborator.value(expr, context.scope)
    asserted = tree.get("type")
    if asserted is not None and isinstance(made, Value):
        if not isinstance(asserted, Scalar):
            fail("GS0133", "a type belongs here, as float[T, 1] @ 16000", asserted.span)
        _assert_type(context, name, made, parse_type(asserted.content))
    return made


def _assert_type(context: Context, name: str, value: Value, written: TypeExpr) -> None:
    want = read_type(context, written)
    facts = context.elaborator.inference.facts
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
