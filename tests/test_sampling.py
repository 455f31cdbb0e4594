"""Sampling: whatever the schedule, the batch, the chunks or the prompt, a row's samples are the ones the model means.

The law: what the sampler computes while it is held to a recording, tick by tick and each level only when it is due, is
what the whole form computes on that recording. All in float64, so that rounding never decides a draw.
"""

import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from graphspec.__main__ import main
from graphspec.cli.load import check_document, compile_spec, shipped
from graphspec.cli.trained import open_model
from graphspec.compiler.lower import lower
from graphspec.compiler.plan import schedule
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text
from graphspec.runtime import data as datasets
from graphspec.runtime import score as scoring
from graphspec.runtime.audio import read, write_wav
from graphspec.runtime.sample import Sampler

TOLERANCE = 1e-9
SMALL = ("d=16", "depth=1", "bits=4", "state=8")

HEAD = """\
graphspec: 1
model: tested
inputs:
  wave: {{type: "int(16)[T, {channels}] @ 16000", before: 8}}
require: [T % {block} == 0]
graph:
"""
TAIL = """\
sample:
  feed:
    wave: draw(dist)
"""

WAVENET = """\
graphspec: 1
model: wavenet_like
params: {width: 6}
inputs:
  wave: {type: "int(16)[T, 1] @ 16000", before: 8}
blocks:
  gated:
    params: {dilation: int}
    in: {x: "float[T, c]"}
    graph:
      h: x |> conv(2*width, k=2, dilation=dilation)
      g: h |> split(a=width, b=width)
      z: tanh(g.a) * sigmoid(g.b)
    out:
      x: x + linear(z, width)
      skip: z |> linear(8)
graph:
  a: wave[t-1] |> embed(width) |> gated(1)
  b: a.x |> gated(2)
  c: b.x |> gated(4)
  mixed: (a.skip + b.skip + c.skip + linear(dequantise(wave[t-2]), 8)) * 0.5 + linear(dequantise(wave[t-1]), 8)
  dist: mixed |> tanh |> categorical(16)
causal: {dist: strict}
losses: {nll: "nll(dist, wave)"}
outputs: [dist]
sample: {feed: {wave: draw(dist)}}
"""
SAMPLERNN = """\
graphspec: 1
model: samplernn_like
inputs:
  wave: {type: "int(16)[T, 1] @ 16000", before: 8}
require: [T % 16 == 0]
graph:
  x: dequantise(wave)
  # The coarse tiers fold samples that are drawn within the tick in which they fire.
  top: x |> fold(16) |> shift(1) |> linear(6) |> s4d(4) |> linear(4 * 6) |> unfold(4)
  middle: (x |> fold(4) |> shift(1) |> linear(6)) + top
  tier2: middle |> s4d(4) |> tanh |> linear(4 * 6) |> unfold(4)
  near: wave[t-1] |> embed(6) |> conv(6, k=4, bias=false)
  dist: (near + tier2) |> tanh |> linear(8) |> tanh |> categorical(16)
causal: {dist: strict}
outputs: [dist]
sample: {feed: {wave: draw(dist)}}
"""
STEREO = """\
graphspec: 1
model: stereo
inputs:
  wave: {type: "int(16)[T, 2] @ 16000", before: 8}
require: [T % 4 == 0]
graph:
  fine: wave[t-1] |> embed(3) |> conv(8, k=3)
  coarse: dequantise(wave) |> fold(4) |> linear(8) |> s4d(4) |> shift(1) |> linear(32) |> unfold(4)
  dist: (fine + coarse) |> tanh |> categorical(16, channels=2)
causal: {dist: strict}
outputs: [dist]
sample: {feed: {wave: draw(dist)}}
"""


def compiled(text, seed=0):
    return lower(check_document(read_text("<test>", text), shipped()), seed=seed).double()


