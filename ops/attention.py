"""Attention: each element gathers from others by how well its query fits their keys."""

from graphspec.declare import op


@op(
    "x: float[S, c] @ r, context?: float[M, k] -> float[S, c] @ r"
    " where heads >= 1, c % heads == 0, window >= 0, chunk >= 0, window == 0 or chunk == 0, causal or window == 0,"
    " min(list(rope)) >= 0, len(list(rope)) <= 2, rope == 0 or c % (2*heads*len(list(rope))) == 0,"
    " len(list(rope)) == 1 or window + chunk == 0",
    time={
        "x": "pointwise() if context != none"
        " else window(past=window-1) if window > 0"
        " else window(past=chunk-1) if chunk > 0 and causal"
        " else window(past=0, group=chunk) if chunk > 0"
        " else recurrent() if causal else everything()",
        "context": "everything()",
    },
    weights={
        "q": "",
        "k": "",
        "v": "",
        "out": "",
        "q_bias": "bias",
        "k_bias": "bias",
        "v_bias": "bias",
        "out_bias": "bias",
    },
    grows=True,
    pairs="context == none and window == 0 and chunk == 0",
    example="x |> attention(4)",
)
def attention(
    x,
    context,
    *,
    heads: int,
    causal: bool = True,
    window: int = 0,
    chunk: int = 0,
    rope: object = 10000.0,
    bias: bool = False,
):
    """Multi-head softmax attention to the sequence itself, or to a context (Vaswani et al. 2017).

    x: float[S, c], timed or static -> the same. context: float[M, k], timed at any rate or static; each element of x
    then reads all of it, and causal, window, chunk and rope do not apply (so a timed context cannot stream).
    heads: divide c; each has c/heads channels. causal: no element reads a later one. window: with w > 0 it reads itself
    and the w - 1 before it, at a cost of w an element. chunk: with n > 0 only those in its group of n consecutive ones.
    rope: base of the rotary embedding of positions (Su et al. 2021), which sees their differences only, 0 for none;
    [rows, cols] is for a sequence of rows*cols elements, half of each head for the row and half for the column.
    bias: whether the four projections have one.
    Streaming keeps the keys and values of all ticks so far, of window - 1, or of chunk - 1.
    Weights `q`, `out` [c, c] and `k`, `v` [c, k], uniform in +-1/sqrt(columns); `q_bias`, `k_bias`, `v_bias`,
    `out_bias` [c] = 0. There is no dropout inside.
    """
    from graphspec.ops.modules.attention import BandedAttention, ChunkedAttention, CrossAttention, SelfAttention

    if context is not None:
        return CrossAttention(x.channels, context.channels, heads, bias=bias, timed=context.timed)
    settings = {"rope": rope, "bias": bias, "timed": x.timed}
    if window:
        return BandedAttention(x.channels, heads, window - 1, **settings)
    if chunk:
        return ChunkedAttention(x.channels, heads, chunk, causal=causal, **settings)
    return SelfAttention(x.channels, heads, causal=causal, **settings)
