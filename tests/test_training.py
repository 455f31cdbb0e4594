"""Training through the command line: a run that is killed, stopped or damaged ends bit for bit as one left alone.

Kills and signals happen in processes of their own, when a chosen row of metrics.csv is written; the rest is run here.
"""

import csv
import io
import math
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from graphspec.__main__ import main
from graphspec.cli.load import check_spec
from graphspec.cli.trained import open_model
from graphspec.compiler.lower import lower
from graphspec.runtime import data as datasets
from graphspec.runtime import score as scoring
from graphspec.runtime.data import Piece
from graphspec.runtime.train import validate

SPEC = """\
graphspec: 1
model: little
params: {d: 8, drop: 0.1}
inputs:
  wave: {type: "int(16)[T, 1] @ 4000", before: 8}
require: [T % 4 == 0]
use: [std/core, std/sashimi]
graph:
  x0: wave[t-1] |> embed(d)
  m: x0 |> down_pool(4) |> s4_ff(8, 2, drop)
  y0: (x0 + (m |> up_pool(4))) |> s4_ff(8, 2, drop)
  dist: y0 |> layer_norm |> categorical(16)
causal: {dist: strict}
losses: {nll: "nll(dist, wave)"}
metrics: {bits: nll / log(2)}
outputs: [dist]
data: {wave: "corpus(pieces=4, seconds=1)"}
train:
  optimizer: adamw(weight_decay=0.01)
  lr: 4e-3
  groups:
    ssm: {lr: 1e-3, weight_decay: 0}
  steps: 12
  batch: 2
  crop: {T: 256}
  validate_every: 4
  save_every: 4
  log_every: 1
sample: {feed: {wave: draw(dist)}}
"""
# A command with a signal sent to itself once the row of a given update is in metrics.csv.
SIGNALLED = """\
import os, sys
from graphspec.runtime.log import MetricsLog
number, at = int(sys.argv[1]), int(sys.argv[2])
append = MetricsLog.append
def signalling(self, step, row):
    append(self, step, row)
    if step == at:
        os.kill(os.getpid(), number)
MetricsLog.append = signalling
from graphspec.__main__ import main
sys.exit(main(sys.argv[3:]))
"""
KILL, TERM = 9, 15


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Exact resume needs the same number of threads in every process."""
    before = torch.get_num_threads()
    yield torch.set_num_threads(1)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    (folder / "little.yaml").write_text(SPEC)
    return folder


def arguments(folder, run, *more):
    return ["train", str(folder / "little.yaml"), *more, "--run", str(folder / run), "--threads", "1"]


def together(*commands):
    """Each command line of Python in a fresh process, all at once: returncode, stdout, stderr of each."""
    options = {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [subprocess.Popen([sys.executable, *map(str, words)], **options) for words in commands]
    try:
        said = [p.communicate(timeout=120) for p in started]
    finally:
        for p in started:
            p.kill()
    return [subprocess.CompletedProcess(p.args, p.returncode, *s) for p, s in zip(started, said, strict=True)]


def here(words):
    """A command in this process, as `together` tells it."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def uninterrupted(folder):
    """12 updates, with dropout."""
    assert main(arguments(folder, "whole")) == 0
    return folder / "whole"


@pytest.fixture(scope="module")
def early(folder):
    """Two runs that end early, and go on.

    `killed`, when update 7 is logged, so that its last checkpoint is of update 4; `stopped` by SIGTERM at update 9,
    without dropout, after which its newest checkpoint is cut short. Both go on in this process, another than the one
    that began. Returns what each half said, and the rows and checkpoints there were in between.
    """
    killed, stopped = together(
        ("-c", SIGNALLED, KILL, 7, *arguments(folder, "killed")),
        ("-c", SIGNALLED, TERM, 9, *arguments(folder, "stopped", "drop=0")),
    )
    between = {run: (steps(folder / run), checkpoints(folder / run)) for run in ("killed", "stopped")}
    weights = folder / "stopped" / "checkpoints" / f"{9:010d}" / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    after_kill = here(arguments(folder, "killed", "--resume"))
    after_stop = here(arguments(folder, "stopped", "drop=0", "--resume"))
    return SimpleNamespace(
        between=between, killed=killed, stopped=stopped, after_kill=after_kill, after_stop=after_stop
    )


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def steps(run):
    return [int(row["step"]) for row in rows(run)]


