"""A run's folder, `runs/NAME/`: what was trained, with what, and where its files are."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphspec.compiler.pipeline import Checked
from graphspec.declare import show
from graphspec.diagnostic import Fix, fail
from graphspec.graph import Graph, Value
from graphspec.runtime.checkpoint import Origin, write_atomic
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
    def dumps(self) -> Path:
        return self.folder / "dumps"

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
        here = (Path(name) / "config.json").is_file()  # a name is one under runs/, whatever lies here
        fail(
            "GS0624",
            f"there is no run '{folder}'",
            Span(argument, 0, len(name)),
            notes=[f"under runs/: {', '.join(known) or 'nothing'}"],
            fixes=[Fix(f"the one in this folder is ./{name}")] if here else [],
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
    write_atomic(folder / "spec.yaml", checked.spec.text.encode())
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
    from graphspec.runtime.parallel import size_of_group

    return {
        "graphspec": graphspec.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        "threads": threads,
        "processes": size_of_group(),
    }


def origin(checked: Checked, world_size: int = 1) -> Origin:
    """What a checkpoint's manifest says of where it comes from."""
    versions = {k: str(v) for k, v in environment(0).items() if k not in ("machine", "threads")}
    return Origin(spec_hash(checked.graph), versions, world_size)


def spec_hash(graph: Graph) -> str:
    """SHA-256 of what the spec computes, resolved: every value with its op, arguments, operands and type.

    Params, libraries and overrides are in it as far as they change a value; comments, the order of keys, how it is
    trained and arguments that equal their default are not.
    """
    return hashlib.sha256("\n".join(map(resolved, graph.values)).encode()).hexdigest()


def resolved(value: Value) -> str:
    """A value in one line: its op, arguments that are no defaults, operands, type."""
    if value.op is None:
        what = f"part {value.part}" if value.part else "input"
        arguments: list[str] = []
    else:
        what, op = value.op.name, value.op
        given = [(name, a, op.parameter(name)) for name, a in sorted(value.arguments.items())]
        arguments = [f"{name}={show(a)}" for name, a, p in given if p is None or p.required or p.default != a]
    operands = [o.path if isinstance(o, Value) else show(o.value) for o in value.operands]
    slots = [f"{slot}={o}" for slot, o in zip(value.slots, operands, strict=True)] if value.slots else operands
    before = f" before {show(value.before)}" if value.before is not None else ""
    return f"{value.path}: {value.type} = {what}({', '.join([*slots, *arguments])}){before}"
