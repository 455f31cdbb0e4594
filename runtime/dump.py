"""`train.dump`: chosen values of the first validation crop, written down as training goes; and values of any crop.

`RUN/dumps/STEP/values.npz` holds an array a value, `[T, ..., C]` as the model has it (bfloat16 as float32), and
`dump.json` beside it the step, the losses and metrics of that crop at that step, each value's type and rate in Hz, and
the settings of the run. At most KEPT steps stay: when there would be more, every other one goes, so that those left are
spread over the whole run; the newest always stays.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphspec.compiler.lower import Model
from graphspec.compiler.taps import taps
from graphspec.diagnostic import Diagnostic, SpecError, fail
from graphspec.graph import Value
from graphspec.runtime.average import Average
from graphspec.runtime.checkpoint import write_atomic
from graphspec.runtime.data import Dataset, crop_lengths
from graphspec.runtime.forward import values_forward, with_step
from graphspec.runtime.run import Run
from graphspec.runtime.terms import Terms

KEPT = 64  # steps of a run
VALUES, TOLD = "values.npz", "dump.json"

Arrays = dict[str, NDArray[Any]]


class Dumps:
    """The dumps of a run that trains. Only reads the model: what is trained is the same with and without them."""

    def __init__(
        self,
        model: Model,
        run: Run,
        crops: Mapping[str, Tensor],
        average: Average | None,
        warn: Callable[[Diagnostic], None],
    ) -> None:
        self.numbers = model.checked.settings.numbers
        self.model, self.run, self.average, self.warn = model, run, average, warn
        self.values = {n: v for name in self.numbers["dump"] for n, v in taps(model.graph, name).items()}
        self.crop = {name: x[:1] for name, x in crops.items()}

    def write(self, step: int) -> None:
        """Write this step's, if one is due. A disk that takes no more is a warning: no run ends for want of it."""
        if not self.values or step % self.numbers["dump_every"]:
            return
        options: Any = {"precision": self.numbers["precision"], "seed": self.numbers["seed"], "step": step}
        with self.average.in_place() if self.average is not None else nullcontext():
            found, losses = evaluated(self.model, self.values, self.crop, **options)
        told = {
            "step": step,
            "validation": losses,
            "values": {n: _told(v) for n, v in self.values.items()},
            "config": self.run.config(),
        }
        packed = io.BytesIO()
        np.savez(packed, **found)  # type: ignore[arg-type]
        try:
            write_atomic(self.run.dumps / str(step) / VALUES, packed.getvalue())
            write_atomic(self.run.dumps / str(step) / TOLD, json.dumps(told, indent=1).encode())
            self._thin(step)
        except (SpecError, OSError) as error:
            if not isinstance(error, SpecError):
                self.warn(Diagnostic("GS0622", f"an old dump cannot be removed: {error}", None, "warning"))
                return
            for d in error.diagnostics:
                self.warn(replace(d, severity="warning", notes=(*d.notes, "training goes on without this dump")))

    def _thin(self, newest: int) -> None:
        every = self.numbers["dump_every"]
        while newest // every + 2 > KEPT:
            every *= 2
        for step in steps(self.run):
            if step % every and step < newest:
                shutil.rmtree(self.run.dumps / str(step))


def steps(run: Run) -> list[int]:
    """The steps that there are whole dumps of, rising."""
    found = [p.parent.name for p in run.dumps.glob(f"*/{TOLD}") if (p.parent / VALUES).is_file()]
    return sorted(int(name) for name in found if name.isascii() and name.isdigit())


def read(run: Run, step: int) -> tuple[Arrays, dict[str, Any]]:
    """(values by name, what is told of them) of one step. Raises GS0691 where there is no such dump."""
    folder = run.dumps / str(step)
    try:
        with np.load(folder / VALUES, allow_pickle=False) as packed:
            return dict(packed), json.loads((folder / TOLD).read_text())
    except (OSError, ValueError, KeyError) as error:
        there = steps(run)
        what = f"there are steps {', '.join(map(str, there[:20]))}" if there else "the run has none; see train.dump"
        fail("GS0691", f"there is no dump of step {step} that can be read ({error})", None, notes=[what])


def first_crop(model: Model, data: Dataset) -> dict[str, Tensor]:
    """The first of the validation crops `[1, T, ..., C]`, as the model is validated on, on its device."""
    like = next(model.parameters())
    found = data.validation_batches(crop_lengths(model.checked), 1)
    return {n: x.to(like.device, like.dtype) if x.is_floating_point() else x.to(like.device) for n, x in found.items()}


@torch.no_grad()
def evaluated(
    model: Model,
    values: Mapping[str, Value],
    crop: Mapping[str, Tensor],
    *,
    precision: str = "f32",
    seed: int = 0,
    step: int = 0,
) -> tuple[Arrays, dict[str, float]]:
    """Values of one crop `[1, T, ..., C]` by name, without its batch axis, and the crop's losses and metrics.

    values: of the model's own graph (see compiler/taps.py), as they are outside training; what is not computed there
    is as in training without its noise. seed: of what is random outside training, too.
    """
    model.eval()
    inputs = with_step(model, crop, step)
    outside = model.outside_training
    there = {v.path: v for v in outside.graph.values}
    seen = {n: there[v.path] for n, v in values.items() if v.path in there}
    hidden = {n: v for n, v in values.items() if n not in seen}
    targets = {n: v for n, v in outside.targets.items() if n not in outside.graph.outputs}
    first = [*targets.values(), *seen.values()]
    found = values_forward(model, outside, first, inputs, precision, seed)
    terms = Terms(outside.graph)
    scored = dict(zip(targets, found, strict=False))
    scores, _ = terms.scores(terms.tallies(scored)[None]) if terms.losses else ({}, 0.0)
    arrays = dict(zip(seen, found[len(targets) :], strict=True))
    if hidden:
        arrays |= zip(hidden, values_forward(model, model, list(hidden.values()), inputs, precision, seed), strict=True)
    return {n: _array(arrays[n]) for n in values}, scores


def output_sounds(model: Model, slowest: float) -> dict[str, Value]:
    """Outputs that sound like something: floats `[T, 1]` or `[T, 2]` at `slowest` Hz or more, no distribution."""
    return {n: v for n, v in model.graph.outputs.items() if sounds(v, slowest)}


def sounds(v: Value, slowest: float) -> bool:
    """Whether a value is sound: see `output_sounds`."""
    type_ = v.type
    shaped = type_.timed and len(type_.dims) == 2 and type_.dims[1].as_int() in (1, 2)
    return shaped and type_.dtype.kind == "float" and type_.meaning is None and float(type_.rate or 0) >= slowest


def _array(x: Tensor) -> NDArray[Any]:
    x = x.detach()[0]
    return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).cpu().numpy()


def _told(v: Value) -> dict[str, Any]:
    return {"type": str(v.type), "hz": float(v.type.rate) if v.type.rate is not None else None}
