"""The stages of a sampler in ONNX Runtime: built in seconds, run over preallocated buffers.

Each state has two buffers: a tick reads one and writes the other. Which is which follows from how often its stage has
run, so there is a binding for every tick of a block, or of two blocks where a state is written an odd number of times.
The traced exporter of torch is used: it takes a third of the time of the one by torch.export, which is tried next.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphspec.runtime.backend import Told, Unbuildable, checked
from graphspec.runtime.stages import Stage
from graphspec.runtime.ticks import Ticks, flips

if TYPE_CHECKING:
    from graphspec.runtime.sample import Sampler

OPSET = 20


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn of what does not concern the user: versions to come, packages that are not there."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [log.level for log in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for log in loggers:
                log.setLevel(logging.CRITICAL)
            yield
        finally:
            for log, level in zip(loggers, before, strict=True):
                log.setLevel(level)


def _sorted(g: Any, x: Any, *given: Any) -> Any:
    """aten::sort, stable or not, as TopK of all: ONNX has equal elements stay in order."""
    from torch.onnx import symbolic_helper

    dim, descending = (symbolic_helper._get_const(a, "i", "order") for a in given[-2:])
    size = symbolic_helper._get_tensor_dim_size(x, dim)
    k = g.op("Constant", value_t=torch.tensor([size]))
    return g.op("TopK", x, k, axis_i=dim, largest_i=descending, sorted_i=1, outputs=2)


def _rms_norm(g: Any, x: Any, shape: Any, weight: Any, eps: Any) -> Any:
    """aten::rms_norm over the last axes."""
    from torch.onnx import symbolic_helper

    axes = [-1 - i for i in range(len(symbolic_helper._maybe_get_const(shape, "is")))]
    small = symbolic_helper._maybe_get_const(eps, "f")
    small = 2.0**-23 if symbolic_helper._is_none(eps) else small
    along = g.op("Constant", value_t=torch.tensor(axes))
    mean = g.op("ReduceMean", g.op("Mul", x, x), along, keepdims_i=1)
    size = g.op("Sqrt", g.op("Add", mean, g.op("CastLike", g.op("Constant", value_t=torch.tensor(small)), mean)))
    y = g.op("Div", x, size)
    return y if symbolic_helper._is_none(weight) else g.op("Mul", y, weight)


UNKNOWN = {"aten::sort": _sorted, "aten::rms_norm": _rms_norm}
"""What the traced exporter does not know by itself."""


@torch.no_grad()
def onnx_bytes(module: torch.nn.Module, examples: tuple[Tensor, ...], given: list[str], made: list[str]) -> bytes:
    """A module of tensors as an ONNX model, its operands and results named. Raises what the exporters raise."""
    with quiet():
        try:
            file: Any = io.BytesIO()
            for name, symbolic in UNKNOWN.items():
                torch.onnx.register_custom_op_symbolic(name, symbolic, OPSET)
            torch.onnx.export(
                module, examples, file, input_names=given, output_names=made,
                dynamo=False, opset_version=OPSET, do_constant_folding=False,
            )  # fmt: skip
            return bytes(file.getvalue())
        except Exception:  # an op that the traced exporter does not know
            program: Any = torch.onnx.export(
                module, examples, input_names=given, output_names=made, dynamo=True, verbose=False
            )
            return bytes(program.model_proto.SerializeToString())
        finally:
            for name in UNKNOWN:
                torch.onnx.unregister_custom_op_symbolic(name, OPSET)


def session(model: bytes) -> Any:
    """An inference session of one thread on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def call_of(session_: Any, given: list[str], made: list[str]) -> Any:
    """A session as a function of tensors."""
    wanted = {i.name for i in session_.get_inputs()}

    def call(flat: list[Tensor]) -> list[Tensor]:
        feed = {n: t.contiguous().numpy() for n, t in zip(given, flat, strict=True) if n in wanted}
        return [torch.from_numpy(x) for x in session_.run(made, feed)]

    return call


