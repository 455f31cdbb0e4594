"""Activations: pointwise non-linearities, each under its usual name; and what stands where none is wanted."""

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


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", example="x |> elu")
def elu(x, *, alpha: float = 1.0):
    """x where it is positive, else alpha * (exp(x) - 1) (Clevert et al. 2016). x: float[...]. alpha: depth below 0."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("elu", alpha=alpha)


@op(
    "x: float[...] @ r -> float[...] @ r",
    time="pointwise()",
    number=lambda x: x * math.tanh(max(x, 0.0) + math.log1p(math.exp(-abs(x)))),
    example="x |> mish",
)
def mish(x):
    """x * tanh(softplus(x)) (Misra 2020). x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("mish")


@op(
    "x: float[..., c] @ r -> float[..., c] @ r",
    time="pointwise()",
    weights={"alpha": ""},
    example="x |> snake",
)
def snake(x):
    """A ripple on a line, x + sin(alpha x)^2 / alpha, which extrapolates periodic signals (Ziyin et al. 2020).

    x: float[..., c] -> the same. Weight `alpha` [c] = 1, a frequency for each channel.
    """
    from graphspec.ops.modules.elementwise import Snake

    return Snake(x.channels)


@op(
    "x: float[...] @ r -> float[...] @ r",
    time="pointwise()",
    number=lambda x: math.log(x / (1 - x)),
    example="x |> logit",
)
def logit(x):
    """log(x / (1 - x)), the inverse of sigmoid; NaN outside [0, 1]. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("logit")


@op(
    "x: float[..., c] @ r -> float[..., c] @ r",
    time="pointwise()",
    precision="f32",
    example="x |> softmax",
)
def softmax(x):
    """The exponentials of the channels, divided by their sum: positive, and 1 in all. x: float[..., c] -> the same."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("softmax", dim=-1)


@op(
    "x: float[..., c] @ r -> float[..., c] @ r",
    time="pointwise()",
    precision="f32",
    example="x |> log_softmax",
)
def log_softmax(x):
    """The logarithm of softmax over the channels, without overflow. x: float[..., c] -> the same."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("log_softmax", dim=-1)


@op("x: any[...] @ r -> any[...] @ r", time="pointwise()", rearranges=True, example="x |> stop")
def stop(x):
    """The value as it is, with no gradient back through it. x: any[...] -> the same."""
    from graphspec.ops.modules.elementwise import Identity

    return Identity(stop=True)


@op("x: any[...] @ r -> any[...] @ r", time="pointwise()", rearranges=True, affine_in="x", example="x |> identity")
def identity(x):
    """The value as it is: the stage that does nothing. x: any[...] -> the same."""
    from graphspec.ops.modules.elementwise import Identity

    return Identity()
