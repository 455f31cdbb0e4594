"""graphspec data prepare SOURCE OUT --layout mono|stereo|split [--rate HZ] [--mono refuse|duplicate]

Recordings of any rate and width become the folder that a spec's `data:` reads. Call it again to go on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from graphspec.cli.load import show


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("prepare",))
    parser.add_argument("source", metavar="SOURCE", help="a folder; the folders in it are kept")
    parser.add_argument("out", metavar="OUT", help="a folder; what is there already is not written again")
    parser.add_argument(
        "--layout",
        choices=("mono", "stereo", "split"),
        required=True,
        help="channels mixed, two channels kept, or a file for each channel",
    )
    parser.add_argument("--rate", type=_rate, default=16000, help="in Hz (default 16000)")
    parser.add_argument(
        "--mono",
        choices=("refuse", "duplicate"),
        default="refuse",
        help="what --layout stereo does with a mono file (default: refuse)",
    )


def run(options: argparse.Namespace) -> int:
    from graphspec.runtime.prepare import prepare

    with _Progress() as progress:
        source, out = Path(options.source), Path(options.out)
        done = prepare(source, out, options.layout, options.rate, options.mono, lambda d: show([d]), progress)
    parts = [f"{done.written} written", f"{done.there} there already", f"{done.left_out} left out"]
    if done.clipped:
        parts.append(f"{done.clipped} clipped at full scale")
    print(f"{out}: of {done.recordings} recordings {', '.join(parts)}")
    return 0 if done.written or done.there else 1


def _rate(text: str) -> int:
    from graphspec.runtime.audio import MAX_RATE, MIN_RATE

    value = int(text)
    if not MIN_RATE <= value <= MAX_RATE:
        raise argparse.ArgumentTypeError(f"a rate is {MIN_RATE}..{MAX_RATE} Hz")
    return value


class _Progress:
    """A live line on a terminal; elsewhere nothing."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            named = TextColumn("{task.description}", markup=False)
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), named)
            self.bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self.task = self.bar.add_task("", total=None)
            self.bar.start()
        return self

    def __call__(self, done: int, total: int, name: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, description=name[:60])

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
