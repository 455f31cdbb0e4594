"""Pass 6, lower: the graph -> one owner of all weights and two torch.fx modules over them, whole and step.

No text of a spec ever becomes a name in fx (fx writes names into Python source unescaped). Attributes are generated
(`m12`, `in_0`); spec names live in side tables, applied by the state_dict hooks and by everything that reports.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from graphspec.compiler.pipeline import Checked
from graphspec.compiler.plan import block_of
from graphspec.diagnostic import Diagnostic, Related, SpecError
from graphspec.graph import Constant, Graph, Value


class Stepper(nn.Module):
    """`module.step` with its state as flat tensors, which is all that fx sees."""

    def __init__(
        self, module: nn.Module, inputs: int, slots: Sequence[str], states: Sequence[str], prepared: Sequence[str]
    ):
        super().__init__()
        self.module = module
        self.inputs, self.slots, self.states, self.prepared = inputs, tuple(slots), tuple(states), tuple(prepared)

    def forward(self, *flat: Any) -> tuple[Any, ...]:
        at = self.inputs
        named = dict(zip(self.slots, flat[at:], strict=False))
        at += len(self.slots)
        state = dict(zip(self.states, flat[at:], strict=False))
        at += len(self.states)
        prepared = dict(zip(self.prepared, flat[at:], strict=True))
        step: Any = self.module.step
        y, new = step(*flat[: self.inputs], state=state, prepared=prepared, **named)
        return (y, *(new[s] for s in self.states))


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
        self.forms: dict[Any, _Form] = {}
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
                tag = (v.op.tags or {}).get(leaf) if v.op else None
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
            self.forms["whole"] = _whole(self, list(self.targets.values()))
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
            self.forms[key] = _whole(self, list(values))
        form = self.forms[key]
        return list(form.run(self._given(form, inputs, noise, lengths=True)))

    def _check_lengths(self, form: _Form, inputs: Mapping[str, Any]) -> None:
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
        self, form: _Form, inputs: Mapping[str, Any], noise: Mapping[str, Any] | None, lengths: bool = False
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

    def _step(self, targets: list[Value]) -> _Form:
        key = ("step", tuple(targets))
        if key not in self.forms:
            self.forms[key] = _step(self, targets)
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


# ---- fx -----------------------------------------------------------------------------------------------------------


class _Form:
    """An fx module with the order of its operands, and which value each node is."""

    def __init__(
        self,
        module: fx.GraphModule,
        inputs: list[Value],
        noises: list[Value],
        states: list[str],
        prepared: list[str],
        who: dict[str, Value],
    ):
        self.module, self.inputs, self.noises = module, inputs, noises
        self.states, self.prepared, self.who = states, prepared, who

    def run(self, flat: list[Any]) -> tuple[Any, ...]:
        try:
            return self.module(*flat)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise self._explained(error, flat) from error

    def _explained(self, error: Exception, flat: list[Any]) -> Exception:
        """The failure again, told with the spec's line and value."""
        tracer = _Blame(self.module)
        try:
            tracer.run(*flat)
        except Exception:
            pass
        value = self.who.get(tracer.at)
        if value is None:
            return error
        shapes = [f"{o.path}: {o.type}" for o in value.values()]
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        related = tuple(Related("called here", s) for s in value.trail[-2:])
        return SpecError(
            Diagnostic(
                "GS0901", f"{value.path} failed while it ran: {first}", value.span, related=related, notes=tuple(shapes)
            )
        )


class _Blame(fx.Interpreter):
    """Runs node by node and remembers where it stands."""

    at = ""

    def run_node(self, n: fx.Node) -> Any:
        self.at = n.name
        return super().run_node(n)


def _whole(model: Model, targets: list[Value]) -> _Form:
    return _emit(model, targets, stepping=False)


def _step(model: Model, targets: list[Value]) -> _Form:
    return _emit(model, targets, stepping=True)


def _emit(model: Model, targets: list[Value], stepping: bool) -> _Form:
    values = model.graph.needed_for(targets)
    g = fx.Graph()
    root = nn.Module()
    inputs = [v for v in values if v.is_input]
    noises = [v for v in values if v.noise is not None]
    nodes: dict[Value, fx.Node] = {v: g.placeholder(f"in_{i}") for i, v in enumerate(inputs)}
    noise = {v: g.placeholder(f"noise_{i}") for i, v in enumerate(noises)}
    index = {v: i for i, v in enumerate(model.values)}
    states: list[str] = []
    prepared: list[str] = []
    holders: dict[str, fx.Node] = {}
    slots_of: dict[Value, tuple[list[str], list[str]]] = {}
    if stepping:
        like = torch.empty(0, device="meta")
        for v in values:
            if v.op is None:
                continue
            module = model.modules_of[v]
            own = sorted(module.init_state(1, like)), _prepared_names(module)  # type: ignore[operator]
            slots_of[v] = own
            states += [f"{v.path}/{n}" for n in own[0]]
            prepared += [f"{v.path}/{n}" for n in own[1]]
        holders |= {n: g.placeholder(f"state_{i}") for i, n in enumerate(states)}
        holders |= {f"!{n}": g.placeholder(f"prepared_{i}") for i, n in enumerate(prepared)}
    new_state: dict[str, fx.Node] = {}
    who: dict[str, Value] = {}
    for v in values:
        if v.is_input:
            continue
        if v.part is not None:
            whole = v.operands[0]
            assert isinstance(whole, Value) and whole.parts is not None
            nodes[v] = g.call_function(operator.getitem, (nodes[whole], list(whole.parts).index(v.part)))
            who[nodes[v].name] = v
            continue
        name = f"m{index[v]}"
        module = model.modules_of[v]
        optional = {d.name for d in v.op.parsed.operands if d.optional} if v.op else set()
        plain: list[Any] = []
        named: dict[str, Any] = {}
        for o, slot in zip(v.operands, v.slots, strict=True):
            given = o.value if isinstance(o, Constant) else nodes[o]
            if slot in optional:
                named[slot] = given
            else:
                plain.append(given)
        if v in noise:
            named["noise"] = noise[v]
        if not stepping:
            root.add_module(name, module)
            nodes[v] = g.call_module(name, tuple(plain), named)
        else:
            own_states, own_prepared = slots_of[v]
            if not own_states and not own_prepared:
                root.add_module(name, module)
                nodes[v] = g.call_module(name, tuple(plain), named)
            else:
                root.add_module(name, Stepper(module, len(plain), list(named), own_states, own_prepared))
                flat = [*plain, *named.values()]
                flat += [holders[f"{v.path}/{s}"] for s in own_states]
                flat += [holders[f"!{v.path}/{p}"] for p in own_prepared]
                both = g.call_module(name, tuple(flat))
                who[both.name] = v
                nodes[v] = g.call_function(operator.getitem, (both, 0))
                for i, s in enumerate(own_states):
                    new_state[f"{v.path}/{s}"] = g.call_function(operator.getitem, (both, i + 1))
        who[nodes[v].name] = v
    g.output(tuple(nodes[t] for t in targets) + tuple(new_state[s] for s in states))
    g.lint()
    return _Form(fx.GraphModule(root, g), inputs, noises, states, prepared, who)


def _prepared_names(module: nn.Module) -> list[str]:
    with torch.no_grad():
        return sorted(module.prepare())  # type: ignore[operator]
