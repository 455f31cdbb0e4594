"""Backends of the sampler: stages, tables and compiled ticks draw what the eager sampler draws, from any tick on."""

import pytest
import torch
from test_sampling import SAMPLERNN, STEREO, TAIL, WAVENET, Writer, compiled, recording

from graphspec.cli.load import compile_spec
from graphspec.compiler.plan import schedule
from graphspec.diagnostic import SpecError
from graphspec.runtime import backend as backends
from graphspec.runtime import backend_aoti
from graphspec.runtime.agreement import disagreements
from graphspec.runtime.backend import Calls, Unbuildable, ranked
from graphspec.runtime.backend_cuda_graph import CudaGraphBackend
from graphspec.runtime.sample import Sampler
from graphspec.runtime.ticks import Ticks

SMALL = ("d=16", "depth=1", "bits=4", "state=8")


def staged(sampler):
    """The backend of stages that are not compiled: the tables by themselves."""
    ticks = Ticks(sampler)
    made = Calls(sampler, ticks, [lambda flat, s=s: s(*flat) for s in ticks.stages])
    made.load()
    return made


def sharp(model):
    with torch.no_grad():
        model.weights()["dist.categorical.weight"].mul_(6)
    return model


@pytest.fixture(scope="module")
def small():
    return sharp(compile_spec("sashimi_small", SMALL))


def same_or_at_an_edge(model, rows, fast, knobs=None, prompt=None):
    """How many draws differ from eager's, held to what a backend drew [rows, n, C]; all at an edge."""
    eager = Sampler(model, rows, seed=0, knobs=knobs)
    if prompt is not None:
        eager.prefill({"wave": prompt})
    found = list(disagreements(eager, {"wave": fast}))
    assert all(excused for _, _, excused in found), found
    return len(found)


# ---- stages and tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [WAVENET, SAMPLERNN, STEREO], ids=["wavenet", "samplernn", "stereo"])
@pytest.mark.parametrize("prompt", [0, 1, 21, 32])
def test_stages_and_tables_are_the_sampler(text, prompt):
    model = compiled(text)
    wave = recording(model, 2, 32)
    eager, sampler = Sampler(model, 2, seed=0), Sampler(model, 2, seed=0)
    if prompt:
        eager.prefill({"wave": wave[:, :prompt]})
        sampler.prefill({"wave": wave[:, :prompt]})
    stages = staged(sampler)
    parts = [stages.draw(n, lambda done: None)["wave"] for n in (1, 40, 23)]
    assert torch.equal(torch.cat(parts, 1), eager.draw(64)["wave"])


def test_equal_ticks_share_a_stage(small):
    ticks = Ticks(Sampler(small, 1, seed=0))
    assert len(ticks.stages) == 3 and [t.stage for t in ticks.ticks] == [0, 0, 0, 1] * 3 + [0, 0, 0, 2]


def test_random_models_run_as_stages():
    done = 0
    for seed in range(30):
        try:
            model = compiled(Writer(seed).spec(TAIL), seed)
            schedule(model.graph)
        except SpecError:
            continue
        eager, sampler = Sampler(model, 2, seed=0), Sampler(model, 2, seed=0)
        assert torch.equal(staged(sampler).draw(60, lambda done: None)["wave"], eager.draw(60)["wave"]), seed
        done += 1
    assert done > 8


