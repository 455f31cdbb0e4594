"""Values of a graph by the names a person uses for them: to write down while training, and to draw."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from graphspec.diagnostic import did_you_mean, fail
from graphspec.document import Node, Scalar, Sequence
from graphspec.graph import Graph, Value
from graphspec.span import Span


def taps(graph: Graph, name: str) -> dict[str, Value]:
    """What `name` stands for, by name; empty if it stands for nothing.

    name: of `graph:`, an input, an output, or the path of any value. A record or a list is its parts (`controls.amps`).
    """
    found = dict(_parts(name, graph.named.get(name)))
    if not found and name in graph.inputs:
        found = {name: graph.inputs[name].value}
    if not found and name in graph.outputs:
        found = {name: graph.outputs[name]}
    head, _, rest = name.partition(".")
    if not found and rest:
        whole = dict(_parts(head, graph.named.get(head)))
        found = {n: v for n, v in whole.items() if n == name or n.startswith(f"{name}.")}
    return found or {v.path: v for v in graph.values if v.path == name}


def known(graph: Graph) -> list[str]:
    """The names that `taps` knows, without the paths of values that have no name."""
    named = [n for n, entry in graph.named.items() if dict(_parts(n, entry))]
    return list(dict.fromkeys([*named, *graph.inputs, *graph.outputs]))


def checked(graph: Graph, name: str, span: Span | None) -> dict[str, Value]:
    """`taps`, where there must be some. Raises GS0690."""
    found = taps(graph, name)
    if not found:
        names = known(graph)
        told = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        fail(
            "GS0690", f"there is no value '{name[:60]}'{did_you_mean(name, names)}", span, notes=[f"there are: {told}"]
        )
    return found


def read_names(node: Node, graph: Graph, written: Set[str]) -> list[str]:
    """`train.dump`: a list of names, or names with commas between them, each checked at its place.

    written: names that stand in `graph:`; one without a value was refused, or is left out by its `when`.
    """
    if isinstance(node, Sequence):
        places = [(n, n.content) for n in node.items if isinstance(n, Scalar)]
        if len(places) < len(node.items):
            fail("GS0133", "a list of names belongs here, as [amps, noise]", node.span)
        words = [(n.text.strip(), span) for n, span in places]
    elif isinstance(node, Scalar) and node.value is not None:
        words = list(_words(node))
    else:
        fail("GS0133", "a list of names belongs here, as [amps, noise]", node.span)
    for name, span in words:
        if name.partition(".")[0] not in written or graph.named.get(name.partition(".")[0]) is not None:
            checked(graph, name, span)
    return list(dict.fromkeys(name for name, _ in words))


def _words(node: Scalar) -> Iterator[tuple[str, Span]]:
    """Names with commas between them, in brackets or not: the command line hands a list over as text."""
    text, start = node.content.text, node.content.start
    if text.startswith("[") and text.endswith("]"):
        text, start = text[1:-1], start + 1
    if not text.strip():
        return
    for word in text.split(","):
        name = word.strip()
        at = start + len(word) - len(word.lstrip())
        yield name, Span(node.content.source, at, at + len(name))
        start += len(word) + 1


def _parts(name: str, entry: Any) -> Iterator[tuple[str, Value]]:
    if isinstance(entry, Value):
        yield name, entry
    elif isinstance(entry, dict):
        for key, part in entry.items():
            yield from _parts(f"{name}.{key}", part)
    elif isinstance(entry, (list, tuple)):
        for i, part in enumerate(entry):
            yield from _parts(f"{name}.{i}", part)
