"""A document as YAML text again: what a composed spec is written down as. Comments and layout are not kept."""

from __future__ import annotations

import json
from collections.abc import Iterator

from graphspec.document import Document, Entry, Node, Scalar, Sequence
from graphspec.yaml_scalars import OddNumber, resolve

MODELINE = "# yaml-language-server: $schema="


def yaml_text(document: Document) -> str:
    """The document as block-style YAML that reads back to the same tree. Ends in a line break."""
    return "\n".join(_lines(document.root.entries, "")) + "\n"


def _lines(entries: tuple[Entry, ...], indent: str) -> Iterator[str]:
    for e in entries:
        yield from _entry(f"{indent}{_key(e.key)}:", e.value, indent)


def _entry(head: str, node: Node, indent: str) -> Iterator[str]:
    if isinstance(node, Scalar):
        text = _scalar(node)
        yield f"{head} {text}" if text else head
    elif isinstance(node, Sequence):
        if not node.items:
            yield f"{head} []"
        else:
            yield head
            yield from _items(node, indent + "  ")
    elif not node.entries:
        yield f"{head} {{}}"
    else:
        yield head
        yield from _lines(node.entries, indent + "  ")


def _items(node: Sequence, indent: str) -> Iterator[str]:
    for item in node.items:
        if isinstance(item, Scalar):
            yield f"{indent}- {_scalar(item)}"
        elif isinstance(item, Sequence):
            yield f"{indent}- {_flow(item)}"
        else:
            yield f"{indent}-"
            yield from _lines(item.entries, indent + "  ")


def _flow(node: Node) -> str:
    """A list inside a list, on one line."""
    if isinstance(node, Sequence):
        return f"[{', '.join(_flow(i) for i in node.items)}]"
    if isinstance(node, Scalar):
        return _scalar(node)
    return "{" + ", ".join(f"{_key(e.key)}: {_flow(e.value)}" for e in node.entries) + "}"


def _key(key: Scalar) -> str:
    return key.text if key.plain and "\n" not in key.span.text else json.dumps(key.text)


def _scalar(node: Scalar) -> str:
    """Plain where it was plain and may be so anywhere; else in double quotes, on one line."""
    if not node.plain:
        return json.dumps(node.text)
    text = " ".join(node.span.text.split()) if "\n" in node.span.text else node.span.text
    safe = ": " not in text and " #" not in text and not text.endswith(":") and text[:1] not in "[{}]&*!|>'\"%@`,"
    try:
        same = resolve(text) == node.value or isinstance(node.value, str)
    except OddNumber:
        same = False
    return text if safe and same else json.dumps(text)
