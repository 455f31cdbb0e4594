"""The axes after time against plain loops and torch's own, in a spec where the signature says it."""

from pathlib import Path

import pytest
import torch

from graphspec.axes import axes_of
from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.diagnostic import SpecError
from graphspec.dims import Dim
from graphspec.ops.modules.axes import (
    ArgMax,
    AsStatic,
    AsTime,
    Deinterleave,
    Einsum,
    Expand,
    Interleave,
    OneHot,
    Outer,
    Rearrange,
)
from graphspec.reader import read_text
from graphspec.types import FLOAT, Type

torch.set_num_threads(1)
T = Dim.symbol("T")


def timed(*sizes):
    return Type(FLOAT, (T, *map(Dim.of, sizes)), 100)


def static(*sizes):
    return Type(FLOAT, tuple(map(Dim.of, sizes)))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spec(expression, channels=6, of="float"):
    text = f"graphspec: 1\nmodel: m\ninputs:\n  x: {{type: '{of}[T, {channels}] @ 100', before: 2}}\n"
    text += f"require:\n  - T % 12 == 0\ngraph:\n  y: {expression}\noutputs: [y]\n"
    return check_document(read_text("m.yaml", text), Path(__file__).parent)


# ---- time and channels -------------------------------------------------------------------------------------------


def test_interleave_is_tick_by_tick_in_channel_order():
    x = draw(2, 5, 3)
    y = Interleave()(x)
    assert y.shape == (2, 15, 1)
    assert all(torch.equal(y[:, t * 3 + i, 0], x[:, t, i]) for t in range(5) for i in range(3))
    assert torch.equal(Deinterleave(3)(y), x)


def test_interleaving_changes_the_clock_and_keeps_before():
    y = spec("x |> interleave", 6, "int(9)").graph.named["y"]
    assert str(y.type) == "int(9)[6*T, 1] @ 600 Hz" and y.before == 2
    back = spec("x |> interleave |> deinterleave(4)").graph.named["y"]
    assert str(back.type) == "f32[3*T/2, 4] @ 150 Hz"


def test_channels_one_after_the_other_need_no_second_proof():
    """A value of the finer clock, strict in it, reads channel i - 1 of the same tick and no later."""
    checked = spec("(x |> interleave)[t-1] |> deinterleave(6)")
    y = checked.graph.named["y"]
    x = draw(1, 24, 6).float()
    found = lower(checked)({"x": x})["y"]
    assert torch.equal(found[..., 1:], x[..., :-1]) and torch.equal(found[:, 1:, 0], x[:, :-1, -1])
    assert str(y.type) == "f32[T, 6] @ 100 Hz"


# ---- new axes and products ---------------------------------------------------------------------------------------


def test_expand_counts_after_time_in_the_result():
    x = draw(2, 5, 3, 4)
    shapes = {0: (2, 5, 1, 3, 4), 1: (2, 5, 3, 1, 4), 2: (2, 5, 3, 4, 1), -1: (2, 5, 3, 4, 1), -2: (2, 5, 3, 1, 4)}
    for axis, shape in shapes.items():
        assert Expand(timed(3, 4), axis)(x).shape == shape
    assert Expand(static(3), 0)(draw(1, 3)).shape == (1, 1, 3) and Expand(static(3), -2)(draw(1, 3)).shape == (1, 1, 3)
    with pytest.raises(ValueError, match="-3..2"):
        Expand(timed(3, 4), 3)


def test_outer_multiplies_every_pair():
    a, b, row = draw(2, 5, 3), draw(2, 5, 4, seed=1), draw(1, 4, seed=2)
    y = Outer(timed(3), timed(4))(a, b)
    assert y.shape == (2, 5, 3, 4) and torch.equal(y[:, :, 2, 1], a[..., 2] * b[..., 1])
    assert torch.equal(Outer(timed(3), static(4))(a, row)[:, :, 2, 1], a[..., 2] * row[0, 1])
    assert torch.equal(Outer(static(4), timed(3))(row, a)[:, :, 1, 2], a[..., 2] * row[0, 1])
    with pytest.raises(ValueError, match="different axes"):
        Outer(timed(3), static(2, 4))


