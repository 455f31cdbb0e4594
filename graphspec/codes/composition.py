"""GS05xx: composition. Specs, libraries, blocks and what they are made of."""

from graphspec.codes import Code

_HEAD = "graphspec: 1\nmodel: small\n"
_WAVE = "inputs:\n  wave: float[T, 1] @ 16000\n"


def _block(body: str, y: str) -> str:
    return f"{_HEAD}{_WAVE}blocks:\n{body}graph:\n  h: wave |> conv(16)\n  y: {y}\n"


_DENSE = "  dense:\n    in: x\n    out: x |> linear(16) |> tanh\n"
_USED = _HEAD + "use: [std/core]\n" + _WAVE + "graph:\n  h: wave |> conv(16)\n  y: h |> residual(tanh)\n"
_GATED = "  gated:\n    in: x\n    out:\n      NAME: x |> conv(16) |> tanh\n      skip: x |> linear(8)\n"

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
)
