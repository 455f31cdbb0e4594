"""`graphspec verify`: that on this very spec the two forms agree, rows are apart, and time is as proven. Seeded.

Every timed value of the graph is compared, in dataflow order, so the first that differs is the one to blame. Numbers
are float64 and small in time; weights are those of a seed, or of a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf

import torch
from torch import Tensor

from graphspec.compiler.clock import reaches
from graphspec.compiler.latency import plan
from graphspec.compiler.lower import Model, View
from graphspec.compiler.plan import block_of
from graphspec.diagnostic import Diagnostic, Related, SpecError
from graphspec.graph import Value
from graphspec.runtime.stream_sampler import sampler as sampler_of
from graphspec.runtime.trial import ROWS, Trial

TOLERANCE = 1e-9  # of float64, relative to the largest element of a value
BANDS = {"float32": 2e-3, "bfloat16": 0.1}  # against float64, of a value's largest element
LOUD = 1e30  # so large that it shows in whatever it reaches; times an exact zero it is still zero
MOST_CLASSES = 4096  # whose likelihoods are added up
STREAMED = (1, 4, 25)  # into one piece more is a stream cut
MOST_PROBED = 12  # ticks of an input that are changed one by one


@dataclass(frozen=True)
class Finding:
    """One promise that holds: what was compared, and the largest error seen."""

    promise: str
    told: str


def verify(model: Model, ticks: int, seed: int) -> Iterator[Finding]:
    """Each promise that holds; raises SpecError GS0701 (forms), GS0702 (time), GS0703 (rows) or GS0704 (numbers)."""
    trial = Trial(model.double().eval(), ticks, seed)
    if trial.streamed:
        yield forms(trial)
    if trial.flowing:
        yield streams(trial)
        yield gradients(trial)
    yield rows_apart(trial)
    if trial.fastest is not None:
        yield time(trial)
        yield poisoned(trial)
    yield narrow(trial, "float32")
    yield narrow(trial, "bfloat16")
    yield from probabilities(trial)
    for name, view in model.entries.items():
        if view.graph.feeds:
            yield sampled(trial, name, view)


@torch.no_grad()
def forms(trial: Trial) -> Finding:
    """In steps of whole blocks, the state copied between them."""
    whole = trial.model.evaluate(trial.streamed, trial.given, trial.noise)
    worst = 0.0
    for cuts in trial.cuts():
        for v, a, b in zip(trial.streamed, trial.chunked(trial.streamed, cuts, trial.given), whole, strict=True):
            error = _error(a, b)
            if not error <= TOLERANCE:
                where = _first(a, b)
                told = f"in steps of {_shown(cuts)} blocks {v.path} is not what it is whole: {where}"
                raise _refused("GS0701", told, v)
            worst = max(worst, error)
    ways = f"{len(trial.cuts())} ways to cut {trial.ticks} ticks"
    told = f"{len(trial.streamed)} values, {ways}, the state copied between"
    return Finding("whole == step == chunks", f"{told}; largest error {worst:.1e}")


@torch.no_grad()
def streams(trial: Trial) -> Finding:
    """In pieces of any length, the state copied between them: also what looks ahead, and late by what it looks."""
    whole = trial.model.evaluate(trial.flowing, trial.given, trial.noise)
    worst = 0.0
    for cuts in STREAMED:
        for v, a, b in zip(trial.flowing, trial.flowed(trial.flowing, cuts, trial.given), whole, strict=True):
            if a.shape != b.shape or not _error(a, b) <= TOLERANCE:
                where = _first(a, b) if a.shape == b.shape else f"{a.shape[1]} elements of {b.shape[1]} come"
                told = f"as a stream of {cuts + 1} pieces {v.path} is not what it is whole: {where}"
                raise _refused("GS0701", told, v)
            worst = max(worst, _error(a, b))
    regions, rate = [loop.region for loop in trial.model.loops], trial.model.flow(trial.flowing).rate
    outputs = {n: v for n, v in trial.graph.outputs.items() if v in trial.flowing}
    late = [f"{n} {plan(trial.graph, v, regions, rate).ticks} ticks late" for n, v in outputs.items()]
    pieces = ", ".join(str(cuts + 1) for cuts in STREAMED)
    told = f"{len(trial.flowing)} values in {pieces} pieces; largest error {worst:.1e}"
    return Finding("whole == stream", "; ".join([told, *late[:3]]))


def gradients(trial: Trial) -> Finding:
    """Of the timed targets with regard to weights and inputs: whole, in steps, as a stream."""
    ends = [v for v in trial.model.targets.values() if v in trial.flowing and v.type.dtype.kind == "float"]
    weights = {n: w for n, w in trial.model.weights().items() if w.requires_grad}
    if not ends or not weights:
        return Finding("gradients", "none that stream")
    given = {n: x.clone().requires_grad_() if x.is_floating_point() else x for n, x in trial.given.items()}
    sources = [*weights.values(), *(x for x in given.values() if x.requires_grad)]
    names = [*weights, *(n for n, x in given.items() if x.requires_grad)]

    def pulled(made: list[Tensor]) -> list[Tensor]:
        g = torch.Generator().manual_seed(trial.seed)
        total = sum((y * torch.randn(y.shape, generator=g, dtype=y.dtype)).sum() for y in made if y.requires_grad)
        if not isinstance(total, Tensor):
            return [torch.zeros_like(s) for s in sources]
        found = torch.autograd.grad(total, sources, allow_unused=True)
        return [torch.zeros_like(s) if f is None else f for f, s in zip(found, sources, strict=True)]

    wanted = pulled(trial.model.evaluate(ends, given, trial.noise))
    ways = {"as a stream": pulled(trial.flowed(ends, STREAMED[1], given))}
    if all(v in trial.streamed for v in ends):
        ways["in steps"] = pulled(trial.chunked(ends, trial.cuts()[2], given))
    size = max(float(w.abs().max()) for w in wanted) or 1.0
    for way, found in ways.items():
        for name, a, b in zip(names, found, wanted, strict=True):
            if not float((a - b).abs().max()) <= 1e3 * TOLERANCE * size:
                raise SpecError(Diagnostic("GS0701", f"the gradient of {name} differs between whole and {way}", None))
    return Finding("gradients", f"of {len(weights)} weights: whole, {', '.join(sorted(ways))}")


@torch.no_grad()
def rows_apart(trial: Trial) -> Finding:
    """A row is what it is alone, and NaN stays in its row."""
    timed = [v for v in trial.values if v.type.timed and not v.is_input]
    together = trial.model.evaluate(timed, trial.given, trial.noise)
    broken = {n: x.clone() for n, x in trial.given.items()}
    for x in broken.values():
        if x.is_floating_point():
            x[1] = float("nan")
    spoilt = trial.model.evaluate(timed, broken, trial.noise)
    alone = trial.model.evaluate(
        timed, {n: x[:1] for n, x in trial.given.items()}, {n: x[:1] for n, x in trial.noise.items()}
    )
    for v, a, b, c in zip(timed, together, spoilt, alone, strict=True):
        for other in (b, a):
            if not _error(other[:1], c) <= TOLERANCE:
                raise _refused("GS0703", f"row 0 of {v.path} depends on row 1", v)
    return Finding("rows", f"{len(timed)} values alone and together, NaN in the other row")


@torch.no_grad()
def time(trial: Trial) -> Finding:
    """Change a tick of an input: only elements that the time table lets read it may change."""
    timed = [v for v in trial.values if v.type.timed and not v.is_input]
    probes = 0
    for name, source in trial.inputs.items():
        if not source.type.timed:
            continue
        length = trial.given[name].shape[1]
        at = sorted({round(i * (length - 1) / (MOST_PROBED - 1)) for i in range(MOST_PROBED)})
        base = {n: x[:1].expand(len(at) + 1, *x.shape[1:]).clone() for n, x in trial.given.items()}
        noise = {n: x[:1].expand(len(at) + 1, *x.shape[1:]) for n, x in trial.noise.items()}
        for row, j in enumerate(at):
            x = base[name]
            if x.is_floating_point():
                x[row, j] += 1.7
            else:
                x[row, j] = ~x[row, j] if x.dtype == torch.bool else (x[row, j] + 1) % (source.type.dtype.classes or 8)
        table = reaches(trial.graph, source)
        for v, y in zip(timed, trial.model.evaluate(timed, base, noise), strict=True):
            size = float(y.abs().max()) if y.is_floating_point() else 0.0
            moved = ((y[:-1] - y[-1:]).abs() > 1e-12 * max(size, 1.0)) if y.dtype != torch.bool else y[:-1] ^ y[-1:]
            hit = moved.flatten(2).any(-1)
            reach = table.get(v)
            for row, k in hit.nonzero().tolist():
                first, last = (inf, -inf) if reach is None else (reach.first_at(k), reach.last_at(k))
                if not first <= at[row] <= last:
                    read = "nothing" if reach is None else f"{first} .. {last}"
                    told = f"element {k} of {v.path} hears tick {at[row]} of {name}; declared: {read}"
                    raise _refused("GS0702", told, v)
        probes += len(at)
    return Finding("time", f"{probes} ticks changed, one by one; what hears them is what was proven")


@torch.no_grad()
def poisoned(trial: Trial) -> Finding:
    """Ticks made huge, one by one: what does not read them is what it was. Then NaN, which 0 does not silence."""
    timed = [v for v in trial.values if v.type.timed and not v.is_input and v.type.dtype.kind == "float"]
    sources = [v for v in trial.inputs.values() if v.type.timed and v.type.dtype.kind == "float"]
    spread: dict[str, None] = {}
    for poison in (LOUD, math.nan):
        for source in sources:
            x = trial.given[source.path]
            at = sorted({round(i * (x.shape[1] - 1) / (MOST_PROBED - 1)) for i in range(MOST_PROBED)})
            base = {n: t[:1].expand(len(at) + 1, *t.shape[1:]).clone() for n, t in trial.given.items()}
            noise = {n: t[:1].expand(len(at) + 1, *t.shape[1:]) for n, t in trial.noise.items()}
            for row, j in enumerate(at):
                base[source.path][row, j] = poison
            table = reaches(trial.graph, source)
            for v, y in zip(timed, trial.model.evaluate(timed, base, noise), strict=True):
                hit = ~torch.isclose(y[:-1], y[-1:], rtol=1e-9, atol=1e-9, equal_nan=True).flatten(2).all(-1)
                reach = table.get(v)
                for row, k in hit.nonzero().tolist():
                    first, last = (inf, -inf) if reach is None else (reach.first_at(k), reach.last_at(k))
                    if first <= at[row] <= last:
                        continue
                    if poison == LOUD:
                        told = f"element {k} of {v.path} hears {LOUD:g} in tick {at[row]} of {source.path}"
                        raise _refused("GS0702", told, v)
                    spread.setdefault(v.path)
                    break
    if not sources:
        return Finding("poison", "no input along time is float")
    told = f"{LOUD:g} in a tick reaches nothing that does not read it"
    if spread:
        path = next(iter(spread))
        return Finding("poison", f"{told}; NaN does, first at {path}, which multiplies what it does not read by 0")
    return Finding("poison", f"{told}, nor does NaN")


@torch.no_grad()
def narrow(trial: Trial, dtype: str) -> Finding:
    """In float32, and as training runs it under autocast to bfloat16, within a band of float64."""
    # Not metrics: one that counts, as accuracy does, moves by a whole 1 where all but equal numbers change places.
    targets = {n: v for n, v in trial.model.targets.items() if not n.startswith("metrics.")}
    floats = {n: v for n, v in targets.items() if v.type.dtype.kind == "float"}
    wide = trial.model.evaluate(list(floats.values()), trial.given, trial.noise)
    trial.model.float()
    narrow = [
        {n: x.float() if x.is_floating_point() else x for n, x in tensors.items()}
        for tensors in (trial.given, trial.noise)
    ]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        made = trial.model.evaluate(list(floats.values()), *narrow)
    trial.model.double()
    worst = 0.0
    for v, a, b in zip(floats.values(), made, wide, strict=True):
        error = _error(a.double(), b)
        if not error <= BANDS[dtype]:
            raise _refused("GS0704", f"{v.path} in {dtype} is off by {error:.1e} of its largest element", v)
        worst = max(worst, error)
    return Finding(dtype, f"within {worst:.1e} of float64; the band is {BANDS[dtype]:g}")


@torch.no_grad()
def probabilities(trial: Trial) -> Iterator[Finding]:
    """The likelihoods of all that a distribution may draw add up to 1."""
    done: set[Value] = set()
    for v in trial.values:
        if v.op is None or v.op.name != "nll" or not isinstance(v.operands[0], Value) or v.operands[0] in done:
            continue
        dist, event = v.operands
        done.add(dist)
        classes = event.type.dtype.classes
        if not classes or classes > MOST_CLASSES or not dist.type.timed:
            continue
        d, x = (y[:, :4] for y in trial.model.evaluate([dist, event], trial.given, trial.noise))
        # Channel by channel, the others as they are: a joint distribution scores one given those before it.
        sums = torch.zeros(x.shape, dtype=torch.float64)
        for channel in range(x.shape[-1]):
            for k in range(classes):
                swept = x.clone()
                swept[..., channel] = k
                sums[..., channel] += (-trial.model.modules_of[v](d, swept)[..., channel]).exp()
        error = float((sums - 1).abs().max())
        if not error <= TOLERANCE:
            raise _refused("GS0704", f"the likelihoods of {dist.path} add up to 1 only within {error:.1e}", v)
        yield Finding("probabilities", f"of {dist.path}: {classes} add up to 1 within {error:.1e}")


@torch.no_grad()
def sampled(trial: Trial, name: str, view: View) -> Finding:
    """What is drawn is what the whole form draws, held to it and given the same noise.

    By the schedule of ticks, or by the stream executor where that does not reach. The whole form is longer than what is
    drawn by all that it delays: so much of a delayed value may be read before its time, and must be there.
    """
    feeds = view.graph.feeds
    sources = [f.source for f in feeds]
    wanted = [*(f.drawn for f in feeds), *sources, *(v for v in view.graph.outputs.values() if v.type.timed)]
    needed = view.graph.needed_for(wanted)
    rate = sources[0].type.rate
    assert rate is not None
    block = block_of(needed, rate)
    n = block * max(2, -(-min(trial.ticks, 48) // block))
    fastest = max(v.type.rate for v in needed if v.is_input and v.type.rate is not None)
    whole = Trial(view, math.ceil((n / rate + _delayed(needed)) * fastest), trial.seed, wanted)
    given = {v.path: whole.given[v.path] for v in needed if v.is_input and v.type.timed}
    heard = {p: x for p, x in given.items() if p not in {s.path for s in sources}}
    sampler = sampler_of(trial.model, ROWS, trial.seed, entry=name, given=heard, backend="eager")
    drawn: dict[Value, list[Tensor]] = {s: [] for s in sources}
    for source, element in sampler.elements(n):
        drawn[source].append(element)
    made = {s: torch.cat(each, 1) for s, each in drawn.items()}
    for s, x in made.items():
        given[s.path] = torch.cat([x, given[s.path][:, x.shape[1] :].to(x.dtype)], 1)
    for f, again in zip(feeds, view.evaluate([f.drawn for f in feeds], given, whole.noise), strict=True):
        x = made[f.source]
        again = again[:, : x.shape[1]]
        if not _error(again, x) <= TOLERANCE:
            tick = int((again != x).flatten(2).any(-1).any(0).nonzero()[0])
            raise _refused(
                "GS0701", f"'{name}' draws {f.source.path} otherwise than the whole form at tick {tick}", f.drawn
            )
    how = "by the stream executor" if sampler.chosen == "stream" else "one by one"
    return Finding(f"entry {name}", f"{n} ticks drawn {how} are those of the whole form")


def _delayed(values: Sequence[Value]) -> Fraction:
    """The seconds of all delays and loops together: nothing is read further ahead of its time."""
    ticks = ((v, v.carry or sum(int(w.past) for w in v.windows if w.copies)) for v in values if v.type.rate is not None)
    return sum((Fraction(k) / v.type.rate for v, k in ticks), Fraction(0))  # type: ignore[operator]


def _error(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative; inf where only one of them is not finite, or integers differ."""
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else inf
    same = (a == b) | (a.isnan() & b.isnan())
    finite = a.isfinite() & b.isfinite()
    if bool((~same & ~finite).any()):
        return inf
    if not bool(finite.any()):
        return 0.0
    return float((a[finite] - b[finite]).abs().max() / b[finite].abs().max().clamp(min=1e-3))


def _first(a: Tensor, b: Tensor) -> str:
    wrong = ~((a == b) | (a.isnan() & b.isnan()))
    if a.is_floating_point():
        wrong &= ~((a - b).abs() <= TOLERANCE * b.abs().max().clamp(min=1e-3))
    row, tick, *rest = (int(i) for i in wrong.nonzero()[0])
    at = (row, tick, *rest)
    return f"element {tick} is {a[at].item():.6g} where it is {b[at].item():.6g} whole"


def _refused(code: str, message: str, value: Value) -> SpecError:
    notes = tuple(f"it reads {o}" for o in value.values())
    related = tuple(Related("called here", s) for s in value.trail[-2:])
    return SpecError(Diagnostic(code, message, value.span, related=related, notes=notes))


def _shown(cuts: Sequence[int]) -> str:
    text = ", ".join(map(str, cuts[:8]))
    return text if len(cuts) <= 8 else f"{text}, ..."
