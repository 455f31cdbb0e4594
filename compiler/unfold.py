"""Stages applied: chains, `repeat` (outputs carried by name, the others collected), blocks with sizes and facts."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from graphspec.compiler import arithmetic
from graphspec.compiler.arithmetic import describe, is_number
from graphspec.compiler.calls import MAX_VALUES, Calls
from graphspec.compiler.copies import MOST, Copies
from graphspec.compiler.resolve import Block
from graphspec.compiler.stages import BlockStage, Chain, FaceStage, Instance, OpStage, Repeat, Scope
from graphspec.compiler.written import sorted_by_dataflow
from graphspec.declare import show
from graphspec.diagnostic import Fix, Related, SpecError, did_you_mean, fail
from graphspec.dims import Dim, DimError
from graphspec.expression import Binary, Expr, Name, Text, children, names
from graphspec.graph import Site, Value
from graphspec.types import UNKNOWN

MAX_NESTING = 64  # blocks inside blocks
MAX_USES = 2 * MAX_VALUES  # of blocks and repeats: also those that make no value take time


class Unfolding(Calls):
    """Needs `value`, which the Elaborator adds."""

    unfolded = 0  # blocks and repeats so far

    def value(self, expr: Expr, scope: Scope) -> Any:
        raise NotImplementedError

    def loop(self, members: Any, expressions: Any, scope: Scope, make: Any) -> None:
        raise NotImplementedError

    def apply(self, stage: Any, first: Any, site: Site) -> Any:
        """The stage with its first input given."""
        if isinstance(stage, Chain):
            for s in stage.stages:
                if isinstance(first, dict):
                    fail(
                        "GS0217",
                        f"a record of {', '.join(first)} cannot be piped on; name the value and take a field",
                        s.span,
                    )
                first = self.apply(s, first, site)
                site = Site(s.span, True)
            return first
        if isinstance(stage, Repeat):
            return self._copies(stage, first, site)
        if isinstance(stage, OpStage):
            slot = stage.op.parsed.operands[0]
            given = self.operand(first, site.span)
            rest = stage.inputs.get(slot.name, ())
            inputs = {**stage.inputs, slot.name: (given, *rest) if slot.variadic else given}
            sites = {**stage.sites, slot.name: (site, *stage.sites.get(slot.name, ())) if slot.variadic else site}
            return self._op_call(stage.op, inputs, stage.params, stage.span, sites)
        if isinstance(stage, Instance):
            with self.owned(stage):
                return self.apply(stage.stage, first, site)
        if isinstance(stage, FaceStage):
            slot = stage.op.parsed.operands[0]
            inputs = {**stage.inputs, slot.name: self.operand(first, site.span)}
            with self.owned(stage.instance):
                return self._op_call(stage.op, inputs, stage.params, stage.span, {**stage.sites, slot.name: site})
        block = stage.block
        return self._block(replace(stage, inputs={block.inputs[0].name: first, **stage.inputs}))

    @cached_property
    def copies(self) -> Copies:
        return Copies(self.catalogue)

    def _has_room(self, stage: BlockStage | Repeat, what: str) -> None:
        """What would unfold to too many values is refused before it is unfolded."""
        self.unfolded += 1
        if self.unfolded > MAX_USES:
            fail("GS0804", f"the spec uses blocks more than {MAX_USES:,} times", stage.span)
        least = self.copies.values(stage)
        if len(self.values) + least > MAX_VALUES:
            many = f"over {least:,}" if least >= MOST else f"at least {least:,}"
            fail("GS0804", f"{what} would unfold to {many} values; the limit is {MAX_VALUES:,} in all", stage.span)

    def _copies(self, stage: Repeat, first: Any, site: Site) -> Any:
        self._has_room(stage, "repeat")
        body = stage.stages[0] if stage.stages else stage.body
        block = body.block if isinstance(body, BlockStage) else None
        fields = block.result_names if block else ()
        if not fields:
            for i, s in enumerate(stage.stages):
                with self.entered(str(i)):
                    first = self.apply(s, first, site)
                if isinstance(first, dict):
                    fail(
                        "GS0217",
                        "repeat of a composite that gives a record; make it a block with named outputs",
                        s.span,
                    )
                site = Site(s.span, True)
            return first
        assert block is not None
        inputs = [i.name for i in block.inputs]
        if inputs[0] not in fields:
            fail(
                "GS0507",
                f"the block does not return its first input '{inputs[0]}'",
                stage.span,
                related=[Related("the block", block.span)],
            )
        carried: dict[str, Any] = {inputs[0]: first}
        collected: dict[str, list[Any]] = {f: [] for f in fields if f not in inputs}
        for i, s in enumerate(stage.stages):
            if not isinstance(s, BlockStage) or s.block.result_names != fields:
                fail(
                    "GS0509",
                    f"copy {i} of repeat does not return {', '.join(fields)}, as the first copy does",
                    s.span,
                    related=[Related("the first copy", body.span)],
                )
            with self.entered(str(i)):
                result = self._block(replace(s, inputs={**s.inputs, **carried}))
            carried = {f: result[f] for f in fields if f in inputs}
            for f, items in collected.items():
                items.append(result[f])
        start = {f: carried.get(f, body.inputs.get(f)) for f in fields if f in inputs}
        return {f: start[f] if f in start else tuple(collected[f]) for f in fields}

    def _block(self, stage: BlockStage) -> Any:
        """Unfold a block: bind its inputs' sizes, check its facts, build its graph."""
        block = stage.block
        self._has_room(stage, f"'{block.name}'")
        scope = Scope(block.home, {**stage.params, **{i.name: stage.inputs.get(i.name) for i in block.inputs}})
        try:
            with self.called_from(stage.span) as depth, self.entered(block.name):
                if depth > MAX_NESTING:
                    message = f"blocks nest deeper than {MAX_NESTING}; does '{block.name}' use itself?"
                    fail("GS0508", message, stage.span)
                self._bind_sizes(block, stage, scope)
                for fact in block.require:
                    self._check_fact(block, fact, scope)
                order = sorted_by_dataflow(dict(block.graph), "value")
                if order.faults:
                    raise SpecError(*order.faults)

                def make(name: str) -> Any:
                    with self.entered(name.replace(".", "_")):
                        return self.value(order.expressions[name], scope)

                for name in order.names:
                    if name in order.loops:
                        self.loop(order.loops[name], order.expressions, scope, make)
                    else:
                        scope.names[name] = make(name)
                if isinstance(block.out, tuple):
                    return {name: self.value(e, scope) for name, e in block.out}
                return self.value(block.out, scope)
        except SpecError as error:
            here = Related(f"in this use of '{block.name}'", stage.span)
            raise SpecError(*(_told(d, here) for d in error.diagnostics)) from None

    def _bind_sizes(self, block: Block, stage: BlockStage, scope: Scope) -> None:
        for declared in block.inputs:
            given = stage.inputs.get(declared.name)
            if given is None:
                if not declared.optional:
                    fail("GS0203", f"block '{block.name}' needs its input '{declared.name}'", stage.span)
                continue
            if declared.type is None or declared.type.name == "any" and declared.type.dims is None:
                continue
            if isinstance(given, Value) and given.type.dtype == UNKNOWN:
                continue
            if not isinstance(given, Value):
                if isinstance(given, (dict, tuple)) or declared.type.dims:
                    fail(
                        "GS0217",
                        f"input '{declared.name}' of '{block.name}' takes a value, not {describe(given)}",
                        stage.span,
                    )
                continue
            self._match_input(block, declared, given, stage, scope)

    def _match_input(self, block: Block, declared: Any, given: Value, stage: BlockStage, scope: Scope) -> None:
        rule, type_ = declared.type, given.type
        both = [Related(f"declared as {rule.span.text}", rule.span), Related(str(given), given.span)]
        kinds = {"float": "float", "f32": "float", "int": "int", "bool": "bool"}
        if rule.name in kinds and (type_.meaning is not None or type_.dtype.kind != kinds[rule.name]):
            what = type_.meaning or type_.dtype
            fail(
                "GS0303",
                f"block '{block.name}' wants {rule.name} for '{declared.name}', not {what}",
                stage.span,
                related=both,
            )
        if rule.dims is None:
            return
        if len(rule.dims) != len(type_.dims):
            wanted, found = ", ".join(d.span.text for d in rule.dims), ", ".join(map(str, type_.dims))
            fail(
                "GS0304",
                f"block '{block.name}' wants axes [{wanted}], not [{found}]",
                stage.span,
                related=both,
            )
        for pattern, dim in zip(rule.dims, type_.dims, strict=True):
            size = dim.as_int() if dim.as_int() is not None else dim
            fresh = (
                isinstance(pattern, Name) and pattern.name not in scope.names and pattern.name not in scope.home.params
            )
            if fresh:
                assert isinstance(pattern, Name)
                scope.names[pattern.name] = size
                continue
            want = self.value(pattern, scope)
            if not isinstance(want, (int, Dim)) or isinstance(want, bool):
                fail("GS0306", f"an axis is a whole number, not {describe(want)}", pattern.span)
            if not self.inference.facts.same(Dim.of(want), dim):
                fail(
                    "GS0301",
                    f"block '{block.name}': {declared.name} has {size} where {pattern.span.text} is {want}",
                    stage.span,
                    related=both,
                )

    def _check_fact(self, block: Block, fact: Expr, scope: Scope) -> None:
        """A block's `require` must follow from the spec's facts, or hold of the numbers."""
        facts = self.inference.facts
        if isinstance(fact, Binary) and fact.operator == "==":
            left = fact.left
            if isinstance(left, Binary) and left.operator == "%":
                a, b = self.value(left.left, scope), self.value(left.right, scope)
                zero = self.value(fact.right, scope)
                if isinstance(a, Dim) and zero == 0 and isinstance(b, int) and b > 0:
                    if not facts.exact(a / b):
                        needed = facts.needed(a / b)
                        fail(
                            "GS0311",
                            f"'{block.name}' requires {fact.span.text}: here {a} % {b}, which nothing says is 0",
                            fact.span,
                            fixes=[Fix(f"add to the spec's require: {needed}")] if needed else [],
                        )
                    return
                if is_number(a) and is_number(b):
                    if arithmetic.binary("%", a, b, fact.span) != zero:
                        fail(
                            "GS0305", f"'{block.name}' requires {fact.span.text}; here {a} % {b} is {a % b}", fact.span
                        )
                    return
            a, b = self.value(left, scope), self.value(fact.right, scope)
            try:
                if not facts.same(Dim.of(a), Dim.of(b)):
                    fail(
                        "GS0305", f"'{block.name}' requires {fact.span.text}; here the sides are {a} and {b}", fact.span
                    )
            except DimError:
                if a != b:
                    fail(
                        "GS0305", f"'{block.name}' requires {fact.span.text}; here the sides are {a} and {b}", fact.span
                    )
            return
        if not arithmetic.truth(self.value(fact, scope), fact.span):
            here, notes = self._here(fact, scope)
            told = f"'{block.name}' requires {fact.span.text}; here {here or 'it does not hold'}"
            fail("GS0305", told, fact.span, notes=notes)

    def _here(self, fact: Expr, scope: Scope) -> tuple[str, list[str]]:
        """What the plain values of a condition are, and for a word that is none of those asked for the nearest."""
        plain: dict[str, Any] = {}
        for n in names(fact):
            value = self.value(n, scope)
            if isinstance(value, (bool, int, float, str)):
                plain[n.name] = value
        notes = []
        for name, value in plain.items():
            words = _words(fact, name) if isinstance(value, str) else []
            if words and value not in words:
                notes.append(f"{name} is one of {', '.join(words)}{did_you_mean(value, words)}")
        return " and ".join(f"{name} is {show(value)}" for name, value in plain.items()), notes


def _words(fact: Expr, name: str) -> list[str]:
    """The words that a condition compares a name with."""
    own = isinstance(fact, Binary) and isinstance(fact.left, Name) and fact.left.name == name
    if own and isinstance(fact, Binary) and isinstance(fact.right, Text):
        return [str(fact.right.value)]
    return [w for c in children(fact) for w in _words(c, name)]


def _told(diagnostic: Any, here: Related) -> Any:
    """The diagnostic with the call that led to it; only the three innermost calls are kept."""
    if len(diagnostic.related) >= 6:
        return diagnostic
    return replace(diagnostic, related=(*diagnostic.related, here))
