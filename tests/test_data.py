"""Datasets: what becomes of files, how inputs are matched, and crops that depend on nothing but their counters."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from graphspec.cli.load import check_spec
from graphspec.diagnostic import Diagnostic, SpecError
from graphspec.runtime.data import Audio, Dataset, Numbers, Piece, Track, crop_lengths, grid, load

RATE = 8000


def spec(inputs: str, data: str, crop: str = "{T: 256}", require: str = "") -> str:
    """A spec with the inputs (its loss reads the first alone) and the data."""
    first = inputs.split(":")[0]
    read = f"dequantise({first})" if "int(" in inputs.split("\n")[0] and "16000" not in inputs else first
    lines = [f"  {line}" for line in inputs.split("\n")]
    return "\n".join(
        [
            "graphspec: 1\nmodel: m\ninputs:",
            *lines,
            require,
            f"graph:\n  y: {read} |> linear(1)\nlosses:\n  l: mean(square(y))",
            "data:",
            *(f"  {line}" for line in data.split("\n")),
            f"train: {{optimizer: adamw(), lr: 1e-3, crop: {crop}}}\n",
        ]
    )


@pytest.fixture
def open_data(tmp_path: Path) -> Callable[..., tuple[Dataset, list[Diagnostic]]]:
    def opened(text: str, *overrides: str, shortest: object = 1) -> tuple[Dataset, list[Diagnostic]]:
        (tmp_path / "m.yaml").write_text(text)
        told: list[Diagnostic] = []
        checked = check_spec(str(tmp_path / "m.yaml"), overrides)
        return load(checked, tmp_path, told.append, crop_lengths(checked) if shortest == "crop" else shortest), told

    return opened


def refused(call: Callable[[], object]) -> Diagnostic:
    with pytest.raises(SpecError) as error:
        call()
    (found,) = error.value.diagnostics
    return found


def recordings(folder: Path, *lengths: float, channels: int = 1, rate: int = RATE, first: int = 1) -> None:
    folder.mkdir(exist_ok=True)
    for i, seconds in enumerate(lengths):
        x = np.random.default_rng(i).uniform(-0.5, 0.5, (round(seconds * rate), channels))
        soundfile.write(folder / f"take{first + i}.wav", x, rate, "PCM_16")


WAVE = f"wave: float[T, 1] @ {RATE}"

# ---- recordings ------------------------------------------------------------------------------------------------------


def test_what_was_done_to_recordings_is_said_once(tmp_path: Path, open_data) -> None:
    folder = tmp_path / "d"
    recordings(folder, 1, 1, 1)
    recordings(folder, 1, 1, channels=2, first=4)
    recordings(folder, 1, rate=11025, first=6)
    (folder / "._take1.wav").write_bytes(b"left by a file browser")
    data, told = open_data(spec(WAVE, 'wave: audio_folder("d", stereo=right)'))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [4, 1, 1] and not data.skipped
    (note,) = told
    assert (note.code, note.severity) == ("GS0650", "note")
    assert note.message == "of 6 recordings, 2 give their right channel and 1 is resampled to 8000 Hz"
    right = soundfile.read(folder / "take4.wav", dtype="float32")[0][:, 1:]
    assert np.array_equal(data.train[3].samples, right)
    assert abs(data.test[0].frames - RATE) <= 1
    assert open_data(spec(f"wave: float[T, 2] @ {RATE}", 'wave: audio_folder("d")'))[1][0].message.startswith(
        "of 6 recordings, 4 repeat their one channel 2 times and 1"
    )


def test_refused_and_broken_files_are_skipped_up_to_max_bad(tmp_path: Path, open_data) -> None:
    folder = tmp_path / "d"
    recordings(folder, 1, 1, 1, 1)
    recordings(folder, 1, channels=2, first=5)
    (folder / "take6.wav").write_bytes(b"RIFF")
    data, told = open_data(spec(WAVE, 'wave: audio_folder("d", stereo=refuse)'))
    assert [(d.code, d.severity) for d in told] == [("GS0618", "warning")]
    assert data.skipped[0] == "take5.wav: has 2 channels, 1 wanted" and len(data.skipped) == 2
    found = refused(lambda: open_data(spec(WAVE, 'wave: audio_folder("d", stereo=refuse, max_bad=0.3)')))
    assert found.code == "GS0651" and "2 of 6 files" in found.message and "take5.wav: has 2 channels" in found.message
    assert open_data(spec(WAVE, 'wave: audio_folder("d", max_bad=0.3)'))[0].skipped == data.skipped[1:]
    wide = spec(f"wave: float[T, 2] @ {RATE}", 'wave: audio_folder("d", mono=refuse)')
    assert refused(lambda: open_data(wide)).code == "GS0651"  # 5 of 6, and 0.5 is the default
    assert refused(lambda: open_data(spec(WAVE, 'wave: audio_folder("d", max_bad=2)'))).code == "GS0603"
    assert refused(lambda: open_data(spec(WAVE, 'wave: audio_folder("d", stereo=both)'))).span is not None


def test_two_files_of_one_name_are_both_used(tmp_path: Path, open_data) -> None:
    recordings(tmp_path / "d", 1, 1, 1)
    soundfile.write(tmp_path / "d" / "take1.flac", np.zeros((RATE, 1)), RATE)
    data, _ = open_data(spec(WAVE, 'wave: audio_folder("d")'))
    names = [p.name for p in (*data.train, *data.validation, *data.test)]
    assert names == ["take1.flac", "take1.wav", "take2.wav", "take3.wav"]


# ---- arrays ----------------------------------------------------------------------------------------------------------

CODES = "codes: int(1024)[N, 4] @ 75"
CODE_DATA = 'codes: array_folder("d")'


def code_spec() -> str:
    return spec(CODES, CODE_DATA, "{N: 30}").replace("y: codes |>", "y: codes |> embed(8) |>")


def save(folder: Path, name: str, array: object) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{name}.npy", array)
    return folder / f"{name}.npy"


def codes_of(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (frames, 4))


def test_codes(tmp_path: Path, open_data) -> None:
    for i, dtype in enumerate((np.int64, np.uint16, ">i4", np.int16)):
        save(tmp_path / "d", f"a{i}", codes_of(100 + i, i).astype(dtype))
    data, told = open_data(code_spec(), shortest="crop")
    assert not told and data.input == "codes" and data.audio == Numbers("int")
    assert data.tracks["codes"].rate == 75
    assert [p.frames for p in data.train] == [100, 101] and data.train[0].samples.dtype == np.uint16
    crop = data.batch(30, 5, seed=0, update=3)
    assert crop.shape == (5, 30, 4) and crop.dtype == torch.int64
    assert np.array_equal(data.tensor("codes", data.test[0]).numpy(), codes_of(103, 3))
    assert data.validation_crops(30, 8).shape == (3, 30, 4)


@pytest.mark.parametrize("type_, dtype", [("float[N, 3] @ 250", torch.float32), ("bool[N, 3] @ 250/3", torch.bool)])
def test_features(tmp_path: Path, open_data, type_: str, dtype: torch.dtype) -> None:
    kept = np.random.default_rng(0).normal(size=(90, 3)) > 0
    for i in range(3):
        save(tmp_path / "d", str(i), kept if dtype == torch.bool else kept.astype(np.float64) / 3)
    text = spec(f"x: {type_}\nwave: float[T, 1] @ 8000", 'x: array_folder("d")', "{N: 9, T: 9}")
    data, _ = open_data(text.replace("y: x |>", "y: wave |>"))
    batch = data.batch(9, 2, 0, 0)
    assert batch.dtype == dtype and batch.shape == (2, 9, 3)


BAD_ARRAYS: dict[str, tuple[str, object, str]] = {
    "a class too many": ("GS0653", np.full((9, 4), 1024), "holds 1024 in frame 0; the input has the classes 0 to 1023"),
    "negative": ("GS0653", np.full((9, 4), -1), "holds -1"),
    "floats": ("GS0653", np.zeros((9, 4)), "holds float64"),
    "booleans": ("GS0653", np.zeros((9, 4), bool), "holds bool"),
    "text": ("GS0653", np.full((9, 4), "a"), "holds <U1"),
    "transposed": ("GS0653", np.zeros((4, 9), int), "shape [4, 9], the input is [frames, 4]"),
    "no channels": ("GS0653", np.zeros(9, int), "shape [9]"),
    "a scalar": ("GS0653", np.zeros((), int), "shape []"),
    "no frames": ("GS065", np.zeros((0, 4), int), ""),
    "objects": ("GS0652", np.array([[1, None]], object), "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path: Path, open_data, case: str) -> None:
    code, array, words = BAD_ARRAYS[case]
    for i in range(4):
        save(tmp_path / "d", f"good{i}", codes_of(50))
    save(tmp_path / "d", "odd", array)
    found = refused(lambda: open_data(code_spec()))
    assert found.code.startswith(code) and "'odd.npy'" in found.message and words in found.message
    assert found.span is not None
    if case == "transposed":
        assert found.fixes[0].title == "save its transpose: array.T"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_features_are_finite(tmp_path: Path, open_data, value: float) -> None:
    x = np.zeros((9, 1))
    for i in range(3):
        save(tmp_path / "d", str(i), x)
    x[7] = value
    save(tmp_path / "d", "3", x)
    found = refused(lambda: open_data(spec("x: float[N, 1] @ 250", 'x: array_folder("d")', "{N: 9}")))
    assert found.code == "GS0653" and "'3.npy'" in found.message and "frame 7" in found.message


class Runs:
    """What a stranger's pickle does when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harm",)


