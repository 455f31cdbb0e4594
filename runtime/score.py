"""Score recordings whole: block after block through the step form, state carried from the first sample to the last.

What holds outside training is scored (`eval:`). Heads are scored in bits a sample, channel by channel too: each
`nll(dist, x)` of the spec, whatever its losses and metrics are called. A model whose memory cannot be carried, because
an op of it reads the future or the whole recording, is scored crop by crop instead, each crop by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from math import log, prod
from typing import Any

import torch
from torch import Tensor

from graphspec.compiler.clock import time_table
from graphspec.compiler.lower import Model
from graphspec.compiler.plan import block_of, looks_ahead
from graphspec.compiler.running import Running
from graphspec.diagnostic import fail
from graphspec.graph import Value
from graphspec.ops.modules.noise import normal, stream_id, uniform
from graphspec.runtime import checkpoint
from graphspec.runtime.data import Dataset, Piece, crop_lengths, grid
from graphspec.runtime.forward import validation_noise, with_step
from graphspec.runtime.run import Run

BLOCK = 16_384  # ticks a step, rounded to the model's own block

Blocks = Iterator[tuple[int, int, dict[str, Tensor]]]
Row = Mapping[str, Piece]  # what each input is given of one recording
Scores = dict[str, float]


def rows(data: Dataset, part: str) -> list[dict[str, Piece]]:
    """The recordings of a part (train, validation, test), the piece of each input by its name."""
    tracks = data.tracks.items()
    count = len(getattr(data, part))
    return [{name: getattr(track, part)[i] for name, track in tracks} for i in range(count)]


def updates(run: Run) -> int:
    """Of which update the weights are that a run gives: those of its newest checkpoint that verifies."""
    path = checkpoint.newest(run.checkpoints, lambda d: None)
    return int(json.loads((path / "meta.json").read_text())["step"]) if path is not None else 0


def whole_crops(model: Model) -> str:
    """Why the model is scored crop by crop; empty if its memory is carried through a whole recording."""
    running = model.outside_training
    needed = running.graph.needed_for(list(_scored(running).values()))
    ahead = looks_ahead(needed)
    if ahead is not None:
        return f"{ahead.path} looks ahead"
    hears: set[Value] = set()
    for v in needed:
        if (v.is_input and v.type.timed) or any(o in hears for o in v.values()):
            hears.add(v)
            if not v.type.timed:
                return f"{v.path} reads all of a recording"
    return ""


@torch.no_grad()
def score(
    model: Model,
    data: Dataset,
    pieces: Sequence[Piece | Row],
    tell: Callable[[str, Scores], None] = lambda n, r: None,
    step: int = 0,
    heads: bool = False,
) -> Scores:
    """Means of losses and metrics over every tick of the recordings: a long one counts for more.

    pieces: of the only input, or of each input by its name (`rows`). A loss with a mask is divided by the mask's sum
    over all of them. step: the update after which it is, for a spec that reads `step`. tell(name, means of this one).
    heads: also the bits a sample of each head, `NAME.bits`, and of its channels, `NAME.bits[0]` (`heads_of`).
    The tail that does not fill a block is padded behind, where causality keeps it from being heard; it is left out
    where a loss would hear it. Crop by crop (`whole_crops`), what is left behind the last crop is not scored. Raises
    GS0614 where nothing is as long as a crop.
    """
    model.eval()
    by_crop = bool(whole_crops(model))
    lengths = crop_lengths(model.checked) if by_crop else {}
    crops = count()  # numbered over all recordings, for the noise
    total = _Sums()
    targets = _scored(model.outside_training, heads)
    for i, given in enumerate(pieces):
        row = given if isinstance(given, Mapping) else {data.input: given}
        inputs = _inputs(model, data, row)
        if by_crop:
            found = _cropped(model, targets, inputs, lengths, crops, step)
        else:
            found = _carried(model, data, targets, inputs, i, step)
        if found.values:
            tell(next(iter(row.values())).name, found.means())
        total.add(found)
    if by_crop and pieces and not total.values:
        told = ", ".join(f"{n} ticks of '{name}'" for name, n in lengths.items())
        fail("GS0614", f"no recording is as long as a crop of {told}", None)
    return total.means()


@dataclass
class _Sums:
    """Of each loss and metric its sum, and what that is divided by: elements, or the sum of a mask."""

    values: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, other: _Sums) -> None:
        for name in other.values:
            self.tally(name, other.values[name], other.counts[name])

    def tally(self, name: str, value: float, count: float) -> None:
        self.values[name] = self.values.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0.0) + count

    def means(self) -> Scores:
        """By name; 0 where a mask held nowhere."""
        return {n: v / self.counts[n] if self.counts[n] else 0.0 for n, v in self.values.items()}

    def see(self, found: Mapping[str, Tensor], ticks: Mapping[str, int] | None = None) -> None:
        """Targets of one pass `[1, n, ...]` (or static, once a pass), of which the first `ticks` count."""
        for key, x in found.items():
            kind, _, name = key.partition(".")
            if kind not in ("losses", "metrics", "heads"):
                continue
            x = x.double()
            mask = found.get(f"masks.{name}") if kind != "metrics" else None
            if ticks is not None:
                x = x[:, : ticks[key]]
                mask = mask[:, : ticks[key]] if mask is not None else None
            if kind == "heads":
                self._bits(name, x / log(2), mask)
            elif mask is None:
                self.tally(name, x.sum().item(), x.numel())
            else:  # where, not a product: what is masked away counts as nothing even if it is infinite
                weights = mask.double()
                self.tally(name, torch.where(weights == 0, 0.0, x * weights).sum().item(), weights.sum().item())

    def _bits(self, name: str, bits: Tensor, mask: Tensor | None) -> None:
        """Of a head `[..., channels]`: all of it, and each channel where there are several."""
        weights = torch.ones_like(bits) if mask is None else mask.double().expand_as(bits)
        total = torch.where(weights == 0, 0.0, bits * weights).flatten(0, -2).sum(0).tolist()
        counts = weights.flatten(0, -2).sum(0).tolist()
        self.tally(f"{name}.bits", sum(total), sum(counts))
        if len(total) > 1:
            for c, (value, count) in enumerate(zip(total, counts, strict=True)):
                self.tally(f"{name}.bits[{c}]", value, count)


def heads_of(running: Running) -> dict[str, Value]:
    """Every `nll(dist, x)` that losses and metrics are made of: by the name of its loss or metric, else by its path.

    The same one written twice is one head, of the first name; losses come first.
    """
    graph = running.graph
    terms = (*graph.losses, *graph.metrics)
    every = graph.needed_for(list(_scored(running).values()))
    named = [(t.name, t.value) for t in terms] + [(v.path, v) for v in every]
    found: dict[tuple[object, ...], tuple[str, Value]] = {}
    for name, v in named:
        if v.op is not None and v.op.name == "nll" and v.type.timed:
            found.setdefault(v.operands, (name, v))
    return dict(found.values())


def _scored(running: Running, heads: bool = False) -> dict[str, Value]:
    """Losses, their masks, and metrics, and if asked for the heads, by the name of their target."""
    kinds = ("losses", "masks", "metrics")
    found = {n: v for n, v in running.targets.items() if n.partition(".")[0] in kinds and "." in n}
    return found | {f"heads.{n}": v for n, v in heads_of(running).items()} if heads else found


def _inputs(model: Model, data: Dataset, row: Row) -> dict[str, Tensor]:
    """Each input's tensor `[1, ticks, ...]`, cut to the moments that all of them have."""
    like = next(model.parameters())
    rates = {name: data.tracks[name].rate for name in row}
    common = grid(rates.values())
    steps = {name: int(rate / common) for name, rate in rates.items()}
    moments = min(piece.frames // steps[name] for name, piece in row.items())
    found = {}
    for name, piece in row.items():
        x = data.tensor(name, piece)[None, : moments * steps[name]].to(like.device)
        found[name] = x.to(like.dtype) if x.is_floating_point() else x
    return found


# ---- state carried ---------------------------------------------------------------------------------------------------


def _carried(
    model: Model, data: Dataset, targets: Mapping[str, Value], inputs: Mapping[str, Tensor], number: int, step: int
) -> _Sums:
    running = model.outside_training
    timed = {n: v for n, v in targets.items() if v.type.timed}
    fixed = {n: v for n, v in targets.items() if not v.type.timed}
    sums = _Sums()
    knobs = with_step(model, {}, step)
    if fixed:  # of numbers and weights only, or it would be scored crop by crop
        sums.see(dict(zip(fixed, running.evaluate(list(fixed.values()), knobs), strict=True)))
    if not timed:
        return sums
    rates = {n: data.tracks[n].rate for n in inputs}
    for _, ticks, found in blocks(model, timed, inputs, rates, knobs, torch.tensor([number])):
        sums.see(found, {n: int(ticks * (v.type.rate or 0) / max(rates.values())) for n, v in timed.items()})
    return sums


@torch.no_grad()
def blocks(
    model: Model,
    values: Mapping[str, Value],
    inputs: Mapping[str, Tensor],
    rates: Mapping[str, Fraction],
    knobs: Mapping[str, Tensor | float],
    numbers: Tensor,
) -> Blocks:
    """Timed values over whole inputs `[B, ticks, ...]` by the step form, a block of ticks after another.

    numbers: of the rows, `[B]`, for the noise. Yields (first, ticks, found): of the block the first tick and how many
    there are, in ticks of the fastest input, and each value by its name; behind the end it may hold more of them.
    """
    running = model.outside_training
    wanted = list(values.values())
    fastest, rows = max(rates.values()), len(numbers)
    needed = running.graph.needed_for(wanted)
    block = block_of(needed, fastest)
    size = max(block, BLOCK // rows // block * block)
    seconds = next(Fraction(x.shape[1]) / rates[n] for n, x in inputs.items())
    ends = int(seconds * fastest)
    if _hears_padding(running, wanted, block):
        ends -= ends % block
    noisy = [v for v in needed if v.noise is not None and v.op is not None and not v.op.training_noise]
    state, prepared = running.init_state(rows, next(model.parameters())), running.prepare()
    for first in range(0, ends, size):
        ticks = min(size, ends - first)
        padded = ticks + -ticks % block
        parts = {n: _part(x, first, padded, rates[n] / fastest) for n, x in inputs.items()}
        noise = {v.path: _noise(model, v, numbers, first, padded, fastest) for v in noisy}
        found, state = running.advance(wanted, {**knobs, **parts}, state, prepared, noise)
        yield first, ticks, dict(zip(values, found, strict=True))


def _hears_padding(running: Running, values: Sequence[Value], block: int) -> bool:
    """Whether an element of these reads beyond its own ticks, which it may within a block."""
    reaches = [r for table in time_table(running.graph).of.values() for v in values if (r := table.get(v)) is not None]
    return block > 1 and any(r.last_at(k) >= (k + 1) * r.step for r in reaches for k in range(r.period))


def _part(x: Tensor, first: int, ticks: int, share: Fraction) -> Tensor:
    """So many ticks of the fastest input, in ticks of this one; behind its end the last is repeated."""
    a, n = int(first * share), int(ticks * share)
    part = x[:, a : a + n]
    short = n - part.shape[1]
    return torch.cat([part, x[:, -1:].expand(-1, short, *x.shape[2:])], 1) if short else part


def _noise(model: Model, v: Value, rows: Tensor, first: int, ticks: int, rate: Fraction) -> Tensor:
    """The random operand of these ticks, from the counter, as validation draws it for these rows."""
    assert v.noise is not None and v.op is not None
    like, seed = next(model.parameters()), model.checked.settings.numbers["seed"]
    after = [int(d.as_int() or 1) for d in v.noise.after_time]
    share = (v.noise.rate or Fraction(0)) / rate
    at = torch.arange(int(first * share), int((first + ticks) * share)) if v.noise.timed else torch.arange(1)
    draw: Any = normal if v.op.noise.startswith("normal") else uniform
    drawn = draw(seed, stream_id(v.path), rows, at, prod(after), like.dtype, like.device, 0)
    return drawn.reshape(len(rows), *([len(at)] if v.noise.timed else []), *after)


# ---- crop by crop ----------------------------------------------------------------------------------------------------


def _cropped(
    model: Model,
    targets: Mapping[str, Value],
    inputs: Mapping[str, Tensor],
    lengths: Mapping[str, int],
    numbers: Iterator[int],
    step: int,
) -> _Sums:
    running = model.outside_training
    sums = _Sums()
    for i in range(min(x.shape[1] // lengths[name] for name, x in inputs.items())):
        crop = {n: x[:, i * lengths[n] : (i + 1) * lengths[n]] for n, x in inputs.items()}
        given = with_step(model, crop, step)
        noise = validation_noise(model, given, model.checked.settings.numbers["seed"], next(numbers))
        found = running.evaluate(list(targets.values()), given, noise)
        sums.see(dict(zip(targets, found, strict=True)))
    return sums
