"""The runs of a grid as processes of their own, one after another or several at once. Torch-free.

Each cell is a run in `OUT/cells/NAME`, what its process said in `OUT/logs/NAME.txt`. A cell that is finished is marked
by `cell.json` in its run. A run that was cut short goes on with --resume; one that failed is tried again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphspec.diagnostic import fail
from graphspec.runtime.grid import Cell
from graphspec.runtime.signals import signals

POLL = 0.1  # seconds
ERROR = re.compile(r"^error\[(GS\d{4})\]: (.*)$", re.M)


@dataclass
class Job:
    """One cell with its folder. state: waiting, running, finished, stopped, or failed with its reason in `why`."""

    cell: Cell
    folder: Path
    log: Path
    steps: int
    weights: Mapping[str, float | None] = field(default_factory=dict)  # of its losses; none: the weight is a value
    state: str = "waiting"
    why: str = ""

    @property
    def mark(self) -> Path:
        return self.folder / "cell.json"

    def marked(self) -> dict[str, Any]:
        """What is known of it once it is finished; empty before."""
        try:
            found = json.loads(self.mark.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def finished(self) -> bool:
        steps = self.marked().get("steps", -1)
        return isinstance(steps, int) and steps >= self.steps


@contextmanager
def alone(out: Path) -> Iterator[int]:
    """The folder for one sweep at a time: a lock that the trainings it starts hold, too. Raises GS0693."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        fail("GS0693", f"'{out}' cannot be used: {error.strerror}", None)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        fail("GS0693", f"a sweep or a training of one is still at work in '{out}'", None)
    try:
        yield lock
    finally:
        os.close(lock)  # a training that outlives us holds it on


def train_all(
    jobs: Sequence[Job], command: Callable[[Job, bool], list[str]], at_once: int, lock: int, tell: Callable[[Job], None]
) -> int | None:
    """Train what is not finished; the state of each job is set. Returns the signal that ended it, if one did.

    command(job, resume): the process of a cell. tell(job) is called when a cell begins and when it ends.
    A signal is handed on once to the trainings, which save and end.
    """
    waiting = deque(j for j in jobs if j.state == "waiting")
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    with signals() as asked:
        handed_on = False
        try:
            while waiting or running:
                if asked.stop is not None and not handed_on:
                    handed_on = True
                    waiting.clear()
                    _end(running)
                while waiting and len(running) < at_once:
                    job = waiting.popleft()
                    running.append((job, _begin(job, command, at_once, lock)))
                    tell(job)
                for job, process in [pair for pair in running if pair[1].poll() is not None]:
                    running.remove((job, process))
                    _ended(job, process.returncode)
                    tell(job)
                if running:
                    time.sleep(POLL)
        finally:  # whatever ends us, nothing is left training unseen
            _end(running)
            for _, process in running:
                process.wait()
        return asked.stop


def _end(running: Sequence[tuple[Job, subprocess.Popen[bytes]]]) -> None:
    for _, process in running:
        process.send_signal(signal.SIGTERM)


def _begin(job: Job, command: Callable[[Job, bool], list[str]], at_once: int, lock: int) -> subprocess.Popen[bytes]:
    begun = (job.folder / "config.json").is_file()
    if begun and not any((job.folder / "checkpoints").glob("*")):  # cut short before its first checkpoint
        (job.folder / "config.json").unlink()
        begun = False
    job.log.parent.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    environment = {"OMP_NUM_THREADS": threads, **os.environ} if at_once > 1 else dict(os.environ)
    job.state = "running"
    with job.log.open("wb") as log:
        return subprocess.Popen(
            command(job, begun),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches them through us, once
            pass_fds=(lock,),
        )


def _ended(job: Job, code: int) -> None:
    if code == 0:
        job.state = "finished"
    elif code in (128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT):
        job.state = "stopped"
    else:
        job.state = "failed"
        job.why = reason(job.log, code)


def reason(log: Path, code: int) -> str:
    """Why a process failed: its first error, else its last line."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        text = ""
    if found := ERROR.search(text):
        return f"{found[1]} {found[2]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"exit code {code}" + (f": {lines[-1][:200]}" if lines else "")
