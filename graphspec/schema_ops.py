"""The JSON Schema of ops: parameters by kind, inputs, and the long form `{op: conv, in: x, units: 64}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphspec.declare import REQUIRED, Catalogue, Declaration, Parameter, show
from graphspec.expression import MAX_LENGTH, Binary, Name, Number

Schema = dict[str, Any]

_JSON_TYPES = {"int": "integer", "float": "number", "bool": "boolean", "list": "array"}
_BOUNDS = {">=": "minimum", ">": "exclusiveMinimum", "<=": "maximum", "<": "exclusiveMaximum"}


def ref(name: str) -> Schema:
    """A definition of this schema."""
    return {"$ref": f"#/$defs/{name}"}


def record(properties: Mapping[str, Schema], description: str, *required: str) -> Schema:
    """A mapping with these keys and no others."""
    out: Schema = {"type": "object", "description": description, "properties": dict(properties)}
    return {**out, **({"required": list(required)} if required else {}), "additionalProperties": False}


def form() -> dict[str, Schema]:
    """The keys of a value beside what it is."""
    return {name: ref(f"form.{name}") for name in forms()}


def forms() -> dict[str, Schema]:
    """What those keys hold; the schema has it once, since every op may have them."""
    return {
        "type": {**ref("type"), "description": "An assertion about its type."},
        "doc": {"type": "string"},
        "when": {**ref("expression"), "description": "There only where this holds."},
        "freeze": {"type": ["boolean", "string"], "description": "Its weights are not trained."},
        "dtype": {"type": "string", "description": "What it is computed in, as f32.", "maxLength": 60},
    }


def long_form(ops: Catalogue) -> dict[str, Schema]:
    """`{op: conv, in: x, units: 64}`: one definition an op, found by its name."""
    known = {d.name: d for d in sorted(ops.ops.values(), key=lambda d: d.name) if d.signature and not d.of}
    return {
        "call": {
            "description": "One op, for tools.",
            "properties": {
                "op": {
                    "enum": list(known),
                    "description": "The op.",
                    "markdownEnumDescriptions": [d.summary for d in known.values()],  # what editors show beside each
                }
            },
            "required": ["op"],
            "allOf": [{"if": {"properties": {"op": {"const": name}}}, "then": ref(f"op.{name}")} for name in known],
        },
        **{f"form.{name}": kind for name, kind in forms().items()},
        **{f"op.{name}": _op(d) for name, d in known.items()},
    }


def _op(d: Declaration) -> Schema:
    expression = ref("expression")
    operands = d.parsed.operands
    needed = [o for o in operands if not o.optional and not o.variadic]
    variadic = any(o.variadic for o in operands)
    given: Schema = {
        "description": "Its inputs: one, a list in order, or by name.",
        "type": ["string", "number", "boolean", "array", "object"],
        "maxLength": MAX_LENGTH,
        "items": expression,
        "minItems": len(needed) + variadic,
        "properties": {o.name: expression for o in operands if not o.variadic},
        "additionalProperties": False,
    }
    if not variadic:
        given["maxItems"] = len(needed)
    keys: dict[str, Schema] = {"op": {"const": d.name}, "in": given, **form()}
    if d.weights:
        keys |= {
            "init": {**expression, "description": "How its weights start."},
            "bias": {**expression, "description": "Whether it adds a bias."},
            "weight": {**expression, "description": "A value that is its weight (tied)."},
        }
    keys |= {
        o.name: {**expression, "description": f"Optional input: {o.type.span.text}."} for o in operands if o.optional
    }
    keys |= {p.name: parameter(p, d) for p in d.parameters}
    required = ["op", *(["in"] if needed or variadic else []), *(p.name for p in d.parameters if p.required)]
    out = record(keys, f"{d.doc}\n\n{d.signature}", *required)
    if d.parts:  # split(x, left=3, right=5): results by name
        out["additionalProperties"] = {"type": [_JSON_TYPES.get(d.parts, "number"), "string"]}
    return out


def parameter(p: Parameter, d: Declaration) -> Schema:
    """A parameter's value as YAML writes it: of its kind, or an expression (a text)."""
    told = _said_of(p.name, d.doc)
    out: Schema = {"description": f"{told}\n\n{p}" if told else str(p)}
    if p.kind == "enum":
        out["anyOf"] = [{"enum": list(p.choices)}, {"type": "string", "maxLength": MAX_LENGTH}]  # a param may hold one
    elif p.kind == "any":
        out |= {"type": ["string", "number", "boolean", "array"]}
    elif p.kind in _JSON_TYPES:
        out |= {"type": [_JSON_TYPES[p.kind], "string"], "maxLength": MAX_LENGTH, **_limits(p.name, d)}
    else:
        out |= {"type": "string", "maxLength": MAX_LENGTH}
    if p.default is not REQUIRED:
        out["default"] = p.default if isinstance(p.default, (bool, int, float, str, list)) else show(p.default)
    return out


def _limits(name: str, d: Declaration) -> Schema:
    """`where units >= 1` as a minimum."""
    out: Schema = {}
    for c in d.parsed.conditions if d.signature else ():
        if isinstance(c, Binary) and isinstance(c.left, Name) and isinstance(c.right, Number) and c.left.name == name:
            if bound := _BOUNDS.get(c.operator):
                out[bound] = c.right.value
    return out


def _said_of(name: str, doc: str) -> str:
    """The sentence of a docstring that starts with `name:`."""
    text = " ".join(doc.split())
    for start in (f". {name}: ", f"; {name}: "):
        _, found, rest = text.partition(start)
        if found:
            return rest.partition(". ")[0].rstrip(".") + "."
    return ""
