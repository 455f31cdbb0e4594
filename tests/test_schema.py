"""The JSON Schema: sound itself, true of every shipped spec, never stale, safe to check by, and sharp on mistakes."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import yaml

from graphspec.__main__ import main
from graphspec.cli.load import shipped
from graphspec.cli.schema_command import schema_text
from graphspec.compiler.resolve import LIBRARY_SECTIONS, SECTIONS
from graphspec.declare import Catalogue
from graphspec.document import Mapping, Node, Scalar
from graphspec.ops import catalogue
from graphspec.reader import read_file
from graphspec.runtime.declared import settings
from graphspec.schema import LIBRARY

FILE = shipped() / "graphspec-1.schema.json"
SPECS = sorted(shipped().rglob("*.yaml"))


@cache
def validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(schema_text()), registry=referencing.Registry())


def mistakes(document: Any) -> list[str]:
    return [f"{e.json_path}: {e.message}" for e in validator().iter_errors(document)]


def plain(node: Node) -> Any:
    """A spec as YAML 1.2 reads it (PyYAML's own reading is 1.1's: 1e-3 is a text to it)."""
    if isinstance(node, Mapping):
        return {key.text: plain(value) for key, value in node.items()}
    if isinstance(node, Scalar):
        return node.value
    return [plain(item) for item in node.items]


def everything(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside the schema."""
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from everything(inner)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


def test_the_shipped_file_is_the_schema_of_now() -> None:
    assert FILE.is_file() and FILE.read_text(encoding="utf-8") == schema_text(), (
        f"the ops or settings have changed since it was made: graphspec schema --out {FILE}"
    )


@pytest.mark.parametrize("path", SPECS, ids=lambda p: str(p.relative_to(shipped())))
def test_every_shipped_spec_fits_and_names_the_schema(path: Path) -> None:
    assert mistakes(plain(read_file(path).root)) == []
    assert mistakes(yaml.safe_load(path.read_text(encoding="utf-8"))) == []
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    up = "../" * (len(path.relative_to(shipped()).parts) - 1)
    assert first == f"# yaml-language-server: $schema={up}{FILE.name}", (
        f"the first line tells editors the schema: # yaml-language-server: $schema={up}{FILE.name}"
    )


def test_it_is_safe_to_check_by() -> None:
    """No remote reference, no oneOf, no uniqueItems, and patterns in which nothing is repeated inside a repetition."""
    for part in everything(json.loads(schema_text())):
        assert not {"oneOf", "uniqueItems", "$dynamicRef"} & set(part)
        if isinstance(part.get("$ref"), str):
            assert part["$ref"].startswith("#/$defs/")
        if isinstance(part.get("pattern"), str):
            assert re.fullmatch(r"\^.*(\$|\|\$\))", part["pattern"]) and "maxLength" in part
        for pattern in [part.get("pattern"), *part.get("patternProperties", {})]:
            if isinstance(pattern, str):
                assert not re.search(r"\)[*+{]|\\Z|\(\?|\[[^]]*\][*+]\[[^]]*\][*+]", pattern), pattern


def test_hostile_documents_are_answered_soon() -> None:
    started = time.process_time()
    document = {"graphspec": 1, "model": "m" * 60, "graph": {f"v{i}": {"op": "conv", "in": "x"} for i in range(300)}}
    assert len(mistakes(document)) == 300
    assert mistakes({"graphspec": 1, "model": "a" * 50_000 + "!"}) and mistakes({"_" * 50_000: 1})
    assert mistakes({"graphspec": 1, "model": "m", "override": {"a." * 20_000 + "!": 1}})
    assert time.process_time() - started < 10


def test_its_sections_are_the_language_s() -> None:
    root = json.loads(schema_text())
    assert set(root["properties"]) == set(SECTIONS)
    assert set(LIBRARY) == LIBRARY_SECTIONS


def test_every_op_is_there_with_its_words() -> None:
    defined = json.loads(schema_text())["$defs"]
    for op in catalogue().ops.values():
        if op.of or not op.signature:
            continue
        form = defined[f"op.{op.name}"]
        assert op.summary in form["description"] and not form["additionalProperties"] or op.parts
        for p in op.parameters:
            assert p.name in form["properties"] and (p.name in form["required"]) == p.required
    conv = defined["op.conv"]
    assert conv["properties"]["k"]["default"] == 3 and conv["properties"]["k"]["minimum"] == 1
    assert {"enum": ["linear", "mu_law"]} in defined["op.quantise"]["properties"]["law"]["anyOf"]
    assert set(defined["call"]["properties"]["op"]["enum"]) == {n.removeprefix("op.") for n in defined if "op." in n}


def spec(**sections: Any) -> dict[str, Any]:
    return {"graphspec": 1, "model": "m", **sections}


