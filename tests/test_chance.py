"""Random values: their types in a spec, and what noise becomes."""

from pathlib import Path

import pytest
import torch

from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.diagnostic import SpecError
from graphspec.ops import catalogue
from graphspec.ops.modules.chance import RandomInt
from graphspec.reader import read_text
from graphspec.runtime.chance import Noise

torch.set_num_threads(1)


def spec(expression, more=""):
    text = "graphspec: 1\nmodel: m\ninputs:\n  x: float[T, 3] @ 100\n"
    text += f"graph:\n  y: {expression}\n{more}outputs: [y]\n"
    return check_document(read_text("m.yaml", text), Path(__file__).parent)


@pytest.mark.parametrize(
    ("expression", "of", "noise"),
    [
        ("uniform()", "f32[]", "f32[]"),
        ("normal()", "f32[]", "f32[]"),
        ("random_int(1, 9)", "int(9)[]", "f32[]"),
        ("uniform_like(x)", "f32[T, 3] @ 100 Hz", "f32[T, 3] @ 100 Hz"),
        ("x |> quantise |> normal_like", "f32[T, 3] @ 100 Hz", "f32[T, 3] @ 100 Hz"),
    ],
)
def test_types_and_noise(expression, of, noise):
    y = spec(expression).graph.named["y"]
    assert str(y.type) == of and str(y.noise) == noise


def test_they_are_drawn_outside_training_too():
    for name in ("uniform", "normal", "random_int", "uniform_like", "normal_like"):
        assert catalogue().ops[name].noise and not catalogue().ops[name].training_noise


def test_two_calls_are_two_draws_and_one_name_is_one():
    two = lower(spec("uniform() - uniform()"))
    noises = [v for v in two.values if v.noise is not None]
    assert len({v.path for v in noises}) == 2
    noise = {v.path: torch.tensor([0.25 + i, 0.5]) for i, v in enumerate(noises)}
    assert torch.equal(two({}, noise)["y"], torch.tensor([-1.0, 0.0]))
    one = lower(spec("u - u", "  u: uniform()\n"))
    (v,) = [v for v in one.values if v.noise is not None]
    assert torch.equal(one({}, {v.path: torch.tensor([0.25, 0.5])})["y"], torch.zeros(2))


def test_the_noise_of_a_run_is_that_of_its_elements_and_rows():
    graph = spec("dropout(uniform_like(x) + s + dropout(normal(), 0.5), 0.5)", "  s: uniform()\n").graph
    noisy = {v.op.name: v for v in graph.values if v.noise is not None and v.op.name != "dropout"}
    like = torch.empty(0, dtype=torch.float64)
    noise, timed = Noise(3, torch.arange(4), like), noisy["uniform_like"]
    whole = noise.of(graph.values, lambda v: 10)
    assert {n: x.shape for n, x in whole.items()} == {
        timed.path: (4, 10, 3),
        noisy["uniform"].path: (4,),
        noisy["normal"].path: (4,),
    }
    parts = [noise(timed, first, count) for first, count in ((0, 3), (3, 6), (9, 1))]
    assert torch.equal(torch.cat(parts, 1), whole[timed.path])
    assert torch.equal(Noise(3, torch.arange(2, 4), like)(timed, 0, 10), whole[timed.path][2:])
    assert not torch.equal(Noise(4, torch.arange(4), like)(timed, 0, 10), whole[timed.path])
    dropped = [v for v in graph.values if v.op is not None and v.op.name == "dropout"]
    assert len(dropped) == 2 and all(noise(v, 0, 1) is None for v in dropped)  # random in training only


def test_random_int_is_even_over_its_range():
    u = (torch.arange(6000) + 0.5) / 6000
    drawn = RandomInt(2, 5)(noise=u)
    assert drawn.dtype == torch.int64 and drawn.bincount().tolist() == [0, 0, 2000, 2000, 2000]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_random_int_never_reaches_its_end(dtype):
    ends = torch.tensor([2.0**-24, 1 - 2.0**-24]).to(dtype)
    for high in (2, 3, 1000, 2**24 - 1):
        drawn = RandomInt(1, high)(noise=ends)
        assert drawn.min() >= 1 and drawn.max() <= high - 1


def test_an_empty_range_has_a_code():
    with pytest.raises(SpecError) as caught:
        spec("random_int(3, 3)")
    assert caught.value.diagnostics[0].code == "GS0305"
