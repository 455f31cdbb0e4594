"""Pass 6, lower: the graph -> one owner of all weights and two torch.fx modules over them, whole and step.

How nodes are made is emit.py. Spec names live in side tables, applied by the state_dict hooks and by what reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from graphspec.compiler.emit import Form, emit
from graphspec.compiler.pipeline import Checked
from graphspec.compiler.plan import block_of
from graphspec.diagnostic import Diagnostic, SpecError
from graphspec.graph import Graph, Value


class Model(nn.Module):
    """A lowered spec. `ops` owns every weight; `whole` and `step` are fx modules over the same submodules.

    `named[path]` finds the module of a value. Tensors are `[B, T, ..., C]`; inputs and results are dicts by spec name.
    """

    def __init__(self, checked: Checked):
        super().__init__()
        graph = checked.graph
        self.checked = checked
        self.graph = graph
        self.values = [v for v in graph.values if v.op is not None]
        self.ops = nn.ModuleList(_module(v) for v in self.values)
        self.modules_of: dict[Value, nn.Module] = dict(zip(self.values, self.ops, strict=True))
        self._names = {f"ops.{i}": v.path for i, v in enumerate(self.values)}
        self.targets = _targets(graph)
        self.forms: dict[Any, Form] = {}
        self.register_state_dict_post_hook(_to_spec_names)
        self.register_load_state_dict_pre_hook(_from_spec_names)

    # ---- weights ------------------------------------------------------------------------------------------------

    def spec_name(self, generated: str) -> str:
        """`ops.3.weight` -> `x0.embed.weight`."""
        head, _, rest = generated.partition(".")
        index, _, leaf = rest.partition(".")
        return f"{self._names[f'{head}.{index}']}.{leaf}"

    def weights(self) -> dict[str, nn.Parameter]:
        """Every weight by its spec name."""
        return {self.spec_name(n): p for n, p in self.named_parameters()}

    def tags(self) -> dict[str, set[str]]:
        """For each weight the tags its op declares (`ssm`, `norm`, `bias`) and the names of values it belongs to."""
        out: dict[str, set[str]] = {}
        for v, module in self.modules_of.items():
            for leaf, _ in module.named_parameters():
                tag = (v.op.weights or {}).get(leaf) if v.op else None
                out[f"{v.path}.{leaf}"] = {v.path.split(".")[0], *([tag] if tag else [])}
        return out

    def reset(self, seed: int) -> None:
        """Draw the initial weights, each from sha256(seed, its name): adding a value does not reshuffle the others."""
        with torch.no_grad():
            for v, module in self.modules_of.items():
                module.reset(lambda leaf, path=v.path: _generator(seed, f"{path}.{leaf}"))  # type: ignore[operator]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        if assign:
            raise ValueError("assign=True would part the two forms from their weights; load without it")
        return super().load_state_dict(state_dict, strict=strict)

    # ---- the whole form -------------------------------------------------------------------------------------------

    @property
    def whole(self) -> fx.GraphModule:
        """Whole sequences: inputs (and noise) -> losses, metrics and outputs."""
        if "whole" not in self.forms:
            self.forms["whole"] = self._emitted(list(self.targets.values()), stepping=False)
        return self.forms["whole"].module

    def forward(
        self, inputs: Mapping[str, Tensor | float], noise: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """All targets by name: losses `losses.nll`, metrics `metrics.x`, outputs by their own name."""
        _ = self.whole
        form = self.forms["whole"]
        found = form.run(self._given(form, inputs, noise, lengths=True))
        return dict(zip(self.targets, found, strict=True))

    def evaluate(
        self, values: Sequence[Value], inputs: Mapping[str, Tensor | float], noise: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Any values of the graph on whole sequences (taps, drawn events, ...)."""
        key = ("whole", tuple(values))
        if key not in self.forms:
            self.forms[key] = self._emitted(list(values), stepping=False)
        form = self.forms[key]
        return list(form.run(self._given(form, inputs, noise, lengths=True)))

    def _check_lengths(self, form: Form, inputs: Mapping[str, Any]) -> None:
        """The lengths of whole sequences keep the spec's `require`."""
        sizes: dict[str, int] = {}
        for v in form.inputs:
            if v.path in inputs and v.type.timed and isinstance(inputs[v.path], Tensor):
                names = v.type.length.symbols()
                if names and str(v.type.length) in names:
                    sizes[str(v.type.length)] = inputs[v.path].shape[1]
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
            default = self.graph.inputs[v.path].default
            if v.path not in inputs and default is None:
                raise KeyError(f"input '{v.path}' is missing")
            flat.append(inputs.get(v.path, default))
        return flat + [(noise or {}).get(v.path) for v in form.noises]

    def _emitted(self, targets: list[Value], stepping: bool) -> Form:
        return emit(self.graph, self.values, self.modules_of, targets, stepping)

    # ---- the step form ----------------------------------------------------------------------------------------------

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
        return self._step(list(self._stepped().values())).module

    def _step(self, targets: list[Value]) -> Form:
        key = ("step", tuple(targets))
        if key not in self.forms:
            self.forms[key] = self._emitted(targets, stepping=True)
        return self.forms[key]

    def prepare(self) -> dict[str, Tensor]:
        """Pure function of the weights, once per sampling."""
        return {f"{v.path}/{n}": t for v, m in self.modules_of.items() for n, t in m.prepare().items()}  # type: ignore[operator]

    def init_state(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """Zero state (or `before`) of every value, flat, by `path/name`."""
        return {f"{v.path}/{n}": t for v, m in self.modules_of.items() for n, t in m.init_state(batch, like).items()}  # type: ignore[operator]

    def step(
        self,
        inputs: Mapping[str, Tensor | float],
        state: Mapping[str, Tensor],
        prepared: Mapping[str, Tensor],
        noise: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One block of ticks. Returns the timed targets by name, and the new state; nothing is changed in place."""
        targets = self._stepped()
        found, new = self.stream(list(targets.values()), inputs, state, prepared, noise)
        return dict(zip(targets, found, strict=True)), new

    def stream(
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


def lower(checked: Checked, seed: int = 0, device: str | torch.device = "cpu") -> Model:
    """The model with its weights drawn. Modules are laid out on the meta device first: sizes before memory."""
    with torch.device("meta"):
        model = Model(checked)
    for module in model.ops.modules():  # not `to_empty`, which loads sympy for every copy from meta
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device=device))
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = torch.zeros(b.shape, dtype=b.dtype, device=device)
    model.reset(seed)
    return model


def meta(checked: Checked) -> Model:
    """The model without storage: for counting."""
    with torch.device("meta"):
        return Model(checked)


def _module(value: Value) -> nn.Module:
    """The op's body, called with the types of its operands."""
    op = value.op
    assert op is not None
    given: dict[str, Any] = {}
    for declared in op.parsed.operands:
        mine = [o for o, s in zip(value.operands, value.slots, strict=True) if s == declared.name]
        given[declared.name] = tuple(o.type for o in mine) if declared.variadic else (mine[0].type if mine else None)
    positional = [given[d.name] for d in op.parsed.operands]
    if op.parsed.operands and op.parsed.operands[-1].variadic:
        positional = [*positional[:-1], *positional[-1]]
    return op.build(*positional, **value.arguments)


def _targets(graph: Graph) -> dict[str, Value]:
    out = {f"losses.{t.name}": t.value for t in graph.losses}
    out |= {f"metrics.{t.name}": t.value for t in graph.metrics}
    return out | dict(graph.outputs)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))


def _to_spec_names(model: Model, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [k for k in state if k.startswith(f"{prefix}ops.")]:
        state[prefix + model.spec_name(key[len(prefix) :])] = state.pop(key)


def _from_spec_names(model: Model, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    wanted = {model.spec_name(n): n for n, _ in [*model.named_parameters(), *model.named_buffers()]}
    for key in list(state):
        if key.startswith(prefix) and key[len(prefix) :] in wanted:
            state[prefix + wanted[key[len(prefix) :]]] = state.pop(key)
