"""What a value is: dtype, dims, rate, meaning. No tensor in sight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from graphspec.dims import Dim


@dataclass(frozen=True)
class DType:
    """`int` may know its number of classes; `concrete` is a float that must be 32 bits wherever it runs."""

    kind: str  # int | float | bool
    classes: int | None = None
    concrete: bool = False

    def __str__(self) -> str:
        if self.kind == "int":
            return f"int({self.classes})" if self.classes else "int"
        return "f32" if self.kind == "float" else self.kind


FLOAT = DType("float")
BOOL = DType("bool")
INT = DType("int")
UNKNOWN = DType("unknown")  # of what comes back in a loop, while its type is being found out


@dataclass(frozen=True)
class Meaning:
    """A distribution over events. Its tensor has the value's dims and then `axes`."""

    name: str
    arguments: tuple[int, ...]
    axes: tuple[int, ...]
    event: DType

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Type:
    """A timed value has a rate (Hz) and its first dim is time; a static one has neither. Batch is never written."""

    dtype: DType
    dims: tuple[Dim, ...] = ()
    rate: Fraction | None = None
    meaning: Meaning | None = None

    @property
    def timed(self) -> bool:
        return self.rate is not None

    @property
    def length(self) -> Dim:
        """The time axis of a timed value."""
        return self.dims[0]

    @property
    def after_time(self) -> tuple[Dim, ...]:
        return self.dims[1:] if self.timed else self.dims

    @property
    def channels(self) -> int:
        """The last axis, which type rules have made sure is a known integer."""
        size = self.dims[-1].as_int()
        assert size is not None, f"channels of {self} are not known"
        return size

    @property
    def tensor_axes(self) -> tuple[Dim, ...]:
        """Axes of the run-time tensor behind batch."""
        return self.dims + tuple(Dim.of(a) for a in self.meaning.axes) if self.meaning else self.dims

    def with_dims(self, *dims: Dim) -> Type:
        return replace(self, dims=tuple(dims))

    def __str__(self) -> str:
        head = str(self.meaning) if self.meaning else str(self.dtype)
        dims = f"[{', '.join(str(d) for d in self.dims)}]" if self.dims or not self.timed else ""
        return f"{head}{dims}" + (f" @ {show_rate(self.rate)}" if self.rate is not None else "")


def show_rate(rate: Fraction) -> str:
    """16000 -> `16 kHz`, 62.5 -> `62.5 Hz`."""
    if rate >= 1000 and (rate / 1000 * 1000).denominator == 1:
        return f"{float(rate / 1000):g} kHz"
    return f"{float(rate):g} Hz" if float(rate) == rate else f"{rate} Hz"
