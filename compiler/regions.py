"""Pass 5, loops: the values that read themselves, in groups that run as one; what each group is, and why.

A region is a strongly connected component of the graph with its back edges. Where what comes back enters affinely, and
each channel on its own, the region is a linear recurrence and runs in parallel as a scan; else tick by tick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphspec.declare import Catalogue, Declaration
from graphspec.diagnostic import Fix, Related, fail
from graphspec.graph import Constant, Graph, Value
from graphspec.span import Span

MOST_LAGS = 4  # of a recurrence that runs as a scan over companion matrices

_FIRST, _SEVERAL, _SMOOTHING = "a*y[t-1] + b", "c1*y[t-1] + c2*y[t-2] + b", "a*y[t-1] + (1 - a)*b"
SCANS = {"constant": _FIRST, "varying": _FIRST, "companion": _SEVERAL}
"""The notations by which a catalogue's ops say that they run such a recurrence."""

BEGIN, DETACH = "init: first", "detach_every: n"
"""The notations of the ops through which cells of these kinds are read."""


@dataclass(frozen=True)
class Smoothing:
    """A region is y = a*y[t-1] + (1 - a)*x, or with a and 1 - a changed places: solved without making (1 - a)*x.

    rest: 1 - a, as a value. keeps: whether a is the gain of the past.
    """

    a: Value
    x: Value
    rest: Value
    keeps: bool


@dataclass(frozen=True, eq=False)
class Region:
    """One group of loops. `members` in dataflow order (carries are no members), `outside` what they read of others.

    kind: constant, varying, companion, sequential. why: in words, with the place to blame if it is sequential.
    """

    carries: tuple[Value, ...]
    members: tuple[Value, ...]
    outside: tuple[Value, ...]
    kind: str
    why: str
    span: Span | None
    scan: Declaration | None = None
    smoothing: Smoothing | None = None

    @property
    def lags(self) -> int:
        return max(c.carry for c in self.carries)


def regions(graph: Graph, catalogue: Catalogue) -> tuple[Region, ...]:
    """The regions of a graph, each in one piece. Raises what a loop may not be."""
    if not graph.backs:
        return ()
    import networkx

    edges = networkx.DiGraph()
    edges.add_nodes_from(graph.values)
    for v in graph.values:
        edges.add_edges_from((o, v) for o in v.values())
        if v.carry:
            edges.add_edge(graph.backs[v].source, v)
    order = {v: i for i, v in enumerate(graph.values)}
    found = []
    for component in networkx.strongly_connected_components(edges):
        carries = sorted((v for v in component if v.carry), key=order.__getitem__)
        if carries:
            members = sorted((v for v in component if not v.carry), key=order.__getitem__)
            found.append(_region(graph, carries, members, catalogue))
    return tuple(sorted(found, key=lambda r: order[r.carries[0]]))


def _region(graph: Graph, carries: list[Value], members: list[Value], catalogue: Catalogue) -> Region:
    inside = {*carries, *members}
    outside: dict[Value, None] = {}
    for v in members:
        outside |= {o: None for o in v.values() if o not in inside}
    for c in carries:
        back = graph.backs[c]
        if back.source not in inside:  # no loop, but a cell that something else fills: a delay
            outside[back.source] = None
        if isinstance(back.init, Value):
            outside[back.init] = None
    _check(carries, members)
    if not any(o.type.timed for o in outside):
        told = f"the loop of '{carries[0].path}' hears nothing along time, so nothing says how long it runs"
        fail("GS0190", f"{told}; this is not built yet", carries[0].span)
    kind, why, span = _classified(graph, carries, members)
    scan = catalogue.spellings.get(SCANS[kind]) if kind in SCANS else None
    if kind in SCANS and scan is None:
        kind, why = "sequential", "the catalogue has no scan for it"
    for c in carries:
        back = graph.backs[c]
        if back.parallel and kind == "sequential":
            related = [Related("here", span)] if span else []
            fail(
                "GS0409", f"'{c.path}' requires a parallel loop, but it is sequential {why}", back.span, related=related
            )
    smoothing = _smoothing(graph.backs[carries[0]].source, members) if kind in ("constant", "varying") else None
    if smoothing is not None and (found := catalogue.spellings.get(_SMOOTHING)) is not None:
        gone = {smoothing.rest, *(o for o in graph.backs[carries[0]].source.values() if o not in inside)}
        read = [*(o for o in outside if o not in gone), smoothing.a, smoothing.x]
        return Region(tuple(carries), tuple(members), tuple(dict.fromkeys(read)), kind, why, span, found, smoothing)
    return Region(tuple(carries), tuple(members), tuple(outside), kind, why, span, scan)


def _check(carries: list[Value], members: list[Value]) -> None:
    """One rate, and nothing that looks ahead."""
    first = carries[0]
    for v in (*carries, *members):
        if not v.type.timed:
            fail("GS0408", f"{v.path} is static and stands in a loop of '{first.path}'", v.span)
        if v.type.rate != first.type.rate:
            fail(
                "GS0408",
                f"a loop has one rate: '{first.path}' is at {first.type}, {v.path} at {v.type}",
                v.span,
                related=[Related("the loop", first.span)],
                fixes=[Fix("change the rate outside the loop")],
            )
    inside = {*carries, *members}
    for v in members:
        for w, o in zip(v.windows, v.operands, strict=True):
            if isinstance(o, Value) and o in inside and (w.future > 0 or w.stride != 1 or w.group != 1):
                fail("GS0408", f"{v.path} looks ahead inside a loop", v.span, related=[Related("the loop", first.span)])


