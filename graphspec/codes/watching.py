"""GS0690 to GS0694: what is asked of values while a model trains, of pages about runs, and of grids of runs."""

from graphspec.codes import Code

_SPEC = """\
graphspec: 1
model: small
inputs:
  wave: float[T, 1] @ 16000
graph:
  y: wave[t-1] |> conv(16) |> tanh |> linear(1)
losses:
  l2: mean(square(y - wave))
data:
  wave: corpus()
train:
  optimizer: adam()
  lr: 1e-3
  crop: {T: 4096}
  dump: [%s]
"""
_GOOD = _SPEC % "y"

CODES = (
    Code(
        "GS0690",
        "no value has this name",
        "`train.dump` and `plot --values` take names of `graph:`, inputs, outputs, and paths of values within blocks, "
        "as `compile` lists them. A record or a list stands for all its parts.",
        failing=_SPEC % "why",
        passing=_GOOD,
        fix="Use a name that the note lists.",
    ),
    Code(
        "GS0691",
        "this cannot be drawn",
        "`plot` draws values of a run's newest weights, or with `--step` those that `train.dump` wrote down after so "
        "many updates. There is no such dump, it lacks the value, or the page cannot be written where it should be.",
        failing="",
        passing=_GOOD,
        fix="Leave --step out, name a step and values that were dumped, or give the page another place by --out.",
    ),
    Code(
        "GS0692",
        "this is no grid",
        "`sweep` trains a run for each combination of values: at least one setting has several, separated by commas "
        "outside brackets. Values differ, and no setting is given twice.",
        failing="",
        passing=_GOOD,
        fix="Write backbone=mlp,gru for two runs; for a single run, use train.",
    ),
    Code(
        "GS0693",
        "the sweep cannot go on in this folder",
        "Another sweep, or a training that one started, is still at work in the folder, or it cannot be written to.",
        failing="",
        passing=_GOOD,
        fix="Wait for it or end it, or give another folder by --out.",
    ),
)
