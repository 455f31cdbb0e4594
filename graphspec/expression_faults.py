"""What the parser could not read, in the words of someone who writes specs: the sign to blame, and what to write.

The parser knows only the token at which no rule went on. Often the slip is another: the `if` of a filter, the word
`lambda`, a bracket that was never opened. So the text around the token is looked at before anything is said.
"""

from __future__ import annotations

import re
from typing import NoReturn

from graphspec.diagnostic import Edit, Fix, fail
from graphspec.excerpt import shown
from graphspec.span import Span

_SIGNS = {
    "^": "'**' is power",
    "&": "write 'and'",
    "|": "a pipe is written '|>'",
    "!": "write 'not'",
    "=": "compare with '=='; an argument is named inside a call, as f(x, k=3)",
    "{": "records and dicts are not part of expressions; a block with several outputs gives a record",
    "@": "a rate belongs to a type, not to an expression; matrices are multiplied by linear and einsum",
    ":": "there are no slices; use take(x, first, count) for channels and x[t-k] for history",
    "?": "choose with 'a if c else b' at compile time, with where(mask, a, b) at run time",
    ";": "one value is one expression: give each a line of its own",
    '"': "a text ends on its line, in the quotes it began with",
    "'": "a text ends on its line, in the quotes it began with",
    "\\": "no line needs a '\\' at its end: indent the next one deeper",
}
_WORDS = {
    "is": "compare with '=='; for an optional input there is given(x)",
    "in": "'in' belongs to 'for x in list'; compare with '=='",
    "import": "only ops, blocks and libraries of `use:` are called",
    "await": "only ops, blocks and libraries of `use:` are called",
}
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_FILTER = re.compile(r"\bfor\b[^()\[\]]*\bin\b.*\b(if)\b(?!.*\belse\b)", re.DOTALL)
_ENVIRONMENT = re.compile(r"\$(\{\w+\}|\(\w+\)|\w+)?")
_LAST_WORD = re.compile(r"(\w+)\s*\Z")


def ends_early(span: Span) -> NoReturn:
    """GS0120: the text is over where more must follow."""
    text = span.text
    stack = _open_brackets(text)
    end = Span(span.source, max(span.start, span.end - 1), span.end)
    if not text.strip():
        fail("GS0120", "an expression is missing here", span)
    if stack:
        opened = Span(span.source, span.start + stack[-1], span.start + stack[-1] + 1)
        line, column = opened.source.place(opened.start)
        closing = ")" if opened.text == "(" else "]"
        fail(
            "GS0120",
            f"the expression ends early: '{opened.text}' at {line}:{column} is still open",
            end,
            fixes=[Fix(f"add '{closing}'", (Edit(span.at_end(), closing),))],
        )
    last = re.search(r"(\|>|\*\*|//|[=!<>]=|\w+|[^\w\s])\s*\Z", text)
    word = last[1] if last else ""
    if re.search(r"\bif\b(?!.*\belse\b)", text, re.DOTALL) and (word[-1:].isalnum() or word in (")", "]")):
        fail("GS0120", "'if' has no 'else'", end, fixes=[Fix("write 'a if c else b'; `when: c` leaves a value out")])
    behind = f" behind '{shown(word)}'" if word else ""
    fail(
        "GS0120",
        f"the expression ends early: nothing stands{behind}",
        end,
        fixes=[Fix("write what is missing, or remove the last operator")],
    )


