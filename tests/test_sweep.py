"""`graphspec sweep`: the grid, its processes, what a kill leaves, and the table and page of what came out."""

from __future__ import annotations

import csv
import math
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from graphspec.__main__ import main
from graphspec.cli import sweep_command
from graphspec.cli.load import check_spec
from graphspec.diagnostic import SpecError
from graphspec.runtime import sweep, sweep_table
from graphspec.runtime.grid import Cell, read_grid, split
from graphspec.runtime.sweep import Job

SPEC = """\
graphspec: 1
model: tiny
params: {d: 4}
inputs:
  wave: {type: "int(16)[T, 1] @ 4000", before: 8}
graph:
  dist: wave[t-1] |> embed(d) |> conv(d, k=4) |> tanh |> categorical(16)
losses: {nll: "nll(dist, wave)"}
data: {wave: "corpus(pieces=4, seconds=1)"}
train:
  optimizer: adam()
  lr: 1e-2
  batch: 2
  crop: {T: 256}
  validate_every: 4
  save_every: 4
  log_every: 1
sample: {feed: {wave: draw(dist)}}
"""
LOOSE = {"train.steps"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mlp", ["mlp"]),
        ("mlp, gru", ["mlp", "gru"]),
        ("[1,2],[3,4]", ["[1,2]", "[3,4]"]),
        ("adam(betas=[0.9, 0.99]),sgd()", ["adam(betas=[0.9, 0.99])", "sgd()"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("{a: (1,2)},", ["{a: (1,2)}", ""]),
        ("]a,b", ["]a", "b"]),
        ("", [""]),
    ],
)
def test_commas_in_brackets_and_quotes_part_nothing(text: str, parts: list[str]) -> None:
    assert split(text) == parts


def test_a_grid_is_the_product_of_its_lists(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    cells = read_grid([f"data={folder}", "d=4,8", "train.dump=x,y", "smooth=none,one_pole", "train.steps=5"])
    assert [c.title for c in cells] == [f"d={d} smooth={s}" for d in (4, 8) for s in ("none", "one_pole")]
    assert cells[0].overrides == (f"data={folder}", "d=4", "train.dump=x,y", "smooth=none", "train.steps=5")


def test_a_cell_is_found_again_by_what_is_trained(tmp_path: Path) -> None:
    (small,) = [c for c in read_grid(["d=4,8", "train.steps=5"]) if c.values["d"] == "4"]
    there = small.folder(tmp_path, SPEC, LOOSE)
    there.mkdir()
    longer = read_grid(["train.steps=9", "d=2,4,8"])[1]
    other = read_grid(["d=4", "train.lr=1,2"])[0]
    assert longer.folder(tmp_path, SPEC, LOOSE) == there  # in a grid that grew, trained on
    assert other.folder(tmp_path, SPEC, LOOSE) != there
    assert small.folder(tmp_path, SPEC + "# changed\n", LOOSE) != there
    odd = Cell({"a.x": "f(../..)/[1,2] " * 9}, ("x",)).folder(tmp_path, SPEC, LOOSE)
    assert odd.parent == tmp_path and len(odd.name) < 80


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("GS0692", ["d=4"]),
        ("GS0692", []),
        ("GS0692", ["d=4,,8"]),
        ("GS0692", ["d=4,4"]),
        ("GS0692", ["d=4,8", "d=2"]),
        ("GS0692", [f"a{i}=1,2" for i in range(10)]),
        ("GS0210", ["dd=4,8"]),
        ("GS0602", ["train.stops=4,8"]),
        ("GS0693", ["d=4,8", "--out", "tiny.yaml"]),
    ],
)
def test_misuse_has_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)
    assert main(["sweep", "tiny.yaml", *words]) == 1
    assert f"error[{code}]" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# ---- processes, of which any will do --------------------------------------------------------------------------------


def jobs(folder: Path, count: int) -> list[Job]:
    cells = [Cell({"d": str(i)}, (f"d={i}",)) for i in range(count)]
    return [Job(c, folder / "cells" / str(i), folder / f"{i}.txt", 5) for i, c in enumerate(cells)]


def shell(script: str) -> Callable[[Job, bool], list[str]]:
    """A command that is told its folder and whether it resumes."""
    return lambda job, resume: ["sh", "-c", script, "sh", str(job.folder), "resume" if resume else "new"]


