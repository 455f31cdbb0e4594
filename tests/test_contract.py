"""The catalogue and random pipelines of it keep the contract (tests/contract.py); planted faults are caught."""

import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import LOUD, verify_contract, verify_future, verify_step, verify_time
from subject import Subject
from torch import Tensor, nn

from graphspec.cli.load import Files, check_document
from graphspec.compiler.lower import lower
from graphspec.compiler.pipeline import Checked, check
from graphspec.declare import INITS, Catalogue, Declaration, op
from graphspec.diagnostic import SpecError
from graphspec.expression import parse_free, read_names
from graphspec.ops import catalogue
from graphspec.ops.modules.contract import Generator, State, Stateless
from graphspec.reader import read_text
from graphspec.runtime.declared import settings

torch.set_num_threads(1)

OPS = catalogue().ops
DIMS = {"c": 16}  # what examples may name
TYPES = {
    "float": "float[T, 16] @ 100",
    "bool": "bool[T, 16] @ 100",
    "int": "{type: 'int(16)[T, 16] @ 100', before: 8}",
}
EVENT = {"categorical": "int(5)[T, 1] @ 100"}  # what `x |> categorical(5)` is over

# The example shows an op; these reach the corners of its parameters.
USAGES = {
    "add": ["a + 1", "a + knob", "a + row", "1 + a"],
    "attention": [
        "x |> attention(2, rope=0, bias=true)",
        "x |> attention(2, causal=false)",
        "x |> attention(2, rope=[4, 6])",
        "x |> attention(4, rope=[4, 6], causal=false)",
        "x |> attention(2, window=1)",
        "x |> attention(4, window=5)",
        "x |> attention(2, window=30, rope=0)",
        "x |> attention(2, chunk=1)",
        "x |> attention(2, chunk=5)",
        "x |> attention(2, chunk=8, rope=0, bias=true)",
        "x |> attention(2, chunk=7, causal=false)",
        "x |> attention(2, context=context)",
        "x |> attention(2, context=context, causal=false)",
    ],
    "biquad": [
        "biquad(x, cutoff=knob, mode=high)",
        "biquad(x, 5*row + 10, q=3.0)",
        "biquad(x, 5*x + 20, mode=band)",
        "biquad(x, abs(x), mode=notch, q=0.3)",
        "biquad(x, 30, mode=all)",
    ],
    "cat": ["cat(a, b, a)"],
    "categorical": ["x |> categorical(5, channels=3)"],
    "clamp": ["x |> clamp", "x |> clamp(low=0.2)"],
    "conv": [
        "x |> conv(3, k=3, dilation=4)",
        "x |> conv(3, k=1, bias=false)",
        "x |> conv(2, k=2, dilation=40)",
        "x |> conv(3, k=4, stride=2)",
        "x |> conv(3, k=3, stride=3, bias=false)",
        "x |> conv(3, k=2, stride=4)",
        "x |> conv(3, k=3, stride=2, dilation=5)",
        "x |> conv(8, k=3, groups=4)",
        "x |> conv(16, k=3, groups=16, dilation=2)",
        "x |> conv(16, k=4, groups=16, stride=2, bias=false)",
        "x |> conv(32, k=3, groups=16)",
        "x |> conv(3, k=5, centre=true)",
        "x |> conv(3, k=4, dilation=3, centre=true)",
        "x |> conv(3, k=7, stride=4, centre=true)",
        "x |> conv(3, k=2, centre=true)",
        "x |> conv(3, k=1, stride=4, centre=true)",
    ],
    "conv_up": [
        "x |> conv_up(3, k=1, stride=1)",
        "x |> conv_up(3, k=4, stride=4, bias=false)",
        "x |> conv_up(3, k=6, stride=2)",
        "x |> conv_up(3, k=12, stride=4)",
        "x |> conv_up(3, k=5, stride=1)",
        "x |> conv_up(3, k=5, stride=2)",
        "x |> conv_up(3, k=3, stride=3, bias=false)",
        "x |> conv_up(3, k=9, stride=3)",
        "x |> conv(3, k=4, stride=2) |> conv_up(4, k=8, stride=4)",
    ],
    "conv2d": [
        "x |> conv2d(2, k=4, stride=2, bias=false)",
        "x |> conv2d(2, k=3, stride=2)",
        "x |> conv2d(2, k=1)",
        "x |> conv2d(2, k=3, stride=3)",
        "x |> conv2d(2, k=7, stride=2)",
        "x |> conv2d(2, k=4, causal=true)",
        "x |> conv2d(2, k=5, stride=3, causal=true)",
    ],
    "conv2d_up": [
        "x |> conv2d_up(2, k=3, stride=1)",
        "x |> conv2d_up(2, k=3, bias=false)",
        "x |> conv2d_up(2, k=2, stride=2)",
        "x |> conv2d_up(2, k=7, stride=2)",
        "x |> conv2d_up(2, k=8, stride=4, causal=true)",
        "x |> conv2d_up(2, k=5, stride=2, causal=true)",
        "x |> conv2d_up(2, k=3, stride=3)",
        "x |> conv2d_up(2, k=6, stride=3, causal=true)",
        "x |> conv2d(2, k=4, stride=2, causal=true) |> conv2d_up(3, causal=true)",
    ],
    "delta": ["x |> delta(3)"],
    "cross_entropy": ["cross_entropy(knob * logits, x)"],
    "deinterleave": ["x |> deinterleave(1)", "x |> deinterleave(3)"],
    "div": ["a / knob", "1 / a"],
    "downsample": ["x |> downsample(1)", "x |> downsample(3)", "x |> upsample(2) |> downsample(3)"],
    "dml": [
        "x |> dml(1, 4, log_scale_min=-3)",
        "x |> dml(3, 4, channels=2)",
        "x |> dml(2, 4, 3, joint=true)",
        "(x |> dml(3, 4)).logits",
        "(x |> dml(3, 4)).means",
        "(x |> dml(3, 4, 2, joint=true)).scale",
        "(x |> dml(3, 4)).entropy",
        "mode(x |> dml(3, 4, 2))",
        "mode(x |> dml(3, 4, 2, joint=true))",
        "draw(x |> dml(3, 4))",
        "draw(x |> dml(3, 4, 2, joint=true), temperature=0.5)",
        "draw(x |> dml(3, 4, form=openai))",
    ],
    "channel_norm": ["x |> channel_norm(eps=1e-3)", "x |> channel_norm |> linear(3)"],
    "draw": ["draw(d)", "draw(d, top_k=2)", "draw(d, temperature=knob, top_p=knob)"],
    "dropout": ["x |> dropout(0.0)", "x |> dropout(0.6)"],
    "exp_sigmoid": ["x |> exp_sigmoid(4, max=1, threshold=0.01)"],
    "filter_frames": [
        "filter_frames(x, mags |> downsample(4), hop=4, framing=causal)",
        "filter_frames(x, mags, hop=1)",
        "filter_frames(x, mags |> take(0, count=3) |> downsample(2), hop=2)",
        "filter_frames(x, mags |> take(0, count=4) |> downsample(6), hop=6)",
    ],
    "filtered_noise": [
        "filtered_noise(mags, hop=4, framing=causal)",
        "filtered_noise(mags |> take(0, count=3), hop=2)",
        "filtered_noise(mags |> take(0, count=5), hop=6)",
        "filtered_noise(mags, hop=1, framing=causal)",
    ],
    "fir": [
        "x |> fir([0.1, 0.2, 0.4, 0.2, 0.1], centre=true)",
        "x |> fir([0.5, 0.25, 0.3], centre=true)",
        "x |> fir([2], centre=true)",
        "x |> fir([2])",
    ],
    "fold": ["x |> fold(3)", "x |> fold(1)", "x |> fold(2) |> fold(3)", "x |> fold(4) |> shift(1) |> unfold(4)"],
    "gru": ["x |> gru(3, layers=2)", "x |> gru(4, layers=3, init_state=learned)", "x |> gru(1, init_state=learned)"],
    "harmonic": [
        "harmonic(60 * f0, amp, shape, hop=4, method=linear)",
        "harmonic(20 * f0, amp, shape, hop=3, method=hold)",
        "harmonic(20 * f0, amp, shape, hop=3, method=hold, pitch=hold)",
        "harmonic(60 * f0, amp, shape, hop=2, pitch=hold)",
        "harmonic(f0, amp, shape |> take(0), hop=1)",
    ],
    "harmonic_shape": ["harmonic_shape(x |> exp_sigmoid, 60 * f0, hop=4)"],
    "huber": ["huber(a, row, delta=0.3)", "huber(a, 1)"],
    "interleave": ["x |> take(2, count=4) |> interleave |> deinterleave(2)"],
    "l1": ["l1(a, row)", "l1(a, 1)"],
    "l2": ["l2(a, knob)", "l2(0.5, a)"],
    "elu": ["x |> elu(0.5)"],
    "group_norm": ["x |> group_norm(1, eps=1e-3)", "x |> group_norm(8, affine=false)"],
    "layer_norm": ["x |> layer_norm(eps=1e-3, affine=false)"],
    "linear": ["x |> linear(3, bias=false)", "x |> linear(3, normed=true)", "x |> linear(5, bias=false, normed=true)"],
    "log_mel": [
        "x |> log_mel(16, hop=6, mels=4, fmin=2.0, fmax=40.0, power=2, mel_scale=slaney, norm=area)",
        "x |> log_mel(16, mels=3, framing=causal)",
    ],
    "loudness": [
        "x |> loudness(4, n_fft=16, framing=causal)",
        "x |> loudness(6, n_fft=8, framing=ahead)",
        "x |> loudness(3, n_fft=8, form=mean_db)",
        "x |> loudness(8, n_fft=8, form=mean_db, framing=causal, reference=0, floor=-100)",
    ],
    "lstm": ["x |> lstm(3, layers=2)", "x |> lstm(4, layers=3, init_state=learned)"],
    "midi_to_hz": ["midi_to_hz(m, silence=false)"],
    "multiscale_stft": [
        "multiscale_stft(estimate, target, sizes=[8], mag_weight=0.5, log_weight=1, log_eps=clamp, distance=l2)",
        "multiscale_stft(estimate, target, sizes=[16], mag_weight=0, delta_time_weight=1, delta_freq_weight=1)",
        "multiscale_stft(estimate, target, sizes=[8, 4], cumsum_freq_weight=1, log_weight=1, log_eps=where)",
        "multiscale_stft(estimate, target, sizes=[8, 16], windows=[6, 12], hops=[4, 5], framing=reflect, "
        "convergence_weight=1, floor=1e-4, normalized=true, over_sizes=mean)",
    ],
    "max_pool": ["x |> max_pool(1)", "x |> max_pool(3)"],
    "mean_pool": ["x |> mean_pool(1)", "x |> mean_pool(3)"],
    "max": ["max(x, axis=-1)"],
    "maximum": ["maximum(a, knob)", "maximum(a, 0.5)", "maximum(row, a)"],
    "mean": ["mean(x, axis=-1)"],
    "mod_delay": ["mod_delay(x, by, longest=1)", "mod_delay(x, 10*by, longest=5)"],
    "mode": ["d.logits", "d.entropy"],
    "mfcc": ["x |> mfcc(3, n_fft=16, hop=8, mels=3, framing=causal)"],
    "one_hot": ["x |> one_hot(16)", "x |> take(3) |> one_hot"],
    "outer": ["outer(x |> take(1, count=3), x)"],
    "norm_over_time": ["x |> norm_over_time(eps=1e-3, affine=false)"],
    "pitch": [
        "x |> pitch(4, fmin=13, fmax=25, size=18, framing=causal, threshold=0.5, voiced=0)",
        "x |> pitch(6, fmin=13, fmax=20, size=19, framing=ahead, voiced=0.2)",
        "x |> pitch(12, fmin=13, fmax=20, size=20, voiced=0)",
    ],
    "power": [
        "x |> power(4, size=12)",
        "x |> power(6, size=6)",
        "x |> power(3, size=7, framing=same)",
        "x |> power(8, size=12, framing=ahead, floor=-20)",
    ],
    "pow": ["a ** b", "2 ** a"],
    "quantise": ["x |> quantise(3)", "x |> quantise(16)"],
    "reverb": ["x |> reverb(2)", "x |> reverb(40)"],
    "resample": ["x |> resample(4, 3, 6)", "x |> resample(1, 4, 6)", "x |> resample(8, 12, 7)", "x |> resample(2, 2)"],
    "s4": [
        "x |> s4(4, copies=2)",
        "x |> s4(4, copies=0)",
        "x |> s4(6, softplus=true, dt_min=0.1, dt_max=1.0)",
        "x |> s4(4, both=true)",
    ],
    "s4d": ["x |> s4d(4, init=real, disc=bilinear)", "x |> s4d(6, init=inv, dt_min=0.01, dt_max=1.0)"],
    "shift": ["x[t-3]", "x |> shift(0)", "x |> shift(30)", "x |> shift(2, before=1)", "x |> take(1) |> shift(2)"],
    "spectrogram": [
        "x |> spectrogram(16, hop=4, power=2)",
        "x |> spectrogram(16, framing=causal)",
        "x |> spectrogram(8, hop=8)",
    ],
    "split": ["x |> split(first=1, rest=15)"],
    "stft": ["x |> stft(4, hop=1)", "x |> stft(12)", "x |> stft(8, hop=6)", "x |> stft(8, hop=8)"]
    + [f"x |> stft({n}, hop={h}, framing=causal)" for n, h in [(4, 1), (12, 3), (8, 6), (8, 8), (40, 2)]],
    "sum": ["sum(x, axis=-1)"],
    "take": ["x |> take(3, count=5)"],
    "upsample": [
        "x |> upsample(1, window)",
        "x |> upsample(3)",
        "x |> upsample(4, linear)",
        "x |> upsample(8, window)",
        "x |> upsample(6) |> mean_pool(3)",
    ],
    "unfold": ["x |> unfold(2)", "x |> unfold(16) |> fold(4)"],
    "voicing": ["x |> voicing(4, fmin=13, fmax=25, size=18, framing=causal)"],
    "where": ["where(mask, a, b)", "where(mask, 1.5, 0)", "where(mask, a, knob)"],
}
# A tick more or less is read from element to element: their declared windows are bounds, not tight.
BOUNDS = {
    "begin(x, 0.5)",
    "x |> attention(2, chunk=5)",
    "x |> attention(2, chunk=8, rope=0, bias=true)",
    "x |> attention(2, chunk=7, causal=false)",
    "x |> conv_up(3, k=5, stride=2)",
    "x |> conv2d_up(8)",
    "x |> conv2d_up(2, k=3, bias=false)",
    "x |> conv2d_up(2, k=7, stride=2)",
    "x |> conv2d_up(2, k=5, stride=2, causal=true)",
    "x |> delta",
    "x |> delta(3)",
    "x |> pitch(4, fmin=13, fmax=25, size=18)",
    "x |> pitch(4, fmin=13, fmax=25, size=18, framing=causal, threshold=0.5, voiced=0)",
    "x |> pitch(6, fmin=13, fmax=20, size=19, framing=ahead, voiced=0.2)",
    "x |> pitch(12, fmin=13, fmax=20, size=20, voiced=0)",
    "x |> resample(up=2, down=3, zeros=8)",
    "x |> resample(4, 3, 6)",
    "x |> resample(1, 4, 6)",
    "x |> resample(8, 12, 7)",
    "x |> resample(2, 2)",
    "x |> upsample(4, linear)",
    "x |> upsample(8, window)",
    "x |> upsample(6) |> mean_pool(3)",
}
# Frames are a sample more or less from their neighbours, and a filter's first tap is 0.
BOUNDS |= {
    u for n in ("filter_frames", "filtered_noise", "harmonic", "mod_delay") for u in [OPS[n].example, *USAGES[n]]
}
# Their chunks multiply future ticks by exact zeros: NaN spreads inside a chunk, huge numbers do not.
SPREADS_NAN = {"attention", "resample", "s4", "s4d"}


