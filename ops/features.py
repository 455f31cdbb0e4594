"""What a synthesizer is driven by, taken from audio: loudness, power, pitch and voicing, and pitch numbers.

A frame comes every hop samples, zeros where it reaches beyond the ends. Its framing says where frame k lies: `same`
around sample k*hop (it looks ahead half a frame, by which it streams later), `causal` ending with its own hop at sample
(k+1)*hop - 1, `ahead` beginning with sample k*hop.
"""

from typing import Literal

from graphspec.declare import op

# The window is 0 at its first sample, which therefore is not read.
_WINDOWED = (
    'window(past=n_fft//2 - 1, future=n_fft//2 - 1, stride=hop) if framing == "same" '
    'else window(past=n_fft - hop - 1, future=hop - 1, stride=hop) if framing == "causal" '
    "else window(past=-1, future=n_fft - 1, stride=hop)"
)
_PLAIN = (
    'window(past=size//2, future=size - size//2 - 1, stride=hop) if framing == "same" '
    'else window(past=size - hop, future=hop - 1, stride=hop) if framing == "causal" '
    "else window(past=0, future=size - 1, stride=hop)"
)
_TRACKED = (
    "hop >= 1, hop <= size, fmin > 0, fmin < fmax, fmax <= r/4, size >= 2*(ceil(r/fmin) + 1), "
    'tracker == "yin" or framing == "same"'
)
_TRACKER = f'everything() if tracker == "swift" else {_PLAIN}'


@op(
    "x: float[T, 1] @ r -> float[T/hop, 1] @ r/hop where n_fft % 2 == 0, n_fft >= 4, hop >= 1, hop <= n_fft",
    time=_WINDOWED,
    precision="f32",
    example="x |> loudness(4, n_fft=8)",
)
def loudness(
    x,
    *,
    hop: int,
    n_fft: int = 512,
    form: Literal["power_mean", "mean_db"] = "power_mean",
    framing: Literal["same", "causal", "ahead"] = "same",
    reference: float | None = None,
    floor: float | None = None,
):
    """The A-weighted loudness of each frame in dB, as it drives DDSP decoders (Engel et al. 2020).

    x: float[T, 1] @ r -> float[T/hop, 1] @ r/hop. Of |STFT|^2 under a periodic Hann window, not divided by anything: a
    loud tone is above 0 dB. Quieter than the floor it is the floor, without a gradient.
    hop: samples from frame to frame. n_fft: samples of a frame, even. form: `power_mean` is the dB of the weighted
    power's mean over the bins, of DDSP from 3.0 on; `mean_db` the mean of the bins' weighted dB, of the paper (there
    with n_fft=2048, framing=ahead), which empty bins pull down. framing: `same`, `causal` or `ahead`.
    reference: dB to subtract, none for 0 or, with mean_db, 20.7 (white noise of full scale is then near 0 dB).
    floor: dB, none for -80 or, with mean_db, -120 in each bin.
    """
    from graphspec.ops.modules.loudness import Loudness

    return Loudness(x, n_fft, hop, form, framing, reference, floor)


@op(
    "x: float[T, 1] @ r -> float[T/hop, 1] @ r/hop where hop >= 1, hop <= size",
    time=_PLAIN,
    precision="f32",
    example="x |> power(4, size=8)",
)
def power(
    x, *, hop: int, size: int = 1024, framing: Literal["same", "causal", "ahead"] = "causal", floor: float = -80.0
):
    """The mean square of each frame in dB: 0 dB is a square wave of full scale; cheap, and without a look-ahead.

    x: float[T, 1] @ r -> float[T/hop, 1] @ r/hop. Quieter than the floor it is the floor, without a gradient.
    hop: samples from frame to frame. size: samples of a frame. framing: `same`, `causal` or `ahead`. floor: dB.
    """
    from graphspec.ops.modules.loudness import Power

    return Power(size, hop, framing, floor)


