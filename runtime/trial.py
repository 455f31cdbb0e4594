"""A model with random inputs, and every way to run it on them: whole, in steps, as a stream. Seeded, in float64."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from graphspec.compiler import taking
from graphspec.compiler.lower import Model, View
from graphspec.compiler.plan import block_of, looks_ahead
from graphspec.diagnostic import SpecError, fail
from graphspec.graph import Value
from graphspec.runtime.chance import Noise
from graphspec.types import Type

ROWS = 2

Tensors = dict[str, Tensor]


class Trial:
    """The model with random inputs of `ticks` ticks, rounded up to what its `require` and its blocks want.

    wanted: what of it is tried, and all that is made for it; else its targets.
    """

    def __init__(self, model: Model | View, ticks: int, seed: int, wanted: Sequence[Value] = ()):
        self.model: Any = model
        self.graph, self.seed = model.graph, seed
        needed = self.graph.needed_for(list(wanted or model.targets.values()))
        self.values = [v for v in needed if v.parts is None]
        ahead = self._spread({v for v in self.graph.values if looks_ahead([v]) is not None})
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
        draws = Noise(seed, torch.arange(ROWS), torch.empty(0, dtype=torch.float64))
        self.noise = draws.of(needed, lambda v: int(v.noise.dims[0].evaluate(self.sizes)))  # type: ignore[union-attr]

    def _flowing(self) -> list[Value]:
        """The timed values that stream, also those that look ahead: all but what reads all of time, or hears it."""
        if self.fastest is None:
            return []
        deaf = self._spread({v for v in self.graph.values if not v.carry and not v.is_input and _reads_all(v)})
        return [v for v in self.values if v.type.timed and not v.is_input and v not in deaf]

    def _spread(self, marked: set[Value]) -> set[Value]:
        """All that hears what is marked, also through loops, whose carries stand before their sources."""
        before = -1
        while len(marked) != before:
            before = len(marked)
            for v in self.graph.values:
                if any(o in marked for o in (*v.values(), *self.graph.carried_from(v))):
                    marked.add(v)
        return marked

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

    def _part(self, given: Mapping[str, Tensor], types: Mapping[str, Type | None], start: int, n: int) -> Tensors:
        """Blocks start .. start + n - 1 of timed tensors."""
        out = dict(given)
        for name, x in given.items():
            type_ = types[name]
            if type_ is not None and type_.rate is not None:
                k = int(self.block * type_.rate / self.fastest)
                out[name] = x[:, start * k : (start + n) * k]
        return out

    def chunked(self, values: list[Value], cuts: Sequence[int], given: Tensors) -> list[Tensor]:
        """The values in steps of so many blocks; the state is copied between steps, as if saved and restored."""
        types = {n: v.type for n, v in self.inputs.items()}
        noises = {v.path: v.noise for v in self.graph.values if v.path in self.noise}
        rows = next(iter(given.values())).shape[0]
        like = torch.empty(0, dtype=torch.float64)
        state, prepared, at = self.model.init_state(rows, like), self.model.prepare(), 0
        pieces: list[list[Tensor]] = [[] for _ in values]
        for n in cuts:
            inputs, noise = self._part(given, types, at, n), self._part(self.noise, noises, at, n)
            made, state = self.model.advance(values, inputs, state, prepared, noise)
            state = {k: x.clone() for k, x in state.items()}
            for each, x in zip(pieces, made, strict=True):
                each.append(x)
            at += n
        return [torch.cat(each, 1) for each in pieces]

    def cuts(self) -> list[list[int]]:
        blocks, rng = self.ticks // self.block, random.Random(self.seed)
        out = [[blocks], [1] * blocks]
        for _ in range(3):
            places = sorted(rng.sample(range(1, blocks), min(rng.randint(1, 5), blocks - 1)))
            out.append([b - a for a, b in zip([0, *places], [*places, blocks], strict=True)])
        return out

    def flowed(self, values: list[Value], cuts: int, given: Tensors) -> list[Tensor]:
        """The values as a stream in `cuts` + 1 pieces of any length, the state copied between them."""
        flow = self.model.flow(values)
        like = torch.empty(0, dtype=torch.float64)
        prepared = flow.prepare(lambda static: self.model.evaluate(static, given, self.noise), given)
        state, rng = flow.begin(ROWS, like, prepared), random.Random(self.seed + cuts)
        places = {
            v.path: [0, *sorted(rng.randint(0, n) for _ in range(cuts)), n]
            for v in flow.sources
            for n in (given[v.path].shape[1],)
        }
        pieces: list[list[Tensor]] = [[] for _ in values]
        for i in range(cuts + 1):
            block = {n: given[n][:, at[i] : at[i + 1]] for n, at in places.items()}
            made, state = flow.push(block, state, prepared, self._noise_of, end=i == cuts)
            state = {k: x.clone() for k, x in state.items()}
            for each, x in zip(pieces, made, strict=True):
                each.append(x)
        return [torch.cat(each, 1) for each in pieces]

    def _noise_of(self, v: Value, first: int, count: int) -> Tensor | None:
        z = self.noise.get(v.path)
        if z is None or v.noise is None or not v.noise.timed:
            return z
        ratio = Fraction(v.noise.rate or 1) / (v.type.rate or 1)
        return z[:, int(first * ratio) : int((first + count) * ratio)]


def _reads_all(v: Value) -> bool:
    """Whether no stream can make it."""
    if not v.type.timed:
        return any(o.type.timed for o in v.values())
    try:
        taking.node(v)
    except SpecError:
        return True
    return False
