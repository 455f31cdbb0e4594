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
    "b: float[T, ...] @ r -> float[T, ...] @ r",
    time="recurrent()",
    spelled="c1*y[t-1] + c2*y[t-2] + b",
    example="companion_scan(x, gains=[1.2, -0.5])",
)
def companion_scan(b, *, gains: list):
    """The recurrence y_t = g_1 * y_{t-1} + g_2 * y_{t-2} + ... + b_t from 0, as a blocked scan of companion matrices.

    b: float[T, ...]. gains: up to 4 numbers, nearest tick first. Loops through x[t-2] and the like take gains of any
    kind, `y: g1 * y[t-1] + g2 * y[t-2] + b`, and run the same way.
    """
    from graphspec.ops.modules.recurrence import CompanionScan

    return CompanionScan(b, gains)
