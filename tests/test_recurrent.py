"""Gated recurrent layers against torch.nn.GRU and torch.nn.LSTM, and a naive cell."""

import pytest
import torch
from torch import Tensor, nn

from graphspec.ops.modules.recurrent import GRU, LSTM, Recurrent

torch.set_num_threads(1)


def drawn(module: Recurrent, seed: int = 0) -> Recurrent:
    module.reset(lambda name: torch.Generator().manual_seed(seed + sum(map(ord, name))))
    for s in module.states if module.learned else ():
        nn.init.normal_(module.get_parameter(f"{s}0"))
    return module.double()


def torchs(module: Recurrent) -> nn.RNNBase:
    """torch's own layer with these weights."""
    kind = nn.GRU if isinstance(module, GRU) else nn.LSTM
    twin = kind(module.weight_ih.shape[1], module.units, module.layers, batch_first=True).double()
    for i in range(module.layers):
        for name, w in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), module._layer(i), strict=True):
            getattr(twin, f"{name}_l{i}").data.copy_(w.data)
    return twin


def start(module: Recurrent, batch: int) -> Tensor | tuple[Tensor, ...] | None:
    if not module.learned:
        return None
    many = tuple(module.get_parameter(f"{s}0").detach()[:, None].repeat(1, batch, 1) for s in module.states)
    return many if len(many) > 1 else many[0]


MODULES = [(kind, layers, learned) for kind in (GRU, LSTM) for layers in (1, 3) for learned in (False, True)]


@pytest.mark.parametrize(("kind", "layers", "learned"), MODULES)
def test_values_and_gradients_are_torchs(kind: type[Recurrent], layers: int, learned: bool) -> None:
    module = drawn(kind(5, 7, layers, learned))
    twin, x = torchs(module), torch.randn(3, 20, 5, dtype=torch.float64)
    a, b = module(x), twin(x, start(module, 3))[0]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    pull = torch.randn_like(a)
    (a * pull).sum().backward()
    (b * pull).sum().backward()
    for i in range(layers):
        mine = module.weight_deep.grad[i - 1] if i else module.weight_ih.grad
        torch.testing.assert_close(mine, getattr(twin, f"weight_ih_l{i}").grad, rtol=0, atol=1e-11)
        for name in ("weight_hh", "bias_ih", "bias_hh"):
            torch.testing.assert_close(
                module.get_parameter(name).grad[i], getattr(twin, f"{name}_l{i}").grad, rtol=0, atol=1e-11
            )
    assert all(w.grad is not None and w.grad.abs().max() > 0 for w in module.parameters())


def test_a_tick_is_the_formula_of_the_documentation() -> None:
    x = torch.randn(2, 1, 5, dtype=torch.float64)
    module = drawn(GRU(5, 4, learned=True))
    h = module.h0.expand(2, -1, -1)[:, 0]
    a = x[:, 0] @ module.weight_ih.T + module.bias_ih[0]
    b = h @ module.weight_hh[0].T + module.bias_hh[0]
    r, z = torch.sigmoid(a + b)[:, :4], torch.sigmoid(a + b)[:, 4:8]
    n = torch.tanh(a[:, 8:] + r * b[:, 8:])
    want = (1 - z) * n + z * h
    torch.testing.assert_close(module(x)[:, 0], want, rtol=0, atol=1e-13)
    torch.testing.assert_close(module.step(x, module.init_state(2, x), {})[0][:, 0], want, rtol=0, atol=1e-13)

    module = drawn(LSTM(5, 4, learned=True))
    h, c = module.h0.expand(2, -1, -1)[:, 0], module.c0.expand(2, -1, -1)[:, 0]
    i, f, g, o = (
        x[:, 0] @ module.weight_ih.T + module.bias_ih[0] + h @ module.weight_hh[0].T + module.bias_hh[0]
    ).split(4, 1)
    want = torch.sigmoid(o) * torch.tanh(torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g))
    torch.testing.assert_close(module(x)[:, 0], want, rtol=0, atol=1e-13)
    torch.testing.assert_close(module.step(x, module.init_state(2, x), {})[0][:, 0], want, rtol=0, atol=1e-13)


def test_first_weights_are_uniform_as_torchs() -> None:
    module = drawn(GRU(3, 64, 2))
    for name, w in module.named_parameters():
        assert 0.115 < w.abs().max() <= 0.125, name
        assert abs(w.mean()) < 0.02, name


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_runs_on_the_meta_device(kind: type[Recurrent]) -> None:
    with torch.device("meta"):
        assert kind(3, 4, 2, True)(torch.empty(2, 8, 3)).shape == (2, 8, 4)


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_a_learned_start_is_copied_into_the_state(kind: type[Recurrent]) -> None:
    module = drawn(kind(3, 4, 1, True))
    state = module.init_state(1, torch.empty(0, dtype=torch.float64))
    for s, x in state.items():
        assert x.data_ptr() != module.get_parameter(f"{s}0").data_ptr()
