"""The multi-scale spectral loss: goldens, a plain loop over numpy's FFT, auraloss, gradients, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.diagnostic import SpecError
from graphspec.ops.modules.magnitudes import stft_magnitudes
from graphspec.ops.modules.spectral_losses import MultiscaleSTFT
from graphspec.reader import read_text

torch.set_num_threads(1)

with np.load(Path(__file__).with_name("goldens") / "ddsp_spectral_loss.npz") as arrays:
    GOLDEN = {k: torch.from_numpy(v) for k, v in arrays.items()}
SIZES = (2048, 1024, 512, 256, 128, 64)
A, B = GOLDEN["a"][None, :, None], GOLDEN["b"][None, :, None]


def ready(sizes=SIZES, windows=(), hops=(), dtype=torch.float64, **settings):
    module = MultiscaleSTFT(sizes, windows, hops, **{"weights": {"magnitude": 1.0}, **settings}).to(dtype)
    module.reset(lambda name: torch.Generator())
    return module


def loss(estimate=B, target=A, **settings):
    return ready(**settings)(estimate, target)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- goldens -----------------------------------------------------------------------------------------------------


def test_magnitudes_and_frames_are_the_goldens():
    module = ready()
    small = module.magnitudes(A[..., 0], 64, 64, 16)
    torch.testing.assert_close(small[0, :4], GOLDEN["mag64_a"], rtol=0, atol=1e-9)
    torch.testing.assert_close(
        module.magnitudes(A[..., 0], 2048, 2048, 512)[0, 0], GOLDEN["mag2048_a_frame0"], rtol=0, atol=1e-9
    )
    assert [module.magnitudes(A[..., 0], n, n, n // 4).shape[1] for n in SIZES] == GOLDEN["nframes"].tolist()


TERMS = {
    "mag": {"weights": {"magnitude": 1}},
    "mag_logmag": {"weights": {"magnitude": 1, "logarithm": 1}, "log_eps": "where"},
    "logmag_only": {"weights": {"logarithm": 1}, "log_eps": "where"},
    "L2_mag": {"weights": {"magnitude": 1}, "distance": "l2"},
    "delta_time": {"weights": {"delta_time": 1}},
    "delta_freq": {"weights": {"delta_frequency": 1}},
    "cumsum_freq": {"weights": {"sum_frequency": 1}},
}


@pytest.mark.parametrize("name", TERMS)
def test_every_term_is_its_golden(name):
    want = GOLDEN[f"loss_{name}"][None]
    torch.testing.assert_close(loss(**TERMS[name]), want, rtol=1e-9, atol=1e-9)
    # Both ways round: no term but the convergence knows which is the target.
    torch.testing.assert_close(loss(A, B, **TERMS[name]), want, rtol=1e-9, atol=1e-9)
    single = loss(B.float(), A.float(), dtype=torch.float32, **TERMS[name])
    # Pure tones leave most bins empty but for rounding, which the logarithm of `where` sees: 8e-3, as of scipy's FFT.
    torch.testing.assert_close(single, want.float(), rtol=1e-2 if "log" in name else 1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("log_eps", "eps", "want", "single"),
    [
        ("where", 1e-5, 10.38489447, 1e-2),
        ("clamp", 1e-5, 8.49369, 1e-4),
        ("add", 1e-5, 8.31957, 5e-3),
        ("add", 1e-7, 10.0017, 3e-2),
        ("add", 1e-3, 5.05813, 1e-4),
    ],
)
def test_the_three_epsilons_of_the_logarithm(log_eps, eps, want, single):
    given = {"weights": {"logarithm": 1}, "log_eps": log_eps, "eps": eps}
    found = loss(**given)
    assert found.item() == pytest.approx(want, rel=1e-5)
    assert loss(B.float(), A.float(), dtype=torch.float32, **given).item() == pytest.approx(found.item(), rel=single)


def test_silence_has_a_loss_and_a_gradient():
    x = torch.zeros_like(A).requires_grad_()
    found = loss(x, A, weights={"magnitude": 1, "logarithm": 1}, log_eps="where")
    torch.testing.assert_close(found, GOLDEN["loss_target_vs_silence_mag_logmag"][None], rtol=1e-9, atol=0)
    for log_eps in ("add", "clamp", "where"):
        for y in (x, x + 1e-4 * noise(*A.shape)):
            total = loss(y, A, weights=dict.fromkeys(["magnitude", "logarithm", "convergence"], 1), log_eps=log_eps)
            (gradient,) = torch.autograd.grad(total.sum(), x)
            assert gradient.isfinite().all()


# ---- against plain loops -----------------------------------------------------------------------------------------


def plain_magnitudes(x, size, window, hop):
    """Not centred, ceil(N/hop) frames, zeros behind the end."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    x = np.concatenate([x, np.zeros(window)])
    return np.stack([abs(np.fft.rfft(x[at : at + window] * hann, size)) for at in range(0, len(x) - window, hop)])


