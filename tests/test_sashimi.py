"""The shipped `sashimi` spec is the published model: one page of YAML meets every number of the tiny SaShiMi golden.

The golden was made by the reference implementation (S4D, d_model 8, 2 layers a stage, vocabulary 16). Its input tokens
are our wave[t-1]. Whole sequences, chunks and single ticks are held to the same numbers, in float64.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from graphspec.cli.load import check_spec, compile_spec
from graphspec.compiler.lower import meta
from graphspec.runtime.sample import Sampler

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-9
TINY = ("d=8", "depth=2", "bits=4", "state=64")
STAGES = {"m.residual": ("c_layers", 0), "y1.residual": ("u_layers/0", 1), "y0.residual": ("u_layers/1", 1)}
LEAVES = {
    "s4d.log_dt": "layer/layer/kernel/inv_dt",
    "s4d.log_a_re": "layer/layer/kernel/A_real",
    "s4d.a_im": "layer/layer/kernel/A_imag",
    "s4d.b": "layer/layer/kernel/B",
    "s4d.c": "layer/layer/kernel/C",
    "s4d.d": "layer/layer/D",
}
DENSE = {("ssm", "linear"): "layer/output_linear/0", ("ff", "linear"): "layer/ff/0/0", ("ff", "linear_2"): "layer/ff/2"}
PLACES = {  # what stands outside the repeated layers
    "x0.embed": "enc",
    "x1.down_pool.linear": "net/d_layers/0/linear",
    "x2.down_pool.linear": "net/d_layers/1/linear",
    "y1.up_pool.linear": "net/u_layers/0/0/linear",
    "y0.up_pool.linear": "net/u_layers/1/0/linear",
    "dist.layer_norm": "net/norm",
    "dist.categorical": "dec",
}
# The golden taps a pool's output after its rearranging, ours have one value for each.
TAPS = {
    "tap/net/d_layers/0": "x1.down_pool.linear",
    "tap/net/d_layers/1": "x2.down_pool.linear",
    "tap/net/u_layers/0/0": "y1.up_pool.unfold",
    "tap/net/u_layers/1/0": "y0.up_pool.unfold",
}
LAYER = re.compile(r"(\w+\.residual)\.(\d+)\.ssm_ff\.(ssm|ff)_res\.residual\.(.+)")


def layer_of(path):
    """`m.residual.1.ssm_ff.ff_res.residual.linear.bias` -> (`net/c_layers/3`, `ff`, `linear.bias`)."""
    stage, repeat, kind, rest = LAYER.fullmatch(path).groups()
    folder, first = STAGES[stage]
    return f"net/{folder}/{first + 2 * int(repeat) + (kind == 'ff')}", kind, rest


def golden_name(weight):
    """The golden's name of our weight."""
    place, _, leaf = weight.rpartition(".")
    if place in PLACES:
        return f"{PLACES[place]}/{leaf}"
    layer, kind, rest = layer_of(weight)
    if rest in LEAVES:
        return f"{layer}/{LEAVES[rest]}"
    op, _, leaf = rest.rpartition(".")
    return f"{layer}/norm/{leaf}" if op == "layer_norm" else f"{layer}/{DENSE[kind, op]}/{leaf}"


def assert_matches(actual, expected, what):
    actual, expected = actual.detach().numpy(), np.asarray(expected)
    assert actual.shape == expected.shape, what
    # Relative to the array's own size, so that a small gradient is held as tightly as a large activation.
    error = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-12)
    assert error < TOLERANCE, f"{what}: relative error {error:.2e}"


