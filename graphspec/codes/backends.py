"""GS0645 and GS0646: a model that a backend of the sampler, or a format of export, cannot run."""

from graphspec.codes import Code

_SAMPLED = (
    "graphspec: 1\nmodel: small\ninputs:\n  wave: {type: 'int(16)[T, 1] @ 8000', before: 8}\n"
    "graph:\n  dist: wave[t-1] |> embed(4) |> linear(8) |> tanh |> categorical(16)\n"
    "causal: {dist: strict}\noutputs: [dist]\nsample: {feed: {wave: draw(dist)}}\n"
)

CODES = (
    Code(
        "GS0645",
        "the backend cannot run this model",
        "Compiled backends take a tick as one function of tensors of fixed sizes. The message names the value that "
        "stands in the way, or what is not installed. Every compiled tick is compared with the eager one before it is "
        "used.",
        failing="",
        passing=_SAMPLED,
        fix="Leave --backend out, which takes the fastest that works here, or name another; `eager` runs everything.",
    ),
    Code(
        "GS0646",
        "the model cannot be exported",
        "An export is run back against the eager model over hundreds of steps before it is put in place. The target "
        "cannot say one of the ops, a result differs, or the folder exists already; nothing was written.",
        failing="",
        passing=_SAMPLED,
        fix="Choose another --target or --out; what differs is a fault of ours or of the exporter: report it.",
    ),
)
