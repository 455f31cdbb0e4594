"""Feedback: goldens of filters and a gated cell, what a loop is classified as, step == whole == prefill, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
GOLDEN = {k: torch.from_numpy(v) for k, v in np.load(HERE / "goldens" / "recurrences.npz").items()}
HEAD = "graphspec: 1\nmodel: loops\ninputs:\n  x: float[T, 3] @ 100\n"


def checked(text: str) -> Checked:
    return check_document(read_text("loops.yaml", text), HERE)


def model(text: str) -> Model:
    return lower(checked(text)).double()


def refused(text: str) -> list[tuple[str, int, str]]:
    with pytest.raises(SpecError) as caught:
        checked(text)
    return [(d.code, d.span.line if d.span else 0, d.message) for d in caught.value.diagnostics]


def kinds(c: Checked) -> dict[str, str]:
    return {r.carries[0].path.split(".")[0]: r.kind for r in c.regions}


FILTERS = """\
graphspec: 1
model: filters
inputs:
  x: float[T, 3] @ 100
  a: float[3]
  gain: float[T, 1] @ 100
  y0: float[3]
  leak: float[3]
  b0: float[3]
  b1: float[3]
  b2: float[3]
  a1: float[3]
  a2: float[3]
cells:
  started:
    type: float[T, 3] @ 100
    init: y0
    next: from_y0
    require: parallel
graph:
  one_pole: a * one_pole[t-1] + (1 - a) * x
  varying: gain * varying[t-1] + (1 - gain) * x
  from_y0: a * started + (1 - a) * x
  integrator: leak * integrator[t-1] + x
  biquad: b0 * x + b1 * x[t-1] + b2 * x[t-2] - a1 * biquad[t-1] - a2 * biquad[t-2]
  delta: x - x[t-1]
outputs: [one_pole, varying, from_y0, integrator, biquad, delta]
"""


def filter_inputs() -> dict[str, Tensor]:
    g = GOLDEN
    out = {"x": g["x"][None], "a": g["a"][None], "gain": g["a_t"][None, :, None], "y0": g["y0"][None]}
    out |= {"leak": g["leak"][None]}
    out |= {f"b{i}": g["bq_b"][:, i][None] for i in range(3)} | {f"a{i}": g["bq_a"][:, i][None] for i in (1, 2)}
    return out


def test_filters_match_the_goldens() -> None:
    m, inputs = model(FILTERS), filter_inputs()
    inputs["x"].requires_grad_()
    inputs["a"].requires_grad_()
    y = m(inputs)
    wanted = {
        "one_pole": "onepole_zero",
        "varying": "onepole_tv",
        "from_y0": "onepole_y0",
        "integrator": "ar_integrator",
        "biquad": "biquad",
        "delta": "delta_zero",
    }
    for name, golden in wanted.items():
        assert (y[name][0] - GOLDEN[golden]).abs().max() < 1e-12, name
    gx, ga = torch.autograd.grad((y["one_pole"] ** 2).sum() / 2, [inputs["x"], inputs["a"]])
    assert (gx[0] - GOLDEN["grad_x"]).abs().max() < 1e-9 and (ga[0] - GOLDEN["grad_a"]).abs().max() < 1e-9


def test_filters_are_classified() -> None:
    found = kinds(checked(FILTERS))
    assert found == {
        "one_pole": "constant",
        "varying": "varying",
        "started": "constant",
        "integrator": "constant",
        "biquad": "companion",
    }


MICRO = """\
graphspec: 1
model: micro
inputs:
  x: float[T, 3] @ 100
  h0: float[4]
cells:
  h:
    type: float[T, 4] @ 100
    init: h0
    next: z * h + (1 - z) * tanh(linear(x, 4) + linear(h, 4, bias=false))
graph:
  z: sigmoid(linear(x, 4) + linear(h, 4, bias=false))
  now: h
