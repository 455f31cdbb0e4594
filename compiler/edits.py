"""Changes to a spec's tree by dotted path: replace, add, remove. Trees are never changed in place.

A key may hold dots itself (`cb.out` under `eval:`), so at each level the longest key that the path begins with wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphspec.diagnostic import did_you_mean, fail
from graphspec.document import Entry, Node, Scalar
from graphspec.document import Mapping as Tree
from graphspec.span import Span

MAX_PATH = 32  # parts of a dotted path


def parts(path: str, span: Span, code: str) -> list[str]:
    found = path.split(".")
    if len(found) > MAX_PATH:
        fail(code, f"the path has {len(found)} parts; the limit is {MAX_PATH}", span)
    if not all(found):
        fail(code, f"'{path[:60]}' is not a path: names with single dots between them", span)
    return found


def step(tree: Tree, rest: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """(the key of this tree that the path begins with, what follows)."""
    for n in range(len(rest), 0, -1):
        key = ".".join(rest[:n])
        if tree.get(key) is not None:
            return key, rest[n:]
    return None


def find(tree: Node, path: str) -> Node | None:
    """What stands at a path, or None."""
    rest: Sequence[str] = path.split(".")
    node = tree
    while rest:
        taken = step(node, rest) if isinstance(node, Tree) else None
        if taken is None:
            return None
        key, rest = taken
        assert isinstance(node, Tree)
        node = node.get(key)  # type: ignore[assignment]
    return node


def changed(tree: Tree, path: str, span: Span, code: str, change: Callable[[Node], Node | None]) -> Tree:
    """The tree with `change` made to the node at the path (None: its entry goes). Fails where nothing is there."""

    def walk(node: Node, rest: Sequence[str]) -> Node | None:
        if not rest:
            return change(node)
        if not isinstance(node, Tree):
            fail(code, f"'{path}' leads nowhere: what '{rest[0]}' would be a part of is not a mapping", span)
        taken = step(node, rest)
        if taken is None:
            known = [e.key.text for e in node.entries]
            fail(code, f"'{path}' leads nowhere: there is no '{rest[0]}'{did_you_mean(rest[0], known)}", span)
        key, deeper = taken
        entries = []
        for e in node.entries:
            if e.key.text != key:
                entries.append(e)
                continue
            new = walk(e.value, deeper)
            if new is not None:
                entries.append(Entry(e.key, new))
        return Tree(tuple(entries), node.span)

    new = walk(tree, parts(path, span, code))
    assert isinstance(new, Tree)
    return new


def added(tree: Tree, path: str, key: Scalar, value: Node, code: str, there: str) -> Tree:
    """The tree with a new entry at the path, mappings on the way made where missing. Fails if something stands there.

    key: the path as written, for its place. there: what to say of an entry that exists.
    """
    span = key.span

    def walk(node: Node | None, rest: Sequence[str]) -> Tree:
        if node is not None and not isinstance(node, Tree):
            fail(code, f"'{path}' leads nowhere: what '{rest[0]}' would be a part of is not a mapping", span)
        entries = list(node.entries) if node is not None else []
        taken = step(node, rest) if node is not None else None
        if taken is not None and not taken[1]:
            fail(code, f"'{path}' {there}", span)
        if taken is not None:
            name, deeper = taken
            entries = [Entry(e.key, walk(e.value, deeper)) if e.key.text == name else e for e in entries]
        else:
            # Below a section a key may hold dots itself (eval's cb.out), so only sections are made on the way.
            name = rest[0] if node is tree and len(rest) > 1 else ".".join(rest)
            inner: Node = walk(None, rest[1:]) if node is tree and len(rest) > 1 else value
            entries.append(Entry(Scalar(name, span, name, True, span), inner))
        return Tree(tuple(entries), node.span if node is not None else span)

    return walk(tree, parts(path, span, code))
