"""The graph as torch.fx modules: nodes in dataflow order over modules that someone else owns.

No text of a spec ever becomes a name in fx (fx writes names into Python source unescaped): attributes are generated
(`m12`, `in_0`), and the Form remembers which value each node is.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from graphspec.compiler.looping import Loop
from graphspec.compiler.taking import ordered
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


class LoopStepper(nn.Module):
    """`Stepper` of a whole region: its results, then its new state."""

    def __init__(self, loop: Loop, wanted: Sequence[Value], states: Sequence[str], prepared: Sequence[str]):
        super().__init__()
        self.loop, self.wanted, self.states, self.prepared = loop, tuple(wanted), tuple(states), tuple(prepared)

    def forward(self, *flat: Any) -> tuple[Any, ...]:
        outside, noise, rest = _parted(self.loop, flat)
        state = dict(zip(self.states, rest, strict=False))
        prepared = dict(zip(self.prepared, rest[len(self.states) :], strict=True))
        made, new = self.loop.step(*outside, state=state, prepared=prepared, wanted=self.wanted, noise=noise)
        return (*made, *(new[s] for s in self.states))


class WholeLoop(nn.Module):
    """A region over whole sequences, for those of its values that are read outside."""

    def __init__(self, loop: Loop, wanted: Sequence[Value]):
        super().__init__()
        self.loop, self.wanted = loop, tuple(wanted)

    def forward(self, *flat: Any) -> tuple[Any, ...]:
        outside, noise, _ = _parted(self.loop, flat)
        return self.loop(*outside, wanted=self.wanted, noise=noise)


def _parted(loop: Loop, flat: Sequence[Any]) -> tuple[Sequence[Any], dict[Value, Any], Sequence[Any]]:
    """What a loop's node is given: what the region reads of others, its members' noise, and what follows."""
    n = len(loop.region.outside)
    at = n + len(loop.noises)
    return flat[:n], dict(zip(loop.noises, flat[n:at], strict=True)), flat[at:]


class InFloat32(nn.Module):
    """A module whose op is declared precision="f32": under autocast it runs without, on halves made float32."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *given: Any, **named: Any) -> Any:
        device = next((x.device.type for x in (*given, *named.values()) if isinstance(x, Tensor)), "cpu")
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return self.module(*given, **named)
        with torch.autocast(device, enabled=False):
            return self.module(*map(_float32, given), **{k: _float32(x) for k, x in named.items()})


def kept(v: Value, module: nn.Module) -> nn.Module:
    """The module, in float32 where the value or the policy of its op says so."""
    return InFloat32(module) if "f32" in (v.precision, v.op.precision if v.op else "") else module


def own_names(module: Any) -> tuple[list[str], list[str]]:
    """What a module calls the tensors of its state, and those that it prepares."""
    with torch.no_grad():
        return sorted(module.init_state(1, torch.empty(0, device="meta"))), sorted(module.prepare())


