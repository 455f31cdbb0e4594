"""`graphspec latency`: the plan of a stream, its path, the delays it inserts, what would save most."""

import json
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
import torch

from graphspec.__main__ import main
from graphspec.cli.load import check_document
from graphspec.compiler.latency import plan
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text

HEAD = "graphspec: 1\nmodel: late\nrequire:\n  - T % 64 == 0\ninputs:\n  wave: float[T, 1] @ 16000\ngraph:\n"
VOCODER = (
    HEAD
    + """\
  mel: wave |> log_mel(512, hop=64, mels=20)
  h: mel |> conv(8, k=5, centre=true) |> gru(8) |> conv(8, k=3, centre=true)
  ctl: h |> linear(1) |> upsample(64, method=linear)
  side: wave |> conv(1, k=33, centre=true)
  y: ctl * side + 0.5*wave
  z: 0.9*z[t-1] + y
outputs: [y, z]
"""
)


def planned(text: str, name: str):
    checked = check_document(read_text("late.yaml", text), Path())
    return plan(checked.graph, checked.graph.outputs[name], checked.regions)


@pytest.mark.parametrize(
    ("line", "ticks"),
    [
        ("wave |> conv(2, k=9)", 0),
        ("wave |> conv(2, k=9, centre=true)", 4),
        ("wave |> conv(2, k=8, centre=true)", 3),
        ("wave |> fold(4)", 3),
        ("wave |> downsample(4)", 0),
        ("wave |> fold(4) |> unfold(4)", 3),
        ("wave |> fold(4) |> unfold(4) |> shift(3)", 0),
        ("wave |> fold(4) |> shift(1) |> unfold(4)", 0),
        ("wave |> spectrogram(512, hop=64)", 255),
        ("wave |> spectrogram(512, hop=64, framing=causal)", 63),
        ("wave |> downsample(64) |> upsample(64, method=linear)", 64),
        ("wave |> linear(2) |> attention(1, chunk=8, causal=false)", 7),
        ("wave |> linear(2) |> attention(1, window=8)", 0),
        ("wave |> resample(up=1, down=2, zeros=8)", 16),
        ("wave |> resample(up=2, down=1, zeros=8)", 8),
        ("wave + conv(wave, 1, k=9, centre=true)", 4),
        ("wave[t-100] + conv(wave, 1, k=9, centre=true)[t-2]", 2),
    ],
)
def test_known_latencies(line: str, ticks: int) -> None:
    assert planned(HEAD + f"  y: {line}\noutputs: [y]\n", "y").ticks == ticks


def test_the_path_the_waits_and_what_would_save() -> None:
    p = planned(VOCODER, "z")
    assert p.ticks == 511 and float(p.seconds) == 511 / 16000
    added = [(h.value.path, h.added) for h in p.path if h.added]
    assert added == [("mel.log_mel", 255), ("h.conv", 128), ("h.conv_2", 64), ("ctl.upsample", 64)]
    assert [(w.operand.path, w.ticks) for w in p.waits] == [("y.mul_2", 511), ("side.conv", 495)]
    assert [(s.value.path, s.change, s.ticks) for s in p.savings][:2] == [
        ("mel.log_mel", "framing=causal", 319),
        ("h.conv", "centre=false", 383),
    ]
    assert planned(VOCODER.replace("log_mel(512,", "log_mel(512, framing=causal,"), "z").ticks == 319


def test_what_reads_all_of_time_has_no_latency() -> None:
    with pytest.raises(SpecError, match="GS0640 y.norm_over_time reads all of wave"):
        planned(HEAD + "  y: wave |> norm_over_time\noutputs: [y]\n", "y")


def test_what_reads_all_of_another_rate_joins_what_reads_that_rate() -> None:
    """A context at frames beside the samples that the frames are made of; a tracker beside frames of its input."""
    for line in ("conv(2) |> attention(1, context=wave |> fold(4) |> linear(2))", "conv(2) |> linear(2)"):
        text = HEAD + f"  p: wave |> pitch(64, tracker=swift)\n  f: wave |> downsample(64)\n  a: wave |> {line}\n"
        text += "  y: cat(p, f)\n  z: a + (y |> upsample(64))\noutputs: [y, z]\n"
        checked = check_document(read_text("late.yaml", text), Path())
        reach = checked.time.of["wave"][checked.graph.outputs["y"]]
        assert reach.step == 64 and reach.last_at(0) == inf
        assert checked.time.of["wave"][checked.graph.outputs["z"]].step == 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "late.yaml"
    spec.write_text(VOCODER)
    assert main(["latency", str(spec), "--value", "y"]) == 0
    said = capsys.readouterr().out
    assert "y: 511 samples late at 16000 Hz, 31.94 ms" in said
    assert "mel.log_mel with framing=causal: 319" in said and "side.conv waits 495" in said
    assert main(["latency", str(spec), "--value", "w"]) == 1 and "GS0638" in capsys.readouterr().err
    script = (
        "import sys; from graphspec.__main__ import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "latency", str(spec), "--format", "json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert {name: p["samples"] for name, p in found.items()} == {"y": 511, "z": 511}
    assert found["z"]["path"][-1]["at"].endswith("late.yaml:13")


torch.set_num_threads(1)
