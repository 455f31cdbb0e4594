"""Specs that extend others: what comes of it, where errors are told, and that `resolve` writes down the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphspec.__main__ import main
from graphspec.cli.load import check_document, check_spec, shipped
from graphspec.compiler.pipeline import Checked
from graphspec.diagnostic import Findings, SpecError
from graphspec.ops import catalogue
from graphspec.reader import read_file, read_text
from graphspec.yaml_text import yaml_text

SKETCHES = Path(__file__).with_name("sketches")

BASE = """\
graphspec: 1
model: base
params:
  width: 8
  name: "x"
  body:
    choose: a
    from:
      a: linear(width)
      b: gru(width)
inputs:
  audio: float[T, 1] @ 16000
graph:
  h: audio |> body
  y:
    is: h |> linear(1)
    doc: out
losses:
  l: mean((y - audio)**2)
outputs: [y]
train:
  optimizer: adam()
  lr: 1e-3
  batch: 2
  steps: 10
  crop: {T: 64}
"""
HEAD = "graphspec: 1\nmodel: m\nextends: base.yaml\n"


def written(folder: Path, **files: str) -> str:
    """The files in the folder; the path of m.yaml."""
    for name, text in {"base": BASE, **files}.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder / "m.yaml")


def told(path: str, *overrides: str) -> list[str]:
    """`code file:line`, errors before anything else is looked at."""
    findings = Findings()
    try:
        check_spec(path, overrides, findings)
        found = findings.all()
    except SpecError as error:
        found = list(error.diagnostics)
    return [f"{d.code} {Path(d.span.source.path).name}:{d.span.line}" if d.span else d.code for d in found]


def checked(folder: Path, body: str, *overrides: str, **more: str) -> Checked:
    return check_spec(written(folder, m=HEAD + body, **more), overrides)


def ops(made: Checked) -> list[str]:
    return [v.op.name for v in made.graph.values if v.op]


# ---- what comes of it ----------------------------------------------------------------------------------------------


def test_a_block_of_a_library_that_is_not_used_is_named(tmp_path):
    with pytest.raises(SpecError) as caught:
        check_spec(str(written(tmp_path, m=BASE.replace("gru(width)", "one_pole(0.9)"))), ())
    (d,) = caught.value.diagnostics
    assert d.code == "GS0202" and "did you mean" not in d.message
    assert [f.title for f in d.fixes] == ["it is a block of std/filters: use: [std/filters]"]


def test_nothing_changed_is_the_base(tmp_path: Path) -> None:
    made = checked(tmp_path, "")
    assert made.spec.name == "m" and made.graph.text() == check_spec(str(tmp_path / "base.yaml")).graph.text()


def test_params_and_choices_are_set(tmp_path: Path) -> None:
    made = checked(tmp_path, "params: {width: 2*2, body: b}\n")
    assert made.graph.params["width"] == 4
    assert ops(made)[:2] == ["gru", "linear"]
    assert ops(checked(tmp_path, "params:\n  body: {choose: q, from: {q: tanh}}\n"))[0] == "tanh"
    assert ops(checked(tmp_path, "override: {params.body.from.a: tanh}\n"))[0] == "tanh"


def test_the_order_is_params_remove_override_add(tmp_path: Path) -> None:
    body = """\
