"""Loudness, power, pitch and voicing: goldens and plain loops; tones, glides, noise and silence; pitch numbers."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.compiler.settings import Schedule
from graphspec.diagnostic import SpecError
from graphspec.dims import Dim
from graphspec.expression import parse_free
from graphspec.ops.modules.loudness import Loudness, Power, a_weights
from graphspec.ops.modules.midi import HzToMidi, MidiToHz
from graphspec.ops.modules.pitch import Yin
from graphspec.reader import read_text
from graphspec.types import FLOAT, Type

torch.set_num_threads(1)

RATE = 16000


def golden(name):
    with np.load(Path(__file__).with_name("goldens") / f"ddsp_{name}.npz") as arrays:
        return {k: torch.from_numpy(v) for k, v in arrays.items()}


GOLDEN = golden("loudness")
X = GOLDEN["x"][None, :, None]


def audio(rate=RATE):
    return Type(FLOAT, (Dim.symbol("T"), Dim.of(1)), Fraction(rate))


def ready(module, dtype=torch.float64):
    module = module.to(dtype)
    module.reset(lambda name: torch.Generator())
    return module


def noise(*shape, seed=0, uniform=False):
    draw = torch.Generator().manual_seed(seed)
    made = torch.rand if uniform else torch.randn
    x = made(*shape, generator=draw, dtype=torch.float64)
    return 2 * x - 1 if uniform else x


def checked(graph, inputs="x: float[T, 1] @ 16000", facts="T % 64 == 0", outputs="y"):
    text = (
        f"graphspec: 1\nmodel: m\ninputs:\n  {inputs}\nrequire:\n  - {facts}\ngraph:\n  {graph}\noutputs: [{outputs}]\n"
    )
    return check_document(read_text("m.yaml", text), Path(__file__).parent)


# ---- loudness ----------------------------------------------------------------------------------------------------


def test_a_weights_are_the_goldens():
    torch.testing.assert_close(a_weights(GOLDEN["a_weight_freqs"]), GOLDEN["a_weight_db"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("n_fft", [512, 2048])
def test_loudness_is_the_golden_in_every_framing(n_fft):
    """A centred golden has a frame more, at the very end; a valid one begins once a whole frame has come in."""
    valid, late = GOLDEN[f"loud_{n_fft}_valid"], n_fft // 64 - 1
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        same, ahead, causal = (
            ready(Loudness(audio(), n_fft, 64, framing=f), dtype)(X.to(dtype))[0, :, 0]
            for f in ("same", "ahead", "causal")
        )
        wants = (GOLDEN[f"loud_{n_fft}_center"][:128], GOLDEN[f"loud_{n_fft}_same"], valid)
        for found, want in zip((same, ahead, causal[late:]), wants, strict=True):
            # Near the floor a bin is made of what is left of others: -80 dB of a sum of about 60 dB.
            loud = want > -60
            torch.testing.assert_close(found[loud], want[loud].to(dtype), rtol=0, atol=close)
            torch.testing.assert_close(found, want.to(dtype), rtol=0, atol=1e-9 if dtype == torch.float64 else 0.05)


def test_reference_and_floor_are_the_golden():
    found = ready(Loudness(audio(), 2048, 64, reference=20.7, floor=-120.0))(X)[0, :, 0]
    torch.testing.assert_close(found, GOLDEN["loud_2048_center_ref20p7_range120"][:128], rtol=0, atol=1e-9)


def test_the_papers_loudness_is_the_mean_of_decibels():
    x = noise(1, 4096, 1, uniform=True)
    found = ready(Loudness(audio(), 256, 64, "mean_db", "ahead"))(x)[0, :, 0]
    hann = np.hanning(257)[:-1]
    padded = np.concatenate([x[0, :, 0].numpy(), np.zeros(256)])
    weights = a_weights(torch.linspace(0, 8000, 129, dtype=torch.float64)).numpy()
    for k in (0, 7, 61, 63):
        magnitude = np.maximum(abs(np.fft.rfft(padded[64 * k : 64 * k + 256] * hann)), 1e-20)
        want = np.maximum(20 * np.log10(magnitude) + weights - 20.7, -120).mean()
        assert found[k].item() == pytest.approx(want, abs=1e-9)
    # What 20.7 dB are for: white noise of full scale at the paper's settings.
    level = ready(Loudness(audio(), 2048, 64, "mean_db", "ahead"))(noise(1, 32000, 1, uniform=True))[0, :400, 0]
    assert abs(level.mean().item()) < 0.6
    silent = ready(Loudness(audio(), 2048, 64, "mean_db"))(torch.zeros(1, 640, 1, dtype=torch.float64))
    assert (silent == -120).all()


def test_power_is_the_golden():
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        x = X.to(dtype)
        centred = ready(Power(512, 64, "same"), dtype)(x)[0, :, 0]
        torch.testing.assert_close(centred, GOLDEN["power_512_center"][:128].to(dtype), rtol=0, atol=close)
        causal = ready(Power(1024, 64), dtype)(x)[0, :, 0]
        torch.testing.assert_close(causal[15:], GOLDEN["power_1024_valid"].to(dtype), rtol=0, atol=close)


@pytest.mark.parametrize(("size", "hop"), [(12, 5), (8, 8), (9, 4), (7, 1)])
@pytest.mark.parametrize("framing", ["same", "causal", "ahead"])
def test_power_is_the_mean_of_squares(size, hop, framing):
    x = noise(1, hop * 9, 1)
    found = ready(Power(size, hop, framing))(x)[0, :, 0]
    for k in range(9):
        first = {"same": k * hop - size // 2, "causal": (k + 1) * hop - size, "ahead": k * hop}[framing]
        inside = x[0, max(0, first) : first + size, 0]
        assert found[k].item() == pytest.approx(10 * math.log10(inside.square().sum().item() / size), abs=1e-9)


@pytest.mark.parametrize("make", ["power_mean", "mean_db", "power"])
def test_gradients_are_those_of_differences_and_finite_in_silence(make):
    module = ready(Power(8, 4) if make == "power" else Loudness(audio(), 8, 4, make, "causal"))
    assert torch.autograd.gradcheck(module, noise(2, 16, 1).requires_grad_())
    for x in (torch.zeros(1, 16, 1), torch.full((1, 16, 1), 1e-30)):
        x = x.double().requires_grad_()
        (gradient,) = torch.autograd.grad(module(x).sum(), x)
        assert (gradient == 0).all()


def test_scalings_are_said_in_the_language():
    model = lower(checked("y: loudness(x, 64) / 80 + 1")).double()
    model.reset(0)
    torch.testing.assert_close(model({"x": X})["y"][0, :, 0], GOLDEN["ld_scaled"][:128], rtol=0, atol=1e-9)
    model = lower(checked("y: hz_to_midi(x) / 127\n  m: hz_to_midi(x)", facts="T % 1 == 0", outputs="y, m")).double()
    found = model({"x": GOLDEN["f0_hz"][None, :, None]})
    torch.testing.assert_close(found["m"][0, :, 0], GOLDEN["midi"], rtol=0, atol=1e-9)
    torch.testing.assert_close(found["y"][0, :, 0], GOLDEN["f0_scaled"], rtol=0, atol=1e-9)


# ---- pitch numbers -----------------------------------------------------------------------------------------------


def test_pitch_numbers_go_there_and_back():
    f = torch.tensor([0.0, -3.0, 27.5, 440.0, 4186.0], dtype=torch.float64)
    torch.testing.assert_close(MidiToHz()(HzToMidi()(f)), f.clamp(min=0), rtol=1e-12, atol=0)
    tone = MidiToHz(silence=False)(torch.zeros(1, dtype=torch.float64)).item()
    assert tone == pytest.approx(8.175798915643707)
    assert HzToMidi()(torch.tensor([math.nan])).isnan().all()


def test_pitch_numbers_have_safe_gradients():
    f = torch.tensor([0.0, -1.0, 440.0, 1e-30], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(HzToMidi()(f).sum(), f)
    assert gradient[:2].tolist() == [0, 0] and gradient.isfinite().all()
    assert gradient[2].item() == pytest.approx(12 / math.log(2) / 440)
    m = torch.tensor([0.0, 69.0, 200.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(MidiToHz()(m).sum(), m)
    assert gradient[0] == 0 and gradient[1].item() == pytest.approx(440 * math.log(2) / 12)


# ---- pitch -------------------------------------------------------------------------------------------------------

SECONDS = 2
TIME = torch.arange(SECONDS * RATE, dtype=torch.float64) / RATE


def tone(frequency, harmonics=8, noise_db=None):
    """A sound whose harmonics fall off as 1/k, below half the rate, at a frequency `[samples]` or of a number."""
    f = frequency if isinstance(frequency, torch.Tensor) else torch.full_like(TIME, frequency)
    phase = 2 * math.pi * f.cumsum(0) / RATE
    x = sum(0.3 / k * torch.sin(k * phase) * (k * f < RATE / 2) for k in range(1, harmonics + 1))
    if noise_db is not None:
        x = x + noise(*x.shape) * x.square().mean().sqrt() * 10 ** (-noise_db / 20)
    return x[None, :, None].float(), f


def cents(frequency, hop=64, noise_db=None, **settings):
    """How far off the pitch is, in cents, frame by frame away from the ends; a frame not voiced is NaN."""
    x, f = tone(frequency, noise_db=noise_db)
    found = Yin(audio(), hop, **settings)(x)[0, :, 0].double()
    away = 1200 * torch.log2(found / f[::hop]).abs()
    away[found == 0] = math.nan
    return away[2048 // hop : -2048 // hop]


VIBRATO = 440 * 2 ** (0.5 / 12 * torch.sin(2 * math.pi * 5.5 * TIME))
SOUNDS = {
    "a low tone": (55.0, {}, 0.1),
    "a tone": (220.0, {}, 0.1),
    "a high tone": (987.0, {}, 1.0),
    "a tone in noise": (440.0, {"noise_db": 20}, 0.5),
    "a tone in much noise": (440.0, {"noise_db": 10}, 1.0),
    "a glide": (220 * 2 ** (TIME / 4), {}, 0.5),
    "a glide in noise": (220 * 2 ** (TIME / 4), {"noise_db": 20}, 0.5),
    "a glide at hop 320": (220 * 2 ** (TIME / 4), {"hop": 320, "noise_db": 20}, 0.5),
    "a fast glide": (110 * 2 ** (1.5 * TIME), {}, 1.0),
    "vibrato": (VIBRATO, {}, 2.0),
    "vibrato in noise": (VIBRATO, {"noise_db": 20}, 2.0),
    "vibrato in short frames": (VIBRATO, {"size": 512, "fmin": 100.0}, 1.5),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_pitch_is_within_cents(name):
    frequency, settings, median = SOUNDS[name]
    away = cents(frequency, **settings)
    assert not away.isnan().any()
    assert away.median() < median and away.quantile(0.95) < 4 * median + 0.1


def test_a_glide_is_not_seen_early_or_late():
    """The difference of an upward glide is no offset: a frame's pitch is that of its middle."""
    f = 220 * 2 ** (TIME / 2)
    x, _ = tone(f)
    found = Yin(audio(), 64)(x)[0, :, 0].double()
    offset = 1200 * torch.log2(found / f[::64])[32:-32]
    # 600 cents a second: a tenth of a cent is a sixth of a millisecond.
    assert abs(offset.median().item()) < 0.1
    causal = Yin(audio(), 64, framing="causal")(x)[0, :, 0].double()
    # The same frames, of which the causal ones come (size/2 - hop) samples later.
    torch.testing.assert_close(causal[7 + 32 :], found[32:-7], rtol=1e-5, atol=0)


