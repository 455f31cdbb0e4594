"""What a run leaves behind is whole and goes on exactly, whatever happens to the run.

Where the test plan's cases are (reliability, T14 to T19):

    T14 kill -9 while saving       test_checkpoint (one file system); here across file systems, and of whole commands
    T15 resume is bit for bit      test_training (between two saves); here in a save, after one, in validation
    T16 signals                    test_training (SIGTERM in an update); here SIGINT, SIGUSR1, twice, in validation
    T17 disks that fail            test_checkpoint (full, EIO at each call, damage), test_saver, test_training (cut);
                                   here a run that goes on without its saves, and one with a flipped bit
    T18 numbers that are not       test_training (a learning rate too high); here NaN in data, loss and weights
    T19 memory, dead processes     here
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted import BATCH, EIO, ENOSPC, FORWARD, RENAME, ROW, SAVE, UPDATE, VALIDATION, WEIGHTS, Fault, Nursery
from safetensors.torch import load_file

from graphspec.runtime.checkpoint import load, newest, origin_of, verify

STEPS = 8
SPEC = f"""\
graphspec: 1
model: tiny
inputs:
  wave: float[T, 1] @ 4000
graph:
  y: wave[t-1] |> conv(24) |> tanh |> dropout(0.1) |> conv(24) |> tanh |> linear(1)
losses:
  l: mean(square(y - wave))
data:
  wave: corpus(pieces=4, seconds=1)
train:
  optimizer: adamw()
  lr: 1e-3
  steps: {STEPS}
  batch: 2
  crop: {{T: 64}}
  validate_every: 4
  save_every: 2
  log_every: 1
