"""Rows that were drawn, in the order of their likelihood: the model's own, whatever temperature they were drawn at.

The least likely rows tend to be noise, the likeliest to be silence or a drone, so both ends are dropped: the lowest
40% and the top 5%, as SaShiMi's authors advise (Goel et al. 2022).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import log

import torch
from torch import Tensor

from graphspec.compiler.lower import Model
from graphspec.diagnostic import fail
from graphspec.graph import Value
from graphspec.runtime.score import blocks, heads_of, whole_crops

LOWEST, TOP = Fraction(40, 100), Fraction(5, 100)


def rankable(model: Model, drawn: Collection[str], beside: Collection[str] = ()) -> dict[str, Value]:
    """For each fed input the head that says how likely it is: the first of its losses and metrics, by its name.

    drawn: the fed inputs. beside: other inputs that are given. Raises GS0661 where no loss is the nll of a fed input,
    or what the loss hears is neither.
    """
    running = model.outside_training
    scoring: dict[str, tuple[str, Value]] = {}
    for head, v in heads_of(running).items():
        scoring.setdefault(_path(v), (head, v))
    for name in drawn:
        if name not in scoring:
            fail("GS0661", f"no loss is the nll of '{name}', so nothing says how likely it is", None)
    heads = dict(scoring[name] for name in drawn)
    if why := whole_crops(model):
        fail("GS0661", f"{why}, so the model is scored in crops only", None)
    for v in running.graph.needed_for(list(heads.values())):
        if v.is_input and v.path not in (*drawn, *beside) and running.graph.inputs[v.path].default is None:
            fail("GS0661", f"the loss hears '{v.path}', which is neither drawn nor given", None)
    return heads


def log_likelihoods(
    model: Model,
    drawn: Mapping[str, Tensor],
    prompt: Mapping[str, int],
    knobs: Mapping[str, float] | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(the log-likelihood of each row in nats, the bits a sample it had on average), float64 `[B]` both.

    drawn: each fed input by its name, prompt and draw together `[B, ticks, ...]`. prompt: how many ticks of each are
    prompt: they are heard, not scored. knobs: numbers for other inputs; those that only drawing hears (temperature)
    change nothing. beside: inputs along time that were given. Raises GS0661 (`rankable`).
    """
    beside = dict(beside or {})
    graph = model.outside_training.graph
    heads = rankable(model, drawn, (*beside, *(knobs or {})))
    heard = {v.path for v in graph.needed_for(list(heads.values())) if v.is_input}
    numbers = {n: x for n, x in (knobs or {}).items() if n in heard}
    inputs = {**drawn, **{n: x for n, x in beside.items() if n in heard}}
    rates = {n: graph.inputs[n].value.type.rate or Fraction(1) for n in inputs}
    fastest = max(rates.values())
    like = next(iter(drawn.values()))
    rows = like.shape[0]
    total = torch.zeros(rows, dtype=torch.float64, device=like.device)
    count = 0
    for first, ticks, found in blocks(model, heads, inputs, rates, numbers, torch.arange(rows)):
        for name, v in heads.items():
            share = (v.type.rate or fastest) / fastest
            begin = max(0, prompt.get(_path(v), 0) - int(first * share))
            nats = found[name][:, begin : int(ticks * share)]
            total += nats.double().flatten(1).sum(1)
            count += nats[0].numel()
    return -total, total / (max(count, 1) * log(2))


def kept(scores: Sequence[float]) -> list[int]:
    """Which rows remain, the least likely first: without the lowest 40% and the top 5%. At least one does."""
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    n = len(order)
    return order[int(LOWEST * n) : n - int(TOP * n)]


def _path(head: Value) -> str:
    """The input that an nll scores; empty if it is none."""
    found = [o for o, slot in zip(head.operands, head.slots, strict=True) if slot == "x" and isinstance(o, Value)]
    return found[0].path if found and found[0].is_input else ""
