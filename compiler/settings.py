"""`data:` and `train:`: calls and numbers, checked against what the runtime declares. Nothing runs here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphspec.compiler.arguments import fitting
from graphspec.compiler.arithmetic import describe, evaluate, is_number
from graphspec.compiler.resolve import Spec, gathering
from graphspec.compiler.taps import read_names
from graphspec.declare import Catalogue, Declaration
from graphspec.diagnostic import Findings, Fix, did_you_mean, fail
from graphspec.document import Entry, Node, Scalar
from graphspec.document import Mapping as Tree
from graphspec.expression import Argument, Call, Expr, Name, names, parse_expression
from graphspec.graph import Graph
from graphspec.span import Source, Span


@dataclass(frozen=True)
class Setting:
    """A call such as `adamw(weight_decay=0)` with every parameter filled in."""

    declaration: Declaration
    arguments: Mapping[str, Any]
    span: Span

    @property
    def name(self) -> str:
        return self.declaration.name


@dataclass(frozen=True)
class Schedule:
    """A number that may depend on the update count `step`."""

    expr: Expr | None
    params: Mapping[str, Any]
    constant: float = 0.0

    def at(self, step: int) -> float:
        if self.expr is None:
            return self.constant
        value = evaluate(self.expr, {**self.params, "step": step})
        if not is_number(value):
            fail("GS0611", f"a schedule gives a number, not {describe(value)}", self.expr.span)
        return float(value)


@dataclass(frozen=True)
class Group:
    """What differs for the weights of one tag (`ssm`) or of one value."""

    name: str
    lr: Schedule | None
    weight_decay: float | None
    span: Span


@dataclass(frozen=True)
class Settings:
    """How a spec is trained. `numbers` holds steps, batch, clip, seed, ... by name."""

    data: Mapping[str, Setting] = field(default_factory=dict)
    optimizer: Setting | None = None
    lr: Schedule | None = None
    schedule: Setting | None = None
    groups: tuple[Group, ...] = ()
    crop: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    has_train: bool = False


def read_settings(spec: Spec, graph: Graph, declared: Catalogue, findings: Findings) -> Settings:
    """The two sections, checked. `declared` holds sources, optimizers and `train` itself."""
    data: dict[str, Setting] = {}
    for entry in spec.entries("data"):
        with gathering(findings):
            name = entry.key.text
            if name not in graph.inputs and any(e.key.text == name for e in spec.entries("inputs")):
                continue  # its type was refused
            if name not in graph.inputs:
                fail(
                    "GS0601",
                    f"there is no input '{name}' to get data for{did_you_mean(name, graph.inputs)}",
                    entry.key.span,
                )
            source = call_of(entry.value, spec, declared, "source", 'a source of data, as audio_folder("data")')
            data[name] = source if spec.data_folder is None else _in_folder(source, spec.data_folder, declared)
    found: dict[str, Any] = {}
    entries = spec.entries("train")
    form = declared.ops["train"]
    for entry in entries:
        with gathering(findings):
            found[entry.key.text] = _train_entry(entry, spec, graph, declared, form)
    numbers = {p.name: found.get(p.name, p.default) for p in form.parameters}
    return Settings(
        data=data,
        optimizer=found.get("optimizer"),
        lr=found.get("lr"),
        schedule=found.get("schedule"),
        groups=tuple(found.get("groups", ())),
        crop=found.get("crop", {}),
        numbers=numbers,
        has_train=bool(entries),
    )


def _in_folder(source: Setting, folder: Source, declared: Catalogue) -> Setting:
    """data=FOLDER: recordings of that folder, with whatever else the spec said of its source."""
    form = source.declaration if source.declaration.parameter("path") else declared.ops["audio_folder"]
    arguments = {p.name: source.arguments.get(p.name, p.default) for p in form.parameters}
    return Setting(form, {**arguments, "path": folder.text}, Span(folder, 0, len(folder.text)))


def _train_entry(entry: Entry, spec: Spec, graph: Graph, declared: Catalogue, form: Declaration) -> Any:
    key, value = entry.key.text, entry.value
    if key in ("draws", "carry", "players"):
        fail("GS0190", f"'train.{key}' is not built yet", entry.key.span)
    if key == "optimizer":
        return call_of(value, spec, declared, "optimizer", "an optimizer, as adamw(weight_decay=0)")
    if key == "lr":
        return _schedule(value, spec)
    if key == "schedule":
        return call_of(value, spec, declared, "schedule", "a schedule, as plateau(patience=20)")
    if key == "groups":
        return [_group(e, spec) for e in _tree(value).entries]
    if key == "crop":
        return _crop(value, spec, graph)
    if key == "dump":
        return read_names(value, graph, {e.key.text for e in spec.entries("graph")})
    parameter = form.parameter(key)
    if parameter is None:
        known = ["optimizer", "lr", "schedule", "groups", "crop", *(p.name for p in form.parameters)]
        fail(
            "GS0602",
            f"'train' has no '{key}'{did_you_mean(key, known)}",
            entry.key.span,
            notes=[f"it has: {', '.join(known)}"],
        )
    word = value.text if parameter.kind == "enum" and isinstance(value, Scalar) else None
    plain = word if word is not None and word not in spec.home.params else _plain(value, spec)
    number: Any = fitting("train", parameter, plain, value.span)
    if is_number(number) and number <= 0 and key not in ("seed",):
        fail("GS0603", f"train.{key} must be more than 0, not {number}", value.span)
    try:
        form.build(**{key: number})
    except ValueError as error:
        fail("GS0603", str(error), value.span)
    return number


def _tree(node: Node) -> Tree:
    if not isinstance(node, Tree):
        fail("GS0133", "a mapping of names belongs here", node.span)
    return node


def _plain(node: Node, spec: Spec) -> Any:
    if not isinstance(node, Scalar):
        fail("GS0133", "a number belongs here", node.span)
    if node.plain and isinstance(node.value, str):
        return evaluate(parse_expression(node.content), spec.home.params)
    return node.value


def _schedule(node: Node, spec: Spec) -> Schedule:
    if isinstance(node, Scalar) and isinstance(node.value, (int, float)) and is_number(node.value):
        if node.value <= 0:
            fail("GS0603", f"a learning rate is more than 0, not {node.value}", node.span)
        return Schedule(None, {}, float(node.value))
    if not isinstance(node, Scalar):
        fail("GS0133", "a number or an expression of step belongs here", node.span)
    expr = parse_expression(node.content)
    for n in names(expr):
        if n.name not in spec.home.params and n.name != "step":
            _known_function(n)
    schedule = Schedule(expr, spec.home.params)
    for step in (0, 1):
        if not 0 <= schedule.at(step) < float("inf"):
            fail("GS0603", f"a learning rate is 0 or more; at update {step} this is {schedule.at(step)}", node.span)
    return schedule


def _known_function(name: Name) -> None:
    from graphspec.compiler.arithmetic import FUNCTIONS

    if name.name not in FUNCTIONS:
        fail("GS0201", f"there is no '{name.name}' here{did_you_mean(name.name, [*FUNCTIONS, 'step'])}", name.span)


def _group(entry: Entry, spec: Spec) -> Group:
    tree = _tree(entry.value)
    for e in tree.entries:
        if e.key.text not in ("lr", "weight_decay"):
            fail(
                "GS0602", f"a group has no '{e.key.text}'{did_you_mean(e.key.text, ('lr', 'weight_decay'))}", e.key.span
            )
    lr, decay = tree.get("lr"), tree.get("weight_decay")
    weight_decay = None
    if decay is not None:
        weight_decay = _plain(decay, spec)
        if not is_number(weight_decay) or weight_decay < 0:
            fail("GS0603", f"weight_decay is a number from 0, not {describe(weight_decay)}", decay.span)
    return Group(entry.key.text, _schedule(lr, spec) if lr is not None else None, weight_decay, entry.key.span)


def _crop(node: Node, spec: Spec, graph: Graph) -> dict[str, int]:
    lengths: dict[str, int] = {}
    symbols = {s for i in graph.inputs.values() for d in i.value.type.dims for s in d.symbols()}
    for e in _tree(node).entries:
        if e.key.text not in symbols and len(graph.inputs) < len(spec.entries("inputs")):
            continue  # it may be an axis of an input whose type was refused
        if e.key.text not in symbols:
            axes = [f"axes of inputs: {', '.join(sorted(symbols))}"] if symbols else []
            told = f"no input has an axis '{e.key.text}'{did_you_mean(e.key.text, symbols)}"
            fail("GS0604", told, e.key.span, notes=axes)
        length = _plain(e.value, spec)
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            fail("GS0603", f"a crop is a whole number from 1, not {describe(length)}", e.value.span)
        lengths[e.key.text] = length
    broken = graph.facts.check(lengths)
    if broken:
        multiple = {n: graph.facts.multiple(n) for n in lengths}
        fixes = [
            Fix(f"{n}: {max(1, round(v / multiple[n])) * multiple[n]}") for n, v in lengths.items() if v % multiple[n]
        ]
        fail("GS0605", f"the crop breaks a fact of require: {broken[0]}", node.span, fixes=fixes)
    return lengths


def call_of(node: Node, spec: Spec, declared: Catalogue, role: str, wanted: str) -> Setting:
    """A scalar such as `audio_folder("data", quantise=linear)` as a Setting."""
    if not isinstance(node, Scalar):
        fail("GS0133", f"{wanted} belongs here", node.span)
    expr = parse_expression(node.content)
    if isinstance(expr, Name):
        expr = Call(expr.span, False, expr, ())
    if not isinstance(expr, Call) or not isinstance(expr.function, Name):
        fail("GS0606", f"{wanted} belongs here, not '{expr.span.text[:60]}'", expr.span)
    name = expr.function.name
    found = declared.ops.get(name)
    if found is None or found.role != role:
        known = [n for n, d in declared.ops.items() if d.role == role]
        fail(
            "GS0606",
            f"'{name}' is not {wanted.split(',')[0]}{did_you_mean(name, known)}",
            expr.function.span,
            notes=[f"there are: {', '.join(known)}"],
        )
    arguments: dict[str, Any] = {}
    places: dict[str, Span] = {}
    open_parameters = list(found.parameters)
    for a in expr.arguments:
        if not isinstance(a, Argument):
            fail("GS0606", f"{name} takes no list here", a.span)
        parameter = found.parameter(a.name) if a.name else (open_parameters[0] if open_parameters else None)
        if parameter is None or parameter.name in arguments:
            fail(
                "GS0203",
                f"{name} does not take '{a.span.text[:60]}'"
                + did_you_mean(a.name or "", [p.name for p in found.parameters]),
                a.span,
                notes=[f"it is {found}"],
            )
        open_parameters = [p for p in open_parameters if p is not parameter]
        if parameter.kind == "enum" and isinstance(a.value, Name) and a.value.name not in spec.home.params:
            value: Any = a.value.name
        else:
            value = evaluate(a.value, spec.home.params)
        arguments[parameter.name] = fitting(name, parameter, value, a.span)
        places[parameter.name] = a.span
    for p in found.parameters:
        if p.required and p.name not in arguments:
            fail("GS0203", f"{name} needs '{p.name}'", expr.span, notes=[f"it is {found}"])
        arguments.setdefault(p.name, p.default)
    try:
        found.build(**arguments)
    except ValueError as error:
        blamed = [p for p in places if re.search(rf"\b{p}\b", str(error))]
        told = f"; {blamed[0]} is {arguments[blamed[0]]}" if len(blamed) == 1 else ""
        fail("GS0603", f"{name}: {error}{told}", places[blamed[0]] if len(blamed) == 1 else expr.span)
    return Setting(found, arguments, expr.span)
