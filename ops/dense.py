"""Dense maps of the channels at one tick: a matrix, and a table of vectors."""

from graphspec.declare import op


@op(
    "x: float[..., c] @ r -> float[..., units] @ r where units >= 1",
    time="pointwise()",
    weights={"weight": "", "bias": "bias"},
    example="x |> linear(64)",
)
def linear(x, *, units: int, bias: bool = True):
    """An affine map of the channels, y = W x + b, the same at every tick.

    x: float[..., c] -> float[..., units]. units: output channels. bias: whether b is there.
    Weights `weight` [units, c] and `bias` [units], both uniform in +-1/sqrt(c) (torch's default; He et al. 2015).
    """
    from graphspec.ops.modules.dense import Linear

    return Linear(x.channels, units, bias)


@op(
    "x: int(n)[..., c] @ r -> float[..., c*width] @ r where width >= 1",
    time="pointwise()",
    weights={"weight": ""},
    example="x |> embed(64)",
)
def embed(x, *, width: int):
    """A learned vector for each class, one table per channel, the channels' vectors side by side.

    x: int(n)[..., c] -> float[..., c*width]. width: length of one vector.
    Weight `weight` [c, n, width], standard normal (torch's default).
    """
    from graphspec.ops.modules.dense import Embed

    return Embed(x.channels, x.dtype.classes, width)


@op("-> float[shaped(shape)]", weights={"weight": ""}, example="param([16], init=ones) * x")
def param(*, shape: list):
    """A learned static value: queries, gains, initial states. `init=` says how it begins; without it, as zeros.

    shape: whole numbers. Weight `weight` of that shape.
    """
    from graphspec.ops.modules.dense import Param

    return Param(tuple(shape))