FIXED = {"as_static", "as_time"}  # their length is known


def spec_of(expression: str, declaration: Declaration, any_is: str = "float", fields: Iterable[str] = ()) -> str:
    """A spec whose value y is this use of the op; its operands become inputs of the types that the signature wants."""
    members = {c for p in declaration.parameters for c in p.choices} | set(INITS)
    named = {n.name: None for n in read_names(parse_free(expression)) if n.name not in {*members, *DIMS}}
    declared = {o.name: o.type for o in declaration.parsed.operands}
    inputs, graph = {}, {"y": expression}
    for name in named:
        # An op without operands is shown together with another: floats of any shape.
        rule = declared.get(name) or next(iter(declared.values()), OPS["neg"].parsed.operands[0].type)
        kind = any_is if rule.name == "any" else rule.name
        if name in ("knob", "row"):  # static operands of elementwise ops
            inputs[name] = "f32" if name == "knob" else "float[16]"
        elif rule.dims is not None and len(rule.dims) == 3:
            inputs[name] = "float[T, 6, 3] @ 100"
        elif kind == "event":
            inputs[name] = EVENT["categorical"]
        elif kind == "dist" or kind in catalogue().meanings:
            inputs["h"], graph[name] = TYPES["float"], f"h |> {kind if kind != 'dist' else 'categorical'}(5)"
        else:
            inputs[name] = TYPES["bool" if name == "mask" else "float" if kind == "f32" else kind]
            if rule.dims and rule.dims[-1].span.text == "1":
                inputs[name] = inputs[name].replace("[T, 16]", "[T, 1]")
    lines = ["graphspec: 1", "model: contract", "params:", *(f"  {n}: {v}" for n, v in DIMS.items()), "inputs:"]
    lines += [f"  {n}: {t}" for n, t in inputs.items()]
    fact = "T == 24" if declaration.name in FIXED else "T % 24 == 0"
    lines += ["require:", f"  - {fact}", "graph:", *(f"  {n}: {e}" for n, e in graph.items())]
    return "\n".join([*lines, *([f"outputs: [{', '.join(fields)}]"] if fields else []), ""])


