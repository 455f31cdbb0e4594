"""`train.dump` and `graphspec plot`: what is written down and drawn, and that training is the same with and without."""

from __future__ import annotations

import csv
import json
import re
import struct
import xml.etree.ElementTree as xml
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from graphspec.__main__ import main
from graphspec.cli.load import check_spec
from graphspec.cli.trained import open_model
from graphspec.compiler.lower import lower
from graphspec.diagnostic import SpecError
from graphspec.runtime import data as datasets
from graphspec.runtime import dump, figures, plot, snapshot
from graphspec.runtime.run import Run

SPEC = """\
graphspec: 1
model: tiny
params: {d: 4, drop: 0.2}
inputs:
  wave: f32[T, 1] @ 4000
use: [std/core]
graph:
  h: wave[t-1] |> conv(d, k=4) |> tanh |> dropout(drop)
  gain: h |> linear(1) |> sigmoid
  bands: h |> linear(8) |> softmax
  audio: (h |> linear(1)) * gain + 0.01 * (bands |> linear(1))
  level: mean(abs(audio))
losses:
  l2: mean(square(audio - wave))
metrics:
  top_share: max(bands)
outputs: [audio]
data: {wave: "corpus(pieces=4, seconds=1)"}
train:
  optimizer: adam()
  lr: 1e-2
  batch: 2
  crop: {T: 512}
  steps: 8
  validate_every: 4
  save_every: 4
  log_every: 1
"""
DUMPED = ["train.dump=gain,bands,h", "train.dump_every=2"]


def rows(run: str) -> list[dict[str, str]]:
    """metrics.csv without its times."""
    found = csv.DictReader((Path("runs") / run / "metrics.csv").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that dumps, in two halves, and one that does not."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("dump")
    (place / "tiny.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train", "tiny.yaml", "--run", "plain"]) == 0
        assert main(["train", "tiny.yaml", "--run", "dumped", "train.steps=4", *DUMPED]) == 0
        assert main(["train", "tiny.yaml", "--run", "dumped", "--resume", *DUMPED]) == 0
    return place


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_training_is_the_same_with_and_without_across_a_resume() -> None:
    assert rows("dumped") == rows("plain") and len(rows("plain")) == 9
    a, b = (load_file(Path("runs") / run / "model.safetensors") for run in ("plain", "dumped"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert not (Path("runs") / "plain" / "dumps").exists()


def test_a_dump_holds_the_values_and_what_made_them() -> None:
    run, model, place = open_model("dumped", "cpu", print)
    assert dump.steps(run) == [0, 2, 4, 6, 8]
    arrays, told = dump.read(run, 8)
    assert {n: a.shape for n, a in arrays.items()} == {"gain": (512, 1), "bands": (512, 8), "h": (512, 4)}
    assert told["step"] == 8 and told["values"]["bands"] == {"type": "f32[T, 8] @ 4 kHz", "hz": 4000.0}
    assert "train.dump_every=2" in told["config"]["overrides"]
    data = datasets.load(model.checked, place, print, 512)
    values = {n: model.graph.named[n] for n in arrays}
    again, scores = dump.evaluated(model, values, dump.first_crop(model, data))
    assert all(np.array_equal(arrays[n], again[n]) for n in arrays)
    assert told["validation"] == scores and scores.keys() == {"l2", "top_share"}
    np.testing.assert_allclose(arrays["bands"].sum(1), 1, rtol=1e-5)


def test_dumps_are_thinned_over_the_whole_run_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "KEPT", 4)
    words = ["train.dump=gain", "train.dump_every=1", "train.steps=7", "train.crop.T=64"]
    assert main(["train", "tiny.yaml", "--run", "thinned", *words]) == 0
    assert dump.steps(Run(Path("runs/thinned"))) == [0, 4, 7]


def test_a_disk_that_takes_no_dump_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("runs/full")
    folder.mkdir(parents=True)
    (folder / "dumps").write_text("no folder")
    words = ["train.dump=gain", "train.dump_every=2", "train.steps=2", "train.crop.T=64"]
    assert main(["train", "tiny.yaml", "--run", "full", *words]) == 0
    assert "warning[GS0622]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "blamed", "says"),
    [
        ("train.dump=gain, bnds", "bnds", "did you mean 'bands'?"),
        ("train.dump=[gain,nothing.at]", "nothing.at", "there is no value 'nothing.at'"),
        ("train.dump=7", "7", "there is no value '7'"),
    ],
)
def test_a_name_of_nothing_is_blamed_at_its_place(written: str, blamed: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_spec("./tiny.yaml", [written])
    (found,) = caught.value.diagnostics
    assert found.code == "GS0690" and found.span is not None and found.span.text == blamed
    assert says in found.message


def test_names_in_a_list_of_the_spec(tmp_path: Path) -> None:
    path = tmp_path / "listed.yaml"
    path.write_text(SPEC + "  dump: [gain, audio, wave, h.conv]\n")
    assert check_spec(str(path)).settings.numbers["dump"] == ["gain", "audio", "wave", "h.conv"]
    path.write_text(SPEC + "  dump: [gain, oudio]\n")
    with pytest.raises(SpecError) as caught:
        check_spec(str(path))
    assert [(d.code, d.span.text) for d in caught.value.diagnostics if d.span] == [("GS0690", "oudio")]


def test_the_page_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "dumped", "--values", "gain,bands,h,level", "-o", "page.html"]) == 0
    text = Path("page.html").read_text()
    assert not re.search(r"<script|src=", text)
    assert set(re.findall(r'href="(\w+)', text)) == {"data"}  # pictures inside; nothing is fetched
    titles = [xml.fromstring(s)[0].text for s in re.findall(r"<svg.*?</svg>", text, re.S)]
    assert titles == [
        *("gain", "bands", "h", "wave (target)", "audio (output)"),
        *("l2", "top_share", "learning rate", "gradient norm"),
    ]
    assert "seconds" in text and ">Hz<" in text and "Values without time" in text


