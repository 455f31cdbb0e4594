"""Pass 6, lower: the graph -> one owner of all weights; whole and step forms of it and of its views run over them.

How a form is run is running.py, how its nodes are made emit.py. Spec names live in side tables, applied by the
state_dict hooks and by what reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from graphspec.compiler.looping import Loop
from graphspec.compiler.pipeline import Checked
from graphspec.compiler.regions import regions
from graphspec.compiler.running import Running
from graphspec.declare import Init
from graphspec.diagnostic import Diagnostic, Related, SpecError, fail
from graphspec.graph import Graph, Value


class View(Running):
    """An entry, or the graph outside training: another graph over the model's modules."""

    def __init__(self, graph: Graph, modules_of: dict[Value, nn.Module], loops: tuple[Loop, ...]):
        self.lay_out(graph, modules_of, loops)


class Model(Running, nn.Module):
    """A lowered spec. `ops` owns every weight; its forms are fx modules over the same submodules.

    `modules_of[value]` is the module of a value, `entries[name]` the model seen through an entry, `outside_training`
    what validation computes (the model itself where the spec has no `eval:`).
    """

    def __init__(self, checked: Checked):
        super().__init__()
        graph = checked.graph
        self.checked = checked
        self.modules_of: dict[Value, nn.Module]  # of Running; nn.Module would call any attribute a tensor
        owners = _Owners()

        def laid_out(g: Graph, training: bool) -> tuple[Graph, dict[Value, nn.Module], tuple[Loop, ...]]:
            modules = owners.modules(g, training)
            return g, modules, tuple(Loop(r, g.backs, modules) for r in regions(g, checked.catalogue))

        self.lay_out(*laid_out(graph, training=True))  # type: ignore[operator]
        views = {n: View(*laid_out(g, training=False)) for n, g in graph.entries.items()}
        other = graph.evaluation
        self.entries: dict[str, View] = views
        self._other = View(*laid_out(other, training=False)) if other else None
        self.ops = nn.ModuleList(owners.of.values())
        self.others = nn.ModuleList(owners.others)  # of views only; they have no weights
        self.owners = list(owners.of)
        self._names = {f"ops.{i}": path for i, path in enumerate(owners.of)}
        self.register_state_dict_post_hook(_to_spec_names)
        self.register_load_state_dict_pre_hook(_from_spec_names)

    @property
    def outside_training(self) -> Running:
        return self._other or self

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
                path = v.weights_path
                out[f"{path}.{leaf}"] = {path.split(".")[0], *([tag] if tag else [])}
        return out

    def reset(self, seed: int) -> None:
        """Draw the initial weights, each from sha256(seed, its name): adding a value does not reshuffle the others."""
        with torch.no_grad():
            for path, module in zip(self.owners, self.ops, strict=True):
                module.reset(lambda leaf, path=path: _generator(seed, f"{path}.{leaf}"))  # type: ignore[operator]
            for v, module in self.modules_of.items():
                if v.init is not None and v.op is not None:
                    _begin(v, module, v.init, seed)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        if assign:
            raise ValueError("assign=True would part the two forms from their weights; load without it")
        return super().load_state_dict(state_dict, strict=strict)


AModel = TypeVar("AModel", bound=Model)


def lower(checked: Checked, seed: int = 0, device: str | torch.device = "cpu", of: type[AModel] = Model) -> AModel:
    """The model with its weights drawn. Modules are laid out on the meta device first: sizes before memory."""
    with torch.device("meta"):
        model = of(checked)
    for module in model.modules():  # not `to_empty`, which loads sympy for every copy from meta
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device=device))
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = torch.zeros(b.shape, dtype=b.dtype, device=device)
    model.reset(seed)
    for v, owner in model.modules_of.items():
        if v.frozen:
            owner.requires_grad_(False)
    return model


