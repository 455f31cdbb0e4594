"""What a spec costs: weights, operations and memory, counted on tensors without storage (nothing is computed).

FLOPs are those of torch.utils.flop_counter: products of matrices, convolutions and attention, a multiply-add as two.
It does not count FFTs, elementwise functions (most of what a scan does, and all that S4D does in a step), norms,
reductions or gathers; and it counts the forward pass only, about a third of an update.

The tensors are fake ones that say they are on the CPU, not meta ones: `torch.autocast` refuses the meta device, and
modules that keep their recurrence in float32 enter it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from graphspec.compiler.lower import Model
from graphspec.compiler.pipeline import Checked
from graphspec.compiler.plan import Schedule, consumed
from graphspec.compiler.running import Running
from graphspec.compiler.settings import Settings
from graphspec.compiler.tensors import dtype_of
from graphspec.dims import Dim, Facts
from graphspec.graph import Constant, Graph, Value
from graphspec.types import Type


class UncountedError(Exception):
    """The model does not run on tensors without numbers, or no length is known to run it at. The text says why."""


@dataclass(frozen=True)
class Whole:
    """The forward pass of one crop, batch 1. `flops` by value; bytes of all results of ops in float32, views once."""

    sizes: Mapping[str, int]  # length of each axis
    flops: Mapping[Value, int]
    bytes: int


@dataclass(frozen=True)
class Tick:
    """FLOPs of one tick of sampling: on average on the schedule, and if every value ran at every tick."""

    scheduled: float
    every: int


def weights(model: Model, values: Iterable[Value]) -> int:
    """Numbers learned by the modules of these values; a weight used twice counts once."""
    modules = [model.modules_of[v] for v in values if v in model.modules_of]
    return sum({id(p): p.numel() for m in modules for p in m.parameters()}.values())


def whole(checked: Checked) -> Whole:
    """Count the whole form on one crop. Raises UncountedError."""
    sizes = crop_sizes(checked.graph, checked.settings)
    with _counting() as counter:
        model = Model(checked).requires_grad_(False)
        form = model.whole_form
        given: list[Any] = []
        for v in form.inputs:
            default = checked.graph.inputs[v.path].default
            given.append(default if default is not None else _tensor(v.type, sizes))
        given += [None if v.op.training_noise else _tensor(v.noise, sizes) for v in form.noises]
        meter = _Meter(form.module, form.who, counter)
        meter.run(*given)
        return Whole(sizes, meter.flops, meter.bytes(model))


def tick(checked: Checked, plan: Schedule) -> Tick:
    """Count sampling on its schedule: each value's step, at the size in which it fires. Raises UncountedError."""
    per_block = 0
    seen: dict[Value, int] = {}
    alike: dict[Any, int] = {}  # layers that repeat cost the same
    with _counting() as counter:
        model = Model(checked).requires_grad_(False).entries["sample"]
        for fire in plan.fires:
            v = fire.value
            if v not in seen:  # a value always fires in groups of one size
                key = (v.op, str(v.arguments), tuple(str(o.type) for o in v.operands), fire.count)
                if key not in alike:
                    alike[key] = _step(model, v, fire.count, counter)
                seen[v] = alike[key]
            per_block += seen[fire.value]
    return Tick(per_block / plan.block, sum(seen.values()))


def crop_sizes(graph: Graph, settings: Settings) -> dict[str, int]:
    """A length for each axis of the inputs: the crop of training, else about a second that fits `require`."""
    sizes = dict(settings.crop)
    for i in graph.inputs.values():
        for axis, dim in enumerate(i.value.type.dims):
            rate = i.value.type.rate if axis == 0 else None
            for symbol in sorted(dim.symbols()):
                if symbol not in sizes:
                    sizes[symbol] = _size(symbol, graph.facts, sizes, rate)
    faults = graph.facts.check(sizes)
    if faults:
        raise UncountedError(f"no lengths are known to run it at: {faults[0]}")
    return sizes


