"""The model is called here: once for training, once for validation, each with the noise that belongs to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from graphspec.compiler.lower import Model
from graphspec.compiler.running import Running
from graphspec.graph import Value
from graphspec.ops.modules.noise import normal, stream_id, uniform


def training_forward(
    model: Model, inputs: Mapping[str, Tensor], noise: Mapping[str, Tensor], precision: str, recompute: bool = False
) -> dict[str, Tensor]:
    """All targets of the training graph, by name. recompute: with less memory, and more time."""
    with _precision(inputs, precision):
        return model(inputs, noise, recompute)


def validation_forward(
    model: Model, inputs: Mapping[str, Tensor], noise: Mapping[str, Tensor], precision: str
) -> dict[str, Tensor]:
    """All targets of the graph that validation sees (`eval:`), by name."""
    with _precision(inputs, precision):
        return model.outside_training.forward(inputs, noise)


@torch.no_grad()
def mask_sums(
    model: Model, masks: list[Value], inputs: Mapping[str, Tensor], noise: Mapping[str, Tensor], precision: str
) -> Tensor:
    """float64 `[len(masks)]`: the sums of masks, ahead of the forward pass and without what they do not need."""
    with _precision(inputs, precision):
        found = model.evaluate(masks, inputs, noise)
    return torch.stack([m.double().sum() for m in found])


def with_step(model: Model, inputs: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
    """The inputs, and the count of updates for a spec that reads `step`, as a static value `[1]`."""
    if "step" not in model.graph.inputs or "step" in inputs:
        return dict(inputs)
    like = next(model.parameters())
    return {**inputs, "step": torch.full((1,), float(step), dtype=like.dtype, device=like.device)}


def training_noise(
    model: Model, inputs: Mapping[str, Tensor], seed: int, update: int, first_row: int = 0
) -> dict[str, Tensor]:
    """The random operands of one forward pass. first_row: the number of its first row among all of the update."""
    return _noise(model, inputs, seed, update, first_row, _noisy(model))


def validation_noise(model: Model, inputs: Mapping[str, Tensor], seed: int, first_row: int = 0) -> dict[str, Tensor]:
    """Of the ops that are random outside training, too; always the same. first_row: the number of the first crop."""
    values = [v for v in _noisy(model.outside_training) if v.op is not None and not v.op.training_noise]
    return _noise(model, inputs, seed, 0, first_row, values)


def values_forward(
    model: Model, running: Running, values: list[Value], inputs: Mapping[str, Tensor], precision: str, seed: int
) -> list[Tensor]:
    """Any values of one of the model's graphs, without the noise of training."""
    noisy = [v for v in running.graph.needed_for(values) if v.noise is not None and v.op is not None]
    noise = _noise(model, inputs, seed, 0, 0, [v for v in noisy if v.op and not v.op.training_noise])
    with _precision(inputs, precision):
        return running.evaluate(values, inputs, noise)


def _noisy(running: Running) -> list[Any]:
    return [v for v in running.graph.needed_for(list(running.targets.values())) if v.noise is not None]


def _noise(
    model: Model, inputs: Mapping[str, Tensor], seed: int, update: int, first_row: int, values: list[Any]
) -> dict[str, Tensor]:
    """From the counter: the stream is the value's path; update, row, tick and channel are the address."""
    sizes = {
        str(dim): size
        for name, x in inputs.items()
        if name in model.graph.inputs
        for dim, size in zip(model.graph.inputs[name].value.type.dims, x.shape[1:], strict=False)
        if str(dim) in dim.symbols()
    }
    like = next(iter(inputs.values()))
    rows = torch.arange(first_row, first_row + like.shape[0])
    dtype = next(model.parameters()).dtype
    out: dict[str, Tensor] = {}
    for v in values:
        timed = [int(v.noise.dims[0].evaluate(sizes))] if v.noise.timed else []
        after = [int(d.evaluate(sizes)) for d in v.noise.after_time]
        draw = normal if v.op.noise.startswith("normal") else uniform
        ticks, width = torch.arange(timed[0] if timed else 1), math.prod(after)
        drawn = draw(seed, stream_id(v.path), rows, ticks, width, dtype, like.device, update)
        out[v.path] = drawn.reshape(like.shape[0], *timed, *after)
    return out


def _precision(inputs: Mapping[str, Tensor], precision: str) -> AbstractContextManager[Any]:
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(next(iter(inputs.values())).device.type, dtype=torch.bfloat16)
