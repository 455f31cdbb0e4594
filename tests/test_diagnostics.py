"""How the compiler's errors read: golden text, carets, both sides, block and call, and nothing said twice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graphspec import report
from graphspec.cli.load import check_document, shipped
from graphspec.diagnostic import Diagnostic, Fix, SpecError
from graphspec.reader import read_file, read_text

HEAD = """\
graphspec: 1
model: small
inputs:
  wave: float[T, 1] @ 16000
"""


def said(text: str, overrides: tuple[str, ...] = ()) -> str:
    try:
        check_document(read_text("model.yaml", HEAD + text), shipped(), overrides)
    except SpecError as error:
        return report.human(error.diagnostics)
    return ""


GOLDEN: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a_caret_inside_an_expression": (
        """\
graph:
  h: wave |> conv(16)
  y: (h + (h |> tahn)) |> linear(1)
""",
        (),
        """\
error[GS0202]: there is no op, block or function 'tahn'; did you mean 'tanh'?
 --> model.yaml:7:17
  |
7 |   y: (h + (h |> tahn)) |> linear(1)
  |                 ^^^^

1 error
""",
    ),
    "both_sides_of_a_shape_conflict": (
        """\
graph:
  a: wave |> conv(16)
  b: wave |> conv(8)
  y: tanh(a + b)
""",
        (),
        """\
error[GS0301]: 'a + b': 'a' has 16 where 'b' has 8
 --> model.yaml:8:11
  |
8 |   y: tanh(a + b)
  |           ^^^^^
 ::: model.yaml:8:11: 'a': f32[T, 16] @ 16 kHz
  |
8 |   y: tanh(a + b)
  |           -
 ::: model.yaml:8:15: 'b': f32[T, 8] @ 16 kHz
  |
8 |   y: tanh(a + b)
  |               -

1 error
""",
    ),
    "both_sides_of_a_rate_conflict": (
        """\
require:
  - T % 4 == 0
graph:
  slow: wave |> fold(4)
  y: wave + (slow |> linear(1))
""",
        (),
        """\
error[GS0302]: 'a + b' joins values of different rates: 'wave' 16 kHz, '(slow |> linear(1))' 4 kHz
 --> model.yaml:9:6
  |
9 |   y: wave + (slow |> linear(1))
  |      ^^^^^^^^^^^^^^^^^^^^^^^^^^
 ::: model.yaml:9:6: 'wave': f32[T, 1] @ 16 kHz
  |
9 |   y: wave + (slow |> linear(1))
  |      ----
 ::: model.yaml:9:13: '(slow |> linear(1))': f32[T/4, 1] @ 4 kHz
  |
9 |   y: wave + (slow |> linear(1))
  |             -------------------

1 error
""",
    ),
    "a_block_with_its_call": (
        """\
blocks:
  gate:
    params: {d: int}
    in: x
    out: x |> linear(d) |> glu
graph:
  h: wave |> conv(16)
  y: h |> gate(15)
""",
        (),
        """\
error[GS0305]: glu needs c % 2 == 0; c is 15
  --> model.yaml:9:28
   |
 9 |     out: x |> linear(d) |> glu
   |                            ^^^
  ::: model.yaml:12:11: in this use of 'gate'
   |
12 |   y: h |> gate(15)
   |           --------

1 error
""",
    ),
    "two_readings": (
        """\
graph:
  h: wave |> conv(16)
  y: h * silu(h) |> linear(1)
""",
        (),
        """\
error[GS0122]: '|>' and arithmetic touch without parentheses; this has two readings
 --> model.yaml:7:6
  |
7 |   y: h * silu(h) |> linear(1)
  |      ^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: write (h * silu(h)) |> linear(1)
  = help: write h * (silu(h) |> linear(1))

1 error
""",
    ),
    "independent_errors_in_one_run": (
        """\
require:
  - T % 4 == 1
graph:
  a: wave |> conv(16, kernel=3)
  b: wave |> embed(8)
  c: wav[t-1]
  d: tanh(a) + b
losses:
  l: mean(d)
