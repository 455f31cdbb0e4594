"""How the stages of a sampler are run: the loop over compiled calls, and which backend a length is worth.

A backend has `load()`, which takes over the sampler's cells and states at its present tick, and `draw(ticks, tell)`,
which plays on from there. All have the same stages and tables (ticks.py); they differ in who computes a stage.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from graphspec.diagnostic import Diagnostic, SpecError
from graphspec.runtime.ticks import Ticks

if TYPE_CHECKING:
    from graphspec.runtime.sample import Sampler

BACKENDS = ("auto", "eager", "onnx", "aoti", "cuda_graph")
Told = Callable[[int], None]
Call = Callable[[list[Tensor]], Sequence[Tensor]]

TOLERANCE = 2e-3  # of a compiled stage against eager, relative to the largest element: float32 in another order


class Backend(Protocol):
    """One way to run the stages of a sampler."""

    def load(self) -> None: ...

    def draw(self, ticks: int, tell: Told) -> dict[str, Tensor]: ...


class Unbuildable(SpecError):
    """GS0645: this backend cannot run this model; under `auto` another one does."""

    def __init__(self, backend: str, value: Any, why: str):
        name = value if isinstance(value, str) else value.path
        told = f"the backend {backend} cannot run {name}: {why}"
        super().__init__(Diagnostic("GS0645", told, None if isinstance(value, str) else value.span))
        self.told = told


# ---- which backend -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Measured on paper-size sashimi, CPU, one thread (bench/RESULTS.md, "Sampler backends").

    start: seconds once. build: seconds for each instruction of all stages. reload: the same in place of both, where
    the stages are cached. gain: how many times faster a tick is than eager's.
    """

    start: float
    build: float
    reload: float
    gain: float


EAGER_INSTRUCTION = 25e-6  # seconds of one instruction of one tick
SOON = 3.0  # seconds: what eager does in less is left to it
COSTS = {
    "eager": Cost(0.0, 0.0, 0.0, 1.0),
    "onnx": Cost(1.0, 0.005, 0.006, 4.0),
    "aoti": Cost(10.0, 0.26, 0.002, 6.0),
    "cuda_graph": Cost(1.0, 0.002, 0.003, 10.0),  # never measured
}


def installed(name: str, device: torch.device) -> str:
    """Why a backend cannot run here, or nothing."""
    if name == "onnx":
        missing = [m for m in ("onnx", "onnxruntime") if importlib.util.find_spec(m) is None]
        if missing:
            return f"{' and '.join(missing)} is not installed; pip install 'graphspec[onnx]'"
        return "" if device.type == "cpu" else f"it runs on the CPU, not on {device}"
    if name == "aoti" and shutil.which("g++") is None:
        return "there is no C++ compiler (g++)"
    if name == "cuda_graph" and device.type != "cuda":
        return f"it runs on CUDA, not on {device}"
    return ""


def built(name: str, sampler: Sampler) -> Backend:
    """The backend over this sampler's stages. Raises Unbuildable where it cannot run them."""
    why = installed(name, sampler.device)
    if why:
        raise Unbuildable(name, "this model", why)
    if name == "onnx" and sampler.like.dtype not in (torch.float32, torch.float64):
        raise Unbuildable(name, "this model", f"its weights are {sampler.like.dtype}")
    ticks = Ticks(sampler)
    if ticks.growing is not None:
        raise Unbuildable(name, ticks.growing, "its state grows with time, and a stage has one size")
    if name == "onnx":
        from graphspec.runtime.backend_onnx import OnnxBackend

        return OnnxBackend(sampler, ticks)
    if name == "aoti":
        from graphspec.runtime.backend_aoti import AotiBackend

        return AotiBackend(sampler, ticks)
    from graphspec.runtime.backend_cuda_graph import CudaGraphBackend

    return CudaGraphBackend(sampler, ticks)


def _cached(stages: Ticks) -> bool:
    from graphspec.runtime.backend_aoti import is_cached

    return is_cached(stages)


def chosen(name: str, sampler: Sampler, ticks: int, warn: Callable[[str], None]) -> tuple[str, Backend | None]:
    """What was named, or under `auto` what is expected to be done first with so many ticks; none is eager."""
    for each in ranked(sampler, ticks) if name == "auto" else [name]:
        if each == "eager":
            break
        try:
            running = built(each, sampler)
            running.load()
            return each, running
        except Unbuildable as error:
            if name != "auto":
                raise
            warn(f"warning[GS0645]: {error.told}; trying the next")
    return "eager", None


