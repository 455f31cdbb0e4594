"""Sampling by the stream executor: token for token what the schedule draws, and what the schedule does not reach."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from test_specs import SMALL

from graphspec.__main__ import main
from graphspec.cli.load import check_document, check_spec
from graphspec.compiler.lower import Model, lower
from graphspec.compiler.plan import schedule
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text
from graphspec.runtime.sample import Sampler
from graphspec.runtime.stream_sampler import StreamSampler

torch.set_num_threads(1)
HEAD = """\
graphspec: 1
model: ahead
require:
  - T % 12 == 0
inputs:
  wave: {type: "int(16)[T, 1] @ 1200", before: 8}
"""
TAIL = """\
losses:
  nll: nll(dist, wave)
sample:
  feed:
    wave: draw(dist)
"""


def model(graph: str, inputs: str = "", head: str = HEAD, tail: str = TAIL) -> Model:
    made = lower(check_document(read_text("ahead.yaml", head + inputs + "graph:\n" + graph + tail), Path()), seed=2)
    with torch.no_grad():
        for path, w in made.weights().items():
            if path.startswith("dist"):
                w.mul_(6)
    return made.double()


@pytest.mark.parametrize("name", ["sashimi", "samplernn", "mamba", "code_lm_delay"])
def test_it_draws_what_the_schedule_draws(name: str) -> None:
    made = lower(check_spec(name, SMALL[name].params)).double()
    by_schedule, by_stream = Sampler(made, 2, 5), StreamSampler(made, 2, 5)
    a, b = by_schedule.draw(40), by_stream.draw(40)
    assert set(a) == set(b)
    for each in a:
        assert torch.equal(a[each], b[each])
    again, prompted = StreamSampler(made, 2, 5), Sampler(made, 2, 5)
    sources = [s for s, _ in again.fed]
    prompt = {s.path: a[n][:, :27] for s in sources for n, v in by_stream.played.items() if v is s}
    if set(prompt) == {s.path for s in sources}:
        prompted.prefill(prompt)
        again.prefill(prompt)
        a, b = prompted.draw(21), again.draw(21)
        assert all(torch.equal(a[each], b[each]) for each in a)


CASES = {
    "a delay, then a fold over later ticks": "  h: wave |> embed(2) |> shift(4) |> fold(4) |> linear(8) |> unfold(4)\n"
    "  dist: h |> categorical(16)\n",
    "a look-ahead behind a delay": "  h: wave[t-4] |> embed(4) |> conv(4, k=7, centre=true) |> tanh\n"
    "  dist: h |> categorical(16)\n",
    "interpolated controls": "  c: wave[t-9] |> embed(3) |> mean_pool(4) |> gru(3) |> upsample(4, method=linear)\n"
    "  dist: c |> categorical(16)\n",
    "a loop ahead of its time": "  x: wave |> embed(2) |> shift(6) |> fold(3) |> linear(2)\n  y: 0.5*y[t-1] + x\n"
    "  dist: y |> linear(6) |> unfold(3) |> categorical(16)\n",
}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_what_the_schedule_does_not_reach_is_drawn_as_the_whole_form_says(case: str) -> None:
    made = model(CASES[case])
    with pytest.raises(SpecError, match="GS0641"):
        schedule(made.entries["sample"].graph)
    sampler = StreamSampler(made, 2, 3)
    wave = torch.cat([sampler.draw(17)["wave"], sampler.draw(43)["wave"]], 1)
    view = made.entries["sample"]
    (feed,) = view.graph.feeds
    noise = {feed.drawn.path: sampler._noise(feed.drawn, 0, 60)}
    longer = {"wave": torch.cat([wave, wave.new_full((2, 12, 1), 3)], 1)}  # what lies behind does not matter
    noise[feed.drawn.path] = torch.cat([noise[feed.drawn.path], torch.rand(2, 12, 1, dtype=torch.float64)], 1)
    (again,) = view.evaluate([feed.drawn], longer, noise)
    assert torch.equal(again[:, :60], wave)
    prompted = StreamSampler(made, 2, 3)
    prompted.prefill({"wave": wave[:, :31]})
    assert torch.equal(prompted.draw(29)["wave"], wave[:, 31:])


@torch.no_grad()
def test_conditions_along_time_are_given() -> None:
    inputs = "  pitch: float[N, 2] @ 100\n"
    head = HEAD.replace("T % 12 == 0", "T == N * 12")
    made = model(
        "  c: pitch |> conv(3, k=3, centre=true) |> upsample(12, method=linear)\n"
        "  dist: cat(c, wave[t-1] |> embed(4)) |> gru(5) |> categorical(16)\n",
        inputs,
        head,
        TAIL.replace("sample:\n", "sample:\n  from: [pitch]\n"),
    )
    pitch = torch.randn(2, 5, 2, dtype=torch.float64)
    with pytest.raises(SpecError, match="GS0629 'pitch' is heard"):
        StreamSampler(made, 2, 3)
    with pytest.raises(SpecError, match="GS0629 what is given for 'pitch' is .1, 5, 2."):
        StreamSampler(made, 2, 3, given={"pitch": pitch[:1]})
    sampler = StreamSampler(made, 2, 3, given={"pitch": pitch})
    wave = sampler.draw(60)["wave"]
    view = made.entries["sample"]
    (feed,) = view.graph.feeds
    noise = {feed.drawn.path: sampler._noise(feed.drawn, 0, 60)}
    assert torch.equal(view.evaluate([feed.drawn], {"wave": wave, "pitch": pitch}, noise)[0], wave)
    with pytest.raises(SpecError, match="GS0629 nothing more can be drawn"):
        sampler.draw(1)


TWO = """\
graphspec: 1
model: two
require:
  - T == N * 4
