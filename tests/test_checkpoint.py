"""Checkpoints and the metrics log survive kills, damage and full disks: what loads is what was written, or nothing."""

import csv
import errno
import json
import math
import os
import random
import resource
import signal
import time
from contextlib import contextmanager

import pytest
import torch

from graphspec.diagnostic import SpecError
from graphspec.runtime.checkpoint import drop_after, load, newest, save, save_model, verify, write_atomic
from graphspec.runtime.log import MetricsLog

torch.set_num_threads(1)


def state(step: int, size: int = 100) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "weights": {"m.conv.w": torch.full((size, 3), float(step)), "m.gain": torch.tensor(step / 7)},
        "optimizer": {"m.conv.w/exp_avg": torch.full((size, 3), -float(step)), "m.gain/step": torch.tensor(step)},
    }


def refuse(diagnostic):
    raise AssertionError(diagnostic)


def steps_in(folder) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


@contextmanager
def files_no_longer_than(size: int):
    """A disk that is full: writing beyond `size` bytes of a file fails (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_round_trip_is_exact(tmp_path):
    wave = torch.randn(4, 6)
    tensors = {
        "weights": {
            "f32": wave,
            "view": wave[1:, ::2],
            "tied": wave,
            "f64": wave.double() / 3,
            "bf16": wave.bfloat16(),
            "complex": torch.complex(wave, wave),
            "nothing": torch.empty(0, 3),
            "scalar": torch.tensor(7),
            "bool": wave > 0,
            "odd": torch.tensor([math.nan, math.inf, -0.0, 1e-45]),
            "parameter": torch.nn.Parameter(wave[0]),
        },
        "optimizer": {},
    }
    meta = {"epoch": 3, "best": math.inf, "loss": 0.1 + 0.2, "names": ["a", "b"], "data": {"seed": 2**63}}
    path = save(tmp_path / "run" / "checkpoints", 12, tensors, meta)
    assert path.name == "0000000012" and verify(path) == [] and newest(path.parent, refuse) == path
    loaded, meta_back = load(path)
    assert meta_back == {"step": 12, **meta}
    assert loaded.keys() == tensors.keys() and loaded["weights"].keys() == tensors["weights"].keys()
    for name, tensor in tensors["weights"].items():
        back = loaded["weights"][name]
        assert back.dtype == tensor.dtype and back.shape == tensor.shape
        as_bytes = [t.detach().contiguous().flatten().view(torch.uint8) for t in (back.reshape(-1), tensor.reshape(-1))]
        assert torch.equal(*as_bytes), name
    assert load(path, tensors)[0].keys() == tensors.keys()
    assert load(path, {"optimizer": {}})[0] == {"optimizer": {}}


def test_keep_the_newest(tmp_path):
    for step in (1, 2, 10, 9999, 100000):
        save(tmp_path, step, state(step), {}, keep=3)
    assert steps_in(tmp_path) == [10, 9999, 100000]
    # A run resumed from an early checkpoint must not delete what it has just written because later ones are there.
    save(tmp_path, 50, state(50), {}, keep=1)
    assert steps_in(tmp_path) == [50, 9999, 100000]
    drop_after(tmp_path, 50)
    assert os.listdir(tmp_path) == ["0000000050"]
    assert newest(tmp_path / "none", refuse) is None


def test_the_same_step_again_is_replaced(tmp_path):
    save(tmp_path, 5, state(5), {"loss": 1.0})
    path = save(tmp_path, 5, state(6), {"loss": 2.0})
    assert os.listdir(tmp_path) == [path.name]
    assert load(path)[1]["loss"] == 2.0
    # Killed between the two renames: the old one is found, and comes back with the next save.
    path.rename(tmp_path / f".{path.name}.replaced")
    assert load(newest(tmp_path, refuse))[1]["loss"] == 2.0
    save(tmp_path, 7, state(7), {})
    assert steps_in(tmp_path) == [5, 7]


def test_stale_parts_are_swept(tmp_path):
    (tmp_path / ".0000000003.part").mkdir()
    (tmp_path / ".0000000003.part" / ".tmpabc").write_bytes(b"x")
    assert newest(tmp_path, refuse) is None
    save(tmp_path, 4, state(4), {})
    assert os.listdir(tmp_path) == ["0000000004"]


def saver(folder, report: int) -> None:
    """Save for ever, telling each step that is done."""
    step = 0
    while True:
        step += 1
        # Every third time the same step twice, so that replacing is killed too.
        for _ in range(2 if step % 3 == 0 else 1):
            save(folder, step, state(step, 20_000), {"loss": step / 3}, keep=2)
        os.write(report, step.to_bytes(4, "big"))


def test_kill_while_saving(tmp_path):
    draw = random.Random(0)
    for kill in range(10):
        folder = tmp_path / str(kill)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                saver(folder, writing)
            finally:
                os._exit(1)
        os.close(writing)
        done = os.read(reading, 4)  # the first is there
        time.sleep(draw.uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        while more := os.read(reading, 4):
            done = more
        os.close(reading)
        path = newest(folder, refuse)
        tensors, meta = load(path, state(0, 20_000))
        step = meta["step"]
        assert int.from_bytes(done, "big") <= step <= int.from_bytes(done, "big") + 1
        assert all((tensors[g][n] == t).all() for g, named in state(step, 20_000).items() for n, t in named.items())
        save(folder, step + 1, state(step + 1), {})
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def cut(path):
    file = path / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(path):
    file = path / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)


def forged(path):
    outside = path.parent / "secret"
    outside.write_text("x")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"size": 1, "sha256": "0"}
    (path / "manifest.json").write_text(json.dumps(manifest))


DAMAGE = {
    "cut short": cut,
    "a bit flipped": flip,
    "no manifest": lambda p: (p / "manifest.json").unlink(),
    "no weights": lambda p: (p / "weights.safetensors").unlink(),
    "manifest cut": lambda p: (p / "manifest.json").write_text('{"format": 1, "fil'),
    "manifest deep": lambda p: (p / "manifest.json").write_text("[" * 100_000),
    "manifest a list": lambda p: (p / "manifest.json").write_text("[]"),
    "manifest empty": lambda p: (p / "manifest.json").write_text("{}"),
    "another format": lambda p: (p / "manifest.json").write_text('{"format": 2, "files": {}}'),
    "no files": lambda p: (p / "manifest.json").write_text('{"format": 1, "step": 2, "files": {}}'),
    "meta changed": lambda p: (p / "meta.json").write_text('{"step": 3}'),
    "names outside": forged,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_one_is_refused_and_the_one_before_loads(tmp_path, damage):
    before = save(tmp_path, 1, state(1), {})
    path = save(tmp_path, 2, state(2), {})
    damage(path)
    told = []
    assert newest(tmp_path, told.append) == before
    assert [(d.code, d.severity) for d in told] == [("GS0620", "warning")]
    assert str(path) in told[0].message
    assert torch.equal(load(before)[0]["weights"]["m.conv.w"], state(1)["weights"]["m.conv.w"])
    with pytest.raises(SpecError) as error:
        load(path)
    assert error.value.diagnostics[0].code == "GS0620"


def test_all_damaged_is_none_and_each_is_told(tmp_path):
    for step in (1, 2):
        flip(save(tmp_path, step, state(step), {}))
    told = []
    assert newest(tmp_path, told.append) is None and len(told) == 2


def test_a_file_that_is_no_safetensors_is_refused_though_its_hash_agrees(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "graphspec.runtime.checkpoint.save_file", lambda tensors, path: path.write_bytes(b"\x80\x04pickle")
    )
    path = save(tmp_path, 1, state(1), {})
    with pytest.raises(SpecError, match="GS0620"):
        load(path)
    with pytest.raises(SpecError, match="GS0620"):
        load(path, state(1))


def test_another_model_is_refused_before_reading(tmp_path):
    path = save(tmp_path, 1, state(1), {})
    with torch.device("meta"):
        like = {
            "weights": {"m.conv.w": torch.empty(64, 3), "m.bias": torch.empty(2), "m.gain": torch.empty(()).double()}
        }
    with pytest.raises(SpecError) as error:
        load(path, like)
    (found,) = error.value.diagnostics
    assert found.code == "GS0621"
    assert "weights 'm.conv.w' has shape [64, 3] here and [100, 3] in the checkpoint" in found.message
    assert found.notes == (
        "weights 'm.bias' [2] is not in the checkpoint",
        "weights 'm.gain' is F64 here and F32 in the checkpoint",
    )
    with pytest.raises(SpecError, match=r"GS0621.*'m.gain' \[\] is only in the checkpoint"):
        load(path, {"weights": {"m.conv.w": torch.empty(100, 3)}})
    with pytest.raises(SpecError, match="GS0621.*no averages"):
        load(path, {"averages": {}})
    many = {f"w{i}": torch.empty(1) for i in range(20)}
    with pytest.raises(SpecError) as error:
        load(path, {"weights": many})
    assert error.value.diagnostics[0].notes[-1] == "and 17 more"


def test_a_full_disk_leaves_the_old_ones(tmp_path):
    folder = tmp_path / "c"
    path = save(folder, 1, state(1), {})
    for step in (1, 2):
        for size in (0, 100, 1000):  # in the weights, or already in their header
            with files_no_longer_than(size), pytest.raises(SpecError) as error:
                save(folder, step, state(step), {})
            assert error.value.diagnostics[0].code == "GS0622"
            assert "too large" in error.value.diagnostics[0].message
    assert os.listdir(folder) == [path.name] and verify(path) == []


@pytest.mark.parametrize("at", range(12))
def test_a_failing_device_leaves_the_old_ones(tmp_path, monkeypatch, at):
    """EIO at the n-th fsync or rename, of a first save and of one that replaces."""
    path = save(tmp_path, 1, state(1), {})
    calls = 0

    def failing(real):
        def call(*args):
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError(errno.EIO, "Input/output error")
            return real(*args)

        return call

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(os, "rename", failing(os.rename))
    try:
        save(tmp_path, 1, state(8), {})
    except SpecError as error:
        assert error.diagnostics[0].code == "GS0622" and "Input/output" in error.diagnostics[0].message
    else:
        assert calls <= at
    assert newest(tmp_path, refuse) == path
    assert load(path)[0]["weights"]["m.conv.w"][0, 0] in (1, 8)
    monkeypatch.undo()
    save(tmp_path, 2, state(2), {})
    assert steps_in(tmp_path) == [1, 2] and len(os.listdir(tmp_path)) == 2


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for write in (
        lambda p: save(p, 1, state(1), {}),
        lambda p: save_model(p / "model.safetensors", {}),
        lambda p: write_atomic(p / "x", b""),
    ):
        with pytest.raises(SpecError, match="GS0622"):
            write(tmp_path / "file")


def test_meta_that_is_no_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError):
        save(tmp_path / "c", 1, state(1), {"x": torch.ones(1)})
    with pytest.raises(ValueError, match="step"):
        save(tmp_path / "c", 1, state(1), {"step": 2})
    assert not (tmp_path / "c").exists()


def test_single_files_are_atomic(tmp_path):
    from safetensors.torch import load_file

    model, text = tmp_path / "model.safetensors", tmp_path / "a" / "config.json"
    save_model(model, state(1)["weights"])
    write_atomic(text, b"old")
    with files_no_longer_than(2):
        with pytest.raises(SpecError, match="GS0622"):
            save_model(model, state(2)["weights"])
        with pytest.raises(SpecError, match="GS0622"):
            write_atomic(text, b"newer")
    assert load_file(model)["m.conv.w"][0, 0] == 1 and text.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "model.safetensors"] and os.listdir(text.parent) == ["config.json"]
    save_model(model, state(2)["weights"])
    write_atomic(text, b"newer")
    assert load_file(model)["m.conv.w"][0, 0] == 2 and text.read_bytes() == b"newer"
    assert model.stat().st_mode == text.stat().st_mode


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_log(path, steps, resume_step=None, columns=("loss", "val/loss")) -> MetricsLog:
    with MetricsLog(path, columns, resume_step) as log:
        for step in steps:
            log.append(step, {"loss": 1 / 3 / (step + 1), "seconds": 0.5, **({"val/loss": 2.0} if step % 2 else {})})
    return log


def test_log_is_exact_and_stable(tmp_path):
    log = write_log(tmp_path / "metrics.csv", range(4))
    assert log.columns == ("step", "loss", "val/loss", "seconds", "cpu_seconds")
    rows = rows_of(log.path)
    assert [float(r["loss"]) for r in rows] == [1 / 3 / (s + 1) for s in range(4)]
    assert rows[0]["val/loss"] == "" and rows[1]["val/loss"] == "2.0" and rows[0]["cpu_seconds"] == ""
    with MetricsLog(tmp_path / "m.csv", ["x", "y", "z"]) as other:
        other.append(0, {"x": math.nan, "y": -math.inf, "z": 7})
        with pytest.raises(KeyError):
            other.append(1, {"w": 0.0})
    assert other.path.read_text() == "step,x,y,z,seconds,cpu_seconds\n0,nan,-inf,7,,\n"


@pytest.mark.parametrize(
    "torn", [b"", b"7", b"7,0.04,", b"7,0.0416,2.0,0.5,", b"\x00\x00\x00\n", b"7,\n8,0.1\n", b'"7,\n']
)
def test_log_resumed_equals_uninterrupted(tmp_path, torn):
    whole = write_log(tmp_path / "whole.csv", range(10))
    path = tmp_path / "metrics.csv"
    write_log(path, range(7))
    with open(path, "ab") as file:
        file.write(torn)
    log = write_log(path, range(5, 10), resume_step=4)
    assert path.read_bytes() == whole.path.read_bytes()
    assert log.dropped == 2 + len(torn.splitlines())


def test_log_resume_keeps_old_columns(tmp_path):
    path = tmp_path / "metrics.csv"
    write_log(path, range(3))
    log = write_log(path, (), resume_step=1, columns=("grad", "loss"))
    assert log.columns == ("step", "loss", "val/loss", "grad", "seconds", "cpu_seconds")
    assert [r["step"] for r in rows_of(path)] == ["0", "1"] and rows_of(path)[1]["val/loss"] == "2.0"
    write_log(path, ())
    assert rows_of(path) == []  # no resume: a new log


def test_log_on_a_full_disk_takes_back_the_torn_line(tmp_path):
    with MetricsLog(tmp_path / "metrics.csv", ["loss"]) as log:
        log.append(0, {"loss": 0.5})
        before = log.path.read_bytes()
        with files_no_longer_than(len(before) + 4):
            log.append(1, {"loss": 0.25})
            with pytest.raises(SpecError, match="GS0622"):
                log.sync(last=True)
        assert log.path.read_bytes() == before
        log.append(2, {"loss": 0.125})
        assert [r["step"] for r in rows_of(log.path)] == ["0", "1", "2"]
