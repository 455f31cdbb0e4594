"""What the command line says of a spec: `d=128` is a param, `train.batch=8` the entry at a dotted path."""

from __future__ import annotations

from graphspec.compiler import edits
from graphspec.diagnostic import Fix, did_you_mean, fail
from graphspec.document import Document, Scalar
from graphspec.span import Source, Span
from graphspec.yaml_scalars import OddNumber
from graphspec.yaml_scalars import resolve as resolve_scalar

FREE = ("train", "data", "sample")


def split(text: str) -> tuple[str, Source]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        fail("GS0215", f"'{text[:60]}' is not NAME=VALUE", whole(Source("<command line>", text)))
    return name.strip(), Source(f"<command line> {name.strip()}=", value)


def whole(source: Source) -> Span:
    return Span(source, 0, len(source.text))


def replaced(document: Document, path: str, source: Source) -> Document:
    """The document with the entry at a dotted path replaced (or, in `train`, `data` and `sample`, added)."""
    span = whole(source)
    keys = edits.parts(path, span, "GS0215")
    present = [e.key.text for e in document.root.entries]
    if keys[0] not in present and keys[0] not in FREE:
        fail("GS0210", f"there is no '{keys[0]}' to change{did_you_mean(keys[0], present)}", span)
    try:
        new = Scalar(source.text, span, resolve_scalar(source.text), True, span)
    except OddNumber as odd:
        fail(odd.code, odd.message, span, fixes=[Fix(f"write {w}") for w in odd.write])
    if keys[0] in FREE and edits.find(document.root, path) is None:  # their own checks know what may be added
        root = edits.added(document.root, path, Scalar(path, span, path, True, span), new, "GS0210", "is there")
    else:
        root = edits.changed(document.root, path, span, "GS0210", lambda _: new)
    return Document(document.source, root)
