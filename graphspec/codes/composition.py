"""GS05xx: composition. Specs, libraries, blocks and what they are made of."""

from graphspec.codes import Code

_HEAD = "graphspec: 1\nmodel: small\n"
_WAVE = "inputs:\n  wave: float[T, 1] @ 16000\n"


def _block(body: str, y: str) -> str:
    return f"{_HEAD}{_WAVE}blocks:\n{body}graph:\n  h: wave |> conv(16)\n  y: {y}\n"


_DENSE = "  dense:\n    in: x\n    out: x |> linear(16) |> tanh\n"
_USED = _HEAD + "use: [std/core]\n" + _WAVE + "graph:\n  h: wave |> conv(16)\n  y: h |> residual(tanh)\n"
_GATED = "  gated:\n    in: x\n    out:\n      NAME: x |> conv(16) |> tanh\n      skip: x |> linear(8)\n"
_CHOICE = (
    "graphspec: 1\nmodel: small\nparams:\n  body:\n    choose: dense\n    from:\n"
    "      dense: linear(16)\n      gated: gru(16)\n" + _WAVE + "graph:\n  y: wave |> body\n"
)
_SHARED = (
    f"{_HEAD}{_WAVE}shared:\n  body: linear(16)\ngraph:\n  h: wave |> conv(16)\n  a: h |> body\n  b: h |> body\n"
    "  y: a |> body\n"
)
_ENTRY = (
    f"{_HEAD}{_WAVE}graph:\n  z: wave |> conv(4)\n  z2: wave |> conv(4)\n  pair: z2 |> split(a=2, b=2)\n"
    "  y: z |> tanh\n"
    "outputs: [y, pair.a]\n"
    "entries:\n  decode:\n    from: [z]\n    to: [y]\n"
)

_FEATURE = f"""{_HEAD}inputs:
  audio: f32[T, 1] @ 16000
  loud:
    type: f32[N, 1] @ 250
    default: power(audio, 64)
    cache: true
require:
  - T == N * 64
graph:
  y: loud |> linear(4)
outputs: [y]
"""