def untimed(run):
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in rows(run)]


def checkpoints(run):
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())


def assert_equal_runs(run, other):
    assert untimed(run) == untimed(other)
    for name in ("model.safetensors", f"checkpoints/{12:010d}/optimizer.safetensors"):
        mine, theirs = load_file(run / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert mine[key].numpy().tobytes() == theirs[key].numpy().tobytes(), key


# ---- runs that end early ---------------------------------------------------------------------------------------------


def test_a_killed_run_resumes_bit_for_bit(folder, uninterrupted, early):
    assert early.killed.returncode == -KILL, early.killed.stderr
    assert early.between["killed"] == (list(range(8)), [0, 4])
    assert early.after_kill.returncode == 0, early.after_kill.stderr
    assert steps(uninterrupted) == list(range(13))
    assert_equal_runs(folder / "killed", uninterrupted)


def test_sigterm_saves_the_update_reached_and_exits_143(early):
    assert early.stopped.returncode == 143, early.stopped.stderr
    assert early.between["stopped"] == (list(range(10)), [4, 8, 9])
    assert "after update 9; saved" in early.stopped.stderr and "Traceback" not in early.stopped.stderr


def test_a_truncated_checkpoint_is_refused_and_the_one_before_loads(folder, early):
    assert early.after_stop.returncode == 0, early.after_stop.stderr
    assert "GS0620" in early.after_stop.stderr and f"{9:010d}" in early.after_stop.stderr
    assert main(arguments(folder, "left alone", "drop=0")) == 0
    assert_equal_runs(folder / "stopped", folder / "left alone")


def test_dropout_matters_to_the_runs_above(folder, uninterrupted, early):
    assert untimed(uninterrupted)[-1]["loss.nll"] != untimed(folder / "stopped")[-1]["loss.nll"]


def test_validation_is_the_same_before_and_after_a_resume(folder, uninterrupted, early):
    last = untimed(uninterrupted)[-1]
    _, model, beside = open_model(str(folder / "killed"), "cpu", lambda d: None)
    data = datasets.load(model.checked, beside, lambda d: None, 256)
    again = validate(model, data.input, data.validation_crops(256, 16))
    assert again == {"nll": float(last["valid.nll"]), "bits": float(last["valid.bits"])}
    first, end = float(rows(uninterrupted)[0]["valid.nll"]), again["nll"]
    assert f"validation nll: {first:.4f} before, {end:.4f} after" in early.after_kill.stdout


def test_resuming_a_finished_run_changes_nothing_and_says_how_it_ended(folder, uninterrupted, capsys):
    before, weights = untimed(uninterrupted), (uninterrupted / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert main(arguments(folder, "whole", "--resume")) == 0
    assert untimed(uninterrupted) == before and (uninterrupted / "model.safetensors").read_bytes() == weights
    assert f"{float(before[-1]['valid.nll']):.4f} after" in capsys.readouterr().out


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_run_that_exists_is_not_overwritten(folder, uninterrupted, capsys):
    before = {p: p.read_bytes() for p in uninterrupted.rglob("*") if p.is_file()}
    assert main(arguments(folder, "whole")) == 1
    assert "GS0623" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in uninterrupted.rglob("*") if p.is_file()}


def test_a_loss_that_is_not_finite_stops_the_run(folder, capsys):
    assert main(arguments(folder, "burst", "train.lr=1e30", "train.save_every=1")) == 1
    error = capsys.readouterr().err
    assert "GS0612" in error and "Traceback" not in error
    run = folder / "burst"
    reached = steps(run)[-1]
    assert 1 <= reached < 12 and checkpoints(run)[-1] == reached
    assert not (run / "model.safetensors").exists()
    assert all(math.isfinite(float(row["loss.nll"])) for row in rows(run)[1:])


@pytest.mark.parametrize(
    "code, more",
    [
        ("GS0626", ("--run", "whole", "--resume", "d=16")),
        ("GS0624", ("--run", "nowhere", "--resume")),
        ("GS0603", ("--run", "none", "train.steps=0")),
        ("GS0605", ("--run", "none", "train.crop.T=250")),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_code(folder, uninterrupted, capsys, code, more):
    words = [str(folder / w) if w in ("whole", "nowhere", "none") else w for w in more]
    assert main(["train", str(folder / "little.yaml"), *words]) == 1
    assert code in capsys.readouterr().err
    assert not (folder / "none").exists() and not (folder / "nowhere").exists()


def test_a_group_without_weights_is_refused(folder, capsys):
    (folder / "group.yaml").write_text(SPEC.replace("ssm:", "smm:"))
    assert main(["train", str(folder / "group.yaml"), "--run", str(folder / "group")]) == 1
    error = capsys.readouterr().err
    assert "GS0619" in error and "ssm" in error


# ---- what an update does ---------------------------------------------------------------------------------------------


def test_group_settings_hold_for_exactly_their_weights(folder):
    """AdamW's first update moves a weight by lr * sign(gradient), so how far a weight moved tells its rate."""
    groups = "ssm: {lr: 1e-2, weight_decay: 0}\n    dist: {lr: 1e-3}"
    text = SPEC.replace("ssm: {lr: 1e-3, weight_decay: 0}", groups).replace("weight_decay=0.01", "weight_decay=0")
    (folder / "groups.yaml").write_text(text)
    overrides = ["drop=0", "train.lr=1e-4", "train.steps=1"]
    assert main(["train", str(folder / "groups.yaml"), *overrides, "--run", str(folder / "groups")]) == 0
    before = lower(check_spec(str(folder / "groups.yaml"), overrides), seed=0).state_dict()
    after = load_file(folder / "groups" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        ssm = name.rpartition(".")[2] in ("log_dt", "log_a_re", "a_im", "b") and ".s4d." in name
        lr = 1e-2 if ssm else 1e-3 if name.startswith("dist.") else 1e-4
        assert (after[name] - weight).abs().max() == pytest.approx(lr, rel=0.02), name


@torch.no_grad()
def test_a_file_scored_with_state_carried_is_scored_whole(uninterrupted, monkeypatch):
    _, model, folder = open_model(str(uninterrupted), "cpu", lambda d: None)
    model.double()
    data = datasets.load(model.checked, folder, lambda d: None)
    (long,) = data.test
    pieces = [Piece("long", long.samples[:3001]), Piece("short", long.samples[3001:3100])]  # neither fills its block
    monkeypatch.setattr(scoring, "BLOCK", 257)
    told = {}
    found = scoring.score(model, data, pieces, lambda name, row: told.update({name: row}))
    total, ticks = 0.0, 0
    for piece in pieces:
        x = data.audio.tensor(piece.samples)[None]
        padded = torch.cat([x, x.new_zeros(1, -x.shape[1] % 4, 1)], 1)
        nats = model({"wave": padded})["losses.nll"][:, : x.shape[1]].sum().item()
        assert told[piece.name]["nll"] == pytest.approx(nats / x.shape[1], rel=1e-9)
        total, ticks = total + nats, ticks + x.shape[1]
    assert ticks == 3100
    assert found["nll"] == pytest.approx(total / ticks, rel=1e-9)
    assert found["bits"] == pytest.approx(total / ticks / math.log(2), rel=1e-9)


def test_eval_scores_a_run_from_the_command_line(uninterrupted, capsys):
    assert main(["eval", str(uninterrupted), "--threads", "1"]) == 0
    assert "test, 1 files" in capsys.readouterr().out
    assert Path(uninterrupted / "test.json").is_file()
