"""Distances between two values and other things to be averaged: the runtime takes the mean of whatever a loss is.

Two operands join as in arithmetic (LANGUAGE 6).
"""

from graphspec.declare import op


@op("a: any[...], b: any[...] -> float[join(a, b)]", time="pointwise()", example="l1(a, b)")
def l1(a, b):
    """The absolute difference, element by element; its gradient at 0 is 0. a, b: any shapes that join."""
    from graphspec.ops.modules.losses import Difference

    return Difference("l1", a, b)


@op("a: any[...], b: any[...] -> float[join(a, b)]", time="pointwise()", example="l2(a, b)")
def l2(a, b):
    """The squared difference, element by element. a, b: any shapes that join."""
    from graphspec.ops.modules.losses import Difference

    return Difference("l2", a, b)


@op("a: any[...], b: any[...] -> float[join(a, b)] where delta > 0", time="pointwise()", example="huber(a, b)")
def huber(a, b, *, delta: float = 1.0):
    """Half the squared difference d where |d| <= delta, else delta*(|d| - delta/2), element by element (Huber 1964).

    a, b: any shapes that join. delta: where the square turns into a line.
    """
    from graphspec.ops.modules.losses import Difference

    return Difference("huber", a, b, delta)


@op(
    "logits: float[..., k] @ r, x: int(k)[..., 1] @ r -> float[..., 1] @ r",
    time="pointwise()",
    precision="f32",
    example="cross_entropy(logits, x)",
)
def cross_entropy(logits, x):
    """The negative log-likelihood of a class under the softmax of the channels, in nats; `nll` of bare logits.

    logits: float[..., k]. x: int(k)[..., 1] -> float[..., 1].
    """
    from graphspec.ops.modules.losses import CrossEntropy

    return CrossEntropy()


@op("p: float[..., c] @ r -> float[..., 1] @ r", time="pointwise()", precision="f32", example="entropy(p)")
def entropy(p):
    """The entropy of the channels taken as probabilities, -sum p log p, in nats (Shannon 1948).

    p: float[..., c], at least 0 and adding up to 1 (not checked) -> float[..., 1]. A p of 0 adds 0, with a large but
    finite gradient.
    """
    from graphspec.ops.modules.losses import Entropy

    return Entropy()


@op(
    "d: categorical(n)[...] @ r, x: event(d)[...] @ r -> float[...] @ r where k >= 1, k <= n",
    time="pointwise()",
    precision="f32",
    example="accuracy(d, x)",
)
def accuracy(d, x, *, k: int = 1):
    """Whether each event is among the k likeliest classes, 1 or 0: its mean is the accuracy at k. For `metrics:`.

    d: categorical(n)[...]. x: int(n)[...] -> float[...]. k: 1 for the likeliest. Classes as likely as the event's own
    do not count against it. It has no gradient.
    """
    from graphspec.ops.modules.losses import Accuracy

    return Accuracy(k)
