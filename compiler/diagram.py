"""Diagrams of a spec, as Mermaid or Graphviz DOT text: no torch, no layout engine.

`named` draws one node per input, per value of `graph:`, per loss, and per value that is fed: the ops in between are
contracted into the name they make. `full` draws every op. Colour is rate, dashes are history (every path of the edge
passes a delay), a thick edge is the feed loop. Texts of a spec are untrusted: what ends a string, a line or a label in
either format, or reads as HTML or Markdown, is escaped.

Mermaid refuses to draw more than 500 edges or 50,000 characters, and no diagram can lift that: draw such graphs as DOT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from graphspec.compiler.clock import TimeTable
from graphspec.declare import show
from graphspec.excerpt import escaped, shown
from graphspec.graph import Constant, Graph, Value
from graphspec.time import Window
from graphspec.types import show_rate

Detail = Literal["named", "full"]
Kind = Literal["input", "value", "loss", "output", "drawn", "op"]

LABEL_LIMIT = 80  # characters of one line of a label
MOST_FIELDS = 6  # of a record, shown by name
STATIC = "#e0e0e0"
COLOURS = ("#cfe8ff", "#d5f5d0", "#fff1b8", "#ffd9c2", "#e7d6ff", "#ffd1e3", "#c9f2ee", "#eedfc8")  # fastest first


@dataclass(eq=False)
class Part:
    """What one name of the spec makes: a record or list holds several results. `ops`: all values it computes."""

    name: str
    kind: Kind
    results: tuple[Value, ...]
    ops: list[Value] = field(default_factory=list)
    fields: tuple[str, ...] = ()  # of a record

    @property
    def rate(self) -> Fraction | None:
        """The fastest rate among its results."""
        return max((v.type.rate for v in self.results if v.type.rate is not None), default=None)


def parts(graph: Graph) -> list[Part]:
    """The graph cut at its names, in dataflow order. Each value that anything needs belongs to one part.

    A name for what another name made already (`y: x`) is a part without ops.
    """
    found = [Part(n, "input", (i.value,)) for n, i in graph.inputs.items()]
    for name, made in graph.named.items():
        fields = tuple(made) if isinstance(made, Mapping) else ()
        found.append(Part(name, "value", tuple(leaves(made)), fields=fields))
    found += [Part(t.name, "loss", (t.value,)) for t in graph.losses]
    named = {v for p in found for v in p.results}
    found += [Part(n, "output", (v,)) for n, v in graph.outputs.items() if v not in named]
    found += [Part(f.source.path, "drawn", (f.drawn,)) for f in graph.feeds]
    taken: set[Value] = set()
    for part in found:
        stack = list(part.results)
        while stack:
            v = stack.pop()
            if v not in taken:
                taken.add(v)
                part.ops.append(v)
                stack.extend(v.values())
    order = {v: i for i, v in enumerate(graph.values)}
    for part in found:
        part.ops.sort(key=order.__getitem__)
    return found


def leaves(made: Any) -> Iterator[Value]:
    """The values in a name's meaning: itself, or those of its record or list, however deep."""
    if isinstance(made, Value):
        yield made
    elif isinstance(made, Mapping):
        for inner in made.values():
            yield from leaves(inner)
    elif isinstance(made, (list, tuple)):
        for inner in made:
            yield from leaves(inner)


def mermaid(graph: Graph, time: TimeTable, detail: Detail = "named") -> str:
    """A Mermaid flowchart. Ids are generated (n0, n1, ..): no text of the spec stands outside a quoted label."""
    return _mermaid(graph, _sketch(graph, time, detail))


def dot(graph: Graph, time: TimeTable, detail: Detail = "named") -> str:
    """A Graphviz digraph, with the spec's name and doc as its title."""
    return _dot(graph, _sketch(graph, time, detail))


# ---- what is drawn --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Node:
    kind: Kind
    lines: tuple[str, ...]
    rate: Fraction | None
    output: bool  # of the spec
    frame: str = ""  # the name it is an op of


@dataclass(frozen=True)
class _Edge:
    source: int
    target: int
    text: str = ""
    history: bool = False
    feed: bool = False


@dataclass(frozen=True)
class _Sketch:
    nodes: list[_Node]
    edges: list[_Edge]

    @property
    def rates(self) -> list[Fraction | None]:
        """Fastest first, static last."""
        rates = {n.rate for n in self.nodes}
        return [*sorted((r for r in rates if r is not None), reverse=True), *([None] if None in rates else [])]


def _sketch(graph: Graph, time: TimeTable, detail: Detail) -> _Sketch:
    return _full(graph, time) if detail == "full" else _named(graph, time)


