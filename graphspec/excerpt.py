"""User text made safe to show: cut, escaped, and underlined in its source line."""

from __future__ import annotations

from unicodedata import category, combining, east_asian_width

QUOTE_LIMIT = 60  # characters of user text inside a message
LINE_LIMIT = 120  # terminal columns of a shown source line
TAB = "    "


def cells(char: str) -> tuple[str, int]:
    """What stands for one character on a terminal, and how many columns it takes.

    Control, bidi and other format characters are spelled out (`\\x1b`, `\\u202e`), so no text of a spec can move the
    cursor, colour the screen or reorder what is read.
    """
    if " " <= char <= "~":
        return char, 1
    if char == "\t":
        return TAB, len(TAB)
    if category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        spelled = char.encode("unicode_escape").decode()
        return spelled, len(spelled)
    if combining(char):
        return char, 0
    return char, 2 if east_asian_width(char) in "WF" else 1


def escaped(text: str) -> str:
    """`text` with control and bidi characters spelled out; line breaks and tabs too."""
    if text.isascii() and text.isprintable():
        return text
    return "".join({"\n": "\\n", "\t": "\\t"}.get(char) or cells(char)[0] for char in text)


def shown(text: str, limit: int = QUOTE_LIMIT) -> str:
    """User text as a message may hold it: at most `limit` characters of it, escaped."""
    return escaped(text[: limit - 1]) + "…" if len(text) > limit else escaped(text)


def underlined(line: str, start: int, end: int, mark: str = "^") -> tuple[str, str]:
    """A source line and the line of marks below it, for the characters start..end (0-based, exclusive) of the line.

    An empty stretch gets one mark. A long line is cut to a window around the stretch; `…` stands for what is left out.
    """
    start = min(max(start, 0), len(line))
    end = min(max(end, start), len(line))
    if len(line) > LINE_LIMIT:
        # some lead-in, then as much as fits; the stretch itself may be longer than the window
        first = max(0, min(start - LINE_LIMIT // 3, len(line) - LINE_LIMIT))
        last = first + LINE_LIMIT
        before, after = "…" if first else "", "…" if last < len(line) else ""
        line = line[first:last]
        start, end = start - first, min(end - first, LINE_LIMIT)
    else:
        before = after = ""
    pieces = [cells(char) for char in line]
    indent = len(before) + sum(width for _, width in pieces[:start])
    width = sum(width for _, width in pieces[start:end])
    text = before + "".join(piece for piece, _ in pieces) + after
    return text.rstrip(), " " * indent + mark * max(width, 1)
