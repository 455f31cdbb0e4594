"""The spanned tree a spec is read into: every key and every scalar keeps its place. No bare dict travels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from graphspec.span import Source, Span

Value: TypeAlias = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Scalar:
    """One leaf, or one key.

    `text` is what YAML says it is (folded, unquoted). `span` is the raw stretch as written, quotes or `|` included.
    `content` is the stretch an expression parser reads: inside the quotes, the raw (perhaps multi-line) plain scalar,
    or the body of a block scalar from its first to its last visible character. In a quoted scalar with escapes
    (`''`, `\\"`) the stretch differs from `text`.
    `value` is what YAML 1.2 core makes of a plain scalar (None, bool, int, finite float); everything else is `text`.
    """

    text: str
    span: Span
    value: Value
    plain: bool
    content: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """`key: value` of a mapping. An empty value is a plain Scalar with value None and an empty span."""

    key: Scalar
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the order written. Keys are texts and differ (the reader sees to it)."""

    entries: tuple[Entry, ...]
    span: Span
    _by_name: dict[str, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {entry.key.text: entry for entry in self.entries})

    def get(self, name: str) -> Node | None:
        """The value under `name`, or None where there is no such key."""
        entry = self._by_name.get(name)
        return entry.value if entry else None

    def key(self, name: str) -> Scalar | None:
        """The key `name` itself, for its place."""
        entry = self._by_name.get(name)
        return entry.key if entry else None

    def items(self) -> Iterator[tuple[Scalar, Node]]:
        return ((entry.key, entry.value) for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list, in block (`- x`) or flow (`[x]`) style."""

    items: tuple[Node, ...]
    span: Span


Node: TypeAlias = Scalar | Mapping | Sequence


@dataclass(frozen=True, slots=True)
class Document:
    """One file, read."""

    source: Source
    root: Mapping