def test_what_has_no_pitch_is_not_voiced():
    t = SECONDS * RATE
    for x in (torch.zeros(1, t, 1), 0.1 * noise(1, t, 1).float(), torch.full((1, t, 1), 0.5), 1e-4 * tone(220.0)[0]):
        inside = slice(16, -16)  # a constant has an edge at either end
        assert (Yin(audio(), 64)(x)[:, inside] == 0).all()
        assert Yin(audio(), 64, wanted="voicing")(x)[:, inside].max() < 0.3
    sure = Yin(audio(), 64, wanted="voicing")(tone(220.0, noise_db=20)[0])[0, 16:-16, 0]
    assert sure.min() > 0.9 and sure.max() <= 1


@pytest.mark.parametrize("first", [0.02, 0.1, 1.0])
def test_a_weak_fundamental_is_no_octave(first):
    f = torch.full_like(TIME, 196.0)
    phase = 2 * math.pi * f.cumsum(0) / RATE
    x = 0.2 * (
        first * torch.sin(phase) + torch.sin(2 * phase) + 0.5 * torch.sin(3 * phase) + 0.3 * torch.sin(4 * phase)
    )
    found = Yin(audio(), 64)(x[None, :, None])[0, 16:-16, 0]
    assert (1200 * torch.log2(found / 196).abs()).max() < 5