CODES = (
    Code(
        "GS0501",
        "there is no such shipped spec",
        "On the command line a bare name is a spec that comes with graphspec; with `/` or `.yaml` it is a path.",
        failing="",
        passing=_USED,
        fix="Correct the name, or write a path: ./mine.yaml.",
    ),
    Code(
        "GS0502",
        "there is no such library, or it lies outside",
        "`use` names files below the spec's own folder, or shipped ones such as std/core. A spec someone else wrote "
        "cannot read elsewhere on the disk, neither by `..` nor through a link.",
        failing=_USED.replace("std/core", "std/cor"),
        passing=_USED,
        fix="Correct the name, or put the library beside the spec.",
    ),
    Code(
        "GS0503",
        "a block is in two libraries",
        "The bare name of a block works where one library has it. Which of two is meant is not guessed by their order.",
        failing="",
        passing=_USED.replace("residual(", "core.residual("),
        fix="Write the library before it: core.residual.",
    ),
    Code(
        "GS0504",
        "libraries use each other in a circle",
        "A library that uses another, which uses the first, would never be read to its end.",
        failing="",
        passing=_USED,
        fix="Move what both need into a third library.",
    ),
    Code(
        "GS0505",
        "a used file is not a library",
        "`use` takes files that begin with `library: NAME` and hold blocks. A model is no part of another model.",
        failing=_USED.replace("std/core", "std/core, sashimi"),
        passing=_USED,
        fix="Move the blocks that are shared into a library of their own.",
    ),
    Code(
        "GS0506",
        "a part is missing",
        "A block has `in` and `out`, an input that is written as a mapping has a `type`, `sample` has a `feed`.",
        failing=_block("  dense:\n    in: x\n    graph:\n      z: x |> linear(16)\n", "h |> dense"),
        passing=_block(_DENSE, "h |> dense"),
        fix="Add the key that the message names.",
    ),
    Code(
        "GS0507",
        "a repeated block does not return its first input",
        "`repeat` carries by name: an output called like an input is that input of the next copy, and the others are "
        "collected. Of a block with named outputs, one is called like its first input, or there is nothing to go on "
        "with.",
        failing=_block(_GATED.replace("NAME", "z"), "sum(s.skip)\n  s: h |> repeat(4, gated)"),
        passing=_block(_GATED.replace("NAME", "x"), "sum(s.skip)\n  s: h |> repeat(4, gated)"),
        fix="Call the output that goes on like the first input.",
    ),
    Code(
        "GS0508",
        "blocks nest too deep",
        "Blocks may use each other to 64 levels, and never themselves: there is no recursion, since nothing at compile "
        "time would end it.",
        failing=_block("  dense:\n    in: x\n    out: x |> linear(16) |> dense\n", "h |> dense"),
        passing=_block(_DENSE, "h |> repeat(8, dense)"),
        fix="Use repeat(n, block).",
    ),
    Code(
        "GS0509",
        "copies of repeat return different things",
        "`repeat` carries outputs from copy to copy by name and collects the others, so every copy must be a block "
        "with the same named outputs as the first.",
        failing=_block(_GATED.replace("NAME", "x"), "h |> repeat(s for s in stages(gated, tanh))\n  z: y.x"),
        passing=_block(_GATED.replace("NAME", "x"), "h |> repeat(s for s in stages(gated, gated))\n  z: y.x"),
        fix="Give the odd copy a block of its own with those outputs.",
    ),
    Code(
        "GS0510",
        "there is no such spec to extend",
        "`extends` names a file beside the spec, or a shipped spec by its name. Files elsewhere are not read, and a "
        "spec cannot extend what extends it.",
        failing="graphspec: 1\nmodel: mine\nextends: sashimi_smal\n",
        passing="graphspec: 1\nmodel: mine\nextends: sashimi_small\n",
        fix="Correct the name; blocks of a library are had by `use:`.",
    ),
    Code(
        "GS0511",
        "a section does not fit a spec that extends another",
        "A spec that extends another says what differs, under `params`, `override`, `add`, `remove` and `moved`, so "
        "that nothing of the base is replaced by accident. Without `extends` there is nothing to change.",
        failing="graphspec: 1\nmodel: mine\nextends: sashimi_small\ntrain:\n  batch: 2\n",
        passing="graphspec: 1\nmodel: mine\nextends: sashimi_small\noverride:\n  train.batch: 2\n",
        fix="Write the path of the entry under override: or add:.",
    ),
    Code(
        "GS0512",
        "the base has no such entry",
        "`params` gives values to params of the base, `override` replaces entries and `remove` drops them, each by its "
        "dotted path. A path that leads nowhere would be a change without effect.",
        failing="graphspec: 1\nmodel: mine\nextends: sashimi_small\nremove: [metrics.bits]\n",
        passing="graphspec: 1\nmodel: mine\nextends: sashimi_small\nremove: [metrics.bits_per_sample]\n",
        fix="Correct the path, or add: the entry if it is new.",
    ),
    Code(
        "GS0513",
        "the base has this entry already",
        "`add` is for what the base does not have, so that a new entry never hides one of the base.",
        failing="graphspec: 1\nmodel: mine\nextends: sashimi_small\nadd:\n  train.batch: 2\n",
        passing="graphspec: 1\nmodel: mine\nextends: sashimi_small\noverride:\n  train.batch: 2\n",
        fix="Move it to override:.",
    ),
    Code(
        "GS0514",
        "an entry has moved",
        "The base says under `moved` that an entry has a new path. The old one is followed, with this warning.",
        failing="",
        passing="graphspec: 1\nmodel: mine\nextends: sashimi_small\noverride:\n  train.batch: 2\n",
        fix="Write the new path.",
    ),
    Code(
        "GS0515",
        "there is no such option",
        "A param with `choose` and `from` is one of the stages it names.",
        failing=_CHOICE.replace("choose: dense", "choose: dens"),
        passing=_CHOICE,
        fix="Choose one of the options.",
    ),
    Code(
        "GS0517",
        "an instance is used with values of different shapes",
        "What stands under `shared:` is one set of weights; every use of it has operands of the same channels.",
        failing=_SHARED.replace("b: h |> body", "b: h |> linear(8) |> body"),
        passing=_SHARED,
        fix="Make a second instance, or bring the value to the same channels first.",
    ),
    Code(
        "GS0518",
        "an instance is never used",
        "It has weights that are in no value, so they are not there at all.",
        failing=_SHARED.replace("a |> body", "a").replace("h |> body", "h"),
        passing=_SHARED,
        fix="Use it, or delete it.",
    ),
    Code(
        "GS0519",
        "weights that nothing trains",
        "A view of the graph (an entry, or `eval`) may use weights of the graph, but not have its own: no loss would "
        "ever reach them.",
        failing="",
        passing=_SHARED,
        fix="Put the op under `shared:` and use it in the graph, too.",
    ),
    Code(
        "GS0520",
        "an entry needs more than it is given",
        "An entry is a view of the graph that computes `to` from `from`, what is fed, and knobs. What else it would "
        "need is named, with the path on which it is needed.",
        failing=_ENTRY.replace("from: [z]", "from: [pair.a]"),
        passing=_ENTRY,
        fix="Name it under from:, or set: a value on the path.",
    ),
    Code(
        "GS0521",
        "this cannot be given, set or fed",
        "Entries cut, set and feed single values: an input, a value of the graph, or a field of a record.",
        failing=_ENTRY.replace("from: [z]", "from: [pair]"),
        passing=_ENTRY,
        fix="Name one value, as pair.a.",
    ),
    Code(
        "GS0522",
        "a value is set to one of another type",
        "What stands for a value in a view has its type and rate, so that all that reads it stays as it was proven.",
        failing=_ENTRY + "eval:\n  z: wave\n",
        passing=_ENTRY + "eval:\n  z: stop(z2)\n",
        fix="Bring it to the same type.",
    ),
    Code(
        "GS0523",
        "a value is both fed and set",
        "In one entry a value is given from outside, or set, or fed by a loop: one of them.",
        failing=_ENTRY.replace("to: [y]", "to: [y]\n    set:\n      z: stop(z2)"),
        passing=_ENTRY,
        fix="Drop one of the two.",
    ),
    Code(
        "GS0524",
        "an entry computes nothing",
        "`to` says which values come out of an entry; it may be left out only where something is fed.",
        failing=_ENTRY.replace("    to: [y]\n", ""),
        passing=_ENTRY,
        fix="Write to: [value].",
    ),
    Code(
        "GS0525",
        "what is set depends on itself",
        "What a value is set to in a view may read others, but not what depends on that value.",
        failing=_ENTRY + "eval:\n  z: stop(y) |> linear(4)\n",
        passing=_ENTRY,
        fix="Set one of them to something else.",
    ),
    Code(
        "GS0527",
        "what cannot be cached",
        "`cache: true` has a feature computed once, with the recordings, before training. So it is a feature (its "
        "default is an expression of other inputs), and nothing in it changes while a model is trained.",
        failing=_FEATURE.replace("power(audio, 64)", "power(audio, 64) |> linear(1)"),
        passing=_FEATURE,
        fix="Leave `cache` out, or take what learns into the graph.",
    ),
)
