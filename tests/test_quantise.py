"""The quantiser: every level survives a round trip; the parity variant reproduces the peer (goldens/quant.npz)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graphspec.ops.modules.quantise import LAWS, Dequantise, Quantise, dequantise, quantise, silence_level
from graphspec.ops.parity import s4_quantise

GOLDENS = np.load(Path(__file__).parent / "goldens" / "quant.npz")
PEER_NAMES = {"linear": "linear", "mu_law": "mulaw"}


def golden(name: str) -> torch.Tensor:
    a = GOLDENS[name]
    return torch.from_numpy(a.astype(np.int64) if a.dtype.kind == "u" else a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_every_level_survives_the_round_trip(bits: int, law: str, dtype: torch.dtype) -> None:
    q = torch.arange(1 << bits)
    x = dequantise(q, bits, law, dtype)
    assert x.dtype == dtype
    assert torch.equal(quantise(x, bits, law), q)
    torch.testing.assert_close(x, -x.flip(0), rtol=1e-6, atol=0)
    assert 1 - 1e-6 < x.abs().max() <= 1
    assert (x.diff() > 0).all()


@pytest.mark.parametrize("law", LAWS)
def test_levels_are_the_nearest_ones(law: str) -> None:
    x = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    q = quantise(x, 8, law)
    levels = dequantise(torch.arange(256), 8, law, torch.float64)
    error = (levels[q] - x).abs()
    below, above = levels[(q - 1).clamp(min=0)], levels[(q + 1).clamp(max=255)]
    assert (q.diff() >= 0).all()
    assert ((below <= x) | (q == 0)).all() and ((x <= above) | (q == 255)).all()
    if law == "linear":  # mu-law rounds in the bent domain, so its nearest level is not the nearest amplitude
        assert error.max() <= 1 / 255 + 1e-12


def test_linear_grid_is_the_mixture_grid() -> None:
    q = torch.arange(256)
    assert torch.equal(dequantise(q, 8, "linear", torch.float64), (2 * q.double() - 255) / 255)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("bits", [8, 16])
def test_whatever_comes_in_a_legal_level_comes_out(bits: int, law: str) -> None:
    x = torch.tensor([-5.0, 5.0, float("inf"), float("-inf"), float("nan"), 0.0, -0.0, 1e-45, 1.0, -1.0])
    q = quantise(x, bits, law)
    top = (1 << bits) - 1
    assert q.dtype == torch.int64 and q.min() >= 0 and q.max() <= top
    assert q[:4].tolist() == [0, top, top, 0]
    assert q[5:8].tolist() == [silence_level(bits)] * 3
    assert q[8:].tolist() == [top, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, 301).to(dtype)
    assert torch.equal(quantise(x, 8, "mu_law"), quantise(x.float(), 8, "mu_law"))
    assert dequantise(torch.arange(256), 8, "linear", dtype).dtype == dtype


def test_settings_are_checked() -> None:
    for bits, law in ((0, "linear"), (17, "linear"), (8, "a_law")):
        with pytest.raises(ValueError):
            quantise(torch.zeros(1), bits, law)
        with pytest.raises(ValueError):
            Dequantise(bits, law)


@pytest.mark.parametrize("law", LAWS)
def test_modules(law: str) -> None:
    x = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    down, up = Quantise(8, law), Dequantise(8, law)
    q = down(x)
    assert torch.equal(q, quantise(x, 8, law)) and up(q).dtype == torch.float32
    up.double()
    assert up(q).dtype == torch.float64 and torch.equal(down(up(q)), q)
    assert not down.state_dict() and not up.state_dict()
    up.reset(lambda name: torch.Generator())
    state = down.init_state(2, x)
    y, after = down.step(x[:, :1], state, down.prepare())
    assert torch.equal(y, q[:, :1]) and after == {}
    with torch.device("meta"):
        assert Dequantise(8, law)(torch.zeros(2, 3, 1, dtype=torch.int64)).shape == (2, 3, 1)


# -- the peer's variant ----------------------------------------------------------------------------------------------


def same_levels(mine: torch.Tensor, name: str) -> None:
    """Exact, but for 16-bit mu-law: another CPU's log1p may differ in its last bit, and so a level at a bin edge."""
    theirs = golden(name)
    different = mine != theirs
    if "mulaw" not in name or name.endswith("_8"):
        assert not different.any()
    assert different.double().mean() < 0.01 and (mine - theirs).abs().max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_parity_encode(bits: int) -> None:
    for law, theirs in PEER_NAMES.items():
        same_levels(s4_quantise.encode(golden("x"), bits, law), f"{theirs}_q_{bits}")
    same_levels(s4_quantise.floor_core(golden("unit_grid"), bits), f"core_quantize_unit_grid_{bits}")
    signed = torch.from_numpy(np.linspace(-1, 1, 2049, dtype=np.float32))
    same_levels(s4_quantise.mu_law_core(signed, bits), f"core_mulaw_q_{bits}")
    bent = s4_quantise.mu_law_compand(signed, bits)
    torch.testing.assert_close(bent, golden(f"core_mulaw_compand_{bits}"), rtol=0, atol=2.5e-7)


@pytest.mark.parametrize("bits", [8, 16])
def test_parity_decode(bits: int) -> None:
    stride = {8: 1, 16: 31}[bits]  # the golden holds every 31st level of the 16-bit tables
    q = torch.arange(0, 1 << bits, stride)
    assert torch.equal(s4_quantise.decode(q, bits, "linear"), golden(f"dequant_linear_{bits}"))
    torch.testing.assert_close(
        s4_quantise.decode(q, bits, "mu_law"), golden(f"dequant_mulaw_{bits}"), rtol=1e-5, atol=2.5e-7
    )
    for law in LAWS:
        assert s4_quantise.decode(torch.tensor(1 << (bits - 1)), bits, law) == 0


def test_the_peers_round_trip_drifts_and_ours_does_not() -> None:
    """The defect the parity variant keeps: about half of the levels come back one lower."""
    q = torch.arange(256)
    again = s4_quantise.floor_core((s4_quantise.decode(q, 8, "linear") + 1) / 2, 8)
    assert 0.3 < (again == q - 1).double().mean() < 0.7
    assert torch.equal(quantise(dequantise(q, 8, "linear", torch.float32), 8, "linear"), q)