def test_a_failure_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    made = jobs(tmp_path, 3)
    script = (
        "case $1 in */1) echo 'error[GS0612]: the loss is not finite'; exit 1;; */2) echo out of luck; exit 9;; esac"
    )
    with sweep.alone(tmp_path) as lock:
        assert sweep.train_all(made, shell(script), 2, lock, lambda job: None) is None
    assert [j.state for j in made] == ["finished", "failed", "failed"]
    assert [j.why for j in made] == ["", "GS0612 the loss is not finite", "exit code 9: out of luck"]


def test_what_was_begun_is_resumed_unless_nothing_was_saved(tmp_path: Path) -> None:
    made = jobs(tmp_path, 3)
    for job in made[1:]:
        job.folder.mkdir(parents=True)
        (job.folder / "config.json").write_text("{}")
    (made[2].folder / "checkpoints" / "4").mkdir(parents=True)
    with sweep.alone(tmp_path) as lock:
        sweep.train_all(made, shell('echo "$2"'), 1, lock, lambda job: None)
    assert [j.log.read_text().strip() for j in made] == ["new", "new", "resume"]
    assert not (made[1].folder / "config.json").exists()


def test_a_signal_is_handed_on_and_nothing_new_begins(tmp_path: Path) -> None:
    made = jobs(tmp_path, 3)
    begun = []

    def tell(job: Job) -> None:
        begun.append(job)
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with sweep.alone(tmp_path) as lock:
        ended = sweep.train_all(made, lambda job, resume: ["sleep", "60"], 2, lock, tell)
    assert ended == signal.SIGINT
    assert [j.state for j in made] == ["stopped", "stopped", "waiting"]


def test_a_fault_leaves_no_training_behind(tmp_path: Path) -> None:
    made = jobs(tmp_path, 2)

    def tell(job: Job) -> None:
        raise BrokenPipeError

    began = time.monotonic()
    with sweep.alone(tmp_path) as lock, pytest.raises(BrokenPipeError):
        sweep.train_all(made, lambda job, resume: ["sleep", "60"], 2, lock, tell)
    assert time.monotonic() - began < 30
    with sweep.alone(tmp_path):  # the lock is free, so the process is gone
        pass


def test_one_sweep_at_a_time_also_while_a_training_of_it_lives_on(tmp_path: Path) -> None:
    with sweep.alone(tmp_path) as lock:
        with pytest.raises(SpecError, match="GS0693"), sweep.alone(tmp_path):
            pass
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    try:
        with pytest.raises(SpecError, match="GS0693"), sweep.alone(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
    with sweep.alone(tmp_path):
        pass


# ---- the table ------------------------------------------------------------------------------------------------------


def test_the_slope_is_that_of_the_last_half() -> None:
    curve = [(s, 5.0 if s <= 50 else math.exp(-0.002 * s)) for s in range(0, 101, 10)]
    assert sweep_table.slope(curve) == pytest.approx(-2.0)
    assert sweep_table.slope([(s, v - 1) for s, v in curve]) is None  # below 0 there is no logarithm
    assert sweep_table.slope(curve[:3]) is None


def test_seconds_an_update_leave_out_validations_and_restarts() -> None:
    clock = [(10, 1.0), (20, 2.0), (30, 3.0), (40, 9.0), (50, 0.5), (60, 1.5)]
    assert sweep_table.an_update(clock) == pytest.approx(0.1)
    assert sweep_table.an_update([(10, 1.0)]) is None


def test_the_total_takes_weights_as_they_were() -> None:
    curves = {
        "loss.a": [(1, 1.0), (2, 2.0)],
        "loss.b": [(1, 3.0), (2, 4.0), (3, 5.0)],
        "weight.b": [(1, 10.0), (2, 20.0)],
    }
    assert sweep_table.total(curves, {"a": 2.0, "b": None}, "loss.") == [(1, 32.0), (2, 84.0)]
    assert sweep_table.total(curves, {"a": 2.0, "c": 1.0}, "loss.") == []


def test_a_changed_base_is_another_cell(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("graphspec: 1\nmodel: child\nextends: base\n")
    cell, folders = Cell({"d": "2"}, ("d=2",)), []
    for rate in ("1e-3", "1e-3", "2e-3"):
        (tmp_path / "base.yaml").write_text(SPEC.replace("lr: 1e-2", f"lr: {rate}"))
        checked = check_spec(str(child), cell.overrides)
        folders.append(sweep_command._job(cell, checked, tmp_path, str(child)).folder)
    assert folders[0] == folders[1] != folders[2]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"top_share.first": 0.2, "top_share.last": 0.95}, "collapsed: top_share is 0.95"),
        ({"harmonic_entropy.first": 3.0, "harmonic_entropy.last": 0.2}, "collapsed: harmonic_entropy fell"),
        ({"top_share.first": 0.2, "top_share.last": 0.5}, ""),
        ({"amp_range.first": 1.5, "amp_range.last": 1.001}, "collapsed: amp_range is 1.001"),
        ({"amp_range.first": 1.1, "amp_range.last": 1.65}, "near collapse: amp_range is 1.65"),
        ({"best": 2.0}, "collapsed: the validation loss never"),
        ({"last": 3.0}, "diverged"),
        ({}, ""),
    ],
)
def test_a_collapse_is_said_plainly(values: dict[str, float], says: str) -> None:
    numbers = {"updates": 9.0, "first": 2.0, "best": 1.0, "last": 1.5, **values}
    metrics = [n.removesuffix(".first") for n in values if n.endswith(".first")]
    told = sweep_table.reading(numbers, metrics)
    assert told.startswith(says) and bool(told) == bool(says)