@pytest.mark.parametrize(("size", "window", "hop"), [(16, 16, 4), (16, 12, 5), (32, 20, 20), (8, 8, 3)])
def test_windows_and_hops_of_any_length(size, window, hop):
    x, y = noise(3, 50, 1), noise(3, 50, 1, seed=1)
    found = loss(x, y, sizes=[size], windows=[window], hops=[hop], weights={"magnitude": 0.5, "logarithm": 2}, eps=1e-2)
    for row in range(3):
        p, q = (plain_magnitudes(s[row, :, 0].numpy(), size, window, hop) for s in (x, y))
        want = 0.5 * abs(p - q).mean() + 2 * abs(np.log(p + 1e-2) - np.log(q + 1e-2)).mean()
        assert found[row].item() == pytest.approx(want, rel=1e-12)


def test_channels_count_alike_and_a_static_row_goes_with_any_batch():
    x, y = noise(2, 64, 3), noise(2, 64, 3, seed=1)
    found = loss(x, y, sizes=[16])
    each = torch.stack([loss(x[..., c : c + 1], y[..., c : c + 1], sizes=[16]) for c in range(3)])
    torch.testing.assert_close(found, each.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(x, y[:1], sizes=[16])[1:], loss(x[1:], y[:1], sizes=[16]), rtol=1e-12, atol=0)


def test_normalized_centred_frames_are_the_peers_loss():
    """Scales 4096 to 128, mirrored ends, magnitudes over sqrt(n), log(x + 1e-7), summed."""
    given = {"weights": {"magnitude": 1, "logarithm": 1}, "eps": 1e-7, "framing": "reflect", "normalized": True}
    assert loss(sizes=[4096, 2048, 1024, 512, 256, 128], **given).item() == pytest.approx(9.736554, rel=1e-6)


def test_the_mean_over_the_sizes():
    torch.testing.assert_close(loss(over_sizes="mean") * 6, loss(), rtol=1e-12, atol=0)


# ---- auraloss ----------------------------------------------------------------------------------------------------

AURALOSS = {
    "defaults": {},
    "sizes of DDSP": {"fft_sizes": list(SIZES), "win_lengths": list(SIZES), "hop_sizes": [n // 4 for n in SIZES]},
    "magnitudes only": {"w_sc": 0.0, "w_log_mag": 0.0, "w_lin_mag": 1.0},
    "squares": {"w_sc": 0.0, "w_log_mag": 0.5, "w_lin_mag": 2.0, "mag_distance": "L2"},
    "convergence only": {"w_log_mag": 0.0},
}


@pytest.mark.parametrize("name", AURALOSS)
def test_auraloss_is_reproduced_by_parameters(name):
    auraloss = pytest.importorskip("auraloss")
    given = AURALOSS[name]
    theirs = auraloss.freq.MultiResolutionSTFTLoss(**given)
    ours = ready(
        given.get("fft_sizes", [1024, 2048, 512]),
        given.get("win_lengths", [600, 1200, 240]),
        given.get("hop_sizes", [120, 240, 50]),
        weights={
            "magnitude": given.get("w_lin_mag", 0.0),
            "logarithm": given.get("w_log_mag", 1.0),
            "convergence": given.get("w_sc", 1.0),
        },
        log_eps="where",
        distance=given.get("mag_distance", "L1").lower(),
        framing="reflect",
        floor=1e-4,
        over_sizes="mean",
    )
    for each in theirs.stft_losses:
        each.window = torch.hann_window(each.win_length, dtype=torch.float64)  # theirs is of float32
    x = B.clone().requires_grad_()
    # One clip: auraloss's convergence is of the whole batch at once.
    want, found = theirs(x.transpose(1, 2), A.transpose(1, 2)), ours(x, A)
    torch.testing.assert_close(found[0], want, rtol=1e-9, atol=0)
    a, b = (torch.autograd.grad(y.sum(), x)[0] for y in (found, want))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9 * b.abs().max().item())


# ---- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size", "hop", "samples"), [(8, 8, 2, 26), (6, 8, 4, 21), (8, 16, 8, 40), (5, 8, 3, 25)])
def test_magnitudes_have_the_gradient_of_autograd(n, size, hop, samples):
    window, x = torch.hann_window(n, dtype=torch.float64), noise(2, samples).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stft_magnitudes(x, window, size, hop), x)
    plain = torch.fft.rfft(x.unfold(1, n, hop) * window, size).abs()
    found = stft_magnitudes(x, window, size, hop)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    towards = noise(*plain.shape, seed=2)
    a, b = (torch.autograd.grad((y * towards).sum(), x)[0] for y in (found, plain))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("framing", ["ahead", "reflect"])
