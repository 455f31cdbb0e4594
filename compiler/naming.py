"""Every name that is called or piped into, checked at once: in blocks nobody uses, options not chosen, views, too.

Elaboration stops at the first fault of an expression and never sees what waits for it; this names them all. Names of
values are elaboration's, for only it knows their scope.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphspec.compiler.arithmetic import FUNCTIONS
from graphspec.compiler.resolve import Block, Files, Spec
from graphspec.compiler.written import value_expression
from graphspec.declare import INITS, Catalogue
from graphspec.diagnostic import Diagnostic, Fix, SpecError, did_you_mean
from graphspec.document import Entry, Node, Scalar, Sequence
from graphspec.document import Mapping as Tree
from graphspec.expression import Call, Comprehension, Expr, IfElse, Name, Pipe, children

SPECIAL = {"repeat", "stages", "given", "list"}


def unknown_calls(spec: Spec, catalogue: Catalogue, files: Files) -> list[Diagnostic]:
    """One GS0202 for each place that calls what is no op, block, function, or instance.

    What is a block of a library is said to be one.
    """
    home = spec.home
    known = {*catalogue.ops, *FUNCTIONS, *INITS, *SPECIAL, *home.block_names(), *home.choices}
    known |= {e.key.text for e in spec.entries("shared")}
    values = {*home.params, *(e.key.text for s in ("inputs", "graph", "cells") for e in _entries(spec, s))}
    found: list[Diagnostic] = []

    def check(expr: Expr, local: set[str]) -> None:
        for name, bound in _called(expr):
            if name.name not in known and name.name not in local and name.name not in bound | values:
                held = files.with_block(name.name)
                meant = did_you_mean(name.name, known) if not held else ""
                fixes = tuple(Fix(f"it is a block of {library}: use: [{library}]") for library in held)
                told = f"there is no op, block or function '{name.name}'{meant}"
                found.append(Diagnostic("GS0202", told, name.span, fixes=fixes))

    for expr in _expressions(spec):
        check(expr, set())
    for expr in _of_cells(spec):
        check(expr, {"first"})  # `init: first(expr)`, the cell's first value
    for choice in home.choices.values():
        for expr in choice.options.values():
            check(expr, set())
            for name in _heads(expr):
                check(Call(name.span, False, name, ()), set())
    for block in home.blocks.values():
        local = {p.name for p in block.params} | {i.name for i in block.inputs}
        for expr in _of_block(block):
            check(expr, local)
    return found


def _entries(spec: Spec, section: str) -> tuple[Entry, ...]:
    node = spec.section(section)
    return node.entries if isinstance(node, Tree) else ()


def _called(expr: Expr) -> Iterator[tuple[Name, frozenset[str]]]:
    """The bare names called or piped into, each with the `for` names that are visible there."""
    stack: list[tuple[Expr, frozenset[str]]] = [(expr, frozenset())]
    while stack:
        top, bound = stack.pop()
        if isinstance(top, Call) and isinstance(top.function, Name):
            yield top.function, bound
        if isinstance(top, Pipe) and isinstance(top.stage, Name):
            yield top.stage, bound
        if isinstance(top, Call):
            for a in top.arguments:
                if isinstance(a, Comprehension):
                    bound |= {n for t in a.targets for n in (t if isinstance(t, tuple) else (t,))}
        stack.extend((c, bound) for c in children(top))


def _heads(stage: Expr) -> Iterator[Name]:
    """The bare names that a stage is or begins with; those behind a `|>` are called."""
    if isinstance(stage, Pipe):
        yield from _heads(stage.value)
    elif isinstance(stage, IfElse):
        yield from (*_heads(stage.then), *_heads(stage.otherwise))
    elif isinstance(stage, Name):
        yield stage


def _of_block(block: Block) -> Iterator[Expr]:
    for _, expr in block.graph:
        yield expr
    if isinstance(block.out, tuple):
        yield from (expr for _, expr in block.out)
    else:
        yield block.out


def _expressions(spec: Spec) -> Iterator[Expr]:
    """The expressions of all sections that hold values. What does not parse is reported where it is read."""
    for section in ("graph", "losses", "metrics", "shared", "outputs", "eval"):
        yield from _inside(spec.section(section))
    inputs = spec.section("inputs")
    if isinstance(inputs, Tree):
        for e in inputs.entries:
            default = e.value.get("default") if isinstance(e.value, Tree) else None
            if isinstance(default, Scalar) and isinstance(default.value, str):
                yield from _inside(default)
    entries = spec.section("entries")
    views = [e.value for e in entries.entries] if isinstance(entries, Tree) else []
    for view in (*views, spec.section("sample")):
        if isinstance(view, Tree):
            for part in ("set", "feed", "to"):
                yield from _inside(view.get(part))


def _of_cells(spec: Spec) -> Iterator[Expr]:
    cells = spec.section("cells")
    for e in cells.entries if isinstance(cells, Tree) else ():
        for part in ("init", "next", "reset"):
            yield from _inside(e.value.get(part) if isinstance(e.value, Tree) else None)


def _inside(node: Node | None) -> Iterator[Expr]:
    if isinstance(node, Tree) and node.get("is") is None and node.get("op") is None:
        for e in node.entries:
            yield from _inside(e.value)
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _inside(item)
    elif node is not None:
        parts: list[Node] = [node]
        if isinstance(node, Tree):
            parts += [n for n in (node.get("weight"), node.get("mask")) if n is not None]
        for part in parts:
            if isinstance(part, Scalar) and not isinstance(part.value, str):
                continue
            try:
                yield value_expression(part)
            except SpecError:
                continue
