"""The whole catalogue keeps the contract (tests/contract.py), random pipelines of it do, and planted faults are caught."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from contract import verify_contract
from graphspec.compiler.lower import lower
from graphspec.compiler.pipeline import Checked
from graphspec.ops import catalogue

from graphspec.cli.load import check_document
from graphspec.declare import Declaration
from graphspec.diagnostic import SpecError
from graphspec.expression import parse_free, read_names
from graphspec.reader import read_text

torch.set_num_threads(1)

OPS = catalogue().ops
DIMS = {"c": 16}  # what examples may name
TYPES = {
    "float": "float[T, 16] @ 100",
    "bool": "bool[T, 16] @ 100",
    "int": "{type: 'int(16)[T, 16] @ 100', before: 8}",
}
EVENT = {"categorical": "int(5)[T, 1] @ 100"}  # what `x |> categorical(5)` is over

# The example shows an op; these reach the corners of its parameters.
USAGES = {
    "add": ["a + 1", "a + knob", "a + row", "1 + a"],
    "cat": ["cat(a, b, a)"],
    "categorical": ["x |> categorical(5, channels=3)"],
    "clamp": ["x |> clamp", "x |> clamp(low=0.2)"],
    "conv": ["x |> conv(3, k=3, dilation=4)", "x |> conv(3, k=1, bias=false)", "x |> conv(2, k=2, dilation=40)"],
    "div": ["a / knob", "1 / a"],
    "draw": ["draw(d)", "draw(d, top_k=2)", "draw(d, temperature=knob, top_p=knob)"],
    "dropout": ["x |> dropout(0.0)", "x |> dropout(0.6)"],
    "fold": ["x |> fold(3)", "x |> fold(1)", "x |> fold(2) |> fold(3)", "x |> fold(4) |> shift(1) |> unfold(4)"],
    "layer_norm": ["x |> layer_norm(eps=1e-3, affine=false)"],
    "linear": ["x |> linear(3, bias=false)"],
    "max": ["max(x, axis=-1)"],
    "maximum": ["maximum(a, knob)", "maximum(a, 0.5)", "maximum(row, a)"],
    "mean": ["mean(x, axis=-1)"],
    "pow": ["a ** b", "2 ** a"],
    "quantise": ["x |> quantise(3)", "x |> quantise(16)"],
    "s4d": ["x |> s4d(4, init=real, disc=bilinear)", "x |> s4d(6, init=inv, dt_min=0.01, dt_max=1.0)"],
    "shift": ["x[t-3]", "x |> shift(0)", "x |> shift(30)", "x |> shift(2, before=1)", "x |> take(1) |> shift(2)"],
    "split": ["x |> split(first=1, rest=15)"],
    "sum": ["sum(x, axis=-1)"],
    "take": ["x |> take(3, count=5)"],
    "unfold": ["x |> unfold(2)", "x |> unfold(16) |> fold(4)"],
    "where": ["where(mask, a, b)", "where(mask, 1.5, 0)", "where(mask, a, knob)"],
}
# Their whole form multiplies ticks outside the window by exact zeros: NaN spreads inside a chunk, huge numbers do not.
SPREADS_NAN = {"s4d"}


def spec_of(expression: str, declaration: Declaration, any_is: str = "float", fields: Iterable[str] = ()) -> str:
    """A spec whose value y is this use of the op; its operands become inputs of the types that the signature wants."""
    members = {c for p in declaration.parameters for c in p.choices}
    named = {n.name: None for n in read_names(parse_free(expression)) if n.name not in {*members, *DIMS}}
    declared = {o.name: o.type for o in declaration.parsed.operands}
    inputs, graph = {}, {"y": expression}
    for name in named:
        rule = declared.get(name, declaration.parsed.operands[0].type)
        kind = any_is if rule.name == "any" else rule.name
        if name in ("knob", "row"):  # static operands of elementwise ops
            inputs[name] = "f32" if name == "knob" else "float[16]"
        elif kind == "event":
            inputs[name] = EVENT["categorical"]
        elif kind == "dist" or kind in catalogue().meanings:
            inputs["h"], graph[name] = TYPES["float"], f"h |> {kind if kind != 'dist' else 'categorical'}(5)"
        else:
            inputs[name] = TYPES["bool" if name == "mask" else "float" if kind == "f32" else kind]
    lines = ["graphspec: 1", "model: contract", "params:", *(f"  {n}: {v}" for n, v in DIMS.items()), "inputs:"]
    lines += [f"  {n}: {t}" for n, t in inputs.items()]
    lines += ["require:", "  - T % 24 == 0", "graph:", *(f"  {n}: {e}" for n, e in graph.items())]
    return "\n".join([*lines, f"outputs: [{', '.join(fields)}]" if fields else ""]) + "\n"


def checked_use(expression: str, declaration: Declaration, any_is: str = "float") -> Checked:
    """That spec, checked, with y as its output: every field of it if it is a record."""
    path = Path(__file__).parent
    made = check_document(read_text("y.yaml", spec_of(expression, declaration, any_is)), path).graph.named["y"]
    fields = [f"y.{f}" for f in made] if isinstance(made, dict) else ["y"]
    return check_document(read_text("y.yaml", spec_of(expression, declaration, any_is, fields)), path)


def takes_any(declaration: Declaration) -> bool:
    return any(o.type.name == "any" for o in declaration.parsed.operands)


# ---- the catalogue -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPS)
def test_example_keeps_the_contract(name: str) -> None:
    declaration = OPS[name]
    assert declaration.example, f"{name} declares no example"
    checked = checked_use(declaration.example, declaration)
    verify_declaration(declaration, checked)
    verify_contract(checked, spreads_nan=name in SPREADS_NAN)


@pytest.mark.parametrize(("name", "use"), [(n, u) for n, uses in USAGES.items() for u in uses])
def test_use_keeps_the_contract(name: str, use: str) -> None:
    # Taken apart and put together again, an element reads less than its group: declared windows are then bounds.
    tight = "fold" not in use.replace("unfold", "") or "unfold" not in use
    verify_contract(checked_use(use, OPS[name]), tight=tight, spreads_nan=name in SPREADS_NAN)


@pytest.mark.parametrize("kind", ["int", "bool"])
@pytest.mark.parametrize("name", [n for n, d in OPS.items() if takes_any(d)])
def test_any_dtype_is_refused_or_keeps_the_contract(name: str, kind: str) -> None:
    declaration = OPS[name]
    try:
        checked = checked_use(declaration.example, declaration, kind)
    except SpecError:
        return
    verify_contract(checked)


def verify_declaration(op: Declaration, checked: Checked) -> None:
    """Documentation names what there is; tags name weights of the example's modules."""
    first = op.summary
    assert re.match(r"\S+ .*\S\.( |$)|\S+ .*[.:]$", first) and len(first) <= 120, f"docs: '{first}' is no sentence"
    for p in op.parameters:
        assert re.search(rf"\b{p.name}\b", op.doc), f"docs: parameter {p.name} of {op.name} is not described"
    for operand in op.parsed.operands:
        assert re.search(rf"\b{operand.name}\b", op.doc), f"docs: operand {operand.name} of {op.name} is not described"
    model = lower(checked)
    mine = [v for v in model.values if v.op is op]
    assert mine, f"docs: the example of {op.name} does not use it"
    for v in mine:
        leaves = {n for n, _ in model.modules_of[v].named_parameters()}
        tags = dict(op.tags or {})
        assert set(tags) <= leaves, f"tags: {op.name} tags {sorted(set(tags) - leaves)}, which are no weights"
        for leaf in leaves:
            assert f"`{leaf}`" in op.doc, f"docs: weight {leaf} of {op.name} is not described"
            told = model.tags()[f"{v.path}.{leaf}"]
            assert told == {v.path.split(".")[0], *([tags[leaf]] if leaf in tags else [])}, (
                f"tags: {v.path}.{leaf}: {told}"
            )
            assert leaf != "bias" or tags.get(leaf) == "bias", f"tags: {op.name}'s bias is not tagged so"
