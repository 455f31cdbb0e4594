"""Rooms, fixed filters and moving delays against goldens and loops over ticks."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphspec.ops.modules.effects import FIR, Biquad, CentredFIR, ModDelay, Reverb
from graphspec.types import FLOAT, Dim, Type

torch.set_num_threads(1)

GOLDENS = np.load(Path(__file__).parent / "goldens" / "ddsp_synth.npz")


def numbers(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def timed(channels: int, rate: int = 1000) -> Type:
    return Type(FLOAT, (Dim.of(24), Dim.of(channels)), Fraction(rate))


def close(a: Tensor, b: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a.detach().double(), b.detach().double(), rtol=0, atol=atol)


# ---- rooms -------------------------------------------------------------------------------------------------------


def room(length: int, channels: int = 1) -> Reverb:
    made = Reverb(channels, length).double()
    made.ir.data.copy_(numbers(length, channels, seed=7) * torch.exp(-torch.arange(length) / length)[:, None])
    return made


@pytest.mark.parametrize(("length", "ticks"), [(2, 9), (40, 100), (64, 30), (65, 200), (150, 100), (300, 1000)])
def test_reverb_is_the_plain_convolution(length: int, ticks: int) -> None:
    made, x = room(length, 2), numbers(2, ticks, 2).requires_grad_()
    want = x.detach().clone()
    for i in range(1, min(length, ticks)):
        want[:, i:] += x.detach()[:, : ticks - i] * made.ir.detach()[i]
    y = made(x)
    close(y, want, 1e-11)
    (gradient,) = torch.autograd.grad(y.square().sum(), made.ir)
    assert gradient[0].eq(0).all() and gradient[1:].ne(0).any()


@pytest.mark.parametrize("length", [64, 65, 300])
@pytest.mark.parametrize("pieces", [[1] * 5 + [64] * 7, [500], [400, 1, 1500, 52]])
def test_reverb_in_pieces_is_the_whole(length: int, pieces: list[int]) -> None:
    made, x = room(length), numbers(2, sum(pieces), 1)
    prepared, state, found = made.prepare(), made.init_state(2, x), []
    for part in x.split(pieces, 1):
        y, state = made.step(part, state, prepared)
        found.append(y)
    close(torch.cat(found, 1), made(x), 1e-11)


def test_reverb_begins_as_a_room_that_is_hardly_there() -> None:
    made = Reverb(1, 20000)
    made.reset(lambda name: torch.Generator().manual_seed(0))
    assert 0.9e-6 < float(made.ir.detach().std()) < 1.1e-6


# ---- fixed filters -----------------------------------------------------------------------------------------------


def test_centred_fir_is_the_golden_one() -> None:
    x = torch.from_numpy(GOLDENS["fir5_smooth.x"])[None]
    made = CentredFIR(timed(3), GOLDENS["fir5_smooth.taps"].tolist())
    close(made(x)[0], torch.from_numpy(GOLDENS["fir5_smooth.y"]), 1e-9)
    close(made(x.float())[0], torch.from_numpy(GOLDENS["fir5_smooth.y"]), 1e-6)


def test_fir_is_numpys_convolution() -> None:
    x, taps = numbers(1, 30, 1), [0.5, -1.0, 2.0, 0.25]
    want = np.convolve(x[0, :, 0].numpy(), taps)[:30]
    close(FIR(timed(1), taps)(x)[0, :, 0], torch.from_numpy(want))


def test_fir_refuses_what_has_no_centre() -> None:
    with pytest.raises(ValueError, match="odd"):
        CentredFIR(timed(1), [1.0, 2.0])
    with pytest.raises(ValueError, match="numbers"):
        FIR(timed(1), [])


def response(made: Biquad, cutoff: float, frequency: float) -> complex:
    """Of the impulse response, at a frequency in Hz."""
    x = torch.zeros(1, 4000, 1, dtype=torch.float64)
    x[0, 0] = 1
    h = made(x, cutoff)[0, :, 0]
    turns = torch.arange(4000, dtype=torch.float64) * frequency / made.rate
    return complex((h * torch.cos(2 * math.pi * turns)).sum(), -(h * torch.sin(2 * math.pi * turns)).sum())


@pytest.mark.parametrize(
    ("mode", "at_zero", "at_cutoff", "at_half"),
    [("low", 1, 2.0, 0), ("high", 0, 2.0, 1), ("band", 0, 1, 0), ("notch", 1, 0, 1), ("all", 1, 1, 1)],
)
def test_biquad_passes_what_its_mode_says(mode: str, at_zero: float, at_cutoff: float, at_half: float) -> None:
    made = Biquad(timed(1), Type(FLOAT), mode, 2.0)
    for frequency, want in ((0.0, at_zero), (60.0, at_cutoff), (500.0, at_half)):
        assert abs(response(made, 60.0, frequency)) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("mode", ["low", "high", "band", "notch", "all"])
@pytest.mark.parametrize("moves", ["number", "static", "timed"])
def test_biquad_is_the_loop(mode: str, moves: str) -> None:
    """The difference equation tick by tick, with the coefficients of the tick, and its gradients."""
    x = numbers(2, 70, 3).requires_grad_()
    cutoff = {
        "number": torch.full((1, 1, 3), 80.0, dtype=torch.float64),
        "static": (30 + 100 * torch.rand(1, 1, 3, dtype=torch.float64)),
        "timed": (30 + 100 * torch.rand(2, 70, 3, dtype=torch.float64)),
    }[moves].requires_grad_()
    kind = {"number": Type(FLOAT), "static": Type(FLOAT, (Dim.of(3),)), "timed": timed(3)}[moves]
    made = Biquad(timed(3), kind, mode, 0.9)
    given = {"number": 80.0, "static": cutoff[:, 0], "timed": cutoff}[moves]
    w = 2 * math.pi * cutoff / 1000
    cos, alpha = torch.cos(w), torch.sin(w) / 1.8
    nothing, one = torch.zeros_like(cos), torch.ones_like(cos)
    b = {
        "low": ((1 - cos) / 2, 1 - cos, (1 - cos) / 2),
        "high": ((1 + cos) / 2, -(1 + cos), (1 + cos) / 2),
        "band": (alpha, nothing, -alpha),
        "notch": (one, -2 * cos, one),
        "all": (1 - alpha, -2 * cos, 1 + alpha),
    }[mode]
    y: list[Tensor] = []
    for t in range(70):
        heard = [x[:, t - i] if t >= i else torch.zeros_like(x[:, 0]) for i in range(3)]
        past = [y[t - i] if t >= i else torch.zeros_like(x[:, 0]) for i in (1, 2)]
        at = t if moves == "timed" else 0
        total = sum(c[:, at] * h for c, h in zip(b, heard, strict=True))
        total = total + 2 * cos[:, at] * past[0] - (1 - alpha)[:, at] * past[1]
        y.append(total / (1 + alpha)[:, at])
    want, got = torch.stack(y, 1), made(x, given)
    close(got, want, 1e-11)
    ends = [x] if moves == "number" else [x, cutoff]
    pull = numbers(2, 70, 3, seed=9)
    found, wanted = (torch.autograd.grad((z * pull).sum(), ends) for z in (got, want))
    for f, g in zip(found, wanted, strict=True):
        close(f, g, 1e-11 * float(g.abs().max().clamp(min=1)))


def test_biquad_smooths_a_control_without_moving_its_mean() -> None:
    x = torch.full((1, 400, 1), 3.0)
    y = Biquad(timed(1, 250), Type(FLOAT), "low", math.sqrt(0.5))(x, 20.0)
    close(y[:, 200:], x[:, 200:], 1e-4)


# ---- moving delays -----------------------------------------------------------------------------------------------


def test_mod_delay_by_whole_ticks_is_a_shift_and_between_them_a_mixture() -> None:
    x = numbers(1, 20, 2)
    held = [ModDelay(2, 5)(x, torch.full((1, 20, 1), d, dtype=torch.float64)) for d in (0.0, 3.0, 5.0, 2.25, 9.0, -1.0)]
    behind = [torch.cat([x.new_zeros(1, n, 2), x], 1)[:, :20] for n in range(6)]
    wanted = [behind[0], behind[3], behind[5], 0.75 * behind[2] + 0.25 * behind[3], behind[5], behind[0]]
    for y, want in zip(held, wanted, strict=True):
        close(y, want)


def test_mod_delay_has_gradients() -> None:
    x, by = numbers(2, 12, 2).requires_grad_(), (2 + torch.rand(2, 12, 1, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(ModDelay(2, 5), (x, by))


def test_mod_delay_shifts_a_tone_as_the_doppler_effect_does() -> None:
    """A delay that grows by a tick every ten lowers a tone by a tenth."""
    t = torch.arange(2000, dtype=torch.float64)
    x = torch.sin(2 * math.pi * 0.01 * t)[None, :, None]
    y = ModDelay(1, 200)(x, (t / 10)[None, :, None])
    close(y[0, 5:, 0], torch.sin(2 * math.pi * 0.009 * t)[5:], 2e-3)
