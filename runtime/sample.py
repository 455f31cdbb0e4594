"""Sampling: the step form with its feed closed, run on the compiler's schedule, each level only when it is due.

The schedule (compiler/plan.py) is turned into one straight list of instructions for each tick of the block; registers
hold the elements of this block. A prompt is run by the parallel form, block by block, and its rest tick by tick.
Noise comes from the counter (seed, stream, row, tick), so batch size and chunking do not change a row's samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from graphspec.compiler.lower import Model
from graphspec.compiler.plan import Fire, Schedule, consumed, schedule
from graphspec.diagnostic import fail
from graphspec.graph import Constant, Graph, Value
from graphspec.runtime.backend import BACKENDS, Backend, chosen
from graphspec.runtime.chance import Noise
from graphspec.runtime.instructions import Delay, Instruction, Pick, Registers
from graphspec.types import Type

NOISE_TICKS = 4096  # noise is drawn for so many ticks at a time


class Sampler:
    """A model ready to sample a batch of rows; `first_row` numbers them for the noise."""

    def __init__(
        self,
        model: Model,
        rows: int,
        seed: int,
        knobs: Mapping[str, float] | None = None,
        first_row: int = 0,
        entry: str = "sample",
        backend: str = "eager",
        warn: Callable[[str], None] = lambda told: None,
    ):
        if backend not in BACKENDS:
            fail("GS0645", f"there is no backend '{backend[:30]}'; there are {', '.join(BACKENDS)}", None)
        view = model.entries.get(entry)
        if view is None or not view.graph.feeds:
            fail("GS0627", f"the spec has no '{entry}' with a feed, so nothing says what is drawn", None)
        self.model = model.eval()
        self.view = view
        self.plan: Schedule = schedule(view.graph)
        self.rows = rows
        self.seed = seed
        like = next(model.parameters())
        self.device, self.like = like.device, like
        self._noise = Noise(seed, torch.arange(first_row, first_row + rows), like)
        self.backend, self.warn = backend, warn
        self.running: Backend | None = None  # none: eager
        self.chosen = "eager"
        self.knobs = self._knobs(knobs or {})
        self.tick = 0
        self.buffers: dict[Value, tuple[int, Tensor]] = {}  # noise drawn ahead, and the element it begins with
        self._compile()

    @property
    def fed(self) -> tuple[tuple[Value, Value], ...]:
        """Each input that is fed, and what is drawn for it."""
        return self.plan.fed

    def _knobs(self, given: Mapping[str, float]) -> dict[Value, Any]:
        inputs = self.view.graph.inputs
        knobs = {n: i.default for n, i in inputs.items() if not i.value.type.timed}
        chosen = chosen_knobs(self.view.graph, given)
        if self.backend != "eager":  # a stage compiled for one number would be of no use for the next
            dtype = self.like.dtype
            chosen = {
                n: x if x == knobs[n] else torch.tensor([float(x)], dtype=dtype, device=self.device)
                for n, x in chosen.items()
            }
        return {inputs[n].value: x for n, x in chosen.items()}

    # ---- the program --------------------------------------------------------------------------------------------

    def _compile(self) -> None:
        plan, model = self.plan, self.view
        self.registers: Registers = []
        self.widths: list[int] = []  # elements a register holds
        self.played = {n: v for n, v in model.graph.outputs.items() if v.type.timed}
        for n, v in model.graph.outputs.items():
            if not v.type.timed:
                fail("GS0190", f"'{n}' has no time; sampling it is not built yet", v.span)
        self.where: dict[Value, list[Pick]] = {}  # element -> its register
        self.values_of: dict[Any, Value] = {}  # of each instruction
        fed = dict(plan.fed)
        for v in plan.values:
            if v.type.timed and v in fed:
                self.where[v] = [self._register() for _ in range(plan.elements[v])]
        for f in plan.fires:
            self._hold(f)
        prepared = model.prepare()
        self.states: list[Any] = []
        self.slots: dict[Value, int] = {}
        for v in plan.values:
            if v.carry:
                self.slots[v] = len(self.states)
                self.states.append(None)  # filled when static values are known
                continue
            if v.op is None or not v.type.timed:
                continue
            module = model.modules_of[v]
            start = module.init_state(self.rows, self.like)  # type: ignore[operator]
            if start:
                self.slots[v] = len(self.states)
                self.states.append(self._past(v, start) if _delays(v) else start)
        self.static: dict[Value, Any] = dict(self.knobs)
        with torch.no_grad():
            noise = self._noise.of(plan.static)
            for v in plan.static:
                self.static[v] = model.evaluate([v], {k.path: x for k, x in self.knobs.items()}, noise)[0]
        begin = model.init_state(self.rows, self.like, {k.path: x for k, x in self.knobs.items()})
        for v, slot in self.slots.items():
            if v.carry:
                self.states[slot] = self._past(v, {"past": begin[f"{v.path}/past"]})
        program: list[list[Any]] = [[] for _ in range(plan.phases * plan.block)]
        played: list[list[tuple[str, Pick]]] = [[] for _ in range(plan.phases * plan.block)]
        for f in plan.fires:
            made = self._instruction(f, prepared)
            if made is not None:
                program[f.at].append(made)
                self.values_of[made] = f.value
            for name, v in self.played.items():
                if v is f.value:
                    played[f.at] += [(name, p) for p in self.where[v][f.first : f.first + f.count]]
        turn_of = {source: turn for (source, _), turn in zip(plan.fed, plan.turns, strict=True)}
        for name, v in self.played.items():
            if v in turn_of:
                for k in range(plan.block):
                    played[plan.phases * k + turn_of[v] + 1].append((name, self.where[v][k]))
        self.program, self.leaving = program, played
        self.delays = [v for v in plan.values if v in self.slots and (v.carry or _delays(v))]

    def _register(self) -> Pick:
        self.registers.append(None)
        self.widths.append(1)
        return Pick(len(self.registers) - 1, 0, 1, True)

    def _hold(self, f: Fire) -> None:
        if f.value.part is not None or f.value.parts is None:
            self.registers.append(None)
            self.widths.append(f.count)
            register = len(self.registers) - 1
            picks = [Pick(register, i, 1, f.count == 1) for i in range(f.count)]
            self.where.setdefault(f.value, []).extend(picks)

    def _delayed(self, v: Value) -> tuple[Value, int]:
        """What a delay or a carry is, and how many ticks ago."""
        if v.carry:
            return self.view.graph.backs[v].source, v.carry
        operand = v.operands[0]
        assert isinstance(operand, Value)
        return operand, int(v.windows[0].past)

    def _past(self, v: Value, state: dict[str, Tensor]) -> list[Tensor]:
        """A delay's one state tensor [B, k, ...], oldest first, as k elements."""
        (held,) = state.values()
        return list(held.split(1, 1))

    def _operand(self, v: Value, i: int, first: int, count: int) -> Any:
        operand = v.operands[i]
        if isinstance(operand, Constant):
            return operand.value
        if not operand.type.timed:
            return self.static[operand]
        a, b = consumed(v, i, first, count)
        picks = self.where[operand][a:b]
        if len(picks) == 1:
            return picks[0]
        if len({p.register for p in picks}) == 1:
            p = picks[0]
            width = sum(1 for q in self.where[operand] if q.register == p.register)
            return Pick(p.register, p.first, len(picks), width == len(picks))
        return picks

    def _instruction(self, f: Fire, prepared: Mapping[str, Tensor]) -> Any:
        v = f.value
        if v.part is not None:
            return None  # filled by the op it is a part of
        if v.carry or _delays(v):
            operand, past = self._delayed(v)
            register = self.where[v][f.first].register
            return Delay(register, self.slots[v], f.first, f.count, past, self.where[operand])
        assert v.op is not None
        plain, named = v.called(lambda i, _: self._operand(v, i, f.first, f.count))
        own = {k.split("/", 1)[1]: t for k, t in prepared.items() if k.startswith(f"{v.path}/")}
        noise = (v, f.first, f.count) if v.noise is not None and not v.op.training_noise else None
        parts = None
        register = -1
        if v.parts is not None:
            parts = [
                self.where[p][f.first].register
                for name in v.parts
                for p in self.where
                if p.part == name and p.operands[0] is v
            ]
        else:
            register = self.where[v][f.first].register
        return Instruction(self.view.modules_of[v], plain, named, register, self.slots.get(v), own, noise, parts)

    # ---- running --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prefill(self, prompt: Mapping[str, Tensor]) -> None:
        """Take in a prompt [B, n, C] for every fed input: whole blocks in parallel, the rest tick by tick."""
        prompt = checked_prompt(prompt, [source for source, _ in self.fed], self.rows, begun=self.tick > 0)
        n = next(iter(prompt.values())).shape[1]
        block = self.plan.block
        whole = n // block * block
        if whole:
            self._parallel({k: p[:, :whole] for k, p in prompt.items()})
            self.tick = whole
        for k in range(whole, n):
            self._tick({name: p[:, k : k + 1] for name, p in prompt.items()})

    def _parallel(self, prompt: Mapping[str, Tensor]) -> None:
        model, plan = self.view, self.plan
        knobs = {k.path: v for k, v in self.knobs.items()}
        state = model.init_state(self.rows, self.like, knobs)
        blocks = next(iter(prompt.values())).shape[1] // plan.block
        noise = self._noise.of(plan.values, lambda v: blocks * plan.elements[v])
        _, state = model.advance(list(self.slots), {**knobs, **prompt}, state, model.prepare(), noise)
        for v, slot in self.slots.items():
            own = {k.split("/", 1)[1]: t for k, t in state.items() if k.startswith(f"{v.path}/")}
            self.states[slot] = self._past(v, own) if v.carry or _delays(v) else own

    def settle(self, ticks: int) -> None:
        """Choose and build the backend for so many ticks, if that is not done; `draw` does it by itself."""
        if self.backend != "eager":
            self.chosen, self.running = chosen(self.backend, self, ticks, self.warn)
            self.backend = "eager"

    @torch.no_grad()
    def draw(self, ticks: int, tell: Callable[[int], None] = lambda done: None) -> dict[str, Tensor]:
        """The next `ticks` of what is fed; of each value in `to:` what leaves meanwhile, [B, n, C] each."""
        if ticks < 1:
            fail("GS0629", f"draw 1 tick or more, not {ticks}", None)
        self.settle(ticks)
        if self.running is not None:
            return self.running.draw(ticks, tell)
        out: dict[str, list[Tensor]] = {name: [] for name in self.played}
        for k in range(ticks):
            for name, element in self._tick(None):
                out[name].append(element)
            if k % 256 == 255:
                tell(k + 1)
        return {name: torch.cat(each, 1) for name, each in out.items() if each}

    def elements(self, ticks: int) -> Iterator[tuple[Value, Tensor]]:
        """The next `ticks` by the plain schedule: each fed input with the element `[B, 1, C]` that is drawn for it."""
        for _ in range(ticks):
            k = self.tick % self.plan.block
            self._tick(None)
            for source, _ in self.fed:
                yield source, self.where[source][k].of(self.registers)

    def _tick(self, forced: Mapping[str, Tensor] | None) -> list[tuple[str, Tensor]]:
        """One tick: what is due before the draw, the draw (or the forced element), what is due after it.

        Returns the elements of `to:` that were made.
        """
        plan = self.plan
        k = self.tick % plan.block
        registers, states = self.registers, self.states
        made = []
        for phase in range(plan.phases):
            at = plan.phases * k + phase
            for instruction in self.program[at]:
                instruction.run(registers, states, self._noise_for)
            made += [(name, pick.of(registers)) for name, pick in self.leaving[at]]
            for (source, event), turn in zip(plan.fed, plan.turns, strict=True):
                if turn == phase:
                    element = forced[source.path] if forced is not None else self.where[event][k].of(registers)
                    registers[self.where[source][k].register] = element
        if k == plan.block - 1:
            self._next_block()
        self.tick += 1
        return made

    def _next_block(self) -> None:
        for v in self.delays:
            operand, n = self._delayed(v)
            slot = self.slots[v]
            new = [p.of(self.registers) for p in self.where[operand][-n:]]
            self.states[slot] = [*self.states[slot], *new][-n:]

    def _noise_for(self, v: Value, first: int, count: int) -> Tensor:
        """Uniform numbers [B, count, ...] of elements first.. of this block, from a buffer drawn ahead."""
        assert v.noise is not None
        per_block = self.plan.elements[v]
        at = self.tick // self.plan.block * per_block + first
        start, held = self.buffers.get(v, (0, None))
        if held is None or at < start or at + count > start + held.shape[1]:
            size = max(NOISE_TICKS, count)
            start, held = at, self._drawn(v, at, size)
            self.buffers[v] = (start, held)
        return held[:, at - start : at - start + count]

    def _drawn(self, v: Value, start: int, count: int) -> Tensor:
        """Noise [B, count, ...] of elements start.. of a value that is random while sampling."""
        made = self._noise(v, start, count)
        assert made is not None
        return made


