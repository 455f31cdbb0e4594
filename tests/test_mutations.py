"""Mutations of every shipped spec: each is accepted or refused with coded diagnostics, never a traceback, in bounds.

A case is a number; its file, its mutations and its overrides all follow from it. To see one again:
`python tests/test_mutations.py 1234` prints the mutated text and what is said of it.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from graphspec import codes, report
from graphspec.cli.load import check_document, shipped
from graphspec.diagnostic import Diagnostic, Findings, SpecError
from graphspec.reader import read_file
from graphspec.report_github import workflow_commands
from graphspec.report_sarif import sarif

FAST, FULL = 300, 5000
SECONDS = 2.0  # a case, by the wall clock
MEMORY = 1 << 30  # bytes over what the process holds at the start

# fmt: off
NUMBERS = [
    "0", "-1", "1", "3", "1e-3", "1e308", "1e309", "-0", "0.5", "2**53", "2**64", "9**9**9", "2**10**10", "10**18",
    "9007199254740993", "99999999999999999999", "1000000000", "017", "1:30", "0x10", ".inf", ".nan", "-.inf", "7/3",
]
SCALARS = [
    "", "null", "~", "true", "false", "yes", "none", "[]", "{}", "[1, 2]", "{a: 1}", "''", '"x"', "'1'", "x", "t",
    "wave", "wave[t-1]", "wave[t-0]", "wave[t+1]", "graphspec", "|\n    x", "- x", "*a", "&a x", "!!int 3",
    "repeat(3, linear(4))", "repeat(1000000000, linear(4))", "[i for i in range(10**9)]", "(" * 60, "-" * 300 + "1",
    "x |> (f)", "f(f(f(f(x))))", "log(0)", "1/0", "5 % 0", "x if y else z", "float[T, c] @ rate", "int(0)[T, 1] @ 0",
    "float[T, 1] @ -1", "float[T] @ rate/3", "any", "__import__('os')", "range(10**12)", '"a" * 10', "x.y.z", "[[[]]]",
]
# fmt: on
CHARACTERS = "[]{}()|>:,#&*!%@`'\"\\ \t\n-+=<>.0123456789aZ_é\u202e\x00\x1b\ufeff\u2028"


def cut(text: str, random: Random) -> str:
    a, b = sorted(random.randrange(len(text) + 1) for _ in range(2))
    return text[:a] + text[min(b, a + random.choice((1, 5, 200))) :]


def lines_of(change: Callable[[list[str], int, Random], None]) -> Callable[[str, Random], str]:
    def mutate(text: str, random: Random) -> str:
        lines = text.splitlines(keepends=True) or ["\n"]
        change(lines, random.randrange(len(lines)), random)
        return "".join(lines)

    return mutate


def delete(lines: list[str], at: int, random: Random) -> None:
    del lines[at]


def duplicate(lines: list[str], at: int, random: Random) -> None:
    lines.insert(random.choice((at, random.randrange(len(lines) + 1))), lines[at])


def swap(lines: list[str], at: int, random: Random) -> None:
    other = random.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def indent(lines: list[str], at: int, random: Random) -> None:
    lines[at] = random.choice(("  ", " ", "\t", "      ")) + lines[at] if random.random() < 0.5 else lines[at].lstrip()


def revalue(lines: list[str], at: int, random: Random) -> None:
    key, colon, _ = lines[at].partition(": ")
    lines[at] = f"{key}: {random.choice(SCALARS + NUMBERS)}\n" if colon else lines[at].rstrip() + f" {NUMBERS[0]}\n"


def rekey(lines: list[str], at: int, random: Random) -> None:
    body = lines[at].lstrip()
    _, colon, value = body.partition(":")
    word = random.choice(("x", "wave", "step", "t", "for", "class", "1", "a b", "é", "is", "op", "when", "type", "y0"))
    lines[at] = lines[at][: len(lines[at]) - len(body)] + (word + colon + value if colon else body)


def tokens_of(wanted: Callable[[str], bool], new: Callable[[str, Random], str]) -> Callable[[str, Random], str]:
    """Exchange one token of a kind."""
    import re

    def mutate(text: str, random: Random) -> str:
        found = [m for m in re.finditer(r"\w+|[^\w\s]+", text) if wanted(m.group())]
        if not found:
            return text
        m = random.choice(found)
        return text[: m.start()] + new(m.group(), random) + text[m.end() :]

    return mutate


def typo(word: str, random: Random) -> str:
    i = random.randrange(len(word))
    return random.choice((word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:], word[:i] + "x" + word[i + 1 :], "q"))


def another(word: str, random: Random) -> str:
    return random.choice(("wave", "x", "d", "T", "rate", "linear", "embed", "categorical", "repeat", "residual", "sum"))


def noise(text: str, random: Random) -> str:
    out = list(text)
    for _ in range(random.choice((1, 1, 3, 30))):
        at = random.randrange(len(out) + 1)
        out[at : at + random.randrange(2)] = random.choice(CHARACTERS)
    return "".join(out)


def brackets(text: str, random: Random) -> str:
    at = random.randrange(len(text) + 1)
    bracket = random.choice("[](){}") * random.choice((1, 1, 2, 30, 300))
    return text[:at] + bracket + text[at:]


def nest(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True)
    at = random.randrange(len(lines) + 1)
    deep = random.choice((5, 31, 33, 200))
    pad = " " * (len(lines[at - 1]) - len(lines[at - 1].lstrip()) if lines else 0)
    lines.insert(at, pad + "n: " + "{a: " * deep + "1" + "}" * deep + "\n")
    if random.random() < 0.5:
        lines[at] = pad + "n: " + "f(" * deep + "x" + ")" * deep + "\n"
    return "".join(lines)


def move(text: str, random: Random) -> str:
    """A stretch of the file to another place."""
    a, b = sorted(random.randrange(len(text) + 1) for _ in range(2))
    b = min(b, a + 120)
    rest = text[:a] + text[b:]
    at = random.randrange(len(rest) + 1)
    return rest[:at] + text[a:b] + rest[at:]


MUTATIONS: list[Callable[[str, Random], str]] = [
    *map(lines_of, (delete, duplicate, swap, indent, revalue, revalue, rekey)),
    tokens_of(str.isdigit, lambda _, random: random.choice(NUMBERS)),
    tokens_of(str.isidentifier, typo),
    tokens_of(str.isidentifier, another),
    tokens_of(lambda w: not w[0].isalnum(), lambda _, random: random.choice(["+", "*", "|>", "**", "/", ",", "(", ""])),
    cut,
    noise,
    brackets,
    nest,
    move,
]
OVERRIDES = ("d", "bits", "depth", "train.batch", "train.lr", "data", "graph.x0", "T", "x.y", "", "outputs", "rate")


def files() -> list[Path]:
    return sorted(p for p in shipped().rglob("*.yaml"))


def case(number: int) -> tuple[Path, bytes, list[str]]:
    """(the shipped file, its mutated text, overrides) of one case."""
    random = Random(number)
    path = random.choice(files())
    text = path.read_text()
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        text = random.choice(MUTATIONS)(text, random)
    data = text.encode("utf-8", "surrogatepass")
    if random.random() < 0.05:
        at = random.randrange(len(data) + 1)
        data = data[:at] + random.randbytes(random.choice((1, 2, 16))) + data[at:]
    overrides = []
    if random.random() < 0.1:
        overrides = [f"{random.choice(OVERRIDES)}={random.choice(SCALARS + NUMBERS)}"]
    return path, data, overrides


def said(number: int, folder: Path) -> list[Diagnostic]:
    """What is found in a case. A library is read through a model that uses it."""
    path, data, overrides = case(number)
    place = folder / path.relative_to(shipped())
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)
    model = place if place.parent == folder else shipped() / "sashimi.yaml"
    findings = Findings()
    try:
        check_document(read_file(model, model.name), folder, overrides, findings)
    except SpecError as error:
        return list(error.diagnostics)
    finally:
        place.unlink()
    return findings.all()


class TooSlow(BaseException):
    """Past every `except Exception` on the way."""


@contextmanager
def in_time(seconds: float) -> Iterator[None]:
    def stop(signal_number: int, frame: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def in_memory(more: int) -> Iterator[None]:
    """At most so many bytes of address space more than now: a MemoryError, not a machine that swaps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fault(number: int, folder: Path) -> str:
    """What is wrong with our answer to a case, or nothing."""
    try:
        with in_time(SECONDS):
            found = said(number, folder)
            texts = [report.human(found), report.as_json(found), sarif(found), workflow_commands(found)]
    except TooSlow:
        return f"case {number}: over {SECONDS} s\n{''.join(traceback.format_exc(limit=-4))}"
    except (Exception, RecursionError, MemoryError):
        return f"case {number}:\n{''.join(traceback.format_exc(limit=-6))}"
    for d in found:
        if codes.find(d.code) is None:
            return f"case {number}: {d.code} is not a code"
        if d.span is None or not 0 <= d.span.start <= d.span.end <= len(d.span.source.text):
            return f"case {number}: {d.code} has no place: {d.span and (d.span.start, d.span.end)}"
        if len(d.message) > 1000:
            return f"case {number}: {d.code} has {len(d.message)} characters"
    if any(len(t) > 1 << 20 for t in texts):
        return f"case {number}: a report of {max(map(len, texts))} characters"
    json.loads(texts[2])
    return ""


def faults(numbers: range, folder: Path) -> list[str]:
    with in_memory(MEMORY):
        return [told for n in numbers if (told := fault(n, folder))]


def test_mutated_specs_are_accepted_or_refused(tmp_path: Path) -> None:
    found = faults(range(FAST), tmp_path)
    assert not found, "\n".join(found)


@pytest.mark.full
@pytest.mark.parametrize("start", range(FAST, FULL, 940))
def test_many_mutated_specs(start: int, tmp_path: Path) -> None:
    found = faults(range(start, min(start + 940, FULL)), tmp_path)
    assert not found, "\n".join(found)


def test_the_mutations_do_something() -> None:
    """Most cases are refused, for many reasons, and some are still legal."""
    with TemporaryDirectory() as folder:
        found = [{d.code for d in said(n, Path(folder)) if d.is_error} for n in range(60)]
    assert 0 < sum(not codes_ for codes_ in found) < 30
    assert len(set().union(*found)) > 15


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        for number in map(int, sys.argv[1:]):
            path, data, overrides = case(number)
            print(f"# {path.name} {' '.join(overrides)}\n{data.decode('utf-8', 'replace')}\n# ----")
            print(report.human(said(number, Path(folder))))