# What the language has, section by section, built or being built.
FITTING = """
graph:
  h: x |> f
  g: 3
  b: true
  y: {is: x, type: f32, when: deep, doc: a value, freeze: true, dtype: f32}
---
graph:
  a: {op: conv, in: x, units: 2 * d, k: 3, freeze: true}
  b: {op: conv, in: [x], units: 4}
  c: {op: conv, in: {x: a}, units: 4}
  d: {op: cat, in: [a, b, c]}
  e: {op: add, in: [a, 1]}
  f: {op: draw, in: dist, temperature: tau, top_k: 5}
  g: {op: split, in: x, scale: 4, shift: d}
---
params:
  a: 1
  b: [[8, 16], [16, 32]]
  c: 2 * a
  n: null
  backbone: {choose: gru, from: {gru: gru(width), none: identity}}
---
inputs:
  x: float[T, 1] @ 8000
  y: {type: f32, default: 1.0, before: 0, pad: 0, cache: true, when: given}
---
extends: base.yaml
params: {d: 3}
override: {graph.z: {is: x}, train.batch: 4, inputs.y: f32}
add: {params.k: 3, causal: {out: {f0: hop}}, entries.e: {from: [x]}, sample.from: [label]}
remove: [losses.kl]
moved: {graph.a: graph.b}
---
shared: {tables: list(embed(d) for i in range(3))}
eval: {tau: 1/16, cb.out: x}
cells:
  u: {per: update, type: f32, init: 1 / k, next: 0.9 * u}
---
losses:
  a: mse
  b: {is: kl, weight: beta, mask: x != 0, when: kl}
metrics: {c: a / 2}
outputs: [y, h]
---
entries:
  e: {from: [x], set: {cb.out: x}, to: [y]}
sample:
  iterate: {over: {n: ns}, start: {x: normal()}, next: {x: draw(p)}}
  to: [x]
---
causal: {a: strict, b: 0, c: {f0: hop, x: strict}}
require: [T % 4 == 0, {is: T == N * hop, when: mels > 0}]
---
data: {x: corpus, y: audio_folder("d")}
train:
  optimizer: adamw(eps=1e-7)
  lr: 1e-3
  steps: 10
  crop: {T: 64}
  groups: {ssm: {lr: 1}}
---
blocks:
  b:
    params: {n: int, k: 3}
    in: x
    out: x
  c:
    in: {x: any, y: {type: any, optional: true}}
    cells: {u: {next: x}}
    graph: {h: x + y}
    out: {x: x, skip: h}
"""


@pytest.mark.parametrize("sections", list(yaml.safe_load_all(FITTING)), ids=lambda sections: "-".join(sections))
def test_the_language_fits(sections: dict[str, Any]) -> None:
    assert mistakes(spec(**sections)) == []
    if set(sections) <= set(LIBRARY):
        assert mistakes({"graphspec": 1, "library": "l", **sections}) == []


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (spec(graph={"h": {"op": "cnov", "in": "x"}}), "$.graph.h.op", "'cnov' is not one of"),
        (spec(graph={"h": {"op": "conv", "in": "x", "units": 4, "kernel": 3}}), "$.graph.h", "'kernel' was unexpected"),
        (spec(graph={"h": {"op": "conv", "in": "x"}}), "$.graph.h", "'units' is a required property"),
        (spec(graph={"h": {"op": "conv", "in": "x", "units": 0}}), "$.graph.h.units", "less than the minimum"),
        (spec(graph={"h": {"op": "conv", "in": "x", "units": True}}), "$.graph.h.units", "not of type"),
        (spec(graph={"h": {"op": "conv", "in": ["x", "y"], "units": 4}}), "$.graph.h.in", "too long"),
        (spec(graph={"h": {"op": "conv", "units": 4}}), "$.graph.h", "'in' is a required property"),
        (spec(graph={"h": {"wen": "x", "is": "x"}}), "$.graph.h", "'wen' was unexpected"),
        (spec(graph={"h": ["x"]}), "$.graph.h", "not of type"),
        (spec(graph={"a b": "x"}), "$.graph", "does not match"),
        (spec(inputs={"x": {"typ": "f32"}}), "$.inputs.x", "'typ' was unexpected"),
        (spec(grpah={}), "$", "'grpah' was unexpected"),
        (spec(train={"bach": 3}), "$.train", "'bach' was unexpected"),
        (spec(train={"optimizer": "adma()"}), "$.train.optimizer", "does not match"),
        (spec(data={"x": "audio_foldr('x')"}), "$.data.x", "does not match"),
        (spec(override={"graph.h": {"op": "conv"}}), "$.override['graph.h']", "'units' is a required property"),
        (spec(cells={"u": {"per": "step", "next": "u"}}), "$.cells.u.per", "'step' is not one of"),
        ({"model": "m"}, "$", "'graphspec' is a required property"),
        ({"graphspec": 2, "model": "m"}, "$.graphspec", "1 was expected"),
        ({"graphspec": 1}, "$", "'model' is a required property"),
        ({"graphspec": 1, "library": "l", "graph": {}}, "$", "'graph' is not one of"),
        (spec(sample={"feeds": {}}), "$.sample", "'feeds' was unexpected"),
    ],
)
def test_a_mistake_is_blamed_once_and_in_its_place(document: dict[str, Any], path: str, words: str) -> None:
    found = mistakes(document)
    assert any(m.startswith(f"{path}: ") and words in m for m in found), found
    assert len(found) <= 2


def test_it_is_made_from_what_is_handed_in() -> None:
    """The language does not know the ops: without them there is no long form, and nothing of them is loaded."""
    from graphspec.schema import schema

    made = schema(Catalogue([]), settings())
    assert not [n for n in made["$defs"] if n.startswith("op.")]
    script = (
        "import sys, graphspec.schema; print(sorted(m for m in sys.modules if m == 'torch' or m.startswith("
        "('graphspec.ops', 'graphspec.compiler', 'graphspec.runtime'))))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == schema_text()
    assert main(["schema", "--out", str(tmp_path / "s.json")]) == 0
    assert (tmp_path / "s.json").read_text() == schema_text()
    assert main(["schema", "--out", str(tmp_path / "none" / "s.json")]) == 1
    assert "error[GS0622]" in capsys.readouterr().err
    script = "import sys; from graphspec.__main__ import main; main(['schema']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert importlib.util.find_spec("torch") is not None
