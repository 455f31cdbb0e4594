"""A model run as a stream: any number of samples in, what they settle out, with its exact latency; a state of its own.

The state is all there is: kept and given to another stream of the same values, that one goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from graphspec.compiler.flow import Flow
from graphspec.compiler.latency import Plan, plan
from graphspec.compiler.plan import block_of
from graphspec.compiler.running import Running
from graphspec.compiler.taking import begun
from graphspec.compiler.tensors import filled
from graphspec.diagnostic import did_you_mean, fail
from graphspec.graph import Value
from graphspec.runtime.chance import Noise


class Stream:
    """`push` takes `[B, n, C]` of each input along time, any n, and gives what became known of each value.

    values: outputs by name, whose noise is a function of seed and row. knobs: static inputs. rate: of the fastest
    input. Raises SpecError GS0638 for what is no output, GS0640 where something reads all of time.
    """

    def __init__(
        self,
        model: Running,
        values: list[str],
        rows: int = 1,
        knobs: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.rows = model, rows
        graph = model.graph
        outputs = {n: v for n, v in graph.outputs.items() if v.type.timed}
        for name in values:
            if name not in outputs:
                told = f"the spec has no output '{name}' along time{did_you_mean(name, outputs)}"
                fail("GS0638", told, None, notes=[f"it has: {', '.join(outputs) or 'none'}"])
        self.values = {n: outputs[n] for n in values}
        self.flow: Flow = model.flow(list(self.values.values()))
        self.sources: dict[str, Value] = {v.path: v for v in self.flow.sources}
        self.rate: Fraction = self.flow.rate
        self.block = block_of([v for n in self.flow.nodes for v in n.values], self.rate)
        kept = (t for m in model.modules_of.values() for t in (*m.parameters(), *m.buffers()) if t.is_floating_point())
        self.like = next(kept, torch.empty(0)).detach()
        static = {n: i.default for n, i in graph.inputs.items() if not i.value.type.timed and i.default is not None}
        # As tensors of one row: what is computed of them has rows, too.
        given = {
            n: self.like.new_full((1,), float(x)) if isinstance(x, (int, float)) else x
            for n, x in (static | dict(knobs or {})).items()
        }
        self._noise = Noise(seed, torch.arange(rows), self.like)
        noise = self._noise.of(self.flow.static)
        with torch.no_grad():
            self.prepared = self.flow.prepare(lambda static: model.evaluate(static, given, noise), given)
        self.reset()

    def reset(self) -> None:
        """Another sequence begins."""
        self.ended = False
        with torch.no_grad():
            self.state = self.flow.begin(self.rows, self.like, self.prepared)

    def warm(self) -> None:
        """Hear silence until all values have spoken, and forget it: what is made at first use is there when it counts.

        The first samples of a live stream would wait for it, 1.5 s where torch imports its compiler.
        """
        late = max(self.plan(name).ticks for name in self.values)
        whole = (late // self.block + 2) * self.block
        self.push({n: self._silence(v, whole) for n, v in self.sources.items()})
        self.reset()

    def plan(self, name: str) -> Plan:
        """The latency of one of the values, in samples of the fastest input."""
        return plan(self.model.graph, self.values[name], [loop.region for loop in self.model.loops], self.rate)

    @torch.no_grad()
    def push(self, given: Tensor | Mapping[str, Tensor], end: bool = False) -> dict[str, Tensor]:
        """The next samples, of the one input or by name; each value's elements that they settle, maybe none.

        end: nothing comes after them, and all inputs have come to the same time, a multiple of `block`.
        """
        if self.ended:
            raise ValueError("the stream has been flushed; reset() begins another")
        if isinstance(given, Tensor):
            (only,) = self.sources
            given = {only: given}
        made, self.state = self.flow.push(given, self.state, self.prepared, self._noise, end)
        self.ended = end
        return dict(zip(self.values, made, strict=True))

    def flush(self) -> dict[str, Tensor]:
        """The rest: what waited for more. Inputs that end within a whole step of the model are filled up with silence;
        of each value come the elements that begin before the end."""
        came = {n: self.flow.pushed(self.state, v) for n, v in self.sources.items()}
        end = max(came.values())
        whole = -(-end // self.block) * self.block
        silence = {n: self._silence(v, whole - came[n]) for n, v in self.sources.items()}
        before = {n: self.flow.given_out(self.state, v) for n, v in self.values.items()}
        made = self.push(silence, end=True)
        return {
            name: y[:, : max(0, begun(end, self.flow.step_of[self.values[name]]) - before[name])]
            for name, y in made.items()
        }

    def _silence(self, of: Value, ticks: int) -> Tensor:
        """Of so many ticks of the fastest input."""
        return filled(of.type, self.rows, begun(ticks, self.flow.step_of[of]), of.before or 0, self.like)
