"""The benchmark's peer is the published model: it meets every number of the tiny SaShiMi golden, in both modes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-9
TINY = {"d_model": 8, "n_layers": 2, "pool": (4, 4), "expand": 2, "ff": 2, "d_state": 64, "vocab": 16}

# bench/ is a folder of programs, not a package, so the peer is loaded from its path.
_spec = importlib.util.spec_from_file_location("peer_sashimi", ROOT / "bench" / "peer_sashimi.py")
peer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(peer)


@pytest.fixture(scope="module")
def golden():
    with np.load(ROOT / "tests" / "goldens" / "sashimi_tiny_s4d.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture
def model(golden):
    model = peer.PeerSashimi(**TINY).double()
    peer.load_golden(model, golden)
    return model


def assert_matches(actual, expected, what):
    actual = actual.detach().numpy()
    assert actual.shape == expected.shape, what
    # Relative to the array's own size, so that a small gradient is held as tightly as a large activation.
    error = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-12)
    assert error < TOLERANCE, f"{what}: relative error {error:.2e}"


def test_every_tap_the_logits_and_the_loss_match(model, golden):
    taps = [key for key in golden if key.startswith("tap/")]
    assert len(taps) == 16
    seen = {}
    for key in taps:
        module = model.get_submodule(peer.peer_name(key.removeprefix("tap/")))
        module.register_forward_hook(lambda _m, _x, y, key=key: seen.__setitem__(key, y))
    tokens = torch.from_numpy(golden["input_tokens"])
    emb = model.embedding(tokens)
    y = model.backbone(emb)
    logits = model.head(y)
    for key in taps:
        assert_matches(seen[key], golden[key], key)
    assert_matches(emb, golden["emb"], "emb")
    assert_matches(y, golden["y"], "y")
    assert_matches(logits, golden["logits"], "logits")
    nats = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(golden["tokens"]).flatten())
    assert_matches(nats, golden["loss_nats"], "loss_nats")
    assert_matches(nats / np.log(2), golden["loss_bits"], "loss_bits")


def test_every_gradient_matches(model, golden):
    logits = model(torch.from_numpy(golden["input_tokens"]))
    F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(golden["tokens"]).flatten()).backward()
    parameters = dict(model.named_parameters())
    gradients = [key for key in golden if key.startswith("grad/")]
    assert len(gradients) == len(parameters)
    for key in gradients:
        gradient = parameters[peer.peer_name(key.removeprefix("grad/"))].grad
        assert_matches(gradient.reshape(golden[key].shape), golden[key], key)


@torch.no_grad()
def test_step_mode_matches_and_leaves_its_input_state_alone(model, golden):
    tokens = torch.from_numpy(golden["input_tokens"])
    model.prepare_step()
    state = model.initial_state(len(tokens))
    ys, logits = [], []
    for t in range(tokens.shape[1]):
        before = state
        y, _ = model.backbone.step(model.embedding(tokens[:, t]), before)
        step_logits, state = model.step(tokens[:, t], before)  # the same state again: stepping must be pure
        ys.append(y)
        logits.append(step_logits)
    assert_matches(torch.stack(ys, 1), golden["y_step"], "y_step")
    assert_matches(torch.stack(logits, 1), golden["logits"], "stepped logits")


@torch.no_grad()
def test_deeper_layers_run_only_when_their_pool_emits(model):
    calls = {"center": 0, "middle": 0, "top": 0}
    for name, layer in (("center", model.backbone.center[0]), ("middle", model.backbone.up[0][1])):
        _count(layer, calls, name)
    _count(model.backbone.up[1][1], calls, "top")
    model.prepare_step()
    state = model.initial_state(1)
    for t in range(32):
        _, state = model.step(torch.tensor([t % 16]), state)
        assert calls == {"center": (t + 1) // 16, "middle": (t + 1) // 4, "top": t + 1}


def _count(layer, calls, name):
    step = layer.step

    def counted(x, state):
        calls[name] += 1
        return step(x, state)

    layer.step = counted


def test_backbone_has_the_papers_parameter_count():
    model = peer.PeerSashimi()
    assert sum(p.numel() for p in model.backbone.parameters()) == 5_185_280
    assert sum(p.numel() for p in model.parameters()) == 5_218_304


def test_initial_modes_are_the_goldens(golden):
    kernel = peer.PeerS4DKernel(8)
    prefix = "param/net/u_layers/1/1/layer/layer/kernel/"
    np.testing.assert_allclose(kernel.a_im.detach(), golden[prefix + "A_imag"], rtol=1e-6)
    np.testing.assert_allclose(kernel.log_a_re.detach(), golden[prefix + "A_real"], rtol=1e-6)
    np.testing.assert_allclose(kernel.B.detach(), golden[prefix + "B"][0])
    assert -6.9078 <= kernel.log_dt.min() and kernel.log_dt.max() <= -2.3025


def test_misuse_is_named(model, golden):
    with pytest.raises(ValueError, match=r"length 24 .* prod\(pool\) = 16"):
        model(torch.zeros(1, 24, dtype=torch.long))
    with pytest.raises(ValueError, match="disagree about .*head.bias"):
        peer.load_golden(model, {key: golden[key] for key in golden if key != "param/dec/bias"})
    with pytest.raises(RuntimeError, match="prepare_step"):
        peer.PeerS4D(4).step(torch.zeros(1, 4), None)
    with pytest.raises(ValueError, match="warm-up"):
        peer.median_seconds(lambda: None, 1)


def test_generation_is_measured_in_whole_periods():
    figures = peer.measure_generation(peer.PeerSashimi(**TINY), steps=17)
    assert figures["measured_steps"] == 32
    assert figures["steps_per_s"] > 0 and figures["cpu_ms_per_step"] > 0
    assert peer.peak_rss_bytes() > 50e6


@pytest.mark.full  # the first optimiser of a process costs two seconds of imports
def test_training_is_measured():
    figures = peer.measure_training(peer.PeerSashimi(**TINY), length=32, steps=3)
    assert figures["measured_steps"] == 2 and figures["cpu_s"] > 0
