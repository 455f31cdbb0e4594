"""Where pieces come from: recordings of a folder, arrays of a folder, or the synthesised corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from graphspec.compiler.settings import Setting
from graphspec.diagnostic import Diagnostic, fail
from graphspec.graph import Value
from graphspec.runtime import arrays
from graphspec.runtime.audio import AudioInfo, BadAudio, natural_order, probe, read
from graphspec.runtime.data import Audio, Numbers, Piece, audio_of

EXTENSIONS = {".wav", ".flac", ".ogg", ".aif", ".aiff", ".mp3"}
MAX_BYTES = 8 << 30  # of one input's decoded data, held in memory

Warn = Callable[[Diagnostic], None]


def read_source(
    value: Value, source: Setting, folder: Path, warn: Warn
) -> tuple[Audio | Numbers, dict[str, Piece], list[str]]:
    """(how the input's numbers are meant, its pieces by name without ending, files that are not used and why)."""
    if source.name == "array_folder":
        return _arrays(value, source, folder)
    audio = audio_of(value, source.arguments["quantise"])
    if source.name == "corpus":
        return audio, _synthesised(audio, source), []
    return audio, *_recordings(audio, source, folder, warn)


def _synthesised(audio: Audio, source: Setting) -> dict[str, Piece]:
    from graphspec.runtime.corpus import pieces

    made = pieces(audio.rate, source.arguments["pieces"], source.arguments["seconds"])
    wide = [np.repeat(p, audio.channels, axis=1) for p in made]
    return {f"corpus {i}": Piece(f"corpus {i}", audio.encode(p)) for i, p in enumerate(wide)}


def _recordings(audio: Audio, source: Setting, folder: Path, warn: Warn) -> tuple[dict[str, Piece], list[str]]:
    root, paths = _files(source, folder, EXTENSIONS, "audio")
    width = 4 if audio.bits is None else 1 if audio.bits <= 8 else 2
    pieces: dict[str, Piece] = {}
    headers: list[AudioInfo] = []
    skipped: list[str] = []
    total = 0
    for key, path in paths.items():
        try:
            info = probe(path)
            total += int(info.seconds * audio.rate) * audio.channels * width
            if total > MAX_BYTES:
                fail("GS0617", f"the recordings of '{root}' take over {MAX_BYTES >> 30} GiB decoded", source.span)
            choice = {k: source.arguments[k] for k in ("stereo", "mono")}
            pieces[key] = Piece(path.name, audio.encode(read(path, audio.rate, audio.channels, **choice)))
            headers.append(info)
        except BadAudio as bad:
            skipped.append(f"{path.name}: {bad.reason}")
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        told = f"{len(skipped)} of {len(paths)} files cannot be used: {'; '.join(skipped[:3])}{more}"
        if len(skipped) > source.arguments["max_bad"] * len(paths):
            borne = f"max_bad={source.arguments['max_bad']:g} is the share that is borne"
            fail("GS0651", f"too many files: {told}", source.span, notes=[borne, *skipped[3:10]])
        warn(Diagnostic("GS0618", told, source.span, "warning"))
    if changed := changes(audio, headers, source.arguments["stereo"]):
        told = f"of {len(headers)} recordings, {' and '.join(changed)}"
        warn(Diagnostic("GS0650", told, source.span, "note"))
    return pieces, skipped


def changes(audio: Audio, headers: list[AudioInfo], stereo: str) -> list[str]:
    """What was done to how many files so that they fit."""
    wide = sum(h.channels > audio.channels for h in headers)
    narrow = sum(h.channels < audio.channels for h in headers)
    other = sum(h.rate != audio.rate for h in headers)
    mixed, taken = (("is", "gives its"), ("are", "give their"))[wide > 1]
    became = f"{mixed} mixed to one channel" if stereo == "mix" else f"{taken} {stereo} channel"
    repeats = f"{'repeat their' if narrow > 1 else 'repeats its'} one channel {audio.channels} times"
    return [
        *([f"{wide} {became}"] if wide else []),
        *([f"{narrow} {repeats}"] if narrow else []),
        *([f"{other} {'are' if other > 1 else 'is'} resampled to {audio.rate} Hz"] if other else []),
    ]


def _arrays(value: Value, source: Setting, folder: Path) -> tuple[Numbers, dict[str, Piece], list[str]]:
    type_ = value.type
    if not arrays.fits(type_):
        fail("GS0609", f"input '{value.path}' is {type_}; arrays are [frames, channels] of a timed input", value.span)
    root, paths = _files(source, folder, {".npy"}, ".npy files")
    pieces: dict[str, Piece] = {}
    total = 0
    for key, path in paths.items():
        mapped = arrays.open_array(path, type_, source.span)
        total += mapped.nbytes
        if total > MAX_BYTES:
            fail("GS0617", f"the arrays of '{root}' take over {MAX_BYTES >> 30} GiB", source.span)
        pieces[key] = Piece(path.name, arrays.numbers(mapped, path.name, type_, source.span))
    return Numbers(type_.dtype.kind), pieces, []


def _files(source: Setting, folder: Path, endings: set[str], what: str) -> tuple[Path, dict[str, Path]]:
    """(the folder, its files by name without ending, in natural order)."""
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
    shown = [p for p in root.rglob("*") if not p.name.startswith(".")]  # hidden: what other programs leave
    paths = natural_order([p for p in shown if p.suffix.lower() in endings])
    if not paths:
        fail("GS0616", f"no {what} in '{root}'", source.span, notes=[f"looked for {', '.join(sorted(endings))}"])
    named: dict[str, Path] = {}
    for path in paths:
        inside = path.relative_to(root)
        key = str(inside.with_suffix(""))
        named[key if key not in named else str(inside)] = path
    return root, named
