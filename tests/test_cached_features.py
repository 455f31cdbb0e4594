"""`cache: true`: a feature is computed once, of whole recordings; `sample --input` renders another's features."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from graphspec.__main__ import main
from graphspec.cli.load import check_document, check_spec
from graphspec.compiler.lower import lower
from graphspec.diagnostic import Diagnostic, SpecError
from graphspec.reader import read_text
from graphspec.runtime import data as datasets

SPEC = """\
graphspec: 1
model: small
inputs:
  audio: f32[T, 1] @ 16000
  f0:
    type: f32[N, 1] @ 250
    default: pitch(audio, 64)
    cache: true
  loud:
    type: f32[N, 1] @ 250
    default: power(audio, 64)
    cache: true
require:
  - T == N * 64
graph:
  h: cat(hz_to_midi(f0) / 127, loud / 80 + 1) |> gru(8)
  amp: h |> linear(1) |> exp_sigmoid
  shape: harmonic_shape(h |> linear(8) |> exp_sigmoid, f0, 64)
  out: harmonic(f0, amp, shape, 64)
losses:
  spec: multiscale_stft(out, audio, sizes=[256, 64], log_weight=1)
outputs: [out]
data:
  audio: audio_folder("tones", held_out=1)
train:
  optimizer: adam()
  lr: 1e-3
  steps: 2
  batch: 2
  crop: {T: 4096}
entries:
  render:
    from: [f0, loud]
    to: [out]