"""
OTHER_DISK = Path("/dev/shm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artefacts")
    (folder / "tiny.yaml").write_text(SPEC)
    return folder


@pytest.fixture(scope="module")
def nursery(folder: Path) -> Nursery:
    return Nursery(folder)


@pytest.fixture(scope="module")
def shared_memory() -> Iterator[Path]:
    """A folder on another file system than the one for temporary files."""
    if not OTHER_DISK.is_dir() or os.stat(OTHER_DISK).st_dev == os.stat(tempfile.gettempdir()).st_dev:
        pytest.skip("there is no second file system here")
    path = Path(tempfile.mkdtemp(dir=OTHER_DISK))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def whole(folder: Path, nursery: Nursery) -> Path:
    """The run that nothing happens to."""
    code, said = nursery.run(train(folder, folder / "whole"))
    assert code == 0, said
    return folder / "whole"


def train(folder: Path, run: Path, *more: str) -> list[str]:
    return ["train", str(folder / "tiny.yaml"), *more, "--run", f"{run}", "--threads", "1"]


def checkpoints(run: Path) -> list[int]:
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def assert_same(run: Path, other: Path) -> None:
    """Metrics, weights and the optimizer's moments, byte for byte."""
    assert rows(run) == rows(other)
    for name in ("model.safetensors", f"checkpoints/{STEPS:010d}/optimizer.safetensors"):
        mine, theirs = load_file(run / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        assert all(mine[k].numpy().tobytes() == theirs[k].numpy().tobytes() for k in mine), name


def assert_intact(run: Path) -> None:
    """Every checkpoint verifies, and holds finite numbers."""
    assert checkpoints(run)
    for step in checkpoints(run):
        path = run / "checkpoints" / f"{step:010d}"
        assert verify(path) == []
        assert all(t.isfinite().all() for t in load(path)[0]["weights"].values())


def assert_goes_on(nursery: Nursery, folder: Path, run: Path, whole: Path) -> str:
    """Resumed, the run ends as if nothing had happened. Returns what was said."""
    code, said = nursery.run([*train(folder, run), "--resume"])
    assert code == 0, said
    assert_same(run, whole)
    return said


# ---- T14, T15: kill -9 -----------------------------------------------------------------------------------------------

KILLED = {
    "as a save begins": Fault(SAVE, [3], "kill", signal.SIGKILL),
    "in a save, before anything is written": Fault(WEIGHTS, [5], "kill", signal.SIGKILL),
    "in a save, after the weights": Fault(WEIGHTS, [6], "kill", signal.SIGKILL),
    "as a save is renamed": Fault(RENAME, [3], "kill", signal.SIGKILL),
    "just after a save": Fault(SAVE, [3], "kill", signal.SIGKILL, after=True),
    "in validation": Fault(VALIDATION, [22], "kill", signal.SIGKILL),
    "in an update": Fault(UPDATE, [6], "kill", signal.SIGKILL),
}
QUICK = ("in a save, after the weights", "just after a save", "in validation")


@pytest.mark.parametrize("when", [pytest.param(w, marks=[] if w in QUICK else pytest.mark.full) for w in KILLED])
def test_a_run_killed_at_an_edge_goes_on_bit_for_bit(
    nursery: Nursery, folder: Path, whole: Path, shared_memory: Path, when: str
) -> None:
    run = shared_memory / when.replace(" ", "_").replace(",", "")
    code, said = nursery.run(train(folder, run), KILLED[when], TMPDIR=str(folder))
    assert code == -signal.SIGKILL, said
    assert_intact(run)
    assert int(rows(run)[-1]["step"]) - checkpoints(run)[-1] <= 2
    assert "GS0620" not in assert_goes_on(nursery, folder, run, whole)


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.full)])
def test_runs_killed_at_random_lose_one_interval_at_most(
    nursery: Nursery, folder: Path, shared_memory: Path, kills: int
) -> None:
    """Saves after each update, so that most kills hit one; three commands at once, each resumed until it is through."""
    draw = random.Random(0)
    begun: dict[Path, bool] = {shared_memory / f"random{kills}.{i}": False for i in range(3)}
    left = kills
    while left > 0:
        some = list(begun)[: min(left, len(begun))]
        started = [
            nursery.start(
                train(folder, run, "train.save_every=1", "train.steps=100000", "train.validate_every=100000")
                + (["--resume"] if begun[run] else []),
                TMPDIR=str(folder),
            )
            for run in some
        ]
        before = {run: checkpoints(run)[-1] if begun[run] else -1 for run in some}
        for run, one in zip(some, started, strict=True):
            limit = time.monotonic() + 60
            while not ((run / "checkpoints").is_dir() and max(checkpoints(run), default=-1) > before[run]):
                assert one.process.is_alive() and time.monotonic() < limit, one.said_in.read_text()
                time.sleep(0.005)
            begun[run] = True
        for run, one in zip(some, started, strict=True):
            time.sleep(draw.uniform(0, 0.05))
            one.process.kill()
            assert one.ended()[0] == -signal.SIGKILL
            assert_intact(run)
            written = [r["step"] for r in rows(run) if None not in r.values()]
            assert int(written[-1]) - checkpoints(run)[-1] <= 1
            left -= 1


# ---- T16: signals ----------------------------------------------------------------------------------------------------


def test_signals_end_a_run_after_a_save(nursery: Nursery, folder: Path, whole: Path) -> None:
    cases = {
        "interrupted": (Fault(UPDATE, [3], "kill", signal.SIGINT), 130, 3),
        "ended in validation": (Fault(VALIDATION, [22], "kill", signal.SIGTERM), 143, 4),
    }
    started = {name: nursery.start(train(folder, folder / name), fault) for name, (fault, _, _) in cases.items()}
    for name, (_, expected, step) in cases.items():
        code, said = started[name].ended()
        assert code == expected, said
        assert "Traceback" not in said and f"after update {step}" in said
        assert checkpoints(folder / name)[-1] == step
        assert_goes_on(nursery, folder, folder / name, whole)


