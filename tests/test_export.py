"""Exports: what is written runs back as the model, its manifest alone says how, and nothing is left half-written."""

import importlib.util
import json

import pytest
import torch

from graphspec.__main__ import main
from graphspec.cli.load import check_document, compile_spec, shipped
from graphspec.compiler.lower import lower
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text
from graphspec.runtime import export as exporting
from graphspec.runtime import export_step
from graphspec.runtime.export import export
from graphspec.runtime.exported import ExportedSampler, ExportedStep
from graphspec.runtime.sample import Sampler

SMALL = ("d=16", "depth=1", "bits=4", "state=8")
TARGETS = ["pt2", "onnx", pytest.param("aoti", marks=pytest.mark.full)]

CONVS = """\
graphspec: 1
model: convs
inputs:
  x: f32[T, 2] @ 8000
  gain: {type: f32, default: 0.5}
  kind: int(5)[T, 1] @ 4000
require: [T % 4 == 0]
graph:
  coarse: x |> conv(6, k=3) |> fold(4) |> linear(8) |> s4d(4)
  low: kind |> embed(4)
  y: (coarse |> linear(16) |> unfold(4) |> linear(2)) * gain + 0.1 * normal_like(x)
  h: low |> conv(3, k=2)
outputs: [y, h]
"""


@pytest.fixture(scope="module")
def small():
    model = compile_spec("sashimi_small", SMALL)
    with torch.no_grad():
        model.weights()["dist.categorical.weight"].mul_(6)
    return model


def skip_without(target):
    if target == "onnx":
        pytest.importorskip("onnxruntime")


def make_of(model, **given):
    return lambda: Sampler(model, 2, 0, given, backend="auto")


@pytest.mark.parametrize("target", TARGETS)
def test_sashimi_small_runs_back_over_500_steps(small, target, tmp_path):
    skip_without(target)
    out = tmp_path / "deep" / "out"
    made = export(make_of(small), small.entries["sample"], target, out, 2)
    told = json.loads((out / "state.json").read_text())
    assert told == made and told["kind"] == "sampler" and exporting.STEPS == 500
    assert [len(told[k]) for k in ("stages", "ticks", "states")] == [3, 16, 6] and told["latency"] == 0
    name, rate, shape = (told["states"][-1][k] for k in ("name", "rate", "shape"))
    assert name.startswith("m.") and name.endswith("s4d/im") and rate == "1000" and shape == [2, 64, 4]
    eager = Sampler(small, 2, seed=0)
    noise = {v.path: v for v in eager.plan.values if v.noise is not None}
    files = ExportedSampler(out, lambda name, first, count: eager._drawn(noise[name], first, count))
    assert torch.equal(torch.cat([files.draw()["wave"] for _ in range(48)], 1), eager.draw(48)["wave"])
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.full
@pytest.mark.parametrize("target", ["pt2", "onnx", "aoti"])
def test_the_shipped_size_runs_back_over_500_steps(target, tmp_path):
    skip_without(target)
    model = compile_spec("sashimi_small")
    made = export(make_of(model), model.entries["sample"], target, tmp_path / "out", 2)
    assert made["model"] == "sashimi_small" and made["entry"] == "sample"


