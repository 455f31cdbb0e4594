"""The training loop, read downward. All randomness is a pure function of (seed, update, row): resume is bit-exact."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from graphspec.compiler.emit import out_of_memory
from graphspec.compiler.lower import Model
from graphspec.diagnostic import Diagnostic, Fix, fail
from graphspec.runtime import checkpoint
from graphspec.runtime.average import Average
from graphspec.runtime.data import Dataset, crop_lengths
from graphspec.runtime.dump import Dumps
from graphspec.runtime.forward import (
    mask_sums,
    training_forward,
    training_noise,
    validation_forward,
    validation_noise,
    with_step,
)
from graphspec.runtime.log import Board, MetricsLog
from graphspec.runtime.optimize import Optimizing
from graphspec.runtime.parallel import Group
from graphspec.runtime.run import Run, origin, spec_hash
from graphspec.runtime.saver import Saver
from graphspec.runtime.signals import Asked, signals
from graphspec.runtime.terms import Terms

VALIDATION_CROPS = 16
MOST_SKIPPED = 10  # updates in a row; `train.nonfinite: skip` is for the odd bad batch, not for a model that is lost

Row = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: at which update, why (done, early, or the signal), and the first and last validation means."""

    step: int
    signal: int | None
    first: Mapping[str, float]
    last: Mapping[str, float]
    early: bool = False
    skipped: int = 0  # updates that were not finite


def train(
    model: Model,
    data: Dataset,
    run: Run,
    *,
    resume: bool = False,
    group: Group | None = None,
    board: Board | None = None,
    warn: Callable[[Diagnostic], None] = lambda d: None,
    tell: Callable[[int, Mapping[str, float]], None] = lambda step, row: None,
) -> Outcome:
    """Train until `train.steps`, `train.early_stop`, a signal, or a loss that is not finite.

    group: the processes that train together (none: this one alone). tell(step, row) gets every row of an update.
    Raises SpecError GS0612 when a loss or gradient is not finite, GS0634 when memory runs out: the last checkpoint
    stays as it is.
    """
    with signals() as asked:
        try:
            return _Training(model, data, run, group or Group(), asked, board, warn, tell).run(resume)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            why = str(error)
    fail(
        "GS0634",
        "memory ran out; the last checkpoint is whole",
        None,
        notes=[why.splitlines()[0][:200] if why else "the system gave no more memory"],
        fixes=[
            Fix("halve train.batch and double train.accumulate: the same update in less memory"),
            Fix("write train.recompute: true: less is kept for backward, and a third more computed"),
            Fix("shorten train.crop"),
            Fix("on a GPU, write train.precision: bf16"),
        ],
    )


