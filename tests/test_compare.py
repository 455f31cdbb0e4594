"""`graphspec compare`: what differs between runs, their values side by side, and a page that any browser draws."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from graphspec.__main__ import main
from graphspec.runtime import figures

SPEC = """graphspec: 1
model: tiny
params: {width: 8}
inputs:
  wave: float[T, 1] @ 8000
graph:
  y: wave |> linear(width)
train:
  steps: 20
"""
HEAD = "step,loss.nll,accuracy,lr,valid.nll,seconds,cpu_seconds\n"
SVG = "{http://www.w3.org/2000/svg}"


def made(runs: Path, name: str, overrides: list[str], width: int, rows: str) -> None:
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(SPEC)
    environment = {"torch": "2.13.0", "threads": 1}
    config = {"spec": "./tiny.yaml", "overrides": overrides, "params": {"width": width}, "environment": environment}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.csv").write_text(HEAD + rows)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)
    made(
        tmp_path / "runs",
        "a",
        [],
        8,
        "0,,,,4.0,,\n10,3.5,0.1,1e-2,,1,1\n20,3.0,0.3,5e-3,2.5,2,2\n30,3.25,0.2,1e-3,2.75,3,3\n",
    )
    made(tmp_path / "runs", "b", ["width=16", "train.steps=30"], 16, "10,3.75,0.2,1e-2,,1,1\n20,nan,0.2,1e-2,,2,2\n3")
    return tmp_path / "runs"


def cells(text: str) -> dict[str, list[str]]:
    """Rows of the printed tables by their first cell; cells stand two spaces apart at least."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


def test_settings_that_differ_and_values_side_by_side(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "b" / "test.json").write_text('{"files": ["x.wav"], "nll.bits": 1.5}')
    assert main(["compare", "a", "b"]) == 0
    told = cells(capsys.readouterr().out)
    assert told["params.width"] == ["8", "16"]
    assert told["train.steps"] == ["20", "30"]
    assert "model" not in told and "environment.torch" not in told  # these are equal
    assert told["step"] == ["30", "20"]
    assert told["loss.nll"] == ["3.25, 3 at 20", "3.75, 3.75 at 10"]
    assert told["accuracy"] == ["0.2, 0.3 at 20", "0.2, 0.2 at 10"]  # more of it is better
    assert told["valid.nll"] == ["2.75, 2.5 at 20", "-"]
    assert told["lr"] == ["0.001", "0.01"]
    assert told["not finite"] == ["0", "1"]
    assert told["test.nll.bits"] == ["-", "1.5"]


def test_the_page_holds_every_curve_of_every_run(runs: Path) -> None:
    assert main(["compare", "a", str(runs / "b"), "-o", "out/page.html"]) == 0
    text = Path("out/page.html").read_text()
    assert not re.search(r"(src|href)=|<script", text)  # nothing is fetched, nothing runs
    svgs = [xml.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S)]
    titles = [f.findtext(f"{SVG}text") for f in svgs]
    assert titles == ["loss.nll", "accuracy", "lr", "valid.nll"]
    drawn = [len(f.findall(f"{SVG}polyline")) + len(f.findall(f"{SVG}circle")) for f in svgs]
    assert drawn == [2, 2, 2, 1]
    for f in svgs:
        for line in f.iter(f"{SVG}polyline"):
            points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
            assert all(0 <= x <= figures.WIDTH and 0 <= y <= figures.HEIGHT for x, y in points)


def test_names_from_outside_are_text_not_markup(runs: Path) -> None:
    (runs / "a").rename(runs / "<b>&x")
    assert main(["compare", "<b>&x", "b"]) == 0
    text = (runs / "<b>&x" / "compare.html").read_text()
    assert "<b>" not in text and "&lt;b&gt;&amp;x" in text


def test_a_spec_whose_base_is_gone_is_compared_by_its_params(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (runs / name / "spec.yaml").write_text("graphspec: 1\nmodel: tiny\nextends: gone\n")
    assert main(["compare", "a", "b"]) == 0
    told = cells(capsys.readouterr().out)
    assert told["params.width"] == ["8", "16"] and told["train.steps"] == ["-", "30"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("GS0663", ["a"]),
        ("GS0663", ["a", "./runs/a"]),
        ("GS0624", ["a", "c"]),
        ("GS0663", ["a", "empty"]),
        ("GS0663", ["a", "broken"]),
        ("GS0663", ["a", "b", "-o", "page.txt"]),
        ("GS0663", ["a", "b", "-o", "runs/page.html"]),
    ],
)
def test_misuse_has_a_code(runs: Path, capsys: pytest.CaptureFixture[str], code: str, words: list[str]) -> None:
    made(runs, "empty", [], 8, "")
    made(runs, "broken", [], 8, "10,1,1,1,,1,1\n")
    (runs / "broken" / "config.json").write_text("[]")
    (runs / "page.html").mkdir()
    assert main(["compare", *words]) == 1
    assert f"error[{code}]" in capsys.readouterr().err


def test_it_needs_no_torch(runs: Path) -> None:
    script = (
        "import sys\nfrom graphspec.__main__ import main\nassert main(['compare', 'a', 'b']) == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 1e-9), (1e-7, 3e-7), (0, 12345), (99.9, 100)])
def test_marks_are_round_and_within(low: float, high: float) -> None:
    marks = figures.marks(low, high)
    assert 4 <= len(marks) + 1 and len(marks) <= 10
    assert all(low - 1e-12 <= m <= high + 1e-12 for m in marks)


def test_a_long_curve_is_thinned_and_a_few_outliers_do_not_flatten_it() -> None:
    curve = [(i, 1.0 + (i % 7) / 10) for i in range(10_000)]
    curve[0] = (0, 1e6)
    assert len(figures.thinned(curve)) <= figures.MOST
    low, high = figures.frame([v for _, v in curve])
    assert low == 1.0 and high < 3
