"""Instances of `shared:` where they are used: with more of their inputs given, called, and by their faces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphspec.compiler.arguments import bind, bind_block
from graphspec.compiler.loops import Loops
from graphspec.compiler.stages import BlockStage, FaceStage, Instance, OpStage, Scope
from graphspec.declare import Declaration
from graphspec.diagnostic import did_you_mean, fail
from graphspec.expression import Attribute, Call, Expr, Index, Name
from graphspec.span import Span


class Instances(Loops):
    """`book.lookup(x)`, `x |> net(n)`, `tab.weight`."""

    def _face(self, instance: Instance, expr: Attribute) -> Declaration:
        """The op that `instance.name` means."""
        stage = instance.stage
        if not isinstance(stage, OpStage):
            fail("GS0216", f"'{instance.path}' is no single op, so it has no '{expr.name}'", expr.name_span)
        found = self.catalogue.faces.get((stage.op.name, expr.name))
        if found is None:
            known = [face for op, face in self.catalogue.faces if op == stage.op.name]
            fail(
                "GS0216",
                f"{stage.op.name} has no face '{expr.name}'{did_you_mean(expr.name, known)}",
                expr.name_span,
                notes=[f"it has: {', '.join(known) or 'none'}"],
            )
        return found

    def _defaults(self, op: Declaration, span: Span) -> dict[str, Any]:
        for p in op.parameters:
            if p.required:
                fail("GS0203", f"{op.name} needs '{p.name}'", span, notes=[f"it is {op}"])
        return {p.name: p.default for p in op.parameters}

    def _face_of(self, expr: Expr, scope: Scope) -> tuple[Instance, Declaration] | None:
        """`book.lookup` where book is an instance: of `shared:`, or a `for` name that stands for one."""
        if not isinstance(expr, Attribute):
            return None
        of = expr.of
        known = isinstance(of, Name) and (of.name in scope.names or of.name in scope.home.shared)
        if not known and not isinstance(of, Index):
            return None
        found = self.value(of, scope)
        return (found, self._face(found, expr)) if isinstance(found, Instance) else None

    def _face_stage(self, face: tuple[Instance, Declaration], expr: Call, scope: Scope, piped: bool) -> FaceStage:
        instance, op = face
        inputs, params, sites = bind(self, op, expr.arguments, scope, piped=piped, span=expr.span)
        return FaceStage(instance, op, inputs, params, expr.span, sites)

    def _apply_face(self, stage: FaceStage) -> Any:
        with self.owned(stage.instance):
            return self._op_call(stage.op, stage.inputs, stage.params, stage.span, stage.sites)

    def _use(self, instance: Instance, expr: Call, scope: Scope, piped: bool) -> Instance:
        """The instance with more of its inputs given: `book(lat, tau=tau)`, `x |> net(n, label=label)`."""
        stage = instance.stage
        if isinstance(stage, OpStage):
            bare = replace(stage.op, parameters=())
            inputs, _, sites = bind(self, bare, expr.arguments, scope, piped=piped, span=expr.span)
            full: Any = replace(
                stage, inputs={**stage.inputs, **inputs}, sites={**stage.sites, **sites}, span=expr.span
            )
        elif isinstance(stage, BlockStage):
            inputs, _ = bind_block(self, replace(stage.block, params=()), expr, scope, piped=piped)
            full = replace(stage, inputs={**stage.inputs, **inputs}, span=expr.span)
        else:
            fail("GS0204", f"'{instance.path}' is a composite stage; pipe into it, x |> {instance.path}", expr.span)
        return replace(instance, stage=full)

    def _call_instance(self, instance: Instance, expr: Call, scope: Scope) -> Any:
        used = self._use(instance, expr, scope, piped=False)
        with self.owned(used):
            stage = used.stage
            if isinstance(stage, BlockStage):
                return self._block(stage)
            return self._op_call(stage.op, stage.inputs, stage.params, expr.span, stage.sites)