def alone(checked: Checked, values: Sequence[Value]) -> Running:
    """Only these values, which have no weights: for features that are computed ahead of all else."""
    graph = checked.graph
    needed = graph.needed_for(list(values))
    part = replace(
        graph,
        values=tuple(needed),
        losses=(),
        metrics=(),
        outputs={v.path: v for v in values},
        backs={c: b for c, b in graph.backs.items() if c in needed},
        cached={},
        entries={},
        evaluation=None,
    )
    modules = {v: _module(v) for v in needed if v.op is not None}
    with torch.no_grad():
        for v, module in modules.items():
            module.reset(lambda leaf, path=v.path: _generator(0, f"{path}.{leaf}"))  # type: ignore[operator]
    return View(part, modules, tuple(Loop(r, part.backs, modules) for r in regions(part, checked.catalogue)))


def meta(checked: Checked) -> Model:
    """The model without storage: for counting."""
    with torch.device("meta"):
        return Model(checked)


def _begin(v: Value, module: nn.Module, init: Init, seed: int) -> None:
    """`init=` of a call: it is for the weights that are no biases or norms."""
    plain = {leaf for leaf, tag in (v.op.weights if v.op and v.op.weights else {}).items() if not tag}
    for leaf, weight in module.named_parameters():
        if leaf in plain:
            _fill(weight, init, _generator(seed, f"{v.weights_path}.{leaf}"))


def _fill(weight: torch.Tensor, init: Init, generator: torch.Generator) -> None:
    a = init.arguments
    if init.name in ("normal", "uniform"):
        drawn = torch.empty(weight.shape)
        drawn = (
            drawn.normal_(0, a[0], generator=generator)
            if init.name == "normal"
            else drawn.uniform_(-a[0], a[0], generator=generator)
        )
        weight.copy_(drawn)
    elif init.name == "log_range":
        weight.copy_(torch.linspace(a[0], a[1], weight.shape[-1]).log().expand(weight.shape))
    else:
        weight.fill_({"zeros": 0.0, "ones": 1.0}.get(init.name, a[0] if a else 0.0))


class _Owners:
    """Modules while they are made: one for each path of weights, and those of views that have none."""

    def __init__(self) -> None:
        self.of: dict[str, nn.Module] = {}
        self.others: list[nn.Module] = []
        self._made: dict[Value, nn.Module] = {}

    def modules(self, graph: Graph, training: bool) -> dict[Value, nn.Module]:
        values = [v for v in graph.values if v.op is not None]
        for v in sorted(values, key=lambda v: bool(v.op and v.op.of)):  # faces need their instance's module
            if v not in self._made:
                self._made[v] = self._module(v, training)
        return {v: self._made[v] for v in values}

    def _module(self, v: Value, training: bool) -> nn.Module:
        if v.op is not None and v.op.of:
            if v.owner not in self.of:
                fail(
                    "GS0519", f"only the face '{v.op.name}' of '{v.owner}' is used; nothing trains its weights", v.span
                )
            made = _module(v, of=self.of[v.owner])
            self.others.append(made)
            return made
        made = _module(v)
        learns = next(made.parameters(), None) is not None
        if learns and v.weights_path in self.of:
            return self.of[v.weights_path]
        if training:
            self.of[v.path if not learns else v.weights_path] = made
        elif learns:
            fail("GS0519", f"{v.weights_path} has weights that no loss trains: it is not part of the graph", v.span)
        else:
            self.others.append(made)
        return made


def _module(value: Value, **more: Any) -> nn.Module:
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
    try:
        return op.build(*positional, **value.arguments, **more)
    except ValueError as error:  # what a signature cannot say
        related = tuple(Related("called here", s) for s in value.trail[-2:])
        raise SpecError(Diagnostic("GS0305", f"{op.name}: {error}", value.span, related=related)) from error


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))


def _to_spec_names(model: Model, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [k for k in state if k.startswith(f"{prefix}ops.")]:
        state[prefix + model.spec_name(key[len(prefix) :])] = state.pop(key)


def _from_spec_names(model: Model, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    every = (*model.named_parameters(), *model.named_buffers())
    wanted = {model.spec_name(n): n for n, _ in every if n.startswith("ops.")}  # `others` keep nothing
    for key in list(state):
        if key.startswith(prefix) and key[len(prefix) :] in wanted:
            state[prefix + wanted[key[len(prefix) :]]] = state.pop(key)