def checked_use(expression: str, declaration: Declaration, any_is: str = "float") -> Checked:
    """That spec, checked, with y as its output: every field of it if it is a record."""
    path = Path(__file__).parent
    made = check_document(read_text("y.yaml", spec_of(expression, declaration, any_is)), path).graph.named["y"]
    fields = [f"y.{f}" for f in made] if isinstance(made, dict) else ["y"]
    return check_document(read_text("y.yaml", spec_of(expression, declaration, any_is, fields)), path)


# ---- the catalogue -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPS)
def test_example_keeps_the_contract(name: str) -> None:
    declaration = OPS[name]
    assert declaration.example, f"{name} declares no example"
    checked = checked_use(declaration.example, declaration)
    verify_declaration(declaration, checked)
    verify_contract(checked, tight=declaration.example not in BOUNDS, spreads_nan=name in SPREADS_NAN)


@pytest.mark.parametrize(("name", "use"), [(n, u) for n, uses in USAGES.items() for u in uses])
def test_use_keeps_the_contract(name: str, use: str) -> None:
    # Taken apart and put together again, an element reads less than its group: declared windows are then bounds.
    tight = use not in BOUNDS and ("fold" not in use.replace("unfold", "") or "unfold" not in use)
    verify_contract(checked_use(use, OPS[name]), tight=tight, spreads_nan=name in SPREADS_NAN)


