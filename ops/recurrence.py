"""Linear recurrences over time, solved in parallel: what affine feedback loops of a spec are lowered to."""

from graphspec.declare import op


@op(
    "a: float[...], b: float[T, ...] @ r -> float[join(a, b)]",
    time="recurrent()",
    spelled="a*y[t-1] + b",
    example="linear_scan(0.9, x)",
)
def linear_scan(a, b):
    """The recurrence y_t = a_t * y_{t-1} + b_t from 0, element by element, as a blocked scan (Martin and Cundy 2018).

    a: the gain, a number, static or timed; b: float[T, ...]; they join. The loop `y: a * y[t-1] + b` is the same.
    """
    from graphspec.ops.modules.recurrence import LinearScan

    return LinearScan(a, b)


@op(
    "b: float[T, ...] @ r, *c: float[...] -> float[T, ...] @ r",
    time="recurrent()",
    spelled="c1*y[t-1] + c2*y[t-2] + b",
    example="companion_scan(x, 1.2, -0.5)",
)
def companion_scan(b, *c):
    """The recurrence y_t = c_1 * y_{t-1} + c_2 * y_{t-2} + ... + b_t from 0, over up to 4 ticks, as a blocked scan.

    b: float[T, ...]. c: the gains, nearest tick first; numbers, static vectors, or values like b.
    """
    from graphspec.ops.modules.recurrence import CompanionScan

    return CompanionScan(b, *c)
