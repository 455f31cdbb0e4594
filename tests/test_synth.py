"""The DDSP synths against goldens, against the plain sum over samples and partials, and over minutes."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphspec.ops.modules.bank import harmonic_bank
from graphspec.ops.modules.frame_filter import FilteredNoise, FrameFilter, filtered, responses
from graphspec.ops.modules.synth import ExpSigmoid, Harmonic, HarmonicShape
from graphspec.types import FLOAT, Dim, Type

torch.set_num_threads(1)

GOLDENS = np.load(Path(__file__).parent / "goldens" / "ddsp_synth.npz")


def golden(name: str) -> Tensor:
    return torch.from_numpy(np.asarray(GOLDENS[name]))


def numbers(*shape: int, seed: int = 5) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def control(hop: int, rate: int = 16000) -> Type:
    """The type of a pitch whose frames are `hop` samples."""
    return Type(FLOAT, (Dim.of(4), Dim.of(1)), Fraction(rate, hop))


def close(a: Tensor, b: Tensor, atol: float) -> None:
    torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=atol)


# ---- controls ----------------------------------------------------------------------------------------------------


def test_exp_sigmoid_is_the_golden_one() -> None:
    f = ExpSigmoid(10, 2, 1e-7)
    close(f(golden("exp_sigmoid.x")), golden("exp_sigmoid.y"), 1e-9)
    close(f(golden("exp_sigmoid.x").float()), golden("exp_sigmoid.y"), 1e-6)
    x = golden("exp_sigmoid.x_lin").requires_grad_()
    f(x).sum().backward()
    close(f(x.detach()), golden("exp_sigmoid.y_lin"), 1e-9)
    assert x.grad is not None
    close(x.grad, golden("exp_sigmoid.dydx_lin"), 1e-9)
    close(f(x.detach() - 5), golden("exp_sigmoid.y_bias_m5"), 1e-9)


def test_exp_sigmoid_keeps_its_gradient_where_the_sigmoid_is_none() -> None:
    x = torch.tensor([-120.0, -30.0, -5.0, 50.0], requires_grad=True)
    y = ExpSigmoid(10, 2, 1e-7)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all() and y.isfinite().all()
    exact = 2 * np.log(10) * np.exp(np.log(10) * -30.0)
    assert abs(float(gradient[1]) / exact - 1) < 1e-4


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_harmonic_shape_is_the_golden_one(dtype: torch.dtype, atol: float) -> None:
    raw = ExpSigmoid(10, 2, 1e-7)(golden("harmonic_distribution.logits").to(dtype))
    close(raw, golden("harmonic_distribution.hd_raw"), atol * 2)
    f0 = golden("harmonic_distribution.f0_hz")[..., None].to(dtype)
    close(HarmonicShape(control(64), 64)(raw, f0), golden("harmonic_distribution.hd_norm_nyq"), atol)


def test_harmonic_shape_where_all_is_masked_is_silent_and_has_no_gradient() -> None:
    x = numbers(1, 2, 4).requires_grad_()
    y = HarmonicShape(control(64), 64)(x, torch.tensor([[[8000.0], [3000.0]]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad((y * numbers(4, seed=6)).sum(), x)
    assert y[0, 0].eq(0).all() and gradient[0, 0].eq(0).all()
    assert y[0, 1, 2:].eq(0).all() and gradient[0, 1, 2:].eq(0).all() and gradient.isfinite().all()
    close(y[0, 1].sum(), torch.ones(()), 1e-12)


# ---- oscillators -------------------------------------------------------------------------------------------------


def plain(f0: Tensor, amp: Tensor, shape: Tensor, hop: int, rate: float, method: str, pitch: str) -> Tensor:
    """The reference: every control at the rate of samples, one cumulative sum, all samples times all partials."""
    m = torch.arange(hop, dtype=f0.dtype) / hop

    def raised(x: Tensor, w: Tensor) -> Tensor:
        following = torch.cat([x[:, 1:], x[:, -1:]], 1)
        return ((1 - w) * x[:, :, None] + w * following[:, :, None]).flatten(1, 2)

    curves = {"linear": m, "hold": 0 * m, "window": 0.5 - 0.5 * torch.cos(torch.pi * m)}
    f = raised(f0, curves[pitch][:, None])
    k = torch.arange(1, shape.shape[-1] + 1, dtype=f0.dtype)
    a = raised(amp * shape, curves[method][:, None]) * (f * k < rate / 2)
    turns = torch.cumsum(f / rate, 1) * k
    return (a * torch.sin(2 * torch.pi * turns.frac())).sum(-1, keepdim=True)


GOLDEN_METHODS = {"window": "window", "linear": "linear", "nearest": "hold"}


@pytest.mark.parametrize("pitch", ["const", "glide"])
@pytest.mark.parametrize("method", GOLDEN_METHODS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_harmonic_is_the_golden_one(method: str, pitch: str, dtype: torch.dtype, atol: float) -> None:
    f0 = golden(f"harmonic_synth.f0_{pitch}")[None, :, None].to(dtype)
    amp = golden("harmonic_synth.amplitudes")[None, :, None].to(dtype)
    logits = golden("harmonic_synth.hd_logits")[None].to(dtype)
    shape = HarmonicShape(control(64), 64)(ExpSigmoid(10, 2, 1e-7)(logits), f0)
    close(shape[0], golden(f"harmonic_synth.hd_{pitch}"), atol)
    y = Harmonic(control(64), 64, GOLDEN_METHODS[method], "linear")(f0, amp, shape)
    close(y[0, :, 0], golden(f"harmonic_synth.audio_{pitch}_{method}"), atol)


def controls(frames: int, partials: int, low: float, high: float) -> tuple[Tensor, Tensor, Tensor]:
    """Two rows of a pitch that jumps about, loudness and shapes that are not masked."""
    f0 = low * (high / low) ** numbers(2, frames, 1)
    return f0, numbers(2, frames, 1, seed=6), numbers(2, frames, partials, seed=7)


@pytest.mark.parametrize("pitch", ["linear", "hold"])
@pytest.mark.parametrize("method", ["window", "linear", "hold"])
@pytest.mark.parametrize(("hop", "partials"), [(1, 3), (7, 1), (8, 2), (16, 40), (64, 101)])
def test_harmonic_is_the_plain_sum(hop: int, partials: int, method: str, pitch: str) -> None:
    """Pitches jump by octaves, so that partials cross half the rate in most frames."""
    given = controls(30, partials, 80.0, 7000.0)
    ends = [x.requires_grad_() for x in given]
    want = plain(*given, hop, 16000, method, pitch)
    got = Harmonic(control(hop), hop, method, pitch)(*given)
    close(got, want, 1e-9 * float(want.detach().abs().max()))
    pull = numbers(*want.shape, seed=8)
    found, wanted = (torch.autograd.grad((y * pull).sum(), ends) for y in (got, want))
    for a, b in zip(found, wanted, strict=True):
        close(a, b, 1e-9 * float(b.abs().max()))


def test_harmonic_gradients_are_finite_differences() -> None:
    f0, amp, shape = (x[:1].requires_grad_() for x in controls(4, 5, 100.0, 300.0))
    bank = Harmonic(control(8), 8, "window", "linear")
    assert torch.autograd.gradcheck(bank, (f0, amp, shape), eps=1e-5, atol=1e-7)


def test_gradient_of_the_amplitudes_alone_is_the_same() -> None:
    f0, amp, shape = controls(6, 20, 100.0, 900.0)
    bank = Harmonic(control(16), 16, "linear", "linear")
    alone = torch.autograd.grad(bank(f0, amp, shape.requires_grad_()).square().sum(), shape)[0]
    both = torch.autograd.grad(bank(f0.requires_grad_(), amp, shape).square().sum(), [shape, f0])[0]
    assert torch.equal(alone, both)


@pytest.mark.parametrize("f0", [440.03, 61.7, 1234.5])
def test_harmonic_in_float32_is_exact_over_minutes(f0: float) -> None:
    """The hundredth partial of a steady tone after a minute, and after an hour of state carried on, in float32."""
    rate, hop, frames = 48000, 64, 200
    pitch = torch.full((1, frames, 1), f0)
    partials = min(100, int(rate / 2 / f0))
    amp, shape = torch.ones(1, frames, 1), torch.zeros(1, frames, partials)
    shape[..., -1] = 1
    bank = Harmonic(control(hop, rate), hop, "hold", "hold")
    exact = float(pitch[0, 0, 0])  # what float32 makes of it
    state = bank.init_state(1, pitch)
    minute = torch.full((1, 60 * rate // hop, 1), f0)
    for blocks in (0, 1, 59):
        with torch.no_grad():
            for _ in range(blocks):
                begins, state["phase"] = bank._begins(minute[..., 0], minute[..., 0], state["phase"])
            y, _ = bank.step(pitch, amp, shape, state, {})
        first = {0: 0, 1: 60, 59: 3600}[blocks] * rate
        turns = [(n + 1) * Fraction(exact) * partials / rate % 1 for n in range(first, first + frames * hop, 97)]
        want = torch.tensor([np.sin(2 * np.pi * float(t)) for t in turns])
        close(y[0, ::97, 0], want, 2e-4)


def test_harmonic_in_pieces_is_the_whole() -> None:
    """Any pieces, in float32: the phase is the same number."""
    f0, amp, shape = (x.float() for x in controls(400, 30, 80.0, 400.0))
    bank = Harmonic(control(16), 16, "window", "linear")
    whole = bank(f0, amp, shape)
    held = [torch.cat([x, x[:, -1:]], 1) for x in (f0, amp, shape)]
    state, pieces, at = bank.init_state(2, f0), [], 0
    for n in (1, 2, 150, 1, 46, 200):
        y, state = bank.over(*(x[:, at : at + n + 1] for x in held), state=state, prepared={})
        pieces.append(y)
        at += n
    assert at == 400
    close(torch.cat(pieces, 1), whole, 2e-5)


def test_a_frame_without_a_pitch_spoils_only_its_surroundings() -> None:
    f0, amp, shape = controls(20, 4, 100.0, 300.0)
    f0[:, 9] = torch.nan
    y = Harmonic(control(8), 8, "window", "linear")(f0, amp, shape)
    assert y[:, : 8 * 8].isfinite().all() and y[:, 8 * 8 : 10 * 8].isnan().any() and y[:, 10 * 8 :].isfinite().all()


def test_pitch_above_half_the_rate_is_silence() -> None:
    f0, amp, shape = controls(20, 4, 9000.0, 20000.0)
    assert Harmonic(control(8), 8, "window", "linear")(f0, amp, shape).eq(0).all()


def test_bank_traces_to_one_node() -> None:
    phase, pitch, here = numbers(3, 8), numbers(3, 2) * 100, numbers(3, 5)
    torch.library.opcheck(
        torch.ops.graphspec.harmonic_bank.default, (phase, pitch, here, here, numbers(8), 8000.0), raise_exception=True
    )
    assert harmonic_bank(phase, pitch, here, here, numbers(8), 8000.0).shape == (3, 8)


# ---- filters of frames -------------------------------------------------------------------------------------------


def as_drawn(noise: Tensor) -> Tensor:
    """What the runtime fills in, uniform in (0, 1), so that the synth makes this noise of it."""
    return (noise[None, :, None] + 1) / 2


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_filtered_noise_is_the_golden_one(dtype: torch.dtype, atol: float) -> None:
    noise = as_drawn(golden("filtered_noise.noise")).to(dtype)
    mags = ExpSigmoid(10, 2, 1e-7)(golden("filtered_noise.mag_logits").to(dtype))[None]
    close(mags[0], golden("filtered_noise.mag"), atol)
    close(responses(mags)[0], golden("filtered_noise.ir"), atol)
    close(FilteredNoise(9, 64, "same")(mags, noise)[0, :, 0], golden("filtered_noise.out_same"), atol)
    close(FilteredNoise(9, 64, "causal")(mags, noise)[0, :, 0], golden("filtered_noise.out_causal"), atol)
    frames = (2 * noise[..., 0] - 1).unflatten(1, (4, 64))
    close(filtered(frames, mags)[0], golden("filtered_noise.out_valid_d0"), atol)
    ones = torch.ones_like(mags)
    close(FilteredNoise(9, 64, "same")(ones, noise)[0, :, 0], golden("filtered_noise.out_ones"), atol)
    wide = golden("filtered_noise.mag65").to(dtype)[None]
    close(responses(wide)[0], golden("filtered_noise.ir65"), atol)
    close(FilteredNoise(65, 64, "same")(wide, noise)[0, :, 0], golden("filtered_noise.out65_same"), atol)


@pytest.mark.parametrize(("hop", "bands"), [(1, 3), (4, 3), (5, 9), (64, 5), (3, 17)])
def test_filter_of_frames_is_the_plain_sum(hop: int, bands: int) -> None:
    """Sample by sample: each adds its frame's response to what comes; the centre of flat magnitudes is one tap."""
    x, mags = numbers(2, 8 * hop, 1), numbers(2, 8, bands, seed=6)
    taps = responses(mags)
    length = taps.shape[-1]
    want = torch.zeros(2, 8 * hop + length - 1, dtype=torch.float64)
    for s in range(8 * hop):
        want[:, s : s + length] += x[:, s] * taps[:, s // hop]
    cut = length // 2 - 2
    close(FrameFilter(bands, hop, "causal")(x, mags)[..., 0], want[:, : 8 * hop], 1e-12)
    close(FrameFilter(bands, hop, "same")(x, mags)[..., 0], want[:, cut : cut + 8 * hop], 1e-12)
    late = FrameFilter(bands, hop, "causal")(x, torch.ones_like(mags))
    close(late[:, length // 2 :], x[:, : 8 * hop - length // 2], 1e-12)


def test_filtered_noise_has_gradients() -> None:
    noise, mags = numbers(1, 16, 1), numbers(1, 4, 5, seed=6).requires_grad_()
    for framing in ("same", "causal"):
        assert torch.autograd.gradcheck(lambda m, f=framing: FilteredNoise(5, 4, f)(m, noise), mags)
