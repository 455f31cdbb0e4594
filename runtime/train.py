"""The training loop, read downward. All randomness is a pure function of (seed, update, row): resume is bit-exact."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphspec.compiler.lower import Model
from graphspec.compiler.settings import Settings
from graphspec.diagnostic import Diagnostic, Fix, fail
from graphspec.ops.modules.noise import stream_id, uniform
from graphspec.runtime import checkpoint
from graphspec.runtime.data import Dataset
from graphspec.runtime.log import MetricsLog
from graphspec.runtime.run import Run

VALIDATION_CROPS = 16


@dataclass(frozen=True)
class Outcome:
    """How a run ended: at which update, why (`done`, or the signal), and the first and last validation means."""

    step: int
    signal: int | None
    first: Mapping[str, float]
    last: Mapping[str, float]


def train(
    model: Model,
    data: Dataset,
    run: Run,
    *,
    resume: bool = False,
    warn: Callable[[Diagnostic], None] = lambda d: None,
    tell: Callable[[int, Mapping[str, float]], None] = lambda step, row: None,
) -> Outcome:
    """Train until `train.steps`, a signal, or a loss that is not finite.

    tell(step, row) gets every logged row. Raises SpecError GS0612 when a loss or gradient is not finite: the weights
    of that update are not touched, and the last checkpoint stays.
    """
    settings = model.checked.settings
    n = settings.numbers
    length = _crop_length(model, settings, data)
    device = next(model.parameters()).device
    optimizer, schedules = _optimizer(model, settings)
    losses = {t.name: t.weight for t in model.graph.losses}
    columns = [*(f"loss.{k}" for k in losses), *(t.name for t in model.graph.metrics), "lr", "gradient_norm"]
    valid_columns = [f"valid.{t.name}" for t in (*model.graph.losses, *model.graph.metrics)]
    start, first = 0, {}
    if resume:
        start, first = _restore(model, optimizer, run, warn)
    crops = data.validation_crops(length, VALIDATION_CROPS).to(device)
    began = time.perf_counter(), time.process_time()
    row: dict[str, float] = {}
    last = dict(first)
    with MetricsLog(run.metrics, [*columns, *valid_columns], start if resume else None) as log, _signals() as caught:
        if not resume:
            first = last = validate(model, data.input, crops)
            log.append(0, {f"valid.{k}": v for k, v in first.items()})
            _save(model, optimizer, run, 0, first)  # so that a run that dies early can be resumed, too
            tell(0, {f"valid.{k}": v for k, v in first.items()})
        step = start
        while step < n["steps"] and not caught:
            for group, schedule in zip(optimizer.param_groups, schedules, strict=True):
                group["lr"] = schedule(step)
            inputs = {data.input: data.batch(length, n["batch"], n["seed"], step).to(device)}
            model.train()
            found = model(inputs, training_noise(model, n["seed"], step, inputs[data.input]))
            total = sum(w * found[f"losses.{k}"].mean() for k, w in losses.items())
            assert isinstance(total, Tensor)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), n["clip"] or math.inf)
            _finite(found, total, norm, step, run)
            optimizer.step()
            step += 1
            row = {f"loss.{k}": found[f"losses.{k}"].mean().item() for k in losses}
            row |= {t.name: found[f"metrics.{t.name}"].mean().item() for t in model.graph.metrics}
            row |= {"lr": optimizer.param_groups[0]["lr"], "gradient_norm": float(norm)}
            validated = step % n["validate_every"] == 0 or step == n["steps"]
            if validated:
                last = validate(model, data.input, crops)
                row |= {f"valid.{k}": v for k, v in last.items()}
            if validated or step % n["log_every"] == 0:
                row |= {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
                log.append(step, row)
            tell(step, row)
            if step % n["save_every"] == 0 or step == n["steps"] or caught:
                log.sync()
                _save(model, optimizer, run, step, first)
        if step == start:  # nothing was left to do, or a signal came at once
            last = validate(model, data.input, crops)
        if step >= n["steps"]:
            checkpoint.save_model(run.model, model.state_dict())
    return Outcome(step, caught[0] if caught else None, first, last)


def _crop_length(model: Model, settings: Settings, data: Dataset) -> int:
    axis = str(model.graph.inputs[data.input].value.type.dims[0])
    if axis not in settings.crop:
        fail(
            "GS0607",
            f"'train.crop' does not say how long '{axis}' is",
            None,
            fixes=[Fix(f"write crop: {{{axis}: 8192}} under train:")],
        )
    return settings.crop[axis]


def training_noise(model: Model, seed: int, update: int, like: Tensor) -> dict[str, Tensor]:
    """The random operands of one update (dropout), from the counter: stream = the value, row, tick, channel."""
    out: dict[str, Tensor] = {}
    rows = torch.arange(like.shape[0])
    ticks = like.shape[1]
    for v in model.graph.needed_for(list(model.targets.values())):
        if v.noise is None:
            continue
        sizes = {"T": ticks}
        length = (
            int(v.noise.dims[0].evaluate({s: sizes.get(s, ticks) for s in v.noise.dims[0].symbols()}))
            if v.noise.timed
            else 1
        )
        after = [int(d.as_int() or 1) for d in v.noise.after_time]
        drawn = uniform(
            seed, stream_id(v.path), rows, torch.arange(length), math.prod(after), device=like.device, update=update
        )
        out[v.path] = drawn.reshape(like.shape[0], *([length] if v.noise.timed else []), *after)
    return out


@torch.no_grad()
def validate(model: Model, name: str, crops: Tensor) -> dict[str, float]:
    """Means of losses and metrics over the crops [n, T, C], without the noise of training."""
    model.eval()
    sums: dict[str, float] = {}
    for crop in crops:
        found = model({name: crop[None]})
        for t in (*model.graph.losses, *model.graph.metrics):
            kind = "losses" if t in model.graph.losses else "metrics"
            sums[t.name] = sums.get(t.name, 0.0) + found[f"{kind}.{t.name}"].double().mean().item()
    return {k: s / len(crops) for k, s in sums.items()}


def _optimizer(model: Model, settings: Settings) -> tuple[torch.optim.Optimizer, list[Callable[[int], float]]]:
    """AdamW with one parameter group for each way in which weights are treated."""
    if settings.optimizer is None or settings.lr is None:
        missing = "optimizer" if settings.optimizer is None else "lr"
        fail(
            "GS0607",
            f"'train.{missing}' is missing",
            None,
            fixes=[Fix("write optimizer: adamw() and lr: 1e-3 under train:")],
        )
    given = settings.optimizer.arguments
    tags = model.tags()
    for g in settings.groups:
        if not any(g.name in t for t in tags.values()):
            known = sorted({t for ts in tags.values() for t in ts})
            fail(
                "GS0619", f"no weight has the tag or value '{g.name}'", g.span, notes=[f"there are: {', '.join(known)}"]
            )
    base = settings.lr
    groups: dict[tuple[str, float], list[Any]] = {}
    rates: dict[tuple[str, float], Callable[[int], float]] = {}
    for name, weight in model.weights().items():
        mine = [g for g in settings.groups if g.name in tags[name]]
        decay = 0.0 if tags[name] & {"norm", "bias"} else float(given["weight_decay"])
        lr, label = base, "base"
        for g in mine:
            decay = g.weight_decay if g.weight_decay is not None else decay
            if g.lr is not None:
                lr, label = g.lr, g.name
        groups.setdefault((label, decay), []).append(weight)
        rates[(label, decay)] = lr.at
    form = [{"params": ps, "weight_decay": decay} for (_, decay), ps in groups.items()]
    made = torch.optim.AdamW(form, lr=base.at(0), betas=tuple(given["betas"]), eps=given["eps"], fused=True)
    return made, [rates[k] for k in groups]


def _finite(found: Mapping[str, Tensor], total: Tensor, norm: Tensor, step: int, run: Run) -> None:
    if torch.isfinite(total) and torch.isfinite(norm):
        return
    bad = [k for k, v in found.items() if k.startswith("losses.") and not torch.isfinite(v.mean())]
    what = f"the loss {bad[0].removeprefix('losses.')}" if bad else "the gradient"
    fail(
        "GS0612",
        f"{what} is not finite at update {step + 1}; training stops, and the weights stay as they were before it",
        None,
        notes=[f"the last checkpoint is under {run.checkpoints}"],
        fixes=[Fix("lower train.lr, or clip gradients with train.clip=1.0")],
    )


def _weights_like(model: Model, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    moments = {}
    for name, p in model.weights().items():
        state = optimizer.state.get(p) or {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }
        moments |= {f"{name}/{k}": t for k, t in state.items()}
    return {"weights": dict(model.state_dict()), "optimizer": moments}


def _save(model: Model, optimizer: torch.optim.Optimizer, run: Run, step: int, first: Mapping[str, float]) -> None:
    checkpoint.save(run.checkpoints, step, _weights_like(model, optimizer), {"step": step, "first": dict(first)})


def _restore(
    model: Model, optimizer: torch.optim.Optimizer, run: Run, warn: Callable[[Diagnostic], None]
) -> tuple[int, dict[str, float]]:
    path = checkpoint.newest(run.checkpoints, warn)
    if path is None:
        fail(
            "GS0625",
            f"no checkpoint under '{run.checkpoints}' can be loaded",
            None,
            fixes=[Fix("start again under another name: --run NAME")],
        )
    like = _weights_like(model, optimizer)
    tensors, meta = checkpoint.load(path, like)
    model.load_state_dict(tensors["weights"])
    for name, p in model.weights().items():
        optimizer.state[p] = {
            k: tensors["optimizer"][f"{name}/{k}"].to(p.device) for k in ("step", "exp_avg", "exp_avg_sq")
        }
    checkpoint.drop_after(run.checkpoints, meta["step"])
    return meta["step"], meta["first"]


def load_weights(model: Model, run: Run, warn: Callable[[Diagnostic], None]) -> str:
    """The weights of a finished run, or of the newest checkpoint that verifies. Returns which."""
    path = checkpoint.newest(run.checkpoints, warn)
    if path is None:
        fail("GS0625", f"no checkpoint under '{Path(run.checkpoints)}' can be loaded", None)
    tensors, meta = checkpoint.load(path, {"weights": dict(model.state_dict())})
    model.load_state_dict(tensors["weights"])
    return f"update {meta['step']}"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C are noted; the loop ends after the update in progress and saves."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        caught.append(number)

    old = {}
    try:
        for s in (signal.SIGTERM, signal.SIGINT):
            old[s] = signal.signal(s, note)
    except ValueError:  # not the main thread: whoever runs us handles signals
        pass
    try:
        yield caught
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
