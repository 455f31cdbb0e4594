"""A region of loops as one module: tick by tick, or as a scan and then everything at once.

Operands are the region's `outside` values, `[B, T, ..., C]` timed and `[b, ...]` static; results those of its members,
then of its carries. The state holds for each carry its last k elements (`PATH/past`, oldest first) and the states of
the members' modules, under the same names as if each ran by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphspec.compiler.regions import Region
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
        self.optional = {
            v: {d.name for d in v.op.parsed.operands if d.optional} for v in region.members if v.op is not None
        }
        self.results = (*region.members, *region.carries)
        self.place = {v: i for i, v in enumerate((*region.outside, *region.members, *region.carries))}
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
        sizes = [int(d.as_int() or 1) for d in carry.type.after_time]
        if not isinstance(init, Value):
            kind = carry.type.dtype.kind
            dtype = like.dtype if kind == "float" else torch.bool if kind == "bool" else torch.int64
            return like.new_full((batch, carry.carry, *sizes), init, dtype=dtype)
        first = given[init]
        return first[:, None].expand(batch, carry.carry, *sizes)

    # ---- running ---------------------------------------------------------------------------------------------------

    def forward(self, *outside: Any, wanted: Sequence[Value] | None = None) -> tuple[Tensor, ...]:
        wanted = self.results if wanted is None else wanted
        given = dict(zip(self.region.outside, outside, strict=True))
        batch, _, like = self._sizes(outside)
        pasts = {c: self.beginning(c, given, batch, like) for c in self.region.carries}
        if self.region.kind != "sequential":
            env, _ = self._scanned(given, pasts, wanted)
            return tuple(env[v] for v in wanted)
        states = {v: m.init_state(batch, like) for v, m in self.modules_of.items()}  # type: ignore[operator]
        made, _, _ = self._ticked(outside, pasts, states, self._own(self.prepare()), wanted)
        return made

    def step(
        self,
        *outside: Any,
        state: Mapping[str, Tensor],
        prepared: Mapping[str, Tensor],
        wanted: Sequence[Value] | None = None,
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        wanted = self.results if wanted is None else wanted
        pasts = {c: state[f"{c.path}/past"] for c in self.region.carries}
        given = dict(zip(self.region.outside, outside, strict=True))
        if self.region.kind != "sequential":
            env, new = self._scanned(given, pasts, wanted)
            return tuple(env[v] for v in wanted), {f"{c.path}/past": t for c, t in new.items()}
        made, new, states = self._ticked(outside, pasts, self._own(state), self._own(prepared), wanted)
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
        self, outside: Sequence[Any], pasts: Mapping[Value, Tensor], states: Any, prepared: Any, wanted: Sequence[Value]
    ) -> tuple[tuple[Tensor, ...], dict[Value, Tensor], dict[Value, dict[str, Tensor]]]:
        """Every member at every tick. Operands are split once: a slice at each tick would cost T*T backward."""
        region = self.region
        _, ticks, _ = self._sizes(outside)
        held: list[Any] = [None] * len(self.place)
        for v, x in zip(region.outside, outside, strict=True):
            held[self.place[v]] = x
        splits = [(self.place[region.outside[i]], outside[i].split(1, 1)) for i in self.timed_outside]
        queues = [(self.place[c], list(pasts[c].split(1, 1)), self.place[self.backs[c].source]) for c in region.carries]
        program = self._program(states, prepared)
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

    def _program(self, states: Any, prepared: Any) -> list[Callable[[list[Any]], None]]:
        """One instruction a member; maps of one carry that can be stacked are one product a tick."""
        program: list[Callable[[list[Any]], None]] = []
        stacked = self._stacks()
        for v in self.region.members:
            if v in stacked and stacked[v]:
                together, of = stacked[v], v.operands[0]
                assert isinstance(of, Value)
                modules = [self.modules_of[m] for m in together]
                program.append(_stack(modules, self.place[of], [self.place[m] for m in together]))
            elif v not in stacked:
                program.append(self._instruction(v, states, prepared))
        return program

    def _stacks(self) -> dict[Value, list[Value]]:
        """Members that map one and the same carry by modules that stack: the first has them all, the others none."""
        groups: dict[Any, list[Value]] = {}
        for v in self.region.members:
            if v.op is not None and hasattr(self.modules_of[v], "stacked") and len(v.operands) == 1:
                of = v.operands[0]
                if isinstance(of, Value) and of.carry:
                    groups.setdefault((of, type(self.modules_of[v])), []).append(v)
        out: dict[Value, list[Value]] = {}
        for members in groups.values():
            if len(members) > 1:
                out |= {m: [] for m in members}
                out[members[0]] = members
        return out

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
                held[to] = self._one(v, env, states, prepared)

            return step
        plain = [(o.value, -1) if isinstance(o, Constant) else (None, self.place[o]) for o, _ in self._sides(v, False)]
        named = {
            s: (o.value, -1) if isinstance(o, Constant) else (None, self.place[o]) for o, s in self._sides(v, True)
        }
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

    def _sides(self, v: Value, optional: bool) -> list[tuple[Any, str]]:
        return [(o, s) for o, s in zip(v.operands, v.slots, strict=True) if (s in self.optional[v]) == optional]

    def _one(self, v: Value, env: Env, states: Any, prepared: Any) -> Any:
        """One member on one tick, or on all of them where it has no state."""
        if v.part is not None:
            whole = v.operands[0]
            assert isinstance(whole, Value) and whole.parts is not None
            return env[whole][list(whole.parts).index(v.part)]
        plain, named = [], {}
        for o, slot in zip(v.operands, v.slots, strict=True):
            given = o.value if isinstance(o, Constant) else env[o]
            if slot in self.optional[v]:
                named[slot] = given
            else:
                plain.append(given)
        module: Any = self.modules_of[v]
        own, ready = states.get(v) or {}, prepared.get(v) or {}
        if not own and not ready:
            return module(*plain, **named)
        made, states[v] = module.step(*plain, state=own, prepared=ready, **named)
        return made

    # ---- as a scan -------------------------------------------------------------------------------------------------

    def _scanned(
        self, given: Env, pasts: Mapping[Value, Tensor], wanted: Sequence[Value]
    ) -> tuple[Env, dict[Value, Tensor]]:
        """Coefficients and the rest of the recurrence, its solution, and from it what else is wanted, all at once."""
        region = self.region
        source = self.backs[region.carries[0]].source
        lags = region.lags
        coefficients, rest = self._affine(given)[source]
        like = next(iter(pasts.values()))
        ticks = next(given[v].shape[1] for v in region.outside if v.type.timed)
        longest = max(region.carries, key=lambda c: c.carry)
        begin = pasts[longest]
        shape = (begin.shape[0], ticks, *begin.shape[2:])
        b = _filled(rest, shape, like)
        if region.kind == "companion":
            each = [
                _filled(coefficients.get(k, 0.0), (1, 1, *[1] * (len(shape) - 2)), like) for k in range(1, lags + 1)
            ]
            constant = all(a.shape[1] == 1 and a.shape[0] == 1 for a in each)
            wide = [a.expand(1 if constant else shape[0], 1 if constant else ticks, *shape[2:]) for a in each]
            y = self.scan.solve(torch.stack(wide, 2), b, begin)
        else:
            a = _filled(coefficients.get(1, 0.0), (1, 1, *[1] * (len(shape) - 2)), like)
            y = self.scan.solve(a, b, begin[:, 0])
        env: Env = {**given, source: y}
        others = self._behind(source, wanted)
        past = torch.cat([begin, y], 1) if others or ticks < lags else None  # element t + lags is y_t
        if past is not None:
            env |= {c: past[:, lags - c.carry : lags - c.carry + ticks] for c in region.carries}
        for v in others:
            if not v.carry:
                env[v] = self._one(v, env, {}, {})
        ends = y if past is None else past
        last = {c: ends[:, ends.shape[1] - c.carry :].contiguous() for c in region.carries}
        return env, last

    def _behind(self, source: Value, wanted: Sequence[Value]) -> list[Value]:
        """The members and carries that are wanted beside the solution, in order."""
        need: set[Value] = set()
        stack = [v for v in wanted if v is not source]
        inside = {*self.region.members, *self.region.carries}
        while stack:
            v = stack.pop()
            if v not in need and v is not source and v in inside:
                need.add(v)
                stack.extend(v.values())
        return [v for v in (*self.region.carries, *self.region.members) if v in need]

    def _affine(self, given: Env) -> dict[Value, tuple[dict[int, Any], Any]]:
        """For each member its coefficients by lag, and the rest; numbers, or tensors of the rank of what comes back."""
        rank = len(self.region.carries[0].type.dims)
        found: dict[Any, tuple[dict[int, Any], Any]] = {c: ({c.carry: 1.0}, 0.0) for c in self.region.carries}

        def of(o: Value | Constant) -> tuple[dict[int, Any], Any]:
            if isinstance(o, Constant):
                return {}, o.value
            return found[o] if o in found else ({}, _lined_up(given[o], o, rank))

        for v in self.region.members:
            assert v.op is not None
            sides = [of(o) for o in v.operands]
            found[v] = _combined(v.op.spelled, sides)
        return found


def _combined(spelled: str, sides: list[tuple[dict[int, Any], Any]]) -> tuple[dict[int, Any], Any]:
    (a, x) = sides[0]
    if spelled == "-a":
        return {k: -c for k, c in a.items()}, -x
    (b, y) = sides[1]
    if spelled == "a + b":
        return {k: _plus(a.get(k, 0.0), b.get(k, 0.0)) for k in {*a, *b}}, _plus(x, y)
    if spelled == "a - b":
        return {k: _plus(a.get(k, 0.0), -b.get(k, 0.0)) for k in {*a, *b}}, _plus(x, -y)
    if spelled == "a / b":
        return {k: c / y for k, c in a.items()}, x / y
    if a:
        return {k: _times(c, y) for k, c in a.items()}, _times(x, y)
    return {k: _times(c, x) for k, c in b.items()}, _times(y, x)


def _plus(x: Any, y: Any) -> Any:
    """The sum; adding a plain 0 costs nothing."""
    if not isinstance(x, Tensor) and x == 0:
        return y
    return x if not isinstance(y, Tensor) and y == 0 else x + y


def _times(x: Any, y: Any) -> Any:
    """The product; by a plain 1 or 0 it costs nothing."""
    if not isinstance(x, Tensor) and x in (0, 1):
        return y if x else 0.0
    return x * y


def _lined_up(x: Any, v: Value, rank: int) -> Any:
    """A timed value as it is, a static one with the axes of 1 that broadcasting needs."""
    if not isinstance(x, Tensor) or v.type.timed:
        return x
    missing = rank - len(v.type.dims)
    return x.reshape(x.shape[0], *[1] * missing, *x.shape[1:])


def _filled(x: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """At least of this shape."""
    if not isinstance(x, Tensor):
        return like.new_full(shape, float(x))
    return x.expand(torch.broadcast_shapes(x.shape, shape))


def _solver(scan: Declaration) -> Any:
    """The op's module without operands: only its `solve` is used, with what the loop gives it."""
    return scan.build(*[None] * len(scan.parsed.operands), **{p.name: None for p in scan.parameters})


def _joined(each: list[Any]) -> Any:
    if isinstance(each[0], tuple):
        return tuple(torch.cat(part, 1) for part in zip(*each, strict=True))
    return torch.cat(each, 1)


def _stack(modules: Sequence[Any], of: int, to: Sequence[int]) -> Callable[[list[Any]], None]:
    """Several maps of one value as one product a tick, its matrix put together once."""
    call = type(modules[0]).stacked(modules)

    def run(held: list[Any]) -> None:
        for at, made in zip(to, call(held[of]), strict=True):
            held[at] = made

    return run
