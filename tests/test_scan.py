"""The blocked scans do what the loop over time does: values, gradients, extremes, and one node to every tracer."""

import math

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from graphspec.ops.modules import companion, scan
from graphspec.ops.modules.companion import companion_scan
from graphspec.ops.modules.scan import affine_scan, constant_scan

BLOCKS = [16, 32]  # scan.py's and companion.py's, varying and constant
TIMES = [1, 2, 3, 300, 1025] + [n for K in BLOCKS for n in (K - 1, K, K + 1, 2 * K - 1, 2 * K, 2 * K + 1, 3 * K + 5)]


def loop(c: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    """y_t = sum_i c_i y_{t-i} + b_t. c [B, T | 1, p, ...], y0 [B, p, ...] oldest first."""
    last, ys = list(y0.unbind(1)), []
    for t, drive in enumerate(b.unbind(1)):
        gains = c[:, t if c.shape[1] > 1 else 0].unbind(1)
        y = drive
        for gain, past in zip(gains, reversed(last), strict=True):
            y = y + gain * past
        last = [*last[1:], y]
        ys.append(y)
    return torch.stack(ys, 1)


def affine_loop(a: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    return loop(a.unsqueeze(2), b, y0.unsqueeze(1))


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def leaves(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.detach().clone().requires_grad_() for t in tensors)


def difference(x: Tensor, reference: Tensor) -> float:
    assert x.shape == reference.shape
    x, reference = x.detach().double(), reference.detach().double()
    return float((x - reference).abs().max() / reference.abs().max().clamp(min=1e-300))


def agree(fast, slow, operands: tuple[Tensor, ...], tolerance: float = 1e-12) -> None:
    """Values and all gradients, under a random cotangent."""
    operands = leaves(*operands)
    y, reference = fast(*operands), slow(*operands)
    assert difference(y, reference) < tolerance
    cotangent = draw(*y.shape, seed=9)
    got = torch.autograd.grad(y, operands, cotangent)
    wanted = torch.autograd.grad(reference, operands, cotangent)
    for g, w in zip(got, wanted, strict=True):
        assert difference(g, w) < tolerance


def stable(p: int, *channels: int, seed: int = 1, radius: float = 0.99) -> Tensor:
    """[p, ...]: lags of a recurrence with all poles within `radius`."""
    generator = torch.Generator().manual_seed(seed)
    polynomial = torch.ones((1,) + channels, dtype=torch.float64)
    zero = torch.zeros((1,) + channels, dtype=torch.float64)
    for _ in range(p // 2):
        r = radius * torch.rand(channels, generator=generator, dtype=torch.float64) ** 0.1
        w = math.pi * torch.rand(channels, generator=generator, dtype=torch.float64)
        section = [-2 * r * torch.cos(w), r.square()]
        padded = torch.cat([polynomial, zero, zero])
        polynomial = padded + section[0] * padded.roll(1, 0) + section[1] * padded.roll(2, 0)
    if p % 2:
        padded = torch.cat([polynomial, zero])
        polynomial = padded - radius * padded.roll(1, 0)
    return -polynomial[1:]


def test_the_block_lengths_tested_here_are_the_modules_own() -> None:
    assert {scan._VARYING, companion._VARYING} == {BLOCKS[0]}
    assert {scan._CONSTANT, companion._CONSTANT} == {BLOCKS[1]}


@pytest.mark.parametrize("T", TIMES)
def test_affine_is_the_loop(T: int) -> None:
    agree(affine_scan, affine_loop, (draw(2, T, 3).tanh() * 1.02, draw(2, T, 3, seed=1), draw(2, 3, seed=2)))


@pytest.mark.parametrize("T", TIMES)
def test_constant_is_the_loop(T: int) -> None:
    a, b, y0 = torch.tensor([0.5, -0.99, 1.001], dtype=torch.float64), draw(2, T, 3, seed=1), draw(2, 3, seed=2)
    agree(constant_scan, lambda a, b, y0: affine_loop(a[None, None], b, y0), (a, b, y0), 2e-12)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize("T", TIMES)
def test_companion_is_the_loop(T: int, p: int) -> None:
    c, b, y0 = stable(p, 3, radius=0.9), draw(2, T, 3, seed=1), draw(2, p, 3, seed=2)
    agree(companion_scan, lambda c, b, y0: loop(c[None, None], b, y0), (c, b, y0), 1e-11)
    varying = c + 0.02 * draw(2, T, p, 3, seed=3)
    agree(companion_scan, loop, (varying, b, y0), 1e-11)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 3), (2, 1, 3), (2, 1, 1), (1, 70, 3), (2, 70, 1), (1, 70, 1), (2, 70, 3)]
)
def test_operands_broadcast(shape: tuple[int, int, int]) -> None:
    b, y0 = draw(2, 70, 3, seed=1), draw(1, 3, seed=2)
    agree(affine_scan, affine_loop, (draw(*shape).tanh(), b, y0))
    B, T, C = shape
    agree(companion_scan, loop, (0.3 * draw(B, T, 2, C).tanh(), b, draw(1, 2, 3, seed=2)), 1e-11)


