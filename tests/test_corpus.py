"""The embedded corpus: repeatable, quick to make, and music: a few pitches of one scale, with rests."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from graphspec.runtime.corpus import pieces

RATE = 16000


@pytest.fixture(scope="module")
def corpus() -> list[np.ndarray]:
    return pieces()


def test_form(corpus: list[np.ndarray]) -> None:
    assert len(corpus) == 12
    for piece in corpus:
        assert piece.dtype == np.float32 and piece.shape == (6 * RATE, 1) and piece.flags.c_contiguous
        assert np.isfinite(piece).all() and 0.64 < np.abs(piece).max() < 0.76
        assert abs(piece.mean()) < 0.01
        assert np.abs(piece[: RATE // 50]).max() < 0.01 and np.abs(piece[-10:]).max() < 0.01


def test_every_piece_follows_from_its_seed_and_index_alone(corpus: list[np.ndarray]) -> None:
    again = pieces(count=3)
    assert all(np.array_equal(a, b) for a, b in zip(corpus, again, strict=False))
    other = pieces(count=2, seed=1)
    assert not any(np.array_equal(a, b) for a, b in zip(corpus, other, strict=False))
    spread = [np.corrcoef(a[:, 0], b[:, 0])[0, 1] for i, a in enumerate(corpus) for b in corpus[:i]]
    assert np.abs(spread).max() < 0.3  # no two pieces are alike


def test_other_sizes() -> None:
    for rate, seconds in ((8000, 0.5), (44100, 2.0)):
        for piece in pieces(rate, 2, seconds):
            assert piece.shape == (round(seconds * rate), 1) and np.abs(piece).max() > 0.6
    for bad in ({"rate": 100}, {"count": 0}, {"seconds": 0.0}, {"seconds": float("nan")}):
        with pytest.raises(ValueError):
            pieces(**bad)


def test_fast() -> None:
    start = time.process_time()
    pieces()
    assert time.process_time() - start < 3.0


def test_room_for_silence_but_not_much(corpus: list[np.ndarray]) -> None:
    for piece in corpus:
        loudness = np.sqrt((piece.reshape(-1, 320) ** 2).mean(axis=1))  # 20 ms
        assert 0.5 < (loudness > 0.05 * loudness.max()).mean() < 0.99


def test_blown_pieces_sing_a_scale(corpus: list[np.ndarray]) -> None:
    """The pitch, read by autocorrelation, sits on the tempered scale and visits several notes."""
    for piece in corpus[1::2]:
        frames = piece[: len(piece) // 400 * 400, 0].reshape(-1, 400 * 3)  # 75 ms
        frames = frames[np.abs(frames).max(axis=1) > 0.15]
        spectra = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), 1 << 15, axis=1)) ** 2
        lags = np.fft.irfft(spectra, axis=1)[:, : RATE // 150]
        lags /= np.fft.irfft(np.abs(np.fft.rfft(np.hanning(frames.shape[1]), 1 << 15)) ** 2)[: lags.shape[1]]
        first, last = RATE // 1400, RATE // 150
        pitches = []
        for lag in lags:
            window = lag[first:last]
            # the first peak nearly as high as the highest: not an octave below
            peaks = 1 + np.flatnonzero((window[1:-1] > window[:-2]) & (window[1:-1] >= window[2:]))
            at = first + peaks[np.argmax(window[peaks] > 0.9 * window[peaks].max())]
            a, b, c = lag[at - 1 : at + 2]
            pitches.append(RATE / (at + 0.5 * (a - c) / (a - 2 * b + c)))
        semitones = 69 + 12 * np.log2(np.array(pitches) / 440)
        off = np.abs(semitones - np.round(semitones))
        assert np.median(off) < 0.12  # 12 cents: vibrato, glides and the method's error
        notes, counts = np.unique(np.round(semitones[off < 0.3]), return_counts=True)
        held = notes[counts >= 3]
        assert 3 <= len(held) <= 12 and held.max() - held.min() <= 24
        assert len({int(n) % 12 for n in held}) <= 7  # one scale


def test_plucked_notes_decay(corpus: list[np.ndarray]) -> None:
    for piece in corpus[0::2]:
        loudness = np.sqrt((piece.reshape(-1, 160) ** 2).mean(axis=1))  # 10 ms
        rises, falls = np.diff(loudness).clip(min=0), np.diff(loudness).clip(max=0)
        assert (rises > 0.02).sum() < (falls < 0).sum() / 2  # few sharp onsets, long decays
        assert (rises > 0.06).sum() > (falls < -0.06).sum()


def test_numpy_only() -> None:
    code = "import sys, graphspec.runtime.corpus as c; c.pieces(count=1); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
