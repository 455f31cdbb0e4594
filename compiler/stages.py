"""What elaboration works with: names in scope, stages (functions that lack their first input), and poisoned values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphspec.compiler.resolve import Block, Home
from graphspec.declare import Declaration
from graphspec.graph import Site
from graphspec.span import Span


class Poison:
    """Stands for a value whose own error was reported; whatever touches it stays silent."""


POISON = Poison()


class PoisonedError(Exception):
    """An expression touched a poisoned value."""


@dataclass(eq=False)
class Scope:
    """Names an expression sees: `for` names, block params, inputs and graph, then the file's."""

    home: Home
    names: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    loops: dict[str, Any] = field(default_factory=dict)  # values that come back, by name

    def inner(self, bound: Mapping[str, Any]) -> Scope:
        return Scope(self.home, {**self.names, **bound}, self.spans, self.loops)

    def known(self) -> list[str]:
        return [*self.names, *self.home.params]


# ---- stages: functions that lack their first input -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OpStage:
    op: Declaration
    inputs: Mapping[str, Any]  # all but the first
    params: Mapping[str, Any]
    span: Span
    sites: Mapping[str, Site]


@dataclass(frozen=True, eq=False)
class BlockStage:
    block: Block
    inputs: Mapping[str, Any]
    params: Mapping[str, Any]
    span: Span


@dataclass(frozen=True, eq=False)
class Chain:
    stages: tuple[Any, ...]
    span: Span


@dataclass(frozen=True, eq=False)
class Repeat:
    stages: tuple[Any, ...]  # one a copy
    span: Span
    body: Any = None  # what would be repeated, when there is no copy


@dataclass(frozen=True, eq=False)
class Instance:
    """One of `shared:`: every use has the same weights, named under `path`.

    sizes: what the signature of its op bound at the first use, which its faces may need.
    """

    path: str
    stage: Any
    span: Span
    sizes: dict[str, Any] = field(default_factory=dict)
    frozen: bool = False


@dataclass(frozen=True, eq=False)
class FaceStage:
    """Another function of an instance: `book.lookup`."""

    instance: Instance
    op: Declaration
    inputs: Mapping[str, Any]
    params: Mapping[str, Any]
    span: Span
    sites: Mapping[str, Site]


Stage = OpStage | BlockStage | Chain | Repeat | Instance | FaceStage
