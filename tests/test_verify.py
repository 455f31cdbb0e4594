"""`graphspec verify`: every shipped spec passes at a reduced size, and planted faults are found at the right value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_specs import BASES, SMALL

from graphspec.__main__ import main
from graphspec.cli.load import check_document, check_spec
from graphspec.compiler.looping import Loop
from graphspec.compiler.lower import Model, lower
from graphspec.diagnostic import SpecError
from graphspec.ops.modules.attention import BandedAttention
from graphspec.ops.modules.conv import CausalConv
from graphspec.ops.modules.dense import Linear
from graphspec.ops.modules.norm import LayerNorm
from graphspec.ops.modules.pool import Shift, Unfold
from graphspec.ops.modules.recurrence import CompanionScan, LinearScan
from graphspec.ops.modules.recurrent import GRU
from graphspec.ops.modules.resample import Interpolate, Resample
from graphspec.ops.modules.ssm import S4D
from graphspec.reader import read_text
from graphspec.runtime.chance import Noise
from graphspec.runtime.sample import Sampler
from graphspec.runtime.stream_sampler import StreamSampler
from graphspec.runtime.trial import Trial
from graphspec.runtime.verify import sampled, verify

torch.set_num_threads(1)


def verified(name: str) -> list[str]:
    model = lower(check_spec(name, SMALL[name].params))
    return [f.promise for f in verify(model, 48, 0)]


@pytest.mark.parametrize("name", BASES)
def test_a_shipped_spec_is_verified(name: str) -> None:
    promises = verified(name)
    first = ["whole == step == chunks", "whole == stream", "gradients", "rows", "time", "poison", "float32", "bfloat16"]
    assert promises[:8] == first
    graph = check_spec(name, SMALL[name].params).graph
    assert promises[8:].count("probabilities") == (0 if name == "filters" else 2 if name == "wavernn" else 1)
    assert ("entry sample" in promises) == ("sample" in graph.entries)


def wrapped(method: str, change: Callable[..., Any]) -> Callable[[type], Callable[..., Any]]:
    """The method of a class with what it returns, or is given, changed."""

    def made(cls: type) -> Callable[..., Any]:
        right = getattr(cls, method)
        return lambda self, *a, **k: change(right, self, *a, **k)

    return made


def forgets_its_state(right: Any, self: Any, *x: Any, state: Any, prepared: Any, **named: Any) -> Any:
    y, new = right(self, *x, state=state, prepared=prepared, **named)
    return y, {n: torch.zeros_like(t) for n, t in new.items()}


def keeps_its_state(right: Any, self: Any, *x: Any, state: Any, prepared: Any, **named: Any) -> Any:
    y, _ = right(self, *x, state=state, prepared=prepared, **named)
    return y, state


def starts_from_zero(right: Any, self: Any, a: Any, b: Any, before: Any) -> Any:
    return right(self, a, b, torch.zeros_like(before))


def looks_ahead(right: Any, self: Any, x: Any, *more: Any, **named: Any) -> Any:
    y = right(self, x, *more, **named)
    return torch.cat([y[:, 1:], y[:, -1:]], 1)


def mixes_rows(right: Any, self: Any, x: Any, *more: Any, **named: Any) -> Any:
    y = right(self, x, *more, **named)
    return y + 0.1 * y.mean(0, keepdim=True)


def over_time(right: Any, self: Any, x: Any, *more: Any, **named: Any) -> Any:
    return right(self, x, *more, **named) + 0.01 * x.mean(1, keepdim=True)


def rounds(right: Any, self: Any, x: Any, *more: Any, **named: Any) -> Any:
    y = right(self, x, *more, **named)
    return (y * 8).round() / 8 if y.dtype == torch.float32 else y


def a_tick_late(right: Any, self: Any, v: Any, first: int, count: int) -> Any:
    return right(self, v, first, count).flip(0)


AHEAD = """\
graphspec: 1
model: ahead
require:
  - T % 8 == 0
inputs:
  wave: float[T, 2] @ 800
graph:
  frames: wave |> conv(4, k=5, centre=true) |> mean_pool(8)
  control: frames |> linear(2) |> upsample(8, method=linear)
  band: wave |> resample(up=1, down=2, zeros=6) |> upsample(2)
  mixed: (control + band) * wave
  y: mixed |> attention(1, chunk=4, causal=false)
  s: mixed |> s4d(4)