def test_what_two_notes_have_in_common_is_not_their_pitch():
    """A fifth repeats an octave below its lower note; the note that is louder is named, in most frames."""
    x = tone(660.0)[0] + 0.3 * tone(440.0)[0]
    found = Yin(audio(), 64)(x)[0, 16:-16, 0]
    assert ((found > 600) | (found == 0)).double().mean() > 0.9


def test_rows_are_their_own_and_so_is_nan():
    x = torch.cat([tone(220.0)[0], tone(330.0)[0], torch.zeros(1, SECONDS * RATE, 1)])
    module = Yin(audio(), 320)
    alone = torch.cat([module(row[None]) for row in x])
    torch.testing.assert_close(module(x), alone, rtol=1e-5, atol=1e-4)
    broken = x.clone()
    broken[0, 16000] = math.nan
    for wanted in ("pitch", "voicing"):
        found = Yin(audio(), 320, wanted=wanted)(broken)
        reached = found[0, :, 0].isnan().nonzero()[:, 0] * 320
        assert reached.min() > 16000 - 1024 and reached.max() < 16000 + 1024 and not found[1:].isnan().any()


def test_other_rates_and_floats():
    t = torch.arange(48000, dtype=torch.float64) / 48000
    x = 0.3 * torch.sin(2 * math.pi * 100 * t)[None, :, None]
    found = Yin(audio(48000), 480, size=4096)(x)[0, 8:-8, 0]
    torch.testing.assert_close(found, torch.full_like(found, 100.0), rtol=1e-5, atol=0)
    assert Yin(audio(48000), 480, size=4096)(x.bfloat16()).dtype == torch.bfloat16


