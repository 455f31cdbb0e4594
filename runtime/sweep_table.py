"""What the cells of a sweep came to: a table as CSV, and a page of curves and sounds to compare. Torch-free.

- total: the sum of the losses with their weights, that is what training lowers.
- slope: of the natural logarithm of the training total over the updates, a least squares line through the last half of
  them, in thousandths an update (-0.5: e^-0.5 times the loss after 1000 more). It is what still falls after the fast
  drop; there is none where a loss is not above 0.
- seconds an update: the median over the stretches between logged updates, so that one with a validation in it does not
  count.
- collapsed: see `reading`.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from urllib.parse import quote

from graphspec.runtime import figures
from graphspec.runtime.curves import Curve, Metrics, judged, read_metrics
from graphspec.runtime.grid import Cell
from graphspec.runtime.sweep import Job

SHARES = ("top_share", "top_harmonic_share")  # metrics: how much of a distribution its largest part has
ENTROPIES = ("harmonic_entropy",)
RANGES = ("amp_range",)  # the largest of a control over its smallest
CUT = 2.0  # curves of losses are cut at so many times the highest start
TOO_MUCH = 0.9  # of a share
STILL = 1.01  # of a range
NEARLY_STILL = 2.0
SEED = "train.seed"
TOO_LITTLE = 0.1  # of what the entropy was at first
ABSENT = ""


@dataclass(frozen=True)
class Result:
    """One cell: what was measured, by column, and its curves. sounds: title -> path from the page, to listen to."""

    job: Job
    numbers: Mapping[str, float]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    sounds: Mapping[str, str] = field(default_factory=dict)
    reading: str = ""

    @property
    def state(self) -> str:
        return f"failed: {self.job.why}" if self.job.state == "failed" else self.job.state


def result(job: Job) -> Result:
    """What there is of a cell so far."""
    try:
        metrics = read_metrics(job.folder / "metrics.csv")
    except (OSError, ValueError):
        metrics = Metrics({}, 0)
    curves = dict(metrics.curves)
    known = job.marked()
    training = total(curves, job.weights, "loss.")
    validation = total(curves, job.weights, "valid.")
    numbers: dict[str, float] = {}
    if curves:
        numbers["updates"] = max(c[-1][0] for c in curves.values())
    if validation:
        step, best = min(validation, key=lambda point: point[1])
        numbers |= {"best": best, "best_at": step, "first": validation[0][1], "last": validation[-1][1]}
    if (found := slope(training)) is not None:
        numbers["slope"] = found
    measured = [n for n in curves if judged(n) and not n.startswith(("loss.", "weight", "valid.")) and "[" not in n]
    for name in measured:
        seen = curves.get(f"valid.{name}", curves[name])
        numbers |= {f"{name}.first": seen[0][1], f"{name}.last": seen[-1][1]}
    for column in ("seconds", "cpu_seconds"):
        if (spent := an_update(curves.get(column, []))) is not None:
            numbers[f"{column}_an_update"] = spent
    kept = ("parameters", "forward_seconds", "backward_seconds")
    numbers |= {n: known[n] for n in kept if isinstance(known.get(n), (int, float))}
    drawn = {n: c for n, c in (("validation loss", validation), ("training loss", training)) if c}
    drawn |= {n: curves.get(f"valid.{n}", curves[n]) for n in measured}
    drawn |= {"gradient norm": curves["gradient_norm"]} if "gradient_norm" in curves else {}
    sounds = known.get("sounds")
    told = reading(numbers, measured) if job.state != "failed" and validation else ""
    return Result(job, numbers, drawn, sounds if isinstance(sounds, dict) else {}, told)


def total(curves: Mapping[str, Curve], weights: Mapping[str, float | None], prefix: str) -> Curve:
    """The sum of losses with their weights at each step that has them all. A weight that is a value: as it was then."""
    columns = {n: dict(curves.get(f"{prefix}{n}", ())) for n in weights}
    factors = {n: dict(curves.get(f"weight.{n}", ())) if w is None else w for n, w in weights.items()}
    if not columns or not all(columns.values()):
        return []
    steps = sorted(set.intersection(*(set(c) for c in columns.values())))
    out: Curve = []
    for step in steps:
        terms = []
        for name, column in columns.items():
            factor = factors[name]
            if isinstance(factor, dict):
                if not factor:
                    return []
                factor = factor.get(step, next(iter(factor.values())))
            terms.append(factor * column[step])
        out.append((step, sum(terms)))
    return out


def slope(curve: Curve) -> float | None:
    """Per 1000 updates; none with fewer than three points in the last half, or where a number is not above 0."""
    half = [(s, v) for s, v in curve if s > curve[-1][0] / 2]
    if len(half) < 3 or any(v <= 0 for _, v in half):
        return None
    x = [s / 1000 for s, _ in half]
    y = [math.log(v) for _, v in half]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def an_update(curve: Curve) -> float | None:
    """Seconds an update; the clock begins anew where a run was resumed."""
    pairs = zip(curve, curve[1:], strict=False)
    each = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs if b[0] > a[0] and b[1] > a[1]]
    return median(each) if each else None


def reading(numbers: Mapping[str, float], metrics: Sequence[str]) -> str:
    """Whether it looks collapsed, plainly; empty if it does not.

    A distribution of which one part has more than TOO_MUCH; an entropy below TOO_LITTLE of what it was at first; a
    control that stands still, or nearly; a validation loss that never was below its start, or ends above it.
    """
    for name in metrics:
        last, first = numbers[f"{name}.last"], numbers[f"{name}.first"]
        if name in SHARES and last > TOO_MUCH:
            return f"collapsed: {name} is {last:.3g}"
        if name in ENTROPIES and last < TOO_LITTLE * first:
            return f"collapsed: {name} fell from {first:.3g} to {last:.3g}"
        if name in RANGES and last < STILL:
            return f"collapsed: {name} is {last:.4g}, so the control stands still"
        if name in RANGES and last < NEARLY_STILL:
            return f"near collapse: {name} is {last:.3g}, so the control barely moves"
    if numbers["updates"] and numbers["best"] >= numbers["first"]:
        return "collapsed: the validation loss never was below its start"
    if numbers["last"] > numbers["first"]:
        return f"diverged: the validation loss ends at {numbers['last']:.4g}, above its start {numbers['first']:.4g}"
    return ""


def columns(results: Sequence[Result]) -> list[str]:
    """Every number of any cell, in the order of the first that has it."""
    return list(dict.fromkeys(n for r in results for n in r.numbers))


def as_csv(results: Sequence[Result]) -> bytes:
    """The table: the settings that differ, the state, every number, the reading, the run's folder."""
    settings = list(dict.fromkeys(n for r in results for n in r.job.cell.values))
    numbers = columns(results)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*settings, "state", *numbers, "reading", "run"])
    for r in results:
        values = [r.job.cell.values.get(n, ABSENT) for n in settings]
        measured = [repr(r.numbers[n]) if n in r.numbers else ABSENT for n in numbers]
        out.writerow([*values, r.state, *measured, r.reading, r.job.folder.name])
    return text.getvalue().encode()