def test_no_channels_and_many_axes() -> None:
    agree(affine_scan, affine_loop, (draw(2, 70).tanh(), draw(2, 70, seed=1), draw(2, seed=2)))
    agree(affine_scan, affine_loop, (draw(2, 70, 1, 3).tanh(), draw(2, 70, 4, 3, seed=1), draw(2, 4, 3, seed=2)))
    agree(companion_scan, lambda c, b, y0: loop(c[None, None], b, y0),
          (stable(2), draw(2, 70, seed=1), draw(2, 2, seed=2)), 1e-11)  # fmt: skip


def test_a_single_row_of_drive_under_a_batch_of_gains() -> None:
    a, b, y0 = leaves(draw(3, 40, 2).tanh(), draw(1, 40, 2, seed=1), draw(1, 2, seed=2))
    assert difference(affine_scan(a, b, y0), affine_loop(a, b, y0)) < 1e-12
    assert torch.autograd.grad(affine_scan(a, b, y0).sum(), b)[0].shape == b.shape


def test_strided_and_expanded_operands() -> None:
    a = draw(3, 70, 2).tanh().transpose(0, 2)
    b, y0 = draw(70, 4, 3, seed=1).permute(1, 0, 2)[::2], draw(1, 3, seed=2).expand(2, 3)
    assert difference(affine_scan(a, b, y0), affine_loop(a, b, y0)) < 1e-12
    c, past = 0.4 * draw(3, 2, 70, 2, seed=3).tanh().permute(3, 2, 1, 0), draw(3, 2, 2, seed=4).permute(1, 2, 0)
    assert difference(companion_scan(c, b, past), loop(c, b, past)) < 1e-12
    (x,) = leaves(draw(2, 70, 3))
    affine_scan(a, x, y0).sum().backward()  # an expanded cotangent
    assert x.grad is not None


def test_gradcheck() -> None:
    for T in (1, 2, 40):
        assert torch.autograd.gradcheck(affine_scan, leaves(draw(2, T, 1).tanh(), draw(2, T, 1), draw(2, 1)))
        assert torch.autograd.gradcheck(constant_scan, leaves(draw(1).tanh(), draw(1, 2 * T, 1), draw(1, 1)))
        assert torch.autograd.gradcheck(
            companion_scan, leaves(0.4 * draw(1, T, 2, 2).tanh(), draw(1, T, 2), draw(1, 2, 2))
        )
    assert torch.autograd.gradcheck(companion_scan, leaves(stable(3, 2), draw(1, 70, 2), draw(1, 3, 2)))


def test_only_the_wanted_gradients_and_no_second_order() -> None:
    a, b, y0 = draw(1, 40, 2).tanh(), draw(1, 40, 2), draw(1, 2).requires_grad_()
    (first,) = torch.autograd.grad(affine_scan(a, b, y0).square().sum(), y0, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), y0)


@pytest.mark.parametrize("varying", [False, True])
def test_poles_near_one_are_no_worse_than_in_the_loop(varying: bool) -> None:
    T = 16000
    a = torch.tensor([0.9999, 0.99999, 0.9, -0.9999], dtype=torch.float32)
    b, y0 = draw(1, T, 4, dtype=torch.float32), draw(1, 4, seed=2, dtype=torch.float32)
    gains = (a + 1e-5 * draw(1, T, 4, seed=3, dtype=torch.float32) if varying else a[None, None]).contiguous()
    with torch.no_grad():
        exact = affine_loop(gains.double(), b.double(), y0.double())
        fast, slow = affine_scan(gains, b, y0), affine_loop(gains, b, y0)
    for channel in range(4):
        assert difference(fast[..., channel], exact[..., channel]) <= difference(
            slow[..., channel], exact[..., channel]
        )


