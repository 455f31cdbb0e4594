"""How many values a block unfolds to at least, counted on its expressions: blocks that double need no unfolding.

A block's count is linear in the counts of the stages given to it: `residual(body)` makes one sum and one body. So each
block is counted once, whatever is given to it. What is not known before unfolding (a choice by a block's own params, a
repeat by them) counts as its least, so nothing is refused that would fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphspec.compiler.resolve import Block, Home
from graphspec.compiler.stages import BlockStage, Chain, OpStage, Repeat
from graphspec.declare import Catalogue
from graphspec.diagnostic import SpecError
from graphspec.expression import (
    Argument,
    Attribute,
    Call,
    Comprehension,
    Expr,
    IfElse,
    Name,
    Number,
    Pipe,
    children,
    names,
)

MOST = 10**15  # counts are cut here; beyond it nothing differs


@dataclass(frozen=True)
class Count:
    """`base` values, and `uses[name]` times those of the stage parameter `name`."""

    base: int = 0
    uses: Mapping[str, int] = field(default_factory=dict)

    def plus(self, other: Count) -> Count:
        if not other.uses:
            return Count(min(self.base + other.base, MOST), self.uses)
        keys = {*self.uses, *other.uses}
        return Count(
            min(self.base + other.base, MOST),
            {k: min(self.uses.get(k, 0) + other.uses.get(k, 0), MOST) for k in keys},
        )

    def times(self, n: int) -> Count:
        return Count(min(self.base * n, MOST), {k: min(u * n, MOST) for k, u in self.uses.items()})

    def least(self, other: Count) -> Count:
        keys = self.uses.keys() & other.uses.keys()
        return Count(min(self.base, other.base), {k: min(self.uses[k], other.uses[k]) for k in keys})


NOTHING = Count()


class Copies:
    """Counts blocks, each once."""

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue
        self._counts: dict[int, Count] = {}
        self._values: dict[Any, int] = {}

    def values(self, stage: Any) -> int:
        """How many values a stage makes at least; a block that makes none, and a shift by 0, count as one."""
        if stage not in self._values:  # stages given to stages may be shared: each is walked once
            self._values[stage] = self._counted(stage)
        return self._values[stage]

    def _counted(self, stage: Any) -> int:
        if isinstance(stage, BlockStage):
            count = self.block(stage.block)
            given = sum(u * self.values(stage.params[n]) for n, u in count.uses.items() if n in stage.params)
            return max(1, min(count.base + given, MOST))
        if isinstance(stage, Chain):
            return min(sum(map(self.values, stage.stages)), MOST)
        if isinstance(stage, Repeat):
            if stage.body is not None:
                return min(len(stage.stages) * self.values(stage.body), MOST)
            return min(sum(map(self.values, stage.stages)), MOST)
        return int(isinstance(stage, OpStage) and not stage.op.of)

    def block(self, block: Block) -> Count:
        """Counted from the innermost outwards, without recursion; a block inside itself counts nothing."""
        stack, open_ = [block], set()
        while stack:
            top = stack[-1]
            if id(top) in self._counts:
                stack.pop()
                continue
            inner = [b for b in _used(top) if id(b) not in self._counts and id(b) not in open_]
            if inner and id(top) not in open_:
                open_.add(id(top))
                stack += inner
                continue
            open_.discard(id(top))
            self._counts[id(top)] = self._inside(top)
            stack.pop()
        return self._counts[id(block)]

    def _inside(self, block: Block) -> Count:
        stages = {p.name for p in block.params if p.kind == "stage"}
        hidden = {p.name for p in block.params} | {i.name for i in block.inputs} | {n for n, _ in block.graph}
        scope = _Scope(block.home, stages, hidden - stages)
        total = NOTHING
        for expr in _expressions(block):
            total = total.plus(self._value(expr, scope))
        return total if total.base or total.uses else Count(1)

    def _value(self, expr: Expr, scope: _Scope) -> Count:
        if isinstance(expr, Pipe):
            return self._value(expr.value, scope).plus(self._stage(expr.stage, scope))
        if isinstance(expr, IfElse):
            return self._value(expr.then, scope).least(self._value(expr.otherwise, scope))
        if isinstance(expr, Call):
            block = scope.block(expr.function)
            if block is not None:
                return self._called(block, expr, scope, piped=False)
            return self._arguments(expr, scope)
        total = NOTHING
        for c in children(expr):
            total = total.plus(self._value(c, scope))
        return total

    def _arguments(self, expr: Call, scope: _Scope) -> Count:
        """What is computed for the arguments; a list's elements are not counted."""
        total = NOTHING
        for a in expr.arguments:
            if isinstance(a, Argument):
                total = total.plus(self._value(a.value, scope))
        return total

    def _stage(self, expr: Expr, scope: _Scope) -> Count:
        if isinstance(expr, Pipe):
            return self._stage(expr.value, scope).plus(self._stage(expr.stage, scope))
        if isinstance(expr, IfElse):
            return self._stage(expr.then, scope).least(self._stage(expr.otherwise, scope))
        called = expr.function if isinstance(expr, Call) else expr
        if isinstance(called, Name) and called.name in scope.stages:
            return Count(0, {called.name: 1})
        block = scope.block(called)
        if block is not None:
            return self._called(block, expr if isinstance(expr, Call) else None, scope, piped=True)
        if not isinstance(called, Name) or called.name in scope.hidden or called.name in scope.home.shared:
            return NOTHING
        if isinstance(expr, Call) and called.name == "repeat":
            return self._repeat(expr, scope)
        op = self.catalogue.ops.get(called.name)
        if op is None or called.name in scope.home.choices:
            return NOTHING
        return Count(1).plus(self._arguments(expr, scope)) if isinstance(expr, Call) else Count(1)

    def _repeat(self, expr: Call, scope: _Scope) -> Count:
        if len(expr.arguments) != 2 or any(isinstance(a, Comprehension) for a in expr.arguments):
            return NOTHING
        count, stage = (a.value for a in expr.arguments)
        n = count.value if isinstance(count, Number) else None
        if isinstance(count, Name) and count.name not in scope.hidden:
            n = scope.home.params.get(count.name)
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            return NOTHING
        return self._stage(stage, scope).times(n)

    def _called(self, block: Block, call: Call | None, scope: _Scope, *, piped: bool) -> Count:
        """The block's own values, those of the stages given to it, and those of its other arguments."""
        count = self._counts.get(id(block), NOTHING)
        total = Count(count.base)
        kinds = {p.name: p.kind for p in block.params}
        named = {a.name for a in call.arguments if isinstance(a, Argument)} if call else set()
        inputs = [i.name for i in block.inputs if not i.optional and i.name not in named][1 if piped else 0 :]
        places = iter([*inputs, *(p.name for p in block.params if p.name not in named)])
        for a in call.arguments if call else ():
            name = a.name if isinstance(a, Argument) and a.name else next(places, None)
            if isinstance(a, Comprehension) or name is None:
                continue
            if kinds.get(name) == "stage":
                if count.uses.get(name):
                    total = total.plus(self._stage(a.value, scope).times(count.uses[name]))
            else:
                total = total.plus(self._value(a.value, scope))
        return total


