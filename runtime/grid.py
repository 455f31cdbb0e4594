"""A grid of settings: `backbone=mlp,gru smoothing=none,one_pole train.steps=500` as its cells. Torch-free."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

from graphspec.diagnostic import Fix, fail
from graphspec.span import Source, Span

MOST_CELLS = 512
WHOLE = ("train.dump",)  # settings that are lists themselves
PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Cell:
    """One combination. values: those that differ between cells, by setting; overrides: all, as `train` takes them."""

    values: Mapping[str, str]
    overrides: tuple[str, ...]

    @property
    def title(self) -> str:
        """What a person calls it."""
        return " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in self.values.items())

    def key(self, spec: str, loose: Set[str]) -> str:
        """Eight hexadecimal digits of what is trained. loose: settings that may change while it goes on.

        spec: its text, with what it extends.
        """
        kept = sorted(o for o in self.overrides if o.partition("=")[0] not in loose)
        return hashlib.sha256("\n".join([spec, *kept]).encode()).hexdigest()[:8]

    def folder(self, cells: Path, spec: str, loose: Set[str]) -> Path:
        """Its folder, the same for any grid that has it: found by its key, else named anew."""
        key = self.key(spec, loose)
        there = sorted(cells.glob(f"*-{key}"))
        return there[0] if there else cells / f"{re.sub(r'[^A-Za-z0-9.=]+', '_', self.title)[:60]}-{key}"


def read_grid(overrides: Sequence[str]) -> list[Cell]:
    """The cells, the last setting running fastest. Raises GS0692 where it is no grid, GS0215 for no NAME=VALUE."""
    axes: dict[str, list[str]] = {}
    for text in overrides:
        span = Span(Source("<command line>", text), 0, len(text))
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            fail("GS0215", f"'{text[:60]}' is not NAME=VALUE", span)
        if name in axes:
            fail("GS0692", f"'{name}' is given twice", span)
        parts = [value] if name in WHOLE or _is_folder(name, value) else split(value)
        if len(parts) > 1 and not all(parts):
            fail("GS0692", f"a value of '{name}' between two commas is empty", span)
        again = [p for i, p in enumerate(parts) if p in parts[:i]]
        if again:
            fail("GS0692", f"'{name}' has the value '{again[0][:40]}' twice", span)
        axes[name] = parts
    if not any(len(parts) > 1 for parts in axes.values()):
        fixes = [Fix("give a setting several values, as d=16,32"), Fix("for a single run: graphspec train")]
        fail("GS0692", "no setting has several values, so there is nothing to compare", None, fixes=fixes)
    count = prod(map(len, axes.values()))
    if count > MOST_CELLS:
        fail("GS0692", f"the grid has {count} cells; {MOST_CELLS} are the most", None)
    return [_cell(axes, chosen) for chosen in product(*axes.values())]


def split(text: str) -> list[str]:
    """The parts between commas that stand in no brackets and no quotes."""
    parts, start, closing, quote = [], 0, [], ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in PAIRS:
            closing.append(PAIRS[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter == "," and not closing:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _cell(axes: Mapping[str, Sequence[str]], chosen: Iterable[str]) -> Cell:
    every = dict(zip(axes, chosen, strict=True))
    return Cell({n: v for n, v in every.items() if len(axes[n]) > 1}, tuple(f"{n}={v}" for n, v in every.items()))


def _is_folder(name: str, value: str) -> bool:
    """Whether it is a folder of recordings that has a comma in its own name."""
    return name.partition(".")[0] == "data" and "," in value and len(value) < 1000 and Path(value).is_dir()