"""


def tone(path: Path, hz: float, seconds: float = 0.6) -> None:
    t = np.arange(int(16000 * seconds)) / 16000
    path.parent.mkdir(exist_ok=True)
    sf.write(path, 0.4 * np.sin(2 * np.pi * hz * t) + 0.1 * np.sin(4 * np.pi * hz * t), 16000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i, hz in enumerate((220.0, 330.0, 440.0)):
        tone(tmp_path / "tones" / f"a{i}.wav", hz)
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path


def loaded(folder: Path, text: str = SPEC) -> datasets.Dataset:
    checked = check_document(read_text("small.yaml", text), folder)
    return datasets.load(checked, folder, lambda d: None, datasets.crop_lengths(checked))


def test_features_are_of_whole_recordings_and_belong_to_the_crop(folder: Path) -> None:
    data = loaded(folder)
    assert data.input == "audio" and data.features == {"f0", "loud"}
    f0 = data.tracks["f0"].train[0].samples
    assert f0.shape == (150, 1) and abs(np.median(f0) - 220) < 0.5
    crop = data.batches({"audio": 4096, "f0": 64, "loud": 64}, 3, seed=0, update=5)
    assert crop["audio"].shape == (3, 4096, 1) and crop["f0"].shape == (3, 64, 1)
    whole = {round(float(p.samples[20, 0])): p.samples for p in data.tracks["f0"].train}
    for row in range(3):  # the crop's frames are those of the recording, not of the crop alone
        (of,) = [w for hz, w in whole.items() if abs(hz - float(crop["f0"][row].median())) < 2]
        assert any(np.array_equal(of[at : at + 64], crop["f0"][row].numpy()) for at in range(len(of) - 63))


def test_what_is_kept_is_found_again_and_not_mistaken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded(folder)
    kept = sorted((folder / "cache").rglob("*.npy"))
    assert len(kept) == 6  # two features of three recordings
    (folder / "tones" / "a0.wav").rename(folder / "tones" / "renamed.wav")
    from graphspec.runtime import features

    with monkeypatch.context() as m:
        m.setattr(features, "_made", None)  # nothing is computed again
        again = loaded(folder)
    assert np.array_equal(first.tracks["f0"].train[0].samples, again.tracks["f0"].test[0].samples)
    loaded(folder, SPEC.replace("pitch(audio, 64)", "pitch(audio, 64, fmin=60)"))
    assert len(sorted((folder / "cache").rglob("*.npy"))) == 9  # the other tracker's, beside those
    kept[0].write_bytes(b"torn")
    assert np.array_equal(loaded(folder).tracks["loud"].train[0].samples, again.tracks["loud"].train[0].samples)


def test_given_features_stand_for_their_computation(folder: Path) -> None:
    model = lower(check_document(read_text("small.yaml", SPEC), folder)).double().eval()
    audio = torch.randn(1, 4096, 1, dtype=torch.float64)
    f0, loud = model.evaluate([model.graph.named["f0"], model.graph.named["loud"]], {"audio": audio})
    own = model({"audio": audio})
    given = model({"audio": audio, "f0": f0, "loud": loud})
    assert torch.equal(own["out"], given["out"])
    other = model({"audio": audio, "f0": torch.full_like(f0, 300.0), "loud": loud})
    assert not torch.allclose(own["out"], other["out"])
    rendered = model.entries["render"].forward({"f0": f0, "loud": loud})
    assert torch.equal(rendered["out"], own["out"])


@pytest.mark.parametrize(
    ("written", "becomes", "word"),
    [
        ("default: power(audio, 64)", "default: power(audio, 64) |> linear(1)", "weights"),
        ("default: power(audio, 64)", "default: power(audio, 64) |> dropout(0.5)", "random"),
        ("    default: power(audio, 64)\n", "", "no default"),
    ],
)
def test_what_changes_cannot_be_cached(written: str, becomes: str, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_document(read_text("small.yaml", SPEC.replace(written, becomes)), Path())
    (d,) = caught.value.diagnostics
    assert d.code == "GS0527" and word in d.message and d.span is not None


def test_another_instrument_plays_what_one_played(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    command = [sys.executable, "-m", "graphspec", "train", "small.yaml", "--run", "small", "--threads", "1"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    tone(folder / "other.wav", 250.0, 0.5)
    assert main(["sample", "small", "--input", "other.wav", "-o", "out.wav"]) == 0
    y, rate = sf.read(folder / "out.wav")
    assert rate == 16000 and len(y) == 125 * 64
    loudest = np.abs(np.fft.rfft(y[1000:7000] * np.hanning(6000))).argmax() * 16000 / 6000
    assert abs(loudest / 250 - round(loudest / 250)) < 0.02  # a harmonic of what was played
    np.savez(folder / "controls.npz", f0=np.full((50, 1), 200.0), loud=np.full((50, 1), -20.0))
    assert main(["sample", "small", "--given", "controls.npz", "-o", "of_controls.wav"]) == 0
    assert len(sf.read(folder / "of_controls.wav")[0]) == 3200
    (folder / "f0.csv").write_text("hz\n" + "200.0\n" * 50)
    capsys.readouterr()
    assert main(["sample", "small", "--given", "f0=f0.csv", "-o", "no.wav"]) == 1
    told = capsys.readouterr().err
    assert "GS0629" in told and "'loud'" in told
    np.savez(folder / "broken.npz", f0=np.full((50, 1), np.nan), loud=np.full((50, 1), -20.0))
    assert main(["sample", "small", "--given", "broken.npz", "-o", "no.wav"]) == 1
    assert "not finite in frame 0" in capsys.readouterr().err and not (folder / "no.wav").exists()


def test_recordings_without_a_tone_are_told_of(folder: Path, tmp_path: Path) -> None:
    """Breath has no pitch, silence no loudness that changes; the data can be used all the same."""
    made = tmp_path / "made"
    made.mkdir()
    tone(made / "tone.wav", 250.0, 0.5)
    sf.write(made / "silent.wav", np.zeros(8000), 16000)
    sf.write(made / "breath.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 8000), 16000)
    checked = check_spec(str(folder / "small.yaml"), (f"data={made}",))
    told: list[Diagnostic] = []
    datasets.load(checked, folder, told.append, datasets.crop_lengths(checked))
    constant = {d.message for d in told if d.code == "GS0682"}
    assert constant == {
        "'f0' never changes in 2 of 3 recordings: breath.wav (0), silent.wav (0)",
        "'loud' never changes in 1 of 3 recordings: silent.wav (-80)",
    }


def test_controls_of_another_hop_and_a_stereo_file_are_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    command = [sys.executable, "-m", "graphspec", "train", "small.yaml", "--run", "small", "--threads", "1"]
    assert subprocess.run(command, cwd=folder, capture_output=True, timeout=120).returncode == 0
    np.savez(folder / "controls.npz", f0=np.full((50, 1), 200.0), loud=np.full((10, 1), -20.0))
    capsys.readouterr()
    assert main(["sample", "small", "--given", "controls.npz", "-o", "short.wav"]) == 0
    assert "GS0683" in (told := capsys.readouterr().err) and "'f0' lasts 0.2 s and 'loud' 0.04 s" in told
    assert len(sf.read(folder / "short.wav")[0]) == 640
    t = np.arange(8000) / 16000
    sf.write(folder / "wide.wav", np.stack([np.sin(1000 * t), 0 * t], -1), 16000)
    assert main(["sample", "small", "--input", "wide.wav", "-o", "mixed.wav"]) == 0
    assert "GS0650" in (told := capsys.readouterr().err) and "'wide.wav' is mixed to one channel" in told
    (folder / "runs" / "small").rename(folder / "small")
    assert main(["sample", "small", "--input", "wide.wav", "-o", "no.wav"]) == 1
    assert "the one in this folder is ./small" in capsys.readouterr().err
