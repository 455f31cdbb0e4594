"""GS04xx: time, causality, loops."""

from graphspec.codes import Code


def _spec(x: str, after: str, before: str = "128") -> str:
    return f"""\
graphspec: 1
model: small
inputs:
  wave:
    type: int(256)[T, 1] @ 16000
{f"    before: {before}" if before else "    # no before"}
require:
  - T % 4 == 0
graph:
{x}  dist: y |> categorical(256)
{after}"""


_PAST = "  x: wave[t-1] |> embed(16)\n"
_NOW = "  x: wave |> embed(16)\n"
_SLOW = "  y: x |> fold(4) |> linear(64) |> tanh |> unfold(4)\n"
_SLOW_AND_SHIFTED = "  y: x |> fold(4) |> linear(64) |> tanh |> shift(1) |> unfold(4)\n"
_STRICT = "causal:\n  dist: strict\n"
_FEED = "sample:\n  feed:\n    wave: draw(dist)\n"

_LOOP = "graphspec: 1\nmodel: small\ninputs:\n  x: float[T, 4] @ 100\ngraph:\n  h: 0.9 * h[t-1] + x\noutputs: [h]\n"
_CELL = (
    "graphspec: 1\nmodel: small\ninputs:\n  x: float[T, 4] @ 100\ncells:\n  h:\n    type: float[T, 4] @ 100\n"
    "    next: y\n    require: parallel\ngraph:\n  y: 0.9 * h + x\noutputs: [y]\n"
)

CODES = (
    Code(
        "GS0401",
        "a value reads ticks that it must not",
        "`causal: {dist: strict}` says that dist at tick t reads the input up to t - 1 only, or with a number, so many "
        "ticks ahead. Which ticks are read is followed exactly through every delay, pool and rate. The path that reads "
        "too far is printed with what each hop adds. A model with such a leak trains to a beautiful loss, and samples "
        "noise.",
        failing=_spec(_PAST + _SLOW, _STRICT),
        passing=_spec(_PAST + _SLOW_AND_SHIFTED, _STRICT),
        fix="Delay the path: x[t-k], or shift(k) in a pipe; after a pool, before it is unfolded again.",
    ),
    Code(
        "GS0403",
        "what is fed hears itself",
        "`sample: {feed: {wave: draw(dist)}}` replaces the input by what is drawn, tick by tick. To draw tick t, dist "
        "may read only ticks before t: the others do not exist yet.",
        failing=_spec(
            _NOW + _SLOW_AND_SHIFTED.replace("  y: x", "  y: x + (x").replace("unfold(4)", "unfold(4))"), _FEED
        ),
        passing=_spec(
            _PAST + _SLOW_AND_SHIFTED.replace("  y: x", "  y: x + (x").replace("unfold(4)", "unfold(4))"), _FEED
        ),
        fix="Delay the path by what the message says.",
    ),
    Code(
        "GS0404",
        "nothing says what an integer's history reads before the start",
        "Before the first tick a float reads 0. Class 0 of quantised audio is the lowest amplitude, a loud click, and "
        "silence is in the middle; so integers say it.",
        failing=_spec(_PAST + "  y: x |> tanh\n", _STRICT, before=""),
        passing=_spec(_PAST + "  y: x |> tanh\n", _STRICT),
        fix="Give the input `before: 2**(bits - 1)`, or write shift(x, k, before=...).",
    ),
    Code(
        "GS0405",
        "definitions depend on each other in a circle",
        "Each value, param or loss is computed from others, and here that never begins. The circle is printed.",
        failing=_spec(_PAST + "  y: tanh(x + z)\n  z: tanh(y)\n", ""),
        passing=_spec(_PAST + "  y: tanh(x)\n  z: tanh(y)\n", ""),
        fix="Break the circle at one of the definitions.",
    ),
    Code(
        "GS0406",
        "an assertion of causality in a form that is not understood",
        "`causal:` takes `strict` (the past only), or the look-ahead that is allowed, in ticks of the value: 0 allows "
        "the present.",
        failing=_spec(_PAST + "  y: x |> tanh\n", "causal:\n  dist: -1\n"),
        passing=_spec(_PAST + "  y: x |> tanh\n", "causal:\n  dist: 0\n"),
        fix="Write strict or a whole number from 0.",
    ),
    Code(
        "GS0407",
        "what comes back in a loop has no type, or another one",
        "`h[t-1]` inside the definition of h is h itself, a tick ago, so it goes into the loop as it comes out. Where "
        "the loop alone does not tell its type (`h: tanh(h[t-1])`), a cell does.",
        failing=_LOOP.replace("0.9 * h[t-1] + x", "tanh(h[t-1])"),
        passing=_LOOP,
        fix="Make it a cell: `cells: {h: {type: float[T, 4] @ 100, next: ...}}`.",
    ),
    Code(
        "GS0408",
        "a loop changes its rate, or looks ahead",
        "All values of a loop run at one rate, element by element: a tick needs what the last one left. Pooling and "
        "look-ahead stand outside of it.",
        failing=_LOOP.replace("0.9 * h[t-1] + x", "x + (h[t-1] |> conv(4, k=3, centre=true))"),
        passing=_LOOP,
        fix="Take what changes the rate or looks ahead out of the loop.",
    ),
    Code(
        "GS0409",
        "a loop that must run in parallel cannot",
        "With `require: parallel` a cell says that its loop is affine in what comes back, so that it runs as a scan "
        "and not tick by tick. The message names what made it otherwise.",
        failing=_CELL.replace("0.9 * h + x", "tanh(h) + x"),
        passing=_CELL,
        fix="Keep what comes back out of the non-linear part, or drop `require: parallel`.",
    ),
)
