"""How diagnostics read: golden text, escaping, clipping, JSON."""

from __future__ import annotations

import json

from graphspec.diagnostic import Diagnostic, Edit, Fix, Related, SpecError
from graphspec.excerpt import shown, underlined
from graphspec.reader import read_text
from graphspec.report import as_json, human
from graphspec.span import Source, Span


def diagnose(text: str) -> tuple[Diagnostic, ...]:
    try:
        read_text("model.yaml", text)
    except SpecError as error:
        return error.diagnostics
    raise AssertionError("no mistake")


def span(source: Source, piece: str) -> Span:
    start = source.text.index(piece)
    return Span(source, start, start + len(piece))


def test_a_duplicate_key_and_an_odd_number() -> None:
    text = "graphspec: 1\nmodel: m\nparams:\n  d: 64\n  k: 017\n\n\n\n\n  d: 32\n"
    assert (
        human(diagnose(text))
        == """\
error[GS0105]: '017' is not a plain integer: 15 to YAML 1.1 (octal), 17 to YAML 1.2
 --> model.yaml:5:6
  |
5 |   k: 017
  |      ^^^
  |
  = help: write 17 (or 15 if octal was meant)

error[GS0101]: key 'd' is given twice in 'params', first in line 4
  --> model.yaml:10:3
   |
10 |   d: 32
   |   ^
  ::: model.yaml:4:3: first given here
   |
 4 |   d: 64
   |   -
   |
   = help: delete one of the two, or rename it

2 errors
"""
    )


def test_notes_severities_places_of_two_files_and_none() -> None:
    spec = Source("a.yaml", "graph:\n  y: wave\n    |> conv(16)\n")
    library = Source("std/core.yaml", "blocks:\n  conv: 1\n")
    found = [
        Diagnostic(
            "GS0301",
            "channels 16 and 32 disagree",
            span(spec, "wave\n    |> conv(16)"),
            related=(Related("declared here", span(library, "conv")),),
            notes=("left:  wave [T, 16]\nright: y [T, 32]",),
            fixes=(Fix("write `conv(32)`"),),
        ),
        Diagnostic("GS0210", "nothing reads 'y'", span(spec, "y"), severity="warning"),
        Diagnostic("GS0801", "no place", None),
    ]
    assert (
        human(found)
        == """\
error[GS0301]: channels 16 and 32 disagree
 --> a.yaml:2:6
  |
2 |   y: wave
  |      ^^^^
 ::: std/core.yaml:2:3: declared here
  |
2 |   conv: 1
  |   ----
  |
  = note: left:  wave [T, 16]
          right: y [T, 32]
  = help: write `conv(32)`

warning[GS0210]: nothing reads 'y'
 --> a.yaml:2:3
  |
2 |   y: wave
  |   ^

error[GS0801]: no place

2 errors, 1 warning
"""
    )
    assert human([]) == ""


def test_color_adds_escapes_and_nothing_else() -> None:
    import re

    found = diagnose("a: 017\nb: &x 1\n")
    colored = human(found, color=True)
    assert "\x1b[1;31merror[GS0105]\x1b[0m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == human(found)


def test_what_a_file_says_cannot_steer_the_terminal() -> None:
    source = Source("a\x1b[2J.yaml", "a\x1b[31m\tb\u202e: 1\n")
    d = Diagnostic("GS0110", "bad '\x1b]0;x\x07'", span(source, "b"), notes=("\u202enote",), fixes=(Fix("\x9b"),))
    for text in (human([d]), as_json([d])):
        assert not set(text) & {"\x1b", "\x07", "\u202e", "\x9b", "\t"}
    assert human([d]).splitlines()[3:5] == ["1 | a\\x1b[31m    b\\u202e: 1", "  |              ^"]


def test_columns_count_tabs_wide_and_combining_characters() -> None:
    assert underlined("\ta: b", 4, 5) == ("    a: b", "       ^")
    assert underlined("名前: b", 0, 2) == ("名前: b", "^^^^")
    assert underlined("e\u0301: b", 4, 5) == ("e\u0301: b", "   ^")
    assert underlined("ab", 2, 2) == ("ab", "  ^")


def test_long_lines_are_cut_around_the_place() -> None:
    line = "x" * 500 + "HERE" + "y" * 500
    text, marks = underlined(line, 500, 504)
    assert len(text) == 122 and text[0] == text[-1] == "…"
    assert text[marks.index("^") : len(marks)] == "HERE"
    text, marks = underlined(line, 100, 900)
    assert len(marks) <= len(text) <= 122 and marks.count("^") == 80
    assert underlined("HERE" + "y" * 500, 0, 4) == ("HERE" + "y" * 116 + "…", "^^^^")


def test_quoted_user_text_is_cut_at_60_characters() -> None:
    assert shown("x" * 60) == "x" * 60 and shown("x" * 61) == "x" * 59 + "…"
    source = Source("a.yaml", "a: 1\n")
    long = Diagnostic(
        "GS0201", f"unknown name '{'x' * 1_000_000}' in the block's graph of the model's", span(source, "a")
    )
    assert human([long]).splitlines()[0] == (
        f"error[GS0201]: unknown name '{'x' * 59}…' in the block's graph of the model's"
    )
    apart = "the block's output is not what the caller of this block at line 7 of the file expects in the caller's"
    assert apart in human([Diagnostic("GS0201", apart, None)])


def test_at_most_20_errors_are_shown() -> None:
    source = Source("a.yaml", "a: 1\n")
    text = human([Diagnostic("GS0201", f"number {i}", span(source, "a")) for i in range(1023)])
    assert "number 19\n" in text and "number 20\n" not in text
    assert text.endswith("\nand 1,003 more errors\n\n1,023 errors\n")


def test_json_holds_everything() -> None:
    text = "losses:\n  nll: {is: nll(a, b), weight: 2}\n"
    (d,) = json.loads(as_json(diagnose(text)))
    assert (d["code"], d["severity"], d["file"]) == ("GS0104", "error", "model.yaml")
    assert (d["line"], d["column"], d["end_line"], d["end_column"]) == (2, 13, 2, 22)
    assert d["related"] == [] and len(d["notes"]) == 1
    (edit,) = d["fixes"][1]["edits"]
    assert text[edit["start"] : edit["end"]] == "nll(a, b)" and edit["text"] == "'nll(a, b)'"
    assert (edit["line"], edit["column"], edit["file"]) == (2, 13, "model.yaml")
    source = Source("b.yaml", "k: 1\n")
    other = Diagnostic(
        "GS0101",
        "m",
        None,
        related=(Related("here", span(source, "k")),),
        fixes=(Fix("t", (Edit(span(source, "1"), "2"),)),),
    )
    (d,) = json.loads(as_json([other]))
    assert d["file"] is None and d["line"] is None
    assert d["related"][0]["message"] == "here" and d["related"][0]["file"] == "b.yaml"
    assert json.loads(as_json([])) == []
