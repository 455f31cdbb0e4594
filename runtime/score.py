"""Score recordings whole: block after block through the step form, state carried from the first sample to the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphspec.compiler.lower import Model
from graphspec.runtime.data import Dataset, Piece

BLOCK = 16_384  # ticks a step, rounded to the model's own block


@torch.no_grad()
def score(
    model: Model,
    data: Dataset,
    pieces: Sequence[Piece],
    tell: Callable[[str, dict[str, float]], None] = lambda n, r: None,
) -> dict[str, float]:
    """Means of the timed losses and metrics over every sample of the pieces (a long piece counts for more).

    The tail that does not fill a block is padded behind, where causality keeps it from being heard.
    """
    model.eval()
    block = model.block
    size = max(block, BLOCK // block * block)
    prepared = model.prepare()
    totals: dict[str, float] = {}
    count = 0
    for piece in pieces:
        x = data.audio.tensor(piece.samples)[None].to(next(model.parameters()).device)
        sums = _one(model, data.input, x, size, block, prepared)
        tell(piece.name, {k: s / x.shape[1] for k, s in sums.items()})
        totals = {k: totals.get(k, 0.0) + s for k, s in sums.items()}
        count += x.shape[1]
    return {k: s / count for k, s in totals.items()}


def _one(model: Model, name: str, x: Tensor, size: int, block: int, prepared: dict[str, Tensor]) -> dict[str, float]:
    state = model.init_state(1, next(model.parameters()))
    sums: dict[str, float] = {}
    for first in range(0, x.shape[1], size):
        part = x[:, first : first + size]
        ticks = part.shape[1]
        short = -ticks % block
        if short:
            part = torch.cat([part, part[:, -1:].expand(-1, short, *part.shape[2:])], 1)
        found, state = model.step({name: part}, state, prepared)
        for key, value in found.items():
            kind, _, term = key.partition(".")
            if kind in ("losses", "metrics"):
                sums[term] = sums.get(term, 0.0) + value[:, :ticks].double().mean(-1).sum().item()
    return sums
