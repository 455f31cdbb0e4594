"""Cells: reset, detach_every, first values, inits of every kind, beside loops written by hand; refusals with places."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import verify_contract
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphspec.cli.load import check_document
from graphspec.compiler.lower import Model, lower
from graphspec.compiler.pipeline import Checked
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text
from graphspec.runtime.sample import Sampler
from graphspec.runtime.verify import verify

torch.set_num_threads(1)
HERE = Path(__file__).parent
HEAD = """\
graphspec: 1
model: cells
inputs:
  x: float[T, 3] @ 100
  r: bool[T, 1] @ 100
  y0: float[3]
"""
ROWS, TICKS = 2, 21


def checked(text: str) -> Checked:
    return check_document(read_text("cells.yaml", text), HERE)


def refused(text: str) -> list[tuple[str, int, int, str]]:
    with pytest.raises(SpecError) as caught:
        checked(text)
    return [(d.code, d.span.line, d.span.column, d.message) for d in caught.value.diagnostics if d.span]


def spec(cell: dict[str, Any], graph: str = "  h: c\n", type_: str = "float[T, 3] @ 100", head: str = HEAD) -> str:
    rows = "".join(f"    {k}: {v}\n" for k, v in cell.items())
    return f"{head}cells:\n  c:\n    type: {type_}\n{rows}graph:\n{graph}outputs: [h]\n"


def inputs(seed: int = 0, ticks: int = TICKS) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(ROWS, ticks, 3, generator=g, dtype=torch.float64).requires_grad_(),
        "r": torch.rand(ROWS, ticks, 1, generator=g) < 0.2,
        "y0": torch.randn(1, 3, generator=g, dtype=torch.float64).requires_grad_(),
    }


def drawn(m: Model, seed: int = 1) -> Model:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.5)
    return m


def stepped(
    m: Model, x: dict[str, Tensor], cuts: list[int], noise: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    state, prepared, at = m.init_state(ROWS, x["x"].detach(), x), m.prepare(), 0
    out: dict[str, list[Tensor]] = {}
    for n in cuts:
        part = {k: v[:, at : at + n] if v.ndim == 3 else v for k, v in x.items()}
        y, state = m.step(part, state, prepared, {k: v[:, at : at + n] for k, v in (noise or {}).items()})
        state = {k: v.clone() for k, v in state.items()}
        for name, piece in y.items():
            out.setdefault(name, []).append(piece)
        at += n
    return {k: torch.cat(v, 1) for k, v in out.items()}


def same(a: tuple[Tensor | None, ...], b: tuple[Tensor | None, ...], tolerance: float = 1e-12) -> None:
    for x, y in zip(a, b, strict=True):
        zero = torch.zeros((), dtype=torch.float64)
        x, y = zero if x is None else x, zero if y is None else y
        assert (x - y).abs().max() <= tolerance * y.abs().max().clamp(min=1)


def agrees(m: Model, x: dict[str, Tensor], wanted: Tensor, ends: list[Tensor], cuts: list[list[int]]) -> None:
    """Whole and steps give `wanted`, and its gradients."""
    pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    slopes = slope(wanted, pull, ends)
    for y in (m(x)["h"], *(stepped(m, x, c)["h"] for c in cuts)):
        assert y.shape == wanted.shape and (y - wanted).abs().max() < 1e-12 * wanted.detach().abs().max().clamp(min=1)
        same(slope(y, pull, ends), slopes)


def slope(y: Tensor, pull: Tensor, ends: list[Tensor]) -> tuple[Tensor | None, ...]:
    if not y.requires_grad:
        return (None,) * len(ends)
    return torch.autograd.grad((y * pull).sum(), ends, allow_unused=True, retain_graph=True)


# ---- every kind of cell beside the same loop by hand --------------------------------------------------------------

CELLS: dict[str, dict[str, Any]] = {
    "zero": {},
    "number": {"init": 0.5},
    "input": {"init": "y0"},
    "expression": {"init": "2 * y0 - 1"},
    "learned": {"init": "learned"},
    "param": {"init": "tanh(param([3], init=1.0))"},
    "first": {"init": "first(x)"},
    "first of a number": {"init": "first(0.5)"},
    "first that is static": {"init": "first(y0)"},
    "reset": {"reset": "r"},
    "reset of an expression": {"reset": "x[t-1] > 1", "init": 0.25},
    "reset to a number": {"reset": "r", "init": 0.5},
    "reset to an input": {"reset": "r", "init": "y0"},
    "reset to what is learned": {"reset": "r", "init": "learned"},
    "reset to the first": {"reset": "r", "init": "first(2 * x)"},
    "detached": {"detach_every": 4},
    "detached, learned": {"detach_every": 4, "init": "learned"},
    "detached at every tick": {"detach_every": 1, "init": "y0"},
    "all of it": {"detach_every": 3, "init": "first(x)", "reset": "r"},
}
NEXT: dict[str, tuple[str, str, Callable[[Tensor, Tensor], Tensor]]] = {
    "constant": ("constant", "0.9 * c + x", lambda c, x: 0.9 * c + x),
    "varying": ("varying", "sigmoid(x) * c + x", lambda c, x: torch.sigmoid(x) * c + x),
    "chosen": ("varying", "where(x > 0, -c / 2, c - x)", lambda c, x: torch.where(x > 0, -c / 2, c - x)),
    "sequential": ("sequential", "tanh(c) + x", lambda c, x: torch.tanh(c) + x),
}


def by_hand(
    cell: dict[str, Any], step: Callable[[Tensor, Tensor], Tensor], m: Model, given: dict[str, Tensor]
) -> Tensor:
    x, weights = given["x"], list(m.parameters())
    begins = {
        "y0": lambda t: given["y0"],
        "2 * y0 - 1": lambda t: 2 * given["y0"] - 1,
        "learned": lambda t: weights[0].reshape(1, 3),
        "tanh(param([3], init=1.0))": lambda t: weights[0].tanh().reshape(1, 3),
        "first(x)": lambda t: x[:, t],
        "first(2 * x)": lambda t: 2 * x[:, t],
        "first(0.5)": lambda t: torch.full_like(x[:, t], 0.5),
        "first(y0)": lambda t: given["y0"],
    }.get(cell.get("init", 0), lambda t: torch.full_like(x[:, t], cell.get("init", 0)))
    before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    resets = {"r": given["r"], "x[t-1] > 1": before > 1}.get(cell.get("reset", ""), torch.zeros_like(given["r"]))
    out: list[Tensor] = []
    c = begins(0).expand(ROWS, 3)
    for t in range(x.shape[1]):
        if t and t % cell.get("detach_every", 10**9) == 0:
            c = c.detach()
        c = torch.where(resets[:, t], begins(t), c)
        out.append(c)
        c = step(c, x[:, t])
    return torch.stack(out, 1)


@pytest.mark.parametrize("form", NEXT)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_the_loop_by_hand(name: str, form: str) -> None:
    kind, written, step = NEXT[form]
    c = checked(spec({**CELLS[name], "next": written}))
    (region,) = c.regions
    if {"reset", "detach_every"} & set(CELLS[name]) and kind == "constant":
        kind = "varying"
    assert region.kind == kind, region.why
    m, given = drawn(lower(c).double()), inputs()
    wanted = by_hand(CELLS[name], step, m, given)
    agrees(m, given, wanted, [given["x"], given["y0"], *m.parameters()], [[TICKS], [1] * TICKS, [5, 1, 11, 4]])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_cells_in_random_chunks(data: st.DataObject) -> None:
    name, form = data.draw(st.sampled_from(sorted(CELLS))), data.draw(st.sampled_from(sorted(NEXT)))
    cuts, left = [], data.draw(st.integers(1, 40))
    ticks = left
    while left:
        cuts.append(data.draw(st.integers(1, left)))
        left -= cuts[-1]
    _, written, step = NEXT[form]
    m = drawn(lower(checked(spec({**CELLS[name], "next": written}))).double(), data.draw(st.integers(0, 9)))
    given_ = inputs(data.draw(st.integers(0, 99)), ticks)
    wanted = by_hand(CELLS[name], step, m, given_)
    agrees(m, given_, wanted, [given_["x"], given_["y0"], *m.parameters()], [cuts])


@pytest.mark.parametrize("form", NEXT)
def test_nothing_of_the_future_is_heard(form: str) -> None:
    m = lower(checked(spec({**CELLS["all of it"], "next": NEXT[form][1]}))).double()
    given_ = {k: v.detach() for k, v in inputs().items()}
    spoilt = {**given_, "x": given_["x"].clone(), "r": given_["r"].clone()}
    spoilt["x"][:, 10:], spoilt["r"][:, 10:] = float("nan"), True
    assert torch.equal(m(spoilt)["h"][:, :10], m(given_)["h"][:, :10])


# ---- sequences of many lengths in one -----------------------------------------------------------------------------

PACKED = {
    "gated": (
        "z * c + (1 - z) * tanh(linear(x, 3) + linear(c, 3))",
        "  z: sigmoid(linear(x, 3) + linear(c, 3))\n  h: c\n",
    ),
    "scan": ("sigmoid(x) * c + x", "  h: c\n"),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("init", ["0", "learned", "first(x)"])
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_packed_sequences_are_the_separate_ones(name: str, init: str, lengths: list[int], seed: int) -> None:
    written, graph = PACKED[name]
    m = drawn(lower(checked(spec({"init": init, "reset": "r", "next": written}, graph))).double(), seed)
    given_ = {k: v.detach() for k, v in inputs(seed, sum(lengths)).items()}
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    given_["r"] = torch.zeros_like(given_["r"])
    given_["r"][:, starts] = True
    packed = m(given_)["h"].split(lengths, 1)
    for start, n, found in zip(starts, lengths, packed, strict=True):
        part = {k: v[:, start : start + n] if v.ndim == 3 else v for k, v in given_.items()}
        part["r"] = torch.zeros_like(part["r"])
        alone = m(part)["h"]
        error = (found - alone).abs().max()
        assert error == 0 if name == "gated" else error < 1e-14  # a scan joins its blocks elsewhere: last digits


def test_each_row_is_reset_by_itself() -> None:
    m = lower(checked(spec({"reset": "r", "next": "c + x"}))).double()
    given_ = {k: v.detach() for k, v in inputs().items()}
    for row in range(ROWS):
        alone = {k: v[row : row + 1] if v.ndim == 3 else v for k, v in given_.items()}
        assert (m(alone)["h"] - m(given_)["h"][row : row + 1]).abs().max() < 1e-12


# ---- what reading and writing mean --------------------------------------------------------------------------------


def test_all_readers_see_the_old_value_and_one_next_is_written() -> None:
    graph = "  a: c * 2\n  b: c + a\n  h: cat(a, b, d)\n"
    text = spec({"init": 1, "next": "d + x"}, graph).replace(
        "graph:", "  d:\n    type: float[T, 3] @ 100\n    init: 5\n    next: c + b\ngraph:"
    )
    m, given_ = lower(checked(text)).double(), inputs()
    c, d, out = torch.ones(ROWS, 3), torch.full((ROWS, 3), 5.0), []
    c, d = c.double(), d.double()
    for x in given_["x"].unbind(1):
        a = c * 2
        b = c + a
        out.append(torch.cat([a, b, d], -1))
        c, d = d + x, c + b  # both from what was
    wanted = torch.stack(out, 1)
    assert (m(given_)["h"] - wanted).abs().max() < 1e-9 * wanted.abs().max()
    assert torch.equal(stepped(m, given_, [1] * TICKS)["h"], m(given_)["h"])
    twice = spec({"next": "c + x"}).replace("graph:", "  c:\n    type: float[T, 3] @ 100\n    next: x\ngraph:")
    assert [(code, line) for code, line, _, _ in refused(twice)] == [("GS0101", 11)]


def test_first_is_the_first_value_of_next() -> None:
    m, given_ = lower(checked(spec({"init": "first", "next": "x * 2"}))).double(), inputs()
    x = given_["x"] * 2
    agrees(m, given_, torch.cat([x[:, :1], x[:, :-1]], 1), [given_["x"]], [[1] * TICKS, [3, 18]])
    (found,) = refused(spec({"init": "first", "next": "0.5 * c + x"}))
    assert found[:2] == ("GS0405", 8) and "c -> c" in found[3]


def test_weights_of_a_first_value_are_there_once() -> None:
    m = lower(checked(spec({"init": "first", "next": "linear(x, 3)"})))
    assert set(m.weights()) == {"c_next.linear.weight", "c_next.linear.bias"}


def test_integers_count_since_the_reset() -> None:
    m = lower(checked(spec({"init": 0, "reset": "r", "next": "c + 1"}, "  h: c\n", "int[T, 1] @ 100"))).double()
    given_ = inputs()
    for y in (m(given_)["h"], stepped(m, given_, [4, 1, 16])["h"]):
        for row in range(ROWS):
            n = 0
            for t in range(TICKS):
                n = 0 if given_["r"][row, t, 0] else n
                assert int(y[row, t, 0]) == n
                n += 1


def test_classes_of_integers_are_kept() -> None:
    head = HEAD.replace("y0: float[3]", "y0: float[3]\n  k: {type: 'int(5)[T, 1] @ 100', before: 2}")
    text = spec({"init": 2, "reset": "r", "next": "k"}, "  h: c |> embed(4)\n", "int(5)[T, 1] @ 100", head)
    m, given_ = lower(checked(text)).double(), inputs()
    given_["k"] = torch.randint(5, (ROWS, TICKS, 1))
    assert torch.equal(stepped(m, given_, [2] * 10 + [1])["h"], m(given_)["h"])


def test_a_cell_in_a_matrix_is_reset() -> None:
    head = HEAD.replace("bool[T, 1]", "bool[T, 1, 1]")
    cell = {"reset": "r", "init": "first(outer(x, x))", "next": "0.5 * c + outer(x, x)"}
    c = checked(spec(cell, type_="float[T, 3, 3] @ 100", head=head))
    m, given_ = lower(c).double(), inputs()
    given_["r"] = given_["r"][..., None]
    x, out, last = given_["x"], [], torch.zeros(ROWS, 3, 3).double()
    for t in range(TICKS):
        square = x[:, t, :, None] * x[:, t, None, :]
        last = square if t == 0 else torch.where(given_["r"][:, t], square, last)
        out.append(last)
        last = 0.5 * last + square
    assert [r.kind for r in c.regions] == ["varying"] and (m(given_)["h"] - torch.stack(out, 1)).abs().max() < 1e-12


def test_a_reset_may_hear_the_loops_past() -> None:
    """A sawtooth: it falls back when it was above one."""
    m = lower(checked(spec({"reset": "c[t-1] > 1", "next": "c + x * x"}))).double()
    given_, out = inputs(), []
    c = before = torch.zeros(ROWS, 3).double()
    for x in given_["x"].unbind(1):
        c = torch.where(before > 1, torch.zeros_like(c), c)
        out.append(c)
        before, c = c, c + x * x
    agrees(m, given_, torch.stack(out, 1), [given_["x"]], [[1] * TICKS, [7, 14]])


# ---- gradients that end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["constant", "sequential"])
def test_gradients_end_where_they_are_detached(form: str) -> None:
    m, given_ = lower(checked(spec({"detach_every": 5, "next": NEXT[form][1]}))).double(), inputs()
    for run in (lambda: m(given_)["h"], lambda: stepped(m, given_, [1] * TICKS)["h"]):
        (g,) = torch.autograd.grad(run()[:, 13].sum(), [given_["x"]])
        heard = g.abs().sum((0, 2)) > 0
        assert heard.nonzero().flatten().tolist() == [10, 11, 12]  # tick 10 began anew, 13 itself is not heard
    plain = lower(checked(spec({"next": NEXT[form][1]}))).double()
    assert (plain(given_)["h"] - m(given_)["h"]).abs().max() < 1e-12


# ---- random ops in loops --------------------------------------------------------------------------------------------

RANDOM = {
    "dropout": "  h: x + (h[t-1] |> dropout(0.3))\n",
    "dropout of a map": "  h: tanh(x + (h[t-1] |> linear(3) |> dropout(0.3)))\n",
    "noise": "  h: tanh(0.5 * h[t-1] + 0.1 * normal_like(h[t-1]) + x)\n",
    "noise beside memory": "  h: tanh(x + (h[t-1] |> conv(3, k=2)) * uniform_like(h[t-1]))\n",
    "two at once": "  h: x + 0.5 * uniform_like(h[t-1]) + (h[t-1] |> dropout(0.5))\n",
}


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_in_a_loop(name: str) -> None:
    c = checked(f"{HEAD}graph:\n{RANDOM[name]}outputs: [h]\n")
    m, given_ = drawn(lower(c).double()), inputs()
    g = torch.Generator().manual_seed(4)
    noise = {
        v.path: torch.rand(ROWS, TICKS, 3, generator=g, dtype=torch.float64)
        for v in c.graph.values
        if v.noise is not None
    }
    assert noise
    whole = m(given_, noise)["h"]
    wanted = torch.autograd.grad(whole.square().sum(), [given_["x"], *m.parameters()])
    other = m(given_, {k: v.flip(0) for k, v in noise.items()})["h"]
    assert (other - whole).abs().max() > 1e-3
    for cuts in ([1] * TICKS, [4, 1, 16]):
        y = stepped(m, given_, cuts, noise)["h"]
        assert (y - whole).abs().max() < 1e-12
        same(torch.autograd.grad(y.square().sum(), [given_["x"], *m.parameters()]), wanted)
    if name == "dropout":
        assert [r.kind for r in c.regions] == ["varying"]
        last, out = torch.zeros(ROWS, 3).double(), []
        for x, u in zip(given_["x"].unbind(1), noise["h.dropout"].unbind(1), strict=True):
            last = x + torch.where(u < 0.3, 0.0, last / 0.7)
            out.append(last)
        assert (whole - torch.stack(out, 1)).abs().max() < 1e-12 * whole.abs().max()


def test_dropout_in_a_loop_is_for_training_only() -> None:
    m = lower(checked(f"{HEAD}graph:\n{RANDOM['dropout']}outputs: [h]\n")).double()
    given_ = inputs()
    assert (m(given_)["h"] - given_["x"].cumsum(1)).abs().max() < 1e-12


# ---- affine_in ------------------------------------------------------------------------------------------------------


def test_declarations_of_linearity_are_true() -> None:
    """f(p a + q b) = p f(a) + q f(b) in the operands that are named together, and each element is on its own."""
    from test_contract import OPS, checked_use

    named = {n: d for n, d in OPS.items() if d.affine_in}
    assert {"add", "sub", "mul", "div", "neg", "where", "dropout", "identity", "begin", "detach_every"} <= set(named)
    for name, declaration in named.items():
        c = checked_use(
            {"begin": "begin(a, b)", "where": "where(mask, a, b)"}.get(name, declaration.example), declaration
        )
        (v,) = [v for v in c.graph.values if v.op is declaration]
        module: Any = lower(c).double().modules_of[v]
        g = torch.Generator().manual_seed(3)
        draw = lambda: torch.randn(2, 6, 4, generator=g, dtype=torch.float64)  # noqa: E731, B023
        slots = [o.name for o in declaration.parsed.operands]
        fixed = {s: draw() > 0 if s == "mask" else draw() for s in slots}
        more = {"noise": torch.rand(2, 6, 4, generator=g, dtype=torch.float64)} if v.noise is not None else {}
        for group in declaration.affine_in.split("|"):
            together = [s.strip() for s in group.split(",")]
            assert set(together) <= set(slots), name

            def f(
                x: dict[str, Tensor], held: Any = fixed, names: Any = slots, kw: Any = more, run: Any = module
            ) -> Tensor:
                return run(*[x.get(s, held[s]) for s in names], **kw)

            a, b = {s: draw() for s in together}, {s: draw() for s in together}
            mixed = {s: 2 * a[s] - 3 * b[s] for s in together}
            assert (f(mixed) - (2 * f(a) - 3 * f(b))).abs().max() < 1e-12, name
            moved = {s: a[s].clone() for s in together}
            moved[together[0]][:, 2, 1] += 1
            changed = f(moved) != f(a)
            changed[:, 2, 1] = False
            assert not changed.any(), name


def test_what_makes_a_loop_sequential_is_told_with_its_line() -> None:
    told = {
        "c * c + x": "because of 'c * c' at line 10",
        "x / c": "because of 'x / c' at line 10",
        "where(c > 0, c, x)": "because of greater at line 10",
        "where(x > 0, tanh(c), x)": "because of tanh at line 10",
        "(c |> linear(3)) + x": "because of linear at line 10",
        "begin(2 * c, x)": "because of 'begin(2 * c, x)' at line 10",
    }
    for written, why in told.items():
        (region,) = checked(spec({"next": written})).regions
        assert (region.kind, region.why) == ("sequential", why)


def test_begin_in_a_loop_without_cells() -> None:
    c = checked(f"{HEAD}graph:\n  h: begin(h[t-1], y0) * 0.5 + x\noutputs: [h]\n")
    assert [r.kind for r in c.regions] == ["constant"]
    m, given_ = lower(c).double(), inputs()
    last, out = given_["y0"].expand(ROWS, 3), []
    for x in given_["x"].unbind(1):
        last = last * 0.5 + x
        out.append(last)
    agrees(m, given_, torch.stack(out, 1), [given_["x"], given_["y0"]], [[1] * TICKS, [9, 12]])
    both = checked(f"{HEAD}graph:\n  h: begin(h[t-1], y0) * 0.5 + h[t-1] + x\noutputs: [h]\n")
    assert [r.kind for r in both.regions] == ["sequential"]  # a second reader sees the 0 before the start
    m, last, before, out = lower(both).double(), given_["y0"].expand(ROWS, 3), 0 * given_["x"][:, 0], []
    for x in given_["x"].unbind(1):
        last = before = last * 0.5 + before + x
        out.append(last)
    agrees(m, given_, torch.stack(out, 1), [given_["x"], given_["y0"]], [[1] * TICKS, [9, 12]])


@pytest.mark.parametrize("use", ["begin(a, b)", "begin(a, row)", "begin(a, knob)", "detach_every(x, 1)"])
def test_the_ops_of_cells_keep_the_contract(use: str) -> None:
    from test_contract import OPS, checked_use

    verify_contract(checked_use(use, OPS[use.split("(")[0]]), tight=False)


# ---- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["varying", "sequential"])
@pytest.mark.parametrize("name", ["all of it", "reset to what is learned", "first"])
def test_cells_are_verified(name: str, form: str) -> None:
    m = lower(checked(spec({**CELLS[name], "next": NEXT[form][1]})))
    assert len(list(verify(m, 24, 0))) >= 5


SAMPLED = """\
graphspec: 1
model: sampled
inputs:
  wave: {type: 'int(16)[T, 1] @ 100', before: 8}
