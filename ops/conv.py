"""Convolutions along time."""

from graphspec.declare import op


@op(
    "x: float[T, c] @ r -> float[T, units] @ r where units >= 1, k >= 1, dilation >= 1",
    time="window(past=(k-1)*dilation)",
    weights={"weight": "", "bias": "bias"},
    example="x |> conv(64, k=5)",
)
def conv(x, *, units: int, k: int = 3, dilation: int = 1, bias: bool = True):
    """1-D causal convolution along time, zeros before the start (van den Oord et al. 2016).

    x: float[T, c] -> float[T, units]; tick t reads t, t - dilation, ..., t - (k-1)*dilation.
    units: output channels. k: taps. dilation: ticks between taps. bias: whether one is added.
    Weights `weight` [units, c, k] (oldest tap first) and `bias` [units], uniform in +-1/sqrt(c*k) (torch's default).
    """
    from graphspec.ops.modules.conv import CausalConv

    return CausalConv(x.channels, units, k, dilation, bias)
