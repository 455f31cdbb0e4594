"""The README is true: its commands run as written, in their order, each in a fresh process, on a folder of recordings.

Blocks of `sh` are commands, one a line; `sh fails` must end with 1, and say what the `text` block after it says. Blocks
titled by a file name (`yaml tiny.yaml`) are written to that file when their turn comes. `make` is looked up, not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graphspec.__main__ import main
from graphspec.cli.explain_command import documented
from graphspec.cli.load import check_spec, shipped
from graphspec.compiler.lower import meta
from graphspec.ops import catalogue
from graphspec.reader import read_text
from graphspec.runtime.audio import read, write_wav
from graphspec.runtime.declared import settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = [(info.split(), text) for info, text in re.findall(r"^```(\S.*?)\n(.*?)^```$", README, re.M | re.S)]
COMMANDS = [line for info, text in BLOCKS if info[0] == "sh" for line in text.splitlines() if line.strip()]
SECONDS = 150  # of one command, on a busy machine


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As a shell does it, with the environment's programs first on its path."""
    bin_ = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )


def recordings(folder: Path) -> None:
    """Four takes of half a second: a decaying note each, with a little breath."""
    folder.mkdir()
    rng, rate = np.random.default_rng(0), 8000
    at = np.arange(rate // 2)[:, None] / rate
    for i in range(4):
        sound = 0.5 * np.sin(2 * np.pi * 220 * 2 ** (i / 12) * at) * np.exp(-2 * at)
        write_wav(folder / f"take{i}.wav", (sound + 0.01 * rng.standard_normal(at.shape)).astype(np.float32), rate)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after the whole guide."""
    folder = tmp_path_factory.mktemp("guide")
    recordings(folder / "recordings")
    began = time.perf_counter()
    for number, (info, text) in enumerate(BLOCKS):
        if info[0] == "yaml" and len(info) > 1:
            (folder / info[1]).write_text(text)
        if info[0] != "sh":
            continue
        for line in text.splitlines():
            if line.startswith("make "):
                continue
            done = run(line, folder)
            said = done.stdout + done.stderr
            assert done.returncode == (1 if "fails" in info else 0), f"$ {line}\n{said}"
            assert "Traceback" not in said and "warning" not in said, f"$ {line}\n{said}"
            if "fails" in info:
                shown, expected = BLOCKS[number + 1]
                assert shown == ["text"] and expected.strip() in said, said
    print(f"the guide took {time.perf_counter() - began:.0f} s")
    return folder


def test_the_guide_runs_as_written(walked: Path) -> None:
    """What it promises to leave is there."""
    made = ("test.json", "spec.yaml", "model.safetensors")
    for path in (
        "graphspec-1.schema.json",
        "compiled/report.txt",
        "compiled/whole.py",
        *(f"runs/tiny/{m}" for m in made),
    ):
        assert (walked / path).is_file(), path
    prompted = [read(walked / f"more_{i}.wav", 8000, 1) for i in range(2)]
    sample = read(walked / "runs/tiny/samples/seed0.wav", 8000, 1)
    assert len(sample) == 4000 and np.abs(sample).max() > 0
    assert all(len(x) == 8000 for x in prompted) and not np.array_equal(*prompted)
    assert (walked / "runs/tiny/metrics.csv").read_text().splitlines()[-1].startswith("40,")


def test_every_command_and_target_is_one_there_is() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)", README))
    assert {"install", "demo", "test"} <= named <= targets
    table = [n.replace("-", "_") for n in re.findall(r"^\| `([\w-]+) (?:SPEC|RUN|prepare|\[)", README, re.M)]
    there = {p.stem.removesuffix("_command") for p in (ROOT / "graphspec" / "cli").glob("*_command.py")}
    assert set(table) == there
    assert {line.split()[1] for line in COMMANDS if line.startswith("graphspec")} <= there


def test_the_excerpt_is_of_the_shipped_spec() -> None:
    """The first block says what specs/sashimi.yaml says, but for the state that is written out there."""
    info, text = BLOCKS[0]
    assert info == ["yaml"]

    def lines(written: str) -> list[str]:
        bare = [line.partition(" #")[0].rstrip().replace("(state)", "") for line in written.splitlines()]
        return [re.sub(r", temperature=.*\)", ")", line) for line in bare]

    whole = lines((shipped() / "sashimi.yaml").read_text())
    assert [line for line in lines(text) if line not in whole] == []
    read_text("README.md", text)


def test_the_table_of_specs_is_right() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ([\d,]+) \| (.*?) \| (.*?) \|$", README, re.M)
    assert sorted(name for name, *_ in rows) == sorted(p.stem for p in shipped().glob("*.yaml"))
    for name, _, weights, clocks, params in rows:
        checked = check_spec(name)
        assert f"{sum(w.numel() for w in meta(checked).parameters()):,}" == weights, name
        rates = sorted({v.type.rate for v in checked.graph.values if v.type.rate}, reverse=True)
        unit = 1000 if "kHz" in clocks else 1
        assert [float(c) for c in re.findall(r"[\d.]+", clocks)] == [float(r / unit) for r in rates], name
        if not params.startswith("as "):
            told = {*checked.graph.params, *checked.spec.home.choices}
            assert set(params.strip("`").split()) <= told, name


def test_every_op_and_setting_has_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    ops, own = catalogue(), settings()
    faces = {f"{of}.{name}": d for (of, name), d in ops.faces.items()}
    for name, d in {**ops.ops, **own.ops, **faces}.items():
        page = documented(name, d)
        assert page.startswith(f"{name}: {d.summary}\n") and d.example in page, name
        assert all(p.name in page for p in d.parameters), name
    assert main(["explain", "conv"]) == 0
    assert "x |> conv(64, k=5)" in capsys.readouterr().out
    assert main(["explain", "logits"]) == 0
    assert capsys.readouterr().out.startswith("embed.logits: ")
    assert main(["explain", "one_pole"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("one_pole: a block of std/filters\n") and "y: a * y[t-1] + (1 - a) * x\n" in page
    assert "one_pole_learned" not in page and page.endswith("written    use: [std/filters]\n")
    assert main(["explain", "convv"]) == 1
    assert (
        "error[GS0225]: there is no op, no block and no code 'convv'; did you mean 'conv'?" in capsys.readouterr().err
    )
