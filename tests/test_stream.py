"""Block by block is the whole, whatever the blocks; and the command does it on a recording, or on raw samples."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from graphspec.__main__ import main
from graphspec.cli.load import check_document, check_spec
from graphspec.compiler.lower import Model, lower
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text
from graphspec.runtime.stream import Stream

torch.set_num_threads(1)


def test_pushed_in_any_blocks_is_the_whole() -> None:
    model = lower(check_spec("filters")).double()
    wave = torch.randn(2, 500, 1, dtype=torch.float64)
    whole = model({"wave": wave})
    names = ["smooth", "low", "level", "change"]
    stream = Stream(model, names, rows=2)
    kept = None
    made: dict[str, list[torch.Tensor]] = {n: [] for n in names}
    at = 0
    for n in (1, 63, 64, 0, 200, 172):
        if at == 128:  # the state is all there is: another stream goes on from it
            kept = {k: v.clone() for k, v in stream.state.items()}
            stream = Stream(model, names, rows=2)
            stream.state = kept
        for name, y in stream.push(wave[:, at : at + n]).items():
            made[name].append(y)
        at += n
    assert kept is not None and at == 500
    for name in names:
        assert (torch.cat(made[name], 1) - whole[name]).abs().max() < 1e-12


def test_a_coarse_clock_waits_for_its_step_and_is_flushed() -> None:
    params = ("d=8", "depth=1", "bits=4", "state=8")
    model = lower(check_spec("sashimi_small", params)).double()
    wave = torch.randint(16, (1, 70, 1))
    padded = torch.cat([wave, wave.new_full((1, 10, 1), 8)], 1)
    (whole,) = model.evaluate([model.graph.outputs["dist"]], {"wave": padded})
    stream = Stream(model, ["dist"])
    pieces = [stream.push(wave[:, a:b])["dist"] for a, b in ((0, 5), (5, 21), (21, 70))]
    assert [p.shape[1] for p in pieces] == [5, 16, 49] and stream.plan("dist").ticks == 0
    pieces.append(stream.flush()["dist"])
    assert (torch.cat([p for p in pieces if p.shape[1]], 1) - whole[:, :70]).abs().max() < 1e-12


def test_a_warm_stream_remembers_nothing_of_it() -> None:
    small = ("width=6", "memory=6", "harmonics=6", "bands=5")
    model = lower(check_spec("ddsp_realtime", small)).double()
    sound = 0.3 * torch.sin(torch.arange(3200, dtype=torch.float64) / 9)[None, :, None]
    found = []
    for warm in (False, True):
        stream = Stream(model, ["out"])
        if warm:
            stream.warm()
        found.append(torch.cat([stream.push(sound)["out"], stream.flush()["out"]], 1))
    assert found[0].shape[1] == 3200 and found[0].abs().max() > 0 and torch.equal(*found)


def test_what_cannot_be_streamed_is_said() -> None:
    model = lower(check_spec("filters"))
    with pytest.raises(SpecError, match="GS0638 .*did you mean 'low'"):
        Stream(model, ["lo"])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "filters", "steps=2", "data.wave=corpus(pieces=3, seconds=0.6)", "--run", "f"]) == 0
    sound = (0.3 * np.sin(np.arange(4000) / 5)).astype(np.float32)
    soundfile.write("in.wav", sound, 16000, subtype="FLOAT")
    capsys.readouterr()
    assert main(["stream", "f", "in.wav", "out.wav", "--value", "low", "--block", "48"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == "out.wav" and "real-time factor" in said.err
    out, rate = soundfile.read("out.wav", dtype="float32")
    model = lower(check_spec("filters"))
    whole = model({"wave": torch.from_numpy(sound)[None, :, None]})["low"][0, :, 0].detach().numpy()
    assert rate == 16000 and len(out) == 4000 and np.abs(out - whole).max() < 1e-4
    assert main(["stream", "f", "missing.wav", "o.wav"]) == 1 and "GS0618" in capsys.readouterr().err
    pcm = (sound * 32767).astype("<i2").tobytes()
    command = [sys.executable, "-m", "graphspec", "stream", "f", "-", "-", "--value", "low"]
    piped = subprocess.run(command, input=pcm, capture_output=True, check=True)
    heard = np.frombuffer(piped.stdout, "<i2") / 32767
    assert len(heard) == 4000 and np.abs(heard - whole).max() < 1e-3


AHEAD = """\
graphspec: 1
model: ahead
inputs:
  wave: float[T, 1] @ 16000
  f0: float[N, 1] @ 250
  gain: {type: float, default: 0.5}
require:
  - T == N * 64
graph:
  level: abs(wave) |> conv(1, k=9, centre=true) |> leaky(0.99)
  ctl: f0 |> conv(2, k=3, centre=true) |> linear(1) |> upsample(64, method=window)
  slow: wave |> mean_pool(16) |> conv(4, k=3) |> gru(4) |> linear(16) |> unfold(16)
  y: gain*ctl*slow + level
  hiss: y + 0.1*normal_like(y)
