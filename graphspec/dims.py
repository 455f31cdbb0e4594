"""Symbolic sizes. A Dim is a polynomial with fractional coefficients over whole-number symbols; Facts is what
`require` says about the symbols, and decides when a fraction such as `T/16` is certain to be a whole number.
Long by a little: every fact is read by the arithmetic of the polynomials it is about.

>>> T, N, d = Dim.symbol("T"), Dim.symbol("N"), Dim.symbol("d")
>>> print(T / 16, 2 * d, T / 4 + 1, Dim.of(5), (d + 1) * (d - 1), sep="; ")
T/16; 2*d; T/4 + 1; 5; d**2 - 1
>>> (T / 16 * 16) == T, Dim.of(5).as_int(), (T / 16).as_int()
(True, 5, None)
>>> facts = Facts().divisible(T, 16)
>>> facts.exact(T / 16), facts.exact(T / 32), facts.needed(T / 32)
(True, False, 'T % 32 == 0')
>>> facts.check({"T": 100})
['T % 16 == 0: T = 100 leaves 4']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import gcd, lcm, prod

Monomial = tuple[tuple[str, int], ...]
"""((symbol, exponent), ...), sorted by symbol, exponents >= 1; () is the constant."""

ZERO = Fraction(0)
LARGEST = 2**53  # numerators and denominators stay exact in any JSON reader
HIGHEST = 64  # exponent of a monomial
MOST_TERMS = 256  # (a + b + c + d)**64 must fail, not fill the memory
SWEEPS = 64  # rewriting rounds before Facts gives up; an exponent takes one round per power


class DimError(ValueError):
    """An inexact division, a contradiction between facts, or a size beyond the bounds."""


class _Contradiction(Exception):
    pass


def order(monomial: Monomial) -> tuple[int, Monomial]:
    """Sorts by graded lexicographic order, largest first: how a person writes, and what long division needs."""
    return -sum(e for _, e in monomial), tuple((name, -e) for name, e in monomial)


def times(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for name, e in b:
        powers[name] = powers.get(name, 0) + e
    return tuple(sorted(powers.items()))


def over(a: Monomial, b: Monomial) -> Monomial | None:
    """a / b, or None where b does not divide a."""
    powers = dict(a)
    for name, e in b:
        powers[name] = powers.get(name, 0) - e
    return tuple(sorted((name, e) for name, e in powers.items() if e)) if min(powers.values(), default=0) >= 0 else None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Dim:
    """An immutable polynomial. Make one by `of` or `symbol` and arithmetic, never from `terms`.

    >>> c = Dim.symbol("c")
    >>> c * c - c * c + 3 == 3, hash(Dim.of(3)) == hash(3)
    (True, True)
    >>> (c**2 - 1) / (c + 1), c.substitute({"c": 4 * c}) / 2, (c / 3).evaluate({"c": 7})
    (Dim(c - 1), Dim(2*c), Fraction(7, 3))
    """

    terms: tuple[tuple[Monomial, Fraction], ...]

    @staticmethod
    def of(value: Dim | int | Fraction) -> Dim:
        if isinstance(value, Dim):
            return value
        if isinstance(value, bool) or not isinstance(value, int | Fraction):
            raise DimError(f"{value!r} is not a whole number or a fraction")
        return _dim({(): Fraction(value)})

    @staticmethod
    def symbol(name: str) -> Dim:
        return _term(((name, 1),))

    def __add__(self, other: Dim | int | Fraction) -> Dim:
        total = dict(self.terms)
        for monomial, c in Dim.of(other).terms:
            total[monomial] = total.get(monomial, ZERO) + c
        return _dim(total)

    def __mul__(self, other: Dim | int | Fraction) -> Dim:
        total: dict[Monomial, Fraction] = {}
        for m, c in self.terms:
            for n, e in Dim.of(other).terms:
                mn = times(m, n)
                total[mn] = total.get(mn, ZERO) + c * e
        return _dim(total)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Dim:
        return Dim(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: Dim | int | Fraction) -> Dim:
        return self + -Dim.of(other)

    def __rsub__(self, other: int | Fraction) -> Dim:
        return Dim.of(other) - self

    def __pow__(self, exponent: int) -> Dim:
        if isinstance(exponent, bool) or not isinstance(exponent, int) or not 0 <= exponent <= HIGHEST:
            raise DimError(f"({self})**{exponent!r}: an exponent is a whole number from 0 to {HIGHEST}")
        result = Dim.of(1)
        for _ in range(exponent):
            result = result * self
        return result

    def __truediv__(self, other: Dim | int | Fraction) -> Dim:
        """Exact division: by a number always, by a polynomial only where nothing is left over."""
        divisor = Dim.of(other)
        if not divisor.terms:
            raise DimError(f"{self} divided by zero")
        lead, c = divisor.terms[0]
        if not lead:
            return self * (1 / c)
        quotient, rest = Dim(()), self
        while rest.terms:
            monomial = over(rest.terms[0][0], lead)
            if monomial is None:
                raise DimError(f"{self} is not exactly divisible by {divisor}")
            part = _term(monomial, rest.terms[0][1] / c)
            quotient, rest = quotient + part, rest - part * divisor
        return quotient

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Dim):
            return self.terms == other.terms
        if isinstance(other, int | Fraction):
            return self.is_constant and self.constant == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.constant) if self.is_constant else hash(self.terms)

    @property
    def is_constant(self) -> bool:
        return not self.terms or self.terms[0][0] == ()

    @property
    def constant(self) -> Fraction:
        """The term without symbols."""
        return self.terms[-1][1] if self.terms and self.terms[-1][0] == () else ZERO

    def as_int(self) -> int | None:
        """The whole number this is, or None."""
        return int(self.constant) if self.is_constant and self.constant.denominator == 1 else None

    def symbols(self) -> frozenset[str]:
        return frozenset(name for monomial, _ in self.terms for name, _ in monomial)

    def substitute(self, values: Mapping[str, Dim | int]) -> Dim:
        """Replace symbols, all at once; those not in `values` stay."""
        result = Dim(())
        for monomial, c in self.terms:
            part = Dim.of(c)
            for name, e in monomial:
                part = part * (Dim.of(values[name]) if name in values else Dim.symbol(name)) ** e
            result = result + part
        return result

    def evaluate(self, values: Mapping[str, int]) -> Fraction:
        """The number, once every symbol has one. DimError names a symbol without."""
        if missing := self.symbols() - values.keys():
            raise DimError(f"{self}: no value for {', '.join(sorted(missing))}")
        return sum((c * prod(values[name] ** e for name, e in m) for m, c in self.terms), ZERO)

    def __str__(self) -> str:
        # A positive term leads: `1 - T`, not `-T + 1`.
        upside_down = self.terms and self.terms[0][1] < 0
        ordered = sorted(self.terms, key=lambda term: term[1] < 0) if upside_down else self.terms
        text = ""
        for i, (monomial, c) in enumerate(ordered):
            factors = [name if e == 1 else f"{name}**{e}" for name, e in monomial]
            if abs(c.numerator) != 1 or not factors:
                factors.insert(0, str(abs(c.numerator)))
            sign = "-" if c < 0 else "+"
            text += f" {sign} " if i else sign.strip("+")
            text += "*".join(factors) + (f"/{c.denominator}" if c.denominator > 1 else "")
        return text or "0"

    def __repr__(self) -> str:
        return f"Dim({self})"


def _term(monomial: Monomial, c: Fraction = Fraction(1)) -> Dim:
    return Dim(((monomial, c),))


def _dim(total: Mapping[Monomial, Fraction]) -> Dim:
    """The Dim with these coefficients, put in order, zeros dropped and bounds checked."""
    terms = [(m, c) for m, c in total.items() if c]
    for m, c in terms:
        if abs(c.numerator) > LARGEST or c.denominator > LARGEST:
            raise DimError(f"a size has the coefficient {c}, beyond 2**53")
        if any(e > HIGHEST for _, e in m):
            raise DimError(f"a size has an exponent beyond {HIGHEST}")
    if len(terms) > MOST_TERMS:
        raise DimError(f"a size has more than {MOST_TERMS} terms")
    return Dim(tuple(sorted(terms, key=lambda term: order(term[0]))))


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of `require`: `left == right`, or with a modulus `left % modulus == 0`."""

    left: Dim
    right: Dim = Dim(())
    modulus: int | None = None

    def __str__(self) -> str:
        if self.modulus is None:
            return f"{self.left} == {self.right}"
        return f"{f'({self.left})' if len(self.left.terms) > 1 else self.left} % {self.modulus} == 0"

    def fault(self, values: Mapping[str, int]) -> str | None:
        """Why these values break it, or None: they do not, or do not name all its symbols."""
        if not self.left.symbols() | self.right.symbols() <= values.keys():
            return None
        left, right = self.left.evaluate(values), self.right.evaluate(values)
        if self.modulus is None:
            return f"{self}: {left} is not {right}" if left != right else None
        return f"{self}: {self.left} = {left} leaves {left % self.modulus}" if left % self.modulus else None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about the symbols. Immutable: `divisible` and `equal` give a larger Facts.

    Each fact becomes a rewriting rule, `T -> 16*u` with u a fresh whole number, or `T -> N*hop`. Every answer is
    sound; it is also complete for facts about one symbol each. A fact too tangled for a rule is only checked.

    >>> T, N, hop = Dim.symbol("T"), Dim.symbol("N"), Dim.symbol("hop")
    >>> facts = Facts().divisible(T, 6).divisible(T, 16)
    >>> facts.multiple("T"), facts.exact(T / 48), facts.exact(T / 32)
    (48, True, False)
    >>> facts = facts.equal(T, N * hop)
    >>> facts.exact(N * hop / 3), facts.needed(T / 16 + N / 5), facts.needed((T / 16 + 1) / 2)
    (True, 'N % 5 == 0', '(T + 16) % 32 == 0')
    >>> Facts().divisible(T, 2).divisible(T + 1, 4)
    Traceback (most recent call last):
    graphspec.dims.DimError: (T + 1) % 4 == 0 contradicts T % 2 == 0
    """

    known: tuple[Fact, ...] = ()
    rules: tuple[tuple[Monomial, Dim], ...] = ()

    def divisible(self, poly: Dim | int, modulus: int) -> Facts:
        """Add `poly % modulus == 0`."""
        if isinstance(modulus, bool) or not isinstance(modulus, int) or modulus < 1:
            raise DimError(f"{modulus!r} is not a modulus: a whole number from 1")
        fact = Fact(Dim.of(poly), modulus=modulus)
        return self._with(fact, lambda: self._divided(fact.left / modulus))

    def equal(self, a: Dim | int, b: Dim | int) -> Facts:
        """Add `a == b`. A bare symbol on the left is the one replaced."""
        fact = Fact(Dim.of(a), Dim.of(b))
        return self._with(fact, lambda: self._solved(fact.left - fact.right, fact.left))

    def exact(self, dim: Dim | int) -> bool:
        """Is it a whole number for every value of the symbols that satisfies the facts?"""
        try:
            plain = self._plain(Dim.of(dim))
        except DimError:
            return False
        if all(c.denominator == 1 for _, c in plain.terms):
            return True
        # n*(n+1)/2: a polynomial is whole everywhere iff it is on the grid 0..degree (Newton's forward differences).
        degree = dict(sorted(power for monomial, _ in plain.terms for power in monomial))  # the highest comes last
        if prod(e + 1 for e in degree.values()) > 4096:
            return False
        grid = product(*(range(e + 1) for e in degree.values()))
        return all(plain.evaluate(dict(zip(degree, point, strict=True))).denominator == 1 for point in grid)

    def same(self, a: Dim | int, b: Dim | int) -> bool:
        """Are they equal for every value of the symbols that satisfies the facts?"""
        try:
            return a == b or not self._plain(Dim.of(a) - b).terms
        except DimError:
            return False

    def needed(self, dim: Dim | int) -> str | None:
        """The `require` line that would make an inexact dim exact; None where it is exact, or nothing would."""
        if self.exact(dim):
            return None
        open_terms = [(m, c) for m, c in Dim.of(dim).terms if not self.exact(_term(m, c))]
        try:
            poly, modulus = _congruence(Dim(tuple(open_terms)))
            return str(Fact(poly, modulus=modulus)) if self.divisible(poly, modulus).exact(dim) else None
        except DimError:
            return None

    def check(self, values: Mapping[str, int]) -> list[str]:
        """The facts these values break, each with the reason. A fact about a symbol without a value is passed over."""
        return [fault for fact in self.known if (fault := fact.fault(values))]

    def multiple(self, symbol: str) -> int:
        """The largest number known to divide the symbol; 1 where nothing is known."""
        return gcd(*(int(c) for _, c in self._plain(Dim.symbol(symbol)).terms)) or 1  # rules are whole

    def number(self, dim: Dim | int) -> int | None:
        """The whole number that the facts fix the dim to, if they do."""
        try:
            return self._plain(Dim.of(dim)).as_int()
        except DimError:
            return None

    def _with(self, fact: Fact, added: Callable[[], Facts]) -> Facts:
        try:
            grown = added()
            for lhs, _ in grown.rules:  # rules that chase each other, or outgrow the bounds, are not kept
                grown._plain(_term(lhs))
        except _Contradiction:
            before = ", ".join(map(str, self.known))
            raise DimError(f"{fact} contradicts {before}" if before else f"{fact} is never true") from None
        except DimError:
            grown = self
        return Facts((*self.known, fact), grown.rules)

    def _plain(self, dim: Dim) -> Dim:
        """The dim with every rule applied until none fits."""
        for _ in range(SWEEPS):
            before = dim
            for lhs, rhs in self.rules:
                for m, c in dim.terms:
                    if (rest := over(m, lhs)) is not None:
                        dim = dim + _term(rest, c) * rhs - _term(m, c)
            if dim.terms == before.terms:
                return dim
        raise DimError(f"the facts about {dim} go round in circles")

    def _divided(self, whole: Dim) -> Facts:
        """Facts that know `whole` to be a whole number: its pivot becomes modulus*u - rest."""
        poly, modulus = _congruence(self._plain(whole))
        if modulus == 1:
            return self
        pivot = _pivot(poly, lambda c: c == 1)
        if pivot not in _lone(poly) and not _solvable(poly, modulus):
            raise _Contradiction
        if pivot is None:
            return self
        fresh = Dim.symbol(f"#{len(self.rules)}")
        return Facts(self.known, (*self.rules, (pivot, fresh * modulus - poly + _term(pivot))))

    def _solved(self, zero: Dim, preferred: Dim) -> Facts:
        """Facts that know `zero` to be 0: its pivot becomes the rest."""
        zero = self._plain(zero)
        if not zero.terms:
            return self
        if zero.is_constant:
            raise _Contradiction
        zero = zero * Fraction(lcm(*(c.denominator for _, c in zero.terms)), gcd(*(c.numerator for _, c in zero.terms)))
        pivot = _pivot(zero, lambda c: abs(c) == 1, preferred)
        if pivot is not None:
            c = dict(zero.terms)[pivot]
            return Facts(self.known, (*self.rules, (pivot, _term(pivot) - zero / c)))
        # 3*N == 16*u: so 16*u is divisible by 3, and after that substitution the 3 cancels.
        lone = [(abs(c), m, c) for m, c in zero.terms if m in _lone(zero)]
        size, symbol, c = min(lone, default=(1, (), ZERO))
        implied = self._divided((zero - _term(symbol, c)) / size)
        return implied._solved(zero, preferred) if implied.rules != self.rules else self


def _congruence(whole: Dim) -> tuple[Dim, int]:
    """(poly, modulus): poly % modulus == 0 says that `whole` is whole. Small coefficients, a pivot of 1 if possible."""
    modulus = lcm(*(c.denominator for _, c in whole.terms))
    poly = _dim({m: Fraction(int(c * modulus) % modulus) for m, c in whole.terms})
    pivot = None if poly.is_constant else _pivot(poly, lambda c: gcd(int(c), modulus) == 1)
    unit = pow(int(dict(poly.terms)[pivot]), -1, modulus) if pivot else 1
    small = {m: int(c) * unit % modulus for m, c in poly.terms}
    return _dim({m: Fraction(c - modulus if 2 * c > modulus else c) for m, c in small.items()}), modulus


def _solvable(poly: Dim, modulus: int) -> bool:
    """Do some residues of its symbols make poly a multiple of modulus? Too many to try: by their common factor."""
    names = sorted(poly.symbols())
    if modulus ** len(names) > 4096:
        return gcd(modulus, *(int(c) for m, c in poly.terms if m)) == 1
    points = (dict(zip(names, p, strict=True)) for p in product(range(modulus), repeat=len(names)))
    return any(poly.evaluate(point) % modulus == 0 for point in points)


def _lone(poly: Dim) -> set[Monomial]:
    """The symbols that stand alone in one term and in no other."""
    names = [name for m, _ in poly.terms for name, _ in m]
    return {m for m, _ in poly.terms if len(m) == 1 and m[0][1] == 1 and names.count(m[0][0]) == 1}


def _pivot(poly: Dim, usable: Callable[[Fraction], bool], preferred: Dim | None = None) -> Monomial | None:
    """The monomial a rule may replace: a lone symbol, else the leading monomial, so that rewriting comes to an end."""
    lone = _lone(poly)
    candidates = [m for m, c in poly.terms if m in lone and usable(c)]
    wanted = [m for m in candidates if preferred == _term(m)]
    lead, c = poly.terms[0]
    return next(iter(wanted + candidates), lead if usable(c) else None)