outputs: [y, s]
"""


def ahead() -> Model:
    return lower(check_document(read_text("ahead.yaml", AHEAD), Path()))


def test_what_looks_ahead_is_verified_as_a_stream() -> None:
    found = {f.promise: f.told for f in verify(ahead(), 48, 0)}
    assert "whole == stream" in found and "y 17 ticks late" in found["whole == stream"]
    assert "NaN does, first at s.s4d" in found["poison"]


def a_tick_less(right: Any, self: Any, x: Any, *more: Any, **named: Any) -> Any:
    return right(self, torch.cat([x[:, 1:], x[:, -1:]], 1), *more, **named)


@pytest.mark.parametrize(
    ("owner", "name"), [(CausalConv, "frames.conv"), (Interpolate, "control.upsample"), (Resample, "band.resample")]
)
def test_a_window_taken_a_tick_off_is_found(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = wrapped("over", a_tick_less)(owner)
    monkeypatch.setattr("graphspec.compiler.flow.Called.forward", lambda self, *x, **named: (
        made(self.method.__self__, *x, **named) if isinstance(self.method.__self__, owner)
        and self.method.__name__ == "over" else self.method(*x, **named)
    ))  # fmt: skip
    with pytest.raises(SpecError) as caught:
        list(verify(ahead(), 48, 0))
    (d,) = caught.value.diagnostics
    assert d.code == "GS0701" and name in d.message and "as a stream" in d.message


FAULTS: dict[str, tuple[str, type, str, Any, str, str]] = {
    "a convolution forgets its past": ("wavenet", CausalConv, "step", forgets_its_state, "GS0701", "conv"),
    "a convolution never moves on": ("wavenet", CausalConv, "step", keeps_its_state, "GS0701", "conv"),
    "a delay forgets": ("sashimi_small", Shift, "step", forgets_its_state, "GS0701", "shift"),
    "a GRU is reset at each chunk": ("samplernn", GRU, "step", forgets_its_state, "GS0701", "gru"),
    "a state space is reset": ("sashimi_small", S4D, "step", forgets_its_state, "GS0701", "s4d"),
    "a window of attention forgets": ("transformer", BandedAttention, "step", forgets_its_state, "GS0701", "attention"),
    "a scan starts from zero": ("filters", LinearScan, "solve", starts_from_zero, "GS0701", "target"),
    "a biquad starts from zero": ("filters", CompanionScan, "solve", starts_from_zero, "GS0701", "low"),
    "a loop keeps its past": ("wavernn", Loop, "step", keeps_its_state, "GS0701", "past"),
    "a convolution looks ahead": ("wavenet", CausalConv, "forward", looks_ahead, "GS0701", "conv"),
    "pooling looks ahead": ("sashimi_small", Unfold, "forward", looks_ahead, "GS0701", "unfold"),
    "a norm reads all of time": ("sashimi_small", LayerNorm, "forward", over_time, "GS0701", "layer_norm"),
    "rows mix": ("transformer", Linear, "forward", mixes_rows, "GS0703", "linear"),
    "float32 is rounded away": ("wavenet", Linear, "forward", rounds, "GS0704", ""),
    "the sampler's noise is another row's": ("wavenet", Sampler, "_noise_for", a_tick_late, "GS0701", "sample"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_at_its_value(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, owner, method, change, code, name = FAULTS[fault]
    monkeypatch.setattr(owner, method, wrapped(method, change)(owner))
    with pytest.raises(SpecError) as caught:
        verified(spec)
    (d,) = caught.value.diagnostics
    assert d.code == code and name in d.message and d.span is not None, d.message


CONDITIONED = ("mels=2", "hop=16", "width=4", "skips=4", "layers=3", "cycle=2")


def conditioned() -> Model:
    """A WaveNet that hears a spectrogram: its entry is sampled by the stream executor."""
    made = lower(check_spec("wavenet", CONDITIONED))
    with torch.no_grad():
        for path, w in made.weights().items():  # so that what is drawn depends on what was heard
            w.mul_(8 if "dist" in path else 2)
    return made


def entries(made: Model) -> list[str]:
    return [f.told for f in verify(made, 48, 0) if f.promise.startswith("entry")]


def test_an_entry_that_hears_what_is_given_is_verified() -> None:
    assert entries(conditioned()) == ["48 ticks drawn by the stream executor are those of the whole form"]


DELAYED = """\
graphspec: 1
model: delayed
require:
  - T == N * 4
inputs:
  wave: {type: "int(16)[T, 1] @ 1200", before: 8}
  code: {type: "int(8)[N, 1] @ 300", before: 0}
graph:
  codes: code[t-1] |> embed(3) |> gru(4) |> categorical(8)
  x: cat(wave[t-6] |> embed(4) |> conv(4, k=7, centre=true), code |> embed(2) |> upsample(4))
  dist: x |> gru(5) |> categorical(16)
losses:
  nll: nll(dist, wave)
  code_nll: nll(codes, code)
sample:
  feed:
    code: draw(codes)
    wave: draw(dist)
  to: [wave]
"""


def test_an_entry_that_looks_ahead_behind_a_delay_with_feeds_of_unlike_rates_is_verified() -> None:
    made = lower(check_document(read_text("delayed.yaml", DELAYED), Path()))
    assert entries(made) == ["48 ticks drawn by the stream executor are those of the whole form"]


def hears_a_frame_late(right: Any, self: Any, given: Any, **end: Any) -> Any:
    return right(self, {n: x.roll(1, 1) if n == "mel" and x.shape[1] > 1 else x for n, x in given.items()}, **end)


def feeds_another(right: Any, self: Any, given: Any, **end: Any) -> Any:
    return right(self, {n: (x + 1) % 256 if n == "wave" else x for n, x in given.items()}, **end)


def draws_as_another_row(right: Any, self: Any, v: Any, first: int, count: int) -> Any:
    made = right(self, v, first, count)
    return made if first == 0 and count > 1 else made.flip(0)  # not for the whole form, which begins at 0


STREAM_FAULTS: dict[str, tuple[type, str, Any]] = {
    "what is given comes a frame late": (StreamSampler, "_push", hears_a_frame_late),
    "another class is fed than was drawn": (StreamSampler, "_push", feeds_another),
    "the noise is another row's": (Noise, "__call__", draws_as_another_row),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
def test_a_fault_of_sampling_as_a_stream_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, change = STREAM_FAULTS[fault]
    made = conditioned()
    trial = Trial(made.double().eval(), 48, 0)
    sampled(trial, "sample", made.entries["sample"])
    monkeypatch.setattr(owner, method, wrapped(method, change)(owner))
    with pytest.raises(SpecError) as caught:
        sampled(trial, "sample", made.entries["sample"])
    (d,) = caught.value.diagnostics
    assert d.code == "GS0701" and "'sample' draws wave otherwise" in d.message and d.span is not None


def test_the_command_says_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "filters", "--ticks", "32"]) == 0
    said = capsys.readouterr().out
    assert said.count("holds: ") == 8 and "saved" not in said
    assert main(["verify", "filtrs"]) == 1
    assert "did you mean 'filters'" in capsys.readouterr().err
