"""Pointwise functions of one operand, those of the channels of one tick, and operations of two or three that join.

Joining is lining up: an operand's axes after batch are its partners' last ones, because a static vector sits on the
channels, another static value on the axes after time, and timed values have equal rank. So a static operand only
needs axes of 1 after batch, as many as it has fewer than the result; torch's broadcasting does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import initial
from graphspec.ops.modules.contract import Generator, MakesFloats, Stateless
from graphspec.types import Type


class _LeakyReLU(torch.autograd.Function):
    """What torch's is, but what is kept for the gradient is the result, which the next op keeps anyway.

    A layer of a stack then keeps two tensors in place of three. The slope is more than 0: a result has the sign of x.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, slope: float) -> Tensor:
        return F.leaky_relu(x, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.slope = inputs[1]

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.leaky_relu_backward(given, y, ctx.slope, True), None


def _leaky_relu(x: Tensor, negative_slope: float) -> Tensor:
    if negative_slope <= 0 or not x.requires_grad:
        return F.leaky_relu(x, negative_slope)
    found: Tensor = _LeakyReLU.apply(x, negative_slope)
    return found


_UNARY: dict[str, Callable[..., Tensor]] = {
    "neg": torch.neg,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "square": torch.square,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "logit": torch.logit,
    "clamp": torch.clamp,
    "relu": F.relu,
    "gelu": F.gelu,  # by erf unless told otherwise
    "silu": F.silu,
    "leaky_relu": _leaky_relu,
    "softplus": F.softplus,
    "elu": F.elu,
    "mish": F.mish,
    "softmax": F.softmax,  # with dim=-1, and so the next
    "log_softmax": F.log_softmax,
}


def _extreme(of_tensors: Callable[..., Tensor], bound: str) -> Callable[[Any, Any], Tensor]:
    """torch.minimum and maximum take no numbers; clamp does, and promotes as arithmetic would."""

    def pick(a: Any, b: Any) -> Tensor:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return of_tensors(a, b)
        tensor, number = (a, b) if isinstance(a, Tensor) else (b, a)
        return torch.clamp(tensor, **{bound: number})

    return pick


_BINARY: dict[str, Callable[[Any, Any], Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "minimum": _extreme(torch.minimum, "max"),
    "maximum": _extreme(torch.maximum, "min"),
    "equal": lambda a, b: a == b,
    "not_equal": lambda a, b: a != b,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
}
_FLOAT_RESULT = ("div", "pow")
_BOOL_RESULT = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


class Unary(Stateless):
    """One function of each element, or of the channels; settings are its keyword arguments, by torch's names."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__()
        self.name, self.settings = name, settings

    def forward(self, x: Tensor) -> Tensor:
        if self.name == "clamp" and self.settings == {"min": None, "max": None}:
            return x  # torch refuses a clamp without bounds
        return _UNARY[self.name](x, **self.settings)

    def extra_repr(self) -> str:
        return self.name


class Identity(Stateless):
    """The operand itself; with `stop` no gradient goes back through it."""

    def __init__(self, stop: bool = False) -> None:
        super().__init__()
        self.stop = stop

    def forward(self, x: Tensor) -> Tensor:
        return x.detach() if self.stop else x


class Snake(Stateless):
    """`[B, T, ..., channels]` -> the same: x + sin(a x)^2 / a, as x + a x^2 sinc(a x)^2, which a = 0 does not break.

    Weight alpha [channels].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))

    def reset(self, generator: Generator) -> None:
        """Frequency 1."""
        initial.constant(self.alpha, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * (x * torch.sinc(self.alpha * x / math.pi)).square()


class Joined(MakesFloats):
    """Lines operands up by their types. With a float result and no float tensor among them, integers become floats."""

    def __init__(self, *types: Type, into_float: bool | None = None) -> None:
        super().__init__()
        timed = [len(t.dims) for t in types if t.timed]
        if len(set(timed)) > 1:
            raise ValueError(f"timed operands of {timed} axes do not join")
        static = [len(t.dims) for t in types if not t.timed]
        rank = timed[0] if timed else max(static)
        self.lifts = tuple(0 if t.timed else rank - len(t.dims) for t in types)
        if min(self.lifts) < 0:
            raise ValueError(f"a static operand of {max(static)} axes does not join a value of {rank}")
        floats = [t for t in types if t.dtype.kind == "float"]
        makes = bool(floats) if into_float is None else into_float
        self.into_float = makes and not any(t.dims for t in floats)

    def lined_up(self, *operands: Any) -> list[Any]:
        """The operands with the axes that broadcasting needs; numbers as they are."""
        return [
            x.reshape(x.shape[0], *[1] * lift, *x.shape[1:]) if lift and isinstance(x, Tensor) else x
            for x, lift in zip(operands, self.lifts, strict=True)
        ]


class Binary(Joined):
    """One operation on two operands that join: tensors `[B, T, ...]` or `[b, ...]`, or a number on one side."""

    def __init__(self, name: str, a: Type, b: Type) -> None:
        into_float = True if name in _FLOAT_RESULT else False if name in _BOOL_RESULT else None
        super().__init__(a, b, into_float=into_float)
        self.name = name

    def forward(self, a: Any, b: Any) -> Tensor:
        a, b = self.lined_up(a, b)
        if self.into_float:
            a, b = self.floats(a), self.floats(b)
        return _BINARY[self.name](a, b)

    def extra_repr(self) -> str:
        return self.name


class Where(Joined):
    """a where mask holds, else b: a bool tensor and two operands that join it and each other."""

    def __init__(self, mask: Type, a: Type, b: Type) -> None:
        super().__init__(mask, a, b)

    def forward(self, mask: Tensor, a: Any, b: Any) -> Tensor:
        mask, a, b = self.lined_up(mask, a, b)
        if self.into_float:
            a, b = self.floats(a), self.floats(b)
            if not isinstance(a, Tensor) and not isinstance(b, Tensor):
                a = self.dtype_witness.new_full((), a)  # two numbers would take torch's default dtype
        return torch.where(mask, a, b)
