"""Data for a spec: files in three parts, and crops that are a pure function of (seed, update, rank, row).

A `Track` is what one input is given. Tracks of several inputs hold the same pieces, matched by the names of their
files; their crops start at the same time, on the grid of moments at which every input has a tick (for an input at
1/64 of the rate of another: its own ticks).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphspec.compiler.pipeline import Checked
from graphspec.compiler.settings import Setting
from graphspec.diagnostic import Diagnostic, Fix, fail
from graphspec.graph import Value
from graphspec.ops.modules.quantise import dequantise, quantise
from graphspec.types import show_rate

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Piece:
    """One recording (or array): `samples` [frames, channels], integer levels or float32."""

    name: str
    samples: NDArray[Any]

    @property
    def frames(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Audio:
    """How an input's tensors and sound belong together: rate in Hz, channels, and the law of integer levels."""

    rate: int
    channels: int
    bits: int | None
    law: str

    def encode(self, sound: NDArray[np.float32]) -> NDArray[Any]:
        """float32 [frames, channels] in -1..1 -> levels (or the sound itself)."""
        if self.bits is None:
            return sound
        levels = quantise(torch.from_numpy(np.ascontiguousarray(sound)), self.bits, self.law)
        return levels.numpy().astype(np.uint8 if self.bits <= 8 else np.uint16)

    def decode(self, levels: Tensor) -> NDArray[np.float32]:
        """Levels (or sound) of any shape -> float32 in -1..1."""
        if self.bits is None:
            return levels.float().cpu().numpy()
        return dequantise(levels.cpu().long(), self.bits, self.law, torch.float32).numpy()

    def tensor(self, samples: NDArray[Any]) -> Tensor:
        return torch.from_numpy(samples.astype(np.int64 if self.bits else np.float32))


@dataclass(frozen=True)
class Numbers:
    """An input that is no sound (codes, features): its numbers are used as they are."""

    kind: str  # int | float | bool

    def tensor(self, samples: NDArray[Any]) -> Tensor:
        return torch.from_numpy(samples.astype({"int": np.int64, "float": np.float32, "bool": np.bool_}[self.kind]))


@dataclass(frozen=True)
class Track:
    """What one input is given: its pieces in three parts, at `rate` ticks a second."""

    input: str
    rate: Fraction
    audio: Audio | Numbers
    train: Sequence[Piece]
    validation: Sequence[Piece]
    test: Sequence[Piece]