def chosen_knobs(graph: Graph, given: Mapping[str, float]) -> dict[str, Any]:
    """The inputs without time by name: as given, else their defaults. Raises GS0628 for what is none, or below 0."""
    knobs = {n: i.default for n, i in graph.inputs.items() if not i.value.type.timed}
    for name, value in given.items():
        if name not in knobs:
            fail("GS0628", f"the spec has no knob '{name}'; it has {', '.join(knobs) or 'none'}", None)
        if not value >= 0:
            fail("GS0628", f"{name} is a number from 0, not {value}", None)
    return {n: given.get(n, d) for n, d in knobs.items()}


def checked_prompt(prompt: Mapping[str, Tensor], fed: Sequence[Value], rows: int, begun: bool) -> dict[str, Tensor]:
    """A prompt `[rows, n, C]` for every fed input, all of the same time. Raises GS0629 for what is none."""
    if begun:
        fail("GS0629", "a prompt comes before the first tick", None)
    types = {v.path: v.type for v in fed}
    if set(prompt) != set(types):
        fail("GS0629", f"a prompt is for {', '.join(types)}, not for {', '.join(prompt) or 'nothing'}", None)
    for name, given in prompt.items():
        fits(f"the prompt of '{name}'", given, types[name], rows)
    return of_one_time(prompt, types)


