"""The embedded corpus: short synthetic tunes, so that a model can be trained and heard without any data on disk.

Each piece is a melody over a chord progression, played by a plucked string (even pieces; a bass note under each half
bar) or by a blown pipe (odd pieces; strictly one voice). Everything follows from (seed, piece index): a larger corpus
begins with the smaller one. The plucked tone is the modal solution of a lossy string plucked at a point (amplitudes
sin(pi k p)/k, decay rising with k squared); the blown tone is additive with vibrato and breath.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

PEAK = 0.7
SCALES = (  # semitones above the tonic
    (0, 2, 4, 5, 7, 9, 11),  # major
    (0, 2, 3, 5, 7, 8, 10),  # natural minor
    (0, 2, 3, 5, 7, 9, 10),  # dorian
    (0, 2, 4, 5, 7, 9, 10),  # mixolydian
)
PROGRESSIONS = ((0, 4, 0, 3), (0, 3, 4, 0), (0, 5, 3, 4))  # chord roots as scale degrees, one for each half bar
RHYTHMS = (  # durations in beats; each fills a half bar of two beats
    (1.0, 1.0),
    (0.5, 0.5, 1.0),
    (1.0, 0.5, 0.5),
    (0.5, 0.5, 0.5, 0.5),
    (1.5, 0.5),
    (0.75, 0.25, 0.5, 0.5),
)
HALF_BAR = 2.0  # beats
STEPS = (-3, -2, -1, 0, 1, 2, 3)  # melodic intervals in scale degrees, small ones likelier
STEP_WEIGHTS = (0.04, 0.12, 0.3, 0.08, 0.3, 0.12, 0.04)


@dataclass(frozen=True)
class Note:
    """`start` and `length` in seconds, `pitch` in Hz, `strength` in 0..1."""

    start: float
    length: float
    pitch: float
    strength: float


def pieces(rate: int = 16000, count: int = 12, seconds: float = 6.0, seed: int = 0) -> list[NDArray[np.float32]]:
    """`count` tunes as float32 `[frames, 1]`, each round(seconds * rate) frames at `rate` Hz, peak about 0.7.

    Even pieces are plucked, odd ones blown. Raises ValueError for sizes that hold no music.
    """
    if not (rate >= 4000 and count >= 1 and 0.5 <= seconds <= 600):
        raise ValueError(f"{rate=} (4000 or more), {count=} (1 or more), {seconds=} (0.5..600)")
    return [_piece(rate, seconds, seed, index) for index in range(count)]


def _piece(rate: int, seconds: float, seed: int, index: int) -> NDArray[np.float32]:
    rng = Generator(PCG64(SeedSequence([seed, index])))
    frames = round(seconds * rate)
    plucked = index % 2 == 0
    tune, bass = _compose(rng, seconds, lowest=52 if plucked else 64)
    sound = _plucked(rng, tune + bass, frames, rate) if plucked else _blown(rng, tune, frames, rate)
    fade = min(frames, round(0.03 * rate))
    sound[frames - fade :] *= np.linspace(1.0, 0.0, fade)
    sound *= PEAK * rng.uniform(0.93, 1.07) / np.abs(sound).max()
    return sound.astype(np.float32)[:, None]


def _compose(rng: Generator, seconds: float, lowest: int) -> tuple[list[Note], list[Note]]:
    """A tune and its bass. Half bars repeat in the form a b a c: a tune is what comes back."""
    scale = SCALES[rng.integers(len(SCALES))]
    tonic = lowest + int(rng.integers(0, 8))  # MIDI number
    beat = 60.0 / rng.uniform(96, 152)
    progression = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    lead_in = rng.uniform(0.03, 0.12)
    half_bars = max(1, int((seconds - lead_in) / (HALF_BAR * beat)))
    motifs: dict[tuple[int, int], list[tuple[float, int]]] = {}
    tune: list[Note] = []
    bass: list[Note] = []
    degree = int(rng.choice((0, 2, 4)))
    for bar in range(half_bars):
        root = progression[bar % 4] if bar < half_bars - 1 else 0
        form = (bar % 4 if bar % 4 != 2 else 0, root)
        if bar == half_bars - 1:
            motif = [(1.0, _chord_tone(degree, 0)), (1.0, 0)]  # come home
        elif form in motifs:
            motif = motifs[form]
        else:
            motif = motifs[form] = _motif(rng, degree, root)
        degree = motif[-1][1]
        at = lead_in + bar * HALF_BAR * beat
        bass.append(Note(at, HALF_BAR * beat, _hertz(tonic - 12, scale, root), 0.5))
        breathes = bar % 4 == 3  # the phrase ends: its last note is cut short and silence follows
        for place, (beats, d) in enumerate(motif):
            last = place == len(motif) - 1
            held = beats * beat * (0.55 if breathes and last and beats >= 0.5 else 0.95)
            strength = float(rng.uniform(0.75, 1.0)) * (1.0 if place == 0 else 0.85)
            tune.append(Note(at, held, _hertz(tonic, scale, d), strength))
            at += beats * beat
    return tune, bass


def _motif(rng: Generator, degree: int, root: int) -> list[tuple[float, int]]:
    """A half bar as (beats, scale degree): starts on the chord, then walks."""
    rhythm = RHYTHMS[rng.integers(len(RHYTHMS))]
    walk = [_chord_tone(degree, root)]
    for step in rng.choice(STEPS, size=len(rhythm) - 1, p=STEP_WEIGHTS):
        ahead = walk[-1] + int(step)
        walk.append(ahead if -2 <= ahead <= 9 else walk[-1] - int(step))
    return list(zip(rhythm, walk, strict=True))


def _chord_tone(degree: int, root: int) -> int:
    """The nearest degree to `degree` in the triad on `root`, in any octave."""
    tones = [root + third + octave for third in (0, 2, 4) for octave in (-7, 0, 7)]
    return min((t for t in tones if -2 <= t <= 9), key=lambda t: (abs(t - degree), t))


def _hertz(tonic: int, scale: tuple[int, ...], degree: int) -> float:
    octave, place = divmod(degree, len(scale))
    return 440.0 * 2.0 ** ((tonic + 12 * octave + scale[place] - 69) / 12)


def _plucked(rng: Generator, notes: list[Note], frames: int, rate: int) -> NDArray[np.float64]:
    """Decaying strings; a note rings on under the next for a while, as an undamped string does."""
    out = np.zeros(frames)
    point = rng.uniform(0.12, 0.3)  # where along the string
    ring = rng.uniform(0.5, 0.9)  # seconds to 1/e of a 200 Hz fundamental
    stiffness = rng.uniform(0.5, 3.0) * 1e-4
    for note in notes:
        first = round(note.start * rate)
        n = min(frames - first, round((note.length + 0.25) * rate))
        if n <= 0:
            continue
        k = np.arange(1, min(16, int(0.45 * rate / note.pitch)) + 1)[:, None]
        t = (np.arange(n) / rate)[None, :]
        pitch = k * note.pitch * np.sqrt(1 + stiffness * k**2)
        decay = (1 + 0.05 * k**2) / (ring * np.sqrt(200.0 / note.pitch))
        level = np.sin(np.pi * k * point) / k
        phase = rng.uniform(-0.3, 0.3, k.shape)
        angle = (2 * np.pi * pitch * t + phase).astype(np.float32)
        tone = (level * np.exp(-decay * t) * np.sin(angle)).sum(axis=0)
        finger = min(n, round(0.012 * rate))  # the pluck itself: a short burst of noise
        tone[:finger] += 0.12 * rng.standard_normal(finger) * np.exp(-np.arange(finger) / (0.003 * rate))
        out[first : first + n] += note.strength * tone * _ends(n, rate, 0.002, 0.12)
    return out


def _blown(rng: Generator, notes: list[Note], frames: int, rate: int) -> NDArray[np.float64]:
    """One pipe: pitch glides between notes, vibrato grows in held ones, breath rides on the envelope."""
    pitch = np.full(frames, notes[0].pitch)
    loudness, vibrato = np.zeros(frames), np.zeros(frames)
    depth, wobble = rng.uniform(0.003, 0.008), rng.uniform(4.8, 6.0)
    for note in notes:
        first = round(note.start * rate)
        n = min(frames - first, round(note.length * rate))
        if n <= 0:
            continue
        pitch[first:] = note.pitch
        t = np.arange(n) / rate
        swell = 0.85 + 0.15 * np.sin(np.pi * t / note.length)
        loudness[first : first + n] = note.strength * swell * _ends(n, rate, 0.035, 0.06)
        vibrato[first : first + n] = np.clip((t - 0.15) / 0.25, 0.0, 1.0)
    glide = round(0.012 * rate)
    pitch = _smoothed(pitch, glide) * (1 + depth * vibrato * np.sin(2 * np.pi * wobble * np.arange(frames) / rate))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tilt = rng.uniform(0.35, 0.55)
    tone = np.zeros(frames)
    for k in range(1, 9):
        brightness = tilt ** (k - 1) * (0.6 if k % 2 == 0 else 1.0)  # a stopped pipe favours odd harmonics
        swelling = loudness ** (1 + 0.35 * (k - 1))  # blown harder, a pipe is brighter
        tone += np.where(k * pitch < 0.45 * rate, brightness * swelling * np.sin(k * phase), 0.0)
    breath = _smoothed(rng.standard_normal(frames), max(2, rate // 5000))
    return tone + rng.uniform(0.25, 0.5) * breath * loudness  # a bamboo flute rather than an organ


def _ends(n: int, rate: int, attack: float, release: float) -> NDArray[np.float64]:
    """Raised-cosine attack and release over `n` frames, given in seconds, shortened to fit."""
    up, down = min(n // 2, max(1, round(attack * rate))), min(n // 2, max(1, round(release * rate)))
    envelope = np.ones(n)
    envelope[:up] = 0.5 - 0.5 * np.cos(np.pi * np.arange(up) / max(up, 1))
    envelope[n - down :] = 0.5 + 0.5 * np.cos(np.pi * (np.arange(down) + 1) / max(down, 1))
    return envelope


def _smoothed(x: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Moving mean over the last `width` samples, the first value held before the start."""
    held = np.concatenate((np.full(width, x[0]), x))
    total = np.cumsum(held)
    return (total[width:] - total[:-width]) / width
