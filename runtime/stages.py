"""A stage of the sampler: what runs at a tick as one pure function of tensors, which every backend compiles or runs.

A stage takes cells, states, static values and noise, and gives cells and new states. Inside, steps refer to operands by
where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphspec.runtime.instructions import Instruction


@dataclass(frozen=True)
class Outside:
    """The n-th cell that a stage is given."""

    n: int


@dataclass(frozen=True)
class Made:
    """Element `first` (of `count`; all of them where `whole`) of the result of an earlier step of the stage."""

    step: int
    sub: int  # which of an op's several results, or -1
    first: int
    count: int
    whole: bool
    part: int = 0
    of: int = 1


@dataclass(frozen=True)
class Static:
    """The n-th static tensor that a stage is given."""

    n: int


@dataclass(frozen=True)
class Joined:
    """Several elements after each other."""

    each: tuple[Any, ...]


@dataclass(frozen=True)
class Fixed:
    """A number of the spec. Its kind is told, since 1, 1.0 and True are equal."""

    value: Any
    kind: str


@dataclass(frozen=True, eq=False)
class Step:
    """One instruction of a stage, its operands by reference."""

    instruction: Instruction
    plain: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]
    noise: int | None  # which of the stage's noise operands

    def same(self, other: Step) -> bool:
        mine, theirs = self.instruction, other.instruction
        return (
            mine.module is theirs.module
            and mine.state == theirs.state
            and (self.plain, self.named, self.noise) == (other.plain, other.named, other.noise)
            and (mine.noise is None or theirs.noise is None or mine.noise[2] == theirs.noise[2])
        )


class Stage(nn.Module):
    """What runs at a tick: `forward(*cells, *states, *statics, *noises) -> (*cells, *new states)`, pure.

    states: (slot, name) of each state. outputs: which results leave it as cells.
    """

    def __init__(self, steps: Sequence[Step], cells: int, statics: int, noises: int, states: list[tuple[int, str]]):
        super().__init__()
        self.steps = tuple(steps)
        self.counts = (cells, len(states), statics, noises)
        self.states = states
        self.outputs: list[tuple[Any, int]] = []
        modules = {id(s.instruction.module): s.instruction.module for s in steps}
        self.held = nn.ModuleList(modules.values())
        for n, step in enumerate(steps):
            for name, tensor in step.instruction.prepared.items():
                # A copy: a weight that is handed on as it is would be one tensor under two names.
                self.register_buffer(f"prepared_{n}_{name}", tensor.detach().clone(), persistent=True)

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        at, groups = 0, []
        for count in self.counts:
            groups.append(flat[at : at + count])
            at += count
        cells, states, statics, noises = groups
        held = dict(zip(self.states, states, strict=True))
        made: list[Any] = []
        for n, step in enumerate(self.steps):
            run = step.instruction
            given = [_found(r, cells, statics, made) for r in step.plain]
            named = {k: _found(r, cells, statics, made) for k, r in step.named}
            if step.noise is not None:
                named["noise"] = noises[step.noise]
            if run.stateless:
                made.append(run.call(*given, **named))
                continue
            own = {name: t for (slot, name), t in held.items() if slot == run.state}
            prepared = {name: getattr(self, f"prepared_{n}_{name}") for name in run.prepared}
            result, new = run.call(*given, state=own, prepared=prepared, **named)
            made.append(result)
            if run.state is not None:
                held |= {(run.state, name): t for name, t in new.items()}
        out = [_found(r, cells, statics, made) for r, _ in self.outputs]
        new_states = [held[s] for s in self.states]
        # What leaves is its own memory: no view, and no operand handed back.
        return tuple(t.clone(memory_format=torch.contiguous_format) for t in out) + tuple(
            t.clone() if any(t is g for g in flat) else t.contiguous() for t in new_states
        )


def _found(ref: Any, cells: Sequence[Tensor], statics: Sequence[Tensor], made: list[Any]) -> Any:
    if isinstance(ref, Outside):
        return cells[ref.n]
    if isinstance(ref, Static):
        return statics[ref.n]
    if isinstance(ref, Joined):
        return torch.cat([_found(r, cells, statics, made) for r in ref.each], 1)
    if isinstance(ref, Made):
        x = made[ref.step] if ref.sub < 0 else made[ref.step][ref.sub]
        x = x if ref.whole else x[:, ref.first : ref.first + ref.count]
        return x if ref.of == 1 else part_of(x, ref.part, ref.of)
    return ref.value


def part_of(x: Tensor, part: int, of: int) -> Tensor:
    """`[B, 1, C]` -> channels part, part + of, ...: `[B, 1, C/of]`."""
    return x.unflatten(-1, (-1, of))[..., part]