@dataclass
class Dataset:
    """The tracks by input, piece i of each the same recording; `skipped` tells which files were not used and why."""

    tracks: Mapping[str, Track]
    skipped: list[str] = field(default_factory=list)
    features: frozenset[str] = frozenset()  # which of the tracks are computed of the others
    _starts: dict[tuple[tuple[str, int], ...], NDArray[np.int64]] = field(default_factory=dict, repr=False)

    @property
    def input(self) -> str:
        """The only input that has data. Raises GS0190 where there are several (see `batches`)."""
        given = [n for n in self.tracks if n not in self.features]
        if len(given) > 1:
            fail("GS0190", f"this is not built yet for data of several inputs: {', '.join(given)}", None)
        return self._first.input

    @property
    def audio(self) -> Audio | Numbers:
        """Of the only input (of the first of several, as the parts below)."""
        return self._first.audio

    @property
    def train(self) -> Sequence[Piece]:
        return self._first.train

    @property
    def validation(self) -> Sequence[Piece]:
        return self._first.validation

    @property
    def test(self) -> Sequence[Piece]:
        return self._first.test

    @property
    def _first(self) -> Track:
        return next(iter(self.tracks.values()))

    def batch(self, length: int, rows: int, seed: int, update: int, rank: int = 0) -> Tensor:
        """Random crops [rows, length, channels] of the only input; see `batches`."""
        return self.batches({self.input: length}, rows, seed, update, rank)[self.input]

    def batches(
        self, lengths: Mapping[str, int], rows: int, seed: int, update: int, rank: int = 0
    ) -> dict[str, Tensor]:
        """Random crops [rows, lengths[input], channels] for each input, those of a row all from one moment.

        Row r of an update is the same whatever the machine did before, and every start is equally likely.
        """
        drawn = [self._draw(lengths, seed, update, rank * rows + r) for r in range(rows)]
        return {
            name: torch.stack([self._crop(track, track.train[i], at, lengths[name]) for i, at in drawn])
            for name, track in self.tracks.items()
        }

    def validation_crops(self, length: int, most: int) -> Tensor:
        """Up to `most` crops [n, length, channels] of the only input; see `validation_batches`."""
        return self.validation_batches({self.input: length}, most)[self.input]

    def validation_batches(self, lengths: Mapping[str, int], most: int) -> dict[str, Tensor]:
        """Up to `most` crops [n, lengths[input], channels], spread evenly over the validation pieces; always the same.

        Crops do not overlap.
        """
        ticks = max(-(-length // self._step(self.tracks[name])) for name, length in lengths.items())
        counts = self._counts(lengths, "validation")
        places = [(i, at) for i, count in enumerate(counts) for at in range(0, count, ticks)]
        if not places:
            fail("GS0614", f"no validation file is as long as {_told(lengths)}", None)
        n = min(most, len(places))
        chosen = [places[i * len(places) // n] for i in range(n)]
        return {
            name: torch.stack([self._crop(track, track.validation[i], at, lengths[name]) for i, at in chosen])
            for name, track in self.tracks.items()
        }

    def tensor(self, input: str, piece: Piece) -> Tensor:
        """A whole piece [frames, channels] as the model reads it."""
        return self.tracks[input].audio.tensor(piece.samples)

    def _draw(self, lengths: Mapping[str, int], seed: int, update: int, row: int) -> tuple[int, int]:
        """(which piece, the moment on the grid at which its crop starts)"""
        key = tuple(sorted(lengths.items()))
        if key not in self._starts:
            self._starts[key] = np.cumsum(self._counts(lengths, "train"))
        starts = self._starts[key]
        if not starts[-1]:
            fail("GS0614", f"no training file is as long as {_told(lengths)}", None)
        draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, row, update]))
        at = int(draw.integers(starts[-1]))
        which = int(np.searchsorted(starts, at, side="right"))
        return which, at - (int(starts[which - 1]) if which else 0)

    def _crop(self, track: Track, piece: Piece, at: int, length: int) -> Tensor:
        first = at * self._step(track)
        return track.audio.tensor(piece.samples[first : first + length])

    def _counts(self, lengths: Mapping[str, int], part: str) -> list[int]:
        """For each piece of a part: at how many moments of the grid a crop may start."""
        each = [
            [max(0, (p.frames - lengths[name]) // self._step(track) + 1) for p in getattr(track, part)]
            for name, track in self.tracks.items()
        ]
        return [min(counts) for counts in zip(*each, strict=True)]

    def _step(self, track: Track) -> int:
        """Ticks of the track between two moments of the grid."""
        return int(track.rate / grid(t.rate for t in self.tracks.values()))


def grid(rates: Any) -> Fraction:
    """The rate of the moments at which all have a tick: the greatest common divisor."""
    return reduce(
        lambda a, b: Fraction(
            math.gcd(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator
        ),
        rates,
    )


def audio_of(value: Value, law: str) -> Audio:
    """How an input of this type sounds. Raises GS0609 for a type that no recording fits."""
    type_ = value.type
    if type_.rate is None or type_.rate.denominator != 1 or len(type_.dims) != 2:
        fail("GS0609", f"input '{value.path}' is {type_}; recordings are [T, channels] at a whole rate", value.span)
    bits = None
    if type_.dtype.kind == "int":
        classes = type_.dtype.classes or 0
        bits = classes.bit_length() - 1
        if classes != 1 << bits or not 1 <= bits <= 16:
            fail(
                "GS0609",
                f"input '{value.path}' has {classes} classes; quantised audio has 2**bits, 1 to 16 bits",
                value.span,
            )
    return Audio(int(type_.rate), type_.channels, bits, law)


def crop_lengths(checked: Checked) -> dict[str, int]:
    """Ticks of a crop for each input that has data, from `train.crop`.

    An axis that `crop` leaves open gets what its rate makes of the crop of another. Raises GS0607 where nothing says
    how long a crop is, GS0656 where it would be no whole number of ticks.
    """
    crop = checked.settings.crop
    types = {name: checked.graph.inputs[name].value.type for name in checked.settings.data}
    types |= {name: value.type for name, value in checked.graph.cached.items()}
    lengths: dict[str, int] = {}
    for name, type_ in types.items():
        if type_.timed and type_.length.symbols() <= crop.keys():
            lengths[name] = int(type_.length.evaluate(crop))
    known = next(((types[n].rate, length) for n, length in lengths.items()), None)
    for name, type_ in types.items():
        if name in lengths:
            continue
        if known is None or type_.rate is None:
            axis = str(type_.dims[0])
            fail(
                "GS0607",
                f"'train.crop' does not say how long '{axis}' is",
                None,
                fixes=[Fix(f"write crop: {{{axis}: 8192}} under train:")],
            )
        ticks = known[1] / known[0] * type_.rate
        if ticks.denominator != 1:
            fail(
                "GS0656",
                f"a crop of {known[1]} ticks at {show_rate(known[0])} is {float(ticks):.2f} ticks of '{name}' at "
                f"{show_rate(type_.rate)}",
                checked.settings.data[name].span if name in checked.settings.data else None,
                fixes=[Fix(f"take a multiple of {ticks.denominator}")],
            )
        lengths[name] = int(ticks)
    return {name: lengths[name] for name in types}


def load(
    checked: Checked, folder: Path, warn: Callable[[Diagnostic], None], shortest: int | Mapping[str, int] = 1
) -> Dataset:
    """The dataset of the spec's inputs. `folder`: where the spec's relative paths start.

    shortest: ticks of a crop (`crop_lengths`). Files that cannot be used, or are shorter than a crop, are skipped,
    counted and reported.
    """
    from graphspec.runtime.features import computed
    from graphspec.runtime.sources import read_source

    sources = checked.settings.data
    if not sources:
        fail("GS0608", "the spec has no 'data:'; say where its audio comes from, as wave: audio_folder(\"data\")", None)
    found: dict[str, dict[str, Piece]] = {}
    forms: dict[str, Audio | Numbers] = {}
    skipped: list[str] = []
    for name, source in sources.items():
        forms[name], found[name], unused = read_source(checked.graph.inputs[name].value, source, folder, warn)
        skipped += unused
    rates = {name: checked.graph.inputs[name].value.type.rate or Fraction(1) for name in sources}
    keys = list(found[next(iter(sources))])
    if len(sources) > 1:
        keys = _matched(found, rates, sources, skipped, warn)
    first = next(iter(sources.values()))
    for source in sources.values():
        if any(source.arguments[k] != first.arguments[k] for k in ("held_out", "validation")):
            fail("GS0655", "the sources of several inputs hold out the same files; these differ", source.span)
    held, valid = first.arguments["held_out"], first.arguments["validation"]
    if held < 0 or valid < 1 or held + valid >= len(keys):
        fail(
            "GS0613",
            f"{len(keys)} files cannot give {held} for the test, {valid} for validation and some to train on",
            first.span,
            notes=skipped[:5],
        )
    features = computed(checked, {n: {k: p[k] for k in keys} for n, p in found.items()}, forms, warn)
    found |= features
    forms |= dict.fromkeys(features, Numbers("float"))
    rates |= {n: checked.graph.cached[n].type.rate or Fraction(1) for n in features}
    cut = len(keys) - held
    parts = keys[: cut - valid], keys[cut - valid : cut], keys[cut:]
    tracks = {
        name: Track(name, rates[name], forms[name], *([found[name][k] for k in part] for part in parts))
        for name in found
    }
    data = Dataset(tracks, skipped, frozenset(features))
    _long_enough(data, shortest if isinstance(shortest, Mapping) else dict.fromkeys(tracks, shortest), first, warn)
    return data


def _long_enough(
    data: Dataset, shortest: Mapping[str, int], source: Setting, warn: Callable[[Diagnostic], None]
) -> None:
    for what, part, pieces in (("training", "train", data.train), ("validation", "validation", data.validation)):
        short = [p.name for p, count in zip(pieces, data._counts(shortest, part), strict=True) if not count]
        if short:
            data.skipped += [f"{n}: shorter than the crop of {_told(shortest)}" for n in short]
            told = f"{len(short)} of {len(pieces)} {what} files are shorter than the crop: {', '.join(short[:3])}"
            warn(Diagnostic("GS0614", told, source.span, "warning"))
        if len(short) == len(pieces):
            fail("GS0614", f"no {what} file is as long as the crop of {_told(shortest)}", source.span)


def _told(lengths: Mapping[str, int]) -> str:
    if len(lengths) == 1:
        return f"{next(iter(lengths.values()))} samples"
    return ", ".join(f"{length} ticks of '{name}'" for name, length in lengths.items())


def _matched(
    found: Mapping[str, Mapping[str, Piece]],
    rates: Mapping[str, Fraction],
    sources: Mapping[str, Setting],
    skipped: list[str],
    warn: Callable[[Diagnostic], None],
) -> list[str]:
    """The names that every input has a file of, in the order of the first, where the files last equally long.

    Lengths may differ by less than two ticks of the common grid: frames at the edges are padded by some and not by
    others. The rest is skipped and said; too much of it is an error (GS0654).
    """
    tick = 1 / grid(rates.values())
    every = list(dict.fromkeys(key for pieces in found.values() for key in pieces))
    kept: list[str] = []
    unused: list[str] = []
    for key in every:
        absent = [name for name, pieces in found.items() if key not in pieces]
        lasting = {name: p[key].frames / rates[name] for name, p in found.items() if key in p}
        if absent:
            unused.append(f"{key}: there is none for '{absent[0]}'")
        elif max(lasting.values()) - min(lasting.values()) >= 2 * tick:
            unused.append(f"{key}: " + ", ".join(f"{float(s):.3f} s of '{name}'" for name, s in lasting.items()))
        else:
            kept.append(key)
    borne = min((s.arguments["max_bad"] for s in sources.values() if "max_bad" in s.arguments), default=0.5)
    skipped += unused
    if unused:
        span = list(sources.values())[1].span
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        told = f"{len(unused)} of {len(every)} files do not match between the inputs: {'; '.join(unused[:3])}{more}"
        if not kept or len(unused) > borne * len(every):
            fail("GS0654", told, span, notes=["files match by their names without the ending, and last equally long"])
        warn(Diagnostic("GS0654", told, span, "warning"))
    return kept
