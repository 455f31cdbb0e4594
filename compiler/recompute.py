"""Memory for time: a whole form in pieces whose inner values are not kept for backward, but computed again.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". The pieces follow the dataflow order and are cut
where few values are alive; what crosses a cut is kept, the rest of a piece lives only while the piece is run again.
Random operands are inputs, so the second run is the first one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.split_module import split_module
from torch.utils.checkpoint import checkpoint

from graphspec.compiler.emit import Form
from graphspec.types import Type

MOST_PIECES = 64


class Again(nn.Module):
    """A piece of a form, run again in backward."""

    def __init__(self, piece: nn.Module) -> None:
        super().__init__()
        self.piece = piece

    def forward(self, *given: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.piece(*given)
        return checkpoint(self.piece, *given, use_reentrant=False, preserve_rng_state=False)


def recomputed(form: Form, rate: Fraction | None) -> Form:
    """The form over the same modules, in pieces. rate: of the fastest input, by which elements are counted."""
    nodes = [n for n in form.module.graph.nodes if n.op not in ("placeholder", "output")]
    sizes = [_elements(form.who[n.name].type, rate) if n.name in form.who else 0.0 for n in nodes]
    piece_of = dict(zip(nodes, _pieces(nodes, sizes), strict=True))
    split = split_module(form.module, form.module, lambda n: piece_of[n], keep_original_order=True)  # type: ignore[arg-type]
    for name, piece in list(split.named_children()):
        setattr(split, name, Again(piece))
    return Form(split, form.inputs, form.noises, form.states, form.prepared, form.who, blamed=form.module)


def _elements(type_: Type, rate: Fraction | None) -> float:
    """Of a value, per tick of the fastest input and row."""
    size = 1.0
    for d in type_.tensor_axes[1:] if type_.timed else ():
        size *= d.as_int() or 1
    return size * float(type_.rate / rate) if type_.rate is not None and rate else 0.0


@dataclass(frozen=True)
class _Cut:
    before: int  # a cut stands before this node
    made: float  # elements of all nodes before it
    alive: frozenset[int]  # nodes whose results cross it
    crossing: float  # elements of those


def _pieces(nodes: Sequence[fx.Node], sizes: Sequence[float]) -> list[int]:
    """For each node the number of its piece: of all ways tried, the one with the least memory."""
    cuts, total = _cuts(nodes, sizes), sum(sizes)
    tried = [_chosen(cuts, total / k) for k in range(2, MOST_PIECES + 1)]
    best = min([[], *tried], key=lambda chosen: _peak(chosen, sizes, total))
    piece, starts = 0, {c.before for c in best}
    out = []
    for i in range(len(nodes)):
        piece += i in starts
        out.append(piece)
    return out


def _cuts(nodes: Sequence[fx.Node], sizes: Sequence[float]) -> list[_Cut]:
    """All places where a cut may stand, in order."""
    place = {n: i for i, n in enumerate(nodes)}
    last = [max((place[u] for u in n.users if u in place), default=-1) for n in nodes]
    # An op of several results and the results picked from it stay together.
    picked = [max((place[u] for u in n.users if u.op == "call_function"), default=-1) for n in nodes]
    out, alive, made = [], set[int](), 0.0
    for i in range(len(nodes)):
        alive = {j for j in alive if last[j] >= i}
        if i and all(picked[j] < i for j in alive):
            out.append(_Cut(i, made, frozenset(alive), sum(sizes[j] for j in alive)))
        alive.add(i)
        made += sizes[i]
    return out


def _chosen(cuts: Sequence[_Cut], wanted: float) -> list[_Cut]:
    """Cuts about every `wanted` elements: of those within half of it, where the least is alive."""
    places = [c.made for c in cuts]
    out: list[_Cut] = []
    start = 0.0
    while True:
        near = cuts[bisect_left(places, start + wanted / 2) : bisect_right(places, start + wanted * 3 / 2)]
        if not near or near[-1].made <= start:
            return out
        out.append(min(near, key=lambda c: (c.crossing, abs(c.made - start - wanted))))
        start = out[-1].made


def _peak(chosen: Sequence[_Cut], sizes: Sequence[float], total: float) -> float:
    """What is kept over all cuts, and the largest piece."""
    kept = {i for c in chosen for i in c.alive}
    edges = [0.0, *(c.made for c in chosen), total]
    return sum(sizes[i] for i in kept) + max(b - a for a, b in pairwise(edges))
