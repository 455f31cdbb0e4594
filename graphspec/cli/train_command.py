"""graphspec train SPEC [PARAM=VALUE ...] [--run NAME] [--resume]

Several processes: torchrun --nproc-per-node N -m -- graphspec train SPEC ...; each takes `train.batch` rows of an
update. (Without the lone `--`, torchrun under Python 3.11 takes --run for an option of its own.)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import check_spec, show, spec_path
from graphspec.diagnostic import Diagnostic, Findings, Fix, SpecError, fail
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
    parser.add_argument("--tensorboard", action="store_true", help="write scalars for TensorBoard into the run, too")
    parser.add_argument("--threads", type=int, help="torch threads on the CPU; exact resume needs the same number")


def run(options: argparse.Namespace) -> int:
    if int(os.environ.get("RANK", "0")) == 0:  # alone, or the first of the processes that torchrun started
        return _run(options)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            return _run(options, quiet=True)
        except SpecError as error:
            if any(d.code in OWN for d in error.diagnostics):
                raise
            time.sleep(5)  # the first one says it, if torchrun, which ends all when one has ended, lets it
            return 1


def _run(options: argparse.Namespace, quiet: bool = False) -> int:
    def warn(d: Any) -> None:
        if not quiet:
            show([d])

    findings = Findings()
    checked = check_spec(options.spec, options.overrides, findings)
    for d in findings.all():
        warn(d)
    import torch

    from graphspec.cli.trained import usable_device
    from graphspec.compiler.lower import lower
    from graphspec.runtime import data as datasets
    from graphspec.runtime.log import Board, require_tensorboard
    from graphspec.runtime.parallel import join, local_device
    from graphspec.runtime.run import Run
    from graphspec.runtime.train import train

    if options.threads:
        torch.set_num_threads(options.threads)
    if options.tensorboard:
        require_tensorboard()
    device = usable_device(local_device(options.device))
    numbers = checked.settings.numbers
    data = datasets.load(checked, spec_path(options.spec).parent, warn, datasets.crop_lengths(checked))
    with ExitStack() as stack:
        group = stack.enter_context(join(device))
        if group.leads:
            folder = _folder(options, checked, warn).folder
        folder = Path(group.told(str(folder) if group.leads else ""))
        model = lower(checked, seed=numbers["seed"], device=device)
        print(_about(checked, model, data, folder, group.size))
        board = None
        if options.tensorboard and group.leads:
            board = stack.enter_context(Board(folder / "tensorboard"))
        progress = stack.enter_context(_Progress(numbers["steps"], quiet))
        told = {"warn": warn, "tell": progress, "group": group, "board": board}
        outcome = train(model, data, Run(folder), resume=options.resume, **told)
    before = _together(outcome.first, 4)
    for key, value in _together(outcome.last, 4).items():
        print(f"validation {key}: " + (f"{before[key]} before, {value} after" if key in before else value))
    if outcome.skipped:
        print(f"{outcome.skipped} of {outcome.step} updates were not finite and skipped")
    if outcome.early:
        print(f"stopped early after update {outcome.step}: {numbers['early_stop']} validations without improvement")
    if outcome.signal is not None:
        if not quiet:
            told_of = f"stopped by signal {outcome.signal} after update {outcome.step}; saved. Go on with --resume"
            print(told_of, file=sys.stderr)
        return 128 + outcome.signal
    return 0


def _folder(options: argparse.Namespace, checked: Checked, warn: Any) -> Run:
    """The run's folder, made or opened."""
    from graphspec.runtime.run import new_run, open_run

    name = options.run or checked.spec.name
    if not options.resume:
        return new_run(name, checked, options.spec, options.overrides, torch_threads())
    folder = open_run(name)
    _same_run(folder, checked, options, warn)
    return folder


def _about(checked: Checked, model: Any, data: Any, folder: Path, processes: int) -> str:
    weights = sum(p.numel() for p in model.parameters())
    parts = (len(data.train), len(data.validation), len(data.test))
    together = f"; {processes} processes" if processes > 1 else ""
    return (
        f"{checked.spec.name}: {weights:,} weights; {parts[0]} files to train on, {parts[1]} to validate, "
        f"{parts[2]} held out; run {folder}{together}"
    )


# What a process of several says for itself; all else the first of them says for all.
OWN = {"GS0616", "GS0618", "GS0631", "GS0633", "GS0634"}
# These may differ on resume.
EXTENDS = {f"train.{n}" for n in ("steps", "validate_every", "save_every", "log_every", "dump", "dump_every")}


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
    if (folder.folder / "spec.yaml").read_text() != checked.spec.text:
        mend = Fix(f"train {folder.folder / 'spec.yaml'}, or start a new run: --run NAME")
        fail("GS0626", f"the spec has changed since the run '{folder.folder}' was started", span, fixes=[mend])
    before, here = {"processes": 1, **config["environment"]}, environment(options.threads or torch_threads())
    differ = [f"{k} {before.get(k)}, now {v}" for k, v in here.items() if before.get(k) != v]
    if differ:
        warn(Diagnostic("GS0632", f"exact resume needs the same environment: {'; '.join(differ)}", None, "warning"))


def torch_threads() -> int:
    import torch

    return torch.get_num_threads()


class _Progress:
    """A live line on a terminal; elsewhere one line per validation."""

    def __init__(self, steps: int, quiet: bool = False):
        self.steps, self.quiet = steps, quiet
        self.bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty() and not self.quiet:
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
        if self.bar is not None:
            shown = {k: v for k, v in row.items() if "[" not in k and not k.startswith(("lr", "gradient_", "weight"))}
        elif any(k.startswith("valid.") for k in row):
            shown = {k: v for k, v in row.items() if k.startswith(("loss.", "valid."))}
        else:
            return
        told = "  ".join(f"{k.removeprefix('loss.')} {v}" for k, v in _together(shown, 3).items())
        if self.bar is not None:
            self.bar.update(self.task, completed=step, told=told)
        else:
            print(f"update {step}/{self.steps}  {told}", flush=True)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def _together(row: Mapping[str, float], digits: int) -> dict[str, str]:
    """The numbers as text, those of the channels of one (`NAME[0]`, ...) behind it."""
    out = {}
    for name, value in row.items():
        if name.endswith("]"):
            continue
        each = [f"{v:.{digits}f}" for k, v in row.items() if k.startswith(f"{name}[")]
        out[name] = f"{value:.{digits}f}" + (f" ({', '.join(each)})" if each else "")
    return out
