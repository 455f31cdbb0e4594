"""graphspec resolve SPEC [NAME=VALUE ...] [--why KEY]: the spec with all it extends; where a value comes from."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import Files, show, spec_path
from graphspec.declare import show as written
from graphspec.diagnostic import Findings, Fix, did_you_mean, fail
from graphspec.excerpt import shown
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.compiler.resolve import Spec
    from graphspec.document import Document, Node


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a path (with / or .yaml), or the name of a shipped spec")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="params or dotted paths")
    parser.add_argument("--why", metavar="KEY", help="where the value of a param or a dotted path comes from")


def run(options: argparse.Namespace) -> int:
    from graphspec.compiler.resolve import resolve
    from graphspec.reader import read_file
    from graphspec.yaml_text import yaml_text

    findings = Findings()
    path = spec_path(options.spec)
    spec = resolve(read_file(path), Files(path.parent), options.overrides, findings)
    findings.stop_on_errors()
    show(findings.all())
    if options.why is None:
        print(yaml_text(_with_params(spec)), end="")
        return 0
    print(_why(spec, options.why))
    return 0


def _with_params(spec: Spec) -> Document:
    """The document with the params that the command line set; dotted paths are set already."""
    from graphspec.compiler import edits
    from graphspec.document import Document

    root = spec.document.root
    for text in spec.overrides:
        name = text.partition("=")[0].strip()
        if name in spec.home.choices:
            path, value = f"params.{name}.choose", spec.home.choices[name].chosen
        elif name in spec.home.params:
            path, value = f"params.{name}", spec.home.params[name]
        else:
            continue
        root = edits.changed(root, path, root.span, "GS0210", partial(_node, value))
    return Document(spec.document.source, root)


def _node(value: Any, was: Node) -> Node:
    """A param's value as a spec writes it. Text is quoted where it was."""
    from graphspec.document import Scalar, Sequence

    if isinstance(value, tuple):
        return Sequence(tuple(_node(v, was) for v in value), was.span)
    told = written(value)
    span = Span(Source("<command line>", told), 0, len(told))
    plain = not isinstance(value, str) or (isinstance(was, Scalar) and was.plain)
    return Scalar(told, span, value, plain, span)


def _why(spec: Spec, key: str) -> str:
    """`width = 256`, and every change on the way there, newest first."""
    from graphspec.compiler import edits

    full = key if "." in key or spec.document.root.get(key) is not None else f"params.{key}"
    node = edits.find(spec.document.root, full)
    changes = spec.history.of(full)
    if node is None and not changes:
        sections = spec.document.root.entries
        inside = [(s.key.text, e.key.text) for s in sections for e in getattr(s.value, "entries", ())]
        known = [*(s.key.text for s in sections), *(k for _, k in inside), *(f"{s}.{k}" for s, k in inside)]
        argument = Source("<command line>", key)
        fail(
            "GS0210",
            f"the spec has no '{key[:60]}'{did_you_mean(key, known)}",
            Span(argument, 0, len(key)),
            fixes=[Fix("give a param's name, or a dotted path, as graph.dist")],
        )
    lines = [_now(spec, full, node)]
    for c in reversed(changes):
        lines.append(f"  {c.deed} at {c.span}: {_text(c.span)}" + (f"  ({c.path})" if c.path != full else ""))
    declared = _declared(spec, full)
    if declared is not None:
        lines.append(f"  declared at {declared}: {_text(declared)}")
    return "\n".join(lines)


def _now(spec: Spec, path: str, node: Node | None) -> str:
    head, _, name = path.partition(".")
    if head == "params" and name in spec.home.params:
        return f"{name} = {written(spec.home.params[name])}"
    if head == "params" and name in spec.home.choices:
        choice = spec.home.choices[name]
        return f"{name} = {choice.chosen}: {shown(choice.stage.span.text, 100)}"
    if node is None:
        return f"{path} is not there any more"
    return f"{path} = {_text(node.span)}"


def _declared(spec: Spec, path: str) -> Span | None:
    """Where the entry's key stands: in the file that first had it."""
    from graphspec.compiler import edits
    from graphspec.document import Mapping as Tree

    parent, _, _ = path.rpartition(".")
    tree = edits.find(spec.document.root, parent) if parent else spec.document.root
    key = tree.key(path[len(parent) + 1 :] if parent else path) if isinstance(tree, Tree) else None
    if key is None:
        return None
    line = key.span.source.line(key.span.line)
    start = key.span.start
    return Span(key.span.source, start, start + len(line[key.span.column - 1 :].split(" #")[0].rstrip()))


def _text(span: Span) -> str:
    return shown(" ".join(span.text.split()), 100)
