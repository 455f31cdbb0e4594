"""What the arguments of a call mean: inputs in order, then parameters; optional inputs by name (LANGUAGE 5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from graphspec.compiler.arithmetic import MAX_NUMBER, describe, is_number
from graphspec.declare import INITS, Declaration, Init, Parameter
from graphspec.diagnostic import Edit, Fix, did_you_mean, fail, nearest
from graphspec.dims import Dim
from graphspec.excerpt import shown
from graphspec.expression import Argument, Call, Comprehension, Expr, Known, Name, Pipe, Text
from graphspec.graph import Site, Value
from graphspec.span import Span

if TYPE_CHECKING:
    from graphspec.compiler.elaborate import Elaborator
    from graphspec.compiler.resolve import Block
    from graphspec.compiler.stages import Scope

Arguments = Sequence[Argument | Comprehension]


def bind(
    elaborator: Elaborator, op: Declaration, arguments: Arguments, scope: Scope, *, piped: bool, span: Span
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(inputs, parameters, where the inputs stand) of an op call; in stage position the first input is missing."""
    declared = op.parsed.operands
    piped_away = piped and not declared[0].variadic  # a variadic takes more behind the piped one
    by_name = {a.name for a in arguments if isinstance(a, Argument) and a.name}
    open_inputs = [d for d in declared if not d.optional][1 if piped_away else 0 :]
    open_inputs = [d for d in open_inputs if d.name not in by_name]  # positional ones fill the others
    inputs: dict[str, Any] = {}
    sites: dict[str, Any] = {}  # a Site, or one an operand of a variadic
    params: dict[str, Any] = {}
    open_params = list(op.parameters)

    def give(name: str, expr: Expr) -> None:
        inputs[name] = elaborator.operand(elaborator.value(expr, scope), expr.span)
        written = expr.written if isinstance(expr, Known) else expr
        sites[name] = Site(expr.span, isinstance(written, Pipe) and not written.grouped)

    for a in arguments:
        if isinstance(a, Comprehension):
            if not (open_inputs and open_inputs[0].variadic):
                fail("GS0203", f"{op.name} takes no list here", a.span)
            items = elaborator.unrolled(a, scope, elaborator.value)
            name = open_inputs[0].name
            made = tuple(elaborator.operand(v, a.span) for v in items)
            inputs[name] = (*inputs.get(name, ()), *made)
            sites[name] = (*sites.get(name, ()), *(Site(a.span, False) for _ in made))
        elif a.name is None and isinstance(a.value, Text) and open_params and open_params[0].kind == "text":
            p = open_params.pop(0)  # a pattern stands before what it is about: einsum("en,n->e", h, c)
            params[p.name] = parameter(elaborator, op.name, p, a.value, scope)
            sites[p.name] = Site(a.span, False)
        elif a.name is None and open_inputs:
            first = open_inputs[0]
            if first.variadic:
                value = elaborator.value(a.value, scope)
                each = value if isinstance(value, tuple) else (value,)
                site = Site(a.span, isinstance(a.value, Pipe) and not a.value.grouped)
                inputs[first.name] = (*inputs.get(first.name, ()), *(elaborator.operand(v, a.span) for v in each))
                sites[first.name] = (*sites.get(first.name, ()), *(site for _ in each))
            else:
                give(open_inputs.pop(0).name, a.value)
        elif a.name is None:
            if not open_params:
                fail("GS0203", f"{op.name} takes no more arguments; it is {op}", a.span)
            p = open_params.pop(0)
            params[p.name] = parameter(elaborator, op.name, p, a.value, scope)
            sites[p.name] = Site(a.span, False)
        else:
            found = op.parameter(a.name)
            if found is not None:
                if a.name in params:
                    fail("GS0203", f"parameter '{a.name}' of {op.name} is given twice", a.span)
                open_params = [p for p in open_params if p.name != a.name]
                params[a.name] = parameter(elaborator, op.name, found, a.value, scope)
                sites[a.name] = Site(a.span, False)
            elif op.weights and a.name == "init":
                params["init"] = _init(elaborator, op.name, a.value, scope)
            elif op.weights and a.name == "freeze":
                params["freeze"] = parameter(elaborator, op.name, Parameter("freeze", "bool"), a.value, scope)
            elif any(d.name == a.name for d in declared):
                if a.name in inputs:
                    fail("GS0203", f"input '{a.name}' of {op.name} is given twice", a.span)
                if elaborator.value(a.value, scope) is None:
                    continue  # `none` may be given to an optional input
                give(a.name, a.value)
            elif op.parts or op.sizes:
                width = parameter(elaborator, op.name, Parameter(a.name, op.parts or op.sizes), a.value, scope)
                if width < 1:
                    fail("GS0223", f"{op.name}: a part is 1 wide or more, not {width}", a.span)
                params[a.name] = width
            else:
                known = [p.name for p in op.parameters] + [d.name for d in declared]
                _no_parameter(op.name, f"{op.name} has no parameter '{a.name}'", a, known, f"it is {op}")
    empty = [d.name for d in declared if d.variadic and not piped and inputs.get(d.name) == ()]
    if empty:
        fail("GS0203", f"{op.name} needs at least one '{empty[0]}'; the list is empty", span)
    given_none = [d for d in declared if d.name in by_name and d.name not in inputs and not d.optional]
    missing = [d.name for d in (*open_inputs, *given_none) if not (d.variadic and (piped or d.name in inputs))]
    if missing:
        fail("GS0203", f"{op.name} needs its input '{missing[0]}'", span, notes=[f"its inputs: {op.signature}"])
    for p in op.parameters:
        if p.name not in params:
            if p.required:
                fail("GS0203", f"{op.name} needs '{p.name}'", span, notes=[f"it is {op}"])
            params[p.name] = p.default
    return inputs, params, sites


