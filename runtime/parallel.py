"""Processes that train one model together, as torchrun starts them: each takes its rows, all take the same update.

Gradients are added up by one all_reduce of a flat tensor after the last micro-batch. DistributedDataParallel would
start earlier, during the backward pass, but wants to own the forward pass and the gradients of every micro-batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from graphspec.diagnostic import Fix, fail

ANSWER = timedelta(seconds=25)  # a process that does not take part in an update for so long is taken for dead
PATIENCE = timedelta(minutes=30)  # while one process loads data or writes files


@dataclass(frozen=True)
class Group:
    """This process, of how many, and where it computes. Alone, every method returns at once.

    Raises SpecError GS0633 from whatever waits for a process that has ended or does not answer.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    quiet: Any = None  # a gloo group with the long patience, for what is no part of an update

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    def add_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """The mean of every gradient over the processes, in place. All have gradients for the same weights."""
        grads = [p.grad for p in weights if p.grad is not None]
        if self.size == 1 or not grads:
            return
        flat = torch.cat([g.reshape(-1) for g in grads])
        with _answered():
            torch.distributed.all_reduce(flat)
        flat /= self.size
        at = 0
        for g in grads:
            g.copy_(flat[at : at + g.numel()].view_as(g))
            at += g.numel()

    def gather(self, values: Tensor) -> Tensor:
        """float64 `[n]` of each process -> `[size, n]`, the same everywhere."""
        if self.size == 1:
            return values[None]
        out = [torch.empty_like(values) for _ in range(self.size)]
        with _answered():
            torch.distributed.all_gather(out, values)
        return torch.stack(out)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        return int(self.gather(torch.tensor([number], dtype=torch.float64, device=self.device)).max())

    def told(self, thing: Any) -> Any:
        """What the leading process has for the others (anything JSON-able)."""
        if self.size == 1:
            return thing
        box = [thing]
        with _answered():
            torch.distributed.broadcast_object_list(box, 0, group=self.quiet)
        return box[0]

    def wait(self) -> None:
        """Until all processes are here, for as long as writing a checkpoint may take."""
        if self.size > 1:
            with _answered():
                torch.distributed.barrier(group=self.quiet)


def size_of_group() -> int:
    """How many processes torchrun started: its WORLD_SIZE, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_in_group() -> int:
    """The number of this process among them: torchrun's RANK, or 0."""
    return int(os.environ.get("RANK", "0"))


def local_device(name: str) -> str:
    """The device of this process: for `cuda` the one of its place on this machine (torchrun's LOCAL_RANK)."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and size_of_group() > 1 else name


@contextmanager
def join(device: str | torch.device) -> Iterator[Group]:
    """The group this process was started in: gloo for the CPU, nccl for CUDA. Alone there is nothing to open."""
    device = torch.device(device)
    if size_of_group() == 1:
        yield Group(device=device)
        return
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _answered():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=ANSWER)
        quiet = dist.new_group(backend="gloo", timeout=PATIENCE)
    yield Group(dist.get_rank(), dist.get_world_size(), device, quiet)
    dist.destroy_process_group()  # not after an error: others may be gone, and leaving politely would wait for them


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's own classes for this are RuntimeErrors
        fail(
            "GS0633",
            "another process of this run has ended or does not answer, so this one ends, too",
            None,
            notes=[str(error).splitlines()[0][:200] if str(error) else type(error).__name__],
            fixes=[Fix("look for the first error among the processes, mend it, and go on with --resume")],
        )
