"""A lowered graph with random numbers to run it on, whole and in steps of any size: what a contract is about."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from graphspec.compiler.flow import Flow
from graphspec.compiler.lower import Model, lower
from graphspec.compiler.pipeline import Checked
from graphspec.compiler.plan import block_of
from graphspec.diagnostic import SpecError
from graphspec.graph import Value
from graphspec.types import Type

Tensors = dict[str, Tensor]


class Subject:
    """A lowered graph with everything it takes to run it on random numbers."""

    def __init__(self, checked: Checked, ticks: int, **sizes: int):
        self.checked, self.graph, self.sizes = checked, checked.graph, {"T": ticks, **sizes}
        faults = self.graph.facts.check(self.sizes)
        assert not faults, f"ticks={ticks}: {faults}"
        self.model: Model = lower(checked)
        self.values = self.graph.needed_for(list(self.model.targets.values()))
        self.inputs = {v.path: v.type for v in self.values if v.is_input}
        self.noises = {v.path: v.noise for v in self.values if v.noise is not None}

    @cached_property
    def streamed(self) -> dict[str, Value]:
        """The timed outputs, if nothing on the way to them looks ahead of the elements that a step is given."""
        timed = {n: v for n, v in self.model.targets.items() if v.type.timed}
        ahead = any(
            w.reads(k)[1] >= (k + 1) * w.stride
            for v in self.graph.needed_for(list(timed.values()))
            for w, o in zip(v.windows, v.operands, strict=True)
            if isinstance(o, Value) and o.type.timed
            for k in range(w.stride.denominator)
        )
        return {} if ahead else timed

    @cached_property
    def block(self) -> tuple[int, Fraction]:
        """The smallest step, in ticks of the fastest input, and that input's rate."""
        values = self.graph.needed_for(list(self.streamed.values()))
        fastest = max(v.type.rate for v in values if v.is_input and v.type.rate is not None)
        block = block_of(values, fastest)
        assert self.model.block % block == 0, f"step: the model's block {self.model.block} is no multiple of {block}"
        return block, fastest

    def shape(self, of: Type, batch: int) -> tuple[int, ...]:
        return (batch, *(int(d.evaluate(self.sizes)) for d in of.tensor_axes))

    def draw(self, batch: int, kind: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensors:
        """Random inputs. Floats are normal (kind 0), positive (1: logarithms) or of few levels (2: equality)."""
        g = torch.Generator().manual_seed(seed)
        out: Tensors = {}
        for name, t in self.inputs.items():
            shape = self.shape(t, batch)
            if t.dtype.kind == "bool":
                out[name] = torch.rand(shape, generator=g) > 0.5
            elif t.dtype.kind == "int":
                out[name] = torch.randint(t.dtype.classes or 8, shape, generator=g)
            elif kind == 0 and t.timed:
                out[name] = torch.randn(shape, generator=g, dtype=dtype)
            elif kind == 2 and t.timed:
                out[name] = torch.randint(-2, 3, shape, generator=g).to(dtype) / 2
            else:  # static values are knobs such as a temperature: positive
                out[name] = torch.rand(shape, generator=g, dtype=dtype) + 0.1
        return out

    def noise(self, batch: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensors:
        """What the runtime would fill in: uniform in (0, 1), or normal where the op asks for it."""
        g = torch.Generator().manual_seed(seed)
        out: Tensors = {}
        for v in self.values:
            if v.noise is not None and v.op is not None:
                fill = torch.rand if v.op.noise.startswith("uniform") else torch.randn
                out[v.path] = fill(self.shape(v.noise, batch), generator=g, dtype=dtype)
        return out

    def stepped(self, inputs: Tensors, noise: Tensors, chunks: list[int]) -> Tensors:
        """The streamed outputs, computed in steps of so many blocks each."""
        batch = next(iter(inputs.values())).shape[0]
        state = self.model.init_state(batch, torch.empty(0, dtype=torch.float64))
        prepared = self.model.prepare()
        pieces: dict[str, list[Tensor]] = {n: [] for n in self.streamed}
        start = 0
        for n in chunks:
            y, state = self.model.step(self.part(inputs, start, n), state, prepared, self.part(noise, start, n))
            for name in pieces:
                pieces[name].append(y[name])
            start += n
        return {name: torch.cat(many, 1) for name, many in pieces.items()}

    @cached_property
    def flow(self) -> Flow | None:
        """All timed outputs as a stream, also those that look ahead; none where one reads all of time."""
        try:
            return self.model.flow([v for v in self.model.targets.values() if v.type.timed])
        except SpecError as refused:
            assert refused.diagnostics[0].code == "GS0640"
            return None

    def flowed(self, inputs: Tensors, noise: Tensors, cuts: int, seed: int) -> Tensors:
        """The timed outputs in random pieces: each input in `cuts` pieces of any length, maybe empty, as they come."""
        flow = self.flow
        assert flow is not None
        rng = random.Random(seed)
        rows = next(iter(inputs.values())).shape[0]
        prepared = flow.prepare(lambda vs: self.model.evaluate(vs, inputs, noise), inputs)
        state = flow.begin(rows, torch.empty(0, dtype=torch.float64), prepared)
        pieces: list[list[Tensor]] = [[] for _ in flow.targets]
        places = {}
        for v in flow.sources:
            n = inputs[v.path].shape[1]
            places[v.path] = [0, *sorted(rng.randint(0, n) for _ in range(cuts)), n]

        def drawn(v: Value, first: int, count: int) -> Tensor | None:
            z = noise.get(v.path)
            if z is None or v.noise is None or not v.noise.timed:
                return z
            ratio = z.shape[1] / self.shape(v.type, 1)[1]
            return z[:, int(first * ratio) : int((first + count) * ratio)]

        for i in range(cuts + 1):
            given = {n: inputs[n][:, at[i] : at[i + 1]] for n, at in places.items()}
            made, state = flow.push(given, state, prepared, drawn, end=i == cuts)
            for each, y in zip(pieces, made, strict=True):
                each.append(y)
        names = [n for n, v in self.model.targets.items() if v.type.timed]
        return {name: torch.cat(each, 1) for name, each in zip(names, pieces, strict=True)}

    def part(self, tensors: Tensors, start: int, n: int) -> Tensors:
        """Blocks start .. start + n - 1 of inputs or noise; static ones whole."""
        block, fastest = self.block
        out = dict(tensors)
        for name, x in tensors.items():
            rate = (self.inputs.get(name) or self.noises[name]).rate
            if rate is not None:
                elements = int(block * rate / fastest)
                out[name] = x[:, start * elements : (start + n) * elements]
        return out

    @cached_property
    def blocks(self) -> int:
        """How many of the smallest steps the whole is."""
        t = next(t for t in self.inputs.values() if t.rate == self.block[1])
        return self.shape(t, 1)[1] // self.block[0]

    def chunkings(self, seed: int) -> Iterator[list[int]]:
        """All blocks at once, one by one, at random, and a prefill followed by single blocks."""
        rng, n = random.Random(seed), self.blocks
        yield [n]
        yield [1] * n
        for _ in range(2):
            cuts = sorted(rng.sample(range(1, n), min(rng.randint(1, 4), n - 1)))
            yield [b - a for a, b in itertools.pairwise([0, *cuts, n])]
        prefill = rng.randint(1, n)
        yield [prefill] + [1] * (n - prefill)
