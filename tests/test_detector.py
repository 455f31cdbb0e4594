"""The detector accepts held-out crops of the corpus and refuses what a broken model or sampler makes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphspec.runtime.corpus import pieces
from graphspec.runtime.detector import Sound, accept, describe

RATE, CROP = 16000, 32000
LEVELS = 255


def crops(corpus: list[np.ndarray]) -> list[np.ndarray]:
    return [p[a : a + CROP, 0] for p in corpus for a in range(0, len(p) - CROP + 1, CROP // 2)]


def on_the_grid(x: np.ndarray) -> np.ndarray:
    """8-bit linear levels and back, as a model's samples are."""
    return 2 * np.round((x + 1) / 2 * LEVELS) / LEVELS - 1


@pytest.fixture(scope="module")
def train() -> list[np.ndarray]:
    return crops(pieces(count=8))


@pytest.fixture(scope="module")
def held_out() -> list[np.ndarray]:
    return crops(pieces(count=12)[8:]) + crops(pieces(count=4, seed=7))


@pytest.mark.parametrize("treat", [np.asarray, on_the_grid])
def test_held_out_crops_pass_and_broken_ones_do_not(train: list, held_out: list, treat) -> None:
    references = [describe(treat(x), RATE) for x in train]
    for x in held_out:
        verdict = accept(describe(treat(x), RATE), references)
        assert verdict.ok and verdict.reason == "", verdict

    rng = np.random.default_rng(0)
    rms = float(np.median([r.rms for r in references]))
    t = np.arange(CROP) / RATE
    noise = rng.standard_normal(CROP)
    broken = {
        "zeros": np.zeros(CROP),
        "the level nearest zero": np.full(CROP, 1 / LEVELS),
        "constant": np.full(CROP, rms),
        "white noise, same rms": rms * noise,
        "uniform noise, same rms": rms * math.sqrt(3) * rng.uniform(-1, 1, CROP),
        "uniform levels": rng.uniform(-1, 1, CROP),
        "full-scale square noise": np.sign(noise),
        "square noise, same rms": rms * np.sign(noise),
        "clipped music": np.clip(50 * train[0], -1, 1),
        "very quiet music": 0.01 * train[0],
        "one click": np.eye(1, CROP, 100)[0],
        "NaN": np.where(t == 1.0, np.nan, train[0]),
        "infinity": np.where(t == 1.0, np.inf, train[0]),
        "music under hiss": train[0] + 0.5 * rms * noise,
    }
    for name, x in broken.items():
        verdict = accept(describe(treat(x), RATE), references)
        assert not verdict.ok and verdict.reason, name


def test_describe_known_sounds() -> None:
    rng = np.random.default_rng(1)
    noise = describe(0.1 * rng.standard_normal(CROP), RATE)
    assert noise.rms == pytest.approx(0.1, rel=0.02) and noise.flatness == pytest.approx(math.exp(-0.5772), abs=0.01)
    sine = describe(0.5 * np.sin(0.3 * np.arange(CROP)), RATE)
    assert sine.rms == pytest.approx(0.5 / math.sqrt(2), rel=1e-3) and 0 < sine.flatness < 1e-6
    assert describe(np.zeros(CROP), RATE) == Sound(0.0, 0.0)
    assert describe(np.full(CROP, -0.2), RATE).flatness == 0.0
    assert math.isnan(describe(np.array([0.0, np.nan]), RATE).rms)


def test_flatness_ignores_loudness_pauses_and_length() -> None:
    x = pieces(count=2)[1][:CROP, 0]
    whole = describe(x, RATE).flatness
    assert describe(0.1 * x, RATE).flatness == pytest.approx(whole, rel=1e-3)
    paused = np.concatenate((x, np.zeros(CROP)))
    assert describe(paused, RATE).flatness == pytest.approx(whole, rel=0.1)
    assert describe(x[20000:20100], RATE).flatness > 0  # shorter than a frame


def test_own_arguments_are_checked() -> None:
    for x in (np.zeros((10, 1)), np.zeros(0)):
        with pytest.raises(ValueError):
            describe(x, RATE)
    sound = Sound(0.1, 0.01)
    for references, slack in (([], 2.0), ([Sound(0.0, 0.0)], 2.0), ([sound], 0.5), ([sound], math.nan)):
        with pytest.raises(ValueError):
            accept(sound, references, slack)


def test_slack_is_a_factor() -> None:
    references = [Sound(0.1, 0.01), Sound(0.2, 0.02)]
    assert accept(Sound(0.39, 0.079), references, 2.0).ok and accept(Sound(0.051, 0.0026), references, 2.0).ok
    assert accept(Sound(0.41, 0.01), references, 2.0).reason.startswith("rms")
    assert accept(Sound(0.1, 0.0024), references, 2.0).reason.startswith("flatness")
    assert not accept(Sound(0.21, 0.01), references, 1.0).ok
