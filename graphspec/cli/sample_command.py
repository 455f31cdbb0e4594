"""graphspec sample RUN [KNOB=VALUE ...] [--entry NAME] [--seconds S] [--rows N] [--seed N] [--prompt FILE]
    [--given NAME=FILE] [--input FILE] [--backend NAME] [-o FILE]

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
    parser.add_argument(
        "--seconds", type=_positive, help="of what is new (default 2, or as long as what is given lasts)"
    )
    parser.add_argument("--rows", type=_count, default=1, help="how many at once; each its own file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--prompt",
        metavar="[NAME=]FILE",
        action="append",
        default=[],
        help="a recording to go on from, or .npy of what is no sound; where several values are fed, one for each",
    )
    parser.add_argument(
        "--given",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="what is heard beside what is drawn, whole: a recording, or .npy of what is no sound",
    )
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="for an entry that draws nothing: the recording of which what it hears is computed (pitch, loudness)",
    )
    parser.add_argument(
        "--rank",
        action="store_true",
        help="write the rows in order of their likelihood, without the lowest 40%% and the top 5%%",
    )
    parser.add_argument("--prompt-seconds", type=_positive, default=1.0, help="how much of it (default 1)")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: samples/seedN.wav in the run's folder")
    parser.add_argument(
        "--backend",
        choices=("auto", "eager", "onnx", "aoti", "cuda_graph"),
        default="auto",
        help="what runs the ticks (default: what is installed and worth its building for this length)",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=_count, default=1)


def run(options: argparse.Namespace) -> int:
    import torch

    from graphspec.cli.rendering import render_it, rendered_entry
    from graphspec.cli.trained import open_model
    from graphspec.runtime.sample import of_one_time
    from graphspec.runtime.score import updates
    from graphspec.runtime.stream_sampler import sampler as sampler_of

    torch.set_num_threads(options.threads)
    run_, model, _ = open_model(options.run, options.device, lambda d: show([d]))
    if (entry := rendered_entry(options, model)) is not None:
        return render_it(options, run_, model, entry)
    knobs = dict(_knob(text, model.graph.inputs) for text in options.overrides)
    if options.entry in model.entries and "step" in model.entries[options.entry].graph.inputs:
        knobs["step"] = float(updates(run_))
    given = {n: x.expand(options.rows, *x.shape[1:]) for n, x in _given(options, model).items()}
    how = {"entry": options.entry, "backend": options.backend, "given": given}
    sampler = sampler_of(model, options.rows, options.seed, knobs, warn=_warn, **how)
    forms = {name: _form(name, v, model) for name, v in sampler.played.items()}
    files = _files(options, run_.samples, forms)
    fed = {source.path: source for source, _ in sampler.fed}
    prompts = {name: x.to(options.device) for name, x in _prompts(options, fed, model).items()}
    if prompts:
        prompts = of_one_time(prompts, {name: source.type for name, source in fed.items()})
        prompts = {k: x.expand(options.rows, *[-1] * (x.dim() - 1)) for k, x in prompts.items()}
        sampler.prefill(prompts)
    ticks = max(1, round(_seconds(options, given, model) * float(next(iter(fed.values())).type.rate or 1)))
    built = time.perf_counter()
    sampler.settle(ticks)
    built = time.perf_counter() - built
    if options.rank:
        _rankable(model, sampler, (*given, *knobs))
    began = time.process_time()
    drawn = sampler.draw(ticks, _progress(ticks))
    spent = time.process_time() - began
    whole = {}
    for name, x in drawn.items():
        before = prompts.get(sampler.played[name].path)
        whole[name] = x if before is None else torch.cat([before, x], 1)
    if options.rank:
        whole = _ranked(whole, model, sampler, {n: x.shape[1] for n, x in prompts.items()}, knobs, given, files)
    for name, x in whole.items():
        _write(files[name][: len(x)], x, name, sampler.played[name], forms[name])
    print(
        f"{ticks} ticks in {spent:.1f} CPU seconds ({ticks / max(spent, 1e-9):.0f} ticks/s, {options.rows} rows, "
        f"{sampler.chosen}{f', built in {built:.1f} s' if sampler.chosen != 'eager' else ''})",
        file=sys.stderr,
    )
    return 0


def _rankable(model: Any, sampler: Any, given: tuple[str, ...]) -> None:
    """Before anything is drawn: whether what will be drawn can be ranked."""
    from graphspec.runtime.rank import rankable

    fed = [source.path for source, _ in sampler.fed]
    rankable(model, fed, given)
    played = {v.path for v in sampler.played.values()}
    if hidden := [name for name in fed if name not in played]:
        fail("GS0661", f"'{hidden[0]}' is drawn but not played, so it cannot be scored; add it to 'to:'", None)


def _ranked(
    whole: Mapping[str, Any],
    model: Any,
    sampler: Any,
    prompt: Mapping[str, int],
    knobs: Mapping[str, float],
    given: Mapping[str, Any],
    files: Mapping[str, list[Path]],
) -> dict[str, Any]:
    """The rows that are kept, the least likely first, of each value; tells their scores."""
    from graphspec.runtime.rank import kept, log_likelihoods

    fed = {source.path for source, _ in sampler.fed}
    drawn = {v.path: whole[name] for name, v in sampler.played.items() if v.path in fed}
    nats, bits = log_likelihoods(model, drawn, prompt, knobs, given)
    rows = kept(nats.tolist())
    print(f"of {len(nats)} rows {len(rows)} are kept, the least likely first:", file=sys.stderr)
    for place, row in enumerate(rows):
        name = next(iter(files.values()))[place].name
        print(f"{name}: log-likelihood {nats[row]:.1f} nats, {bits[row]:.4f} bits a sample", file=sys.stderr)
    return {name: x[rows] for name, x in whole.items()}


def _warn(told: str) -> None:
    print(told, file=sys.stderr)


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


def _given(options: argparse.Namespace, model: Any) -> dict[str, Any]:
    """What the entry hears beside what is drawn, `[1, n, ...]` each."""
    view = model.entries.get(options.entry)
    if view is None or not options.given:
        return {}
    fed = {f.source for f in view.graph.feeds}
    heard = {n: i.value for n, i in view.graph.inputs.items() if i.value.type.timed and i.value not in fed}
    found: dict[str, Any] = {}
    for text in options.given:
        name, equals, file = text.partition("=")
        if not equals or name not in heard:
            told = f"'{name[:60]}' is not heard beside what is drawn{did_you_mean(name, heard)}"
            fail("GS0629", told, None, notes=[f"heard are: {', '.join(heard) or 'none'}; --given NAME=FILE"])
        found[name] = _prompt(Path(file), name, heard[name], model, 86_400)
    return found


def _seconds(options: argparse.Namespace, given: Mapping[str, Any], model: Any) -> float:
    if options.seconds is not None or not given:
        return options.seconds or 2.0
    rates = {n: float(model.entries[options.entry].graph.inputs[n].value.type.rate or 1) for n in given}
    return min(x.shape[1] / rates[n] for n, x in given.items())


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
        fail("GS0618", f"the recording cannot be used: {bad}", None)
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
