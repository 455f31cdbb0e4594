"""Audio files: what is written is read back, and whatever is thrown at the reader, only BadAudio comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from graphspec.runtime import audio
from graphspec.runtime.audio import AudioInfo, BadAudio, natural_order, probe, read, write_wav

RATE = 16000


def tone(seconds: float = 0.1, channels: int = 1, rate: int = RATE, pitch: float = 440.0) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 / (c + 1) * np.sin(2 * np.pi * pitch * t) for c in range(channels)], axis=1).astype(np.float32)


def reason(path: Path, rate: int = RATE, channels: int = 1) -> str:
    with pytest.raises(BadAudio) as caught:
        read(path, rate, channels)
    assert caught.value.path == path
    assert "\n" not in caught.value.reason and str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


def test_write_then_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    x = tone(channels=2)
    write_wav(path, x, RATE)
    assert probe(path) == AudioInfo(1600, RATE, 2) and probe(path).seconds == 0.1
    y = read(path, RATE, 2)
    assert y.dtype == np.float32 and y.shape == (1600, 2)
    assert np.abs(x - y).max() <= 0.5 / 32768
    write_wav(tmp_path / "b.wav", y, RATE)
    assert path.read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert soundfile.info(path).subtype == "PCM_16"
    mono = read(path, RATE, 1)
    assert mono.shape == (1600, 1) and np.allclose(mono, y.mean(axis=1, keepdims=True), atol=1e-7)


def test_every_pcm_code_survives(tmp_path: Path) -> None:
    codes = np.arange(-32768, 32768, dtype=np.int16)[:, None]
    soundfile.write(tmp_path / "a.wav", codes, RATE, "PCM_16")
    write_wav(tmp_path / "b.wav", read(tmp_path / "a.wav", RATE, 1), RATE)
    assert np.array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16", always_2d=True)[0], codes)


def test_write_clips(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, [[3.0], [-3.0], [1.0], [0.0]], RATE)
    assert np.allclose(read(path, RATE, 1)[:, 0], [1, -1, 1, 0], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(0.5, 2, rate), rate)
    y = read(path, RATE, 2)
    assert abs(len(y) - 8000) <= 1
    middle = slice(1000, 7000)
    assert np.abs(y[middle] - tone(0.5, 2, RATE)[: len(y)][middle]).max() < 1e-3


def write(path: Path, x: np.ndarray, rate: int = RATE) -> None:
    """In blocks: libsndfile's vorbis encoder overflows the stack on long writes."""
    with soundfile.SoundFile(path, "w", rate, x.shape[1]) as file:
        for start in range(0, len(x), audio.BLOCK_FRAMES):
            file.write(x[start : start + audio.BLOCK_FRAMES])


@pytest.mark.parametrize("rate", [11025, 16000, 32000, 44100])
@pytest.mark.parametrize("ending, noise", [("mp3", 0.05), ("ogg", 0.03), ("flac", 2e-4)])
def test_lossy_and_lossless_formats(tmp_path: Path, ending: str, noise: float, rate: int) -> None:
    """Every frame is there and in its place (the codecs' own delay is taken back), at its own rate and at ours."""
    path = tmp_path / f"a.{ending}"
    x = tone(3.1, 2, rate) * np.linspace(0.2, 1, round(3.1 * rate), dtype=np.float32)[:, None]
    write(path, x, rate)
    assert probe(path) == AudioInfo(len(x), rate, 2)
    y = read(path, rate, 2)
    assert y.shape == x.shape and y.dtype == np.float32
    assert np.sqrt(np.mean((y - x)[2000:-2000] ** 2)) < noise / 3
    ours = read(path, 24_000, 1)
    assert abs(len(ours) - 3.1 * 24_000) <= 1
    right = tone(3.1, 2, 24_000).mean(axis=1) * np.linspace(0.2, 1, round(3.1 * 24_000))
    assert np.abs(ours[3000:70_000, 0] - right[3000:70_000]).max() < noise


def test_a_long_ogg_file(tmp_path: Path) -> None:
    """More than the 2 M frames that crash a writer that gives them all at once."""
    path = tmp_path / "a.ogg"
    write(path, np.zeros((2_500_000, 1), np.float32), 8000)
    assert read(path, 8000, 1).shape == (2_500_000, 1)


def test_a_file_with_more_channels_than_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([np.full(100_000, 0.5), np.full(100_000, -0.25)], 1), RATE)
    for stereo, value in (("mix", 0.125), ("left", 0.5), ("right", -0.25)):
        y = read(path, RATE, 1, stereo=stereo)
        assert y.shape == (100_000, 1) and np.all(y == np.float32(value)) and y.base is None
    with pytest.raises(BadAudio, match="has 2 channels, 1 wanted"):
        read(path, RATE, 1, stereo="refuse")
    assert read(path, RATE, 2, stereo="refuse", mono="refuse").shape == (100_000, 2)
    with pytest.raises(BadAudio, match="has 2 channels, 4 wanted"):
        read(path, RATE, 4)


