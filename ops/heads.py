"""Features to a distribution, and what a distribution is for: its loss, its draws, its fields.

A distribution is a value with a meaning, `categorical(256)[T, 1]`. Its tensor holds the parameters: the value's dims,
then the meaning's axes. `nll` and `draw` are the same ops for every meaning; the meaning says which modules they are,
and which fields (`dist.scale`) it has.
"""

from typing import Literal

from graphspec.declare import MeaningDeclaration, op

# ---- categorical ---------------------------------------------------------------------------------------------------


def _categorical_nll(meaning):
    from graphspec.ops.modules.heads import CategoricalNLL

    return CategoricalNLL()


def _categorical_log_prob(meaning):
    from graphspec.ops.modules.heads import CategoricalNLL, LogProb

    return LogProb(CategoricalNLL())


def _categorical_mode(meaning):
    from graphspec.ops.modules.heads import CategoricalMode

    return CategoricalMode()


def _categorical_draw(meaning, *, top_k):
    from graphspec.ops.modules.heads import CategoricalDraw

    return CategoricalDraw(top_k)


def _categorical_field(name, dims, doc):
    def build(d):
        from graphspec.ops.modules.heads import CategoricalField

        return CategoricalField(name)

    build.__doc__ = doc
    return op(
        f"d: categorical(n)[...] @ r -> float[{dims}] @ r",
        time="pointwise()",
        precision="" if name == "logits" else "f32",
        example=f"d.{name}",
        name=name,
    )(build)


CATEGORICAL = MeaningDeclaration(
    name="categorical",
    parameters=("n",),
    event="int(n)",
    axes=("n",),
    functions={
        "nll": _categorical_nll,
        "log_prob": _categorical_log_prob,
        "draw": _categorical_draw,
        "mode": _categorical_mode,
    },
    fields={
        "logits": _categorical_field("logits", "..., n", "The logits of the classes, [..., classes]."),
        "entropy": _categorical_field("entropy", "...", "The entropy of each event, -sum p log p, in nats, [...]."),
    },
)


@op(
    "x: float[..., c] @ r -> categorical(classes)[..., channels] @ r where classes >= 1, channels >= 1",
    time="pointwise()",
    weights={"weight": "", "bias": "bias"},
    example="x |> categorical(256)",
)
def categorical(x, *, classes: int, channels: int = 1):
    """Any distribution over classes: an affine map to one logit a class, for each channel on its own.

    x: float[..., c] -> categorical(classes)[..., channels] (logits [..., channels, classes]).
    classes: of one event, numbered from 0. channels: events at one tick, independent given x.
    Fields: `.logits` [..., channels, classes], `.entropy` [..., channels] in nats.
    Weights `weight` [channels*classes, c] and `bias` [channels*classes], as in `linear`.
    """
    from graphspec.ops.modules.heads import Categorical

    return Categorical(x.channels, classes, channels)


# ---- mixture of logistics ------------------------------------------------------------------------------------------


def _dml_parts(meaning):
    """The arguments of its modules: mixtures, bits, joint, and the form of its probabilities."""
    from graphspec.ops.modules import dml
    from graphspec.ops.parity import openai_dml

    told = DML.bound(meaning.arguments)
    forms = {"stable": dml.level_log_prob, "openai": openai_dml.level_log_prob}
    return told["mixtures"], told["bits"], told["joint"], forms[told["form"]]


def _dml_nll(meaning):
    from graphspec.ops.modules.dml import DMLNLL

    return DMLNLL(*_dml_parts(meaning))


def _dml_log_prob(meaning):
    from graphspec.ops.modules.heads import LogProb

    return LogProb(_dml_nll(meaning))


def _dml_mode(meaning):
    from graphspec.ops.modules.dml import DMLMode

    return DMLMode(*_dml_parts(meaning))


def _dml_draw(meaning, *, top_k):
    from graphspec.ops.modules.dml import DMLDraw
    from graphspec.ops.parity import openai_dml

    parts = _dml_parts(meaning)
    if DML.bound(meaning.arguments)["form"] == "openai":
        return DMLDraw(*parts, margin=openai_dml.MARGIN)
    return DMLDraw(*parts)


def _dml_field(name, dims, doc):
    def build(d):
        from graphspec.ops.modules.dml import DMLField

        told = DML.bound(d.meaning.arguments)
        return DMLField(name, told["mixtures"], told["joint"])

    build.__doc__ = doc
    return op(
        f"d: dml(m)[...] @ r -> float[{dims}] @ r",
        time="pointwise()",
        precision="f32",
        example=f"d.{name}",
        name=name,
    )(build)


DML = MeaningDeclaration(
    name="dml",
    parameters=("mixtures", "bits", "joint", "form"),  # joint: how many channels share a mixture
    defaults=(1, "stable"),
    event="int(2**bits)",
    axes=("mixtures*(2 + joint)",),
    functions={"nll": _dml_nll, "log_prob": _dml_log_prob, "draw": _dml_draw, "mode": _dml_mode},
    noise={"draw": "mixtures + 1"},
    without={"draw": ("top_k", "top_p")},
    fields={
        "logits": _dml_field("logits", "..., m", "The logits of the components, [..., mixtures]."),
        "means": _dml_field("means", "..., m", "The components' means, where the grid is -1 .. 1, [..., mixtures]."),
        "scale": _dml_field("scale", "..., m", "The components' scales, where the grid is -1 .. 1, [..., mixtures]."),
        "entropy": _dml_field("entropy", "...", "The entropy of the choice of a component, in nats, [...]."),
    },
)