def unexpected(at: Span, whole: Span) -> NoReturn:
    """GS0121: `at` is where the parser could not go on in `whole`."""
    text = whole.text
    start, end = at.start - whole.start, at.end - whole.start
    before = text[:start]

    def blame(message: str, hint: str = "", begin: int = start, stop: int = end, edit: str | None = None) -> NoReturn:
        span = Span(whole.source, whole.start + begin, whole.start + stop)
        edits = () if edit is None else (Edit(span, edit),)
        fail("GS0121", message, span, fixes=[Fix(hint, edits)] if hint else [])

    word = text[start:end]
    if m := _ENVIRONMENT.match(text, start):
        named = re.sub(r"\W", "", m[0]).lower() or "width"
        hint = f"make it a param; the command line sets it, as {shown(named, 20)}=64"
        blame("specs do not read the environment", hint, stop=m.end())
    if word[:1].isdigit():
        m = re.compile(r"\w+").match(text, start)
        stop = m.end() if m else end
        blame(f"'{shown(text[start:stop])}' is no number and no name", _number(text[start:stop]), stop=stop)
    if not word.isascii() and word[:1].isalpha():
        begin = len(before) - len(re.search(r"\w*\Z", before)[0])  # type: ignore[index]
        m = re.compile(r"\w+").match(text, begin)
        stop = m.end() if m else end
        blame(f"'{shown(text[begin:stop])}' is not a name: letters a-z, digits and _ only", begin=begin, stop=stop)
    previous = _LAST_WORD.search(before)
    if previous and previous[1] == "lambda":
        hint = "a block is a function with a name: write one under `blocks:`"
        blame("there is no 'lambda'", hint, previous.start(1), previous.end(1))
    if word in _COMPARISONS and before.rstrip()[-1:] not in _COMPARISONS:
        hint = "of params write 'a < b and b < c'; of values, where(a < b, where(b < c, x, y), y)"
        blame("comparisons do not chain", hint)
    brackets = _open_brackets(before)
    inside = brackets[-1] + 1 if brackets else 0
    if m := _FILTER.search(before, inside):
        hint = "write the list that is meant, as range(2, 4) or [2, 3]"
        blame("a comprehension has no filter", hint, m.start(1), m.end(1))
    if word in (")", "]") and not brackets:
        opener = "(" if word == ")" else "["
        blame(f"there is no '{opener}' for this '{word}'", f"take the '{word}' away", edit="")
    if word in (")", "]") and (before[brackets[-1]] == "(") != (word == ")"):
        line, column = whole.source.place(whole.start + brackets[-1])
        blame(f"'{word}' does not close the '{before[brackets[-1]]}' of {line}:{column}")
    hint = _SIGNS.get(word[:1]) or _WORDS.get(word, "")
    if hint:
        blame(f"'{word}' is not expected here", hint, edit="**" if word == "^" else None)
    if previous and previous[1] in _WORDS:
        blame(f"'{previous[1]}' is not expected here", _WORDS[previous[1]], previous.start(1), previous.end(1))
    after_a_value = before.rstrip()[-1:].isalnum() or before.rstrip()[-1:] in (")", "]", "_", '"', "'")
    if after_a_value and (word[:1].isalnum() or word[:1] in "(_\"'") and word not in ("if", "else", "for"):
        left = previous[1] if previous else before.rstrip()[-1:]
        blame(f"an operator or a comma is missing between '{shown(left, 30)}' and '{shown(word, 30)}'")
    if word in (",", ")", "]") and before.rstrip()[-1:] in ("(", "[", ",", *"+-*/%<>="):
        sign = re.search(r"(\|>|\*\*|//|[=!<>]=|[^\w\s])\s*\Z", before)
        blame(f"something is missing between '{sign[1] if sign else ''}' and '{word}'")
    blame(f"'{shown(word)}' is not expected here")


def _open_brackets(text: str) -> list[int]:
    """Where the brackets stand that are not closed in it."""
    stack: list[int] = []
    for i, c in enumerate(text):
        if c in "([":
            stack.append(i)
        elif c in ")]" and stack:
            stack.pop()
    return stack


def _number(word: str) -> str:
    """What `16k`, `1_000`, `0x10` want to be."""
    if m := re.fullmatch(r"(\d+)[kK]", word):
        return f"write {m[1]}000"
    if re.fullmatch(r"\d[\d_]*", word):
        return f"write {word.replace('_', '')}"
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,13}|0[oO][0-7]{1,16}|0[bB][01]{1,50}", word):
        return f"write {int(word, 0)}"
    return "a name begins with a letter; a product is written with '*'"
