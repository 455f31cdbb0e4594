"""`eval`, `entries` and `sample`: other ways through the one graph (LANGUAGE 10).

`from` cuts values, `set` replaces them, `feed` closes a loop over one, `to` is what comes out. `eval:` is a `set` that
holds outside training, in every entry; an entry's own `set` wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphspec.compiler.arithmetic import is_number
from graphspec.compiler.context import Context
from graphspec.compiler.stages import POISON, PoisonedError
from graphspec.compiler.terms import read_targets
from graphspec.compiler.views import Swap, cut, evaluation, view
from graphspec.compiler.written import check_keys, check_name, value_expression
from graphspec.diagnostic import Diagnostic, Fix, Related, fail
from graphspec.document import Entry, Node, Scalar, Sequence
from graphspec.document import Mapping as Tree
from graphspec.graph import Constant, Feed, Graph, Value
from graphspec.span import Span
from graphspec.types import FLOAT, Type

KEYS = ("from", "set", "feed", "iterate", "to", "when", "doc")


@dataclass
class Parts:
    """An entry as read; `given` may be asked for from outside."""

    name: str
    span: Span
    given: list[Value] = field(default_factory=list)
    swaps: dict[Value, Swap] = field(default_factory=dict)
    feeds: list[Feed] = field(default_factory=list)
    targets: dict[str, Value] = field(default_factory=dict)


def read_evaluation(context: Context) -> dict[Value, Swap]:
    """`eval:`, the replacements that hold outside training."""
    return _replacements(context, context.spec.section("eval"), "eval")


def read_entries(context: Context, outside_training: dict[Value, Swap]) -> list[Parts]:
    """`sample:` and `entries:`. An error in one leaves the others."""
    found = []
    sample = context.spec.section("sample")
    key = context.spec.document.root.key("sample")
    written = [Entry(key, sample)] if sample is not None and key is not None else []
    others = context.entries("entries")
    for entry in others if written else ():
        if entry.key.text == "sample":
            twice = Diagnostic("GS0224", "'sample' is a section already", entry.key.span, related=_here(written[0]))
            context.findings.add(twice)
    for entry in (*written, *others):
        made = context.attempt(None, _entry, context, entry, outside_training)
        if made is not POISON and made is not None:
            found.append(made)
    return found


def _here(entry: Entry) -> tuple[Related, ...]:
    return (Related("here", entry.key.span),)


def _entry(context: Context, entry: Entry, outside_training: dict[Value, Swap]) -> Parts | None:
    name, node = entry.key.text, entry.value
    if name != "sample":
        check_name(name, entry.key.span)
    if not isinstance(node, Tree):
        fail("GS0133", f"'{name}' is a mapping with from, set, feed and to", node.span)
    check_keys(node, KEYS, f"'{name}'")
    when = node.get("when")
    if when is not None and not context.elaborator.value(value_expression(when), context.scope):
        return None
    if node.get("iterate") is not None:
        fail("GS0190", "'iterate' is not built yet", node.key("iterate").span)  # type: ignore[union-attr]
    parts = Parts(name, entry.key.span, swaps=dict(outside_training))
    broken = context.attempt(None, _cuts, context, parts, node.get("from")) is POISON
    own = context.attempt(None, _replacements, context, node.get("set"), name)
    feed = node.get("feed")
    if feed is None and node.get("from") is None:
        fail("GS0506", f"'{name}' needs 'from: [...]', or 'feed: {{value: draw(...)}}'", node.span)
    if feed is not None:
        broken |= context.attempt(None, _feeds, context, parts, feed) is POISON
    if broken or own is POISON:
        raise PoisonedError
    for value, swap in own.items():
        other = parts.swaps.get(value)
        if other is not None and other.cut:
            fail(
                "GS0523",
                f"'{swap.name}' is set, but it is also fed or given",
                swap.span,
                related=[Related("here", other.span)],
            )
        parts.swaps[value] = swap
    to = node.get("to")
    fed = {parts.swaps[f.source].by.path: f.source for f in parts.feeds}  # type: ignore[union-attr]
    parts.targets = read_targets(context, to, name) if to is not None else fed
    empty = isinstance(to, Sequence) and not to.items or isinstance(to, Tree) and not to.entries
    if to is not None and not empty and not parts.targets:
        raise PoisonedError  # none of them is right, or there
    if not parts.targets:
        at = node.span if to is None else to.span
        fail("GS0524", f"'{name}' does not say what comes out", at, notes=["write to: [value]"])
    return parts


def _target(context: Context, name: str, span: Span, what: str) -> Value | None:
    """The value or record field that an entry cuts, sets or feeds. None where it is not there by `when`."""
    if name in context.absent:
        return None
    found = context.lookup(name, span)
    if found is None:
        return None
    if not isinstance(found, Value):
        fail("GS0521", f"'{name}' cannot be {what}: it is no single value", span)
    return found


def _cuts(context: Context, parts: Parts, node: Node | None) -> None:
    if node is None:
        return
    if not isinstance(node, Sequence):
        fail("GS0133", "'from' is a list of values, as [codes]", node.span)
    for item in node.items:
        if not isinstance(item, Scalar):
            fail("GS0133", "'from' is a list of values, as [codes]", item.span)
        value = _target(context, item.text, item.span, "given")
        if value is None:
            continue
        parts.given.append(value)
        parts.swaps[value] = Swap(cut(value, item.text), item.span, cut=True)


def _replacements(context: Context, node: Node | None, name: str) -> dict[Value, Swap]:
    """`{value: expression}` with equal types."""
    if node is None or (isinstance(node, Scalar) and node.value is None):
        return {}
    if not isinstance(node, Tree):
        fail("GS0133", "values and what they are set to belong here, as {tau: 0.1}", node.span)
    found: dict[Value, Swap] = {}
    for e in node.entries:
        context.attempt(None, _replacement, context, e, name, found)
    return found


def _replacement(context: Context, e: Entry, name: str, found: dict[Value, Swap]) -> None:
    target = _target(context, e.key.text, e.key.span, "set")
    if target is None:
        return
    with context.elaborator.entered(f"{name}_{e.key.text.replace('.', '_')}"):
        made = context.elaborator.value(value_expression(e.value), context.scope)
    if is_number(made):
        made = Constant(made, Type(FLOAT))
        if target.type.dims:
            fail("GS0522", f"'{e.key.text}' is {target.type}; one number cannot stand for it", e.value.span)
        if target.type.dtype.kind == "int" and not isinstance(made.value, int):
            fail("GS0522", f"'{e.key.text}' is {target.type}; {made.value} cannot stand for it", e.value.span)
    else:
        made = context.single(made, e.key.text, e.value.span)
        _same_type(context, e.key.text, target, made, e.value.span, "GS0522", "set to")
    found[target] = Swap(made, e.value.span, name=e.key.text)


def _same_type(context: Context, name: str, a: Value, b: Value, span: Span, code: str, what: str) -> None:
    facts = context.elaborator.inference.facts
    x, y = a.type, b.type
    shapes = len(x.dims) == len(y.dims) and all(facts.same(i, j) for i, j in zip(x.dims, y.dims, strict=True))
    ranges = x.dtype.kind == y.dtype.kind and x.dtype.classes in (None, y.dtype.classes)
    if not shapes or x.rate != y.rate or not ranges or x.meaning != y.meaning:
        fail(code, f"'{name}' is {x}, but what is {what} it is {y}", span, related=[Related("made here", a.span)])


def _feeds(context: Context, parts: Parts, node: Node) -> None:
    if not isinstance(node, Tree) or not node.entries:
        fail("GS0506", f"'{parts.name}' needs 'feed: {{value: draw(...)}}'", node.span)
    for e in node.entries:
        value = _target(context, e.key.text, e.key.span, "fed")
        if value is None:
            continue
        with context.elaborator.entered(parts.name):
            drawn = context.single(
                context.elaborator.value(value_expression(e.value), context.scope), e.key.text, e.value.span
            )
        _same_type(context, e.key.text, value, drawn, e.value.span, "GS0316", "fed to")
        if not value.type.timed:
            fail("GS0190", f"feeding '{e.key.text}', which has no time, is not built yet", e.key.span)
        other = parts.swaps.get(value)
        if other is not None:
            fail(
                "GS0523",
                f"'{e.key.text}' is fed, but it is also set or given",
                e.key.span,
                related=[Related("here", other.span)],
            )
        parts.swaps[value] = Swap(cut(value, e.key.text), e.key.span, cut=True)
        parts.feeds.append(Feed(value, drawn, e.value.span))


# ---- the views -----------------------------------------------------------------------------------------------------


def views(
    context: Context, graph: Graph, outside: dict[Value, Swap], entries: list[Parts]
) -> tuple[Any, dict[str, Graph]]:
    """(the graph outside training, or none where it is the same; the entries by name)."""
    other = context.attempt(None, evaluation, graph, outside) if outside else None
    made: dict[str, Graph] = {}
    trained = _weights(graph.needed_for([*graph.targets().values(), *_leaves(graph.named)]))
    if isinstance(other, Graph):
        context.attempt(None, _no_weights_of_its_own, other, "eval", trained)
    for parts in entries:
        found = context.attempt(None, view, graph, parts.name, parts.swaps, parts.targets, parts.feeds)
        if found is not POISON:
            context.attempt(None, _closed, context, parts, found)
            context.attempt(None, _no_weights_of_its_own, found, parts.name, trained)
            made[parts.name] = found
    return (None if other is POISON else other), made


def _leaves(made: Any) -> list[Value]:
    """The values in what `graph:` names, records and lists looked into."""
    if isinstance(made, Value):
        return [made]
    inside = made.values() if isinstance(made, Mapping) else made if isinstance(made, tuple) else ()
    return [v for part in inside for v in _leaves(part)]


def _weights(values: Iterable[Value]) -> dict[str, Value]:
    """Where these values have weights -> the first that has them there."""
    learn = [v for v in values if v.op and v.op.weights and not v.op.of and v.arguments.get("affine") is not False]
    return {v.weights_path: v for v in reversed(learn)}


def _no_weights_of_its_own(seen: Graph, name: str, trained: dict[str, Value]) -> None:
    """A view uses the graph's weights: no loss would ever reach others."""
    for path, v in _weights(seen.values).items():
        if path not in trained:
            fail(
                "GS0519",
                f"nothing trains the weights of '{path}': only '{name}' uses them",
                v.span,
                fixes=[Fix("use it in the graph, too; what both use belongs under shared:")],
            )


