"""What `graphspec compile` tells and writes: the report for people, the graph as JSON, both forms as Python text.

All of it is a function of the spec and of this version of graphspec: no dates, folders or addresses, so that two
compilations can be compared by their files. Texts of a spec are untrusted and stand in comments and strings escaped.
Long by a little: three renderings of one compilation, which would only hand its parts to each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from math import inf, isfinite
from typing import Any

from graphspec.compiler import cost
from graphspec.compiler.clock import reaches
from graphspec.compiler.diagram import Part, dot, leaves, mermaid, parts
from graphspec.compiler.lower import Model
from graphspec.compiler.pipeline import Checked
from graphspec.compiler.plan import Schedule, schedule
from graphspec.compiler.regions import told
from graphspec.diagnostic import SpecError
from graphspec.excerpt import escaped, shown
from graphspec.graph import Constant, Graph, Value
from graphspec.span import Source, Span
from graphspec.time import Ticks, Window, excess
from graphspec.types import Type, show_rate

FORMAT = 1  # of graph.json
TYPE_LIMIT = 60


def report(model: Model) -> str:
    """The report of a model on the meta device: values, totals, proofs, schedule, cost. Ends in a line break."""
    checked, graph = model.checked, model.graph
    plan, unplanned = _plan(graph)
    counted, uncounted = _counted(checked) if model.targets else (None, "")
    sections = [
        [shown(graph.name) + (f": {shown(graph.doc, 400)}" if graph.doc else "")],
        _values(model, counted),
        _totals(model),
        _proofs(checked),
        _loops(checked),
        _schedule(plan, unplanned),
        _cost(checked, plan, counted, uncounted),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


# ---- the report's sections ------------------------------------------------------------------------------------------


def _values(model: Model, counted: cost.Whole | None) -> list[str]:
    checked = model.checked
    timed = list(checked.time.of)
    header = ["value", "type"]
    for name in timed:
        header += [f"reads of {shown(name, 20)}", "ms"]
    rows = [[*header, "weights", "MFLOP"]]
    seen: set[Value] = set()
    for part in parts(checked.graph):
        seen.update(part.ops)
        rows.append(_row(model, part, timed, counted))
    rest = [v for v in model.values if v not in seen]
    if rest:
        row = ["(metrics, unread)", _several(len(rest)), *[""] * (2 * len(timed))]
        rows.append([*row, _weights(model, rest), _mega(rest, counted)])
    if counted is None:
        rows = [row[:-1] for row in rows]
    return _table(rows, right=len(rows[0]) - 2)


def _row(model: Model, part: Part, timed: list[str], counted: cost.Whole | None) -> list[str]:
    titles = {"input": "input ", "loss": "loss ", "output": "output ", "drawn": "drawn for "}
    one = part.results[0] if len(part.results) == 1 else None
    row = [titles.get(part.kind, "") + shown(part.name)]
    row.append(shown(str(one.type), TYPE_LIMIT) if one else _several(len(part.results)))
    for name in timed:
        row += _reading(model.checked, part.results, name) if part.kind != "input" else ["", ""]
    return [*row, _weights(model, part.ops), _mega(part.ops, counted)]


def _weights(model: Model, values: Iterable[Value]) -> str:
    count = cost.weights(model, values)
    return f"{count:,}" if count else ""


def _several(count: int) -> str:
    return f"{count} value{'' if count == 1 else 's'}"


def _reading(checked: Checked, values: Iterable[Value], name: str) -> list[str]:
    """`[-inf, -1]` in ticks of the input and in ms: the widest over several values; empty where nothing is read."""
    fields = [f for v in values if (f := checked.time.receptive_field(v, name)) is not None]
    if not fields:
        return ["", ""]
    rate = checked.graph.inputs[name].value.type.rate
    assert rate is not None
    first, last = -max(past for past, _ in fields), max(future for _, future in fields)
    return [f"[{_ticks(first)}, {_ticks(last)}]", f"[{_ms(first, rate)}, {_ms(last, rate)}]"]


def _totals(model: Model) -> list[str]:
    checked, graph = model.checked, model.graph
    lines = [f"weights: {cost.weights(model, model.values):,} in {len(list(model.parameters()))} tensors"]
    if not model.targets:
        lines.append("nothing to compute: the spec has no losses, metrics or outputs")
    for title, values in (("outputs", list(graph.outputs.values())), ("what is drawn", [f.drawn for f in graph.feeds])):
        for name in checked.time.of:
            samples, ms = _reading(checked, values, name)
            if samples:
                lines.append(f"receptive field of {title} in {shown(name)}: {samples} samples, {ms} ms")
    for name in checked.time.of:
        ahead = [f[1] for v in graph.outputs.values() if (f := checked.time.receptive_field(v, name)) is not None]
        if ahead:
            latest = max(0, *ahead)
            rate = graph.inputs[name].value.type.rate
            assert rate is not None
            lines.append(f"latency after {shown(name)}: {_ticks(latest)} samples, {_ms(latest, rate)} ms")
    return lines


def _proofs(checked: Checked) -> list[str]:
    lines = []
    for a in checked.graph.assertions:
        for source in a.sources:
            table = checked.time.of.get(source.path) if source.is_input else None
            reach = (table if table is not None else reaches(checked.graph, source)).get(a.value)
            claim = "strictly causal" if a.allowed == "strict" else f"at most {a.allowed} ticks ahead"
            how = "reads nothing of it" if reach is None else _slack(-excess(reach, a.allowed))  # type: ignore[arg-type]
            lines.append(f"proven: {shown(a.name)} is {claim} in {shown(source.path)} ({how})")
    for f in checked.graph.feeds:
        lines.append(f"proven: what is drawn for {shown(f.source.path)} is strictly causal, so it can be fed back")
    return lines


def _slack(spare: Ticks) -> str:
    return "to the tick" if spare == 0 else f"{_ticks(spare)} ticks to spare"


def _plan(graph: Graph) -> tuple[Schedule | None, str]:
    entry = graph.entries.get("sample")
    if entry is None or not entry.feeds:
        return None, ""
    try:
        return schedule(entry), ""
    except SpecError as error:
        return None, "; ".join(shown(d.message, 200) for d in error.diagnostics)


def _loops(checked: Checked) -> list[str]:
    return ["loops:", *(f"  {shown(told(r), 200)}" for r in checked.regions)] if checked.regions else []


def _schedule(plan: Schedule | None, unplanned: str) -> list[str]:
    if plan is None:
        return [f"sampling: as a stream, tick by tick: {unplanned}"] if unplanned else []
    timed = [v for v in plan.values if v.type.timed and v.op is not None]
    ticks: dict[Value, set[int]] = {}
    for fire in plan.fires:
        if fire.value.op is not None:
            ticks.setdefault(fire.value, set()).add(fire.at // plan.phases)
    ran = sum(len(at) for at in ticks.values())
    share = ran / max(1, len(timed) * plan.block)
    lines = [
        f"sampling: a block of {plan.block} ticks; {share:.0%} of {_several(len(timed))} run in a tick, on average"
    ]
    rows = []
    for rate in sorted({v.type.rate for v in timed if v.type.rate is not None}, reverse=True):
        mine = [v for v in timed if v.type.rate == rate]
        run = sorted({len(ticks.get(v, ())) for v in mine})
        often = " or ".join(str(n) for n in run)
        rows.append([f"  {show_rate(rate)}", _several(len(mine)), f"in {often} of {plan.block} ticks"])
    if plan.static:
        rows.append(["  static", _several(len(plan.static)), "once, before the first tick"])
    return lines + _table(rows, right=len(rows[0]) if rows else 0)


def _counted(checked: Checked) -> tuple[cost.Whole | None, str]:
    try:
        return cost.whole(checked), ""
    except cost.UncountedError as error:
        return None, shown(str(error), 300)


def _cost(checked: Checked, plan: Schedule | None, counted: cost.Whole | None, uncounted: str) -> list[str]:
    lines = []
    if uncounted:
        lines.append(f"cost: not counted, {uncounted}")
    if counted is not None:
        crop = ", ".join(f"{shown(k)}={v}" for k, v in counted.sizes.items()) or "one step"
        flops = sum(counted.flops.values())
        lines.append(
            f"cost, forward, one row of {crop}: {_scaled(flops, 1000, 'FLOP')} in products and convolutions; "
            f"{_scaled(counted.bytes, 1024, 'B')} of results in float32"
        )
    if plan is not None:
        try:
            tick = cost.tick(checked, plan)
        except cost.UncountedError as error:
            lines.append(f"cost, a tick of sampling: not counted, {shown(str(error), 300)}")
        else:
            less = f", {tick.every / tick.scheduled:.1f}x less" if tick.scheduled else ""
            lines.append(
                f"cost, a tick of sampling, one row: {_scaled(tick.scheduled, 1000, 'FLOP')} on the schedule{less} "
                f"than with every value at every tick ({_scaled(tick.every, 1000, 'FLOP')})"
            )
    if lines:
        lines.append("not counted: FFTs, elementwise functions (most of a scan), norms, reductions; the backward pass")
    return lines


def _mega(values: Iterable[Value], counted: cost.Whole | None) -> str:
    flops = sum(counted.flops.get(v, 0) for v in values) if counted else 0
    return f"{flops / 1e6:,.2f}" if flops else ""


def _scaled(amount: float, base: int, unit: str) -> str:
    prefixes = ["", "k", "M", "G", "T", "P"] if base == 1000 else ["", "Ki", "Mi", "Gi", "Ti", "Pi"]
    at = 0
    while amount >= base and at < len(prefixes) - 1:
        amount, at = amount / base, at + 1
    return f"{amount:.4g} {prefixes[at]}{unit}"


def _table(rows: list[list[str]], right: int) -> list[str]:
    """Columns of text; those from number `right` on are flush right."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    used = [i for i, w in enumerate(widths) if w]
    return [
        "  ".join(row[i].rjust(widths[i]) if i >= right else row[i].ljust(widths[i]) for i in used).rstrip()
        for row in rows
    ]


