"""Convolutions over time and one axis between time and channels: spectrograms, piano rolls."""

from graphspec.declare import op


@op(
    "x: float[T, F, c] @ r -> float[T/stride, F/stride, units] @ r/stride"
    " where units >= 1, stride >= 1, k >= stride, F % stride == 0",
    time="window(past=k - stride, future=stride - 1, stride=stride) if causal"
    " else window(past=k - stride - (k - stride)//2, future=stride - 1 + (k - stride)//2, stride=stride)",
    weights={"weight": "", "bias": "bias"},
    example="x |> conv2d(8)",
)
def conv2d(x, *, units: int, k: int = 3, stride: int = 1, causal: bool = False, bias: bool = True):
    """2-D convolution along time and the axis after it, zeros outside, k x k taps (LeCun et al. 1998).

    x: float[T, F, c] @ r, stride divides F -> float[T/stride, F/stride, units] @ r/stride. Result j, along either
    axis, reads its own group of `stride` and k - stride excess elements, (k - stride)//2 of them after the group and
    the rest before: torch's padding (k-1)//2 at strides 1 and 2.
    units: output channels. k: taps along either axis, at least stride. stride: elements per result, of either axis.
    causal: along time all of the excess lies before; otherwise it looks ahead, and streams so much later. bias: whether
    one is added.
    Weights `weight` [units, c, k, k] (time, then frequency) and `bias` [units], uniform in +-1/sqrt(c*k*k) (torch's
    default).
    """
    from graphspec.ops.modules.conv2d import Conv2d

    return Conv2d(x.channels, units, x.tensor_axes[-2].as_int(), k, stride, causal, bias)


@op(
    "x: float[T, F, c] @ r -> float[T*stride, F*stride, units] @ r*stride where units >= 1, stride >= 1, k >= stride",
    time="window(past=(k-1)//stride, stride=1/stride) if causal"
    " else window(past=(k - 1 - (k - stride - (k - stride)//2))//stride,"
    " future=(stride - 1 + k - stride - (k - stride)//2)//stride, stride=1/stride)",
    weights={"weight": "", "bias": "bias"},
    example="x |> conv2d_up(8)",
)
def conv2d_up(x, *, units: int, k: int = 4, stride: int = 2, causal: bool = False, bias: bool = True):
    """Transposed 2-D convolution along time and the axis after it, the way back from `conv2d` (Zeiler et al. 2010).

    x: float[T, F, c] @ r -> float[T*stride, F*stride, units] @ r*stride. Every element adds k x k results, `stride`
    apart; of the k - stride that stick out, (k - stride)//2 are dropped at the end and the rest at the start of either
    axis: torch's padding (k - stride)/2 where that is whole.
    units: output channels. k: taps along either axis, at least stride. stride: results per element, of either axis.
    causal: along time all of the excess is dropped at the end, so that nothing looks ahead. bias: whether one is added.
    Weights `weight` [c, units, k, k] (time, then frequency) and `bias` [units], uniform in +-1/sqrt(units*k*k) (torch's
    default).
    """
    from graphspec.ops.modules.conv2d import Conv2dUp

    return Conv2dUp(x.channels, units, x.tensor_axes[-2].as_int(), k, stride, causal, bias)
