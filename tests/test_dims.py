"""Sizes as a person writes them, and what `require` proves about them: against evaluation on whole numbers."""

from __future__ import annotations

import doctest
import random
from fractions import Fraction
from itertools import product
from math import gcd

import pytest

import graphspec.dims
from graphspec.dims import Dim, DimError, Facts

T, N, M, d, hop = (Dim.symbol(name) for name in ("T", "N", "M", "d", "hop"))


def test_doctests():
    assert doctest.testmod(graphspec.dims).failed == 0


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (Dim.of(5), "5"),
        (Dim.of(0), "0"),
        (T - T, "0"),
        (T / 16, "T/16"),
        (3 * T / 16, "3*T/16"),
        (2 * d, "2*d"),
        (T / 4 + 1, "T/4 + 1"),
        (1 + T / 4, "T/4 + 1"),
        (1 - T, "1 - T"),
        (-T, "-T"),
        (-T - 1, "-T - 1"),
        (hop * N, "N*hop"),
        (T**2 * N - 3 * T + Fraction(1, 2), "N*T**2 - 3*T + 1/2"),
        (2 * (M - 1), "2*M - 2"),
        (Fraction(1, 2) - T / 2, "1/2 - T/2"),
    ],
)
def test_prints_as_a_person_writes(dim, text):
    assert str(dim) == text and repr(dim) == f"Dim({text})"
    if T.symbols() <= dim.symbols():
        values = dict.fromkeys(dim.symbols(), 7)
        assert dim.evaluate(values) == eval(text, {name: Fraction(7) for name in values})


def test_structure():
    assert T + N == N + T and hash(T + N) == hash(N + T) and T != N
    assert Dim.of(5) == 5 and hash(Dim.of(5)) == hash(5) and len({Dim.of(5), 5, T, Dim.symbol("T")}) == 2
    assert Dim.of(T) is T and T != "T"
    assert Dim.of(5).as_int() == 5 and (T / 2).as_int() is None and Dim.of(Fraction(1, 2)).as_int() is None
    assert Dim.of(5).is_constant and Dim.of(0).is_constant and not T.is_constant
    assert (T * N + 1).symbols() == {"T", "N"} and Dim.of(3).symbols() == frozenset()
    with pytest.raises(AttributeError):
        T.terms = ()  # type: ignore[misc]


def test_division():
    assert (T * N) / N == T and (T * N + 2 * N) / (2 * N) == T / 2 + 1
    assert (d**2 - 1) / (d + 1) == d - 1 and (T**2 + 2 * T * N + N**2) / (T + N) == T + N
    assert (T - T) / N == 0 and T**0 == 1
    for wrong in (lambda: T / N, lambda: (T + 1) / T, lambda: T / 0, lambda: T / (T - T)):
        with pytest.raises(DimError):
            wrong()


def test_substitution_and_evaluation():
    assert (T / 4 + N).substitute({"T": 8 * M, "N": 3}) == 2 * M + 3
    assert (T * N).substitute({"T": N, "N": T}) == T * N and (T - N).substitute({"T": N, "N": T}) == N - T
    assert (T / 16 + N).evaluate({"T": 8, "N": 1, "other": 3}) == Fraction(3, 2)
    with pytest.raises(DimError, match="no value for N"):
        (T + N).evaluate({"T": 1})


def random_dim(rng: random.Random, names: tuple[str, ...], denominators=(1, 1, 2, 3, 4)) -> Dim:
    total = Dim.of(0)
    for _ in range(rng.randint(0, 4)):
        term = Dim.of(Fraction(rng.randint(-6, 6), rng.choice(denominators)))
        for name in names:
            term = term * Dim.symbol(name) ** rng.choice([0, 0, 1, 2])
        total = total + term
    return total


