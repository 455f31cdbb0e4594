"""Diagnostic codes, one file a family: each a small record that `explain`, the docs and the tests are made from.

A family is a module of this folder with a tuple `CODES`. The families are imported when a code is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


@dataclass(frozen=True)
class Code:
    """One thing that can be wrong.

    number: `GS0101`, frozen once released. title: what is wrong, a few words. why: a short paragraph.
    failing, passing: small complete spec texts (failing: bytes where the mistake is in the bytes; empty where no text
    can show it, such as a missing file). fix: what to do, a sentence.
    """

    number: str
    title: str
    why: str
    failing: str | bytes
    passing: str
    fix: str = ""


@cache
def _assembled() -> dict[str, Code]:
    found: dict[str, Code] = {}
    family_of: dict[str, str] = {}
    for family in sorted(module.name for module in iter_modules(__path__)):
        for code in import_module(f"{__name__}.{family}").CODES:
            if code.number in found:
                raise ValueError(
                    f"code {code.number} is given twice: in codes/{family_of[code.number]}.py and codes/{family}.py"
                )
            found[code.number] = code
            family_of[code.number] = family
    return dict(sorted(found.items()))


def all() -> tuple[Code, ...]:  # read as `codes.all()`
    """Every code, by number."""
    return tuple(_assembled().values())


def find(number: str) -> Code | None:
    """The code of that number (`GS0101`), or None."""
    return _assembled().get(number)


def __getattr__(name: str) -> Any:
    if name == "CODES":
        return _assembled()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
