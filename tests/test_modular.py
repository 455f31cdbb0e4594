"""What only the published SaShiMi checkpoints have: a norm of two numbers, weight-normed maps, and their size."""

import pytest
import torch
from torch import Tensor, nn

from graphspec.cli.load import check_spec
from graphspec.compiler.lower import meta
from graphspec.ops.modules.dense import Linear, NormedLinear
from graphspec.ops.modules.norm import ChannelNorm


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(got: Tensor, want: Tensor, tolerance: float = 1e-12) -> None:
    assert got.shape == want.shape and float((got - want).detach().abs().max()) <= tolerance


@torch.no_grad()
def test_channel_norm_is_the_formula() -> None:
    layer, x = ChannelNorm(1e-5).double(), noise(2, 5, 3, 7)
    layer.m.fill_(0.3)
    layer.s.fill_(-1.2)
    std, mean = torch.std_mean(x, -1, correction=0, keepdim=True)
    close(layer(x), -1.2 / std * (x - mean + 0.3), 1e-3)  # the reference's, without an epsilon
    close(layer(x), -1.2 / torch.sqrt(std**2 + 1e-5) * (x - mean + 0.3))


def test_channel_norm_of_equal_channels_is_finite_where_the_references_is_not() -> None:
    layer = ChannelNorm().double()
    layer.reset(lambda name: torch.Generator())
    x = torch.full((1, 2, 4), 3.0, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.abs().max() == 0 and x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_normed_map_is_torchs_weight_norm(bias: bool) -> None:
    layer, x = NormedLinear(5, 3, bias).double(), noise(2, 4, 5)
    with torch.no_grad():
        for i, w in enumerate(layer.parameters()):
            w.copy_(noise(*w.shape, seed=3 + i))
    torchs = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3, bias).double())
    with torch.no_grad():
        torchs.parametrizations.weight.original0.copy_(layer.g[:, None])
        torchs.parametrizations.weight.original1.copy_(layer.v)
        if bias:
            torchs.bias.copy_(layer.bias)
    got, want = layer(x), torchs(x)
    close(got, want)
    step, _ = layer.step(x, state={}, prepared=layer.prepare())
    close(step, want)
    got.square().sum().backward()
    want.square().sum().backward()
    close(layer.v.grad, torchs.parametrizations.weight.original1.grad, 1e-10)
    close(layer.g.grad, torchs.parametrizations.weight.original0.grad[:, 0], 1e-10)


@torch.no_grad()
def test_a_normed_map_begins_at_the_scale_of_a_plain_one() -> None:
    layer, plain = NormedLinear(256, 512), Linear(256, 512)
    for one in (layer, plain):
        one.reset(lambda name: torch.Generator().manual_seed(0))
    assert abs(float(layer.weight().std() / plain.weight.std()) - 1) < 0.01


@pytest.mark.parametrize(("name", "backbone"), [("sashimi_modular", 4_718_048), ("sashimi_unet_modular", 6_787_488)])
def test_paper_size_has_the_published_parameter_count(name: str, backbone: int) -> None:
    sizes = {name: w.numel() for name, w in meta(check_spec(name)).weights().items()}
    ends = sum(n for name, n in sizes.items() if name.startswith(("x0.embed", "dist.categorical")))
    assert sum(sizes.values()) - ends == backbone and ends == 33_024
