"""Training by several processes of torchrun: the same as one with the joint batch, and they end together."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from graphspec.__main__ import main
from graphspec.runtime.parallel import Group

SPEC = """\
graphspec: 1
model: pair
inputs:
  wave: float[T, 1] @ 4000
graph:
  h: wave[t-1] |> conv(8) |> tanh |> dropout(0.2)
  y: h |> linear(1)
losses:
  l2: {is: square(y - wave), mask: abs(wave) > 0.01}
metrics: {l1: "mean(abs(y - wave))"}
data: {wave: "corpus(pieces=4, seconds=1)"}
train:
  optimizer: adamw()
  lr: 1e-2
  batch: 2
  steps: 20
  clip: 1.0
  crop: {T: 128}
  precision: f64
  ema: 0.9
  validate_every: 10
  save_every: 10
  log_every: 1
"""
# `train` in a process of several; the one whose rank is given does something when a row of this update is told.
ODD = """\
import os, signal, sys, time
rank, at, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if int(os.environ["RANK"]) == rank:
    from graphspec.runtime import train
    update = train._Training._update
    def odd(self):
        if self.step == at:
            time.sleep(100) if what == "hang" else os.kill(os.getpid(), int(what))
        return update(self)
    train._Training._update = odd
from graphspec.__main__ import main
sys.argv[1:] = sys.argv[4:]
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "pair.yaml").write_text(SPEC)
    (folder / "odd.py").write_text(ODD)
    return folder


def arguments(folder, run, *more):
    return ["train", str(folder / "pair.yaml"), *more, "--run", str(folder / run), "--threads", "1"]


def torchrun(*words, size=2):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size), *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def alone(rank, size, port, *words):
    """One process of several without torchrun, which would end the others itself."""
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in where.items()}}
    return subprocess.Popen(
        [sys.executable, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process, seconds=90):
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def rows(run):
    with (run / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def told(run):
    return len(rows(run)) if (run / "metrics.csv").exists() else 0


def numbers(run):
    return [[float(v) if v else None for v in row.values()] for row in rows(run)]


@pytest.fixture(scope="module")
def single(folder):
    """One process that takes all the rows."""
    assert main(arguments(folder, "single", "train.batch=4")) == 0
    return folder / "single"


def assert_equal_runs(run, other):
    one, two = numbers(run), numbers(other)
    assert len(one) == len(two) == 21
    for mine, theirs in zip(one, two, strict=True):
        assert [x is None for x in mine] == [x is None for x in theirs]
        assert [x for x in mine if x is not None] == pytest.approx([x for x in theirs if x is not None], abs=1e-9)
    mine, theirs = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    for key, t in mine.items():
        torch.testing.assert_close(t, theirs[key], rtol=0, atol=1e-7)


@pytest.fixture(scope="module")
def double(folder):
    """Two processes."""
    port = free_port()
    both = [alone(r, 2, port, "-m", "graphspec", *arguments(folder, "double")) for r in (0, 1)]
    (code, out, err), (other, nothing, quiet) = (finish(p) for p in both)
    assert (code, other) == (0, 0), err + quiet
    assert "2 processes" in out and nothing == quiet == ""
    return folder / "double"


def test_two_processes_train_as_one_with_the_joint_batch(single, double):
    assert_equal_runs(single, double)


@pytest.mark.full
def test_torchrun_in_two_parts(folder, single):
    for more in (["train.steps=10"], ["--resume"]):
        code, out, err = finish(torchrun("-m", "--", "graphspec", *arguments(folder, "parts", *more)))
        assert code == 0, err
        assert out.count("weights;") == 1 and out.count("validation l2") == 1
    assert_equal_runs(single, folder / "parts")


def test_another_number_of_processes_is_told_on_resume(folder, double, capsys):
    assert main(arguments(folder, "double", "--resume")) == 0
    assert "GS0632" in (said := capsys.readouterr().err) and "processes 2, now 1" in said


@pytest.mark.full
def test_a_signal_to_one_process_stops_all_at_the_same_update(folder):
    port = free_port()
    words = (folder / "odd.py", 1, 7, int(signal.SIGTERM), *arguments(folder, "stopped"))
    both = [alone(r, 2, port, *words) for r in (0, 1)]
    (first, _, said), (second, _, quiet) = (finish(p) for p in both)
    assert (first, second) == (143, 143), said + quiet
    assert "after update 8; saved" in said and "saved" not in quiet
    assert len(rows(folder / "stopped")) == 9
    assert (folder / "stopped" / "checkpoints" / f"{8:010d}").is_dir()


@pytest.mark.parametrize("what", [int(signal.SIGKILL), pytest.param("hang", marks=pytest.mark.full)])
def test_a_process_that_dies_or_hangs_ends_the_others(folder, what):
    """Within 30 seconds of it, which is after the row of update 5."""
    port, run = free_port(), folder / f"dead {what}"
    first, second = (alone(r, 2, port, folder / "odd.py", 1, 5, what, *arguments(folder, run.name)) for r in (0, 1))
    try:
        while first.poll() is None and told(run) < 6:
            time.sleep(0.1)
        began = time.monotonic()
        code, _, said = finish(first, 40)
    finally:
        for process in (first, second):
            process.kill()
        second.communicate()
    assert code == 1 and "GS0633" in said and "Traceback" not in said, said
    assert time.monotonic() - began < 35  # a busy machine takes its time to end a process
    assert (run / "checkpoints" / f"{0:010d}").is_dir()


@pytest.mark.full
def test_a_mistake_is_told_once(folder):
    code, out, err = finish(torchrun("-m", "--", "graphspec", *arguments(folder, "mistake", "train.lr=-1")))
    assert code != 0 and err.count("GS0603") == 1 and not (folder / "mistake").exists()


def test_alone_nothing_is_sent():
    group, p = Group(), nn.Parameter(torch.zeros(2))
    p.grad = torch.ones(2)
    group.add_gradients([p])
    group.wait()
    assert torch.equal(p.grad, torch.ones(2)) and group.leads
    assert group.largest(3) == 3 and group.told("x") == "x"
    assert torch.equal(group.gather(torch.arange(3.0)), torch.arange(3.0)[None])