@pytest.mark.parametrize("log_eps", ["add", "clamp", "where"])
def test_the_loss_has_the_gradient_of_differences(framing, log_eps):
    x, y = noise(2, 20, 1).requires_grad_(), noise(2, 20, 1, seed=1).requires_grad_()
    names = ["magnitude", "logarithm", "delta_time", "delta_frequency", "sum_frequency", "convergence"]
    module = ready([8, 16], framing=framing, log_eps=log_eps, distance="l2", weights=dict.fromkeys(names, 0.5))
    assert torch.autograd.gradcheck(module, (x, y))


def test_rows_taken_one_by_one_are_the_rows_together(monkeypatch):
    """The gradient is found row by row in the forward pass: the same numbers, whoever asks for it."""
    from graphspec.ops.modules import at_once

    module, towards = ready([64, 16], weights={"magnitude": 1, "logarithm": 1}), torch.tensor([1.0, -2.0, 0.5])
    x, y = noise(3, 300, 2).requires_grad_(), noise(3, 300, 2, seed=1).requires_grad_()
    together = module._of(x, y)
    want = torch.autograd.grad((together * towards).sum(), (x, y))
    for samples in (1, 1200, 10**6):
        monkeypatch.setattr(at_once, "SAMPLES_ON_CPU", samples)
        found = module(x, y)
        torch.testing.assert_close(found, together, rtol=1e-12, atol=0)
        for one, other in zip(torch.autograd.grad((found * towards).sum(), (x, y)), want, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        (only,) = torch.autograd.grad((module(x, y.detach()) * towards).sum(), x)
        torch.testing.assert_close(only, want[0], rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        assert not module(x, y).requires_grad


def test_a_step_down_the_gradient_lowers_the_loss():
    x = A + 0.05 * noise(*A.shape)
    x.requires_grad_()
    before = loss(x, A, weights={"magnitude": 1, "logarithm": 1})
    (gradient,) = torch.autograd.grad(before.sum(), x)
    after = loss(x - 1e-4 * gradient / gradient.norm(), A, weights={"magnitude": 1, "logarithm": 1})
    assert after < before


# ---- in a spec ---------------------------------------------------------------------------------------------------


def spec(expression, samples="T % 64 == 0", rate=16000):
    text = f"graphspec: 1\nmodel: m\ninputs:\n  a: float[T, 1] @ {rate}\n  b: float[T, 1] @ {rate}\n"
    text += f"require:\n  - {samples}\ngraph:\n  y: {expression}\noutputs: [y]\n"
    return check_document(read_text("m.yaml", text), Path(__file__).parent)


def test_it_is_a_static_number_a_clip():
    model = lower(spec("multiscale_stft(b, a, log_weight=1, log_eps=where)")).double()
    model.reset(0)  # its windows, of float64 now
    found = model({"a": A, "b": B})["y"]
    torch.testing.assert_close(found, GOLDEN["loss_mag_logmag"][None], rtol=1e-9, atol=0)


def test_an_envelope_loss_is_a_composition():
    checked = spec("mean(l1(loudness(b, 64), loudness(a, 64)))")
    model = lower(checked).double()
    x = (0.9 * A).requires_grad_()
    found = model({"a": A, "b": x})["y"]
    # 20 log10(0.9) dB apart everywhere but in the floor.
    assert found.item() == pytest.approx(-20 * np.log10(0.9), rel=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize(
    "expression",
    [
        "multiscale_stft(a, b, sizes=[])",
        "multiscale_stft(a, b, sizes=[2])",
        "multiscale_stft(a, b, sizes=[64], hops=[16, 8])",
        "multiscale_stft(a, b, sizes=[64], eps=0)",
        "multiscale_stft(a, b, log_eps=max)",
    ],
)
def test_what_makes_no_sense_is_refused(expression):
    with pytest.raises(SpecError):
        spec(expression)


def test_a_clip_too_short_to_mirror_is_told():
    with pytest.raises(ValueError, match="mirrors 32 samples at each end, but the clip has 32"):
        loss(noise(1, 32, 1), noise(1, 32, 1), sizes=[64], framing="reflect")
    with pytest.raises(ValueError, match="even sizes"):
        ready([64], [80])
