"""`eval`, `entries`, `sample`, `when`, defaults and features: views of one graph compute what the graph computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graphspec.cli.load import check_document, check_spec
from graphspec.compiler.lower import Model, lower
from graphspec.diagnostic import Findings, SpecError
from graphspec.reader import read_text
from graphspec.runtime.sample import Sampler

SKETCHES = Path(__file__).with_name("sketches")

AE = """\
graphspec: 1
model: ae
inputs:
  x: f32[T, 1] @ 16000
  knob: {type: f32, default: 2.0}
require: [T % 4 == 0]
shared: {tab: linear(4)}
graph:
  tau: cosine(step, 1, 0.1, over=100)
  z: x |> fold(4) |> linear(3) |> tanh
  n: normal_like(z)
  zn: z + n * tau
  parts: zn |> split(a=1, b=2)
  w: cat(parts.a, parts.b) |> tab
  y: (w * knob) |> unfold(4)
losses: {l: mean((y - x)**2)}
outputs: [y, zn]
"""


def compiled(text: str, *overrides: str) -> Model:
    return lower(check_document(read_text("m.yaml", text), SKETCHES, overrides)).double()


def told(text: str, *overrides: str) -> list[str]:
    """`code line` of everything that is said."""
    findings = Findings()
    try:
        check_document(read_text("m.yaml", text), SKETCHES, overrides, findings)
        found = findings.all()
    except SpecError as error:
        found = list(error.diagnostics)
    return [f"{d.code} {d.span.line}" for d in found if d.span]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 8, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def noise(model: Model, seed: int = 2) -> dict[str, torch.Tensor]:
    """A draw for the one random value of AE."""
    (v,) = [v for v in model.graph.values if v.noise is not None]
    return {v.path: torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)}


# ---- entries --------------------------------------------------------------------------------------------------------

ENTRIES = """\
entries:
  encode: {from: [x], to: [z]}
  decode: {from: [zn], to: [y]}
  quiet:
    from: [z]
    set: {zn: z}
    to: {out: y, level: 'mean(y)'}
  given: {from: [x, n], to: [y]}
  from_parts: {from: [parts.a, parts.b], to: [y |> tanh]}
  cold:
    from: [x, n]
    set: {tau: 0}
    to: [y]