ANY = [(n, kind) for n, d in OPS.items() if "any" in d.signature for kind in ("int", "bool")]


@pytest.mark.parametrize(("name", "kind"), ANY)
def test_any_dtype_is_refused_or_keeps_the_contract(name: str, kind: str) -> None:
    declaration = OPS[name]
    try:
        checked = checked_use(declaration.example, declaration, kind)
    except SpecError:
        return
    verify_contract(checked)


def verify_declaration(op: Declaration, checked: Checked) -> None:
    """Documentation names what there is; tags name weights of the example's modules."""
    first = op.summary
    assert re.match(r"\S+ .*\S\.( |$)|\S+ .*[.:]$", first) and len(first) <= 120, f"docs: '{first}' is no sentence"
    for p in op.parameters:
        assert re.search(rf"\b{p.name}\b", op.doc), f"docs: parameter {p.name} of {op.name} is not described"
    for operand in op.parsed.operands:
        assert re.search(rf"\b{operand.name}\b", op.doc), f"docs: operand {operand.name} of {op.name} is not described"
    model = lower(checked)
    mine = [v for v in model.values if v.op is op]
    assert mine, f"docs: the example of {op.name} does not use it"
    for v in mine:
        leaves = {n for n, _ in model.modules_of[v].named_parameters()}
        tags = dict(op.weights or {})
        assert leaves <= set(tags), f"weights: {op.name} does not declare {sorted(leaves - set(tags))}"
        for leaf in tags:
            assert f"`{leaf}`" in op.doc, f"docs: weight {leaf} of {op.name} is not described"
        for leaf in leaves:
            told = model.tags()[f"{v.path}.{leaf}"]
            assert told == {v.path.split(".")[0], *([tags[leaf]] if tags[leaf] else [])}, (
                f"tags: {v.path}.{leaf}: {told}"
            )
            assert leaf != "bias" or tags.get(leaf) == "bias", f"tags: {op.name}'s bias is not tagged so"


