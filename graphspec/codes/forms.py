"""What cannot stream or step, and what `graphspec verify` finds on a spec that lints: our faults, or a plugin's."""

from graphspec.codes import Code

_SMALL = (
    "graphspec: 1\nmodel: small\ninputs:\n  x: float[T, 4] @ 100\n"
    "graph:\n  h: x |> conv(4)\n  y: h |> tanh\noutputs: [y]\n"
)
_REPORT = "Report it with the spec, or ask whoever wrote the op; --seed and --ticks make it again."

CODES = (
    Code(
        "GS0640",
        "something reads all of time, so it cannot be streamed",
        "A stream gives out each element once what it reads has come in. A value that reads the whole sequence, to its "
        "end (a mean over time, attention that is not causal), never comes.",
        failing="",
        passing=_SMALL,
        fix="Read a window instead: attention with window= or chunk=, mean_pool, a recurrence.",
    ),
    Code(
        "GS0641",
        "this has no fixed step, or schedule of ticks",
        "A step of fixed shape gives each element with its own tick, so nothing on the way may look ahead; and the "
        "schedule by which ticks are sampled on a backend never runs a value ahead of its time. Streams and the "
        "slower sampler that asks at every tick what can be made reach both.",
        failing="",
        passing=_SMALL,
        fix="Leave --backend away; stream or sample it instead of exporting it, or take out the look-ahead.",
    ),
    Code(
        "GS0701",
        "the two forms disagree",
        "Whole sequences and steps are one graph, and give the same numbers whatever the chunks. Values are compared "
        "in dataflow order, so the one named is the first that differs.",
        failing="",
        passing=_SMALL,
        fix=_REPORT,
    ),
    Code(
        "GS0702",
        "a value hears more than was proven",
        "A tick of an input was changed, and an element moved that may not hear it: an op reads farther than it "
        "declares.",
        failing="",
        passing=_SMALL,
        fix=_REPORT,
    ),
    Code(
        "GS0703",
        "rows of a batch depend on each other",
        "A row of a batch is what it is alone, and NaN in one never reaches another.",
        failing="",
        passing=_SMALL,
        fix=_REPORT,
    ),
    Code(
        "GS0704",
        "float32 is too far from float64",
        "Both compute the same but for rounding. A value that is farther off loses numbers on the way: a difference of "
        "large ones, or a probability that underflows.",
        failing="",
        passing=_SMALL,
        fix="Look for what cancels; `dtype: f32` of a value keeps it wide under bf16.",
    ),
)
