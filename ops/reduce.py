"""Many elements to one: over everything but the batch (a static `[]` value, for losses and metrics), or over channels.

`axis` is none (everything, past and future, so there is no streaming form) or -1 (the channels, kept as an axis of 1).
"""

from graphspec.declare import op


@op(
    "x: any[...] -> float[reduced(x, axis)] where axis == none or axis == -1",
    time="pointwise() if axis == -1 else everything()",
    precision="f32",
    example="mean(x)",
)
def mean(x, *, axis: int | None = None):
    """The mean; of bool values the share that is true.

    x: any[...] -> float[], or float[..., 1] with axis -1. axis: none for everything, -1 for the channels.
    """
    from graphspec.ops.modules.reduce import reduction

    return reduction("mean", x, axis)


@op(
    "x: any[...] -> float[reduced(x, axis)] where axis == none or axis == -1",
    time="pointwise() if axis == -1 else everything()",
    precision="f32",
    example="sum(x)",
)
def sum_(x, *, axis: int | None = None):
    """The sum, float even of integers (a sum of classes is not a class); of bool values how many are true.

    x: any[...] -> float[], or float[..., 1] with axis -1. axis: none for everything, -1 for the channels.
    """
    from graphspec.ops.modules.reduce import reduction

    return reduction("sum", x, axis)


@op(
    "x: any[...] -> any[reduced(x, axis)] where axis == none or axis == -1",
    time="pointwise() if axis == -1 else everything()",
    example="max(x)",
)
def max_(x, *, axis: int | None = None):
    """The largest element; of bool values whether any is true.

    x: any[...] -> any[], or any[..., 1] with axis -1. axis: none for everything, -1 for the channels.
    """
    from graphspec.ops.modules.reduce import reduction

    return reduction("max", x, axis)