@pytest.mark.parametrize("target", TARGETS)
def test_filters_run_back_over_500_steps(target, tmp_path):
    skip_without(target)
    model = compile_spec("filters").eval()
    made = export(None, model.outside_training, target, tmp_path / "out", 2)
    assert made["kind"] == "step" and [x["name"] for x in made["outputs"]] == ["smooth", "low", "level", "change"]
    assert all(x["rate"] == "16000" for x in made["states"])
    files = ExportedStep(tmp_path / "out")
    wave = torch.randn(2, 40, 1)
    found = [files.push({"wave": wave[:, t : t + 1].clone()}) for t in range(40)]
    whole = model({"wave": wave})
    for name in ("smooth", "low", "level", "change"):
        torch.testing.assert_close(torch.cat([f[name] for f in found], 1), whole[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("target", ["pt2", "onnx"])
def test_blocks_of_several_rates_with_noise_and_knobs(target, tmp_path):
    skip_without(target)
    model = lower(check_document(read_text("<test>", CONVS), shipped())).eval()
    made = export(None, model.outside_training, target, tmp_path / "out", 3)
    assert made["block"] == 4 and {x["name"]: x["shape"] for x in made["inputs"]} == {
        "x": [3, 4, 2], "gain": [1], "kind": [3, 2, 1],
    }  # fmt: skip
    assert [(x["name"].split(".")[0], x["kind"], x["shape"]) for x in made["noises"]] == [("y", "normal", [3, 4, 2])]
    assert {x["rate"] for x in made["states"]} == {"8000", "2000", "4000"}


def test_a_knob_that_is_given_stays_settable(small, tmp_path):
    pytest.importorskip("onnxruntime")
    make = make_of(small, temperature=0.7)
    made = export(make, small.entries["sample"], "onnx", tmp_path / "out", 2)
    assert [(x["name"], x["init"]) for x in made["statics"]] == [("temperature", pytest.approx(0.7))]
    eager = Sampler(small, 2, 0, {"temperature": 0.01})
    noise = {v.path: v for v in eager.plan.values if v.noise is not None}
    files = ExportedSampler(tmp_path / "out", lambda name, first, count: eager._drawn(noise[name], first, count))
    files.statics[0].fill_(0.01)
    assert torch.equal(torch.cat([files.draw()["wave"] for _ in range(32)], 1), eager.draw(32)["wave"])


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def refused(tmp_path, *given):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SpecError, match="GS0646") as caught:
        export(*given)
    assert sorted(tmp_path.rglob("*")) == before
    return str(caught.value)


def test_a_file_that_computes_something_else_is_refused(small, tmp_path, monkeypatch):
    real = exporting.ExportedSampler.call

    def wrong(self, *given):
        call = real(self, *given)
        return lambda flat: [t * 1.01 if t.is_floating_point() else t for t in call(flat)]

    monkeypatch.setattr(exporting.ExportedSampler, "call", wrong)
    told = refused(tmp_path, make_of(small), small.entries["sample"], "pt2", tmp_path / "out", 2)
    assert "draw 'wave' otherwise" in told


def test_a_state_that_is_forgotten_is_found(tmp_path, monkeypatch):
    def forgets(self, *given):
        made = self.run([*given[0].values(), *self.begin("states")])
        return dict(zip([x["name"] for x in self.manifest["outputs"]], made, strict=False))

    monkeypatch.setattr(export_step.ExportedStep, "push", forgets)
    model = compile_spec("filters").eval()
    assert "differs from the model at step" in refused(
        tmp_path, None, model.outside_training, "pt2", tmp_path / "out", 1
    )


def test_what_cannot_be_exported_says_why(small, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    assert "exists already" in refused(tmp_path, make_of(small), small.entries["sample"], "pt2", tmp_path / "there", 2)
    growing = compile_spec("code_lm_delay_small")
    told = refused(tmp_path, make_of(growing), growing.entries["sample"], "pt2", tmp_path / "out", 2)
    assert "grows with time" in told

    def broken(*given):
        raise RuntimeError("no such op\nmore")

    monkeypatch.setattr("graphspec.runtime.export_files.program_of", broken)
    told = refused(tmp_path, make_of(small), small.entries["sample"], "pt2", tmp_path / "out", 2)
    assert "no such op" in told and "more" not in told


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_exports_a_run(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["train.steps=1", "train.batch=1", "train.crop.T=64"]
    assert main(["train", "sashimi_small", *SMALL, *words, "--run", str(run)]) == 0
    capsys.readouterr()
    assert main(["export", str(run), "--target", "pt2", "--out", str(out), "temperature=0.9"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(out) and "500 steps" in told.err
    assert [x["name"] for x in json.loads((out / "state.json").read_text())["statics"]] == ["temperature"]
    assert main(["export", str(run), "--target", "pt2", "--out", str(out)]) == 1
    assert "error[GS0646]" in capsys.readouterr().err
    assert main(["export", str(run), "--target", "pt2", "--out", str(tmp_path / "b"), "--entry", "nothing"]) == 1
    assert "error[GS0627]" in capsys.readouterr().err
    capsys.readouterr()
    if importlib.util.find_spec("onnxruntime"):
        words = ["sample", str(run), "--seconds", "0.005", "-o", str(tmp_path / "a.wav")]
        assert main([*words, "--backend", "onnx"]) == 0
        assert "80 ticks" in (told := capsys.readouterr().err) and "onnx, built in" in told
        assert main(words) == 0 and "1 rows, eager)" in capsys.readouterr().err
    assert main(["sample", str(run), "--backend", "cuda_graph"]) == 1
    assert "error[GS0645]" in capsys.readouterr().err
