"""GS08xx: limits, so that a spec that is too large is an answer and not a hang."""

from graphspec.codes import Code

_SMALL = """\
graphspec: 1
model: small
inputs:
  wave: float[T, 1] @ 16000
graph:
  y: wave |> conv(16)
"""
_LONG = """\
graphspec: 1
model: long
inputs:
  wave: float[T, 1] @ 16000
graph:
  y: wave[t-1] |> conv(16) |> attention(4) |> linear(1)
losses:
  fit: l2(y, wave)
data:
  wave: corpus()
train:
  optimizer: adam()
  lr: 1e-3
  crop: {T: 16384}
"""

CODES = (
    Code(
        "GS0801",
        "the file is too large",
        "A spec is written by hand and fits on a page or two. A file over 1 MiB is something else (data, a log, an "
        "endless stream), and reading it would only make the program slow.",
        failing=_SMALL + "# filler\n" * (1 + (1 << 20) // 9),
        passing=_SMALL,
        fix="Split it with `use`, or let `repeat` do the repeating.",
    ),
    Code(
        "GS0802",
        "nested too deep",
        "Mappings and lists may stand inside each other up to 32 levels. Real specs use six. Deeper nesting is a "
        "mistake or an attack: the YAML library itself crashes on some thousands of levels.",
        failing=f"graphspec: 1\nmodel: deep\nparams:\n  table: {'[' * 40}{']' * 40}\n",
        passing=f"graphspec: 1\nmodel: deep\nparams:\n  table: {'[' * 20}{']' * 20}\n",
        fix="Name the inner part: a value, or a block of its own.",
    ),
    Code(
        "GS0803",
        "too many keys and values",
        "A spec holds at most 50,000 keys and values. Repetition belongs into `repeat` and comprehensions, which stay "
        "one line however many copies they make.",
        failing=f"graphspec: 1\nmodel: many\nparams:\n  table: [{'0, ' * 50_000}0]\n",
        passing="graphspec: 1\nmodel: many\nparams:\n  table: [0, 0, 0]\n",
        fix="Let `repeat` and comprehensions do the repeating.",
    ),
    Code(
        "GS0804",
        "too many values, copies or elements",
        "A spec unfolds to at most 20,000 values, a list holds at most 20,000 elements, and the schedule of sampling "
        "repeats within its limit. This is counted before it is built, so a slip such as depth=80000 is an answer and "
        "not a hang.",
        failing=_SMALL.replace("conv(16)", "conv(16) |> repeat(80000, tanh)"),
        passing=_SMALL.replace("conv(16)", "conv(16) |> repeat(8, tanh)"),
        fix="Look for the param that is too large.",
    ),
    Code(
        "GS0806",
        "every element is compared with every other, over a long sequence",
        "Attention without a window costs time and memory by the square of the length. Over thousands of elements a "
        "window, chunks, or a coarser clock are nearly always meant.",
        failing=_LONG,
        passing=_LONG.replace("attention(4)", "attention(4, window=256)"),
        fix="Give it a window, or pool the sequence first.",
    ),
)
