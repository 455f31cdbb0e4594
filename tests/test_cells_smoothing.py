"""Loops that smooth, a*y[t-1] + (1 - a)*x in its spellings: one scan that makes neither product, same numbers."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.compiler.pipeline import Checked
from graphspec.ops.modules.scan import affine_scan
from graphspec.ops.modules.smoothing import smoothing_scan
from graphspec.reader import read_text
from graphspec.runtime.verify import verify

torch.set_num_threads(1)
HEAD = "graphspec: 1\nmodel: smoothing\ninputs:\n  x: f32[T, 3] @ 100\n  g: float[T, 1] @ 100\n"


def checked(graph: str, cells: str = "") -> Checked:
    return check_document(read_text("s.yaml", f"{HEAD}{cells}graph:\n{graph}outputs: [y]\n"), Path())


SMOOTH = {
    "static": "  a: sigmoid(param([3], init=1.0))\n  y: a * y[t-1] + (1 - a) * x\n",
    "one number for all": "  a: sigmoid(param([], init=1.0))\n  y: a * y[t-1] + (1 - a) * x\n",
    "varying": "  a: sigmoid(x)\n  y: a * y[t-1] + (1 - a) * x\n",
    "shared by channels": "  a: sigmoid(g)\n  y: a * y[t-1] + (1 - a) * x\n",
    "turned around": "  a: sigmoid(x)\n  y: x * (1 - a) + y[t-1] * a\n",
    "by its weight": "  w: sigmoid(x)\n  y: (1 - w) * y[t-1] + w * x\n",
    "by a static weight": "  w: sigmoid(param([3], init=-3.0))\n  y: (1 - w) * y[t-1] + w * x\n",
    "from its first value": "  a: sigmoid(x)\n  y: a * begin(y[t-1], x) + (1 - a) * x\n",
}
OTHERS = {
    "another a": "  a: sigmoid(x)\n  b: sigmoid(g)\n  y: a * y[t-1] + (1 - b) * x\n",
    "two of them": "  a: sigmoid(x)\n  y: a * y[t-1] + (1 - a) * (x + y[t-1])\n",
    "not one": "  a: sigmoid(x)\n  y: a * y[t-1] + (2 - a) * x\n",
    "detached": "  a: sigmoid(x)\n  y: a * detach_every(y[t-1], 4) + (1 - a) * x\n",
    "numbers": "  y: 0.9 * y[t-1] + 0.1 * x\n",
}


def plain(text: str) -> str:
    """The same equation in a form that is not known as smoothing."""
    return text.replace("(1 - ", "(1 + 0 * x - ")


@pytest.mark.parametrize("name", SMOOTH)
def test_it_is_the_linear_scan_written_out(name: str) -> None:
    c, other = checked(SMOOTH[name]), checked(plain(SMOOTH[name]))
    assert [r.smoothing is not None for r in (*c.regions, *other.regions)] == [True, False]
    m, n = lower(c).double(), lower(other).double()
    n.load_state_dict(m.state_dict())
    g = torch.Generator().manual_seed(0)
    given_ = {
        k: torch.randn(2, 50, w, generator=g, dtype=torch.float64).requires_grad_() for k, w in (("x", 3), ("g", 1))
    }
    a, b = m(given_)["y"], n(given_)["y"]
    assert (a - b).abs().max() < 1e-14
    pull = torch.randn(a.shape, generator=g, dtype=torch.float64)
    ends = [*given_.values(), *m.parameters()], [*given_.values(), *n.parameters()]
    slopes = [torch.autograd.grad((y * pull).sum(), e, allow_unused=True) for y, e in zip((a, b), ends, strict=True)]
    for p, q in zip(*slopes, strict=True):
        assert (p is None) == (q is None) and (p is None or (p - q).abs().max() < 1e-12)
    assert len(list(verify(m, 24, 0))) >= 5


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_quite_smoothing_is_left_alone(name: str) -> None:
    (region,) = checked(OTHERS[name]).regions
    assert region.smoothing is None and region.kind in ("constant", "varying")


def test_its_products_can_still_be_tapped() -> None:
    c = checked(SMOOTH["by its weight"])
    m, g = lower(c).double(), torch.Generator().manual_seed(0)
    x = torch.randn(2, 20, 3, generator=g, dtype=torch.float64)
    values = [v for v in c.graph.values if v.type.timed and not v.is_input]
    found = dict(zip((v.path for v in values), m.evaluate(values, {"x": x}), strict=True))
    y, w = found["y.add"], torch.sigmoid(x)
    past = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1)
    for path, want in (("y.mul", (1 - w) * past), ("y.mul_2", w * x), ("y.sub", 1 - w)):
        assert (found[path] - want).abs().max() < 1e-14


@pytest.mark.parametrize("keeps", [True, False])
@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(2, "T", 3), (1, 1, 3), (1, 1, 1), (2, "T", 1), (1, "T", 3), (2, 1, 3)]),
    ticks=st.integers(1, 90),
    seed=st.integers(0, 99),
)
def test_the_scan(keeps: bool, shape: tuple[int, int | str, int], ticks: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    sizes = [ticks if n == "T" else n for n in shape]
    a = torch.rand(sizes, generator=g, dtype=torch.float64).requires_grad_()  # type: ignore[arg-type]
    x = torch.randn(2, ticks, 3, generator=g, dtype=torch.float64).requires_grad_()
    y0 = torch.randn(2, 3, generator=g, dtype=torch.float64).requires_grad_()
    y = smoothing_scan(a, x, y0, keeps)
    want = affine_scan(a if keeps else 1 - a, (1 - a if keeps else a) * x, y0)
    pull = torch.randn(y.shape, generator=g, dtype=torch.float64)
    assert (y - want).abs().max() < 1e-13
    slopes = [torch.autograd.grad((z * pull).sum(), [a, x, y0]) for z in (y, want)]
    assert all((p - q).abs().max() < 1e-11 for p, q in zip(*slopes, strict=True))


def test_gradients_by_differences_and_half_precision() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.rand(1, 40, 2, generator=g, dtype=torch.float64).requires_grad_()
    x = torch.randn(2, 40, 2, generator=g, dtype=torch.float64).requires_grad_()
    y0 = torch.randn(2, 2, generator=g, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(smoothing_scan, (a, x, y0))
    half = smoothing_scan(a.bfloat16(), x.bfloat16(), y0.bfloat16())
    assert half.dtype == torch.bfloat16 and (half - smoothing_scan(a, x, y0)).abs().max() < 0.05
