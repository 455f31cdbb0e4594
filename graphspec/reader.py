"""Bytes to a Document: limits, then YAML's events, our own YAML 1.2 reading of scalars, and a span for everything.

The tree is built from libyaml's *events*: its composer recurses and crashes the interpreter on 60 KB of nesting, while
the event stream can be stopped. All independent mistakes of a file are reported together. Nothing is ever constructed
from a tag, and no alias is followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from itertools import islice
from typing import NoReturn

from graphspec.diagnostic import Diagnostic, Edit, Findings, Fix, SpecError, did_you_mean, fail
from graphspec.document import Document
from graphspec.excerpt import escaped, shown
from graphspec.span import Source, Span
from graphspec.yaml_faults import Mask
from graphspec.yaml_tree import build

MAX_BYTES = 1 << 20
MAX_ERRORS = 20

# C0 but tab and line break, DEL and C1, other line breaks, bidi controls, byte-order mark, non-characters, surrogates
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
    "|\r(?!\n)"
)
_DIRECTIVE = re.compile(r"^%.*", re.MULTILINE)
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def read_file(path: str | os.PathLike[str], shown: str | None = None) -> Document:
    """Read one spec from a regular file. `shown` is what diagnostics call it (default: `path`).

    Raises SpecError: GS0119 (no such file, not a regular file, no permission), GS0801 (over 1 MiB), GS0109 (not UTF-8),
    and whatever `read_text` raises. Never blocks: a FIFO or a device is refused without being read.
    """
    path = os.fspath(path)
    name = path if shown is None else shown
    nothing = Source(name, "")
    data = _bytes(path, Span(nothing, 0, 0))
    if len(data) > MAX_BYTES:
        _too_large(nothing)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        _not_utf8(name, data, error)
    return read_text(name, text)


def read_text(path: str, text: str) -> Document:
    """Read one spec from its text; `path` is what diagnostics call it.

    Raises SpecError with every independent mistake (at most 20): GS01xx for YAML, GS08xx for limits.
    """
    source = Source(path, text)
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        _too_large(Source(path, ""))
    _check_characters(source)
    found: list[Diagnostic] = [_directive(source, m) for m in islice(_DIRECTIVE.finditer(text), MAX_ERRORS)]
    masked = _DIRECTIVE.sub(lambda m: " " * len(m.group()), text) if found else text
    # Each round reads the text once more, without what the last one tripped over. Few rounds for a large text.
    for _ in range(max(1, min(MAX_ERRORS, MAX_BYTES // max(len(text), 1)))):
        built = build(source, masked)
        masks = [mask for fault in built.faults for mask in fault.masks]
        found += [fault.diagnostic for fault in built.faults]
        if not masks or len(found) >= MAX_ERRORS:
            break
        for mask in masks:
            masked = _blank(masked, mask)
    found += built.mistakes
    if found:
        findings = Findings()
        findings.add(*found)
        raise SpecError(*findings.all()[:MAX_ERRORS])
    if built.root is None:
        raise AssertionError("a text without mistakes has a root")
    return Document(source, built.root)


def _blank(text: str, mask: Mask) -> str:
    kept = re.sub(r"[^\r\n]", mask.filler, text[mask.start : mask.end])
    return text[: mask.start] + kept + text[mask.end :]


def _bytes(path: str, span: Span) -> bytes:
    """At most one byte more than the limit, from a regular file only."""
    try:
        # Looked at before it is opened, since opening some devices already does something, and again once it is open,
        # since the name may have come to mean another file. O_NONBLOCK: opening a FIFO would wait for a writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            _not_a_file(path, os.stat(path).st_mode, span)
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                _not_a_file(path, os.fstat(handle).st_mode, span)
            parts, left = [], MAX_BYTES + 1
            while left > 0 and (part := os.read(handle, left)):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        _unreadable(path, error, span)


def _unreadable(path: str, error: OSError | ValueError, span: Span) -> NoReturn:
    name = shown(path)
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR):
        hint = did_you_mean(os.path.basename(path), _specs_beside(path))
        fail("GS0119", f"there is no file '{name}'{hint}", span)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    fail("GS0119", f"cannot read '{name}': {escaped(reason).lower()}", span)


def _specs_beside(path: str) -> list[str]:
    try:
        with os.scandir(os.path.dirname(path) or ".") as entries:
            names = [entry.name for entry, _ in zip(entries, range(1000), strict=False)]
    except (OSError, ValueError):
        return []
    return sorted(name for name in names if name.endswith((".yaml", ".yml")))


def _not_a_file(path: str, mode: int, span: Span) -> NoReturn:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    kind = next((name for test, name in kinds if test(mode)), "a device")
    fail("GS0119", f"'{shown(path)}' is {kind}; a spec is a regular file", span)


def _too_large(nothing: Source) -> NoReturn:
    fix = Fix("split it with `use`, or generate repetition with `repeat`")
    fail(
        "GS0801",
        "the file is larger than 1 MiB (1,048,576 bytes), the limit of a spec",
        Span(nothing, 0, 0),
        fixes=[fix],
    )


def _not_utf8(name: str, data: bytes, error: UnicodeDecodeError) -> NoReturn:
    source = Source(name, data.decode("utf-8", "replace"))
    at = len(data[: error.start].decode("utf-8"))
    byte = f"0x{data[error.start]:02X}"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        message = f"byte {byte} is not UTF-8; the file looks like UTF-16"
    else:
        message = f"byte {byte} is not UTF-8"
    fail("GS0109", message, Span(source, at, at + 1), fixes=[Fix("save the file as UTF-8")])


def _check_characters(source: Source) -> None:
    """GS0110 for every character that hides, reorders or breaks what a person reads."""
    found = []
    for m in _REFUSED.finditer(source.text):
        char = m.group()
        span = Span(source, m.start(), m.end())
        if char == "\ufeff":
            why = "a byte-order mark"
        elif char == "\r":
            why = "a carriage return without a line feed"
        elif _BIDI.match(char):
            why = "it reorders the text around it"
        else:
            why = "it is not text"
        replacement = "\n" if char == "\r" else ""
        fix = Fix("end lines with a line feed" if char == "\r" else "delete it", (Edit(span, replacement),))
        found.append(Diagnostic("GS0110", f"character U+{ord(char):04X} is not allowed: {why}", span, fixes=(fix,)))
        if len(found) == MAX_ERRORS:
            break
    if found:
        raise SpecError(*found)


def _directive(source: Source, m: re.Match[str]) -> Diagnostic:
    span = Span(source, m.start(), m.start() + len(m.group().rstrip()))
    whole_line = Span(source, m.start(), min(m.end() + 1, len(source.text)))
    fix = Fix("delete the line", (Edit(whole_line, ""),))
    return Diagnostic(
        "GS0108", f"the directive '{shown(span.text)}' is refused: a spec is YAML 1.2 as it is", span, fixes=(fix,)
    )
