"""Activations: pointwise non-linearities, each under its usual name."""

import math

from graphspec.declare import op


def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))  # does not overflow


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=math.tanh, example="x |> tanh")
def tanh(x):
    """The hyperbolic tangent, in (-1, 1). x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("tanh")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=_sigmoid, example="x |> sigmoid")
def sigmoid(x):
    """The logistic function 1 / (1 + exp(-x)), in (0, 1). x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("sigmoid")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=lambda x: max(x, 0), example="x |> relu")
def relu(x):
    """max(x, 0). x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("relu")


@op(
    "x: float[...] @ r -> float[...] @ r",
    time="pointwise()",
    number=lambda x: 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0))),
    example="x |> gelu",
)
def gelu(x):
    """x times the normal distribution function at x, exact by erf (Hendrycks and Gimpel 2016). x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("gelu")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=lambda x: x * _sigmoid(x), example="x |> silu")
def silu(x):
    """x * sigmoid(x), also called swish (Elfwing et al. 2018). x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("silu")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", example="x |> leaky_relu(0.1)")
def leaky_relu(x, *, slope: float = 0.01):
    """x where it is positive, else slope * x (Maas et al. 2013). x: float[...]. slope: of the negative side."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("leaky_relu", negative_slope=slope)


@op(
    "x: float[...] @ r -> float[...] @ r",
    time="pointwise()",
    number=lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    example="x |> softplus",
)
def softplus(x):
    """log(1 + exp(x)): positive, close to x for large x. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("softplus")
