"""`graphspec data prepare`: layouts and rates are what they should be, stopped and called again it goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from graphspec.__main__ import main
from graphspec.cli.load import check_spec
from graphspec.diagnostic import Diagnostic, SpecError
from graphspec.runtime import data as datasets
from graphspec.runtime import prepare as preparing
from graphspec.runtime.audio import probe, read, write_wav
from graphspec.runtime.prepare import Outcome, prepare

RATE = 16000


def tone(channels: int, rate: int, seconds: float = 0.25) -> NDArray[np.float32]:
    """A tone a channel, each of its own pitch, faded in and out."""
    t = np.arange(round(rate * seconds))[:, None] / rate
    pitch = 300.0 * (1 + np.arange(channels))
    return (0.4 * np.sin(2 * np.pi * pitch * t) * np.sin(np.pi * t / seconds) ** 2).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "set").mkdir(parents=True)
    write_wav(folder / "mono.wav", tone(1, RATE), RATE)
    write_wav(folder / "set/stereo.wav", tone(2, 44100), 44100)
    write_wav(folder / "set/four.wav", tone(4, 8000), 8000)
    (folder / "notes.txt").write_text("no audio")
    (folder / ".hidden.wav").write_bytes(b"left by another program")
    return folder


def run(
    source: Path, out: Path, layout: str, rate: int = RATE, mono: str = "refuse"
) -> tuple[Outcome, list[Diagnostic]]:
    told: list[Diagnostic] = []
    return prepare(source, out, layout, rate, mono, told.append, lambda *_: None), told  # type: ignore[arg-type]


def made(out: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(p.relative_to(out)): probe(p) for p in sorted(out.rglob("*")) if p.is_file()}
    return {name: (info.frames, info.rate, info.channels) for name, info in found.items()}


def test_mono_is_the_mean_of_the_channels_at_the_rate(source: Path, tmp_path: Path) -> None:
    outcome, told = run(source, tmp_path / "out", "mono")
    assert (outcome.written, outcome.there, outcome.left_out, told) == (3, 0, 0, [])
    whole = (4000, RATE, 1)
    assert made(tmp_path / "out") == {"mono.wav": whole, "set/four.wav": whole, "set/stereo.wav": whole}
    got, want = read(tmp_path / "out/set/stereo.wav", RATE, 1), tone(2, RATE).mean(1, keepdims=True)
    assert np.abs(got - want).max() < 2e-3
    same = [(folder / "mono.wav").read_bytes() for folder in (source, tmp_path / "out")]
    assert same[0] == same[1]  # 16 bits in, 16 bits out


def test_split_is_a_file_for_each_channel(source: Path, tmp_path: Path) -> None:
    outcome, _ = run(source, tmp_path / "out", "split")
    names = ["mono.wav", *(f"set/four.{i}.wav" for i in range(1, 5)), "set/stereo.1.wav", "set/stereo.2.wav"]
    assert list(made(tmp_path / "out")) == names and outcome.written == 7
    for i in (1, 2):
        got, want = read(tmp_path / f"out/set/stereo.{i}.wav", RATE, 1), tone(2, RATE)[:, i - 1 : i]
        assert np.abs(got - want).max() < 2e-3


def test_stereo_keeps_two_channels_and_leaves_others_out(source: Path, tmp_path: Path) -> None:
    outcome, told = run(source, tmp_path / "refused", "stereo")
    assert made(tmp_path / "refused") == {"set/stereo.wav": (4000, RATE, 2)}
    assert outcome.left_out == 2 and [d.code for d in told] == ["GS0618", "GS0618"]
    assert "mono.wav: has 1 channel, 2 wanted" in told[0].message and told[0].severity == "warning"
    outcome, told = run(source, tmp_path / "repeated", "stereo", mono="duplicate")
    assert outcome.written == 2 and len(told) == 1
    both = read(tmp_path / "repeated/mono.wav", RATE, 2)
    assert np.array_equal(both[:, 0], both[:, 1])


def test_stopped_it_goes_on_and_writes_nothing_twice(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "out", 0

    def stopping(path: Path, x: NDArray[np.float32], rate: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        write_wav(path, x, rate)

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "write_wav", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(source, out, "split")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.wav")}
    assert len(before) == 3
    outcome, _ = run(source, out, "split")
    assert (outcome.written, outcome.there) == (4, 3)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    outcome, _ = run(source, out, "split")
    assert (outcome.written, outcome.there) == (0, 7)


def test_what_is_in_the_way_is_left_and_told(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(source, out, "mono", rate=8000)
    (out / "mono.wav").write_bytes(b"something of the user's")
    (out / "set/four.wav").unlink()
    outcome, told = run(source, out, "mono")
    assert (outcome.written, outcome.there, outcome.left_out) == (1, 0, 2)
    assert [d.code for d in told] == ["GS0657", "GS0657"] and "1 x 8000 Hz" in told[1].message
    assert (out / "mono.wav").read_bytes() == b"something of the user's"
    with pytest.raises(SpecError, match="GS0657"):
        run(source, source, "mono")


def test_bad_files_are_told_and_left_out(source: Path, tmp_path: Path) -> None:
    (source / "empty.wav").touch()
    (source / "lies.flac").write_bytes(b"fLaC" + bytes(100))
    whole = (source / "mono.wav").read_bytes()
    (source / "set/mono.wav").write_bytes(whole[: len(whole) // 2])
    nan = np.full((2000, 1), np.nan, np.float32)
    soundfile.write(source / "nan.wav", nan, RATE, "FLOAT")
    outcome, told = run(source, tmp_path / "out", "mono")
    assert {d.code for d in told} == {"GS0618"}
    assert outcome.left_out == len(told) and {"empty.wav", "lies.flac", "nan.wav"} <= {
        d.message.split(": ")[1].rsplit("/", 1)[-1] for d in told
    }
    assert outcome.written + outcome.left_out == 7
    assert not list((tmp_path / "out").rglob(".*"))


def test_equal_names_of_two_endings_are_two_files(source: Path, tmp_path: Path) -> None:
    soundfile.write(source / "mono.flac", 0.5 * tone(1, RATE), RATE)
    run(source, tmp_path / "out", "mono")
    assert {"mono.wav.wav", "mono.flac.wav"} <= set(made(tmp_path / "out"))


def test_sound_over_full_scale_is_counted(source: Path, tmp_path: Path) -> None:
    soundfile.write(source / "loud.wav", 4 * tone(1, RATE), RATE, "FLOAT")
    outcome, _ = run(source, tmp_path / "out", "mono")
    assert outcome.clipped == 1 and np.abs(read(tmp_path / "out/loud.wav", RATE, 1)).max() <= 1


def test_no_folder_and_no_audio_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        with pytest.raises(SpecError, match="GS0616"):
            run(tmp_path / folder, tmp_path / "out", "mono")


def test_the_command_makes_what_a_spec_reads(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        write_wav(source / f"more{i}.wav", tone(2, 22050), 22050)
    out = str(source / "prepared")  # below what is read: not read itself
    given = ["data", "prepare", str(source), out, "--layout", "stereo", "--rate", "16000"]
    assert main(given) == 0
    said = capsys.readouterr()
    assert said.out.strip() == f"{out}: of 6 recordings 4 written, 0 there already, 2 left out"
    assert said.err.count("GS0618") == 2
    assert main(given) == 0
    assert "0 written, 4 there already, 2 left out" in capsys.readouterr().out
    told: list[Diagnostic] = []
    checked = check_spec("sashimi_musdb18_stereo", (f"data={out}", "train.crop.T=1024"))
    data = datasets.load(checked, tmp_path, told.append)
    assert len(data.train) + len(data.validation) + len(data.test) == 4 and told == []
