"""graphspec plot RUN [--values NAME,NAME] [--step N] [-o FILE]: a page of a run's values, spectrograms and losses."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import show
from graphspec.diagnostic import did_you_mean, fail
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.runtime.plot import Shown
    from graphspec.runtime.run import Run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument(
        "--values",
        metavar="NAME,NAME",
        default="",
        help="values of the graph (default: those of train.dump, else the outputs)",
    )
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="those that train.dump wrote after N updates (default: of the run's weights)",
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="the page (default: plot.html in the run)")
    parser.add_argument("--device", default="cpu")


def run(options: argparse.Namespace) -> int:
    from graphspec.runtime.plot import page
    from graphspec.runtime.run import open_run

    run_ = open_run(options.run)
    path = Path(options.out) if options.out else run_.folder / "plot.html"
    if path.suffix.lower() not in (".html", ".htm"):
        fail("GS0691", f"the page is a .html file, not '{path}'", None)
    names = [n.strip() for n in options.values.split(",") if n.strip()]
    drawn = _evaluated(options, names) if options.step is None else _dumped(run_, options.step, names, options.values)
    values, sounds, told = drawn
    text = page(f"{run_.folder.name} {told}", values, sounds, *_curves(run_))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail("GS0691", f"'{path}' cannot be written: {error.strerror}", None)
    print(path)
    return 0


def _curves(run_: Run) -> tuple[dict[str, Any], list[str]]:
    """The curves of metrics.csv, and what is to be said of them."""
    from graphspec.runtime.curves import read_metrics

    try:
        found = read_metrics(run_.metrics)
    except (OSError, ValueError) as error:
        return {}, [f"{run_.metrics} cannot be drawn: {error}"]
    return found.curves, [f"{found.lost} numbers of {run_.metrics} are not finite"] if found.lost else []


def _evaluated(options: argparse.Namespace, names: list[str]) -> tuple[dict[str, Shown], dict[str, Shown], str]:
    """The first validation crop through the run's newest weights."""
    from graphspec.cli.playing import SOUND
    from graphspec.cli.trained import open_model
    from graphspec.compiler.taps import checked
    from graphspec.runtime import data as datasets
    from graphspec.runtime.dump import evaluated, first_crop, output_sounds
    from graphspec.runtime.plot import Shown
    from graphspec.runtime.score import updates

    run_, model, folder = open_model(options.run, options.device, lambda d: show([d]))
    graph, settings = model.graph, model.checked.settings
    names = names or settings.numbers["dump"] or list(graph.outputs)
    values = {n: v for name in names for n, v in checked(graph, name, _place(options.values, name)).items()}
    heard = output_sounds(model, SOUND)
    data = datasets.load(model.checked, folder, lambda d: show([d]), datasets.crop_lengths(model.checked))
    crop = first_crop(model, data)
    step = updates(run_)
    arrays, _ = evaluated(model, values | heard, crop, seed=settings.numbers["seed"], step=step)

    def shown(name: str) -> Shown:
        rate = (values | heard)[name].type.rate
        return Shown(arrays[name], float(rate) if rate is not None else None)

    tracks = {n: t.audio for n, t in data.tracks.items() if isinstance(t.audio, datasets.Audio)}
    sounds = {f"{n} (target)": Shown(a.decode(crop[n][0].cpu()), a.rate) for n, a in tracks.items()}
    sounds |= {f"{n} (output)": shown(n) for n in heard}
    return {n: shown(n) for n in values}, sounds, f"after update {step}"


def _dumped(run_: Run, step: int, names: list[str], text: str) -> tuple[dict[str, Shown], dict[str, Shown], str]:
    """What was written down while it trained."""
    from graphspec.runtime.dump import read
    from graphspec.runtime.plot import Shown

    arrays, told = read(run_, step)
    every = {n: Shown(a, told["values"][n]["hz"]) for n, a in arrays.items()}
    for name in names:
        if not any(n == name or n.startswith(f"{name}.") for n in every):
            fail(
                "GS0691",
                f"'{name}' is not in the dump of step {step}{did_you_mean(name, every)}",
                _place(text, name),
                notes=[f"it has: {', '.join(every)}"],
            )
    kept = {n: s for n, s in every.items() if not names or any(n == k or n.startswith(f"{k}.") for k in names)}
    return kept, {}, f"after update {step}"


def _place(text: str, name: str) -> Span | None:
    at = text.find(name)
    return Span(Source("<command line> --values", text), at, at + len(name)) if at >= 0 else None
