"""Data for a spec: recordings split by file, and crops that are a pure function of (seed, update, rank, row)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphspec.compiler.pipeline import Checked
from graphspec.compiler.settings import Setting
from graphspec.diagnostic import Diagnostic, fail
from graphspec.graph import Value
from graphspec.ops.modules.quantise import dequantise, quantise
from graphspec.runtime.audio import BadAudio, natural_order, probe, read

EXTENSIONS = {".wav", ".flac", ".ogg", ".aif", ".aiff", ".mp3"}
MAX_BYTES = 8 << 30  # of decoded data held in memory


@dataclass(frozen=True)
class Piece:
    """One recording: `samples` [frames, channels], integer levels or float32."""

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


@dataclass
class Dataset:
    """The pieces of one input, in three parts; `skipped` tells which files were not used and why."""

    input: str
    audio: Audio
    train: list[Piece]
    validation: list[Piece]
    test: list[Piece]
    skipped: list[str] = field(default_factory=list)

    def batch(self, length: int, rows: int, seed: int, update: int, rank: int = 0) -> Tensor:
        """Random crops [rows, length, channels]: row r of an update is the same whatever the machine did before."""
        return torch.stack([self._crop(length, seed, update, rank * rows + r) for r in range(rows)])

    def _crop(self, length: int, seed: int, update: int, row: int) -> Tensor:
        usable = [p for p in self.train if p.frames >= length]
        starts = np.cumsum([p.frames - length + 1 for p in usable])
        draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, row, update]))
        at = int(draw.integers(starts[-1]))
        which = int(np.searchsorted(starts, at, side="right"))
        first = at - (int(starts[which - 1]) if which else 0)
        return self.audio.tensor(usable[which].samples[first : first + length])

    def validation_crops(self, length: int, most: int) -> Tensor:
        """Up to `most` crops [n, length, channels], spread evenly over the validation pieces; always the same."""
        places = [(p, i * length) for p in self.validation for i in range(p.frames // length)]
        chosen = [places[i * len(places) // min(most, len(places))] for i in range(min(most, len(places)))]
        return torch.stack([self.audio.tensor(p.samples[a : a + length]) for p, a in chosen])


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


def load(checked: Checked, folder: Path, warn: Callable[[Diagnostic], None], shortest: int = 1) -> Dataset:
    """The dataset of the spec's one data input. `folder`: where the spec's relative paths start.

    Files that cannot be used, or are shorter than a crop, are skipped, counted and reported.
    """
    settings = checked.settings
    if not settings.data:
        fail("GS0608", "the spec has no 'data:'; say where its audio comes from, as wave: audio_folder(\"data\")", None)
    if len(settings.data) > 1:
        second = list(settings.data.values())[1]
        fail("GS0190", "data for more than one input is not built yet", second.span)
    name, source = next(iter(settings.data.items()))
    audio = audio_of(checked.graph.inputs[name].value, source.arguments["quantise"])
    if source.name == "corpus":
        pieces, skipped = _synthesised(audio, source), []
    else:
        pieces, skipped = _recordings(audio, source, folder, warn)
    held, valid = source.arguments["held_out"], source.arguments["validation"]
    if held < 0 or valid < 1 or held + valid >= len(pieces):
        fail(
            "GS0613",
            f"{len(pieces)} files cannot give {held} for the test, {valid} for validation and some to train on",
            source.span,
            notes=skipped[:5],
        )
    cut = len(pieces) - held
    parts = pieces[: cut - valid], pieces[cut - valid : cut], pieces[cut:]
    for what, part in zip(("training", "validation"), parts, strict=False):
        short = [p.name for p in part if p.frames < shortest]
        if short:
            skipped += [f"{n}: shorter than the crop of {shortest} samples" for n in short]
            warn(
                Diagnostic(
                    "GS0614",
                    f"{len(short)} of {len(part)} {what} files are shorter than the crop: {', '.join(short[:3])}",
                    source.span,
                    "warning",
                )
            )
        if len(short) == len(part):
            fail("GS0614", f"no {what} file is as long as the crop of {shortest} samples", source.span)
    return Dataset(name, audio, *parts, skipped=skipped)


def _synthesised(audio: Audio, source: Setting) -> list[Piece]:
    from graphspec.runtime.corpus import pieces

    made = pieces(audio.rate, source.arguments["pieces"], source.arguments["seconds"])
    wide = [np.repeat(p, audio.channels, axis=1) for p in made]
    return [Piece(f"corpus {i}", audio.encode(p)) for i, p in enumerate(wide)]


def _recordings(
    audio: Audio, source: Setting, folder: Path, warn: Callable[[Diagnostic], None]
) -> tuple[list[Piece], list[str]]:
    written = Path(source.arguments["path"])
    trusted = source.span.source.path.startswith("<command line>")
    if not trusted and (written.is_absolute() or ".." in written.parts):
        fail(
            "GS0615",
            f"the data path '{written}' leaves the spec's folder",
            source.span,
            notes=["on the command line, data=FOLDER may lie anywhere"],
        )
    root = written if trusted else folder / written
    if not root.is_dir():
        fail(
            "GS0616",
            f"there is no folder '{root}'",
            source.span,
            notes=["data=FOLDER on the command line names another one"],
        )
    paths = natural_order([p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS])
    if not paths:
        fail("GS0616", f"no audio in '{root}'", source.span, notes=[f"looked for {', '.join(sorted(EXTENSIONS))}"])
    width = 4 if audio.bits is None else 1 if audio.bits <= 8 else 2
    pieces, skipped, total = [], [], 0
    for path in paths:
        try:
            info = probe(path)
            total += int(info.seconds * audio.rate) * audio.channels * width
            if total > MAX_BYTES:
                fail("GS0617", f"the recordings of '{root}' take over {MAX_BYTES >> 30} GiB decoded", source.span)
            pieces.append(Piece(path.name, audio.encode(read(path, audio.rate, audio.channels))))
        except BadAudio as bad:
            skipped.append(f"{path.name}: {bad.reason}")
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        warn(
            Diagnostic(
                "GS0618",
                f"{len(skipped)} of {len(paths)} files cannot be used: {'; '.join(skipped[:3])}{more}",
                source.span,
                "warning",
            )
        )
    return pieces, skipped
