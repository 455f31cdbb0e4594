"""The DDSP specs: their sizes, that each verifies, trains and is as causal as it says, and that the live one streams.

What can be learned by them is in test_ddsp_recovery.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from test_specs import SMALL
from torch import Tensor

from graphspec.cli.load import check_document, check_spec, shipped
from graphspec.compiler.latency import plan
from graphspec.compiler.lower import Model, View, lower, meta
from graphspec.diagnostic import Findings, SpecError
from graphspec.graph import Value
from graphspec.reader import read_text
from graphspec.runtime import data as datasets
from graphspec.runtime.chance import Noise
from graphspec.runtime.data import crop_lengths
from graphspec.runtime.run import new_run
from graphspec.runtime.stream import Stream
from graphspec.runtime.train import train
from graphspec.runtime.verify import verify

torch.set_num_threads(1)
NAMES = sorted(p.stem for p in shipped().glob("ddsp_*.yaml"))
QUICK = ("ddsp_tiny", "ddsp_smoothed", "ddsp_realtime")
PARAMS = SMALL["ddsp_tiny"].params


def slow_but(names: Sequence[str]) -> list:
    return [n if n in names else pytest.param(n, marks=pytest.mark.full) for n in NAMES]


def small(name: str, *more: str) -> tuple[str, ...]:
    """Overrides that make a spec small, in its frames, too."""
    params = [*PARAMS, "hop=16"]
    if name not in ("ddsp_realtime", "ddsp_autoencoder"):
        params.append("room=50")
    if name == "ddsp_autoencoder":
        params.append("code_hop=64")
    return (*params, *more)


def moved(model: Model, by: float = 3.0) -> Model:
    """The same with maps so large that what they say depends on what they hear."""
    with torch.no_grad():
        for w in model.weights().values():
            if w.dim() > 1:
                w.mul_(by)
    return model


def tones(seconds: float, rate: int = 16000) -> Tensor:
    """`[1, T, 1]` of float64: notes with overtones, gaps between them, and some breath."""
    n = int(seconds * rate)
    at = torch.arange(n, dtype=torch.float64) / rate
    f0 = 220 * 2 ** (torch.floor(at * 5) % 7 / 12)
    phase = 2 * torch.pi * torch.cumsum(f0 / rate, 0)
    sound = sum(torch.sin(k * phase) / k for k in range(1, 6)) * torch.exp(-6 * (at * 5 % 1)) * (at * 5 % 1 < 0.8)
    breath = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (0.2 * sound + 0.002 * (breath - 0.5))[None, :, None]


# ---- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "weights"),
    [
        (("ddsp_solo_instrument", "room=0"), 4_801_150),
        (("ddsp_solo_instrument",), 4_801_150 + 48_000),
        (("ddsp_tiny", "room=0"), 232_314),
        (("ddsp_realtime",), 1_873_278),
    ],
)
def test_they_are_as_large_as_the_published_ones(run: tuple[str, ...], weights: int) -> None:
    """The GRU has two biases a gate, as Keras's with `reset_after` and torch's."""
    assert sum(w.numel() for w in meta(check_spec(run[0], run[1:])).parameters()) == weights


# ---- every choice --------------------------------------------------------------------------------------------------

CHOICES = {
    "backbone": ("gru", "lstm", "mlp", "micro_rnn", "transformer"),
    "head": ("exp_sigmoid", "legacy", "normalized", "softmax_db"),
    "smoothing": ("none", "one_pole", "biquad", "fir5"),
    "coefficient": ("fixed", "learned", "scheduled"),
}
FLAGS = ("deltas", "residual", "both_ways", "positions", "smooth_amp", "smooth_noise", "smooth_shape", "smooth_logits")
TERMS = ("entropy_weight=0.1", "noise_weight=0.1", "envelope_weight=0.1")


def settings() -> list[tuple[str, ...]]:
    """Every smoothing with every coefficient; every option and both sides of every flag in several of them."""
    runs, rng = [], Random(0)
    for i, (smoothing, coefficient) in enumerate(product(CHOICES["smoothing"], CHOICES["coefficient"])):
        chosen = {"smoothing": smoothing, "coefficient": coefficient}
        chosen |= {n: CHOICES[n][i % len(CHOICES[n])] for n in ("backbone", "head")}
        flags = {flag: rng.choice(("true", "false")) for flag in FLAGS}
        runs.append(tuple(f"{n}={x}" for n, x in {**chosen, **flags}.items()))
    return [*runs, *((f"backbone={b}",) for b in CHOICES["backbone"]), TERMS]


def test_every_choice_lints_without_a_word() -> None:
    for run in settings():
        findings = Findings()
        check_spec("ddsp_solo_instrument", run, findings)
        assert [d.message for d in findings.all()] == [], run


@pytest.mark.parametrize("run", [("head=loud",), ("smoothing=one_pole", "coefficient=learnt")], ids=" ".join)
def test_a_choice_that_is_none_is_refused(run: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match="GS0305"):
        check_spec("ddsp_solo_instrument", run)


@pytest.mark.parametrize("head", CHOICES["head"])
def test_the_heads_are_their_formulas(head: str) -> None:
    """Of the same logits, written out in numpy."""
    model = lower(check_spec("ddsp_tiny", small("ddsp_tiny", f"head={head}"))).double()
    view = moved(model).entries["render"]
    inputs = controls(view, 5)
    inputs["f0"] = torch.full((1, 5, 1), 1500.0, dtype=torch.float64)  # the sixth is beyond 8 kHz
    wanted = [by_path(view, n) for n in ("ctl.split.amp", "ctl.split.shape", "amp", "shape")]
    with torch.no_grad():
        a, s, amp, shape = (x.numpy() for x in view.evaluate(wanted, inputs))

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def exp_sigmoid(x: np.ndarray) -> np.ndarray:
        return 2 * sigmoid(x) ** np.log(10) + 1e-7

    e = np.exp(s) / np.exp(s).sum(-1, keepdims=True)
    below = exp_sigmoid(s) * (np.arange(1, 7) * 1500 < 8000)
    amps, shapes = {
        "exp_sigmoid": (exp_sigmoid(a), below / below.sum(-1, keepdims=True)),
        "legacy": (sigmoid(a), sigmoid(s) / 6),
        "normalized": (np.log1p(np.exp(a)), np.log1p(np.exp(s)) / (np.log1p(np.exp(s)).sum(-1, keepdims=True) + 1e-6)),
        "softmax_db": (10 ** ((-50 + 56 * sigmoid(a)) / 20), 0.99 * e + 0.01 / 6),
    }[head]
    assert np.abs(amp - amps).max() < 1e-9 and np.abs(shape - shapes).max() < 1e-9


def test_smoothing_begins_where_its_input_does() -> None:
    """No fade in from 0: a control that stands still is left alone, by each filter, on both sides of the head."""
    for smoothing in ("one_pole", "biquad", "fir5"):
        for logits in ("true", "false"):
            run = small("ddsp_mlp", f"smoothing={smoothing}", "smooth_shape=true", f"smooth_logits={logits}")
            runs = (run, small("ddsp_mlp"))
            views = [lower(check_spec("ddsp_mlp", r), seed=0).double().entries["render"] for r in runs]
            still = {n: x[:, :1].expand(1, 12, 1) for n, x in controls(views[0], 1).items()}
            for name in ("amp", "shape", "noise"):
                smooth, bare = (v.evaluate([v.graph.outputs.get(name) or by_path(v, name)], still)[0] for v in views)
                assert (smooth - bare).abs().max() < 1e-9, (smoothing, logits, name)


def by_path(view: Model | View, name: str) -> Value:
    """What the whole graph gives out under this name, in a view that gives out less."""
    return next(v for v in reversed(view.graph.values) if v.path == name or v.path.startswith(f"{name}."))


# ---- forms, time ---------------------------------------------------------------------------------------------------


def controls(view: View, frames: int, seed: int = 0) -> dict[str, Tensor]:
    """Pitches of 100 to 400 Hz and loudnesses of -60 to 0 dB, and what else it is given, at random."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for name, given in view.graph.inputs.items():
        if given.value.type.timed:
            width = int(given.value.type.dims[-1].as_int() or 1)
            x = torch.rand(1, frames, width, generator=g, dtype=torch.float64)
            out[name] = {"f0": 100 + 300 * x, "loud": -60 * x}.get(name, x)
    return out


