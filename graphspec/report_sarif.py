"""Diagnostics as SARIF 2.1.0 (OASIS, 2020), which code scanners and editors read.

Rules are made from the code records of what was found. Columns count characters (`unicodeCodePoints`), ends are
exclusive, as SARIF has it; a Fix with edits becomes replacements, one without becomes a line of the message.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from graphspec import codes
from graphspec.diagnostic import Diagnostic, Edit, Fix
from graphspec.report import clean
from graphspec.span import Source, Span

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(diagnostics: Iterable[Diagnostic]) -> str:
    """One SARIF log with one run, whatever was found."""
    found = list(diagnostics)
    rules = sorted({d.code for d in found})
    place = {number: i for i, number in enumerate(rules)}
    run = {
        "tool": {"driver": {"name": "graphspec", "version": _version(), "rules": [_rule(n) for n in rules]}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(d, place[d.code]) for d in found],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("graphspec")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0"


def _rule(number: str) -> dict[str, Any]:
    code = codes.find(number)
    if code is None:
        return {"id": number}
    return {
        "id": number,
        "shortDescription": {"text": code.title},
        "fullDescription": {"text": code.why},
        "help": {"text": code.fix or code.why},
    }


def _result(d: Diagnostic, rule: int) -> dict[str, Any]:
    lines = [clean(d.message), *(f"note: {clean(n)}" for n in d.notes)]
    lines += [f"help: {clean(fix.title)}" for fix in d.fixes if not fix.edits]
    result: dict[str, Any] = {
        "ruleId": d.code,
        "ruleIndex": rule,
        "level": d.severity,
        "message": {"text": "\n".join(lines)},
        "locations": [_location(d.span)] if d.span else [],
    }
    if d.related:
        result["relatedLocations"] = [
            {"id": i, **_location(r.span), "message": {"text": clean(r.message)}} for i, r in enumerate(d.related)
        ]
    fixes = [_fix(fix) for fix in d.fixes if fix.edits and all(_is_file(e.span.source) for e in fix.edits)]
    if fixes:
        result["fixes"] = fixes
    return result


def _location(span: Span) -> dict[str, Any]:
    if not _is_file(span.source):  # the command line: it has a name, and no file that a viewer could open
        return {"logicalLocations": [{"name": clean(span.source.path)}]}
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(span.source.path)}}
    if span.source.text:
        physical["region"] = _region(span)
    return {"physicalLocation": physical}


def _is_file(source: Source) -> bool:
    return not source.path.startswith("<")


def _uri(path: str) -> str:
    """Relative paths stay relative, to the folder the program ran in."""
    if path.startswith("/"):
        return Path(path).as_uri()
    return quote(path.removeprefix("./"), errors="surrogateescape")


def _region(span: Span) -> dict[str, int]:
    line, column = span.source.place(span.start)
    end_line, end_column = span.source.place(span.end)
    return {
        "startLine": line,
        "startColumn": column,
        "endLine": end_line,
        "endColumn": end_column,
        "charOffset": span.start,
        "charLength": span.end - span.start,
    }


def _fix(fix: Fix) -> dict[str, Any]:
    files: dict[str, list[Edit]] = {}
    for edit in fix.edits:
        files.setdefault(edit.span.source.path, []).append(edit)
    return {
        "description": {"text": clean(fix.title)},
        "artifactChanges": [
            {
                "artifactLocation": {"uri": _uri(path)},
                "replacements": [
                    {"deletedRegion": _region(e.span), "insertedContent": {"text": e.text}} for e in edits
                ],
            }
            for path, edits in files.items()
        ],
    }
