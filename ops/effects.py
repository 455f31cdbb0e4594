"""Effects on signals and controls: rooms, fixed filters, delays that move."""

import math
from typing import Literal

from graphspec.declare import op


@op(
    "x: float[T, c] @ r -> float[T, c] @ r where length >= 2",
    time="window(past=length - 1)",
    weights={"ir": ""},
    precision="f32",
    example="x |> reverb(6)",
)
def reverb(x, *, length: int):
    """A learned room: x and its convolution with an impulse response that training finds (Engel et al. 2020).

    x: float[T, c] @ r -> the same, x itself ("dry") and what comes back later. length: ticks of the response; tick 0 is
    held at 0, so that the room does not change how loud the dry sound is. One room for all examples, a response for
    each channel. Long ones run by the Fourier transform: a value that is not a number then spoils all of its example.
    Weight `ir` [length, c], normal with standard deviation 1e-6.
    """
    from graphspec.ops.modules.effects import Reverb

    return Reverb(x.channels, length)


@op(
    "x: float[T, ...] @ r -> float[T, ...] @ r where len(taps) >= 1, not centre or len(taps) % 2 == 1",
    time="window(past=len(taps)//2, future=len(taps)//2) if centre else window(past=len(taps) - 1)",
    example="x |> fir([0.5, 0.3, 0.2])",
)
def fir(x, *, taps: list, centre: bool = False):
    """A fixed filter of every channel: y_t = taps[0] x_t + taps[1] x_{t-1} + ..., zeros before the start.

    x: float[T, ...] -> the same. taps: numbers, the nearest tick first.
    centre: the middle one, of an odd number, stands at the tick itself, so that half of them look ahead (the first is
    the farthest); beyond either end x is held. It then streams so much later.
    """
    from graphspec.ops.modules.effects import FIR, CentredFIR

    return CentredFIR(x, taps) if centre else FIR(x, taps)


@op(
    "x: float[T, ...] @ r, cutoff: float[...] -> float[join(x, cutoff)] where q > 0",
    time="recurrent()",
    precision="f32",
    example="biquad(x, 20)",
)
def biquad(
    x,
    cutoff,
    *,
    mode: Literal["low", "high", "band", "notch", "all"] = "low",
    q: float = math.sqrt(0.5),
):
    """A resonant filter of second order, bilinear, from rest (R. Bristow-Johnson's audio EQ formulas).

    x: float[T, ...] @ r. cutoff: Hz, a number, static or timed, so that it can be learned or move; it joins x. From
    0.499 r on it stays there. q: its resonance; the default rises nowhere (Butterworth).
    mode: what passes: `low` or `high` frequencies, a `band` of peak 1, all but a `notch`, or `all`, with their phase
    turned. The loop y: b0*x + b1*x[t-1] + b2*x[t-2] - a1*y[t-1] - a2*y[t-2] is the same, and runs the same way.
    """
    from graphspec.ops.modules.effects import Biquad

    return Biquad(x, cutoff, mode, q)


@op(
    "x: float[T, c] @ r, by: float[T, 1] @ r -> float[T, c] @ r where longest >= 1",
    time={"x": "window(past=longest)", "by": "pointwise()"},
    precision="f32",
    example="mod_delay(x, 3*by + 3, longest=8)",
)
def mod_delay(x, by, *, longest: int):
    """A delay that moves: y_t is x as it was `by` ticks ago, straight between ticks; vibrato, chorus, flanger.

    x: float[T, c] @ r, zeros before the start. by: float[T, 1] @ r, ticks, held between 0 and `longest`, which is how
    much of x is remembered. Differentiable in both.
    """
    from graphspec.ops.modules.effects import ModDelay

    return ModDelay(x.channels, longest)
