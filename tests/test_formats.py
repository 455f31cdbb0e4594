"""`graphspec lint` for other programs: SARIF 2.1.0, GitHub workflow commands, JSON; several specs, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from graphspec.__main__ import main
from graphspec.cli.lint_command import sorted_out
from graphspec.diagnostic import Diagnostic, Edit, Fix, Related
from graphspec.report import as_json
from graphspec.report_github import workflow_commands
from graphspec.report_sarif import sarif
from graphspec.span import Source, Span

GOOD = "graphspec: 1\nmodel: good\ninputs:\n  x: float[T, 1] @ 16000\ngraph:\n  y: x |> conv(4)\noutputs: [y]\n"
BAD = GOOD.replace("model: good", "model: bad").replace("conv(4)", "cnov(4)")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "tab.yaml").write_text("graphspec: 1\nmodel: tab\na: 017\n")
    return tmp_path


def found() -> list[Diagnostic]:
    """One of each kind: fixes with and without edits, related places in another file, the command line, no place."""
    spec = Source("my specs/ä,b:100%.yaml", "graph:\n  y: wave\n    |> cnov(16)\n")
    library = Source("/opt/lib/core.yaml", "blocks:\n  conv: 1\n")
    word = Span(spec, spec.text.index("cnov"), spec.text.index("cnov") + 4)
    both = Span(spec, spec.text.index("wave"), len(spec.text) - 1)
    told = Source("<command line> d=", "x")
    fix = Fix("write conv", (Edit(word, "conv"),))
    return [
        Diagnostic(
            "GS0202", "there is no 'cnov'", word, related=(Related("here", Span(library, 10, 14)),), fixes=(fix,)
        ),
        Diagnostic("GS0401", "100% late:\nby 1, at \x1b[31m", both, "warning", (), ("a note",), (Fix("delay it"),)),
        Diagnostic("GS0212", "not a number", Span(told, 0, 1), "note"),
        Diagnostic("GS0119", "there is no file", Span(Source("gone.yaml", ""), 0, 0)),
        Diagnostic("GS0900", "our fault", None),
    ]


# ---- SARIF ----------------------------------------------------------------------------------------------------------


def test_sarif_rules_and_results() -> None:
    log = json.loads(sarif(found()))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [r["id"] for r in rules] == ["GS0119", "GS0202", "GS0212", "GS0401", "GS0900"]
    assert all(r["shortDescription"]["text"] and r["fullDescription"]["text"] and r["help"]["text"] for r in rules)
    assert run["columnKind"] == "unicodeCodePoints"  # as our columns are
    assert [r["level"] for r in run["results"]] == ["error", "warning", "note", "error", "error"]
    for r in run["results"]:
        assert rules[r["ruleIndex"]]["id"] == r["ruleId"]


def test_sarif_places() -> None:
    first, second, told, gone, ours = json.loads(sarif(found()))["runs"][0]["results"]
    where = first["locations"][0]["physicalLocation"]
    assert unquote(where["artifactLocation"]["uri"]) == "my specs/ä,b:100%.yaml"
    assert re.fullmatch(r"[\x21-\x7e]+", where["artifactLocation"]["uri"])
    assert where["region"] == {
        "startLine": 3, "startColumn": 8, "endLine": 3, "endColumn": 12, "charOffset": 24, "charLength": 4,
    }  # fmt: skip
    related = first["relatedLocations"][0]
    assert related["physicalLocation"]["artifactLocation"]["uri"] == "file:///opt/lib/core.yaml"
    assert related["message"] == {"text": "here"} and related["physicalLocation"]["region"]["startLine"] == 2
    region = second["locations"][0]["physicalLocation"]["region"]
    assert (region["startLine"], region["startColumn"], region["endLine"]) == (2, 6, 3)
    assert told["locations"] == [{"logicalLocations": [{"name": "<command line> d="}]}]
    assert "region" not in gone["locations"][0]["physicalLocation"]
    assert ours["locations"] == []


def test_sarif_fixes_replace_and_the_others_are_told() -> None:
    first, second, *_ = json.loads(sarif(found()))["runs"][0]["results"]
    (fix,) = first["fixes"]
    (change,) = fix["artifactChanges"]
    (replacement,) = change["replacements"]
    assert fix["description"] == {"text": "write conv"} and replacement["insertedContent"] == {"text": "conv"}
    source = found()[0].span.source.text  # type: ignore[union-attr]
    r = replacement["deletedRegion"]
    fixed = source[: r["charOffset"]] + "conv" + source[r["charOffset"] + r["charLength"] :]
    assert "|> conv(16)" in fixed
    assert second["message"]["text"] == "100% late:\\nby 1, at \\x1b[31m\nnote: a note\nhelp: delay it"
    assert "fixes" not in second


def test_a_fix_of_a_real_mistake_mends_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bom.yaml").write_text("graphspec: 1\nmodel: m\u202e\n", encoding="utf-8")
    assert main(["lint", "bom.yaml", "--format", "sarif"]) == 1
    (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    region = result["fixes"][0]["artifactChanges"][0]["replacements"][0]["deletedRegion"]
    text = (folder / "bom.yaml").read_text(encoding="utf-8")
    assert text[region["charOffset"]] == "\u202e" and region["charLength"] == 1


# ---- GitHub ---------------------------------------------------------------------------------------------------------


def test_workflow_commands_and_their_escapes() -> None:
    lines = workflow_commands(found()).split("\n")
    assert lines == [
        "::error file=my specs/ä%2Cb%3A100%25.yaml,line=3,endLine=3,col=8,endColumn=12,title=GS0202::"
        "there is no 'cnov'%0Ahere (/opt/lib/core.yaml:2:3)%0Ahelp: write conv",
        "::warning file=my specs/ä%2Cb%3A100%25.yaml,line=2,endLine=3,title=GS0401::"
        "100%25 late:\\nby 1, at \\x1b[31m%0Anote: a note%0Ahelp: delay it",
        "::notice title=GS0212::not a number%0Aat <command line> d=: x",
        "::error file=gone.yaml,title=GS0119::there is no file",
        "::error title=GS0900::our fault",
    ]


def test_no_text_of_a_spec_begins_a_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = 'graphspec: 1\nmodel: "x\\n::error::pwned\\r::stop-commands::t"\n"a\\n::warning::b": 1\n'
    (folder / "hostile.yaml").write_text(hostile)
    assert main(["lint", "hostile.yaml", "--format", "github"]) == 1
    out = capsys.readouterr().out
    assert all(line.startswith("::error file=hostile.yaml,") for line in out.splitlines()) and out.endswith("\n")


# ---- the command ----------------------------------------------------------------------------------------------------


def lint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["lint", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("format", ["json", "sarif", "github"])
def test_a_good_spec_says_nothing_to_programs(format: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = lint(["good.yaml", "--format", format], capsys)
    assert (code, err) == (0, "")
    parsed: Any = json.loads(out) if format != "github" else out
    assert parsed["runs"][0]["results"] == [] if format == "sarif" else len(parsed) == 0


def test_several_specs_are_one_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = ["good.yaml", "bad.yaml", "tab.yaml", "none.yaml"]
    code, out, err = lint(specs, capsys)
    assert code == 1 and out.startswith("good: ") and "bad: " not in out
    assert [c for c in ("GS0202", "GS0105", "GS0119") if c in err] == ["GS0202", "GS0105", "GS0119"]
    code, out, err = lint([*specs, "--format", "json"], capsys)
    assert (code, err) == (1, "") and {d["file"] for d in json.loads(out)} == set(specs[1:])
    code, out, err = lint([*specs, "--format", "sarif"], capsys)
    assert (code, err) == (1, "") and len(json.loads(out)["runs"]) == 1
    assert lint(["good.yaml", "./good.yaml"], capsys)[0] == 0


@pytest.mark.parametrize(
    ("words", "specs", "overrides"),
    [
        ("sashimi d=32", ["sashimi"], ["d=32"]),
        ("d=32 a.yaml train.batch=8 runs/d=3/spec.yaml", ["a.yaml", "runs/d=3/spec.yaml"], ["d=32", "train.batch=8"]),
        ("./a=b.yaml", ["./a=b.yaml"], []),
        ("a.yaml a=b.yaml", ["a.yaml"], ["a=b.yaml"]),
        ("sashimi sashimi_small sashimi_smal", ["sashimi", "sashimi_small", "sashimi_smal"], []),
        ("sashimi d", ["sashimi"], ["d"]),  # neither: the overrides' check says that it is not NAME=VALUE
        ("sashimi =3", ["sashimi"], ["=3"]),
        ("d=32", ["d=32"], []),
    ],
)
def test_specs_and_overrides_are_told_apart(words: str, specs: list[str], overrides: list[str]) -> None:
    assert sorted_out(words.split(), []) == (specs, overrides)


def test_overrides_hold_for_all_and_may_follow_the_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wide.yaml").write_text(GOOD.replace("inputs:", "params: {w: 4}\ninputs:").replace("conv(4)", "conv(w)"))
    assert lint(["wide.yaml", "--format", "json", "w=8"], capsys)[0] == 0
    code, out, _ = lint(["wide.yaml", "good.yaml", "w=0", "--format", "json"], capsys)
    assert code == 1 and [d["code"] for d in json.loads(out)] == ["GS0305", "GS0210"]


def test_json_is_as_before() -> None:
    first = json.loads(as_json(found()))[0]
    assert (first["line"], first["column"], first["end_column"]) == (3, 8, 12)
    assert first["fixes"][0]["edits"][0]["text"] == "conv"
