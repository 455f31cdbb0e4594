"""The saves of a run: a disk that is full for an hour does not end three days of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphspec.diagnostic import Diagnostic, SpecError, fail
from graphspec.runtime import checkpoint
from graphspec.runtime.checkpoint import Groups, Origin


class Saver:
    """The saves of one run, on a disk that may be full for a while.

    A save that fails is a warning GS0622, and training goes on: the next one is tried when it is due. The third in a
    row is an error, and so is the last one of a run, which nothing would follow.
    """

    def __init__(
        self,
        folder: Path,
        warn: Callable[[Diagnostic], None],
        origin: Origin | None = None,
        keep: int = 3,
        patience: int = 3,
    ) -> None:
        self.folder, self.warn, self.origin, self.keep, self.patience = Path(folder), warn, origin, keep, patience
        self.failed = 0  # saves in a row

    def save(
        self,
        step: int,
        tensors: Groups,
        meta: Mapping[str, Any],
        *,
        last: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> bool:
        """Was it written? Raises SpecError GS0622 as the class says.

        before: what must be on the disk first (the rows of metrics); where it fails, so does the save.
        Weights that hold NaN are not saved (GS0612): they would push the good checkpoints out, one by one.
        """
        _no_nan(tensors.get("weights", {}), step)
        try:
            before()
            checkpoint.save(self.folder, step, tensors, meta, self.keep, self.origin)
        except SpecError as error:
            self.failed += 1
            if last or self.failed >= self.patience:
                raise
            (found,) = error.diagnostics
            goes_on = f"training goes on, and the next save is tried when it is due ({self.failed} of {self.patience})"
            self.warn(replace(found, severity="warning", notes=(*found.notes, goes_on)))
            return False
        self.failed = 0
        return True


def _no_nan(weights: Mapping[str, Tensor], step: int) -> None:
    found = [(name, torch.isnan(t).any()) for name, t in weights.items()]
    if not found or not torch.stack([flag.to(found[0][1].device) for _, flag in found]).any():  # one wait for the GPU
        return
    name = next(name for name, flag in found if flag)
    fail("GS0612", f"the weight '{name}' holds NaN after update {step}; it is not saved, and training stops", None)