def _ticks(n: Ticks) -> str:
    return str(n) if not isinstance(n, float) or not isfinite(n) else f"{n:g}"


def _ms(n: Ticks, rate: Fraction) -> str:
    return _ticks(n) if n in (inf, -inf) else f"{float(n / rate * 1000):.4g}"


# ---- the forms as Python --------------------------------------------------------------------------------------------


def python(model: Model, form: str) -> str:
    """The generated Python of a form, `whole` or `step`: to read, not to import; the modules are the model's.

    The names in it are generated. A comment before it says which value of the spec each of them is.
    """
    lines = [
        '"""Generated by graphspec compile: what torch.fx runs. `self.m12` is the module of the value told below."""',
        "",
        f"# the {form} form of {escaped(model.graph.name)}",
    ]
    try:
        held = model.whole_form if form == "whole" else model.step_of_targets
    except NotImplementedError as error:
        return "\n".join([*lines, f"# there is none: {shown(str(error), 300)}"]) + "\n"
    module = held.module
    named = [(f"in_{i}", f"input {v.path}: {v.type}") for i, v in enumerate(held.inputs)]
    named += [(f"noise_{i}", f"noise of {v.path}: {v.noise}") for i, v in enumerate(held.noises)]
    named += [(f"state_{i}", f"state {path}") for i, path in enumerate(held.states)]
    named += [(f"prepared_{i}", f"prepared {path}") for i, path in enumerate(held.prepared)]
    used = {str(n.target) for n in module.graph.nodes if n.op == "call_module"}
    for i, v in enumerate(model.values):
        if f"m{i}" in used and v.op is not None:
            named.append((f"m{i}", f"{v.path} = {_called(v)}: {v.type}"))
    width = max((len(name) for name, _ in named), default=0)
    lines += [f"#   {name.ljust(width)}  {escaped(told)}" for name, told in named]
    return "\n".join([*lines, "", "", module.code.strip()]) + "\n"