def test_one_run_may_be_luck() -> None:
    """Where settings were trained from several seeds their means are told, the best first."""
    losses = {("gru", "0"): 3.0, ("gru", "1"): 3.5, ("mlp", "0"): 2.5, ("mlp", "1"): 4.5}
    results = []
    for (body, seed), best in losses.items():
        job = Job(Cell({"backbone": body, "train.seed": seed}, ()), Path(), Path(), 9, state="finished")
        results.append(sweep_table.Result(job, {"best": best, "best_at": 5.0, "updates": 9.0}))
    told = sweep_table.plainly(results)
    assert told[0].startswith("best: backbone=mlp seed=0, 2.5")
    assert told[1] == "means over seeds: backbone=gru 3.25 (3 to 3.5); backbone=mlp 3.5 (2.5 to 4.5)"
    assert not any("means" in line for line in sweep_table.plainly(results[::2]))


# ---- the command ----------------------------------------------------------------------------------------------------


def in_this_process(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """`python -m graphspec ...` without the seconds that a new process takes."""
    return subprocess.CompletedProcess(words, main(words[3:]), "", "")


@pytest.mark.full
def test_a_grid_is_interrupted_goes_on_and_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "tiny.yaml").write_text(SPEC)
    words = ["sweep", "./tiny.yaml", "--out", "grid", "--audio", "0.02"]
    monkeypatch.setattr(sweep_command.subprocess, "run", in_this_process)

    def interrupt() -> None:
        while not any(p.read_text().count("\n") > 8 for p in Path("grid/cells").glob("*/metrics.csv")):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=interrupt, daemon=True).start()
    assert main([*words, "d=2,4", "train.steps=100000"]) == 130
    said = "".join(capsys.readouterr())
    assert "d=2: stopped" in said and "the same command goes on" in said
    (first,) = csv.DictReader(Path("grid/sweep.csv").read_text().splitlines()[:2])
    assert first["state"] == "stopped" and int(first["updates"]) > 4

    again = [*words, "d=2,4,none", "train.steps=6", "--jobs", "2"]  # fewer updates than the first cell has
    assert main(again) == 0
    done = list(csv.DictReader(Path("grid/sweep.csv").read_text().splitlines()))
    assert [r["state"].partition(" ")[0] for r in done] == ["finished", "finished", "failed:"]
    assert int(done[0]["updates"]) >= int(first["updates"]) and done[1]["updates"] == "6"
    assert float(done[1]["best"]) < float(done[1]["first"])
    assert int(done[1]["parameters"]) > int(done[0]["parameters"]) > 0
    text = Path("grid/sweep.html").read_text()
    assert all((Path("grid") / p.replace("%3D", "=")).is_file() for p in re.findall(r'src="([^"]+)"', text))
    assert text.count("<audio") == 2 and "<script" not in text
    titles = [xml.fromstring(s)[0].text for s in re.findall(r"<svg.*?</svg>", text, re.S)]
    assert titles == ["validation loss", "training loss", "gradient norm"]

    monkeypatch.setattr(sweep.subprocess, "Popen", None)  # nothing is run again
    before = Path("grid/sweep.csv").read_bytes()
    capsys.readouterr()
    assert main(again) == 0
    assert "3 cells, 2 of them finished before" in capsys.readouterr().out
    assert Path("grid/sweep.csv").read_bytes() == before
