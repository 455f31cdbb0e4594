"""graphspec sample RUN [temperature=0.9 ...] [--seconds S] [--rows N] [--seed N] [--prompt FILE] [-o FILE.wav]"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import show
from graphspec.diagnostic import did_you_mean, fail
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.runtime.data import Audio


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("overrides", nargs="*", metavar="KNOB=VALUE", help="the spec's knobs, as temperature=0.9")
    parser.add_argument("--seconds", type=_positive, default=2.0, help="of new sound (default 2)")
    parser.add_argument("--rows", type=_count, default=1, help="how many at once; each its own file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", metavar="FILE", help="a recording to go on from")
    parser.add_argument("--prompt-seconds", type=_positive, default=1.0, help="how much of it (default 1)")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: samples/seedN.wav in the run's folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=_count, default=1)


def run(options: argparse.Namespace) -> int:
    import torch

    from graphspec.cli.trained import open_model
    from graphspec.runtime.audio import write_wav
    from graphspec.runtime.data import audio_of
    from graphspec.runtime.sample import Sampler

    torch.set_num_threads(options.threads)
    run_, model, _ = open_model(options.run, options.device, lambda d: show([d]))
    knobs = dict(_knob(text, model.graph.inputs) for text in options.overrides)
    sampler = Sampler(model, options.rows, options.seed, knobs)
    fed = {source.path: source for source, _ in sampler.plan.fed}
    settings = model.checked.settings.data
    law = next(iter(settings.values())).arguments["quantise"] if settings else "linear"
    audio = {name: audio_of(value, law) for name, value in fed.items()}
    name, sound = next(iter(audio.items()))
    outputs = _outputs(options, run_.samples)
    prompt = None
    if options.prompt:
        if len(fed) > 1:
            fail("GS0190", "a prompt for more than one fed input is not built yet", None)
        prompt = _prompt(options, sound).expand(options.rows, -1, -1).to(options.device)
        sampler.prefill({name: prompt})
    ticks = max(1, round(options.seconds * sound.rate))
    began = time.process_time()
    drawn = sampler.draw(ticks, _progress(ticks))[name]
    spent = time.process_time() - began
    whole = drawn if prompt is None else torch.cat([prompt, drawn], 1)
    for path, row in zip(outputs, sound.decode(whole), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, row, sound.rate)
        print(path)
    print(
        f"{ticks} ticks in {spent:.1f} CPU seconds ({ticks / max(spent, 1e-9):.0f} ticks/s, {options.rows} rows)",
        file=sys.stderr,
    )
    return 0


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


def _prompt(options: argparse.Namespace, sound: Audio) -> Any:
    from graphspec.runtime.audio import BadAudio, read

    try:
        samples = read(options.prompt, sound.rate, sound.channels)
    except BadAudio as bad:
        fail("GS0618", f"the prompt cannot be used: {bad}", None)
    return sound.tensor(sound.encode(samples[: round(options.prompt_seconds * sound.rate)]))[None]


def _outputs(options: argparse.Namespace, folder: Path) -> list[Path]:
    """One file a row; none is overwritten but one that was named."""
    first = Path(options.output) if options.output else folder / f"seed{options.seed}.wav"
    if first.suffix.lower() != ".wav":
        fail("GS0630", f"the output is a .wav file, not '{first}'", None)
    paths = [first] if options.rows == 1 else [first.with_stem(f"{first.stem}_{i}") for i in range(options.rows)]
    if not options.output:
        number = 1
        while any(p.exists() for p in paths):
            number += 1
            paths = [p.with_stem(f"{p.stem.split('-')[0]}-{number}") for p in paths]
    return paths


def _progress(ticks: int) -> Any:
    if not sys.stderr.isatty():
        return lambda done: None
    return lambda done: print(
        f"\r{done}/{ticks} ticks", end="\n" if done >= ticks - 255 else "", file=sys.stderr, flush=True
    )
