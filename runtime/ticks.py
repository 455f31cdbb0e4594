"""The sampler's block of ticks as stages, one pure function of tensors a tick, and tables of what goes where.

What moves between ticks are cells: one element `[B, 1, ...]` each, either an element of this block or one that a delay
remembers of the blocks before. Equal ticks share one stage (stages.py), so a model of three clocks has about three.
Delays and unfolds only rename cells, and so are wiring: no stage runs them. All backends have the same stages and the
same tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from graphspec.graph import Value
from graphspec.ops.modules.pool import Unfold
from graphspec.runtime.instructions import Delay, Instruction, Pick
from graphspec.runtime.stages import Fixed, Joined, Made, Outside, Stage, Static, Step, part_of

if TYPE_CHECKING:
    from graphspec.runtime.sample import Sampler


class Cell(NamedTuple):
    """A place for one element `[B, 1, ...]`: element i of a register, or entry i of what delay `at` remembers.

    Of the last axis it has the channels `part`, `part + of`, ...: what an unfold makes of it.
    """

    kind: str  # element, past
    at: int
    i: int
    part: int = 0
    of: int = 1

    def split(self, part: int, of: int) -> Cell:
        """Element `part` of the `of` that an unfold makes of this."""
        return self._replace(part=self.part + part * self.of, of=self.of * of)

    @property
    def base(self) -> Cell:
        return self._replace(part=0, of=1)


@dataclass(frozen=True)
class Tick:
    """One tick: which stage runs, the cells it takes and gives, its noise, and which cells leave for whom.

    outputs: none where this tick's result is not needed. noises: (value, first element of the block, count).
    """

    stage: int
    inputs: tuple[Cell, ...]
    outputs: tuple[Cell | None, ...]
    noises: tuple[tuple[Value, int, int], ...]
    leaving: tuple[tuple[str, Cell], ...]


@dataclass
class _Draft:
    """A tick while it is read."""

    steps: list[Step] = field(default_factory=list)
    inputs: dict[Cell, int] = field(default_factory=dict)
    statics: dict[int, Tensor] = field(default_factory=dict)
    noises: list[tuple[Value, int, int]] = field(default_factory=list)
    made: dict[Cell, Any] = field(default_factory=dict)
    leaving: list[tuple[str, Cell]] = field(default_factory=list)


class Ticks:
    """The stages and tables of a sampler's block. `statics[n]` are the static tensors of stage n, in order."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.alias: dict[tuple[int, int], Cell] = {}
        drafts = [self._draft(k) for k in range(sampler.plan.block)]
        self.moves = self._moves(drafts)
        needed = {c for d in drafts for c in d.inputs} | {c for d in drafts for _, c in d.leaving}
        needed |= {c for pair in self.moves for c in pair}
        self.stages: list[Stage] = []
        self.statics: list[list[Tensor]] = []
        self.ticks = self._ticks(drafts, needed)
        self.cells = sorted(needed)
        self.growing: Value | None = None  # a value whose state has another size after a block
        self.shapes = self._shapes()

    # ---- reading the program ---------------------------------------------------------------------------------------

    def _cell(self, register: int, i: int) -> Cell:
        return self.alias.get((register, i)) or Cell("element", register, i)

    def _cells(self, pick: Any) -> list[Cell]:
        picks = pick if isinstance(pick, list) else [pick]
        return [self._cell(p.register, i) for p in picks for i in range(p.first, p.first + p.count)]

    def _draft(self, k: int) -> _Draft:
        s, draft = self.sampler, _Draft()
        for phase in range(s.plan.phases):
            at = s.plan.phases * k + phase
            for made in s.program[at]:
                if isinstance(made, Delay):
                    for j, e in enumerate(range(made.first, made.first + made.count)):
                        past = Cell("past", made.past, e)
                        found = past if e < made.k else self._cells(made.source[e - made.k])[0]
                        self.alias[made.register, j] = found
                elif isinstance(made.module, Unfold):
                    p = made.module.p
                    whole = self._cells(made.plain[0])
                    for j in range(len(whole) * p):
                        self.alias[made.register, j] = whole[j // p].split(j % p, p)
                else:
                    self._step(draft, made)
            draft.leaving += [(name, self._cells(pick)[0]) for name, pick in s.leaving[at]]
            for (source, drawn), turn in zip(s.plan.fed, s.plan.turns, strict=True):
                if turn == phase:
                    into = Cell("element", s.where[source][k].register, 0)
                    draft.made[into] = self._ref(draft, self._cells(s.where[drawn][k])[0])
        return draft

    def _step(self, draft: _Draft, made: Instruction) -> None:
        n = len(draft.steps)
        noise = None
        if made.noise is not None:
            noise = len(draft.noises)
            draft.noises.append(made.noise)
        plain = tuple(self._operand(draft, p) for p in made.plain)
        named = tuple((k, self._operand(draft, p)) for k, p in made.named.items())
        draft.steps.append(Step(made, plain, named, noise))
        registers = [made.register] if made.parts is None else made.parts
        for sub, register in enumerate(registers):
            count = self.sampler.widths[register]
            for i in range(count):
                place = -1 if made.parts is None else sub
                draft.made[Cell("element", register, i)] = Made(n, place, i, 1, count == 1)

    def _operand(self, draft: _Draft, given: Any) -> Any:
        if isinstance(given, Tensor):
            draft.statics.setdefault(id(given), given)
            return Static(list(draft.statics).index(id(given)))
        if not isinstance(given, (Pick, list)):
            return Fixed(given, type(given).__name__)
        refs = [self._ref(draft, c) for c in self._cells(given)]
        first = refs[0]
        if isinstance(given, Pick) and given.whole and isinstance(first, Made) and len(refs) > 1:
            run = [r for r in refs if isinstance(r, Made) and (r.step, r.sub, r.of) == (first.step, first.sub, 1)]
            if [r.first for r in run] == list(range(len(refs))):  # all that this step made, in order
                return replace(first, count=len(refs), whole=True)
        return first if len(refs) == 1 else Joined(tuple(refs))

    def _ref(self, draft: _Draft, cell: Cell) -> Any:
        """Where the stage has the cell: made in it, or given."""
        made = draft.made.get(cell)
        if made is None and cell.of > 1 and cell.base in draft.made:
            made = replace(draft.made[cell.base], part=cell.part, of=cell.of)
        if made is None:
            made = Outside(draft.inputs.setdefault(cell, len(draft.inputs)))
        return made

    def _moves(self, drafts: Sequence[_Draft]) -> list[tuple[Cell, Cell]]:
        """At the end of a block a delay forgets its oldest elements: (an entry, which cell it becomes), all at once.

        Entries are kept in the forms (`part`, `of`) in which they are read.
        """
        s = self.sampler
        found: dict[Cell, Cell] = {}
        cells = [c for d in drafts for c in d.inputs] + [c for d in drafts for _, c in d.leaving]
        owners = {slot: v for v, slot in s.slots.items()}
        while cells:
            c = cells.pop()
            if c.kind != "past" or c in found:
                continue
            operand, k = s._delayed(owners[c.at])
            new = [self._cells(p)[0] for p in s.where[operand][-k:]]
            ahead = [Cell("past", c.at, i) for i in range(k)] + new
            for i, source in enumerate(ahead[-k:]):
                split = source.split(c.part, c.of) if c.of > 1 else source
                found[Cell("past", c.at, i, c.part, c.of)] = split
                cells.append(split)
        return list(found.items())

    # ---- stages ------------------------------------------------------------------------------------------------------

    def _ticks(self, drafts: Sequence[_Draft], needed: set[Cell]) -> list[Tick]:
        """Drafts of equal steps share a stage, which gives what any of them needs."""
        which: list[int] = []
        for d in drafts:
            for n, stage in enumerate(self.stages):
                same = len(stage.steps) == len(d.steps) and stage.counts[0] == len(d.inputs)
                if same and all(a.same(b) for a, b in zip(stage.steps, d.steps, strict=True)):
                    if [id(t) for t in self.statics[n]] == list(d.statics):
                        which.append(n)
                        break
            else:
                states = self._states(d)
                self.stages.append(Stage(d.steps, len(d.inputs), len(d.statics), len(d.noises), states))
                self.statics.append(list(d.statics.values()))
                which.append(len(self.stages) - 1)
        leaving = [self._leaving(d, needed) for d in drafts]
        for n, cells in zip(which, leaving, strict=True):
            wanted = dict.fromkeys([*self.stages[n].outputs, *cells])
            self.stages[n].outputs = list(wanted)
        return [
            Tick(n, tuple(d.inputs), tuple(map(cells.get, self.stages[n].outputs)), tuple(d.noises), tuple(d.leaving))
            for n, d, cells in zip(which, drafts, leaving, strict=True)
        ]

    def _leaving(self, draft: _Draft, needed: set[Cell]) -> dict[tuple[Any, int], Cell]:
        """The cells this tick makes that someone needs, by (reference, 1 for a second cell of the same, ...)."""
        out: dict[tuple[Any, int], Cell] = {}
        for c in sorted(needed):
            if c in draft.made or c.base in draft.made:
                ref, copy = self._ref(draft, c), 0
                while (ref, copy) in out:
                    copy += 1
                out[ref, copy] = c
        return out

    def _states(self, draft: _Draft) -> list[tuple[int, str]]:
        slots = dict.fromkeys(s.instruction.state for s in draft.steps if s.instruction.state is not None)
        return [(slot, name) for slot in slots for name in self.sampler.states[slot]]

    # ---- values ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _shapes(self) -> dict[Cell, Tensor]:
        """An example of each cell, from a block run on copies of the sampler's registers and states."""
        s = self.sampler
        registers, states = list(s.registers), list(s.states)

        def half(v: Value, first: int, count: int) -> Tensor:
            return torch.full_like(s._drawn(v, 0, 1), 0.5).expand(-1, count, *[-1] * len(v.noise.after_time))  # type: ignore[union-attr]

        for k in range(s.plan.block):
            for phase in range(s.plan.phases):
                for made in s.program[s.plan.phases * k + phase]:
                    made.run(registers, states, half)
                for (source, drawn), turn in zip(s.plan.fed, s.plan.turns, strict=True):
                    if turn == phase:
                        registers[s.where[source][k].register] = s.where[drawn][k].of(registers)
        for v, slot in s.slots.items():
            if isinstance(states[slot], dict) and any(
                states[slot][n].shape != x.shape for n, x in s.states[slot].items()
            ):
                self.growing = v
        return {c: torch.zeros_like(self._held(c, registers, states)) for c in self.cells}

    def value(self, cell: Cell) -> Tensor | None:
        """What the sampler's registers and delays hold for a cell; none before it was ever made."""
        s = self.sampler
        if cell.kind == "element" and s.registers[cell.at] is None:
            return None
        return self._held(cell, s.registers, s.states)

    def _held(self, cell: Cell, registers: Sequence[Any], states: Sequence[Any]) -> Tensor:
        if cell.kind == "past":
            x = states[cell.at][cell.i]
        else:
            x = registers[cell.at]
            if self.sampler.widths[cell.at] > 1:
                x = x[:, cell.i : cell.i + 1]
        return x if cell.of == 1 else part_of(x, cell.part, cell.of)

    def examples(self, n: int) -> tuple[Tensor, ...]:
        """Operands for tracing stage n, each a tensor of its own: torch.export takes one given twice for one."""
        stage = self.stages[n]
        tick = next(t for t in self.ticks if t.stage == n)
        s = self.sampler
        cells = [self.shapes[c].clone() for c in tick.inputs]
        states = [s.states[slot][name].clone() for slot, name in stage.states]
        statics = [t.clone() for t in self.statics[n]]
        noises = [s._drawn(v, first, count).clone() for v, first, count in tick.noises]
        return (*cells, *states, *statics, *noises)

    def blamed(self, n: int, result: int | None = None) -> Value:
        """The value that stage n computes last, or that its result is of."""
        stage = self.stages[n]
        owner = self.sampler.values_of
        if result is not None and result >= len(stage.outputs):
            slot = stage.states[result - len(stage.outputs)][0]
            return next(v for v, at in self.sampler.slots.items() if at == slot)
        ref = stage.outputs[result][0] if result is not None and result < len(stage.outputs) else None
        return owner[stage.steps[ref.step if isinstance(ref, Made) else -1].instruction]

    def names(self, n: int) -> tuple[list[str], list[str]]:
        """Names of a stage's operands and results, plain words that every format takes."""
        cells, states, statics, noises = self.stages[n].counts
        given = [f"cell_{i}" for i in range(cells)] + [f"state_{i}" for i in range(states)]
        given += [f"static_{i}" for i in range(statics)] + [f"noise_{i}" for i in range(noises)]
        out = [f"out_{i}" for i in range(len(self.stages[n].outputs))] + [f"next_{i}" for i in range(states)]
        return given, out


def flips(ticks: Iterable[Tick], stages: Sequence[Stage]) -> dict[tuple[int, str], int]:
    """How often each state is written in a block."""
    out: dict[tuple[int, str], int] = {}
    for t in ticks:
        for s in stages[t.stage].states:
            out[s] = out.get(s, 0) + 1
    return out
