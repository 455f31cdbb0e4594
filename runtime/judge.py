"""Generated files against a run's recordings: spectra, and what the detectors say of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphspec.diagnostic import Diagnostic, fail
from graphspec.runtime.audio import BadAudio, natural_order, read
from graphspec.runtime.data import Audio, Dataset, Piece
from graphspec.runtime.detector import accept, describe
from graphspec.runtime.quality import FAULTS, distance, faults, spectra
from graphspec.runtime.sources import EXTENSIONS

Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Judgement:
    """Of a folder of generated files.

    frames: of the files, and of the recordings; the distance of few frames is too large. distance: log-mel-statistics
    Frechet, to the recordings. yardstick: that of other recordings of the run, held out but not scored; none where they
    are too short. faults: by file what the detectors found. counts: files a fault; `unlike` are those whose loudness or
    flatness no recording has.
    """

    files: list[str]
    frames: tuple[int, int]
    distance: float
    yardstick: float | None
    faults: dict[str, list[str]]
    counts: dict[str, int]


def judge(folder: Path, data: Dataset, pieces: Sequence[Piece], warn: Callable[[Diagnostic], None]) -> Judgement:
    """The files of a folder against recordings of the same input, through its quantiser, so that like meets like.

    Files are read at the input's rate and channels. Raises GS0662 for what is no sound, or too short; GS0616 for a
    folder without sound.
    """
    audio = data.audio
    if not isinstance(audio, Audio):
        fail("GS0662", f"'{next(iter(data.tracks))}' is no sound, so generated files cannot be compared with it", None)
    generated = _read(folder, audio, warn)
    recordings = [_heard(audio, p) for p in pieces]
    try:
        here, there = spectra(list(generated.values()), audio.rate), spectra(recordings, audio.rate)
    except ValueError as error:
        fail("GS0662", f"the files of '{folder}' or the recordings are too short to compare: {error}", None)
    others = [p for p in (*data.validation, *data.test) if not any(p is q for q in pieces)]
    try:
        yardstick = distance(spectra([_heard(audio, p) for p in others], audio.rate), there)
    except ValueError:
        yardstick = None
    found = {name: list(faults(x, audio.rate)) for name, x in generated.items()}
    known = [describe(c, audio.rate) for x in recordings for c in x.T]
    for name, x in generated.items():
        try:
            if not all(accept(describe(c, audio.rate), known).ok for c in x.T):
                found[name].append("unlike")
        except ValueError:  # the recordings are silent themselves
            break
    counts = {fault: sum(fault in f for f in found.values()) for fault in (*FAULTS, "unlike")}
    faulty = {name: f for name, f in found.items() if f}
    frames = here.frames, there.frames
    return Judgement(list(generated), frames, distance(here, there), yardstick, faulty, counts)


def _heard(audio: Audio, piece: Piece) -> Sound:
    return audio.decode(audio.tensor(piece.samples))


def _read(folder: Path, audio: Audio, warn: Callable[[Diagnostic], None]) -> dict[str, Sound]:
    if not folder.is_dir():
        fail("GS0616", f"there is no folder '{folder}'", None)
    found: dict[str, Sound] = {}
    for path in natural_order([p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS]):
        try:
            found[str(path.relative_to(folder))] = read(path, audio.rate, audio.channels)
        except BadAudio as bad:
            warn(Diagnostic("GS0618", f"a file is left out: {bad}", None, "warning"))
    if not found:
        fail("GS0616", f"no audio in '{folder}'", None, notes=[f"looked for {', '.join(sorted(EXTENSIONS))}"])
    return found