# ---- what kind of recurrence -----------------------------------------------------------------------------------------


def _classified(graph: Graph, carries: list[Value], members: list[Value]) -> tuple[str, str, Span | None]:
    sources = {graph.backs[c].source for c in carries}
    if not members:
        return "sequential", "as a delay", None
    if len(sources) > 1:
        names = ", ".join(sorted(s.path for s in sources))
        return "sequential", f"because several values come back ({names})", carries[0].span
    if max(c.carry for c in carries) > MOST_LAGS:
        return "sequential", f"because it looks back over {MOST_LAGS} ticks", carries[0].span
    kinds = {c.type.dtype.kind for c in carries}
    if kinds != {"float"}:
        return "sequential", f"because '{carries[0].path}' is not float", carries[0].span
    readers = {c: [v for v in members if c in v.values()] for c in (*carries, *members)}
    varying = dict.fromkeys(carries, False)  # value that depends on a carry -> whether a coefficient varies in time
    for v in members:
        dependent = {s for o, s in zip(v.operands, v.slots, strict=True) if o in varying}
        together = v.op.linear_in(dependent) if v.op is not None else frozenset()
        if not together or begins(v) and not _begins_a_carry(v, readers):
            return "sequential", f"because of {_blamed(v)} at line {v.span.line}", v.span
        held = [o for o, s in zip(v.operands, v.slots, strict=True) if s not in together and isinstance(o, Value)]
        timed = v.noise is not None or detaches(v) or any(o.type.timed for o in held)
        varying[v] = timed or any(varying[o] for o in v.values() if o in varying)
        dims = carries[0].type.dims
        if len(v.type.dims) != len(dims) or any(a != b for a, b in zip(v.type.dims[1:], dims[1:], strict=True)):
            return "sequential", f"because {v.path} has another shape than what comes back", v.span
    (source,) = sources
    if max(c.carry for c in carries) > 1:
        return "companion", "affine, several ticks back", None
    if varying[source]:
        return "varying", "affine, its coefficient varies", None
    return "constant", "affine, its coefficient is constant", None


def _smoothing(source: Value, members: Sequence[Value]) -> Smoothing | None:
    """The two products of `a*y[t-1] + (1 - a)*x` by their gains, whichever of them is written as 1 - the other."""
    inner = [v for v in members if not begins(v)]
    if len(inner) != 2 or inner[1] is not source or not _is(source, "a + b") or not _is(inner[0], "a * b"):
        return None
    product = inner[0]
    drives = [o for o in source.operands if o is not product]
    if len(drives) != 1 or not _is(drives[0], "a * b") or drives[0].precision:  # type: ignore[union-attr]
        return None
    gain = next((o for o in product.operands if isinstance(o, Value) and not o.carry and o not in members), None)
    for weight, x in (drives[0].operands, drives[0].operands[::-1]):  # type: ignore[union-attr]
        if not (isinstance(weight, Value) and isinstance(gain, Value) and isinstance(x, Value)):
            continue
        if not alike(x, source) or x in members:
            continue
        if _rest_of(weight) is gain:
            return Smoothing(gain, x, weight, True)
        if _rest_of(gain) is weight:
            return Smoothing(weight, x, gain, False)
    return None


def alike(a: Value, b: Value) -> bool:
    """Floats of the same axes at one rate, so that nothing is broadcast between them."""
    return (
        a.type.dims == b.type.dims
        and a.type.rate == b.type.rate
        and {a.type.dtype.kind, b.type.dtype.kind} == {"float"}
    )


def _rest_of(v: Value) -> Value | None:
    """a, of 1 - a."""
    if not _is(v, "a - b") or v.precision:
        return None
    one, a = v.operands
    return a if isinstance(one, Constant) and one.value == 1 and isinstance(a, Value) else None


def _is(v: Value | Constant, spelled: str) -> bool:
    return isinstance(v, Value) and v.op is not None and v.op.spelled == spelled


def _blamed(v: Value) -> str:
    """What makes a loop sequential, for the report: an expression of its own values, or the op."""
    if v.op is None:
        return v.path
    return f"'{v.span.text[:40]}'" if v.op.affine_in else v.op.name


def _begins_a_carry(v: Value, readers: Mapping[Value, Sequence[Value]]) -> bool:
    """Whether `begin` says nothing but what came before the start: it reads a carry that nobody else reads."""
    of, first = v.operands
    while isinstance(of, Value) and detaches(of) and readers[of] == [v]:
        v, of = of, of.operands[0]
    return first not in readers and isinstance(of, Value) and of.carry > 0 and readers[of] == [v]


def begins(v: Value) -> bool:
    """Whether it is what a cell with `init: first` reads."""
    return v.op is not None and v.op.spelled == BEGIN


def detaches(v: Value) -> bool:
    """Whether it is what a cell with `detach_every` reads."""
    return v.op is not None and v.op.spelled == DETACH


def told(region: Region) -> str:
    """One line for the report."""
    names = ", ".join(c.path for c in region.carries)
    how = "runs as a scan" if region.kind != "sequential" else "runs tick by tick"
    return f"{names}: {how}, {region.why}"