class OnnxBackend:
    """The stages as sessions, each tick one call over fixed buffers."""

    def __init__(self, sampler: Sampler, ticks: Ticks):
        self.sampler, self.ticks = sampler, ticks
        self.sessions = [self._built(n, stage) for n, stage in enumerate(ticks.stages)]
        self.inputs = [{i.name for i in s.get_inputs()} for s in self.sessions]
        self._allocate()

    def _built(self, n: int, stage: Stage) -> Any:
        given, made = self.ticks.names(n)
        try:
            built = session(onnx_bytes(stage.eval(), self.ticks.examples(n), given, made))
        except Exception as error:
            raise Unbuildable("onnx", self.ticks.blamed(n), str(error).strip().splitlines()[0][:200]) from error
        checked("onnx", self.ticks, n, call_of(built, given, made), lambda i: self.ticks.blamed(n, i))
        return built

    # ---- buffers -----------------------------------------------------------------------------------------------------

    def _allocate(self) -> None:
        ticks = self.ticks
        self.cells = {c: t.clone().contiguous().numpy() for c, t in ticks.shapes.items()}
        self.states: dict[tuple[int, str], Any] = {}
        for stage in ticks.stages:
            for s in stage.states:
                if s not in self.states:
                    like = self.sampler.states[s[0]][s[1]]
                    self.states[s] = tuple(torch.zeros_like(like).contiguous().numpy() for _ in range(2))
        self.statics = [[t.clone().contiguous().numpy() for t in each] for each in ticks.statics]
        self.noises: dict[Any, Any] = {}
        self.scratch: dict[Any, Any] = {}
        for t in ticks.ticks:
            for v, _, count in t.noises:
                if (v, count) not in self.noises:
                    self.noises[v, count] = self.sampler._drawn(v, 0, count).contiguous().numpy()
        self.often = flips(ticks.ticks, ticks.stages)
        self.blocks = 2 if any(f % 2 for f in self.often.values()) else 1
        self.bindings: dict[tuple[int, int], Any] = {}
        self.block = 0

    def load(self) -> None:
        """Begin where the sampler stands, in the first buffers of its tick."""
        for c, buffer in self.cells.items():
            held = self.ticks.value(c)
            if held is not None:
                buffer[...] = held.numpy()
        k = self.sampler.tick % self.sampler.plan.block
        for s, pair in self.states.items():
            pair[self._side(s, 0, k)][...] = self.sampler.states[s[0]][s[1]].numpy()
        self.block = 0

    def _side(self, s: tuple[int, str], block: int, k: int) -> int:
        """Which of its buffers a state is in before tick k of a block."""
        before = sum(s in self.ticks.stages[t.stage].states for t in self.ticks.ticks[:k])
        return (block * self.often[s] + before) % 2

    def _binding(self, block: int, k: int) -> Any:
        tick, ticks = self.ticks.ticks[k], self.ticks
        n = tick.stage
        stage, binding = ticks.stages[n], self.sessions[n].io_binding()
        sides = [self._side(s, block, k) for s in stage.states]
        given = [self.cells[c] for c in tick.inputs]
        given += [self.states[s][side] for s, side in zip(stage.states, sides, strict=True)]
        given += self.statics[n] + [self.noises[v, count] for v, _, count in tick.noises]
        made = [self._room(n, j, c) for j, c in enumerate(tick.outputs)]
        made += [self.states[s][1 - side] for s, side in zip(stage.states, sides, strict=True)]
        names = ticks.names(n)
        for name, x in zip(names[0], given, strict=True):
            if name in self.inputs[n]:
                binding.bind_input(name, "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)
        for name, x in zip(names[1], made, strict=True):
            binding.bind_output(name, "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)
        return binding

    def _room(self, n: int, j: int, cell: Any) -> Any:
        """Where result j of a stage goes, also if this tick's is of no use."""
        if cell is not None:
            return self.cells[cell]
        if (n, j) not in self.scratch:
            other = next(t.outputs[j] for t in self.ticks.ticks if t.stage == n and t.outputs[j] is not None)
            self.scratch[n, j] = self.cells[other].copy()
        return self.scratch[n, j]

    # ---- running -----------------------------------------------------------------------------------------------------

    def draw(self, ticks: int, tell: Told) -> dict[str, Tensor]:
        import numpy as np

        s, cells = self.sampler, self.cells
        size = s.plan.block
        out: dict[str, list[Any]] = {name: [] for name in s.played}
        moves = [(cells[to], cells[of]) for to, of in self.ticks.moves]
        table = [
            (
                self.sessions[t.stage].run_with_iobinding,
                [(n, self.noises[n[0], n[2]]) for n in t.noises],
                [(out[name].append, cells[c]) for name, c in t.leaving],
            )
            for t in self.ticks.ticks
        ]
        for done in range(ticks):
            k = s.tick % size
            run, noises, leaving = table[k]
            for n, buffer in noises:
                buffer[...] = s._noise_for(*n).numpy()
            binding = self.bindings.get((self.block, k))
            if binding is None:
                binding = self.bindings[self.block, k] = self._binding(self.block, k)
            run(binding)
            for keep, cell in leaving:
                keep(cell.copy())
            if k == size - 1:
                for to, held in [(to, of.copy()) for to, of in moves]:
                    to[...] = held
                self.block = (self.block + 1) % self.blocks
            s.tick += 1
            if done % 256 == 255:
                tell(done + 1)
        return {name: torch.from_numpy(np.concatenate(each, 1)) for name, each in out.items() if each}