@pytest.fixture(scope="module")
def golden():
    with np.load(ROOT / "tests" / "goldens" / "sashimi_tiny_s4d.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="module")
def model(golden):
    model = compile_spec("sashimi", TINY).double()
    names = {golden_name(ours): weight for ours, weight in model.weights().items()}
    assert {f"param/{name}" for name in names} == {key for key in golden if key.startswith("param/")}
    with torch.no_grad():
        for name, weight in names.items():
            theirs = golden[f"param/{name}"]
            # The golden keeps singleton axes (one head, one copy, a 1x1 kernel); only those may differ.
            assert [n for n in theirs.shape if n != 1] == [n for n in weight.shape if n != 1], name
            weight.copy_(torch.from_numpy(theirs).reshape(weight.shape))
    return model


@pytest.fixture(scope="module")
def wave(golden):
    return torch.from_numpy(golden["tokens"])[..., None]


def test_our_past_is_the_goldens_input(golden, model, wave):
    value = next(v for v in model.values if v.path == "x0.shift")
    (past,) = model.evaluate([value], {"wave": wave})
    assert np.array_equal(past[..., 0].numpy(), golden["input_tokens"])


def test_every_tap_the_logits_and_the_loss_match(golden, model, wave):
    expected = {"x0.embed": golden["emb"], "dist.layer_norm": golden["y"]}
    expected |= {ours: golden[tap].swapaxes(1, 2) for tap, ours in TAPS.items()}
    paths = [v.path for v in model.values]
    for path in paths:
        if path.endswith("_res.residual.add"):
            expected[path] = golden["tap/" + layer_of(path)[0]].swapaxes(1, 2)
    assert len(expected) == 2 + sum(key.startswith("tap/") for key in golden)
    values = [v for v in model.values if v.path in expected]
    for value, tap in zip(values, model.evaluate(values, {"wave": wave}), strict=True):
        assert_matches(tap, expected[value.path], value.path)
    found = model({"wave": wave})
    assert_matches(found["dist"][:, :, 0], golden["logits"], "logits")
    assert_matches(found["losses.nll"].mean(), golden["loss_nats"], "loss_nats")
    assert_matches(found["metrics.bits_per_sample"].mean(), golden["loss_bits"], "loss_bits")


def test_every_gradient_matches(golden, model, wave):
    model.zero_grad()
    model({"wave": wave})["losses.nll"].mean().backward()
    weights = model.weights()
    assert len(weights) == sum(key.startswith("grad/") for key in golden)
    for ours, weight in weights.items():
        expected = golden[f"grad/{golden_name(ours)}"].reshape(weight.shape)
        assert_matches(weight.grad, expected, f"gradient of {ours}")
    model.zero_grad()


@pytest.mark.parametrize("chunks", [(16, 16, 16, 16), (16, 48), (48, 16), (64,)])
@torch.no_grad()
def test_chunks_of_step_match(golden, model, wave, chunks):
    state, prepared = model.init_state(2, next(model.parameters())), model.prepare()
    logits, nats = [], []
    for part in wave.split(chunks, 1):
        found, state = model.step({"wave": part}, state, prepared)
        logits.append(found["dist"][:, :, 0])
        nats.append(found["losses.nll"])
    assert_matches(torch.cat(logits, 1), golden["logits"], f"logits in chunks of {chunks}")
    assert_matches(torch.cat(nats, 1).mean(), golden["loss_nats"], f"loss in chunks of {chunks}")


def test_the_tick_sampler_held_to_the_recording_matches(golden, model, wave):
    sampler = Sampler(model, 2, seed=0)
    dist = next(v for v in model.values if v.path == "dist.categorical")
    logits = []
    with torch.no_grad():
        for t in range(wave.shape[1]):
            place = sampler.where[dist][sampler.tick % sampler.plan.block]
            sampler._tick({"wave": wave[:, t : t + 1]})
            logits.append(place.of(sampler.registers)[:, :, 0])
    assert_matches(torch.cat(logits, 1), golden["logits"], "logits, tick by tick")


def test_paper_size_has_the_published_parameter_count():
    weights = meta(check_spec("sashimi")).weights()
    assert all(w.is_meta for w in weights.values())
    sizes = {name: w.numel() for name, w in weights.items()}
    ends = sum(n for name, n in sizes.items() if name.startswith(("x0.embed", "dist.categorical")))
    assert sum(sizes.values()) - ends == 5_185_280
    assert sum(sizes.values()) == 5_218_304