@pytest.mark.parametrize("spec, overrides", [
    ("wavernn", ("d=32",)), ("code_lm_delay_small", ()), ("transformer_small", ()), ("samplernn_small", ()),
])  # fmt: skip
def test_shipped_specs_run_as_stages(spec, overrides):
    model = compile_spec(spec, overrides)
    eager, sampler = Sampler(model, 2, seed=0), Sampler(model, 2, seed=0)
    wanted = eager.draw(40)
    stages = Ticks(sampler)
    if stages.growing is not None:
        with pytest.raises(Unbuildable) as caught:
            backends.built("onnx", sampler)
        assert stages.growing.path in str(caught.value)
        return
    found = staged(sampler).draw(40, lambda done: None)
    assert found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_a_block_as_fixed_buffers_is_the_sampler(small, monkeypatch):
    """What the CUDA graph would replay, run without one."""

    class Replayed:
        def __init__(self, backend):
            self.backend = backend

        def replay(self):
            self.backend.made = self.backend._run()

    def capture(self):
        self.noises = {(k, n): self._noise(k, n).clone() for k, t in enumerate(self.ticks.ticks) for n in range(1)}
        self.graph = Replayed(self)

    monkeypatch.setattr(CudaGraphBackend, "_capture", capture)
    sampler = Sampler(small, 2, seed=0)
    fixed = CudaGraphBackend(sampler, Ticks(sampler))
    fixed.load()
    parts = [fixed.draw(n, lambda done: None)["wave"] for n in (5, 43, 16)]
    assert torch.equal(torch.cat(parts, 1), Sampler(small, 2, seed=0).draw(64)["wave"])


def test_a_wrong_draw_is_told_from_one_at_an_edge(small):
    drawn = Sampler(small, 2, seed=0).draw(48)["wave"]
    assert not list(disagreements(Sampler(small, 2, seed=0), {"wave": drawn}))
    wrong = drawn.clone()
    wrong[1, 20, 0] = (wrong[1, 20, 0] + 7) % 16
    found = list(disagreements(Sampler(small, 2, seed=0), {"wave": wrong}))
    assert found[0] == (20, "wave", False)
    sampler = Sampler(small, 16, seed=0)  # noise moved across a step of the distribution function, by little
    real = sampler._drawn
    other = Sampler(small, 16, seed=0)
    other._drawn = lambda *given: (real(*given) + 5e-5).clamp(max=1 - 2**-24)
    moved = other.draw(320)["wave"]
    found = list(disagreements(sampler, {"wave": moved}))
    assert 1 <= len(found) < 60 and all(excused for _, _, excused in found)


# ---- ONNX Runtime ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.7, "top_p": 0.8}, {"temperature": 0.0}], ids=str)
@pytest.mark.parametrize("prompt", [0, 21])
def test_onnx_runtime_draws_what_eager_draws(small, knobs, prompt):
    pytest.importorskip("onnxruntime")
    sampler = Sampler(small, 2, seed=0, knobs=knobs, backend="onnx")
    wave = recording(small, 2, prompt) if prompt else None
    if prompt:
        sampler.prefill({"wave": wave})
    fast = torch.cat([sampler.draw(n)["wave"] for n in (7, 250, 43)], 1)
    assert sampler.chosen == "onnx" and fast.dtype == torch.int64
    assert same_or_at_an_edge(small, 2, fast, knobs, wave) <= 2


@pytest.mark.parametrize("text", [WAVENET, SAMPLERNN, STEREO], ids=["wavenet", "samplernn", "stereo"])
def test_onnx_runtime_runs_other_schedules(text):
    pytest.importorskip("onnxruntime")
    model = compiled(text).float()
    fast = Sampler(model, 3, seed=0, backend="onnx").draw(70)["wave"]
    assert same_or_at_an_edge(model, 3, fast) <= 2


def test_neither_batch_nor_chunks_change_a_rows_samples_on_onnx_runtime(small):
    pytest.importorskip("onnxruntime")
    three = Sampler(small, 3, seed=0, backend="onnx").draw(40)["wave"]
    one = Sampler(small, 1, seed=0, first_row=1, backend="onnx")
    assert torch.equal(three[1:2], torch.cat([one.draw(n)["wave"] for n in (11, 29)], 1))


