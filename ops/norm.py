"""Normalisation. Over the channels (and middle axes) of one tick it is causal; `norm_over_time` reads all of time."""

from graphspec.declare import op


@op(
    "x: float[..., c] @ r -> float[..., c] @ r where eps > 0",
    time="pointwise()",
    weights={"weight": "norm", "bias": "bias"},
    precision="f32",
    example="x |> layer_norm",
)
def layer_norm(x, *, eps: float = 1e-5, affine: bool = True):
    """Each tick's channels to mean 0 and variance 1, then scaled and shifted per channel (Ba et al. 2016).

    x: float[..., c] -> the same. eps: added to the (biased) variance. affine: whether weight and bias are there.
    Weights `weight` [c] = 1 and `bias` [c] = 0.
    """
    from graphspec.ops.modules.norm import LayerNorm

    return LayerNorm(x.channels, eps, affine)


@op(
    "x: float[..., c] @ r -> float[..., c] @ r where eps > 0",
    time="pointwise()",
    weights={"weight": "norm"},
    precision="f32",
    example="x |> rms_norm",
)
def rms_norm(x, *, eps: float = 1e-5):
    """Each tick's channels divided by their root mean square, then scaled per channel (Zhang and Sennrich 2019).

    x: float[..., c] -> the same. eps: added to the mean square. Weight `weight` [c] = 1.
    """
    from graphspec.ops.modules.norm import RMSNorm

    return RMSNorm(x.channels, eps)


@op(
    "x: float[..., c] @ r -> float[..., c] @ r where groups >= 1, c % groups == 0, eps > 0",
    time="pointwise()",
    weights={"weight": "norm", "bias": "bias"},
    precision="f32",
    example="x |> group_norm(4)",
)
def group_norm(x, *, groups: int, eps: float = 1e-5, affine: bool = True):
    """Each of `groups` groups of channels to mean 0 and variance 1, then scaled per channel (Wu and He 2018).

    x: float[..., c] -> the same. Axes between time and channels ([N, F, c]) are normalised together with the group;
    time never is, unlike the layer for images, and that is what keeps it causal. A static x, which has no time, is
    normalised over all its axes. groups: divide c; group g is c/groups neighbouring channels. eps: added to the
    (biased) variance. affine: whether weight and bias are there. Weights `weight` [c] = 1 and `bias` [c] = 0.
    """
    from graphspec.ops.modules.norm import GroupNorm

    return GroupNorm(x.channels, groups, eps, affine, x.timed)


@op(
    "x: float[..., c] @ r -> float[..., c] @ r where eps > 0",
    time="pointwise()",
    weights={"m": "norm", "s": "norm"},
    precision="f32",
    example="x |> channel_norm",
)
def channel_norm(x, *, eps: float = 1e-5):
    """Each tick's channels to mean 0 and variance 1, moved and scaled by one number each: s (x - mean + m) / std.

    x: float[..., c] -> the same. The norm of the published SaShiMi checkpoints (Goel et al. 2022), with an epsilon:
    there a tick of equal channels gives NaN. m is in units of x, so a quiet tick is moved further.
    eps: added to the (biased) variance. Weights `m` [1] = 0 and `s` [1] = 1.
    """
    from graphspec.ops.modules.norm import ChannelNorm

    return ChannelNorm(eps)


@op(
    "x: float[T, ..., c] @ r -> float[T, ..., c] @ r where eps > 0",
    time="everything()",
    weights={"weight": "norm", "bias": "bias"},
    precision="f32",
    example="x |> norm_over_time",
)
def norm_over_time(x, *, eps: float = 1e-5, affine: bool = True):
    """Each channel to mean 0 and variance 1 over all of time (instance norm, Ulyanov et al. 2016): it cannot stream.

    x: float[T, ..., c] -> the same; with axes between, each of their elements on its own. eps: added to the (biased)
    variance. affine: whether weight and bias are there. Weights `weight` [c] = 1 and `bias` [c] = 0.
    """
    from graphspec.ops.modules.norm import NormOverTime

    return NormOverTime(x.channels, eps, affine)
