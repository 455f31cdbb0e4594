"""Exported folders, run back from what is written in them: `state.json`, `values.safetensors` and the compiled files.

This needs no compiler and no spec, and says by its code how the manifest is meant. Two kinds:

step     one file, called block by block: inputs, noises and states in, outputs and next states out.
sampler  a file a stage. A tick of the block takes cells, states, statics and noises by their numbers, gives cells and
         next states; after the last tick `moves` are made, all at once, and the block begins again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Call = Callable[[list[Tensor]], Sequence[Tensor]]
DTYPES = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64, "bool": torch.bool}


class Exported:
    """A folder that `graphspec export` wrote. `manifest` is its state.json."""

    def __init__(self, folder: Path):
        from safetensors.torch import load_file

        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "state.json").read_text())
        self.values = load_file(folder / "values.safetensors")

    def begin(self, what: str) -> list[Tensor]:
        """The first `states`, `cells` or `statics`, fresh."""
        return [self._first(what, i, each) for i, each in enumerate(self.manifest[what])]

    def _first(self, what: str, i: int, told: Mapping[str, Any]) -> Tensor:
        if told["init"] == "values":
            return self.values[f"{what}/{i}"].clone()
        return torch.full(tuple(told["shape"]), told["init"], dtype=DTYPES[told["dtype"]])

    def call(self, file: str, given: Sequence[str], made: Sequence[str]) -> Call:
        """A written file as a function of its operands, in order."""
        path = self.folder / file
        target = self.manifest["target"]
        if target == "onnx":
            from graphspec.runtime.backend_onnx import call_of, session

            return call_of(session(path.read_bytes()), list(given), list(made))  # type: ignore[no-any-return]
        if target == "aoti":
            from graphspec.runtime.backend_aoti import loader_of

            return loader_of(path).boxed_run  # type: ignore[no-any-return]
        module = torch.export.load(path).module()
        return lambda flat: module(*flat)


class ExportedStep(Exported):
    """Blocks through the step form. `states` are the present ones, in the manifest's order."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        m = self.manifest
        self.given = [x["port"] for part in ("inputs", "noises", "states") for x in m[part]]
        made = [x["port"] for x in m["outputs"]] + [x["next"] for x in m["states"]]
        self.run = self.call(m["file"], self.given, made)
        self.states = self.begin("states")

    @torch.no_grad()
    def push(self, inputs: Mapping[str, Tensor], noises: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """One block of every input, by name, and of every noise; the outputs by name."""
        m = self.manifest
        flat = [inputs[x["name"]] for x in m["inputs"]] + [(noises or {})[x["name"]] for x in m["noises"]]
        made = self.run([*flat, *self.states])
        n = len(m["outputs"])
        self.states = list(made[n:])
        return {x["name"]: y for x, y in zip(m["outputs"], made[:n], strict=True)}


class ExportedSampler(Exported):
    """Ticks of a sampler. `noise(name, first, count)` are elements first .. of a random operand, from the start."""

    def __init__(self, folder: Path, noise: Callable[[str, int, int], Tensor]):
        super().__init__(folder)
        m = self.manifest
        self.calls = [self.call(s["file"], s["inputs"], s["outputs"]) for s in m["stages"]]
        self.cells, self.states, self.statics = (self.begin(what) for what in ("cells", "states", "statics"))
        self.noise = noise
        self.tick = 0

    @torch.no_grad()
    def draw(self) -> dict[str, Tensor]:
        """The next tick: what leaves at it, by name, `[rows, 1, ...]` each."""
        m = self.manifest
        block, k = divmod(self.tick, m["block"])
        at = m["ticks"][k]
        stage = m["stages"][at["stage"]]
        flat = [self.cells[c] for c in at["cells"]] + [self.states[s] for s in stage["states"]]
        flat += [self.statics[s] for s in stage["statics"]]
        for n in at["noises"]:
            per_block = m["noises"][n["noise"]]["per_block"]
            flat.append(self.noise(m["noises"][n["noise"]]["name"], block * per_block + n["first"], n["count"]))
        made = self.calls[at["stage"]](flat)
        for c, x in zip(at["outputs"], made, strict=False):
            if c is not None:
                self.cells[c] = x
        for s, x in zip(stage["states"], made[len(at["outputs"]) :], strict=True):
            self.states[s] = x
        leaving = {name: self.cells[c] for name, c in at["leaving"]}
        if k == m["block"] - 1:
            for to, x in [(to, self.cells[of]) for to, of in m["moves"]]:
                self.cells[to] = x
        self.tick += 1
        return leaving
