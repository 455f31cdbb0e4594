"""Weights of the s4 repository's SaShiMi in a model of a spec: mapped block by block, checked, kept as a run.

The blocks of both are matched in their order (pools, layers, norms, head), not by what a spec calls them. Every name
and shape is compared before a weight is set, and all that do not fit are told at once. What the two write differently
is converted in float64: the step (exp or softplus), shared systems, C, normed pools. Then the model is run on random
input, whole and in steps.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from graphspec.compiler.lower import Model
from graphspec.compiler.pipeline import Checked
from graphspec.diagnostic import Fix, fail
from graphspec.runtime import checkpoint
from graphspec.runtime.run import Run, new_run, origin
from graphspec.runtime.s4_checkpoint import KERNEL, Block, Checkpoint, kinds
from graphspec.runtime.trial import Trial
from graphspec.runtime.verify import forms
from graphspec.span import Source, Span

SYSTEMS = ("s4", "s4d")
NORMS = ("layer_norm", "channel_norm")
SHOWN = 40  # names in one message
CHECKED = 64  # ticks


@dataclass(frozen=True)
class Part:
    """A block of the model: `table`, `pool`, `ssm`, `ff` or `end`; ops: (path of its weights, op) in order."""

    kind: str
    ops: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """tensors: every weight of the model by its spec name, float64. sources: what each was made from in the file."""

    tensors: dict[str, Tensor]
    sources: dict[str, str]


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pt`, `.pth` or `.ckpt` file; no code in it is ever run. Raises GS0647."""
    if not path.is_file():
        _unreadable(path, "there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split(". ")[-1].strip().splitlines()[0][:200]
        _unreadable(path, f"it holds more than tensors ({reason})")
    except Exception as error:  # foreign code on foreign bytes
        _unreadable(path, (str(error).strip().splitlines() or [type(error).__name__])[0][:200])
    inner = loaded.get("state_dict") if isinstance(loaded, Mapping) else None
    found = inner if isinstance(inner, Mapping) else loaded
    if not isinstance(found, Mapping):
        _unreadable(path, f"it holds a {type(loaded).__name__}, not names and tensors")
    state = {str(name): x for name, x in found.items() if isinstance(x, Tensor)}
    if not state:
        _unreadable(path, "it holds no tensors")
    return state


def imported(model: Model, state: Mapping[str, Tensor], step: str = "") -> Outcome:
    """What the weights of `model` become; the model is not changed. Raises GS0648 with all that does not fit.

    step: how the file keeps the step, `exp` or `softplus`; "" is exp of the standalone, softplus of the modular model.
    """
    return _Import(model, state, step).run()


def check(model: Model, seed: int = 0) -> str:
    """Run whole and in steps, in float64, on random input; what was compared. Raises GS0649 for what is not finite."""
    kept = next(model.parameters()).dtype
    trial = Trial(model.double().eval(), CHECKED, seed)
    with torch.no_grad():
        for v, x in zip(trial.streamed, model.evaluate(trial.streamed, trial.given, trial.noise), strict=True):
            if x.is_floating_point() and not x.isfinite().all():
                fail(
                    "GS0649",
                    f"with these weights '{v.path}' is not finite on random input",
                    None,
                    fixes=[Fix("give --step if the file keeps its step otherwise; else the file's training diverged")],
                )
    told = forms(trial).told
    model.to(kept)
    return told


def keep(
    name: str, checked: Checked, spec: str, overrides: Sequence[str], model: Model, file: Path, sources: dict[str, str]
) -> Run:
    """A run with the model's weights at update 0, as `sample`, `eval` and `train --resume` open it.

    Its optimizer has seen nothing. Raises GS0623 if there is such a run already.
    """
    run = new_run(name, checked, spec, overrides, torch.get_num_threads())
    weights = dict(model.state_dict())
    groups = {"weights": weights} | ({"average": weights} if checked.settings.numbers["ema"] is not None else {})
    begun = {"step": 0, "first": {}, "last": {}}
    checkpoint.save(run.checkpoints, 0, groups | {"optimizer": {}}, begun, origin=origin(checked))
    checkpoint.save_model(run.model, weights)
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    told = {"file": str(file), "sha256": digest, "sources": sources}
    checkpoint.write_atomic(run.folder / "imported.json", json.dumps(told, indent=1).encode())
    return run


class _Import:
    def __init__(self, model: Model, state: Mapping[str, Tensor], step: str) -> None:
        self.model, self.file = model, Checkpoint(state)
        self.step = step or ("softplus" if self.file.scalar else "exp")
        self.ops = {v.path: module for v, module in model.modules_of.items()}
        self.wanted = {name: w.shape for name, w in model.weights().items()}
        self.tensors: dict[str, Tensor] = {}
        self.sources: dict[str, str] = {}
        self.missing: list[str] = []
        self.misshapen: list[str] = []

    def run(self) -> Outcome:
        parts = list(_parts(self.model))
        inner = [part for part in parts if part.kind not in ("table", "end")]
        blocks = self.file.blocks
        if not blocks or [p.kind for p in inner] != [b.kind for b in blocks]:
            there = ", ".join(kinds(blocks)) or "no d_layers, c_layers, u_layers at all"
            here = ", ".join(kinds([Block(p.kind, "") for p in inner]))
            fail(
                "GS0648",
                f"the checkpoint has other blocks than the spec '{self.model.graph.name}'",
                None,
                notes=[f"in the file: {there}", f"in the spec: {here}"],
                fixes=[Fix("give the depth and the pools of the file, as depth=8")],
            )
        for part in parts:
            if part.kind == "table":
                self._copy(self.file.ends, "table", f"{part.ops[0][0]}.weight", "the encoder's table")
            elif part.kind == "end":
                (norm, op), (head, _) = part.ops
                self._norm(self.file.ends, norm, op)
                for leaf in ("weight", "bias"):
                    self._copy(self.file.ends, f"head.{leaf}", f"{head}.{leaf}", f"the decoder's {leaf}")
        for part, block in zip(inner, blocks, strict=True):
            getattr(self, f"_{part.kind}")(part, block)
        untold = [name for name in self.wanted if name not in self.tensors]
        unread = self.file.unread()
        if self.missing or self.misshapen or unread or untold:
            self._refuse(unread, untold)
        return Outcome({name: self.tensors[name] for name in self.wanted}, self.sources)

    def _refuse(self, unread: list[str], untold: list[str]) -> NoReturn:
        lists = (("not in the file", self.missing), ("of another shape", self.misshapen), ("not in the spec", unread))
        counts = [f"{len(names)} {what}" for what, names in lists if names]
        notes = [f"{what}: {name}" for what, names in lists for name in names[:SHOWN]]
        cut = sum(max(0, len(names) - SHOWN) for _, names in lists)
        if not counts:
            counts, notes = [f"{len(untold)} weights without a source"], untold[:SHOWN]
        fail(
            "GS0648",
            f"the checkpoint does not fit the spec '{self.model.graph.name}': {', '.join(counts)}",
            None,
            notes=[*notes, *([f"and {cut} more"] if cut else [])],
            fixes=[Fix("sashimi_modular is the spec of the published checkpoints, sashimi of the standalone model")],
        )

    # ---- blocks -----------------------------------------------------------------------------------------------------

    def _pool(self, part: Part, block: Block) -> None:
        ((path, _),) = part.ops
        self._map(block, "linear", path)

    def _ff(self, part: Part, block: Block) -> None:
        (norm, op), (first, _), (second, _) = part.ops
        self._norm(block, norm, op)
        self._map(block, "layer.ff.0.0", first)
        self._map(block, "layer.ff.2", second)

    def _ssm(self, part: Part, block: Block) -> None:
        (norm, op), (path, _), (mixed, _) = part.ops
        self._norm(block, norm, op)
        self._map(block, "layer.output_linear.0", mixed)
        self._copy(block, "layer.layer.D", f"{path}.d")
        needs = ["A_real", "A_imag", "B", "C", *(["P"] if f"{path}.p" in self.wanted else [])]
        absent = [leaf for leaf in needs if not {KERNEL + leaf, KERNEL + _OLD.get(leaf, leaf)} & set(block.leaves)]
        if not {KERNEL + "inv_dt", KERNEL + "log_dt"} & set(block.leaves):
            absent.insert(0, "inv_dt")
        for leaf in absent:
            self.missing.append(f"{block.name}.{KERNEL}{leaf}")
        if absent:  # what is there of it is not told as too much
            self.file.used.update(name for leaf, (name, _) in block.leaves.items() if leaf.startswith(KERNEL))
            self._give_up(path)
            return
        system = self.file.system(
            block, self.step, lambda leaf, x: self.misshapen.append(f"{block.name}.{leaf} {list(x.shape)}")
        )
        if system is None:
            self._give_up(path)
            return
        if system.p is not None and f"{path}.p" not in self.wanted:  # the spec's is diagonal: it has nowhere to go
            self.file.used.discard(block.leaves[KERNEL + "P"][0])
        soft = getattr(self.ops[path], "softplus", False)
        dt = system.dt
        made = {
            "log_dt": dt + torch.log(-torch.expm1(-dt)) if soft else dt.log(),
            "log_a_re": (-system.a.real).log(),
            "a_im": -system.a.imag,
            "b": torch.view_as_real(system.b),
            "c": torch.view_as_real(system.c.resolve_conj()),
        }
        if system.p is not None and f"{path}.p" in self.wanted:
            made["p"] = torch.view_as_real(system.p)
        for leaf, x in made.items():
            wanted = self.wanted[f"{path}.{leaf}"]
            if leaf in ("log_a_re", "a_im", "b", "p") and wanted[1:] == x.shape[1:] and wanted[0] % len(x) == 0:
                x = x.repeat(wanted[0] // len(x), *[1] * (x.dim() - 1))  # shared by channels there, not here
            self._set(f"{path}.{leaf}", x, f"{block.name}.{KERNEL[:-1]}")

    def _norm(self, block: Block, path: str, op: str) -> None:
        for leaf in ("m", "s") if op == "channel_norm" else ("weight", "bias"):
            self._copy(block, f"norm.{leaf}", f"{path}.{leaf}")

    def _map(self, block: Block, leaf: str, path: str) -> None:
        """A linear map, its weight plain or as length and direction, on either side."""
        self._copy(block, f"{leaf}.bias", f"{path}.bias")
        g, v = f"{leaf}.weight_g", f"{leaf}.weight_v"
        normed = f"{path}.v" in self.wanted
        if g not in block.leaves or v not in block.leaves:
            if not normed or f"{leaf}.weight" not in block.leaves:
                if normed:
                    self.missing += [f"{block.name}.{x}" for x in (g, v)]
                    self._give_up(path, but="bias")
                else:
                    self._copy(block, f"{leaf}.weight", f"{path}.weight")
                return
            weight = self._matrix(block, f"{leaf}.weight", self.wanted[f"{path}.v"])
            self._set(f"{path}.v", weight, f"{block.name}.{leaf}.weight")
            self._set(f"{path}.g", torch.linalg.vector_norm(weight, dim=1), f"{block.name}.{leaf}.weight")
        elif normed:
            self._copy(block, g, f"{path}.g")
            self._copy(block, v, f"{path}.v")
        else:
            length, way = self.file.read(block, g).reshape(-1, 1), self.file.read(block, v).flatten(1)
            made = length * way / torch.linalg.vector_norm(way, dim=1, keepdim=True)
            self._set(f"{path}.weight", made, f"{block.name}.{g}, {v}")

    # ---- one weight -------------------------------------------------------------------------------------------------

    def _matrix(self, block: Block, leaf: str, wanted: torch.Size) -> Tensor:
        x = self.file.read(block, leaf)
        return x.reshape(wanted) if _plain(x.shape) == _plain(wanted) else x

    def _copy(self, block: Block, leaf: str, name: str, called: str = "") -> None:
        """As it is, but for axes of one (a head, a kernel of 1x1)."""
        if name not in self.wanted:
            return
        if leaf not in block.leaves:
            there = f"{block.name}." if block.name else ""
            self.missing.append(called or f"{there}{leaf}")
            self.tensors[name] = torch.empty(0)
            return
        self._set(name, self._matrix(block, leaf, self.wanted[name]), block.leaves[leaf][0])

    def _set(self, name: str, x: Tensor, source: str) -> None:
        if name not in self.wanted:
            return
        if x.shape != self.wanted[name]:
            self.misshapen.append(f"{source} is {list(x.shape)}, {name} {list(self.wanted[name])}")
        self.tensors[name], self.sources[name] = x, source

    def _give_up(self, path: str, but: str = "") -> None:
        """Its weights are told as missing already."""
        for name in self.wanted:
            if name.rpartition(".")[0] == path and not name.endswith(f".{but}"):
                self.tensors.setdefault(name, torch.empty(0))


_OLD = {"A_imag": "w_imag"}


def _plain(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def _parts(model: Model) -> Iterator[Part]:
    """The blocks of the model in their order. Raises GS0648 for one that is no SaShiMi."""
    op_of = {v.path: v.op.name for v in model.graph.values if v.op is not None}
    paths = list(dict.fromkeys(name.rpartition(".")[0] for name in model.weights()))
    ops = [(path, op_of.get(path, "")) for path in paths]
    at = 0
    while at < len(ops):
        names = [op for _, op in ops[at : at + 3]]
        if names[0] == "embed":
            kind, n = "table", 1
        elif names[0] == "linear":
            kind, n = "pool", 1
        elif names[0] in NORMS and len(names) == 3 and names[1] in SYSTEMS and names[2] == "linear":
            kind, n = "ssm", 3
        elif names[0] in NORMS and names[1:] == ["linear", "linear"]:
            kind, n = "ff", 3
        elif names[0] in NORMS and len(names) == 2:
            kind, n = "end", 2
        else:
            fail(
                "GS0648",
                f"the spec '{model.graph.name}' is no SaShiMi as the s4 repository has it: at '{ops[at][0]}'",
                None,
                notes=[
                    "its blocks: a table; pools; norm, s4 or s4d, linear; norm and two linear; at last norm and head"
                ],
            )
        yield Part(kind, tuple(ops[at : at + n]))
        at += n


def _unreadable(path: Path, reason: str) -> NoReturn:
    name = str(path)
    fail(
        "GS0647",
        f"{name} cannot be read as a checkpoint: {reason}",
        Span(Source("<command line>", name), 0, len(name)),
        fixes=[Fix("keep the state dict alone: torch.save(model.state_dict(), FILE), or as .safetensors")],
    )
