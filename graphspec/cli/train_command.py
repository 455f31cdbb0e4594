"""graphspec train SPEC [PARAM=VALUE ...] [--run NAME] [--resume]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import check_spec, show, spec_path
from graphspec.diagnostic import Diagnostic, Findings, Fix, fail
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.compiler.pipeline import Checked
    from graphspec.runtime.run import Run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a path (with / or .yaml), or the name of a shipped spec")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="d=128, train.steps=500, data=FOLDER")
    parser.add_argument(
        "--run", metavar="NAME", help="the run's folder: a name under runs/, or a path (default: the model's name)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint that verifies")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--threads", type=int, help="torch threads on the CPU; exact resume needs the same number")


def run(options: argparse.Namespace) -> int:
    findings = Findings()
    checked = check_spec(options.spec, options.overrides, findings)
    show(findings.all())
    import torch

    from graphspec.cli.trained import usable_device
    from graphspec.compiler.lower import lower
    from graphspec.runtime import data as datasets
    from graphspec.runtime.run import new_run, open_run
    from graphspec.runtime.train import train

    if options.threads:
        torch.set_num_threads(options.threads)
    device = usable_device(options.device)

    def warn(d: Any) -> None:
        show([d])

    name = options.run or checked.spec.name
    crop = max(checked.settings.crop.values(), default=1)
    data = datasets.load(checked, spec_path(options.spec).parent, warn, crop)
    if options.resume:
        folder = open_run(name)
        _same_run(folder, checked, options, warn)
    else:
        folder = new_run(name, checked, options.spec, options.overrides, torch.get_num_threads())
    model = lower(checked, seed=checked.settings.numbers["seed"], device=device)
    weights = sum(p.numel() for p in model.parameters())
    parts = (len(data.train), len(data.validation), len(data.test))
    print(
        f"{checked.spec.name}: {weights:,} weights; {parts[0]} files to train on, {parts[1]} to validate, "
        f"{parts[2]} held out; run {folder.folder}"
    )
    with _Progress(checked.settings.numbers["steps"]) as progress:
        outcome = train(model, data, folder, resume=options.resume, warn=warn, tell=progress)
    for key, value in outcome.last.items():
        before = outcome.first.get(key)
        print(
            f"validation {key}: {before:.4f} before, {value:.4f} after"
            if before is not None
            else f"validation {key}: {value:.4f}"
        )
    if outcome.signal is not None:
        print(
            f"stopped by signal {outcome.signal} after update {outcome.step}; saved. Go on with --resume",
            file=sys.stderr,
        )
        return 128 + outcome.signal
    return 0


EXTENDS = {"train.steps", "train.validate_every", "train.save_every", "train.log_every"}  # may differ on resume


def _same_run(folder: Run, checked: Checked, options: argparse.Namespace, warn: Any) -> None:
    """A run goes on with the spec and overrides it was started with; only how long and how often may change."""
    from graphspec.runtime.run import environment

    config = folder.config()
    before, now = (dict(o.split("=", 1) for o in given) for given in (config["overrides"], options.overrides))
    changed = [k for k in {**before, **now} if before.get(k) != now.get(k) and k not in EXTENDS]
    told = " ".join(options.overrides)
    span = Span(Source("<command line>", told), 0, len(told))
    if changed:
        was = " ".join(config["overrides"]) or "none"
        fail("GS0626", f"the run was started with other overrides: {was}", span, fixes=[Fix("give the same ones")])
    if (folder.folder / "spec.yaml").read_text() != checked.spec.document.source.text:
        mend = Fix(f"train {folder.folder / 'spec.yaml'}, or start a new run: --run NAME")
        fail("GS0626", f"the spec has changed since the run '{folder.folder}' was started", span, fixes=[mend])
    was, here = config["environment"], environment(options.threads or torch_threads())
    differ = [f"{k} {was.get(k)}, now {v}" for k, v in here.items() if was.get(k) != v]
    if differ:
        warn(Diagnostic("GS0632", f"exact resume needs the same environment: {'; '.join(differ)}", None, "warning"))


def torch_threads() -> int:
    import torch

    return torch.get_num_threads()


class _Progress:
    """A live line on a terminal; elsewhere one line per validation."""

    def __init__(self, steps: int):
        self.steps = steps
        self.bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[told]}"),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=2)
            self.task = self.bar.add_task("", total=self.steps, told="")
            self.bar.start()
        return self

    def __call__(self, step: int, row: Mapping[str, float]) -> None:
        told = "  ".join(
            f"{k.removeprefix('loss.')} {v:.3f}" for k, v in row.items() if k.startswith(("loss.", "valid."))
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=step, told=told)
        elif any(k.startswith("valid.") for k in row):
            print(f"update {step}/{self.steps}  {told}", flush=True)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