def _float32(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on an accelerator or on the CPU (which has no exception of its own)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    signs = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")  # the last: cuDNN, cuBLAS
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


class Form:
    """An fx module with the order of its operands, and which value each node is."""

    def __init__(
        self,
        module: fx.GraphModule,
        inputs: list[Value],
        noises: list[Value],
        states: list[str],
        prepared: list[str],
        who: dict[str, Value],
        blamed: fx.GraphModule | None = None,
    ):
        self.module, self.inputs, self.noises = module, inputs, noises
        self.states, self.prepared, self.who = states, prepared, who
        self.blamed = blamed or module  # the same node by node, where the module is in pieces

    def run(self, flat: list[Any]) -> tuple[Any, ...]:
        try:
            return self.module(*flat)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if out_of_memory(error):  # no fault of one value, and running it all again would not help
                raise
            raise self._explained(error, flat) from error

    def _explained(self, error: Exception, flat: list[Any]) -> Exception:
        """The failure again, told with the spec's line and value."""
        tracer = _Blame(self.blamed)
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


def emit(
    graph: Graph,
    values_of: Sequence[Value],
    modules: Mapping[Value, nn.Module],
    targets: list[Value],
    stepping: bool,
    loops: Sequence[Loop] = (),
    cut: Collection[Value] = (),
) -> Form:
    """The targets as one fx module: whole sequences, or (`stepping`) blocks with state and prepared tensors.

    cut: values that are given, as inputs are, and not computed.
    """
    return _Emission(graph, values_of, modules, targets, stepping, loops, cut).form()


class _Emission:
    """One fx graph while it is written. `holders` are the placeholders of state (by name) and prepared (`!name`)."""

    def __init__(
        self,
        graph: Graph,
        values_of: Sequence[Value],
        modules: Mapping[Value, nn.Module],
        targets: list[Value],
        stepping: bool,
        loops: Sequence[Loop],
        cut: Collection[Value],
    ):
        self.cut = set(cut)
        self.modules, self.targets, self.stepping, self.loops = modules, targets, stepping, list(loops)
        self.loop_of = {v: loop for loop in loops for v in loop.results}
        needed = graph.needed_for(targets)
        self.values = ordered(needed, {v: loop.region for v, loop in self.loop_of.items()}) if loops else needed
        live = self._live()
        self.values = [v for v in self.values if v in live]
        self.g, self.root = fx.Graph(), nn.Module()
        self.index = {v: i for i, v in enumerate(values_of)}
        self.inputs = [v for v in self.values if v.is_input or v in self.cut]
        self.noises = [v for v in self.values if v.noise is not None and v not in self.cut]
        self.nodes: dict[Value, fx.Node] = {v: self.g.placeholder(f"in_{i}") for i, v in enumerate(self.inputs)}
        self.noise = {v: self.g.placeholder(f"noise_{i}") for i, v in enumerate(self.noises)}
        self.states: list[str] = []
        self.prepared: list[str] = []
        self.holders: dict[str, fx.Node] = {}
        self.slots_of: dict[Value, tuple[list[str], list[str]]] = {}
        self.new_state: dict[str, fx.Node] = {}
        self.who: dict[str, Value] = {}
        if stepping:
            self._hold_state()

    def _live(self) -> set[Value]:
        """What the targets need, where a loop needs no more than its region reads of others."""
        live: set[Value] = set()
        stack = list(self.targets)
        while stack:
            v = stack.pop()
            if v not in live:
                live.add(v)
                if v in self.cut:
                    continue
                loop = self.loop_of.get(v)
                stack += v.values() if loop is None else (*loop.results, *loop.region.outside)
        return live

    def form(self) -> Form:
        emitted: set[Loop] = set()
        for v in self.values:
            if v in self.nodes:
                continue
            loop = self.loop_of.get(v)
            if loop is None:
                self._value(v)
            elif loop not in emitted:
                emitted.add(loop)
                self._loop(loop)
        self.g.output(tuple(self.nodes[t] for t in self.targets) + tuple(self.new_state[s] for s in self.states))
        self.g.lint()
        module = fx.GraphModule(self.root, self.g)
        return Form(module, self.inputs, self.noises, self.states, self.prepared, self.who)

    def _hold_state(self) -> None:
        for v in self.values:
            if v.carry:
                self.states.append(f"{v.path}/past")
            if v.op is None:
                continue
            states, prepared = self.slots_of[v] = own_names(self.modules[v])
            self.states += [f"{v.path}/{n}" for n in states]
            self.prepared += [f"{v.path}/{n}" for n in prepared]
        self.holders |= {n: self.g.placeholder(f"state_{i}") for i, n in enumerate(self.states)}
        self.holders |= {f"!{n}": self.g.placeholder(f"prepared_{i}") for i, n in enumerate(self.prepared)}

    def _value(self, v: Value) -> None:
        if v.part is not None:
            whole = v.operands[0]
            assert isinstance(whole, Value) and whole.parts is not None
            self._is(v, self.g.call_function(operator.getitem, (self.nodes[whole], list(whole.parts).index(v.part))))
            return
        name = f"m{self.index[v]}"
        module = self.modules[v]
        plain, named = v.called(lambda _, o: o.value if isinstance(o, Constant) else self.nodes[o])
        if v in self.noise:
            named["noise"] = self.noise[v]
        states, prepared = self.slots_of.get(v, ([], []))
        if not states and not prepared:
            self.root.add_module(name, kept(v, module))
            self._is(v, self.g.call_module(name, tuple(plain), named))
            return
        self.root.add_module(name, kept(v, Stepper(module, len(plain), list(named), states, prepared)))
        flat = [*plain, *named.values(), *(self.holders[f"{v.path}/{s}"] for s in states)]
        flat += [self.holders[f"!{v.path}/{p}"] for p in prepared]
        both = self.g.call_module(name, tuple(flat))
        self.who[both.name] = v
        self._is(v, self.g.call_function(operator.getitem, (both, 0)))
        for i, s in enumerate(states):
            self.new_state[f"{v.path}/{s}"] = self.g.call_function(operator.getitem, (both, i + 1))

    def _loop(self, loop: Loop) -> None:
        """A region as one node; only what is read outside it comes out."""
        name = f"loop{self.loops.index(loop)}"
        read = {o for v in self.values for o in v.values() if self.loop_of.get(v) is not loop}
        read |= {o for other in self.loops if other is not loop for o in other.region.outside}
        wanted = [m for m in loop.results if m in read or m in self.targets]
        flat: list[Any] = [self.nodes[o] for o in loop.region.outside]
        flat += [self.noise[m] for m in loop.noises]
        states: list[str] = []
        if self.stepping:
            states = [f"{c.path}/past" for c in loop.region.carries]
            prepared: list[str] = []
            for m in loop.region.members:
                own = self.slots_of.get(m, ([], []))
                states += [f"{m.path}/{n}" for n in own[0]]
                prepared += [f"{m.path}/{n}" for n in own[1]]
            self.root.add_module(name, LoopStepper(loop, wanted, states, prepared))
            flat += [self.holders[s] for s in states] + [self.holders[f"!{p}"] for p in prepared]
        else:
            self.root.add_module(name, WholeLoop(loop, wanted))
        both = self.g.call_module(name, tuple(flat))
        self.who[both.name] = loop.region.carries[0]
        for i, m in enumerate(wanted):
            self._is(m, self.g.call_function(operator.getitem, (both, i)))
        for i, s in enumerate(states):
            self.new_state[s] = self.g.call_function(operator.getitem, (both, len(wanted) + i))

    def _is(self, v: Value, node: fx.Node) -> None:
        self.nodes[v] = node
        self.who[node.name] = v
