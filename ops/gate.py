"""Gates: one half of the channels decides how much of the other passes."""

from graphspec.declare import op


@op(
    "x: float[..., c] @ r -> float[..., c // 2] @ r where c % 2 == 0",
    time="pointwise()",
    example="x |> linear(2*c) |> glu",
)
def glu(x):
    """The first half of the channels times the sigmoid of the second (Dauphin et al. 2017).

    x: float[..., c], c even -> float[..., c // 2].
    """
    from graphspec.ops.modules.gate import GLU

    return GLU()


@op(
    "x: float[..., c] @ r -> float[..., c // 2] @ r where c % 2 == 0",
    time="pointwise()",
    example="x |> linear(2*c) |> swiglu",
)
def swiglu(x):
    """The silu of the first half of the channels times the second half (Shazeer 2020).

    x: float[..., c], c even -> float[..., c // 2]. Note that the other half is the gate in `glu`.
    """
    from graphspec.ops.modules.gate import SwiGLU

    return SwiGLU()
