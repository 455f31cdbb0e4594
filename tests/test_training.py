"""Training through the command line: a run that is killed, stopped or damaged ends bit for bit as one left alone.

Kills and signals happen in processes of their own, when a chosen row of metrics.csv is written; the rest is run here.
"""

import csv
import io
import math
import os
import signal
import subprocess
import sys
import types
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
from graphspec.graph import Term, Value
from graphspec.runtime import data as datasets
from graphspec.runtime import score as scoring
from graphspec.runtime import train as training
from graphspec.runtime.data import Piece
from graphspec.runtime.forward import training_noise, validation_forward, validation_noise
from graphspec.runtime.log import MetricsLog
from graphspec.runtime.terms import Terms
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
    again = validate(model, data.validation_batches({"wave": 256}, 16))
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


def test_without_losses_there_is_nothing_to_train(folder, capsys):
    (folder / "aimless.yaml").write_text(WEIGHTY.split("losses:")[0] + "data:" + WEIGHTY.split("data:")[1])
    assert main(["train", str(folder / "aimless.yaml"), "--run", str(folder / "aimless")]) == 1
    assert "GS0637" in capsys.readouterr().err


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


# ---- settings of the update ------------------------------------------------------------------------------------------


def trained(folder, run, *more):
    """A run of this process, which must end well."""
    done = here(arguments(folder, run, *more))
    assert done.returncode == 0, done.stderr
    return folder / run


def losses(run):
    return [float(row["loss.nll"]) for row in rows(run)[1:]]


def validated(run):
    return {int(row["step"]): float(row["valid.nll"]) for row in rows(run) if row["valid.nll"]}


def tensors(run, step):
    folder = run / "checkpoints" / f"{step:010d}"
    return {p.name: load_file(p) for p in folder.glob("*.safetensors")}


TOGETHER = (
    "train.precision=bf16",
    "train.ema=0.9",
    "train.accumulate=2",
    "train.validate_every=1",
    "train.schedule=plateau(patience=0, factor=0.5, threshold=0.01)",
)


def test_a_run_in_two_parts_is_the_run_in_one(folder):
    """With bfloat16, an average, micro-batches and a schedule at once."""
    whole = trained(folder, "one part", *TOGETHER)
    half = trained(folder, "two parts", *TOGETHER, "train.steps=6")
    assert steps(half) == list(range(7))
    trained(folder, "two parts", *TOGETHER, "train.steps=12", "--resume")
    assert_equal_runs(half, whole)
    mine, theirs = tensors(half, 12), tensors(whole, 12)
    assert mine.keys() == theirs.keys() == {"weights.safetensors", "average.safetensors", "optimizer.safetensors"}
    for name, group in mine.items():
        assert group.keys() == theirs[name].keys()
        assert all(torch.equal(t, theirs[name][key]) for key, t in group.items())
    assert len({row["lr"] for row in rows(whole)[1:]}) > 1, "the schedule did nothing, so this shows nothing of it"
    meta = [(run / "checkpoints" / f"{12:010d}" / "meta.json").read_text() for run in (half, whole)]
    assert meta[0] == meta[1]


def test_micro_batches_are_the_rows_of_one_batch(folder):
    exact = ("train.precision=f64", "train.steps=4")
    one = trained(folder, "batch of 4", *exact, "train.batch=4")
    two = trained(folder, "2 of 2", *exact, "train.batch=2", "train.accumulate=2")
    assert losses(one) == pytest.approx(losses(two), rel=1e-12)
    a, b = tensors(one, 4)["weights.safetensors"], tensors(two, 4)["weights.safetensors"]
    for key, t in a.items():
        assert t.dtype == torch.float64
        torch.testing.assert_close(t, b[key], rtol=1e-6, atol=1e-9)  # Adam's first steps magnify a rounding error


WEIGHTY = """\
graphspec: 1
model: weighty
inputs:
  x: float[T, 1] @ 4000
graph:
  h: x[t-1] |> conv(4) |> dropout(0.3)
  y: h |> linear(1)
losses:
  a: {is: square(y - x), mask: x > 0.05}
  b: {is: abs(y), weight: 1 / (1 + step)}
  c: {is: mean(square(y)), weight: 0.5}
metrics: {size: mean(abs(y))}
data: {x: "corpus(pieces=4, seconds=1)"}
train: {optimizer: sgd(), lr: 1e-2, steps: 4, crop: {T: 64}, validate_every: 2, log_every: 1, precision: f64}
"""


