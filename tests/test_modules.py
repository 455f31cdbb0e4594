"""The modules of the catalogue: whole == step, alignment, layouts, draws; and the catalogue's own law."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from torch import nn

from graphspec.dims import Dim
from graphspec.ops import catalogue
from graphspec.ops.modules.conv import CausalConv
from graphspec.ops.modules.dense import Embed, Linear
from graphspec.ops.modules.elementwise import Binary, Unary, Where
from graphspec.ops.modules.gate import GLU
from graphspec.ops.modules.heads import Categorical, CategoricalDraw, CategoricalNLL
from graphspec.ops.modules.norm import LayerNorm, RMSNorm
from graphspec.ops.modules.pool import Fold, Shift, Unfold
from graphspec.ops.modules.reduce import reduction
from graphspec.ops.modules.regularise import Dropout
from graphspec.ops.modules.shape import Cat, Split, Take
from graphspec.types import BOOL, FLOAT, DType, Meaning, Type

torch.set_num_threads(1)
B, T = 3, 24
RATE = Fraction(16000)


def typed(*after_time: int, dtype: DType = FLOAT, meaning: Meaning | None = None) -> Type:
    return Type(dtype, (Dim.symbol("T"), *map(Dim.of, after_time)), RATE, meaning)


def static(*dims: int, dtype: DType = FLOAT) -> Type:
    return Type(dtype, tuple(map(Dim.of, dims)))


def generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(name.encode()))


def drawn(module: nn.Module) -> nn.Module:
    module.double().reset(generator)
    return module


def draw_numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draw_classes(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


# ---- whole == step -----------------------------------------------------------------------------------------------

STREAMED = {
    "linear": (lambda: Linear(4, 5), lambda: draw_numbers(B, T, 4), 1),
    "embed": (lambda: Embed(2, 7, 3), lambda: draw_classes(7, B, T, 2), 1),
    "categorical": (lambda: Categorical(4, 5, 2), lambda: draw_numbers(B, T, 4), 1),
    "conv": (lambda: CausalConv(4, 5, 3), lambda: draw_numbers(B, T, 4), 1),
    "conv dilated": (lambda: CausalConv(4, 5, 4, dilation=3), lambda: draw_numbers(B, T, 4), 1),
    "conv beyond the crop": (lambda: CausalConv(4, 5, 2, dilation=40, bias=False), lambda: draw_numbers(B, T, 4), 1),
    "conv of one tap": (lambda: CausalConv(4, 5, 1), lambda: draw_numbers(B, T, 4), 1),
    "layer_norm": (lambda: LayerNorm(4), lambda: draw_numbers(B, T, 4), 1),
    "rms_norm": (lambda: RMSNorm(4), lambda: draw_numbers(B, T, 4), 1),
    "glu": (GLU, lambda: draw_numbers(B, T, 4), 1),
    "fold": (lambda: Fold(4), lambda: draw_numbers(B, T, 4), 4),
    "unfold": (lambda: Unfold(2), lambda: draw_numbers(B, T, 4), 1),
    "shift": (lambda: Shift(typed(4), 1), lambda: draw_numbers(B, T, 4), 1),
    "shift far": (lambda: Shift(typed(4), 40, before=0.5), lambda: draw_numbers(B, T, 4), 1),
    "shift of classes": (
        lambda: Shift(typed(2, dtype=DType("int", 9)), 3, 8),
        lambda: draw_classes(9, B, T, 2),
        1,
    ),
    "shift of bools": (lambda: Shift(typed(3, 2, dtype=BOOL), 2), lambda: draw_numbers(B, T, 3, 2) > 0, 1),
    "shift by nothing": (lambda: Shift(typed(4), 0), lambda: draw_numbers(B, T, 4), 1),
}


@pytest.mark.parametrize("name", STREAMED)
def test_whole_is_step(name: str) -> None:
    make, numbers, block = STREAMED[name]
    module, x = drawn(make()), numbers()
    whole = module(x)
    prepared = module.prepare()
    per = whole.shape[1] / T
    for seed in range(3):
        pick = torch.Generator().manual_seed(seed)
        state = module.init_state(B, torch.zeros(1, dtype=torch.float64))
        shapes = {k: (v.shape, v.dtype) for k, v in state.items()}
        pieces, done = [], 0
        while done < T:
            longest = 1 if seed == 0 else (T - done) // block if seed == 1 else 4
            n = min(T - done, block * int(torch.randint(1, longest + 1, (), generator=pick)))
            before = {k: v.clone() for k, v in state.items()}
            y, after = module.step(x[:, done : done + n], state=state, prepared=prepared)
            assert all(torch.equal(state[k], before[k]) for k in state), "step changed its state in place"
            assert {k: (v.shape, v.dtype) for k, v in after.items()} == shapes
            assert y.shape[1] == n * per
            pieces.append(y)
            state, done = after, done + n
        stepped = torch.cat(pieces, 1)
        assert stepped.dtype == whole.dtype
        torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-12)


def test_a_long_prompt_is_not_kept_alive() -> None:
    conv = drawn(CausalConv(4, 4, 3))
    _, state = conv.step(
        draw_numbers(1, 1000, 4), state=conv.init_state(1, torch.zeros(1).double()), prepared=conv.prepare()
    )
    assert state["past"].untyped_storage().nbytes() == 2 * 4 * 8


def test_conv_is_the_sum_it_says() -> None:
    conv, x = drawn(CausalConv(2, 3, 3, dilation=2)), draw_numbers(1, 9, 2)
    y = conv(x)
    for t in range(9):
        want = conv.bias.clone()
        for j in range(3):
            at = t - (2 - j) * 2
            if at >= 0:
                want = want + conv.weight[:, :, j] @ x[0, at]
        torch.testing.assert_close(y[0, t], want)


# ---- weights -----------------------------------------------------------------------------------------------------

WEIGHTED = {
    "linear": lambda: Linear(16, 5),
    "embed": lambda: Embed(2, 7, 3),
    "conv": lambda: CausalConv(4, 5, 4),
    "categorical": lambda: Categorical(16, 5, 2),
    "layer_norm": lambda: LayerNorm(4),
    "rms_norm": lambda: RMSNorm(4),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_reset_is_a_function_of_the_generators(name: str) -> None:
    first, second = WEIGHTED[name](), WEIGHTED[name]().double()
    for module in (first, second):
        module.reset(generator)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a.double(), b), key
    with torch.device("meta"):
        assert all(p.is_meta for p in WEIGHTED[name]().parameters())


def test_initial_spread() -> None:
    linear = Linear(400, 300)
    linear.reset(generator)
    assert 0.0499 < linear.weight.abs().max() < 0.05 and abs(linear.weight.std() - 0.05 / 3**0.5) < 2e-4
    assert linear.bias.abs().max() < 0.05
    embed = Embed(2, 300, 64)
    embed.reset(generator)
    assert abs(embed.weight.std() - 1) < 0.02
    assert not torch.equal(embed.weight[0], embed.weight[1])


def test_embed_has_a_table_per_channel() -> None:
    embed, x = drawn(Embed(2, 7, 3)), draw_classes(7, B, T, 2)
    y = embed(x)
    assert torch.equal(y[..., :3], embed.weight[0][x[..., 0]])
    assert torch.equal(y[..., 3:], embed.weight[1][x[..., 1]])


# ---- joining -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, B])
def test_statics_line_up(batch: int) -> None:
    x, deep = draw_numbers(B, T, 4), draw_numbers(B, T, 5, 4)
    scalar, vector, table = draw_numbers(batch), draw_numbers(batch, 4), draw_numbers(batch, 5, 4)
    add = "add"
    assert torch.equal(Binary(add, typed(4), static())(x, scalar), x + scalar[:, None, None])
    assert torch.equal(Binary(add, static(), typed(4))(scalar, x), x + scalar[:, None, None])
    assert torch.equal(Binary(add, static(4), typed(4))(vector, x), x + vector[:, None])
    assert torch.equal(Binary(add, typed(5, 4), static(4))(deep, vector), deep + vector[:, None, None])
    assert torch.equal(Binary(add, typed(5, 4), static(5, 4))(deep, table), deep + table[:, None])
    assert torch.equal(Binary(add, static(5, 4), static())(table, scalar), table + scalar[:, None, None])
    assert torch.equal(Binary(add, static(), static())(scalar, scalar), scalar + scalar)
    assert torch.equal(Binary(add, typed(4), typed(1))(x, x[..., :1]), x + x[..., :1])


def test_a_vector_as_long_as_the_batch_still_joins_channels() -> None:
    x, vector = draw_numbers(3, 3, 3), draw_numbers(3, 3)
    assert torch.equal(Binary("mul", typed(3), static(3))(x, vector), x * vector[:, None, :])


def test_numbers_join() -> None:
    x, number = draw_numbers(B, T, 4), static()
    assert torch.equal(Binary("sub", number, typed(4))(1, x), 1 - x)
    assert torch.equal(Binary("pow", typed(4), number)(x, 2), x**2)
    assert torch.equal(Binary("minimum", typed(4), number)(x, 0.1), x.clamp(max=0.1))
    assert torch.equal(Binary("maximum", number, typed(4))(0, x), x.clamp(min=0))
    assert torch.equal(Binary("greater", typed(4), number)(x, 0), x > 0)


def test_integers_become_floats_of_the_model() -> None:
    q, kind = draw_classes(9, B, T, 2), typed(2, dtype=DType("int", 9))
    third = Binary("div", kind, static(dtype=DType("int"))).double()(q, 3)
    assert third.dtype == torch.float64 and torch.equal(third, q.double() / 3)
    assert Binary("add", kind, static(dtype=DType("int")))(q, 1).dtype == torch.int64
    assert reduction("mean", kind, None).double()(q).dtype == torch.float64


def test_where() -> None:
    x, mask = draw_numbers(B, T, 4), draw_numbers(B, T, 4, seed=1) > 0
    kind = typed(4, dtype=BOOL)
    assert torch.equal(Where(kind, typed(4), static())(mask, x, 0), torch.where(mask, x, 0))
    row = torch.tensor([True, False, True])
    assert torch.equal(
        Where(static(dtype=BOOL), typed(4), typed(4))(row, x, -x), torch.where(row[:, None, None], x, -x)
    )
    numbers = Where(kind, static(), static()).double()(mask, 0.1, 0)
    assert numbers.dtype == torch.float64 and torch.equal(numbers, mask * torch.tensor(0.1, dtype=torch.float64))


def test_functions() -> None:
    x = draw_numbers(B, T, 4)
    torch.testing.assert_close(Unary("gelu")(x), 0.5 * x * (1 + torch.erf(x / 2**0.5)))
    torch.testing.assert_close(Unary("leaky_relu", negative_slope=0.2)(x), torch.where(x > 0, x, 0.2 * x))
    assert torch.equal(Unary("clamp", min=None, max=0.5)(x), x.clamp(max=0.5))
    assert torch.equal(Unary("clamp", min=None, max=None)(x), x)


def test_numbers_fold_as_tensors_do() -> None:
    for op in catalogue().ops.values():
        if op.number and len(op.parsed.operands) == 1:
            for x in (0.7, 2.0) if op.name != "logit" else (0.2, 0.7):
                got = op.build(static())(torch.tensor([x], dtype=torch.float64))
                assert abs(op.number(x) - float(got)) < 1e-12, op.name


# ---- shapes ------------------------------------------------------------------------------------------------------


def test_fold_puts_the_offset_last() -> None:
    x = torch.arange(2 * 8 * 3).reshape(2, 8, 3)
    y = Fold(4)(x)
    for j in range(2):
        for h in range(3):
            for s in range(4):
                assert torch.equal(y[:, j, h * 4 + s], x[:, j * 4 + s, h])
    assert torch.equal(Unfold(4)(y), x)


def test_cat_split_take() -> None:
    x = draw_numbers(B, T, 7)
    a, b = Split((3, 4))(x)
    assert torch.equal(Cat()(a, b), x) and torch.equal(Take(3, 4)(x), b)
    wide = Cat()(draw_numbers(1, 2), draw_numbers(B, 3))
    assert wide.shape == (B, 5)


def test_glu_gates_with_the_second_half() -> None:
    x = draw_numbers(B, T, 6)
    torch.testing.assert_close(GLU()(x), x[..., :3] * torch.sigmoid(x[..., 3:]))


@pytest.mark.parametrize("name", ["mean", "sum", "max"])
def test_reductions(name: str) -> None:
    x = draw_numbers(B, T, 3, 4)
    torch_s = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[name]
    everything, channels = reduction(name, typed(3, 4), None), reduction(name, typed(3, 4), -1)
    torch.testing.assert_close(everything(x), torch_s(x, (1, 2, 3)))
    torch.testing.assert_close(channels(x), torch_s(x, -1, keepdim=True))
    with pytest.raises(NotImplementedError, match="whole sequence"):
        everything.step(x, state={}, prepared={})
    with pytest.raises(ValueError, match="not 1"):
        reduction(name, typed(4), 1)
    assert torch.equal(reduction(name, static(), None)(x[:, 0, 0, 0]), x[:, 0, 0, 0])


def test_dropout() -> None:
    x, noise = torch.ones(4, 5000, 5), torch.rand(4, 5000, 5, generator=torch.Generator().manual_seed(1))
    y = Dropout(0.25)(x, noise=noise)
    assert abs(y.mean() - 1) < 0.01 and set(y.unique().tolist()) == {0.0, x.new_tensor(1 / 0.75).item()}
    assert torch.equal(Dropout(0.25)(x), x) and torch.equal(Dropout(0)(x, noise=noise), x)
    assert Dropout(0.5)(torch.tensor([torch.inf]), noise=torch.tensor([0.1])) == 0


# ---- categorical -------------------------------------------------------------------------------------------------

LOWEST, HIGHEST = 2.0**-24, 1 - 2.0**-24  # what the runtime's uniform noise can be


def draw(logits: torch.Tensor, u: torch.Tensor | float, top_k: int = 0, **knobs: float | torch.Tensor) -> torch.Tensor:
    noise = u if isinstance(u, torch.Tensor) else logits.new_full(logits.shape[:-1], u)
    return CategoricalDraw(top_k)(logits, noise=noise, **knobs)


def test_nll() -> None:
    logits, x = draw_numbers(B, T, 2, 5), draw_classes(5, B, T, 2)
    want = torch.distributions.Categorical(logits=logits).log_prob(x)
    torch.testing.assert_close(CategoricalNLL()(logits, x), -want)
    half = CategoricalNLL()((logits * 100).half(), x)
    assert half.dtype == torch.float32 and half.isfinite().all()


def test_head_is_channel_major() -> None:
    head, x = drawn(Categorical(4, 5, 2)), draw_numbers(B, T, 4)
    torch.testing.assert_close(head(x)[..., 1, :], x @ head.weight[5:].T + head.bias[5:])


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, -torch.inf, 1.0])
    u = torch.rand(1, 100_000, 1, generator=torch.Generator().manual_seed(3))
    many = logits.expand(1, 100_000, 1, 6)
    for knobs, scaled in (({}, logits), ({"temperature": 0.5}, logits / 0.5)):
        share = torch.bincount(draw(many, u, **knobs).flatten(), minlength=6) / 100_000
        assert (share - scaled.softmax(-1)).abs().max() < 0.006
        assert share[4] == 0
    assert torch.equal(draw(many, u, temperature=1.0), draw(many, u))


def test_the_inverse_distribution_function() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(1, 1, 1, 4)
    for u, want in ((0.05, 0), (0.15, 1), (0.29, 1), (0.31, 2), (0.59, 2), (0.61, 3), (0.99, 3)):
        assert draw(logits, u).item() == want


@pytest.mark.parametrize("u", [0.0, LOWEST, HIGHEST, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_noise_stays_in_range(u: float, dtype: torch.dtype) -> None:
    logits = draw_numbers(64, 1, 1, 300).to(dtype) * 3
    logits[..., :3] = logits[..., -50:] = -torch.inf
    noise = torch.full((64, 1, 1), u)
    for knobs in ({}, {"temperature": 0.7}, {"top_p": 0.9}, {"top_p": 1.0}, {"top_k": 7}):
        q = draw(logits, noise, **knobs)
        assert q.dtype == torch.int64 and q.min() >= 3 and q.max() < 250
    top = draw(logits, noise, top_k=7)
    assert (top[..., None] == logits.float().sort(dim=-1, descending=True, stable=True).indices[..., :7]).any(-1).all()


@pytest.mark.parametrize("u", [LOWEST, 0.5, HIGHEST])
@pytest.mark.parametrize(
    "knobs",
    [{"top_k": 1}, {"top_p": 0.0}, {"top_p": 1e-9}, {"temperature": 0.0}, {"temperature": 1e-30}, {"temperature": 0}],
)
def test_limits_are_the_argmax(u: float, knobs: dict[str, float]) -> None:
    logits = draw_numbers(50, 4, 2, 20).float()
    assert torch.equal(draw(logits, u, **knobs), logits.argmax(-1))
    rows = {k: v if k == "top_k" else torch.full((50,), float(v)) for k, v in knobs.items()}
    assert torch.equal(draw(logits, u, **rows), logits.argmax(-1))


def test_a_hot_temperature_is_uniform_over_what_is_left() -> None:
    u = torch.rand(1, 20_000, 1, generator=torch.Generator().manual_seed(4))
    q = draw(draw_numbers(1, 1, 1, 8).expand(1, 20_000, 1, 8), u, top_k=4, temperature=torch.inf)
    share = torch.bincount(q.flatten(), minlength=8) / 20_000
    assert ((share - 0.25).abs() < 0.02).sum() == 4 and (share == 0).sum() == 4


def test_top_p_keeps_the_class_that_crosses() -> None:
    logits = torch.tensor([0.2, 0.5, 0.05, 0.25]).log()
    u = torch.rand(1, 4000, 1, generator=torch.Generator().manual_seed(5))
    for top_p, kept in ((0.4, {1}), (0.6, {1, 3}), (0.8, {0, 1, 3}), (0.96, {0, 1, 2, 3}), (1.0, {0, 1, 2, 3})):
        assert set(draw(logits.expand(1, 4000, 1, 4), u, top_p=top_p).unique().tolist()) == kept
    # top-k first: of {1, 3}, renormalised, 0.6 < 2/3 keeps one
    assert set(draw(logits.expand(1, 4000, 1, 4), u, top_k=2, top_p=0.6).unique().tolist()) == {1}
    # the mask is of the untempered distribution: a hot temperature does not widen it
    assert set(draw(logits.expand(1, 4000, 1, 4), u, top_p=0.6, temperature=50.0).unique().tolist()) == {1, 3}


def test_knobs_may_differ_by_row() -> None:
    logits, u = draw_numbers(2, 30, 1, 6).float(), torch.rand(2, 30, 1, generator=torch.Generator().manual_seed(6))
    both = draw(logits, u, temperature=torch.tensor([0.0, 1.0]), top_p=torch.tensor([1.0, 0.5]))
    assert torch.equal(both[:1], draw(logits[:1], u[:1], temperature=0.0, top_p=1.0))
    assert torch.equal(both[1:], draw(logits[1:], u[1:], temperature=1.0, top_p=0.5))


# ---- the catalogue -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", catalogue().ops.values(), ids=lambda op: op.name)
def test_declarations_are_whole(op) -> None:
    reads = op.time or not op.parsed.operands or op.parsed.results[0][1].rate is None  # undeclared: it reads all
    assert reads and op.example and op.summary.endswith("."), op.name
    assert op.name in op.example or op.spelled
    assert op.doc.count("\n") == 0 or op.doc.splitlines()[1] == ""


def test_the_catalogue_is_torch_free() -> None:
    code = "import sys; from graphspec.ops import catalogue; catalogue(); print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_nll_and_draw_come_from_the_meaning() -> None:
    d = typed(2, meaning=Meaning("categorical", (5,), (5,), DType("int", 5)))
    ops = catalogue().ops
    assert isinstance(ops["nll"].build(d, typed(2, dtype=DType("int", 5))), CategoricalNLL)
    assert ops["draw"].build(d, None, None, top_k=3).top_k == 3
