"""The ticks of a block as one CUDA graph over fixed buffers: one launch a block instead of thousands of kernels.

Written to torch's rules for capture and never run: the machines of this project have no GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphspec.runtime.backend import Calls, Told
from graphspec.runtime.ticks import Ticks

if TYPE_CHECKING:
    from graphspec.runtime.sample import Sampler

WARM_UP = 3  # blocks before the capture: kernels are chosen and workspaces allocated in them


class CudaGraphBackend:
    """Whole blocks are replayed; what is left of a length, and what begins inside a block, runs stage by stage."""

    def __init__(self, sampler: Sampler, ticks: Ticks):
        self.sampler, self.ticks = sampler, ticks
        self.single = Calls(sampler, ticks, [_eager(stage.eval()) for stage in ticks.stages])
        self.graph: Any = None

    def load(self) -> None:
        self.single.load()
        self.single.cells = [t.clone() for t in self.single.cells]  # buffers: nobody else's memory
        self.single.states = [t.clone() for t in self.single.states]

    def draw(self, ticks: int, tell: Told) -> dict[str, Tensor]:
        s, size = self.sampler, self.sampler.plan.block
        parts: list[dict[str, Tensor]] = []
        done = 0
        while done < ticks:
            begun = s.tick % size
            n = min(size - begun if begun else size, ticks - done)
            parts.append(self._block() if n == size else self._some(n))
            done += n
            tell(done)
        names = dict.fromkeys(name for p in parts for name in p)
        return {name: torch.cat([p[name] for p in parts if name in p], 1) for name in names}

    def _some(self, n: int) -> dict[str, Tensor]:
        """Less than a block, stage by stage, into the same buffers."""
        cells, states = self.single.cells, self.single.states
        self.single.cells, self.single.states = list(cells), list(states)
        made = self.single.draw(n, lambda done: None)
        _copy(cells, self.single.cells)
        _copy(states, self.single.states)
        self.single.cells, self.single.states = cells, states
        return made

    @torch.no_grad()
    def _block(self) -> dict[str, Tensor]:
        s = self.sampler
        if self.graph is None:
            self._capture()
        for (k, n), buffer in self.noises.items():
            buffer.copy_(self._noise(k, n))
        self.graph.replay()
        s.tick += s.plan.block
        return {name: x.clone() for name, x in self.made.items()}

    def _noise(self, k: int, n: int) -> Tensor:
        v, first, count = self.ticks.ticks[k].noises[n]
        return self.sampler._noise_for(v, first, count)

    @torch.no_grad()
    def _capture(self) -> None:
        self.noises = {
            (k, n): self._noise(k, n).clone() for k, t in enumerate(self.ticks.ticks) for n in range(len(t.noises))
        }
        kept = [t.clone() for t in self.single.cells], [t.clone() for t in self.single.states]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.made = self._run()
        _copy(self.single.cells, kept[0])
        _copy(self.single.states, kept[1])

    def _run(self) -> dict[str, Tensor]:
        """All ticks of a block, results written back into the buffers."""
        cells, states = self.single.cells, self.single.states
        out: dict[str, list[Tensor]] = {name: [] for name in self.sampler.played}
        for k, (call, ins, own, statics, noises, outs, first, leaving) in enumerate(self.single.table):
            flat = [cells[i] for i in ins] + [states[i] for i in own] + statics
            made = call(flat + [self.noises[k, n] for n in range(len(noises))])
            for n, i in outs:
                cells[i].copy_(made[n])
            for n, i in enumerate(own, first):
                states[i].copy_(made[n])
            for name, i in leaving:
                out[name].append(cells[i].clone())
        for i, held in [(to, cells[of].clone()) for to, of in self.single.moves]:
            cells[i].copy_(held)
        return {name: torch.cat(each, 1) for name, each in out.items() if each}


def _copy(to: list[Tensor], of: list[Tensor]) -> None:
    for a, b in zip(to, of, strict=True):
        a.copy_(b)


def _eager(stage: torch.nn.Module) -> Any:
    return lambda flat: stage(*flat)
