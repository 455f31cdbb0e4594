"""Pass 0, compose: a spec that `extends` another -> one Document. Order: params, remove, override, add (LANGUAGE 9).

Every node keeps the span of the file that wrote it, so later errors point at the right one of them; `History` keeps
who changed what, for `graphspec resolve --why`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from graphspec.compiler import edits
from graphspec.diagnostic import Diagnostic, Findings, Fix, Related, SpecError, did_you_mean, fail
from graphspec.document import Document, Entry, Node, Scalar, Sequence
from graphspec.document import Mapping as Tree
from graphspec.span import Span

EXTENDING = ("graphspec", "model", "doc", "extends", "use", "params", "override", "add", "remove", "moved")
CHANGES = ("override", "add", "remove")
MAX_BASES = 16

Base = Callable[[str, Span, Document], Document]
"""(name, where it is written, by whom) -> the document that is extended."""


@dataclass(frozen=True)
class Change:
    """One deed on a path: `declared`, `set`, `overridden`, `added` or `removed`, and where that is written."""

    path: str
    deed: str
    span: Span


@dataclass
class History:
    """Every change on the way from the first base to the spec, oldest first; `moved` maps old paths to new ones."""

    changes: list[Change] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    bases: list[str] = field(default_factory=list)

    def of(self, path: str) -> list[Change]:
        """What happened at this path, above it or below it."""
        return [c for c in self.changes if f"{c.path}.".startswith(f"{path}.") or f"{path}.".startswith(f"{c.path}.")]

    def followed(self, path: str, span: Span, findings: Findings) -> str:
        """The path, or where its entry has moved to, with a warning."""
        for old, new in self.moved.items():
            if path == old or path.startswith(f"{old}."):
                now = new + path[len(old) :]
                findings.add(
                    Diagnostic("GS0514", f"'{old}' has moved to '{new}'", span, "warning", fixes=(Fix(f"write {now}"),))
                )
                return now
        return path


def compose(document: Document, base: Base, findings: Findings) -> tuple[Document, History]:
    """The document with everything it extends, and how that came about."""
    return _composed(document, base, findings, ())


def _composed(document: Document, base: Base, findings: Findings, chain: tuple[str, ...]) -> tuple[Document, History]:
    root = document.root
    extends = root.get("extends")
    if extends is None:
        for name in (*CHANGES,):
            key = root.key(name)
            if key is not None:
                fail("GS0511", f"'{name}' changes what a spec extends; this one has no 'extends:'", key.span)
        history = History()
        _note_moves(root, history, {})
        return document, history
    if not (isinstance(extends, Scalar) and isinstance(extends.value, str) and extends.text.strip()):
        fail("GS0133", "'extends' names one spec, as base.yaml", extends.span)
    name = extends.text.strip()
    if document.source.path in chain:
        circle = " -> ".join([*chain[chain.index(document.source.path) :], document.source.path])
        fail("GS0510", f"specs extend each other in a circle: {circle}", extends.span)
    if len(chain) >= MAX_BASES:
        fail("GS0510", f"specs extend each other more than {MAX_BASES} deep", extends.span)
    found = base(name, extends.span, document)
    _check_edition(found.root)
    below, history = _composed(found, base, findings, (*chain, document.source.path))
    if below.root.get("library") is not None:
        fail("GS0510", f"'{name}' is a library; its blocks are had by 'use:'", extends.span)
    history.bases.append(below.source.path)
    for e in root.entries:
        if e.key.text not in EXTENDING:
            known = "params, override, add and remove"
            try:
                fail(
                    "GS0511",
                    f"a spec that extends another changes it under {known}; '{e.key.text}' cannot stand here",
                    e.key.span,
                    fixes=[Fix(f"override: with {e.key.text}.NAME, or add: with {e.key.text}.NAME for a new entry")],
                )
            except SpecError as error:
                findings.absorb(error)
    changed = _Composition(below.root, history, findings)
    changed.identity(root)
    changed.params(root.get("params"))
    changed.remove(root.get("remove"))
    changed.override(root.get("override"))
    changed.add(root.get("add"))
    _note_moves(root, history, history.moved)
    return Document(document.source, changed.root), history


def _check_edition(root: Tree) -> None:
    """A base is of the edition that is composed; that of the spec itself is checked with its sections."""
    edition = root.get("graphspec")
    if edition is None:
        fail("GS0131", "the first key must be 'graphspec: 1', the edition of the language", root.span.at_start())
    if not (isinstance(edition, Scalar) and type(edition.value) is int and edition.value == 1):
        fail("GS0131", f"edition {edition.span.text[:20]} is not known; this program reads 1", edition.span)


def _note_moves(root: Tree, history: History, known: dict[str, str]) -> None:
    node = root.get("moved")
    if node is None:
        return
    for e in _entries(node, "moved"):
        if not isinstance(e.value, Scalar) or not isinstance(e.value.value, str):
            fail("GS0133", "'moved' maps an old path to a new one, as graph.z: graph.latent", e.value.span)
        history.moved = {**known, **history.moved, e.key.text: e.value.text.strip()}


def _entries(node: Node | None, section: str) -> tuple[Entry, ...]:
    if node is None or (isinstance(node, Scalar) and node.value is None):
        return ()
    if not isinstance(node, Tree):
        fail("GS0133", f"'{section}' must be a mapping of paths", node.span)
    return node.entries


def _check_kind(entry: Entry, there: Node) -> None:
    """A number stays a number, a list a list. An expression's kind is only known when it is evaluated."""
    old, new = _kind(there), _kind(entry.value)
    if old and new and old != new and (old, new) != ("a number", "an integer"):
        fail(
            "GS0212",
            f"param '{entry.key.text}' is {old} in the base, not {new}",
            entry.value.span,
            related=[Related("in the base", there.span)],
        )


