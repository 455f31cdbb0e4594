"""Figures for pages: curves and heat maps as SVG, tables, and the page around them. Neither torch nor numpy is needed.

A page is one file that fetches nothing and runs nothing; a heat map's picture is a PNG inside it.
"""

from __future__ import annotations

import base64
import html
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")  # Okabe and Ito
WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, UP, DOWN = 64, 12, 28, 34  # margins of a figure
BAR = 58  # what the scale of a heat map takes at its right
MOST = 1000  # points of a curve: more than there are pixels say nothing
OUTLIERS = 0.02  # of the numbers at either end may lie outside the frame

# Colours of a heat map from low to high, dark to light, so that they read in grey, too.
_HEAT = "000004 280b54 65156e 9f2a63 d44842 f57d15 fac127 fcffa4"
HEAT = tuple(tuple(bytes.fromhex(c)) for c in _HEAT.split())

Points = Sequence[tuple[float, float]]

STYLE = (
    "body{font:14px system-ui,sans-serif;margin:24px;color:#222}h1{font-size:22px}h2{font-size:17px;margin-top:28px}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:2px 8px;text-align:left}th{background:#f4f4f4}"
    "svg{margin:4px}.legend{position:sticky;top:0;background:#fff;padding:6px 0;font-weight:bold}"
    "audio{height:32px;width:260px}.note{color:#555;max-width:70em}.scroll{overflow-x:auto}"
)


@dataclass(frozen=True)
class Axis:
    """What stands along an axis: a name with its unit, and the numbers at its ends (none: those of what is drawn).

    Of curves `y.high` only cuts: a frame is no taller than they are.
    """

    label: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Heat:
    """A picture of numbers: a byte each, `rows` times `columns`, the top row first; low, high: of 0 and 255."""

    levels: bytes
    rows: int
    columns: int
    low: float
    high: float
    unit: str = ""


def page(title: str, body: str) -> str:
    """A page as HTML."""
    told = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{told}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{told}</h1>\n{body}</body></html>\n"
    )


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text under its title; nothing where there are no rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>\n" for row in rows)
    return f'<h2>{html.escape(title)}</h2>\n<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>\n'


def legend(colour: Mapping[str, str]) -> str:
    """The names in their colours."""
    return " ".join(f'<span style="color:{c}">&#9644; {html.escape(n)}</span>' for n, c in colour.items())


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour each: of eight that the colour-blind tell apart, or of the whole circle where there are more."""
    if len(names) > len(COLOURS):
        return {n: f"hsl({360 * i / len(names):.0f} 75% {(35, 50)[i % 2]}%)" for i, n in enumerate(names)}
    return dict(zip(names, COLOURS, strict=False))


def lines(
    title: str,
    curves: Mapping[str, Points],
    colour: Mapping[str, str],
    x: Axis = Axis(),
    y: Axis = Axis(),
    log: bool = False,
    inside: bool = False,
) -> str:
    """Curves over one axis. What lies far outside most of it is cut at the frame.

    log: the logarithm is drawn, where no number is below 0; a 0 stands at the lowest of the others.
    inside: with a legend of its own.
    """
    every = [value for curve in curves.values() for _, value in curve]
    log = log and min(every) >= 0 and max(every) > 0
    least = min((value for value in every if value > 0), default=1.0)
    drawn = {n: [(s, math.log10(max(v, least))) for s, v in c] for n, c in curves.items()} if log else curves
    first = min(point[0] for curve in drawn.values() for point in curve) if x.low is None else x.low
    last = max(point[0] for curve in drawn.values() for point in curve) if x.high is None else x.high
    low, high = frame([value for curve in drawn.values() for _, value in curve])
    low = low if y.low is None else math.log10(y.low) if log else y.low
    high = high if y.high is None else min(high, math.log10(y.high) if log else y.high)
    high = high if high > low else low + 1.0
    span = last - first or 1

    def place(at: float, value: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * (at - first) / span
        return across, UP + (HEIGHT - UP - DOWN) * (1 - (min(max(value, low), high) - low) / (high - low))

    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{html.escape(title)}</text>']
    for value, told in log_marks(low, high) if log else ((v, _told(v, high - low)) for v in marks(low, high)):
        _, up = place(first, value)
        parts.append(f'<path d="M{LEFT} {up:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{told}</text>')
    parts += _across(first, first + span, place)
    parts += _labels(x.label, y.label, WIDTH - RIGHT)
    parts.append(f'<path d="M{LEFT} {UP}V{HEIGHT - DOWN}H{WIDTH - RIGHT}" fill="none" stroke="#333"/>')
    for i, (name, curve) in enumerate(drawn.items()):
        points = [place(*point) for point in thinned(curve)]
        said = f"<title>{html.escape(name)}</title>"
        if len(points) == 1:
            (cx, cy), *_ = points
            parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3" fill="{colour[name]}">{said}</circle>')
        else:
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(
                f'<polyline points="{line}" fill="none" stroke="{colour[name]}" stroke-width="1.5">{said}</polyline>'
            )
        if inside:
            parts.append(
                f'<text x="{WIDTH - RIGHT - 4}" y="{UP + 14 + 15 * i}" text-anchor="end" fill="{colour[name]}">'
                f"{html.escape(name)}</text>"
            )
    return _svg(WIDTH, parts)


def heat(title: str, picture: Heat, x: Axis, y: Axis) -> str:
    """A heat map with its scale. The axes' `low` and `high` are the edges of the picture."""
    left, right, low, high = x.low or 0.0, x.high or 1.0, y.low or 0.0, y.high or 1.0
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - UP - DOWN

    def place(at: float, value: float) -> tuple[float, float]:
        return LEFT + wide * (at - left) / (right - left), UP + tall * (1 - (value - low) / (high - low))

    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{html.escape(title)}</text>']
    parts.append(_image(LEFT, UP, wide, tall, picture.levels, picture.rows, picture.columns))
    for value in marks(low, high):
        parts.append(f'<text x="{LEFT - 6}" y="{place(left, value)[1] + 4:.1f}" text-anchor="end">{value:g}</text>')
    parts += _across(left, right, place)
    parts += _labels(x.label, y.label, WIDTH - RIGHT)
    edge = WIDTH - RIGHT
    parts.append(f'<path d="M{LEFT} {UP}V{HEIGHT - DOWN}H{edge}" fill="none" stroke="#333"/>')
    parts.append(_image(edge + 8, UP, 10, tall, bytes(range(255, -1, -1)), 256, 1))
    for value in marks(picture.low, picture.high)[::2]:
        up = UP + tall * (1 - (value - picture.low) / (picture.high - picture.low))
        parts.append(f'<text x="{edge + 21}" y="{up + 4:.1f}">{value:.3g}</text>')
    parts.append(f'<text x="{edge + 8}" y="18">{html.escape(picture.unit)}</text>')
    return _svg(WIDTH + BAR, parts)


