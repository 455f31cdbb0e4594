"""Block by block is the whole, whatever the blocks; and the command does it on a recording, or on raw samples."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from graphspec.__main__ import main
from graphspec.cli.load import check_spec
from graphspec.compiler.lower import lower
from graphspec.diagnostic import SpecError
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
    assert [p.shape[1] for p in pieces] == [0, 16, 48] and stream.waiting == 6
    pieces.append(stream.flush()["dist"])
    assert (torch.cat([p for p in pieces if p.shape[1]], 1) - whole[:, :70]).abs().max() < 1e-12


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
