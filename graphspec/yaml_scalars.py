"""What a plain scalar means: YAML 1.2 core, and an objection where YAML 1.1 or a habit would read another number.

PyYAML's own resolver is 1.1: `1e-4` would be text, `on` true, `010` eight and `1:30` ninety.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from graphspec.document import Value

LARGEST = 2**53  # beyond it a float no longer holds every integer

_WORDS: dict[str, Value] = dict.fromkeys(("", "~", "null", "Null", "NULL")) | {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_LEADING_ZERO = re.compile(r"([-+]?)0+([0-9]+)\Z")
_BASE = re.compile(r"([-+]?)0([xXoObB])([0-9a-fA-F]+)\Z")
_GROUPED = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?\Z")
_COMMAS = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?\Z")
_SIXTIES = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?\Z")
_NO_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?\Z")
_LONGEST = 64  # characters of a number; also keeps int() and float() fast on hostile digits


@dataclass(eq=False)
class OddNumber(Exception):
    """A plain scalar that looks like a number and is none of ours. `write` are replacements, likeliest first."""

    code: str
    message: str
    advice: str
    write: tuple[str, ...] = ()


def resolve(text: str) -> Value:
    """None, bool, int or float of a plain scalar, else its text.

    Raises OddNumber (GS0105: means different numbers to different readers; GS0106: not finite or too large).
    """
    if not text or text[0] not in "+-.0123456789":
        return _WORDS.get(text, text)
    if len(text) > _LONGEST:
        return _long(text)
    if _INT.match(text):
        if _LEADING_ZERO.match(text):
            raise _leading_zero(text)
        whole = int(text)
        if abs(whole) > LARGEST:
            raise _too_large(text)
        return whole
    if _FLOAT.match(text):
        number = float(text)
        if math.isinf(number):
            raise _too_large(text)
        return number
    return _habits(text)


def _habits(text: str) -> str:
    """Numbers of YAML 1.1, of programming languages and of people. Other text (`16k`, `-x`, `.5*d`) passes."""
    if _NOT_FINITE.match(text):
        raise OddNumber("GS0106", f"'{text}' is not a finite number", "write a finite number, or leave the entry out")
    if m := _BASE.match(text):
        sign, base, digits = m.groups()
        try:
            number = int(sign + digits, {"x": 16, "o": 8, "b": 2}[base.lower()])
        except ValueError:
            return text
        advice = f"write {number}, or quote it if it is text"
        raise OddNumber("GS0105", f"'{text}' is not a decimal number", advice, (str(number),))
    if _GROUPED.match(text) or _COMMAS.match(text):
        plain = text.replace("_", "").replace(",", "")
        advice = f"write {plain}, or quote it if it is text"
        raise OddNumber("GS0105", f"'{text}' groups its digits, which is text in YAML 1.2", advice, (plain,))
    if _SIXTIES.match(text):
        *high, low = text.lstrip("+-").split(":")
        number = 0
        for part in high:
            number = (number + int(part)) * 60
        total = number + (float(low) if "." in low else int(low))
        written = ("-" if text[0] == "-" else "") + str(total)
        advice = f"write {written} if that count is meant, or quote it if it is text"
        raise OddNumber(
            "GS0105", f"'{text}' is {written} to YAML 1.1 (base 60) and text to YAML 1.2", advice, (written,)
        )
    if _NO_EXPONENT.match(text):
        head = re.split("[eE]", text)[0]
        raise OddNumber("GS0105", f"'{text}' is not a number: its exponent has no digits", f"write {head}e-3, say")
    return text


def _leading_zero(text: str) -> OddNumber:
    decimal = str(int(text))
    octal = str(int(text, 8)) if not set(text) & set("89") else None
    if octal in (None, decimal):
        return OddNumber("GS0105", f"'{text}' is not a plain integer", f"write {decimal}", (decimal,))
    message = f"'{text}' is not a plain integer: {octal} to YAML 1.1 (octal), {decimal} to YAML 1.2"
    return OddNumber("GS0105", message, f"write {decimal} (or {octal} if octal was meant)", (decimal, octal))


def _too_large(text: str) -> OddNumber:
    whole = _INT.match(text)
    message = f"the integer '{text}' is beyond 2^53" if whole else f"the number '{text}' is too large for a float"
    return OddNumber("GS0106", message, "write a smaller number, or quote it if it is text")


def _long(text: str) -> str:
    if _INT.match(text) or _FLOAT.match(text):
        short = f"'{text[:20]}…' is a number of {len(text)} characters"
        raise OddNumber("GS0106", short, f"write it with at most {_LONGEST} characters")
    return text