def test_masks_weights_and_the_step(folder):
    """A masked loss is divided by the mask's sum over the whole update, however it is cut up."""
    (folder / "weighty.yaml").write_text(WEIGHTY)
    runs = []
    for run, more in (("w4", ["train.batch=4"]), ("w2", ["train.batch=2", "train.accumulate=2"])):
        words = ["train", str(folder / "weighty.yaml"), *more, "--run", str(folder / run), "--threads", "1"]
        assert here(words).returncode == 0
        runs.append(rows(folder / run))
    for one, two in zip(*runs, strict=True):
        for key, x in one.items():
            if x and "seconds" not in key:
                assert float(x) == pytest.approx(float(two[key]), rel=1e-11, abs=1e-13), key
    for i, row in enumerate(runs[0][1:]):
        assert float(row["weight.b"]) == pytest.approx(1 / (1 + i))
        assert float(row["weighted.b"]) == pytest.approx(float(row["loss.b"]) / (1 + i))


def test_terms_are_means_of_what_the_mask_leaves():
    draw = torch.Generator().manual_seed(0)
    value, weight = (torch.randn(4, 5, 2, generator=draw, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(4, 5, 2, generator=draw) > 0.5
    value[~mask] = math.nan
    each = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    term = Term("a", None, Value("w", None, None), None, Value("m", None, None))
    plain = Term("b", None, 0.5, None)
    terms = Terms(types.SimpleNamespace(losses=(term, plain), metrics=()))
    found = {"losses.a": value, "masks.a": mask, "weights.a": each, "losses.b": weight}
    (a, b, w, product), total = terms.means(found, {})
    assert terms.columns == ["loss.a", "loss.b", "weight.a", "weighted.a"]
    assert a == pytest.approx(value[mask].mean()) and b == pytest.approx(weight.mean()) and w == 2.5
    expected = (value * each[:, None, None])[mask].sum() / mask.sum()
    assert product == pytest.approx(expected) and total == pytest.approx(expected + 0.5 * weight.mean())
    halves = [{k: x[rows] for k, x in found.items()} for rows in (slice(0, 2), slice(2, 4))]
    share = {"a": mask.sum() / 2}
    assert sum(terms.means(f, share)[1] for f in halves) / 2 == pytest.approx(total)
    means, _ = terms.scores(torch.stack([terms.tallies(f) for f in halves]))
    assert means == pytest.approx({"a": a.item(), "b": b.item()})
    assert terms.means({**found, "masks.a": mask & False}, {})[0][0] == 0


def test_bfloat16_is_close_and_keeps_float32_where_it_is_declared(folder, uninterrupted):
    half = trained(folder, "bf16", "train.precision=bf16")
    assert losses(half) == pytest.approx(losses(uninterrupted), rel=0.02) and losses(half) != losses(uninterrupted)
    assert all(t.dtype == torch.float32 for t in load_file(half / "model.safetensors").values())
    model = lower(check_spec(str(folder / "little.yaml")), seed=0)
    seen = {}
    for value, module in model.modules_of.items():
        module.register_forward_pre_hook(
            lambda m, given, name=value.op.name: seen.setdefault(name, []).append(
                (torch.is_autocast_enabled("cpu"), {x.dtype for x in given if torch.is_tensor(x)})
            )
        )
    with torch.autocast("cpu", torch.bfloat16):
        found = model({"wave": torch.zeros(1, 256, 1, dtype=torch.long)})
    assert found["losses.nll"].dtype == torch.float32
    for name in ("s4d", "layer_norm", "nll"):
        assert all(not on and dtypes <= {torch.float32, torch.long} for on, dtypes in seen[name]), name
    assert all(on for on, _ in seen["linear"]) and any(torch.bfloat16 in d for _, d in seen["glu"])


def test_the_average_is_validated_and_kept_as_the_model(folder):
    run = trained(folder, "average", "train.ema=0.5")
    kept = tensors(run, 12)
    final, average = load_file(run / "model.safetensors"), kept["average.safetensors"]
    assert all(torch.equal(t, average[k]) for k, t in final.items())
    assert any(not torch.equal(t, kept["weights.safetensors"][k]) for k, t in final.items())
    _, model, beside = open_model(str(run), "cpu", lambda d: None)
    assert all(torch.equal(t, average[k]) for k, t in model.state_dict().items())
    crops = datasets.load(model.checked, beside, lambda d: None, 256).validation_batches({"wave": 256}, 16)
    assert validate(model, crops)["nll"] == validated(run)[12]


def test_a_schedule_lowers_the_rate_and_an_early_stop_ends_the_run(folder, capsys):
    stale = ("train.lr=1e-12", "train.validate_every=1", "train.groups.ssm.lr=1e-12", "train.steps=50")
    scheduled = ("train.schedule=plateau(patience=1, factor=0.1, threshold=1)", "train.early_stop=6")
    run = folder / "stale"
    assert main(arguments(folder, "stale", *stale, *scheduled)) == 0
    assert "stopped early after update" in capsys.readouterr().out
    rates = [float(row["lr"]) for row in rows(run)[1:]]
    assert rates[:4] == pytest.approx([1e-12, 1e-12, 1e-13, 1e-13]) and steps(run)[-1] < 50
    assert (run / "model.safetensors").exists()
    reached = steps(run)[-1]
    assert main(arguments(folder, "stale", *stale, *scheduled, "--resume")) == 0
    assert steps(run)[-1] == reached


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def at_updates(monkeypatch, spoil, wanted):
    """Call spoil(found) on the results of the forward passes with these numbers (from 1)."""
    forward, count = training.training_forward, iter(range(1, 10**6))

    def spoiled(*given):
        found = forward(*given)
        return spoil(found) if next(count) in wanted else found

    monkeypatch.setattr(training, "training_forward", spoiled)


def not_a_number(found):
    return {k: v * math.nan if k == "losses.nll" else v for k, v in found.items()}


def test_an_update_that_is_not_finite_is_skipped(folder, monkeypatch, capsys):
    at_updates(monkeypatch, not_a_number, {3, 4})
    assert main(arguments(folder, "skipping", "train.nonfinite=skip", "train.save_every=1", "train.steps=5")) == 0
    said = capsys.readouterr()
    assert said.err.count("GS0635") == 2 and "2 of 5 updates were not finite" in said.out
    run = folder / "skipping"
    assert [math.isnan(x) for x in losses(run)] == [False, False, True, True, False]
    before, after = tensors(run, 4), tensors(run, 3)
    assert all(torch.equal(t, after[g][k]) for g in before for k, t in before[g].items())


def test_many_updates_in_a_row_that_are_not_finite_stop_the_run(folder, monkeypatch, capsys):
    at_updates(monkeypatch, not_a_number, set(range(2, 50)))
    assert main(arguments(folder, "lost", "train.nonfinite=skip", "train.steps=50")) == 1
    error = capsys.readouterr().err
    assert "GS0612" in error and "update 12" in error and "Traceback" not in error


@pytest.mark.parametrize("cuda", [True, False])
def test_memory_that_runs_out_is_told_with_advice(folder, monkeypatch, capsys, cuda):
    def exhaust(found):
        if cuda:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return torch.empty(1 << 60)

    at_updates(monkeypatch, exhaust, {6})
    run = f"memory {cuda}"
    assert main(arguments(folder, run)) == 1
    error = capsys.readouterr().err
    assert "GS0634" in error and "train.accumulate" in error and "Traceback" not in error
    assert checkpoints(folder / run) == [0, 4]
    monkeypatch.undo()
    trained(folder, run, "--resume")


def test_tensorboard_is_an_extra(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(arguments(folder, "no board", "--tensorboard")) == 1
    assert "GS0636" in capsys.readouterr().err and not (folder / "no board").exists()
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append(("folder", folder, purge_step))

        def add_scalar(self, *scalar):
            written.append(scalar)

        def close(self):
            written.append("closed")

    fake = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    run = trained(folder, "board", "--tensorboard", "train.steps=2")
    assert written[0] == ("folder", str(run / "tensorboard"), None) and written[-1] == "closed"
    assert ("loss/nll", losses(run)[1], 2) in written and ("valid/nll", validated(run)[2], 2) in written


# ---- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_during_validation_saves_and_the_rest_is_as_if_it_had_not_come(folder, uninterrupted, monkeypatch):
    forward, count = training.validation_forward, iter(range(1, 10**6))
    crops = 15  # of one validation; the third of the second validation, at update 4, is interrupted

    def interrupted(*given):
        if next(count) == crops + 3:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(*given)

    monkeypatch.setattr(training, "VALIDATION_CROPS", crops)
    whole = trained(folder, "15 crops")
    monkeypatch.setattr(training, "validation_forward", interrupted)
    said = here(arguments(folder, "interrupted"))
    assert said.returncode == 130 and "after update 4; saved" in said.stderr
    run = folder / "interrupted"
    assert steps(run) == [0, 1, 2, 3] and checkpoints(run) == [0, 4]
    monkeypatch.setattr(training, "validation_forward", forward)
    trained(folder, "interrupted", "--resume")
    assert_equal_runs(run, whole)


def test_sigusr1_saves_and_goes_on(folder, uninterrupted, monkeypatch):
    append = MetricsLog.append

    def signalling(self, step, row):
        append(self, step, row)
        if step == 10:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(MetricsLog, "append", signalling)
    run = trained(folder, "usr1")
    assert checkpoints(run) == [8, 10, 12]
    assert_equal_runs(run, uninterrupted)


TWICE = """\
import os, signal, sys
from graphspec.runtime import train
def twice(*given):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    raise SystemExit("still here")
train.training_forward = twice
from graphspec.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_second_signal_ends_at_once(folder):
    (done,) = together(("-c", TWICE, *arguments(folder, "twice")))
    assert done.returncode == 143 and "saved" not in done.stderr, done.stderr


# ---- noise -----------------------------------------------------------------------------------------------------------

NOISY = """\
graphspec: 1
model: noisy
inputs:
  x: float[T, 2] @ 4000
graph:
  y: x |> linear(2) |> dropout(0.5)
  z: (y + normal_like(y)) * uniform()
losses: {l2: mean(square(z - x))}
"""


def test_noise_is_numbered_by_row_and_validation_has_only_its_own(folder):
    (folder / "noisy.yaml").write_text(NOISY)
    model = lower(check_spec(str(folder / "noisy.yaml")), seed=0)
    x = {"x": torch.zeros(4, 50, 2)}
    drawn = training_noise(model, x, seed=3, update=7)
    kinds = {next(v for v in model.graph.values if v.path == path).op.name: path for path in drawn}
    assert kinds.keys() == {"dropout", "normal_like", "uniform"}
    gauss, one = drawn[kinds["normal_like"]], drawn[kinds["uniform"]]
    assert gauss.shape == (4, 50, 2) and one.shape == (4,) and gauss.min() < 0 and gauss.std() == pytest.approx(1, 0.1)
    assert 0 < one.min() and one.max() < 1
    later = training_noise(model, {"x": x["x"][:2]}, seed=3, update=7, first_row=2)
    assert all(torch.equal(t, drawn[path][2:]) for path, t in later.items())
    kept = validation_noise(model, x, seed=3)
    assert kept.keys() == drawn.keys() - {kinds["dropout"]}
    assert not torch.equal(kept[kinds["uniform"]], one)
    assert torch.equal(kept[kinds["uniform"]], training_noise(model, x, seed=3, update=0)[kinds["uniform"]])


def test_validation_sees_the_graph_of_eval(folder):
    (folder / "eval.yaml").write_text(NOISY + "eval: {z: y * 2}\n")
    model = lower(check_spec(str(folder / "eval.yaml")), seed=0).eval()
    x = {"x": torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))}
    assert len(training_noise(model, x, seed=3, update=0)) == 3 and validation_noise(model, x, seed=3) == {}
    found = validation_forward(model, x, {}, "f32")["losses.l2"]
    (y,) = model.evaluate([next(v for v in model.graph.values if v.path.startswith("y"))], x)
    torch.testing.assert_close(found, (2 * y - x["x"]).square().mean((1, 2)))
