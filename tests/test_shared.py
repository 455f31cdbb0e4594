"""`shared:`: one set of weights wherever the name stands; lists of instances, faces, blocks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graphspec.cli.load import check_document
from graphspec.compiler.lower import Model, lower
from graphspec.diagnostic import Findings, SpecError
from graphspec.reader import read_text

HEAD = """\
graphspec: 1
model: m
inputs:
  x: float[T, 4] @ 16000
  c: int(5)[T, 1] @ 16000
"""
BLOCKS = """\
blocks:
  blk:
    params: {units: 4}
    in: {v: 'float[T, k]'}
    graph:
      h: v |> linear(units) |> tanh
    out: v + linear(h, k)
  wrap:
    params: {body: stage}
    in: v
    out: v + (v |> body)
"""


def compiled(body: str) -> Model:
    return lower(check_document(read_text("m.yaml", HEAD + body), Path("."))).double()


def told(body: str) -> list[str]:
    findings = Findings()
    try:
        check_document(read_text("m.yaml", HEAD + body), Path("."), (), findings)
        found = findings.all()
    except SpecError as error:
        found = list(error.diagnostics)
    return [d.code for d in found if d.code != "GS0231"]


def at(model: Model, name: str, x: torch.Tensor) -> torch.Tensor:
    return model({"x": x, "c": torch.zeros(*x.shape[:2], 1, dtype=torch.long)})[name]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# (shared, blocks?, graph a, the weights)
USES = [
    ("f: linear(4)", "x |> f |> f", {"f"}),
    ("f: linear(4)", "f(x) + f(tanh(x))", {"f"}),
    ("f: linear(4)", "x |> repeat(3, f)", {"f"}),
    ("f: linear(4)", "x |> wrap(f) |> wrap(f)", {"f"}),
    ("f: linear(4)\n  g: wrap(f)", "x |> f |> g |> g", {"f"}),
    ("f: blk", "x |> f |> f + f(x)".replace("f + f(x)", "f"), {"f.h.linear", "f.linear"}),
    ("f: blk(units=3)", "x |> f |> wrap(f)", {"f.h.linear", "f.linear"}),
    ("f: blk", "f(f(x))", {"f.h.linear", "f.linear"}),
    ("f: linear(3) |> tanh |> linear(4)", "x |> f |> f", {"f.linear", "f.linear_2"}),
    ("f: repeat(2, linear(4) |> tanh)", "x |> f |> f", {"f.0.linear", "f.1.linear"}),
    ("f: list(linear(4) for i in range(2))", "x |> repeat(b for b in f) |> repeat(b for b in f)", {"f.0", "f.1"}),
    ("f: list(linear(4), gru(4))", "sum(x |> b for b in f)", {"f.0", "f.1"}),
    ("f: list(linear(4) for i in range(2))", "sum(x |> wrap(b) for b in f + f)", {"f.0", "f.1"}),
    ("f: {op: linear, units: 4}", "x |> f |> f", {"f"}),
    ("f: tanh", "x |> f |> f", set()),
    ("f: dropout(0.5)", "(x |> f) + (x |> f)", set()),
]


@pytest.mark.parametrize(("shared", "graph", "owners"), USES, ids=lambda x: x if isinstance(x, str) else "")
def test_every_use_has_the_same_weights(shared: str, graph: str, owners: set[str]) -> None:
    model = compiled(f"{BLOCKS}shared:\n  {shared}\ngraph:\n  a: {graph}\noutputs: [a]\n")
    assert {k.rpartition(".")[0] for k in model.state_dict()} == owners
    assert all(model.tags()[k] is not None for k in model.state_dict())


def test_two_uses_are_two_applications_and_their_gradients_add_up(x: torch.Tensor) -> None:
    model = compiled("shared: {f: linear(4)}\ngraph:\n  a: x |> f |> tanh |> f\noutputs: [a]\n")
    w, b = model.weights()["f.weight"], model.weights()["f.bias"]
    y = at(model, "a", x)
    linear = torch.nn.functional.linear
    v = [w.detach().clone().requires_grad_(True) for _ in range(2)]
    expected = linear(linear(x, v[0], b).tanh(), v[1], b)
    assert torch.allclose(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert w.grad is not None
    assert torch.allclose(w.grad, v[0].grad + v[1].grad)  # type: ignore[operator]


def test_an_instance_in_repeat_beside_an_op_of_each_copys_own(x: torch.Tensor) -> None:
    model = compiled("shared: {f: linear(4)}\ngraph:\n  a: x |> repeat(2, f |> linear(4) |> tanh)\noutputs: [a]\n")
    w = model.weights()
    own = sorted(k for k in w if not k.startswith("f."))
    assert len(own) == 4 and all(k.startswith(("a.0.", "a.1.")) for k in own)
    y = x
    for i in range(2):
        y = y @ w["f.weight"].T + w["f.bias"]
        bias, weight = own[2 * i : 2 * i + 2]
        y = (y @ w[weight].T + w[bias]).tanh()
    assert torch.allclose(at(model, "a", x), y)


def test_states_belong_to_each_use(x: torch.Tensor) -> None:
    model = compiled("shared: {g: gru(4)}\ngraph:\n  a: x |> g |> g\noutputs: [a]\n")
    whole = at(model, "a", x)
    state, prepared, pieces = model.init_state(2, x), model.prepare(), []
    for t in range(x.shape[1]):
        y, state = model.step({"x": x[:, t : t + 1]}, state, prepared)
        pieces.append(y["a"])
    assert torch.allclose(torch.cat(pieces, 1), whole)


def test_an_instance_learns_while_its_copies_do_not(x: torch.Tensor) -> None:
    shared = compiled("shared: {f: linear(4)}\ngraph:\n  a: x |> f |> f\noutputs: [a]\n")
    apart = compiled("graph:\n  a: x |> linear(4) |> linear(4)\noutputs: [a]\n")
    assert len(shared.state_dict()) == 2 and len(apart.state_dict()) == 4


WRONG = {
    "shared: {f: linear(4)}\ngraph: {a: x |> f, b: 'f(cat(x, x))'}\noutputs: [a]\n": "GS0517",
    "shared: {f: linear(4)}\ngraph: {a: tanh(x)}\noutputs: [a]\n": "GS0518",
    "shared: {f: linear(4)}\ngraph: {a: tanh(x)}\nentries: {e: {from: [a], to: [a |> f]}}\n": "GS0519",
    "shared: {f: linear(4)}\ngraph: {a: tanh(x)}\nlosses: {l: mean(a)}\neval: {a: f(x)}\n": "GS0519",
    "graph: {a: tanh(x)}\nlosses: {l: mean(a)}\nentries: {e: {from: [a], to: [a |> gru]}}\n": "GS0203",
    "shared: {f: embed(4)}\ngraph: {b: x |> f.logits}\noutputs: [b]\n": "GS0519",
    "shared: {f: embed(4)}\ngraph: {a: c |> f, b: x |> f.nope}\noutputs: [a, b]\n": "GS0216",
    "shared: {f: embed(4)}\ngraph: {a: c |> f(3)}\noutputs: [a]\n": "GS0203",
    "shared: {f: linear}\ngraph: {a: x |> f}\noutputs: [a]\n": "GS0203",
    "shared: {x: linear(4)}\ngraph: {a: tanh(x)}\noutputs: [a]\n": "GS0224",
    "shared: {a: linear(4)}\ngraph: {a: tanh(x)}\noutputs: [a]\n": "GS0224",
    "shared: {f: linear(4)}\ngraph: {a: x + f}\noutputs: [a]\n": "GS0217",
    "shared: {f: linear(4)}\ngraph: {a: f()}\noutputs: [a]\n": "GS0203",
    "shared: [linear(4)]\ngraph: {a: tanh(x)}\noutputs: [a]\n": "GS0133",
    "shared:\n  f: list(linear(4) for i in range(2))\ngraph: {a: x |> f}\noutputs: [a]\n": "GS0219",
}


@pytest.mark.parametrize("body", WRONG, ids=lambda b: b.replace("\n", "; "))
def test_what_is_refused_or_warned_of(body: str) -> None:
    assert WRONG[body] in told(body)


def test_faces_use_the_instances_weights(x: torch.Tensor) -> None:
    graph = "shared: {f: embed(4)}\ngraph:\n  a: c |> f\n  b: x |> f.logits\n  w: f.weight\noutputs: [a, b, w]\n"
    model = compiled(graph)
    table = model.weights()["f.weight"]
    assert set(model.state_dict()) == {"f.weight"}
    assert table.shape[-2:] == (5, 4)
    out = model({"x": x, "c": torch.full((2, 6, 1), 3)})
    rows = table.reshape(5, 4)
    assert torch.equal(out["a"], rows[3].expand(2, 6, 4))
    assert torch.allclose(out["b"], x @ rows.T)
    assert torch.equal(out["w"].reshape(5, 4), rows)
    (out["a"].sum() + out["b"].sum()).backward()
    assert table.grad is not None
    once, scored = torch.zeros_like(rows), x.sum((0, 1)).expand(5, 4)
    once[3] = 12
    assert torch.allclose(table.grad.reshape(5, 4), once + scored), "what it is looked up for and what it scores add up"
