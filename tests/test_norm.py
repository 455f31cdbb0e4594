"""Norms, gates and activations against torch's own and their formulas, in float64."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from contract import verify_contract
from torch import Tensor

from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.compiler.pipeline import Checked
from graphspec.diagnostic import SpecError
from graphspec.ops import catalogue
from graphspec.ops.modules.contract import Stateless
from graphspec.ops.modules.elementwise import Identity, Snake
from graphspec.ops.modules.gate import SwiGLU
from graphspec.ops.modules.norm import GroupNorm, LayerNorm, NormOverTime, RMSNorm
from graphspec.reader import read_text


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(layer: Stateless) -> Stateless:
    """In float64, with scales and shifts that are not 1 and 0."""
    layer.double()
    with torch.no_grad():
        for i, w in enumerate(layer.parameters()):
            w.copy_(noise(*w.shape, seed=5 + i))
    return layer


def close(got: Tensor, want: Tensor, tolerance: float = 1e-12) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max().item() <= tolerance


# ---- norms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4, 12])
def test_group_norm_of_ticks_is_torchs(groups: int) -> None:
    layer, x = drawn(GroupNorm(12, groups, eps=1e-4)), noise(3, 5, 12)
    want = F.group_norm(x.flatten(0, 1), groups, layer.weight, layer.bias, 1e-4).unflatten(0, (3, 5))
    close(layer(x), want)


@pytest.mark.parametrize("axes", [(7,), (7, 2)])
def test_group_norm_takes_middle_axes_but_not_time(axes: tuple[int, ...]) -> None:
    layer, x = drawn(GroupNorm(12, 3)), noise(2, 5, *axes, 12)
    for t in range(5):  # a tick is an image of its own
        want = F.group_norm(x[:, t].movedim(-1, 1), 3, layer.weight, layer.bias).movedim(1, -1)
        close(layer(x)[:, t], want)


def test_group_norm_of_a_static_value_takes_all_its_axes() -> None:
    layer, x = drawn(GroupNorm(12, 3, timed=False)), noise(2, 4, 7, 12)
    close(layer(x), F.group_norm(x.movedim(-1, 1), 3, layer.weight, layer.bias).movedim(1, -1))
    close(layer(x[:, 0, 0]), F.group_norm(x[:, 0, 0], 3, layer.weight, layer.bias))


def test_norm_over_time_is_instance_norm() -> None:
    layer, x = drawn(NormOverTime(12)), noise(3, 9, 12)
    close(layer(x), F.instance_norm(x.mT, weight=layer.weight, bias=layer.bias).mT)
    deep = noise(3, 9, 4, 12)
    for f in range(4):
        close(layer(deep)[:, :, f], layer(deep[:, :, f]))


def test_norms_over_channels_are_their_formulas() -> None:
    x = noise(3, 9, 12)
    layer, rms = drawn(LayerNorm(12, 1e-3)), drawn(RMSNorm(12, 1e-3))
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    close(layer(x), (x - mean) / (variance + 1e-3).sqrt() * layer.weight + layer.bias)
    close(rms(x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * rms.weight)


@pytest.mark.parametrize("norm", [LayerNorm(8, affine=False), GroupNorm(8, 2, affine=False)])
def test_norms_without_weights(norm: Stateless) -> None:
    assert not list(norm.parameters())
    y = norm.double()(noise(2, 3, 8)).unflatten(-1, (getattr(norm, "groups", 1), -1))
    close(y.mean(-1), torch.zeros_like(y.mean(-1)))


# ---- activations -------------------------------------------------------------------------------------------------


def test_snake_is_its_formula_even_at_zero() -> None:
    layer, x = drawn(Snake(6)), noise(2, 9, 6).requires_grad_()
    close(layer(x), x + (layer.alpha * x).sin().square() / layer.alpha, 1e-10)
    with torch.no_grad():
        layer.alpha.zero_()
    close(layer(x), x)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    close(layer.alpha.grad, x.detach().square().sum((0, 1)))  # x + a x^2 - ...


def test_swiglu_gates_with_the_first_half() -> None:
    x = noise(2, 5, 8)
    close(SwiGLU()(x), x[..., :4] * torch.sigmoid(x[..., :4]) * x[..., 4:])


def test_stop_lets_no_gradient_through() -> None:
    x = noise(3).requires_grad_()
    (x * Identity(stop=True)(x)).sum().backward()
    close(x.grad, x.detach())


FORMULAS = {
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "elu(0.3)": lambda x: x if x > 0 else 0.3 * (math.exp(x) - 1),
    "mish": lambda x: x * math.tanh(math.log(1 + math.exp(x))),
    "logit": lambda x: math.log(x) - math.log(1 - x),
}


def checked(y: str, x: str = "float[T, 4] @ 100") -> Checked:
    text = f"graphspec: 1\nmodel: m\ninputs:\n  x: {x}\nrequire:\n  - T % 24 == 0\ngraph:\n  y: {y}\noutputs: [y]\n"
    return check_document(read_text("y.yaml", text), Path(__file__).parent)


@pytest.mark.parametrize("use", FORMULAS)
def test_activations_are_their_formulas(use: str) -> None:
    model = lower(checked(f"x |> {use}")).double()
    x = torch.rand(1, 24, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 0.98 + 0.01
    x = x if use == "logit" else 4 * x - 2
    want = torch.tensor([FORMULAS[use](v) for v in x.flatten().tolist()], dtype=torch.float64).view_as(x)
    close(model({"x": x})["y"], want, 1e-11)


@pytest.mark.parametrize("name", ["mish", "logit"])
def test_numbers_at_compile_time_are_the_same(name: str) -> None:
    number = catalogue().ops[name].number
    assert number is not None
    assert math.isclose(number(0.3), FORMULAS[name](0.3))


def test_softmax_is_over_channels() -> None:
    x = noise(2, 24, 4)
    y = lower(checked("x |> softmax")).double()({"x": x})["y"]
    close(y, x.exp() / x.exp().sum(-1, keepdim=True))
    close(lower(checked("x |> log_softmax")).double()({"x": x})["y"], y.log())


# ---- in a spec ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["group_norm(2)", "group_norm(4, affine=false)", "norm_over_time", "snake", "softmax"])
def test_middle_axes_keep_the_contract(use: str) -> None:
    verify_contract(checked(f"x |> {use}", "float[T, 3, 4] @ 100"))


@pytest.mark.parametrize("use", ["group_norm(0)", "group_norm(3)", "group_norm(2, eps=0)", "norm_over_time(eps=0)"])
def test_what_cannot_be_is_refused(use: str) -> None:
    with pytest.raises(SpecError, match="GS0305"):
        checked(f"x |> {use}")


def test_norm_over_time_reads_the_future() -> None:
    with pytest.raises(SpecError, match="GS0401"):
        checked("x |> norm_over_time\ncausal:\n  y: {x: 0}")


def test_swiglu_wants_an_even_number_of_channels() -> None:
    with pytest.raises(SpecError, match="GS0305"):
        checked("x |> swiglu", "float[T, 3] @ 100")
