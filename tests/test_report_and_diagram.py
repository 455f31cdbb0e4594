"""`graphspec draw` and `graphspec compile`: what they show is what the graph is, and no text of a spec breaks out."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphspec.__main__ import main
from graphspec.cli.load import check_spec
from graphspec.compiler import cost
from graphspec.compiler.diagram import dot, mermaid, parts
from graphspec.compiler.lower import meta
from graphspec.compiler.pipeline import Checked
from graphspec.compiler.report import files, graph_json, python, report

SMALL = ("depth=1", "d=8", "state=4")

# Names that are keywords of the formats, and a doc that tries to leave string, line, comment and label.
HOSTILE = r"""
graphspec: 1
model: hostile
doc: "a\"]; click n0 \"javascript:alert(1)\" %%{init: {}}%% <img src=x onerror=alert(1)>\nend }\u202e `x` #quot; \
  \"] -> evil [URL=\"x\"] \\ <b>&lt; \n# -*- coding: utf-16 -*-\nimport os\n\"\"\" + x\\"
params:
  text: "\"\"\" + __import__('os').system('id') \n"
  big: 1e308
inputs:
  end: float[T, 2] @ 8000
  style: float[T, 2] @ 8000
  N0: "float[M, 2] @ 4000"
require:
  - T == 2*M
graph:
  graph_: end + style
  subgraph: graph_
  click: end |> conv(3, k=5) |> shift(2)
  classDef: click |> fold(2) |> linear(3)
  x__import__: "click[t-1]"
  digraph: "classDef + (N0 |> linear(3))"
outputs: {a: classDef, b: end * 2}
"""

RECORDS = """
graphspec: 1
model: records
inputs:
  wave: float[T, 4] @ 16000
use: [std/core]
graph:
  both: wave |> pushing(linear(8))
  y: (both.x + (both.skip |> linear(8))) |> linear(4)
  cut: wave |> split(a=1, b=3)
  late: y[t-3]
  mixed: y + y[t-1]
causal:
  late: strict
"""

_MERMAID_NODE = re.compile(r'n\d+(\["[^"]*"\]|\(\["[^"]*"\]\)|\[/"[^"]*"/\]|\{\{"[^"]*"\}\}|\[\["[^"]*"\]\]):::rate\d+')
_MERMAID_LINE = re.compile(
    r'flowchart TD|%% [\w?. -]+|subgraph s\d+\["[^"]*"\]|end|n\d+ (-->|-\.->|==>)(\|"[^"]*"\|)? n\d+'
    r"|classDef rate\d+ fill:#[0-9a-f]{6},stroke:#555,color:#111"
)
_QUOTED = r'"(?:[^"\\\n]|\\.)*"'
_ATTRIBUTES = rf"\[[a-z]+={_QUOTED}(?:, [a-z]+={_QUOTED})*\]"
_DOT_LINE = re.compile(
    rf"digraph graphspec {{|}}|(graph|node|edge) {_ATTRIBUTES};|n\d+ {_ATTRIBUTES};|n\d+ -> n\d+( {_ATTRIBUTES})?;"
    rf"|subgraph cluster_\d+ {{|label={_QUOTED}; color=\"#999999\";"
)


def spec(tmp_path: Path, text: str) -> Checked:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return check_spec(str(path))


@pytest.fixture(scope="module")
def small() -> Checked:
    return check_spec("sashimi_small", SMALL)


@pytest.fixture(scope="module")
def written(small: Checked) -> dict[str, str]:
    torch.set_num_threads(1)
    return dict(files(meta(small)))


def well_formed(checked: Checked, detail: str) -> None:
    for line in mermaid(checked.graph, checked.time, detail).splitlines():
        assert _MERMAID_NODE.fullmatch(line.strip()) or _MERMAID_LINE.fullmatch(line.strip()), line
    for line in dot(checked.graph, checked.time, detail).splitlines():
        assert _DOT_LINE.fullmatch(line.strip()), line


# ---- diagrams -------------------------------------------------------------------------------------------------------


def test_named_diagram_has_a_node_for_each_name_and_the_feed_loop(small: Checked) -> None:
    text = mermaid(small.graph, small.time)
    nodes = dict(re.findall(r'(n\d+)[\[({/]+"(.*?)<br/>', text))
    named = ["x0", "x1", "x2", "m", "y1", "y0", "dist"]
    assert list(nodes.values()) == [
        "input wave", "input temperature", "input top#95;p", *named, "loss nll", "drawn for wave",
    ]  # fmt: skip
    edges = {(nodes[a], arrow, nodes[b]) for a, arrow, b in re.findall(r"(n\d+) ([-=.>]+)(?:\|.*\|)? (n\d+)", text)}
    assert {(a, b) for a, arrow, b in edges if arrow == "-.->"} == {("input wave", "x0"), ("m", "y1"), ("y1", "y0")}
    assert {(a, b) for a, arrow, b in edges if arrow == "==>"} == {("drawn for wave", "input wave")}
    assert ("x1", "-->", "y1") in edges and ("dist", "-->", "loss nll") in edges
    assert "f32[T/16, 32] @ 1 kHz" in text and "wave [-inf, -1]" in text


def test_colour_is_rate(small: Checked) -> None:
    text = dot(small.graph, small.time)
    colours = dict(re.findall(r'label="(.*?)\\n.*?fillcolor="(.*?)"', text))
    assert colours["x0"] == colours["dist"] == colours["input wave"]
    assert len({colours["x0"], colours["x1"], colours["x2"], colours["input temperature"]}) == 4


@pytest.mark.parametrize("detail", ["named", "full"])
def test_shape_of_shipped_specs(small: Checked, detail: str) -> None:
    well_formed(small, detail)
    if detail == "full":
        assert dot(small.graph, small.time, "full").count("fillcolor=") == len(small.graph.values)


def test_every_needed_value_belongs_to_one_part(small: Checked) -> None:
    ops = [v for part in parts(small.graph) for v in part.ops]
    assert len(ops) == len(set(ops))
    targets = [t.value for t in small.graph.losses] + [f.drawn for f in small.graph.feeds]
    assert set(small.graph.needed_for(targets)) <= set(ops)


@pytest.mark.parametrize("detail", ["named", "full"])
def test_hostile_texts_stay_inside_their_labels(tmp_path: Path, detail: str) -> None:
    checked = spec(tmp_path, HOSTILE)
    well_formed(checked, detail)
    drawn = mermaid(checked.graph, checked.time, detail)
    assert "javascript:" not in drawn and "<img" not in drawn and "%%{" not in drawn
    labels = "".join(re.findall(r'"([^"]*)"', drawn)).replace("<br/>", "")
    assert not re.search(r"[<>\"'`:_*\\{}|&;#]", re.sub(r"#\d+;", "", labels))
    text = dot(checked.graph, checked.time, detail)
    assert all(char.isprintable() or char == "\n" for char in text)
    outside = re.sub(_QUOTED, '""', text)
    assert "URL" not in outside and "evil" not in outside and "javascript" not in outside


def test_records_aliases_and_delays(tmp_path: Path) -> None:
    checked = spec(tmp_path, RECORDS)
    well_formed(checked, "named")
    text = mermaid(checked.graph, checked.time)
    assert "2 values (x, skip)" in text and "2 values (a, b)" in text
    assert 'n2 -.->|"t-3"| n4' in text  # late reads the past of y only
    assert "n2 --> n5" in text  # mixed reads its present too


def test_nothing_to_draw(tmp_path: Path) -> None:
    checked = spec(tmp_path, "graphspec: 1\nmodel: none\n")
    well_formed(checked, "named")
    assert mermaid(checked.graph, checked.time).startswith("flowchart TD\n")


# ---- cost -----------------------------------------------------------------------------------------------------------


def test_flops_of_what_can_be_counted_by_hand(tmp_path: Path) -> None:
    text = """
