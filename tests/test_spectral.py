"""Spectra against torch.stft, torchaudio and the formulas; their frames in a spec; torchaudio without its extension."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.diagnostic import SpecError
from graphspec.dims import Dim
from graphspec.ops.modules.filterbanks import cosine_transform, mel_filters, torchaudio
from graphspec.ops.modules.spectral import MFCC, STFT, LogMel, Spectrogram
from graphspec.reader import read_text
from graphspec.types import FLOAT, Type

torch.set_num_threads(1)

RATE = 16000
AUDIO = Type(FLOAT, (Dim.symbol("T"), Dim.of(1)), Fraction(RATE))


def noise(samples, dtype=torch.float64, rows=2):
    return torch.randn(rows, samples, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def ready(module, dtype=torch.float64):
    module = module.to(dtype)
    module.reset(lambda name: torch.Generator())
    return module


def spec(expression, channels=1):
    text = f"graphspec: 1\nmodel: m\ninputs:\n  x: float[T, {channels}] @ 16000\nrequire:\n  - T % 4096 == 0\n"
    text += f"graph:\n  y: {expression}\noutputs: [y]\n"
    return check_document(read_text("m.yaml", text), Path(__file__).parent)


# ---- the transform -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 64), (64, 48), (30, 7), (4, 1)])
def test_stft_is_torchs(n_fft, hop):
    x = noise(hop * 20)
    window = torch.hann_window(n_fft, dtype=torch.float64)
    want = torch.stft(x[..., 0], n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True)
    found = ready(STFT(n_fft, hop))(x)
    torch.testing.assert_close(found, torch.view_as_real(want.transpose(1, 2)[:, :20]), rtol=0, atol=1e-12)
    late = torch.nn.functional.pad(x[..., 0], (n_fft - hop, 0))
    want = torch.stft(late, n_fft, hop, window=window, center=False, return_complex=True)
    found = ready(STFT(n_fft, hop, "causal"))(x)
    torch.testing.assert_close(found, torch.view_as_real(want.transpose(1, 2)), rtol=0, atol=1e-12)


def test_stft_is_the_sum_it_stands_for():
    x, n, hop = noise(48, rows=1), 12, 6
    found = torch.view_as_complex(ready(STFT(n, hop))(x))[0]
    for k, f in [(0, 0), (3, 2), (7, 6), (5, 5)]:
        at = [k * hop - n // 2 + j for j in range(n)]
        want = sum(
            x[0, s, 0] * np.sin(np.pi * j / n) ** 2 * np.exp(-2j * np.pi * f * j / n)
            for j, s in enumerate(at)
            if 0 <= s < 48
        )
        assert abs(found[k, f].item() - complex(want)) < 1e-12


@pytest.mark.parametrize("framing", ["same", "causal"])
def test_a_hop_of_0_is_a_quarter_of_the_window(framing):
    x = noise(1024)
    assert torch.equal(ready(STFT(256, 0, framing))(x), ready(STFT(256, 64, framing))(x))


@pytest.mark.parametrize("framing", ["same", "causal"])
def test_a_short_sound_is_padded(framing):
    assert ready(STFT(512, 64, framing))(noise(64)).shape == (2, 1, 257, 2)


def test_steps_of_any_size_are_the_whole():
    module, x = ready(STFT(64, 16, "causal")), noise(16 * 30)
    state, pieces, at = module.init_state(2, x), [], 0
    for hops in (1, 7, 2, 1, 19):
        y, state = module.step(x[:, at : at + 16 * hops], state=state, prepared={})
        pieces.append(y)
        at += 16 * hops
    torch.testing.assert_close(torch.cat(pieces, 1), module(x), rtol=0, atol=1e-12)


def test_what_looks_ahead_of_its_hop_refuses_to_step():
    module = ready(STFT(64, 16))
    with pytest.raises(NotImplementedError, match="framing=causal has"):
        module.step(noise(16), state=module.init_state(2, noise(1)), prepared={})


# ---- magnitudes, bands, coefficients -----------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2])
def test_spectrogram_is_torchaudios(power):
    x = noise(4096, torch.float32)
    theirs = torchaudio.transforms.Spectrogram(512, hop_length=128, power=power, pad_mode="constant")
    want = theirs(x[..., 0]).transpose(1, 2)[:, :32]
    torch.testing.assert_close(ready(Spectrogram(512, 128, power), torch.float32)(x), want, rtol=1e-5, atol=1e-5)


def test_a_tone_is_at_its_bin():
    t = torch.arange(RATE, dtype=torch.float64) / RATE
    x = torch.sin(2 * torch.pi * 1000 * t)[None, :, None]
    y = ready(Spectrogram(512, 160))(x)[0, 10:-10]
    assert (y.argmax(-1) == 1000 * 512 // RATE).all()
    torch.testing.assert_close(y.amax(-1), torch.full((80,), 512 / 4, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
@pytest.mark.parametrize(("norm", "theirs"), [("peak", None), ("area", "slaney")])
@pytest.mark.parametrize("power", [1, 2])
def test_log_mel_is_torchaudios(mel_scale, norm, theirs, power):
    x = noise(8192, torch.float32)
    reference = torchaudio.transforms.MelSpectrogram(
        RATE, 1024, hop_length=256, f_min=60.0, f_max=7000.0, n_mels=40, power=power, pad_mode="constant",
        norm=theirs, mel_scale=mel_scale,
    )  # fmt: skip
    want = reference(x[..., 0]).transpose(1, 2)[:, :32].log()
    module = LogMel(AUDIO, 1024, 256, 40, 60.0, 7000.0, 1e-9, power, mel_scale, norm)
    torch.testing.assert_close(ready(module, torch.float32)(x), want, rtol=1e-4, atol=1e-4)


def test_mfcc_is_torchaudios():
    x = noise(8192, torch.float32)
    reference = torchaudio.transforms.MFCC(
        RATE, 30, log_mels=True, melkwargs={"n_fft": 1024, "hop_length": 256, "n_mels": 64, "pad_mode": "constant"}
    )
    want = reference(x[..., 0]).transpose(1, 2)[:, :32]
    found = ready(MFCC(AUDIO, 30, 1024, 256, 64, power=2, eps=1e-6), torch.float32)(x)
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3)


def test_the_cosine_transform_keeps_lengths():
    d = cosine_transform(40, 40).double()
    torch.testing.assert_close(d.T @ d, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [Fraction(16000), Fraction(11025), Fraction(44100, 4)])
def test_filters_are_triangles_on_the_mel_scale(rate):
    """Of the right height and place, at odd rates too (torchaudio takes rates for even)."""
    top = float(rate) / 2
    points = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + top / 700), 22) / 2595) - 1)
    f = np.linspace(0, top, 257)[:, None]
    low, mid, high = points[:-2], points[1:-1], points[2:]
    want = np.maximum(0, np.minimum((f - low) / (mid - low), (high - f) / (high - mid)))
    found = mel_filters(257, 20, rate, 0.0, None, "htk", "peak")
    np.testing.assert_allclose(found.numpy(), want, rtol=0, atol=2e-4)


def test_filters_narrower_than_a_bin_are_silent_about_it(recwarn):
    filters = mel_filters(33, 80, Fraction(RATE), 0.0, None, "htk", "peak")
    assert filters.isfinite().all() and (filters.amax(0) == 0).any() and not recwarn.list


def test_silence_has_finite_gradients():
    x = torch.zeros(1, 1024, 1, dtype=torch.float64, requires_grad=True)
    for module in (Spectrogram(256), Spectrogram(256, power=2), LogMel(AUDIO, 256), MFCC(AUDIO, 13, 256)):
        (g,) = torch.autograd.grad(ready(module)(x).sum(), x)
        assert g.isfinite().all()


def test_half_precision_is_computed_in_float32():
    x = noise(2048, torch.bfloat16)
    want = ready(LogMel(AUDIO, 256, mels=20), torch.float32)(x.float())
    module = LogMel(AUDIO, 256, mels=20)
    module.reset(lambda name: torch.Generator())
    found = module(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), want, rtol=0.01, atol=0.01)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="above half the rate, 8000 Hz"):
        LogMel(AUDIO, 512, fmax=9000.0)
    with pytest.raises(ValueError, match="1..mels"):
        MFCC(AUDIO, 41, 512, mels=40)
    with pytest.raises(ValueError, match="n_fft is even"):
        STFT(63)


# ---- in a spec ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "shape", "rate", "reads"),
    [
        ("x |> stft(512, hop=128)", "[T/128, 257, 2]", "125 Hz", (255, 255)),
        ("x |> spectrogram(512, hop=128, framing=causal)", "[T/128, 257]", "125 Hz", (383, 127)),
        ("x |> log_mel(1024)", "[T/256, 80]", "62.5 Hz", (511, 511)),
        ("x |> mfcc(30, n_fft=1024, hop=64, framing=causal)", "[T/64, 30]", "250 Hz", (959, 63)),
    ],
)
def test_frames_have_a_rate_and_a_place(expression, shape, rate, reads):
    checked = spec(expression)
    y = checked.graph.named["y"]
    assert str(y.type) == f"f32{shape} @ {rate}"
    assert checked.time.receptive_field(y, "x") == reads
    out = lower(checked)({"x": noise(4096, torch.float32)})["y"]
    assert out.isfinite().all() and out.shape[1] == 4096 // int(RATE / y.type.rate)


def test_a_loss_over_scales_reads_as_it_should():
    lines = "sum(l1(log_mel(x, n), log_mel(0.5 * x, n)) for n in [64])"
    assert str(spec(lines).graph.named["y"].type) == "f32[T/16, 80] @ 1 kHz"


@pytest.mark.parametrize(
    ("expression", "channels", "code"),
    [
        ("x |> stft(512, hop=513)", 1, "GS0305"),
        ("x |> stft(511)", 1, "GS0305"),
        ("x |> log_mel(512, fmin=100, fmax=50)", 1, "GS0305"),
        ("x |> mfcc(20, n_fft=512, mels=10)", 1, "GS0305"),
        ("x |> spectrogram(512, power=3)", 1, "GS0305"),
        ("x |> spectrogram(512, hop=3)", 1, "GS0310"),
        ("x |> stft(512)", 2, "GS0301"),
    ],
)
def test_wrong_frames_have_a_code(expression, channels, code):
    with pytest.raises(SpecError) as caught:
        spec(expression, channels)
    assert caught.value.diagnostics[0].code == code


# ---- torchaudio --------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
import torch
def refuse(path):
    raise OSError(f"Could not load this library: {path}")
torch.ops.load_library = refuse
from graphspec.ops.modules.filterbanks import mel_filters, torchaudio
assert sys.modules["torchaudio._extension"]._IS_TORCHAUDIO_EXT_AVAILABLE is False
from fractions import Fraction
assert mel_filters(9, 4, Fraction(100), 0.0, None, "htk", "peak").shape == (9, 4)
import torchaudio.transforms
assert torchaudio.transforms.MelSpectrogram(100, 16, n_mels=3)(torch.zeros(1, 64)).shape[1] == 3
"""


def test_torchaudio_works_where_its_extension_does_not_load():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
