"""Every shipped spec, at a reduced size: it lints without a word, its causality holds, it trains, it samples.

What is claimed under `causal:` is proven by the compiler and, independently of it, found by changing the future.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from graphspec.cli.load import check_spec, shipped
from graphspec.compiler.lower import Model, lower
from graphspec.diagnostic import Findings
from graphspec.runtime import data as datasets
from graphspec.runtime.data import crop_lengths
from graphspec.runtime.run import new_run
from graphspec.runtime.sample import Sampler
from graphspec.runtime.train import train

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Small:
    """Overrides that make a spec small, and the length of its crops in ticks of its first axis."""

    params: tuple[str, ...]
    crop: int
    codes: tuple[int, int] | None = None  # (streams, classes), where it is trained on codes


SASHIMI = Small(("d=8", "depth=1", "bits=4", "state=8"), 64)
WAVENET = Small(("width=6", "skips=8", "layers=4", "cycle=2"), 48)
TRANSFORMER = Small(("d=8", "layers=2", "heads=2", "window=8", "bits=4"), 48)
SAMPLERNN = Small(("d=8", "near=4", "slow=8", "mid=4"), 64)
CODES = Small(("n_q=3", "K=6", "dim=8", "layers=2", "heads=2"), 24, codes=(3, 6))
MAMBA = Small(("d=16", "depth=2", "n=4"), 48)
WAVERNN = Small(("d=16",), 48)
SMALL = {
    "filters": Small((), 64),
    "mamba": MAMBA,
    "wavernn": WAVERNN,
    "sashimi": SASHIMI,
    "sashimi_small": SASHIMI,
    "sashimi_unet": SASHIMI,
    "wavenet": WAVENET,
    "wavenet_small": WAVENET,
    "transformer": TRANSFORMER,
    "transformer_small": TRANSFORMER,
    "samplernn": SAMPLERNN,
    "samplernn_small": SAMPLERNN,
    "code_lm_delay": CODES,
    "code_lm_delay_small": CODES,
    "sashimi_dml": SASHIMI,
    "sashimi_small_dml": SASHIMI,
    "sashimi_modular": SASHIMI,
    "sashimi_unet_modular": SASHIMI,
}
SPECS = sorted(p.stem for p in shipped().glob("*.yaml"))
DATA = [f"sashimi_{data}" for data in ("sc09", "youtubemix", "beethoven", "musdb18_mono", "musdb18_stereo")]
DATA += [f"{name}_dml" for name in DATA]  # the same graphs with data of their own
DATA += ["sashimi_ordered"]  # two feeds: in test_ordered
SMALL |= dict.fromkeys(DATA, SASHIMI)
DDSP = Small(("width=6", "memory=6", "harmonics=6", "bands=5"), 2048)
SMALL |= {p.stem: DDSP for p in shipped().glob("ddsp_*.yaml")}
DATA += [name for name in SMALL if name.startswith("ddsp_")]  # what they do is in test_ddsp
_LARGER = {name.replace("_small", "") for name in SPECS if "_small" in name}
BASES = [n for n in SPECS if n not in DATA and not ("_small" in n and n.replace("_small", "") in _LARGER)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield torch.set_num_threads(1)
    torch.set_num_threads(before)


def small(name: str) -> Small:
    if name not in SMALL:
        pytest.fail(f"say in SMALL how '{name}' becomes small")
    return SMALL[name]


def built(name: str) -> Model:
    """The small model in float64, with weights that make what it says depend on what it hears."""
    model = lower(check_spec(name, small(name).params)).double()
    with torch.no_grad():
        for path, w in model.weights().items():
            if path.startswith("dist") and w.dim() > 1:
                w.mul_(6)
    return model


def drawn(given, rows: int, ticks: int, seed: int = 0) -> torch.Tensor:
    """`[rows, ticks, ...]` of an input, of its classes or normal."""
    type_ = given.value.type
    sizes = [d.as_int() for d in type_.after_time]
    generator = torch.Generator().manual_seed(seed)
    if type_.dtype.classes is None:
        return torch.randn(rows, ticks, *sizes, generator=generator, dtype=torch.float64)
    return torch.randint(type_.dtype.classes, (rows, ticks, *sizes), generator=generator)


@pytest.mark.parametrize("name", SPECS)
def test_a_shipped_spec_lints_without_a_word(name):
    findings = Findings()
    checked = check_spec(name, (), findings)
    assert [f"{d.code}: {d.message}" for d in findings.all()] == []
    assert checked.graph.assertions and checked.graph.doc and checked.graph.name == name
    first = (shipped() / f"{name}.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=graphspec-1.schema.json"


@pytest.mark.parametrize("name", SPECS)
def test_the_small_variants_are_still_of_the_shipped_shape(name):
    """The overrides above make the model small, and leave every op of the shipped one in it."""
    whole, reduced = (check_spec(name, params).graph for params in ((), small(name).params))
    assert {v.op.name for v in whole.values if v.op} == {v.op.name for v in reduced.values if v.op}
    assert len(reduced.values) <= len(whole.values)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_the_future_is_not_heard(name):
    """For each claim: change one tick of the source, and nothing moves that may not hear it; the tick after does."""
    model, ticks = built(name), small(name).crop
    for claim in model.graph.assertions:
        for source in claim.sources:
            # A source that is computed is given from outside in the sampler's view.
            view = model if source.is_input else model.entries["sample"]
            (path,) = [n for n in view.graph.inputs if source.path == n or source.path.startswith(f"{n}.")]
            (value,) = [v for v in view.graph.values if v.path == claim.value.path]
            timed = {n: i for n, i in view.graph.inputs.items() if i.value.type.timed}
            inputs = {n: drawn(i, 1, ticks) for n, i in timed.items()}
            changed = inputs[path].expand(ticks, *inputs[path].shape[1:]).clone()
            at = torch.arange(ticks)
            changed[at, at] += 1
            if classes := timed[path].value.type.dtype.classes:
                changed %= classes
            (before,) = view.evaluate([value], inputs)
            every = {n: x.expand(ticks, *x.shape[1:]) for n, x in inputs.items()}
            (after,) = view.evaluate([value], {**every, path: changed})
            moved = ((after - before).abs() > 1e-12).flatten(2).any(-1)  # [changed tick, tick of the value]
            late = 1 if claim.allowed == "strict" else 0
            assert claim.allowed in ("strict", 0)
            assert not moved.tril(late - 1).any(), "the change moves what is at its tick, or before it"
            assert torch.diagonal(moved, late).all(), "the last tick that may be heard is not"


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_sampled_is_whole(name):
    """The sampler, held to a recording tick by tick, says what the whole form says of it; a prompt changes nothing."""
    model, ticks = built(name), small(name).crop
    if "sample" not in model.entries:
        pytest.skip("it has no sample:")
    view = model.entries["sample"]
    sampler = Sampler(model, 2, seed=0)
    if len(sampler.plan.fed) > 1:
        pytest.skip("two feeds in one tick are sampled in test_loops")
    ((source, event),) = sampler.plan.fed
    dist = event.operands[0]
    wave = drawn(view.graph.inputs[source.path], 2, ticks)
    (whole,) = view.evaluate([dist], {source.path: wave})
    prompt = ticks // 2 + 3
    for first in (0, prompt):
        sampler = Sampler(model, 2, seed=0)
        if first:
            sampler.prefill({source.path: wave[:, :first]})
        said = []
        for t in range(first, ticks):
            place = sampler.where[dist][sampler.tick % sampler.plan.block]
            sampler._tick({source.path: wave[:, t : t + 1]})
            said.append(place.of(sampler.registers))
        error = (torch.cat(said, 1) - whole[:, first:]).abs().max() / whole.abs().max()
        assert error < TOLERANCE, f"after a prompt of {first}: {error:.1e}"
    played = Sampler(model, 2, seed=0).draw(40)
    assert {x.shape[:2] for x in played.values()} == {(2, 40)}
    assert all(len(x.unique()) > 2 for x in played.values())


@pytest.mark.parametrize("name", BASES)
def test_three_updates_at_a_small_size(name, tmp_path):
    size = small(name)
    overrides = [*size.params, "train.batch=2", "train.steps=3", "train.log_every=1"]
    axis = next(iter(check_spec(name, size.params).settings.crop))
    overrides.append(f"train.crop.{axis}={size.crop}")
    if size.codes:
        streams, classes = size.codes
        for i in range(4):
            array = np.random.default_rng(i).integers(classes, size=(100, streams), dtype=np.uint8)
            np.save(tmp_path / f"{i}.npy", array)
        overrides.append(f"data={tmp_path}")
    else:
        overrides.append("data.wave=corpus(pieces=4, seconds=0.5)")
    checked = check_spec(name, overrides)
    data = datasets.load(checked, Path("."), print, crop_lengths(checked))
    model = lower(checked, seed=0)
    before = {n: w.clone() for n, w in model.weights().items()}
    run = new_run(str(tmp_path / "run"), checked, name, overrides, 1)
    rows = []
    outcome = train(model, data, run, tell=lambda step, row: rows.append(dict(row)))
    names = [f"loss.{t.name}" for t in model.graph.losses]
    losses = [sum(row[n] for n in names) for row in rows if names[0] in row]
    assert outcome.step == 3 and len(losses) == 3 and np.isfinite(losses).all() and len(set(losses)) == 3
    graph = model.graph
    trained = {v.weights_path for v in graph.needed_for([t.value for t in graph.losses])}
    still = [n for n, w in model.weights().items() if n.rpartition(".")[0] in trained and torch.equal(w, before[n])]
    assert still == [], "these weights did not move"
    assert len({n for n in before if n.rpartition(".")[0] not in trained}) <= 2  # WaveNet's last layer has a way on
    assert all(np.isfinite(x) for x in outcome.last.values())
