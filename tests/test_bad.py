"""Realistic broken specs, and what is said of each: the code, the line, the column, and often the words and the fix.

A file of tests/bad/ is one theme. A case is `== what is wrong`, then a whole spec. Below a line that is blamed stands

    ^^^^ GS0301 words of the message => words of a fix

with the marks under the characters blamed (what spans lines is marked in its first). Every error has its mark and no
other is found. `GS0201?` is an error that is said today though it only follows from another: it may go away.
`python tests/test_bad.py` writes the marks anew, to be read as a diff.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from graphspec.cli.explain_command import diagnosed
from graphspec.diagnostic import Diagnostic

FOLDER = Path(__file__).with_name("bad")
MARK = re.compile(r" *(\^+) (GS\d{4})(\?)?(?: (?!=>)(.*?))?(?: => (.*))?")


@dataclass(frozen=True)
class Mark:
    line: int
    column: int
    width: int
    code: str
    optional: bool
    words: str
    fix: str

    @property
    def place(self) -> tuple[int, int, int, str]:
        return self.line, self.column, self.width, self.code


@dataclass(frozen=True)
class Case:
    theme: str
    name: str
    spec: str
    marks: tuple[Mark, ...]


def read(path: Path) -> list[Case]:
    cases = []
    for part in re.split(r"(?m)^== ", path.read_text(encoding="utf-8"))[1:]:
        name, _, body = part.partition("\n")
        lines: list[str] = []
        marks = []
        for line in body.rstrip("\n").split("\n"):
            m = MARK.fullmatch(line)
            if m is None:
                lines.append(line)
            else:
                words, fix = m[4] or "", m[5] or ""
                marks.append(Mark(len(lines), m.start(1) + 1, len(m[1]), m[2], bool(m[3]), words, fix))
        cases.append(Case(path.stem, name, "\n".join(lines) + "\n", tuple(marks)))
    return cases


def place(d: Diagnostic) -> tuple[int, int, int, str]:
    assert d.span is not None
    until = min(d.span.end, d.span.start + len(d.span.source.line(d.span.line)) - d.span.column + 1)
    return d.span.line, d.span.column, max(until - d.span.start, 1), d.code


CASES = [case for path in sorted(FOLDER.glob("*.txt")) for case in read(path)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.theme}: {case.name}")
def test_a_mistake_is_blamed_where_it_is(case: Case) -> None:
    found = {place(d): d for d in diagnosed(case.spec) if d.is_error}
    marks = {m.place: m for m in case.marks}
    assert {p for p, m in marks.items() if not m.optional} <= set(found) <= set(marks), list(found)
    for at, d in found.items():
        words = "\n".join((d.message, *d.notes))
        assert marks[at].words in words
        assert marks[at].fix in "\n".join(f.title for f in d.fixes)


def test_the_corpus_is_large_and_each_case_is_there_once() -> None:
    names = [(c.theme, c.name) for c in CASES]
    assert len(names) == len(set(names)) >= 80
    least = {"time": 15, "shapes": 15, "names": 20, "yaml": 10, "expressions": 10, "training": 5}
    assert {theme: n for theme, n in least.items() if sum(c.theme == theme for c in CASES) < n} == {}
    assert all(any(not m.optional for m in c.marks) for c in CASES)


def marked(case: Case) -> str:
    """The case as it should stand in its file, by what is said of it now."""
    old = {(m.line, m.code): m for m in case.marks}
    lines = case.spec.rstrip("\n").split("\n")
    for d in sorted((d for d in diagnosed(case.spec) if d.is_error), key=place, reverse=True):
        line, column, width, code = place(d)
        was = old.get((line, code))
        hint = re.search(r"did you mean '.*'", d.message)
        words = was.words if was and was.words in d.message else hint.group() if hint else ""
        fix = d.fixes[0].title if d.fixes and len(d.fixes[0].title) <= 70 else ""
        mark = f"{' ' * (column - 1)}{'^' * width} {code}{'?' if was and was.optional else ''}"
        lines.insert(line, mark + (f" {words}" if words else "") + (f" => {fix}" if fix else ""))
    return f"== {case.name}\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    for written in [Path(p) for p in sys.argv[1:]] or sorted(FOLDER.glob("*.txt")):
        written.write_text("\n".join(map(marked, read(written))), encoding="utf-8")