def recording(model, rows, ticks, seed=0):
    (feed,) = model.graph.feeds
    type_ = feed.source.type
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(type_.dtype.classes, (rows, ticks, type_.channels), generator=generator)


def drawn_from(model):
    """The distribution that is drawn from."""
    (feed,) = model.graph.feeds
    return feed.drawn.operands[0]


@torch.no_grad()
def held(sampler, wave, first=0):
    """The distribution at each tick of `wave` [B, n, C] from `first`, the sampler held to it.

    Read when the tick is over, as the draw reads it: a level that runs too late shows.
    """
    dist = drawn_from(sampler.model)
    found = []
    for t in range(first, wave.shape[1]):
        place = sampler.where[dist][sampler.tick % sampler.plan.block]
        sampler._tick({"wave": wave[:, t : t + 1]})
        found.append(place.of(sampler.registers))
    return torch.cat(found, 1)


@torch.no_grad()
def assert_every_value_is_the_whole_forms(model, wave):
    """All values of the schedule, at their own rates, tick by tick against whole sequences."""
    sampler = Sampler(model, wave.shape[0], seed=0)
    (feed,) = model.graph.feeds
    values = [v for v in sampler.plan.values if v.type.timed and v is not feed.drawn and v.parts is None]
    kept = {v: [] for v in values}
    dists = []
    for block in wave.split(sampler.plan.block, 1):
        dists.append(held(sampler, block))
        for v in values:  # registers are written once a block
            kept[v] += [p.of(sampler.registers).clone() for p in sampler.where[v]]
    computed = [v for v in values if not v.is_input]
    for v, whole in zip(computed, model.evaluate(computed, {"wave": wave}), strict=True):
        assert_close(torch.cat(kept[v], 1), whole, v.path)
    (whole,) = model.evaluate([drawn_from(model)], {"wave": wave})
    assert_close(torch.cat(dists, 1), whole, "the distribution when it is drawn from")


def assert_close(actual, expected, what):
    assert actual.shape == expected.shape, what
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-12)
    assert error < TOLERANCE, f"{what}: {error:.2e}"


@pytest.fixture(scope="module")
def small():
    model = compile_spec("sashimi_small", SMALL).double()
    with torch.no_grad():  # as drawn, the head is nearly flat; a sharp one makes draws depend on what was heard
        model.weights()["dist.categorical.weight"].mul_(6)
    return model