outputs: [y, hiss]
use: [std/filters]
"""


def ahead() -> Model:
    return lower(check_document(read_text("ahead.yaml", AHEAD), Path()), seed=1)


def test_look_ahead_and_several_inputs_and_a_knob() -> None:
    model = ahead().double()
    wave, f0 = torch.randn(1, 640, 1, dtype=torch.float64), torch.randn(1, 10, 1, dtype=torch.float64)
    whole = model.evaluate([model.graph.outputs["y"]], {"wave": wave, "f0": f0, "gain": 0.25})[0]
    stream = Stream(model, ["y", "hiss"], knobs={"gain": 0.25}, seed=3)
    assert stream.plan("y").ticks == 128  # a control ahead for the convolution, and one to go to
    pieces: dict[str, list[torch.Tensor]] = {"y": [], "hiss": []}
    for k in range(10):
        for at in (0, 40):
            given = {"wave": wave[:, 64 * k + at : 64 * k + (40 if at == 0 else 64)]}
            for name, x in stream.push(given | ({"f0": f0[:, k : k + 1]} if at == 0 else {})).items():
                pieces[name].append(x)
    assert sum(p.shape[1] for p in pieces["y"]) == 512
    for name, x in stream.flush().items():
        pieces[name].append(x)
    y, hiss = (torch.cat(pieces[n], 1) for n in ("y", "hiss"))
    assert (y - whole).abs().max() < 1e-12
    assert 0.05 < float((hiss - y).std()) < 0.2
    with pytest.raises(ValueError, match=r"reset\(\) begins another"):
        stream.push({"wave": wave[:, :1]})
    stream.reset()
    again = stream.push({"wave": wave, "f0": f0})
    assert torch.allclose(again["hiss"], hiss[:, : again["hiss"].shape[1]], atol=1e-12)  # noise is of seed and place


def test_controls_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ahead.yaml").write_text(
        AHEAD.replace("outputs: [y, hiss]", "outputs: [y]\nlosses:\n  fit: l2(y, wave)")
        + "data:\n  wave: corpus()\n  f0: corpus()\n"
        + "train:\n  optimizer: adam()\n  lr: 1e-3\n  steps: 1\n  crop: {T: 640}\n"
    )
    model = ahead()
    monkeypatch.setattr("graphspec.cli.trained.open_model", lambda *a, **k: (None, model.eval(), None))
    rng = np.random.default_rng(0)
    np.savez("controls.npz", wave=rng.normal(size=(1000, 1)).astype("f4"), f0=rng.normal(size=16).astype("f4"))
    assert main(["stream", "r", "controls.npz", "out.wav", "--value", "y", "--knob", "gain=1", "--block", "100"]) == 0
    assert "latency 128 samples, 8.00 ms" in capsys.readouterr().err
    out, rate = soundfile.read("out.wav")
    assert rate == 16000 and len(out) == 1024  # 16 controls last longer than the recording
    for arguments, code, told in [
        (["in.wav", "o.wav"], "GS0638", "give an .npz"),
        (["missing.npz", "o.wav"], "GS0618", "cannot be read"),
        (["controls.npz", "o.wav", "--knob", "gian=1"], "GS0638", "did you mean 'gain'"),
        (["controls.npz", "o.wav", "--knob", "gain=x"], "GS0638", "is not a number"),
    ]:
        assert main(["stream", "r", *arguments]) == 1
        said = capsys.readouterr().err
        assert code in said and told in said
    np.savez("bad.npz", wave=np.zeros((64, 2)), f0=np.zeros(1))
    assert main(["stream", "r", "bad.npz", "o.wav"]) == 1 and "GS0618" in capsys.readouterr().err


FLAT = """\
import sys, torch
from graphspec.runtime.stream import Stream
from test_stream import ahead
torch.set_num_threads(1)
stream = Stream(ahead(), ["y"])
sizes, held = [], []
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
minutes = float(sys.argv[1])
blocks = int(minutes * 60 * 16000) // 6400
for i in range(blocks):
    stream.push({"wave": torch.randn(1, 6400, 1), "f0": torch.randn(1, 100, 1)})
    if i % (blocks // 10) == 0:
        sizes.append(resident())
        held.append(sum(t.numel() for t in stream.state.values()))
print(max(sizes[5:]) - max(sizes[:5]), max(held[1:]) - min(held[1:]))
"""


@pytest.mark.parametrize("minutes", [1, pytest.param(10, marks=pytest.mark.full)])
def test_memory_does_not_grow_with_length(minutes: int) -> None:
    command = [sys.executable, "-c", FLAT, str(minutes)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout
    grown, state = map(int, said.split())
    assert grown < 2048, f"resident memory grew by {grown} KiB in the second half"
    assert state == 0
