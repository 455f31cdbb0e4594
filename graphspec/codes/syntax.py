"""GS0101 to GS0119: mistakes in the YAML of a spec, found by the reader. Those inside expressions are GS0120 and up."""

from graphspec.codes import Code

_HEAD = "graphspec: 1\nmodel: small\n"
_WAVE = "inputs:\n  wave: float[T, 1] @ 16000\n"
_SMALL = _HEAD + _WAVE + "graph:\n  y: wave |> conv(16)\n"

CODES = (
    Code(
        "GS0101",
        "a key is given twice",
        "YAML loaders keep the last of two equal keys and drop the first without a word: half of the model would be "
        "missing. Both places are shown.",
        failing=_HEAD + _WAVE + "graph:\n  y: wave |> conv(16)\n  z: tanh(y)\n  y: wave |> conv(32)\n",
        passing=_HEAD + _WAVE + "graph:\n  y: wave |> conv(16)\n  z: tanh(y)\n  y2: wave |> conv(32)\n",
        fix="Delete one of the two, or rename it.",
    ),
    Code(
        "GS0102",
        "this is not YAML",
        "The lines do not form a mapping: a key without a colon, a line in a column of its own, text behind a closed "
        "quote, a list on the line of its key. Children of a key are indented by the same number of spaces.",
        failing=_HEAD + _WAVE + "graph:\n  y: wave |> conv(16)\n  z tanh(y)\n",
        passing=_HEAD + _WAVE + "graph:\n  y: wave |> conv(16)\n  z: tanh(y)\n",
        fix="Write one `key: value` a line, aligned with its neighbours.",
    ),
    Code(
        "GS0103",
        "anchors, aliases and merge keys are refused",
        "An alias makes one place in the file stand for two in the model, hides overrides and can blow up a few lines "
        "to gigabytes. The language has its own ways to share: `blocks`, `shared`, `extends`. A value that begins with "
        "`*` is an alias to YAML, so an expression cannot begin with it.",
        failing=_HEAD + "params:\n  d: &width 64\n  h: *width\n",
        passing=_HEAD + "params:\n  d: 64\n  h: d\n",
        fix="Name the value in `params`, or share with `blocks`, `shared` or `extends`.",
    ),
    Code(
        "GS0104",
        "YAML cuts an expression inside {} or []",
        "Inside `{}` and `[]` an unquoted value ends at every comma and bracket, also inside the parentheses of a "
        "call. `{is: nll(dist, wave), weight: 2}` is read as `is: 'nll(dist'`, a key `wave)` without a value, and "
        "`weight: 2`, with no error from YAML.",
        failing=_SMALL + "losses:\n  far: {is: maximum(y, 0.5), weight: 2}\n",
        passing=_SMALL
        + "losses:\n  far:\n    is: maximum(y, 0.5)\n    weight: 2\n  f: {is: 'maximum(y, 0.5)', weight: 2}\n",
        fix="Write the entry in block style, one `key: value` a line, or put the expression in quotes.",
    ),
    Code(
        "GS0105",
        "a number that means different things",
        "`017` is 15 to YAML 1.1 and 17 to YAML 1.2; `1:30` is 90 or a text; `0x10` and `1_000` are numbers in one "
        "reader and texts in the next; `1e` lacks its exponent. graphspec reads none of them, so nobody has to guess. "
        "`1e-4` is a number, as it looks.",
        failing=_HEAD + "params:\n  kernel: 017\n",
        passing=_HEAD + "params:\n  kernel: 17\n  lr: 1e-4\n",
        fix="Write the plain decimal number, or quote it if it is text.",
    ),
    Code(
        "GS0106",
        "not a finite number",
        "Parameters are finite numbers; integers stay within 2^53, so that no step on the way rounds them. An infinity "
        "or a NaN in a spec would surface much later, as a loss that is not a number.",
        failing=_HEAD + "params:\n  limit: .inf\n",
        passing=_HEAD + "params:\n  limit: 1e9\n",
        fix="Write a finite number, or leave the entry out.",
    ),
    Code(
        "GS0107",
        "tags are refused",
        "YAML tags (`!name`, `!!python/object`) make loaders build objects, which has been used to run code. A spec "
        "holds data only; the kind of a value follows from how it is written.",
        failing=_HEAD + "params:\n  d: !!int 64\n",
        passing=_HEAD + "params:\n  d: 64\n",
        fix="Take the tag away.",
    ),
    Code(
        "GS0108",
        "directives are refused",
        "`%YAML` and `%TAG` change how the file is read. A spec is YAML 1.2 as it is; its edition is `graphspec: 1`.",
        failing="%YAML 1.1\n---\n" + _SMALL,
        passing=_SMALL,
        fix="Delete the line.",
    ),
    Code(
        "GS0109",
        "the file is not UTF-8",
        "Specs are UTF-8. Other encodings would be guessed, and a guess turns names into others.",
        failing=(_HEAD + "doc: caf").encode() + b"\xe9\n",
        passing=_HEAD + "doc: café\n",
        fix="Save the file as UTF-8.",
    ),
    Code(
        "GS0110",
        "a character is not allowed",
        "Control characters, byte-order marks and characters that reorder text can make a spec read differently to a "
        "person than to the program.",
        failing=_HEAD + "params:\n  width\u202e: 64\n",
        passing=_HEAD + "params:\n  width: 64\n",
        fix="Delete the character.",
    ),
    Code(
        "GS0111",
        "a second document in one file",
        "A line `---` begins another YAML document. A file holds one spec; the rest would never be read.",
        failing=_SMALL + "---\n" + _SMALL,
        passing=_SMALL,
        fix="Keep one spec a file; use `extends` or `use` to build on another.",
    ),
    Code(
        "GS0112",
        "a spec must be a mapping",
        "At the top of a spec stand its sections, each `name: ...`. This file is empty, a list or a single value.",
        failing="- graphspec: 1\n- model: small\n",
        passing=_HEAD,
        fix="Begin with `graphspec: 1` and `model: NAME`.",
    ),
    Code(
        "GS0113",
        "a key must be text",
        "Keys are names. A number, true, false, null, a list or a mapping as a key is usually a slip, and YAML readers "
        "disagree on whether `1` and `'1'` are the same key.",
        failing=_HEAD + "params:\n  1: 64\n",
        passing=_HEAD + "params:\n  k1: 64\n",
        fix="Write a name.",
    ),
    Code(
        "GS0114",
        "a bracket or quote is never closed",
        "Without its end, everything behind it is part of it; the message points at where it was opened.",
        failing=_HEAD + "use: [std/core\n" + _WAVE + "graph:\n  y: wave\n",
        passing=_HEAD + "use: [std/core]\n" + _WAVE + "graph:\n  y: wave\n",
        fix="Write the closing bracket or quote.",
    ),
    Code(
        "GS0115",
        "a tab in the indentation",
        "YAML indents with spaces. A tab has no width of its own, so nobody could say what it belongs to.",
        failing=_HEAD + "params:\n\td: 64\n",
        passing=_HEAD + "params:\n  d: 64\n",
        fix="Indent with spaces, two a level.",
    ),
    Code(
        "GS0116",
        "a second colon in one line",
        "A colon followed by a space separates a key from its value, once a line. In a call, arguments are given with "
        "`=`; text with a colon wants quotes.",
        failing=_HEAD + "doc: A small model: it shows the colon.\n",
        passing=_HEAD + "doc: 'A small model: it shows the colon.'\n",
        fix="Quote the text, or write one `key: value` a line.",
    ),
    Code(
        "GS0117",
        "a value begins with a sign of YAML's own",
        "YAML keeps `| > * & ! % @` and the backtick at the start of a value for itself. Expressions begin with a "
        "name, a number, a minus or a parenthesis.",
        failing=_HEAD + _WAVE + "graph:\n  y: |> conv(16)\n",
        passing=_HEAD + _WAVE + "graph:\n  y: wave |> conv(16)\n",
        fix="Begin with a name, a number or `(`; quote text.",
    ),
    Code(
        "GS0118",
        "an entry of {} has no value",
        "`{a, b}` is a mapping with two empty values to YAML, and `{k:3}` one with the key `k:3`. Neither is meant.",
        failing=_SMALL + "train:\n  crop: {T:16384}\n",
        passing=_SMALL + "train:\n  crop: {T: 16384}\n",
        fix="Write `key: value` with a space behind the colon; a list stands in `[]`.",
    ),
    Code(
        "GS0119",
        "the file cannot be read",
        "There is no such file, it is not a regular file (a folder, a pipe, a device), or reading it is not permitted.",
        failing="",
        passing=_SMALL,
        fix="Check the path; a name without `/` and `.yaml` means a shipped spec.",
    ),
)
