"""Attention against torch's own layer and naive loops, in float64; what its contract says is in test_contract.py."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from contract import verify_contract
from torch import Tensor, nn

from graphspec.cli.load import check_document
from graphspec.compiler.pipeline import Checked
from graphspec.diagnostic import SpecError
from graphspec.ops.modules.attention import (
    BLOCK,
    Attention,
    BandedAttention,
    ChunkedAttention,
    CrossAttention,
    Rope,
    SelfAttention,
    rotated,
)
from graphspec.reader import read_text


def drawn(layer: Attention, seed: int = 0) -> Attention:
    """In float64, every weight and bias from the normal distribution."""
    g = torch.Generator().manual_seed(seed)
    layer.double().reset(lambda name: g)
    with torch.no_grad():
        for w in layer.parameters():
            w.copy_(torch.randn(w.shape, generator=g, dtype=torch.float64) / math.sqrt(w.shape[-1]))
    return layer


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(got: Tensor, want: Tensor, tolerance: float = 1e-12) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max().item() <= tolerance


def theirs(mine: Attention) -> nn.MultiheadAttention:
    """torch's layer with the same weights."""
    source = mine.k.shape[1]
    layer = nn.MultiheadAttention(
        mine.channels, mine.heads, bias=mine.q_bias is not None, kdim=source, vdim=source, batch_first=True
    ).double()
    with torch.no_grad():
        if layer.in_proj_weight is not None:
            layer.in_proj_weight.copy_(torch.cat([mine.q, mine.k, mine.v]))
        else:
            for name in "qkv":
                getattr(layer, f"{name}_proj_weight").copy_(getattr(mine, name))
        layer.out_proj.weight.copy_(mine.out)
        if mine.q_bias is not None:
            layer.in_proj_bias.copy_(torch.cat([mine.q_bias, mine.k_bias, mine.v_bias]))
            layer.out_proj.bias.copy_(mine.out_bias)
    return layer