def test_what_does_not_go_together_is_told():
    with pytest.raises(ValueError, match="size 1024 is too short for a pitch of 50 Hz at 48000 Hz.*size=2048"):
        Yin(audio(48000), 64)
    with pytest.raises(ValueError, match="fmin and fmax"):
        Yin(audio(), 64, fmax=8000.0)
    for wrong in (
        "pitch(x, 64, fmin=200, fmax=100)",
        "pitch(x, 64, size=32)",
        "power(x, 64, size=8)",
        "loudness(x, 1024)",
    ):
        with pytest.raises(SpecError):
            checked(f"y: {wrong}", facts="T % 1024 == 0")


@pytest.mark.parametrize(
    ("feature", "ahead"),
    [
        ("pitch(x, 320)", 511),
        ("pitch(x, 64, size=704)", 351),
        ("pitch(x, 64, framing=causal)", 63),
        ("loudness(x, 64)", 255),
        ("loudness(x, 64, n_fft=2048, form=mean_db, framing=ahead)", 2047),
        ("power(x, 320)", 319),
    ],
)
def test_the_look_ahead_is_declared(feature, ahead):
    found = checked(f"y: {feature}", facts="T % 320 == 0")
    assert found.time.of["x"][found.graph.named["y"]].last_at(0) == ahead