add: {graph.y: h |> tanh |> linear(1), metrics.loud: mean(y)}
override: {graph.h: audio |> conv(width)}
remove: [graph.y]
params: {width: 3}
"""
    made = checked(tmp_path, body)
    assert ops(made)[:3] == ["conv", "tanh", "linear"]
    assert [m.name for m in made.graph.metrics] == ["loud"]
    assert [c.deed for c in made.spec.history.changes] == ["set", "removed", "overridden", "added", "added"]


def test_paths_reach_into_entries(tmp_path: Path) -> None:
    made = checked(tmp_path, "override: {graph.y.is: audio |> linear(1), train.crop.T: 32}\nremove: [graph.h]\n")
    assert ops(made)[0] == "linear" and made.settings.crop == {"T": 32}
    assert "doc: out" in yaml_text(made.spec.document)


def test_a_section_may_be_added_and_removed(tmp_path: Path) -> None:
    made = checked(tmp_path, "add:\n  causal: {y: 0}\nremove: [losses, train]\n")
    assert [a.name for a in made.graph.assertions] == ["y"] and made.graph.losses == ()


def test_a_key_may_hold_dots(tmp_path: Path) -> None:
    more = BASE + "eval: {y: h |> mean_of, two.a: 0 * two.a2}\n"
    body = "override: {eval.two.a: two.b}\nremove: [eval.y]\n"
    base = more.replace("two.a2", "two.b").replace("outputs: [y]", "outputs: [y, two.a]")
    base = base.replace("losses:", "  two: audio |> linear(2) |> split(a=1, b=1)\nlosses:")
    made = checked(tmp_path, body, base=base)
    assert made.graph.evaluation is not None
    assert made.graph.evaluation.outputs["two.a"].part == "b"


def test_libraries_add_up(tmp_path: Path) -> None:
    base = BASE + "use: [std/core]\n"
    made = checked(
        tmp_path, "use: [std/core, std/sashimi]\noverride: {graph.h: audio |> linear(4) |> ff_res}\n", base=base
    )
    assert set(made.spec.home.libraries) == {"core", "sashimi"}


def test_a_chain_of_three_and_relative_paths(tmp_path: Path) -> None:
    mid = HEAD.replace("base.yaml", "inner/base") + "params: {width: 6}\nadd: {graph.z: y * 2, params.k: 3}\n"
    last = "graphspec: 1\nmodel: m\nextends: sub/mid.yaml\nparams: {width: 5, k: 4}\noverride: {graph.z: y * k}\n"
    path = written(tmp_path, **{"sub/mid": mid, "sub/inner/base": BASE, "m": last})
    made = check_spec(path, ["k=7"])
    assert made.graph.params["width"] == 5 and made.graph.params["k"] == 7
    assert [Path(b).name for b in made.spec.history.bases] == ["base.yaml", "mid.yaml"]


def test_a_shipped_spec_by_its_name(tmp_path: Path) -> None:
    small = "graphspec: 1\nmodel: m\nextends: sashimi\nparams: {depth: 1}\n"
    made = check_spec(written(tmp_path, m=small))
    assert made.graph.text() == check_spec("sashimi", ["depth=1"]).graph.text()
    near = "graphspec: 1\nmodel: m\nextends: sashimi\n"
    assert check_spec(written(tmp_path, m=near, sashimi=BASE)).graph.params["width"] == 8, "a file beside it is nearer"


def test_what_moved_is_followed(tmp_path: Path) -> None:
    base = BASE + "moved: {graph.out: graph.y, params.size: params.width}\n"
    path = written(
        tmp_path, m=HEAD + "params: {size: 3}\noverride: {graph.out.is: h |> linear(1) |> tanh}\n", base=base
    )
    assert told(path) == ["GS0514 m.yaml:4", "GS0514 m.yaml:5"]
    made = check_spec(path)
    assert made.graph.params["width"] == 3 and "tanh" in ops(made)
    assert "GS0514 <command line> graph.out.is=:1" in told(path, "graph.out.is=audio |> linear(1)")


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    made = checked(
        tmp_path, "params: {width: 4, body: b}\noverride: {train.lr: 1e-4}\n", "width=9", "body=a", "train.lr=3"
    )
    assert made.graph.params["width"] == 9 and ops(made)[0] == "linear" and made.settings.lr.at(0) == 3


# ---- what is refused -----------------------------------------------------------------------------------------------

WRONG = {
    "params: {widht: 4}": "GS0512 m.yaml:4",
    "params: {body: z}": "GS0515 m.yaml:4",
    "params: {width: 'text'}": "GS0212 m.yaml:4",
    "params: {width: [1]}": "GS0212 m.yaml:4",
    "params: {width: 2.5}": "GS0212 m.yaml:4",
    "params: [1]": "GS0133 m.yaml:4",
    "override: {graph.yy: tanh(h)}": "GS0512 m.yaml:4",
    "override: {graph.y.is.x: h}": "GS0512 m.yaml:4",
    "override: {graph..y: h}": "GS0512 m.yaml:4",
    "override: {.y: h}": "GS0512 m.yaml:4",
    "override: {y: h}": "GS0512 m.yaml:4",
    "override: 3": "GS0133 m.yaml:4",
    "override: {graphspec: 2}": "GS0131 m.yaml:4",
    "override: {graph.y: h, graph.y: audio}": "GS0101 m.yaml:4",
    "add: {graph.y: h}": "GS0513 m.yaml:4",
    "add: {graph: {z: h}}": "GS0513 m.yaml:4",
    "add: {graph.h.when: true}": "GS0512 m.yaml:4",
    "add: {outputs.0: h}": "GS0512 m.yaml:4",
    "add: {garph.z: h}": "GS0130 m.yaml:4",
    "add: {params.audio: 3}": "GS0224 base.yaml:12",
    "add: {params.train: 3}": "GS0214 m.yaml:4",
    "remove: [graph.q]": "GS0512 m.yaml:4",
    "remove: graph.y": "GS0133 m.yaml:4",
    "remove: [[graph.y]]": "GS0133 m.yaml:4",
    "remove: [graph.y]\noverride: {graph.y: h}": "GS0512 m.yaml:5",
    "remove: [params.width]": "GS0201 base.yaml:9",
    "moved: [1]": "GS0133 m.yaml:4",
    "moved: {a: [1]}": "GS0133 m.yaml:4",
    "graph: {y: audio}": "GS0511 m.yaml:4",
    "override: {graph.h: audio |> lienar(3)}": "GS0202 m.yaml:4",
    "override: {graph.h: audio |> linear(0)}": "GS0305 m.yaml:4",
    "params: {width: 0}": "GS0305 base.yaml:9",
}


@pytest.mark.parametrize("body", WRONG)
def test_a_wrong_change_is_told_where_it_stands(tmp_path: Path, body: str) -> None:
    assert told(written(tmp_path, m=HEAD + body + "\n"))[0] == WRONG[body]


def test_every_wrong_change_is_told(tmp_path: Path) -> None:
    body = "params: {a: 1}\nremove: [graph.b]\noverride: {graph.c: h}\nadd: {graph.y: h}\ngraph: {z: h}\n"
    found = told(written(tmp_path, m=HEAD + body))
    assert sorted(found) == [f"GS05{n} m.yaml:{i}" for n, i in [(11, 8), (12, 4), (12, 5), (12, 6), (13, 7)]]


def test_empty_sections_change_nothing(tmp_path: Path) -> None:
    assert checked(tmp_path, "params:\nremove:\noverride:\nadd:\nmoved:\n").graph.params["width"] == 8


@pytest.mark.parametrize("key", ["override: {a.b: 1}", "add: {a.b: 1}", "remove: [a.b]"])
def test_changes_need_something_to_change(tmp_path: Path, key: str) -> None:
    assert told(written(tmp_path, m=BASE + key + "\n")) == ["GS0511 m.yaml:27"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nope.yaml", "GS0510"),
        ("../base.yaml", "GS0510"),
        ("sub/../base.yaml", "GS0510"),
        ("/etc/passwd", "GS0510"),
        ("C:base", "GS0510"),
        ("sub", "GS0510"),
        ("lib", "GS0510"),
        ("m.yaml", "GS0510"),
        ("[base.yaml]", "GS0133"),
        ("{a: 1}", "GS0133"),
        ("3", "GS0133"),
        ("", "GS0133"),
        ('""', "GS0133"),
    ],
)
def test_a_base_that_cannot_be(tmp_path: Path, name: str, code: str) -> None:
    text = f"graphspec: 1\nmodel: m\nextends: {name}\n"
    assert told(written(tmp_path, m=text, lib="graphspec: 1\nlibrary: lib\n", **{"sub/x": BASE})) == [
        f"{code} m.yaml:3"
    ]


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    written(outside)
    inside = tmp_path / "inside"
    path = written(inside, m=HEAD.replace("base.yaml", "link.yaml"))
    (inside / "link.yaml").symlink_to(outside / "base.yaml")
    assert told(path) == ["GS0510 m.yaml:3"]
    (inside / "folder").symlink_to(outside)
    assert told(written(inside, m=HEAD.replace("base.yaml", "folder/base.yaml"))) == ["GS0510 m.yaml:3"]
    (inside / "near.yaml").symlink_to(inside / "base.yaml")
    assert told(written(inside, m=HEAD.replace("base.yaml", "near.yaml"))) == []


def test_circles_and_depth(tmp_path: Path) -> None:
    other = "graphspec: 1\nmodel: b\nextends: m.yaml\n"
    assert told(written(tmp_path, m=HEAD, base=other)) == ["GS0510 m.yaml:3"]
    chain = {f"c{i}": HEAD.replace("base", f"c{i + 1}") for i in range(20)}
    assert told(written(tmp_path, m=HEAD.replace("base", "c10"), **{**chain, "c20": BASE})) == []
    assert told(written(tmp_path, m=HEAD.replace("base", "c0"), **{**chain, "c20": BASE})) == ["GS0510 c15.yaml:3"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("linear(1)", "linaer(1)", ["GS0202 base.yaml:16"]),
        ("graphspec: 1\n", "", ["GS0131 base.yaml:1"]),
        ("graphspec: 1\n", "graphspec: 2\n", ["GS0131 base.yaml:1"]),
        ("doc: out", "doc: [out", ["GS0114 base.yaml:17"]),
        ("mean((y", "mean((q", ["GS0201 base.yaml:19"]),
        ("lr: 1e-3", "lr: x", ["GS0201 base.yaml:23"]),
    ],
)
def test_a_fault_of_the_base_is_told_there(tmp_path: Path, old: str, new: str, found: list[str]) -> None:
    assert told(written(tmp_path, m=HEAD, base=BASE.replace(old, new))) == found


def test_a_broken_base_may_be_mended(tmp_path: Path) -> None:
    made = checked(tmp_path, "override: {graph.y: h |> linear(1)}\n", base=BASE.replace("h |> linear(1)", "h |> nope"))
    assert ops(made)[:2] == ["linear", "linear"]


# ---- choices -------------------------------------------------------------------------------------------------------


def test_all_options_are_checked_for_names_only(tmp_path: Path) -> None:
    assert told(written(tmp_path, m=BASE.replace("gru(width)", "gur(width)"))) == ["GS0202 m.yaml:10"]
    strange = written(tmp_path, m=BASE.replace("gru(width)", "linear(width) |> unfold(3)"))
    assert told(strange) == []
    assert told(strange, "body=b") == ["GS0310 m.yaml:10"]
    assert told(strange, "body=c") == ["GS0515 <command line> body=:1"]


def test_lint_all_choices_types_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = BASE.replace("gru(width)", "linear(width) |> unfold(3)\n      c: conv(0)\n      d: tanh")
    path = written(tmp_path, m=text)
    assert main(["lint", path]) == 0
    capsys.readouterr()
    assert main(["lint", path, "--all-choices", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    found = found if isinstance(found, list) else found["diagnostics"]
    assert [(d["code"], d["notes"][-1]) for d in found] == [("GS0310", "with body=b"), ("GS0305", "with body=c")]
    path = written(tmp_path, m=BASE)
    assert main(["lint", path, "--all-choices"]) == 0
    assert "1 other option checked" in capsys.readouterr().out
    broken = written(tmp_path, m=BASE.replace("linear(1)", "linear(0)"))
    assert main(["lint", broken, "--all-choices", "--format", "github"]) == 1
    assert capsys.readouterr().out.count("title=GS0305") == 1, "what is wrong with every option is told once"


# ---- resolve -------------------------------------------------------------------------------------------------------


def resolved(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["resolve", *words]) == 0
    return capsys.readouterr().out


def test_resolve_writes_what_the_command_line_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, m=HEAD + "params: {width: 6}\n")
    text = resolved(capsys, path, "width=2*5", "body=b", "name=a b", "train.lr=2")
    again = check_document(read_text("again", text), tmp_path)
    assert again.graph.params == {"width": 10, "name": "a b"} and ops(again)[0] == "gru"
    assert again.settings.lr.at(0) == 2


def test_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mid = HEAD + "params: {width: 6}\nadd: {graph.z: y * 2}\n"
    path = written(tmp_path, mid=mid, m=HEAD.replace("base", "mid") + "params: {width: 5}\nremove: [graph.z]\n")
    lines = resolved(capsys, path, "--why", "width", "width=9").splitlines()
    assert lines[0] == "width = 9"
    assert [" ".join(line.split()[:2]) for line in lines[1:]] == ["set at", "set at", "set at", "declared at"]
    assert lines[1].split()[2].startswith("<command") and "mid.yaml:4:17: 6" in lines[3] and "base.yaml:4:3" in lines[4]
    gone = resolved(capsys, path, "--why", "graph.z").splitlines()
    assert gone[0] == "graph.z is not there any more" and "removed" in gone[1] and "added" in gone[2]
    assert "body = b" in resolved(capsys, path, "body=b", "--why", "body")
    assert "declared at" in resolved(capsys, path, "--why", "train.lr")
    assert main(["resolve", path, "--why", "grahp.y"]) == 1
    assert "did you mean 'graph.y'" in capsys.readouterr().err


ALL = [*sorted(shipped().glob("*.yaml")), *sorted(SKETCHES.glob("*.yaml"))]


@pytest.mark.parametrize("path", ALL, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_what_resolve_writes_is_the_same_model(path: Path) -> None:
    def made(text: str | None) -> str | list[str]:
        document = read_file(path) if text is None else read_text("again", text)
        try:
            return check_document(document, path.parent).graph.text()
        except SpecError as error:
            return sorted(d.message for d in error.diagnostics)

    try:
        from graphspec.cli.load import Files
        from graphspec.compiler.resolve import resolve

        spec = resolve(read_file(path), Files(path.parent))
    except SpecError as error:
        pytest.fail(str(error))
    assert made(yaml_text(spec.document)) == made(None)


# ---- the long form -------------------------------------------------------------------------------------------------


def long_form(example: str) -> str | None:
    """`x |> conv(64, k=5)` as `{op: conv, in: x, units: 64, k: 5}`, where the call is as simple as that."""
    from graphspec.expression import Argument, Call, Name, Pipe, parse_free

    expr = parse_free(example)
    stage: Any = expr.stage if isinstance(expr, Pipe) else expr
    if isinstance(stage, Name):
        stage = Call(stage.span, False, stage, ())
    if not isinstance(stage, Call) or not isinstance(stage.function, Name):
        return None
    op = catalogue().ops.get(stage.function.name)
    if op is None or not all(isinstance(a, Argument) for a in stage.arguments):
        return None
    slots = [d for d in op.parsed.operands if not d.optional]
    places = [a.value.span.text for a in stage.arguments if not a.name]  # type: ignore[union-attr]
    given = [expr.value.span.text] if isinstance(expr, Pipe) else []
    variadic = bool(slots) and slots[-1].variadic
    more = len(places) if variadic else max(0, len(slots) - len(given))
    given, values = given + places[:more], places[more:]
    names = [p.name for p in op.parameters]
    told = [f"{n}: {v}" for n, v in zip(names, values, strict=False)]
    told += [f"{a.name}: {a.value.span.text}" for a in stage.arguments if a.name]  # type: ignore[union-attr]
    lines = [f"op: {op.name}", *([f"in: [{', '.join(given)}]"] if given else []), *told]
    if any(set(line) & set("()|\"'#") for line in lines):
        return None
    return "{" + ", ".join(lines) + "}"


LONG = {n: form for n, op in catalogue().ops.items() if op.example and (form := long_form(op.example))}


def test_most_examples_have_a_long_form() -> None:
    assert len(LONG) > len(catalogue().ops) / 3


@pytest.mark.parametrize("name", LONG)
def test_the_long_form_is_the_same_graph(name: str) -> None:
    from test_contract import spec_of

    op = catalogue().ops[name]
    short = spec_of(op.example, op, fields=[])
    assert short.count(f"y: {op.example}") == 1
    long = short.replace(f"y: {op.example}", f"y: {LONG[name]}")
    made = [check_document(read_text("y", text), Path(__file__).parent).graph.text() for text in (short, long)]
    assert made[0] == made[1]
