"""What the command line says of a spec: `d=128` is a param, `train.batch=8` the entry at a dotted path."""

from __future__ import annotations

from graphspec.diagnostic import Fix, did_you_mean, fail
from graphspec.document import Document, Entry, Node, Scalar
from graphspec.document import Mapping as Tree
from graphspec.span import Source, Span
from graphspec.yaml_scalars import OddNumber
from graphspec.yaml_scalars import resolve as resolve_scalar

MAX_PATH = 32  # parts of a dotted path


def split(text: str) -> tuple[str, Source]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        fail("GS0215", f"'{text[:60]}' is not NAME=VALUE", whole(Source("<command line>", text)))
    return name.strip(), Source(f"<command line> {name.strip()}=", value)


def whole(source: Source) -> Span:
    return Span(source, 0, len(source.text))


def replaced(document: Document, path: str, source: Source) -> Document:
    """The document with the entry at a dotted path replaced (or, in `train` and `data`, added)."""
    keys = path.split(".")
    present = [e.key.text for e in document.root.entries]
    if keys[0] not in present and keys[0] not in ("train", "data", "sample"):
        fail("GS0210", f"there is no '{keys[0]}' to change{did_you_mean(keys[0], present)}", whole(source))
    span = whole(source)
    try:
        new = Scalar(source.text, span, resolve_scalar(source.text), True, span)
    except OddNumber as odd:
        fail(odd.code, odd.message, span, fixes=[Fix(f"write {w}") for w in odd.write])
    if len(keys) > MAX_PATH:
        fail("GS0215", f"the path has {len(keys)} parts; the limit is {MAX_PATH}", span)
    free = keys[0] in ("train", "data", "sample")  # their own checks know what may be added

    def walk(node: Node | None, rest: list[str], at: Span) -> Node:
        if not rest:
            return new
        key = rest[0]
        if node is not None and not isinstance(node, Tree):
            fail("GS0210", f"'{path}' leads nowhere: what '{key}' would be a part of is not a mapping", span)
        tree = node if node is not None else Tree((), at)
        if not free and tree.get(key) is None:
            known = [e.key.text for e in tree.entries]
            fail("GS0210", f"'{path}' leads nowhere: there is no '{key}'{did_you_mean(key, known)}", span)
        entries = list(tree.entries)
        for i, e in enumerate(entries):
            if e.key.text == key:
                entries[i] = Entry(e.key, walk(e.value, rest[1:], e.value.span))
                break
        else:
            name = Scalar(key, whole(source), key, True, whole(source))
            entries.append(Entry(name, walk(None, rest[1:], whole(source))))
        return Tree(tuple(entries), tree.span)

    root = walk(document.root, keys, document.root.span)
    assert isinstance(root, Tree)
    return Document(document.source, root)