""",
        (),
        """\
error[GS0314]: write a divisibility as 'T % 16 == 0'
 --> model.yaml:6:5
  |
6 |   - T % 4 == 1
  |     ^^^^^^^^^^

error[GS0203]: conv has no parameter 'kernel'
 --> model.yaml:8:23
  |
8 |   a: wave |> conv(16, kernel=3)
  |                       ^^^^^^^^
  |
  = note: it is conv(units: int, k: int = 3, dilation: int = 1, bias: bool = true, stride: int = 1, groups: int = 1, \
centre: bool = false)

error[GS0303]: embed needs int for 'x', but 'wave' is f32
 --> model.yaml:9:14
  |
9 |   b: wave |> embed(8)
  |              ^^^^^^^^
 ::: model.yaml:9:6: 'wave': f32[T, 1] @ 16 kHz
  |
9 |   b: wave |> embed(8)
  |      ----
  |
  = help: quantise(bits) makes integers of audio

error[GS0201]: there is no 'wav' here; did you mean 'wave'?
  --> model.yaml:10:6
   |
10 |   c: wav[t-1]
   |      ^^^

4 errors
""",
    ),
    "no_cascade": (
        """\
graph:
  a: wave |> fold(4)
  b: a |> tanh
  c: b[t-1] + a
  d:
    is: cat(c, b)
    type: float[T, 2] @ 4000
causal:
  d: strict
losses:
  l: mean(d)
outputs: [c]
""",
        (),
        """\
error[GS0310]: fold makes an axis of T/4, which is not known to be a whole number
 --> model.yaml:6:14
  |
6 |   a: wave |> fold(4)
  |              ^^^^^^^
  |
  = help: require: T % 4 == 0

1 error
""",
    ),
    "an_override_of_another_kind": (
        """\
params:
  d: 64
graph:
  y: wave |> conv(d)
""",
        ("d=1.5",),
        """\
error[GS0212]: param 'd' is an integer (default 64), not 1.5
 --> <command line> d=:1:1
  |
1 | 1.5
  | ^^^
 ::: model.yaml:6:3: declared here
  |
6 |   d: 64
  |   -

