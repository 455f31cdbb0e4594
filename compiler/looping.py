"""A region of loops as one module: tick by tick, or as a scan and then everything at once.

Operands are the region's `outside` values, `[B, T, ..., C]` timed and `[b, ...]` static; results those of its members,
then of its carries. `noise` has a tensor for each of the members in `noises`, or none. The state holds for each carry
its last k elements (`PATH/past`, oldest first) and the states of the members' modules, under the same names as if each
ran by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from graphspec.compiler.fusing import Fused, Maps, Mix, fused
from graphspec.compiler.regions import Region, begins, detaches
from graphspec.compiler.scanning import Recurrence
from graphspec.compiler.tensors import filled, sizes
from graphspec.declare import Declaration
from graphspec.graph import Back, Constant, Value

Env = dict[Value, Any]


class Loop(nn.Module):
    """`forward(*outside)` and `step(*outside, state, prepared)` give the tensors of `results`, in order."""

    def __init__(self, region: Region, backs: Mapping[Value, Back], modules: Mapping[Value, nn.Module]) -> None:
        super().__init__()
        self.region, self.backs = region, backs
        self.modules_of = {v: modules[v] for v in region.members if v.op is not None}
        self.held = nn.ModuleList(self.modules_of.values())
        self.scan: Any = _solver(region.scan) if region.scan is not None else None
        self.recurrence = Recurrence(region, backs, self.modules_of, self.scan) if self.scan is not None else None
        self.fusings: dict[tuple[tuple[Value, ...], bool], Fused] = {}
        self.noises = tuple(v for v in region.members if v.noise is not None)
        self.results = (*region.members, *region.carries)
        self.place = {v: i for i, v in enumerate((*region.outside, *region.members, *region.carries))}
        self.noise_place = {v: len(self.place) + i for i, v in enumerate(self.noises)}
        self.timed_outside = [i for i, v in enumerate(region.outside) if v.type.timed]

    # ---- state -----------------------------------------------------------------------------------------------------

    def init_state(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """The members' states. What carries begin with is added by who knows the values it may be made of."""
        out: dict[str, Tensor] = {}
        for v, module in self.modules_of.items():
            out |= {f"{v.path}/{n}": t for n, t in module.init_state(batch, like).items()}  # type: ignore[operator]
        return out

    def prepare(self) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for v, module in self.modules_of.items():
            out |= {f"{v.path}/{n}": t for n, t in module.prepare().items()}  # type: ignore[operator]
        return out

    def beginning(self, carry: Value, given: Mapping[Value, Any], batch: int, like: Tensor) -> Tensor:
        """What a carry reads before the start: [batch, k, ...]."""
        init = self.backs[carry].init
        if not isinstance(init, Value):
            return filled(carry.type, batch, carry.carry, init, like)
        first = given[init]
        return first[:, None].expand(batch, carry.carry, *sizes(carry.type))

    # ---- running ---------------------------------------------------------------------------------------------------

    def forward(
        self, *outside: Any, wanted: Sequence[Value] | None = None, noise: Mapping[Value, Any] | None = None
    ) -> tuple[Tensor, ...]:
        wanted = self.results if wanted is None else wanted
        given = dict(zip(self.region.outside, outside, strict=True))
        batch, _, like = self._sizes(outside)
        pasts = {c: self.beginning(c, given, batch, like) for c in self.region.carries}
        if self.recurrence is not None:
            env, _ = self._scanned(given, pasts, {}, wanted, noise or {})
            return tuple(env[v] for v in wanted)
        states = {v: m.init_state(batch, like) for v, m in self.modules_of.items()}  # type: ignore[operator]
        prepared = self._own(self.prepare())
        made, _, _ = self._ticked(outside, pasts, states, prepared, wanted, noise or {}, whole=True)
        return made

    def step(
        self,
        *outside: Any,
        state: Mapping[str, Tensor],
        prepared: Mapping[str, Tensor],
        wanted: Sequence[Value] | None = None,
        noise: Mapping[Value, Any] | None = None,
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        wanted = self.results if wanted is None else wanted
        pasts = {c: state[f"{c.path}/past"] for c in self.region.carries}
        given = dict(zip(self.region.outside, outside, strict=True))
        states = self._own(state)
        if self.recurrence is not None:
            env, new = self._scanned(given, pasts, states, wanted, noise or {})
            made = tuple(env[v] for v in wanted)
        else:
            made, new, states = self._ticked(outside, pasts, states, self._own(prepared), wanted, noise or {})
        out = {f"{c.path}/past": t for c, t in new.items()}
        for v, own in states.items():
            out |= {f"{v.path}/{n}": t for n, t in own.items()}
        return made, out

    def _own(self, flat: Mapping[str, Tensor]) -> dict[Value, dict[str, Tensor]]:
        """State or prepared tensors by member."""
        out: dict[Value, dict[str, Tensor]] = {v: {} for v in self.modules_of}
        paths = {v.path: v for v in self.modules_of}
        for name, tensor in flat.items():
            path, _, leaf = name.rpartition("/")
            if path in paths:
                out[paths[path]][leaf] = tensor
        return out

    def _sizes(self, outside: Sequence[Any]) -> tuple[int, int, Tensor]:
        """(batch, ticks, a float tensor of the right kind)."""
        timed = [outside[i] for i in self.timed_outside]
        batch, ticks = max(x.shape[0] for x in timed), timed[0].shape[1]
        like = next((x for x in (*timed, *outside) if isinstance(x, Tensor) and x.is_floating_point()), None)
        if like is None:
            like = next((p for m in self.held for p in m.parameters()), torch.empty(0, device=timed[0].device))
        return batch, ticks, like

    # ---- tick by tick ----------------------------------------------------------------------------------------------

    def _ticked(
        self,
        outside: Sequence[Any],
        pasts: Mapping[Value, Tensor],
        states: Any,
        prepared: Any,
        wanted: Sequence[Value],
        noise: Mapping[Value, Any],
        whole: bool = False,
    ) -> tuple[tuple[Tensor, ...], dict[Value, Tensor], dict[Value, dict[str, Tensor]]]:
        """Every member at every tick. Operands are split once: a slice at each tick would cost T*T backward."""
        region = self.region
        _, ticks, _ = self._sizes(outside)
        fusing = self._fused(tuple(wanted), torch.is_autocast_enabled(pasts[region.carries[0]].device.type))
        held: list[Any] = [None] * (len(self.place) + len(self.noise_place))
        for v, x in zip(region.outside, outside, strict=True):
            held[self.place[v]] = x
        splits = [(self.place[region.outside[i]], outside[i].split(1, 1)) for i in self.timed_outside]
        splits += [(at, noise[v].split(1, 1)) for v, at in self.noise_place.items() if noise.get(v) is not None]
        queues = [(self.place[c], list(pasts[c].split(1, 1)), self.place[self.backs[c].source]) for c in region.carries]
        plus: dict[Value, int] = {}
        for v, found in fusing.at.items():
            if isinstance(found, Maps) and any(found.plus):
                plus[v] = len(held)
                added = [None if p is None else held[self.place[p]] for p in found.plus]
                splits.append((len(held), _beside([self.modules_of[m] for m in found.maps], added).unbind(1)))
                held.append(None)
        program = self._program(states, prepared, whole, fusing, plus)
        made: list[tuple[int, list[Any]]] = [(self.place[v], []) for v in wanted]
        for t in range(ticks):
            for at, each in splits:
                held[at] = each[t]
            for at, queue, _ in queues:
                held[at] = queue[t]
            for run in program:
                run(held)
            for at, each in made:
                each.append(held[at])
            for _, queue, source in queues:
                queue.append(held[source])
        last = {
            c: torch.cat(queue[len(queue) - c.carry :], 1)
            for c, (_, queue, _) in zip(region.carries, queues, strict=True)
        }
        return tuple(_joined(each) for _, each in made), last, states

    def _program(
        self, states: Any, prepared: Any, whole: bool, fused: Fused, plus: Mapping[Value, int]
    ) -> list[Callable[[list[Any]], None]]:
        """One instruction a member, or several members. plus: where what is added to maps stands."""
        program: list[Callable[[list[Any]], None]] = []
        for v in self.region.members:
            found = fused.at.get(v)
            if isinstance(found, Maps):
                of = v.operands[0]
                assert isinstance(of, Value)
                modules = [self.modules_of[m] for m in found.maps]
                program.append(_stack(modules, self.place[of], [self.place[t] for t in found.to], plus.get(v, -1)))
            elif isinstance(found, Mix):
                program.append(_mixed(*(self.place[x] for x in (found.to, found.z, found.a, found.b))))
            elif v in fused.gone:
                continue
            elif whole and (begins(v) or detaches(v)):
                program.append(self._counted(v))
            else:
                program.append(self._instruction(v, states, prepared))
        return program

    def _fused(self, wanted: tuple[Value, ...], halved: bool) -> Fused:
        if (wanted, halved) not in self.fusings:
            kept = {*wanted, *(self.backs[c].source for c in self.region.carries)}
            self.fusings[wanted, halved] = fused(self.region, self._stacks(), kept, adds=not halved)
        return self.fusings[wanted, halved]

    def _stacks(self) -> dict[Value, Any]:
        """Members that map a carry by modules that stack, each with its kind."""
        return {
            v: type(self.modules_of[v])
            for v in self.region.members
            if v.op is not None
            and hasattr(self.modules_of[v], "stacked")
            and len(v.operands) == 1
            and isinstance(v.operands[0], Value)
            and v.operands[0].carry
        }

    def _instruction(self, v: Value, states: Any, prepared: Any) -> Callable[[list[Any]], None]:
        to = self.place[v]
        if v.part is not None:
            whole = v.operands[0]
            assert isinstance(whole, Value) and whole.parts is not None
            at, which = self.place[whole], list(whole.parts).index(v.part)

            def pick(held: list[Any]) -> None:
                held[to] = held[at][which]

            return pick
        module: Any = self.modules_of[v]
        if v in states and states[v] or v in prepared and prepared[v]:

            def step(held: list[Any]) -> None:
                env = {o: held[self.place[o]] for o in v.values()}
                noise = {v: held[self.noise_place[v]]} if v in self.noise_place else {}
                held[to] = self._one(v, env, states, prepared, noise)

            return step
        plain, named = v.called(lambda _, o: (o.value, -1) if isinstance(o, Constant) else (None, self.place[o]))
        if v in self.noise_place:
            named["noise"] = (None, self.noise_place[v])
        call = module.forward
        if not named and all(at >= 0 for _, at in plain) and len(plain) == 2:
            (_, first), (_, second) = plain

            def two(held: list[Any]) -> None:
                held[to] = call(held[first], held[second])

            return two
        if not named and len(plain) == 1 and plain[0][1] >= 0:
            only = plain[0][1]

            def one(held: list[Any]) -> None:
                held[to] = call(held[only])

            return one

        def run(held: list[Any]) -> None:
            extra = {s: held[at] if at >= 0 else value for s, (value, at) in named.items()}
            held[to] = call(*[held[at] if at >= 0 else value for value, at in plain], **extra)

        return run

    def _counted(self, v: Value) -> Callable[[list[Any]], None]:
        """A member that counts ticks, over a whole sequence, where its tick is known."""
        module: Any = self.modules_of[v]
        to, ticks = self.place[v], count()
        x, *rest = v.operands
        assert isinstance(x, Value)
        at, first = self.place[x], rest[0] if rest else None

        def begin(held: list[Any]) -> None:
            start = held[self.place[first]] if isinstance(first, Value) else first.value if first else 0
            held[to] = held[at] if next(ticks) else module(held[at], start)

        def detach(held: list[Any]) -> None:
            t = next(ticks)
            held[to] = held[at].detach() if t and t % module.every == 0 else held[at]

        return begin if begins(v) else detach

    def _one(self, v: Value, env: Env, states: Any, prepared: Any, noise: Mapping[Value, Any]) -> Any:
        """One member on one tick, or on all of them where it has no state."""
        if v.part is not None:
            whole = v.operands[0]
            assert isinstance(whole, Value) and whole.parts is not None
            return env[whole][list(whole.parts).index(v.part)]
        plain, named = v.called(lambda _, o: o.value if isinstance(o, Constant) else env[o])
        if v.noise is not None:
            named["noise"] = noise.get(v)
        module: Any = self.modules_of[v]
        own, ready = states.get(v) or {}, prepared.get(v) or {}
        if not own and not ready:
            return module(*plain, **named)
        made, states[v] = module.step(*plain, state=own, prepared=ready, **named)
        return made

    # ---- as a scan -------------------------------------------------------------------------------------------------

    def _scanned(
        self,
        given: Env,
        pasts: Mapping[Value, Tensor],
        states: dict[Value, dict[str, Tensor]],
        wanted: Sequence[Value],
        noise: Mapping[Value, Any],
    ) -> tuple[Env, dict[Value, Tensor]]:
        """All ticks at once. `states` are those after it, then."""
        assert self.recurrence is not None
        before = dict(states)

        def one(v: Value, env: Env) -> Any:
            return self._one(v, env, dict(before), {}, noise)

        found = self.recurrence.run(given, pasts, before, one, wanted, dict(noise))
        if states:
            ticks = next(given[v].shape[1] for v in self.region.outside if v.type.timed)
            self.recurrence.counted(states, ticks)
        return found


def _solver(scan: Declaration) -> Any:
    """The op's module without operands: only its `solve` is used, with what the loop gives it."""
    return scan.build(*[None] * len(scan.parsed.operands), **{p.name: None for p in scan.parameters})


def _joined(each: list[Any]) -> Any:
    if isinstance(each[0], tuple):
        return tuple(torch.cat(part, 1) for part in zip(*each, strict=True))
    return torch.cat(each, 1)


def _stack(modules: Sequence[Any], of: int, to: Sequence[int], plus: int) -> Callable[[list[Any]], None]:
    """Several maps of one value as one product a tick, its matrix put together once, and what is added to it."""
    if plus >= 0:
        onto = type(modules[0]).onto(modules)

        def run_onto(held: list[Any]) -> None:
            for at, made in zip(to, onto(held[of], held[plus]), strict=True):
                held[at] = made

        return run_onto
    call = type(modules[0]).stacked(modules)

    def run(held: list[Any]) -> None:
        for at, made in zip(to, call(held[of]), strict=True):
            held[at] = made

    return run


def _beside(modules: Sequence[Any], added: Sequence[Any]) -> Tensor:
    made: Tensor = type(modules[0]).beside(modules, added)
    return made


def _mixed(to: int, z: int, a: int, b: int) -> Callable[[list[Any]], None]:
    """z*a + (1 - z)*b."""

    def run(held: list[Any]) -> None:
        gate, first, second = held[z], held[a], held[b]
        if gate.dtype == first.dtype == second.dtype:
            held[to] = torch.lerp(second, first, gate)
        else:  # under autocast
            held[to] = gate * first + (1 - gate) * second

    return run
