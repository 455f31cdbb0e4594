"""S4D: golden numbers of the reference code, whole == step, exact gradients, float32 accuracy."""

import copy
import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, glu, linear

from graphspec.ops.modules.ssm import S4D

GOLDENS = Path(__file__).parent / "goldens"
SYSTEMS = [(init, disc, b) for init in ("lin", "inv") for disc in ("zoh", "bilinear") for b in ("one", "nontrivial")]
SYSTEMS += [("real", disc, "one") for disc in ("zoh", "bilinear")]


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def close(got: Tensor, want: Tensor, tolerance: float = 1e-9) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max().item() <= tolerance


def run(layer: S4D, u: Tensor, cuts: list[int], state: dict[str, Tensor] | None = None) -> tuple[Tensor, dict]:
    """Step `u` in pieces that end at `cuts`."""
    prepared, state, outputs, start = layer.prepare(), state or layer.init_state(len(u), u), [], 0
    for stop in [*cuts, u.shape[1]]:
        y, state = layer.step(u[:, start:stop], state, prepared)
        outputs.append(y)
        start = stop
    return torch.cat(outputs, 1), state


def random_cuts(T: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return sorted(draw.sample(range(1, T), min(T - 1, draw.choice([0, 1, 2, 5]))))


def times(a: Tensor, b: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(a.contiguous()) * torch.view_as_complex(b.contiguous()))


def unit(u: Tensor, over: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(u.contiguous()) / torch.view_as_complex(over.contiguous()))


@pytest.mark.parametrize(("init", "disc", "b"), SYSTEMS)
def test_reference_numbers(init: str, disc: str, b: str) -> None:
    g, key = golden("s4d_kernel"), f"{init}_{disc}_{b}"
    layer = S4D(4, 8, init, disc).double()
    a = g[f"A_{init}"]
    close(-layer.log_a_re.exp(), a[..., 0], 1e-6)  # our own start, in float32, is the reference's
    close(layer.a_im, -a[..., 1], 1e-5)
    layer.set_continuous(g["dt"], a[..., 0], a[..., 1], g[f"B_{b}"], g["C"], torch.zeros(4))
    p = layer.prepare()
    bbar = torch.stack([p["bbar_re"], p["bbar_im"]], -1)
    close(torch.stack([p["abar_re"], p["abar_im"]], -1), g[f"Abar_{key}"])
    close(bbar, g[f"Bbar_{key}"])
    close(layer.kernel(64), g[f"K_{key}"])
    u, y = g["u"].transpose(1, 2), g[f"y_{key}"].transpose(1, 2)
    close(layer(u), y)
    for cuts in ([], list(range(1, 64)), [1, 2, 20, 63]):
        out, state = run(layer, u, cuts)
        close(out, y)
        close(times(torch.stack([state["re"], state["im"]], -1), bbar), g[f"finalstate_{key}"])
        s = unit(g["state0"], bbar.expand_as(g["state0"]))
        free, _ = run(layer, torch.zeros_like(u), cuts, {"re": s[..., 0], "im": s[..., 1]})
        close(free, g[f"stateresp_{key}"].transpose(1, 2))


def test_reference_block() -> None:
    g = golden("s4d_block")
    layer = S4D(4, 8).double()
    a_re, a_im = -g["A_real"].exp(), -g["A_imag"]
    layer.set_continuous(g["inv_dt"][:, 0].exp(), a_re, a_im, g["B"][0], g["C"][0], g["D"][0])
    x = g["x"].transpose(1, 2)
    for out in (layer(x), run(layer, x, list(range(1, 64)))[0], run(layer, x, [7, 8, 40])[0]):
        close(gelu(out).transpose(1, 2), g["fftconv_out_BLH"])  # stored after its activation
        y = glu(linear(gelu(out), g["out_weight"], g["out_bias"]), -1)
        close(y.transpose(1, 2), g["y"])
        close(y.transpose(1, 2), g["y_step"])


def recurrence(layer: S4D, u: Tensor) -> Tensor:
    """The definition, one tick at a time, in complex numbers and with Bbar applied to the input."""
    dt = layer.log_dt.exp()[:, None]
    a = torch.complex(-layer.log_a_re.exp(), -layer.a_im)
    b, c, z = torch.view_as_complex(layer.b), torch.view_as_complex(layer.c), a * dt
    abar, bbar = (
        (z.exp(), b * (z.exp() - 1) / a) if layer.disc == "zoh" else ((1 + z / 2) / (1 - z / 2), b * dt / (1 - z / 2))
    )
    x, ys = torch.zeros(len(u), *a.shape, dtype=a.dtype), []
    for u_t in u.unbind(1):
        x = abar * x + bbar * u_t[..., None]
        ys.append(2 * (c * x).sum(-1).real + layer.d * u_t)
    return torch.stack(ys, 1)


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 2), (2, 15), (1, 300), (2, 700), (1, 4133)])
def test_whole_equals_step_in_values_and_gradients(disc: str, B: int, T: int) -> None:
    torch.manual_seed(T)
    layer = S4D(3, 6, disc=disc).double()
    with torch.no_grad():
        layer.b.add_(torch.randn_like(layer.b))
    u = torch.randn(B, T, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(B, T, 3, dtype=torch.float64)
    at = [u, *layer.parameters()]

    def gradients(y: Tensor) -> list[Tensor]:
        return [g / (1 + g.abs().max()) for g in torch.autograd.grad((y * weight).sum(), at)]

    want = recurrence(layer, u) if T < 1000 else layer(u)
    want_grads = gradients(want)
    several = [list(range(1, T))] if T < 1000 else []
    for y in (layer(u), *(run(layer, u, cuts)[0] for cuts in (*several, *(random_cuts(T, seed) for seed in range(3))))):
        close(y, want)
        for got, expected in zip(gradients(y), want_grads, strict=True):
            close(got, expected)


def test_a_long_prefill_is_cut_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphspec.ops.modules.ssm._SEGMENT", 1024)
    layer, u = S4D(2, 4).double(), torch.randn(2, 5000, 2, dtype=torch.float64)
    want = layer(u)
    close(run(layer, u, [])[0], want)
    close(run(layer, u, [1, 3000])[0], want)


@pytest.mark.parametrize("T", [9, 40, 300])
def test_gradcheck(T: int) -> None:
    """Of outputs and last state in input, first state and every weight; 300 ticks need carries in blocks."""
    torch.manual_seed(0)
    layer = S4D(2, 4).double()
    names = [name for name, _ in layer.named_parameters()]

    def whole_and_step(u: Tensor, re: Tensor, im: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        with torch.nn.utils.stateless._reparametrize_module(layer, dict(zip(names, weights, strict=True))):
            y, state = layer.step(u, {"re": re, "im": im}, layer.prepare())
            return layer(u), y, state["re"], state["im"]

    u = torch.randn(1, T, 2, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(1, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(whole_and_step, (u, *state, *weights), fast_mode=T > 100)


def test_float32_is_as_accurate_as_the_textbook_kernel() -> None:
    torch.manual_seed(1)
    layer, L = S4D(32), 4096
    exact = copy.deepcopy(layer).double().kernel(L)
    impulse = torch.zeros(1, L, 32)
    impulse[:, 0] = 1
    z = torch.complex(-layer.log_a_re.exp(), -layer.a_im) * layer.log_dt.exp()[:, None]
    a, c = z / layer.log_dt.exp()[:, None], torch.view_as_complex(layer.c)
    textbook = 2 * torch.einsum("hn,hnl->hl", c * (z.exp() - 1) / a, (z[..., None] * torch.arange(L)).exp()).real
    ours = layer(impulse)[0].T - layer.d[:, None] * impulse[0].T
    bound = 1.5 * (textbook - exact).abs().max().item()
    close(ours.double(), exact, bound)
    close(layer.kernel(L).double(), exact, bound)


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_any_pole_stays_finite(disc: str) -> None:
    """Steps of 1e-4 to 10 ticks: slow poles, fast poles, and for bilinear one that lands on zero."""
    layer = S4D(6, 8, "real", disc)
    ones = torch.ones(6, 4, 2)
    poles = -torch.tensor([1.0, 2, 20, 200]).expand(6, 4)
    layer.set_continuous(torch.tensor([1e-4, 1e-2, 0.1, 1, 2, 10]), poles, torch.zeros(6, 4), ones, ones, torch.ones(6))
    u = torch.randn(1, 600, 6, requires_grad=True)
    y = layer(u)
    stepped, _ = run(layer, u, [1, 2, 3, 50])
    y.square().mean().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in layer.parameters())
    close(stepped, y, 1e-4 * y.abs().max().item())


def test_weights() -> None:
    layer = S4D(64)
    assert sum(p.numel() for p in layer.parameters()) == 64 * (2 + 6 * 32)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "log_dt": (64,), "log_a_re": (64, 32), "a_im": (64, 32), "b": (64, 32, 2), "c": (64, 32, 2), "d": (64,),
    }  # fmt: skip
    assert not list(layer.buffers())
    assert layer.log_dt.exp().min() >= 1e-3 * 0.999 and layer.log_dt.exp().max() <= 1e-1 * 1.001

    def generator(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))

    other = S4D(64)
    layer.reset(generator)
    torch.manual_seed(3)
    other.reset(generator)
    assert all(torch.equal(p, q) for p, q in zip(layer.parameters(), other.parameters(), strict=True))
    with torch.device("meta"):
        assert S4D(8).log_dt.is_meta


def test_conjugate_modes_are_the_same_system() -> None:
    layer, twin = S4D(3, 8).double(), S4D(3, 8).double()
    a_re, a_im = -torch.rand(3, 4) - 0.1, torch.randn(3, 4)
    b, c, sign = torch.randn(3, 4, 2), torch.randn(3, 4, 2), torch.tensor([1.0, -1.0])
    dt, d = torch.full((3,), 0.05), torch.zeros(3)
    layer.set_continuous(dt, a_re, a_im, b, c, d)
    twin.set_continuous(dt, a_re, -a_im, b * sign, c * sign, d)
    close(layer.kernel(50), twin.kernel(50), 1e-12)


def test_state_keeps_shape_dtype_and_input() -> None:
    layer, u = S4D(3, 8), torch.randn(2, 5, 3)
    state = layer.init_state(2, u)
    kept = {key: value.clone() for key, value in state.items()}
    for n in (1, 5):
        y, after = layer.step(u[:, :n], state, layer.prepare())
        assert y.shape == (2, n, 3) and y.dtype == u.dtype
        assert all(after[key].shape == (2, 3, 4) and after[key].dtype == torch.float32 for key in ("re", "im"))
        assert all(torch.equal(state[key], kept[key]) for key in state)


def test_copies_autocast_and_fx() -> None:
    layer, u = S4D(3, 8), torch.randn(2, 40, 3)
    want = layer(u)
    assert torch.equal(copy.deepcopy(layer)(u), want)
    graph = torch.fx.Graph()
    graph.output(graph.call_module("s4d", (graph.placeholder("x"),)))
    assert torch.equal(torch.fx.GraphModule({"s4d": layer}, graph)(u), want)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(u), want)
        half = layer(u.bfloat16())
    assert half.dtype == torch.bfloat16
    close(half.float(), want, 0.05 * want.abs().max().item())


def test_rows_are_independent_and_the_future_does_not_leak() -> None:
    layer, u = S4D(3, 8), torch.randn(2, 400, 3)
    want, changed = layer(u), u.clone()
    changed[1, 350:] = 1e30
    y = layer(changed)
    assert torch.equal(y[0], want[0]) and torch.equal(y[1, :350], want[1, :350])
    assert (y[1, 350:] != want[1, 350:]).all()


@pytest.mark.parametrize("bad", [{"init": "legs"}, {"disc": "euler"}, {"state": 7}, {"channels": 0}, {"dt_min": 0.0}])
def test_bad_arguments(bad: dict) -> None:
    with pytest.raises(ValueError, match="not"):
        S4D(**{"channels": 4, **bad})
