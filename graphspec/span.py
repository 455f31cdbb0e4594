"""Where something stands in a file: a Source (the text) and Spans (stretches of it)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(eq=False)
class Source:
    """The text of one file. `path` is what a person is shown."""

    path: str
    text: str
    _starts: list[int] = field(default_factory=list, repr=False)
    parsed: dict[tuple[int, int, str], object] = field(default_factory=dict, repr=False)  # expressions, by place

    def line_starts(self) -> list[int]:
        if not self._starts:
            self._starts = [0] + [i + 1 for i, c in enumerate(self.text) if c == "\n"]
        return self._starts

    def place(self, offset: int) -> tuple[int, int]:
        """1-based (line, column) of a character offset."""
        starts = self.line_starts()
        line = bisect_right(starts, offset) - 1
        return line + 1, offset - starts[line] + 1

    def line(self, number: int) -> str:
        """The text of a 1-based line, without its line break."""
        starts = self.line_starts()
        end = starts[number] - 1 if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters start..end (exclusive) of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.place(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.place(self.start)[1]

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def at_end(self) -> Span:
        """The empty place right behind it, where a fix inserts."""
        return Span(self.source, self.end, self.end)

    def at_start(self) -> Span:
        return Span(self.source, self.start, self.start)

    def __str__(self) -> str:
        return f"{self.source.path}:{self.line}:{self.column}"
