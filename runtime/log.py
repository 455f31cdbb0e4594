"""`metrics.csv`: a row of exact numbers a logged step, in stable columns; a line torn by a kill goes on resume.

A disk that is full for an hour does not end a run: rows wait in memory until they can be written.
`Board` gives the same rows to TensorBoard.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from graphspec.diagnostic import Diagnostic, Fix, SpecError, fail
from graphspec.report import human
from graphspec.runtime.checkpoint import cannot_write, write_atomic

TIMING = ("seconds", "cpu_seconds")  # last, so that the columns before them compare equal between two equal runs


class MetricsLog:
    """Columns are `step`, the names given, then `seconds` and `cpu_seconds`.

    resume_step: keep the rows up to and with this step of the file that is there (None: start a new one in its place).
    Columns that file has are kept, in its order, and new names follow them. Rows later than the step, and lines that
    are not whole, are dropped; `dropped` counts them. Raises SpecError GS0622 when it cannot be begun.

    warn: is told of the first row that has to wait (none: stderr). patience: as a Saver's, the syncs in a row that may
    fail before one is an error.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        resume_step: int | None = None,
        warn: Callable[[Diagnostic], None] | None = None,
        patience: int = 3,
    ) -> None:
        self.path = Path(path)
        self.dropped = 0
        self.failed = 0  # syncs in a row
        self._warn, self._patience = warn or _say, patience
        self._waiting = b""  # whole lines that are not in the file yet
        self._blocked = False  # the last write failed
        old: list[dict[str, str]] = []
        names: list[str] = []
        if resume_step is not None and self.path.exists():
            names, old = self._read(resume_step)
        names += [c for c in columns if c not in names and c not in ("step", *TIMING)]
        self.columns = ("step", *names, *TIMING)
        lines = [_line(self.columns), *(_line([row.get(c, "") for c in self.columns]) for row in old)]
        write_atomic(self.path, b"".join(lines))
        self._size = self.path.stat().st_size
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def append(self, step: int, row: Mapping[str, float]) -> None:
        """Add one row and hand it to the system: it outlives the process, though not yet a power cut (`sync`).

        row: numbers by column; a column without one is left empty, an unknown one is a KeyError. Floats are written
        as repr, so they read back equal. A row that cannot be written waits for the next one, or for `sync`.
        """
        unknown = [name for name in row if name not in self.columns or name == "step"]
        if unknown:
            raise KeyError(f"no column '{unknown[0]}' in {self.path}")
        values = {name: repr(value if type(value) is int else float(value)) for name, value in row.items()}
        self._waiting += _line([str(step), *(values.get(name, "") for name in self.columns[1:])])
        blocked = self._blocked
        try:
            self._write()
        except OSError as error:
            if not blocked:
                self._told(error, "training goes on; rows wait, and are written as soon as they can be")

    def sync(self, last: bool = False) -> None:
        """Return when all rows are on the disk.

        A failure is a warning; where it is the last sync of a run, or the third failure in a row, SpecError GS0622.
        """
        try:
            self._write()
            os.fsync(self._file)
        except OSError as error:
            self.failed += 1
            if last or self.failed >= self._patience:
                raise SpecError(cannot_write(self.path, error)) from error
            self._told(error, f"training goes on; rows wait in memory ({self.failed} of {self._patience})")
        else:
            self.failed = 0

    def close(self) -> None:
        """Sync and close; once is enough. Raises SpecError GS0622 if rows are lost."""
        if self._file >= 0:
            try:
                self.sync(last=True)
            finally:
                os.close(self._file)
                self._file = -1

    def _write(self) -> None:
        """All that waits, or nothing: what a nearly full disk took of it is taken back. Raises OSError."""
        if self._blocked:  # or these lines would go on in the middle of the one that was cut
            os.ftruncate(self._file, self._size)
        self._blocked = True
        done = 0
        try:
            while done < len(self._waiting):  # a nearly full disk takes part of it, then says so
                done += os.write(self._file, self._waiting[done:])
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._blocked = False
        self._size += done
        self._waiting = b""

    def _told(self, error: OSError, goes_on: str) -> None:
        found = cannot_write(self.path, error)
        self._warn(replace(found, severity="warning", notes=(*found.notes, goes_on)))

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except SpecError:
            if kind is None:  # else what ends the run is said, not what came of it
                raise

    def _read(self, last_step: int) -> tuple[list[str], list[dict[str, str]]]:
        """Names between `step` and the timing columns, and the whole rows up to the step, as text."""
        lines = self.path.read_bytes().split(b"\n")
        self.dropped += lines.pop() != b""  # what follows the last newline was torn
        text = [line.decode("utf-8", "replace") for line in lines]
        head = next(csv.reader(text[:1]), [])
        if head[:1] != ["step"]:
            self.dropped += len(text)
            return [], []
        rows = [line.split(",") for line in text[1:]]  # numbers need no quotes
        kept = [row for row in rows if len(row) == len(head) and _within(row[0], last_step)]
        self.dropped += len(rows) - len(kept)
        return [c for c in head[1:] if c not in TIMING], [dict(zip(head, row, strict=True)) for row in kept]


class Board:
    """The rows as scalars for TensorBoard, in a folder of their own.

    resume_step: scalars of later steps, left by a run that was killed, are hidden. Raises SpecError GS0636 when the
    package is not installed.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=None if resume_step is None else resume_step + 1)

    def append(self, step: int, row: Mapping[str, float]) -> None:
        """One scalar a column; `loss.nll` is drawn as `loss/nll`."""
        for name, value in row.items():
            self._writer.add_scalar(name.replace(".", "/", 1), value, step)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def require_tensorboard() -> None:
    """Raise SpecError GS0636 when the package is not there: before a run is made that would want it."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        fail(
            "GS0636",
            "--tensorboard needs the package tensorboard, which is not installed",
            None,
            notes=[str(error)],
            fixes=[
                Fix("pip install graphspec[tensorboard]"),
                Fix("or leave --tensorboard away: metrics.csv has it all"),
            ],
        )


def _say(told: Diagnostic) -> None:
    with suppress(OSError):  # it may be a file on the disk that is full
        print(human([told], color=sys.stderr.isatty()), file=sys.stderr)


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _within(step: str, last: int) -> bool:
    return step.isascii() and step.isdigit() and int(step) <= last
