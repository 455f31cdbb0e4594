"""graphspec latency SPEC [NAME=VALUE ...] [--value NAME] [--format json]: how late a stream of it is, and why."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import check_spec, show
from graphspec.diagnostic import Findings, SpecError, did_you_mean, fail

if TYPE_CHECKING:
    from graphspec.compiler.latency import Plan
    from graphspec.graph import Value

MOST_SHOWN = 6  # waits and savings of one output


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a path (with / or .yaml), or the name of a shipped spec")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="a param (d=128) or a dotted path")
    parser.add_argument("--value", metavar="NAME", help="an output, or a name of graph: (default: all outputs)")
    parser.add_argument("--format", choices=("human", "json"), default="human")


def run(options: argparse.Namespace) -> int:
    findings = Findings()
    checked = check_spec(options.spec, options.overrides, findings)
    from graphspec.compiler.latency import plan

    graph = checked.graph
    named = {n: v for n, v in {**graph.named, **graph.outputs}.items() if hasattr(v, "type") and v.type.timed}
    targets = {n: v for n, v in graph.outputs.items() if v.type.timed}
    if options.value is not None:
        if options.value not in named:
            near = did_you_mean(options.value, named)
            fail("GS0638", f"the spec has no value '{options.value}' along time{near}", None)
        targets = {options.value: named[options.value]}
    if not targets:
        fail("GS0638", "the spec has no output along time", None, notes=[f"--value names one of: {', '.join(named)}"])
    show(findings.all())
    plans: dict[str, Plan] = {}
    refused: list[SpecError] = []
    for name, value in targets.items():
        try:
            plans[name] = plan(graph, value, checked.regions)
        except SpecError as error:
            refused.append(error)
    if options.format == "json":
        print(json.dumps({name: _as_json(p) for name, p in plans.items()}, indent=2))
    else:
        print("\n\n".join(_told(name, p) for name, p in plans.items()))
    for each in refused:
        show(each.diagnostics)
    return 1 if refused else 0


def _told(name: str, p: Plan) -> str:
    lines = [f"{name}: {p.ticks} samples late at {float(p.rate):g} Hz, {1000 * float(p.seconds):.2f} ms"]
    if not p.ticks:
        return "\n".join([*lines, "  every element is out with the sample in which it begins"])
    width = max(len(h.value.path) for h in p.path)
    lines.append(f"  {'critical path':{width + 2}} {'late':>8} {'added':>8}")
    lines += [
        f"    {h.value.path:{width}} {h.ticks:8} {f'+{h.added}' if h.added > 0 else '':>8}  {_where(h.value)}".rstrip()
        for i, h in enumerate(p.path)
        if h.added > 0 or i in (0, len(p.path) - 1)
    ]
    if p.waits:
        lines.append("  inserted delays")
        lines += [f"    {w.operand.path} waits {w.ticks} for the rest of {w.value.path}" for w in p.waits[:MOST_SHOWN]]
        lines += [f"    and {len(p.waits) - MOST_SHOWN} more"] if len(p.waits) > MOST_SHOWN else []
    if p.savings:
        lines.append("  what would save most")
        for s in p.savings[:MOST_SHOWN]:
            how = f"with {s.change}" if s.change else "if it waited for nothing"
            lines.append(f"    {s.value.path} {how}: {s.ticks}  {_where(s.value)}")
    return "\n".join(lines)


def _where(v: Value) -> str:
    return f"{v.span.source.path}:{v.span.line}"


def _as_json(p: Plan) -> dict[str, Any]:
    return {
        "rate": float(p.rate),
        "samples": p.ticks,
        "ms": 1000 * float(p.seconds),
        "path": [{"value": h.value.path, "late": h.ticks, "added": h.added, "at": _where(h.value)} for h in p.path],
        "waits": [{"value": w.value.path, "operand": w.operand.path, "samples": w.ticks} for w in p.waits],
        "savings": [{"value": s.value.path, "change": s.change, "samples": s.ticks} for s in p.savings],
    }
