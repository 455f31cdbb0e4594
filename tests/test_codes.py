"""Every code that a source can print is explained, and every explanation is true of the compiler."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphspec.compiler
import graphspec.ops
import graphspec.runtime
from graphspec import codes
from graphspec.__main__ import main
from graphspec.cli.explain_command import diagnosed, explained
from graphspec.codes import Code

ALL = codes.all()
CODE = re.compile(r"GS\d{4}")
PACKAGES = (graphspec, graphspec.compiler, graphspec.ops, graphspec.runtime)


def sources() -> Iterator[Path]:
    """Every module of the project but the codes themselves."""
    for package in PACKAGES:
        folder = Path(package.__path__[0])
        yield from (p for p in folder.rglob("*.py") if "codes" not in p.relative_to(folder).parts)


def raised(path: Path) -> set[str]:
    """Codes in the strings of a module, its docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [n.body for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    docstrings = {id(b[0].value) for b in bodies if b and isinstance(b[0], ast.Expr)}
    return {
        code
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docstrings
        for code in CODE.findall(n.value)
    }


def ids(code: Code) -> str:
    return code.number


def test_every_code_that_is_raised_is_declared_and_none_else() -> None:
    where: dict[str, list[str]] = {}
    for path in sources():
        for code in raised(path):
            where.setdefault(code, []).append(path.name)
    declared = {c.number for c in ALL}
    assert {c: files for c, files in where.items() if c not in declared} == {}, "raised, but nothing explains them"
    assert declared - set(where) == set(), "explained, but nothing raises them"


def test_the_sources_are_found() -> None:
    found = {p.name for p in sources()}
    assert {"yaml_tree.py", "clock.py", "data.py", "expression.py", "lint_command.py"} <= found


@pytest.mark.parametrize("code", ALL, ids=ids)
def test_a_code_is_well_formed(code: Code) -> None:
    assert CODE.fullmatch(code.number)
    assert code.title and code.title[-1] not in ".!" and len(code.title) <= 72
    assert code.why.endswith(".") and len(code.why) > 40
    assert code.fix.endswith(".")
    assert code.passing or not code.failing


def test_numbers_are_sorted_and_unique() -> None:
    numbers = [c.number for c in ALL]
    assert numbers == sorted(set(numbers))
    assert codes.find("GS0101") is ALL[0]
    assert codes.find("GS9999") is None


# What is legal and hardly meant: warnings and notes, never errors.
ADVICE = {"GS0230", "GS0231", "GS0232", "GS0317", "GS0518", "GS0670", "GS0671", "GS0672", "GS0806"}
ADVICE |= {"GS0673", "GS0807"}


@pytest.mark.parametrize("code", [c for c in ALL if c.failing], ids=ids)
def test_a_failing_spec_says_its_code_and_no_other(code: Code) -> None:
    found = diagnosed(code.failing)
    assert {d.code for d in found} == {code.number}, [f"{d.code} {d.message}" for d in found]
    assert all(d.is_error for d in found) or code.number in ADVICE
    assert all(d.span is not None for d in found)


@pytest.mark.parametrize("code", [c for c in ALL if c.passing], ids=ids)
def test_a_passing_spec_says_nothing(code: Code) -> None:
    found = diagnosed(code.passing)
    assert not found, [f"{d.code} {d.message}" for d in found]


# ---- codes whose mistake is not in the text of one spec ------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("GS0119", ["./there_is_no.yaml"]),
        ("GS0210", ["sashimi", "dd=128"]),
        ("GS0210", ["sashimi", "trian.batch=8"]),
        ("GS0211", ["sashimi", "graph=3"]),
        ("GS0212", ["sashimi", "d=1.5"]),
        ("GS0215", ["sashimi", "d"]),
        ("GS0501", ["sashimy"]),
    ],
)
def test_a_mistake_on_the_command_line(code: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", *arguments]) == 1
    assert f"error[{code}]" in capsys.readouterr().err


LIBRARY = "graphspec: 1\nlibrary: {name}\nuse: [{use}]\nblocks:\n  soft:\n    in: x\n    out: x |> tanh\n"
MODEL = "graphspec: 1\nmodel: m\nuse: [{use}]\ninputs:\n  x: float[T, 1] @ 100\ngraph:\n  y: x |> {stage}\n"


@pytest.mark.parametrize(
    ("use", "stage", "uses", "code"),
    [
        ("left, right", "soft", {"left": "", "right": ""}, "GS0503"),
        ("left, right", "left.soft", {"left": "", "right": ""}, None),
        ("left", "soft", {"left": "right", "right": "left"}, "GS0504"),
        ("../left", "soft", {"left": ""}, "GS0502"),
    ],
)
def test_a_mistake_between_files(
    use: str, stage: str, uses: dict[str, str], code: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, used in uses.items():
        (tmp_path / f"{name}.yaml").write_text(LIBRARY.format(name=name, use=used))
    spec = tmp_path / "m.yaml"
    spec.write_text(MODEL.format(use=use, stage=stage))
    assert main(["lint", str(spec)]) == (1 if code else 0)
    assert code is None or f"error[{code}]" in capsys.readouterr().err


# ---- explain ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ALL, ids=ids)
def test_explain_prints_a_page(code: Code) -> None:
    page = explained(code)
    assert page.startswith(f"{code.number}: {code.title}\n")
    assert ("What graphspec says:" in page) == bool(code.failing)
    assert not code.failing or re.search(rf"(error|warning|note)\[{code.number}\]", page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    assert len(page) < 12_000


def test_explain_lists_finds_and_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [c.number for c in ALL]
    for written in ("GS0401", "gs0401", "401"):
        assert main(["explain", written]) == 0
        assert capsys.readouterr().out.startswith("GS0401: a value reads ticks that it must not\n")
    assert main(["explain", "GS0411"]) == 1
    assert "error[GS0225]: there is no code 'GS0411'; did you mean 'GS0401'?" in capsys.readouterr().err


# ---- mistakes by hand: each an answer with a code, never a traceback ------------------------------------------------

WAVE = "graphspec: 1\nmodel: m\nuse: [std/core]\ninputs:\n  wave: float[T, 1] @ 16000\n"

VALUES = {  # the value y, with h of 16 channels and halves, a record
    "h |> repeat(2.5, tanh)": "GS0220",
    "h |> repeat(h, tanh)": "GS0220",
    "h |> repeat": "GS0203",
    "h |> repeat(i for i in [1, 2])": "GS0219",
    "h |> repeat(tanh for i in 3)": "GS0206",
    "h |> repeat(20001, tanh)": "GS0804",
    "h |> linear(len([0] * 10**9))": "GS0804",
    "h |> linear(9**9**9)": "GS0106",
    "h |> linear(2**60)": "GS0106",
    "h |> linear(T)": "GS0223",
    "h |> linear(0)": "GS0305",
    "h |> linear(T // 0)": "GS0208",
    "h |> linear(T ** -1)": "GS0204",
    "h |> linear(range(T))": "GS0209",
    "h |> linear(tanh)": "GS0204",
    "h |> conv(4, k=0)": "GS0305",
    "h |> conv(4, 3, 1, true, 1, 1, false, 5)": "GS0203",
    "h |> conv(4, units=4)": "GS0203",
    "h |> fold(0)": "GS0305",
    "h |> fold(-2)": "GS0305",
    "h |> unfold(3)": "GS0310",
    "h |> shift(-1)": "GS0305",
    "h[t-0]": "GS0123",
    "h[t-1.5]": "GS0123",
    "h[t-T]": "GS0123",
    "halves[t-1]": "GS0304",
    "3[t-1]": "GS0304",
    "(wave |> quantise(8))[t-1]": "GS0404",
    "halves |> tanh": "GS0217",
    "halves + h": "GS0217",
    "halves.c": "GS0216",
    "h.left": "GS0216",
    "tanh([h, h])": "GS0217",
    "h + none": "GS0217",
    "h * T": "GS0217",
    "h % 2": "GS0204",
    "-(h > 0)": "GS0303",
    "not h": "GS0205",
    "h and h": "GS0205",
    "h if T > 3 else h": "GS0204",
    "h if 1 else h": "GS0205",
    "where(h, h, h)": "GS0303",
    "h |> h": "GS0219",
    "h(h)": "GS0202",
    "tanh(h)(h)": "GS0204",
    "sum(a for a, b in zip(h, h))": "GS0209",
    "sum(h * a for a, b in [1, 2])": "GS0206",
    "sum(h for h in [1])": "GS0218",
    "h * log(-1)": "GS0209",
    "h * (-1) ** 0.5": "GS0204",
    "h |> core.resid(tanh)": "GS0202",
    "h |> residual(3)": "GS0219",
    "h |> residual": "GS0203",
    "h |> categorical(0)": "GS0305",
    "(h |> categorical(4)) + 1": "GS0303",
    "draw(h |> categorical(3), temperature=h)": "GS0304",
    "h |> " + "(" * 40 + "tanh" + ")" * 40: "GS0802",
    "h + " * 600 + "h": "GS0802",
}

SECTIONS = {  # what follows a small graph
    "inputs": "GS0101",
    "require:\n  - T % 0 == 0": "GS0314",
    "require:\n  - 3": "GS0205",
    "require: T": "GS0133",
    "causal:\n  y: strickt": "GS0406",
    "causal:\n  z: strict": "GS0201",
    "causal: [y]": "GS0133",
    "losses:\n  a: b + 1\n  b: a + 1": "GS0405",
    "losses:\n  a: 3": "GS0217",
    "losses:\n  y: mean(y)": "GS0224",
    "outputs: y": "GS0133",
    "outputs: [null]": "GS0120",
    "sample:\n  feed: [wave]": "GS0506",
    "sample:\n  feed:\n    wave: y": "GS0316",
    "train:\n  steps: 2.5": "GS0223",
    "train:\n  optimizer: adamw(lr=3)": "GS0203",
    "train:\n  lr: 1 / step": "GS0208",
    "train:\n  groups:\n    ssm: 3": "GS0133",
    "train:\n  crop: {T: -1}": "GS0603",
    "data:\n  wave: corpus() + 1": "GS0606",
    "data:\n  wave: audio_folder()": "GS0203",
    "params:\n  a: a + 1": "GS0405",
    "params:\n  a: tanh": "GS0201",
    "params:\n  a: [{b: 1}]": "GS0133",
    "blocks:\n  b: tanh": "GS0133",
    "blocks:\n  b:\n    in: [[x]]\n    out: x": "GS0133",
    "eval:\n  y: wave": "GS0522",
}

OVERRIDES = {
    "d=none": "GS0212",
    "d=[1]": "GS0212",
    "d=1/0": "GS0208",
    "d=(": "GS0120",
    "d=": "GS0120",
    "depth=-1": "GS0220",
    "depth=100000": "GS0804",
    "rate=0": "GS0302",
    "state=3": "GS0305",
    "law=foo": "GS0222",
    "train.batch=0": "GS0603",
    "train.foo=1": "GS0602",
    "train.crop.T=100": "GS0605",
    "a..b=3": "GS0215",
}


@pytest.mark.parametrize(("y", "code"), VALUES.items(), ids=lambda text: text[:40])
def test_a_mistake_in_a_value(y: str, code: str) -> None:
    said = diagnosed(f"{WAVE}graph:\n  h: wave |> conv(16)\n  halves: h |> split(a=8, b=8)\n  y: {y}\n")
    assert {d.code for d in said} == {code}


@pytest.mark.parametrize(("section", "code"), SECTIONS.items(), ids=lambda text: text[:40])
def test_a_mistake_in_a_section(section: str, code: str) -> None:
    text = f"{WAVE}graph:\n  y: wave |> conv(16)\n" + ("inputs: {}" if section == "inputs" else section) + "\n"
    assert {d.code for d in diagnosed(text)} == {code}


@pytest.mark.parametrize(("override", "code"), OVERRIDES.items())
def test_a_mistake_in_an_override(override: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "sashimi", override]) == 1
    assert f"error[{code}]" in capsys.readouterr().err