"""


def test_entries_compute_what_the_forward_pass_does(x: torch.Tensor) -> None:
    model = compiled(AE + ENTRIES)
    e, drawn = model.entries, noise(compiled(AE + ENTRIES))
    full = model({"x": x, "step": torch.tensor([50.0])}, drawn)
    z = e["encode"].forward({"x": x})["z"]
    assert torch.equal(e["decode"].forward({"zn": full["zn"]})["y"], full["y"])
    n = next(iter(drawn.values()))
    assert torch.allclose(full["zn"], z + n * 0.55)
    given = e["given"].forward({"x": x, "n": n, "step": torch.tensor([50.0])})["y"]
    assert torch.allclose(given, full["y"])
    quiet = e["quiet"].forward({"z": z})
    assert torch.allclose(quiet["out"], e["decode"].forward({"zn": z})["y"])
    assert torch.allclose(quiet["level"].mean(), quiet["out"].mean())
    parts = {"parts.a": full["zn"][..., :1], "parts.b": full["zn"][..., 1:]}
    assert torch.allclose(e["from_parts"].forward(parts)["y |> tanh"], full["y"].tanh())
    assert torch.allclose(e["cold"].forward({"x": x, "n": n})["y"], quiet["out"])


def test_entries_use_the_models_own_tensors(x: torch.Tensor) -> None:
    model = compiled(AE + ENTRIES)
    before = model.entries["encode"].forward({"x": x})["z"]
    mine = {id(p) for p in model.parameters()}
    for view in model.entries.values():
        modules = view.modules_of.values()
        assert {id(p) for m in modules for p in m.parameters()} <= mine
    assert set(model.state_dict()) == set(compiled(AE).state_dict())
    with torch.no_grad():
        model.weights()["z.linear.weight"].mul_(2)
    assert not torch.equal(model.entries["encode"].forward({"x": x})["z"], before)


def test_dead_parts_vanish() -> None:
    graph = check_document(read_text("m.yaml", AE + ENTRIES), SKETCHES).graph
    decode = graph.entries["decode"]
    assert {n for n, i in decode.inputs.items() if not i.optional} == {"zn"}
    assert not any(v.path.startswith(("z.", "n.", "tau")) for v in decode.values)


WRONG = {
    "decode: {from: [parts.a], to: [y]}": "GS0520 19",
    "d: {from: [n], to: [y]}": "GS0520 19",
    "d: {from: [], to: [y]}": "GS0520 19",
    "d: {from: [parts], to: [y]}": "GS0521 19",
    "d: {from: [nope], to: [y]}": "GS0201 19",
    "d: {from: [x], to: [nope]}": "GS0201 19",
    "d: {from: [x], to: [5]}": "GS0217 19",
    "d: {from: [x], to: [parts]}": "GS0217 19",
    "d: {from: [x], to: []}": "GS0524 19",
    "d: {from: [x]}": "GS0524 19",
    "d: {from: x, to: [y]}": "GS0133 19",
    "d: {from: [x], to: y}": "GS0133 19",
    "d: [x]": "GS0133 19",
    "d: {set: {z: zn}, to: [y]}": "GS0506 19",
    "d: {from: [x], bogus: 1, to: [y]}": "GS0130 19",
    "d: {from: [x], set: {z: y}, to: [y]}": "GS0522 19",
    "d: {from: [x], set: {n: 0}, to: [y]}": "GS0522 19",
    "d: {from: [x], set: {tau: true}, to: [y]}": "GS0217 19",
    "d: {from: [x], set: {z: zn, zn: z}, to: [y]}": "GS0525 19",
    "d: {from: [x], set: {z: tanh(z)}, to: [y]}": "GS0525 19",
    "d: {from: [z], set: {z: zn}, to: [y]}": "GS0523 19",
    "d: {from: [x], set: {tau: 0.5}, to: [tau]}": "GS0524 19",
    "d: {from: [x], iterate: {}, to: [y]}": "GS0190 19",
}


@pytest.mark.parametrize("entry", WRONG)
def test_a_wrong_entry_is_told_at_its_line(entry: str) -> None:
    assert told(AE + "entries:\n  " + entry + "\n") == [WRONG[entry]]


def test_what_an_entry_lacks_is_told_with_the_way_to_it() -> None:
    with pytest.raises(SpecError) as raised:
        compiled(AE + "entries: {d: {from: [parts.a], to: [y]}}\n")
    (d,) = raised.value.diagnostics
    assert "'d' also needs 'x': x -> z -> zn -> parts -> w -> y" in d.message


def test_sample_is_there_once() -> None:
    assert told(AE + "sample: {from: [x], to: [y]}\nentries: {sample: {from: [x], to: [z]}}\n") == ["GS0224 19"]


def test_weights_of_an_entry_alone_are_refused() -> None:
    text = AE + "entries:\n  d:\n    from: [x]\n    set:\n      w: linear(zn, 4)\n    to: [y]\n"
    assert told(text) == ["GS0519 22"]
    assert told(AE + "eval:\n  w: linear(zn, 4)\n") == ["GS0519 19"]
    assert told(text.replace("linear(zn, 4)", "tab(zn)")) == []


# ---- eval -----------------------------------------------------------------------------------------------------------


def test_eval_replaces_random_values_outside_training(x: torch.Tensor) -> None:
    model = compiled(
        AE
        + "eval: {n: 0 * z}\nentries:\n  d: {from: [x], to: [y]}\n  own: {from: [x], set: {n: z, tau: 1}, to: [zn]}\n"
    )
    other = model.outside_training
    assert other is not model and not any(v.noise for v in other.graph.values)
    quiet = other.forward({"x": x, "step": torch.tensor([0.0])})
    z = model.evaluate([model.graph.named["z"]], {"x": x})[0]
    assert torch.allclose(quiet["zn"], z)
    assert torch.allclose(model.entries["d"].forward({"x": x, "step": torch.tensor([0.0])})["y"], quiet["y"]), (
        "it holds in entries"
    )
    assert torch.allclose(model.entries["own"].forward({"x": x})["zn"], 2 * z), "the entry's own set wins"
    loud = model({"x": x, "step": torch.tensor([0.0])}, noise(model))
    assert not torch.allclose(loud["y"], quiet["y"])
    assert torch.allclose(quiet["losses.l"].mean(), (quiet["y"] - x).square().mean())


def test_eval_of_a_schedule_and_of_a_number(x: torch.Tensor) -> None:
    model = compiled(AE + "eval: {tau: 0.25}\n")
    assert "step" not in model.outside_training.graph.inputs
    z = model.evaluate([model.graph.named["z"]], {"x": x})[0]
    drawn = noise(model)
    assert torch.allclose(model.outside_training.forward({"x": x}, drawn)["zn"], z + 0.25 * next(iter(drawn.values())))
    assert model.outside_training is not model and compiled(AE).outside_training is not None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{nope: 0}", "GS0201"),
        ("[tau]", "GS0133"),
        ("{y: 2}", "GS0522"),
        ("{n: 0 * n}", "GS0525"),
        ("{l: 0}", "GS0524"),
        ("{parts: z}", "GS0521"),
    ],
)
def test_a_wrong_eval(body: str, code: str) -> None:
    assert [t.split()[0] for t in told(AE + f"eval: {body}\n")] == [code]


# ---- feeds that are no inputs, sampled ------------------------------------------------------------------------------

SMALL = {
    "code_lm_delay": ("n_q=3", "K=6", "dim=16", "layers=2", "heads=2"),
    "code_lm_depth": ("n_q=3", "K=6", "dim=16", "deep=8"),
}


@pytest.mark.parametrize("sketch", SMALL)
@torch.no_grad()
def test_what_is_sampled_is_what_the_whole_form_draws(sketch: str) -> None:
    """Given everything that was drawn, and the same noise, the whole form draws each of it again."""
    model = lower(check_spec(str(SKETCHES / f"{sketch}.yaml"), SMALL[sketch]), seed=3).double()
    view, ticks = model.entries["sample"], 12
    (feed,) = view.graph.feeds
    noisy = [v for v in view.graph.values if v.noise is not None and v.op and not v.op.training_noise]

    def run(seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], Sampler]:
        sampler = Sampler(model, 2, seed, {"temperature": 0.7} if "temperature" in view.graph.inputs else {})
        out: dict[str, list[torch.Tensor]] = {}
        fed = []
        for _ in range(ticks):
            at = sampler.where[feed.source][sampler.tick % sampler.plan.block]
            for name, element in sampler._tick(None):
                out.setdefault(name, []).append(element)
            fed.append(at.of(sampler.registers).clone())
        return torch.cat(fed, 1), {n: torch.cat(each, 1) for n, each in out.items()}, sampler

    fed, played, sampler = run(5)
    knobs = {v.path: torch.tensor(k) for v, k in sampler.knobs.items()}
    noise = {v.path: sampler._drawn(v, 0, ticks) for v in noisy}
    again, *outputs = view.evaluate([feed.drawn, *view.graph.outputs.values()], {feed.source.path: fed, **knobs}, noise)
    assert torch.equal(again, fed)
    for name, whole in zip(view.graph.outputs, outputs, strict=True):
        assert torch.equal(played[name], whole), name
    assert fed.unique().numel() > 2 and not torch.equal(run(6)[0], fed)
    assert torch.equal(Sampler(model, 2, 5, {n: float(k) for n, k in knobs.items()}).draw(ticks)[name], played[name])


# ---- when, none, given, defaults, features --------------------------------------------------------------------------

COND = """\
graphspec: 1
model: cond
params: {mels: 0, loud: false}
inputs:
  x: f32[T, 1] @ 16000
  mel: {type: 'f32[N, mels] @ 16000/4', when: mels > 0}
  text: {type: 'int(9)[M, 1] @ static', default: none}
  env: {type: 'f32[N, 1] @ 16000/4', default: 'x |> fold(4) |> linear(1)'}
  gain: {type: f32, default: 0.5}
