"""GS0130 to GS0139: the sections of a spec. GS0190: what the language has and the program not yet."""

from graphspec.codes import Code

_WAVE = "inputs:\n  wave: float[T, 1] @ 16000\n"
_GRAPH = "graph:\n  h: wave |> conv(16)\n  y: h |> tanh |> linear(1)\n"
_SMALL = "graphspec: 1\nmodel: small\n" + _WAVE + _GRAPH

CODES = (
    Code(
        "GS0130",
        "there is no such section or key",
        "A key nobody reads would be a setting without effect: a misspelt `losses` is a model without a loss. So every "
        "key of a section, a block, an input, a loss and of `sample` is known.",
        failing=_SMALL + "loses:\n  l: mean(square(y - wave))\n",
        passing=_SMALL + "losses:\n  l: mean(square(y - wave))\n",
        fix="Correct the name, or delete the entry.",
    ),
    Code(
        "GS0131",
        "the edition of the language is missing or unknown",
        "`graphspec: 1` says which edition a file is written in, so that an old spec means the same in years.",
        failing="graphspec: 2\nmodel: small\n" + _WAVE + _GRAPH,
        passing=_SMALL,
        fix="Begin the file with `graphspec: 1`.",
    ),
    Code(
        "GS0132",
        "this file is not a model",
        "A spec has `model: NAME`. A file with `library:` holds blocks for others and has no graph of its own.",
        failing="graphspec: 1\nlibrary: small\nblocks:\n  twice:\n    in: x\n    out: x + x\n",
        passing="graphspec: 1\nmodel: small\n"
        + _WAVE
        + "blocks:\n  twice:\n    in: x\n    out: x + x\ngraph:\n  y: wave |> twice\n",
        fix="Write `model: NAME`, or check a spec that uses the library.",
    ),
    Code(
        "GS0133",
        "a mapping, a list or a plain value belongs here",
        "The sections have their forms: `params`, `inputs`, `graph`, `data` and `train` are mappings of names, "
        "`require`, `use` and `outputs` are lists, a type or a number is one value.",
        failing="graphspec: 1\nmodel: small\n" + _WAVE + _GRAPH + "require:\n  T: 16\n",
        passing="graphspec: 1\nmodel: small\n" + _WAVE + _GRAPH + "require:\n  - T % 16 == 0\n",
        fix="Write it in the form that the message names.",
    ),
    Code(
        "GS0190",
        "this is not built yet",
        "The language reference describes it, and this version does not read it. It is refused, never skipped: a "
        "section without effect would be worse than an error.",
        failing=_SMALL + "cells:\n  count:\n    per: update\n    init: 0\n    next: count + 1\n",
        passing=_SMALL,
        fix="Do without it for now.",
    ),
)
