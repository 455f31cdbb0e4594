"""Losses against torch's own and against the formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from graphspec.dims import Dim
from graphspec.ops.modules.heads import CategoricalNLL
from graphspec.ops.modules.losses import CrossEntropy, Difference, Entropy
from graphspec.types import FLOAT, DType, Type

torch.set_num_threads(1)

TIMED = Type(FLOAT, (Dim.symbol("T"), Dim.of(5)), 100)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("l1", F.l1_loss),
        ("l2", F.mse_loss),
        ("huber", lambda a, b, reduction: F.huber_loss(a, b, reduction=reduction, delta=0.7)),
    ],
)
def test_differences_are_torchs(name, reference):
    a, b = draw(2, 9, 5), draw(2, 9, 5, seed=1)
    found = Difference(name, TIMED, TIMED, 0.7)(a, b)
    torch.testing.assert_close(found, reference(a, b, reduction="none"), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["l1", "l2", "huber"])
def test_differences_join_and_make_floats_of_integers(name):
    row, levels = Type(FLOAT, (Dim.of(5),)), Type(DType("int", 8), TIMED.dims, 100)
    a, b, q = draw(2, 9, 5), draw(1, 5, seed=1), torch.randint(8, (2, 9, 5))
    same = Difference(name, TIMED, TIMED)
    assert torch.equal(Difference(name, TIMED, row)(a, b), same(a, b[:, None].expand(2, 9, 5)))
    module = Difference(name, levels, levels).double()
    assert module(q, q + 3).dtype == torch.float64
    assert torch.equal(module(q, q + 3), same(q.double(), q.double() + 3))
    assert torch.equal(Difference(name, TIMED, Type(FLOAT))(a, 0.5), same(a, torch.full_like(a, 0.5)))


def test_an_equal_pair_has_no_gradient():
    for name in ("l1", "l2", "huber"):
        a = draw(1, 3, 5).requires_grad_()
        Difference(name, TIMED, TIMED)(a, a.detach().clone()).sum().backward()
        assert torch.equal(a.grad, torch.zeros_like(a))


def test_cross_entropy_is_torchs_and_the_categoricals():
    logits, x = 4 * draw(2, 9, 7), torch.randint(7, (2, 9, 1), generator=torch.Generator().manual_seed(2))
    found = CrossEntropy()(logits, x)
    want = F.cross_entropy(logits.flatten(0, 1), x.flatten(), reduction="none").view(2, 9, 1)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-14)
    torch.testing.assert_close(found, CategoricalNLL()(logits[..., None, :], x), rtol=0, atol=1e-14)


def test_cross_entropy_of_one_row_and_of_half_precision():
    logits, x = 4 * draw(1, 9, 7), torch.randint(7, (3, 9, 1), generator=torch.Generator().manual_seed(2))
    assert torch.equal(CrossEntropy()(logits, x), CrossEntropy()(logits.expand(3, 9, 7), x))
    assert CrossEntropy()(logits.bfloat16(), x).dtype == torch.float32


def test_entropy_is_shannons():
    p = draw(2, 9, 6).softmax(-1)
    want = torch.distributions.Categorical(probs=p).entropy()[..., None]
    torch.testing.assert_close(Entropy()(p), want, rtol=0, atol=1e-12)
    even = torch.full((1, 1, 8), 1 / 8, dtype=torch.float64)
    assert abs(Entropy()(even).item() - math.log(8)) < 1e-14


def test_a_certain_event_has_entropy_0_and_a_finite_gradient():
    p = torch.tensor([[[1.0, 0.0, 0.0]]], requires_grad=True)
    y = Entropy()(p)
    y.sum().backward()
    assert y.item() == 0 and p.grad.isfinite().all()


def test_accuracy_is_the_share_of_events_among_the_k_likeliest():
    from graphspec.ops.modules.losses import Accuracy

    logits = torch.tensor([[[[3.0, 1.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0]]]])
    x = torch.tensor([[[1, 0]]])
    assert [Accuracy(k)(logits, x).tolist() for k in (1, 2, 3)] == [[[[0.0, 0.0]]], [[[0.0, 1.0]]], [[[1.0, 1.0]]]]