def ranked(sampler: Sampler, ticks: int) -> list[str]:
    """The backends that are installed, the one that is expected to be done first in front."""
    eager = ticks / sampler.plan.block * sum(map(len, sampler.program)) * EAGER_INSTRUCTION
    others = [name for name in COSTS if name != "eager" and not installed(name, sampler.device)]
    if eager < SOON or not others:
        return ["eager"]
    stages = Ticks(sampler)
    if stages.growing is not None:
        return ["eager"]
    instructions = sum(len(s.steps) for s in stages.stages)
    spent = {"eager": eager}
    for name in others:
        cost = COSTS[name]
        ready = name == "aoti" and _cached(stages)
        build = cost.reload * instructions if ready else cost.start + cost.build * instructions
        spent[name] = build + eager / cost.gain
    return sorted(spent, key=spent.__getitem__)


# ---- running compiled calls --------------------------------------------------------------------------------------


class Calls:
    """The loop over one call a stage, `call([*operands]) -> [*results]`; tensors go from hand to hand, uncopied."""

    def __init__(self, sampler: Sampler, ticks: Ticks, calls: Sequence[Call]):
        self.sampler, self.ticks, self.calls = sampler, ticks, calls
        place = {c: i for i, c in enumerate(ticks.cells)}
        slots = dict.fromkeys(s for stage in ticks.stages for s in stage.states)
        self.slots = {s: i for i, s in enumerate(slots)}
        self.cells: list[Any] = [None] * len(place)
        self.states: list[Any] = [None] * len(slots)
        self.table = [
            (
                calls[t.stage],
                [place[c] for c in t.inputs],
                [self.slots[s] for s in ticks.stages[t.stage].states],
                ticks.statics[t.stage],
                t.noises,
                [(n, place[c]) for n, c in enumerate(t.outputs) if c is not None],
                len(t.outputs),
                [(name, place[c]) for name, c in t.leaving],
            )
            for t in ticks.ticks
        ]
        self.moves = [(place[to], place[of]) for to, of in ticks.moves]

    def load(self) -> None:
        for i, c in enumerate(self.ticks.cells):
            held = self.ticks.value(c)
            self.cells[i] = (self.ticks.shapes[c] if held is None else held).contiguous()
        for (slot, name), i in self.slots.items():
            self.states[i] = self.sampler.states[slot][name]

    @torch.no_grad()
    def draw(self, ticks: int, tell: Told) -> dict[str, Tensor]:
        s, cells, states = self.sampler, self.cells, self.states
        block = s.plan.block
        out: dict[str, list[Tensor]] = {name: [] for name in s.played}
        for done in range(ticks):
            k = s.tick % block
            call, ins, own, statics, noises, outs, first, leaving = self.table[k]
            flat = [cells[i] for i in ins]
            flat += [states[i] for i in own]
            flat += statics
            flat += [s._noise_for(*n).contiguous() for n in noises]
            made = call(flat)
            for n, i in outs:
                cells[i] = made[n]
            for n, i in enumerate(own, first):
                states[i] = made[n]
            for name, i in leaving:
                out[name].append(cells[i])
            if k == block - 1:
                for i, held in [(to, cells[of]) for to, of in self.moves]:
                    cells[i] = held
            s.tick += 1
            if done % 256 == 255:
                tell(done + 1)
        return {name: torch.cat(each, 1) for name, each in out.items() if each}


@torch.no_grad()
def checked(backend: str, ticks: Ticks, n: int, call: Call, value: Callable[[int], Any]) -> None:
    """A compiled stage gives what eager gives, for states that are not zero. What it draws may differ at an edge."""
    given = [_lively(t, i) for i, t in enumerate(ticks.examples(n))]
    wanted = ticks.stages[n](*[t.clone() for t in given])
    found = call([t.clone() for t in given])
    if len(found) != len(wanted):
        raise Unbuildable(backend, value(0), f"stage {n} gives {len(found)} results instead of {len(wanted)}")
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        same = a.shape == b.shape and a.dtype == b.dtype
        if same and b.is_floating_point():
            error = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-3)
            same = bool(error < TOLERANCE)
        if not same:
            raise Unbuildable(backend, value(i), f"result {i} of stage {n} is not what eager computes")


def _lively(t: Tensor, seed: int) -> Tensor:
    """Random numbers for a state or cell of floats; integers and bools stay what they are."""
    if not t.is_floating_point() or t.numel() == 0 or bool(t.count_nonzero()):
        return t
    generator = torch.Generator().manual_seed(seed)
    return (0.1 * torch.randn(t.shape, generator=generator)).to(t)
