"""What is wrong with generated sound, and how far its spectra are from the recordings': no judge of music either.

Three detectors, each of a waveform by itself: silence, clipping, and runaway noise, the loud hiss that a sampler falls
into and does not leave. They rest on `detector.describe` (loudness and flatness); `detector.accept` compares with
recordings, which these do not need.

The log-mel-statistics Frechet distance is that of two normal distributions with the mean and covariance of log-mel
frames (Dowson and Landau 1982). It has the form of the FID and FAD, but the features of no trained network, so its
numbers compare with no published ones; compare them with that of recordings against other recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from graphspec.runtime.detector import FRAME_SECONDS, describe

FAULTS = ("silence", "clipping", "noise", "not finite")
SILENT = 2e-3  # -54 dB: nothing of it is louder, once a constant is taken away
FULL_SCALE = 0.99
CLIPPED_RUN = 3  # samples in a row at full scale: a peak has one or two
CLIPPED_SHARE = 1e-3
WINDOW_SECONDS = 0.5  # hiss in music and speech is shorter
NOISE_RMS = 0.1  # -20 dB
NOISE_FLATNESS = 0.3  # white noise has 0.56, its octaves, hiss and cymbals less
MELS = 64
FLOOR = 1e-8  # -80 dB of a full-scale sine


def faults(sound: NDArray[np.float32], rate: int) -> tuple[str, ...]:
    """Which of FAULTS a waveform `[frames, channels]` in -1..1 at `rate` Hz has.

    One channel that is clipped, or noise, is enough; silent are all.
    """
    if not np.isfinite(sound).all():
        return ("not finite",)
    channels = list(sound.T)
    found = {
        "silence": all(_silent(x, rate) for x in channels),
        "clipping": any(_clipped(x) for x in channels),
        "noise": any(_runaway(x, rate) for x in channels),
    }
    return tuple(name for name, held in found.items() if held)


def _silent(x: NDArray[np.float32], rate: int) -> bool:
    size = max(1, round(FRAME_SECONDS * rate))
    frames = [x[a : a + size] for a in range(0, len(x), size)]
    return all(float(np.std(f)) < SILENT for f in frames)


def _clipped(x: NDArray[np.float32]) -> bool:
    """Whether more than CLIPPED_SHARE of the samples lie in runs at one end of the scale."""
    total = 0
    for held in (x >= FULL_SCALE, x <= -FULL_SCALE):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], held.astype(np.int8), [0]])))
        runs = edges[1::2] - edges[::2]
        total += int(runs[runs >= CLIPPED_RUN].sum())
    return total > CLIPPED_SHARE * len(x)


def _runaway(x: NDArray[np.float32], rate: int) -> bool:
    size = min(len(x), round(WINDOW_SECONDS * rate))
    starts = range(0, len(x) - size + 1, max(1, size // 2))
    windows = (describe(x[a : a + size], rate) for a in starts)
    return any(w.rms > NOISE_RMS and w.flatness > NOISE_FLATNESS for w in windows)


# ---- statistics of log-mel frames ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectra:
    """Of log-mel frames, natural logarithms of power: how many, `mean` [n], `covariance` [n, n]; n is mels*channels."""

    frames: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def spectra(sounds: Sequence[NDArray[np.float32]], rate: int) -> Spectra:
    """The statistics of all frames of some waveforms `[frames, channels]`; those shorter than a frame are left out.

    A frame is 64 ms (a power of two of samples), Hann, half overlapping; 64 mel bands (htk) for each channel, side by
    side, so that what channels share counts. Raises ValueError where fewer than two frames are left.
    """
    import torch

    from graphspec.ops.modules.filterbanks import mel_filters

    size = 1 << max(4, round(np.log2(FRAME_SECONDS * rate)))
    window = np.hanning(size)
    filters = mel_filters(size // 2 + 1, MELS, Fraction(rate), 0.0, None, "htk", "area").double()
    filters = (filters / filters.sum(0).clamp(min=torch.finfo(torch.float64).tiny)).numpy()
    filters = filters[:, filters.any(0)]  # at low rates the lowest bands are narrower than a bin
    rows = []
    for sound in sounds:
        if len(sound) < size:
            continue
        frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), size, axis=0)[:: size // 2]
        power = (np.abs(np.fft.rfft(frames * window, axis=-1)) * (2 / window.sum())) ** 2
        rows.append(np.log(power @ filters + FLOOR).reshape(len(frames), -1))
    if not rows or sum(map(len, rows)) < 2:
        raise ValueError(f"fewer than two frames of {size} samples")
    each = np.concatenate(rows)
    return Spectra(len(each), each.mean(0), np.cov(each, rowvar=False).reshape(each.shape[1], -1))


def distance(a: Spectra, b: Spectra) -> float:
    """The Frechet distance |m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2), at least 0; 0 for equal statistics."""
    root = _root(a.covariance)
    # (A B)^1/2 has the trace of (A^1/2 B A^1/2)^1/2, which is symmetric.
    values = np.linalg.eigvalsh(root @ b.covariance @ root)
    cross = float(np.sqrt(np.maximum(values, 0)).sum())
    apart = float(((a.mean - b.mean) ** 2).sum())
    return max(0.0, apart + float(np.trace(a.covariance) + np.trace(b.covariance)) - 2 * cross)


def _root(symmetric: NDArray[np.float64]) -> NDArray[np.float64]:
    """The square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
