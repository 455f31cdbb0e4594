"""Dense maps of the channels at one tick: a matrix, and a table of vectors."""

from graphspec.declare import op


@op(
    "x: float[..., c] @ r -> float[..., units] @ r where units >= 1",
    time="pointwise()",
    weights={"weight": "", "bias": "bias", "g": "norm", "v": ""},
    example="x |> linear(64)",
)
def linear(x, *, units: int, bias: bool = True, normed: bool = False):
    """An affine map of the channels, y = W x + b, the same at every tick.

    x: float[..., c] -> float[..., units]. units: output channels. bias: whether b is there. normed: W is its rows'
    lengths times their directions, g v / ||v||, each learned by itself (Salimans and Kingma 2016).
    Weights `weight` [units, c] and `bias` [units], both uniform in +-1/sqrt(c) (torch's default; He et al. 2015).
    With normed `v` [units, c], drawn as `weight` is, and `g` [units] = 1/sqrt(3), their mean length, in its place.
    """
    from graphspec.ops.modules.dense import Linear, NormedLinear

    return NormedLinear(x.channels, units, bias) if normed else Linear(x.channels, units, bias)


@op(
    "x: int(n)[..., c] @ r -> float[..., c*width] @ r where width >= 1, classes == none or classes >= n",
    time="pointwise()",
    weights={"weight": ""},
    example="x |> embed(64)",
)
def embed(x, *, width: int, classes: int | None = None):
    """A learned vector for each class, one table per channel, the channels' vectors side by side.

    x: int(n)[..., c] -> float[..., c*width]. width: length of one vector. classes: rows of a table, none for n.
    Faces of an instance under `shared:`: `logits` (the table as an output layer) and `weight` (the table itself).
    Weight `weight` [c, classes, width], standard normal (torch's default).
    """
    from graphspec.ops.modules.dense import Embed

    return Embed(x.channels, classes or x.dtype.classes, width)


@op(
    "x: float[..., width] @ r -> float[..., classes if classes != none else n] @ r where c == 1",
    time="pointwise()",
    of="embed",
    name="logits",
)
def embed_logits(x, of):
    """One number a class, x times its vector: the output layer tied to the table (Press and Wolf 2017).

    x: float[..., width] -> float[..., classes], for a table of one channel.
    """
    from graphspec.ops.modules.dense import TiedLogits

    return TiedLogits(of)


@op("-> float[c*(classes if classes != none else n), width]", of="embed", name="weight")
def embed_weight(of):
    """The table as a static value, float[c*classes, width]."""
    from graphspec.ops.modules.dense import Table

    return Table(of)


@op("-> float[shaped(shape)]", spelled="init: learned", weights={"weight": ""}, example="param([16], init=ones) * x")
def param(*, shape: list):
    """A learned static value: queries, gains, initial states. `init=` says how it begins; without it, as zeros.

    shape: whole numbers. Weight `weight` of that shape.
    """
    from graphspec.ops.modules.dense import Param

    return Param(tuple(shape))
