"""Curves of several runs on one page, read from metrics.csv; neither torch nor numpy is needed.

A page holds a figure for each column that a run has numbers of, the runs overlaid in their own colours.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphspec.runtime import figures

TIMES = ("seconds", "cpu_seconds")

Curve = list[tuple[int, float]]  # (step, value), steps rising


@dataclass(frozen=True)
class Metrics:
    """Of one run: its curves by column, finite numbers only, and how many were not finite."""

    curves: dict[str, Curve]
    lost: int


def read_metrics(path: Path) -> Metrics:
    """metrics.csv as curves, by column in its order; a torn last line is left out.

    Raises OSError where it cannot be read, ValueError where it holds no row of numbers.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file)
        head = next(rows, [])
        if head[:1] != ["step"]:
            raise ValueError("it does not begin with the column 'step'")
        curves: dict[str, Curve] = {name: [] for name in head[1:]}
        lost = 0
        for row in rows:
            if len(row) != len(head) or not (row[0].isascii() and row[0].isdigit()):
                continue
            for name, text in zip(head[1:], row[1:], strict=True):
                if not text:
                    continue
                try:
                    value = float(text)
                except ValueError:
                    continue
                if math.isfinite(value):
                    curves[name].append((int(row[0]), value))
                else:
                    lost += 1
    found = {name: curve for name, curve in curves.items() if curve}
    if not found:
        raise ValueError("it has no row of numbers yet")
    return Metrics(found, lost)


def rises(column: str) -> bool:
    """Whether more of it is better: accuracies; all else is a loss, an error or a time."""
    return "accuracy" in column.rpartition(".")[2]


def best(column: str, curve: Curve) -> tuple[int, float]:
    """The step and value of a curve's best point; the first of equals."""
    sign = -1 if rises(column) else 1
    return min(curve, key=lambda point: sign * point[1])


def judged(column: str) -> bool:
    """Whether a column has a best value at all."""
    return column not in (*TIMES, "lr", "gradient_norm")


def columns(runs: Sequence[Metrics]) -> list[str]:
    """Every column of any run, in the order of the first that has it, times last."""
    every = list(dict.fromkeys(name for run in runs for name in run.curves))
    return [n for n in every if n not in TIMES] + [n for n in every if n in TIMES]


def page(runs: Mapping[str, Metrics], tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]) -> str:
    """The page as HTML. tables: (title, heads, rows of text) shown above the curves."""
    colour = figures.colours(list(runs))
    drawn = [
        figures.lines(column, {n: m.curves[column] for n, m in runs.items() if column in m.curves}, colour)
        for column in columns(list(runs.values()))
        if column not in TIMES
    ]
    body = (
        f'{"".join(figures.table(*t) for t in tables)}<p class="legend">{figures.legend(colour)}</p>\n{"".join(drawn)}'
    )
    return figures.page(" | ".join(runs), body)
