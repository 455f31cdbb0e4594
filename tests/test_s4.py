"""S4 (diagonal plus low rank): golden numbers of the reference code, any cut, both ways, and why no diagonal step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphspec.ops.modules.dplr import S4, _tables, legs

with np.load(Path(__file__).parent / "goldens" / "s4_dplr.npz") as arrays:
    GOLDEN = {k: torch.from_numpy(arrays[k]) for k in arrays.files}


def ready(layer: S4, seed: int = 0) -> S4:
    layer.double()
    layer.reset(lambda name: torch.Generator().manual_seed(seed + len(name)))
    return layer


@torch.no_grad()
def golden() -> S4:
    """The reference's system; D is not part of it."""
    layer = ready(S4(4, 8))
    layer.log_dt.copy_(GOLDEN["dt"].log())
    layer.log_a_re.copy_((-GOLDEN["Lambda"].real).log()[None])
    layer.a_im.copy_(-GOLDEN["Lambda"].imag[None])
    layer.p.copy_(torch.view_as_real(GOLDEN["P"])[None])
    layer.b.copy_(torch.view_as_real(GOLDEN["B"])[None])
    layer.c.copy_(torch.view_as_real(GOLDEN["C_true"]))
    layer.d.zero_()
    return layer


def impulse(length: int, channels: int = 4) -> Tensor:
    x = torch.zeros(1, length, channels, dtype=torch.float64)
    x[:, 0] = 1
    return x


def close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape and float((got - want).abs().max()) <= 1e-9


def test_the_eigenform_is_the_references() -> None:
    a, p, b = legs(8)
    close(a.imag, GOLDEN["Lambda"].imag)
    close(a.real, GOLDEN["Lambda"].real)
    close(p.abs(), GOLDEN["P"].abs())  # phases of eigenvectors are arbitrary
    close((a - p * p.conj()).real, (GOLDEN["Lambda"] - GOLDEN["P"] * GOLDEN["P"].conj()).real)
    assert b.shape == (4,)


@torch.no_grad()
@pytest.mark.parametrize(("length", "name"), [(64, "K_64"), (48, "K_48"), (128, "K_128_after_doubling")])
def test_the_kernel_at_any_length_with_the_same_weights(length: int, name: str) -> None:
    close(golden()(impulse(length))[0].T, GOLDEN[name])


@torch.no_grad()
def test_the_kernel_at_another_rate() -> None:
    layer = golden()
    layer.log_dt += torch.log(torch.tensor(2.0, dtype=torch.float64))
    kernel = layer(impulse(32))[0].T
    # The reference's C has absorbed 1 - Abar^64 of the old rate, which the new one's Abar^32 only resembles.
    assert float((kernel - GOLDEN["K_rate2"]).abs().max()) < 2e-5


@torch.no_grad()
@pytest.mark.parametrize("name", ["y_conv", "y_step_dense", "y_step_diagonal", "y_step_linear"])
@pytest.mark.parametrize("cuts", [[64], [1] * 64, [3, 61], [40, 1, 1, 22]])
def test_outputs_whole_and_stepped(name: str, cuts: list[int]) -> None:
    layer, u = golden(), GOLDEN["u"].transpose(1, 2)
    close(layer(u).transpose(1, 2), GOLDEN[name])
    prepared, state = layer.prepare(), layer.init_state(2, u)
    pieces = []
    for piece in u.split(cuts, 1):
        y, state = layer.step(piece, state, prepared)
        pieces.append(y)
    close(torch.cat(pieces, 1).transpose(1, 2), GOLDEN[name])


@torch.no_grad()
def test_both_ways_is_a_kernel_for_either_side() -> None:
    layer = ready(S4(3, 8, both=True))
    there, back = (ready(S4(3, 8)) for _ in range(2))
    for one, c in ((there, layer.c[0]), (back, layer.c[1])):
        one.c.copy_(c)
    back.d.zero_()
    u = torch.randn(2, 50, 3, dtype=torch.float64)
    k0, k1 = there(impulse(50, 3))[0], back(impulse(50, 3))[0]
    want = torch.zeros_like(u)
    for t in range(50):
        for s in range(50):
            want[:, t] += u[:, s] * (k0[t - s] if s <= t else k1[s - t - 1])
    close(layer(u), want)
    with pytest.raises(NotImplementedError):
        layer.step(u, {}, {})


@torch.no_grad()
def test_float32_at_paper_size_and_length() -> None:
    layer = ready(S4(8, 64))
    u = torch.randn(1, 4000, 8, dtype=torch.float64)
    want = layer(u)
    got = layer.float()(u.float())
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4


@torch.no_grad()
def test_copies_are_shared_by_every_so_many_channels() -> None:
    layer = ready(S4(4, 8, copies=2))
    layer.a_im[1] *= 2
    layer.c.copy_(layer.c[:1].expand_as(layer.c))
    layer.log_dt.fill_(-3.0)
    layer.d.zero_()
    k = layer(impulse(40))[0]
    close(k[:, 0], k[:, 2])
    close(k[:, 1], k[:, 3])
    assert float((k[:, 0] - k[:, 1]).abs().max()) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("state", "condition"), [(8, 1e4), (16, 1e9), (64, 1e14)])
def test_why_there_is_no_diagonal_step(state: int, condition: float) -> None:
    """The eigenvectors of Abar part in float64 at 8, not at 64: the reference's diagonal mode is lost there."""
    prepared = ready(S4(1, state)).prepare()
    power = _tables(prepared, prepared["c"], 1).power[0]
    _, vectors = torch.linalg.eig(power.to(torch.complex128))
    assert float(torch.linalg.cond(vectors)) > condition