require:
  - T == N * 4
  - {is: mels == 3, when: mels > 0}
graph:
  c: mel |> linear(4) if given(mel) else none
  more: {is: env * 2, when: loud}
  h: (env |> linear(4)) + c if given(c) else env |> linear(4)
  y: (h * gain) |> unfold(4)
losses:
  l:
    is: (y - x)**2
    mask: x > 0
    weight: cosine(step, 1, 0, over=10)
  extra: {is: mean(more), when: loud}
outputs: [y]
entries:
  render: {from: [env, mel], to: [y]}
  featured: {from: [x, mel], to: [env]}
"""


def test_what_is_not_there_asks_for_nothing(x: torch.Tensor) -> None:
    plain = compiled(COND)
    assert set(plain.graph.inputs) == {"x", "gain", "step"}
    assert [t.name for t in plain.graph.losses] == ["l"] and "more" not in plain.graph.named
    made = compiled(COND, "mels=3", "loud=true")
    assert set(made.graph.inputs) == {"x", "mel", "gain", "step"}
    assert [t.name for t in made.graph.losses] == ["l", "extra"]
    assert {"c.linear.weight", "env.linear.weight"} <= set(made.state_dict())
    assert [n for n, i in made.entries["render"].graph.inputs.items() if not i.optional] == ["mel", "env"] or {
        n for n, i in made.entries["render"].graph.inputs.items() if not i.optional
    } == {"mel", "env"}


def test_a_feature_is_computed_unless_given(x: torch.Tensor) -> None:
    model = compiled(COND)
    y = model({"x": x, "step": torch.tensor([0.0])})["y"]
    env = model.entries["featured"].forward({"x": x})["env"]
    assert torch.allclose(model.entries["render"].forward({"env": env})["y"], y)
    assert not any(v.path.startswith("env") and v.op for v in model.entries["render"].graph.values)
    louder = model.entries["render"].forward({"env": env, "gain": torch.tensor([1.0])})["y"]
    assert torch.allclose(louder, 2 * y), "a number as default is a knob"


def test_masks_and_schedules_of_weights(x: torch.Tensor) -> None:
    model = compiled(COND)
    out = model({"x": x, "step": torch.tensor([5.0])})
    assert torch.equal(out["masks.l"].bool(), x > 0)
    assert torch.allclose(out["weights.l"].double(), torch.tensor(0.5).double(), atol=1e-6)
    assert torch.allclose(out["losses.l"], (out["y"] - x).square())


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("mels > 0}\n  text", "mel > 0}\n  text", "GS0201 6"),
        ("when: loud}\n  h", "when: x}\n  h", "GS0205 15"),
        ("if given(c) else", "if given(c, x) else", "GS0203 16"),
        ("h * gain", "h * more", "GS0217 17"),
        ("mask: x > 0", "mask: x", ""),
        ("mask: x > 0", "mask: env > 0", "GS0301 21"),
        ("weight: cosine(step, 1, 0, over=10)", "weight: y", "GS0306 22"),
        ("default: 0.5", "default: [1]", "GS0133 9"),
        ("x |> fold(4) |> linear(1)", "x |> fold(4) |> nope(1)", "GS0202 8"),
        ("x |> fold(4) |> linear(1)", "x |> linear(1)", "GS0315 8"),
        ("x |> fold(4) |> linear(1)", "h |> linear(1)", "GS0405 8"),
        ("mels == 3, when: mels > 0", "mels == 3, when: mels == 0", "GS0305 12"),
        ("mels == 3, when: mels > 0", "mels == 3, when: nope", "GS0201 12"),
    ],
)
def test_wrong_conditions_and_defaults(old: str, new: str, code: str) -> None:
    assert COND.count(old) == 1
    found = [t for t in told(COND.replace(old, new)) if not t.startswith(("GS0230", "GS0231"))]
    assert found == ([code] if code else [])
