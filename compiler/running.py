"""Running a graph: its whole form and its step form over modules that someone else owns.

Tensors are `[B, T, ..., C]`; inputs and results are dicts by spec name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, fx, nn

from graphspec.compiler.emit import Form, emit
from graphspec.compiler.flow import Flow
from graphspec.compiler.looping import Loop
from graphspec.compiler.plan import block_of, looks_ahead
from graphspec.compiler.recompute import recomputed
from graphspec.diagnostic import Diagnostic, SpecError, fail
from graphspec.graph import Graph, Value


class Running:
    """A graph with a module for each of its values. Forms are made when they are first asked for."""

    graph: Graph
    values: list[Value]  # those with an op
    modules_of: dict[Value, nn.Module]
    targets: dict[str, Value]
    forms: dict[Any, Form]
    flows: dict[Any, Flow]
    loops: tuple[Loop, ...]
    _input_of: dict[Value, str]  # a cached feature -> the input it is the default of

    def lay_out(self, graph: Graph, modules_of: dict[Value, nn.Module], loops: tuple[Loop, ...] = ()) -> None:
        self.graph, self.modules_of, self.loops = graph, modules_of, loops
        self.values = [v for v in graph.values if v.op is not None]
        self.targets = graph.targets()
        self._input_of = {v: n for n, v in graph.cached.items()}
        self.forms = {}
        self.flows = {}

    @property
    def whole(self) -> fx.GraphModule:
        """Whole sequences: inputs (and noise) -> losses, metrics and outputs."""
        return self.whole_form.module

    @property
    def whole_form(self) -> Form:
        """The same, with the order of its operands."""
        return self._whole(list(self.targets.values()))

    def _whole(self, targets: list[Value], inputs: Mapping[str, Any] = MappingProxyType({})) -> Form:
        """Features among the inputs are taken as they are given, and not computed."""
        cut = tuple(v for n, v in self.graph.cached.items() if n in inputs)
        key = ("whole", tuple(targets), cut)
        if key not in self.forms:
            self.forms[key] = self._emitted(targets, stepping=False, cut=cut)
        return self.forms[key]

    def forward(
        self,
        inputs: Mapping[str, Tensor | float],
        noise: Mapping[str, Tensor] | None = None,
        recompute: bool = False,
    ) -> dict[str, Tensor]:
        """All targets by name: losses `losses.nll`, metrics `metrics.x`, outputs by their own name.

        recompute: keep less for backward, and compute it again there (recompute.py).
        """
        form = self._whole(list(self.targets.values()), inputs)
        if recompute:
            again = ("recomputed", tuple(form.inputs))
            if again not in self.forms:
                rates = [v.type.rate for v in form.inputs if v.type.rate is not None]
                self.forms[again] = recomputed(form, max(rates, default=None))
            form = self.forms[again]
        found = form.run(self._given(form, inputs, noise, lengths=True))
        return dict(zip(self.targets, found, strict=True))

    def evaluate(
        self, values: Sequence[Value], inputs: Mapping[str, Tensor | float], noise: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Any values of the graph on whole sequences (taps, drawn events, ...)."""
        form = self._whole(list(values), inputs)
        return list(form.run(self._given(form, inputs, noise, lengths=True)))

    def _check_lengths(self, form: Form, inputs: Mapping[str, Any]) -> None:
        """The lengths of whole sequences keep the spec's `require`."""
        sizes: dict[str, int] = {}
        for v in form.inputs:
            x = inputs.get(self._input_of.get(v, v.path))
            if v.type.timed and isinstance(x, Tensor):
                names = v.type.length.symbols()
                if names and str(v.type.length) in names:
                    sizes[str(v.type.length)] = x.shape[1]
        broken = self.graph.facts.check(sizes)
        if broken:
            raise SpecError(Diagnostic("GS0605", f"the length breaks a fact of require: {broken[0]}", None))

    def _given(
        self, form: Form, inputs: Mapping[str, Any], noise: Mapping[str, Any] | None, lengths: bool = False
    ) -> list[Any]:
        flat = []
        if lengths:
            self._check_lengths(form, inputs)
        for v in form.inputs:
            name = self._input_of.get(v, v.path)
            default = self.graph.inputs[name].default if name in self.graph.inputs else None
            if name not in inputs and default is None:
                raise KeyError(f"input '{name}' is missing")
            flat.append(inputs.get(name, default))
        return flat + [(noise or {}).get(v.path) for v in form.noises]

    def _emitted(self, targets: list[Value], stepping: bool, cut: tuple[Value, ...] = ()) -> Form:
        return emit(self.graph, self.values, self.modules_of, targets, stepping, self.loops, cut)

    # ---- the step form ----------------------------------------------------------------------------------------------

    def flow(self, targets: Sequence[Value], ahead: bool = False) -> Flow:
        """Timed values as a stream, which may look ahead. Raises SpecError GS0640 where one reads all of time."""
        key = (ahead, *targets)
        if key not in self.flows:
            self.flows[key] = Flow(self.graph, self.modules_of, self.loops, targets, ahead)
        return self.flows[key]

    @property
    def block(self) -> int:
        """A step takes a multiple of so many ticks of the fastest input."""
        rates = [v.type.rate for v in self._streamed() if v.is_input and v.type.rate is not None]
        return block_of(self._streamed(), max(rates)) if rates else 1

    def _streamed(self) -> list[Value]:
        return self.graph.needed_for(list(self._stepped().values()))

    def _stepped(self) -> dict[str, Value]:
        return {n: v for n, v in self.targets.items() if v.type.timed}

    @property
    def step_form(self) -> fx.GraphModule:
        """Blocks: inputs, state, prepared -> timed targets and the new state."""
        return self.step_of_targets.module

    @property
    def step_of_targets(self) -> Form:
        """The same, with the order of its operands."""
        return self._step(list(self._stepped().values()))

    def _step(self, targets: list[Value]) -> Form:
        key = ("step", tuple(targets))
        if key not in self.forms:
            ahead = looks_ahead(self.graph.needed_for(targets))
            if ahead is not None:
                fail("GS0641", f"{ahead.path} looks ahead, so there is no step of fixed shape; it streams", ahead.span)
            self.forms[key] = self._emitted(targets, stepping=True)
        return self.forms[key]

    def prepare(self) -> dict[str, Tensor]:
        """Pure function of the weights, once per sampling."""
        return {f"{v.path}/{n}": t for v, m in self.modules_of.items() for n, t in m.prepare().items()}  # type: ignore[operator]

    def init_state(
        self, batch: int, like: Tensor, inputs: Mapping[str, Tensor | float] | None = None
    ) -> dict[str, Tensor]:
        """Zero state (or `before`, or `init`) of every value, flat, by `path/name`; inputs: what an init is made of."""
        out = {f"{v.path}/{n}": t for v, m in self.modules_of.items() for n, t in m.init_state(batch, like).items()}  # type: ignore[operator]
        for loop in self.loops:
            for c in loop.region.carries:
                init = self.graph.backs[c].init
                given = {init: self.evaluate([init], inputs or {})[0]} if isinstance(init, Value) else {}
                out[f"{c.path}/past"] = loop.beginning(c, given, batch, like)
        return out

    def step(
        self,
        inputs: Mapping[str, Tensor | float],
        state: Mapping[str, Tensor],
        prepared: Mapping[str, Tensor],
        noise: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One block of ticks. Returns the timed targets by name, and the new state; nothing is changed in place."""
        targets = self._stepped()
        found, new = self.advance(list(targets.values()), inputs, state, prepared, noise)
        return dict(zip(targets, found, strict=True)), new

    def advance(
        self,
        values: Sequence[Value],
        inputs: Mapping[str, Tensor | float],
        state: Mapping[str, Tensor],
        prepared: Mapping[str, Tensor],
        noise: Mapping[str, Tensor] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """`step` for any timed values of the graph."""
        form = self._step(list(values))
        flat = self._given(form, inputs, noise)
        flat += [state[n] for n in form.states] + [prepared[n] for n in form.prepared]
        found = form.run(flat)
        new = dict(zip(form.states, found[len(values) :], strict=True))
        return list(found[: len(values)]), {**state, **new}
