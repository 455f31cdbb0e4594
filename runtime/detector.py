"""Does a generated sample sound like the corpus at all? Loudness and spectral flatness against reference crops.

A cheap gate, not a judge of music: it refuses what a broken model or sampler makes (silence, a constant, hiss, clipped
noise, NaN). Compare like with like: take the reference crops at the sample's length and through the same quantiser,
whose noise floor is part of the flatness. Flatness is the Wiener entropy: geometric over arithmetic mean of the power
spectrum, near 0 for tones and 0.56 in expectation for white noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

FRAME_SECONDS = 0.064
SILENT_RMS = 1e-4  # -80 dB of full scale: quieter frames are silence
ACTIVE_BELOW_LOUDEST = 0.03  # -30 dB: frames fainter than this against the loudest one are pauses
POWER_FLOOR = 1e-10  # of a frame's mean power: keeps the logarithm finite for synthetic sounds


@dataclass(frozen=True)
class Sound:
    """`rms` of the whole crop (full scale 1); `flatness` in 0..1 averaged over its active frames, 0 if none is."""

    rms: float
    flatness: float


@dataclass(frozen=True)
class Verdict:
    """`ok`, and `reason`: what was out of range, or the empty string."""

    ok: bool
    reason: str


def describe(x: ArrayLike, rate: int) -> Sound:
    """RMS and spectral flatness of `x` `[frames]` at `rate` Hz.

    Silence and a constant have flatness 0 by definition (no frame of theirs is active); NaN or infinity make both NaN.
    Raises ValueError for another shape or no frames.
    """
    samples = np.asarray(x, np.float64)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"x has shape {samples.shape}; it is [frames], at least one")
    if not np.isfinite(samples).all():
        return Sound(math.nan, math.nan)
    size = 1 << max(4, round(math.log2(FRAME_SECONDS * rate)))
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 2]
    frames = frames - frames.mean(axis=1, keepdims=True)  # a constant is no sound
    loudness = np.sqrt((frames**2).mean(axis=1))
    active = loudness > max(SILENT_RMS, ACTIVE_BELOW_LOUDEST * loudness.max())
    rms = float(np.sqrt(np.mean(np.asarray(x, np.float64) ** 2)))
    if not active.any():
        return Sound(rms, 0.0)
    power = np.abs(np.fft.rfft(frames[active] * np.hanning(size), axis=1)[:, 1:]) ** 2  # bin 0: the mean, removed
    arithmetic = power.mean(axis=1, keepdims=True)
    log_geometric = np.log(np.maximum(power / arithmetic, POWER_FLOOR)).mean(axis=1)
    return Sound(rms, float(np.exp(log_geometric).mean()))


def accept(sample: Sound, references: Sequence[Sound], slack: float = 2.0) -> Verdict:
    """Whether `sample` lies within the range of the `references` in both measures, widened by `slack`.

    `slack` is a factor of amplitude (2 is 6 dB) on both ends: rms from min/slack to max*slack; flatness, a ratio of
    powers, from min/slack**2 to max*slack**2. Silent references count for nothing. Raises ValueError without a
    reference that sounds, or for slack < 1.
    """
    sounding = [r for r in references if r.rms > SILENT_RMS and r.flatness > 0]
    if not sounding:
        raise ValueError("no reference crop holds sound")
    if not slack >= 1:
        raise ValueError(f"slack is {slack}; it is a factor of 1 or more")
    if not (math.isfinite(sample.rms) and math.isfinite(sample.flatness)):
        return Verdict(False, "the sample holds NaN or infinity")
    for name, factor in (("rms", slack), ("flatness", slack**2)):
        value, known = getattr(sample, name), [getattr(r, name) for r in sounding]
        low, high = min(known) / factor, max(known) * factor
        if not low <= value <= high:
            return Verdict(False, f"{name} {value:.3g} is outside {low:.3g}..{high:.3g}")
    return Verdict(True, "")
