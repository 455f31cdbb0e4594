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
from graphspec.cli.playing import count, files_of, form_of, knob, positive, recording, write
from graphspec.diagnostic import did_you_mean, fail

if TYPE_CHECKING:
    from graphspec.graph import Value


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("overrides", nargs="*", metavar="KNOB=VALUE", help="the spec's knobs, as temperature=0.9")
    parser.add_argument("--entry", metavar="NAME", default="sample", help="one of the spec's entries (default: sample)")
    parser.add_argument(
        "--seconds", type=positive, help="of what is new (default 2, or as long as what is given lasts)"
    )
    parser.add_argument("--rows", type=count, default=1, help="how many at once; each its own file")
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
    parser.add_argument("--prompt-seconds", type=positive, default=1.0, help="how much of it (default 1)")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: samples/seedN.wav in the run's folder")
    parser.add_argument(
        "--backend",
        choices=("auto", "eager", "onnx", "aoti", "cuda_graph"),
        default="auto",
        help="what runs the ticks (default: what is installed and worth its building for this length)",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=count, default=1)


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
    knobs = dict(knob(text, model.graph.inputs) for text in options.overrides)
    if options.entry in model.entries and "step" in model.entries[options.entry].graph.inputs:
        knobs["step"] = float(updates(run_))
    given = {n: x.expand(options.rows, *x.shape[1:]) for n, x in _given(options, model).items()}
    how = {"entry": options.entry, "backend": options.backend, "given": given}
    sampler = sampler_of(model, options.rows, options.seed, knobs, warn=_warn, **how)
    forms = {name: form_of(name, v, model) for name, v in sampler.played.items()}
    files = files_of(options, run_.samples, forms)
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
        write(files[name][: len(x)], x, name, sampler.played[name], forms[name])
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
        found[name] = recording(Path(file), name, fed[name], model, options.prompt_seconds)
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
        found[name] = recording(Path(file), name, heard[name], model, 86_400)
    return found


def _seconds(options: argparse.Namespace, given: Mapping[str, Any], model: Any) -> float:
    if options.seconds is not None or not given:
        return options.seconds or 2.0
    rates = {n: float(model.entries[options.entry].graph.inputs[n].value.type.rate or 1) for n in given}
    return min(x.shape[1] / rates[n] for n, x in given.items())


def _progress(ticks: int) -> Any:
    if not sys.stderr.isatty():
        return lambda done: None
    return lambda done: print(
        f"\r{done}/{ticks} ticks", end="\n" if done >= ticks - 255 else "", file=sys.stderr, flush=True
    )