def test_a_mono_file_where_more_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.1), 8000)
    y = read(path, RATE, 3)
    assert y.shape == (3200, 3) and np.array_equal(y[:, 0], y[:, 2]) and np.array_equal(y[:, :1], read(path, RATE, 1))
    with pytest.raises(BadAudio, match="has 1 channel, 2 wanted"):
        read(path, RATE, 2, mono="refuse")


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(), RATE)
    before = path.read_bytes()
    bad = np.zeros((200_000, 1))
    bad[150_000] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        write_wav(path, bad, RATE)
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_wav(path, tone(0.2), RATE)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.wav"]


def test_write_refuses_other_shapes(tmp_path: Path) -> None:
    for samples in (np.zeros(10), np.zeros((10, 0)), np.zeros((1, 10, 1))):
        with pytest.raises(ValueError, match="shape"):
            write_wav(tmp_path / "a.wav", samples, RATE)
    with pytest.raises(ValueError, match="rate"):
        write_wav(tmp_path / "a.wav", np.zeros((10, 1)), 1)


def test_own_arguments_are_checked(tmp_path: Path) -> None:
    for rate, channels in ((0, 1), (10**9, 1), (RATE, 0), (RATE, 1000)):
        with pytest.raises(ValueError):
            read(tmp_path / "a.wav", rate, channels)


def test_unreadable(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(999)
    for name, content in (("a.wav", b"RIFF"), ("b.wav", b"hello " * 100), ("c.flac", noise), ("d.raw", b"0" * 99)):
        (tmp_path / name).write_bytes(content)
        assert "not readable" in reason(tmp_path / name)
    (tmp_path / "empty.wav").write_bytes(b"")
    assert "empty" in reason(tmp_path / "empty.wav")
    assert "No such file" in reason(tmp_path / "none.wav")
    assert "regular" in reason(tmp_path)
    with pytest.raises(BadAudio):
        probe("a\0b.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "regular" in reason(tmp_path / "pipe.wav")


def test_unusable(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((0, 1)), RATE)
    assert "no frames" in reason(path)
    soundfile.write(path, np.zeros((10, 1)), 1)
    assert "sample rate of 1 Hz" in reason(path)
    soundfile.write(path, np.zeros((10, 1024)), RATE)
    assert "1024 channels" in reason(path)
    soundfile.write(path, np.zeros((10, 3)), RATE)
    assert "has 3 channels, 2 wanted" in reason(path, channels=2)
    soundfile.write(path, np.zeros((1, 1)), 384_000)
    assert "too short" in reason(path, rate=1000)
    for value, word in ((np.nan, "NaN"), (np.inf, "NaN"), (1e38, "amplitudes")):
        x = np.zeros((100_000, 2), np.float32)
        x[99_999, 1] = value
        soundfile.write(path, x, RATE, "FLOAT")
        assert word in reason(path)


def test_decode_bombs_stop_at_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((80_000, 8), np.int16), 8000)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(audio, "_blocks", lambda *a: pytest.fail("decoded"))
    monkeypatch.setattr(audio, "MAX_SECONDS", 9)
    assert "lasts 10 s" in reason(path)
    monkeypatch.setattr(audio, "MAX_SECONDS", 11)
    monkeypatch.setattr(audio, "MAX_VALUES", 600_000)
    assert "640000 samples" in reason(path)
    monkeypatch.setattr(audio, "MAX_VALUES", 650_000)
    assert "too long to hold at 48000 Hz" in reason(path, rate=48_000, channels=8)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_damaged_files_raise_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(0.2, 2), RATE)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(120):
        raw = bytearray(whole[: rng.integers(1, len(whole))] if trial % 3 == 0 else whole)
        head = min(len(raw), 200 if trial % 2 else len(raw))
        for at in rng.integers(0, head, 3):
            raw[at] = rng.integers(256)
        path.write_bytes(raw)
        try:
            y = read(path, RATE, 1)
        except BadAudio:
            refused += 1
        else:
            assert y.ndim == 2 and y.shape[1] == 1 and len(y) and np.isfinite(y).all()
    assert refused > 10


def test_a_flac_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (30_000, 1)), RATE)
    path.write_bytes(path.read_bytes()[:20_000])
    assert "of 30000 frames" in reason(path) or "breaks off" in reason(path)


def test_natural_order() -> None:
    long = "x" + "9" * 5000
    names = ["b/a1.wav", "a/take10.wav", "a/take2.wav", "a/Take1.wav", "a/take02b.wav", "9.wav", long, "10.wav"]
    expected = ["9.wav", "10.wav", "a/Take1.wav", "a/take2.wav", "a/take02b.wav", "a/take10.wav", "b/a1.wav", long]
    assert natural_order(names) == expected == natural_order(reversed(names))
    assert natural_order([Path("b2"), Path("b1")]) == [Path("b1"), Path("b2")]
    assert natural_order(["A", "a"]) == natural_order(["a", "A"]) == ["A", "a"]


def test_no_torch() -> None:
    code = "import sys, graphspec.runtime.audio; sys.exit('torch' in sys.modules or 'soundfile' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
