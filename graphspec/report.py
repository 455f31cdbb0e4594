"""Diagnostics to text: for people (source lines with the place underlined) and for programs (JSON).

Other programs' formats stand beside: report_sarif.py (code scanners), report_github.py (annotations of a workflow).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from graphspec.diagnostic import Diagnostic, Related
from graphspec.excerpt import QUOTE_LIMIT, shown, underlined
from graphspec.span import Span

MOST = 20  # of each severity
_SEVERITIES = ("error", "warning", "note")
LONGEST_LINE = 1000  # characters of a message or of a line of a note
_LONG_QUOTE = re.compile(rf"(?<!\w)'([^'\n]{{{QUOTE_LIMIT + 1},}})'(?!\w)")  # not the apostrophes of "block's"
_COLORS = {"error": "1;31", "warning": "1;33", "note": "1;36", "gutter": "1;34", "help": "1;32", "message": "1"}


def human(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """Text for a terminal, ending in a summary line (`2 errors, 1 warning`); empty where there is nothing to say.

    At most 20 diagnostics of each severity are shown. User text is escaped; quoted text over 60 characters is cut.
    """
    everything = list(diagnostics)
    if not everything:
        return ""
    paint = _Paint(color)
    counts = dict.fromkeys(_SEVERITIES, 0)
    parts = []
    for d in everything:
        counts[d.severity] = counts.get(d.severity, 0) + 1
        if counts[d.severity] <= MOST:
            parts.append(_one(d, paint))
    for severity, count in counts.items():
        if count > MOST:
            parts.append(f"and {_counted(count - MOST, 'more ' + severity)}\n")
    summary = ", ".join(_counted(count, severity) for severity, count in counts.items() if count)
    worst = next(severity for severity, count in counts.items() if count)
    return "\n".join(parts) + "\n" + paint(worst, summary) + "\n"


def as_json(diagnostics: Iterable[Diagnostic]) -> str:
    """A JSON array, one object a diagnostic, all of them.

    Lines and columns are 1-based, in characters; `end_line`, `end_column` are exclusive. `start`, `end` of an edit are
    0-based character offsets into the file: replace that stretch by `text`.
    """
    return json.dumps([_object(d) for d in diagnostics], indent=2)


class _Paint:
    def __init__(self, color: bool):
        self.color = color

    def __call__(self, role: str, text: str) -> str:
        return f"\x1b[{_COLORS[role]}m{text}\x1b[0m" if self.color and text else text


def _one(d: Diagnostic, paint: _Paint) -> str:
    places = [span for span in (d.span, *(r.span for r in d.related)) if span and span.source.text]
    wide = max((len(str(span.line)) for span in places), default=1)
    role = d.severity if d.severity in _COLORS else "note"
    head = paint(role, f"{d.severity}[{d.code}]") + paint("message", f": {clean(d.message)}")
    lines = [head]
    if d.span:
        lines += _place(d.span, wide, "-->", "^", paint, role)
    for related in d.related:
        lines += _related(related, wide, paint)
    margin = paint("gutter", " " * wide + " =")
    if d.span and d.span.source.text and (d.notes or d.fixes):
        lines.append(paint("gutter", " " * wide + " |"))
    lines += [f"{margin} {paint('message', 'note')}: {_folded(note, wide)}" for note in d.notes]
    lines += [f"{margin} {paint('help', 'help')}: {_folded(fix.title, wide)}" for fix in d.fixes]
    return "\n".join(lines) + "\n"


def _related(related: Related, wide: int, paint: _Paint) -> list[str]:
    place = _place(related.span, wide, ":::", "-", paint, "gutter")
    place[0] += f": {clean(related.message)}"
    return place


def _place(span: Span, wide: int, arrow: str, mark: str, paint: _Paint, role: str) -> list[str]:
    """The `--> file:line:column` line, and where there is a text, its line with the place underlined."""
    path = shown(span.source.path, 4 * QUOTE_LIMIT)
    pointer = " " * wide + paint("gutter", arrow)
    if not span.source.text:
        return [f"{pointer} {path}"]
    line, column = span.source.place(span.start)
    text = span.source.line(line)
    first = span.source.line_starts()[line - 1]
    # a span over several lines is marked in its first
    content, marks = underlined(text, span.start - first, min(span.end - first, len(text)), mark)
    bare = marks.lstrip()
    bar = paint("gutter", "|")
    return [
        f"{pointer} {path}:{line}:{column}",
        " " * wide + f" {bar}",
        paint("gutter", str(line).rjust(wide)) + f" {bar} {content}".rstrip(),
        " " * wide + f" {bar} " + " " * (len(marks) - len(bare)) + paint(role, bare),
    ]


def clean(text: str) -> str:
    """A message on one line: control characters spelled out, long quotations cut."""
    return shown(_LONG_QUOTE.sub(lambda m: f"'{m.group(1)[: QUOTE_LIMIT - 1]}…'", text), LONGEST_LINE)


def _folded(text: str, wide: int) -> str:
    """A note, whose own line breaks are kept under its first line."""
    indent = "\n" + " " * (wide + 9)
    return indent.join(clean(line) for line in text.split("\n"))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _object(d: Diagnostic) -> dict[str, Any]:
    return {
        "code": d.code,
        "severity": d.severity,
        "message": d.message,
        **_where(d.span),
        "related": [{"message": r.message, **_where(r.span)} for r in d.related],
        "notes": list(d.notes),
        "fixes": [
            {
                "title": fix.title,
                "edits": [
                    {**_where(e.span), "start": e.span.start, "end": e.span.end, "text": e.text} for e in fix.edits
                ],
            }
            for fix in d.fixes
        ],
    }


def _where(span: Span | None) -> dict[str, Any]:
    if span is None:
        return dict.fromkeys(("file", "line", "column", "end_line", "end_column"))
    line, column = span.source.place(span.start)
    end_line, end_column = span.source.place(span.end)
    return {
        "file": span.source.path,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
    }
