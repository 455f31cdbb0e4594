"""Pass 5, loops: the values that read themselves, in groups that run as one; what each group is, and why.

A region is a strongly connected component of the graph with its back edges. Where what comes back enters affinely, and
each channel on its own, the region is a linear recurrence and runs in parallel as a scan; else tick by tick.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphspec.declare import Catalogue, Declaration
from graphspec.diagnostic import Fix, Related, fail
from graphspec.graph import Graph, Value
from graphspec.span import Span

MOST_LAGS = 4  # of a recurrence that runs as a scan over companion matrices

_FIRST, _SEVERAL = "a*y[t-1] + b", "c1*y[t-1] + c2*y[t-2] + b"
SCANS = {"constant": _FIRST, "varying": _FIRST, "companion": _SEVERAL}
"""The notations by which a catalogue's ops say that they run such a recurrence."""


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
    for v in members:
        if v.noise is not None:
            fail("GS0190", f"{v.path} is random inside a loop, which is not built yet", v.span)
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
    varying = dict.fromkeys(carries, False)  # value that depends on a carry -> whether a coefficient varies in time
    for v in members:
        spelled = v.op.spelled if v.op is not None else ""
        inside = [o for o in v.values() if o in varying]
        if spelled not in ("a + b", "a - b", "a * b", "a / b", "-a"):
            what = f"{v.op.name}" if v.op is not None else v.path
            return "sequential", f"because of {what} at line {v.span.line}", v.span
        if spelled in ("a * b", "a / b"):
            if len(inside) > 1 or (spelled == "a / b" and v.operands[1] in varying):
                return "sequential", f"because of '{v.span.text[:40]}' at line {v.span.line}", v.span
            other = [o for o in v.values() if o not in varying]
            timed = any(o.type.timed for o in other)
            varying[v] = timed or any(varying[o] for o in inside)
        else:
            varying[v] = any(varying[o] for o in inside)
        dims = carries[0].type.dims
        if len(v.type.dims) != len(dims) or any(a != b for a, b in zip(v.type.dims[1:], dims[1:], strict=True)):
            return "sequential", f"because {v.path} has another shape than what comes back", v.span
    (source,) = sources
    if max(c.carry for c in carries) > 1:
        return "companion", "affine, several ticks back", None
    if varying[source]:
        return "varying", "affine, its coefficient varies", None
    return "constant", "affine, its coefficient is constant", None


def told(region: Region) -> str:
    """One line for the report."""
    names = ", ".join(c.path for c in region.carries)
    how = "runs as a scan" if region.kind != "sequential" else "runs tick by tick"
    return f"{names}: {how}, {region.why}"