def test_arithmetic_is_arithmetic():
    rng = random.Random(1)
    for _ in range(300):
        a, b, c = (random_dim(rng, ("T", "N", "d")) for _ in range(3))
        values = {name: rng.randint(-5, 9) for name in ("T", "N", "d")}
        x, y = a.evaluate(values), b.evaluate(values)
        assert ((a + b).evaluate(values), (a - b).evaluate(values)) == (x + y, x - y)
        assert ((a * b).evaluate(values), (-a).evaluate(values), (a**2).evaluate(values)) == (x * y, -x, x * x)
        assert a * (b + c) == a * b + a * c and a - a == 0
        assert a.substitute({"T": b}).evaluate(values) == a.evaluate({**values, "T": y})
        if b.terms:
            assert a * b / b == a


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Dim.of(2**53 + 1),
        lambda: T * 2**40 * 2**40,
        lambda: T / 2**40 / 2**40,
        lambda: T**65,
        lambda: T**40 * T**40,
        lambda: T**-1,
        lambda: T**True,
        lambda: (T + N + M + d + 1) ** 64,
        lambda: Dim.of(1.5),
        lambda: Dim.of(True),
        lambda: T + "N",
        lambda: Facts().divisible(T, 0),
        lambda: Facts().divisible(T, True),
    ],
)
def test_bounds_and_kinds(wrong):
    with pytest.raises(DimError):
        wrong()
    assert issubclass(DimError, ValueError)


# --- facts ------------------------------------------------------------------------------------------------------------


def test_exact_is_complete_for_congruences_of_single_symbols():
    """exact(dim) iff dim is whole at every point that satisfies the facts, of a full grid of residues (moduli 2..6)."""
    rng = random.Random(2)
    seen = {True: 0, False: 0}
    for _ in range(400):
        facts, rules = Facts(), []
        for _ in range(rng.randint(0, 3)):
            symbol, modulus, offset = rng.choice([T, N]), rng.choice([2, 3, 4, 6]), rng.choice([0, 0, 1])
            try:
                facts = facts.divisible(symbol + offset, modulus)
                rules.append((str(symbol), modulus, offset))
            except DimError:  # contradicts: no residue satisfies both
                both = [*rules, (str(symbol), modulus, offset)]
                assert not any(all((r + o) % m == 0 for s, m, o in both if s == str(symbol)) for r in range(12))
        dim = random_dim(rng, ("T", "N"), (1, 2, 2, 4))
        points = [{"T": t, "N": n} for t, n in product(range(12), repeat=2)]
        points = [p for p in points if all((p[s] + o) % m == 0 for s, m, o in rules)]
        whole = all(dim.evaluate(p).denominator == 1 for p in points)
        assert facts.exact(dim) == whole
        need = facts.needed(dim)
        assert (need is None) or not whole
        if need:  # then it suffices, and can be met
            poly = need.removesuffix(" == 0")
            good = [p for p in points if eval(poly, {}, p) == 0]
            assert good and all(dim.evaluate(p).denominator == 1 for p in good)
        seen[whole] += 1
    assert min(seen.values()) > 50


@pytest.mark.parametrize(
    ("facts", "dim", "needed"),
    [
        (Facts(), T / 16, "T % 16 == 0"),
        (Facts(), -T / 16, "T % 16 == 0"),
        (Facts(), 5 * T / 16 + 3, "T % 16 == 0"),
        (Facts(), 6 * T / 16, "T % 8 == 0"),
        (Facts().divisible(T, 4), T / 16, "T % 16 == 0"),
        (Facts().divisible(T, 4), (T / 4 + 1) / 2, "(T + 4) % 8 == 0"),
        (Facts().divisible(T, 16), T / 16 + N / 3, "N % 3 == 0"),
        (Facts(), N * hop / 16, "N*hop % 16 == 0"),
        (Facts(), T / 16 + Fraction(1, 2), "(T + 8) % 16 == 0"),
        (Facts(), Dim.of(Fraction(1, 2)), None),
        (Facts().divisible(T, 16), T / 32 + Fraction(1, 3), None),
        (Facts().divisible(T, 16), T / 16, None),
        (Facts().divisible(T - 1, 2), T / 2, None),  # T is odd: no `require` can help
        (Facts(), T * (T + 1) / 2, None),  # whole as it stands
    ],
)
def test_needed(facts, dim, needed):
    assert facts.needed(dim) == needed


