"""Curves of several runs on one page, read from metrics.csv and drawn as SVG; neither torch nor numpy is needed.

A page holds a figure for each column that a run has numbers of, the runs overlaid in their own colours.
"""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMES = ("seconds", "cpu_seconds")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")  # Okabe and Ito
WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, UP, DOWN = 64, 12, 28, 34  # margins of a figure
MOST = 1000  # points of a curve: more than there are pixels say nothing
OUTLIERS = 0.02  # of the numbers at either end may lie outside the frame

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
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(runs)}
    legend = " ".join(f'<span style="color:{colour[n]}">&#9644; {html.escape(n)}</span>' for n in runs)
    figures = [
        figure(column, {n: m.curves[column] for n, m in runs.items() if column in m.curves}, colour)
        for column in columns(list(runs.values()))
        if column not in TIMES
    ]
    title = html.escape(" | ".join(runs))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title>\n<style>body{{font:14px sans-serif;margin:24px}}table{{border-collapse:collapse}}"
        "td,th{border:1px solid #ccc;padding:2px 8px;text-align:left}svg{margin:4px}"
        ".legend{position:sticky;top:0;background:#fff;padding:6px 0;font-weight:bold}</style></head>\n<body>\n"
        f"<h1>{title}</h1>\n{''.join(_table(*t) for t in tables)}"
        f'<p class="legend">{legend}</p>\n{"".join(figures)}</body></html>\n'
    )


def figure(title: str, curves: Mapping[str, Curve], colour: Mapping[str, str]) -> str:
    """One SVG: the curves of a column over the steps. What lies far outside most of it is cut at the frame."""
    last = max(point[0] for curve in curves.values() for point in curve)
    first = min(point[0] for curve in curves.values() for point in curve)
    low, high = _frame([value for curve in curves.values() for _, value in curve])
    inner_x, inner_y = WIDTH - LEFT - RIGHT, HEIGHT - UP - DOWN

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + inner_x * (step - first) / max(1, last - first)
        y = UP + inner_y * (1 - (min(max(value, low), high) - low) / (high - low))
        return x, y

    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{html.escape(title)}</text>']
    for value in _marks(low, high):
        _, y = place(first, value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for step in _marks(first, max(last, first + 1)):
        x, _ = place(step, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{step:g}</text>')
    parts.append(f'<path d="M{LEFT} {UP}V{HEIGHT - DOWN}H{WIDTH - RIGHT}" fill="none" stroke="#333"/>')
    for name, curve in curves.items():
        points = [place(*point) for point in _thinned(curve)]
        told = f"<title>{html.escape(name)}</title>"
        if len(points) == 1:
            (x, y), *_ = points
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour[name]}">{told}</circle>')
        else:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(
                f'<polyline points="{line}" fill="none" stroke="{colour[name]}" stroke-width="1.5">{told}</polyline>'
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="12">{"".join(parts)}</svg>\n'
    )


def _frame(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest value shown: all of them, unless a few reach far beyond the rest."""
    ordered = sorted(values)
    cut = int(OUTLIERS * len(ordered))
    low, high = ordered[cut], ordered[-1 - cut]
    reach = 0.5 * (high - low)
    low, high = max(ordered[0], low - reach), min(ordered[-1], high + reach)
    if high <= low:
        slack = abs(low) * 0.05 or 1.0
        return low - slack, high + slack
    return low, high


def _marks(low: float, high: float) -> list[float]:
    """Four to nine round numbers between two others."""
    size = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(s * size for s in (1, 2, 5, 10) if (high - low) / (s * size) <= 9)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thinned(curve: Curve) -> list[tuple[float, float]]:
    """At most MOST points, each the mean of those it stands for."""
    width = -(-len(curve) // MOST)
    groups = [curve[a : a + width] for a in range(0, len(curve), width)]
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>\n" for row in rows)
    return f"<h2>{html.escape(title)}</h2>\n<table><tr>{head}</tr>\n{body}</table>\n"
