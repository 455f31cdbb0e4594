"""Six bugs of forks that grew stereo and mixtures by hand: each is impossible here, or told at compile time."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from graphspec.cli.load import check_document, compile_spec
from graphspec.compiler.lower import lower
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text

SPEC = """\
graphspec: 1
model: twins
inputs:
  wave:
    type: int(256)[T, 2] @ 16000
    before: 128
graph:
  x: wave[t-1] |> embed(8)
  y: {y}
  dist: y |> categorical(256, channels=2)
losses:
  nll: nll(dist, wave)
metrics:
  {metric}
outputs: [dist]
{more}
"""
TRAIN = """\
train:
  optimizer: adamw()
  lr: 1e-3
  steps: 2
  batch: 1
  crop: {T: 256}
  log_every: 1
"""


def spec(y: str = "x", metric: str = "bits: nll / log(2)", more: str = "") -> str:
    return SPEC.format(y=y, metric=metric, more=more)


def refused(text: str) -> tuple[str, str]:
    with pytest.raises(SpecError) as caught:
        check_document(read_text("twins.yaml", text), Path())
    (d, *_) = caught.value.diagnostics
    assert d.span is not None
    return d.code, d.message


def graphspec(*given: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphspec", *given]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_dimension_mismatch_after_embedding_two_channels() -> None:
    code, message = refused(spec("x + (x |> linear(8))"))  # the width of one channel's embedding
    assert code == "GS0301" and "16" in message and "8" in message
    model = compile_spec("sashimi_small", ["channels=2", "d=4", "depth=1", "state=4"])
    wave = torch.randint(256, (1, 64, 2))
    assert model({"wave": wave})["dist"].shape == (1, 64, 2, 256)


def test_metrics_on_dict_outputs() -> None:
    assert refused(spec(metric="whole: dist"))[0] == "GS0303"  # a distribution is no number
    model = compile_spec("sashimi_small_dml", ["channels=2", "d=4", "depth=1", "state=4"])
    found = model({"wave": torch.randint(256, (1, 64, 2))})
    assert {n for n in found if n.startswith("metrics.")} == {f"metrics.{t.name}" for t in model.graph.metrics}
    assert all(isinstance(x, torch.Tensor) for x in found.values())


def test_loss_without_data_set(tmp_path: Path) -> None:
    (tmp_path / "twins.yaml").write_text(spec(more=TRAIN))
    ran = graphspec("train", "twins.yaml", "--run", "run", cwd=tmp_path)
    assert ran.returncode == 1 and "GS0608" in ran.stderr and "Traceback" not in ran.stderr
    assert not (tmp_path / "runs").exists()
    # The loss itself wants no data set: any tensors will do.
    model = lower(check_document(read_text("twins.yaml", spec()), Path()))
    assert model({"wave": torch.randint(256, (1, 32, 2))})["losses.nll"].shape == (1, 32, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run in `runs/run`, whose metrics are logits, a number a channel, and one number."""
    folder = tmp_path_factory.mktemp("twins")
    more = "data:\n  wave: audio_folder('waves', held_out=1)\n" + TRAIN
    metric = "logits: dist.logits\n  bits: nll / log(2)\n  one: mean(dist.entropy)"
    (folder / "twins.yaml").write_text(spec(metric=metric, more=more))
    for i in range(3):
        noise(folder / "waves" / f"a{i}.wav", 0.5)
    ran = graphspec("train", "twins.yaml", "--run", "run", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return folder


def noise(path: Path, seconds: float) -> None:
    path.parent.mkdir(exist_ok=True)
    sf.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (int(16000 * seconds), 2)), 16000)


MEASURED = """\
import resource, runpy, sys
sys.argv = ["graphspec", "eval", "runs/run", "data=" + sys.argv[1]]
try:
    runpy.run_module("graphspec", run_name="__main__")
except SystemExit as e:
    assert not e.code, e.code
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.full
def test_80_gb_metrics(run: Path) -> None:
    """What is measured is added up as it goes: half a minute is scored in the memory of four seconds."""
    peaks = []
    for seconds in (4, 30):  # of which the logits would be 1 GB
        for name, length in (("a", 0.1), ("b", 0.1), ("c", seconds)):  # the last is held out, and scored
            noise(run / f"of_{seconds}" / f"{name}.wav", length)
        command = [sys.executable, "-c", MEASURED, f"of_{seconds}"]
        ran = subprocess.run(command, cwd=run, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        peaks.append(int(ran.stdout.split("peak")[1]) / 1024)
    assert peaks[1] - peaks[0] < 300, f"{peaks} MB"


def test_logging_non_scalars(run: Path) -> None:
    """A metric of many numbers is logged as its mean, one of a few channels as those of its channels besides."""
    rows = list(csv.DictReader((run / "runs" / "run" / "metrics.csv").open()))
    named = [c for c in rows[0] if c.startswith(("logits", "bits", "one"))]
    assert named == ["logits", "bits", "bits[0]", "bits[1]", "one"]
    last = {c: float(rows[-1][c]) for c in named}
    assert all(np.isfinite(x) for x in last.values())
    assert last["bits"] == pytest.approx((last["bits[0]"] + last["bits[1]"]) / 2, rel=1e-6)


def test_unhashable_slices() -> None:
    """There are no slices to be keys of anything; parts have names, and lists are arguments like others."""
    assert refused(spec("x[0:8]"))[0] == "GS0121"
    text = spec(
        "cat(x |> take(0, 8), x |> take(8, 8))",
        "tail: mean(multiscale_stft(x |> take(0, 1), x |> take(1, 1), sizes=[16, 32]))",
    )
    for _ in range(2):  # the second time from every cache
        checked = check_document(read_text("twins.yaml", text), Path())
        assert lower(checked)({"wave": torch.randint(256, (1, 64, 2))})["dist"].shape == (1, 64, 2, 256)
