"""Time is exact: tables against brute force on random multirate graphs; and the bounds where a table is too long."""

from __future__ import annotations

import doctest
import random
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from math import inf

import pytest

import graphspec.time
from graphspec.time import (
    PERIOD_CAP,
    TABLE_LIMIT,
    Reach,
    Window,
    delay,
    everything,
    excess,
    fold,
    join,
    join_all,
    pointwise,
    ready,
    receptive_field,
    recurrent,
    unfold,
    window,
    worst_phase,
)

X = Reach.source()


def chain(*windows: Window) -> Reach:
    return reduce(Reach.through, windows, X)


def test_doctests():
    assert doctest.testmod(graphspec.time).failed == 0


# --- brute force: chase indices, collect the set of source ticks. Nothing here knows of Window or Reach. -------------

ORIGIN = 1 << 14  # a set of ticks is an int: bit ORIGIN + t is tick t
ENDLESS = 1  # bit 0: and every tick before


@dataclass
class Node:
    kind: str
    operands: list[int]
    numbers: tuple[int, ...]
    step: Fraction  # source ticks per element


@dataclass
class Graph:
    nodes: list[Node]
    seen: dict[tuple[int, int], int] = field(default_factory=dict)

    def reads(self, i: int, k: int) -> int:
        """The set of source ticks that element k of node i reads."""
        if (i, k) not in self.seen:
            self.seen[i, k] = self._reads(self.nodes[i], k)
        return self.seen[i, k]

    def _reads(self, node: Node, k: int) -> int:
        if node.kind == "source":
            return 1 << (ORIGIN + k)
        p, *other = node.operands
        if node.kind == "delay":
            return self.reads(p, k - node.numbers[0])
        if node.kind == "unfold":
            return self.reads(p, k // node.numbers[0])
        if node.kind == "join":
            return self.reads(p, k) | self.reads(other[0], k)
        if node.kind == "recurrent":
            elements, endless = range(k - 9, k + 1), ENDLESS
        elif node.kind == "fold":
            elements, endless = range(k * node.numbers[0], (k + 1) * node.numbers[0]), 0
        elif node.kind == "conv":
            past, future, stride = node.numbers
            elements, endless = range(k * stride - past, k * stride + future + 1), 0
        else:
            raise AssertionError(node.kind)
        ticks = endless
        for j in elements:
            ticks |= self.reads(p, j)
        return ticks

    def extent(self, i: int, k: int) -> tuple[float, int]:
        ticks = self.reads(i, k)
        first = -inf if ticks & ENDLESS else (ticks & -ticks).bit_length() - 1 - ORIGIN
        return first, ticks.bit_length() - 1 - ORIGIN


def random_graph(rng: random.Random) -> Graph:
    nodes = [Node("source", [], (), Fraction(1))]
    for _ in range(rng.randint(3, 12)):
        kind = rng.choice(["delay", "delay", "conv", "fold", "fold", "unfold", "unfold", "recurrent", "join", "join"])
        p = rng.choice([rng.randrange(len(nodes)), len(nodes) - 1])
        step, numbers, operands = nodes[p].step, (), [p]
        if kind == "delay":
            numbers = (rng.randint(1, 3),)
        elif kind in ("fold", "unfold"):
            numbers = (rng.choice([2, 3, 4, 5]),)
            step = step * numbers[0] if kind == "fold" else step / numbers[0]
        elif kind == "conv":
            numbers = (rng.randint(0, 3), rng.choice([0, 0, 1, 2]), rng.choice([1, 1, 2, 3]))
            step = step * numbers[2]
        elif kind == "join":
            alike = [i for i, node in enumerate(nodes) if i != p and node.step == step]
            if not alike:
                continue
            operands = [p, rng.choice(alike)]
        if step.numerator <= 40 and step.denominator <= 40:
            nodes.append(Node(kind, operands, numbers, step))
    return Graph(nodes)


def reach_of(graph: Graph) -> list[Reach]:
    reaches: list[Reach] = []
    for node in graph.nodes:
        operands = [reaches[i] for i in node.operands]
        if node.kind == "source":
            reaches.append(Reach.source())
        elif node.kind == "join":
            reaches.append(join(*operands))
        else:
            windows = {"delay": delay, "fold": fold, "unfold": unfold, "recurrent": recurrent, "conv": window}
            reaches.append(operands[0].through(windows[node.kind](*node.numbers)))
    return reaches


def hull_of(graph: Graph) -> list[Fraction]:
    """The affine hull, for comparison: the smallest c it can show with last(k) <= k*step + c."""
    hulls: list[Fraction] = []
    for node in graph.nodes:
        c = max((hulls[i] for i in node.operands), default=Fraction(0))
        operand_step = graph.nodes[node.operands[0]].step if node.operands else Fraction(1)
        ahead = {
            "delay": lambda n: -n,
            "fold": lambda p: p - 1,
            "conv": lambda past, future, stride: future,
        }.get(node.kind, lambda *numbers: 0)
        hulls.append(c + ahead(*node.numbers) * operand_step)
    return hulls


def test_two_thousand_random_graphs_against_brute_force():
    rng = random.Random(20240501)
    decisions = {True: 0, False: 0}
    periodic = hull_rejects = 0
    for _ in range(2000):
        graph = random_graph(rng)
        for i, (node, reach, hull) in enumerate(zip(graph.nodes, reach_of(graph), hull_of(graph), strict=True)):
            assert reach.step == node.step and reach.exact
            ks = range(-reach.period - 2, 2 * reach.period + 2)
            extents = [graph.extent(i, k) for k in ks]
            assert [(reach.first_at(k), reach.last_at(k)) for k in ks] == extents
            n, d = node.step.numerator, node.step.denominator
            lasts = [last for _, last in extents]
            strict = all(last * d < k * n for k, last in zip(ks, lasts, strict=True))
            assert (excess(reach, "strict") <= 0) == strict
            for ahead in (-1, 0, 2):
                allowed = all(last * d <= (k + ahead) * n for k, last in zip(ks, lasts, strict=True))
                assert (excess(reach, ahead) <= 0) == allowed
            starts = [k * n // d for k in ks]
            assert receptive_field(reach) == (
                max(start - first for start, (first, _) in zip(starts, extents, strict=True)),
                max(last - start for start, last in zip(starts, lasts, strict=True)),
            )
            # No shorter period would do.
            for period in {reach.period // q for q in (2, 3, 5) if reach.period % q == 0}:
                ticks = period * n // d
                moved = [(first + ticks, last + ticks) for first, last in extents]
                assert period * n % d or moved[: reach.period] != extents[period : period + reach.period]
            decisions[strict] += 1
            periodic += reach.period > 1
            assert strict or hull >= 0  # the hull is sound ...
            hull_rejects += strict and hull >= 0  # ... but rejects what is strictly causal
    assert min(decisions.values()) > 2000 and periodic > 2000 and hull_rejects > 20


# --- one case at a time -----------------------------------------------------------------------------------------------


def test_affine_hull_rejects_a_strictly_causal_graph():
    # A pooled value held at full rate, pooled again, one step late, and held again.
    steps = [("fold", 4), ("unfold", 4), ("fold", 4), ("delay", 1), ("unfold", 4)]
    graph = Graph([Node("source", [], (), Fraction(1))])
    for kind, n in steps:
        step = graph.nodes[-1].step * {"fold": Fraction(n), "unfold": Fraction(1, n)}.get(kind, 1)
        graph.nodes.append(Node(kind, [len(graph.nodes) - 1], (n,), step))
    reach = reach_of(graph)[-1]
    assert reach == chain(fold(4), unfold(4), fold(4), delay(1), unfold(4))
    assert all(graph.extent(len(steps), k)[1] < k for k in range(-20, 20))
    assert excess(reach, "strict") == 0 and worst_phase(reach, "strict") == 0
    assert hull_of(graph)[-1] == 2  # "up to two ticks ahead"


@pytest.mark.parametrize(
    ("windows", "step", "last", "first"),
    [
        ([pointwise()], 1, (0,), (0,)),
        ([delay(2)], 1, (-2,), (-2,)),
        ([window(past=6), window(past=12)], 1, (0,), (-18,)),
        ([window(past=2, future=3, stride=2)], 2, (3,), (-2,)),
        ([fold(4)], 4, (3,), (0,)),
        ([unfold(3)], Fraction(1, 3), (0, 0, 0), (0, 0, 0)),
        ([fold(4), unfold(2)], 2, (3, 3), (0, 0)),
        ([unfold(2), fold(2)], 1, (0,), (0,)),
        ([unfold(2), fold(3)], Fraction(3, 2), (1, 2), (0, 1)),
        ([window(past=0, stride=Fraction(3, 2))], Fraction(3, 2), (0, 1), (0, 1)),
        ([fold(4), recurrent()], 4, (3,), (-inf,)),
        ([fold(4), everything(), delay(7)], 4, (inf,), (-inf,)),
        ([unfold(4), everything()], Fraction(1, 4), (inf,), (-inf,)),
        ([unfold(4), recurrent()], Fraction(1, 4), (0, 0, 0, 0), (-inf,) * 4),
        ([window(past=inf, future=-2, stride=2)], 2, (-2,), (-inf,)),
    ],
)
def test_chains(windows, step, last, first):
    assert chain(*windows) == Reach(Fraction(step), len(last), last, first)


def test_windows_say_what_they_read_and_copy():
    assert delay(3).copies and not pointwise().copies
    assert [window(past=1, future=2, stride=Fraction(1, 2)).reads(k) for k in (-1, 0, 1)] == [(-2, 1), (-1, 2), (-1, 2)]
    assert everything().reads(5) == (-inf, inf) and recurrent().reads(5) == (-inf, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Window(stride=Fraction(0)),
        lambda: Window(past=-1),
        lambda: Window(past=0.5),
        lambda: Window(past=-inf),
        lambda: Window(future=True),
        lambda: Reach(Fraction(1, 2), 1, (0,), (0,)),
        lambda: Reach(Fraction(1), 2, (0,), (0,)),
        lambda: Reach(Fraction(-1), 1, (0,), (0,)),
        lambda: join(X, chain(fold(2))),
    ],
)
def test_refused(wrong):
    with pytest.raises(ValueError):
        wrong()


def test_join_all_passes_over_values_that_do_not_read_the_source():
    assert join_all([]) is None and join_all([None, None]) is None
    assert join_all([None, X, None, chain(delay(2))]) == Reach(Fraction(1), 1, (0,), (-2,))


def test_join_of_periods_three_and_four():
    both = join(chain(fold(3), unfold(3)), chain(fold(4), unfold(4)))
    assert both.period == 12 and both.last == (3, 3, 3, 5, 7, 7, 8, 8, 11, 11, 11, 11)
    assert excess(both, 0) == 3 and worst_phase(both, 0) == 0 and worst_phase(both, "strict") == 0


def test_phases_that_read_nothing_and_steps_back():
    """Windows never make these tables, a caller may: every second element reads nothing, or reads early."""
    gaps = Reach(Fraction(1), 2, (0, -inf), (0, inf))
    assert gaps.through(fold(2)) == Reach(Fraction(2), 1, (0,), (0,))
    assert gaps.through(recurrent()).last == (0, 0) and gaps.through(everything()).last == (inf,)
    jumps = Reach(Fraction(1), 2, (5, 0), (5, 0))
    assert not jumps.monotone
    assert jumps.through(window(past=1)) == Reach(Fraction(1), 2, (5, 5), (-2, 0))
    silent = Reach(Fraction(1), 1, (-inf,), (inf,))
    assert silent.through(everything()) == silent and excess(silent, "strict") == -inf


def test_any_table_through_any_window():
    rng = random.Random(7)
    for _ in range(500):
        step = Fraction(rng.randint(1, 5), rng.randint(1, 4))
        period = step.denominator * rng.randint(1, 3)
        last = tuple(rng.choice([-inf, rng.randint(-9, 9), rng.randint(-9, 9)]) for _ in range(period))
        first = tuple(rng.choice([inf, rng.randint(-9, 9), rng.randint(-9, 9)]) for _ in range(period))
        value = Reach(step, period, last, first)
        w = window(rng.randint(0, 20), rng.randint(0, 3), Fraction(rng.randint(1, 5), rng.randint(1, 4)))
        result = value.through(w)
        assert value.minimised().through(w) == result
        for k in range(-result.period - 1, 2 * result.period):
            start, end = w.reads(k)
            assert result.last_at(k) == max(value.last_at(j) for j in range(start, end + 1))
            assert result.first_at(k) == min(value.first_at(j) for j in range(start, end + 1))


def test_beyond_the_cap_a_sound_bound():
    # 61, 67 and 71 share no factor: the table of the join would have 290,177 entries.
    parts = [chain(fold(p), unfold(p)) for p in (61, 67, 71)]
    both = join(parts[0], parts[1])
    assert both.exact and both.period == 61 * 67 <= PERIOD_CAP
    bound = join_all(parts)
    assert not bound.exact and bound.period == 1
    for k in range(-500, 5000, 7):
        assert bound.last_at(k) >= max(part.last_at(k) for part in parts)
        assert bound.first_at(k) <= min(part.first_at(k) for part in parts)
    assert (bound.last, bound.first) == ((70,), (-70,)) and excess(bound, "strict") == 71
    late = bound.through(delay(71))
    assert excess(late, "strict") == 0 and not late.exact


def test_beyond_the_cap_through_a_window():
    long = join(chain(fold(61), unfold(61)), chain(fold(67), unfold(67)))
    held = long.through(unfold(8))
    assert not held.exact and held.period == 8
    for k in range(-100, 40000, 11):
        assert held.last_at(k) >= long.last_at(k // 8) and held.first_at(k) <= long.first_at(k // 8)


def test_a_long_hop_stays_exact_and_an_absurd_one_is_unbounded():
    hop = chain(unfold(8192))  # no shorter table exists, so nothing is lost by keeping it
    assert hop.exact and hop.period == 8192 and hop.last_at(8191) == 0 and hop.last_at(8192) == 1
    assert excess(hop, 0) == 0 and excess(hop.through(delay(8192)), "strict") == 0
    absurd = chain(unfold(TABLE_LIMIT + 1))
    assert not absurd.exact and (absurd.last, absurd.first) == ((inf,), (-inf,))


def test_ready_is_when_the_stage_runs():
    pooled = chain(delay(1), fold(4))  # sashimi's first pooling: elements 4k-1 .. 4k+2 of the wave
    assert [ready(pooled, k) for k in (0, 1, 2)] == [3, 7, 11]
    assert ready(chain(everything()), 0) == inf


def test_sashimi_is_strict_only_with_its_shift():
    pool = fold(4)
    x0 = chain(delay(1))
    x1 = x0.through(pool).through(recurrent())
    up = x1.through(unfold(4))
    assert excess(join(up, x0), "strict") == 3 and worst_phase(up, "strict") == 0
    up = x1.through(delay(1)).through(unfold(4))
    assert excess(join(up, x0), "strict") == 0 and receptive_field(up) == (inf, -2)


def test_look_ahead_counts_in_ticks_of_the_value():
    hop = 64
    audio = chain(window(past=0, future=1), unfold(hop))  # harmonic: linear between a frame and the next
    assert excess(audio, hop) == 0 and excess(audio, hop - 1) == 1
