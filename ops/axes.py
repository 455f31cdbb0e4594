"""The axes after time: made, moved and multiplied together; and the two ways in which time itself changes order.

Axes are counted after time, -1 is the last (the channels). No element of a rearrangement changes.
"""

from graphspec.declare import op


@op(
    "x: any[T, c] @ r -> any[T*c, 1] @ r*c",
    time="unfold(c)",
    rearranges=True,
    example="x |> interleave",
)
def interleave(x):
    """Channels become ticks of a finer clock, in their order: L, R, L, R of a stereo signal.

    x: any[T, c] @ r -> any[T*c, 1] @ r*c; channel i of tick t becomes tick t*c + i.
    """
    from graphspec.ops.modules.axes import Interleave

    return Interleave()


@op(
    "x: any[T, 1] @ r -> any[T/n, n] @ r/n where n >= 1",
    time="fold(n)",
    rearranges=True,
    example="x |> deinterleave(4)",
)
def deinterleave(x, *, n: int):
    """Every n ticks become one of n channels, the inverse of `interleave`.

    x: any[T, 1] @ r -> any[T/n, n] @ r/n; tick t*n + i becomes channel i of tick t. n: ticks together.
    """
    from graphspec.ops.modules.axes import Deinterleave

    return Deinterleave(n)


@op("x: any[...] -> any[expanded(x, axis)]", time="pointwise()", rearranges=True, example="x |> expand(-1)")
def expand(x, *, axis: int):
    """A new axis of 1, along which another value may then be joined: `expand(dt, -1) * a`.

    x: any[...] -> the same with one axis more. axis: its place among the axes after time of the result, -1 for last.
    """
    from graphspec.ops.modules.axes import Expand

    return Expand(x, axis)


@op("a: float[...], b: float[...] -> float[outer(a, b)]", time="pointwise()", example="outer(a, b)")
def outer(a, b):
    """Every channel of one value times every channel of another: element (i, j) is a_i * b_j.

    a: float[..., m], b: float[..., n], equal in all other axes, or one of them a static vector -> float[..., m, n].
    """
    from graphspec.ops.modules.axes import Outer

    return Outer(a, b)


@op("*xs: float[...] -> float[einsum(pattern, xs)]", time="pointwise()", example='einsum("c,d->cd", a, b)')
def einsum(*xs, pattern: str):
    """Sums of products over named axes (Einstein's notation); every letter is an axis after time.

    xs: any number of float values; the timed ones share their clock. pattern: comes first, as in
    `einsum("en,n->e", h, c)`: one group of letters an operand, then the result's.
    """
    from graphspec.ops.modules.axes import Einsum

    return Einsum(pattern, *xs)


@op(
    "x: any[...] -> any[rearranged(pattern, x)]",
    time="pointwise()",
    rearranges=True,
    sizes="int",
    example='rearrange("(h c) -> h c", x, h=4)',
)
def rearrange(x, *, pattern: str, **sizes: int):
    """Axes after time split, joined and reordered by name (as einops does).

    x: any[...]. pattern: comes first, as in `rearrange("(h c) -> h c", x, h=8)`; names in parentheses share one axis.
    sizes: of the names that the pattern leaves open.
    """
    from graphspec.ops.modules.axes import Rearrange

    return Rearrange(pattern, x, sizes)


# ---- time and no time --------------------------------------------------------------------------------------------


@op("x: any[T, ...] -> any[fixed(x)]", example="x |> as_static")
def as_static(x):
    """A sequence of fixed length as a static value: time becomes an axis like any other. It cannot stream.

    x: any[T, ...] @ r with T fixed by `require` -> any[T, ...].
    """
    from graphspec.ops.modules.axes import AsStatic

    return AsStatic()


@op("y: any[...] -> any[timed(y, rate)]", time="everything()", example="x |> as_static |> as_time(100)")
def as_time(y, *, rate: float):
    """A static value as a sequence: its first axis becomes time.

    y: any[n, ..., c] -> any[n, ..., c] @ rate. rate: in Hz.
    """
    from graphspec.ops.modules.axes import AsTime

    return AsTime()


# ---- classes and channels ----------------------------------------------------------------------------------------


@op(
    "x: int(n)[..., c] @ r -> float[..., c*n] @ r where classes == none or classes == n",
    time="pointwise()",
    example="x |> one_hot",
)
def one_hot(x, *, classes: int | None = None):
    """A channel for each class, 1 for the one that is there and 0 for the others; several channels side by side.

    x: int(n)[..., c] -> float[..., c*n]; class k of channel i becomes channel i*n + k. classes: how many; none, or as
    many as x has.
    """
    from graphspec.ops.modules.axes import OneHot

    return OneHot(x.dtype.classes)


@op("x: float[..., c] @ r -> int(c)[..., 1] @ r", time="pointwise()", example="argmax(x)")
def argmax(x):
    """The number of the largest channel, the first of equals; no gradient passes.

    x: float[..., c] -> int(c)[..., 1].
    """
    from graphspec.ops.modules.axes import ArgMax

    return ArgMax()