outputs: [z, now]
"""


def test_a_gated_cell_matches_the_golden() -> None:
    m, g = model(MICRO), GOLDEN
    names = {
        "z.linear.weight": "Wz",
        "z.linear_2.weight": "Uz",
        "z.linear.bias": "bz",
        "h_next.linear.weight": "Wx",
        "h_next.linear_2.weight": "Uh",
        "h_next.linear.bias": "bh",
    }
    assert set(m.weights()) == set(names)
    m.load_state_dict({n: g[f"micro_{k}"] for n, k in names.items()})
    y = m({"x": g["micro_x"][None], "h0": g["micro_h0"][None]})
    assert (y["z"][0] - g["micro_z_bias_h0"]).abs().max() < 1e-12
    # Reading a cell gives its old value.
    assert (y["now"][0, 1:] - g["micro_h_bias_h0"][:-1]).abs().max() < 1e-12
    assert torch.equal(y["now"][0, 0], g["micro_h0"])


CELL = "cells:\n  c:\n    type: float[T, 3] @ 100\n    {}\n    next: {}\n"

LOOPS = {
    "gated": "  z: sigmoid(linear(x, 4) + linear(h[t-1], 4))\n  h: z * h[t-1] + (1 - z) * tanh(linear(x, 4))\n",
    "two values": "  a: tanh(linear(x, 3)) + 0.5 * b[t-1]\n  b: a * 0.9 + tanh(a[t-2])\n  h: cat(a, b)\n",
    "history of more": "  h: tanh(linear(cat(h, x)[t-1], 4))\n",
    "memory inside": "  h: tanh(h[t-1] |> conv(3, k=3)) + x\n",
    "record inside": "  r: h[t-1] |> linear(6) |> split(a=3, b=3)\n  h: tanh(r.a) * x + r.b\n",
    "affine": "  h: sigmoid(x) * h[t-1] - 0.3 * x\n",
    "affine constant": "  h: (0.5 * h[t-1] + x) / 2\n",
    "companion": "  h: 1.2 * h[t-1] - 0.5 * h[t-2] + 0.1 * h[t-3] + x\n",
    "matrix state": "  h: expand(sigmoid(x), -1) * h[t-1] + outer(x, linear(x, 2))\n",
    "learned start": "  h: tanh(c) + x\n" + CELL.format("init: learned", "h * 0.5"),
    "two loops": "  u: 0.9 * u[t-1] + x\n  h: tanh(h[t-1] + u)\n",
}


@pytest.mark.parametrize("name", LOOPS)
def test_step_is_whole(name: str) -> None:
    m = model(f"{HEAD}graph:\n{LOOPS[name]}outputs: [h]\n")
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 37, 3, generator=g, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.4)
    weights = [x, *m.parameters()]
    whole = m({"x": x})["h"]
    pull = torch.randn(whole.shape, generator=g, dtype=torch.float64)
    wanted = torch.autograd.grad((whole * pull).sum(), weights, allow_unused=True)
    for cuts in ([37], [1] * 37, [5, 1, 20, 11]):
        state, prepared, at, out = m.init_state(2, x.detach()), m.prepare(), 0, []
        for n in cuts:
            y, state = m.step({"x": x[:, at : at + n]}, state, prepared)
            out.append(y["h"])
            at += n
        stepped = torch.cat(out, 1)
        assert (stepped - whole).abs().max() < 1e-10
        found = torch.autograd.grad((stepped * pull).sum(), weights, allow_unused=True)
        for a, b in zip(found, wanted, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or (a - b).abs().max() < 1e-9
    with torch.no_grad():  # nothing of the future
        other = x.clone()
        other[:, 20:] = float("nan")
        assert torch.equal(m({"x": other})["h"][:, :20], m({"x": x})["h"][:, :20])


def test_a_scan_is_the_loop_it_stands_for() -> None:
    """The same equations once affine, once with a non-linear member that changes nothing."""
    body = "  h: sigmoid(x) * {} - 0.3 * x\n"
    x = torch.randn(2, 50, 3, dtype=torch.float64)
    found: list[Any] = []
    for past in ("h[t-1]", "minimum(h[t-1], 1e9)"):
        c = checked(f"{HEAD}graph:\n{body.format(past)}outputs: [h]\n")
        found.append((kinds(c)["h"], lower(c).double()({"x": x})["h"]))
    assert [k for k, _ in found] == ["varying", "sequential"]
    assert (found[0][1] - found[1][1]).abs().max() < 1e-12


def test_loops_keep_time() -> None:
    c = checked(f"{HEAD}graph:\n  y: 0.9 * y[t-2] + x[t-3]\ncausal:\n  y: strict\noutputs: [y]\n")
    assert c.time.receptive_field(c.graph.outputs["y"], "x") == (float("inf"), -3)


def test_refusals_say_where() -> None:
    instant = refused(f"{HEAD}graph:\n  a: b + x\n  b: tanh(a)\n  c: c[t-1] + x\noutputs: [c]\n")
    assert [(c, n) for c, n, _ in instant] == [("GS0405", 6)] and "a -> b -> a" in instant[0][2]
    rates = refused(f"{HEAD}require: [T % 2 == 0]\ngraph:\n  h: x + (h[t-1] |> fold(2) |> unfold(2))\noutputs: [h]\n")
    assert {c for c, _, _ in rates} <= {"GS0407", "GS0408"}
    ahead = refused(f"{HEAD}graph:\n  h: x + (h[t-1] |> conv(3, k=3, centre=true))\noutputs: [h]\n")
    assert [c for c, _, _ in ahead] == ["GS0408"] and "looks ahead" in ahead[0][2]
    untyped = refused(f"{HEAD}graph:\n  h: h[t-1] |> tanh\noutputs: [h]\n")
    assert [(c, n) for c, n, _ in untyped] == [("GS0407", 6)]
    leak = refused(f"{HEAD}graph:\n  h: 0.5 * h[t-1] + x\ncausal:\n  h: strict\noutputs: [h]\n")
    assert [(c, n) for c, n, _ in leak] == [("GS0401", 8)]


WRONG = {
    "graph:\n  h: h[t-0] + x\n": "GS0123",
    "graph:\n  h: h[t-1].a + x\n": "GS0216",
    "graph:\n  h: h[t-1][t-1] + x\n": "GS0407",
    "graph:\n  r: split(r.a[t-1], a=1, b=2)\n  h: x + r.b\n": "GS0407",
    "graph:\n  c: x + c\n  h: c\n" + CELL.format("init: 0", "x"): "GS0224",
    "graph:\n  h: x\ncells:\n  x:\n    type: float[T, 3] @ 100\n    next: x\n": "GS0224",
    "graph:\n  h: c\n" + CELL.format("init: x", "c + x"): "GS0407",
    "graph:\n  h: c\n" + CELL.format("init: 0", "c"): "GS0190",
    "graph:\n  h: c\n" + CELL.format("per: update", "c + x"): "GS0190",
    "graph:\n  h: c\ncells:\n  c: 3\n": "GS0133",
    "graph:\n  h: c\ncells:\n  c:\n    type: float[T, 3] @ 100\n": "GS0506",
}


@pytest.mark.parametrize("body", WRONG)
def test_a_mistake_in_a_loop_is_told_once(body: str) -> None:
    assert {c for c, _, _ in refused(f"{HEAD}{body}outputs: [h]\n")} == {WRONG[body]}


RIGHT = {
    "a delay beside its loop": "graph:\n  u: 0.5 * u[t-2] + x\n  h: u[t-1]\n",
    "a cell that is no loop": "graph:\n  h: c\n" + CELL.format("init: 0.5", "x"),
    "several lags in a sum": "graph:\n  h: sum(h[t-i] * 0.2 for i in range(1, 4)) + x\n",
    "a loop in a block": "blocks:\n  b:\n    in: u\n    graph:\n      y: 0.5 * y[t-1] + u\n    out: y\n"
    "graph:\n  h: x |> repeat(3, b)\n",
}


@pytest.mark.parametrize("name", RIGHT)
def test_loops_are_verified(name: str) -> None:
    m = lower(checked(f"{HEAD}{RIGHT[name]}outputs: [h]\n"))
    assert [f.promise for f in verify(m, 24, 0)][0] == "whole == step == chunks"


def test_a_cell_may_require_a_scan() -> None:
    text = HEAD + CELL.format("require: parallel", "NEXT") + "graph:\n  y: c\noutputs: [y]\n"
    assert kinds(checked(text.replace("NEXT", "0.5 * c + x"))) == {"c": "constant"}
    (code, line, message), *rest = refused(text.replace("NEXT", "tanh(c) + x"))
    assert (code, line, rest) == ("GS0409", 8, []) and "tanh at line 9" in message
    (code, line, message), *rest = refused(text.replace("NEXT", "c * c + x"))
    assert code == "GS0409" and "'c * c'" in message


SAMPLED = """\
graphspec: 1
model: sampled
inputs:
  coarse: {type: 'int(16)[T, 1] @ 100', before: 8}
  fine: {type: 'int(16)[T, 1] @ 100', before: 0}
