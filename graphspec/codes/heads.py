"""GS0318, GS0673, GS0807: a distribution and what is done with it."""

from graphspec.codes import Code

_LOGISTIC = """\
graphspec: 1
model: small
inputs:
  wave: {type: 'int(256)[T, 1] @ 16000', before: 128}
graph:
  dist: wave[t-1] |> embed(8) |> dml(10, 8)
losses:
  nll: nll(dist, wave)
"""
_SIXTEEN = _LOGISTIC.replace("256", "65536").replace("128", "32768").replace("dml(10, 8)", "dml(10, 16)")

CODES = (
    Code(
        "GS0318",
        "this distribution does not do that",
        "Every head has nll, log_prob, draw and mode; what shapes a draw is its own. The k likeliest classes and those "
        "of a share of the probability are something of a categorical; a mixture of logistics has its temperature.",
        failing=_LOGISTIC + "sample:\n  feed:\n    wave: draw(dist, top_k=5)\n",
        passing=_LOGISTIC + "sample:\n  feed:\n    wave: draw(dist, temperature=0.9)\n",
        fix="Leave it out; the message names what the distribution lacks.",
    ),
    Code(
        "GS0673",
        "a loss that training would drive the wrong way",
        "Losses are made small. A log-likelihood is to be large, so as a loss it trains the model to find its data as "
        "unlikely as it can; `nll` is the same with the sign turned.",
        failing=_LOGISTIC.replace("nll(dist", "log_prob(dist"),
        passing=_LOGISTIC,
        fix="Write nll(dist, x) in losses, log_prob in metrics.",
    ),
    Code(
        "GS0807",
        "a head with gigabytes of logits a second",
        "A categorical head has one number a class for every sample: 65536 of them at 16 kHz are 4.2 GB a second of "
        "audio, and training keeps several copies. A mixture of logistics has 3 numbers a component at any depth.",
        failing=_SIXTEEN.replace("dml(10, 16)", "categorical(65536)"),
        passing=_SIXTEEN,
        fix="Use dml(mixtures, bits), or fewer bits.",
    ),
)