inputs:
  wave: {type: "int(16)[T, 1] @ 1200", before: 8}
  code: {type: "int(8)[N, 1] @ 300", before: 0}
graph:
  codes: code[t-1] |> embed(3) |> gru(4) |> categorical(8)
  dist: cat(wave[t-1] |> embed(3), code |> embed(2) |> upsample(4)) |> gru(5) |> categorical(16)
losses:
  nll: nll(dist, wave)
  code_nll: nll(codes, code)
sample:
  feed:
    wave: draw(dist)
    code: draw(codes)
  to: [wave, code]
"""


def two() -> Model:
    return lower(check_document(read_text("two.yaml", TWO), Path()), seed=2).double()


def test_prompts_of_unlike_rates_are_cut_to_the_same_time() -> None:
    made = two()
    drawn = StreamSampler(made, 2, 3).draw(40)
    assert drawn["wave"].shape == (2, 40, 1) and drawn["code"].shape == (2, 10, 1)
    for wave, code in ((20, 5), (20, 8), (23, 5), (20, 10), (40, 5)):
        sampler = StreamSampler(made, 2, 3)
        sampler.prefill({"wave": drawn["wave"][:, :wave], "code": drawn["code"][:, :code]})
        rest = sampler.draw(20)
        assert torch.equal(rest["wave"], drawn["wave"][:, 20:]) and torch.equal(rest["code"], drawn["code"][:, 5:])


PROMPTS = {
    "another number of rows": ({"wave": (1, 8, 1), "code": (2, 2, 1)}, "the prompt of 'wave' is .1, 8, 1."),
    "no channel": ({"wave": (2, 8), "code": (2, 2, 1)}, "the prompt of 'wave' is .2, 8."),
    "one is missing": ({"wave": (2, 8, 1)}, "a prompt is for wave, code"),
    "too short for one element of the slower": ({"wave": (2, 3, 1), "code": (2, 2, 1)}, "too short"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_that_does_not_fit_is_refused(name: str) -> None:
    shapes, told = PROMPTS[name]
    with pytest.raises(SpecError, match=f"GS0629 .*{told}"):
        StreamSampler(two(), 2, 3).prefill({n: torch.zeros(s, dtype=torch.int64) for n, s in shapes.items()})


def test_a_prompt_of_another_kind_or_too_late_is_refused() -> None:
    sampler, zeros = StreamSampler(two(), 2, 3), torch.zeros(2, 2, 1, dtype=torch.int64)
    wave = torch.zeros(2, 8, 1, dtype=torch.int64)
    with pytest.raises(SpecError, match=r"GS0629 the prompt of 'wave' is .* torch.float64"):
        sampler.prefill({"wave": wave.double(), "code": zeros})
    with pytest.raises(SpecError, match=r"GS0629 the prompt of 'code' has levels outside 0\.\.7"):
        sampler.prefill({"wave": wave, "code": zeros + 8})
    sampler.draw(4)
    with pytest.raises(SpecError, match="GS0629 a prompt comes before the first tick"):
        sampler.prefill({"wave": wave, "code": zeros})


def test_the_command_hears_what_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A WaveNet over a spectrogram: trained on pairs, now played from a file."""
    small = ("width=6", "skips=8", "layers=4", "cycle=2", "mels=4", "hop=160")
    run = SimpleNamespace(samples=tmp_path / "samples")
    made = lower(check_spec("wavenet", small)).eval()
    monkeypatch.setattr("graphspec.cli.trained.open_model", lambda *a, **k: (run, made, None))
    np.save(tmp_path / "mel.npy", np.random.default_rng(0).normal(size=(5, 4)).astype("f4"))
    given = ["--given", f"mel={tmp_path / 'mel.npy'}"]
    assert main(["sample", "r", *given, "--rows", "2"]) == 0
    said = capsys.readouterr()
    assert "800 ticks" in said.err and "stream" in said.err
    files = sorted((tmp_path / "samples").glob("*.wav"))
    assert len(files) == 2 and all(soundfile.info(f).frames == 800 for f in files)
    assert main(["sample", "r"]) == 1 and "--given mel=FILE" in capsys.readouterr().err
    assert main(["sample", "r", "--given", "mell=x.npy"]) == 1
    assert "did you mean 'mel'" in capsys.readouterr().err
    assert main(["sample", "r", *given, "--seconds", "1"]) == 1 and "has ended" in capsys.readouterr().err
