"""What is wrong, where, why and how to mend it. A Diagnostic never prints itself (see report.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NoReturn

from graphspec.span import Span


@dataclass(frozen=True)
class Edit:
    """Replace the text of `span` (empty: insert) by `text`."""

    span: Span
    text: str


@dataclass(frozen=True)
class Fix:
    """What to do about it. With edits it can be applied by a machine."""

    title: str
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Related:
    """Another place that belongs to the story."""

    message: str
    span: Span


@dataclass(frozen=True)
class Diagnostic:
    """`code` is a key of graphspec.codes; `message` one sentence naming the thing and the facts that disagree."""

    code: str
    message: str
    span: Span | None
    severity: str = "error"  # error | warning | note
    related: tuple[Related, ...] = ()
    notes: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()

    @property
    def is_error(self) -> bool:
        return self.severity == "error"


class SpecError(Exception):
    """One or more diagnostics end this stage."""

    def __init__(self, *diagnostics: Diagnostic):
        super().__init__("; ".join(f"{d.span}: {d.code} {d.message}" for d in diagnostics))
        self.diagnostics = diagnostics


def fail(
    code: str,
    message: str,
    span: Span | None,
    *,
    related: Iterable[Related] = (),
    notes: Iterable[str] = (),
    fixes: Iterable[Fix] = (),
) -> NoReturn:
    """Raise one error as a SpecError."""
    raise SpecError(Diagnostic(code, message, span, related=tuple(related), notes=tuple(notes), fixes=tuple(fixes)))


class Findings:
    """Gathers diagnostics of one run; the same finding at the same place is kept once and counted."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Diagnostic] = {}
        self._times: dict[tuple[object, ...], int] = {}

    def add(self, *diagnostics: Diagnostic) -> None:
        for d in diagnostics:
            place = (d.span.source.path, d.span.start, d.span.end) if d.span else None
            key = (d.code, place, d.severity)
            self._times[key] = self._times.get(key, 0) + 1
            self._found.setdefault(key, d)

    def absorb(self, error: SpecError) -> None:
        self.add(*error.diagnostics)

    def revise(self, change: Callable[[Diagnostic], Diagnostic | None]) -> None:
        """Each finding as `change` tells it; None leaves it out, but never all errors."""
        found = {key: d for key, was in self._found.items() if (d := change(was)) is not None}
        if any(d.is_error for d in found.values()) or not self.errors():
            self._found = found

    def all(self) -> list[Diagnostic]:
        """In order of file and place."""
        out = []
        for key, d in self._found.items():
            more = self._times[key] - 1
            if more:
                d = replace(d, notes=(*d.notes, f"the same at {more} more copies of this place"))
            out.append(d)
        return sorted(out, key=lambda d: (d.span.source.path, d.span.start) if d.span else ("", -1))

    def errors(self) -> list[Diagnostic]:
        return [d for d in self.all() if d.is_error]

    def stop_on_errors(self) -> None:
        if any(d.is_error for d in self._found.values()):
            raise SpecError(*self.all())


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The one known name that is most like it, if any is; first of all the same in other letters (`F0`)."""
    from difflib import get_close_matches  # only errors pay for it

    names = list(known)
    same = [n for n in names if n.casefold() == name.casefold()]
    return same[:1] or get_close_matches(name, names, n=1, cutoff=0.6)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A half sentence `; did you mean 'x'?`, or nothing."""
    close = nearest(name, known)
    return f"; did you mean '{close[0]}'?" if close else ""