def allowed(T: int, window: int = 0, chunk: int = 0, causal: bool = True) -> Tensor:
    """[query, key], from the definitions, one by one."""
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i, j in itertools.product(range(T), range(T)):
        mask[i, j] = (
            (j <= i or not causal) and (not window or i - j < window) and (not chunk or i // chunk == j // chunk)
        )
    return mask


def dense(layer: SelfAttention, x: Tensor, mask: Tensor) -> Tensor:
    """Every score, a pair of complex numbers at a time, and the mask."""
    B, T, c = x.shape
    d = c // layer.heads

    def heads(name: str) -> Tensor:
        return layer.projected(name, x).transpose(1, 2)

    def turned(h: Tensor) -> Tensor:
        if not layer.rope.base:
            return h
        pairs = torch.complex(h[..., : d // 2], h[..., d // 2 :])
        frequency = layer.rope.base ** (-2 * torch.arange(d // 2, dtype=torch.float64) / d)
        turn = torch.polar(torch.ones(T, d // 2, dtype=torch.float64), torch.arange(T).double()[:, None] * frequency)
        return torch.cat([(pairs * turn).real, (pairs * turn).imag], -1)

    scores = turned(heads("q")) @ turned(heads("k")).mT / math.sqrt(d)
    y = scores.masked_fill(~mask, -math.inf).softmax(-1) @ heads("v")
    return layer.joined(y.transpose(1, 2))


# ---- torch's own layer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "causal", "bias"), [(1, True, False), (4, True, True), (2, False, True)])
def test_self_attention_is_torchs(heads: int, causal: bool, bias: bool) -> None:
    mine = drawn(SelfAttention(16, heads, causal=causal, rope=0, bias=bias))
    x = noise(3, 11, 16)
    want, _ = theirs(mine)(x, x, x, attn_mask=~allowed(11, causal=causal), need_weights=False)
    close(mine(x), want)


@pytest.mark.parametrize("bias", [False, True])
def test_cross_attention_is_torchs(bias: bool) -> None:
    mine = drawn(CrossAttention(16, 6, 4, bias=bias))
    x, context = noise(3, 11, 16), noise(3, 5, 6, seed=2)
    want, _ = theirs(mine)(x, context, context, need_weights=False)
    close(mine(x, context), want)


def test_batches_of_one_stretch() -> None:
    mine = drawn(CrossAttention(16, 6, 4))
    x, context = noise(1, 7, 16), noise(3, 5, 6, seed=2)
    close(mine(x, context), mine(x.expand(3, -1, -1), context))
    close(mine(x.expand(3, -1, -1), context[:1]), mine(x, context[:1]).expand(3, -1, -1))


# ---- masks and blocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rope", [0, 10000.0, 37.0])
@pytest.mark.parametrize(("window", "T"), [(1, 5), (3, 2), (3, 40), (7, BLOCK * 2 + 9), (150, 149), (150, 471)])
def test_a_window_is_the_dense_masked_form(window: int, T: int, rope: float) -> None:
    layer = drawn(BandedAttention(8, 2, window - 1, rope=rope))
    x = noise(2, T, 8)
    close(layer(x), dense(layer, x, allowed(T, window=window)), 1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("chunk", "T"), [(1, 4), (4, 12), (5, 3), (5, 13), (140, 300)])
def test_a_chunk_is_the_dense_masked_form(chunk: int, T: int, causal: bool) -> None:
    layer = drawn(ChunkedAttention(8, 2, chunk, causal=causal))
    x = noise(2, T, 8)
    close(layer(x), dense(layer, x, allowed(T, chunk=chunk, causal=causal)), 1e-10)


@pytest.mark.parametrize("window", [5, 40])
@pytest.mark.parametrize("kind", ["window", "chunk"])
def test_long_steps_take_blocks_too(kind: str, window: int) -> None:
    kinds = {"window": BandedAttention(8, 2, window - 1), "chunk": ChunkedAttention(8, 2, window)}
    layer, T = drawn(kinds[kind]), 3 * BLOCK + 31
    x = noise(2, T, 8)
    for cuts in ([0, 3, T], [0, T - 1, T], [0, 17, BLOCK + 20, T]):
        state, prepared, pieces = layer.init_state(2, x), layer.prepare(), []
        for a, b in itertools.pairwise(cuts):
            y, state = layer.step(x[:, a:b], state=state, prepared=prepared)
            pieces.append(y)
        close(torch.cat(pieces, 1), layer(x), 1e-10)


def test_memory_is_bounded_or_grows() -> None:
    x = noise(2, 30, 8)
    for layer, kept in (
        (SelfAttention(8, 2), 30),
        (BandedAttention(8, 2, 6), 6),
        (ChunkedAttention(8, 2, 5), 4),
    ):
        layer = drawn(layer)
        _, state = layer.step(x, state=layer.init_state(2, x), prepared=layer.prepare())
        assert state["k"].shape == state["v"].shape == (2, kept, 2, 4)


def test_what_must_not_be_read_is_not() -> None:
    x = noise(1, 400, 8)
    for layer, first, last in ((BandedAttention(8, 2, 9), 150, 159), (ChunkedAttention(8, 2, 10), 150, 159)):
        layer, changed = drawn(layer), x.clone()
        changed[:, 150] = 1e6
        differs = ((layer(x) - layer(changed)).abs() > 1e-9).any(-1)[0].nonzero().flatten()
        assert (int(differs.min()), int(differs.max())) == (first, last)


# ---- rope --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [10000.0, [40, 25]])
def test_rope_sees_differences_only(base: float | list[int]) -> None:
    rope, q, k = Rope(base, 8), noise(1, 6, 2, 8), noise(1, 6, 2, 8, seed=2)
    at = torch.tensor([0, 3, 4, 9, 12, 14])

    def scores(shift: int) -> Tensor:
        turns = rope.turns(at + shift, rope.frequencies(q))
        return torch.einsum("bihd,bjhd->bhij", rotated(q, turns), rotated(k, turns))

    for shift in (1, 5, 700) if isinstance(base, float) else (25, 10 * 25):  # a grid: whole rows
        close(scores(shift), scores(0), 1e-9)
    assert (scores(0) - torch.einsum("bihd,bjhd->bhij", q, k)).abs().max() > 0.1


def test_a_window_does_not_know_where_it_stands() -> None:
    layer = drawn(BandedAttention(8, 2, 4))
    x = noise(1, 300, 8)
    close(layer(x)[:, 250:], layer(x[:, 246:])[:, 4:], 1e-10)


def test_rope_of_a_grid_turns_by_row_and_column() -> None:
    rope = Rope([3, 5], 8)
    cos, sin = rope.turns(torch.arange(15), rope.frequencies(torch.zeros((), dtype=torch.float64)))
    frequency = torch.tensor([1.0, 10000.0 ** (-1 / 2)], dtype=torch.float64)
    for t in range(15):
        angles = torch.cat([t // 5 * frequency, t % 5 * frequency])
        close(cos[t], angles.cos())
        close(sin[t], angles.sin())


def test_float32_stays_accurate_far_from_the_start() -> None:
    layer = drawn(BandedAttention(16, 2, 63))
    x = noise(1, 20_000, 16)
    want = layer(x)[:, -100:]
    got = layer.float()(x.float())[:, -100:]
    assert (got.double() - want).abs().max() < 1e-5


# ---- in a spec ---------------------------------------------------------------------------------------------------


def checked(y: str, *, x: str = "float[T, 16] @ 100", context: str = "float[5, 6] @ static") -> Checked:
    inputs = f"inputs:\n  x: {x}\n" + (f"  context: {context}\n" if "context" in y else "")
    text = (
        f"graphspec: 1\nmodel: m\n{inputs}require:\n  - T % 24 == 0\nuse: [std/core]\ngraph:\n  y: {y}\noutputs: [y]\n"
    )
    return check_document(read_text("y.yaml", text), Path(__file__).parent)


@pytest.mark.parametrize("causal", ["true", "false"])
def test_a_static_context_streams(causal: str) -> None:
    tight = True  # the rule of x cannot see yet that a context is given
    verify_contract(checked(f"x |> attention(2, context=context, causal={causal})"), tight=tight, spreads_nan=True)


@pytest.mark.parametrize(
    "layer", ["attend(4)", "swiglu_ff", "transformer(2, 4, window=6)", "transformer(1, 2, chunk=4)"]
)
def test_blocks_of_the_library_keep_the_contract(layer: str) -> None:
    verify_contract(checked(f"x |> {layer}"), tight=False, spreads_nan=True)


@pytest.mark.parametrize(
    "use",
    [
        "attention(0)",
        "attention(3)",
        "attention(2, window=4, chunk=4)",
        "attention(2, window=4, causal=false)",
        "attention(2, window=-1)",
        "attention(16)",
        "attention(8, rope=[4, 6])",
        "attention(2, rope=[4, 6, 2])",
        "attention(2, rope=[4, 6], window=3)",
        "attention(2, rope=-1)",
    ],
)
def test_what_cannot_be_is_refused(use: str) -> None:
    with pytest.raises(SpecError, match="GS0305"):
        checked(f"x |> {use}")


def test_a_grid_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="rope=.4, 5. is for a sequence of 20 elements, not 24"):
        SelfAttention(16, 2, rope=[4, 5])(torch.zeros(1, 24, 16))
