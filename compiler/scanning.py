"""A region that is a linear recurrence, for all its ticks at once: coefficients, the solver, and what hangs on it.

What a member is of the elements that come back is worked out by its own module: linear in some operands while the
others are held (`affine_in` of its declaration), it gives a coefficient where it is given coefficients, and the rest of
the recurrence where it is given their rest. Sums and products go without it, as most of them meet a plain 0 or 1.

Where gradients end (`detach_every`) the recurrence is solved twice: without gradients for the values, then with them,
where an element that ends them enters as the number it was found to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphspec.compiler.regions import Region, begins, detaches
from graphspec.graph import Back, Constant, Value

Env = dict[Value, Any]
Side = tuple[dict[int, Any], Any]  # coefficients by lag, and the rest: numbers, or tensors of the recurrence's rank

_SIGNS = ("a + b", "a - b", "a * b", "a / b", "-a")


class Recurrence:
    """Solves a region; `call(member, operands)` runs a member on all ticks."""

    def __init__(
        self, region: Region, backs: Mapping[Value, Back], modules_of: Mapping[Value, nn.Module], solver: Any
    ) -> None:
        self.region, self.modules_of, self.solver = region, modules_of, solver
        self.source = backs[region.carries[0]].source
        self.inside = {*region.members, *region.carries}
        self.rank = len(region.carries[0].type.dims)
        self.counting = [v for v in region.members if begins(v) or detaches(v)]
        self.detached = [v for v in region.members if detaches(v)]
        self.timed = next((v for v in region.outside if v.type.timed), None)

    def run(
        self, given: Env, pasts: Mapping[Value, Tensor], states: Any, one: Any, wanted: Sequence[Value], noise: Env
    ) -> tuple[Env, dict[Value, Tensor]]:
        """Values of what is wanted, and for each carry its last elements. `one(member, env)` evaluates a member.

        given: the region's outside. states: of members that count ticks, empty for whole sequences.
        """
        assert self.timed is not None
        ticks = given[self.timed].shape[1]
        begun = self._begun(given, pasts, states)
        ends: Env = {}
        if self.detached and torch.is_grad_enabled():
            with torch.no_grad():
                env, _ = self._pass(given, pasts, begun, ticks, {}, one, self.detached, noise)
            like = next(iter(pasts.values()))
            for v in self.detached:
                module: Any = self.modules_of[v]
                cut = module.cuts(ticks, states[v]["tick"] if v in states else None, like.device)
                ends[v] = cut.reshape(*cut.shape, *[1] * (like.ndim - 2)), env[v]
        return self._pass(given, pasts, begun, ticks, ends, one, wanted, noise)

    def counted(self, states: Any, ticks: int) -> None:
        """Let the members that count ticks know that so many have passed."""
        for v in self.counting:
            module: Any = self.modules_of[v]
            states[v] = module.after(states[v], ticks)

    def _begun(self, given: Env, pasts: Mapping[Value, Tensor], states: Any) -> dict[Value, Tensor]:
        """What came before the block, where a member `begin` says otherwise. Nobody else reads that element."""
        out = dict(pasts)
        for v in self.region.members:
            if begins(v):
                carry, first = v.operands
                while not (isinstance(carry, Value) and carry.carry):
                    assert isinstance(carry, Value)
                    carry = carry.operands[0]
                module: Any = self.modules_of[v]
                value = first.value if isinstance(first, Constant) else given[first]
                begun = states[v]["begun"] if v in states else None
                oldest = module.begins(out[carry][:, 0], value, begun)[:, None]
                out[carry] = torch.cat([oldest, out[carry][:, 1:]], 1) if carry.carry > 1 else oldest
        return out

    def _pass(
        self,
        given: Env,
        pasts: Mapping[Value, Tensor],
        begun: Mapping[Value, Tensor],
        ticks: int,
        ends: Env,
        one: Any,
        wanted: Sequence[Value],
        noise: Env,
    ) -> tuple[Env, dict[Value, Tensor]]:
        region, lags = self.region, self.region.lags
        longest = max(region.carries, key=lambda c: c.carry)
        before, begin = pasts[longest], begun[longest]
        smoothing, others = region.smoothing, self._behind(wanted)
        if smoothing is not None:
            a = _lined_up(given[smoothing.a], smoothing.a, self.rank, begin)
            a = a if isinstance(a, Tensor) else begin.new_full((1,) * (begin.ndim), a)
            y = self.solver.solve(a, given[smoothing.x], begin[:, 0], smoothing.keeps)
            given = {**given, smoothing.rest: 1 - given[smoothing.a]} if others else given
        else:
            coefficients, rest = self._affine(given, begin, ends, noise)[self.source]
            y = self._solved(coefficients, rest, begin, ticks)
        env: Env = {**given, self.source: y}
        past = torch.cat([before, y], 1) if others or ticks < lags else None  # element t + lags is y_t
        if past is not None:
            env |= {c: past[:, lags - c.carry : lags - c.carry + ticks] for c in region.carries}
        for v in others:
            if not v.carry:
                env[v] = one(v, env)
        last = y if past is None else past
        return env, {c: last[:, last.shape[1] - c.carry :].contiguous() for c in region.carries}

    def _solved(self, coefficients: dict[int, Any], rest: Any, begin: Tensor, ticks: int) -> Tensor:
        shape = (begin.shape[0], ticks, *begin.shape[2:])
        b = _filled(rest, shape, begin)
        flat = (1,) * len(shape)
        y: Tensor
        if self.region.kind != "companion":
            y = self.solver.solve(_filled(coefficients.get(1, 0.0), flat, begin), b, begin[:, 0])
            return y
        each = [_filled(coefficients.get(k, 0.0), flat, begin) for k in range(1, self.region.lags + 1)]
        # All the same axes: a coefficient that is one number for all ticks or rows stays that.
        rows, times = (max(a.shape[i] for a in each) for i in (0, 1))
        y = self.solver.solve(torch.stack([a.expand(rows, times, *shape[2:]) for a in each], 2), b, begin)
        return y

    def _behind(self, wanted: Sequence[Value]) -> list[Value]:
        """The members and carries that are wanted beside the solution, in order."""
        need: set[Value] = set()
        stack = [v for v in wanted if v is not self.source]
        while stack:
            v = stack.pop()
            if v not in need and v is not self.source and v in self.inside:
                need.add(v)
                stack.extend(v.values())
        return [v for v in (*self.region.carries, *self.region.members) if v in need]

    # ---- coefficients ----------------------------------------------------------------------------------------------

    def _affine(self, given: Env, like: Tensor, ends: Env, noise: Env) -> dict[Value, Side]:
        """For each member its coefficients by lag, and the rest."""
        found: dict[Any, Side] = {c: ({c.carry: 1.0}, 0.0) for c in self.region.carries}

        def side(o: Value | Constant) -> Side:
            if isinstance(o, Constant):
                return {}, o.value
            return found[o] if o in found else ({}, _lined_up(given[o], o, self.rank, like))

        for v in self.region.members:
            assert v.op is not None
            if begins(v):
                found[v] = side(v.operands[0])
            elif detaches(v):
                cut, value = ends.get(v, (None, None))
                of = side(v.operands[0])
                found[v] = of if cut is None else _ended(of, cut, value, like)
            elif v.op.spelled in _SIGNS:
                found[v] = _combined(v.op.spelled, [side(o) for o in v.operands])
            else:
                found[v] = self._by_module(v, found, given, like, noise)
        return found

    def _by_module(self, v: Value, found: Mapping[Any, Side], given: Env, like: Tensor, noise: Env) -> Side:
        assert v.op is not None
        dependent = {s for o, s in zip(v.operands, v.slots, strict=True) if o in found}
        together = v.op.linear_in(dependent)
        module = self.modules_of[v]

        def run(lag: int) -> Any:
            """With the coefficients of that lag, 0: with the rest."""

            def side(i: int, o: Value | Constant) -> Any:
                if o in found:
                    x = found[o][0].get(lag, 0.0) if lag else found[o][1]
                    return x if isinstance(x, Tensor) else like.new_full((1,) * like.ndim, x)
                if lag and v.slots[i] in together:
                    return 0.0
                return o.value if isinstance(o, Constant) else given[o]

            plain, named = v.called(side)
            if v.noise is not None:
                named["noise"] = noise.get(v)
            return module(*plain, **named)

        lags = {k for o in v.operands if o in found for k in found[o][0]}
        rests = [found[o][1] if o in found else o for o, s in zip(v.operands, v.slots, strict=True) if s in together]
        nothing = all(not isinstance(r, (Tensor, Value)) and _number(r) == 0 for r in rests)
        return {k: run(k) for k in lags}, 0.0 if nothing else run(0)


def _number(x: Any) -> Any:
    return x.value if isinstance(x, Constant) else x


def _ended(side: Side, cut: Tensor, value: Tensor, like: Tensor) -> Side:
    """Where `cut`, the value itself instead of what comes back; the rest of it as it was."""
    coefficients, rest = side
    zero = like.new_zeros(())
    kept = {
        k: torch.where(cut, zero, c if isinstance(c, Tensor) else like.new_full((), c)) for k, c in coefficients.items()
    }
    return kept, torch.where(cut, value, rest if isinstance(rest, Tensor) else like.new_full((), rest))


def _combined(spelled: str, sides: list[Side]) -> Side:
    (a, x) = sides[0]
    if spelled == "-a":
        return {k: -c for k, c in a.items()}, -x
    (b, y) = sides[1]
    if spelled == "a + b":
        return {k: _plus(a.get(k, 0.0), b.get(k, 0.0)) for k in {*a, *b}}, _plus(x, y)
    if spelled == "a - b":
        return {k: _plus(a.get(k, 0.0), -b.get(k, 0.0)) for k in {*a, *b}}, _plus(x, -y)
    if spelled == "a / b":
        return {k: c / y for k, c in a.items()}, 0.0 if not isinstance(x, Tensor) and x == 0 else x / y
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


def _lined_up(x: Any, v: Value, rank: int, like: Tensor) -> Any:
    """A timed value as it is, a static one with the axes of 1 that broadcasting needs; integers as floats."""
    if not isinstance(x, Tensor) or x.dim() == 0:  # of numbers alone: it has no rows
        return x
    x = x if x.is_floating_point() else x.to(like.dtype)
    if v.type.timed:
        return x
    missing = rank - len(v.type.dims)
    return x.reshape(x.shape[0], *[1] * missing, *x.shape[1:])


def _filled(x: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """At least of this shape."""
    if not isinstance(x, Tensor):
        return like.new_full((1,) * len(shape), float(x)).expand(shape)
    return x.expand(torch.broadcast_shapes(x.shape, shape))