@op(
    f"x: float[T, 1] @ r -> float[T/hop, 1] @ r/hop where {_TRACKED}, voiced >= 0, voiced <= 1",
    time=_TRACKER,
    precision="f32",
    example="x |> pitch(4, fmin=13, fmax=25, size=18)",
)
def pitch(
    x,
    *,
    hop: int,
    fmin: float = 50.0,
    fmax: float = 1000.0,
    size: int = 1024,
    threshold: float = 0.2,
    voiced: float = 0.5,
    silence: float = -60.0,
    framing: Literal["same", "causal", "ahead"] = "same",
    tracker: Literal["yin", "swift"] = "yin",
):
    """The fundamental frequency of each frame in Hz, 0 where it is not voiced: YIN (de Cheveigne & Kawahara 2002).

    x: float[T, 1] @ r -> float[T/hop, 1] @ r/hop, without a gradient. It is the pitch in the middle of the frame.
    hop: samples from frame to frame. fmin, fmax: Hz, at most r/4. size: samples of a frame, two periods of fmin at
    least: shorter ones follow quick notes, longer ones bear noise. threshold: the period is the first dip of the
    normalised difference that is at most so far above the lowest one; higher against octaves too low, lower against
    those too high. voiced: a frame of less `voicing` is 0. silence: and so is one below these dB of power.
    framing: `same`, `causal` or `ahead`. tracker: `yin`, or `swift` for the package swift-f0 (extra `f0`), a small
    network that reads whole recordings on the CPU; of the rest it takes hop, fmin, fmax and voiced.
    """
    if tracker == "swift":
        from graphspec.ops.modules.pitch_swift import Swift

        return Swift(x, hop, fmin=fmin, fmax=fmax, voiced=voiced)
    from graphspec.ops.modules.pitch import Yin

    return Yin(
        x, hop, fmin=fmin, fmax=fmax, size=size, threshold=threshold, voiced=voiced, silence=silence, framing=framing
    )


@op(
    f"x: float[T, 1] @ r -> float[T/hop, 1] @ r/hop where {_TRACKED}",
    time=_TRACKER,
    precision="f32",
    example="x |> voicing(4, fmin=13, fmax=25, size=18)",
)
def voicing(
    x,
    *,
    hop: int,
    fmin: float = 50.0,
    fmax: float = 1000.0,
    size: int = 1024,
    threshold: float = 0.2,
    silence: float = -60.0,
    framing: Literal["same", "causal", "ahead"] = "same",
    tracker: Literal["yin", "swift"] = "yin",
):
    """How periodic each frame is, 0 .. 1: the confidence of `pitch`, near 1 for a tone and near 0 for noise.

    x: float[T, 1] @ r -> float[T/hop, 1] @ r/hop, without a gradient; 0 in silence.
    hop, fmin, fmax, size, threshold, silence, framing, tracker: as in `pitch`.
    """
    if tracker == "swift":
        from graphspec.ops.modules.pitch_swift import Swift

        return Swift(x, hop, fmin=fmin, fmax=fmax, wanted="voicing")
    from graphspec.ops.modules.pitch import Yin

    return Yin(
        x, hop, fmin=fmin, fmax=fmax, size=size, threshold=threshold, silence=silence, framing=framing, wanted="voicing"
    )


@op("f: float[...] @ r -> float[...] @ r", time="pointwise()", precision="f32", example="hz_to_midi(f)")
def hz_to_midi(f):
    """Hz as MIDI pitch numbers, 69 + 12 log2(f/440): A4 is 69, a semitone is 1. Unvoiced, f <= 0, is 0.

    f: float[...], Hz -> the same. Where it is unvoiced it has no gradient.
    """
    from graphspec.ops.modules.midi import HzToMidi

    return HzToMidi()


@op("m: float[...] @ r -> float[...] @ r", time="pointwise()", precision="f32", example="midi_to_hz(m)")
def midi_to_hz(m, *, silence: bool = True):
    """MIDI pitch numbers as Hz, 440 * 2**((m - 69)/12): 69 is A4. 0 and less is unvoiced, 0 Hz.

    m: float[...] -> the same, Hz. silence: whether m <= 0 is unvoiced, as in `hz_to_midi`, or a tone of 8.2 Hz or less.
    """
    from graphspec.ops.modules.midi import MidiToHz

    return MidiToHz(silence)
