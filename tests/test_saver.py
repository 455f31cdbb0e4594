"""What the manifest says of a checkpoint's origin, and the saves of a run that may fail."""

from __future__ import annotations

import json
import math
from errno import ENOSPC
from pathlib import Path

import pytest
import torch
from test_artefacts import SPEC
from test_checkpoint import refuse, state

from graphspec.cli.load import check_spec
from graphspec.diagnostic import Diagnostic, SpecError
from graphspec.runtime.checkpoint import Origin, load, newest, origin_of, save, verify
from graphspec.runtime.run import spec_hash
from graphspec.runtime.saver import Saver


def test_another_spec_is_refused_though_every_tensor_fits(tmp_path: Path) -> None:
    here, there = "a" * 64, "b" * 64
    origin = Origin(there, {"torch": "2.13.0"}, world_size=2)
    path = save(tmp_path, 1, state(1), {}, origin=origin)
    assert verify(path) == [] and origin_of(path) == origin and newest(tmp_path, refuse) == path
    assert load(path, state(1), spec=there)[1] == load(path)[1]
    with pytest.raises(SpecError) as error:
        load(path, state(1), spec=here)
    (found,) = error.value.diagnostics
    assert found.code == "GS0621" and here[:12] in found.message and there[:12] in found.message
    assert found.notes == (f"in the checkpoint {there}", f"here {here}")
    old = save(tmp_path, 2, state(2), {})  # of a version that wrote none
    assert origin_of(old) is None and load(old, spec=here)[1] == {"step": 2}
    manifest = json.loads((path / "manifest.json").read_text()) | {"versions": 3}
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert origin_of(path) is None and origin_of(tmp_path / "none") is None


def test_the_hash_of_a_spec_is_of_what_it_computes(tmp_path: Path) -> None:
    def hashed(text: str, *overrides: str) -> str:
        (tmp_path / "m.yaml").write_text(text)
        return spec_hash(check_spec(str(tmp_path / "m.yaml"), overrides).graph)

    same = hashed(SPEC)
    assert len(same) == 64 and same == hashed("# a remark\n" + SPEC.replace("lr: 1e-3", "lr: 2e-3"), "train.batch=1")
    assert same == hashed(SPEC.replace("conv(24)", "conv(24, dilation=1)"))  # its default
    changed = [("tanh", "relu"), ("(24)", "(24, dilation=2)"), ("t-1", "t-2"), ("(0.1)", "(0.2)"), ("4000", "8000")]
    assert len({same, *(hashed(SPEC.replace(*change)) for change in changed)}) == 1 + len(changed)


def test_saves_that_fail_are_counted_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Diagnostic] = []
    saver = Saver(tmp_path / "c", told.append, Origin("a" * 64, {"torch": "2"}))
    tensors = {"weights": {"w": torch.ones(3)}}

    def broken(*arguments: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    def saves(step: int, fails: bool, **named: bool) -> bool:
        with monkeypatch.context() as patch:
            if fails:
                patch.setattr("graphspec.runtime.checkpoint._write_tensors", broken)
            return saver.save(step, tensors, {"step": step}, **named)

    assert [saves(i, fails) for i, fails in enumerate((False, True, True, False, True, True))] == [1, 0, 0, 1, 0, 0]
    assert [(d.code, d.severity) for d in told] == [("GS0622", "warning")] * 4
    with pytest.raises(SpecError, match="GS0622"):
        saves(6, True)
    assert saves(7, False)
    with pytest.raises(SpecError, match="GS0622"):
        saves(8, True, last=True)
    tensors["weights"] |= {"b": torch.tensor([0.0, math.inf]), "n": torch.tensor([1])}  # a mask may be infinite
    assert saves(9, False)
    tensors["weights"]["b"][0] = math.nan
    with pytest.raises(SpecError, match="GS0612.*'b' holds NaN after update 10"):
        saves(10, False)
    assert sorted(int(p.name) for p in (tmp_path / "c").iterdir()) == [3, 7, 9]
    assert origin_of(newest(tmp_path / "c", told.append) or tmp_path) == saver.origin