_ELSEWHERE = {  # what other libraries call it
    "kernel_size": "k",
    "kernel": "k",
    "out_channels": "units",
    "out_features": "units",
    "hidden_size": "units",
    "features": "units",
    "channels": "units",
    "filters": "units",
    "use_bias": "bias",
    "num_heads": "heads",
    "n_heads": "heads",
    "num_embeddings": "units",
    "embedding_dim": "units",
    "dim": "units",
    "rate": "p",
    "epsilon": "eps",
}


def _no_parameter(who: str, message: str, a: Argument, known: Sequence[str], note: str) -> NoReturn:
    """GS0203 for an argument of a name that is not declared, with the name that is meant."""
    name = a.name or ""
    elsewhere = _ELSEWHERE.get(name, "")
    notes = [note]
    if elsewhere in known:
        close, hint = [elsewhere], f"; it is called '{elsewhere}' here"
    else:
        close = nearest(name, known)
        hint = f"; did you mean '{close[0]}'?" if close else ""
    if name in ("padding", "pad") and "centre" in known:
        notes.append(f"{who} pads by itself: time is not shortened, and the past alone is read unless centre=true")
    place = Span(a.span.source, a.span.start, a.span.start + len(name))
    fixes = [Fix(f"write {c}={shown(a.value.span.text, 30)}", (Edit(place, c),)) for c in close if place.text == name]
    fail("GS0203", message + hint, a.span, notes=notes, fixes=fixes)


def parameter(elaborator: Elaborator, who: str, p: Parameter, expr: Expr, scope: Scope) -> Any:
    """One compile-time argument, checked against its declared kind."""
    if p.kind == "init":
        return _init(elaborator, who, expr, scope)
    if p.kind == "enum":
        if isinstance(expr, Name) and expr.name in p.choices:
            if expr.name in scope.names or expr.name in scope.home.params:
                fail("GS0221", f"'{expr.name}' is a choice of {who} and also a name here; rename one", expr.span)
            return expr.name
        if isinstance(expr, Name) and expr.name not in scope.names and expr.name not in scope.home.params:
            fail(
                "GS0222",
                f"{who}: {p.name} is one of {', '.join(p.choices)}, not '{expr.name}'"
                + did_you_mean(expr.name, p.choices),
                expr.span,
            )
    return fitting(who, p, elaborator.value(expr, scope), expr.span)


def _init(elaborator: Elaborator, who: str, expr: Expr, scope: Scope) -> Init:
    """`zeros`, `normal(0.02)`, or a number that the weight begins with."""
    called = expr.function if isinstance(expr, Call) else expr
    if isinstance(called, Name) and called.name in INITS and called.name not in scope.names:
        given = [elaborator.value(a.value, scope) for a in expr.arguments] if isinstance(expr, Call) else []
        defaults = INITS[called.name]
        if len(given) > len(defaults) or not all(is_number(v) for v in given):
            fail("GS0223", f"{who}: {called.name} takes {len(defaults)} numbers", expr.span)
        return Init(called.name, tuple(float(v) for v in (*given, *defaults[len(given) :])))
    value = elaborator.value(expr, scope)
    if not is_number(value):
        known = ", ".join(INITS)
        fail("GS0223", f"{who}: init is a number or one of {known}, not {describe(value)}", expr.span)
    return Init("constant", (float(value),))


