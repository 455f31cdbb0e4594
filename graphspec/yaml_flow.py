"""The trap of flow collections: YAML cuts `{is: nll(dist, wave), weight: 2}` at its first comma, without a word.

Inside `{}` and `[]` a plain scalar ends at every `,` and bracket, also inside the parentheses of an expression. Here
such a collection is read again the way it was meant, with brackets that pair up, to name the expression and mend it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphspec.diagnostic import Diagnostic, Edit, Fix
from graphspec.excerpt import shown
from graphspec.span import Source, Span

_PAIRS = {"(": ")", "[": "]", "{": "}"}
_COLON = re.compile(r":(?=[\s,\[\]{}]|\Z)")


@dataclass(frozen=True)
class Piece:
    """What stands between two commas that belong to the collection: `key: value` in `{}`, `value` in `[]`."""

    key: tuple[int, int] | None
    value: tuple[int, int]


@dataclass(frozen=True)
class Intended:
    """A flow collection as it was meant: source[start:end] from bracket to bracket."""

    start: int
    end: int
    pieces: tuple[Piece, ...]


def unpaired(text: str) -> bool:
    """Whether the parentheses of a flow scalar do not pair up: it was cut inside a call."""
    depth = 0
    for char in text:
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth < 0:
                return True
    return depth != 0


def intended(text: str, start: int) -> Intended | None:
    """The collection that opens at text[start], read with paired brackets; None if it does not close."""
    stack: list[str] = []
    cuts = [start]
    i, end = start, len(text)
    indent = _indent(text, start)
    while i < end:
        char = text[i]
        if char in _PAIRS:
            stack.append(_PAIRS[char])
        elif char in ")]}":
            if not stack or stack.pop() != char:
                return None
            if not stack:
                cuts.append(i)
                break
        elif char == "," and len(stack) == 1:
            cuts.append(i)
        elif char in "'\"" and not text[i - 1].isalnum():
            i = _string_end(text, i)
        elif char == "#" and text[i - 1].isspace():
            i = text.find("\n", i)
            if i < 0:
                return None
            continue
        elif char == "\n" and _leaves(text, i + 1, indent):
            return None
        i += 1
    else:
        return None
    pieces = []
    for before, after in zip(cuts, cuts[1:], strict=False):
        first, last = _trim(text, before + 1, after)
        if first < last:
            pieces.append(_piece(text, first, last))
    return Intended(start, cuts[-1] + 1, tuple(pieces))


def cut_places(text: str, found: Intended) -> list[tuple[int, int]]:
    """The stretches of the expressions that YAML would cut."""
    return [piece.value for piece in found.pieces if _is_cut(text[slice(*piece.value)])]


def trap(source: Source, found: Intended, cut: list[tuple[int, int]], key_column: int | None) -> Diagnostic:
    """GS0104 for a collection that holds expressions YAML would cut (`cut_places`, at least one).

    `key_column` (1-based) is where the block key stands whose value the collection is, if that is what it is.
    """
    text = source.text[slice(*cut[0])]
    opener = source.text[found.start]
    kind = "{}" if opener == "{" else "[]"
    fixes = []
    block = _as_block(source, found, key_column)
    if block:
        each = "`key: value`" if opener == "{" else "`- value`"
        fixes.append(Fix(f"write the entry in block style, one {each} a line", (block,)))
    quotes = [quoted(source.text[a:b]) for a, b in cut]
    edits = tuple(Edit(Span(source, a, b), q) for (a, b), q in zip(cut, quotes, strict=True) if q)
    title = f"put the expression in quotes: {shown(quotes[0])}" if quotes[0] else "put the expression in quotes"
    fixes.append(Fix(title, edits if len(edits) == len(cut) else ()))
    return Diagnostic(
        "GS0104",
        f"unquoted inside {kind}, the expression '{shown(text)}' is cut by YAML at its commas and brackets",
        Span(source, *cut[0]),
        notes=(f"inside {kind} an unquoted value ends at every ',' and at every '[', ']', '{{' or '}}'",),
        fixes=tuple(fixes),
    )


def quoted(text: str) -> str | None:
    """`text` as a YAML quoted scalar whose inside is `text` itself, character by character; None if there is none."""
    if "\n" in text:
        return None
    if "'" not in text:
        return f"'{text}'"
    return f'"{text}"' if '"' not in text and "\\" not in text else None


def _is_cut(value: str) -> bool:
    return bool(value) and value[0] not in "'\"{[" and any(char in value for char in ",[]{}")


def _piece(text: str, first: int, last: int) -> Piece:
    if text[first] in "'\"":
        opening = _string_end(text, first) + 1
    elif text[first] in "{[(":
        opening = last
    else:
        opening = first
    colon = _COLON.search(text, opening, last)
    if not colon or unpaired(text[first : colon.start()]):
        return Piece(None, (first, last))
    return Piece(_trim(text, first, colon.start()), _trim(text, colon.end(), last))


def _as_block(source: Source, found: Intended, key_column: int | None) -> Edit | None:
    text = source.text
    if key_column is None or "\n" in text[found.start : found.end] or not found.pieces:
        return None
    indent = "\n" + " " * (key_column + 1)
    lines = []
    for piece in found.pieces:
        value = text[slice(*piece.value)]
        if (text[found.start] == "{") != (piece.key is not None):
            return None
        lines.append(f"{indent}{text[slice(*piece.key)]}: {value}" if piece.key else f"{indent}- {value}")
    start = len(text[: found.start].rstrip(" "))
    return Edit(Span(source, start, found.end), "".join(lines))


def _trim(text: str, first: int, last: int) -> tuple[int, int]:
    while first < last and text[first].isspace():
        first += 1
    while last > first and text[last - 1].isspace():
        last -= 1
    return first, last


def _string_end(text: str, start: int) -> int:
    """The closing quote of the string that opens at `start`, or the end of its line."""
    quote, i = text[start], start + 1
    while i < len(text) and text[i] != "\n":
        if text[i] == "\\" and quote == '"':
            i += 1
        elif text[i] == quote:
            return i
        i += 1
    return i - 1


def _indent(text: str, at: int) -> int:
    start = text.rfind("\n", 0, at) + 1
    while text[start] == " ":
        start += 1
    return start - text.rfind("\n", 0, at) - 1


def _leaves(text: str, start: int, indent: int) -> bool:
    """Whether the line that starts here is indented no deeper than the collection's own: it is not part of it."""
    stop = text.find("\n", start)
    line = text[start : stop if stop >= 0 else len(text)]
    rest = line.lstrip(" ")
    return bool(rest.strip()) and rest[0] not in "]})#" and len(line) - len(rest) <= indent