# ---- one model, every way to run it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", ["blocks", "random", "prefill"])
@torch.no_grad()
def test_step_is_forward(small, chunks):
    wave = recording(small, 2, 160)
    rng = random.Random(1)
    sizes = {"blocks": [16] * 10, "random": [], "prefill": [112, 16, 16, 16]}[chunks]
    while sum(sizes) < 160:
        sizes.append(16 * rng.randint(1, (160 - sum(sizes)) // 16))
    whole = small({"wave": wave})
    state, prepared = small.init_state(2, next(small.parameters())), small.prepare()
    parts = []
    for part in wave.split(sizes, 1):
        found, state = small.step({"wave": part}, state, prepared)
        parts.append(found)
    for name in ("dist", "losses.nll", "metrics.bits_per_sample"):
        assert_close(torch.cat([p[name] for p in parts], 1), whole[name], name)


@pytest.mark.parametrize("prompt", [0, 5, 16, 37, 48])
@torch.no_grad()
def test_prefill_then_ticks_is_forward(small, prompt):
    wave = recording(small, 2, 80)
    sampler = Sampler(small, 2, seed=0)
    if prompt:
        sampler.prefill({"wave": wave[:, :prompt]})
    assert sampler.tick == prompt
    assert_close(held(sampler, wave, prompt), small({"wave": wave})["dist"][:, prompt:], f"after a prompt of {prompt}")


@pytest.mark.parametrize("text", [WAVENET, SAMPLERNN, STEREO], ids=["wavenet", "samplernn", "stereo"])
@pytest.mark.parametrize("prompt", [0, 1, 21, 32])
@torch.no_grad()
def test_other_models_step_prefill_and_tick_as_whole(text, prompt):
    model = compiled(text)
    assert model.block == {"wavenet_like": 1, "samplernn_like": 16, "stereo": 4}[model.graph.name]
    wave = recording(model, 2, 64)
    if prompt == 0:
        assert_every_value_is_the_whole_forms(model, wave)
        state, prepared, parts = model.init_state(2, next(model.parameters())), model.prepare(), []
        for part in wave.split([16, 48], 1):
            found, state = model.step({"wave": part}, state, prepared)
            parts.append(found["dist"])
        assert_close(torch.cat(parts, 1), model({"wave": wave})["dist"], "chunks")
        return
    sampler = Sampler(model, 2, seed=0)
    sampler.prefill({"wave": wave[:, :prompt]})
    assert_close(held(sampler, wave, prompt), model({"wave": wave})["dist"][:, prompt:], f"after a prompt of {prompt}")


def test_every_value_of_sashimi_ticks_as_whole(small):
    assert_every_value_is_the_whole_forms(small, recording(small, 3, 48))


# ---- draws -----------------------------------------------------------------------------------------------------------


def drawn(model, ticks, rows=1, seed=0, **given):
    return Sampler(model, rows, seed, **given).draw(ticks)["wave"]


def test_draws_are_levels_of_the_right_shape_that_vary_with_the_seed(small):
    tokens = drawn(small, 40, rows=3)
    assert tokens.shape == (3, 40, 1) and not tokens.is_floating_point()
    assert 0 <= tokens.min() and tokens.max() < 16 and len(tokens.unique()) > 4
    assert torch.equal(tokens, drawn(small, 40, rows=3))
    assert not torch.equal(tokens, drawn(small, 40, rows=3, seed=1))
    assert not torch.equal(tokens[0], tokens[1])


@pytest.mark.parametrize("text", [None, WAVENET, SAMPLERNN, STEREO], ids=["sashimi", "wavenet", "samplernn", "stereo"])
def test_batch_size_does_not_change_a_rows_samples(small, text):
    model = small if text is None else compiled(text)
    three = drawn(model, 40, rows=3)
    for row in range(3):
        assert torch.equal(three[row : row + 1], drawn(model, 40, rows=1, first_row=row))


@pytest.mark.parametrize("text", [None, WAVENET, SAMPLERNN, STEREO], ids=["sashimi", "wavenet", "samplernn", "stereo"])
def test_chunking_and_prompting_do_not_change_the_samples(small, text):
    model = small if text is None else compiled(text)
    once = drawn(model, 56, rows=2)
    sampler = Sampler(model, 2, seed=0)
    assert torch.equal(once, torch.cat([sampler.draw(n)["wave"] for n in (10, 30, 1, 15)], 1))
    for prompt in (0, 5, 16, 37):  # what was drawn, given back as a prompt, goes on as it went on
        again = Sampler(model, 2, seed=0)
        if prompt:
            again.prefill({"wave": once[:, :prompt]})
        assert torch.equal(again.draw(56 - prompt)["wave"], once[:, prompt:]), f"after a prompt of {prompt}"


def test_channels_are_drawn_apart():
    tokens = drawn(compiled(STEREO), 64)
    assert tokens.shape == (1, 64, 2) and not torch.equal(tokens[..., 0], tokens[..., 1])


@pytest.mark.parametrize("temperature", [0.0, 1e-12])
@torch.no_grad()
def test_temperature_towards_zero_is_the_argmax(small, temperature):
    tokens = drawn(small, 48, rows=2, knobs={"temperature": temperature})
    assert torch.equal(tokens, small({"wave": tokens})["dist"].argmax(-1))
    assert torch.equal(tokens, drawn(small, 48, rows=2, seed=5, knobs={"temperature": temperature}))


@torch.no_grad()
def test_knobs_do_what_they_say(small):
    usual = drawn(small, 32)
    assert torch.equal(usual, drawn(small, 32, knobs={"temperature": 1.0, "top_p": 1.0}))
    assert not torch.equal(usual, drawn(small, 32, knobs={"temperature": 3.0}))
    nucleus = drawn(small, 32, rows=4, knobs={"top_p": 0.5})
    p = small({"wave": nucleus})["dist"].softmax(-1)
    mine = p.gather(-1, nucleus[..., None])
    assert (torch.where(p > mine, p, 0.0).sum(-1) <= 0.5).all()  # all that is likelier does not exceed top_p


@torch.no_grad()
def test_draws_follow_the_distribution(small):
    """The inverse distribution function of each draw's class is uniform: mean and spread over 6,000 draws."""
    tokens = drawn(small, 48, rows=125)
    p = small({"wave": tokens})["dist"].softmax(-1)
    upper = p.cumsum(-1).gather(-1, tokens[..., None])
    middle = (upper - p.gather(-1, tokens[..., None]) / 2).flatten()
    assert abs(middle.mean() - 0.5) < 4 * 0.29 / np.sqrt(middle.numel())


@pytest.mark.parametrize(
    "code, act",
    [
        ("GS0628", lambda m: Sampler(m, 1, 0, {"temperatur": 1.0})),
        ("GS0627", lambda m: Sampler(compiled(WAVENET[: WAVENET.index("sample:")]), 1, 0)),
        ("GS0629", lambda m: _prompt_twice(Sampler(m, 1, 0))),
    ],
)
def test_misuse_has_a_code(small, code, act):
    with pytest.raises(SpecError) as caught:
        act(small)
    assert [d.code for d in caught.value.diagnostics] == [code]


def _prompt_twice(sampler):
    for _ in range(2):
        sampler.prefill({"wave": torch.zeros(1, 3, 1, dtype=torch.int64)})


# ---- random multirate models -----------------------------------------------------------------------------------------


class Writer:
    """A random autoregressive spec as text: values at rates 2**a 3**b of the source, joined, delayed, convolved."""

    RATES = {Fraction(2) ** a * Fraction(3) ** b for a in (-2, -1, 0, 1) for b in (-1, 0)}

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.channels = self.rng.choice([1, 2])
        self.lines = []
        self.values = []  # (name, rate, channels)
        self.write("dequantise(wave)", Fraction(1), self.channels)
        self.write("wave[t-1] |> embed(2)", Fraction(1), 2 * self.channels)
        for _ in range(self.rng.randint(2, 7)):
            self.grow()
        name, rate, _ = self.rng.choice(self.values[2:])
        text = name + self.delay()
        while rate != 1:  # back to the source's rate, often with the delay that makes it legal
            p = 3 if rate.denominator % 3 == 0 else 2
            if rate < 1:
                text += f" |> linear({3 * p}){self.delay()} |> unfold({p})"
                rate *= p
            else:
                text += f" |> fold({p})"
                rate /= p
        self.lines.append(f"dist: {text}{self.delay()} |> categorical(16, channels={self.channels})")

    def delay(self):
        return self.rng.choice(["", "", "", " |> shift(1)", " |> shift(2)"])

    def write(self, text, rate, channels):
        name = f"v{len(self.values)}"
        self.lines.append(f"{name}: {text}")
        self.values.append((name, rate, channels))

    def grow(self):
        rng = self.rng
        name, rate, c = rng.choice(self.values[-3:])
        p, q = rng.choice([2, 3]), rng.choice([2, 3])
        peers = [v for v in self.values if v[1] == rate and v[0] != name]
        forms = [
            (f"{name} |> conv({p * q}, k={rng.randint(1, 3)}, dilation={rng.randint(1, 3)}) |> tanh", rate, p * q),
            (f"{name} |> shift({rng.randint(1, 4)})", rate, c),
            (f"{name} |> linear(4) |> s4d(4)", rate, 4),
        ]
        if rate / p in self.RATES:
            forms += 2 * [(f"{name} |> fold({p}) |> linear(5)", rate / p, 5)]
        if rate * p in self.RATES:
            forms += 2 * [(f"{name} |> linear({p * q}){self.delay()} |> unfold({p})", rate * p, q)]
        if peers:
            other, _, d = rng.choice(peers)
            forms += [(f"cat({name}, {other})", rate, c + d), (f"linear({name}, 4) + linear({other}, 4)", rate, 4)]
        self.write(*rng.choice(forms))

    def spec(self, tail=TAIL):
        return HEAD.format(channels=self.channels, block=24) + "".join(f"  {line}\n" for line in self.lines) + tail


TICKS = 72


def sampled_or_refused(seed):
    """True if the model is legal and ticks as whole; False if it was refused, rightly."""
    writer = Writer(seed)
    causal = "causal: {dist: strict}\n" if seed % 2 else ""
    try:
        model = compiled(writer.spec(causal + TAIL), seed)
    except SpecError as error:
        codes = {d.code for d in error.diagnostics}
        assert codes == {"GS0401" if causal else "GS0403"}, writer.spec()  # one leak is told once
        assert leaks(compiled(writer.spec("outputs: [dist]\n"), seed), writer.channels), writer.spec()
        return False
    try:
        schedule(model.graph)
    except SpecError as error:  # legal, but a value would have to run ahead of its own time: said, not crashed
        assert {d.code for d in error.diagnostics} == {"GS0641"}
        return False
    wave = recording(model, 2, TICKS, seed)
    assert_every_value_is_the_whole_forms(model, wave)
    prompt = random.Random(seed).randrange(1, TICKS - 1)
    sampler = Sampler(model, 2, seed=0)
    sampler.prefill({"wave": wave[:, :prompt]})
    (whole,) = model.evaluate([drawn_from(model)], {"wave": wave})
    assert_close(held(sampler, wave, prompt), whole[:, prompt:], f"after a prompt of {prompt}\n{writer.spec()}")
    return True


@torch.no_grad()
def leaks(model, channels):
    """Whether some tick's distribution changes when that tick or a later one does."""
    wave = torch.full((1, TICKS, channels), 5)
    whole = model({"wave": wave})["dist"]
    for t in range(24, 48):
        other = wave.clone()
        other[:, t:] = 11
        if not torch.equal(model({"wave": other})["dist"][:, : t + 1], whole[:, : t + 1]):
            return True
    return False


@pytest.mark.parametrize(
    "path",
    [
        "x |> linear(4) |> unfold(2) |> shift(2) |> fold(2)",  # above the source's rate
        "x |> linear(4) |> unfold(2) |> shift(1) |> fold(2) |> shift(1)",
        "x |> linear(4) |> unfold(2) |> fold(3) |> shift(2) |> linear(9) |> unfold(3) |> fold(2)",  # at 2/3 of it
        "x |> fold(3) |> linear(12) |> unfold(2) |> shift(2) |> linear(9) |> unfold(3) |> fold(2)",
    ],
)
def test_elements_that_begin_between_ticks_are_in_time(path):
    lines = f"  x: dequantise(wave)\n  dist: {path} |> categorical(16)\n"
    model = compiled(HEAD.format(channels=1, block=6) + lines + TAIL)
    assert_every_value_is_the_whole_forms(model, recording(model, 2, 24))


def test_random_models_tick_as_whole_or_are_refused():
    legal = [sampled_or_refused(seed) for seed in range(40)]
    assert 12 <= sum(legal) <= 35, f"{sum(legal)} of {len(legal)} are legal; the writer tests too little"


@pytest.mark.full
def test_many_random_models_tick_as_whole_or_are_refused():
    assert sum(sampled_or_refused(seed) for seed in range(40, 640)) > 150


# ---- the command -----------------------------------------------------------------------------------------------------

CODES = ["n_q=3", "K=12", "dim=8", "layers=1", "heads=2", "train.batch=2", "train.crop.N=20", "train.steps=2"]
TWO = """\
graphspec: 1
model: two
inputs:
  wave: {type: "int(16)[T, 1] @ 4000", before: 8}
  codes: {type: "int(12)[T, 2] @ 4000", before: 0}
graph:
  h: cat(wave[t-1] |> embed(6), codes[t-1] |> embed(3)) |> conv(8, k=3) |> tanh
  dist: h |> categorical(16)
  fine: h |> categorical(12, channels=2)
  level: dequantise(wave) * 0.5
losses: {nll: "nll(dist, wave)", other: "nll(fine, codes)"}
metrics: {gain: "step * 2"}
data:
  wave: audio_folder("sound")
  codes: array_folder("codes")
train: {optimizer: adam(), lr: 1e-3, steps: 2, batch: 2, crop: {T: 64}}
sample: {feed: {wave: draw(dist), codes: draw(fine)}, to: [wave, codes, level]}
entries:
  coarse: {from: [codes], feed: {wave: draw(dist)}}
  louder: {feed: {wave: draw(dist), codes: draw(fine)}, to: [wave, codes]}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of two updates: `lm` over codes, `two` over sound and codes together."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for name in ("codes", "late", "sound"):
        (folder / name).mkdir()
    for i in range(4):
        np.save(folder / "late" / f"{i}.npy", rng.integers(12, size=(60 + i, 3), dtype=np.uint8))
        np.save(folder / "codes" / f"{i}.npy", rng.integers(12, size=(300 + i, 2), dtype=np.uint8))
        write_wav(folder / "sound" / f"{i}.wav", 0.1 * rng.standard_normal((300 + i, 1)).astype(np.float32), 4000)
    (folder / "two.yaml").write_text(TWO)
    assert main(["train", "code_lm_delay", *CODES, f"data={folder}/late", "--run", f"{folder}/lm"]) == 0
    assert main(["train", str(folder / "two.yaml"), "--run", f"{folder}/two"]) == 0
    return folder


def sampled(capsys, *words):
    """The files that the command says it wrote."""
    capsys.readouterr()
    assert main(["sample", *map(str, words)]) == 0, capsys.readouterr().err
    return [Path(line) for line in capsys.readouterr().out.split()]


def test_codes_are_written_as_arrays_and_can_be_a_prompt(runs, capsys, tmp_path):
    (file,) = sampled(capsys, runs / "lm", "--seconds", "0.5")
    drawn = np.load(file)
    assert file == runs / "lm" / "samples" / "seed0.played.npy"
    assert drawn.shape == (38, 3) and drawn.dtype == np.uint8 and drawn.max() <= 12
    (again,) = sampled(capsys, runs / "lm", "--seconds", "0.5")
    assert again.name == "seed0-2.played.npy" and np.array_equal(np.load(again), drawn)
    np.save(tmp_path / "start.npy", drawn)
    files = sampled(capsys, runs / "lm", "--prompt", tmp_path / "start.npy", "--rows", 2, "-o", tmp_path / "out.npy")
    assert [f.name for f in files] == ["out_0.npy", "out_1.npy"]
    assert np.load(files[0]).shape == (150, 3) and not np.array_equal(*map(np.load, files))


def test_sound_and_codes_together(runs, capsys, tmp_path):
    files = sampled(capsys, runs / "two", "--seconds", "0.01", "-o", tmp_path / "a.wav")
    assert [f.name for f in files] == ["a.wav", "a.codes.npy", "a.level.wav"]
    wave, codes, level = read(files[0], 4000, 1), np.load(files[1]), read(files[2], 4000, 1)
    assert codes.shape == (40, 2) and wave.shape == level.shape == (40, 1)
    assert np.abs(level - wave / 2).max() < 1e-4
    prompts = ["--prompt", f"wave={files[0]}", "--prompt", f"codes={files[1]}"]
    longer = sampled(capsys, runs / "two", "--entry", "louder", "--seconds", "0.01", *prompts, "-o", tmp_path / "b.wav")
    assert np.array_equal(np.load(longer[1])[:40], codes) and np.load(longer[1]).shape == (80, 2)
    assert np.abs(read(longer[0], 4000, 1)[:40] - wave).max() < 1e-4


@pytest.mark.parametrize(
    "code, words",
    [
        ("GS0629", ["--prompt", "a.wav"]),  # of which of the two
        ("GS0629", ["--prompt", "codes=two.npy"]),  # for one of them only
        ("GS0630", ["-o", "a.npy"]),
        ("GS0627", ["--entry", "nothing"]),
        ("GS0629", ["--entry", "coarse"]),
        ("GS0628", ["step=3"]),
    ],
)
def test_misuse_of_the_command_has_a_code(runs, capsys, tmp_path, monkeypatch, code, words):
    monkeypatch.chdir(tmp_path)
    np.save("two.npy", np.zeros((5, 2), np.uint8))
    assert main(["sample", str(runs / "two"), *words]) == 1
    assert f"error[{code}]" in capsys.readouterr().err


def evaluated(runs, name):
    """(what `graphspec eval` wrote, the model, its data)"""
    assert main(["eval", str(runs / name), "--threads", "1"]) == 0
    _, model, folder = open_model(str(runs / name), "cpu", lambda d: None)
    return json.loads((runs / name / "test.json").read_text()), model, datasets.load(model.checked, folder, print)


@torch.no_grad()
def test_eval_of_two_inputs_knows_the_update(runs):
    told, model, data = evaluated(runs, "two")
    inputs = {n: data.tensor(n, track.test[0])[None] for n, track in data.tracks.items()}
    found = model({**inputs, "step": torch.tensor([2.0])})
    assert told["files"] == ["3.wav"] and told["gain"] == 4
    assert told["nll"] == pytest.approx(found["losses.nll"].mean().item(), rel=1e-5)
    assert told["other"] == pytest.approx(found["losses.other"].mean().item(), rel=1e-5)


@torch.no_grad()
def test_eval_divides_by_the_masks_sum_over_all_files(runs, monkeypatch):
    _, model, data = evaluated(runs, "lm")
    assert scoring.whole_crops(model) == ""
    monkeypatch.setattr(scoring, "BLOCK", 7)
    pieces = [*data.test, *data.train]
    total = held = 0.0
    for piece in pieces:
        found = model({"codes": data.tensor("codes", piece)[None]})
        mask = found["masks.nll"].double()
        total, held = total + (found["losses.nll"] * mask).sum().item(), held + mask.sum().item()
    assert 0 < held < sum(p.frames * 3 for p in pieces)
    assert scoring.score(model, data, pieces)["nll"] == pytest.approx(total / held, rel=1e-5)


def test_what_looks_ahead_is_scored_crop_by_crop(runs, capsys):
    text = TWO[: TWO.index("sample:")].replace("k=3", "k=3, centre=true")
    (runs / "ahead.yaml").write_text(text)
    assert main(["train", str(runs / "ahead.yaml"), "--run", f"{runs}/ahead"]) == 0
    told, model, data = evaluated(runs, "ahead")
    assert "looks ahead, so each crop of train.crop is scored by itself" in capsys.readouterr().err
    inputs = {n: data.tensor(n, t.test[0])[:256].view(4, 64, -1) for n, t in data.tracks.items()}
    nll = model({**inputs, "step": torch.tensor([2.0])})["losses.nll"]
    assert told["nll"] == pytest.approx(nll.mean().item(), rel=1e-5) and told["gain"] == 4
