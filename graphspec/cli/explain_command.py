"""graphspec explain [CODE]: what a diagnostic code means, a spec that shows it, what is said of it, and the fix."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from textwrap import fill, indent

from graphspec import codes
from graphspec.cli.load import check_document, shipped
from graphspec.codes import Code
from graphspec.diagnostic import Diagnostic, Findings, SpecError, did_you_mean, fail
from graphspec.excerpt import escaped
from graphspec.span import Source, Span

WIDTH = 100  # columns of prose
LINES = 30  # of a spec that are shown
COLUMNS = 110  # of a line of a spec


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "code", metavar="CODE", nargs="?", help="a code as it is printed, GS0401; without one, all are listed"
    )


def run(options: argparse.Namespace) -> int:
    if options.code is None:
        for code in codes.all():
            print(f"{code.number}  {code.title}")
        return 0
    print(explained(_found(options.code)))
    return 0


def explained(code: Code) -> str:
    """The page of one code."""
    from graphspec import report

    parts = [f"{code.number}: {code.title}", fill(code.why, WIDTH)]
    if code.failing:
        parts += ["A spec that shows it:", _excerpt(code.failing)]
        parts += ["What graphspec says:", indent(report.human(diagnosed(code.failing)).rstrip(), "    ")]
    if code.fix:
        parts.append(fill(f"Fix: {code.fix}", WIDTH))
    if code.passing:
        parts += ["A spec without it:", _excerpt(code.passing)]
    return "\n\n".join(parts)


def diagnosed(spec: str | bytes) -> list[Diagnostic]:
    """What is wrong with the text (or bytes) of a spec; shipped libraries are in reach, nothing is run."""
    from graphspec.reader import read_file, read_text

    findings = Findings()
    try:
        if isinstance(spec, bytes):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "example.yaml")
                path.write_bytes(spec)
                document = read_file(path, "example.yaml")
        else:
            document = read_text("example.yaml", spec)
        check_document(document, shipped(), (), findings)
    except SpecError as error:
        return list(error.diagnostics)
    return findings.all()


def _found(written: str) -> Code:
    number = written.strip().upper()
    if number.isdigit():  # 401 and 0401 are meant well
        number = f"GS{number.zfill(4)}"
    code = codes.find(number)
    if code is None:
        argument = Source("<command line>", written)
        everything = [c.number for c in codes.all()]
        known = [n for n in everything if n[:4] == number[:4]] or everything  # rather one of its family
        fail(
            "GS0225",
            f"there is no code '{written[:60]}'{did_you_mean(number, known)}",
            Span(argument, 0, len(written)),
            notes=["graphspec explain lists all of them"],
        )
    return code


def _excerpt(spec: str | bytes) -> str:
    text = spec.decode("utf-8", "replace") if isinstance(spec, bytes) else spec
    lines = [escaped(line) for line in text.split("\n")] if text else []
    if lines and not lines[-1]:
        lines.pop()
    shown = [line if len(line) <= COLUMNS else line[:COLUMNS] + " ..." for line in lines[:LINES]]
    if len(lines) > LINES:
        shown.append(f"... and {len(lines) - LINES:,} more lines")
    return indent("\n".join(shown), "    ")