def _kind(node: Node) -> str:
    """What is written is; empty where that takes more than a look."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Tree):
        return ""
    if not node.plain:
        return "text"
    kinds = {bool: "true or false", int: "an integer", float: "a number"}
    return kinds.get(type(node.value), "")


class _Composition:
    """The base's tree while it is changed. An error of one change is kept, and the others go on."""

    def __init__(self, root: Tree, history: History, findings: Findings):
        self.root, self.history, self.findings = root, history, findings

    def attempt(self, change: Callable[[Any], None], entry: Any) -> None:
        try:
            change(entry)
        except SpecError as error:
            self.findings.absorb(error)

    def identity(self, derived: Tree) -> None:
        """Name, doc and libraries are the derived spec's own; libraries of the base stay."""
        entries = []
        for name in ("graphspec", "model", "doc"):
            key, value = derived.key(name), derived.get(name)
            if key is not None and value is not None:
                entries.append(Entry(key, value))
        kept = [e for e in self.root.entries if e.key.text not in ("graphspec", "model", "doc", "moved")]
        use, mine = self.root.get("use"), derived.get("use")
        key = derived.key("use")
        if isinstance(use, Sequence) and isinstance(mine, Sequence) and key is not None:
            told = {i.text for i in use.items if isinstance(i, Scalar)}
            more = tuple(i for i in mine.items if not (isinstance(i, Scalar) and i.text in told))
            kept = [Entry(e.key, Sequence((*use.items, *more), mine.span)) if e.key.text == "use" else e for e in kept]
        elif mine is not None and key is not None:
            kept = [e for e in kept if e.key.text != "use"] + [Entry(key, mine)]
        self.root = Tree((*entries, *kept), derived.span)

    def params(self, node: Node | None) -> None:
        for e in _entries(node, "params"):
            self.attempt(self.param, e)

    def param(self, entry: Entry) -> None:
        """A param gets a new value; of a choice, that is the option chosen."""
        path = self.history.followed(f"params.{entry.key.text}", entry.key.span, self.findings)
        there = edits.find(self.root, path)
        if there is None:
            params = self.root.get("params")
            known = [e.key.text for e in params.entries] if isinstance(params, Tree) else []
            fail(
                "GS0512",
                f"the base has no param '{entry.key.text}'{did_you_mean(entry.key.text, known)}",
                entry.key.span,
                fixes=[Fix(f"a new one goes under add:, as params.{entry.key.text}")],
            )
        _check_kind(entry, there)
        if isinstance(there, Tree) and not isinstance(entry.value, Tree):
            path = f"{path}.choose"
        self.root = edits.changed(self.root, path, entry.key.span, "GS0512", lambda _: entry.value)
        self.history.changes.append(Change(path, "set", entry.value.span))

    def remove(self, node: Node | None) -> None:
        if node is None or (isinstance(node, Scalar) and node.plain and node.value is None):
            return
        if not isinstance(node, Sequence):
            fail("GS0133", "'remove' is a list of paths, as [graph.x, losses.kl]", node.span)
        for item in node.items:
            self.attempt(self.removed, item)

    def removed(self, item: Node) -> None:
        if not isinstance(item, Scalar):
            fail("GS0133", "'remove' is a list of paths, as [graph.x, losses.kl]", item.span)
        path = self.history.followed(item.text.strip(), item.span, self.findings)
        self.root = edits.changed(self.root, path, item.span, "GS0512", lambda _: None)
        self.history.changes.append(Change(path, "removed", item.span))

    def override(self, node: Node | None) -> None:
        for e in _entries(node, "override"):
            self.attempt(self.overridden, e)

    def overridden(self, entry: Entry) -> None:
        path = self.history.followed(entry.key.text, entry.key.span, self.findings)
        self.root = edits.changed(self.root, path, entry.key.span, "GS0512", lambda _: entry.value)
        self.history.changes.append(Change(path, "overridden", entry.value.span))

    def add(self, node: Node | None) -> None:
        for e in _entries(node, "add"):
            self.attempt(self.one_added, e)

    def one_added(self, entry: Entry) -> None:
        path = entry.key.text
        there = edits.find(self.root, path)
        if there is not None:
            fail(
                "GS0513",
                f"'{path}' is there already; 'add' is for what the base does not have",
                entry.key.span,
                related=[Related("in the base", there.span)],
                fixes=[Fix("move it to override:")],
            )
        self.root = edits.added(self.root, path, entry.key, entry.value, "GS0512", "is there already")
        self.history.changes.append(Change(path, "added", entry.value.span))