def test_sigusr1_saves_and_the_run_goes_on(nursery: Nursery, folder: Path, whole: Path) -> None:
    fault = Fault(UPDATE, [7], "kill", signal.SIGUSR1)
    code, said = nursery.run(train(folder, folder / "asked"), fault)
    assert code == 0, said
    assert checkpoints(folder / "asked") == [6, 7, 8]
    assert_same(folder / "asked", whole)


def test_a_second_signal_ends_a_run_at_once(nursery: Nursery, folder: Path, whole: Path) -> None:
    run = folder / "twice"
    code, said = nursery.run(
        train(folder, run), Fault(BATCH, [6], "kill", signal.SIGTERM), Fault(FORWARD, [6], "kill", 15)
    )
    assert code == 143, said
    assert checkpoints(run) == [0, 2, 4] and "Traceback" not in said
    assert_intact(run)
    assert_goes_on(nursery, folder, run, whole)


# ---- T17: disks ------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_while_the_disk_is_full(nursery: Nursery, folder: Path, whole: Path) -> None:
    """Full from the 2nd save (of update 2) until before the 4th (of update 6)."""
    run = folder / "full for a while"
    code, said = nursery.run(train(folder, run), Fault(SAVE, [2], "full", 2048), Fault(SAVE, [4], "full", 0))
    assert code == 0, said
    assert said.count("warning[GS0622]") == 2 and "(2 of 3)" in said and "Traceback" not in said
    assert checkpoints(run) == [0, 6, 8]
    assert_same(run, whole)


def test_rows_wait_while_the_disk_is_full(nursery: Nursery, folder: Path, whole: Path) -> None:
    """Rows of updates 2 to 4, and the two saves in between, find no room; what they bring is there in the end."""
    run = folder / "no room for a row"
    writes = Fault("os:write", range(3, 9), "fail_with", ENOSPC)
    code, said = nursery.run(train(folder, run), writes)
    assert code == 0, said
    assert said.count("rows wait, and are written") == 1 and "(2 of 3)" in said and "Traceback" not in said
    assert_same(run, whole)
    run = folder / "no room for a row, nor later"
    code, said = nursery.run(train(folder, run), Fault("os:write", range(3, 999), "fail_with", ENOSPC))
    assert code == 1 and "error[GS0622]" in said and "Traceback" not in said, said
    assert_intact(run)
    assert_goes_on(nursery, folder, run, whole)


def test_a_run_ends_at_the_third_save_that_fails(nursery: Nursery, folder: Path, whole: Path) -> None:
    cases = {
        "full": [Fault(SAVE, [2], "full", 2048)],
        "broken": [Fault(WEIGHTS, range(3, 999), "fail_with", EIO)],
        "forbidden": [Fault(SAVE, [2], "nobody")],
    }
    started = {name: nursery.start(train(folder, folder / name), *faults) for name, faults in cases.items()}
    for name, one in started.items():
        code, said = one.ended()
        assert code == 1, said
        assert "error[GS0622]" in said and "Traceback" not in said, said
        assert_intact(folder / name)
        assert checkpoints(folder / name)[0] == 0 and not (folder / name / "model.safetensors").exists()
    assert_goes_on(nursery, folder, folder / "full", whole)


def test_the_last_save_must_not_fail(nursery: Nursery, folder: Path) -> None:
    run = folder / "full at the end"
    code, said = nursery.run(train(folder, run), Fault(SAVE, [5], "fail_with", ENOSPC))
    assert code != 0 and not (run / "model.safetensors").exists(), said
    assert checkpoints(run)[-1] == 6


def test_a_flipped_bit_is_said_and_the_checkpoint_before_used(nursery: Nursery, folder: Path, whole: Path) -> None:
    run = folder / "flipped"
    assert nursery.run(train(folder, run), Fault(UPDATE, [7], "kill", signal.SIGKILL))[0] == -signal.SIGKILL
    file = run / "checkpoints" / f"{6:010d}" / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-100] ^= 4
    file.write_bytes(data)
    assert newest(run / "checkpoints", lambda d: None) == run / "checkpoints" / f"{4:010d}"
    said = assert_goes_on(nursery, folder, run, whole)
    assert "warning[GS0620]" in said and f"{6:010d}" in said and "SHA-256" in said


