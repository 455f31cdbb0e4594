"""Types of the ops on axes after time, whose results no list of dims can say: `einsum`, `rearranged`, `outer`, ...

Rule names of signatures (graphspec/declare.py): operand types and parameters -> the result's type, or a Misfit.
"""

from __future__ import annotations

from fractions import Fraction

from graphspec.axes import axes_of
from graphspec.dims import Dim, Facts
from graphspec.types import FLOAT, Type


class Misfit(Exception):
    """The operands do not fit; `code` and text of the diagnostic."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


def _axes(t: Type) -> str:
    return f"[{', '.join(map(str, t.after_time))}]"


def _one_clock(what: str, types: tuple[Type, ...], facts: Facts) -> tuple[Dim | None, Fraction | None]:
    """(length, rate) that all timed operands share; (None, None) where none is timed."""
    timed = [t for t in types if t.timed]
    for t in timed[1:]:
        if t.rate != timed[0].rate:
            raise Misfit("GS0302", f"{what} joins values of different rates: {timed[0]} and {t}")
        if not facts.same(t.length, timed[0].length):
            raise Misfit("GS0301", f"{what} joins values of different lengths: {timed[0]} and {t}")
    return (timed[0].length, timed[0].rate) if timed else (None, None)


def expanded(x: Type, axis: int) -> Type:
    """A new axis of 1 at `axis` of the result's axes after time."""
    rank = len(x.after_time)
    if not -rank - 1 <= axis <= rank:
        raise Misfit("GS0304", f"expand: axis is {-rank - 1} to {rank} for {x}, not {axis}")
    at = axis if axis >= 0 else axis + rank + 1
    inner = (*x.after_time[:at], Dim.of(1), *x.after_time[at:])
    return x.with_dims(*((x.length,) if x.timed else ()), *inner)


def outer(a: Type, b: Type, facts: Facts) -> Type:
    """[..., m], [..., n] -> [..., m, n]: all other axes equal, or one operand a static vector."""
    for t in (a, b):
        if not t.after_time:
            raise Misfit("GS0304", f"outer wants channels, but {t} has none")
    _one_clock("outer", (a, b), facts)
    vectors = [not t.timed and len(t.dims) == 1 for t in (a, b)]
    if not any(vectors):
        same = len(a.dims) == len(b.dims) and all(map(facts.same, a.dims[:-1], b.dims[:-1]))
        if a.timed != b.timed or not same:
            raise Misfit("GS0301", f"outer: the axes before the channels of {a} and {b} differ")
    whole = b if vectors[0] else a
    return Type(FLOAT, (*whole.dims[:-1], a.dims[-1], b.dims[-1]), whole.rate)


def einsum(pattern: str, xs: tuple[Type, ...], facts: Facts) -> Type:
    """Letters act on axes after time; the result is timed where an operand is. Sizes of one letter are equal."""
    sides = pattern.replace(" ", "").split("->")
    inputs = sides[0].split(",")
    if len(sides) != 2 or not all(c.isascii() and c.isalpha() for c in "".join((*inputs, sides[1]))):
        raise Misfit("GS0304", f"einsum: '{pattern}' is not a pattern such as \"en,n->e\"")
    if len(inputs) != len(xs):
        raise Misfit("GS0304", f"einsum: '{pattern}' is for {len(inputs)} operands, given are {len(xs)}")
    sizes: dict[str, tuple[Dim, Type]] = {}
    for letters, t in zip(inputs, xs, strict=True):
        if len(letters) != len(t.after_time):
            raise Misfit(
                "GS0304", f"einsum: '{letters}' names {len(letters)} axes, {t} has {len(t.after_time)} after time"
            )
        for c, dim in zip(letters, t.after_time, strict=True):
            known, who = sizes.setdefault(c, (dim, t))
            if not facts.same(known, dim):
                raise Misfit("GS0301", f"einsum: {c} is {known} in {who} and {dim} in {t}")
    if unknown := [c for c in sides[1] if c not in sizes]:
        raise Misfit("GS0304", f"einsum: no operand has the axis {unknown[0]} of the result")
    if len(set(sides[1])) < len(sides[1]):
        raise Misfit("GS0304", f"einsum: the result names an axis twice, {sides[1]}")
    clock = _one_clock("einsum", xs, facts)
    length, rate = clock
    if rate is not None and not sides[1]:
        raise Misfit("GS0304", "einsum: a timed value keeps an axis after time; sum the rest by sum(x, axis=-1)")
    return Type(FLOAT, (*((length,) if length is not None else ()), *(sizes[c][0] for c in sides[1])), rate)


