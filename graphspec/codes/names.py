"""GS02xx: names, arguments and compile-time expressions."""

from graphspec.codes import Code

_HEAD = "graphspec: 1\nmodel: small\n"
_WAVE = "inputs:\n  wave: float[T, 1] @ 16000\n"


def _graph(y: str, params: str = "", blocks: str = "", wave: str = "float[T, 1] @ 16000") -> str:
    """A small spec: h has 16 channels, y is what the code is about."""
    inner = "params:\n" + params if params else ""
    outer = "blocks:\n" + blocks if blocks else ""
    return f"{_HEAD}{inner}inputs:\n  wave: {wave}\n{outer}graph:\n  h: wave |> conv(16)\n  y: {y}\n"


_SPLIT = "  halves:\n    in: x\n    out:\n      low: x |> take(0, 8)\n      high: x |> take(8, 8)\n"
_TWICE = "  twice:\n    params: {body: stage}\n    in: x\n    out: x |> body |> body\n"
_USED = _HEAD + _WAVE + "graph:\n  h: wave |> conv(16)\n  y: h |> tanh\noutputs: [y]\n"

CODES = (
    Code(
        "GS0201",
        "there is no such name",
        "Where a value is wanted stand params, inputs, values of `graph`, sizes such as T, and the names of a `for`. "
        "A block sees its own params and inputs and those of its file, never the values of the graph around it.",
        failing=_graph("hh |> tanh"),
        passing=_graph("h |> tanh"),
        fix="Correct the name; the nearest one that is known is suggested.",
    ),
    Code(
        "GS0202",
        "there is no such op, block or function",
        "What is called, or stands right of `|>`, is an op of the catalogue, a block of the spec or of a library in "
        "`use`, or a compile-time function such as log or range.",
        failing=_graph("h |> tahn"),
        passing=_graph("h |> tanh"),
        fix="Correct the name, or add the library that has the block to `use`.",
    ),
    Code(
        "GS0203",
        "the arguments do not fit what is called",
        "An op or block takes its required inputs in order (the first is what is piped in), then its parameters in "
        "order; optional inputs only by name. One is missing, unknown, given twice or too many. The note prints what "
        "the op takes, with its defaults.",
        failing=_graph("h |> conv(16, kernel=5)"),
        passing=_graph("h |> conv(16, k=5)"),
        fix="Give what is declared; `k=5` names a parameter.",
    ),
    Code(
        "GS0204",
        "this cannot stand here",
        "Operators work on numbers, sizes and values; an op or block is called or piped into, and does not stand alone "
        "where a value is wanted; in `params` and settings only compile-time expressions stand.",
        failing=_graph("h + tanh"),
        passing=_graph("h + tanh(h)"),
        fix="Call it, pipe into it, or compute it elsewhere and name it.",
    ),
    Code(
        "GS0205",
        "a condition that is not true or false at compile time",
        "`a if c else b`, `and`, `or`, `not` choose the network before it is built. A comparison of values is known "
        "only while it runs, differently at every tick; there `where` chooses.",
        failing=_graph("h if h > 0 else -h"),
        passing=_graph("where(h > 0, h, -h)"),
        fix="Choose at run time with where(mask, a, b), or make the condition one of params.",
    ),
    Code(
        "GS0206",
        "a list is used as what it is not, or something else as a list",
        "`for` runs over a list, `xs[i]` picks an element of one by a whole number, and the names after `for` are as "
        "many as an element has parts. A value has no index: channels are taken with take, history with x[t-k].",
        failing=_graph("h[0]"),
        passing=_graph("h |> take(0)"),
        fix="Use take(x, first, count) for channels, x[t-k] for history, a list where one is wanted.",
    ),
    Code(
        "GS0208",
        "division by zero",
        "A compile-time division, rest, power or rate has zero below the line. The factor that is zero is underlined.",
        failing=_graph("h |> linear(16 // groups)", params="  groups: 0\n"),
        passing=_graph("h |> linear(16 // groups)", params="  groups: 4\n"),
        fix="Change the param that is zero.",
    ),
    Code(
        "GS0209",
        "a compile-time function does not work on this",
        "range, zip, len, log and their like run while the spec is compiled, on numbers and lists. The message says "
        "what the function takes, or why it refuses: lists of unlike length, a number too large.",
        failing=_graph("sum(h * (a + b) for a, b in zip([1, 2], [3]))"),
        passing=_graph("sum(h * (a + b) for a, b in zip([1, 2], [3, 4]))"),
        fix="Give it what it takes.",
    ),
    Code(
        "GS0210",
        "there is no such param or entry to override",
        "On the command line `d=128` sets the param d and `train.batch=8` an entry below a section that the spec has. "
        "An override that hits nothing is a typo, and the run would be another one than was meant.",
        failing="",
        passing=_graph("h |> linear(d)", params="  d: 64\n"),
        fix="Correct the name; a param of the spec is written bare, everything else with its path.",
    ),
    Code(
        "GS0211",
        "a section cannot be overridden whole",
        "`graphspec train NAME graph=...` would replace a section by a value. A dotted path changes one entry of it.",
        failing="",
        passing=_graph("h |> linear(d)", params="  d: 64\n"),
        fix="Write the path to the entry, as train.batch=8.",
    ),
    Code(
        "GS0212",
        "an override of another kind",
        "The default tells the kind of a param: an integer stays an integer, a list a list. `d=1.5` for `d: 64` would "
        "surface much later, as a shape that makes no sense.",
        failing="",
        passing=_graph("h |> linear(d)", params="  d: 64\n"),
        fix="Give a value of the kind of the default; a whole number is fine where the default is broken.",
    ),
    Code(
        "GS0213",
        "this is not a name",
        "Names are letters, digits and _, ASCII, not starting with a digit: they become weight names, file names and "
        "command-line arguments.",
        failing=_graph("h |> linear(16)", params="  my-width: 16\n"),
        passing=_graph("h |> linear(my_width)", params="  my_width: 16\n"),
        fix="Rename it.",
    ),
    Code(
        "GS0214",
        "this name is reserved",
        "Section names, `t` (the running tick), `step` (the count of updates) and the words of expressions mean "
        "something everywhere, so nothing else may have them.",
        failing=_graph("h |> linear(16)", params="  step: 2\n"),
        passing=_graph("h |> linear(16)", params="  stride: 2\n"),
        fix="Choose another name.",
    ),
    Code(
        "GS0215",
        "an override is not NAME=VALUE",
        "On the command line params and paths stand behind the spec's name, with their values: `d=128 train.batch=8`.",
        failing="",
        passing=_graph("h |> linear(d)", params="  d: 64\n"),
        fix="Write NAME=VALUE without spaces around '='.",
    ),
    Code(
        "GS0216",
        "there is no such field",
        "Records have fields, what a block with several named outputs gives, or `split`; and so have distributions, as "
        "`dist.scale`. A plain value has none.",
        failing=_graph("parts.left |> tanh\n  parts: h |> halves", blocks=_SPLIT),
        passing=_graph("parts.low |> tanh\n  parts: h |> halves", blocks=_SPLIT),
        fix="Name one of the fields that the note lists.",
    ),
    Code(
        "GS0217",
        "one value belongs here, not a record, a list or a size",
        "Records and lists are structure at compile time only. They cannot be added, piped on or put out whole; a size "
        "such as T is not a number that a network can compute with.",
        failing=_graph("halves(h) |> tanh", blocks=_SPLIT),
        passing=_graph("parts.low |> tanh\n  parts: h |> halves", blocks=_SPLIT),
        fix="Name the record and take a field of it; give a list by `for` or to an op that takes several.",
    ),
    Code(
        "GS0218",
        "a 'for' name hides another name",
        "Inside a comprehension the name would mean something else than one line above. That reads wrong even where "
        "it is meant.",
        failing=_graph("sum(h * d for d in [1, 2])", params="  d: 64\n"),
        passing=_graph("sum(h * a for a in [1, 2])", params="  d: 64\n"),
        fix="Choose another name for the `for`.",
    ),
    Code(
        "GS0219",
        "a stage belongs here",
        "Right of `|>`, in repeat and as a stage argument of a block stands a function that lacks its first input: an "
        "op or a block, by name or called with the rest of its arguments. A number, a value or a finished call is "
        "none.",
        failing=_graph("h |> twice(16)", blocks=_TWICE),
        passing=_graph("h |> twice(linear(16))", blocks=_TWICE),
        fix="Give an op or a block without its first input.",
    ),
    Code(
        "GS0220",
        "repeat's count is not a whole number from 0",
        "`repeat(n, stage)` makes n copies with weights of their own; n is known at compile time. With 0 it is the "
        "identity.",
        failing=_graph("h |> repeat(depth, linear(16) |> tanh)", params="  depth: -1\n"),
        passing=_graph("h |> repeat(depth, linear(16) |> tanh)", params="  depth: 2\n"),
        fix="Give a whole number from 0.",
    ),
    Code(
        "GS0221",
        "a choice of an op is also a name here",
        "Arguments with fixed choices take them bare: `quantise(8, linear)`. With a param called linear that could "
        "mean either, and a new param would change an old line.",
        failing=_graph("wave |> quantise(8, linear)", params="  linear: 16\n"),
        passing=_graph("wave |> quantise(8, linear)", params="  width: 16\n"),
        fix="Rename the param or value.",
    ),
    Code(
        "GS0222",
        "not one of the choices",
        "The argument takes one of a few words, which the message lists.",
        failing=_graph("wave |> quantise(8, mulaw)"),
        passing=_graph("wave |> quantise(8, mu_law)"),
        fix="Write one of them, bare or as a param that is text.",
    ),
    Code(
        "GS0223",
        "an argument of another kind",
        "A parameter is an integer, a number, true or false, text or a list, known at compile time. An integer must be "
        "exact: `16 / 3` is no number of channels. A size such as T is known only with the data.",
        failing=_graph("h |> linear(16 / 3)"),
        passing=_graph("h |> linear(16 // 4)"),
        fix="Give a value of that kind; `//` divides whole numbers.",
    ),
    Code(
        "GS0224",
        "two things of one name",
        "A value of `graph` is called like an input, a param or a loss. A name means one thing in an expression.",
        failing=_HEAD + _WAVE + "graph:\n  h: wave |> conv(16)\n  wave: h |> linear(1)\n",
        passing=_HEAD + _WAVE + "graph:\n  h: wave |> conv(16)\n  out: h |> linear(1)\n",
        fix="Rename one of them.",
    ),
    Code(
        "GS0225",
        "there is no such code",
        "`graphspec explain GS0401` explains a code as it is printed with an error; without a code it lists them all.",
        failing="",
        passing="",
        fix="Take the code from the error, between the brackets.",
    ),
    Code(
        "GS0230",
        "a value is never used",
        "It reaches no loss, metric, output or entry, so it is not computed, and its weights are not trained. Often "
        "another name was meant where it should be read.",
        failing=_USED.replace("outputs: [y]", "outputs: [h]"),
        passing=_USED,
        fix="Use it, name it under outputs:, or delete it.",
    ),
    Code(
        "GS0231",
        "an input is never used",
        "Data would be read for nothing, and a conditioning that was meant is missing.",
        failing=_USED.replace("inputs:\n", "inputs:\n  style: float[8]\n"),
        passing=_USED,
        fix="Use it, or delete it.",
    ),
    Code(
        "GS0232",
        "a block hides an op",
        "The nearest name wins: a block of the spec before one of a library, and that before an op.",
        failing=_USED.replace("graph:", "blocks:\n  tanh:\n    in: x\n    out: x |> softplus\ngraph:"),
        passing=_USED,
        fix="Give the block a name of its own.",
    ),
)
