"""The mixture of logistics: its published numbers, its exactness, its draws; fields, and what is refused.

Long because one head is held from four sides that share its cases.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import verify_contract

from graphspec.cli.load import Files, check_document
from graphspec.codes import find
from graphspec.compiler.lower import lower
from graphspec.compiler.pipeline import check
from graphspec.declare import Catalogue
from graphspec.diagnostic import Findings, SpecError
from graphspec.ops import catalogue
from graphspec.ops.modules import dml
from graphspec.ops.modules.heads import CategoricalField
from graphspec.ops.parity import openai_dml
from graphspec.reader import read_text
from graphspec.runtime.declared import settings
from graphspec.runtime.sample import Sampler

torch.set_num_threads(1)

# Copied from the published formulas' own runs: 40-digit references, the openai form, draws for given uniforms.
GOLDENS = np.load(Path(__file__).with_name("goldens") / "dml.npz")
FORMS = {"stable": dml.level_log_prob, "openai": openai_dml.level_log_prob}
WANTED = {"stable": "exact", "openai": "openai_indexedge"}


def golden(name, dtype=None):
    x = torch.from_numpy(GOLDENS[name])
    return x if dtype is None else x.to(dtype)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def held(params, mixtures, lowest=-7.0):
    """Published numbers hold the log-scales at -7 whatever the depth."""
    held_ = params.clone()
    held_[..., 2 * mixtures : 3 * mixtures].clamp_(min=lowest)
    return held_


def joined(params, mixtures, channels):
    """Parameters of separate channels as those of joined ones: the first one's logits, no coefficients."""
    logits = params[..., :1, :mixtures].expand(*params.shape[:-1], mixtures)
    nothing = params.new_zeros(*params.shape[:-1], mixtures * (channels - 1))
    return torch.cat([logits, params[..., mixtures:], nothing], -1)