cells:
  c:
    type: float[T, 4] @ 100
    init: INIT
    reset: loud
    detach_every: 3
    next: tanh(c |> linear(4)) + heard
graph:
  past: wave[t-1]
  heard: past |> embed(4)
  loud: past == 3
  dist: c + heard |> linear(8) |> tanh |> categorical(16)
causal:
  dist: strict
losses:
  nll: nll(dist, wave)
sample:
  feed:
    wave: draw(dist)
""".replace("c + heard |>", "(c + heard) |>")


@pytest.mark.parametrize("init", ["0", "learned", "first(heard)", "tanh(param([4]))"])
def test_cells_are_sampled(init: str) -> None:
    m = drawn(lower(checked(SAMPLED.replace("INIT", init))).double())
    drawn_ = Sampler(m, 2, seed=3).draw(40)
    view, sampler = m.entries["sample"], Sampler(m, 2, seed=3)
    noise = {v.path: sampler._drawn(v, 0, 40) for v in view.graph.values if v.noise is not None}
    again = view.evaluate([f.drawn for f in view.graph.feeds], drawn_, noise)
    assert torch.equal(again[0], drawn_["wave"])
    sampler.prefill({"wave": drawn_["wave"][:, :17]})
    assert torch.equal(sampler.draw(23)["wave"], drawn_["wave"][:, 17:])


# ---- refusals -------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str, int, int]] = {
    "reset of floats": ({"next": "c + x", "reset": "x"}, "GS0407", 11, 12),
    "reset of another shape": ({"next": "c + x", "reset": "take(x, 0, 2) > 0"}, "GS0407", 11, 12),
    "reset at compile time": ({"next": "c + x", "reset": "true"}, "GS0407", 11, 12),
    "reset by a static value": ({"next": "c + x", "reset": "y0 > 0"}, "GS0407", 11, 12),
    "reset by itself": ({"next": "c + x", "reset": "c > 1"}, "GS0405", 8, 3),
    "reset by nobody": ({"next": "c + x", "reset": "nobody"}, "GS0201", 11, 12),
    "first of another shape": ({"next": "c + x", "init": "first(take(x, 0, 2))"}, "GS0407", 11, 17),
    "first of two": ({"next": "c + x", "init": "first(x, x)"}, "GS0203", 11, 11),
    "first of itself": ({"next": "c + x", "init": "first(c)"}, "GS0405", 8, 3),
    "detached at 0": ({"next": "c + x", "detach_every": 0}, "GS0223", 11, 19),
    "detached at a half": ({"next": "c + x", "detach_every": 2.5}, "GS0223", 11, 19),
    "detached by a word": ({"next": "c + x", "detach_every": "often"}, "GS0201", 11, 19),
    "init along time": ({"next": "c + x", "init": "x"}, "GS0407", 11, 11),
    "no such key": ({"next": "c + x", "resets": "r"}, "GS0130", 11, 5),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_a_cell_is_told_once_with_its_place(name: str) -> None:
    cell, code, line, column = WRONG[name]
    assert [f[:3] for f in refused(spec(cell))] == [(code, line, column)]


def test_a_detached_integer_is_refused() -> None:
    text = spec({"next": "c + 1", "init": 0, "reset": "r", "detach_every": 2}, "  h: x\n", "int[T, 1] @ 100")
    assert [f[:3] for f in refused(text)] == [("GS0303", 13, 19)]


def test_the_shortest_circle_is_printed() -> None:
    text = (
        f"{HEAD}graph:\n  a: b + x\n  b: d + 1\n  d: tanh(a) + e\n  e: f * 2\n  f: b\n  h: h[t-1] + a\noutputs: [h]\n"
    )
    (found,) = refused(text)
    assert found[0] == "GS0405" and "a -> d -> b -> a" in found[3]
    through = spec({"next": "a", "reset": "a > 0"}, "  a: c + x\n  h: a\n")
    (found,) = refused(through)
    assert found[0] == "GS0405" and "c -> a -> c" in found[3].replace("a -> c -> a", "c -> a -> c")


def test_a_loop_keeps_one_rate_and_does_not_look_ahead() -> None:
    rate = spec({"next": "c + (c |> fold(2) |> unfold(2))"}).replace("cells:", "require: [T % 2 == 0]\ncells:")
    (found,) = refused(rate)
    assert found[0] == "GS0408" and found[1] == 11
    (found,) = refused(spec({"next": "c + (c |> conv(3, k=3, centre=true))"}))
    assert found[:2] == ("GS0408", 10) and "looks ahead" in found[3]
    (found,) = refused(spec({"next": "c + x", "reset": "(c |> conv(3, k=3, centre=true)) > 0"}))
    assert found[0] == "GS0405"