@pytest.mark.parametrize("name", slow_but(QUICK))
def test_a_spec_is_verified(name: str) -> None:
    model = moved(lower(check_spec(name, small(name)), seed=0), 1.5)
    promises = [f.promise for f in verify(model, 200, 0)]
    assert {"whole == stream", "gradients", "rows", "time", "float32", "bfloat16"} <= set(promises)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_future_is_not_heard(name: str) -> None:
    """Each claim: change a source at one of its ticks, and nothing moves before what may hear it; then, something."""
    model = moved(lower(check_spec(name, small(name)), seed=0).double())
    assert model.graph.assertions
    hop, frames = 16, 80
    sound = tones(frames * hop / 16000)
    names = {"f0": model.graph.cached.get("f0"), "loud": model.graph.cached.get("loud")}
    given = dict(zip(names, model.evaluate([v for v in names.values() if v], {"audio": sound}), strict=True))
    given["f0"] = given["f0"] + 200  # voiced throughout
    for claim in model.graph.assertions:
        (source,) = [s.path.partition(".")[0] for s in claim.sources]
        inputs = {"audio": sound} if source == "audio" else {"audio": sound, **given}
        noise = noises(model, [claim.value], frames * hop)
        before = model.evaluate([claim.value], inputs, noise)[0]
        ratio = before.shape[1] // inputs[source].shape[1] if source != "audio" else 1  # ticks of the value a tick
        for at in (frames // 2, frames // 2 + 1) if source != "audio" else (660, 671, 672):
            changed = inputs[source].clone()
            changed[:, at] += 20 if source == "f0" else 1
            after = model.evaluate([claim.value], {**inputs, source: changed}, noise)[0]
            heard = ((after - before).abs() > 1e-12).any(-1)[0].nonzero()
            first = at * ratio - int(claim.allowed)
            assert len(heard) and int(heard[0]) >= first, f"{source} {at} is heard at {int(heard[0])}, not from {first}"
            assert int(heard[0]) <= at * ratio + ratio, "it is heard at once"


def noises(
    model: Model | View, wanted: list[Value], samples: int, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Of all random ops that these values need, as a stream of seed 0 has it."""
    draws = Noise(0, torch.arange(1), torch.empty(0, dtype=dtype))
    return draws.of(model.graph.needed_for(wanted), lambda v: samples)


@pytest.mark.parametrize("run", [("smoothing=fir5",), ("backbone=transformer", "both_ways=true")], ids=" ".join)
def test_what_looks_further_ahead_is_refused_where_causality_is_claimed(run: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match="GS0401"):
        check_spec("ddsp_realtime", run)
    check_spec("ddsp_solo_instrument", (*run, "tracker=swift"))  # it claims nothing of its controls' smoothing


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("inputs.loud:\n    type: f32[N, 1] @ rate/hop\n    default: loudness(audio, hop, n_fft=2048)", "'audio'"),
        ("inputs.f0:\n    type: f32[N, 1] @ rate/hop\n    default: pitch(audio, hop)", "'audio'"),
        ("graph.amp: ctl.amp |> fir([0.25, 0.5, 0.25], centre=true) |> exp_sigmoid", "'f0"),
        ("graph.r: z |> norm_over_time |> gru(8)", "'f0"),
        ("graph.amp: ctl.amp |> conv(1, k=3, centre=true) |> exp_sigmoid", "'loud"),
        ('graph.hiss: noise |> filtered_noise(hop, framing="same")', None),
    ],
)
def test_an_item_that_is_not_causal_is_refused_by_the_live_spec(override: str, told: str | None) -> None:
    """The table of what looks ahead: centred frames and filters, norms over time; the noise's half frame is within."""
    text = f"graphspec: 1\nmodel: other\nextends: ddsp_realtime\noverride:\n  {override}\n"
    if told is None:
        check_document(read_text("other.yaml", text), Path())
        return
    with pytest.raises(SpecError, match="GS0401") as raised:
        check_document(read_text("other.yaml", text), Path())
    assert any(told in d.message for d in raised.value.diagnostics)


LATE = [  # samples, of the sound and of the controls behind it
    ("ddsp_tiny", (), 575, 511),  # half a frame of the tracker, less one; a frame of controls
    ("ddsp_tiny", ("method=hold", "framing=causal"), 575, 511),  # the pitch still goes to the next frame
    ("ddsp_tiny", ("smoothing=fir5",), 703, 639),  # two frames more
    ("ddsp_tiny", ("smoothing=one_pole",), 575, 511),
    ("ddsp_tiny", ("smoothing=biquad", "deltas=true", "residual=true", "backbone=transformer"), 575, 511),
    ("ddsp_realtime", (), 639, 319),
    ("ddsp_realtime", ("framing=same",), 639, 319),
]


@pytest.mark.parametrize(("name", "run", "out", "amp"), LATE)
def test_how_late_they_are(name: str, run: tuple[str, ...], out: int, amp: int) -> None:
    c = check_spec(name, run)
    late = [plan(c.graph, c.graph.outputs[n], c.regions, Fraction(16000)).ticks for n in ("out", "amp")]
    assert late == [out, amp]


@pytest.mark.parametrize("name", ["ddsp_autoencoder", "ddsp_transformer"])
def test_what_reads_all_of_time_cannot_stream(name: str) -> None:
    c = check_spec(name, ("both_ways=true",))
    with pytest.raises(SpecError, match="GS0640"):
        plan(c.graph, c.graph.outputs["out"], c.regions, Fraction(16000))


# ---- odd inputs ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_silence_and_breath_have_no_pitch() -> None:
    """Nothing is voiced, so no tone begins; all numbers are finite, loudness ends at its floor."""
    model = lower(check_spec("ddsp_tiny", small("ddsp_tiny")), seed=0)
    wanted = [model.graph.cached["f0"], model.graph.cached["loud"], model.graph.outputs["out"], by_path(model, "harm")]
    breath = 0.1 * torch.rand(1, 3200, 1, generator=torch.Generator().manual_seed(0)) - 0.05
    for sound, floor in ((torch.zeros(1, 3200, 1), True), (breath, False)):
        f0, loud, out, harm = model.evaluate(wanted, {"audio": sound}, noises(model, wanted, 3200, torch.float32))
        assert f0.eq(0).all() and harm.eq(0).all() and out.isfinite().all()
        assert loud.eq(-80).all() == floor


@torch.no_grad()
def test_a_pitch_that_is_none_or_too_high() -> None:
    """One that is not a number, or below 0, is as if not voiced: the last one stays. Beyond half the rate, silence."""
    view = moved(lower(check_spec("ddsp_tiny", small("ddsp_tiny")), seed=0).double()).entries["render"]
    wanted = [by_path(view, "tone"), by_path(view, "harm"), by_path(view, "h")]
    given = controls(view, 12)
    made = []
    for odd in (0.0, float("nan"), -5.0):
        given["f0"][:, 6] = odd
        made.append(view.evaluate(wanted, given))
        assert made[-1][0][0, 6] == given["f0"][0, 5] and all(x.isfinite().all() for x in made[-1])
    assert all(torch.equal(a, b) for other in made[1:] for a, b in zip(made[0], other, strict=True))
    given["f0"][:, 3:] = 9000
    harm = view.evaluate(wanted, given)[1][0, :, 0]
    assert harm[: 2 * 16].abs().max() > 0 and harm[3 * 16 :].eq(0).all()


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_updates_at_a_small_size(name: str, tmp_path: Path) -> None:
    overrides = [*small(name, *TERMS), "train.batch=2", "train.steps=2", "train.log_every=1", "train.crop.T=2560"]
    overrides += ["over=2", "data.audio=corpus(pieces=3, seconds=0.5)"]
    checked = check_spec(name, overrides)
    data = datasets.load(checked, Path("."), print, crop_lengths(checked))
    model = lower(checked, seed=0)
    before = {n: w.clone() for n, w in model.weights().items()}
    rows: list[dict] = []
    run = new_run(str(tmp_path / "run"), checked, name, overrides, 1)
    outcome = train(model, data, run, tell=lambda step, row: rows.append(dict(row)))
    assert outcome.step == 2 and all(np.isfinite(x) for row in rows for x in row.values())
    assert all(w.isfinite().all() for w in model.weights().values())
    still = [n for n, w in model.weights().items() if torch.equal(w, before[n])]
    assert still == [], "these weights did not move"
    assert rows[-1]["weight.concentration"] > 0
    for metric in ("harmonic_entropy", "top_share", "amp_range", "noise_share"):
        assert metric in outcome.last or f"valid.{metric}" in outcome.last


# ---- live ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("source", ["audio", "controls"])
@torch.no_grad()
def test_the_live_spec_streams_what_it_renders(dtype: torch.dtype, tolerance: float, source: str) -> None:
    """In pieces of 64 samples, late by what is proven, and with no jump that is not in the whole."""
    model = moved(lower(check_spec("ddsp_realtime", ("width=24", "memory=24")), seed=1)).to(dtype)
    view: Model | View = model if source == "audio" else model.entries["render"]
    frames, hop = 8, 320
    sound = tones(frames * hop / 16000).to(dtype)
    inputs = {"audio": sound}
    if source == "controls":
        inputs = {n: x.to(dtype) for n, x in controls(view, frames).items()}
    wanted = [view.graph.outputs["out"]]
    whole = view.evaluate(wanted, inputs, noises(view, wanted, frames * hop, dtype))[0]
    stream = Stream(view, ["out"])
    late = stream.plan("out").ticks
    assert late == (2 * hop - 1 if source == "audio" else 1)  # samples, or frames
    pieces, came = [], 0
    for at in range(0, frames * hop, 64):
        if source == "audio":
            made = stream.push({"audio": sound[:, at : at + 64]})["out"]
        else:
            now = slice(at // hop, at // hop + (at % hop == 0))
            made = stream.push({n: x[:, now] for n, x in inputs.items()})["out"]
        pieces.append(made)
        came += made.shape[1]
        if source == "audio":
            assert came >= at + 64 - late - 1, "it is later than it says"
    pieces.append(stream.flush()["out"])
    out = torch.cat(pieces, 1)
    assert out.shape == whole.shape and whole.abs().max() > 0.02
    assert (out - whole).abs().max() < tolerance
    assert out.diff(dim=1).abs().max() <= whole.diff(dim=1).abs().max() + tolerance
