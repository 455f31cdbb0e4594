"""The JSON Schema (draft 2020-12) of a spec, made from the declarations: what an editor checks and completes by.

It knows the sections, the keys of every entry, and of every op its parameters and inputs (the long form `{op, in,
...}`); expressions are texts to it, `graphspec lint` reads them. Made to be cheap and safe to check by: no remote
reference, no `oneOf`, one `if` per op with the constant it asks for, and patterns without a choice to go back to
(ECMA's `^...$`, beside a length, since Python's `$` lets a line break pass).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphspec.declare import Catalogue
from graphspec.expression import MAX_LENGTH
from graphspec.schema_ops import Schema, form, long_form, parameter, record, ref

NAME = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": 200}
DOTTED = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.]*$", "maxLength": 2000}
LIBRARY = ("graphspec", "library", "doc", "use", "params", "blocks")
LATER = ("draws", "carry", "players")  # reserved in `train`


def schema(ops: Catalogue, settings: Catalogue) -> Schema:
    """The schema of specs and libraries over these ops; `settings` are what `data` and `train` may say."""
    sections = _sections(settings)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "graphspec 1",
        "description": "An audio model, or a library of blocks, as a graph of values. Expressions are checked by "
        "`graphspec lint`.",
        "type": "object",
        "required": ["graphspec"],
        "properties": sections,
        "additionalProperties": False,
        "if": {"required": ["library"]},
        "then": {"propertyNames": {"enum": list(LIBRARY)}},
        "else": {"required": ["model"]},
        "$defs": {**_definitions(), **_edits(sections), **long_form(ops)},
    }


# ---- pieces ---------------------------------------------------------------------------------------------------------


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, "maxLength": MAX_LENGTH, **more}


def _named(values: Schema, description: str, names: Schema = NAME) -> Schema:
    """A mapping of names to one kind of thing."""
    return {"type": "object", "description": description, "propertyNames": names, "additionalProperties": values}


def _list(items: Schema, description: str) -> Schema:
    return {"type": "array", "description": description, "items": items}


def _either(scalar: Schema, record: Schema) -> Schema:
    """A scalar, or a mapping: told apart by the type, so that a mistake in one is not also a mistake in the other."""
    return {"if": {"type": "object"}, "then": record, "else": scalar}


# ---- sections -------------------------------------------------------------------------------------------------------


def _sections(settings: Catalogue) -> dict[str, Schema]:
    expression, value, term = ref("expression"), ref("value"), ref("term")
    return {
        "graphspec": {"const": 1, "description": "The edition of the language."},
        "model": {
            **_text("The model's name, of letters, digits, _ and -."),
            "pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]*$",
            "maxLength": 63,
        },
        "library": _text("The library's name; a library has only use, params and blocks."),
        "doc": {"type": "string", "description": "What it is, and the paper."},
        "params": _named(ref("param"), "Compile-time values; d=128 on the command line changes one."),
        "inputs": _named(ref("input"), "What comes from outside."),
        "require": _list(ref("fact"), "Facts about dims, as T % 16 == 0."),
        "use": _list(_text("A library."), "Libraries of blocks, as std/core."),
        "extends": _text("The spec this one starts from."),
        "override": ref("edits"),
        "add": ref("edits"),
        "remove": _list(DOTTED, "Paths of entries that are taken out, as losses.kl."),
        "moved": _named(DOTTED, "Old path to new path.", DOTTED),
        "blocks": _named(ref("block"), "Named sub-graphs."),
        "shared": _named(ref("instance"), "Instances: one set of weights, used wherever the name appears."),
        "cells": _named(ref("cell"), "Registers, per tick or per optimizer update."),
        "graph": _named(value, "The values."),
        "causal": _named(ref("bound"), "What is proven: how far a value looks ahead.", DOTTED),
        "losses": _named(term, "What is minimised: the sum of them, each a mean with its weight."),
        "metrics": _named(term, "What is measured."),
        "outputs": {
            "description": "Values that are handed out.",
            "type": ["array", "object"],
            "items": expression,
            "propertyNames": NAME,
            "additionalProperties": term,
        },
        "eval": _named(value, "Values that are replaced outside training.", DOTTED),
        "entries": _named(ref("entry"), "Views of the graph by name."),
        "sample": {**ref("entry"), "description": "The entry that makes sound."},
        "data": _named(_call(settings, "source"), "Where the values of an input come from, in training."),
        "train": _train(settings),
    }


def _definitions() -> dict[str, Schema]:
    expression = ref("expression")
    return {
        "expression": {
            "description": "An expression, as wave[t-1] |> embed(d).",
            "type": ["string", "number", "boolean"],
            "maxLength": MAX_LENGTH,
        },
        "type": _text("A type, as float[T, 1] @ rate, int(2**bits)[T, 1] @ rate or f32."),
        "param": _either(
            {"type": ["string", "number", "boolean", "null", "array"], "items": ref("item")},
            record(
                {
                    "choose": {"type": ["string", "number", "boolean"], "description": "The option that is taken."},
                    "from": _named(expression, "The options, each a stage.", {"type": "string", "maxLength": 200}),
                    "doc": {"type": "string"},
                },
                "A choice between stages.",
                "choose",
                "from",
            ),
        ),
        "item": {"type": ["string", "number", "boolean", "array"], "items": ref("item")},
        "input": _either(
            ref("type"),
            record(
                {
                    "type": ref("type"),
                    "before": {**expression, "description": "What x[t-1] reads at t = 0."},
                    "pad": {**expression, "description": "What a padded tick holds."},
                    "default": {**expression, "description": "The value unless one is given; the input is optional."},
                    "cache": {"type": "boolean", "description": "Compute the default once a recording."},
                    "when": {**expression, "description": "There only where this holds."},
                    "doc": {"type": "string"},
                },
                "An input.",
                "type",
            ),
        ),
        "value": {
            "if": {"type": "object"},
            "then": {
                "if": {"required": ["op"]},
                "then": ref("call"),
                "else": record({"is": expression, **form()}, "A value.", "is"),
            },
            "else": expression,
        },
        "term": {
            "if": {"type": "object"},
            "then": record(
                {
                    "is": expression,
                    "weight": {**expression, "description": "Its factor in the sum."},
                    "mask": {**expression, "description": "Elements that count."},
                    **form(),
                },
                "A loss, metric or output.",
                "is",
            ),
            "else": expression,
        },
        "fact": _either(
            expression,
            record({"is": expression, "when": expression, "doc": {"type": "string"}}, "A fact where it holds.", "is"),
        ),
        "instance": _either(_text("A stage, as embed(d)."), record({"is": expression, **form()}, "An instance.", "is")),
        "block": _block(),
        "cell": record(
            {
                "per": {"enum": ["tick", "update"], "default": "tick"},
                "type": ref("type"),
                "init": {**expression, "description": "A number, learned, first or first(expression)."},
                "next": {**expression, "description": "What it holds afterwards."},
                "reset": expression,
                "detach_every": expression,
                "require": expression,
                "when": expression,
                "doc": {"type": "string"},
            },
            "A register.",
            "next",
        ),
        "bound": {
            "description": "strict (the past only), a look-ahead in ticks, or one of these per source.",
            "type": ["string", "integer", "object"],
            "maxLength": MAX_LENGTH,
            "propertyNames": DOTTED,
            "additionalProperties": {"type": ["string", "integer"], "maxLength": MAX_LENGTH},
        },
        "entry": _entry(),
    }


def _block() -> Schema:
    expression = ref("expression")
    given = _either(
        ref("type"),
        record(
            {"type": ref("type"), "optional": {"type": "boolean"}, "default": expression, "doc": {"type": "string"}},
            "An input of the block.",
            "type",
        ),
    )
    return record(
        {
            "doc": {"type": "string"},
            "params": _named(
                {"type": ["string", "number", "boolean", "array"], "items": ref("item")},
                "int, float, bool, text, list or stage; or a default, which gives the kind.",
            ),
            "in": {
                "description": "Its inputs: a name, names, or names with types.",
                "type": ["string", "array", "object"],
                "items": NAME,
                "propertyNames": NAME,
                "additionalProperties": given,
            },
            "require": _list(ref("fact"), "Facts about dims."),
            "shared": _named(ref("instance"), "Instances of each copy."),
            "cells": _named(ref("cell"), "Registers of each copy."),
            "graph": _named(ref("value"), "The values."),
            "out": {
                "description": "One expression, or a record of them.",
                "type": ["string", "number", "boolean", "object"],
                "propertyNames": NAME,
                "additionalProperties": ref("value"),
            },
        },
        "A named sub-graph.",
        "in",
        "out",
    )


def _entry() -> Schema:
    expression, value = ref("expression"), ref("value")
    names = {"type": ["array", "string"], "items": {"type": "string", "maxLength": MAX_LENGTH}}
    return record(
        {
            "doc": {"type": "string"},
            "when": expression,
            "from": {**names, "description": "Inputs, or values that are cut."},
            "set": _named(value, "Definitions that are replaced.", DOTTED),
            "feed": _named(value, "What a value is from one tick to the next, as draw(dist).", DOTTED),
            "iterate": record(
                {
                    "over": _named(
                        {"type": ["string", "array"], "items": ref("item")}, "Values and their lists.", DOTTED
                    ),
                    "start": _named(value, "What is carried, at first.", DOTTED),
                    "next": _named(value, "What is carried, from then on.", DOTTED),
                },
                "A loop over lists, as the noise levels of diffusion.",
                "next",
            ),
            "to": {**names, "description": "What comes out."},
        },
        "A view of the graph.",
    )


def _edits(sections: Mapping[str, Schema]) -> dict[str, Schema]:
    """`override` and `add`: whole sections, or paths such as graph.z and train.batch."""
    parts: dict[str, Schema] = {}
    for name, section in sections.items():
        inner = section.get("additionalProperties")
        if isinstance(inner, dict):
            parts[f"^{name}\\.[A-Za-z_][A-Za-z0-9_]*$"] = inner
        for key, known in section.get("properties", {}).items():
            parts[f"^{name}\\.{key}$"] = known
    whole = {name: section for name, section in sections.items() if section.get("type") in ("object", "array")}
    return {
        "edits": {
            "type": "object",
            "description": "Paths and what stands there, as graph.z: x |> linear(d).",
            "properties": whole,
            "patternProperties": parts,
            "propertyNames": DOTTED,
        }
    }


# ---- data and train -------------------------------------------------------------------------------------------------


def _call(settings: Catalogue, role: str) -> Schema:
    known = [d for d in settings.ops.values() if d.role == role]
    return _text(
        "\n\n".join(f"{d}\n{d.doc}" for d in known),
        pattern=f"^ *({'|'.join(d.name for d in known)})( *\\(|$)",
    )


def _train(settings: Catalogue) -> Schema:
    number = {"type": ["number", "string"], "maxLength": MAX_LENGTH}
    rate = {**number, "description": "The learning rate: a number, or an expression of step."}
    group = record({"lr": rate, "weight_decay": number}, "What differs for a group.")
    form = settings.ops["train"]
    calls = {d.role for d in settings.ops.values()} - {"source", "run"}
    keys: dict[str, Schema] = {
        **{key: {"description": "Reserved."} for key in LATER},
        **{role: _call(settings, role) for role in sorted(calls)},
        "lr": rate,
        "groups": _named(group, "By the tag of weights (ssm, norm, bias) or the name of a value.", DOTTED),
        "crop": _named({"type": ["integer", "string"]}, "The length of an axis in training, as {T: 8192}."),
        **{p.name: parameter(p, form) for p in form.parameters},
    }
    return record(keys, form.doc)