graph:
  c: coarse |> embed(8)
  f: fine |> embed(8)
  h: tanh(linear(cat(h, c, f)[t-1], 12))
  dist_c: h |> categorical(16)
  dist_f: cat(h, c) |> linear(8) |> tanh |> categorical(16)
causal:
  dist_c: strict
  dist_f: {coarse: 0, fine: strict}
losses:
  c_nll: nll(dist_c, coarse)
  f_nll: nll(dist_f, fine)
sample:
  feed:
    fine: draw(dist_f)
    coarse: draw(dist_c)
"""


def test_a_loop_is_sampled_and_a_feed_may_hear_another_of_its_tick() -> None:
    m = model(SAMPLED)
    drawn = Sampler(m, 2, seed=3).draw(40)
    view = m.entries["sample"]
    sampler = Sampler(m, 2, seed=3)
    noise = {v.path: sampler._drawn(v, 0, 40) for v in view.graph.values if v.noise is not None}
    again = view.evaluate([f.drawn for f in view.graph.feeds], drawn, noise)
    for feed, values in zip(view.graph.feeds, again, strict=True):
        assert torch.equal(values, drawn[feed.source.path])
    sampler.prefill({k: v[:, :23] for k, v in drawn.items()})
    rest = sampler.draw(17)
    assert all(torch.equal(rest[k], drawn[k][:, 23:]) for k in drawn)


def test_feeds_that_hear_each_other_are_refused() -> None:
    both = SAMPLED.replace("dist_c: h |> categorical(16)", "dist_c: cat(h, f) |> categorical(16)")
    both = both.replace("  dist_c: strict\n", "  dist_c: {fine: 0, coarse: strict}\n")
    assert [c for c, _, _ in refused(both)] == ["GS0403"]
