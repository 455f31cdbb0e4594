"""Whether a sampler drew what eager draws: eager is held to its samples, tick by tick, and would have drawn the same.

Compiled arithmetic rounds differently, so a draw may differ where its noise lies within 1e-4 of a step of the
distribution function. There, and only there, the eager draw with the noise moved by that much is the other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from graphspec.runtime.instructions import Instruction, gathered
from graphspec.runtime.sample import Sampler

EDGE = 1e-4  # of probability
CLOSE = 1e-3  # of the largest element, for what is no class


@torch.no_grad()
def disagreements(eager: Sampler, drawn: Mapping[str, Tensor]) -> Iterator[tuple[int, str, bool]]:
    """(tick, input, excused) of each draw that eager would have made otherwise.

    eager: a sampler that stands where `drawn` begins; drawn: every fed input by name, `[rows, n, ...]`.
    """
    instructions: dict[tuple[Any, int], Instruction] = {
        (v, at): i for at, tick in enumerate(eager.program) for i in tick for v in (eager.values_of[i],)
    }
    ticks = min(x.shape[1] for x in drawn.values())
    for t in range(ticks):
        k = eager.tick % eager.plan.block
        forced = {name: x[:, t : t + 1] for name, x in drawn.items()}
        eager._tick(forced)
        for (source, value), turn in zip(eager.plan.fed, eager.plan.turns, strict=True):
            mine, theirs = eager.where[value][k].of(eager.registers), forced[source.path]
            if _same(mine, theirs):
                continue
            instruction = instructions.get((value, eager.plan.phases * k + turn))
            yield eager.tick - 1, source.path, instruction is not None and _near(eager, instruction, mine, theirs)


def _same(mine: Tensor, theirs: Tensor) -> bool:
    if not mine.is_floating_point():
        return torch.equal(mine, theirs)
    return bool((mine - theirs).abs().max() <= CLOSE * mine.abs().max().clamp(min=1e-3))


def _near(eager: Sampler, made: Instruction, mine: Tensor, theirs: Tensor) -> bool:
    """Every element that differs is what noise a little lower or higher draws, or lies between the two."""
    if made.noise is None or mine.is_floating_point():
        return False
    given = [gathered(p, eager.registers) for p in made.plain]
    named = {k: gathered(p, eager.registers) for k, p in made.named.items()}
    eager.tick -= 1  # its registers are still those of the last tick
    noise = eager._noise_for(*made.noise)
    eager.tick += 1
    low, high = (made.call(*given, noise=(noise + e).clamp(0, 1 - 2**-24), **named) for e in (-EDGE, EDGE))
    return bool(((theirs >= low) & (theirs <= high) | (theirs == mine)).all())
