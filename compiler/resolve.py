"""Pass 1, resolve: a Document, its libraries and the command line -> a Spec: params with values, blocks by name.

Long because it is the one reader of the tree's shape outside `graph:`; each section is a small function of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol

from graphspec.compiler.arithmetic import evaluate
from graphspec.compiler.compose import Change, History, compose
from graphspec.compiler.once import NO_SPACE
from graphspec.compiler.overrides import replaced, split, whole
from graphspec.compiler.written import (
    RESERVED,
    SECTIONS,
    check_name,
    dataflow_order,
    requirements,
    value_expression,
)
from graphspec.declare import show
from graphspec.diagnostic import Edit, Findings, Fix, Related, SpecError, did_you_mean, fail, nearest
from graphspec.document import Document, Entry, Node, Scalar, Sequence
from graphspec.document import Mapping as Tree
from graphspec.excerpt import shown
from graphspec.expression import Expr, TypeExpr, parse_expression, parse_type, read_names
from graphspec.span import Source, Span

NOT_BUILT: set[str] = set()
LIBRARY_SECTIONS = {"graphspec", "library", "doc", "use", "params", "blocks"}
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\Z")
DTYPES = ("float", "f32", "int", "bool", "any")
MAX_LIBRARIES = 16  # that use each other in a row
KINDS = {"int", "float", "bool", "text", "list", "stage"}


class Files(Protocol):
    """Where other files come from: libraries by their name or that of a block in them, and what a spec extends."""

    def __call__(self, name: str, span: Span) -> Document: ...

    def base(self, name: str, span: Span, by: Document) -> Document: ...

    def with_block(self, name: str) -> list[str]: ...


@dataclass(frozen=True)
class BlockInput:
    name: str
    type: TypeExpr | None
    optional: bool
    span: Span


@dataclass(frozen=True)
class BlockParam:
    name: str
    kind: str | None  # none: told by the default
    default: Expr | None
    span: Span


@dataclass(frozen=True)
class Block:
    """A named sub-graph with parameters; `home` is the file whose names it sees."""

    name: str
    doc: str
    params: tuple[BlockParam, ...]
    inputs: tuple[BlockInput, ...]
    require: tuple[Expr, ...]
    graph: tuple[tuple[str, Expr], ...]
    out: Expr | tuple[tuple[str, Expr], ...]
    home: Home = field(repr=False)
    span: Span

    @property
    def result_names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in self.out) if isinstance(self.out, tuple) else ()


@dataclass(frozen=True)
class Choice:
    """A param whose value is a stage, one of several: `{choose: gru, from: {gru: ..., mlp: ...}}`."""

    name: str
    chosen: str
    options: Mapping[str, Expr]
    span: Span

    @property
    def stage(self) -> Expr:
        return self.options[self.chosen]


@dataclass(eq=False)
class Home:
    """The names of one file: its params (by value), blocks, and the libraries it uses."""

    path: str
    params: dict[str, Any] = field(default_factory=dict)
    param_spans: dict[str, Span] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    libraries: dict[str, Home] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)  # instances, or lists of them, once they are made

    def block(self, name: str, span: Span) -> Block | None:
        """The file's own block, else the libraries' if just one has it."""
        if name in self.blocks:
            return self.blocks[name]
        found = {id(b): b for lib in self.libraries.values() if (b := lib.blocks.get(name))}
        if len(found) > 1:
            places = list(found.values())
            fail(
                "GS0503",
                f"block '{name}' is in {' and in '.join(b.home.path for b in places)}",
                span,
                related=[Related("here", b.span) for b in places],
                fixes=[Fix(f"write {next(iter(self.libraries))}.{name}")],
            )
        return next(iter(found.values()), None)

    def block_names(self) -> list[str]:
        return [*self.blocks, *(n for lib in self.libraries.values() for n in lib.blocks)]


@dataclass(eq=False)
class Spec:
    """A spec with its params settled. Sections are still trees; later passes read them."""

    document: Document
    name: str
    doc: str
    home: Home
    overrides: tuple[str, ...] = ()
    data_folder: Source | None = None  # data=FOLDER on the command line
    history: History = field(default_factory=History)
    composed: Document | None = None  # before what the command line says

    @property
    def text(self) -> str:
        """The spec as a file that needs no other spec: as written, or composed of what it extends."""
        if self.history.bases and self.composed is not None:
            from graphspec.yaml_text import yaml_text

            return yaml_text(self.composed)
        return self.document.source.text

    def section(self, name: str) -> Node | None:
        return self.document.root.get(name)

    def entries(self, name: str) -> tuple[Entry, ...]:
        """The entries of a section that is a mapping; empty when it is missing."""
        node = self.section(name)
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return ()
        if not isinstance(node, Tree):
            _no_mapping(name, node)
        return node.entries


def resolve(document: Document, files: Files, overrides: Iterable[str] = (), findings: Findings | None = None) -> Spec:
    """Compose what is extended, set overrides (`d=128`, `train.batch=8`), load libraries, evaluate params."""
    findings = findings or Findings()
    overrides = tuple(overrides)
    composed, history = compose(document, files.base, findings)
    document = composed
    bare = []
    folder = None
    for text in overrides:
        name, source = split(text)
        if name.startswith("params.") and name.count(".") == 1:
            name = name.removeprefix("params.")
        if name == "data":
            folder = source
        elif "." in name:
            name = history.followed(name, whole(source), findings)
            document = replaced(document, name, source)
            history.changes.append(Change(name, "set", whole(source)))
        elif name in RESERVED:
            fail("GS0211", f"'{name}' is a section, not a param; a dotted path changes a part of it", whole(source))
        else:
            bare.append((name, source))
            history.changes.append(Change(f"params.{name}", "set", whole(source)))
    root = document.root
    edition, told_library = root.get("graphspec"), root.key("library")
    if edition is None:
        fail("GS0131", "the first key must be 'graphspec: 1', the edition of the language", root.span.at_start())
    if not (isinstance(edition, Scalar) and type(edition.value) is int and edition.value == 1):
        _unknown_edition(edition)
    if told_library is not None:
        fail("GS0132", "this is a library of blocks; a spec has 'model:'", told_library.span)
    model = root.get("model")
    if model is None:
        fail("GS0132", "the spec has no 'model:' with its name", root.span.at_start())
    _check_sections(root, set(SECTIONS), findings)
    home = Home(document.source.path)
    _libraries(root, home, files, (), findings)
    _params(root, home, bare, findings)
    _blocks(root, home, findings)
    doc = root.get("doc")
    if not MODEL_NAME.match(_text(model)):  # it becomes a folder's name, too
        fail("GS0213", f"'{_text(model)[:60]}' is not a model's name: letters, digits, _ and - only", model.span)
    return Spec(
        document, _text(model), _text(doc) if doc is not None else "", home, overrides, folder, history, composed
    )


def _unknown_edition(edition: Node) -> NoReturn:
    value = edition.value if isinstance(edition, Scalar) else None
    if isinstance(edition, Scalar) and edition.text.strip() in ("1", "1.0"):
        fix = Fix("write 1, a whole number without quotes", (Edit(edition.span, "1"),))
        fail("GS0131", f"the edition is the number 1, not {shown(edition.span.text)}", edition.span, fixes=[fix])
    if isinstance(value, int) and not isinstance(value, bool) and value > 1:
        fix = Fix("install a newer graphspec, or write the spec in edition 1")
        fail("GS0131", f"edition {value} is newer than this program, which reads edition 1", edition.span, fixes=[fix])
    fail("GS0131", f"edition {shown(edition.span.text, 20)} is not known; this program reads 1", edition.span)


def _no_mapping(section: str, node: Node) -> NoReturn:
    """`inputs:` over one text: most often `audio:float[T, 1]`, which lacks its space."""
    if isinstance(node, Scalar) and node.plain and (m := NO_SPACE.match(node.text)):
        at = Span(node.span.source, node.span.start, node.span.start + m.end())
        fix = Fix(f"write a space behind the colon: `{m[1]}: ...`", (Edit(at.at_end(), " "),))
        fail("GS0133", f"a space is missing after '{m[1]}:', so this is one text and no entry", at, fixes=[fix])
    fail("GS0133", f"'{section}' must be a mapping of names", node.span)


def _text(node: Node) -> str:
    if not isinstance(node, Scalar):
        fail("GS0133", "text belongs here", node.span)
    return node.text.strip()


def _check_sections(root: Tree, allowed: set[str], findings: Findings) -> None:
    for entry in root.entries:
        key = entry.key
        with gathering(findings):
            if key.text in NOT_BUILT:
                fail("GS0190", f"section '{key.text}' is not built yet", key.span)
            if key.text not in allowed:
                fixes = [Fix(f"write {near}", (Edit(key.span, near),)) for near in nearest(key.text, allowed)]
                fail("GS0130", f"'{key.text}' is not a section{did_you_mean(key.text, allowed)}", key.span, fixes=fixes)


class gathering:
    """Errors inside go to the findings and the run goes on."""

    def __init__(self, findings: Findings):
        self.findings = findings

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, SpecError):
            self.findings.absorb(error)
            return True
        return False


def _libraries(root: Tree, home: Home, library: Files, chain: tuple[str, ...], findings: Findings) -> None:
    node = root.get("use")
    if node is None:
        return
    if not isinstance(node, Sequence):
        fail("GS0133", "'use' is a list of libraries, as [std/core]", node.span)
    for item in node.items:
        with gathering(findings):
            name = _text(item)
            if len(chain) >= MAX_LIBRARIES:
                fail("GS0504", f"libraries use each other more than {MAX_LIBRARIES} deep", item.span)
            if name in chain:
                fail("GS0504", f"libraries use each other in a circle: {' -> '.join([*chain, name])}", item.span)
            home.libraries[name.rsplit("/", 1)[-1]] = _library(name, item.span, library, (*chain, name), findings)


def _library(name: str, span: Span, library: Files, chain: tuple[str, ...], findings: Findings) -> Home:
    document = library(name, span)
    root = document.root
    if root.get("library") is None:
        fail("GS0505", f"'{name}' is not a library: it has no 'library:'", span)
    _check_sections(root, LIBRARY_SECTIONS, findings)
    home = Home(document.source.path)
    _libraries(root, home, library, chain, findings)
    _params(root, home, (), findings)
    _blocks(root, home, findings)
    return home


# ---- params -------------------------------------------------------------------------------------------------------


def _params(root: Tree, home: Home, overrides: Iterable[tuple[str, Source]], findings: Findings) -> None:
    node = root.get("params")
    given: dict[str, tuple[Node, Expr | None]] = {}
    if node is not None:
        if not isinstance(node, Tree):
            _no_mapping("params", node)
        for entry in node.entries:
            name = entry.key.text
            with gathering(findings):
                check_name(name, entry.key.span, RESERVED)
                home.param_spans[name] = entry.key.span
                if isinstance(entry.value, Tree):
                    home.choices[name] = _choice(name, entry.value)
                    continue
                given[name] = (entry.value, _derived(entry.value))
    values: dict[str, Any] = {}
    order = dataflow_order({n: e for n, (_, e) in given.items() if e is not None}, "param")
    plain = [n for n in given if n not in order]
    given_values = dict(overrides)
    for name, source in given_values.items():
        if name in home.choices:
            with gathering(findings):
                home.choices[name] = _chosen(home.choices[name], source.text.strip(), whole(source))
        elif name not in given:
            known = [*given, *home.choices]
            fail(
                "GS0210",
                f"'{name}' is not a param of this spec{did_you_mean(name, known)}",
                whole(source),
                notes=[f"its params: {', '.join(known) or 'none'}"],
            )
    for name in [*plain, *order]:
        with gathering(findings):
            node_, expr = given[name]
            if expr is not None and any(n.name in given and n.name not in values for n in read_names(expr)):
                continue  # what it is made of was reported
            value = evaluate(expr, values) if expr is not None else _literal(node_)
            if name in given_values:
                value = _override(name, value, given_values[name], values, home.param_spans[name])
            values[name] = value
    home.params = values


def _choice(name: str, tree: Tree) -> Choice:
    """`{choose: gru, from: {gru: gru(width), mlp: ...}}`."""
    for e in tree.entries:
        if e.key.text not in ("choose", "from", "doc"):
            fail("GS0130", f"a choice has no '{e.key.text}'{did_you_mean(e.key.text, ('choose', 'from'))}", e.key.span)
    picked, options = tree.get("choose"), tree.get("from")
    if picked is None or not isinstance(options, Tree) or not options.entries:
        fail(
            "GS0506",
            f"param '{name}' is a number, a text, a list, or {{choose: NAME, from: {{NAME: stage}}}}",
            tree.span,
        )
    found = {e.key.text: value_expression(e.value) for e in options.entries}
    return _chosen(Choice(name, "", found, tree.span), _text(picked), picked.span)


def _chosen(choice: Choice, name: str, span: Span) -> Choice:
    if name not in choice.options:
        fail(
            "GS0515",
            f"'{choice.name}' has no option '{name[:60]}'{did_you_mean(name, choice.options)}",
            span,
            notes=[f"its options: {', '.join(choice.options)}"],
        )
    return replace(choice, chosen=name)


def _derived(node: Node) -> Expr | None:
    """A plain scalar that is not a number or bool is an expression of other params; quoted, it is text."""
    if isinstance(node, Scalar) and node.plain and isinstance(node.value, str):
        return parse_expression(node.content)
    return None


def _literal(node: Node) -> Any:
    if isinstance(node, Scalar):
        if isinstance(node.value, int) and not isinstance(node.value, bool) and abs(node.value) > 2**53:
            fail("GS0106", "the number is over 2**53", node.span)
        return node.value
    if isinstance(node, Sequence):
        return tuple(evaluate(e, {}) if (e := _derived(i)) is not None else _literal(i) for i in node.items)
    fail("GS0133", "a number, text or list belongs here", node.span)


def _override(name: str, default: Any, source: Source, params: Mapping[str, Any], declared: Span) -> Any:
    span = whole(source)
    if isinstance(default, str):
        return span.text.strip().strip("\"'")
    value = evaluate(parse_expression(span), params)
    kinds = {bool: "true or false", int: "an integer", float: "a number", tuple: "a list"}
    fits = {
        bool: lambda v: isinstance(v, bool),
        int: lambda v: isinstance(v, int) and not isinstance(v, bool),
        float: lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
        tuple: lambda v: isinstance(v, (tuple, list)),
    }
    kind = type(default)
    if kind in fits and not fits[kind](value):
        fail(
            "GS0212",
            f"param '{name}' is {kinds[kind]} (default {show(default)}), not {span.text}",
            span,
            related=[Related("declared here", declared)],
        )
    return float(value) if kind is float else value


# ---- blocks -------------------------------------------------------------------------------------------------------


def _blocks(root: Tree, home: Home, findings: Findings) -> None:
    node = root.get("blocks")
    if node is None:
        return
    if not isinstance(node, Tree):
        _no_mapping("blocks", node)
    for entry in node.entries:
        with gathering(findings):
            check_name(entry.key.text, entry.key.span)
            home.blocks[entry.key.text] = _block(entry, home)


def _block(entry: Entry, home: Home) -> Block:
    name, body = entry.key.text, entry.value
    if not isinstance(body, Tree):
        fail("GS0133", f"block '{name}' must be a mapping with 'in' and 'out'", body.span)
    for e in body.entries:
        if e.key.text in ("cells", "shared"):
            fail("GS0190", f"'{e.key.text}' in a block is not built yet", e.key.span)
        known = {"doc", "params", "in", "require", "graph", "out"}
        if e.key.text not in known:
            fail("GS0130", f"a block has no '{e.key.text}'{did_you_mean(e.key.text, known)}", e.key.span)
    for needed in ("in", "out"):
        if body.get(needed) is None:
            fail("GS0506", f"block '{name}' has no '{needed}'", entry.key.span)
    doc = body.get("doc")
    graph = body.get("graph")
    out = body.get("out")
    assert out is not None
    if graph is not None and not isinstance(graph, Tree):
        fail("GS0133", f"'graph' of block '{name}' is a mapping of names", graph.span)
    if isinstance(out, Tree):
        results: Any = tuple((e.key.text, value_expression(e.value)) for e in out.entries)
    else:
        results = value_expression(out)
    params, inputs = tuple(_block_params(body.get("params"))), tuple(_block_inputs(body.get("in")))
    if not inputs:
        fail("GS0506", f"block '{name}' has no input", entry.key.span)
    taken: dict[str, Span] = {}
    named: list[BlockParam | BlockInput] = [*params, *inputs]
    for p in named:
        if p.name in taken:
            fail(
                "GS0224",
                f"'{p.name}' is there twice in block '{name}'",
                p.span,
                related=[Related("here", taken[p.name])],
            )
        taken[p.name] = p.span
    return Block(
        name=name,
        doc=_text(doc) if doc is not None else "",
        params=params,
        inputs=inputs,
        require=tuple(requirements(body.get("require"))),
        graph=tuple((e.key.text, value_expression(e.value)) for e in graph.entries) if isinstance(graph, Tree) else (),
        out=results,
        home=home,
        span=entry.key.span,
    )


def _block_params(node: Node | None) -> Iterable[BlockParam]:
    if node is None:
        return
    if not isinstance(node, Tree):
        fail("GS0133", "'params' must be a mapping of names", node.span)
    for entry in node.entries:
        name, value = entry.key.text, entry.value
        check_name(name, entry.key.span)
        if not isinstance(value, Scalar):
            fail("GS0133", f"param '{name}' takes a kind ({', '.join(sorted(KINDS))}) or a default", value.span)
        if value.plain and value.text in KINDS:
            yield BlockParam(name, value.text, None, entry.key.span)
        else:
            yield BlockParam(
                name, None, parse_expression(value.span if not value.plain else value.content), entry.key.span
            )


def _block_inputs(node: Node | None) -> Iterable[BlockInput]:
    if isinstance(node, Scalar):
        check_name(node.text, node.span)
        yield BlockInput(node.text, None, False, node.span)
    elif isinstance(node, Sequence):
        for item in node.items:
            check_name(_text(item), item.span)
            yield BlockInput(_text(item), None, False, item.span)
    elif isinstance(node, Tree):
        for entry in node.entries:
            check_name(entry.key.text, entry.key.span)
            written, optional = entry.value, False
            if isinstance(written, Tree):
                flag = written.get("optional")
                optional = isinstance(flag, Scalar) and flag.value is True
                inner = written.get("type")
                if inner is None:
                    fail("GS0506", f"input '{entry.key.text}' has no 'type'", entry.key.span)
                written = inner
            if not isinstance(written, Scalar):
                fail("GS0133", "a type belongs here, as float[T, c]", written.span)
            rule = parse_type(written.content)
            if rule.name not in DTYPES:
                fail("GS0313", f"'{rule.name}' is not a dtype{did_you_mean(rule.name, DTYPES)}", rule.name_span)
            yield BlockInput(entry.key.text, rule, optional, entry.key.span)