def _called(value: Value) -> str:
    given = [o.path if isinstance(o, Value) else str(o.value) for o in value.operands]
    given += [f"{k}={a}" for k, a in value.arguments.items()]
    return f"{value.op.name if value.op else ''}({', '.join(given)})"


# ---- the graph as JSON ----------------------------------------------------------------------------------------------


def graph_json(checked: Checked) -> str:
    """The typed graph as JSON text, values in dataflow order. Infinite numbers, dims and rates are texts.

    `sources` are the files by name and SHA-256; a span names its source by number, lines and columns from 1, the end
    exclusive. Of a window: element k reads operand elements floor(k*stride) - past .. floor(k*stride) + future.
    """
    graph = checked.graph
    files = _Files()
    values = [_value(v, checked, files) for v in graph.values]
    out = {
        "format": "graphspec.graph",
        "version": FORMAT,
        "name": graph.name,
        "doc": graph.doc,
        "params": {n: _plain(p) for n, p in graph.params.items()},
        "require": [str(fact) for fact in graph.facts.known],
        "inputs": [
            {"value": n, "default": _plain(i.default), "before": _plain(i.value.before), "optional": i.optional}
            for n, i in graph.inputs.items()
        ],
        "values": values,
        "named": {n: [v.path for v in leaves(made)] for n, made in graph.named.items()},
        "losses": [{"name": t.name, "value": t.value.path, "weight": _plain(t.weight)} for t in graph.losses],
        "metrics": [{"name": t.name, "value": t.value.path} for t in graph.metrics],
        "outputs": {n: v.path for n, v in graph.outputs.items()},
        "causal": [
            {"name": a.name, "value": a.value.path, "sources": [s.path for s in a.sources], "allowed": a.allowed}
            for a in graph.assertions
        ],
        "feeds": [{"input": f.source.path, "drawn": f.drawn.path} for f in graph.feeds],
        "sources": files.told,
    }
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {_lines(v)}" for k, v in out.items()) + "\n}\n"


