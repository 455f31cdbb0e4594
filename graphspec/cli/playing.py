"""What commands that play have in common: knobs, recordings that are given, and the files that come out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import show
from graphspec.diagnostic import Diagnostic, SpecError, did_you_mean, fail
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.graph import Value
    from graphspec.runtime.data import Audio, Numbers

SOUND = 1000  # Hz: what has a lower rate is no sound


def form_of(name: str, value: Value, model: Any) -> Audio | Numbers:
    """How the value's numbers are meant: as sound, by the law of the data, or as they are."""
    from graphspec.runtime.data import Numbers, audio_of

    data = model.checked.settings.data
    laws = {n: s.arguments["quantise"] for n, s in data.items() if "quantise" in s.arguments}
    audible = name in laws or (name not in data and (value.type.rate or 0) >= SOUND)
    if audible and value.type.meaning is None:
        try:
            return audio_of(value, laws.get(name, next(iter(laws.values()), "linear")))
        except SpecError:  # no recording is of this type
            pass
    return Numbers(value.type.dtype.kind)


def files_of(options: argparse.Namespace, folder: Path, forms: Mapping[str, Audio | Numbers]) -> dict[str, list[Path]]:
    """For each value one file a row; none is overwritten but those that were named.

    The first sound has the plain name, other values theirs in it: seed0.wav, seed0.codes.npy.
    """
    from graphspec.runtime.data import Audio

    sound = [name for name, form in forms.items() if isinstance(form, Audio)]
    plain = sound[0] if sound else next(iter(forms)) if options.output else ""
    ending = ".wav" if sound else ".npy"
    first = Path(options.output) if options.output else folder / f"seed{options.seed}"
    if options.output and first.suffix.lower() != ending:
        fail("GS0630", f"the output is a {ending} file, not '{first}'", None)
    stem = first.stem if options.output else first.name

    def named(stem: str) -> dict[str, list[Path]]:
        rows = [stem] if options.rows == 1 else [f"{stem}_{i}" for i in range(options.rows)]
        found = {}
        for name, form in forms.items():
            inside = "" if name == plain else f".{name}"
            suffix = first.suffix if name == plain and options.output else ".wav" if isinstance(form, Audio) else ".npy"
            found[name] = [first.with_name(f"{row}{inside}{suffix}") for row in rows]
        return found

    files, number = named(stem), 1
    while not options.output and any(p.exists() for paths in files.values() for p in paths):
        number += 1
        files = named(f"{stem}-{number}")
    return files


def write(paths: list[Path], rows: Any, name: str, value: Value, form: Audio | Numbers) -> None:
    """A file a row of `[rows, n, ...]`."""
    import numpy as np

    from graphspec.runtime.arrays import numbers
    from graphspec.runtime.audio import write_wav
    from graphspec.runtime.data import Audio

    for path, row in zip(paths, rows, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(form, Audio):
            write_wav(path, form.decode(row), form.rate)
        else:
            plain = row.float() if row.is_floating_point() else row
            np.save(path, numbers(plain.cpu().numpy(), name, value.type, None))
        print(path)


def recording(path: Path, name: str, value: Value, model: Any, seconds: float) -> Any:
    """`[1, n, ...]` of a file, at most so many seconds; tells what was done so that it fits. Raises GS0618."""
    from graphspec.runtime.arrays import numbers, open_array
    from graphspec.runtime.audio import BadAudio, probe, read
    from graphspec.runtime.data import Audio
    from graphspec.runtime.sources import changes

    form = form_of(name, value, model)
    size = max(1, round(seconds * float(value.type.rate or 1)))
    if not isinstance(form, Audio):
        return form.tensor(numbers(open_array(path, value.type, None)[:size], path.name, value.type, None))[None]
    try:
        header, samples = probe(path), read(path, form.rate, form.channels)
    except BadAudio as bad:
        fail("GS0618", f"the recording cannot be used: {bad}", None)
    if changed := changes(form, [header], "mix"):
        told = " and ".join(c.removeprefix("1 ") for c in changed)
        show([Diagnostic("GS0650", f"'{path.name}' {told}", None, "note")])
    return form.tensor(form.encode(samples[:size]))[None]


def knob(text: str, inputs: Any) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    source = Source("<command line>", text)
    span = Span(source, 0, len(text))
    known = [n for n, i in inputs.items() if i.optional]
    if not equals or name not in known:
        fail(
            "GS0628",
            f"'{name}' is not a knob of this spec{did_you_mean(name, known)}",
            span,
            notes=[f"it has: {', '.join(known) or 'none'}"],
        )
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not number >= 0:
        fail("GS0628", f"{name} is a number from 0, not '{value[:30]}'", span)
    return name, number


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 86_400:
        raise argparse.ArgumentTypeError("seconds are more than 0 and less than a day")
    return value


def count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 4096:
        raise argparse.ArgumentTypeError("a whole number from 1 to 4096")
    return value
