"""Short-time spectra of one channel, as features and for losses: STFT, magnitude, log mel bands, MFCC.

A frame is n_fft samples under a periodic Hann window, zeros where it reaches beyond the ends; a frame comes every hop
samples. Where it lies is its framing: `same` centres frame k on sample k*hop (a look-ahead of n_fft/2 - 1 samples, by
which it streams later), `causal` ends it with its own hop, at sample (k+1)*hop - 1.
"""

from typing import Literal

from graphspec.declare import op

# A hop of 0 is a quarter of the window. The window is 0 at its first sample, which therefore is not read.
_HOP = "(hop if hop > 0 else n_fft//4)"
_TIME = (
    f'window(past=n_fft//2 - 1, future=n_fft//2 - 1, stride={_HOP}) if framing == "same" '
    f"else window(past=n_fft - {_HOP} - 1, future={_HOP} - 1, stride={_HOP})"
)
_FRAMES = "n_fft % 2 == 0, n_fft >= 4, hop >= 0, hop <= n_fft"
_BANDS = (
    "mels >= 1, eps > 0, fmin >= 0, fmax == none or fmax > fmin, fmax == none or fmax <= r/2, power == 1 or power == 2"
)


@op(
    f"x: float[T, 1] @ r -> float[T/{_HOP}, n_fft/2 + 1, 2] @ r/{_HOP} where {_FRAMES}",
    time=_TIME,
    precision="f32",
    example="x |> stft(8, hop=4)",
)
def stft(x, *, n_fft: int, hop: int = 0, framing: Literal["same", "causal"] = "same"):
    """The short-time Fourier transform, real and imaginary part as two channels (Allen & Rabiner 1977).

    x: float[T, 1] @ r -> float[T/hop, n_fft/2 + 1, 2] @ r/hop, bins from 0 to r/2; sums, not divided by anything.
    n_fft: samples of a frame, even. hop: samples from frame to frame, 0 for n_fft//4. framing: `same` or `causal`.
    """
    from graphspec.ops.modules.spectral import STFT

    return STFT(n_fft, hop, framing)


@op(
    f"x: float[T, 1] @ r -> float[T/{_HOP}, n_fft/2 + 1] @ r/{_HOP} where {_FRAMES}, power == 1 or power == 2",
    time=_TIME,
    precision="f32",
    example="x |> spectrogram(8, hop=4)",
)
def spectrogram(x, *, n_fft: int, hop: int = 0, power: int = 1, framing: Literal["same", "causal"] = "same"):
    """The magnitude of the short-time Fourier transform, or its square.

    x: float[T, 1] @ r -> float[T/hop, n_fft/2 + 1] @ r/hop, bins from 0 to r/2. The magnitude's gradient at 0 is 0.
    n_fft: samples of a frame, even. hop: samples from frame to frame, 0 for n_fft//4. power: 1 for the magnitude, 2 for
    its square. framing: `same` or `causal`.
    """
    from graphspec.ops.modules.spectral import Spectrogram

    return Spectrogram(n_fft, hop, power, framing)


@op(
    f"x: float[T, 1] @ r -> float[T/{_HOP}, mels] @ r/{_HOP} where {_FRAMES}, {_BANDS}",
    time=_TIME,
    precision="f32",
    example="x |> log_mel(8, hop=4, mels=3)",
)
def log_mel(
    x,
    *,
    n_fft: int,
    hop: int = 0,
    mels: int = 80,
    fmin: float = 0.0,
    fmax: float | None = None,
    eps: float = 1e-5,
    power: int = 1,
    mel_scale: Literal["htk", "slaney"] = "htk",
    norm: Literal["peak", "area"] = "peak",
    framing: Literal["same", "causal"] = "same",
):
    """The natural logarithm of mel bands: triangular filters over the spectrogram (Davis & Mermelstein 1980).

    x: float[T, 1] @ r -> float[T/hop, mels] @ r/hop. Below eps a band is log(eps), without a gradient; a filter
    narrower than a bin may be empty, and stays there.
    n_fft: samples of a frame, even. hop: samples from frame to frame, 0 for n_fft//4. mels: bands. fmin, fmax: their
    range in Hz, none for r/2. power: of the spectrogram, 1 or 2. mel_scale: `htk`, or `slaney` (linear below 1 kHz).
    norm: filters of `peak` 1, or of `area` 1 (Slaney 1998). framing: `same` or `causal`.
    """
    from graphspec.ops.modules.spectral import LogMel

    return LogMel(x, n_fft, hop, mels, fmin, fmax, eps, power, mel_scale, norm, framing)


@op(
    f"x: float[T, 1] @ r -> float[T/{_HOP}, coefficients] @ r/{_HOP} "
    f"where {_FRAMES}, {_BANDS}, coefficients >= 1, coefficients <= mels",
    time=_TIME,
    precision="f32",
    example="x |> mfcc(2, n_fft=8, hop=4, mels=3)",
)
def mfcc(
    x,
    *,
    coefficients: int,
    n_fft: int,
    hop: int = 0,
    mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
    eps: float = 1e-5,
    power: int = 1,
    mel_scale: Literal["htk", "slaney"] = "htk",
    norm: Literal["peak", "area"] = "peak",
    framing: Literal["same", "causal"] = "same",
):
    """Mel-frequency cepstral coefficients: the orthonormal DCT-II of `log_mel` (Davis & Mermelstein 1980).

    x: float[T, 1] @ r -> float[T/hop, coefficients] @ r/hop, the first of mels.
    coefficients: how many, the mean level first. n_fft, hop, mels, fmin, fmax, eps, power, mel_scale, norm, framing: as
    in `log_mel`.
    """
    from graphspec.ops.modules.spectral import MFCC

    return MFCC(
        x, coefficients, n_fft, hop, mels, fmin=fmin, fmax=fmax, eps=eps, power=power,
        mel_scale=mel_scale, norm=norm, framing=framing,
    )  # fmt: skip