def fitting(who: str, p: Parameter, value: Any, span: Span) -> Any:
    """The value, if it is of the parameter's kind."""
    if value is None and p.optional:
        return None
    if p.kind == "enum":
        if value not in p.choices:
            near = did_you_mean(value, p.choices) if isinstance(value, str) else ""
            fail("GS0222", f"{who}: {p.name} is one of {', '.join(p.choices)}, not {describe(value)}{near}", span)
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        "int": whole,
        "float": is_number(value),
        "bool": isinstance(value, bool),
        "text": isinstance(value, str),
        "list": isinstance(value, (tuple, list)),
        "any": True,
    }[p.kind]
    if not fits:
        kinds = {"int": "an integer", "float": "a number", "bool": "true or false", "text": "text", "list": "a list"}
        found = describe(value)
        if isinstance(value, Value):
            found = "a value that is known only while the model runs"
        if isinstance(value, Dim):
            found = f"the size {value}, which is not known at compile time"
        fixes = _whole(value, span) if p.kind == "int" and isinstance(value, float) else []
        if p.kind in ("int", "float") and isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
            fixes = [Fix(f"write {value}, without quotes", (Edit(span, value),) if span.text[1:-1] == value else ())]
        fail("GS0223", f"{who}: {p.name} must be {kinds[p.kind]}, found {found}", span, fixes=fixes)
    return list(value) if p.kind == "list" else float(value) if p.kind == "float" else value


def _whole(value: float, span: Span) -> list[Fix]:
    """How the integer is written that a float was given for: `3` for `3.0`, `d // 2` for `d / 2`."""
    text = span.text
    at = [m.start() for m in re.finditer(r"(?<!/)/(?!/)", text)]
    if at:
        edits = tuple(Edit(Span(span.source, span.start + i, span.start + i + 1), "//") for i in at)
        return [Fix(f"'/' gives a broken number; '//' rounds down: {shown(re.sub('(?<!/)/(?!/)', '//', text))}", edits)]
    if not value.is_integer() or abs(value) > MAX_NUMBER:
        return []
    literal = re.fullmatch(r"(\w+\s*=\s*)?([-+.\deE]+)", text)
    edit = () if literal is None else (Edit(span, f"{literal[1] or ''}{int(value)}"),)
    return [Fix(f"write {int(value)}", edit)]


def bind_block(
    elaborator: Elaborator, block: Block, call: Call, scope: Scope, *, piped: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, params) of a block call."""
    named = {a.name for a in call.arguments if isinstance(a, Argument) and a.name}
    open_inputs = [i for i in block.inputs if not i.optional and i.name not in named][1 if piped else 0 :]
    inputs: dict[str, Any] = {}
    params: dict[str, Any] = {}
    by_name = {p.name: p for p in block.params}
    open_params = [p.name for p in block.params]
    for a in call.arguments:
        if isinstance(a, Comprehension):
            fail("GS0203", f"block '{block.name}' takes no list here", a.span)
        if a.name is None and open_inputs:
            inputs[open_inputs.pop(0).name] = elaborator.value(a.value, scope)
            continue
        name = a.name
        if name is None:
            if not open_params:
                fail("GS0203", f"block '{block.name}' takes no more arguments", a.span)
            name = open_params[0]
        if name in by_name:
            if name in params:
                fail("GS0203", f"'{name}' of '{block.name}' is given twice", a.span)
            open_params = [p for p in open_params if p != name]
            params[name] = _block_param(elaborator, block, name, a.value, scope)
        elif any(i.name == name for i in block.inputs):
            inputs[name] = elaborator.value(a.value, scope)
        else:
            known = [*by_name, *(i.name for i in block.inputs)]
            takes = f"it takes: {', '.join(known)}"
            _no_parameter(block.name, f"block '{block.name}' has no '{name}'", a, known, takes)
    if not piped and open_inputs:
        fail("GS0203", f"block '{block.name}' needs its input '{open_inputs[0].name}'", call.span)
    for p in block.params:
        if p.name not in params:
            if p.default is None:
                fail("GS0203", f"block '{block.name}' needs '{p.name}' ({p.kind})", call.span)
            inner = type(scope)(block.home, dict(params))
            params[p.name] = elaborator.value(p.default, inner)
    return inputs, params


def _block_param(elaborator: Elaborator, block: Block, name: str, expr: Expr, scope: Scope) -> Any:
    p = next(p for p in block.params if p.name == name)
    if p.kind == "stage":
        return elaborator.stage(expr, scope)
    value = elaborator.value(expr, scope)
    kind = p.kind
    if kind is None:
        assert p.default is not None
        default = elaborator.value(p.default, type(scope)(block.home, {}))  # a default tells the kind
        kind = {bool: "bool", int: "int", float: "float", str: "text", tuple: "list"}.get(type(default), "any")
    return fitting(f"block '{block.name}'", Parameter(name, kind), value, expr.span)