def test_equalities():
    facts = Facts().divisible(T, 16).equal(T, N * hop)
    assert facts.same(T, N * hop) and facts.same(T / 16, N * hop / 16) and facts.same(2 * T, hop * N * 2)
    assert not facts.same(T, N) and facts.same(N, N) and not Facts().same(T, N * hop)
    assert facts.exact(T / 16) and facts.exact(N * hop / 16) and not facts.exact(N / 16)
    # The order of the facts does not matter.
    other = Facts().equal(T, N * hop).divisible(T, 16)
    assert other.exact(T / 16) and other.exact(N * hop / 16) and other.same(T, N * hop)
    chained = Facts().equal(T, 256 * N).equal(N, 4 * M)
    assert chained.same(T, 1024 * M) and chained.multiple("T") == 1024 and chained.exact(T / 1024)
    fixed = Facts().equal(T, 64)
    assert fixed.same(T / 16, 4) and fixed.multiple("T") == 64 and fixed.exact(T / 32) and not fixed.exact(T / 128)


def test_equalities_imply_divisibility():
    facts = Facts().divisible(T, 16).equal(3 * N, T)
    assert facts.multiple("T") == 48 and facts.multiple("N") == 16 and facts.exact(N / 16)
    assert Facts().equal(T / 16, N).multiple("T") == 16
    assert Facts().equal(T, N + 1).divisible(N, 8).exact((T - 1) / 8)


def test_multiple():
    facts = Facts().divisible(T, 16).divisible(T, 6).divisible(N + 1, 4)
    assert facts.multiple("T") == 48 and facts.multiple("N") == 1 and facts.multiple("unknown") == 1
    assert Facts().divisible(3 * T, 16).multiple("T") == 16 and Facts().divisible(6 * T, 16).multiple("T") == 8
    assert Facts().divisible(T - 2, 4).multiple("T") == 2


@pytest.mark.parametrize(
    "contradiction",
    [
        lambda: Facts().divisible(T, 2).divisible(T + 1, 2),
        lambda: Facts().divisible(T, 2).divisible(T + 1, 4),
        lambda: Facts().divisible(5, 2),
        lambda: Facts().equal(T, 64).divisible(T, 5),
        lambda: Facts().equal(T, 64).equal(T, 32),
        lambda: Facts().equal(2 * T, 5),
        lambda: Facts().divisible(T**2 + 1, 4),
        lambda: Facts().divisible(T, 2).equal(T, 2 * N + 1),
        lambda: Facts().equal(T, N).equal(N, T + 1),
    ],
)
def test_contradictions(contradiction):
    with pytest.raises(DimError, match="contradicts|never true"):
        contradiction()


def test_check_names_the_facts_that_fail():
    facts = Facts().divisible(T, 16).equal(T, N * hop).divisible(N * hop + 1, 3)
    assert facts.check({"T": 128, "N": 2, "hop": 64}) == []
    assert facts.check({"T": 100, "N": 2, "hop": 64}) == ["T % 16 == 0: T = 100 leaves 4", "T == N*hop: 100 is not 128"]
    assert facts.check({"T": 100}) == ["T % 16 == 0: T = 100 leaves 4"] and facts.check({}) == []


def test_tangled_facts_are_checked_and_never_believed_wrongly():
    a, b = Dim.symbol("a"), Dim.symbol("b")
    facts = Facts().equal(2 * a * b, 3 * a * a).equal(a * b, T * T).equal(T, b).equal(5 * N * M, 7 * d * d)
    assert len(facts.known) == 4 and facts.check({"N": 7, "M": 5, "d": 5}) == []
    assert not facts.exact(a / 7) and not facts.same(a, 7)


def test_random_facts_are_sound():
    rng = random.Random(3)
    for _ in range(60):
        values = {name: rng.randint(1, 30) for name in ("T", "N", "d")}
        facts = Facts()
        for _ in range(rng.randint(1, 4)):
            poly = random_dim(rng, ("T", "N", "d"), (1,))
            value = int(poly.evaluate(values))
            # Facts that hold at `values`, so nothing contradicts; whatever they prove must hold there too.
            if rng.random() < 0.5 and gcd(value, 48) > 1:
                facts = facts.divisible(poly, gcd(value, 48))
            else:
                facts = facts.equal(poly, value)
        assert facts.check(values) == []
        for _ in range(10):
            a, b = random_dim(rng, ("T", "N", "d")), random_dim(rng, ("T", "N", "d"))
            assert not facts.exact(a) or a.evaluate(values).denominator == 1
            assert not facts.same(a, b) or a.evaluate(values) == b.evaluate(values)
        for name in values:
            assert values[name] % facts.multiple(name) == 0