@dataclass(frozen=True)
class _Scope:
    """Names of one block: its stage parameters, and what else hides the file's names."""

    home: Home
    stages: set[str]
    hidden: set[str]

    def block(self, function: Expr) -> Block | None:
        if isinstance(function, Name) and function.name not in self.stages | self.hidden:
            return _named(self.home, function)
        if isinstance(function, Attribute) and isinstance(function.of, Name):
            library = self.home.libraries.get(function.of.name)
            return library.blocks.get(function.name) if library and function.of.name not in self.hidden else None
        return None


def _named(home: Home, name: Name) -> Block | None:
    if name.name in home.shared or name.name in home.choices:
        return None
    try:
        return home.block(name.name, name.span)
    except SpecError:
        return None  # told where it is used


def _expressions(block: Block) -> list[Expr]:
    out = [e for _, e in block.graph]
    return out + ([e for _, e in block.out] if isinstance(block.out, tuple) else [block.out])


def _used(block: Block) -> list[Block]:
    """The blocks that its expressions name."""
    found: dict[int, Block] = {}
    for expr in _expressions(block):
        for n in names(expr):
            b = _named(block.home, n)
            if b is not None:
                found[id(b)] = b
            for inner in block.home.libraries[n.name].blocks.values() if n.name in block.home.libraries else ():
                found[id(inner)] = inner
    return list(found.values())