@pytest.mark.parametrize("varying", [False, True])
def test_resonances_near_one_are_no_worse_than_in_the_loop(varying: bool) -> None:
    T, r = 16000, 0.9999
    w = torch.tensor([0.02, 0.3, 1.5, 3.0], dtype=torch.float64)
    c = torch.stack([2 * r * torch.cos(w), torch.full_like(w, -r * r)]).float()
    b, y0 = draw(1, T, 4, dtype=torch.float32), draw(1, 2, 4, seed=2, dtype=torch.float32)
    gains = c.expand(1, T, 2, 4).contiguous() if varying else c[None, None]
    with torch.no_grad():
        exact = loop(gains.double(), b.double(), y0.double())
        fast, slow = companion_scan(gains, b, y0), loop(gains, b, y0)
    for ours, theirs, truth in zip(fast.unbind(-1), slow.unbind(-1), exact.unbind(-1), strict=True):
        assert difference(ours, truth) <= difference(theirs, truth)


def test_growth_and_zeros() -> None:
    T = 100
    agree(affine_scan, affine_loop, (1.3 + 0.1 * draw(1, T, 3), draw(1, T, 3, seed=1), draw(1, 3, seed=2)), 1e-11)
    agree(affine_scan, affine_loop, (torch.zeros(1, T, 3).double(), draw(1, T, 3, seed=1), draw(1, 3, seed=2)))
    sparse = draw(1, T, 3) * (draw(1, T, 3, seed=5) > 0)
    agree(affine_scan, affine_loop, (sparse, draw(1, T, 3, seed=1), draw(1, 3, seed=2)))
    agree(constant_scan, lambda a, b, y0: affine_loop(a[None, None], b, y0),
          (torch.tensor([0.0, -1.4, 1.0]).double(), draw(1, T, 3, seed=1), draw(1, 3, seed=2)), 1e-11)  # fmt: skip
    c = torch.tensor([[0.0, 1.2], [0.0, 0.3]]).double()
    agree(companion_scan, lambda c, b, y0: loop(c[None, None], b, y0),
          (c, draw(1, T, 2, seed=1), draw(1, 2, 2, seed=2)), 1e-10)  # fmt: skip


@pytest.mark.parametrize("form", ["varying", "constant", "biquad", "varying biquad"])
def test_silence_under_an_unstable_gain_stays_silence(form: str) -> None:
    """Products of gains overflow float32 here; the loop never sees them. What follows the silence is the loop's."""
    T = 6000
    b = torch.zeros(1, T, 2)
    b[:, -20:] = draw(1, 20, 2, dtype=torch.float32)
    if "biquad" in form:
        c = torch.tensor([[1.8, 1.1], [-0.5, 0.3]])  # poles at 1.45 and 0.35, at 1.33 and -0.23
        c = c.expand(1, T, 2, 2).contiguous() if form == "varying biquad" else c[None, None]
        operands, fast, slow = (c, b, torch.zeros(1, 2, 2)), companion_scan, loop
    else:
        a = torch.tensor([1.5, -1.2])
        a = a.expand(1, T, 2).contiguous() if form == "varying" else a[None, None]
        operands, fast, slow = (a, b, torch.zeros(1, 2)), affine_scan, affine_loop
    assert difference(fast(*operands), slow(*operands)) < 1e-5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 15, 16, 17, 40, 99])
def test_what_is_not_finite_is_where_it_is_in_the_loop(bad: float, place: int) -> None:
    for poisoned in ("gain", "drive"):
        a, b, y0 = draw(2, 100, 3).tanh(), draw(2, 100, 3, seed=1), torch.zeros(2, 3).double()
        (a if poisoned == "gain" else b)[1, place, 2] = bad
        b[1, :place, 2] = 0  # the gain meets zero, and inf times zero is NaN
        assert torch.equal(affine_scan(a, b, y0).isfinite(), affine_loop(a, b, y0).isfinite())
        c, past = 0.4 * draw(2, 100, 2, 3).tanh(), torch.zeros(2, 2, 3).double()
        if poisoned == "gain":
            c[1, place, 1, 2] = bad
        assert torch.equal(companion_scan(c, b, past).isfinite(), loop(c, b, past).isfinite())
    a = torch.tensor([0.5, bad, 0.5]).double()
    agreed = affine_loop(a[None, None], b, y0).isfinite()
    assert torch.equal(constant_scan(a, b, y0).isfinite(), agreed)