def _named(graph: Graph, time: TimeTable) -> _Sketch:
    found = parts(graph)
    home: dict[Value, int] = {v: i for i, p in enumerate(found) for v in p.ops}
    outputs = set(graph.outputs.values())
    nodes = [_Node(p.kind, _part_text(p, time), p.rate, bool(outputs.intersection(p.results))) for p in found]
    edges: list[_Edge] = []
    for i, part in enumerate(found):
        edges += [_Edge(s, i, text, history) for s, text, history in _reads(part, i, found, home)]
    drawn = len(found) - len(graph.feeds)  # what is fed comes last, in order
    return _Sketch(nodes, edges + _feeds(graph, list(range(drawn, len(found))), home))


def _reads(part: Part, at: int, found: list[Part], home: Mapping[Value, int]) -> Iterator[tuple[int, str, bool]]:
    """The parts that one reads: (number, text, whether every path to its results passes a delay)."""
    # For each value of the part: operand from outside -> delays on the path with fewest of them.
    passed: dict[Value, dict[Value, tuple[Window, ...]]] = {}
    for v in part.ops:
        here: dict[Value, tuple[Window, ...]] = {}
        for operand, window in zip(v.operands, v.windows, strict=True):
            if isinstance(operand, Constant):
                continue
            late = (window,) if window.copies and window.past != 0 else ()
            for source, delays in (passed[operand] if home[operand] == at else {operand: ()}).items():
                if source not in here or len(delays) + len(late) < len(here[source]):
                    here[source] = delays + late
        passed[v] = here
    ends: dict[Value, tuple[Window, ...]] = {}
    for result in part.results:
        for source, delays in (passed[result] if home[result] == at else {result: ()}).items():
            if source not in ends or len(delays) < len(ends[source]):
                ends[source] = delays
    read: dict[int, tuple[str, bool]] = {}
    for source, delays in ends.items():
        number = home[source]
        text = "" if found[number].results == (source,) else _type(source)  # of a record: which of its values
        if len(delays) == 1 and delays[0].past > 0:
            text = f"{text} t-{delays[0].past}".strip()
        before = read.get(number)
        if before is None or (before[1] and not delays):
            read[number] = (text, bool(delays))
    for number, (text, history) in sorted(read.items()):
        yield number, text, history


def _full(graph: Graph, time: TimeTable) -> _Sketch:
    frames = {v: p.name for p in parts(graph) for v in p.ops if not v.is_input}
    number = {v: i for i, v in enumerate(graph.values)}
    outputs, losses = set(graph.outputs.values()), {t.value for t in graph.losses}
    drawn = {f.drawn for f in graph.feeds}
    nodes, edges = [], []
    for v in graph.values:
        kind: Kind = "input" if v.is_input else "loss" if v in losses else "drawn" if v in drawn else "op"
        nodes.append(_Node(kind, _op_text(v, time), v.type.rate, v in outputs, frames.get(v, "")))
        for operand, window in zip(v.operands, v.windows, strict=True):
            if isinstance(operand, Value):
                late = window.copies and window.past != 0
                edges.append(_Edge(number[operand], number[v], f"t-{window.past}" if late else "", late))
    return _Sketch(nodes, edges + _feeds(graph, [number[f.drawn] for f in graph.feeds], number))


def _feeds(graph: Graph, drawn: list[int], home: Mapping[Value, int]) -> list[_Edge]:
    return [_Edge(d, home[f.source], "fed back", feed=True) for d, f in zip(drawn, graph.feeds, strict=True)]


def _part_text(part: Part, time: TimeTable) -> tuple[str, ...]:
    titles = {"input": "input ", "loss": "loss ", "output": "output ", "drawn": "drawn for "}
    ops = sum(1 for v in part.ops if v.op is not None)
    lines = [titles.get(part.kind, "") + shown(part.name)]
    if len(part.results) == 1 and not part.fields:
        lines += [_type(part.results[0]), *hears(part.results[0], time)]
    else:
        fields = ", ".join(part.fields[:MOST_FIELDS]) + (", …" if len(part.fields) > MOST_FIELDS else "")
        lines.append(f"{len(part.results)} values" + (f" ({fields})" if fields else ""))
        if part.rate is not None:
            lines.append(f"@ {show_rate(part.rate)}")
    if part.kind != "input":
        lines.append(f"{ops} op{'' if ops == 1 else 's'}" if ops else "the same value")
    return tuple(lines)


def _op_text(value: Value, time: TimeTable) -> tuple[str, ...]:
    if value.is_input:
        return f"input {shown(value.path)}", _type(value)
    name = f".{value.part}" if value.part else value.op.name if value.op else ""
    given = ", ".join(f"{k}={show(a)}" for k, a in value.arguments.items())
    call = shown(f"{name}({given})" if given else name, LABEL_LIMIT)
    return shown(value.path, LABEL_LIMIT), call, _type(value), *hears(value, time)


