"""The instructions of the eager sampler: registers hold the elements of a block, each instruction fills one or more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphspec.graph import Value

Registers = list[Any]


@dataclass(frozen=True)
class Pick:
    """Elements of a register: all of it, or from `first` on."""

    register: int
    first: int
    count: int
    whole: bool

    def of(self, registers: Registers) -> Tensor:
        held = registers[self.register]
        return held if self.whole else held[:, self.first : self.first + self.count]


class Instruction:
    """Run one module for some elements: gather operands, step, keep the result and the state."""

    def __init__(
        self, module: nn.Module, plain: list[Any], named: dict[str, Any], register: int,
        state: int | None, prepared: dict[str, Tensor], noise: tuple[Value, int, int] | None, parts: list[int] | None,
    ):  # fmt: skip
        self.module, self.plain, self.named, self.register = module, plain, named, register
        self.state, self.prepared, self.noise, self.parts = state, prepared, noise, parts
        self.stateless = state is None and not prepared
        self.call: Callable[..., Any] = module.forward if self.stateless else module.step  # type: ignore[assignment]

    def run(
        self, registers: Registers, states: list[dict[str, Tensor]], noise: Callable[[Value, int, int], Tensor]
    ) -> None:
        given = [gathered(p, registers) for p in self.plain]
        named = {k: gathered(p, registers) for k, p in self.named.items()} if self.named else {}
        if self.noise is not None:
            named["noise"] = noise(*self.noise)
        if self.stateless:
            made = self.call(*given, **named)
        else:
            own = states[self.state] if self.state is not None else {}
            made, new = self.call(*given, state=own, prepared=self.prepared, **named)
            if self.state is not None:
                states[self.state] = new
        if self.parts is None:
            registers[self.register] = made
        else:
            for register, part in zip(self.parts, made, strict=True):
                registers[register] = part


class Delay:
    """Element e of a delay is element e - k of its operand: this block's, or what is left of the blocks before."""

    def __init__(self, register: int, past: int, first: int, count: int, k: int, source: list[Pick]):
        self.register, self.past, self.first, self.count, self.k, self.source = register, past, first, count, k, source

    def run(self, registers: Registers, states: list[Any], noise: Any) -> None:
        past = states[self.past]
        each = [
            past[e] if e < self.k else self.source[e - self.k].of(registers)
            for e in range(self.first, self.first + self.count)
        ]
        registers[self.register] = each[0] if len(each) == 1 else torch.cat(each, 1)


def gathered(pick: Any, registers: Registers) -> Any:
    if type(pick) is Pick:
        return pick.of(registers)
    if type(pick) is list:
        return torch.cat([p.of(registers) for p in pick], 1)
    return pick
