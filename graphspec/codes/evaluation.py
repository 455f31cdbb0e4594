"""GS0660 to GS0664: what cannot be asked of a run's results."""

from graphspec.codes import Code

_STEREO = (
    "graphspec: 1\nmodel: small\ninputs:\n  wave: {type: 'int(16)[T, 2] @ 8000', before: 8}\n"
    "graph:\n  dist: wave[t-1] |> dequantise |> linear(8) |> categorical(16, channels=2)\n"
    "causal: {dist: strict}\nlosses: {nll: 'nll(dist, wave)'}\nsample: {feed: {wave: draw(dist)}}\n"
)

CODES = (
    Code(
        "GS0660",
        "there is nothing between channels to ask",
        "`eval --cross-channel` scores each channel of an input with the other channels as they are, and again with "
        "those of another recording. It needs a loss or metric `nll(dist, x)` where x is an input of several channels.",
        failing="",
        passing=_STEREO,
        fix="Leave --cross-channel out, or train a spec of several channels, as sashimi_musdb18_stereo.",
    ),
    Code(
        "GS0661",
        "samples of it cannot be ranked",
        "`sample --rank` scores what was drawn by the spec's own `nll` of the value that is fed, with the other inputs "
        "at their defaults. It needs that loss, the fed value as an input, and the fed value in `to:`.",
        failing="",
        passing=_STEREO,
        fix="Leave --rank out, or feed an input that a loss scores by nll.",
    ),
    Code(
        "GS0662",
        "these cannot be compared as sound",
        "`eval --samples` compares generated files with the run's own recordings by their spectra and levels, which "
        "only sound has, and needs some length of both.",
        failing="",
        passing=_STEREO,
        fix="Leave --samples out for codes and features; give longer files, or more of them.",
    ),
    Code(
        "GS0663",
        "runs cannot be compared",
        "`compare` reads the metrics.csv and config.json of two runs or more. One of them has no measured row yet, or "
        "its file is damaged, a run is named twice, or the page cannot be written where it was asked for.",
        failing="",
        passing=_STEREO,
        fix="Train it for an update or more, name other runs, or give the page another place by -o page.html.",
    ),
    Code(
        "GS0664",
        "this was settled when the run was trained",
        "`eval` scores a run's weights, and params and the graph are what these weights were trained for. What may be "
        "other is the data: `data=FOLDER`, or a part of `data:` by its dotted path.",
        failing="",
        passing=_STEREO,
        fix="Give data=FOLDER, or train another run.",
    ),
)
