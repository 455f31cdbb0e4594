"""Export of a graph without feeds: its step form for one block, states in and out by name."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphspec.compiler.running import Running
from graphspec.diagnostic import fail
from graphspec.graph import Value
from graphspec.ops.modules.noise import normal, stream_id, uniform
from graphspec.runtime.export_files import finish, head, rate_of, told, write
from graphspec.runtime.exported import ExportedStep

STEPS = 500  # how far the file is run back
TOLERANCE = 1e-3  # relative to the largest element of an output: float32 in another order, over STEPS steps


class _Flat(nn.Module):
    """The step form with what is prepared inside."""

    def __init__(self, form: Any, prepared: Mapping[str, Tensor]):
        super().__init__()
        self.form, self.names = form.module, [f"prepared_{i}" for i in range(len(form.prepared))]
        for name, of in zip(self.names, form.prepared, strict=True):
            self.register_buffer(name, prepared[of].detach().clone())

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        made = self.form(*flat, *(getattr(self, n) for n in self.names))
        return tuple(t.clone(memory_format=torch.contiguous_format) for t in made)


class StepExport:
    """One block of the timed outputs of a graph, as one file."""

    def __init__(self, model: Running, rows: int, target: str, folder: Path):
        self.model, self.rows, self.target, self.folder = model, rows, target, folder
        self.outputs = {n: v for n, v in model.graph.outputs.items() if v.type.timed}
        if not self.outputs:
            fail("GS0646", "the spec has no output along time, so there is no step to export", None)
        self.form = model._step(list(self.outputs.values()))
        values = model.graph.needed_for(list(self.outputs.values()))
        rates = [v.type.rate for v in values if v.is_input and v.type.rate is not None]
        if not rates:
            fail("GS0646", "the spec has no input along time, so there is no step to export", None)
        self.fastest, self.block = max(rates), model.block
        weights = [p for m in model.modules_of.values() for p in m.parameters()]
        self.like = weights[0].detach() if weights else torch.empty(0)
        self.state = model.init_state(rows, self.like)
        self.prepared = {n: t.detach() for n, t in model.prepare().items()}

    def written(self) -> dict[str, Any]:
        form = self.form
        ports = [[f"in_{i}" for i in range(len(form.inputs))], [f"noise_{i}" for i in range(len(form.noises))]]
        states = [f"state_{i}" for i in range(len(form.states))]
        nexts = [f"next_{i}" for i in range(len(form.states))]
        made = [f"out_{i}" for i in range(len(self.outputs))]
        module = _Flat(form, self.prepared)
        examples = tuple(t.clone() for t in self._operands(0, self._lively()))  # each a tensor of its own
        names = ([*ports[0], *ports[1], *states], [*made, *nexts])
        file = write(self.target, self.folder, "step", module, examples, names, next(iter(self.outputs.values())))
        with torch.no_grad():
            shapes = module(*examples)
        values: dict[str, Tensor] = {}
        owner = {v.path: v for v in self.model.graph.values}
        manifest = {
            **head("step", self.target, self.rows, self.model.graph.name),
            "rate": str(self.fastest),
            "block": self.block,
            "file": file,
            "inputs": [
                {"name": v.path, "port": p, **self._type(v, x)}
                for v, p, x in zip(form.inputs, ports[0], examples, strict=False)
            ],
            "noises": [
                {"name": v.path, "port": p, "kind": "normal" if self._normal(v) else "uniform", **self._type(v, x)}
                for v, p, x in zip(form.noises, ports[1], examples[len(ports[0]) :], strict=False)
            ],
            "outputs": [
                {"name": n, "port": p, "latency": 0, **self._type(v, x)}
                for (n, v), p, x in zip(self.outputs.items(), made, shapes, strict=False)
            ],
            "states": [
                {
                    "name": name,
                    "port": p,
                    "next": q,
                    "rate": rate_of(owner[name.rpartition("/")[0]]),
                    **told(self.state[name], f"states/{i}", values),
                }
                for i, (name, p, q) in enumerate(zip(form.states, states, nexts, strict=True))
            ],
        }
        finish(self.folder, manifest, values)
        self._run_back(module)
        return manifest

    def _type(self, v: Value, x: Tensor) -> dict[str, Any]:
        return {"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch."), "rate": rate_of(v)}

    def _normal(self, v: Value) -> bool:
        return v.op is not None and v.op.noise.startswith("normal")

    def _operands(self, block: int, state: Mapping[str, Tensor]) -> list[Tensor]:
        """Random operands of a block, seeded by its number, and the states."""
        flat = []
        rows = torch.arange(self.rows)
        for v in [*self.form.inputs, *self.form.noises]:
            type_ = v.noise if v in self.form.noises else v.type
            assert type_ is not None
            timed = v.type.timed
            n = int(self.block * v.type.rate / self.fastest) if v.type.rate is not None else 1
            after = [int(d.as_int() or 1) for d in (type_.after_time if timed else type_.dims)]
            default = self.model.graph.inputs[v.path].default if v.is_input and not timed else None
            if default is not None:
                flat.append(torch.full((1, *after), float(default), dtype=self.like.dtype))
                continue
            width = prod(after)
            kind = normal if v.is_input and type_.dtype.kind == "float" or self._normal(v) else uniform
            ticks = torch.arange(block * n, block * n + n)
            x = kind(0, stream_id(v.path), rows, ticks, width, self.like.dtype).reshape(self.rows, n, *after)
            x = x if timed else x[:, 0]
            if v.is_input and type_.dtype.kind != "float":
                classes = (type_.dtype.classes or 2) if type_.dtype.kind == "int" else 2
                x = (x * classes).long().clamp(max=classes - 1)
                x = x.bool() if type_.dtype.kind == "bool" else x
            flat.append(x)
        return flat + [state[n] for n in self.form.states]

    def _lively(self) -> dict[str, Tensor]:
        """States as they begin, floats moved a little from there."""
        out = {}
        for i, (name, t) in enumerate(self.state.items()):
            g = torch.Generator().manual_seed(i)
            moved = 0.1 * torch.randn(t.shape, generator=g, dtype=torch.float64)
            out[name] = t + moved.to(t) if t.is_floating_point() else t
        return out

    @torch.no_grad()
    def _run_back(self, module: nn.Module) -> None:
        files, state = ExportedStep(self.folder), self._lively()
        files.states = [state[n].clone() for n in self.form.states]
        mine = list(files.states)
        size = len(self.outputs)
        for block in range(STEPS):
            given = self._operands(block, state)[: len(self.form.inputs) + len(self.form.noises)]
            wanted = module(*given, *mine)
            mine = list(wanted[size:])
            inputs = {v.path: x for v, x in zip(self.form.inputs, given, strict=False)}
            noises = {v.path: x for v, x in zip(self.form.noises, given[len(inputs) :], strict=True)}
            found = files.push(inputs, noises)
            for (name, v), y in zip(self.outputs.items(), wanted, strict=False):
                if not _close(found[name], y):
                    fail("GS0646", f"run back, '{name}' of the file differs from the model at step {block}", v.span)
        for name, x, y in zip(self.form.states, files.states, mine, strict=True):
            if not _close(x, y):
                fail("GS0646", f"run back, the state {name} of the file differs from the model's", None)


def _close(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    if not wanted.is_floating_point():
        return torch.equal(found, wanted)
    size = wanted.double().abs().max().clamp(min=1e-6)
    return bool((found.double() - wanted.double()).abs().max() <= TOLERANCE * size)