def of_one_time(prompts: Mapping[str, Tensor], types: Mapping[str, Type]) -> dict[str, Tensor]:
    """Prompts `[B, n, ...]` cut to the time of the shortest, in whole elements of each; GS0629 if none is left."""
    steps = {n: 1 / Fraction(types[n].rate or 1) for n in prompts}  # seconds of an element
    grid = Fraction(
        math.lcm(*(s.numerator for s in steps.values())), math.gcd(*(s.denominator for s in steps.values()))
    )
    least = min((x.shape[1] * steps[n] for n, x in prompts.items()), default=Fraction(0))
    if 0 < least < grid:
        told = f"{float(least):g} s of prompt are too short: {' and '.join(prompts)} have whole elements in"
        fail("GS0629", f"{told} {float(grid):g} s", None)
    time = least // grid * grid
    return {n: x[:, : int(time / steps[n])] for n, x in prompts.items()}


def fits(what: str, given: Tensor, type_: Type, rows: int) -> None:
    """What is given for an input is [rows, n, C] of its classes, or floats; else GS0629."""
    wanted = (rows, *(d.as_int() for d in type_.after_time))
    classes = type_.dtype.classes if type_.dtype.kind == "int" else None
    if (given.shape[0], *given.shape[2:]) != wanted or given.is_floating_point() != (type_.dtype.kind == "float"):
        shape = ", ".join(map(str, (rows, "n", *wanted[1:])))
        fail(
            "GS0629",
            f"{what} is {list(given.shape)} {given.dtype}; it is [{shape}] of {type_.dtype}",
            None,
        )
    if classes and given.numel() and not 0 <= int(given.min()) <= int(given.max()) < classes:
        fail("GS0629", f"{what} has levels outside 0..{classes - 1}", None)


def _delays(v: Value) -> bool:
    return bool(v.windows) and v.windows[0].copies
