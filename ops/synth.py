"""Sound from controls (DDSP, Engel et al. 2020): harmonic oscillators, filtered noise, and what feeds them.

A frame of controls belongs to the `hop` samples from its own on: frame k sits at sample k*hop.
"""

import math
from typing import Literal

from graphspec.declare import op

_AHEAD = "window(past=0, future=1, stride=1/hop)"
_LOUD = f"window(past=0, future=0, stride=1/hop) if method == 'hold' else {_AHEAD}"


@op(
    "x: float[...] @ r -> float[...] @ r where exponent > 1, max > 0",
    time="pointwise()",
    precision="f32",
    number=lambda x, exponent=10.0, max=2.0, threshold=1e-7: (
        max * (0.5 + 0.5 * math.tanh(0.5 * x)) ** math.log(exponent) + threshold
    ),
    example="x |> exp_sigmoid",
)
def exp_sigmoid(x, *, exponent: float = 10.0, max: float = 2.0, threshold: float = 1e-7):
    """A sigmoid for amplitudes, max * sigmoid(x)^ln(exponent) + threshold (Engel et al. 2020).

    x: float[...] -> float[...], from threshold to max + threshold. Far to the left it falls by the factor `exponent`
    with every unit of x. Computed by the sigmoid's logarithm, so that it keeps its gradient in float32.
    """
    from graphspec.ops.modules.synth import ExpSigmoid

    return ExpSigmoid(exponent, max, threshold)


@op(
    "x: float[T, c] @ r, f0: float[T, 1] @ r -> float[T, c] @ r where hop >= 1",
    time="pointwise()",
    precision="f32",
    example="harmonic_shape(x, 60*f0, hop=4)",
)
def harmonic_shape(x, f0, *, hop: int):
    """How loud each harmonic is: 0 from half the sample rate on, the others divided by their sum (Engel et al. 2020).

    x: float[T, K] @ r, not negative (`exp_sigmoid` of logits). f0: float[T, 1] @ r, Hz -> float[T, K] @ r, harmonic k
    (from 1) at k*f0. One exactly at half the rate is silent, too. Where all are, they are 0, without a gradient.
    hop: samples per frame, so that the sample rate is r*hop, as in `harmonic`.
    """
    from graphspec.ops.modules.synth import HarmonicShape

    return HarmonicShape(f0, hop)


@op(
    "f0: float[T, 1] @ r, amp: float[T, 1] @ r, shape: float[T, c] @ r -> float[T*hop, 1] @ r*hop where hop >= 1",
    time={
        "f0": "recurrent(future=1, stride=1/hop) if pitch == 'linear' else recurrent(stride=1/hop)",
        "amp": _LOUD,
        "shape": _LOUD,
    },
    precision="f32",
    example="harmonic(60*f0, amp, shape, hop=4)",
)
def harmonic(
    f0,
    amp,
    shape,
    *,
    hop: int,
    method: Literal["window", "linear", "hold"] = "window",
    pitch: Literal["linear", "hold"] = "linear",
):
    """Harmonic oscillators: the sum over k of amp * shape_k * sin(2 pi k phase), the phase being the sum of f0.

    The additive synthesizer of DDSP (Engel et al. 2020). f0: float[T, 1] @ r, Hz. amp: float[T, 1] @ r.
    shape: float[T, K] @ r -> float[T*hop, 1] @ r*hop. Frame k of the controls is at sample k*hop, the last is held.
    Sample 0 has one increment already, f0/rate cycles. A harmonic at or above half the rate r*hop is silent, sample by
    sample.
    hop: samples per frame. method: how amplitudes go to the next frame's, as in `upsample`: `window` along half a
    cosine, `linear`, or `hold`. pitch: f0 goes straight to the next frame's (`linear`) or `hold`s.
    What does not hold looks one frame ahead, and streams so much later. The phase is one number a frame, wrapped, so
    that it is the same in pieces of any length, and after hours. A frame whose f0 is not a number spoils its own
    samples and those between it and its neighbours; the phase goes on behind it.
    """
    from graphspec.ops.modules.synth import Harmonic

    return Harmonic(f0, hop, method, pitch)


_HEARD = "past=(m + hop - 1)//hop, future=(hop - 1 + m - 3)//hop"  # L = 2 (m - 1) taps, cut at m - 3
_FRAMES = (
    f"window({_HEARD}, stride=1/hop) if framing == 'same' else window(past=(2*m - 3 + hop - 1)//hop, stride=1/hop)"
)


@op(
    "mags: float[T, m] @ r -> float[T*hop, 1] @ r*hop where hop >= 1, m >= 3",
    time=_FRAMES,
    noise="uniform[T*hop, 1] @ r*hop",
    precision="f32",
    example="filtered_noise(mags, hop=4)",
)
def filtered_noise(mags, *, hop: int, framing: Literal["same", "causal"] = "same"):
    """White noise by a filter for every frame, given as magnitudes over frequency (Engel et al. 2020).

    mags: float[T, M] @ r, at frequencies evenly from 0 to half the sample rate -> float[T*hop, 1] @ r*hop. The noise is
    uniform in (-1, 1), new for every example. The filters are zero-phase responses of L = 2*(M - 1) taps under a Hann
    window; their tails are kept. hop: samples per frame.
    framing: `same` looks L/2 - 2 samples ahead and is 2 samples late; `causal` looks at no frame ahead and is L/2 late.
    """
    from graphspec.ops.modules.frame_filter import FilteredNoise

    return FilteredNoise(mags.channels, hop, framing)


@op(
    "x: float[T, 1] @ r, mags: float[T/hop, m] @ q -> float[T, 1] @ r where hop >= 1, m >= 3",
    time={
        # By whole frames: what is not a number in one is nowhere else.
        "x": "window(past=(m + hop - 1)//hop*hop, future=(hop - 1 + m - 3)//hop*hop, group=hop) if framing == 'same'"
        " else window(past=(2*m - 3 + hop - 1)//hop*hop, group=hop)",
        "mags": _FRAMES,
    },
    precision="f32",
    example="filter_frames(x, mags |> downsample(4), hop=4)",
)
def filter_frames(x, mags, *, hop: int, framing: Literal["same", "causal"] = "same"):
    """A signal by a filter for every frame, given as magnitudes over frequency, as in `filtered_noise`.

    x: float[T, 1] @ r. mags: float[T/hop, M] @ r/hop, at frequencies evenly from 0 to half the rate -> float[T, 1] @ r.
    hop: samples per frame. framing: `same` is 2 samples late, `causal` M - 1.
    """
    from graphspec.ops.modules.frame_filter import FrameFilter

    if mags.rate is None or mags.rate * hop != x.rate:
        raise ValueError(f"filter_frames: a frame is {hop} samples, but x is {x} and mags {mags}")
    return FrameFilter(mags.channels, hop, framing)
