"""The types of time: which ticks of a source each element of a value can read, exactly.

A Window says it for one operand of one op; a Reach for a value against a source, over any path of ops. On a value
whose rate is 1/step of the source's, the map is periodic: last(k + P) = last(k) + P*step, so a table of P numbers
holds it for every k. Time runs over all whole numbers; what lies before 0 is `before` or zero, and never known late.

>>> x = Reach.source()
>>> x.through(delay(1)).last                            # x[t-1]: element k reads tick k-1
(-1,)
>>> x.through(window(past=2)).first                     # a causal convolution of three taps
(-2,)
>>> pooled = x.through(fold(4)); pooled.step, pooled.last, pooled.first   # element k reads 4k .. 4k+3
(Fraction(4, 1), (3,), (0,))
>>> held = pooled.through(unfold(4)); held.last         # element 0 needs tick 3: four phases
(3, 3, 3, 3)
>>> held.last_at(4), held.last_at(-1)
(7, -1)
>>> excess(held, "strict"), worst_phase(held, "strict") # three ticks too many, and one for being strict, at phase 0
(4, 0)
>>> late = pooled.through(delay(1)).through(unfold(4)); excess(late, "strict"), late.last
(0, (-1, -1, -1, -1))
>>> both = join(late, x.through(recurrent()).through(delay(1))); both.last, receptive_field(both)
((-1,), (inf, -1))
>>> ready(late, 5)                                      # known once tick 3 is in
4
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, reduce
from math import gcd, inf, lcm
from typing import Literal

Ticks = int | float
"""A whole number of ticks, or +-inf."""

PERIOD_CAP = 4096
"""A longer table is folded onto the shortest period its step allows, and is then a bound, not exact."""
TABLE_LIMIT = 2**16
"""Where even that period is longer than this, nothing is known: unbounded both ways."""


@dataclass(frozen=True)
class Window:
    """Element k of an op's result reads elements floor(k*stride) - past .. floor(k*stride) + future of this operand.

    stride: operand elements per result element. past, future: whole numbers, or inf; negative ones read only away
    from the element. copies: the result is one operand element, unchanged (a delay). group: so many results, from a
    multiple of it on, come out together, and each is as late as the last of them.

    >>> window(past=6, future=1).reads(10), fold(4).reads(2), unfold(4).reads(9), delay(3).reads(0)
    ((4, 11), (8, 11), (2, 2), (-3, -3))
    """

    stride: Fraction = Fraction(1)
    past: Ticks = 0
    future: Ticks = 0
    copies: bool = False
    group: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", Fraction(self.stride))
        if self.stride <= 0:
            raise ValueError(f"a window's stride is positive, not {self.stride}")
        for name in ("past", "future"):
            n = getattr(self, name)
            if isinstance(n, bool) or not (n == inf or isinstance(n, int)):
                raise ValueError(f"a window's {name} is a whole number or inf, not {n!r}")
        if self.past + self.future < 0:
            raise ValueError(f"a window of past {self.past} and future {self.future} reads nothing")

    def reads(self, k: int) -> tuple[Ticks, Ticks]:
        """The first and last operand element that element k reads."""
        n, d = self.stride.numerator, self.stride.denominator
        first = k // self.group * self.group
        return first * n // d - self.past, (first + self.group - 1) * n // d + self.future


def pointwise() -> Window:
    """Element k reads element k."""
    return Window()


def delay(n: int) -> Window:
    """Element k is element k - n."""
    return Window(past=n, future=-n, copies=True)


def window(past: Ticks, future: Ticks = 0, stride: Fraction | int = 1, group: int = 1) -> Window:
    """A convolution, a frame, a look-ahead, a group of elements that read each other."""
    return Window(Fraction(stride), past, future, group=group)


def fold(p: int) -> Window:
    """Element k reads the p elements from k*p on: pooling, framing without overlap."""
    return Window(Fraction(p), 0, p - 1)


def unfold(p: int) -> Window:
    """Element k reads element k // p: each operand element gives p."""
    return Window(Fraction(1, p))


def recurrent(future: Ticks = 0, stride: Fraction | int = 1) -> Window:
    """Element k reads every element up to its own, and `future` more."""
    return Window(Fraction(stride), past=inf, future=future)


def everything() -> Window:
    """Element k reads every element, before and after: attention over a context, an undeclared input."""
    return Window(past=inf, future=inf)