# ---- random pipelines --------------------------------------------------------------------------------------------

POINTWISE = ["tanh", "sigmoid", "relu", "gelu", "silu", "leaky_relu(0.2)", "softplus", "layer_norm", "rms_norm", "sin"]


def pipeline(seed: int) -> str:
    """3 to 6 stages, of which one may be a whole pipeline at a lower or a higher rate; 4 channels in and at most 12."""
    rng = random.Random(seed)

    def stage(c: int) -> tuple[str, int]:
        kind = rng.choice(["linear", "conv", "s4d", "shift", "glu", "pointwise", "pointwise", "take", "dropout"])
        units = rng.randint(1, 6) * 2
        if kind == "linear":
            return f"linear({units})", units
        if kind == "conv":
            return f"conv({units}, k={rng.randint(1, 4)}, dilation={rng.randint(1, 5)})", units
        if kind == "glu" and c % 2 == 0:
            return "glu", c // 2
        if kind == "take" and c > 1:
            return f"take(1, count={c - 1})", c - 1
        if kind == "s4d":
            return f"s4d({rng.choice([2, 6])}, disc={rng.choice(['zoh', 'bilinear'])})", c
        return {"shift": f"shift({rng.randint(1, 9)})", "dropout": "dropout(0.3)"}.get(kind, rng.choice(POINTWISE)), c

    stages, c, left, there = [], 4, rng.randint(3, 6), rng.randrange(6)
    while len(stages) < left:
        if len(stages) == there:  # down or up in rate, and back
            p, (inner, c) = rng.choice([2, 3, 4]), stage(4)
            way = [
                f"linear({4 // rng.choice([1, 2])})",
                f"fold({p})",
                "linear(4)",
                inner,
                f"linear({6 * p})",
                f"unfold({p})",
            ]
            if rng.random() < 0.4:
                way = [f"linear({4 * p})", f"unfold({p})", inner, f"fold({p})", "linear(6)"]
            stages, c, left = [*stages, *way], 6, left + len(way) - 1
        else:
            text, c = stage(c)
            stages.append(text)
    return "x |> " + " |> ".join(stages)


