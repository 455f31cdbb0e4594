"""Pass 4, advise: what is legal and hardly meant. Warnings only; nothing here changes what is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf, prod
from typing import Any

from graphspec.compiler.arithmetic import evaluate
from graphspec.compiler.clock import TimeTable
from graphspec.compiler.resolve import Spec
from graphspec.compiler.settings import Settings
from graphspec.compiler.stages import Instance
from graphspec.declare import Catalogue
from graphspec.diagnostic import Diagnostic, Findings, Fix, Related
from graphspec.expression import parse_free
from graphspec.graph import Graph, Value
from graphspec.span import Span

MUCH = 1e9  # bytes of logits a second of audio worth a word
LONG = 4096  # elements over which comparing each with each is worth a word


def advise(
    spec: Spec, graph: Graph, table: TimeTable, settings: Settings, catalogue: Catalogue, findings: Findings
) -> None:
    reached = _Reached(graph)
    if reached.roots:
        findings.add(*_unused(spec, graph, reached))
    findings.add(*_instances(spec, graph))
    findings.add(*_untrained(graph, reached))
    findings.add(*_heads(graph, reached))
    findings.add(*_upside_down(graph))
    findings.add(*_wide_heads(graph))
    findings.add(*_crops(graph, table, settings))
    findings.add(*_pairs(graph, settings))
    findings.add(*_stretched(graph))
    findings.add(*_shadowing(spec, catalogue))


def _told(code: str, message: str, span: Span, *fixes: str, related: Iterable[Related] = ()) -> Diagnostic:
    return Diagnostic(code, message, span, "warning", related=tuple(related), fixes=tuple(Fix(f) for f in fixes))


class _Reached:
    """Which values a loss depends on, and which anything does: by path, since views hold copies."""

    def __init__(self, graph: Graph):
        trained = [v for t in graph.losses for v in (t.value, t.mask, t.weight) if isinstance(v, Value)]
        others = [t.value for t in graph.metrics] + list(graph.outputs.values())
        self.by_loss = {v.path for v in graph.needed_for(trained)}
        self.roots = [*trained, *others]
        self.by_any = {v.path for v in graph.needed_for(self.roots)}
        for view in (*graph.entries.values(), *([graph.evaluation] if graph.evaluation else [])):
            self.by_any |= {v.path for v in view.values}
            self.roots += view.outputs.values()


def _leaves(made: Any) -> Iterator[Value]:
    if isinstance(made, Value):
        yield made
    elif isinstance(made, dict):
        for part in made.values():
            yield from _leaves(part)
    elif isinstance(made, tuple):
        for part in made:
            yield from _leaves(part)


def _unused(spec: Spec, graph: Graph, reached: _Reached) -> Iterator[Diagnostic]:
    keys = {e.key.text: e.key.span for s in ("graph", "inputs") for e in spec.entries(s)}
    for name, made in graph.named.items():
        leaves = list(_leaves(made))
        # A number written as a value has no element of its own to be read.
        if leaves and not any(v.path in reached.by_any for v in leaves) and name in keys:
            yield _told(
                "GS0230",
                f"'{name}' reaches no loss, metric, output or entry",
                keys[name],
                "delete it, or name it in outputs:",
            )
    for name, given in graph.inputs.items():
        if given.value.path not in reached.by_any and name in keys:
            yield _told("GS0231", f"input '{name}' is not used", keys[name], "delete it")


def _instances(spec: Spec, graph: Graph) -> Iterator[Diagnostic]:
    owners = {v.owner.split(".")[0] if v.owner else "" for v in graph.values}
    for name, made in spec.home.shared.items():
        first = made[0] if isinstance(made, tuple) and made else made
        if isinstance(first, Instance) and name not in owners:
            yield _told("GS0518", f"'{name}' of shared: is never used", first.span, "delete it, or use it in the graph")


def _untrained(graph: Graph, reached: _Reached) -> Iterator[Diagnostic]:
    """Weights that something uses and no loss reaches."""
    if not graph.losses:
        return
    told = set()
    shared = {v.owner for v in graph.values if v.owner and v.path in reached.by_loss}
    for v in graph.values:
        top = v.path.split(".")[0]
        learns = v.op is not None and v.op.weights and not v.op.of and not v.frozen
        learns = learns and v.arguments.get("affine") is not False
        if learns and v.path in reached.by_any and v.path not in reached.by_loss and v.owner not in shared - {""}:
            if top not in told:
                told.add(top)
                yield _told("GS0670", f"no loss reaches '{top}': its weights stay as they are drawn", v.span)


def _heads(graph: Graph, reached: _Reached) -> Iterator[Diagnostic]:
    """What is drawn from a distribution is scored by its nll; on the same value that is fed."""
    scored: dict[str, list[Value]] = {}
    for v in graph.values:
        if v.path in reached.by_loss and len(v.operands) == 2:
            d, x = v.operands
            if isinstance(d, Value) and d.type.meaning is not None and isinstance(x, Value):
                scored.setdefault(d.path, []).append(x)
    if not graph.losses:
        return
    for f in graph.feeds:
        drawn = [o for o in f.drawn.values() if o.type.meaning is not None]
        for d in drawn:
            if d.path not in scored:
                yield _told(
                    "GS0671",
                    f"'{f.source.path}' is drawn from '{d.path}', but no loss is its nll",
                    f.span,
                    f"add the loss nll({d.path.split('.')[0]}, {f.source.path.split('.')[0]})",
                )
            elif not any(x.path == f.source.path for x in scored[d.path]):
                others = ", ".join(sorted({x.path for x in scored[d.path]}))
                yield _told(
                    "GS0671",
                    f"'{f.source.path}' is drawn from a distribution that the losses score on {others}",
                    f.span,
                    related=[Related("the distribution", d.span)],
                )


def _upside_down(graph: Graph) -> Iterator[Diagnostic]:
    """A log-likelihood as a loss, or its mean: it would be made small."""
    for t in graph.losses:
        v: Any = t.value
        while isinstance(v, Value) and v.op is not None and v.op.name in ("mean", "sum", "take"):
            v = v.operands[0]
        rising = isinstance(t.weight, Value) or t.weight > 0
        if isinstance(v, Value) and v.op is not None and v.op.name == "log_prob" and rising:
            yield _told(
                "GS0673",
                f"the loss '{t.name}' is a log-likelihood, and training makes losses small",
                v.span,
                v.span.text.replace("log_prob", "nll", 1),
            )


def _wide_heads(graph: Graph) -> Iterator[Diagnostic]:
    """Heads of so many classes that their logits fill the memory."""
    for v in graph.values:
        m, rate = v.type.meaning, v.type.rate
        if v.op is None or m is None or m.name != v.op.name or m.name != "categorical" or rate is None:
            continue
        sizes = [d.as_int() for d in v.type.tensor_axes[1:]]
        a_second = 4 * float(rate) * prod(n for n in sizes if n is not None)
        if a_second < MUCH:
            continue
        classes = m.arguments[0]
        bits = classes.bit_length() - 1
        yield _told(
            "GS0807",
            f"{classes} classes take {a_second / 1e9:.1f} GB of logits a second of audio",
            v.span,
            f"dml(10, {bits}) has 30 numbers where this has {classes}"
            if 2**bits == classes and bits <= 16
            else "quantise to fewer classes",
        )


def _crops(graph: Graph, table: TimeTable, settings: Settings) -> Iterator[Diagnostic]:
    """What a value reads of an input, and history, against the length of a crop."""
    for name, given in graph.inputs.items():
        symbols = given.value.type.dims[0].symbols() if given.value.type.timed else set()
        crop = next((settings.crop[s] for s in symbols if s in settings.crop), None)
        if crop is None or name not in table.of:
            continue
        for t in graph.losses:
            for v in graph.needed_for([t.value]):
                if v.windows and v.windows[0].copies and v.type.rate == given.value.type.rate:
                    past = v.windows[0].past
                    if past != inf and past >= crop:
                        yield _told(
                            "GS0672", f"the history of {int(past)} ticks is longer than the crop of {crop}", v.span
                        )
            deepest = [(f[0], v) for v in t.value.values() if (f := table.receptive_field(v, name)) is not None]
            for past, v in deepest:
                if past != inf and past > crop:
                    yield _told(
                        "GS0672",
                        f"'{v.path.split('.')[0]}' hears {int(past)} ticks of '{name}', but a crop has {crop}",
                        v.span,
                        f"crop at least {int(past)}, or make the model hear less",
                    )
                    break


def _pairs(graph: Graph, settings: Settings) -> Iterator[Diagnostic]:
    """Ops that compare every element with every other, over a long axis."""
    for v in graph.values:
        if v.op is None or not v.op.pairs:
            continue
        given = {d.name: ("given" if d.name in v.slots else None) for d in v.op.parsed.operands}
        if not evaluate(parse_free(v.op.pairs), {**given, **v.arguments}):
            continue
        length = v.type.dims[0]
        sizes = {s: settings.crop[s] for s in length.symbols() if s in settings.crop}
        if length.symbols() - sizes.keys():
            continue
        n = int(length.evaluate(sizes))
        if n >= LONG:
            heads = v.arguments.get("heads", 1)
            size = f"{4 * heads * n * n / 2**30:.1f} GiB"
            yield _told(
                "GS0806",
                f"{v.op.name} compares {n} elements with each other: {size} of scores an example",
                v.span,
                "give it a window, or pool the sequence first",
            )


def _stretched(graph: Graph) -> Iterator[Diagnostic]:
    """A loss between values of unlike channels: one is stretched, which is legal and seldom meant."""
    for t in graph.losses:
        for v in graph.needed_for([t.value]):
            if v.path.split(".")[0] != t.name or len(v.operands) != 2:
                continue
            sizes = [
                o.type.dims[-1].as_int() for o in v.values() if o.type.timed and not o.type.meaning and o.type.dims
            ]
            if len(sizes) == 2 and sizes[0] != sizes[1] and 1 in sizes:
                yield _told(
                    "GS0317", f"the loss '{t.name}' stretches 1 channel over {max(s or 1 for s in sizes)}", v.span
                )


def _shadowing(spec: Spec, catalogue: Catalogue) -> Iterator[Diagnostic]:
    for name, block in spec.home.blocks.items():
        if name in catalogue.ops:
            yield Diagnostic("GS0232", f"block '{name}' hides the op of this name", block.span, "note")
