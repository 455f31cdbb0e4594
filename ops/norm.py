"""Normalisation over the channels of one tick: causal, whatever the length."""

from graphspec.declare import op


@op(
    "x: float[..., c] @ r -> float[..., c] @ r where eps > 0",
    time="pointwise()",
    weights={"weight": "norm", "bias": "bias"},
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
    example="x |> rms_norm",
)
def rms_norm(x, *, eps: float = 1e-5):
    """Each tick's channels divided by their root mean square, then scaled per channel (Zhang and Sennrich 2019).

    x: float[..., c] -> the same. eps: added to the mean square. Weight `weight` [c] = 1.
    """
    from graphspec.ops.modules.norm import RMSNorm

    return RMSNorm(x.channels, eps)
