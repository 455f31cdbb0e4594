"""A run's folder, `runs/NAME/`: what was trained, with what, and where its files are."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphspec.compiler.pipeline import Checked
from graphspec.diagnostic import Fix, fail
from graphspec.runtime.checkpoint import write_atomic
from graphspec.span import Source, Span


@dataclass(frozen=True)
class Run:
    """`folder` holds spec.yaml, config.json, metrics.csv, checkpoints/, and at the end model.safetensors."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    def config(self) -> dict[str, Any]:
        path = self.folder / "config.json"
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            fail("GS0624", f"'{self.folder}' is not a run: {path.name} cannot be read ({error})", None)


def run_path(name: str) -> Path:
    """RUN on the command line: a path if it has `/`, else a name under runs/."""
    return Path(name) if "/" in name else Path("runs") / name


def open_run(name: str) -> Run:
    """An existing run. Raises GS0624."""
    folder = run_path(name)
    if not (folder / "config.json").is_file():
        known = sorted(p.parent.name for p in Path("runs").glob("*/config.json"))
        argument = Source("<command line>", name)
        fail(
            "GS0624",
            f"there is no run '{folder}'",
            Span(argument, 0, len(name)),
            notes=[f"under runs/: {', '.join(known) or 'nothing'}"],
        )
    return Run(folder)


def new_run(name: str, checked: Checked, spec: str, overrides: Sequence[str], threads: int) -> Run:
    """Make the folder and write down what is trained. An existing run is never overwritten."""
    folder = run_path(name)
    if (folder / "config.json").exists():
        argument = Source("<command line>", name)
        fail(
            "GS0623",
            f"the run '{folder}' exists already",
            Span(argument, 0, len(name)),
            fixes=[Fix("go on with it: --resume"), Fix("or give another name: --run NAME")],
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "spec.yaml", checked.spec.document.source.text.encode())
    config = {
        "spec": spec,
        "overrides": list(overrides),
        "params": dict(checked.graph.params),
        "environment": environment(threads),
    }
    write_atomic(folder / "config.json", json.dumps(config, indent=1).encode())
    return Run(folder)


def environment(threads: int) -> dict[str, Any]:
    """What exact resume depends on."""
    import numpy
    import torch

    import graphspec

    return {
        "graphspec": graphspec.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        "threads": threads,
    }
