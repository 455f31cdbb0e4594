"""One mistake, one error: what only follows from a name whose declaration was refused is not said again at each use."""

from __future__ import annotations

import re
from collections.abc import Callable

from graphspec.compiler.written import KEYWORDS, SECTIONS
from graphspec.diagnostic import Diagnostic
from graphspec.document import Mapping as Tree
from graphspec.document import Scalar

NO_SPACE = re.compile(r"([A-Za-z_]\w*):(?=[^\s:/])")  # `audio:float[T, 1]`, which YAML takes for one text
_DECLARE = ("params", "inputs", "shared", "cells", "blocks", "graph")
_UNKNOWN = {"GS0201", "GS0202", "GS0601"}  # there is no such name
_UNREAD = {"GS0121", "GS0122", "GS0123", "GS0201"}  # what the parser makes of a name that is none
_MAX_ODD = 100


def once(root: Tree) -> Callable[[Diagnostic], Diagnostic | None]:
    """Leaves out what blames a name that is declared in a section misspelt, without its space, or as no name."""
    known, odd = _refused(root)

    def kept(d: Diagnostic) -> Diagnostic | None:
        if d.span is None or d.code not in _UNKNOWN | _UNREAD:
            return d
        text = d.span.text
        if d.code in _UNKNOWN and text.partition(".")[0] in known:
            return None
        if d.code in _UNREAD:
            if text in odd:
                return None
            for name in odd:
                if not name.isidentifier() and len(name) < 80:
                    around = d.span.source.text[max(0, d.span.start - len(name)) : d.span.end + len(name)]
                    if name in around:
                        return None
        return d

    return kept


def _refused(root: Tree) -> tuple[set[str], list[str]]:
    """(names that would be there if their section or entry were read, keys that are no names)."""
    known: set[str] = set()
    odd: list[str] = []
    for entry in root.entries:
        section, node = entry.key.text, entry.value
        if isinstance(node, Tree) and (section not in SECTIONS or section in _DECLARE):
            for e in node.entries:
                name = e.key.text
                if section not in SECTIONS:
                    known.add(name)
                elif len(odd) < _MAX_ODD and (
                    not name.isascii() or not name.isidentifier() or name in KEYWORDS or name in ("t", "step")
                ):
                    odd.append(name)
        elif isinstance(node, Scalar) and section in _DECLARE and (m := NO_SPACE.match(node.text)):
            known.add(m[1])
    return known, odd
