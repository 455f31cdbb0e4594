"""Pooling, differences and interpolation against closed forms, numpy and overlap-add by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphspec.ops.modules.pool import MaxPool, MeanPool
from graphspec.ops.modules.resample import Downsample, Hold, Interpolate, Resample

torch.set_num_threads(1)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("p", [1, 3, 6])
def test_pools_are_torchs(p: int) -> None:
    x = numbers(2, 12, 4)
    close(MaxPool(p)(x), F.max_pool1d(x.transpose(1, 2), p).transpose(1, 2))
    close(MeanPool(p)(x), F.avg_pool1d(x.transpose(1, 2), p).transpose(1, 2))
    assert MaxPool(p)(numbers(2, 12, 5, 4)).shape == (2, 12 // p, 5, 4)


@pytest.mark.parametrize("hop", [1, 2, 5, 64])
def test_linear_goes_straight_between_ticks(hop: int) -> None:
    x = numbers(1, 7, 2)
    want = [np.interp(np.arange(7 * hop) / hop, np.arange(7), x[0, :, i].numpy()) for i in range(2)]
    close(Interpolate(hop)(x)[0], torch.from_numpy(np.stack(want, 1)))


@pytest.mark.parametrize("hop", [1, 2, 5, 64])
def test_window_is_overlap_add_of_hann_windows(hop: int) -> None:
    """A frame more (the last again), periodic Hann of 2*hop, added up hop apart, a hop cut off at either end."""
    x = numbers(3, 7, 2)
    frames = torch.cat([x, x[:, -1:]], 1)
    hann = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(2 * hop, dtype=torch.float64) / (2 * hop))
    added = torch.zeros(3, 9 * hop, 2, dtype=torch.float64)
    for k in range(8):
        added[:, k * hop : (k + 2) * hop] += hann[:, None] * frames[:, k : k + 1]
    close(Interpolate(hop, smooth=True)(x), added[:, hop:-hop])


def test_the_ticks_themselves_come_back() -> None:
    x = numbers(2, 6, 3, 2)
    for method in (Hold(4), Interpolate(4), Interpolate(4, smooth=True)):
        assert torch.equal(Downsample(4)(method(x)), x)


def test_interpolation_keeps_dtype_and_refuses_to_step() -> None:
    x = numbers(1, 4, 2)
    assert Interpolate(3)(x.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(NotImplementedError):
        Interpolate(3).step(x, state={}, prepared={})


def tone(frequency: float, n: int, rate: float) -> Tensor:
    return torch.sin(2 * torch.pi * frequency * torch.arange(n, dtype=torch.float64) / rate + 0.3)


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 2), (3, 2), (2, 3), (160, 147), (147, 160)])
def test_resampling_keeps_what_both_rates_can_hold(up: int, down: int) -> None:
    """A tone below the lower rate's passband is the same tone, sampled at the new rate."""
    T = 14700 // down * down
    low = min(1.0, up / down)
    for frequency in (0.02, 0.2, 0.45):  # of the lower rate; the passband ends at (1 - 5.7/64)/2 = 0.455
        x = tone(frequency * low, T, 1.0)[None, :, None]
        y = Resample(up, down)(x)[0, :, 0]
        want = tone(frequency * low, T * up // down, up / down)
        edge = -(-64 * max(up, down) // down) + 1  # where it reads the zeros outside
        assert (y - want)[edge:-edge].abs().max() < 1e-4, frequency  # 90 dB is 3e-5


@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 3), (147, 160)])
def test_resampling_stops_what_the_lower_rate_cannot_hold(up: int, down: int) -> None:
    frequency = min(0.5 * up / down + 0.01, 0.499)  # just above half of the lower rate
    y = Resample(up, down)(tone(frequency, 8000 // down * down, 1.0)[None, :, None])[0, 200:-200, 0]
    assert y.abs().max() < 1e-4


def test_resampling_keeps_a_constant_channels_and_precision() -> None:
    x = torch.ones(2, 300, 3, 2, dtype=torch.float64) * torch.arange(1, 7).view(3, 2)
    y = Resample(3, 2)(x)
    assert y.shape == (2, 450, 3, 2)
    close(y[:, 110:-110], torch.ones_like(y[:, 110:-110]) * torch.arange(1, 7).view(3, 2))
    x = numbers(2, 640, 3)
    error = Resample(147, 160)(x.float()) - Resample(147, 160)(x)
    assert error.abs().max() < 5e-6
