"""One page of a run: chosen values of a validation crop over time, spectrograms of what was heard and made, the losses.

Values of few channels are lines over seconds, of many a heat map; numbers without time a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphspec.runtime import figures
from graphspec.runtime.curves import TIMES, Curve
from graphspec.runtime.figures import Axis, Heat

LINES = 3  # channels that are still drawn as lines
WIDE, TALL = 900, 512  # pixels of a heat map: more than are seen say nothing
BINS = 450  # stretches of a long line, each drawn from its lowest to its highest number
FLOOR = 80.0  # dB below the loudest point of a spectrogram
SECONDS = "seconds"


@dataclass(frozen=True)
class Shown:
    """A value of one crop: `[T, ..., C]` at `hz` ticks a second, or without time where hz is none."""

    array: NDArray[Any]
    hz: float | None


def page(
    title: str,
    values: Mapping[str, Shown],
    sounds: Mapping[str, Shown],
    curves: Mapping[str, Curve],
    notes: Sequence[str],
) -> str:
    """The page as HTML. sounds: what is drawn as spectrograms, all on one scale. curves: of metrics.csv, by column."""
    said = "".join(f'<p class="note">{figures.html.escape(note)}</p>\n' for note in notes)
    numbers = [[n, _numbers(v.array)] for n, v in values.items() if v.hz is None and v.array.size <= 8]
    timed = "".join(_value(n, v) for n, v in values.items() if v.hz is not None or v.array.size > 8)
    parts = [
        said,
        f"<h2>Values</h2>\n{timed}" if timed else "",
        figures.table("Values without time", ["value", "number"], numbers),
        f"<h2>Spectrograms</h2>\n{spectrograms(sounds)}" if sounds else "",
        f"<h2>Training</h2>\n{training(curves)}" if curves else "",
    ]
    return figures.page(title, "".join(parts))


def training(curves: Mapping[str, Curve]) -> str:
    """Losses, metrics, the gradient norm and the learning rate over updates; of training and validation together."""
    x = Axis("update")
    losses = [n for n in curves if n.startswith("loss.")]
    out = []
    if len(losses) > 1:
        out.append(figures.lines("loss terms", {n: curves[n] for n in losses}, figures.colours(losses), x, log=True))
    plain = dict.fromkeys(n.removeprefix("loss.").removeprefix("valid.") for n in curves)
    for name in plain:
        if name in TIMES or name.endswith("]"):
            continue
        sources = {"training": f"loss.{name}" if f"loss.{name}" in curves else name, "validation": f"valid.{name}"}
        both = {what: curves[column] for what, column in sources.items() if column in curves}
        log = f"loss.{name}" in curves or name in ("gradient_norm", "lr")
        shown = figures.colours(["training", "validation"])
        told = {"gradient_norm": "gradient norm", "lr": "learning rate"}.get(name, name)
        out.append(figures.lines(told, both, shown, x, log=log, inside="validation" in both))
    return "".join(out)


def spectrograms(sounds: Mapping[str, Shown]) -> str:
    """A spectrogram each, in dB below the loudest point of them all."""
    power = {n: _power(s.array, s.hz or 1.0) for n, s in sounds.items()}
    loudest = max((float(p.max()) for p, _ in power.values()), default=0.0) or 1.0
    out = []
    for name, (p, seconds) in power.items():
        db = np.maximum(10 * np.log10(np.maximum(p / loudest, 1e-30)), -FLOOR)
        rate = sounds[name].hz or 1.0
        x, y = Axis(SECONDS, 0.0, seconds), Axis("Hz", 0.0, rate / 2)
        out.append(figures.heat(name, _picture(db, -FLOOR, 0.0, "dB"), x, y))
    return "".join(out)


def _power(sound: NDArray[Any], rate: float) -> tuple[NDArray[Any], float]:
    """(power [frequencies, frames], seconds): Hann windows of about 32 ms, the channels mixed."""
    x = np.nan_to_num(np.asarray(sound, dtype=np.float64).reshape(len(sound), -1).mean(1))
    size = min(2048, max(64, 2 ** round(math.log2(rate * 0.032))))
    hop = max(size // 8, -(-len(x) // WIDE))
    padded = np.pad(x, size // 2)
    starts = range(0, len(x), hop)
    window = np.hanning(size + 1)[:-1]
    framed = np.stack([padded[a : a + size] * window for a in starts])
    return np.abs(np.fft.rfft(framed)).T ** 2, len(x) / rate


def _value(name: str, shown: Shown) -> str:
    array = np.asarray(shown.array, dtype=np.float64)
    bad = int((~np.isfinite(array)).sum())
    title = name + (f" ({bad} numbers are not finite)" if bad else "")
    array = np.nan_to_num(array, posinf=0.0, neginf=0.0)
    if shown.hz is None:
        points = list(enumerate(array.reshape(-1).tolist()))
        return figures.lines(title, {name: points}, figures.colours([name]), Axis("index"))
    rows = array.reshape(len(array), -1)
    seconds = len(rows) / shown.hz
    if rows.shape[1] <= LINES:
        names = [f"{name}[{i}]" for i in range(rows.shape[1])] if rows.shape[1] > 1 else [name]
        curves = {n: _line(rows[:, i], shown.hz) for i, n in enumerate(names)}
        axis = Axis(SECONDS, 0.0, seconds)
        return figures.lines(title, curves, figures.colours(names), axis, inside=len(names) > 1)
    low, high = np.quantile(rows, [0.005, 0.995]).tolist()
    if high <= low:
        low, high = float(rows.min()), float(rows.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    axes = Axis(SECONDS, 0.0, seconds), Axis("channel", -0.5, rows.shape[1] - 0.5)
    return figures.heat(title, _picture(rows.T, low, high, ""), *axes)


def _picture(numbers: NDArray[Any], low: float, high: float, unit: str) -> Heat:
    """[up, across] as a picture, what is at index 0 at the bottom; long axes are means of stretches."""
    for axis, most in ((0, TALL), (1, WIDE)):
        if numbers.shape[axis] > most:
            edges = np.linspace(0, numbers.shape[axis], most, endpoint=False).astype(int)
            sizes = np.diff([*edges, numbers.shape[axis]])
            numbers = np.add.reduceat(numbers, edges, axis) / (sizes[:, None] if axis == 0 else sizes)
    levels = np.clip((numbers[::-1] - low) / (high - low), 0, 1) * 255
    return Heat(levels.round().astype(np.uint8).tobytes(), *numbers.shape, low, high, unit)


def _line(x: NDArray[Any], hz: float) -> list[tuple[float, float]]:
    """(seconds, number): each, or the lowest and highest of each of BINS stretches."""
    if len(x) <= 2 * BINS:
        return list(zip((np.arange(len(x)) / hz).tolist(), x.tolist(), strict=True))
    edges = np.linspace(0, len(x), BINS, endpoint=False).astype(int)
    at = (edges / hz).tolist()
    lowest, highest = np.minimum.reduceat(x, edges).tolist(), np.maximum.reduceat(x, edges).tolist()
    return [point for s, low, high in zip(at, lowest, highest, strict=True) for point in ((s, low), (s, high))]


def _numbers(x: NDArray[Any]) -> str:
    return ", ".join(f"{v:.5g}" for v in np.asarray(x, dtype=np.float64).reshape(-1).tolist())
