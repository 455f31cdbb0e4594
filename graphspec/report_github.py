"""Diagnostics as GitHub workflow commands: a run that prints them shows each beside its line of a pull request."""

from __future__ import annotations

from collections.abc import Iterable

from graphspec.diagnostic import Diagnostic
from graphspec.report import clean

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def workflow_commands(diagnostics: Iterable[Diagnostic]) -> str:
    """One line a diagnostic, `::error file=F,line=L,endLine=M,col=C,endColumn=D,title=CODE::message`.

    Lines and columns are 1-based, in characters; endColumn is exclusive. Columns are left out of what spans lines,
    which GitHub does not take.
    """
    return "\n".join(_line(d) for d in diagnostics)


def _line(d: Diagnostic) -> str:
    properties: dict[str, str | int] = {}
    if d.span is not None and not d.span.source.path.startswith("<"):  # the command line is no file
        properties["file"] = d.span.source.path
        if d.span.source.text:
            line, column = d.span.source.place(d.span.start)
            end_line, end_column = d.span.source.place(d.span.end)
            properties |= {"line": line, "endLine": end_line}
            if line == end_line:
                properties |= {"col": column, "endColumn": end_column}
    properties["title"] = d.code
    told = [clean(d.message)]
    if d.span is not None and "file" not in properties:
        told.append(f"at {clean(d.span.source.path)}: {clean(d.span.source.text)}")
    told += [f"{clean(r.message)} ({clean(str(r.span))})" for r in d.related]
    told += [f"note: {clean(n)}" for n in d.notes] + [f"help: {clean(f.title)}" for f in d.fixes]
    listed = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    return f"::{_COMMANDS[d.severity]} {listed}::{_data(chr(10).join(told))}"


def _data(text: str) -> str:
    """GitHub's escapes of a message: what would end the line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """GitHub's escapes of a property: what would end it, too."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
