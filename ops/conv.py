"""Convolutions along time, and the transposed one that raises the rate."""

from graphspec.declare import op


@op(
    "x: float[T, c] @ r -> float[T/stride, units] @ r/stride"
    " where units >= 1, k >= 1, dilation >= 1, stride >= 1, groups >= 1, c % groups == 0, units % groups == 0",
    time="window(past=(k-1)*dilation + 1 - stride - ((k-1)*dilation + 1 - stride)//2,"
    " future=stride - 1 + ((k-1)*dilation + 1 - stride)//2, stride=stride)"
    " if centre else window(past=(k-1)*dilation + 1 - stride, future=stride - 1, stride=stride)",
    weights={"weight": "", "bias": "bias"},
    example="x |> conv(64, k=5)",
)
def conv(
    x,
    *,
    units: int,
    k: int = 3,
    dilation: int = 1,
    bias: bool = True,
    stride: int = 1,
    groups: int = 1,
    centre: bool = False,
):
    """1-D causal convolution along time, zeros before the start (van den Oord et al. 2016).

    x: float[T, c] @ r -> float[T/stride, units] @ r/stride. Element j reads the k taps that end with the last tick of
    its group of `stride`: j*stride + stride-1, that less dilation, ..., that less (k-1)*dilation. So it looks no
    farther than a `fold(stride)`, and stride=s, k=2*s halves overlap as in a codec (Zeghidour et al. 2021).
    units: output channels. k: taps. dilation: ticks between taps. bias: whether one is added. stride: ticks per
    result. groups: into how many equal parts channels and units are split, each convolved by itself; as many as
    channels is a depthwise convolution.
    centre: the taps' centre is the group's, with e = (k-1)*dilation + 1 - stride excess ticks, of which e//2 are ahead
    and the rest behind; zeros after the end too. It then looks ahead, and streams so much later.
    Weights `weight` [units, c/groups, k] (oldest tap first) and `bias` [units], uniform in +-1/sqrt(k*c/groups)
    (torch's default).
    """
    from graphspec.ops.modules.conv import CausalConv

    return CausalConv(x.channels, units, k, dilation, bias, stride, groups, centre)


@op(
    "x: float[T, c] @ r -> float[T*stride, units] @ r*stride where units >= 1, stride >= 1, k >= stride",
    time="window(past=(k-1)//stride, stride=1/stride)",
    weights={"weight": "", "bias": "bias"},
    example="x |> conv_up(8, k=4, stride=2)",
)
def conv_up(x, *, units: int, k: int, stride: int, bias: bool = True):
    """Transposed causal convolution: every tick adds k output ticks, `stride` apart (Zeiler et al. 2010).

    x: float[T, c] @ r -> float[T*stride, units] @ r*stride. Tick j adds to the results j*stride .. j*stride + k-1, so
    that results j*stride .. j*stride + stride-1 read ticks up to j, and what reaches beyond the end is dropped.
    units: output channels. k: taps, at least stride; a multiple of it, or the phases read unlike many ticks.
    stride: results per tick. bias: whether one is added.
    Weights `weight` [c, units, k] (earliest result first) and `bias` [units], uniform in +-1/sqrt(units*k) (torch's
    default).
    """
    from graphspec.ops.modules.conv import ConvUp

    return ConvUp(x.channels, units, k, stride, bias)