def test_the_page_of_what_was_dumped() -> None:
    assert main(["plot", "dumped", "--step", "4", "--values", "bands"]) == 0
    text = Path("runs/dumped/plot.html").read_text()
    assert "dumped after update 4" in text and ">bands<" in text and ">gain<" not in text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("GS0624", ["nowhere"]),
        ("GS0690", ["dumped", "--values", "gian"]),
        ("GS0691", ["dumped", "--step", "3"]),
        ("GS0691", ["dumped", "--step", "4", "--values", "audio"]),
        ("GS0691", ["dumped", "-o", "page.pdf"]),
        ("GS0691", ["dumped", "--step", "4", "-o", "tiny.yaml/page.html"]),
    ],
)
def test_misuse_has_a_code(capsys: pytest.CaptureFixture[str], code: str, words: list[str]) -> None:
    assert main(["plot", *words]) == 1
    assert f"error[{code}]" in capsys.readouterr().err


def test_a_tone_is_at_its_frequency_in_the_spectrogram() -> None:
    rate = 8000
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)[:, None]
    power, seconds = plot._power(tone, rate)
    assert seconds == 1.0
    peak = power[:, power.shape[1] // 2].argmax() / (len(power) - 1) * rate / 2
    assert abs(peak - 1000) < rate / 256 / 2


def test_a_picture_has_index_0_at_the_bottom_and_survives_its_png() -> None:
    picture = plot._picture(np.array([[0.0, 1.0], [2.0, 3.0]]), 0.0, 3.0, "")
    assert list(picture.levels) == [170, 255, 0, 85]
    data = figures.png(picture.levels, 2, 2)
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (2, 2)
    at = data.index(b"IDAT")
    size = struct.unpack(">I", data[at - 4 : at])[0]
    assert zlib.decompress(data[at + 4 : at + 4 + size]) == b"\0\xaa\xff\0\x00\x55"


def test_long_values_are_drawn_from_lowest_to_highest_and_nothing_breaks_on_nan() -> None:
    x = np.zeros(100_000)
    x[50_000] = 9.0
    line = plot._line(x, 16_000)
    assert len(line) <= figures.MOST and max(v for _, v in line) == 9.0
    shown = plot.Shown(np.array([[np.nan], [1.0], [np.inf]]), 10.0)
    assert "2 numbers are not finite" in plot._value("bad", shown)


def test_logarithmic_marks() -> None:
    assert [t for _, t in figures.log_marks(-2, 1)] == [
        "0.01",
        "0.02",
        "0.05",
        "0.1",
        "0.2",
        "0.5",
        "1",
        "2",
        "5",
        "10",
    ]
    assert 4 <= len(list(figures.log_marks(-2, 19))) <= 10
    assert [t for _, t in figures.log_marks(0, 0.3)] == ["1", "1.2", "1.4", "1.6", "1.8"]


def test_the_sound_of_a_spec_whose_output_is_sound(tmp_path: Path) -> None:
    _, model, place = open_model("dumped", "cpu", print)
    data = datasets.load(model.checked, place, print, 512)
    found = snapshot.sounds(model, data, tmp_path, "cell", 1000.0, 8)
    assert list(found) == ["wave (target)", "audio"] and all(p.stat().st_size == 44 + 2 * 512 for p in found.values())
    times = snapshot.timed_passes(model, data)
    assert times["parameters"] == sum(p.numel() for p in model.parameters())
    assert times["forward_seconds"] > 0 and times["backward_seconds"] > 0
    assert json.dumps(times)


def test_values_that_eval_replaces_are_as_in_training_and_what_follows_them_is_not(tmp_path: Path) -> None:
    path = tmp_path / "replaced.yaml"
    path.write_text(
        SPEC.replace("  gain: h |> linear(1)", "  h2: 2 * h\n  gain: h2 |> linear(1)") + "eval: {h2: 0 * h}\n"
    )
    model = lower(check_spec(str(path)))
    values = {n: model.graph.named[n] for n in ("h2", "h", "gain")}
    crop = {"wave": torch.randn(1, 64, 1, generator=torch.Generator().manual_seed(0))}
    found, _ = dump.evaluated(model, values, crop)
    np.testing.assert_array_equal(found["h2"], 2 * found["h"])
    assert np.ptp(found["gain"]) == 0 and np.ptp(found["h"]) > 0
