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
    "a: float[...], b: float[T, ...] @ r -> float[join(a, b)]",
    time="recurrent()",
    spelled="a*y[t-1] + (1 - a)*b",
    example="smoothing_scan(0.9, x)",
)
def smoothing_scan(a, b):
    """Exponential smoothing y_t = a_t * y_{t-1} + (1 - a_t) * b_t from 0, element by element, as a blocked scan.

    a: what is kept, a number, static or timed, in [0, 1] to be stable; b: float[T, ...]; they join. The loop
    `y: a * y[t-1] + (1 - a) * b` is the same, and so is `(1 - w) * y[t-1] + w * b` with a = 1 - w.
    """
    from graphspec.ops.modules.smoothing import SmoothingScan

    return SmoothingScan(a, b)


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


@op(
    "x: any[T, ...] @ r, first: any[...] -> any[join(x, first)]",
    time="pointwise()",
    spelled="init: first",
    rearranges=True,
    affine_in="x, first",
    example="begin(x, 0.5)",
)
def begin(x, first):
    """x, but at the very first tick `first`: how a cell with `init: first(expr)` is read.

    x: any[T, ...]; first: a number, static or timed; they join. Later ticks of `first` are not looked at.
    """
    from graphspec.ops.modules.cells import Begin

    return Begin(x, first)


@op(
    "x: float[T, ...] @ r -> float[join(x)] where every > 0",
    time="pointwise()",
    spelled="detach_every: n",
    affine_in="x",
    example="detach_every(x, 5)",
)
def detach_every(x, *, every: int):
    """x itself; no gradient goes back through it at ticks `every`, 2 * `every`, ... of the sequence.

    On what comes back in a loop, as `detach_every` of a cell, this is backpropagation through time cut into pieces
    (Williams and Peng 1990). x: float[T, ...]. every: ticks.
    """
    from graphspec.ops.modules.cells import DetachEvery

    return DetachEvery(every)