def test_several_feeds_and_values_on_onnx_runtime():
    pytest.importorskip("onnxruntime")
    model = compile_spec("wavernn", ("d=32",))
    fast = Sampler(model, 2, seed=0, backend="onnx").draw(60)
    eager = Sampler(model, 2, seed=0).draw(60)
    assert fast.keys() == eager.keys() and all(fast[n].shape == eager[n].shape for n in fast)
    assert all((fast[n] == eager[n]).double().mean() > 0.9 for n in fast)


# ---- AOTInductor -----------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_aoti_draws_what_eager_draws_and_takes_new_weights_from_its_cache(small, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fast = Sampler(small, 2, seed=0, backend="aoti").draw(300)["wave"]
    assert same_or_at_an_edge(small, 2, fast) <= 2

    def never(*given):
        raise AssertionError("compiled again")

    monkeypatch.setattr(backend_aoti, "compiled", never)
    other = sharp(compile_spec("sashimi_small", SMALL))
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    again = Sampler(other, 2, seed=0, backend="aoti").draw(300)["wave"]
    assert not torch.equal(again, fast) and same_or_at_an_edge(other, 2, again) <= 2


def test_the_key_of_a_stage_knows_what_it_compiles(small):
    def key(model, rows=1, n=0, **given):
        return backend_aoti.key_of(Ticks(Sampler(model, rows, seed=0, backend="aoti", **given)), n)

    assert key(small) == key(sharp(compile_spec("sashimi_small", SMALL)))
    others = [key(small, rows=2), key(small, n=1), key(small, knobs={"temperature": 0.5})]
    assert key(small, knobs={"temperature": 0.5}) == key(small, knobs={"temperature": 0.6})
    others.append(key(compile_spec("sashimi_small", ("d=16", "depth=1", "bits=4", "state=16"))))
    assert len({key(small), *others}) == 5


# ---- the choice ------------------------------------------------------------------------------------------------------


def test_auto_repays_the_build(small, monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda name, device: "no GPU" if name == "cuda_graph" else "")
    monkeypatch.setattr(backends, "_cached", lambda stages: False)
    sampler = Sampler(small, 1, seed=0)
    assert ranked(sampler, 16)[0] == "eager"
    assert ranked(sampler, 100_000)[0] == "onnx"
    assert ranked(sampler, 100_000_000)[0] == "aoti"
    monkeypatch.setattr(backends, "_cached", lambda stages: True)
    assert ranked(sampler, 100_000)[0] == "aoti"
    monkeypatch.setattr(backends, "installed", lambda name, device: "none")
    assert ranked(sampler, 100_000_000) == ["eager"]


def test_auto_falls_back_and_a_named_backend_does_not(small, monkeypatch):
    from graphspec.runtime import backend_onnx

    def broken(*given):
        raise RuntimeError("no such op\nmore")

    monkeypatch.setattr(backend_onnx, "onnx_bytes", broken)
    monkeypatch.setattr(backends, "ranked", lambda sampler, ticks: ["onnx", "eager"])
    told = []
    auto = Sampler(small, 1, seed=0, backend="auto", warn=told.append)
    assert torch.equal(auto.draw(20)["wave"], Sampler(small, 1, seed=0).draw(20)["wave"])
    assert auto.chosen == "eager" and len(told) == 1 and "GS0645" in told[0] and "no such op" in told[0]
    with pytest.raises(SpecError, match="GS0645"):
        Sampler(small, 1, seed=0, backend="onnx").draw(20)
    with pytest.raises(SpecError, match="GS0645"):
        Sampler(small, 1, seed=0, backend="fast")


def test_a_stage_that_computes_something_else_is_refused(small, monkeypatch):
    pytest.importorskip("onnxruntime")
    from graphspec.runtime import backend_onnx

    real = backend_onnx.call_of

    def wrong(*given):
        call = real(*given)
        return lambda flat: [t * 1.01 if t.is_floating_point() else t for t in call(flat)]

    monkeypatch.setattr(backend_onnx, "call_of", wrong)
    with pytest.raises(SpecError, match="not what eager computes"):
        Sampler(small, 1, seed=0, backend="onnx").draw(5)
