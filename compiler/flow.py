"""A graph run as a stream: any number of ticks in, of any input, and out comes what has become known.

Elements are numbered, and every node makes as many as its operands allow (taking.py), so what looks ahead is late by
exactly what it waits for, joins line up by themselves, and nothing is masked. The state is a flat dict of tensors:

    counts        int64, on the CPU: how many elements each node has made and each target has given out; 1 for each
                  input that has ended
    PATH/held     the elements of a value that some reader has not done with, oldest first; absent if none
    PATH/NAME     the states of modules and loops, as in the step form

After its inputs have ended, what looks beyond is given what its op declares for it (zeros, or the last element held),
so that the whole stream is what the whole form computes. Tensors are `[B, T, ..., C]`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.compiler import taking
from graphspec.compiler.emit import kept, own_names
from graphspec.compiler.looping import Loop
from graphspec.compiler.taking import Node
from graphspec.compiler.tensors import filled
from graphspec.diagnostic import fail
from graphspec.graph import Constant, Graph, Value
from graphspec.time import Window

Noise = Callable[[Value, int, int], Tensor | None]
"""The random operand of elements first .. first + count - 1 of a value; none for what is random in training only."""


class Flow:
    """Streams `targets` of a graph. `rate` is that of its fastest input, whose ticks are its time.

    ahead: elements may be made and come out before their own time, if what they read is there (a delay's): what is
    drawn from delayed values and fed back needs it. The end is then not the whole form's where something looks ahead
    of a delay: it has seen what the whole form never comes to.
    """

    def __init__(
        self,
        graph: Graph,
        modules_of: Mapping[Value, nn.Module],
        loops: Sequence[Loop],
        targets: Sequence[Value],
        ahead: bool = False,
    ) -> None:
        self.ahead = ahead
        self.graph, self.modules_of, self.targets = graph, modules_of, tuple(targets)
        self.nodes = taking.nodes(graph, targets, [loop.region for loop in loops])
        self.loop_of = {loop.region: loop for loop in loops}
        self.sources = [n.value for n in self.nodes if n.kind == "source"]
        rates = [v.type.rate for v in self.sources if v.type.rate is not None]
        if not rates:
            fail("GS0640", "nothing comes in along time, so there is nothing to stream", None)
        self.rate = max(rates)
        timed = [v for n in self.nodes for v in n.values]
        self.step_of = {v: self.rate / v.type.rate for v in timed if v.type.rate is not None}
        self.places = {n: i for i, n in enumerate(self.nodes)}
        self.node_of = {v: n for n in self.nodes for v in n.values}
        held = {v for n in self.nodes for v, _ in n.reads} | set(self.targets)
        self.held = [v for v in timed if v in held and v.parts is None]
        needed = graph.needed_for(list(targets))
        self.static = [v for v in needed if not v.type.timed and not v.is_input]
        self.knobs = [v for v in needed if v.is_input and not v.type.timed]
        self.wanted = {n: [v for v in n.values if v in held] for n in self.nodes if n.kind == "loop"}
        self.run_of = {n: self._runner(n) for n in self.nodes if n.kind in ("step", "window")}
        self.states, self.prepared = self._names()

    def _runner(self, n: Node) -> nn.Module:
        """What is called: `step` or `over`, in float32 where the op's policy says so."""
        v = n.value
        module: Any = self.modules_of[v]
        run = Called(module.step if n.kind == "step" else module.over)
        return kept(v, run)

    def _names(self) -> tuple[dict[Value, list[str]], dict[Value, list[str]]]:
        """For each value its own names in the state, and among the prepared tensors."""
        states: dict[Value, list[str]] = {}
        prepared: dict[Value, list[str]] = {}
        for n in self.nodes:
            for v in n.values:
                if n.kind in ("step", "window", "loop"):
                    own = self.modules_of.get(v)
                    states[v], prepared[v] = own_names(own) if own is not None else (["past"] if v.carry else [], [])
        return states, prepared

    # ---- what a stream begins with -----------------------------------------------------------------------------------

    def prepare(self, compute: Callable[[Sequence[Value]], Iterable[Any]], knobs: Mapping[str, Any]) -> dict[str, Any]:
        """What stays as it is: tensors made of the weights alone, static values, static inputs.

        compute: the whole form of static values, given the knobs.
        """
        out: dict[str, Any] = {}
        for v, names in self.prepared.items():
            if names:
                out |= {f"{v.path}/{k}": t for k, t in self.modules_of[v].prepare().items()}  # type: ignore[operator]
        for v in self.knobs:
            default = self.graph.inputs[v.path].default
            out[f"={v.path}"] = knobs.get(v.path, default)
            if out[f"={v.path}"] is None:
                raise KeyError(f"input '{v.path}' is missing")
        if self.static:
            out |= {f"={v.path}": x for v, x in zip(self.static, compute(self.static), strict=True)}
        return out

    def begin(self, batch: int, like: Tensor, prepared: Mapping[str, Any]) -> dict[str, Tensor]:
        """The state before the first tick; dtype and device of `like`."""
        counts = len(self.nodes) + len(self.targets) + len(self.sources)
        state = {"counts": torch.zeros(counts, dtype=torch.long)}
        state["like"] = like.new_empty(batch, 0)
        for n in self.nodes:
            if n.kind in ("step", "window"):
                own = self.modules_of[n.value].init_state(batch, like)  # type: ignore[operator]
                state |= {f"{n.value.path}/{k}": t for k, t in own.items()}
            elif n.kind == "loop":
                state |= self._loop(n).init_state(batch, like)
                for c in self._loop(n).region.carries:
                    state[f"{c.path}/past"] = self._beginning(n, c, batch, like, prepared)
        return state

    def _loop(self, n: Node) -> Loop:
        assert n.region is not None
        return self.loop_of[n.region]

    def _beginning(self, n: Node, carry: Value, batch: int, like: Tensor, prepared: Mapping[str, Any]) -> Tensor:
        init = self.graph.backs[carry].init
        given = {init: prepared[f"={init.path}"]} if isinstance(init, Value) else {}
        return self._loop(n).beginning(carry, given, batch, like)

    # ---- running -----------------------------------------------------------------------------------------------------

    def push(
        self,
        given: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
        prepared: Mapping[str, Any],
        noise: Noise | None = None,
        end: bool | Collection[str] = False,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The next ticks of inputs by name (of each any number, or none): the new elements of each target, the state.

        end: of all inputs, or of these, nothing comes any more. Nothing is changed in place.
        """
        return _Push(self, state, prepared, noise, end).run(given)

    def pushed(self, state: Mapping[str, Tensor], source: Value) -> Fraction:
        """How far an input has come, in ticks of the fastest."""
        return int(state["counts"][self.places[self.node_of[source]]]) * self.step_of[source]

    def given_out(self, state: Mapping[str, Tensor], target: Value) -> int:
        """How many elements of a target have come out."""
        return int(state["counts"][len(self.nodes) + self.targets.index(target)])


class _Push:
    """One push while it runs: counts, held elements and module states, taken from the old state and changed here."""

    def __init__(
        self,
        flow: Flow,
        state: Mapping[str, Tensor],
        prepared: Mapping[str, Any],
        noise: Noise | None,
        end: bool | Collection[str],
    ) -> None:
        self.flow, self.prepared, self.noise = flow, prepared, noise
        counts = state["counts"].tolist()
        self.count = dict(zip(flow.nodes, counts, strict=False))
        self.given_out = counts[len(flow.nodes) : len(flow.nodes) + len(flow.targets)]
        ended = dict(zip(flow.sources, counts[len(flow.nodes) + len(flow.targets) :], strict=True))
        now = {v.path for v in flow.sources} if end is True else set(end or ())
        self.closed = {v: bool(was) or v.path in now for v, was in ended.items()}
        self.time: dict[Value, Fraction] = {}  # how far what a value is made of has come
        self.made = {v: self.count[n] for n in flow.nodes for v in n.values}
        self.state = dict(state)
        self.held: dict[Value, Tensor | None] = {v: self.state.pop(f"{v.path}/held", None) for v in flow.held}
        self.whole: dict[Value, tuple[Any, ...]] = {}  # results of ops with several, within this push

    def run(self, given: Mapping[str, Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        flow = self.flow
        for v in flow.sources:
            x = given.get(v.path)
            if x is not None and x.shape[1]:
                self._add(flow.node_of[v], x.shape[1], [(v, x)])
            self.time[v] = self.made[v] * flow.step_of[v]
        for n in flow.nodes:
            if n.kind != "source":
                self.time |= dict.fromkeys(n.values, min(self.time[o] for o, _ in n.reads))
                self.closed |= dict.fromkeys(n.values, all(self.closed[o] for o, _ in n.reads))
                first, last = self.count[n], self._reaches(n)
                if last > first:
                    self._add(n, last - first, getattr(self, f"_{n.kind}")(n, first, last))
        out = [self._released(i, v) for i, v in enumerate(flow.targets)]
        self._let_go()
        counts = [self.count[n] for n in flow.nodes] + self.given_out + [self.closed[v] for v in flow.sources]
        new = {**self.state, "counts": torch.tensor(counts, dtype=torch.long)}
        return out, new | {f"{v.path}/held": x for v, x in self.held.items() if x is not None}

    def _begun(self, v: Value, group: int) -> int:
        """Up to where elements may be made that wait for their own time: whole groups."""
        n = taking.begun(self.time[v], self.flow.step_of[v])
        return -(-n // group) * group

    def _reaches(self, n: Node) -> int:
        """How many elements the node can have made now."""
        if self.closed[n.value]:  # what it reads is all there
            return self._begun(n.value, 1)
        there = taking.within(n, self.made)
        return min(there, self._begun(n.value, n.group)) if n.waits and not self.flow.ahead else there

    def _add(self, n: Node, count: int, pieces: Sequence[tuple[Value, Any]]) -> None:
        self.count[n] += count
        for v in n.values:
            self.made[v] += count
        for v, x in pieces:
            if v.parts is not None:
                self.whole[v] = x
            elif v in self.held:
                old = self.held[v]
                self.held[v] = x if old is None else torch.cat([old, x], 1)

    def _of(self, v: Value, first: int, end: int) -> Tensor:
        """Elements first .. end - 1 of a value, which are there."""
        x = self.held[v]
        assert x is not None
        base = self.made[v] - x.shape[1]
        return x[:, first - base : end - base]

    # ---- one kind of node each: elements first .. last - 1 -----------------------------------------------------------

    def _delay(self, n: Node, first: int, last: int) -> list[tuple[Value, Any]]:
        (o, w) = n.reads[0]
        k, v = int(w.past), n.value
        pieces = []
        if first < k:
            like = self.state["like"]
            if n.region is None:
                past = self.flow.modules_of[v].init_state(like.shape[0], like)["past"]  # type: ignore[operator]
            else:
                past = self.flow._beginning(n, v, like.shape[0], like, self.prepared)
            pieces.append(past[:, first : min(last, k)])
        if last > k:
            pieces.append(self._of(o, max(first - k, 0), last - k))
        return [(v, pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1))]

    def _step(self, n: Node, first: int, last: int) -> list[tuple[Value, Any]]:
        """By the module's `step`, of whole groups, or over windows."""
        v, reads = n.value, iter(n.reads)
        taken = self._windowed if n.kind == "window" else self._grouped

        def given(_: int, o: Value | Constant) -> Any:
            if isinstance(o, Constant):
                return o.value
            if not o.type.timed:
                return self.prepared[f"={o.path}"]
            _, window = next(reads)
            return taken(n, o, window, first, last)

        plain, named = v.called(given)
        if v.noise is not None:
            named["noise"] = self._noise_of(n, first, last)
        state = {k: self.state[f"{v.path}/{k}"] for k in self.flow.states[v]}
        prepared = {k: self.prepared[f"{v.path}/{k}"] for k in self.flow.prepared[v]}
        made, new = self.flow.run_of[n](*plain, state=state, prepared=prepared, **named)
        self.state |= {f"{v.path}/{k}": x for k, x in new.items()}
        return [(v, made)]

    _window = _step

    def _grouped(self, n: Node, o: Value, w: Window, first: int, last: int) -> Tensor:
        """All the elements of an operand that belong to groups of results."""
        each = taking.span(w)
        return self._of(o, first // n.group * each, min(-(-last // n.group) * each, self.made[o]))

    def _windowed(self, n: Node, o: Value, w: Window, first: int, last: int) -> Tensor:
        """What results read of an operand; before its start zeros, beyond its end what the op declares for it."""
        there, start, end = self.made[o], int(w.reads(first)[0]), int(w.reads(last - 1)[1]) + 1
        pieces = []
        if max(start, 0) < min(end, there):
            pieces.append(self._of(o, max(start, 0), min(end, there)))
        like = pieces[0] if pieces else self._of(o, there - 1, there)
        if start < 0:
            pieces.insert(0, like.new_zeros(like.shape[0], min(end, 0) - start, *like.shape[2:]))
        if end > there:
            beyond = end - max(start, there)
            module: Any = self.flow.modules_of[n.value]
            edge = self._of(o, there - 1, there) if module.holds_the_end else like.new_zeros(())
            pieces.append(edge.expand(like.shape[0], beyond, *like.shape[2:]))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)

    def _noise_of(self, n: Node, first: int, last: int) -> Tensor | None:
        """Of the results; over windows, of all that belongs to what is read of the first operand."""
        if n.kind == "step":
            return self._drawn(n.value, first, last)
        w = n.reads[0][1]
        start, end = (int(k / w.stride) for k in (w.reads(first)[0], w.reads(last - 1)[1] + 1))
        made = self._drawn(n.value, max(start, 0), end)
        return made if made is None or start >= 0 else F.pad(made, (*[0, 0] * (made.ndim - 2), -start, 0))

    def _drawn(self, v: Value, first: int, last: int) -> Tensor | None:
        return None if self.noise is None else self.noise(v, first, last - first)

    def _part(self, n: Node, first: int, last: int) -> list[tuple[Value, Any]]:
        (whole, _) = n.reads[0]
        assert whole.parts is not None and n.value.part is not None
        return [(n.value, self.whole[whole][list(whole.parts).index(n.value.part)])]

    def _loop(self, n: Node, first: int, last: int) -> list[tuple[Value, Any]]:
        loop, wanted = self.flow._loop(n), self.flow.wanted[n]
        read = {o for o, _ in n.reads}
        outside = []
        for o in loop.region.outside:
            if o in read:
                outside.append(self._of(o, first, last))
            else:
                outside.append(self.prepared[f"={o.path}"])
        states, ready = self.flow.states, self.flow.prepared
        state = {f"{v.path}/{k}": self.state[f"{v.path}/{k}"] for v in n.values for k in states[v]}
        prepared = {f"{v.path}/{k}": self.prepared[f"{v.path}/{k}"] for v in n.values for k in ready[v]}
        noise = {v: z for v in n.values if v.noise is not None and (z := self._drawn(v, first, last)) is not None}
        named = {"noise": noise} if noise else {}
        made, new = loop.step(*outside, state=state, prepared=prepared, wanted=wanted, **named)
        self.state |= new
        return list(zip(wanted, made, strict=True))

    # ---- afterwards --------------------------------------------------------------------------------------------------

    def _released(self, i: int, v: Value) -> Tensor:
        """The target's elements that are new and have begun."""
        first = self.given_out[i]
        last = self.made[v] if self.flow.ahead else max(first, min(self.made[v], self._begun(v, 1)))
        self.given_out[i] = last
        if last > first:
            return self._of(v, first, last)
        like = self.state["like"]
        return filled(v.type, like.shape[0], 0, 0, like)

    def _let_go(self) -> None:
        """Of each value, the elements that every reader has done with."""
        flow = self.flow
        keep = dict(self.made)
        for n in flow.nodes:
            for o, w in n.reads:
                keep[o] = min(keep[o], max(0, int(w.reads(self.count[n])[0])))
        for i, v in enumerate(flow.targets):
            keep[v] = min(keep[v], self.given_out[i])
        for v, x in self.held.items():
            if x is not None:
                base = self.made[v] - x.shape[1]
                rest = x[:, keep[v] - base :] if keep[v] > base else x
                # A view of much that is done with would keep it in memory.
                self.held[v] = None if not rest.shape[1] else rest.clone() if 2 * rest.shape[1] < x.shape[1] else rest


class Called(nn.Module):
    """A method of a module as a module, without its weights."""

    def __init__(self, method: Callable[..., Any]) -> None:
        super().__init__()
        self.method = method

    def forward(self, *x: Any, **named: Any) -> Any:
        return self.method(*x, **named)
