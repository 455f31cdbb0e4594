"""Noise that only training sees."""

from graphspec.declare import op


@op(
    "x: float[...] @ r -> float[...] @ r where p >= 0, p < 1",
    time="pointwise()",
    noise="uniform[...]",
    noise_when="p > 0",
    training_noise=True,
    affine_in="x",
    example="x |> dropout(0.1)",
)
def dropout(x, *, p: float):
    """Each element set to 0 with probability p in training, the others divided by 1 - p (Srivastava et al. 2014).

    x: float[...] -> the same. p: in [0, 1). Nothing happens outside training.
    """
    from graphspec.ops.modules.regularise import Dropout

    return Dropout(p)