# ---- the spec of a checkpoint ----------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_spec_is_refused_though_it_fits(nursery: Nursery, tmp_path: Path) -> None:
    """The library beside the spec has changed, which the spec's own text does not show."""
    (tmp_path / "tiny.yaml").write_text(SPEC.replace("graph:", "use: [parts]\ngraph:", 1).replace("tanh", "bend"))
    part = "graphspec: 1\nlibrary: parts\nblocks:\n  bend: {in: {x: any}, graph: {y: x |> tanh}, out: y}\n"
    (tmp_path / "parts.yaml").write_text(part)
    run = tmp_path / "run"
    code, said = nursery.run(train(tmp_path, run, "train.steps=2"))
    assert code == 0, said
    (tmp_path / "parts.yaml").write_text(part.replace("tanh", "sigmoid"))
    code, said = nursery.run([*train(tmp_path, run, "train.steps=4"), "--resume"])
    assert code == 1 and "error[GS0621]" in said and "Traceback" not in said, said
    manifest = origin_of(run / "checkpoints" / f"{2:010d}")
    assert manifest is not None and manifest.spec in said and manifest.world_size == 1
    assert {"graphspec", "torch"} <= manifest.versions.keys()


# ---- T18: numbers that are not numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where, fault",
    [
        ("data", Fault(BATCH, [6], "not_finite", after=True)),
        ("loss", Fault(FORWARD, [6], "not_finite", after=True)),
        ("weights", Fault(UPDATE, [6], "broken_weight", after=True)),  # update 6 is one that is saved
    ],
)
def test_a_nan_ends_the_run_and_reaches_no_checkpoint(
    nursery: Nursery, folder: Path, whole: Path, where: str, fault: Fault
) -> None:
    run = folder / f"nan {where}"
    code, said = nursery.run(train(folder, run), fault)
    assert code == 1 and "error[GS0612]" in said and "Traceback" not in said, said
    assert "update 6" in said, said
    assert checkpoints(run)[-1] == 4 and not (run / "model.safetensors").exists()
    assert_intact(run)
    assert_goes_on(nursery, folder, run, whole)  # it was the planted fault, and nothing else


# ---- T19: memory, dead processes -------------------------------------------------------------------------------------


def test_out_of_memory_is_said_and_leaves_the_checkpoint(nursery: Nursery, folder: Path, whole: Path) -> None:
    run = folder / "memory"
    code, said = nursery.run(train(folder, run), Fault(FORWARD, [6], "out_of_memory"))
    assert code == 1 and "train.batch" in said and "Traceback" not in said, said
    assert checkpoints(run)[-1] == 4
    assert_intact(run)
    assert_goes_on(nursery, folder, run, whole)


def test_when_one_process_dies_all_end(nursery: Nursery, folder: Path) -> None:
    run = folder / "two processes"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first = nursery.start(train(folder, run), RANK="0", LOCAL_RANK="0", **group)
    second = nursery.start(
        train(folder, run), Fault(UPDATE, [6], "kill", signal.SIGKILL), RANK="1", LOCAL_RANK="1", **group
    )
    assert second.ended()[0] == -signal.SIGKILL
    began = time.monotonic()
    code, said = first.ended(60)
    assert code > 0 and time.monotonic() - began <= 30, said
    assert "GS0633" in said and "Traceback" not in said
    assert checkpoints(run)[-1] == 4
    assert_intact(run)


def test_the_row_of_a_signal_is_written_before_the_run_ends(nursery: Nursery, folder: Path) -> None:
    run = folder / "row"
    assert nursery.run(train(folder, run), Fault(ROW, [4], "kill", signal.SIGTERM))[0] == 143
    assert rows(run)[-1]["step"] == str(checkpoints(run)[-1])