1 error
""",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    text, overrides, expected = GOLDEN[name]
    assert said(text, overrides) == expected


# ---- causality: every delay that strictness hangs on, taken away or misplaced ---------------------------------------

# file, what stands there, what is put in its place
LEAKS = [
    ("sashimi.yaml", "wave[t-1] |> embed", "wave |> embed"),
    ("std/sashimi.yaml", " |> shift(1) |> unfold(p)", " |> unfold(p)"),
    ("std/sashimi.yaml", " |> shift(1) |> unfold(p)", " |> unfold(p) |> shift(1)"),
    ("std/sashimi.yaml", "|> shift(1) |> unfold(p)", "|> shift(0) |> unfold(p)"),
]


@pytest.fixture
def sashimi(tmp_path: Path) -> Path:
    """A copy of the shipped spec with the libraries it uses."""
    (tmp_path / "std").mkdir()
    for name in ("sashimi.yaml", "std/core.yaml", "std/sashimi.yaml"):
        shutil.copy(shipped() / name, tmp_path / name)
    return tmp_path


def lint(folder: Path) -> list[Diagnostic]:
    try:
        check_document(read_file(folder / "sashimi.yaml"), folder)
    except SpecError as error:
        return list(error.diagnostics)
    return []


def apply(fix: Fix) -> None:
    for edit in sorted(fix.edits, key=lambda e: -e.span.start):
        path = Path(edit.span.source.path)
        text = path.read_text()
        assert text == edit.span.source.text
        path.write_text(text[: edit.span.start] + edit.text + text[edit.span.end :])


def test_every_delay_of_the_shipped_model_is_among_those_taken_away(sashimi: Path) -> None:
    written = {(f, m) for f in ("sashimi.yaml", "std/sashimi.yaml", "std/core.yaml") for m in delays(sashimi / f)}
    assert written == {("sashimi.yaml", "[t-1]"), ("std/sashimi.yaml", "shift(1)")}
    assert lint(sashimi) == []


def delays(path: Path) -> list[str]:
    code = re.sub(r"(?m)(^\s*doc:.*|#.*)$", "", path.read_text())
    return re.findall(r"\[t-\w+\]|shift\([^)]*\)", code)


@pytest.mark.parametrize(("file", "there", "instead"), LEAKS)
def test_a_leak_is_found_and_each_fix_mends_it(sashimi: Path, file: str, there: str, instead: str) -> None:
    broken = (sashimi / file).read_text()
    assert broken.count(there) == 1
    broken = broken.replace(there, instead)
    (sashimi / file).write_text(broken)
    found = lint(sashimi)
    assert {d.code for d in found} == {"GS0401"}
    for d in found:
        assert any(note.startswith("path: wave -> x0") and note.endswith("-> dist") for note in d.notes)
        assert d.fixes and all(fix.edits for fix in d.fixes)
        where = {edit.span.source.path for fix in d.fixes for edit in fix.edits}
        assert str(sashimi / file) in where, "no fix in the file that the mistake is in"
    originals = {p: p.read_text() for p in sashimi.rglob("*.yaml")}
    for fix in found[0].fixes:
        for path, text in originals.items():
            path.write_text(text)
        apply(next(f for f in lint(sashimi)[0].fixes if f.title == fix.title))
        assert lint(sashimi) == [], fix.title


def test_the_spec_s_own_delay_is_put_back_as_it_was(sashimi: Path) -> None:
    before = (sashimi / "sashimi.yaml").read_text()
    (sashimi / "sashimi.yaml").write_text(before.replace("wave[t-1] |>", "wave |>"))
    apply(lint(sashimi)[0].fixes[0])
    assert (sashimi / "sashimi.yaml").read_text() == before


def test_the_library_s_delay_is_put_back_as_it_was(sashimi: Path) -> None:
    library = sashimi / "std/sashimi.yaml"
    before = library.read_text()
    library.write_text(before.replace(" |> shift(1) |> unfold", " |> unfold"))
    apply(lint(sashimi)[0].fixes[0])
    assert library.read_text() == before


# ---- the command in a process of its own ----------------------------------------------------------------------------

HEAVY = {"torch", "numpy", "networkx", "jsonschema", "scipy", "soundfile", "lightning"}
BROKEN = HEAD + "graph:\n  h: wave |> conv(16)\n  y: (h |> tahn) |> linear(1)\n"


def process(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120)


def test_exit_codes_and_the_place_of_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    fine = process("-m", "graphspec", "lint", "sashimi")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert fine.stdout.startswith("sashimi: ") and "causal: dist proven" in fine.stdout
    broken = process("-m", "graphspec", "lint", "broken.yaml", cwd=tmp_path)
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "error[GS0202]" in broken.stderr and "--> broken.yaml:7:12\n" in broken.stderr
    assert process("-m", "graphspec", "lint", "broken.yaml", "--nope").returncode == 2
    assert process("-m", "graphspec", "lint").returncode == 2
    assert process("-m", "graphspec").returncode == 2


def test_json_is_json(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    broken = process("-m", "graphspec", "lint", "broken.yaml", "--format", "json", cwd=tmp_path)
    (found,) = json.loads(broken.stdout)
    assert (broken.returncode, broken.stderr) == (1, "")
    assert (found["code"], found["severity"]) == ("GS0202", "error")
    assert [found[k] for k in ("file", "line", "column", "end_line", "end_column")] == ["broken.yaml", 7, 12, 7, 16]
    fine = process("-m", "graphspec", "lint", "sashimi", "--format", "json")
    assert (fine.returncode, json.loads(fine.stdout)) == (0, [])


@pytest.mark.parametrize("arguments", [["lint", "sashimi"], ["explain", "GS0401"], ["explain"]])
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    code = (
        f"import sys; from graphspec.__main__ import main; code = main({arguments!r})\n"
        f"print(code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    assert process("-c", code).stdout.splitlines()[-1] == "0 []"