def hears(value: Value, time: TimeTable) -> Iterator[str]:
    """`wave [-inf, -1]`: the ticks of each input it reads, from its own time on. (A static value has no time.)"""
    for name in time.of if value.type.timed else ():
        field = time.receptive_field(value, name)
        if field is not None and not value.is_input:
            yield f"{shown(name)} [{-field[0]}, {field[1]}]"


def _type(value: Value) -> str:
    return shown(str(value.type), LABEL_LIMIT)


# ---- Mermaid --------------------------------------------------------------------------------------------------------

_SHAPES: Mapping[str, tuple[str, str]] = {
    "input": ("[/", "/]"),
    "loss": ("{{", "}}"),
    "drawn": ("[[", "]]"),
}


def _mermaid(graph: Graph, sketch: _Sketch) -> str:
    rates = sketch.rates
    lines = ["flowchart TD"]
    title = re.sub(r"[^A-Za-z0-9_. -]", "?", graph.name)[:LABEL_LIMIT]  # comments have no escapes
    lines.append(f"  %% {title}")
    framed: dict[str, list[str]] = {}
    for i, node in enumerate(sketch.nodes):
        left, right = _SHAPES.get(node.kind, ("([", "])") if node.output else ("[", "]"))
        text = "<br/>".join(_mermaid_text(line) for line in node.lines)
        framed.setdefault(node.frame, []).append(f'  n{i}{left}"{text}"{right}:::rate{rates.index(node.rate)}')
    for i, (frame, told) in enumerate(framed.items()):
        if frame:
            lines.append(f'  subgraph s{i}["{_mermaid_text(shown(frame))}"]')
            lines += [f"  {line}" for line in told] + ["  end"]
        else:
            lines += told
    for e in sketch.edges:
        arrow = "==>" if e.feed else "-.->" if e.history else "-->"
        label = f'|"{_mermaid_text(e.text)}"|' if e.text else ""
        lines.append(f"  n{e.source} {arrow}{label} n{e.target}")
    for i, rate in enumerate(rates):
        lines.append(f"  classDef rate{i} fill:{_colour(rates, rate)},stroke:#555,color:#111")
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    """Mermaid's own character codes for all that its quotes, HTML labels, Markdown labels and directives could read."""
    return re.sub(r"[^A-Za-z0-9 ,./()=@\[\]-]", lambda m: f"#{ord(m.group())};", escaped(text))


# ---- DOT ------------------------------------------------------------------------------------------------------------

_DOT_SHAPES: Mapping[str, str] = {"input": "parallelogram", "loss": "hexagon", "drawn": "cds"}


def _dot(graph: Graph, sketch: _Sketch) -> str:
    rates = sketch.rates
    title = shown(graph.name) + (f": {shown(graph.doc, 2 * LABEL_LIMIT)}" if graph.doc else "")
    lines = [
        "digraph graphspec {",
        f'  graph [label="{_dot_text([title])}", labelloc="t", rankdir="TB", fontname="sans-serif"];',
        '  node [shape="box", style="filled,rounded", fontname="sans-serif", fontsize="10"];',
        '  edge [fontname="sans-serif", fontsize="9"];',
    ]
    framed: dict[str, list[str]] = {}
    for i, node in enumerate(sketch.nodes):
        shape = f', shape="{_DOT_SHAPES[node.kind]}", style="filled"' if node.kind in _DOT_SHAPES else ""
        double = ', peripheries="2"' if node.output else ""
        colour = _colour(rates, node.rate)
        line = f'  n{i} [label="{_dot_text(node.lines)}", fillcolor="{colour}"{shape}{double}];'
        framed.setdefault(node.frame, []).append(line)
    for i, (frame, told) in enumerate(framed.items()):
        if frame:
            lines.append(f"  subgraph cluster_{i} {{")
            lines.append(f'    label="{_dot_text([shown(frame)])}"; color="#999999";')
            lines += [f"  {each}" for each in told] + ["  }"]
        else:
            lines += told
    for e in sketch.edges:
        looks = [f'label="{_dot_text([e.text])}"'] if e.text else []
        if e.history:
            looks.append('style="dashed"')
        if e.feed:
            looks += ['style="bold"', 'constraint="false"', 'color="#b03030"']
        lines.append(f"  n{e.source} -> n{e.target}" + (f" [{', '.join(looks)}];" if looks else ";"))
    return "\n".join([*lines, "}"]) + "\n"


def _dot_text(lines: Iterable[str]) -> str:
    """The inside of a quoted string: backslashes would start an escape, `&` an HTML entity."""
    return r"\n".join(escaped(x).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for x in lines)


def _colour(rates: list[Fraction | None], rate: Fraction | None) -> str:
    return STATIC if rate is None else COLOURS[rates.index(rate) % len(COLOURS)]
