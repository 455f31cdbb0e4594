"""The tensor behind a Type: its dtype, its axes, and one that is filled with a number."""

from __future__ import annotations

import torch
from torch import Tensor

from graphspec.types import Type


def dtype_of(type_: Type, floats: torch.dtype) -> torch.dtype:
    """What holds such a value where floats are of dtype `floats`; the parameters of a distribution are floats."""
    kind = "float" if type_.meaning is not None else type_.dtype.kind
    return {"int": torch.int64, "bool": torch.bool}.get(kind, floats)


def sizes(type_: Type) -> list[int]:
    """The axes of a value after time, those of its distribution too."""
    axes = type_.tensor_axes[1:] if type_.timed else type_.tensor_axes
    return [int(d.as_int() or 1) for d in axes]


def filled(type_: Type, rows: int, elements: int, number: float, like: Tensor) -> Tensor:
    """`[rows, elements, ..., C]` of one number (elements may be 0); device, and dtype of floats, of `like`."""
    dtype = dtype_of(type_, like.dtype)
    return torch.full((rows, elements, *sizes(type_)), number, dtype=dtype, device=like.device)
