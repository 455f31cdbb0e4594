"""Export of the step: files that other programs run, with their states as named inputs and outputs.

A spec that feeds itself becomes its sampler's stages with their tables, one without a feed its step form for one block.
`state.json` says what every input is and how a state begins (exported.py reads it, and is its explanation). The files
are run back against eager from a state that is not zero before the folder is put in its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphspec.compiler.running import Running
from graphspec.diagnostic import fail
from graphspec.ops.modules.noise import stream_id
from graphspec.runtime.agreement import disagreements
from graphspec.runtime.export_files import finish, head, rate_of, told, write
from graphspec.runtime.export_step import STEPS, StepExport
from graphspec.runtime.exported import ExportedSampler
from graphspec.runtime.sample import Sampler
from graphspec.runtime.ticks import Cell, Ticks

TARGETS = ("pt2", "onnx", "aoti")
EDGES = 5  # draws that may differ, all within 1e-4 of a step of the distribution function


def export(make: Callable[[], Sampler] | None, model: Running, target: str, out: Path, rows: int) -> dict[str, Any]:
    """Write `out` and return its manifest. make: fresh samplers of the entry; none: the step form of `model`.

    Raises GS0646 where the target cannot say the model, a result differs, or `out` exists.
    """
    if out.exists():
        fail("GS0646", f"{out} exists already; an export overwrites nothing", None)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / "export"
        folder.mkdir()
        if make is None:
            manifest = StepExport(model, rows, target, folder).written()
        else:
            manifest = _sampler(make, target, folder)
        try:
            folder.rename(out)
        except OSError as error:
            fail("GS0646", f"{out} cannot be put in place: {error.strerror}", None)
    return manifest


# ---- samplers --------------------------------------------------------------------------------------------------------


def _sampler(make: Callable[[], Sampler], target: str, folder: Path) -> dict[str, Any]:
    sampler = make()
    ticks, s = Ticks(sampler), sampler
    if ticks.growing is not None:
        fail("GS0646", f"the state of {ticks.growing.path} grows with time; a file has one size", ticks.growing.span)
    values: dict[str, Tensor] = {}
    place = {c: i for i, c in enumerate(ticks.cells)}
    states = list(dict.fromkeys(x for stage in ticks.stages for x in stage.states))
    owners = {slot: v for v, slot in s.slots.items()}
    random = list(dict.fromkeys(n[0] for t in ticks.ticks for n in t.noises))
    statics: list[Tensor] = []
    for each in ticks.statics:
        statics += [t for t in each if not any(t is known for known in statics)]
    knobs = {id(x): v.path for v, x in s.knobs.items() if isinstance(x, Tensor)}
    stages = []
    for n, stage in enumerate(ticks.stages):
        names = ticks.names(n)
        stages.append(
            {
                "file": write(target, folder, f"stage_{n}", stage, ticks.examples(n), names, ticks.blamed(n)),
                "inputs": names[0],
                "outputs": names[1],
                "states": [states.index(x) for x in stage.states],
                "statics": [next(i for i, t in enumerate(statics) if t is own) for own in ticks.statics[n]],
            }
        )
    sources = [source for source, _ in s.plan.fed]
    manifest = {
        **head("sampler", target, s.rows, s.model.graph.name),
        "entry": s.view.graph.name,
        "rate": rate_of(sources[0]),
        "block": s.plan.block,
        "latency": 0,
        "fed": {
            source.path: [place.get(Cell("element", p.register, 0)) for p in s.where[source]] for source in sources
        },
        "cells": [told(_first(ticks, c), f"cells/{i}", values) for c, i in place.items()],
        "states": [
            {
                "name": f"{owners[slot].path}/{name}",
                "rate": rate_of(owners[slot]),
                **told(s.states[slot][name], f"states/{i}", values),
            }
            for i, (slot, name) in enumerate(states)
        ],
        "statics": [
            {"name": knobs.get(id(t), f"static_{i}"), **told(t, f"statics/{i}", values)} for i, t in enumerate(statics)
        ],
        "noises": [
            {
                "name": v.path,
                "kind": "normal" if v.op is not None and v.op.noise.startswith("normal") else "uniform",
                "stream": stream_id(v.path),
                "per_block": s.plan.elements[v],
                "shape": [int(d.as_int() or 1) for d in v.noise.after_time] if v.noise is not None else [],
            }
            for v in random
        ],
        "stages": stages,
        "ticks": [
            {
                "stage": t.stage,
                "cells": [place[c] for c in t.inputs],
                "noises": [{"noise": random.index(v), "first": first, "count": count} for v, first, count in t.noises],
                "outputs": [None if c is None else place[c] for c in t.outputs],
                "leaving": [[name, place[c]] for name, c in t.leaving],
            }
            for t in ticks.ticks
        ],
        "moves": [[place[to], place[of]] for to, of in ticks.moves],
    }
    finish(folder, manifest, values)
    _run_back_sampler(make(), folder)
    return manifest


def _first(ticks: Ticks, cell: Cell) -> Tensor:
    held = ticks.value(cell)
    return ticks.shapes[cell] if held is None else held


def _run_back_sampler(eager: Sampler, folder: Path) -> None:
    """The written files draw STEPS ticks; eager, held to them, must agree. All states are under way by then."""
    random = {v.path: v for v in eager.plan.values if v.noise is not None}
    held: dict[str, tuple[int, Tensor]] = {}

    def noise(name: str, first: int, count: int) -> Tensor:
        start, x = held.get(name, (0, torch.empty(0, 0)))
        if not start <= first <= first + count <= start + x.shape[1]:
            start, x = held[name] = first, eager._drawn(random[name], first, max(STEPS, count))
        return x[:, first - start : first - start + count].contiguous()

    files = ExportedSampler(folder, noise)
    drawn: dict[str, list[Tensor]] = {source.path: [] for source, _ in eager.plan.fed}
    for _ in range(STEPS):
        k = files.tick % eager.plan.block
        leaving = files.draw()
        for name in drawn:
            at = files.manifest["fed"][name][k]
            drawn[name].append(files.cells[at] if at is not None else leaving[name])
    edges = 0
    for tick, name, excused in disagreements(eager, {n: torch.cat(x, 1) for n, x in drawn.items()}):
        edges += 1
        if not excused or edges > EDGES:
            fail("GS0646", f"run back, the files draw '{name}' otherwise than the model at tick {tick}", None)