@dataclass(frozen=True)
class Reach:
    """What a value reads of a source. A value that does not read it at all has no Reach: callers hold None.

    step: source ticks per element. last, first: for k = 0 .. period-1 the last and first tick element k reads;
    -inf in last and inf in first for a phase that reads nothing, inf in last and -inf in first without bound.
    exact: the table is the truth; otherwise a sound bound (true reads lie inside it).
    """

    step: Fraction
    period: int
    last: tuple[Ticks, ...]
    first: tuple[Ticks, ...]
    exact: bool = True

    def __post_init__(self) -> None:
        if self.step <= 0 or self.period < 1 or not len(self.last) == len(self.first) == self.period:
            raise ValueError(f"a reach of step {self.step} and period {self.period} has tables of that period")
        if self.period % self.step.denominator and any(map(_finite, self.last + self.first)):
            raise ValueError(f"{self.period} elements of {self.step} ticks each are not a whole number of ticks")

    @staticmethod
    def source() -> Reach:
        """The source itself: element k reads tick k."""
        return Reach(Fraction(1), 1, (0,), (0,))

    @staticmethod
    def unbounded(step: Fraction) -> Reach:
        """The bound that holds of anything."""
        return Reach(step, 1, (inf,), (-inf,), exact=False)

    def last_at(self, k: int) -> Ticks:
        """The last tick element k reads."""
        return self.last[k % self.period] + k // self.period * self.ticks

    def first_at(self, k: int) -> Ticks:
        """The first tick element k reads."""
        return self.first[k % self.period] + k // self.period * self.ticks

    def through(self, window: Window) -> Reach:
        """The reach of the result of an op that reads this value through `window`."""
        if window.stride == 1 and window.group == 1 and self.monotone:
            return self._moved(window)
        a, b = window.stride.numerator, window.stride.denominator
        step, operand = self.step * window.stride, self
        # The result repeats after `period` elements: a whole number of the operand's periods, and of groups.
        period = lcm(b * operand.period // gcd(a, b * operand.period), window.group)
        if period > PERIOD_CAP:
            operand = self.folded()
            period = lcm(b * operand.period // gcd(a, b * operand.period), window.group)
        if period > TABLE_LIMIT:
            return Reach.unbounded(step)
        spans = [window.reads(k) for k in range(period)]
        last = tuple(operand._latest(*span) for span in spans)
        first = tuple(operand._earliest(*span) for span in spans)
        result = Reach(step, period, last, first, operand.exact).minimised()
        return result.folded() if result.period > PERIOD_CAP else result

    def minimised(self) -> Reach:
        """The same reach with the shortest period."""
        period = self.period
        for q in _primes(period):
            while period % q == 0 and self._repeats(period // q):
                period //= q
        return replace(self, period=period, last=self.last[:period], first=self.first[:period])

    def folded(self) -> Reach:
        """The tightest bound of the shortest period the step allows: per phase, the worst of those that fall on it."""
        whole = self.minimised()
        d, n = self.step.denominator, self.step.numerator  # d elements last n ticks
        if whole.period <= d:
            return whole
        if whole.period % d:
            return Reach.unbounded(self.step)
        turns = range(whole.period // d)
        last = tuple(max(whole.last[r + m * d] - m * n for m in turns) for r in range(d))
        first = tuple(min(whole.first[r + m * d] - m * n for m in turns) for r in range(d))
        return Reach(self.step, d, last, first, exact=False).minimised()

    @cached_property
    def ticks(self) -> int:
        """Source ticks in one period. (Not whole only where no entry is finite, and then it does not matter.)"""
        return int(self.period * self.step)

    @cached_property
    def monotone(self) -> bool:
        """Later elements never read less far: so the ends of a window decide. True of all that windows make."""
        return all(
            all(x <= y for x, y in zip(table, table[1:] + (table[0] + self.ticks,), strict=True))
            for table in (self.last, self.first)
        )

    def _moved(self, window: Window) -> Reach:
        """`through` at stride 1: the tables turn, which costs next to nothing (most ops of a spec are of this kind)."""
        if window.past == window.future == 0:
            return self
        last = self._turned(self.last, window.future, inf)
        first = self._turned(self.first, -window.past, -inf)
        moved = replace(self, last=last, first=first)
        return moved.minimised() if inf in (window.past, window.future) else moved

    def _turned(self, table: tuple[Ticks, ...], n: Ticks, bound: float) -> tuple[Ticks, ...]:
        if n == bound:  # without end, unless there is nothing to read
            return (bound if any(x != -bound for x in table) else -bound,) * self.period
        turns, phase = divmod(int(n), self.period)
        here, there = turns * self.ticks, (turns + 1) * self.ticks
        return tuple([x + here for x in table[phase:]] + [x + there for x in table[:phase]])

    def _latest(self, start: Ticks, end: Ticks) -> Ticks:
        """The last tick that elements start..end read. Only the last period of them can matter."""
        if end == inf:
            return inf if any(x > -inf for x in self.last) else -inf
        stop = int(end)
        if self.monotone:
            return self.last_at(stop)
        return max(self.last_at(j) for j in range(int(max(start, stop - self.period + 1)), stop + 1))

    def _earliest(self, start: Ticks, end: Ticks) -> Ticks:
        """The first tick that elements start..end read. Only the first period of them can matter."""
        if start == -inf:
            return -inf if any(x < inf for x in self.first) else inf
        origin = int(start)
        if self.monotone:
            return self.first_at(origin)
        return min(self.first_at(j) for j in range(origin, int(min(end, origin + self.period - 1)) + 1))

    def _repeats(self, period: int) -> bool:
        ticks = period * self.step
        shift = int(ticks) if ticks.denominator == 1 else ticks
        return all(
            x + shift == y
            for table in (self.last, self.first)
            for x, y in zip(table, table[period:], strict=False)  # the rest follows from the period we have
        )

    def _stretched(self, period: int) -> tuple[list[Ticks], list[Ticks]]:
        shifts = [m * self.ticks for m in range(period // self.period)]
        return [x + shift for shift in shifts for x in self.last], [x + shift for shift in shifts for x in self.first]


def join(a: Reach, b: Reach) -> Reach:
    """The reach of a value that reads both: the later last, the earlier first, over a common period."""
    if a.step != b.step:
        raise ValueError(f"values of {a.step} and {b.step} source ticks per element cannot join")
    if a == b:
        return a
    if lcm(a.period, b.period) > PERIOD_CAP:
        a, b = a.folded(), b.folded()
    period = lcm(a.period, b.period)
    (a_last, a_first), (b_last, b_first) = a._stretched(period), b._stretched(period)
    last, first = tuple(map(max, a_last, b_last)), tuple(map(min, a_first, b_first))
    return Reach(a.step, period, last, first, a.exact and b.exact).minimised()


def join_all(reaches: Iterable[Reach | None]) -> Reach | None:
    """The join of those that read the source; None where none does."""
    reading = [reach for reach in reaches if reach is not None]
    return reduce(join, reading) if reading else None


def excess(reach: Reach, allowed: Literal["strict"] | int) -> Ticks:
    """By how many source ticks the worst element reads beyond what is allowed; <= 0 means proven.

    "strict": element k reads only ticks before its own time, last(k) < k*step. A whole number n: it may look n
    elements (ticks of the value) ahead, last(k) <= (k + n)*step.

    >>> x = Reach.source()
    >>> [excess(x, allowed) for allowed in ("strict", 0, 1)]
    [1, 0, -1]
    >>> excess(x.through(fold(4)), 0), excess(x.through(fold(4)), 1), excess(x.through(everything()), 5)
    (3, -1, inf)
    """
    return max(_excesses(reach, allowed))


def worst_phase(reach: Reach, allowed: Literal["strict"] | int) -> int:
    """The element, 0 .. period-1, that reads farthest beyond what is allowed (the first of several)."""
    beyond = _excesses(reach, allowed)
    return beyond.index(max(beyond))


def _excesses(reach: Reach, allowed: Literal["strict"] | int) -> list[Ticks]:
    n, d = reach.step.numerator, reach.step.denominator
    if allowed == "strict":
        return [x - (-(-k * n // d) - 1) for k, x in enumerate(reach.last)]
    return [x - (k + allowed) * n // d for k, x in enumerate(reach.last)]


def receptive_field(reach: Reach) -> tuple[Ticks, Ticks]:
    """(past, future): how many source ticks before and after its own start, floor(k*step), the worst element reads.

    >>> receptive_field(Reach.source().through(window(past=3)).through(window(past=6)))
    (9, 0)
    >>> receptive_field(Reach.source().through(delay(1)))
    (1, -1)
    """
    n, d = reach.step.numerator, reach.step.denominator
    past = max(k * n // d - x for k, x in enumerate(reach.first))
    return past, max(x - k * n // d for k, x in enumerate(reach.last))


def ready(reach: Reach, k: int) -> Ticks:
    """The tick at which element k can be computed: all ticks before it are known, and suffice."""
    return reach.last_at(k) + 1


def _finite(x: Ticks) -> bool:
    return -inf < x < inf


def _primes(n: int) -> list[int]:
    found, q = [], 2
    while n > 1:
        if q * q > n:
            q = n
        if n % q == 0:
            found.append(q)
            while n % q == 0:
                n //= q
        q += 1
    return found