def frame(values: Sequence[float]) -> tuple[float, float]:
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


def marks(low: float, high: float) -> list[float]:
    """Four to nine round numbers between two others."""
    size = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(s * size for s in (1, 2, 5, 10) if (high - low) / (s * size) <= 9)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_marks(low: float, high: float) -> Iterator[tuple[float, str]]:
    """Round numbers between 10**low and 10**high, each as its logarithm and as text."""
    if high - low < 0.7:  # less than a factor of five: evenly spaced numbers are round, powers of ten are not there
        yield from ((math.log10(v), _told(v, 10**high - 10**low)) for v in marks(10**low, 10**high) if v > 0)
        return
    every = (1,) if high - low > 3 else (1, 2, 5)
    for decade in range(math.floor(low), math.ceil(high) + 1, max(1, round((high - low) / 8))):
        for digit in every:
            at = decade + math.log10(digit)
            if low <= at <= high:
                yield at, f"{digit * 10.0**decade:.4g}"


def _told(value: float, span: float) -> str:
    """A number on an axis of that span, with as many digits as tell it from its neighbours."""
    digits = math.ceil(math.log10(abs(value) / span)) + 2 if value else 1
    return f"{value:.{min(8, max(4, digits))}g}"


def thinned(curve: Points) -> list[tuple[float, float]]:
    """At most MOST points, each the mean of those it stands for."""
    width = -(-len(curve) // MOST)
    groups = [curve[a : a + width] for a in range(0, len(curve), width)]
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def png(levels: bytes, rows: int, columns: int) -> bytes:
    """An image of 256 colours (HEAT), a byte a pixel, the top row first."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lined = b"".join(b"\0" + levels[r * columns : (r + 1) * columns] for r in range(rows))
    head = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    body = chunk(b"PLTE", _palette()) + chunk(b"IDAT", zlib.compress(lined, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def _palette() -> bytes:
    out = bytearray()
    for i in range(256):
        at = i / 255 * (len(HEAT) - 1)
        k = min(int(at), len(HEAT) - 2)
        out += bytes(round(a + (b - a) * (at - k)) for a, b in zip(HEAT[k], HEAT[k + 1], strict=True))
    return bytes(out)


def _image(x: float, y: float, wide: float, tall: float, levels: bytes, rows: int, columns: int) -> str:
    data = base64.b64encode(png(levels, rows, columns)).decode()
    return (
        f'<image x="{x}" y="{y}" width="{wide}" height="{tall}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def _across(first: float, last: float, place) -> Iterator[str]:  # type: ignore[no-untyped-def]
    for at in marks(first, last):
        yield f'<text x="{place(at, 0)[0]:.1f}" y="{HEIGHT - DOWN + 15}" text-anchor="middle">{at:g}</text>'


def _labels(across: str, up: str, edge: float) -> Iterator[str]:
    if across:
        yield f'<text x="{edge}" y="{HEIGHT - 4}" text-anchor="end" fill="#555">{html.escape(across)}</text>'
    if up:
        middle = (UP + HEIGHT - DOWN) / 2
        yield (
            f'<text transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle" fill="#555">'
            f"{html.escape(up)}</text>"
        )


def _svg(width: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="12">{"".join(parts)}</svg>\n'
    )
