"""Classes taken apart into coarse and fine ones, and put together: sixteen bits as two bytes."""

from graphspec.declare import op


@op(
    "x: int(n)[...] @ r -> int(n // by)[...] @ r where by >= 1, n % by == 0",
    time="pointwise()",
    example="x |> quotient(4)",
)
def quotient(x, *, by: int):
    """The coarse part of classes, x // by: of 16 bits by 256 the high byte. x: int(n)[...]. by: divides n."""
    from graphspec.ops.modules.digits import Quotient

    return Quotient(by)


@op(
    "x: int(n)[...] @ r -> int(by)[...] @ r where by >= 1, n % by == 0",
    time="pointwise()",
    example="x |> remainder(4)",
)
def remainder(x, *, by: int):
    """The fine part of classes, x % by: of 16 bits by 256 the low byte. x: int(n)[...]. by: divides n."""
    from graphspec.ops.modules.digits import Remainder

    return Remainder(by)


@op(
    "a: int(m)[...] @ r, b: int(n)[...] @ r -> int(m*n)[...] @ r",
    time="pointwise()",
    example="combine(a, b)",
)
def combine(a, b):
    """A coarse and a fine part as one class again, a * n + b. a: int(m)[...], b: int(n)[...] of the same axes."""
    from graphspec.ops.modules.digits import Combine

    return Combine(b.dtype.classes)