def as_rows(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """The table for people: heads, and a row of text a cell, first and last values of a metric in one column."""
    settings = list(dict.fromkeys(n for r in results for n in r.job.cell.values))
    metrics = [n.removesuffix(".first") for n in columns(results) if n.endswith(".first")]
    plain: dict[str, Any] = {
        "state": lambda r: r.state,
        "best loss": lambda r: _number(r, "best") + (f" at {r.numbers['best_at']}" if "best_at" in r.numbers else ""),
        "slope": lambda r: _number(r, "slope", 3),
    }
    plain |= {n: lambda r, n=n: _trend(r, n) for n in metrics}
    plain |= {
        "s/update": lambda r: _number(r, "seconds_an_update", 3),
        "CPU s/update": lambda r: _number(r, "cpu_seconds_an_update", 3),
        "forward s": lambda r: _number(r, "forward_seconds", 3),
        "backward s": lambda r: _number(r, "backward_seconds", 3),
        "parameters": lambda r: f"{r.numbers['parameters']:,.0f}" if "parameters" in r.numbers else ABSENT,
    }
    heads = [*settings, *plain]
    rows = [[*(r.job.cell.values.get(n, ABSENT) for n in settings), *(f(r) for f in plain.values())] for r in results]
    kept = [i for i in range(len(heads)) if i <= len(settings) or any(row[i] for row in rows)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]


def plainly(results: Sequence[Result]) -> list[str]:
    """A few sentences: who is best, which cells look collapsed, which failed."""
    out = []
    scored = [r for r in results if "best" in r.numbers]
    if scored:
        best = min(scored, key=lambda r: r.numbers["best"])
        at, of = int(best.numbers["best_at"]), int(best.numbers["updates"])
        out.append(f"best: {best.job.cell.title}, {best.numbers['best']:.5g} at update {at} of {of}")
        out += _over_seeds(scored)
    out += [f"{r.job.cell.title}: {r.reading}" for r in results if r.reading]
    if scored and not any(r.reading for r in results):
        out.append("no cell looks collapsed")
    out += [f"{r.job.cell.title}: {r.state}" for r in results if r.job.state != "finished"]
    return out


def _over_seeds(scored: Sequence[Result]) -> list[str]:
    """The settings in order of their mean loss, where each was trained from several seeds: one run may be luck."""
    groups: dict[str, list[float]] = {}
    for r in scored:
        values = {n: v for n, v in r.job.cell.values.items() if n != SEED}
        title = Cell(values, ()).title or "all"
        groups.setdefault(title, []).append(r.numbers["best"])
    if len(groups) == len(scored):
        return []
    ranked = sorted(groups.items(), key=lambda g: sum(g[1]) / len(g[1]))
    each = (f"{title} {sum(found) / len(found):.4g} ({min(found):.4g} to {max(found):.4g})" for title, found in ranked)
    return [f"means over seeds: {'; '.join(each)}"]


def page(title: str, results: Sequence[Result]) -> str:
    """The page as HTML: the reading, the table, sounds side by side, curves overlaid."""
    heads, rows = as_rows(results)
    colour = figures.colours([r.job.cell.title for r in results])
    notes = "".join(f"<li>{html.escape(line)}</li>" for line in plainly(results))
    body = [
        f"<ul>{notes}</ul>\n",
        figures.table("Cells", heads, rows),
        '<p class="note">best loss: the lowest validation total, and the update it was at. slope: of ln(training loss) '
        "over the last half of the updates, least squares, per 1000 updates. Metrics: first -> last. Seconds are "
        "medians; forward and backward those of one micro-batch after all trainings. Losses are cut at twice the "
        "highest start.</p>\n",
        "".join(_listening(results, colour)),
        f'<p class="legend">{figures.legend(colour)}</p>\n',
        "".join(_curves(results, colour)),
    ]
    return figures.page(title, "".join(body))


def _curves(results: Sequence[Result], colour: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys(n for r in results for n in r.curves):
        drawn = {r.job.cell.title: r.curves[name] for r in results if name in r.curves}
        loss = name.endswith(" loss")
        # A cell that diverges would press all others to the floor.
        y = figures.Axis(high=CUT * max(c[0][1] for c in drawn.values())) if loss and _above(drawn) else figures.Axis()
        yield figures.lines(name, drawn, colour, figures.Axis("update"), y, log=loss or name == "gradient norm")


def _above(drawn: Mapping[str, Curve]) -> bool:
    return all(value > 0 for curve in drawn.values() for _, value in curve)


def _listening(results: Sequence[Result], colour: Mapping[str, str]) -> Iterator[str]:
    """A table of players, a column for each sound that a cell has."""
    titles = list(dict.fromkeys(t for r in results for t in r.sounds))
    if not titles:
        return
    heads = "".join(f"<th>{html.escape(t)}</th>" for t in ["cell", *titles])
    yield f"<h2>Listen</h2>\n<table><tr>{heads}</tr>\n"
    for r in results:
        if r.sounds:
            name = r.job.cell.title
            yield f'<tr><td style="color:{colour[name]}">{html.escape(name)}</td>'
            for t in titles:
                there = f'<audio controls preload="none" src="{quote(r.sounds[t])}"></audio>' if t in r.sounds else ""
                yield f"<td>{there}</td>"
            yield "</tr>\n"
    yield "</table>\n"


def _number(r: Result, name: str, digits: int = 5) -> str:
    return f"{r.numbers[name]:.{digits}g}" if name in r.numbers else ABSENT


def _trend(r: Result, name: str) -> str:
    if f"{name}.first" not in r.numbers:
        return ABSENT
    return f"{r.numbers[f'{name}.first']:.4g} -> {r.numbers[f'{name}.last']:.4g}"