def _closed(context: Context, parts: Parts, entry: Graph) -> None:
    """An entry asks for nothing but what it names, and knobs."""
    named = {s.by for s in parts.swaps.values() if s.cut}
    for name, given in entry.inputs.items():
        if given.value in named or given.optional or name == "step":
            continue
        path = _path_to(entry, given.value)
        fail(
            "GS0520",
            f"'{parts.name}' also needs '{name}': {' -> '.join(path)}",
            parts.span,
            related=[Related(str(given.value), given.value.span)],
            notes=[f"name it in from:, or set a value on the way ({', '.join(path[1:4])})"],
        )


def _path_to(entry: Graph, source: Value) -> list[str]:
    """The values on a shortest way from an input to what the entry computes."""
    targets = [*entry.outputs.values(), *(f.drawn for f in entry.feeds)]
    came: dict[Value, Value | None] = dict.fromkeys(targets)
    queue = list(came)
    for v in queue:
        if v is source:
            break
        for o in v.values():
            if o not in came:
                came[o] = v
                queue.append(o)
    path: list[str] = []
    at: Value | None = source
    while at is not None:
        name = at.path.split(".")[0]
        if not path or path[-1] != name:
            path.append(name)
        at = came.get(at)
    return path if len(path) <= 12 else [*path[:6], "...", *path[-5:]]
