"""Schedules: plain functions of `step`, the count of optimizer updates (LANGUAGE 11). The same as compile-time ones."""

from graphspec.declare import op


@op("x: float[...] @ r -> float[...] @ r where over > 0", time="pointwise()", example="cosine(x, 0, 1, over=2)")
def cosine(x, *, start: float, end: float, over: float):
    """From start to end along half a cosine, in `over` updates; constant after them.

    x: float, usually `step`. start, end: the values at 0 and from `over` on.
    """
    from graphspec.ops.modules.schedule import Cosine

    return Cosine(start, end, over)


@op("x: float[...] @ r -> float[...] @ r where over > 0", time="pointwise()", example="ramp(x, 0, 1, over=2)")
def ramp(x, *, start: float, end: float, over: float):
    """From start to end along a straight line, in `over` updates; constant after them.

    x: float, usually `step`. start, end: the values at 0 and from `over` on.
    """
    from graphspec.ops.modules.schedule import Ramp

    return Ramp(start, end, over)


@op(
    "x: float[...] @ r -> float[...] @ r where warmup >= 0, over > 0",
    time="pointwise()",
    example="warmup_cosine(x, 1, warmup=1, over=3)",
)
def warmup_cosine(x, *, peak: float, warmup: float, over: float, floor: float = 0.0):
    """Linear from 0 to peak in `warmup` updates, then half a cosine down to floor, which is reached at `over`.

    x: float, usually `step`. peak, floor: values. warmup, over: counts of updates.
    """
    from graphspec.ops.modules.schedule import WarmupCosine

    return WarmupCosine(peak, warmup, over, floor)


@op(
    "x: float[...] @ r -> float[...] @ r where over > 0",
    time="pointwise()",
    example="exponential(x, 1, rate=0.5, over=2)",
)
def exponential(x, *, start: float, rate: float, over: float):
    """start * rate ** (x / over): `rate` times smaller every `over` updates.

    x: float, usually `step`. start: the value at 0. rate: the factor. over: counts of updates.
    """
    from graphspec.ops.modules.schedule import Exponential

    return Exponential(start, rate, over)