@pytest.mark.parametrize("seed", range(30))
def test_random_pipeline_steps_as_it_runs_whole(seed: int) -> None:
    text = pipeline(seed)
    subject = Subject(check_text(text, catalogue()), ticks=24)
    subject.model.double()
    verify_step(subject)
    # A deep pipeline may well ignore an end of its window (relu, take), so its windows are only held as bounds.
    verify_time(subject, tight=False)
    verify_future(subject, LOUD if "s4d" in text else float("nan"))


def check_text(expression: str, ops: Catalogue) -> Checked:
    """A graph of one float input x of four channels, and y."""
    head = "graphspec: 1\nmodel: m\ninputs:\n  x: float[T, 4] @ 100\nrequire:\n  - T % 24 == 0\ngraph:\n"
    document = read_text("m.yaml", f"{head}  y: {expression}\noutputs: [y]\n")
    return check(document, ops, Files(Path(__file__).parent), settings())


def test_weights_do_not_depend_on_what_else_is_there() -> None:
    alone = lower(check_text("x |> linear(3) |> layer_norm", catalogue()), seed=7).weights()
    among = lower(check_text("x |> linear(3) |> layer_norm\n  a: x |> conv(2)\n  z: y |> s4d(4)", catalogue()), seed=7)
    for name, w in alone.items():
        assert torch.equal(w, among.weights()[name]), name
    other = lower(check_text("x |> linear(3) |> layer_norm", catalogue()), seed=8).weights()
    assert not torch.equal(alone["y.linear.weight"], other["y.linear.weight"])