# ---- goldens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", range(len(GOLDENS["case_q"])), ids=lambda i: str(GOLDENS["case_desc"][i]))
def test_hand_cases(case, form):
    q, mean, levels = golden("case_q")[case], golden("case_mean")[case], int(golden("case_K")[case])
    log_scale = golden("case_log_scale")[case].clamp(min=-7.0)
    want = golden(f"case_nll_{WANTED[form]}")[case]
    torch.testing.assert_close(-FORMS[form](q, mean, log_scale, levels), want, rtol=1e-14, atol=1e-13)
    if form == "stable":
        narrow = -FORMS[form](q, mean.float(), log_scale.float(), levels)
        torch.testing.assert_close(narrow, want.float(), rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("form", FORMS)
def test_mixtures(form, bits):
    name = f"mix{2**bits}_"
    params, q = held(golden(f"{name}params"), 3), golden(f"{name}q")
    found = dml.DMLNLL(3, bits, 1, FORMS[form])(params, q)
    torch.testing.assert_close(found, golden(f"{name}nll_{WANTED[form]}"), rtol=0, atol=1e-11)
    if form == "stable":
        narrow = dml.DMLNLL(3, bits)(params.float(), q)
        torch.testing.assert_close(narrow, golden(f"{name}nll_exact", torch.float32), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
def test_components_and_gradients_are_the_published_ones(bits):
    name = f"mix{2**bits}_"
    q = golden(f"{name}q")
    raw = golden(f"{name}params").requires_grad_()
    logits, means, log_scales = raw.split(3, -1)
    params = torch.cat([logits, means, log_scales.clamp(min=-7.0)], -1)
    p = dml.parameters(params, 3)
    each = openai_dml.level_log_prob(q[..., None], p.means, p.log_scales, 2**bits)
    torch.testing.assert_close(each, golden(f"{name}component_logprob"), rtol=0, atol=1e-11)
    dml.DMLNLL(3, bits, 1, openai_dml.level_log_prob)(params, q).mean().backward()
    torch.testing.assert_close(raw.grad, golden(f"{name}grad_mean_nll"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("bits", [8, 16])
def test_shared_weights(bits):
    name = f"mix{2**bits}_"
    params = joined(held(golden(f"{name}params"), 3), 3, 2)
    found = dml.DMLNLL(3, bits, 2, openai_dml.level_log_prob)(params, golden(f"{name}q"))
    want = golden(f"{name}shared_weights_ch0_nll")
    torch.testing.assert_close(found.sum(-1), want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("margin", [2.0**-25, openai_dml.MARGIN])
def test_draws_for_given_uniforms(bits, tau, margin):
    name = f"samp{2**bits}_"
    u = torch.cat([golden(f"{name}u_gumbel"), golden(f"{name}u_logistic")[..., None]], -1)
    params = held(golden(f"mix{2**bits}_params"), 3)
    found = dml.DMLDraw(3, bits, margin=margin)(params, noise=u, temperature=tau)
    assert torch.equal(found, golden(f"{name}tau{tau}_level"))


# ---- exactness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "dtype", "band"),
    [
        (8, torch.float32, 1e-5),
        (16, torch.float32, 5e-5),
        (8, torch.float64, 1e-9),
        (16, torch.float64, 1e-9),
        (1, torch.float64, 1e-12),
    ],
)
def test_the_levels_of_1000_components_add_up_to_1(bits, dtype, band):
    means = 2.6 * uniform(1000) - 1.3
    lowest = dml.lowest_log_scale(bits)
    log_scales = lowest + (2 - lowest) * uniform(1000, seed=1)
    q = torch.arange(2**bits)
    worst = 0.0
    for i in range(0, 1000, 20):
        part = means[i : i + 20, None].to(dtype), log_scales[i : i + 20, None].to(dtype)
        total = dml.level_log_prob(q, *part, 2**bits).double().exp().sum(-1)
        worst = max(worst, float((total - 1).abs().max()))
    assert worst < band, f"off by {worst:.1e}"


@pytest.mark.parametrize("joint", [1, 3])
def test_gradients_are_those_of_differences(joint):
    params = normal(2, 3, 2 * (2 + joint), seed=2).requires_grad_()
    q = torch.tensor([[0, 9, 15], [7, 0, 3]])
    module = dml.DMLNLL(2, 4, joint)
    assert torch.autograd.gradcheck(lambda p: module(p, q), params)


@pytest.mark.parametrize("log_scale", [-30.0, -12.0, 0.0, 20.0, 80.0])
@pytest.mark.parametrize("mean", [-1e4, -1.0, 0.3, 1e4])
def test_no_parameter_is_too_large(mean, log_scale):
    q = torch.tensor([0, 1, 32768, 65534, 65535])
    at = [torch.tensor(v, requires_grad=True) for v in (mean, log_scale)]
    found = dml.level_log_prob(q, *at, 65536)
    found.sum().backward()
    assert found.isfinite().all() and (found <= 1e-6).all()
    assert all(a.grad.isfinite() for a in at)


def test_joined_channels_are_scored_given_the_earlier_ones():
    """Over all pairs of levels P(left, right) adds up to 1, and so does P(right | left) for every left."""
    params = normal(1, 2, 3 * 4, seed=3)
    params[..., 9:].tanh_()
    params[..., 0, 9:] = 0.0
    params[..., :3] = params[..., :1, :3]
    pairs = torch.cartesian_prod(torch.arange(16), torch.arange(16))[:, None]
    each = dml.DMLNLL(3, 4, 2)(params.expand(256, -1, -1), pairs.squeeze(1)).neg()
    assert float(each.sum(-1).exp().sum()) == pytest.approx(1, abs=1e-12)
    given = each[:, 1].exp().view(16, 16).sum(-1)
    torch.testing.assert_close(given, torch.ones(16, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(each[:, 1].view(16, 16).std(0).mean()) > 0.05  # the right one does hear the left one


def test_joined_channels_are_the_published_mixture():
    """log sum_k w_k prod_c P_k(x_c | x_<c), written out (Salimans et al. 2017, eq. 3)."""
    m, c, bits = 3, 3, 5
    params = normal(4, c, m * (2 + c), seed=4)
    params[..., :m] = params[:, :1, :m]
    q = torch.randint(2**bits, (4, c), generator=torch.Generator().manual_seed(1))
    x = 2 * q.double() / (2**bits - 1) - 1
    found = dml.DMLNLL(m, bits, c)(params * _earlier_only(m, c), q).sum(-1)
    for row in range(4):
        p = (params * _earlier_only(m, c))[row]
        total = []
        for k in range(m):
            one = p[0, :m].log_softmax(-1)[k]
            for i in range(c):
                mean = p[i, m + k] + sum(p[i, (3 + j) * m + k] * x[row, j] for j in range(i))
                one = one + dml.level_log_prob(q[row, i], mean, p[i, 2 * m + k], 2**bits)
            total.append(one)
        torch.testing.assert_close(found[row], -torch.stack(total).logsumexp(0), rtol=0, atol=1e-12)


def _earlier_only(m, c):
    kept = torch.ones(c, m * (2 + c), dtype=torch.float64)
    for i in range(c):
        kept[i, (3 + i) * m :] = 0.0
    return kept


# ---- draws and modes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [1, 2])
def test_draws_follow_the_likelihood(joint):
    """200,000 pairs at 3 bits: every cell of the table within 5 standard deviations."""
    n, m = 200_000, 3
    params = normal(1, 2, m * (2 + joint), seed=5)
    if joint > 1:
        params[..., :m] = params[:, :1, :m]
        params = params * _earlier_only(m, 2)
    params[..., 2 * m : 3 * m] -= 1.0
    q = dml.DMLDraw(m, 3, joint)(params.expand(n, -1, -1), noise=uniform(n, 2, m + 1, seed=6))
    found = torch.bincount(q[:, 0] * 8 + q[:, 1], minlength=64) / n
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    want = dml.DMLNLL(m, 3, joint)(params.expand(64, -1, -1), pairs).sum(-1).neg().exp()
    assert (((found - want).abs() - 1e-12) / (want * (1 - want) / n).sqrt()).max() < 5


def test_temperature():
    params, u = normal(400, 1, 9, seed=7), uniform(400, 1, 4, seed=8)
    params[..., 6:] -= 2.0
    draw = dml.DMLDraw(3, 8)
    plain = draw(params, noise=u)
    assert torch.equal(plain, draw(params, noise=u, temperature=1))
    assert torch.equal(plain, draw(params, noise=u, temperature=torch.ones(400)))
    best = params[..., :3].argmax(-1, keepdim=True)
    mean = ((params[..., 3:6].gather(-1, best).squeeze(-1) + 1) * 127.5).round().clamp(0, 255).long()
    for cold in (0, 1e-30, torch.zeros(400)):
        assert torch.equal(draw(params, noise=u, temperature=cold), mean)
    one = params[:1].expand(400, -1, -1)
    spread = [draw(one, noise=u, temperature=t).double().std() for t in (0.1, 0.5, 1.0, 2.0)]
    assert spread == sorted(spread)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_draw_is_a_level_whatever_happens(dtype):
    """Noise at its ends, parameters out of all bounds: a level still, since an embedding reads it next."""
    params = 100 * normal(50, 2, 9, seed=9)
    params[0] = torch.nan
    for u in (0.0, 1.0, 0.5):
        q = dml.DMLDraw(3, 16)(params.to(dtype), noise=torch.full((50, 2, 4), u, dtype=dtype))
        assert q.dtype == torch.int64 and 0 <= int(q.min()) and int(q.max()) < 65536


@pytest.mark.parametrize("joint", [1, 2])
def test_the_mode_is_nearly_the_likeliest_level(joint):
    n, m, bits = 200, 3, 4
    params = normal(n, 2, m * (2 + joint), seed=10)
    params[..., 2 * m : 3 * m] -= 2.0
    if joint > 1:
        params[..., :m] = params[:, :1, :m]
        params = params * _earlier_only(m, 2)
    nll = dml.DMLNLL(m, bits, joint)
    pairs = torch.cartesian_prod(torch.arange(2**bits), torch.arange(2**bits))
    every = torch.stack([nll(params, p.expand(n, 2)).sum(-1) for p in pairs], -1)
    lost = nll(params, dml.DMLMode(m, bits, joint)(params)).sum(-1) - every.amin(-1)
    assert (lost >= -1e-12).all()
    assert (lost < 0.1).double().mean() > 0.95


# ---- heads and fields ----------------------------------------------------------------------------------------------


def test_the_head_holds_scales_and_coefficients():
    x = 50 * normal(4, 7, 6, seed=11, dtype=torch.float32)
    for joint, rows in ((False, 2 * 9), (True, 3 + 2 * 6 + 3)):
        head = dml.DML(6, 3, 2, joint, log_scale_min=-9.0)
        with torch.no_grad():
            head.reset(lambda name: torch.Generator().manual_seed(3))
        assert head.weight.shape == (rows, 6)
        p = dml.parameters(head(x), 3, 2 if joint else 1)
        assert p.log_scales.min() == -9.0
        if joint:
            assert torch.equal(p.logits[..., 0, :], p.logits[..., 1, :])
            assert p.coefficients.abs().max() <= 1 and not p.coefficients[..., 0, :, :].any()
            assert p.coefficients[..., 1, :, :].any()


def test_fields():
    params, logits = normal(2, 5, 2, 9, seed=12), normal(2, 5, 2, 4, seed=13)
    field = {n: dml.DMLField(n, 3)(params) for n in ("logits", "means", "scale", "entropy")}
    assert torch.equal(field["logits"], params[..., :3]) and torch.equal(field["means"], params[..., 3:6])
    assert torch.equal(field["scale"], params[..., 6:].exp())
    want = torch.distributions.Categorical(logits=params[..., :3]).entropy()
    torch.testing.assert_close(field["entropy"], want, rtol=0, atol=1e-14)
    assert torch.equal(CategoricalField("logits")(logits), logits)
    want = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(CategoricalField("entropy")(logits), want, rtol=0, atol=1e-14)


# ---- in a spec -----------------------------------------------------------------------------------------------------

SPEC = """\
graphspec: 1
model: tested
inputs:
  x: float[T, 4] @ 100
  wave: {type: "int(16)[T, 2] @ 100", before: 8}
graph:
  dist: x |> HEAD
  y: VALUE
outputs: [y]
"""
HEADS = {
    "categorical(16, channels=2)": "categorical(16)",
    "dml(3, 4, 2)": "dml(3, 4)",
    "dml(3, 4, 2, joint=true)": "dml(3, 4, 2)",
    "dml(3, 4, 2, form=openai)": "dml(3, 4, 1, openai)",
}


def checked(head, value, findings=None):
    text = SPEC.replace("HEAD", head).replace("VALUE", value)
    return check_document(read_text("y.yaml", text), Path(__file__).parent, findings=findings)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("value", ["nll(dist, wave)", "log_prob(dist, wave)"])
def test_the_functions_keep_the_contract(head, value):
    made = checked(head, value)
    assert str(made.graph.named["dist"].type) == f"{HEADS[head]}[T, 2] @ 100 Hz"
    verify_contract(made, tight=True, spreads_nan=False)


def test_fields_have_types():
    found = {
        f: str(checked("dml(3, 4, 2, joint=true)", f"dist.{f}").graph.named["y"].type)
        for f in ("logits", "means", "scale", "entropy")
    }
    wide, flat = "f32[T, 2, 3] @ 100 Hz", "f32[T, 2] @ 100 Hz"
    assert found == {"logits": wide, "means": wide, "scale": wide, "entropy": flat}
    assert str(checked("categorical(16)", "dist.logits").graph.named["y"].type) == "f32[T, 1, 16] @ 100 Hz"
    assert str(checked("categorical(16)", "dist.entropy").graph.named["y"].type) == "f32[T, 1] @ 100 Hz"


def test_metrics_of_one_channel():
    scale = "mean(dist.scale |> rearrange('c m -> m c') |> take(1))"
    for field, value in (("scale", scale), ("entropy", "mean(take(dist.entropy, 1))")):
        model = lower(checked("dml(3, 4, 2)", value))
        x = {"x": normal(2, 8, 4, dtype=torch.float32)}
        (dist,) = model.evaluate([model.graph.named["dist"]], x, {})
        want = dml.DMLField(field, 3)(dist)[:, :, 1].flatten(1).mean(1)
        torch.testing.assert_close(model(x, {})["y"], want)


# Two channels: left is free, right is 0.7 of it and noise, in one tick, so that the past says nothing.
TOGETHER = """\
graphspec: 1
model: pair
inputs:
  x: float[T, 1] @ 100
  wave: {type: "int(256)[T, 2] @ 100", before: 128}
graph:
  dist: x |> dml(2, 8, 2, joint=JOINT)
  y: nll(dist, wave)
outputs: [y]
"""


def test_a_joined_mixture_learns_what_the_channels_share():
    """Right within 0.02 nats of its analytic bound given left; without joining, no better than its own entropy."""
    left, noise = 0.3 * normal(1, 6000, 1, seed=15), 0.05 * normal(1, 6000, 1, seed=16)
    wave = (torch.cat([left, 0.7 * left + noise], -1).clamp(-1, 1) + 1) * 127.5
    given = {"x": torch.zeros(1, 6000, 1), "wave": wave.round().long()}
    bins = math.log(2 / 255)
    entropy = {s: 0.5 * math.log(2 * math.pi * math.e * s**2) - bins for s in (0.05, math.hypot(0.21, 0.05))}
    found = {}
    for joint in ("true", "false"):
        text = TOGETHER.replace("JOINT", joint)
        model = lower(check_document(read_text("y.yaml", text), Path(__file__).parent))
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(250):
            optimizer.zero_grad()
            loss = model(given, {})["y"].mean((0, 1))
            loss.sum().backward()
            optimizer.step()
        found[joint] = float(loss[1].detach())
    bound, alone = entropy.values()
    assert bound - 0.02 < found["true"] < bound + 0.03
    assert alone - 0.05 < found["false"] < alone + 0.1


# Left before right inside a tick: on a clock twice as fast, the past of one event is the other channel too.
ORDERED = """\
graphspec: 1
model: ordered
inputs:
  wave: {type: "int(16)[T, 2] @ 100", before: 8}
graph:
  flat: interleave(wave)
  frame: flat |> embed(4) |> fold(2)
  h: frame[t-1] |> gru(12) |> linear(16) |> unfold(2)
  dist: (h + (flat[t-1] |> embed(8))) |> tanh |> dml(3, 4)
causal: {dist: strict}
losses: {nll: "nll(dist, flat)"}
outputs: [dist]
sample:
  feed: {flat: draw(dist)}
  to: [flat |> deinterleave(2)]
"""


def test_channels_in_order_inside_a_tick_are_proven_and_drawn():
    model = lower(check_document(read_text("y.yaml", ORDERED), Path(__file__).parent))
    sampler = Sampler(model, 3, seed=1)
    assert sampler.plan.fires


@pytest.mark.parametrize(
    ("head", "value", "code", "words"),
    [
        ("dml(3, 4, 2)", "dist.scales", "GS0216", "did you mean 'scale'?"),
        ("categorical(16, channels=2)", "dist.means", "GS0216", "categorical(16) has no field 'means'"),
        ("dml(3, 4, 2)", "draw(dist, top_k=3)", "GS0318", "takes no 'top_k'"),
        ("dml(3, 4, 2)", "draw(dist, top_p=0.9)", "GS0318", "takes no 'top_p'"),
        ("dml(3, 8, 2)", "nll(dist, wave)", "GS0303", "is over 256 classes, but 'wave' has 16"),
        ("categorical(256, channels=2)", "nll(dist, wave)", "GS0303", "is over 256 classes"),
        ("dml(3, 4)", "nll(dist, wave)", "GS0301", ""),
        ("dml(3, 4, 2)", "cross_entropy(dist, wave)", "GS0303", "is a distribution, dml(3, 4)"),
        ("dml(3, 4, 2)", "l2(dist, wave)", "GS0303", "is a distribution"),
        ("dml(0, 4, 2)", "mode(dist)", "GS0305", "mixtures >= 1"),
        ("dml(3, 17, 2)", "mode(dist)", "GS0305", "bits <= 16"),
        ("dml(3, 4, 2, log_scale_min=-50)", "mode(dist)", "GS0305", "log_scale_min"),
    ],
)
def test_what_does_not_belong_together_is_refused(head, value, code, words):
    with pytest.raises(SpecError) as refused:
        checked(head, value)
    (d,) = refused.value.diagnostics
    assert d.code == code and words in d.message, str(d)


def test_a_distribution_without_a_function_says_which_it_has():
    known = catalogue()
    silent = replace(known.meanings["dml"], functions={"nll": known.meanings["dml"].functions["nll"]})
    ours = Catalogue([*known.ops.values(), *known.faces.values(), known.meanings["categorical"], silent])
    text = SPEC.replace("HEAD", "dml(3, 4, 2)").replace("VALUE", "mode(dist)")
    with pytest.raises(SpecError) as refused:
        check(read_text("y.yaml", text), ours, Files(Path(__file__).parent), settings())
    (d,) = refused.value.diagnostics
    assert d.code == "GS0318" and d.message == "dml(3, 4) has no mode" and d.notes == ("it has: nll",)


def test_advice():
    def told(head, value, wave="int(16)[T, 2] @ 100", rate="100", loss=""):
        findings = Findings()
        text = SPEC.replace("HEAD", head).replace("VALUE", value).replace("int(16)[T, 2] @ 100", wave)
        text = text.replace("@ 100", f"@ {rate}") + loss
        check_document(read_text("y.yaml", text), Path(__file__).parent, findings=findings)
        return [(d.code, d.message) for d in findings.all() if d.code in ("GS0673", "GS0807", "GS0671")]

    wide = told("categorical(65536)", "mode(dist)", "int(65536)[T, 1] @ 100", "16000")
    assert wide == [("GS0807", "65536 classes take 4.2 GB of logits a second of audio")]
    assert told("categorical(65536)", "mode(dist)", "int(65536)[T, 1] @ 100", "100") == []
    assert told("dml(10, 16)", "mode(dist)", "int(65536)[T, 1] @ 100", "16000") == []
    for loss, codes in (
        ("mean(log_prob(dist, wave))", ["GS0673"]),
        ("-log_prob(dist, wave)", []),
        ("nll(dist, wave)", []),
    ):
        found = told("dml(3, 4, 2)", "mode(dist)", loss=f"losses:\n  fit: {loss}\n")
        assert [c for c, _ in found] == codes, loss
    assert find("GS0807") and find("GS0673") and find("GS0318")