@op(
    "x: float[..., c] @ r -> dml(mixtures, bits, channels if joint else 1, form)[..., channels] @ r"
    " where mixtures >= 1, bits >= 1, bits <= 16, channels >= 1,"
    " log_scale_min == none or (log_scale_min >= -32 and log_scale_min < 0)",
    time="pointwise()",
    weights={"weight": "", "bias": "bias"},
    precision="f32",
    example="x |> dml(10, 8)",
)
def dml(
    x,
    *,
    mixtures: int,
    bits: int,
    channels: int = 1,
    joint: bool = False,
    form: Literal["stable", "openai"] = "stable",
    log_scale_min: float | None = None,
):
    """A mixture of logistics, discretised to 2**bits levels in -1 .. 1 (Salimans et al. 2017, PixelCNN++).

    x: float[..., c] -> dml(mixtures, bits)[..., channels], over int(2**bits): level q lies at 2*q/(2**bits - 1) - 1,
    the grid of linear quantisation. At 16 bits it has 3 numbers a component where `categorical` has 65536.
    channels: events at one tick, independent given x, or with joint one mixture of them all: a component is chosen for
    the tick, and the means of later channels move with the earlier channels' values by coefficients in -1 .. 1.
    log_scale_min: the least log-scale; none: -7 - log((2**bits - 1)/255), the same share of a level at any depth.
    form: stable, exact to rounding anywhere, or openai, the published one, with log_scale_min -7 unless given.
    Fields, [..., channels, mixtures]: `.logits` `.means` `.scale`; [..., channels]: `.entropy` of the component.
    Weights `weight` [rows, c] and `bias` [rows], 3*mixtures*channels rows.
    """
    from graphspec.ops.modules.dml import DML as Head
    from graphspec.ops.modules.dml import lowest_log_scale
    from graphspec.ops.parity.openai_dml import LOG_SCALE_MIN

    if log_scale_min is None:
        log_scale_min = LOG_SCALE_MIN if form == "openai" else lowest_log_scale(bits)
    return Head(x.channels, mixtures, channels, joint, log_scale_min)


# ---- of any distribution -------------------------------------------------------------------------------------------


@op(
    "d: dist[...] @ r, x: event(d)[...] @ r -> float[...] @ r",
    time="pointwise()",
    precision="f32",
    example="nll(d, x)",
)
def nll(d, x):
    """The negative log-likelihood of each event, in nats (divide by log(2) for bits), at least in float32.

    d: any distribution[...]. x: what it is over[...] -> float[...], one number an event. Of joined channels (`dml`)
    each is scored given the earlier ones, so that their sum is that of the tick.
    """
    return _function_of(d, "nll")


@op(
    "d: dist[...] @ r, x: event(d)[...] @ r -> float[...] @ r",
    time="pointwise()",
    precision="f32",
    example="log_prob(d, x)",
)
def log_prob(d, x):
    """The log-likelihood of each event, in nats: -nll(d, x), for metrics; a loss is `nll`.

    d: any distribution[...]. x: what it is over[...] -> float[...], one number an event.
    """
    return _function_of(d, "log_prob")


@op(
    "d: dist[...] @ r, temperature?: float[], top_p?: float[] -> event(d)[...] @ r where top_k >= 0",
    time="pointwise()",
    noise="uniform[...]",
    precision="f32",
    example="draw(d, temperature=0.9, top_p=0.95)",
)
def draw(d, temperature, top_p, *, top_k: int = 0):
    """One event drawn from each distribution, from one uniform number an event (`dml`: mixtures + 1 of them).

    d: any distribution[...] -> its event[...]. temperature: 1 as it is, towards 0 the likeliest event; applied after
    the two masks. top_k: only the k likeliest classes, 0 for all. top_p: only the likeliest classes that together
    first exceed this probability (Holtzman et al. 2020), after top_k; 1 for all. A `dml` has no masks; its temperature
    divides the components' logits and multiplies their scales, towards 0 the mean of the likeliest component.
    """
    return _function_of(d, "draw", top_k=top_k)


@op("d: dist[...] @ r -> event(d)[...] @ r", time="pointwise()", example="mode(d)")
def mode(d):
    """The likeliest event of each distribution; of equal ones the first. d: any distribution[...] -> its event[...].

    Of a `dml` it is the likeliest of its components' own likeliest levels, which is it or nearly so.
    """
    return _function_of(d, "mode")


def _function_of(d, name, **parameters):
    from graphspec.ops import catalogue

    functions = catalogue().meanings[d.meaning.name].functions
    if name not in functions:
        raise ValueError(f"{name}: {d.meaning} has no {name}")
    return functions[name](d.meaning, **parameters)
