"""What a loop that runs tick by tick does in one operation where the spec writes several: each costs at every tick.

    mix     z*a + (1 - z)*b, the gate of most recurrent cells, as one interpolation
    maps    linear maps of one carry, together with what is added to each of them, as one product

Values that only these would read are then never made, so they must not be wanted by anybody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from graphspec.compiler.regions import Region, alike
from graphspec.graph import Constant, Value


@dataclass(frozen=True)
class Mix:
    """`to` is z*a + (1 - z)*b."""

    to: Value
    z: Value
    a: Value
    b: Value


@dataclass(frozen=True)
class Maps:
    """`maps`, of one and the same carry; `to`: what each goes to, itself or its sum with `plus`, a value of others."""

    maps: tuple[Value, ...]
    to: tuple[Value, ...]
    plus: tuple[Value | None, ...]


@dataclass(frozen=True)
class Fused:
    """By the member at whose turn it is made; and the members that nobody makes."""

    at: Mapping[Value, Mix | Maps]
    gone: Set[Value]


def fused(region: Region, stacks: Mapping[Value, Any], kept: Set[Value], adds: bool) -> Fused:
    """What can be done at once. stacks: the maps, each with its kind; kept: members that others read.

    adds: whether what is added to a map may enter its product.
    """
    readers: dict[Value, list[Value]] = {}
    for v in region.members:
        for o in v.values():
            readers.setdefault(o, []).append(v)

    def only(v: Any, reader: Value) -> bool:
        return isinstance(v, Value) and v in inside and v not in kept and readers[v] == [reader]

    inside = set(region.members)
    at: dict[Value, Mix | Maps] = {}
    gone: set[Value] = set()
    for v in region.members:
        mix = _mix(v, only)
        if mix is not None:
            found, without = mix
            at[v] = found
            gone |= without
    groups: dict[Any, list[Value]] = {}
    for v, kind in stacks.items():
        groups.setdefault((v.operands[0], kind), []).append(v)
    for (_, kind), maps in groups.items():
        onto = adds and hasattr(kind, "onto")
        sums = [_sum(v, readers, kept, region) if onto else None for v in maps]
        if len(maps) > 1 or sums[0] is not None:
            to = tuple(v if s is None else s[0] for v, s in zip(maps, sums, strict=True))
            at[maps[0]] = Maps(tuple(maps), to, tuple(None if s is None else s[1] for s in sums))
            gone |= {*maps[1:], *(t for t in to if t is not maps[0])}
    return Fused(at, gone)


def _mix(v: Value, only: Any) -> tuple[Mix, set[Value]] | None:
    if not _is(v, "a + b"):
        return None
    for first, second in (v.operands, v.operands[::-1]):
        if not (only(first, v) and only(second, v) and _is(first, "a * b") and _is(second, "a * b")):
            continue
        for rest, b in (second.operands, second.operands[::-1]):  # type: ignore[union-attr]
            if not (only(rest, second) and _is(rest, "a - b") and isinstance(rest.operands[0], Constant)):  # type: ignore[union-attr, arg-type]
                continue
            one, z = rest.operands  # type: ignore[union-attr]
            if one.value != 1 or z not in first.operands:  # type: ignore[union-attr]
                continue
            a = first.operands[1 if first.operands[0] is z else 0]  # type: ignore[union-attr]
            if all(isinstance(x, Value) and alike(x, v) for x in (z, a, b)):
                return Mix(v, z, a, b), {first, second, rest}  # type: ignore[arg-type]
    return None


def _sum(
    v: Value, readers: Mapping[Value, Sequence[Value]], kept: Set[Value], region: Region
) -> tuple[Value, Value] | None:
    """(the sum, what is added) where a map is read by nothing but a sum with a value of others."""
    if v in kept or len(readers.get(v, ())) != 1:
        return None
    (total,) = readers[v]
    if not _is(total, "a + b") or not alike(total, v):
        return None
    plus = total.operands[1 if total.operands[0] is v else 0]
    if isinstance(plus, Value) and plus in region.outside and alike(plus, v):
        return total, plus
    return None


def _is(v: Any, spelled: str) -> bool:
    return isinstance(v, Value) and v.op is not None and v.op.spelled == spelled
