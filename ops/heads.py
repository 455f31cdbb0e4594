"""Features to a distribution, and what a distribution is for: its loss and its draws.

A distribution is a value with a meaning, `categorical(256)[T, 1]`. Its tensor holds the parameters: the value's dims,
then the meaning's axes. `nll` and `draw` are the same ops for every meaning; the meaning says which modules they are.
"""

from graphspec.declare import MeaningDeclaration, op


def _categorical_nll(meaning):
    from graphspec.ops.modules.heads import CategoricalNLL

    return CategoricalNLL()


def _categorical_mode(meaning):
    from graphspec.ops.modules.heads import CategoricalMode

    return CategoricalMode()


def _categorical_draw(meaning, *, top_k):
    from graphspec.ops.modules.heads import CategoricalDraw

    return CategoricalDraw(top_k)


CATEGORICAL = MeaningDeclaration(
    name="categorical",
    parameters=("n",),
    event="int(n)",
    axes=("n",),
    functions={"nll": _categorical_nll, "draw": _categorical_draw, "mode": _categorical_mode},
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
    Weights `weight` [channels*classes, c] and `bias` [channels*classes], as in `linear`.
    """
    from graphspec.ops.modules.heads import Categorical

    return Categorical(x.channels, classes, channels)


@op(
    "d: dist[...] @ r, x: event(d)[...] @ r -> float[...] @ r",
    time="pointwise()",
    precision="f32",
    example="nll(d, x)",
)
def nll(d, x):
    """The negative log-likelihood of each event, in nats (divide by log(2) for bits), at least in float32.

    d: any distribution[...]. x: what it is over[...] -> float[...], one number an event.
    """
    return _function_of(d, "nll")


@op(
    "d: dist[...] @ r, temperature?: float[], top_p?: float[] -> event(d)[...] @ r where top_k >= 0",
    time="pointwise()",
    noise="uniform[...]",
    precision="f32",
    example="draw(d, temperature=0.9, top_p=0.95)",
)
def draw(d, temperature, top_p, *, top_k: int = 0):
    """One event drawn from each distribution, from one uniform number an event.

    d: any distribution[...] -> its event[...]. temperature: 1 as it is, towards 0 the likeliest event; applied after
    the two masks. top_k: only the k likeliest classes, 0 for all. top_p: only the likeliest classes that together
    first exceed this probability (Holtzman et al. 2020), after top_k; 1 for all.
    """
    return _function_of(d, "draw", top_k=top_k)


@op("d: dist[...] @ r -> event(d)[...] @ r", time="pointwise()", example="mode(d)")
def mode(d):
    """The likeliest event of each distribution; of equal ones the first. d: any distribution[...] -> its event[...]."""
    return _function_of(d, "mode")


def _function_of(d, name, **parameters):
    from graphspec.ops import catalogue

    functions = catalogue().meanings[d.meaning.name].functions
    if name not in functions:
        raise ValueError(f"{name}: {d.meaning} has no {name}")
    return functions[name](d.meaning, **parameters)
