"""Random values, fresh for every example: one number for all of it, or noise of another value's shape.

Two calls are two draws, two uses of one name are one. They are drawn in training and outside it, each from the stream
of its own value (LANGUAGE 11), so there is no seed to give.
"""

from graphspec.declare import op


@op("-> float[]", noise="uniform[]", example="x * uniform()")
def uniform():
    """One number for the example, uniform between 0 and 1, never either."""
    from graphspec.ops.modules.chance import Drawn

    return Drawn()


@op("-> float[]", noise="normal[]", example="x * normal()")
def normal():
    """One number for the example from the standard normal distribution."""
    from graphspec.ops.modules.chance import Drawn

    return Drawn()


@op("-> int(high)[] where low >= 0, low < high", noise="uniform[]", example="where(random_int(1, 4) > 1, x, 0)")
def random_int(*, low: int, high: int):
    """One whole number for the example, each of low .. high - 1 as likely: a class of int(high).

    low: the smallest, 0 or more. high: one above the largest.
    """
    from graphspec.ops.modules.chance import RandomInt

    return RandomInt(low, high)


@op("x: any[...] @ r -> float[...] @ r", time="pointwise()", noise="uniform[...]", example="x + uniform_like(x)")
def uniform_like(x):
    """Noise in the shape of a value, each element uniform between 0 and 1, never either.

    x: any[...], of which only the shape counts -> float[...].
    """
    from graphspec.ops.modules.chance import Drawn

    return Drawn()


@op("x: any[...] @ r -> float[...] @ r", time="pointwise()", noise="normal[...]", example="x + normal_like(x)")
def normal_like(x):
    """Noise in the shape of a value, each element from the standard normal distribution.

    x: any[...], of which only the shape counts -> float[...].
    """
    from graphspec.ops.modules.chance import Drawn

    return Drawn()