@pytest.mark.parametrize("T", [2, 33, 64, 200])
def test_a_sequence_in_two_parts_is_the_sequence(T: int) -> None:
    a, b, y0 = draw(2, T, 3).tanh(), draw(2, T, 3, seed=1), draw(2, 3, seed=2)
    c, past = 0.4 * draw(2, T, 2, 3, seed=3).tanh(), draw(2, 2, 3, seed=4)
    whole, second = affine_scan(a, b, y0), companion_scan(c, b, past)
    still, fixed = constant_scan(a[0, 0], b, y0), companion_scan(c[0, 0], b, past)
    for cut in {1, T // 2, T - 1}:
        head, tail = slice(None, cut), slice(cut, None)
        y = affine_scan(a[:, head], b[:, head], y0)
        assert difference(torch.cat([y, affine_scan(a[:, tail], b[:, tail], y[:, -1])], 1), whole) < 1e-12
        y = constant_scan(a[0, 0], b[:, head], y0)
        assert difference(torch.cat([y, constant_scan(a[0, 0], b[:, tail], y[:, -1])], 1), still) < 1e-12
        y = companion_scan(c[:, head], b[:, head], past)
        state = torch.cat([past, y], 1)[:, -2:]
        assert difference(torch.cat([y, companion_scan(c[:, tail], b[:, tail], state)], 1), second) < 1e-12
        y = companion_scan(c[0, 0], b[:, head], past)
        state = torch.cat([past, y], 1)[:, -2:]
        assert difference(torch.cat([y, companion_scan(c[0, 0], b[:, tail], state)], 1), fixed) < 1e-12


def test_dtypes() -> None:
    a, b, y0 = (x.float() for x in (draw(1, 40, 2).tanh(), draw(1, 40, 2), draw(1, 2)))
    assert affine_scan(a, b, y0).dtype == torch.float32
    assert affine_scan(a.double(), b, y0).dtype == torch.float64
    half = [x.bfloat16() for x in (a, b, y0)]
    assert torch.equal(affine_scan(*half), affine_scan(*(x.float() for x in half)).bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(affine_scan(a, b, y0), affine_scan(a, b, y0).float())
    with pytest.raises(TypeError, match="real floating point"):
        affine_scan(a.long(), b.long(), y0.long())


def test_wrong_shapes_are_refused() -> None:
    a, b, y0 = draw(1, 40, 2), draw(1, 40, 2), draw(1, 2)
    for operands in [(a[0], b, y0), (a, b, y0[0]), (a[:, :20], b, y0), (a, b[:, :1], y0), (a, b[:, :0], y0)]:
        with pytest.raises(ValueError, match=r"\["):
            affine_scan(*operands)
    with pytest.raises(ValueError, match="lags"):
        companion_scan(draw(5, 2), b, draw(1, 5, 2))
    with pytest.raises(ValueError, match="lags"):
        companion_scan(draw(2, 2), b, draw(1, 3, 2))


OPERANDS = {
    "affine": (affine_scan, torch.ops.graphspec.affine_scan.default,
               (draw(2, 40, 3).tanh(), draw(2, 40, 3), draw(2, 3))),
    "companion": (companion_scan, torch.ops.graphspec.companion_scan.default,
                  (stable(2, 3), draw(2, 70, 3), draw(2, 2, 3))),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERANDS)
def test_tracers_see_one_node(name: str) -> None:
    fast, op, operands = OPERANDS[name]
    traced = make_fx(fast, tracing_mode="fake")(*operands)
    assert [n.target for n in traced.graph.nodes if n.op == "call_function"].count(op) == 1
    assert difference(traced(*operands), fast(*operands)) < 1e-12

    class Model(torch.nn.Module):
        def forward(self, *x: Tensor) -> Tensor:
            return fast(*x)

    exported = torch.export.export(Model(), operands)
    assert [n.target for n in exported.graph.nodes].count(op) == 1
    assert difference(exported.module()(*operands), fast(*operands)) < 1e-12


@pytest.mark.parametrize("name", OPERANDS)
def test_compiles_with_its_backward(name: str) -> None:
    fast, _, operands = OPERANDS[name]
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    agree(compiled, fast, operands)


@pytest.mark.parametrize("name", OPERANDS)
def test_the_registration_keeps_its_promises(name: str) -> None:
    _, op, operands = OPERANDS[name]
    c = operands[0][None, None] if name == "companion" else operands[0]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(op, leaves(c, *operands[1:]), test_utils=checks)
