"""`graphspec verify`: that on this very spec the two forms agree, rows are apart, and time is as proven. Seeded.

Every timed value of the graph is compared, in dataflow order, so the first that differs is the one to blame. Numbers
are float64 and small in time; weights are those of a seed, or of a run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf

import torch
from torch import Tensor

from graphspec.compiler import taking
from graphspec.compiler.clock import reaches
from graphspec.compiler.latency import plan
from graphspec.compiler.lower import Model
from graphspec.compiler.plan import block_of, looks_ahead
from graphspec.compiler.running import Running
from graphspec.diagnostic import Diagnostic, Related, SpecError, fail
from graphspec.graph import Value
from graphspec.ops.modules.noise import normal, stream_id, uniform
from graphspec.runtime.sample import Sampler
from graphspec.types import Type

TOLERANCE = 1e-9  # of float64, relative to the largest element of a value
BANDS = {"float32": 2e-3, "bfloat16": 0.05}  # against float64, of a value's largest element
LOUD = 1e30  # so large that it shows in whatever it reaches; times an exact zero it is still zero
MOST_CLASSES = 4096  # whose likelihoods are added up
ROWS = 2
MOST_PROBED = 12  # ticks of an input that are changed one by one

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Finding:
    """One promise that holds: what was compared, and the largest error seen."""

    promise: str
    told: str


def verify(model: Model, ticks: int, seed: int) -> Iterator[Finding]:
    """Each promise that holds; raises SpecError GS0701 (forms), GS0702 (time), GS0703 (rows) or GS0704 (numbers)."""
    subject = _Subject(model.double().eval(), ticks, seed)
    if subject.streamed:
        yield subject.forms()
    if subject.flowing:
        yield subject.streams()
    if subject.streamed:
        yield subject.gradients()
    yield subject.rows_apart()
    if subject.fastest is not None:
        yield subject.time()
        yield subject.poisoned()
    yield subject.narrow("float32")
    yield subject.narrow("bfloat16")
    yield from subject.probabilities()
    for name, view in model.entries.items():
        if view.graph.feeds:
            yield subject.sampled(name, view)


class _Subject:
    """The model with random inputs of `ticks` ticks, rounded up to what its `require` and its blocks want."""

    def __init__(self, model: Model, ticks: int, seed: int):
        self.model, self.graph, self.seed = model, model.graph, seed
        self.values = [v for v in self.graph.needed_for(list(model.targets.values())) if v.parts is None]
        ahead: set[Value] = set()
        for v in self.graph.values:
            if looks_ahead([v]) is not None or any(o in ahead for o in v.values()):
                ahead.add(v)
        self.streamed = [v for v in self.values if v.type.timed and v not in ahead and not v.is_input]
        self.inputs = {v.path: v for v in self.values if v.is_input}
        rates = [v.type.rate for v in self.inputs.values() if v.type.rate is not None]
        self.fastest = max(rates, default=None)
        if self.fastest is None:
            self.streamed = []
        self.flowing = self._flowing()
        self.block = block_of(self.graph.needed_for(self.streamed), self.fastest) if self.streamed else 1
        whole = math.lcm(self.block, block_of(self.values, self.fastest) if rates else 1, *self._multiples())
        self.ticks = whole * max(2, -(-ticks // whole))
        self.sizes = self._sizes()
        faults = self.graph.facts.check(self.sizes)
        if faults:
            fail("GS0605", f"no length is known to run it at: {faults[0]}", None)
        self.given = {n: self._drawn(v.type, ROWS, seed + i) for i, (n, v) in enumerate(self.inputs.items())}
        self.noise = self._noise(self.graph.values, ROWS)

    def _flowing(self) -> list[Value]:
        """The timed values that stream, also those that look ahead: all but what reads all of time, or hears it."""
        deaf: set[Value] = set()
        if self.fastest is None:
            return []
        for v in self.graph.values:
            heard = any(o in deaf for o in (*v.values(), *self.graph.carried_from(v)))
            if heard or not v.carry and not v.is_input and _reads_all(v):
                deaf.add(v)
        return [v for v in self.values if v.type.timed and not v.is_input and v not in deaf]

    # ---- numbers ---------------------------------------------------------------------------------------------------

    def _multiples(self) -> list[int]:
        return [
            self.graph.facts.multiple(s)
            for v in self.inputs.values()
            for s in (v.type.length.symbols() if v.type.timed else ())
        ]

    def _sizes(self) -> dict[str, int]:
        out: dict[str, int] = {}
        for v in self.inputs.values():
            for i, d in enumerate(v.type.dims):
                if d.as_int() is None and str(d) in d.symbols():
                    timed = i == 0 and v.type.rate is not None
                    out[str(d)] = int(self.ticks * v.type.rate / self.fastest) if timed else 8  # type: ignore[operator]
        return out

    def _drawn(self, type_: Type, rows: int, seed: int) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        shape = (rows, *(int(d.evaluate(self.sizes)) for d in type_.dims))
        if type_.dtype.kind == "bool":
            return torch.rand(shape, generator=g) > 0.5
        if type_.dtype.kind == "int":
            return torch.randint(type_.dtype.classes or 8, shape, generator=g)
        made = torch.randn(shape, generator=g, dtype=torch.float64)
        return made if type_.timed else made.abs() + 0.1  # static ones are knobs, such as a temperature

    def _noise(self, values: Sequence[Value], rows: int) -> Tensors:
        out: Tensors = {}
        for v in values:
            if v.noise is None or v.op is None or v.op.training_noise:
                continue
            timed = [int(v.noise.dims[0].evaluate(self.sizes))] if v.noise.timed else []
            after = [int(d.evaluate(self.sizes)) for d in v.noise.after_time]
            draw = normal if v.op.noise.startswith("normal") else uniform
            count = torch.arange(timed[0] if timed else 1)
            made = draw(self.seed, stream_id(v.path), torch.arange(rows), count, math.prod(after), torch.float64)
            out[v.path] = made.reshape(rows, *timed, *after)
        return out

    def _part(self, given: Mapping[str, Tensor], types: Mapping[str, Type | None], start: int, n: int) -> Tensors:
        """Blocks start .. start + n - 1 of timed tensors."""
        out = dict(given)
        for name, x in given.items():
            type_ = types[name]
            if type_ is not None and type_.rate is not None:
                k = int(self.block * type_.rate / self.fastest)
                out[name] = x[:, start * k : (start + n) * k]
        return out

    def _chunked(self, values: list[Value], cuts: Sequence[int], given: Tensors) -> list[Tensor]:
        """The values in steps of so many blocks; the state is copied between steps, as if saved and restored."""
        types = {n: v.type for n, v in self.inputs.items()}
        noises = {v.path: v.noise for v in self.graph.values if v.path in self.noise}
        rows = next(iter(given.values())).shape[0]
        like = torch.empty(0, dtype=torch.float64)
        state, prepared, at = self.model.init_state(rows, like), self.model.prepare(), 0
        pieces: list[list[Tensor]] = [[] for _ in values]
        for n in cuts:
            inputs, noise = self._part(given, types, at, n), self._part(self.noise, noises, at, n)
            made, state = self.model.stream(values, inputs, state, prepared, noise)
            state = {k: x.clone() for k, x in state.items()}
            for each, x in zip(pieces, made, strict=True):
                each.append(x)
            at += n
        return [torch.cat(each, 1) for each in pieces]

    def _cuts(self) -> list[list[int]]:
        blocks, rng = self.ticks // self.block, random.Random(self.seed)
        out = [[blocks], [1] * blocks]
        for _ in range(3):
            places = sorted(rng.sample(range(1, blocks), min(rng.randint(1, 5), blocks - 1)))
            out.append([b - a for a, b in zip([0, *places], [*places, blocks], strict=True)])
        return out

    # ---- promises --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def forms(self) -> Finding:
        if not self.streamed:
            return Finding("whole == step == chunks", "no value streams: all look ahead")
        whole = self.model.evaluate(self.streamed, self.given, self.noise)
        worst = 0.0
        for cuts in self._cuts():
            for v, a, b in zip(self.streamed, self._chunked(self.streamed, cuts, self.given), whole, strict=True):
                error = _error(a, b)
                if not error <= TOLERANCE:
                    where = _first(a, b)
                    told = f"in steps of {_shown(cuts)} blocks {v.path} is not what it is whole: {where}"
                    raise _refused("GS0701", told, v)
                worst = max(worst, error)
        ways = f"{len(self._cuts())} ways to cut {self.ticks} ticks"
        told = f"{len(self.streamed)} values, {ways}, the state copied between"
        return Finding("whole == step == chunks", f"{told}; largest error {worst:.1e}")

    @torch.no_grad()
    def streams(self) -> Finding:
        """In pieces of any length, the state copied between them: also what looks ahead, and late by what it looks."""
        flow = self.model.flow(self.flowing)
        whole = self.model.evaluate(self.flowing, self.given, self.noise)
        like = torch.empty(0, dtype=torch.float64)
        prepared = flow.prepare(lambda static: self.model.evaluate(static, self.given, self.noise), self.given)
        worst = 0.0
        for cuts in (1, 4, 25):
            state, rng = flow.begin(ROWS, like, prepared), random.Random(self.seed + cuts)
            places = {
                v.path: [0, *sorted(rng.randint(0, n) for _ in range(cuts)), n]
                for v in flow.sources
                for n in (self.given[v.path].shape[1],)
            }
            pieces: list[list[Tensor]] = [[] for _ in self.flowing]
            for i in range(cuts + 1):
                given = {n: self.given[n][:, at[i] : at[i + 1]] for n, at in places.items()}
                made, state = flow.push(given, state, prepared, self._noise_of, end=i == cuts)
                state = {k: x.clone() for k, x in state.items()}
                for each, x in zip(pieces, made, strict=True):
                    each.append(x)
            for v, each, b in zip(self.flowing, pieces, whole, strict=True):
                a = torch.cat(each, 1)
                if a.shape != b.shape or not _error(a, b) <= TOLERANCE:
                    where = _first(a, b) if a.shape == b.shape else f"{a.shape[1]} elements of {b.shape[1]} come"
                    raise _refused(
                        "GS0701", f"as a stream of {cuts + 1} pieces {v.path} is not what it is whole: {where}", v
                    )
                worst = max(worst, _error(a, b))
        latest = {n: v for n, v in self.graph.outputs.items() if v in self.flowing}
        regions = [loop.region for loop in self.model.loops]
        late = [f"{n} {plan(self.graph, v, regions, flow.rate).ticks} ticks late" for n, v in latest.items()]
        told = f"{len(self.flowing)} values in 2, 5 and 26 pieces; largest error {worst:.1e}"
        return Finding("whole == stream", "; ".join([told, *late[:3]]))

    def _noise_of(self, v: Value, first: int, count: int) -> Tensor | None:
        z = self.noise.get(v.path)
        if z is None or v.noise is None or not v.noise.timed:
            return z
        ratio = Fraction(v.noise.rate or 1) / (v.type.rate or 1)
        return z[:, int(first * ratio) : int((first + count) * ratio)]

    def gradients(self) -> Finding:
        ends = [v for v in self.model.targets.values() if v in self.streamed and v.type.dtype.kind == "float"]
        weights = {n: w for n, w in self.model.weights().items() if w.requires_grad}
        if not ends or not weights:
            return Finding("gradients", "none that stream")
        given = {n: x.clone().requires_grad_() if x.is_floating_point() else x for n, x in self.given.items()}
        sources = [*weights.values(), *(x for x in given.values() if x.requires_grad)]
        names = [*weights, *(n for n, x in given.items() if x.requires_grad)]

        def pulled(made: list[Tensor]) -> list[Tensor]:
            g = torch.Generator().manual_seed(self.seed)
            total = sum((y * torch.randn(y.shape, generator=g, dtype=y.dtype)).sum() for y in made if y.requires_grad)
            if not isinstance(total, Tensor):
                return [torch.zeros_like(s) for s in sources]
            found = torch.autograd.grad(total, sources, allow_unused=True)
            return [torch.zeros_like(s) if f is None else f for f, s in zip(found, sources, strict=True)]

        wanted = pulled(self.model.evaluate(ends, given, self.noise))
        found = pulled(self._chunked(ends, self._cuts()[2], given))
        size = max(float(w.abs().max()) for w in wanted) or 1.0
        for name, a, b in zip(names, found, wanted, strict=True):
            if not float((a - b).abs().max()) <= 1e3 * TOLERANCE * size:
                raise SpecError(Diagnostic("GS0701", f"the gradient of {name} differs between whole and chunks", None))
        return Finding("gradients", f"of {len(weights)} weights, whole and in chunks")

    @torch.no_grad()
    def rows_apart(self) -> Finding:
        """A row is what it is alone, and NaN stays in its row."""
        timed = [v for v in self.values if v.type.timed and not v.is_input]
        together = self.model.evaluate(timed, self.given, self.noise)
        broken = {n: x.clone() for n, x in self.given.items()}
        for x in broken.values():
            if x.is_floating_point():
                x[1] = float("nan")
        spoilt = self.model.evaluate(timed, broken, self.noise)
        alone = self.model.evaluate(
            timed, {n: x[:1] for n, x in self.given.items()}, {n: x[:1] for n, x in self.noise.items()}
        )
        for v, a, b, c in zip(timed, together, spoilt, alone, strict=True):
            for other in (b, a):
                if not _error(other[:1], c) <= TOLERANCE:
                    raise _refused("GS0703", f"row 0 of {v.path} depends on row 1", v)
        return Finding("rows", f"{len(timed)} values alone and together, NaN in the other row")

    @torch.no_grad()
    def time(self) -> Finding:
        """Change a tick of an input: only elements that the time table lets read it may change."""
        timed = [v for v in self.values if v.type.timed and not v.is_input]
        probes = 0
        for name, source in self.inputs.items():
            if not source.type.timed:
                continue
            length = self.given[name].shape[1]
            at = sorted({round(i * (length - 1) / (MOST_PROBED - 1)) for i in range(MOST_PROBED)})
            base = {n: x[:1].expand(len(at) + 1, *x.shape[1:]).clone() for n, x in self.given.items()}
            noise = {n: x[:1].expand(len(at) + 1, *x.shape[1:]) for n, x in self.noise.items()}
            for row, j in enumerate(at):
                x = base[name]
                if x.is_floating_point():
                    x[row, j] += 1.7
                else:
                    x[row, j] = (
                        ~x[row, j] if x.dtype == torch.bool else (x[row, j] + 1) % (source.type.dtype.classes or 8)
                    )
            table = reaches(self.graph, source)
            for v, y in zip(timed, self.model.evaluate(timed, base, noise), strict=True):
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
    def poisoned(self) -> Finding:
        """Ticks made huge, one by one: what does not read them is what it was. Then NaN, which 0 does not silence."""
        timed = [v for v in self.values if v.type.timed and not v.is_input and v.type.dtype.kind == "float"]
        sources = [v for v in self.inputs.values() if v.type.timed and v.type.dtype.kind == "float"]
        spread: dict[str, None] = {}
        for poison in (LOUD, math.nan):
            for source in sources:
                x = self.given[source.path]
                at = sorted({round(i * (x.shape[1] - 1) / (MOST_PROBED - 1)) for i in range(MOST_PROBED)})
                base = {n: t[:1].expand(len(at) + 1, *t.shape[1:]).clone() for n, t in self.given.items()}
                noise = {n: t[:1].expand(len(at) + 1, *t.shape[1:]) for n, t in self.noise.items()}
                for row, j in enumerate(at):
                    base[source.path][row, j] = poison
                table = reaches(self.graph, source)
                for v, y in zip(timed, self.model.evaluate(timed, base, noise), strict=True):
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
    def narrow(self, dtype: str) -> Finding:
        """In float32, and as training runs it under autocast to bfloat16, within a band of float64."""
        floats = {n: v for n, v in self.model.targets.items() if v.type.dtype.kind == "float"}
        wide = self.model.evaluate(list(floats.values()), self.given, self.noise)
        self.model.float()
        narrow = [
            {n: x.float() if x.is_floating_point() else x for n, x in tensors.items()}
            for tensors in (self.given, self.noise)
        ]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            made = self.model.evaluate(list(floats.values()), *narrow)
        self.model.double()
        worst = 0.0
        for v, a, b in zip(floats.values(), made, wide, strict=True):
            error = _error(a.double(), b)
            if not error <= BANDS[dtype]:
                raise _refused("GS0704", f"{v.path} in {dtype} is off by {error:.1e} of its largest element", v)
            worst = max(worst, error)
        return Finding(dtype, f"within {worst:.1e} of float64; the band is {BANDS[dtype]:g}")

    @torch.no_grad()
    def probabilities(self) -> Iterator[Finding]:
        """The likelihoods of all that a distribution may draw add up to 1."""
        done: set[Value] = set()
        for v in self.values:
            if v.op is None or v.op.name != "nll" or not isinstance(v.operands[0], Value) or v.operands[0] in done:
                continue
            dist, event = v.operands
            done.add(dist)
            classes = event.type.dtype.classes
            if not classes or classes > MOST_CLASSES or not dist.type.timed:
                continue
            (d,) = self.model.evaluate([dist], self.given, self.noise)
            d = d[:, :4]
            channels = [int(n.as_int() or 1) for n in event.type.after_time]
            each = [
                (-self.model.modules_of[v](d, torch.full((*d.shape[:2], *channels), k))).exp() for k in range(classes)
            ]
            error = float((sum(each[1:], each[0]) - 1).abs().max())
            if not error <= TOLERANCE:
                raise _refused("GS0704", f"the likelihoods of {dist.path} add up to 1 only within {error:.1e}", v)
            yield Finding("probabilities", f"of {dist.path}: {classes} add up to 1 within {error:.1e}")

    @torch.no_grad()
    def sampled(self, name: str, view: Running) -> Finding:
        """What the sampler draws is what the whole form draws, held to it and given the same noise."""
        sampler = Sampler(self.model, ROWS, self.seed, entry=name)
        block = sampler.plan.block
        n = block * max(2, -(-min(self.ticks, 48) // block))
        drawn: dict[str, list[Tensor]] = {s.path: [] for s, _ in sampler.plan.fed}
        for k in range(n):
            sampler._tick(None)
            for source, _ in sampler.plan.fed:
                drawn[source.path].append(sampler.registers[sampler.where[source][k % block].register])
        given = {p: torch.cat(each, 1) for p, each in drawn.items()}
        given |= {v.path: x for v, x in sampler.knobs.items() if isinstance(x, Tensor)}  # type: ignore[misc]
        rates = {s.path: s.type.rate for s, _ in sampler.plan.fed}
        first = next(iter(rates.values()))
        assert first is not None
        noise: Tensors = {}
        for v in view.graph.values:
            if v.noise is not None and v.op is not None and not v.op.training_noise:
                count = int(n * (v.noise.rate or Fraction(0)) / first) if v.noise.timed else 1
                made = sampler._drawn(v, 0, count)
                noise[v.path] = made if v.noise.timed else made[:, 0]
        for f, again in zip(
            view.graph.feeds, view.evaluate([f.drawn for f in view.graph.feeds], given, noise), strict=True
        ):
            if not torch.equal(again, given[f.source.path]):
                tick = int((again != given[f.source.path]).flatten(2).any(-1).any(0).nonzero()[0])
                raise _refused(
                    "GS0701", f"'{name}' draws {f.source.path} otherwise than the whole form at tick {tick}", f.drawn
                )
        return Finding(f"entry {name}", f"{n} ticks drawn one by one are those of the whole form")


def _reads_all(v: Value) -> bool:
    """Whether no stream can make it."""
    if not v.type.timed:
        return any(o.type.timed for o in v.values())
    try:
        taking.node(v)
    except SpecError:
        return True
    return False


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
