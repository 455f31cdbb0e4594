"""A model run block by block: any number of samples in, what they settle out; an explicit state of constant size.

For graphs that look nowhere ahead, so nothing is late but what a whole step waits for (a pool of 16 takes 16 ticks).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphspec.compiler.plan import block_of
from graphspec.compiler.running import Running
from graphspec.diagnostic import did_you_mean, fail
from graphspec.graph import Value


class Stream:
    """`push` takes `[B, n, C]` of the one timed input, any n, and gives what became known of each value.

    values: outputs by name. knobs: static inputs. `state` may be kept and given back, to go on from there.
    """

    def __init__(
        self, model: Running, values: list[str], rows: int = 1, knobs: Mapping[str, float] | None = None
    ) -> None:
        self.model = model
        graph = model.graph
        outputs = {n: v for n, v in graph.outputs.items() if v.type.timed}
        for name in values:
            if name not in outputs:
                told = f"the spec has no output '{name}' along time{did_you_mean(name, outputs)}"
                fail("GS0638", told, None, notes=[f"it has: {', '.join(outputs) or 'none'}"])
        self.values = {n: outputs[n] for n in values}
        needed = graph.needed_for(list(self.values.values()))
        timed = [v for v in needed if v.is_input and v.type.timed]
        if len(timed) != 1:
            told = ", ".join(v.path for v in timed) or "none"
            fail("GS0190", f"streaming takes one input along time; here there are {told}", None)
        self.source: Value = timed[0]
        assert self.source.type.rate is not None
        self.rate = self.source.type.rate
        self.block = block_of(needed, self.rate)
        self.knobs = dict(knobs or {})
        self.prepared = model.prepare()
        first = next((t for t in self.prepared.values()), None)
        weights = [p for m in model.modules_of.values() for p in m.parameters()]
        like = weights[0] if weights else first if first is not None else torch.empty(0)
        self.state = model.init_state(rows, like.detach())
        self._waiting: Tensor | None = None

    @property
    def waiting(self) -> int:
        """Samples that wait for a whole step."""
        return 0 if self._waiting is None else self._waiting.shape[1]

    @torch.no_grad()
    def push(self, block: Tensor) -> dict[str, Tensor]:
        """The next samples; each value's elements that are settled by them, maybe none."""
        joined = block if self._waiting is None else torch.cat([self._waiting, block], 1)
        n = joined.shape[1] // self.block * self.block
        self._waiting = joined[:, n:].clone() if n < joined.shape[1] else None
        if n == 0:
            return {name: self._empty(v, joined) for name, v in self.values.items()}
        given = {**self.knobs, self.source.path: joined[:, :n]}
        made, self.state = self.model.stream(list(self.values.values()), given, self.state, self.prepared)
        return dict(zip(self.values, made, strict=True))

    def flush(self) -> dict[str, Tensor]:
        """What still waits, the last step filled up with silence; only elements that begin before the end."""
        left = self.waiting
        if not left or self._waiting is None:
            return {}
        silence = self._waiting.new_full((), self.source.before or 0)
        missing = self.block - left
        made = self.push(silence.expand(self._waiting.shape[0], missing, *self._waiting.shape[2:]))
        out = {}
        for name, v in self.values.items():
            assert v.type.rate is not None
            out[name] = made[name][
                :,
                : -(
                    -left
                    * v.type.rate.numerator
                    * self.rate.denominator
                    // (v.type.rate.denominator * self.rate.numerator)
                ),
            ]
        return out

    def _empty(self, v: Value, like: Tensor) -> Tensor:
        sizes = [int(d.as_int() or 1) for d in v.type.after_time]
        return torch.empty(like.shape[0], 0, *sizes, device=like.device)
