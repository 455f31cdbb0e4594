"""How the compiler's errors read: golden text, carets, both sides, block and call, and nothing said twice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphspec import report
from graphspec.cli.explain_command import diagnosed
from graphspec.cli.load import check_document, check_spec, shipped
from graphspec.compiler.unfold import Unfolding
from graphspec.diagnostic import Diagnostic, Fix, SpecError
from graphspec.reader import read_file, read_text

MARK = re.compile(r" *\^+ GS\d{4}.*")
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
error[GS0302]: 'wave + (slow |> linear(1))' joins values of different rates: 'wave' 16 kHz, \
'(slow |> linear(1))' 4 kHz
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
  ::: model.yaml:9:10: 'x |> linear(d)': f32[T, 15] @ 16 kHz
   |
 9 |     out: x |> linear(d) |> glu
   |          --------------
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
  = help: write (h * silu(h)) |> linear(1), which is f32[T, 1] @ 16 kHz
  = help: write h * (silu(h) |> linear(1)), which is f32[T, 16] @ 16 kHz

1 error
""",
    ),
    "two_readings_of_which_one_fits": (
        """\
graph:
  h: wave |> conv(16)
  g: wave |> conv(4)
  y: h * g |> linear(16)
""",
        (),
        """\
error[GS0122]: '|>' and arithmetic touch without parentheses; this has two readings
 --> model.yaml:8:6
  |
8 |   y: h * g |> linear(16)
  |      ^^^^^^^^^^^^^^^^^^^
  |
  = help: write h * (g |> linear(16)), which is f32[T, 16] @ 16 kHz
  = help: write (h * g) |> linear(16), which does not fit: 'h * g': 'h' has 16 where 'g' has 4

1 error
""",
    ),
    "the_argument_to_blame": (
        """\
graph:
  y: wave |> conv(16, k=0)
""",
        (),
        """\
error[GS0305]: conv needs k >= 1; k is 0
 --> model.yaml:6:23
  |
6 |   y: wave |> conv(16, k=0)
  |                       ^^^

1 error
""",
    ),
    "channels_that_do_not_divide": (
        """\
graph:
  h: wave |> conv(30)
  y: h |> unfold(4)
""",
        (),
        """\
error[GS0310]: 30 channels are not a multiple of 4
 --> model.yaml:7:18
  |
7 |   y: h |> unfold(4)
  |                  ^
 ::: model.yaml:7:6: 'h': f32[T, 30] @ 16 kHz
  |
7 |   y: h |> unfold(4)
  |      -

1 error
""",
    ),
    "blocks_that_double": (
        "blocks:\n  b0:\n    in: x\n    out: x |> tanh\n"
        + "".join(f"  b{i}:\n    in: x\n    out: x |> b{i - 1} |> b{i - 1}\n" for i in range(1, 41))
        + "graph:\n  y: wave |> b40\n",
        (),
        """\
error[GS0804]: 'b40' would unfold to at least 1,099,511,627,776 values; the limit is 20,000 in all
   --> model.yaml:130:14
    |
130 |   y: wave |> b40
    |              ^^^

1 error
""",
    ),
    "a_section_misspelt_is_one_mistake": (
        """\
grph:
  h: wave |> conv(16)
graph:
  y: h |> linear(1)
outputs: [y]
""",
        (),
        """\
error[GS0130]: 'grph' is not a section; did you mean 'graph'?
 --> model.yaml:5:1
  |
5 | grph:
  | ^^^^
  |
  = help: write graph

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

error[GS0203]: conv has no parameter 'kernel'; it is called 'k' here
 --> model.yaml:8:23
  |
8 |   a: wave |> conv(16, kernel=3)
  |                       ^^^^^^^^
  |
  = note: it is conv(units: int, k: int = 3, dilation: int = 1, bias: bool = true, stride: int = 1, groups: int = 1, \
centre: bool = false)
  = help: write k=3

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
   |
   = help: write wave

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
    ("sashimi.yaml", "wave[t-1] |> reader", "wave |> reader"),
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


# ---- several errors, and edits --------------------------------------------------------------------------------------

CASES = [
    (
        f"{path.stem}: {name}",
        "\n".join(line for line in body.rstrip("\n").split("\n") if not MARK.fullmatch(line)) + "\n",
    )
    for path in sorted(Path(__file__).with_name("bad").glob("*.txt"))
    for part in re.split(r"(?m)^== ", path.read_text())[1:]
    for name, _, body in [part.partition("\n")]
]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in CASES])
def test_every_edit_takes_its_error_away(text: str) -> None:
    for d in diagnosed(text):
        for fix in d.fixes:
            if not fix.edits or "which does not fit" in fix.title or {e.span.source.text for e in fix.edits} != {text}:
                continue
            mended = text
            for edit in sorted(fix.edits, key=lambda e: -e.span.start):
                mended = mended[: edit.span.start] + edit.text + mended[edit.span.end :]
            assert mended != text
            left = {(e.code, e.message) for e in diagnosed(mended)}
            assert (d.code, d.message) not in left, f"{fix.title}\n{mended}"


@pytest.mark.parametrize(
    ("written", "mended"),
    [
        (
            "  wave: int(256)[T, 1] @ 16000  # mu law\n",
            "  wave:\n    type: int(256)[T, 1] @ 16000\n    before: 128  # mu law\n",
        ),
        (
            "  wave:  # mu law\n    type: int(256)[T, 1] @ 16000\n",
            "  wave:  # mu law\n    before: 128\n    type: int(256)[T, 1] @ 16000\n",
        ),
    ],
)
def test_history_of_integers_is_told_its_start_by_an_edit(written: str, mended: str) -> None:
    text = f"graphspec: 1\nmodel: m\ninputs:\n{written}graph:\n  y: wave[t-1] |> embed(8)\noutputs: [y]\n"
    (found,) = diagnosed(text)
    (edit,) = found.fixes[0].edits
    assert text[: edit.span.start] + edit.text + text[edit.span.end :] == text.replace(written, mended)
    assert diagnosed(text.replace(written, mended)) == []


def test_the_advice_for_a_long_pipe_is_cut_between_its_stages() -> None:
    text = """\
require: [T % 4 == 0]
graph:
  y: wave |> linear(16) |> gelu |> linear(32)
    |> linear(16) |> fold(4) |> conv(32, k=3) |> gelu |> linear(64) |> unfold(4)
causal:
  y: 0
"""
    advice = [line for line in said(text).splitlines() if "delay the value" in line]
    assert len(advice) == 1
    assert advice[0].endswith(": ... |> fold(4) |> conv(32, k=3) |> gelu |> linear(64) |> shift(1)")


TWICE = {  # mistakes that were told again at every use
    "inputs:\n  größe: float[T, 1] @ 16000\ngraph:\n  h: größe |> conv(4)\n  k: größe[t-1] + h\n": "GS0213",
    "inputs:\n  t: float[T, 1] @ 16000\ngraph:\n  h: t |> conv(4)\n  k: t[t-1] + h\n": "GS0214",
    "input:\n  wave: float[T, 1] @ 16000\ngraph:\n  h: wave |> conv(4)\nlosses:\n  l: mean(wave)\n": "GS0130",
    "inputs:\n  wave:float[T, 1] @ 16000\ngraph:\n  h: wave |> conv(4)\n  k: tanh(wave)\n": "GS0133",
    "inputs:\n  wave: float[T, 1] @ 16000\ngraph:\n  h-1: wave |> conv(4)\n  k: (h-1 |> tanh)\n": "GS0213",
    "inputs:\n  wave: float[T, 1] @ 16000\ngraph:\n  h: [wave, wave] |> cat\n  k: tanh(h)\n": "GS0117",
}


@pytest.mark.parametrize("text", TWICE)
def test_one_mistake_is_told_once(text: str) -> None:
    assert [d.code for d in diagnosed("graphspec: 1\nmodel: m\n" + text) if d.is_error] == [TWICE[text]]


def test_another_mistake_in_the_same_spec_is_still_told() -> None:
    text = "graphspec: 1\nmodel: m\ninput:\n  wave: float[T, 1] @ 16000\n"
    text += "graph:\n  h: wave |> conv(4)\n  k: wav |> tanh\n"
    assert [d.code for d in diagnosed(text)] == ["GS0130", "GS0201"]


@pytest.mark.parametrize("spec", sorted(p.stem for p in shipped().glob("*.yaml")))
def test_no_block_unfolds_to_less_than_what_is_counted_before(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, counted, empty = Unfolding._block, [], []

    def block(self: Unfolding, stage: Any) -> Any:
        before, none_before, least = len(self.values), len(empty), self.copies.values(stage)
        made = whole(self, stage)
        if len(self.values) == before:
            empty.append(stage)  # a block that makes none counts as one
        counted.append((least, len(self.values) - before + len(empty) - none_before))
        return made

    monkeypatch.setattr(Unfolding, "_block", block)
    try:
        check_spec(spec)
    except SpecError:
        pytest.skip("it is refused")
    assert all(least <= made for least, made in counted)


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
