"""The floors of the house: roof (command line) > runtime > compiler and ops, strangers to each other > language.

Read from the syntax trees, so imports inside functions and under TYPE_CHECKING count too. What only a running program
shows, that `lint` needs neither torch nor numpy, is asked of a fresh process.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("graphspec", "compiler", "ops", "runtime", "specs")
MAY_IMPORT = {
    "language": {"language"},
    "ops": {"language", "ops"},
    "compiler": {"language", "compiler"},
    "runtime": {"language", "ops", "compiler", "runtime"},
    "specs": set(),
    "roof": {"language", "ops", "compiler", "runtime", "specs", "roof"},
}
HEAVY = {"torch", "numpy", "scipy", "sympy", "soundfile", "soxr", "safetensors"}
ADAPTERS = {"ops/modules/filterbanks.py"}  # the one file of each that may import it: torchaudio's
NEVER = {"lightning", "pytorch_lightning", "torchaudio"}


def floor_of_file(path):
    """`graphspec/cli/load.py` -> roof."""
    folder, *rest = path.parts
    if folder == "graphspec" and (rest[0] == "cli" or rest in (["__init__.py"], ["__main__.py"])):
        return "roof"
    return "language" if folder == "graphspec" else folder


def floor_of_module(name):
    """`graphspec.ops.modules.conv` -> ops; None for what is not ours, and for the bare package."""
    head, _, rest = name.partition(".")
    if head != "graphspec" or not rest:
        return None
    first = rest.split(".")[0]
    if first in ("cli", "__main__", "compile"):
        return "roof"
    return first if first in ("compiler", "ops", "runtime", "specs") else "language"


def imports(tree, path):
    """(line, module, at top level) of every import in a file: `from graphspec import ops` names graphspec.ops."""
    top = set(map(id, tree.body))
    package = ["graphspec", *path.parts[path.parts[0] == "graphspec" : -1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            names = [text_of(a) for a in node.args[:1]]
        else:
            continue
        for name in names:
            yield node.lineno, name, id(node) in top


def text_of(node):
    """A string, or the beginning of an f-string; else nothing."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def violations(root):
    """What breaks a rule in the five folders under root, as `file:line: why`."""
    found = []
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root)
            floor = floor_of_file(path)
            for line, name, top in imports(ast.parse(file.read_text()), path):
                why = broken_rule(path, floor, name, top)
                if why:
                    found.append(f"{path}:{line}: {why}")
    return found


def broken_rule(path, floor, name, top):
    head = name.split(".")[0]
    target = floor_of_module(name)
    if target is not None and target not in MAY_IMPORT[floor]:
        return f"{floor} imports {target} ({name})"
    if head in ("ops", "compiler", "runtime", "specs"):
        return f"a bare '{head}' loads a second copy of the package"
    if head in NEVER and str(path) not in ADAPTERS:
        return f"{head} outside its adapter"
    if head in HEAVY and floor in ("language", "specs"):
        return f"{floor} imports {head}"
    if head in HEAVY and floor == "roof" and top:
        return f"{head} at the top of a file of the command line: import it inside the function that needs it"
    if path.parts[0] == "ops" and len(path.parts) == 2 and top and (head in HEAVY or ".ops.modules" in name):
        return f"an op's declaration imports {name} at its top"
    return None


def test_every_import_goes_down():
    assert violations(ROOT) == []


def test_tests_and_bench_use_the_one_package():
    for folder in ("tests", "bench"):
        for file in (ROOT / folder).rglob("*.py"):
            path = file.relative_to(ROOT)
            for line, name, _ in imports(ast.parse(file.read_text()), path):
                assert name.split(".")[0] not in (*NEVER, "ops", "compiler", "runtime", "specs"), f"{path}:{line}"


@pytest.mark.parametrize(
    "path, text, why",
    [
        ("compiler/lower.py", "from graphspec.ops.conv import conv", "compiler imports ops"),
        ("compiler/plan.py", "def f():\n    import graphspec.runtime.train", "compiler imports runtime"),
        ("ops/conv.py", "from graphspec.compiler import lower", "ops imports compiler"),
        ("ops/modules/conv.py", "from graphspec import runtime", "ops imports runtime"),
        ("ops/modules/conv.py", "from ...cli import load", "ops imports roof"),
        ("ops/conv.py", "import torch", "at its top"),
        ("ops/conv.py", "from graphspec.ops.modules import conv", "at its top"),
        ("runtime/train.py", "from graphspec.cli.load import show", "runtime imports roof"),
        ("runtime/train.py", "import lightning.pytorch", "lightning outside its adapter"),
        ("runtime/data.py", "def f():\n    import torchaudio", "torchaudio outside its adapter"),
        ("runtime/train.py", "import ops", "second copy"),
        ("graphspec/dims.py", "def f():\n    from graphspec.compiler.build import build", "language imports compiler"),
        ("graphspec/dims.py", "def f():\n    import numpy as np", "language imports numpy"),
        (
            "graphspec/codes/limits.py",
            "import importlib\nimportlib.import_module('graphspec.ops')",
            "language imports ops",
        ),
        (
            "graphspec/time.py",
            "import importlib\nimportlib.import_module(f'graphspec.ops.{1}')",
            "language imports ops",
        ),
        (
            "graphspec/time.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            "language imports torch",
        ),
        ("graphspec/cli/load.py", "import torch", "inside the function"),
        ("specs/__init__.py", "from graphspec.ops import catalogue", "specs imports ops"),
    ],
)
def test_a_planted_import_is_caught(tmp_path, path, text, why):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    (found,) = violations(tmp_path)
    assert why in found and found.startswith(f"{path}:")


@pytest.mark.parametrize(
    "path, text",
    [
        (
            "runtime/train.py",
            "import torch\nfrom graphspec.compiler.lower import Model\nfrom graphspec.ops import catalogue",
        ),
        ("ops/conv.py", "def f():\n    from graphspec.ops.modules.conv import CausalConv"),
        ("ops/modules/conv.py", "import torch\nfrom .contract import State\nfrom graphspec.declare import op"),
        ("ops/modules/filterbanks.py", "import torchaudio"),
        ("graphspec/cli/train_command.py", "def f():\n    import torch\n    from graphspec.runtime.train import train"),
        ("graphspec/report.py", "from . import span\nimport json"),
    ],
)
def test_what_is_allowed_is_not_caught(tmp_path, path, text):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert violations(tmp_path) == []


FRESH = """
import sys
heavy = {"torch", "numpy", "scipy", "sympy", "soundfile", "soxr", "safetensors", "lightning"}
import graphspec
assert [m for m in sys.modules if m.startswith("graphspec")] == ["graphspec"], "the face loads more than itself"
from graphspec.__main__ import main
for arguments, code in COMMANDS:
    assert main(arguments) == code, arguments
    loaded = heavy & set(sys.modules)
    assert not loaded, f"{arguments} loads {loaded}"
"""


def test_lint_needs_neither_torch_nor_numpy(tmp_path):
    """Of a good spec and of a broken one, in one fresh process."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((ROOT / "specs" / "sashimi.yaml").read_text().replace("wave[t-1] |>", "wave |>"))
    commands = [
        (["lint", "sashimi"], 0),
        (["lint", "sashimi", "d=32", "--format", "json"], 0),
        (["lint", str(wrong)], 1),
    ]
    script = FRESH.replace("COMMANDS", repr(commands))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "GS0401" in done.stderr  # the broken one was read to the end: its causality was proven wrong
