"""GS0120 to GS0126: mistakes inside an expression, found by the parser. They are underlined to the character."""

from graphspec.codes import Code

_HEAD = "graphspec: 1\nmodel: small\ninputs:\n  wave: float[T, 1] @ 16000\n"


def _value(y: str, rest: str = "") -> str:
    return f"{_HEAD}graph:\n  h: wave |> conv(16)\n  y: {y}\ncausal:\n  h: 0\n{rest}"


CODES = (
    Code(
        "GS0120",
        "an expression ends early",
        "A bracket is still open, an operator has nothing on its right, or there is nothing at all behind the colon. "
        "What was opened is named with its place.",
        failing=_value("(h + tanh(h)"),
        passing=_value("(h + tanh(h))"),
        fix="Write what is missing: the closing bracket, the right side of the operator, the value.",
    ),
    Code(
        "GS0121",
        "a sign or word that does not belong here",
        "Expressions are made of names, numbers, texts, calls, lists, `+ - * / // % **`, comparisons, `and or not`, "
        "`a if c else b` and `|>`. Nothing of Python beyond that: no slices, lambdas, dicts, chained comparisons or "
        "filters in a `for`; and a spec does not read the environment, so that it means the same everywhere.",
        failing=_value("h ^ 2"),
        passing=_value("h ** 2"),
        fix="Write it with what there is; the message says how where it can.",
    ),
    Code(
        "GS0122",
        "'|>' and arithmetic touch without parentheses",
        "`y * silu(g) |> linear(8)` can be read in two ways, and both are networks that train. Other languages with a "
        "pipe disagree on which is meant, so here neither is guessed. Both readings are printed as fixes, each with "
        "the type it would have; one that does not fit stands last. After a comma and inside a call no parentheses are "
        "needed.",
        failing=_value("h * silu(h) |> linear(8)"),
        passing=_value("(h * silu(h)) |> linear(8)"),
        fix="Put parentheses around the part that belongs together.",
    ),
    Code(
        "GS0123",
        "history that is not history",
        "`x[t-k]` is the value k of its own ticks ago, for a whole number k from 1 that is known at compile time. "
        "`x[t]` is x itself, `x[t+1]` would read the future, and `t` alone stands for nothing: there is no running "
        "index in a graph of values.",
        failing=_value("h[t+1] |> tanh"),
        passing=_value("h[t-1] |> tanh"),
        fix="Write x[t-k] with k from 1, or `x |> shift(k)`, where k may also be 0.",
    ),
    Code(
        "GS0124",
        "right of '|>' stands no stage",
        "A stage is a name, or a call of one, that still lacks its first input: `tanh`, `linear(8)`, "
        "`sashimi.s4_res`. An expression in parentheses, an attribute or history of a call is a value, not a stage.",
        failing=_value("h |> (tanh)"),
        passing=_value("h |> tanh"),
        fix="Pipe into a name or a call; give what comes out a name of its own and go on from there.",
    ),
    Code(
        "GS0125",
        "two 'for' in one call",
        "A comprehension stands alone in its place, once a call, without a filter and without a second `for`. Two "
        "lists are walked together with `zip`, or combined before.",
        failing=_value("sum(tanh(h) for a in [1, 2], h for b in [1, 2])"),
        passing=_value("sum(tanh(h) * (a + b) for a, b in zip([1, 2], [3, 4]))"),
        fix="Use one `for`, over zip(...) where there are several lists.",
    ),
    Code(
        "GS0126",
        "an expression belongs here",
        "What stands in `graph`, `losses`, `metrics` and `require` is an expression. A YAML list there is not one: "
        "lists of values live inside calls.",
        failing=_value("[h, wave]"),
        passing=_value("cat(h, wave)"),
        fix="Call the op that takes the list: cat, sum, stack.",
    ),
)
