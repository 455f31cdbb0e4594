"""Commands in processes of their own, with faults planted: a signal, an error or a NaN at the n-th call of a function.

One server imports torch and the package once; each command is a fork of it (torch's import costs seconds, a fork a few
milliseconds). Nothing here knows what a fault should lead to.
"""

from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch._dynamo",  # what the first optimizer of a process imports: seconds
    "safetensors.torch",
    "graphspec.cli.train_command",
    "graphspec.compiler.lower",
    "graphspec.ops",
    "graphspec.runtime.corpus",
    "graphspec.runtime.sources",
    "graphspec.runtime.train",
]
SAVE = "graphspec.runtime.checkpoint:save"
WEIGHTS = "graphspec.runtime.checkpoint:_write_tensors"
VALIDATION = "graphspec.runtime.train:validation_forward"
FORWARD = "graphspec.runtime.train:training_forward"
UPDATE = "graphspec.runtime.optimize:Optimizing.step"
BATCH = "graphspec.runtime.data:Dataset.batches"
RENAME = "os:rename"
ROW = "graphspec.runtime.log:MetricsLog.append"


@dataclass(frozen=True)
class Fault:
    """`deed(argument)` before or after the calls of `place` (module:name) that `calls` lists, counted from 1."""

    place: str
    calls: Sequence[int]
    deed: str
    argument: int = 0
    after: bool = False


def kill(number: int, arguments: Sequence[Any], result: Any) -> Any:
    os.kill(os.getpid(), number)
    return result


def fail_with(number: int, arguments: Sequence[Any], result: Any) -> Any:
    raise OSError(number, os.strerror(number))


def full(size: int, arguments: Sequence[Any], result: Any) -> Any:
    """Files grow no longer than `size` bytes (0: as long as they like)."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size or hard, hard))
    return result


def nobody(number: int, arguments: Sequence[Any], result: Any) -> Any:
    """The process may no longer write into its own folders."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    else:
        os.chmod(arguments[0], 0o555)
    return result


def out_of_memory(number: int, arguments: Sequence[Any], result: Any) -> Any:
    import torch

    raise torch.OutOfMemoryError("planted: tried to allocate 99 GiB")


def not_finite(number: int, arguments: Sequence[Any], result: Any) -> Any:
    """Of tensors by name, those of floats become NaN."""
    return {k: v * float("nan") if v.is_floating_point() else v for k, v in result.items()}


def broken_weight(number: int, arguments: Sequence[Any], result: Any) -> Any:
    next(iter(arguments[0].weights.values())).data.view(-1)[0] = float("nan")
    return result


DEEDS: dict[str, Callable[[int, Sequence[Any], Any], Any]] = {
    f.__name__: f for f in (kill, fail_with, full, nobody, out_of_memory, not_finite, broken_weight)
}
EIO, ENOSPC = errno.EIO, errno.ENOSPC


def plant(fault: Fault) -> None:
    module, _, name = fault.place.partition(":")
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, count, deed = getattr(owner, last), 0, DEEDS[fault.deed]

    def faulty(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        now = count in fault.calls
        if now and not fault.after:
            deed(fault.argument, arguments, None)
        result = real(*arguments, **named)
        return deed(fault.argument, arguments, result) if now and fault.after else result

    setattr(owner, last, faulty)


def command(words: Sequence[str], said: str, faults: Sequence[Fault], environment: Mapping[str, str]) -> None:
    """In the fork: run `graphspec WORDS`, both streams into the file `said`, and end with its exit code."""
    stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))
    os.environ |= environment
    tempfile.tempdir = None  # TMPDIR is read anew
    for fault in faults:
        plant(fault)
    from graphspec.__main__ import main

    try:
        code = main(list(words))
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    os._exit(code)


@dataclass
class Started:
    """A command under way."""

    process: BaseProcess
    said_in: Path

    def ended(self, seconds: float = 120) -> tuple[int, str]:
        """(exit code, or minus the signal; what it said)."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return self.process.exitcode or 0, self.said_in.read_text()


class Nursery:
    """Starts commands; `folder` takes what they say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def start(self, words: Sequence[str], *faults: Fault, **environment: str) -> Started:
        self.count += 1
        said = self.folder / f"said{self.count}"
        process = self.context.Process(target=command, args=(list(map(str, words)), str(said), faults, environment))
        process.start()
        return Started(process, said)

    def run(self, words: Sequence[str], *faults: Fault, **environment: str) -> tuple[int, str]:
        return self.start(words, *faults, **environment).ended()
