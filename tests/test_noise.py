"""Noise is a pure function of its address: known answers, invariance to chunks, batches and order, distribution."""

import math

import numpy as np
import pytest
import torch

from graphspec.ops.modules.noise import normal, philox, stream_id, uniform

torch.set_num_threads(1)
MASK = 0xFFFFFFFF


def reference(counter: list[int], key: tuple[int, int]) -> list[int]:
    """Philox-4x32-10 in Python integers, from the paper's definition: nothing here can overflow."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & MASK, (a >> 32) ^ c3 ^ k1, a & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [c0, c1, c2, c3]


def words(counters: torch.Tensor, key: tuple[int, int]) -> torch.Tensor:
    """`[4, n]` counters to `[4, n]` words."""
    even, odd = philox(counters[[0, 2]], counters[[1, 3]], key)
    return torch.stack((even[0], odd[0], even[1], odd[1]))


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # kat_vectors of Random123, the paper's own code
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([MASK] * 4, (MASK, MASK), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers(counter, key, answer):
    assert words(torch.tensor(counter)[:, None], key)[:, 0].tolist() == answer
    assert reference(counter, key) == answer


def test_the_int64_form_equals_exact_integers_on_random_counters():
    draw = np.random.default_rng(0)
    counters = torch.from_numpy(draw.integers(0, 2**32, (4, 300)))
    key = (0xDEADBEEF, 0xFFFFFFFE)
    expected = [reference(c, key) for c in counters.T.tolist()]
    assert words(counters, key).T.tolist() == expected


ROWS = torch.tensor([3, 0, 2**31 + 5, 2**40])
TICKS = torch.arange(-3, 50)


def test_chunks_rows_channels_and_order_change_nothing():
    whole = uniform(7, 11, ROWS, TICKS, 5)
    assert whole.shape == (4, 53, 5)
    for size in (1, 2, 3, 7, 16):
        parts = [uniform(7, 11, ROWS, t, 5) for t in TICKS.split(size)]
        assert torch.equal(torch.cat(parts, 1), whole)
    parts = [uniform(7, 11, r, TICKS, 5) for r in ROWS.split(1)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(uniform(7, 11, ROWS, TICKS, 2), whole[..., :2])
    order = torch.randperm(53, generator=torch.Generator().manual_seed(0))
    assert torch.equal(uniform(7, 11, ROWS.flip(0), TICKS[order], 5), whole.flip(0)[:, order])
    twice = torch.tensor([4, 4, 8, 4])
    assert torch.equal(uniform(7, 11, ROWS, twice, 5), whole[:, twice + 3])


def test_working_in_pieces_changes_nothing(monkeypatch):
    whole = normal(1, 2, ROWS, TICKS, 3)
    monkeypatch.setattr("graphspec.ops.modules.noise._LANES_IN_CACHE", 30)
    assert torch.equal(normal(1, 2, ROWS, TICKS, 3), whole)


def test_every_part_of_the_address_counts():
    base = {"seed": 1, "stream": 2, "update": 3, "rows": torch.tensor([4]), "ticks": torch.arange(16), "width": 4}
    values = [uniform(**base)]
    for change in (
        {"seed": 2},
        {"stream": 1},
        {"update": 0},
        {"seed": 2, "stream": 1},
        {"seed": -1},
        {"seed": 2**70},
        {"rows": torch.tensor([5])},
        {"rows": torch.tensor([4 + 2**32])},
        {"ticks": torch.arange(16, 32)},
        {"ticks": torch.arange(16) + 2**34},
        {"ticks": torch.arange(16) + 2**45},
    ):
        values.append(uniform(**{**base, **change}))
    for i, a in enumerate(values):
        for b in values[:i]:
            assert (a == b).sum() == 0
    assert len(values[0].unique()) == 64


def test_no_two_addresses_share_a_value_beyond_chance():
    x = uniform(0, 0, torch.arange(16), torch.arange(64), 16).flatten()
    pairs = x.numel() ** 2 / 2 / 2**23
    assert abs(x.numel() - len(x.unique()) - pairs) < 6 * math.sqrt(pairs)


def test_uniform_is_uniform_and_open():
    x = uniform(5, stream_id("m.noise"), torch.arange(8), torch.arange(16384), 4)
    n = x.numel()
    assert x.min() > 0 and x.max() < 1
    assert abs(x.mean().item() - 0.5) < 5 / math.sqrt(12 * n)
    assert abs(x.var().item() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)
    counts = torch.histc(x, 256, 0, 1)
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum().item()
    assert abs(chi2 - 255) < 5 * math.sqrt(2 * 255)
    centred = x - 0.5
    for lag in (1, 2, 3, 4, 5):  # along ticks, inside and across the words of a call; then channels and rows
        assert abs((centred[:, lag:] * centred[:, :-lag]).mean().item() * 12) < 5 / math.sqrt(n * 0.9)
    assert abs((centred[..., 1:] * centred[..., :-1]).mean().item() * 12) < 5 / math.sqrt(n * 0.7)
    assert abs((centred[1:] * centred[:-1]).mean().item() * 12) < 5 / math.sqrt(n * 0.8)


def test_the_ends_of_the_range_stay_inside(monkeypatch):
    def extreme(even, odd, key):
        return torch.zeros_like(even), torch.full_like(odd, MASK)

    monkeypatch.setattr("graphspec.ops.modules.noise.philox", extreme)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = uniform(0, 0, torch.zeros(1, dtype=torch.int64), torch.arange(4), 1, dtype)
        assert x.dtype == dtype and x.min() > 0 and x.max() < 1
        z = normal(0, 0, torch.zeros(1, dtype=torch.int64), torch.arange(4), 1, dtype)
        assert z.dtype == dtype and z.isfinite().all() and z.sum() == 0 and z.max() > 5


def test_normal_is_normal():
    z = normal(5, 6, torch.arange(4), torch.arange(16384), 4)
    n = z.numel()
    assert abs(z.mean().item()) < 5 / math.sqrt(n)
    assert abs(z.var().item() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean().item()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean().item() - 3) < 5 * math.sqrt(96 / n)


def test_float64_holds_the_same_values():
    rows, ticks = torch.arange(4), torch.arange(2000)
    assert torch.equal(uniform(1, 2, rows, ticks, 3, torch.float64), uniform(1, 2, rows, ticks, 3).double())
    exact = normal(1, 2, rows, ticks, 3, torch.float64)
    torch.testing.assert_close(normal(1, 2, rows, ticks, 3).double(), exact, rtol=2e-6, atol=2e-6)


def test_a_dropout_mask_keeps_the_right_share():
    kept = uniform(0, stream_id("drop"), torch.arange(8), torch.arange(4096), 4, update=12) >= 0.25
    assert abs(kept.float().mean().item() - 0.75) < 5 * math.sqrt(0.25 * 0.75 / kept.numel())


def test_streams_are_stable_and_distinct():
    assert stream_id("noise") == 8642780283255825643
    ids = {stream_id(f"m.{i}.noise") for i in range(1000)}
    assert len(ids) == 1000 and all(0 <= i < 2**63 for i in ids)


def test_empty_shapes():
    none = torch.empty(0, dtype=torch.int64)
    assert uniform(0, 0, none, torch.arange(3), 2).shape == (0, 3, 2)
    assert normal(0, 0, torch.arange(3), none, 2).shape == (3, 0, 2)
    assert uniform(0, 0, torch.arange(3), torch.arange(2), 0).shape == (3, 2, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_draws_the_same_bits():
    cpu = uniform(7, 11, ROWS, TICKS, 5)
    assert torch.equal(uniform(7, 11, ROWS, TICKS, 5, device="cuda").cpu(), cpu)
    assert torch.equal(uniform(7, 11, ROWS.cuda(), TICKS.cuda(), 5).cpu(), cpu)
    torch.testing.assert_close(
        normal(7, 11, ROWS.cuda(), TICKS.cuda(), 5).cpu(), normal(7, 11, ROWS, TICKS, 5), rtol=1e-5, atol=1e-5
    )
