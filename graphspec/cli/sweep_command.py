"""graphspec sweep SPEC NAME=A,B [NAME=C,D ...] [NAME=VALUE ...] [--out DIR] [--jobs N]: train a grid, and compare it.

Called again it goes on: finished cells stay, interrupted ones resume, failed ones are tried again, new ones are added.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import check_spec, show, spec_path
from graphspec.cli.tables import print_table
from graphspec.cli.train_command import EXTENDS
from graphspec.diagnostic import Diagnostic, SpecError

if TYPE_CHECKING:
    from graphspec.runtime.grid import Cell
    from graphspec.runtime.sweep import Job
    from graphspec.runtime.sweep_table import Result


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a path (with / or .yaml), or the name of a shipped spec")
    parser.add_argument(
        "overrides", nargs="*", metavar="NAME=A,B", help="d=16,32 smoothing=none,one_pole train.steps=500 data=FOLDER"
    )
    parser.add_argument("--out", metavar="DIR", help="default: runs/MODEL-sweep")
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="trainings at once (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument(
        "--audio",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds to sample of a cell that can (default 1; 0: none)",
    )


def run(options: argparse.Namespace) -> int:
    from graphspec.runtime.grid import read_grid
    from graphspec.runtime.sweep import alone, train_all

    cells = read_grid(options.overrides)
    model, loaded = _checked(options.spec, cells)
    out = Path(options.out) if options.out else Path("runs") / f"{model}-sweep"
    with alone(out) as lock:
        jobs = [_job(cell, found, out, options.spec) for cell, found in loaded]
        done = sum(j.state == "finished" for j in jobs)
        print(f"{len(jobs)} cells" + (f", {done} of them finished before" if done else "") + f"; {out}", flush=True)

        def command(job: Job, resume: bool) -> list[str]:
            words = ["train", options.spec, *job.cell.overrides, "--run", _path(job.folder), "--device", options.device]
            return [sys.executable, "-m", "graphspec", *words, *(["--resume"] if resume else [])]

        signal = train_all(jobs, command, options.jobs, lock, _tell)
        if signal is None:
            for job in jobs:
                if job.state == "finished":
                    _measure(job, out, options)
        results = _report(f"{model}: {_axes(cells)}", jobs, out)
    if signal is not None:
        print(f"stopped by signal {signal}; the same command goes on", file=sys.stderr)
        return 128 + signal
    return 1 if all(r.job.state == "failed" for r in results) else 0


def _checked(spec: str, cells: list[Cell]) -> tuple[str, list[tuple[Cell, Any]]]:
    """The model's name, and each cell with its checked spec or the error that it is; an error of all is raised."""
    found: list[tuple[Cell, Any]] = []
    for cell in cells:
        try:
            found.append((cell, check_spec(spec, cell.overrides)))
        except SpecError as error:
            found.append((cell, error))
    good = [c for _, c in found if not isinstance(c, SpecError)]
    if not good:
        raise found[0][1]
    return good[0].spec.name, found


def _job(cell: Cell, found: Any, out: Path, spec: str) -> Job:
    from graphspec.graph import Value
    from graphspec.runtime.sweep import Job

    # With what it extends written into it: a change of the base is another spec.
    text = spec_path(spec).read_text() if isinstance(found, SpecError) else found.spec.text
    folder = cell.folder(out / "cells", text, EXTENDS)
    log = out / "logs" / f"{folder.name}.txt"
    if isinstance(found, SpecError):
        d: Diagnostic = found.diagnostics[0]
        job = Job(cell, folder, log, 0, {}, "failed", f"{d.code} {d.message}")
        _tell(job)
        return job
    weights = {t.name: None if isinstance(t.weight, Value) else float(t.weight) for t in found.graph.losses}
    job = Job(cell, folder, log, found.settings.numbers["steps"], weights)
    job.state = "finished" if job.finished else "waiting"
    return job


def _tell(job: Job) -> None:
    told = f"{job.state}: {job.why}; see {job.log}" if job.why and job.log.exists() else job.why or job.state
    print(f"{job.cell.title}: {told}", flush=True)


def _measure(job: Job, out: Path, options: argparse.Namespace) -> None:
    """Ask a finished cell for its size, its times and its sound, once; then it is marked as finished."""
    from graphspec.cli.playing import SOUND
    from graphspec.cli.trained import open_model
    from graphspec.runtime import data as datasets
    from graphspec.runtime import snapshot
    from graphspec.runtime.checkpoint import write_atomic
    from graphspec.runtime.score import updates

    if job.finished:
        return
    told: dict[str, Any] = {"steps": job.steps, "overrides": list(job.cell.overrides)}
    audio, name = out / "audio", job.folder.name
    try:
        run_, model, folder = open_model(_path(job.folder), options.device, lambda d: show([d]))
        data = datasets.load(model.checked, folder, lambda d: None, datasets.crop_lengths(model.checked))
        told |= snapshot.timed_passes(model, data)
        files = {}
        if options.audio > 0 and snapshot.can_draw(model):
            files = _sampled(job, audio / f"{name}.wav", options)
        if not files:
            files = snapshot.sounds(model, data, audio, name, SOUND, updates(run_))
        told["sounds"] = {title: str(path.relative_to(out)) for title, path in files.items()}
    except SpecError as error:  # it trained; that it cannot be asked is told, and no reason to train it again
        show(error.diagnostics)
    write_atomic(job.mark, json.dumps(told, indent=1).encode())


def _sampled(job: Job, path: Path, options: argparse.Namespace) -> dict[str, Path]:
    """A sample of the run, in a process of its own: a fault there costs the sound and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = ["sample", _path(job.folder), "--seconds", str(options.audio), "-o", str(path), "--device", options.device]
    whole = [sys.executable, "-m", "graphspec", *words]
    done = subprocess.run(whole, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode == 0 and path.is_file():
        return {"sample": path}
    last = (done.stderr.strip().splitlines() or ["no reason was given"])[0]
    print(f"{job.cell.title}: it cannot be sampled: {last}", file=sys.stderr)
    return {}


def _report(title: str, jobs: list[Job], out: Path) -> list[Result]:
    """Write sweep.csv and sweep.html, and print the table and its reading."""
    from graphspec.runtime.checkpoint import write_atomic
    from graphspec.runtime.sweep_table import as_csv, as_rows, page, plainly, result

    results = [result(job) for job in jobs]
    write_atomic(out / "sweep.csv", as_csv(results))
    write_atomic(out / "sweep.html", page(title, results).encode())
    print_table(title, *as_rows(results))
    for line in plainly(results):
        print(line)
    print(out / "sweep.csv")
    print(out / "sweep.html")
    return results


def _axes(cells: list[Cell]) -> str:
    every = {n: list(dict.fromkeys(c.values[n] for c in cells)) for n in cells[0].values}
    return " ".join(f"{n}={','.join(values)}" for n, values in every.items())


def _path(folder: Path) -> str:
    """The folder as a path: a bare name would be one under runs/."""
    return str(folder) if "/" in str(folder) else f"./{folder}"


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError("a whole number from 1 to 256")
    return value
