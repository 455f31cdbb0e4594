"""Another rate: controls raised to the rate of samples, signals thinned out, audio resampled."""

from typing import Literal

from graphspec.declare import op


@op(
    "x: float[T, ...] @ r -> float[T*factor, ...] @ r*factor where factor >= 1",
    time="unfold(factor) if method == 'hold' or factor == 1 else window(past=0, future=1, stride=1/factor)",
    example="x |> upsample(4)",
)
def upsample(x, *, factor: int, method: Literal["hold", "linear", "window"] = "hold"):
    """Controls at `factor` times their rate: tick j of x stands at tick j*factor of the result.

    x: float[T, ...] @ r -> float[T*factor, ...] @ r*factor. factor: result ticks per tick of x.
    method: `hold` repeats a tick. `linear` goes straight to the next one. `window` goes there along half a cosine,
    which is adding up Hann windows of 2*factor ticks at the ticks of x (DDSP, Engel et al. 2020, for amplitudes).
    The last tick is held. `linear` and `window` look one tick of x ahead, and stream so much later.
    """
    from graphspec.ops.modules.resample import Hold, Interpolate

    return Hold(factor) if method == "hold" or factor == 1 else Interpolate(factor, method == "window")


@op(
    "x: any[T, ...] @ r -> any[T/p, ...] @ r/p where p >= 1",
    time="window(past=0, stride=p)",
    rearranges=True,
    example="x |> downsample(4)",
)
def downsample(x, *, p: int):
    """Every p-th tick, from the first on, without a filter: what `upsample` put in comes out.

    x: any[T, ...] @ r -> any[T/p, ...] @ r/p. p: ticks of x per tick of the result.
    """
    from graphspec.ops.modules.resample import Downsample

    return Downsample(p)


@op(
    "x: float[T, ...] @ r -> float[T*up/down, ...] @ r*up/down where up >= 1, down >= 1, zeros >= 6",
    time="window(past=(zeros*down + up - 1)//up - 1 if down > up else zeros - 1,"
    " future=(zeros*down + up - 1)//up if down > up else zeros, stride=down/up)",
    precision="f32",
    example="x |> resample(up=2, down=3, zeros=8)",
)
def resample(x, *, up: int, down: int, zeros: int = 64):
    """A signal at up/down times its rate, band-limited: a windowed sinc, zeros outside (Smith and Gossett 1984).

    x: float[T, ...] @ r -> float[T*up/down, ...] @ r*up/down; tick k of the result stands at tick k*down/up of x.
    up, down: the ratio of the rates; 160 and 441 take 44.1 kHz to 16 kHz. zeros: zero crossings of the sinc on either
    side, under a Kaiser window of 90 dB. It passes up to 1 - 5.7/zeros of the lower rate's half and stops from there.
    It looks ahead as far as back, and streams so much later.
    """
    from graphspec.ops.modules.resample import Resample

    return Resample(up, down, zeros)
