"""Arithmetic, comparison, choice and pointwise functions: every element on its own, at its own tick.

Two operands join (LANGUAGE 6): numbers and static `[]` join all, a static vector `[c]` the channels, another static
value the axes after time; else the ranks are equal and each axis is equal, or 1 on one side.
"""

import math
import operator

from graphspec.declare import op

# ---- arithmetic --------------------------------------------------------------------------------------------------


@op(
    "a: any[...], b: any[...] -> join(a, b)",
    time="pointwise()",
    spelled="a + b",
    affine_in="a, b",
    number=operator.add,
    example="a + b",
)
def add(a, b):
    """The sum, element by element. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("add", a, b)


@op(
    "a: any[...], b: any[...] -> join(a, b)",
    time="pointwise()",
    spelled="a - b",
    affine_in="a, b",
    number=operator.sub,
    example="a - b",
)
def sub(a, b):
    """The difference, element by element. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("sub", a, b)


@op(
    "a: any[...], b: any[...] -> join(a, b)",
    time="pointwise()",
    spelled="a * b",
    affine_in="a | b",
    number=operator.mul,
    example="a * b",
)
def mul(a, b):
    """The product, element by element. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("mul", a, b)


@op(
    "a: any[...], b: any[...] -> float[join(a, b)]",
    time="pointwise()",
    spelled="a / b",
    affine_in="a",
    number=operator.truediv,
    example="a / b",
)
def div(a, b):
    """The quotient, element by element; float even of integers. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("div", a, b)


@op(
    "a: any[...], b: any[...] -> float[join(a, b)]",
    time="pointwise()",
    spelled="a ** b",
    number=operator.pow,
    example="a ** 2",
)
def pow_(a, b):
    """The power a ** b, element by element; float even of integers.

    a, b: any shapes that join. A negative base to a broken power is NaN.
    """
    from graphspec.ops.modules.elementwise import Binary

    return Binary("pow", a, b)


@op(
    "a: float[...] @ r -> float[...] @ r",
    time="pointwise()",
    spelled="-a",
    affine_in="a",
    number=operator.neg,
    example="-a",
)
def neg(a):
    """The negative of each element. a: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("neg")


@op(
    "a: any[...], b: any[...] -> join(a, b)",
    time="pointwise()",
    number=min,
    example="minimum(a, b)",
)
def minimum(a, b):
    """The smaller of two values, element by element. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("minimum", a, b)


@op(
    "a: any[...], b: any[...] -> join(a, b)",
    time="pointwise()",
    number=max,
    example="maximum(a, b)",
)
def maximum(a, b):
    """The larger of two values, element by element. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("maximum", a, b)


# ---- comparison and choice ---------------------------------------------------------------------------------------


@op(
    "a: any[...], b: any[...] -> bool[join(a, b)]",
    time="pointwise()",
    spelled="a == b",
    number=operator.eq,
    example="a == b",
)
def equal(a, b):
    """Where two values are equal. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("equal", a, b)


@op(
    "a: any[...], b: any[...] -> bool[join(a, b)]",
    time="pointwise()",
    spelled="a != b",
    number=operator.ne,
    example="a != b",
)
def not_equal(a, b):
    """Where two values differ. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("not_equal", a, b)


@op(
    "a: any[...], b: any[...] -> bool[join(a, b)]",
    time="pointwise()",
    spelled="a < b",
    number=operator.lt,
    example="a < b",
)
def less(a, b):
    """Where a is below b. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("less", a, b)


@op(
    "a: any[...], b: any[...] -> bool[join(a, b)]",
    time="pointwise()",
    spelled="a <= b",
    number=operator.le,
    example="a <= b",
)
def less_equal(a, b):
    """Where a is at most b. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("less_equal", a, b)


@op(
    "a: any[...], b: any[...] -> bool[join(a, b)]",
    time="pointwise()",
    spelled="a > b",
    number=operator.gt,
    example="a > b",
)
def greater(a, b):
    """Where a is above b. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("greater", a, b)


@op(
    "a: any[...], b: any[...] -> bool[join(a, b)]",
    time="pointwise()",
    spelled="a >= b",
    number=operator.ge,
    example="a >= b",
)
def greater_equal(a, b):
    """Where a is at least b. a, b: any shapes that join."""
    from graphspec.ops.modules.elementwise import Binary

    return Binary("greater_equal", a, b)


@op(
    "mask: bool[...], a: any[...], b: any[...] -> join(a, b, mask)",
    time="pointwise()",
    affine_in="a, b",
    example="where(a > 0, a, 0)",
)
def where(mask, a, b):
    """Element by element a where mask holds, else b: the choice at run time (`if` chooses at compile time).

    mask: bool, a, b: any; all three join.
    """
    from graphspec.ops.modules.elementwise import Where

    return Where(mask, a, b)


# ---- functions ---------------------------------------------------------------------------------------------------


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=math.exp, example="exp(x)")
def exp(x):
    """The exponential of each element. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("exp")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=math.log, example="log(x)")
def log(x):
    """The natural logarithm of each element: -inf at 0, NaN below. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("log")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=math.sqrt, example="sqrt(x)")
def sqrt(x):
    """The square root of each element: NaN below 0, and an infinite gradient at 0. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("sqrt")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=abs, example="abs(x)")
def abs_(x):
    """The magnitude of each element; its gradient at 0 is 0. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("abs")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=lambda x: x * x, example="square(x)")
def square(x):
    """The square of each element. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("square")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=math.sin, example="sin(x)")
def sin(x):
    """The sine of each element, in radians. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("sin")


@op("x: float[...] @ r -> float[...] @ r", time="pointwise()", number=math.cos, example="cos(x)")
def cos(x):
    """The cosine of each element, in radians. x: float[...]."""
    from graphspec.ops.modules.elementwise import Unary

    return Unary("cos")


@op(
    "x: float[...] @ r -> float[...] @ r where low == none or high == none or low <= high",
    time="pointwise()",
    example="x |> clamp(low=-1, high=1)",
)
def clamp(x, *, low: float | None = None, high: float | None = None):
    """Each element held between low and high; the gradient outside is 0.

    x: float[...]. low, high: bounds, none for no bound.
    """
    from graphspec.ops.modules.elementwise import Unary

    return Unary("clamp", min=low, max=high)
