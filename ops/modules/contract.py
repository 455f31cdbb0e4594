"""What every module of an op promises, and the two shortest ways to keep it.

Tensors are `[B, T, ..., C]`; a static value is `[b, ...]` with b = B or 1, a compile-time number a Python number.

    forward(*x, **named)                      whole sequences
    reset(generator)                          draws the weights; generator(name) is one CPU generator per weight
    prepare() -> {name: tensor}               pure function of the weights, once per sampling
    init_state(batch, like) -> {name: tensor} dtype and device of `like`
    step(*x, state, prepared, **named) -> (y, state)   x [B, n, ...], n >= 1; pure; the state keeps shape and dtype

An op whose declared window does not end with the elements that belong to its result (it looks ahead, or needs less than
its whole step) is run by windows when it streams (compiler/taking.py), and promises besides

    over(*x, state, prepared, **named) -> (y, state)   x: exactly the elements that so many groups of results declare
                                              to read; of an operand whose past has no end, from the first group's own
                                              on: what was before is in the state
    holds_the_end                             beyond the end x is its last element; else, and before the start, zeros

Noise of such an op comes for all elements that belong to what is read of its first operand (zeros before the start).

`named` are the optional operands that are there, and `noise`. Constructors allocate and draw nothing (they run on the
meta device too).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Generator = Callable[[str], torch.Generator]
State = dict[str, Tensor]


class Stateless(nn.Module):
    """No memory: a step is `forward` on fewer ticks. Without weights too, unless `reset` says otherwise."""

    def reset(self, generator: Generator) -> None:
        """Draws nothing."""

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        return {}

    def step(self, *x: Any, state: State, prepared: State, **named: Any) -> tuple[Any, State]:
        return self(*x, **named), state


class OverWindows:
    """What looks ahead and remembers nothing: `windows` makes results of what they read, which who runs it keeps."""

    holds_the_end = False

    def windows(self, *x: Any, **named: Any) -> Tensor:
        raise NotImplementedError

    def over(self, *x: Any, state: State, prepared: State, **named: Any) -> tuple[Tensor, State]:
        return self.windows(*x, **named), state


class Windowed(OverWindows, Stateless):
    """The same without a step of any parameters."""

    def step(self, *x: Any, state: State, prepared: State, **named: Any) -> tuple[Any, State]:
        raise NotImplementedError(f"{type(self).__name__} looks ahead, so it has no step; it streams over windows")


class CannotStep(Stateless):
    """Reads the whole sequence, the future too: it has no streaming form."""

    def step(self, *x: Any, state: State, prepared: State, **named: Any) -> tuple[Any, State]:
        raise NotImplementedError(f"{type(self).__name__} reads the whole sequence, so it cannot run step by step")


class MakesFloats(Stateless):
    """May turn integers into floats. Integers carry no float dtype, so it keeps one that `.to(dtype)` converts."""

    dtype_witness: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("dtype_witness", torch.empty(0), persistent=False)

    def floats(self, x: Any) -> Any:
        """A tensor of integers or bools in the module's float dtype; floats and numbers as they are."""
        if not isinstance(x, Tensor) or x.is_floating_point():
            return x
        return x.to(self.dtype_witness.dtype)
