"""A folder of recordings becomes the folder that a spec reads: one rate, one layout of channels, 16-bit WAV.

    mono     one file for each, its channels mixed
    stereo   two channels kept; a mono file is refused or repeated in both
    split    one mono file for each channel, `take.1.wav`, `take.2.wav`, ...

Folders and names are kept. Every file appears whole or not at all, so what is there, at this rate and of this length,
is done, and the next call goes on after it; nothing is ever overwritten. Files that cannot be used are told and left
out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from graphspec.diagnostic import Diagnostic, Fix, SpecError, fail
from graphspec.runtime.audio import AudioInfo, BadAudio, Mono, natural_order, probe, read, write_wav
from graphspec.runtime.checkpoint import cannot_write
from graphspec.runtime.sources import EXTENSIONS

Layout = Literal["mono", "stereo", "split"]
LAYOUTS: tuple[str, ...] = get_args(Layout)

Warn = Callable[[Diagnostic], None]
Tell = Callable[[int, int, str], None]


@dataclass
class Outcome:
    """Files: written, there already, clipped where the sound overshoots full scale; recordings: left out, all."""

    written: int = 0
    there: int = 0
    clipped: int = 0
    left_out: int = 0
    recordings: int = 0


def prepare(source: Path, out: Path, layout: Layout, rate: int, mono: Mono, warn: Warn, tell: Tell) -> Outcome:
    """All recordings below `source` into `out`. tell(done, recordings, name) before each, and once at the end.

    Raises GS0616 (no folder, no audio), GS0657 (`out` is `source`), GS0622 (cannot write). A recording that cannot be
    used is a warning GS0618, one whose place another file has GS0657.
    """
    recordings = _recordings(source, out)
    outcome = Outcome(recordings=len(recordings))
    for i, (path, stem) in enumerate(recordings.items()):
        tell(i, len(recordings), path.name)
        try:
            _one(path, stem, layout, rate, mono, outcome)
        except BadAudio as bad:
            outcome.left_out += 1
            warn(Diagnostic("GS0618", f"a recording is left out: {bad}", None, "warning"))
        except _TakenError as taken:
            outcome.left_out += 1
            told = f"{taken} is there already and is not what '{path.name}' becomes; it is left as it is"
            warn(Diagnostic("GS0657", told, None, "warning", fixes=(Fix("write to an empty folder"),)))
    tell(len(recordings), len(recordings), "")
    return outcome


class _TakenError(Exception):
    """The file that stands in a recording's place."""


def _recordings(source: Path, out: Path) -> dict[Path, Path]:
    """Each recording, in natural order, with where it goes, without its ending."""
    if not source.is_dir():
        fail("GS0616", f"there is no folder '{source}'", None)
    if source.resolve() == out.resolve():
        fail("GS0657", f"'{out}' is the folder that is read", None, fixes=[Fix("name another folder to write to")])
    own = out.resolve()
    shown = [p for p in source.rglob("*") if not p.name.startswith(".") and p.suffix.lower() in EXTENSIONS]
    paths = natural_order([p for p in shown if own not in p.resolve().parents])
    if not paths:
        fail("GS0616", f"no audio in '{source}'", None, notes=[f"looked for {', '.join(sorted(EXTENSIONS))}"])
    inside = {p: p.relative_to(source) for p in paths}
    shared = Counter(p.with_suffix("") for p in inside.values())
    return {p: out / (i if shared[i.with_suffix("")] > 1 else i.with_suffix("")) for p, i in inside.items()}


def _one(path: Path, stem: Path, layout: Layout, rate: int, mono: Mono, outcome: Outcome) -> None:
    info = probe(path)
    width = {"mono": 1, "stereo": 2, "split": info.channels}[layout]
    if layout == "split" and width > 1:
        targets = [_named(stem, f".{i + 1}") for i in range(width)]
    else:
        targets = [_named(stem, "")]
    channels = width if len(targets) == 1 else 1
    wanted = [t for t in targets if not _whole(t, info, rate, channels)]
    outcome.there += len(targets) - len(wanted)
    if not wanted:
        return
    samples = read(path, rate, width, stereo="mix", mono=mono)
    for i, target in enumerate(targets):
        if target not in wanted:
            continue
        x = samples if len(targets) == 1 else samples[:, i : i + 1]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_wav(target, x, rate)
        except ValueError as error:
            raise BadAudio(path, str(error)) from None
        except OSError as error:
            raise SpecError(cannot_write(target, error)) from error
        outcome.written += 1
        outcome.clipped += bool(np.abs(x).max() > 1)


def _named(stem: Path, more: str) -> Path:
    return stem.with_name(f"{stem.name}{more}.wav")


def _whole(target: Path, info: AudioInfo, rate: int, channels: int) -> bool:
    """Whether the file is there as it would be written; raises where something else is."""
    if not target.exists() and not target.is_symlink():
        return False
    try:
        there = probe(target)
    except BadAudio:
        raise _TakenError(str(target)) from None
    frames = info.frames * rate / info.rate
    if (there.rate, there.channels) != (rate, channels) or abs(there.frames - frames) > 1:
        raise _TakenError(f"{target} ({there.frames} frames, {there.channels} x {there.rate} Hz)")
    return True
