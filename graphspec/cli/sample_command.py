"""graphspec sample RUN [KNOB=VALUE ...] [--entry NAME] [--seconds S] [--rows N] [--seed N] [--prompt FILE] [-o FILE]

What the entry plays (`to:`) is written: sound as WAV, all else (codes, features) as .npy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import show
from graphspec.diagnostic import SpecError, did_you_mean, fail
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.graph import Value
    from graphspec.runtime.data import Audio, Numbers

SOUND = 1000  # Hz: what has a lower rate is no sound


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("overrides", nargs="*", metavar="KNOB=VALUE", help="the spec's knobs, as temperature=0.9")
    parser.add_argument("--entry", metavar="NAME", default="sample", help="one of the spec's entries (default: sample)")
    parser.add_argument("--seconds", type=_positive, default=2.0, help="of what is new (default 2)")
    parser.add_argument("--rows", type=_count, default=1, help="how many at once; each its own file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--prompt",
        metavar="[NAME=]FILE",
        action="append",
        default=[],
        help="a recording to go on from, or .npy of what is no sound; where several values are fed, one for each",
    )
    parser.add_argument("--prompt-seconds", type=_positive, default=1.0, help="how much of it (default 1)")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: samples/seedN.wav in the run's folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=_count, default=1)


def run(options: argparse.Namespace) -> int:
    import torch

    from graphspec.cli.trained import open_model
    from graphspec.runtime.sample import Sampler
    from graphspec.runtime.score import updates

    torch.set_num_threads(options.threads)
    run_, model, _ = open_model(options.run, options.device, lambda d: show([d]))
    knobs = dict(_knob(text, model.graph.inputs) for text in options.overrides)
    if options.entry in model.entries and "step" in model.entries[options.entry].graph.inputs:
        knobs["step"] = float(updates(run_))
    sampler = Sampler(model, options.rows, options.seed, knobs, entry=options.entry)
    forms = {name: _form(name, v, model) for name, v in sampler.played.items()}
    files = _files(options, run_.samples, forms)
    fed = {source.path: source for source, _ in sampler.plan.fed}
    prompts = {name: x.to(options.device) for name, x in _prompts(options, fed, model).items()}
    if prompts:
        n = min(x.shape[1] for x in prompts.values())
        prompts = {k: x[:, :n].expand(options.rows, *[-1] * (x.dim() - 1)) for k, x in prompts.items()}
        sampler.prefill(prompts)
    ticks = max(1, round(options.seconds * float(next(iter(fed.values())).type.rate or 1)))
    began = time.process_time()
    drawn = sampler.draw(ticks, _progress(ticks))
    spent = time.process_time() - began
    for name, x in drawn.items():
        given = prompts.get(sampler.played[name].path)
        whole = x if given is None else torch.cat([given, x], 1)
        _write(files[name], whole, name, sampler.played[name], forms[name])
    print(
        f"{ticks} ticks in {spent:.1f} CPU seconds ({ticks / max(spent, 1e-9):.0f} ticks/s, {options.rows} rows)",
        file=sys.stderr,
    )
    return 0


def _form(name: str, value: Value, model: Any) -> Audio | Numbers:
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


def _write(paths: list[Path], rows: Any, name: str, value: Value, form: Audio | Numbers) -> None:
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


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 86_400:
        raise argparse.ArgumentTypeError("seconds are more than 0 and less than a day")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 4096:
        raise argparse.ArgumentTypeError("a whole number from 1 to 4096")
    return value


def _knob(text: str, inputs: Any) -> tuple[str, float]:
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


def _prompts(options: argparse.Namespace, fed: Mapping[str, Value], model: Any) -> dict[str, Any]:
    """For each fed value that has one its prompt `[1, n, ...]`."""
    found: dict[str, Any] = {}
    for text in options.prompt:
        name, equals, file = text.partition("=")
        if not equals or name not in fed:
            name, file = next(iter(fed)), text
            if len(fed) > 1:
                told = f"say which value the prompt is for: --prompt {name}={text[:60]}"
                fail("GS0629", told, None, notes=[f"fed are: {', '.join(fed)}"])
        found[name] = _prompt(Path(file), name, fed[name], model, options.prompt_seconds)
    return found


def _prompt(path: Path, name: str, value: Value, model: Any, seconds: float) -> Any:
    from graphspec.runtime.arrays import numbers, open_array
    from graphspec.runtime.audio import BadAudio, read
    from graphspec.runtime.data import Audio

    form = _form(name, value, model)
    size = max(1, round(seconds * float(value.type.rate or 1)))
    if not isinstance(form, Audio):
        return form.tensor(numbers(open_array(path, value.type, None)[:size], path.name, value.type, None))[None]
    try:
        samples = read(path, form.rate, form.channels)
    except BadAudio as bad:
        fail("GS0618", f"the prompt cannot be used: {bad}", None)
    return form.tensor(form.encode(samples[:size]))[None]


def _files(options: argparse.Namespace, folder: Path, forms: Mapping[str, Audio | Numbers]) -> dict[str, list[Path]]:
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


def _progress(ticks: int) -> Any:
    if not sys.stderr.isatty():
        return lambda done: None
    return lambda done: print(
        f"\r{done}/{ticks} ticks", end="\n" if done >= ticks - 255 else "", file=sys.stderr, flush=True
    )