def _lines(made: Any) -> str:
    """JSON with one element of a list of objects a line, so that two graphs can be compared by `diff`."""
    if isinstance(made, list) and made and isinstance(made[0], dict):
        return "[\n" + ",\n".join(f" {json.dumps(m, allow_nan=False)}" for m in made) + "\n]"
    return json.dumps(made, allow_nan=False)


class _Files:
    """Files as they are met. Their folders are left out: the same spec gives the same text wherever it lies."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        self.numbers: dict[Source, int] = {}

    def span(self, span: Span) -> dict[str, int]:
        if span.source not in self.numbers:
            self.numbers[span.source] = len(self.told)
            digest = hashlib.sha256(span.source.text.encode("utf-8", "surrogatepass")).hexdigest()
            name = span.source.path.replace("\\", "/").rsplit("/", 1)[-1]
            self.told.append({"name": name, "sha256": digest})
        line, column = span.source.place(span.start)
        end_line, end_column = span.source.place(span.end)
        place = {"line": line, "column": column, "end_line": end_line, "end_column": end_column}
        return {"source": self.numbers[span.source], **place}


def _value(value: Value, checked: Checked, files: _Files) -> dict[str, Any]:
    reads = {n: f for n in checked.time.of if (f := checked.time.receptive_field(value, n)) is not None}
    return {
        "path": value.path,
        "op": value.op.name if value.op else None,
        "part": value.part,
        "operands": [
            {"constant": _plain(o.value)} if isinstance(o, Constant) else {"value": o.path} for o in value.operands
        ],
        "slots": list(value.slots),
        "arguments": {k: _plain(a) for k, a in value.arguments.items()},
        "type": _type(value.type),
        "noise": _type(value.noise) if value.noise is not None else None,
        "windows": [_window(w) for w in value.windows],
        "reads": {n: [_plain(-past), _plain(future)] for n, (past, future) in reads.items()},
        "span": files.span(value.span),
    }


def _type(type_: Type) -> dict[str, Any]:
    return {
        "text": str(type_),
        "dtype": type_.dtype.kind,
        "classes": type_.dtype.classes,
        "dims": [str(d) for d in type_.dims],
        "rate": str(type_.rate) if type_.rate is not None else None,
        "meaning": str(type_.meaning) if type_.meaning else None,
        "axes": [str(d) for d in type_.tensor_axes],
    }


def _window(window: Window) -> dict[str, Any]:
    ends = {"past": _plain(window.past), "future": _plain(window.future)}
    group = {"group": window.group} if window.group > 1 else {}
    return {"stride": str(window.stride), **ends, "copies": window.copies, **group}


def _plain(value: Any) -> Any:
    """A compile-time value as JSON has it; what JSON cannot hold (infinity, sizes, fractions) as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return str(value) if type(value).__str__ is not object.__str__ else type(value).__name__


def files(model: Model) -> Iterator[tuple[str, str]]:
    """(name, text) of everything that `compile -o` writes."""
    checked = model.checked
    yield "report.txt", report(model)
    yield "whole.py", python(model, "whole")
    yield "step.py", python(model, "step")
    yield "graph.json", graph_json(checked)
    yield "diagram.mmd", mermaid(checked.graph, checked.time)
    yield "diagram.dot", dot(checked.graph, checked.time)
