"""The time axis itself: delayed, folded into channels, unfolded from them, pooled; and its differences."""

from graphspec.declare import op


@op(
    "x: any[T, c] @ r -> any[T/p, p*c] @ r/p where p >= 1",
    time="fold(p)",
    rearranges=True,
    example="x |> fold(4)",
)
def fold(x, *, p: int):
    """Every p ticks become one, their channels side by side: the pooling of SaShiMi (Goel et al. 2022).

    x: any[T, c] @ r -> any[T/p, p*c] @ r/p. Channel h of the tick s (oldest is 0) of a group becomes channel h*p + s.
    """
    from graphspec.ops.modules.pool import Fold

    return Fold(p)


@op(
    "x: any[T, c] @ r -> any[T*p, c/p] @ r*p where p >= 1",
    time="unfold(p)",
    rearranges=True,
    example="x |> unfold(4)",
)
def unfold(x, *, p: int):
    """Every tick becomes p, the inverse of `fold`. By itself it copies the past; shift first to stay strict.

    x: any[T, c] @ r, p divides c -> any[T*p, c/p] @ r*p. Channel h*p + s becomes channel h of the group's tick s.
    """
    from graphspec.ops.modules.pool import Unfold

    return Unfold(p)


@op(
    "x: any[T, ...] @ r -> any[T, ...] @ r where k >= 0",
    time="delay(k)",
    spelled="x[t-k]",
    rearranges=True,
    example="x |> shift(1)",
)
def shift(x, *, k: int, before: float | None = None):
    """The value k ticks ago.

    x: any[T, ...] -> the same. k: ticks of its own rate, 0 or more. before: what is read before the start: none is
    what the value itself declares, or 0.
    """
    from graphspec.ops.modules.pool import Shift

    return Shift(x, k, before)


@op(
    "x: float[T, ...] @ r -> float[T/p, ...] @ r/p where p >= 1",
    time="fold(p)",
    example="x |> max_pool(4)",
)
def max_pool(x, *, p: int):
    """The largest of every p ticks, element by element.

    x: float[T, ...] @ r -> float[T/p, ...] @ r/p. p: ticks a group.
    """
    from graphspec.ops.modules.pool import MaxPool

    return MaxPool(p)


@op(
    "x: float[T, ...] @ r -> float[T/p, ...] @ r/p where p >= 1",
    time="fold(p)",
    example="x |> mean_pool(4)",
)
def mean_pool(x, *, p: int):
    """The mean of every p ticks, element by element.

    x: float[T, ...] @ r -> float[T/p, ...] @ r/p. p: ticks a group.
    """
    from graphspec.ops.modules.pool import MeanPool

    return MeanPool(p)


@op(
    "x: float[T, ...] @ r -> float[T, ...] @ r where order >= 1",
    time="window(past=order)",
    example="x |> delta",
)
def delta(x, *, order: int = 1):
    """The change since the tick before, x_t - x_{t-1}, as if x had stood at its first value before the start.

    x: float[T, ...] -> the same, in units of x per tick; its first tick is 0. order: how often; 2 is the change of the
    change. Against `x - x[t-1]`, which reads 0 before the start, it makes no jump there.
    """
    from graphspec.ops.modules.pool import Delta

    return Delta(x, order)
