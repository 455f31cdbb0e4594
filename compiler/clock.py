"""Pass 3, time: what each value reads of each source, phase-exact; the proof of `causal:`, its witness and its fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf

from graphspec.diagnostic import Diagnostic, Edit, Findings, Fix, Related
from graphspec.graph import Assertion, Back, Constant, Feed, Graph, Site, Value
from graphspec.span import Span
from graphspec.time import Reach, delay, excess, join_all, receptive_field, window, worst_phase

Table = Mapping[Value, Reach | None]


@dataclass(frozen=True)
class Hop:
    """One step of a witness path: `value` reads `operand` (number `index`), and element k of it so many ticks ahead."""

    value: Value
    index: int
    element: int
    added: int | float | Fraction  # source ticks that this hop adds to the look-ahead


def reaches(graph: Graph, source: Value, delays: Mapping[Site, int] | None = None) -> dict[Value, Reach | None]:
    """For each value what it reads of `source`. `delays` tries out extra delays on operands written at these sites.

    What comes back in a loop reads all that was read before: found by going round until nothing changes.
    """
    carried: dict[Value, Reach | None] = {}
    while True:
        table = _pass(graph.values, source, delays, carried)
        new = {c: _carried(table, c, graph.backs[c]) for c in graph.backs if c in table}
        if new == carried:
            return table
        carried = new


def _carried(table: Table, carry: Value, back: Back) -> Reach | None:
    reach = table.get(back.source)
    begins = table.get(back.init) if isinstance(back.init, Value) else None
    past = None if reach is None else reach.through(window(past=inf, future=-carry.carry))
    return join_all([past, begins and Reach.unbounded(past.step if past else Fraction(1))])


def _pass(
    values: Iterable[Value], source: Value, delays: Mapping[Site, int] | None, carried: Table
) -> dict[Value, Reach | None]:
    table: dict[Value, Reach | None] = {}
    rate = source.type.rate
    assert rate is not None
    for v in values:
        if v is source:
            table[v] = Reach.source()
            continue
        if v.carry:
            table[v] = carried.get(v)
            continue
        parts: list[Reach] = []
        for i, operand in enumerate(v.operands):
            reach = None if isinstance(operand, Constant) else table.get(operand)
            if reach is None:
                continue
            assert isinstance(operand, Value)
            if not v.type.timed:
                parts.append(Reach.unbounded(Fraction(1)))
            elif not operand.type.timed:
                assert v.type.rate is not None
                parts.append(Reach.unbounded(rate / v.type.rate))
            else:
                if delays and v.sites[i] in delays:
                    reach = reach.through(delay(delays[v.sites[i]]))
                parts.append(reach.through(v.windows[i]))
        table[v] = join_all(parts)
    return table


@dataclass(frozen=True)
class TimeTable:
    """The reach of every value into every timed input."""

    of: Mapping[str, Table]

    def receptive_field(self, value: Value, source: str) -> tuple[int | float, int | float] | None:
        reach = self.of[source].get(value)
        return receptive_field(reach) if reach is not None else None


def time_table(graph: Graph) -> TimeTable:
    timed = {n: i.value for n, i in graph.inputs.items() if i.value.type.timed}
    return TimeTable({name: reaches(graph, value) for name, value in timed.items()})


def prove(graph: Graph, table: TimeTable, findings: Findings) -> None:
    """Check every `causal:` assertion, and in each entry that what is fed is strictly causal in what it replaces."""
    for a in graph.assertions:
        for source in a.sources:
            if _broken(graph, table, a, source):
                reach = _table(graph, table, source)[a.value]
                assert reach is not None
                findings.add(_violation(graph, table, a, source, reach))
    told = {s.span for a in graph.assertions for s in a.sources if _broken(graph, table, a, s)}
    for entry in graph.entries.values():
        own = time_table(entry) if entry.feeds else None
        for f in entry.feeds:
            for g in entry.feeds:
                if own is None or g.source.span in told:
                    continue  # the same leak, told already
                reach = own.of[g.source.path].get(f.drawn)
                # Of another feed the same tick may be heard; the schedule finds an order.
                if reach is not None and excess(reach, "strict" if f is g else 0) > 0:
                    findings.add(_leak(entry, own, f, g, reach))


def _broken(graph: Graph, table: TimeTable, a: Assertion, source: Value) -> bool:
    reach = _table(graph, table, source).get(a.value)
    return reach is not None and excess(reach, a.allowed) > 0  # type: ignore[arg-type]


def _table(graph: Graph, table: TimeTable, source: Value) -> Table:
    return table.of[source.path] if source.path in table.of and source.is_input else reaches(graph, source)


def _violation(graph: Graph, table: TimeTable, a: Assertion, source: Value, reach: Reach) -> Diagnostic:
    claim = "strictly causal" if a.allowed == "strict" else f"at most {a.allowed} ticks ahead"
    opening = f"'{a.name}' must be {claim} in '{source.path}', but"
    return _told(
        "GS0401", opening, _Fault(graph, _table(graph, table, source), a.value, source, reach, a.allowed), a.span
    )


def _leak(graph: Graph, table: TimeTable, f: Feed, g: Feed, reach: Reach) -> Diagnostic:
    opening = f"what is fed to '{f.source.path}' hears '{g.source.path}' before it exists: it"
    return _told("GS0403", opening, _Fault(graph, table.of[g.source.path], f.drawn, g.source, reach, "strict"), f.span)


@dataclass(frozen=True)
class _Fault:
    """A value that reads `source` farther ahead than `allowed`."""

    graph: Graph
    table: Table
    value: Value
    source: Value
    reach: Reach
    allowed: str | int

    @property
    def beyond(self) -> int | float:
        return excess(self.reach, self.allowed)  # type: ignore[arg-type]


def _told(code: str, opening: str, fault: _Fault, span: Span) -> Diagnostic:
    beyond, reach = fault.beyond, fault.reach
    far = "the whole future" if beyond == inf else f"{beyond} tick{'s' if beyond != 1 else ''} too far ahead"
    hops = witness(fault.graph, fault.table, fault.value, fault.source, worst_phase(reach, fault.allowed))  # type: ignore[arg-type]
    notes = [f"path: {_path(fault.graph, fault.source, hops)}"]
    related = []
    culprit = max(hops, key=lambda h: float(h.added), default=None)
    if culprit is not None and culprit.added > 0:
        adds = "everything ahead" if culprit.added == inf else f"{culprit.added} ticks"
        related.append(Related(f"this hop adds {adds}", culprit.value.span))
    if not reach.exact and beyond != inf:
        notes.append("not proven exact: the time table was too long and a bound stands in for it")
    fixes = tuple(_fixes(fault, hops))
    return Diagnostic(code, f"{opening} reads {far}", span, related=tuple(related), notes=tuple(notes), fixes=fixes)


def witness(graph: Graph, table: Table, value: Value, source: Value, k: int) -> list[Hop]:
    """The path from `source` to element k of `value` along which the farthest tick is read, source side first."""
    hops: list[Hop] = []
    while value is not source:
        if value.carry:
            value, k = graph.backs[value].source, k - value.carry
            continue
        reach = table[value]
        assert reach is not None
        best: tuple[int | float, int, int] | None = None
        for i, operand in enumerate(value.operands):
            r = table.get(operand) if isinstance(operand, Value) else None
            if r is None:
                continue
            assert isinstance(operand, Value)
            read = value.windows[i].reads(k)[1] if value.type.timed and operand.type.timed else inf
            last = inf if read == inf else r.last_at(int(read))
            if best is None or last > best[0]:
                best = (last, i, k if read == inf else int(read))
        assert best is not None
        last, i, read_at = best
        operand = value.operands[i]
        assert isinstance(operand, Value)
        r = table[operand]
        assert r is not None
        unbounded = last == inf and value.windows[i].future == inf
        here = reach.last_at(k) - k * reach.step
        there = r.last_at(read_at) - read_at * r.step
        added = inf if unbounded else (0 if inf in (abs(here), abs(there)) else here - there)
        hops.append(Hop(value, i, k, added))
        value, k = operand, read_at
    return hops[::-1]


def _path(graph: Graph, source: Value, hops: list[Hop]) -> str:
    """`wave -> x0 -> x1.fold (+3) -> ...`: the named values passed, and each op that moves in time."""
    tops = {id(v): n for n, v in graph.named.items() if isinstance(v, Value)}
    parts = [source.path]
    for h in hops:
        name = tops.get(id(h.value))
        moves = f" ({'+' if h.added > 0 else ''}{_whole(h.added)})" if h.added else ""
        if name or moves:
            parts.append((name or h.value.path) + moves)
    if len(parts) > 14:
        parts = [*parts[:9], "...", *parts[-4:]]
    return " -> ".join(parts)


def _whole(ticks: int | float | Fraction) -> str:
    if ticks == inf:
        return "inf"
    return str(ticks) if isinstance(ticks, int) or ticks == int(ticks) else f"{float(ticks):g}"


def _fixes(fault: _Fault, hops: list[Hop]) -> list[Fix]:
    """Delays on the path that are enough, each tried out: first where a rate rises again, then at the source."""
    source, beyond = fault.source, fault.beyond
    if beyond == inf:
        return [Fix("use an op that reads the past only along this path")]
    out: list[Fix] = []
    rising = [h for h in hops if h.value.windows[h.index].stride < 1]
    for h in dict.fromkeys([*rising[::-1][:1], *hops[:1]]):
        operand = h.value.operands[h.index]
        assert isinstance(operand, Value) and operand.type.rate is not None and source.type.rate is not None
        most = max(1, ceil(beyond * operand.type.rate / source.type.rate))
        site = h.value.sites[h.index]
        n = _enough(fault, site, most)
        if n is not None:
            out.append(_delayed(h, site, n))
    if not out and fault.value.type.rate == source.type.rate:
        out.append(Fix(f"delay the path by {beyond} ticks in all, with x[t-k] or shift(k)"))
    return out


def _enough(fault: _Fault, site: Site, most: int) -> int | None:
    """The smallest extra delay, up to `most`, with which the assertion holds."""

    def holds(n: int) -> bool:
        tried = reaches(fault.graph, fault.source, {site: n})[fault.value]
        return tried is None or excess(tried, fault.allowed) <= 0  # type: ignore[arg-type]

    if not holds(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _delayed(h: Hop, site: Site, n: int) -> Fix:
    """Delay the operand written at `site` by n ticks more: a delay that stands there grows, else one is added."""
    text = site.span.text
    written = h.value.span
    if h.value.windows[h.index].copies:
        k = int(h.value.windows[h.index].past) + n
        new = f"{text}[t-{k}]" if written.text.endswith("]") else f"shift({k})"
        return Fix(f"delay by {n} more at {written}: {_end(new)}", (Edit(written, new),))
    insert = f" |> shift({n})" if site.piped else f"[t-{n}]"
    what = "the value" if site.piped or len(text) > 40 else f"'{text}'"
    title = f"delay {what} by {n} at {site.span}: {_end(text)}{insert}"
    return Fix(title, (Edit(site.span.at_end(), insert),))


def _end(text: str) -> str:
    """The last stages of a pipe, as many as a line of advice has room for, none of them cut."""
    stages = [" ".join(s.split()) for s in text.split("|>")]
    kept = stages[-1:]
    for s in stages[-2::-1]:
        if len(" |> ".join([s, *kept])) > 50:
            return " |> ".join(["...", *kept])
        kept = [s, *kept]
    return " |> ".join(kept)
