"""A document as YAML text again: what a composed spec is written down as. Comments and layout are not kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from graphspec.document import Document, Entry, Node, Scalar, Sequence
from graphspec.yaml_scalars import OddNumber, resolve

MODELINE = "# yaml-language-server: $schema="

_ODD = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_BARE = re.compile(r"[A-Za-z_][\w.-]*\Z", re.ASCII)  # a key that is a plain scalar anywhere
_WORD = re.compile(r"[\w.+*/ -]*[\w.]\Z", re.ASCII)
_MARKED = re.compile(r"[-?:](\s|\Z)|---|\.\.\.|[\[{}\]&*!|>'\"%@`,#]")  # what YAML takes for more than a scalar


def yaml_text(document: Document) -> str:
    """The document as block-style YAML that reads back to the same tree. Ends in a line break."""
    return "\n".join(_lines(document.root.entries, "")) + "\n"


def _lines(entries: tuple[Entry, ...], indent: str) -> Iterator[str]:
    for e in entries:
        yield from _entry(f"{indent}{_key(e.key)}:", e.value, indent)


def _entry(head: str, node: Node, indent: str) -> Iterator[str]:
    if isinstance(node, Scalar):
        text = _scalar(node, indent)
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
            yield f"{indent}- {_scalar(item, indent)}".rstrip(" ")
        elif isinstance(item, Sequence):
            row = _row(item)
            yield f"{indent}- {row}".rstrip(" ")
            yield from () if row else _items(item, indent + "  ")
        elif not item.entries:
            yield f"{indent}- {{}}"
        else:
            yield f"{indent}-"
            yield from _lines(item.entries, indent + "  ")


def _row(node: Sequence) -> str:
    """A list inside a list on one line, if it holds only plain words and numbers."""
    if all(isinstance(i, Scalar) and i.plain and _WORD.match(i.span.text) for i in node.items):
        return f"[{', '.join(i.span.text for i in node.items if isinstance(i, Scalar))}]"
    return ""


def _key(key: Scalar) -> str:
    written = key.span.text
    plain = key.plain and (_BARE.match(key.text) or (written == key.text and not _MARKED.match(written)))
    return key.text if plain else _quoted(key.text)


def _scalar(node: Scalar, indent: str | None) -> str:
    """Plain where it was plain and may be so anywhere; else quoted so that the text stands there as it is.

    indent: of the entry it is the value of; none where only one line will do.
    """
    if node.plain and node.value is None:
        return node.span.text
    if not node.plain:
        return _literal(node.text, indent) or _quoted(node.text)
    # What spans lines is folded; an empty line is a line break to YAML, and white space to an expression.
    text = " ".join(node.text.split()) if "\n" in node.text else node.span.text
    if "\n" in text:
        text = node.text
    safe = not _MARKED.match(text) and ": " not in text and " #" not in text and not text.endswith(":")
    try:
        same = resolve(text) == node.value or isinstance(node.value, str)
    except OddNumber:
        same = False
    return text if safe and same else _quoted(text)


def _quoted(text: str) -> str:
    """In the quotes that need no escapes, for an expression is read between them as it stands; else in double ones."""
    if '"' in text or "\\" in text:
        if "'" not in text and text.isprintable():
            return f"'{text}'"
    return _ODD.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(text, ensure_ascii=False))


def _literal(text: str, indent: str | None) -> str:
    """`|` and the lines below it, for what no quotes can hold as it stands. Nothing where that is not so."""
    held = _quoted(text)
    if indent is None or "\\" not in held or held[0] == "'":
        return ""
    body = text[:-1] if text.endswith("\n") else text
    lines = body.split("\n")
    plain = all(line.isprintable() and line == line.rstrip() for line in lines) and not _ODD.search(text)
    if not plain or not lines[0] or lines[0][0] == " " or not lines[-1]:
        return ""
    below = "\n".join(f"{indent}  {line}" if line else "" for line in lines)
    return f"|{'' if text.endswith(chr(10)) else '-'}\n{below}"
