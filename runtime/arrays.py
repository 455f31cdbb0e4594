"""Arrays in `.npy` files: codes or features of any timed input, checked before they are believed. Torch-free.

A `.npy` file may hold a pickle (which runs code), claim more than it has, or hold classes that the model's tables have
no row for, which on a GPU is a crash far away from its cause. Files are mapped, never unpickled, and every value is
looked at once.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphspec.diagnostic import Fix, fail
from graphspec.span import Span
from graphspec.types import DType, Type

_KINDS = {"int": "iu", "float": "f", "bool": "b"}  # numpy's letters for what an input of this kind takes
_FIXES = {
    "int": "save it as integers: array.astype('uint16')",
    "float": "save it as floats: array.astype('float32')",
    "bool": "save it as array.astype(bool)",
}


def fits(type_: Type) -> bool:
    """Can a file hold this input? It is timed, and its sizes after time are known."""
    return type_.timed and type_.meaning is None and all(d.as_int() is not None for d in type_.after_time)


def open_array(path: Path, type_: Type, span: Span | None) -> NDArray[Any]:
    """The file mapped into memory, its shape `[frames, *sizes after time]` and dtype those of the input.

    Raises SpecError GS0652 (not readable as one plain array) or GS0653 (of another kind or shape).
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ValueError("it is not a regular file")
        # Mapping compares what the header claims with the size of the file; reading would allocate what it claims.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # foreign bytes: numpy hands the header to Python's tokenizer, which raises its own
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        fail("GS0652", f"'{path.name}' cannot be read as one array of numbers: {reason}", span)
    if not isinstance(array, np.ndarray):
        fail("GS0652", f"'{path.name}' is an archive of arrays, not one array", span)
    kind = type_.dtype.kind
    if array.dtype.kind not in _KINDS[kind]:
        fail("GS0653", f"'{path.name}' holds {array.dtype}, the input is {type_}", span, fixes=[Fix(_FIXES[kind])])
    sizes = [d.as_int() for d in type_.after_time]
    if array.ndim != 1 + len(sizes) or list(array.shape[1:]) != sizes:
        wanted = ", ".join(["frames", *map(str, sizes)])
        turned = array.ndim == 2 and len(sizes) == 1 and array.shape[0] == sizes[0]
        flat = array.ndim == 1 and sizes == [1]
        fixes = [Fix("save its transpose: array.T")] if turned else [Fix("save array[:, None]")] if flat else []
        fail("GS0653", f"'{path.name}' has shape {list(array.shape)}, the input is [{wanted}]", span, fixes=fixes)
    if not len(array):
        fail("GS0653", f"'{path.name}' has no frames", span)
    return array


def numbers(array: NDArray[Any], name: str, type_: Type, span: Span | None) -> NDArray[Any]:
    """A copy in memory: float32, bool, or the smallest integers that hold every class. Raises SpecError GS0653."""
    dtype = type_.dtype
    if dtype.kind == "bool":
        return np.array(array, dtype=np.bool_)
    if dtype.kind == "float":
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as that
            made = np.array(array, dtype=np.float32)
        if not np.isfinite(made).all():
            frame = int(np.argwhere(~np.isfinite(made))[0][0])
            fail("GS0653", f"'{name}' holds a number that is not finite in float32, in frame {frame}", span)
        return made
    low, high = int(array.min()), int(array.max())
    if dtype.classes is not None and (low < 0 or high >= dtype.classes):
        value = low if low < 0 else high
        frame = int(np.argwhere(array == value)[0][0])
        known = f"the input has the classes 0 to {dtype.classes - 1}"
        fail("GS0653", f"'{name}' holds {value} in frame {frame}; {known}", span)
    return np.array(array, dtype=_smallest(dtype))


def _smallest(dtype: DType) -> type[np.generic]:
    classes = dtype.classes or 1 << 62
    return next((d for d in (np.uint8, np.uint16, np.int32) if classes - 1 <= np.iinfo(d).max), np.int64)