graphspec: 1
model: hand
inputs:
  wave: float[T, 4] @ 100
require: [T % 8 == 0]
graph:
  y: wave |> fold(2) |> linear(5)
  z: y |> unfold(5)
outputs: [z]
"""
    checked = spec(tmp_path, text)
    counted = cost.whole(checked)
    assert counted.sizes == {"T": 104}  # the first multiple of 8 that is a second long
    assert sum(counted.flops.values()) == 2 * 52 * 8 * 5
    assert counted.bytes == 104 * 4 * 4 + 52 * 5 * 4  # fold copies; unfold to one channel is a view
    assert cost.weights(meta(checked), checked.graph.values) == 8 * 5 + 5


def test_lengths_follow_from_what_is_required(tmp_path: Path) -> None:
    checked = spec(tmp_path, HOSTILE)
    assert cost.crop_sizes(checked.graph, checked.settings) == {"T": 8000, "M": 4000}


# ---- the report and the files ---------------------------------------------------------------------------------------


def test_report_tells_what_the_model_is(small: Checked, written: dict[str, str]) -> None:
    text = written["report.txt"]
    total = sum(p.numel() for p in meta(small).parameters())
    assert f"weights: {total:,} in " in text
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "[-1, 14]" in rows["x2"] and "[-inf, -0.0625]" in rows["dist"]
    told = [line.split() for line in text.splitlines() if line.split()[:1] in (["x0"], ["x1"])]
    assert told[0][-1] == "2,048"  # embed [256, 8]: a gather, so no FLOPs
    assert "latency after wave: 0 samples" in text
    assert "proven: dist is strictly causal in wave (to the tick)" in text
    assert "a block of 16 ticks" in text and "1 kHz" in text and "in 1 of 16 ticks" in text
    assert "on the schedule" in text and "FFTs" in text


@pytest.mark.parametrize("form", ["whole", "step"])
def test_forms_are_python_with_their_names_told(small: Checked, written: dict[str, str], form: str) -> None:
    text = written[f"{form}.py"]
    tree = ast.parse(text)
    (function,) = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    told = {line.split()[1] for line in text.splitlines() if line.startswith("#   ")}
    assert {a.arg for a in function.args.args} - {"self"} <= told
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert used <= told
    assert "x1.down_pool.linear = linear(x1.down_pool.fold, units=16" in text


def test_graph_json_holds_the_graph_and_is_the_same_every_time(small: Checked, written: dict[str, str]) -> None:
    made = json.loads(written["graph.json"])
    assert made["format"] == "graphspec.graph" and made["version"] == 1
    assert [v["path"] for v in made["values"]] == [v.path for v in small.graph.values]
    seen: set[str] = set()
    for told, value in zip(made["values"], small.graph.values, strict=True):
        assert {o["value"] for o in told["operands"] if "value" in o} <= seen
        seen.add(told["path"])
        assert told["op"] == (value.op.name if value.op else None) and told["type"]["text"] == str(value.type)
        assert len(told["windows"]) == len(told["operands"]) == len(told["slots"] or told["operands"])
        place = told["span"]
        assert (place["line"], place["column"]) == (value.span.line, value.span.column)
        assert made["sources"][place["source"]]["name"].endswith(".yaml")
    by_path = {v["path"]: v for v in made["values"]}
    assert by_path[made["outputs"]["dist"]]["reads"] == {"wave": ["-inf", -1]}
    assert by_path["x1.down_pool.fold"]["windows"] == [{"stride": "4", "past": 0, "future": 3, "copies": False}]
    assert made["feeds"] == [{"input": "wave", "drawn": small.graph.feeds[0].drawn.path}]
    again = check_spec("sashimi_small", SMALL)
    assert graph_json(again) == written["graph.json"]


def test_the_folder_of_a_spec_is_not_in_its_graph(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(graph_json(spec(tmp_path / name, RECORDS)))
    assert made[0] == made[1] and str(tmp_path) not in made[0]


def test_hostile_texts_in_report_python_and_json(tmp_path: Path) -> None:
    checked = spec(tmp_path, HOSTILE)
    model = meta(checked)
    for form in ("whole", "step"):
        text = python(model, form)
        names = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
        assert "os" not in names and "__import__" not in names
        assert not any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(ast.parse(text)))
    text = report(model)
    assert "\u202e" not in text and "\x1b" not in text and "\nimport os" not in text
    made = json.loads(graph_json(checked))
    assert made["name"] == checked.graph.name and made["params"]["big"] == 1e308


def test_a_spec_without_losses_outputs_or_sample(tmp_path: Path) -> None:
    checked = spec(tmp_path, "graphspec: 1\nmodel: bare\ninputs:\n  w: float[T, 1] @ 100\ngraph:\n  y: w |> conv(16)\n")
    text = report(meta(checked))
    assert "weights: 64" in text and "nothing to compute" in text and "sampling" not in text and "cost" not in text
    empty = spec(tmp_path, "graphspec: 1\nmodel: none\n")
    assert set(dict(files(meta(empty)))) == {
        "report.txt", "whole.py", "step.py", "graph.json", "diagram.mmd", "diagram.dot",
    }  # fmt: skip


# ---- the commands ---------------------------------------------------------------------------------------------------


def test_compile_writes_its_files_and_touches_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(RECORDS)
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "report.txt").write_text("old")
    assert main(["compile", str(path), "-o", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == [
        "diagram.dot", "diagram.mmd", "graph.json", "notes.txt", "report.txt", "step.py", "whole.py",
    ]  # fmt: skip
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "report.txt").read_text() == shown and "strictly causal" in shown
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "spec.yaml"]


def test_compile_of_a_broken_spec_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(RECORDS.replace("linear(8))) |>", "linear(7))) |>"))
    assert main(["compile", str(path), "-o", str(tmp_path / "made")]) == 1
    assert not (tmp_path / "made").exists()


def test_a_folder_that_cannot_be_written_is_an_error_not_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("graphspec: 1\nmodel: none\n")
    assert main(["compile", str(path), "-o", str(path)]) == 1
    assert main(["draw", str(path), "-o", str(tmp_path / "absent" / "d.mmd")]) == 1
    assert main(["draw", str(path), "-o", str(tmp_path)]) == 1


def test_draw_writes_a_whole_file_and_follows_no_planted_link(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(RECORDS)
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / ".d.dot.part").symlink_to(tmp_path / "elsewhere")
    assert main(["draw", str(path), "--format", "dot", "--detail", "full", "-o", str(tmp_path / "d.dot")]) == 0
    assert (tmp_path / "d.dot").read_text().startswith("digraph")
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.dot", "elsewhere", "spec.yaml"]


def test_draw_needs_no_torch() -> None:
    program = (
        "import sys; from graphspec.__main__ import main; code = main(['draw', 'sashimi_small', 'depth=1']); "
        "heavy = {'torch', 'numpy', 'sympy', 'networkx'} & set(sys.modules); sys.exit(code or (3 if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("flowchart TD\n") and "dist" in done.stdout