# ---- swift-f0 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "hop"), [(16000, 64), (16000, 320), (48000, 192)])
def test_swift_is_within_cents(rate, hop):
    pytest.importorskip("swift_f0")
    from graphspec.ops.modules.pitch_swift import Swift

    f = 220 * 2 ** (torch.arange(2 * rate, dtype=torch.float64) / rate / 4)
    phase = 2 * math.pi * f.cumsum(0) / rate
    x = sum(0.3 / k * torch.sin(k * phase) for k in range(1, 9))[None, :, None].float()
    x = torch.cat([x, torch.zeros_like(x)])
    found = Swift(audio(rate), hop, fmin=50.0, fmax=1000.0)(x)
    assert found.shape == (2, 2 * rate // hop, 1) and found.dtype == torch.float32
    inside = slice(rate // hop // 8, -(rate // hop) // 8)
    away = 1200 * torch.log2(found[0, inside, 0] / f[::hop][inside]).abs()
    assert away.median() < 8 and away.max() < 40
    assert (found[1] == 0).all()
    sure = Swift(audio(rate), hop, fmin=50.0, fmax=1000.0, wanted="voicing")(x)
    assert sure[0, inside].min() > 0.5 and sure[1].max() < 0.5


def test_swift_reads_whole_recordings_and_is_an_extra(monkeypatch):
    from graphspec.ops.modules import pitch_swift

    found = checked("y: pitch(x, 64, tracker=swift)")
    assert found.time.of["x"][found.graph.named["y"]].last_at(0) == math.inf
    with pytest.raises(SpecError):
        checked("y: pitch(x, 64, tracker=swift, framing=causal)")
    with pytest.raises(ValueError, match=r"46.875 to 2093.75 Hz"):
        pitch_swift.Swift(audio(), 64, fmin=30.0, fmax=1000.0)
    monkeypatch.setitem(__import__("sys").modules, "swift_f0", None)
    pitch_swift.detector.cache_clear()
    with pytest.raises(SpecError, match=r"needs the package swift-f0"):
        lower(found)({"x": torch.zeros(1, 640, 1)})
    pitch_swift.detector.cache_clear()


# ---- collapse indicators, regularisers, schedules: nothing but the language --------------------------------------


def test_collapse_indicators_are_the_goldens():
    want = golden("control_stats")
    k = want["p"].shape[1]
    graph = {
        "h": "-sum(p * log(p + 1e-8), axis=-1)",
        "gap": f"log({k}) - mean(h)",
        "concentration": "sum(square(p), axis=-1)",
        "penalty": f"relu(mean(concentration) - 1/{k})",
        "top": "max(p, axis=-1)",
        "own": "entropy(p)",
    }
    text = "\n  ".join(f"{n}: {e}" for n, e in graph.items())
    model = lower(checked(text, f"p: float[T, {k}] @ 250", "T % 1 == 0", ", ".join(graph))).double()
    found = model({"p": want["p"][None]})
    for name, key in (("h", "entropy"), ("concentration", "concentration"), ("top", "top_share")):
        torch.testing.assert_close(found[name][0, :, 0], want[key], rtol=0, atol=1e-9)
    torch.testing.assert_close(found["gap"][0], want["entropy_gap"], rtol=0, atol=1e-9)
    torch.testing.assert_close(found["penalty"][0], want["concentration"].mean() - 1 / k, rtol=0, atol=1e-9)
    torch.testing.assert_close(found["own"][0, :, 0], want["entropy"], rtol=0, atol=1e-6)  # without an epsilon


def test_noise_dominance_is_a_penalty():
    model = lower(
        checked("y: square(relu(n - 0.5 * h))", "n: float[T, 1] @ 250\n  h: float[T, 1] @ 250", "T % 1 == 0")
    ).double()
    n, h = (torch.tensor([v], dtype=torch.float64)[..., None] for v in ([0.1, 0.5], [1.0, 0.2]))
    torch.testing.assert_close(model({"n": n, "h": h})["y"][0, :, 0], torch.tensor([0, 0.16], dtype=torch.float64))


def test_schedules_are_the_golden():
    want = golden("schedule")
    schedule = Schedule(parse_free("exponential(step, 3e-4, rate=0.98, over=10000)"), {})
    found = torch.tensor([schedule.at(int(s)) for s in want["step"]], dtype=torch.float64)
    torch.testing.assert_close(found, want["lr"], rtol=1e-9, atol=0)


def test_a_ramp_begins_after_a_warm_up():
    """Start until the warm-up is over, then straight to the end: a ramp of what is left of step."""
    schedule = Schedule(parse_free("ramp(step - 100, 0.25, 1, over=50)"), {})
    assert [schedule.at(s) for s in (0, 100, 125, 150, 1000)] == [0.25, 0.25, 0.625, 1, 1]
    model = lower(checked("y: ramp(s - 100, 0.25, 1, over=50)", "s: float[T, 1] @ 1", "T % 1 == 0")).double()
    steps = torch.tensor([0.0, 100, 125, 150, 1000], dtype=torch.float64)[None, :, None]
    assert model({"s": steps})["y"][0, :, 0].tolist() == [0.25, 0.25, 0.625, 1, 1]
