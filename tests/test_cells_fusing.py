"""What a loop does in one operation a tick where the spec writes several: same numbers, and every value is there."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from graphspec.cli.load import check_document
from graphspec.compiler.fusing import Maps, Mix, fused
from graphspec.compiler.lower import Model, lower
from graphspec.reader import read_text

torch.set_num_threads(1)
HEAD = "graphspec: 1\nmodel: fusing\ninputs:\n  x: float[T, 3] @ 100\n"
GATED = """\
  z: sigmoid(linear(x, 4) + linear(h[t-1], 4, bias=false))
  n: tanh(linear(h[t-1], 4) + linear(x, 4))
  h: MIX
"""
MIXES = [
    "z * h[t-1] + (1 - z) * n",
    "n * (1 - z) + h[t-1] * z",
    "(1 - z) * h[t-1] + z * n",
    "z * n + (1 - z) * h[t-1]",
    "z * z + (1 - z) * n",
]
NOT = ["z * h[t-1] + (2 - z) * n", "z * h[t-1] + (1 - n) * n", "z * h[t-1] - (1 - z) * n"]


def model(mix: str, outputs: str = "[h]") -> Model:
    text = f"{HEAD}graph:\n{GATED.replace('MIX', mix)}outputs: {outputs}\n"
    m = lower(check_document(read_text("f.yaml", text), Path())).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.5)
    return m


def by_hand(mix: str, m: Model, x: Tensor) -> Tensor:
    w, h, out = m.weights(), torch.zeros(x.shape[0], 4, dtype=x.dtype), []
    zx = x @ w["z.linear.weight"].T + w["z.linear.bias"]
    nx = x @ w["n.linear_2.weight"].T + w["n.linear_2.bias"]
    for t in range(x.shape[1]):
        z = torch.sigmoid(zx[:, t] + h @ w["z.linear_2.weight"].T)
        n = torch.tanh(nx[:, t] + h @ w["n.linear.weight"].T + w["n.linear.bias"])
        h = eval(mix, {"z": z, "n": n, "h": {-1: h}, "t": 0})  # the expression is Python's too
        out.append(h)
    return torch.stack(out, 1)


@pytest.mark.parametrize("mix", MIXES + NOT)
def test_values_and_gradients_are_those_of_the_equations(mix: str) -> None:
    m = model(mix)
    x = torch.randn(2, 17, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    ends = [x, *m.parameters()]
    wanted = by_hand(mix, m, x)
    slopes = torch.autograd.grad(wanted.square().sum(), ends, allow_unused=True)
    state, prepared, pieces = m.init_state(2, x), m.prepare(), []
    for part in x.split([1, 1, 9, 6], 1):
        y, state = m.step({"x": part}, state, prepared)
        pieces.append(y["h"])
    for y in (m({"x": x})["h"], torch.cat(pieces, 1)):
        assert (y - wanted).abs().max() < 1e-12
        for a, b in zip(torch.autograd.grad(y.square().sum(), ends, allow_unused=True), slopes, strict=True):
            assert (a is None) == (b is None) and (
                a is None or (a - b).abs().max() < 1e-11 * b.abs().max().clamp(min=1)
            )


@pytest.mark.parametrize("mix", MIXES + NOT)
def test_only_a_mix_is_one(mix: str) -> None:
    m = model(mix)
    (loop,) = m.loops
    found = fused(loop.region, loop._stacks(), {m.graph.outputs["h"]}, adds=True)
    assert any(isinstance(f, Mix) for f in found.at.values()) == (mix in MIXES)
    assert sum(isinstance(f, Maps) for f in found.at.values()) == 1


def test_what_is_read_outside_is_made() -> None:
    """Taps of every value: nothing that somebody wants is fused away."""
    for mix in MIXES:
        m = model(mix)
        x = torch.randn(2, 9, 3, dtype=torch.float64)
        timed = [v for v in m.graph.values if v.type.timed and not v.is_input]
        together = m.evaluate(timed, {"x": x})
        for v, y in zip(timed, together, strict=True):
            (alone,) = m.evaluate([v], {"x": x})
            assert (alone - y).abs().max() < 1e-12, v.path


def test_half_precision_runs() -> None:
    m = model(MIXES[0]).float()
    x = torch.randn(2, 9, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = m({"x": x})["h"]
    assert (y.float() - m({"x": x})["h"]).abs().max() < 0.05