def _size(symbol: str, facts: Facts, sizes: Mapping[str, int], rate: Fraction | None) -> int:
    for fact in facts.known:  # T == N*hop, with N and hop known
        for a, b in ((fact.left, fact.right), (fact.right, fact.left)):
            if fact.modulus is None and a == Dim.symbol(symbol) and set(b.symbols()) <= set(sizes):
                return int(b.evaluate(sizes))
    multiple = facts.multiple(symbol)
    return multiple * max(1, ceil((rate or 1) / multiple))


def _step(model: Running, value: Value, count: int, counter: FlopCounterMode) -> int:
    """FLOPs of one step of a value's module for `count` elements."""
    op = value.op
    if op is None or value.windows and value.windows[0].copies:
        return 0
    module: Any = model.modules_of[value]

    def given(i: int, operand: Value | Constant) -> Any:
        if isinstance(operand, Constant):
            return operand.value
        a, b = consumed(value, i, 0, count) if operand.type.timed else (0, 1)
        return _tensor(operand.type, {}, b - a)

    plain, named = value.called(given)
    if value.noise is not None:
        named["noise"] = None if op.training_noise else _tensor(value.noise, {}, count)
    state, prepared = module.init_state(1, torch.empty(0)), module.prepare()
    before = counter.get_total_flops()  # preparing is done once, before the first tick
    module.step(*plain, state=state, prepared=prepared, **named)
    return counter.get_total_flops() - before


def _tensor(type_: Type | None, sizes: Mapping[str, int], elements: int | None = None) -> Tensor:
    """An empty tensor of one row: [1, T, ..., C] by the sizes, or with so many elements of time."""
    assert type_ is not None
    axes = list(type_.tensor_axes)
    shape = [1]
    if type_.timed and elements is not None:
        shape.append(elements)
        axes = axes[1:]
    for dim in axes:
        if not set(dim.symbols()) <= set(sizes):
            raise UncountedError(f"the length of '{dim}' is not known")
        shape.append(int(dim.evaluate(sizes)))
    return torch.empty(shape, dtype=dtype_of(type_, torch.float32))


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """Tensors made inside have no storage; what a module cannot do without numbers becomes an UncountedError."""
    try:
        with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
            yield counter
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UncountedError(f"it does not run without numbers: {first}") from error


class _Meter(fx.Interpreter):
    """Runs node by node; keeps every result, so that storages can be told apart."""

    def __init__(self, module: nn.Module, who: Mapping[str, Value], counter: FlopCounterMode):
        super().__init__(module, garbage_collect_values=False)  # type: ignore[arg-type]
        self.who, self.counter = who, counter
        self.flops: dict[Value, int] = {}
        self.results: list[Tensor] = []
        self.known: dict[Any, tuple[int, Tensor]] = {}  # what was run -> its FLOPs and result
        self.value: Value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Of layers that repeat, the first is run and the others are told from it."""
        value = self.value
        key = (value.op, str(value.arguments), _looks(args), _looks(tuple(kwargs.values())))
        if key in self.known:
            self.flops[value], like = self.known[key]
            made: Any = torch.empty_like(like)
        else:
            before = self.counter.get_total_flops()
            made = super().call_module(target, args, kwargs)
            self.flops[value] = self.counter.get_total_flops() - before
            if isinstance(made, Tensor) and not _storages([made]) & _storages([args, list(kwargs.values())]):
                self.known[key] = (self.flops[value], made)
        self.results += _tensors(made)
        return made

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_module":
            self.value = self.who[n.name]
        return super().run_node(n)

    def bytes(self, model: Model) -> int:
        """Of all storages that ops made: a view shares its operand's."""
        given = [*model.parameters(), *model.buffers()]
        given += [t for node, t in self.env.items() if node.op == "placeholder" and isinstance(t, Tensor)]
        old = _storages(given)
        made = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in self.results}
        return sum(size for storage, size in made.items() if storage not in old)


def _looks(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((x.shape, x.stride(), x.dtype) if isinstance(x, Tensor) else str(x) for x in given)


def _storages(made: Any) -> set[int]:
    return {t.untyped_storage()._cdata for t in _tensors(made)}


def _tensors(made: Any) -> Iterator[Tensor]:
    if isinstance(made, Tensor):
        yield made
    elif isinstance(made, (tuple, list)):
        for inner in made:
            yield from _tensors(inner)
    elif isinstance(made, dict):
        yield from _tensors(list(made.values()))