def test_files_that_are_no_arrays(tmp_path: Path, open_data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = save(tmp_path / "good", "a", codes_of(1000)).read_bytes()
    np.savez(tmp_path / "archive.npz", a=codes_of(5))
    lying = whole.replace(b"(1000, 4), }   ", b"(1000000, 4), }")
    assert lying != whole
    bodies = {
        "cut": whole[:-1],
        "header alone": whole[:64],
        "empty": b"",
        "a pickle": pickle.dumps(Runs()),
        "an archive": (tmp_path / "archive.npz").read_bytes(),
        "lying": lying,
        "noise": np.random.default_rng(0).bytes(500),
        "a header of code": whole.replace(b"(1000, 4)", b"exit(100)"),
    }
    for name, body in bodies.items():
        folder = tmp_path / "d"
        folder.mkdir(exist_ok=True)
        (folder / "odd.npy").write_bytes(body)
        assert refused(lambda: open_data(code_spec())).code == "GS0652", name
    (tmp_path / "d" / "odd.npy").unlink()
    os.mkfifo(tmp_path / "d" / "odd.npy")
    assert "regular file" in refused(lambda: open_data(code_spec())).message
    object_array = np.empty((2, 4), object)
    object_array[:] = Runs()
    (tmp_path / "d" / "odd.npy").unlink()
    save(tmp_path / "d", "odd", object_array)
    assert refused(lambda: open_data(code_spec())).code == "GS0652"
    assert not (tmp_path / "harm").exists()


def test_an_array_of_a_static_input_is_refused(tmp_path: Path, open_data) -> None:
    save(tmp_path / "d", "a", np.zeros((3, 2)))
    text = spec(f"{WAVE}\nlabel: float[2] @ static", 'label: array_folder("d")')
    assert refused(lambda: open_data(text)).code == "GS0609"


def test_too_many_bytes(tmp_path: Path, open_data, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "d", "a", codes_of(1000))
    monkeypatch.setattr("graphspec.runtime.sources.MAX_BYTES", 1000)
    assert refused(lambda: open_data(code_spec())).code == "GS0617"


# ---- crops -----------------------------------------------------------------------------------------------------------


def counting(frames: int, start: int = 0) -> Piece:
    return Piece(f"{start}", np.arange(start, start + frames)[:, None])


def one(*frames: int) -> Dataset:
    train = [counting(n, 1000 * i) for i, n in enumerate(frames)]
    return Dataset({"x": Track("x", Fraction(10), Numbers("int"), train, train, [])})


def test_crops_are_a_function_of_their_counters() -> None:
    data = one(50, 30, 9)
    a = data.batch(10, 8, seed=1, update=5)
    assert torch.equal(a, one(50, 30, 9).batch(10, 8, seed=1, update=5))
    assert torch.equal(a[4:], data.batch(10, 4, seed=1, update=5, rank=1))
    assert not torch.equal(a, data.batch(10, 8, seed=1, update=6))
    assert not torch.equal(a, data.batch(10, 8, seed=2, update=5))
    assert all(torch.equal(row, torch.arange(10)[:, None] + row[0]) for row in a)


def test_every_start_is_equally_likely_and_none_leaves_its_piece() -> None:
    data = one(12, 9, 11)  # 3 + 0 + 2 starts of 10
    starts = [int(data.batch(10, 1, 0, update)[0, 0, 0]) for update in range(2000)]
    counts = {s: starts.count(s) for s in sorted(set(starts))}
    assert counts.keys() == {0, 1, 2, 2000, 2001}
    assert all(abs(n - 400) < 80 for n in counts.values())
    assert refused(lambda: one(9).batch(10, 1, 0, 0)).code == "GS0614"


def test_validation_crops_are_spread_and_do_not_overlap() -> None:
    data = one(35, 9, 20)
    assert data.validation_crops(10, 16)[:, 0, 0].tolist() == [0, 10, 20, 2000, 2010]
    assert data.validation_crops(10, 2)[:, 0, 0].tolist() == [0, 20]
    assert refused(lambda: one(9).validation_crops(10, 1)).code == "GS0614"


def test_the_grid_of_several_rates() -> None:
    assert grid([Fraction(16000), Fraction(250)]) == 250
    assert grid([Fraction(44100), Fraction(48000)]) == 300
    assert grid([Fraction(75, 2), Fraction(250, 3)]) == Fraction(25, 6)


def test_crops_of_several_inputs_start_together() -> None:
    """Each number is the time of its tick, in ms, so that the crops of a row tell when they start."""
    seconds = (1.0, 2.0, 0.4)
    tracks = {
        name: Track(
            name,
            Fraction(rate),
            Numbers("float"),
            [Piece(str(s), 1e6 * i + 1000 * np.arange(round(s * rate))[:, None] / rate) for i, s in enumerate(seconds)],
            [Piece("v", 1000 * np.arange(2 * rate)[:, None] / rate)],
            [],
        )
        for name, rate in (("wave", 1000), ("f0", 100), ("codes", 25))
    }
    data = Dataset(tracks)
    lengths = {"wave": 400, "f0": 40, "codes": 10}
    found = data.batches(lengths, 400, seed=0, update=0)
    assert {k: tuple(v.shape) for k, v in found.items()} == {k: (400, n, 1) for k, n in lengths.items()}
    starts = found["codes"][:, 0, 0]
    assert torch.equal(starts, found["wave"][:, 0, 0]) and torch.equal(starts, found["f0"][:, 0, 0])
    assert (starts % 40 == 0).all() and len(set(starts.tolist())) == 16 + 41 + 1 and 2e6 in starts
    again = data.batches(lengths, 200, seed=0, update=0, rank=1)
    assert all(torch.equal(found[k][200:], again[k]) for k in lengths)
    held = data.validation_batches(lengths, 10)
    assert held["wave"][:, 0, 0].tolist() == [0, 400, 800, 1200, 1600] == held["codes"][:, 0, 0].tolist()
    assert refused(lambda: data.input).code == "GS0190"
    assert refused(lambda: data.batches({**lengths, "codes": 99}, 1, 0, 0)).code == "GS0614"


# ---- several inputs --------------------------------------------------------------------------------------------------

BOTH = spec(
    f"wave: float[T, 1] @ {RATE}\nf0: float[N, 1] @ {RATE}/80",
    'wave: audio_folder("d")\nf0: array_folder("d")',
    "{T: 1600}",
    "require: [T == N * 80]",
)


def pitch(folder: Path, number: int, frames: int) -> None:
    save(folder, f"take{number}", np.full((frames, 1), 440.0, np.float32))


def test_inputs_are_matched_by_name(tmp_path: Path, open_data) -> None:
    folder = tmp_path / "d"
    recordings(folder, 1, 2, 1.5, 1, 1, 1)
    for number, frames in ((1, 100), (2, 201), (3, 149), (4, 80), (6, 100), (7, 100)):
        pitch(folder, number, frames)
    data, told = open_data(BOTH, shortest="crop")
    assert [p.name for p in data.tracks["f0"].train] == ["take1.npy", "take2.npy"]
    assert [p.name for p in data.tracks["wave"].test] == ["take6.wav"]
    assert [d.code for d in told] == ["GS0654"] and told[0].severity == "warning"
    assert data.skipped == [
        "take4: 1.000 s of 'wave', 0.800 s of 'f0'",
        "take5: there is none for 'f0'",
        "take7: there is none for 'wave'",
    ]
    found = data.batches({"wave": 1600, "f0": 20}, 3, 0, 0)
    assert found["wave"].shape == (3, 1600, 1) and found["f0"].shape == (3, 20, 1)
    for number in (1, 2, 3):
        (folder / f"take{number}.npy").rename(folder / f"other{number}.npy")
    assert refused(lambda: open_data(BOTH)).code == "GS0654"


def test_sources_of_several_inputs_hold_out_the_same(tmp_path: Path, open_data) -> None:
    recordings(tmp_path / "d", 1, 1, 1, 1)
    for number in range(1, 5):
        pitch(tmp_path / "d", number, 100)
    text = BOTH.replace('f0: array_folder("d")', 'f0: array_folder("d", held_out=0)')
    assert refused(lambda: open_data(text)).code == "GS0655"


def test_a_file_too_short_for_the_crop_of_any_input(tmp_path: Path, open_data) -> None:
    recordings(tmp_path / "d", 1, 0.19, 1, 1)
    for number in range(1, 5):
        pitch(tmp_path / "d", number, 19 if number == 2 else 100)
    data, told = open_data(BOTH, shortest="crop")
    assert [d.code for d in told] == ["GS0614"] and "take2.wav" in told[0].message


def test_crop_lengths(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(BOTH)
    assert crop_lengths(check_spec(str(path))) == {"wave": 1600, "f0": 20}
    path.write_text(BOTH.replace("{T: 1600}", "{N: 20}"))
    assert crop_lengths(check_spec(str(path))) == {"wave": 1600, "f0": 20}
    path.write_text(BOTH.replace("{T: 1600}", "{T: 1600, N: 20}"))
    assert crop_lengths(check_spec(str(path))) == {"wave": 1600, "f0": 20}
    path.write_text(BOTH.replace("require: [T == N * 80]", "").replace("1600", "1601"))
    assert refused(lambda: crop_lengths(check_spec(str(path)))).code == "GS0656"
    path.write_text(BOTH.replace(", crop: {T: 1600}", ""))
    assert refused(lambda: crop_lengths(check_spec(str(path)))).code == "GS0607"


def test_the_corpus_serves_two_inputs_alike(open_data) -> None:
    inputs = "coarse: int(256)[T, 1] @ 8000\nfine: int(16)[T, 1] @ 8000"
    data, _ = open_data(spec(inputs, "coarse: corpus(pieces=4, seconds=1)\nfine: corpus(pieces=4, seconds=1)"))
    assert len(data.train) == 2 and isinstance(data.audio, Audio)
    found = data.batches({"coarse": 64, "fine": 64}, 2, 0, 0)
    assert (found["coarse"] // 16 - found["fine"]).abs().max() <= 1


def test_one_input_reads_as_before() -> None:
    """The draw of a crop is part of what a run is: this pins it."""
    data = one(1000, 500)
    assert data.batch(100, 3, seed=7, update=11)[:, 0, 0].tolist() == [862, 644, 428]