# ---- planted faults ----------------------------------------------------------------------------------------------


class Taps(nn.Module):
    """y_t = sum over the last three of w_j x_{t-j}, done right. What is planted below breaks one thing of it."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(3))
        self.register_buffer("seen", torch.zeros(1))

    def reset(self, generator: Generator) -> None:
        self.w.copy_(torch.randn(3, generator=generator("w")))

    def forward(self, x: Tensor) -> Tensor:
        return self.windows(torch.cat([x.new_zeros(x.shape[0], 2, x.shape[2]), x], 1))

    def windows(self, x: Tensor) -> Tensor:
        return self.w[0] * x[:, 2:] + self.w[1] * x[:, 1:-1] + self.w[2] * x[:, :-2]

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"past": like.new_zeros(batch, 2, 4)}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        joined = torch.cat([state["past"], x], 1)
        return self.windows(joined), {"past": joined[:, -2:]}


class ForgetsATap(Taps):
    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        old = torch.cat([torch.zeros_like(state["past"][:, :1]), state["past"][:, 1:]], 1)
        return super().step(x, {"past": old}, prepared)


class LeaksAcrossTheBatch(Taps):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 1e-3 * x.mean(0))

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        return super().step(x - 1e-3 * x.mean(0), state, prepared)


class LooksAhead(Taps):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 1e-6 * x.roll(-1, 1))


class TouchesTheFuture(Taps):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0 * x.roll(-1, 1))


class DetachesItsState(Taps):
    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        return super().step(x, {"past": state["past"].detach()}, prepared)


class WritesIntoItsState(Taps):
    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        y, new = super().step(x, state, prepared)
        if not torch.is_grad_enabled():  # where autograd would not notice
            state["past"].add_(0.5)
        return y, new


class WritesABuffer(Taps):
    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        self.seen.copy_(x.detach().sum())
        return super().step(x, state, prepared)


class WidensItsState(Taps):
    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        y, new = super().step(x, state, prepared)
        return y, {"past": new["past"].double()}


class GrowsItsState(Taps):
    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        joined = torch.cat([state["past"], x], 1)
        return self.windows(joined[:, -x.shape[1] - 2 :]), {"past": joined}


class MakesAChannelMore(Taps):
    def windows(self, x: Tensor) -> Tensor:
        return torch.cat([super().windows(x), x[:, 2:, :1]], -1)


class StaysInFloat32(Taps):
    def windows(self, x: Tensor) -> Tensor:
        return super().windows(x.float()).float()


class DrawsGlobally(Taps):
    def reset(self, generator: Generator) -> None:
        self.w.copy_(torch.randn(3))


class DrawsForAnother(Taps):
    def reset(self, generator: Generator) -> None:
        self.w.copy_(torch.randn(3, generator=generator("weight")))


class LeavesAWeight(Taps):
    def __init__(self, channels: int = 4) -> None:
        super().__init__(channels)
        self.bias = nn.Parameter(torch.empty(1))


class SumsAll(Stateless):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1)


SAME = "x: float[T, c] @ r -> float[T, c] @ r"
PLANTED = {
    "forgets a tap": (ForgetsATap, SAME, "window(past=2)", "step: y in chunks"),
    "window too small": (Taps, SAME, "window(past=1)", "time: tick 0 of x is read by element 2"),
    "window too large": (Taps, SAME, "window(past=3)", "time: tick 0 of x is never read by element 3"),
    "window too late": (Taps, SAME, "window(past=2, future=1)", "time: tick 1 of x is never read by element 0"),
    "looks ahead": (LooksAhead, SAME, "window(past=2)", "time: tick .* is read by"),
    "touches the future": (TouchesTheFuture, SAME, "window(past=2)", "future: nan in tick"),
    "leaks across the batch": (LeaksAcrossTheBatch, SAME, "window(past=2)", "batch: row 0 of y"),
    "detaches its state": (DetachesItsState, SAME, "window(past=2)", "step: gradient of x"),
    "writes into its state": (WritesIntoItsState, SAME, "window(past=2)", "state: .* a step must be pure"),
    "writes a buffer": (WritesABuffer, SAME, "window(past=2)", "state: a step writes to its module"),
    "widens its state": (WidensItsState, SAME, "window(past=2)", "state: .*past turns from|type: y steps"),
    "grows its state": (GrowsItsState, SAME, "window(past=2)", "state: y.toy/past turns from"),
    "makes a channel more": (MakesAChannelMore, SAME, "window(past=2)", "type: .* where .2, 24, 4. is declared"),
    "stays in float32": (StaysInFloat32, SAME, "window(past=2)", "type: .* is torch.float32"),
    "draws globally": (DrawsGlobally, SAME, "window(past=2)", "reset: y.toy draws from torch's own"),
    "draws for another": (DrawsForAnother, SAME, "window(past=2)", "reset: y.toy draws .'weight'., which"),
    "leaves a weight": (LeavesAWeight, SAME, "window(past=2)", "reset: y.toy leaves bias undrawn"),
    "steps what cannot step": (SumsAll, "x: float[T, c] @ r -> float[]", "everything()", "step: y.toy reads all"),
}


def toy_graph(module: type[nn.Module], signature: str, time: str, **more: Any) -> tuple[Declaration, Checked]:
    def toy(x: Any, *, k: int = 3) -> nn.Module:
        """The last k, weighted by `w`. x: float[T, c] -> the same."""
        return module()

    toy_op = op(signature, time=time, **more)(toy)
    known = catalogue()
    return toy_op, check_text("x |> toy", Catalogue([*known.ops.values(), *known.meanings.values(), toy_op]))


def test_the_sound_toy_keeps_the_contract() -> None:
    toy, checked = toy_graph(Taps, SAME, "window(past=2)", weights={"w": "filter"})
    verify_contract(checked)
    verify_declaration(toy, checked)


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_is_caught(fault: str) -> None:
    module, signature, time, message = PLANTED[fault]
    _, checked = toy_graph(module, signature, time)
    with pytest.raises(AssertionError, match=message):
        verify_contract(checked)


def test_a_wrong_tag_and_a_missing_description_are_caught() -> None:
    with pytest.raises(AssertionError, match="docs: weight bias of toy is not described"):
        verify_declaration(*toy_graph(Taps, SAME, "window(past=2)", weights={"w": "", "bias": "bias"}))
    with pytest.raises(AssertionError, match="weights: toy does not declare .'bias'."):
        verify_declaration(*toy_graph(LeavesAWeight, SAME, "window(past=2)", weights={"w": ""}))
