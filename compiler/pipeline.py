"""The whole compiler on one page: the passes in order, each pure, with the law checked between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphspec.compiler.advise import advise
from graphspec.compiler.build import build
from graphspec.compiler.clock import TimeTable, prove, time_table
from graphspec.compiler.once import once
from graphspec.compiler.plan import schedule
from graphspec.compiler.regions import Region, regions
from graphspec.compiler.resolve import Files, Spec, resolve
from graphspec.compiler.settings import Settings, read_settings
from graphspec.compiler.taking import nodes
from graphspec.declare import Catalogue
from graphspec.diagnostic import Findings, SpecError
from graphspec.document import Document
from graphspec.graph import Graph, lint


@dataclass(frozen=True)
class Checked:
    """A spec that holds: resolved, typed, its causality proven, its settings read. No torch so far."""

    spec: Spec
    graph: Graph
    time: TimeTable
    settings: Settings
    catalogue: Catalogue
    regions: tuple[Region, ...] = ()  # of its loops


def check(
    document: Document,
    catalogue: Catalogue,
    files: Files,
    settings: Catalogue,
    overrides: Iterable[str] = (),
    findings: Findings | None = None,
) -> Checked:
    """Everything `lint` does. Raises SpecError with all independent errors."""
    findings = findings if findings is not None else Findings()
    spec = resolve(document, files, overrides, findings)  # use, params, overrides, blocks
    if any(d.code not in ("GS0130", "GS0190") for d in findings.errors()):
        findings.stop_on_errors()  # an unknown section hides nothing; a broken param would
    graph = build(spec, catalogue, files, findings)  # AST -> typed values
    told = read_settings(spec, graph, settings, findings)  # data: and train:
    findings.revise(once(spec.document.root))
    findings.stop_on_errors()
    lint(graph)
    found = regions(graph, catalogue)  # what reads itself, and how it will run
    table = time_table(graph)  # what reads what
    prove(graph, table, findings)
    findings.stop_on_errors()
    advise(spec, graph, table, told, catalogue, findings)  # what is legal and hardly meant
    for entry in graph.entries.values():
        if not entry.feeds:
            continue
        try:
            schedule(entry)
        except SpecError as error:
            findings.add(*(d for d in error.diagnostics if d.code != "GS0641"))
            findings.stop_on_errors()
            try:  # what the schedule does not reach is sampled as a stream
                nodes(entry, [f.drawn for f in entry.feeds], regions(entry, catalogue))
            except SpecError as refused:  # it trains all the same; better told before than after
                findings.add(*(replace(d, severity="warning") for d in refused.diagnostics))
    return Checked(spec, graph, table, told, catalogue, found)