class _Training:
    """A run under way: what a checkpoint holds, and what is made anew from the settings."""

    def __init__(
        self,
        model: Model,
        data: Dataset,
        run: Run,
        group: Group,
        asked: Asked,
        board: Board | None,
        warn: Callable[[Diagnostic], None],
        tell: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        settings = model.checked.settings
        self.n = settings.numbers
        missing = "losses" if not model.graph.losses else "weights"
        if missing == "losses" or not any(p.requires_grad for p in model.parameters()):
            mend = Fix("write losses: {nll: nll(dist, wave)}, say") if missing == "losses" else Fix("add a layer")
            fail("GS0637", f"the spec has no {missing}, so there is nothing to train", None, fixes=[mend])
        if self.n["precision"] == "f64":
            model.double()
        self.model, self.data, self.run_, self.group, self.asked = model, data, run, group, asked
        self.board, self.warn, self.tell = board, warn, tell
        self.lengths = crop_lengths(model.checked)
        self.device = next(model.parameters()).device
        self.optimizing = Optimizing(model, settings)
        self.average = Average(model, self.n["ema"]) if self.n["ema"] is not None else None
        self.terms = Terms(model.graph)
        found = data.validation_batches(self.lengths, VALIDATION_CROPS)
        self.crops = {k: _on(x, model) for k, x in found.items()}
        self.dumps = Dumps(model, run, self.crops, self.average, warn)
        self.saver = Saver(run.checkpoints, warn, origin(model.checked, group.size))
        self.began = time.perf_counter(), time.process_time()
        self.signal: int | None = None
        self.saved: int | None = None  # the step of the checkpoint that this process wrote or read last
        # What a checkpoint holds beside tensors:
        self.step = 0
        self.first: Row = {}
        self.last: Row = {}
        self.pending: Row | None = {}  # the row of this step, if it is to be validated first
        self.skipped = self.skipped_in_a_row = 0

    def run(self, resume: bool) -> Outcome:
        steps = self.n["steps"]
        if resume:
            self._restore()
        with self._log(self.step if resume else None) as log:
            while True:
                save = self._asked_to_save()
                if self.pending is not None and (row := self._validated(self.pending)) is not None:
                    self.pending = None
                    self._record(log, row)
                if self.group.leads:
                    self.dumps.write(self.step)
                early = self.optimizing.stopping.reached
                ends = self.step >= steps or early or self._stops()
                if ends or save or self.step % self.n["save_every"] == 0:
                    self._save(log, last=ends)
                if ends:
                    break
                self._one_update(log)
        if self.step >= steps or early:
            self._save_model()
        return Outcome(self.step, self.signal, self.first, self.last, early, self.skipped)

    # ---- one update -------------------------------------------------------------------------------------------------

    def _one_update(self, log: MetricsLog | None) -> None:
        """Change the weights once; the row is recorded now, or pending if it is to be validated."""
        row = self._update()
        self.step += 1
        if self.step % self.n["validate_every"] == 0 or self.step == self.n["steps"]:
            self.pending = row
        elif self.step % self.n["log_every"] == 0:
            self._record(log, row)
        else:
            self.tell(self.step, row)

    def _update(self) -> Row:
        model, group, parts = self.model, self.group, self.n["accumulate"]
        model.train()
        self.optimizing.set_rates(self.step)
        self.optimizing.forget_gradients()
        shares = self._shares()
        means = torch.zeros(len(self.terms.columns) + 1, dtype=torch.float64, device=self.device)
        for part in range(parts):
            inputs, noise = self._batch(part)
            found = training_forward(model, inputs, noise, self.n["precision"], self.n["recompute"])
            seen, total = self.terms.means(found, shares)
            (total / parts).backward()
            means += torch.stack([x.detach().double() for x in (*seen, total)]) / parts
        group.add_gradients(list(self.optimizing.weights.values()))
        norm = self.optimizing.clip(self.n["clip"])
        told = group.gather(torch.cat([means, norm.detach().double()[None]])).mean(0).tolist()
        row = dict(zip(self.terms.columns, told, strict=False)) | {"lr": self.optimizing.lr, "gradient_norm": told[-1]}
        if self._finite(row, told[-2]):
            self.optimizing.step()
            if self.average is not None:
                self.average.update()
        return row

    def _batch(self, part: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A micro-batch: `batch` rows of the update, after those of the other processes' micro-batches before it."""
        rows, seed = self.n["batch"], self.n["seed"]
        block = part * self.group.size + self.group.rank
        drawn = self.data.batches(self.lengths, rows, seed, self.step, block)
        inputs = with_step(self.model, {k: _on(x, self.model) for k, x in drawn.items()}, self.step)
        return inputs, training_noise(self.model, inputs, seed, self.step, block * rows)

    def _shares(self) -> dict[str, Tensor]:
        """For each loss with a mask the mask's sum, as a mean over the parts of the update; none if it has one part."""
        masks, parts = self.terms.masks, self.n["accumulate"]
        if not masks or parts * self.group.size == 1:
            return {}
        values, precision = list(masks.values()), self.n["precision"]
        sums = [mask_sums(self.model, values, *self._batch(part), precision) for part in range(parts)]
        return dict(zip(masks, self.group.gather(torch.stack(sums).mean(0)).mean(0), strict=True))

    def _finite(self, row: Row, total: float) -> bool:
        """Whether the update may be made; GS0612 if it may not and the run is to stop."""
        if math.isfinite(total) and math.isfinite(row["gradient_norm"]):
            self.skipped_in_a_row = 0
            return True
        bad = [t.name for t in self.terms.losses if not math.isfinite(row[f"loss.{t.name}"])]
        what = f"the loss {bad[0]}" if bad else "the gradient"
        at = f"{what} is not finite at update {self.step + 1}"
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        if self.n["nonfinite"] == "skip" and self.skipped_in_a_row <= MOST_SKIPPED:
            if self.skipped & (self.skipped - 1) == 0:  # the 1st, 2nd, 4th, ...: many are not worth a line each
                told = f"{at}; the update is skipped ({self.skipped} so far)"
                self.warn(Diagnostic("GS0635", told, None, "warning"))
            return False
        ends = "training stops, and the weights stay as they were before it"
        if self.n["nonfinite"] == "skip":
            ends = f"the {MOST_SKIPPED} updates before it were skipped, too; training stops"
        fail(
            "GS0612",
            f"{at}; {ends}",
            None,
            notes=[f"the last checkpoint is under {self.run_.checkpoints}"],
            fixes=[Fix("lower train.lr, or clip gradients with train.clip=1.0")],
        )

    # ---- validation and records -------------------------------------------------------------------------------------

    def _validated(self, row: Row) -> Row | None:
        """The row with the validation means of this step, or None if a signal came first."""
        options: Any = {"precision": self.n["precision"], "seed": self.n["seed"], "step": self.step}
        with self.average.in_place() if self.average is not None else nullcontext():
            scores = _scores(self.model, self.crops, self.group, self._stops, **options)
        if scores is None:
            return None
        found, total = scores
        self.last = found
        if self.step == 0:
            self.first = found
        if self.step % self.n["validate_every"] == 0:  # not for the one at the end of a run, which may yet go on
            self.optimizing.see(total)
        return row | {f"valid.{k}": v for k, v in found.items()}

    def _log(self, resume_step: int | None) -> AbstractContextManager[MetricsLog | None]:
        if not self.group.leads:
            return nullcontext()
        valid = [f"valid.{name}" for name in self.terms.names]
        return MetricsLog(self.run_.metrics, [*self.terms.columns, "lr", "gradient_norm", *valid], resume_step)

    def _record(self, log: MetricsLog | None, row: Row) -> None:
        if log is not None:
            now = {"seconds": time.perf_counter() - self.began[0], "cpu_seconds": time.process_time() - self.began[1]}
            log.append(self.step, row | now if self.step else row)
            if self.board is not None:
                self.board.append(self.step, row)
        self.tell(self.step, row)

    # ---- signals ----------------------------------------------------------------------------------------------------

    def _stops(self) -> bool:
        """Whether a signal told any of the processes to end: all of them end at the same step."""
        if self.signal is None:
            self.signal = self.group.largest(self.asked.stop or 0) or None
        return self.signal is not None

    def _asked_to_save(self) -> bool:
        asked, self.asked.save = self.asked.save, False
        return self.group.largest(int(asked)) > 0

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def _like(self) -> dict[str, dict[str, Tensor]]:
        average = {"average": self.average.tensors()} if self.average is not None else {}
        return {"weights": dict(self.model.state_dict()), **average}

    def _save(self, log: MetricsLog | None, last: bool) -> None:
        if self.saved == self.step:
            return
        if log is not None:
            meta = {
                "step": self.step,
                "first": self.first,
                "last": self.last,
                "pending": self.pending,
                "skipped": [self.skipped, self.skipped_in_a_row],
                **self.optimizing.counters(),
            }
            tensors = self._like() | {"optimizer": self.optimizing.tensors()}
            rows = log

            def sync() -> None:
                rows.sync(last=True)

            self.saver.save(self.step, tensors, meta, last=last, before=sync)
        self.group.wait()  # for the process that writes, which may take longer than an answer
        self.saved = self.step

    def _restore(self) -> None:
        path = checkpoint.newest(self.run_.checkpoints, self.warn) if self.group.leads else None
        found = self.group.told(str(path) if path is not None else None)
        if found is None:
            fail(
                "GS0625",
                f"no checkpoint under '{self.run_.checkpoints}' can be loaded",
                None,
                fixes=[Fix("start again under another name: --run NAME")],
            )
        tensors, meta = checkpoint.load(Path(found), self._like(), spec_hash(self.model.graph))
        self.model.load_state_dict(tensors["weights"])
        if self.average is not None:
            self.average.restore(tensors["average"])
        self.optimizing.restore(load_file(Path(found) / "optimizer.safetensors"), meta)
        self.group.wait()
        if self.group.leads:
            checkpoint.drop_after(self.run_.checkpoints, meta["step"])
        self.step = self.saved = meta["step"]
        self.first, self.last = meta["first"], meta.get("last", meta["first"])
        self.pending = meta.get("pending")
        self.skipped, self.skipped_in_a_row = meta.get("skipped", (0, 0))

    def _save_model(self) -> None:
        if self.group.leads:
            average = self.average.tensors() if self.average is not None else None
            checkpoint.save_model(self.run_.model, average or self.model.state_dict())


def load_weights(model: Model, run: Run, warn: Callable[[Diagnostic], None]) -> str:
    """The weights (or their average) of the newest checkpoint that verifies, as float32. Returns which update's."""
    path = checkpoint.newest(run.checkpoints, warn)
    if path is None:
        fail("GS0625", f"no checkpoint under '{Path(run.checkpoints)}' can be loaded", None)
    numbers = model.checked.settings.numbers
    kept = "average" if numbers["ema"] is not None else "weights"
    if numbers["precision"] == "f64":
        model.double()
    tensors, meta = checkpoint.load(path, {kept: dict(model.state_dict())}, spec_hash(model.graph))
    model.load_state_dict(tensors[kept])
    model.float()
    return f"update {meta['step']}"


def validate(model: Model, crops: Mapping[str, Tensor], *, precision: str = "f32", seed: int = 0, step: int = 0) -> Row:
    """Means of losses and metrics over the crops, `[n, T, C]` for each input, without the noise of training.

    step: the update after which it is, for a spec that reads `step`.
    """
    found = _scores(model, crops, Group(), lambda: False, precision, seed, step)
    assert found is not None
    return found[0]


@torch.no_grad()
def _scores(
    model: Model,
    crops: Mapping[str, Tensor],
    group: Group,
    stops: Callable[[], bool],
    precision: str,
    seed: int,
    step: int,
) -> tuple[Row, float] | None:
    """The means and the total loss, or None if stops() said so before the end.

    Crop i is the business of process i % size, and the result the same for any number of them.
    """
    model.eval()
    terms = Terms(model.outside_training.graph)
    first = next(iter(crops.values()))
    tallies = torch.zeros(len(first), 2 * len(terms.names) + 2, dtype=torch.float64, device=first.device)
    for start in range(0, len(first), group.size):
        if stops():
            return None
        i = start + group.rank
        if i < len(first):
            inputs = with_step(model, {k: x[i : i + 1] for k, x in crops.items()}, step)
            noise = validation_noise(model, inputs, seed, i)
            tallies[i] = terms.tallies(validation_forward(model, inputs, noise, precision))
    # What other processes scored is 0 here, so this sum is exact.
    return terms.scores(group.gather(tallies.flatten()).sum(0).view_as(tallies))


def _on(x: Tensor, model: Model) -> Tensor:
    """A tensor of data on the model's device, floats in its dtype."""
    p = next(model.parameters())
    return x.to(p.device, p.dtype) if x.is_floating_point() else x.to(p.device)