def rearranged(pattern: str, x: Type, sizes: dict[str, int]) -> Type:
    """`(h c) -> h c` over the axes after time; sizes are the call's extra keyword arguments (h=8)."""
    sides = pattern.split("->")
    if len(sides) != 2:
        raise Misfit("GS0304", f"rearrange: '{pattern}' is not a pattern such as \"(h c) -> h c\"")
    try:
        left, right = map(axes_of, sides)
    except ValueError as error:
        raise Misfit("GS0304", f"rearrange: {error}") from None
    if len(left) != len(x.after_time):
        raise Misfit("GS0304", f"rearrange: '{pattern}' names {len(left)} axes, {x} has {len(x.after_time)} after time")
    names = [n for group in left for n in group]
    if len(set(names)) < len(names) or sorted(names) != sorted(n for g in right for n in g):
        raise Misfit("GS0304", f"rearrange: '{pattern}' does not have the same names on both sides, once each")
    if strange := [n for n in sizes if n not in names]:
        raise Misfit("GS0304", f"rearrange: '{pattern}' has no axis {strange[0]}")
    known: dict[str, Dim] = {n: Dim.of(size) for n, size in sizes.items()}
    for group, dim in zip(left, x.after_time, strict=True):
        size = dim.as_int()
        if size is None:
            raise Misfit("GS0306", f"rearrange: the axis {dim} of {x} is not a known number")
        unknown = [n for n in group if n not in known]
        rest = 1
        for n in group:
            rest *= known[n].as_int() if n in known else 1  # type: ignore[operator]
        if len(unknown) > 1:
            raise Misfit("GS0304", f"rearrange: say how {size} is split, as {unknown[0]}=...")
        if rest < 1 or size % rest or (not unknown and rest != size):
            raise Misfit("GS0301", f"rearrange: ({' '.join(group)}) is {rest}, which does not split {size}")
        known |= dict.fromkeys(unknown, Dim.of(size // rest))
    out = []
    for group in right:
        joined = Dim.of(1)
        for n in group:
            joined = joined * known[n]
        out.append(joined)
    if x.timed and not out:
        raise Misfit("GS0304", "rearrange: a timed value keeps an axis after time")
    return x.with_dims(*((x.length,) if x.timed else ()), *out)


def fixed(x: Type, facts: Facts) -> Type:
    """[T, ...] @ r -> static [T, ...] with T the number that `require` fixes it to."""
    if not x.timed:
        raise Misfit("GS0304", f"as_static: {x} is static already")
    length = facts.number(x.length)
    if length is None:
        raise Misfit("GS0306", f"as_static: the length {x.length} is not fixed; require: {_fixing(x.length)} == ...")
    return Type(x.dtype, (Dim.of(length), *x.after_time))


def timed(y: Type, rate: int | float | Fraction) -> Type:
    """Static [n, ...] -> timed [n, ...] @ rate."""
    if y.timed:
        raise Misfit("GS0304", f"as_time: {y} is timed already")
    if len(y.dims) < 2:
        raise Misfit("GS0304", f"as_time wants axes [n, ..., c], but {y} has {_axes(y)}")
    if rate <= 0:
        raise Misfit("GS0302", f"as_time: a rate is above 0, not {rate}")
    return Type(y.dtype, y.dims, Fraction(rate))


def _fixing(length: Dim) -> str:
    return ", ".join(sorted(length.symbols()))


def shaped(shape: list[int]) -> Type:
    """A static value of this shape: `param([d, n])`."""
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in shape):
        raise Misfit("GS0306", f"a shape is a list of whole numbers from 1, not {list(shape)}")
    return Type(FLOAT, tuple(Dim.of(n) for n in shape))