def test_einsum_names_axes_after_time():
    h, c = draw(2, 5, 3, 4), draw(2, 5, 4, seed=1)
    want = torch.einsum("bten,btn->bte", h, c)
    torch.testing.assert_close(Einsum("en,n->e", timed(3, 4), timed(4))(h, c), want, rtol=0, atol=1e-14)
    m = draw(1, 4, 6, seed=2)  # a static matrix, one for all examples
    torch.testing.assert_close(Einsum("n, nk -> k", timed(4), static(4, 6))(c, m), c @ m[0], rtol=0, atol=1e-14)
    both = Einsum("tk,td->kd", static(5, 3), static(5, 4))(h[..., 0], c)
    torch.testing.assert_close(both, h[..., 0].transpose(1, 2) @ c, rtol=0, atol=1e-14)
    capital = Einsum("BT,T->B", timed(3, 4), timed(4))(h, c)  # letters of ours that the pattern uses
    torch.testing.assert_close(capital, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("pattern", "sizes", "shape"),
    [
        ("(h c) n -> h c n", {"h": 2}, (2, 7, 2, 3, 4)),
        ("(h c) n -> n (c h)", {"c": 3}, (2, 7, 4, 6)),
        ("a b -> b a", {}, (2, 7, 4, 6)),
        ("a b -> (a b)", {}, (2, 7, 24)),
        ("a b -> a 1 b", {}, (2, 7, 6, 1, 4)),
    ],
)
def test_rearrange_moves_names(pattern, sizes, shape):
    x = draw(2, 7, 6, 4)
    y = Rearrange(pattern, timed(6, 4), sizes)(x)
    assert y.shape == shape and torch.equal(y.flatten().sort().values, x.flatten().sort().values)


def test_rearrange_goes_by_the_names():
    x = draw(2, 7, 6, 4)
    y = Rearrange("(h c) n -> n (c h)", timed(6, 4), {"h": 2})(x)
    assert all(
        torch.equal(y[..., n, c * 2 + h], x[..., h * 3 + c, n]) for h in range(2) for c in range(3) for n in range(4)
    )
    back = Rearrange("n (c h) -> (h c) n", timed(4, 6), {"h": 2})(y)
    assert torch.equal(back, x)
    assert Rearrange("a -> 1 a", static(6), {})(draw(1, 6)).shape == (1, 1, 6)


@pytest.mark.parametrize(
    ("pattern", "sizes", "why"),
    [
        ("a -> a", {}, "names 1 axes"),
        ("(a b) c -> a b c", {}, "does not say"),
        ("(a b) c -> a b c", {"a": 4}, "does not say"),
        ("a b -> a", {}, "same names"),
        ("a a -> a a", {}, "does not say|same names"),
        ("(a b c -> a b c", {}, "open parenthesis"),
        ("a+b c -> c", {}, "not a list of axes"),
    ],
)
def test_rearrange_refuses(pattern, sizes, why):
    with pytest.raises(ValueError, match=why):
        Rearrange(pattern, timed(6, 4), sizes)


def test_axes_of_a_pattern():
    assert axes_of("(h c) n 1") == [("h", "c"), ("n",), ()]


def test_time_becomes_an_axis_and_back():
    x = draw(2, 5, 3)
    assert torch.equal(AsTime()(AsStatic()(x)), x)
    for module in (AsStatic(), AsTime()):
        with pytest.raises(NotImplementedError):
            module.step(x, state={}, prepared={})


# ---- classes -----------------------------------------------------------------------------------------------------


def test_one_hot_and_back():
    x = torch.randint(5, (2, 7, 1), generator=torch.Generator().manual_seed(0))
    y = OneHot(5).double()(x)
    assert torch.equal(y, torch.nn.functional.one_hot(x[..., 0], 5).double())
    assert torch.equal(ArgMax()(y), x)
    pair = OneHot(3)(torch.tensor([[[2, 0]]]))
    assert pair.tolist() == [[[0, 0, 1, 1, 0, 0]]]


def test_classes_in_a_spec():
    assert str(spec("x |> one_hot(9)", 2, "int(9)").graph.named["y"].type) == "f32[T, 18] @ 100 Hz"
    assert str(spec("argmax(x)").graph.named["y"].type) == "int(6)[T, 1] @ 100 Hz"
    with pytest.raises(SpecError) as caught:
        spec("x |> one_hot(8)", 2, "int(9)")
    assert caught.value.diagnostics[0].code == "GS0305"
