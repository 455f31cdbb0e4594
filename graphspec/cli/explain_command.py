"""graphspec explain [CODE | OP | BLOCK]: what a diagnostic code means, with a spec that shows it and the fix; what an
op, or a block of a shipped library, does.

An op's page is its declaration (or that of a setting, such as adamw), nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from textwrap import dedent, fill, indent
from typing import TYPE_CHECKING

from graphspec import codes
from graphspec.cli.load import check_document, library_blocks, shipped
from graphspec.codes import Code
from graphspec.diagnostic import Diagnostic, Findings, SpecError, did_you_mean, fail
from graphspec.excerpt import escaped
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.declare import Catalogue, Declaration

WIDTH = 100  # columns of prose
LINES = 30  # of a spec that are shown
COLUMNS = 110  # of a line of a spec


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="CODE|OP|BLOCK",
        nargs="?",
        help="a code as it is printed, GS0401, the name of an op, conv, or of a library's block, one_pole; without "
        "one, all codes are listed",
    )


def run(options: argparse.Namespace) -> int:
    if options.what is None:
        for code in codes.all():
            print(f"{code.number}  {code.title}")
        return 0
    pages = _pages(options.what) or _blocks(options.what)
    print("\n\n\n".join(pages) if pages else explained(_found(options.what)))
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


def _pages(name: str) -> list[str]:
    """The pages of what is called so: an op, a face of an instance (`embed.logits`), a setting."""
    ops, own = _catalogues()
    found = [(d.name, d) for d in (ops.ops.get(name), own.ops.get(name)) if d is not None]
    found += [(f"{of}.{face}", d) for (of, face), d in ops.faces.items() if name in (face, f"{of}.{face}")]
    return [documented(title, d) for title, d in found]


def _blocks(name: str) -> list[str]:
    """The pages of blocks of this name in the shipped libraries: as they are written, which is all they are."""
    found = []
    for library, blocks in library_blocks():
        if name in blocks:
            key, value = blocks[name].key.span, blocks[name].value.span
            whole = key.source.text[key.start - (key.column - 1) : value.end]  # with the indentation of its first line
            shown = dedent(whole).rstrip()
            found.append(f"{name}: a block of {library}\n\n{indent(shown, '    ')}\n\nwritten    use: [{library}]")
    return found


def _catalogues() -> tuple[Catalogue, Catalogue]:
    from graphspec.ops import catalogue
    from graphspec.runtime.declared import settings

    return catalogue(), settings()


def documented(title: str, d: Declaration) -> str:
    """The page of one op or setting: what it does, its types, parameters, time and weights, an example."""
    head, _, body = d.doc.partition("\n")
    parts = [f"{title}: {head}", body.strip()]
    rows = [("signature", d.signature), ("written", d.spelled)]
    rows += [("parameter", str(p)) for p in d.parameters]
    if d.signature:
        operands = [o.name for o in d.parsed.operands]
        rows += [("time", d.time)] if isinstance(d.time, str) and d.time else []
        read = {o: d.window_of(o) or "all of it, past and future" for o in operands}
        rows += [("time", f"{o}: {window}") for o, window in read.items()] if not isinstance(d.time, str) else []
    weights = d.weights or {}
    rows += [("weight", f"{leaf} ({tag})" if tag else leaf) for leaf, tag in weights.items()]
    if d.noise:
        rows.append(("noise", d.noise + (", in training only" if d.training_noise else "")))
    rows += [("precision", "float32 under autocast, too")] if d.precision == "f32" else []
    rows += [("state", "grows with time")] if d.grows else []
    rows.append(("example", d.example))
    told, before = [], ""
    for what, text in rows:
        if text:
            told.append(f"{'' if what == before else what:<11}{text}")
            before = what
    return "\n\n".join(p for p in [*parts, "\n".join(told)] if p)


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
        if not number.startswith("GS") or not number[2:].isdigit():
            ops, own = _catalogues()
            known = [*ops.ops, *own.ops, *{f"{of}.{face}" for of, face in ops.faces}]
            known += [name for _, blocks in library_blocks() for name in blocks]
            told = f"there is no op, no block and no code '{written[:60]}'{did_you_mean(written, known)}"
            fail("GS0225", told, Span(argument, 0, len(written)), notes=["graphspec explain lists the codes"])
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
