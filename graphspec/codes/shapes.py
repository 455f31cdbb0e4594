"""GS03xx: shapes, rates and dtypes. Both sides of a conflict are shown, each with its type and where it was made."""

from graphspec.codes import Code

_HEAD = "graphspec: 1\nmodel: small\n"


def _graph(y: str, inputs: str = "  wave: float[T, 1] @ 16000\n", before: str = "", after: str = "") -> str:
    return f"{_HEAD}{before}inputs:\n{inputs}graph:\n{y}{after}"


_BOTH = "  wave: float[T, 1] @ 16000\n  style: float[8]\n"
_CLASSES = "  wave: {type: 'int(256)[T, 1] @ 16000', before: 128}\n"
_FRAMES = "  a: float[T, 3, 1] @ 100\n  b: float[T, 1, 4] @ 100\n"
_HEADED = "  dist: wave[t-1] |> embed(16) |> categorical(256)\n"

CODES = (
    Code(
        "GS0301",
        "the shapes do not fit",
        "Elementwise ops join numbers and `[]` with everything, a static vector with the channels, and else equal "
        "axes, or axes of which one is 1. Nothing else broadcasts: a silent stretch is a wrong model that trains.",
        failing=_graph("  a: wave |> conv(16)\n  b: wave |> conv(8)\n  y: a + b\n"),
        passing=_graph("  a: wave |> conv(16)\n  b: wave |> conv(8)\n  y: a + (b |> linear(16))\n"),
        fix="Bring one side to the shape of the other, mostly with linear(channels).",
    ),
    Code(
        "GS0302",
        "the rates do not fit",
        "A rate is how many ticks a second a value has. Values of different rates have no common tick, so they meet "
        "only after fold, unfold, a strided or a resampling op has brought one to the rate of the other.",
        failing=_graph(
            "  slow: wave |> fold(4)\n  y: wave + (slow |> linear(1))\n", after="require:\n  - T % 4 == 0\n"
        ),
        passing=_graph(
            "  slow: wave |> fold(4)\n  y: wave + (slow |> unfold(4))\n", after="require:\n  - T % 4 == 0\n"
        ),
        fix="Bring one side to the other's rate, with fold(p) or unfold(p).",
    ),
    Code(
        "GS0303",
        "the dtypes do not fit",
        "Integers are classes, floats are signals, a distribution is neither. A matrix times a class number, or a loss "
        "of a distribution against something it is not over, runs in PyTorch and means nothing.",
        failing=_graph("  y: wave |> conv(16)\n", inputs=_CLASSES),
        passing=_graph("  y: wave |> embed(8) |> conv(16)\n", inputs=_CLASSES),
        fix="Make floats of integers with embed or dequantise, integers of audio with quantise, a distribution with a "
        "head such as categorical.",
    ),
    Code(
        "GS0304",
        "a value has other axes than are wanted, or no time",
        "A value along time has a rate and its first axis is time; a static value has neither. Convolution, history "
        "and `causal` want time; an op's signature says how many axes it takes.",
        failing=_graph("  y: style |> conv(16)\n", inputs=_BOTH),
        passing=_graph("  y: (wave |> conv(8)) * style\n", inputs=_BOTH),
        fix="Give a value of the kind that is wanted; write `@ rate` (or `@ static`) behind the type of an input.",
    ),
    Code(
        "GS0305",
        "a condition does not hold",
        "A `require` of the spec, of a block, or a condition of an op (`c % 2 == 0`) is false for these numbers.",
        failing=_graph("  y: wave |> conv(15) |> glu\n"),
        passing=_graph("  y: wave |> conv(16) |> glu\n"),
        fix="Change the param or argument that the message names.",
    ),
    Code(
        "GS0306",
        "an axis that is not a whole number from 1",
        "Channels and axes between time and channels are known numbers; only time, and axes of inputs, may be symbols. "
        "A size is never negative, zero or broken.",
        failing=_graph(
            "  y: wave |> linear(8)\n", inputs="  wave: float[T, d // 4] @ 16000\n", before="params:\n  d: 2\n"
        ),
        passing=_graph(
            "  y: wave |> linear(8)\n", inputs="  wave: float[T, d // 4] @ 16000\n", before="params:\n  d: 8\n"
        ),
        fix="Give a whole number from 1.",
    ),
    Code(
        "GS0307",
        "both sides would be stretched",
        "[T, 3, 1] and [T, 1, 4] would make an outer product out of a `+`. Only one side of an operation may have axes "
        "of length 1 that stretch.",
        failing=_graph("  y: a + b\n", inputs=_FRAMES),
        passing=_graph("  y: a + (b |> mean(axis=-1))\n", inputs=_FRAMES.replace("1, 4", "3, 4")),
        fix="Say what is meant: bring one side to all axes first.",
    ),
    Code(
        "GS0310",
        "a size is not known to be whole",
        "Folding T ticks by 4 makes T/4 ticks. T changes with the data, so the spec says once what holds of it, and "
        "the data is cut to fit. The fix names the fact that is needed.",
        failing=_graph("  y: wave |> fold(4)\n"),
        passing=_graph("  y: wave |> fold(4)\n", after="require:\n  - T % 4 == 0\n"),
        fix="Add the fact to `require`.",
    ),
    Code(
        "GS0311",
        "a block requires a fact that nothing says",
        "The block's `require` is about a size that is not known yet, and does not follow from the facts of the spec.",
        failing=_graph("  y: wave |> linear(8) |> down_pool(4)\n", before="use: [std/core, std/sashimi]\n"),
        passing=_graph(
            "  y: wave |> linear(8) |> down_pool(4)\n",
            before="use: [std/core, std/sashimi]\n",
            after="require:\n  - T % 4 == 0\n",
        ),
        fix="Add the fact to the spec's `require`.",
    ),
    Code(
        "GS0312",
        "'before' is not one of the classes",
        "What the history of an integer input reads before the start is one of its classes, 0 to n - 1. For quantised "
        "audio that is silence, in the middle.",
        failing=_graph(_HEADED, inputs=_CLASSES.replace("128", "256")),
        passing=_graph(_HEADED, inputs=_CLASSES),
        fix="Give a class; silence is 2**(bits - 1).",
    ),
    Code(
        "GS0313",
        "this is not a dtype",
        "An input is f32, float (as wide as the run computes), int(classes) or bool.",
        failing=_graph("  y: wave |> conv(16)\n", inputs="  wave: float64[T, 1] @ 16000\n"),
        passing=_graph("  y: wave |> conv(16)\n"),
        fix="Write one of these four.",
    ),
    Code(
        "GS0314",
        "a fact about sizes in a form that is not understood",
        "Facts are proven with, so they have two forms: `T % 16 == 0` and `T == N*hop`. Of params alone any condition "
        "may stand.",
        failing=_graph("  y: wave |> conv(16)\n", after="require:\n  - T > 16\n"),
        passing=_graph("  y: wave |> conv(16)\n", after="require:\n  - T % 16 == 0\n"),
        fix="Write a divisibility or an equality.",
    ),
    Code(
        "GS0315",
        "a value is not of its declared type",
        "`type:` of a value is an assertion. It documents a line, and breaks when a change elsewhere changes it.",
        failing=_graph("  y:\n    is: wave |> conv(16)\n    type: float[T, 8] @ 16000\n"),
        passing=_graph("  y:\n    is: wave |> conv(16)\n    type: float[T, 16] @ 16000\n"),
        fix="Change the expression or the type, whichever is wrong.",
    ),
    Code(
        "GS0316",
        "what is fed is of another type than the input",
        "`sample: feed` puts what was drawn in the place of an input, so dtype, classes, axes and rate are the same.",
        failing=_graph(
            _HEADED.replace("256", "128"), inputs=_CLASSES, after="sample:\n  feed:\n    wave: draw(dist)\n"
        ),
        passing=_graph(_HEADED, inputs=_CLASSES, after="sample:\n  feed:\n    wave: draw(dist)\n"),
        fix="Make the head's distribution one over the input's classes and channels.",
    ),
    Code(
        "GS0317",
        "a loss stretches a channel",
        "One channel joins many in arithmetic. Between what a model says and what it should say that is hardly meant: "
        "a mono output would be compared with both channels of a stereo target.",
        failing=_graph(
            "  y: wave |> conv(1)\n", inputs="  wave: float[T, 2] @ 16000\n", after="losses:\n  fit: l1(y, wave)\n"
        ),
        passing=_graph(
            "  y: wave |> conv(2)\n", inputs="  wave: float[T, 2] @ 16000\n", after="losses:\n  fit: l1(y, wave)\n"
        ),
        fix="Give both the same channels, or say what is meant by sum or mean.",
    ),
)
