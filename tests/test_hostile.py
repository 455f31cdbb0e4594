"""The front door under attack: bombs and traps through `graphspec lint`, and what a lint may touch at all.

Each bomb is linted in a process of its own with 1 GB of address space, forked off one that has already linted a spec:
what is measured is the answer, not the start. A refusal takes 0.2 s or less, and the largest specs that are legal 5 s.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import graphspec.compiler
import graphspec.ops
import graphspec.runtime
import graphspec.specs

HEAD = "graphspec: 1\nmodel: m\ninputs:\n  x: float[T, 1] @ 16000\n"

SERVER = """
import gc, io, json, os, resource, sys
from graphspec.__main__ import main
from contextlib import redirect_stderr, redirect_stdout

gc.disable()  # as the command does

def lint(arguments):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(["lint", *arguments])
    return code, out.getvalue(), err.getvalue()

lint(["sashimi"]), lint(["./none.yaml"]), lint(["./none.yaml", "--format", "json"])
for line in sys.stdin:
    arguments = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        told = json.dumps(lint(arguments)).encode()
        with os.fdopen(write, "wb") as pipe:
            pipe.write(told)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    print(json.dumps([status, seconds, used.ru_maxrss, json.loads(told) if told else [None, "", ""]]), flush=True)
"""


@cache
def server() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module", autouse=True)
def closed() -> Any:
    yield
    if server.cache_info().currsize:
        server().communicate(timeout=10)
        server.cache_clear()


def lint(*arguments: str) -> tuple[int, str, str, float, int]:
    """(exit code, stdout, stderr, CPU seconds, the process's peak in KB). Fails where a signal ended it."""
    s = server()
    assert s.stdin is not None and s.stdout is not None
    print(json.dumps(arguments), file=s.stdin, flush=True)
    status, seconds, peak, (code, out, err) = json.loads(s.stdout.readline())
    assert status == 0, f"ended by signal {os.WTERMSIG(status)} after {seconds} s"
    return code, out, err, seconds, peak


def graph(*lines: str, params: str = "") -> str:
    return HEAD + (f"params:\n{params}" if params else "") + "graph:\n" + "".join(f"  {line}\n" for line in lines)


def doubling(levels: int) -> str:
    """Blocks that use each other twice: 2**levels values."""
    blocks = "  b0:\n    in: x\n    out: x |> tanh\n" + "".join(
        f"  b{i}:\n    in: x\n    out: x |> b{i - 1} |> b{i - 1}\n" for i in range(1, levels)
    )
    return HEAD + "blocks:\n" + blocks + f"graph:\n  y: x |> b{levels - 1}\n"


def by_stages(levels: int) -> str:
    """The same, each block handed to one that uses its stage twice."""
    blocks = "  twice:\n    params: {body: stage}\n    in: x\n    out: x |> body |> body\n"
    blocks += "  b0:\n    in: x\n    out: x |> twice(tanh)\n"
    blocks += lines(1, levels, "  b{i}:\n    in: x\n    out: x |> twice(b{h})\n")
    return HEAD + "blocks:\n" + blocks + f"graph:\n  y: x |> b{levels - 1}\n"


def by_choice(levels: int) -> str:
    """Where a block's own param chooses, its copies are known only once it is unfolded."""
    blocks = "  b0:\n    params: {on: true}\n    in: x\n    out: x\n" + lines(
        1,
        levels,
        "  b{i}:\n    params: {{on: true}}\n    in: x\n    out: x |> b{h}(on=on) |> b{h}(on=on) if on else x\n",
    )
    return HEAD + "blocks:\n" + blocks + f"graph:\n  y: x |> b{levels - 1}\n"


def sharing(levels: int) -> str:
    """A stage that holds the same stage twice, which holds the same stage twice, ..."""
    blocks = "  pair:\n    params: {a: stage, b: stage}\n    in: x\n    out: x |> a |> b\n"
    blocks += "  g0:\n    params: {s: stage}\n    in: x\n    out: x |> s\n"
    blocks += lines(1, levels, "  g{i}:\n    params: {{s: stage}}\n    in: x\n    out: x |> g{h}(pair(s, s))\n")
    return HEAD + "blocks:\n" + blocks + f"graph:\n  y: x |> g{levels - 1}(shift(0))\n"


def merges() -> str:
    return "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i}\n  <<: [{', '.join(['*a' + str(i - 1)] * 9)}]\n" for i in range(1, 7)
    )


def chain(count: int) -> str:
    return graph("v0: x", *(f"v{i}: tanh(v{i - 1})" for i in range(1, count)))


def lines(start: int, stop: int, line: str) -> str:
    """`line` with {i}, and {h} for the one before, once for every i."""
    return "".join(line.format(i=i, h=i - 1) for i in range(start, stop))


def sized(dim: str) -> str:
    return HEAD.replace("[T, 1]", f"[T, {dim}]") + "graph:\n  y: tanh(x)\n"


BLOCKS = "blocks:\n  b0:\n    in: x\n    out: tanh(x)\n" + lines(1, 2000, "  b{i}:\n    in: x\n    out: x |> b{h}\n")
DIAMONDS = graph("v0: x") + lines(1, 400, "  v{i}: v{h} + v{h}\n")
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23)
PERIODS = "require:\n  - T % 223092870 == 0\ngraph:\n" + "".join(
    f"  v{p}: x |> fold({p}) |> unfold({p})\n" for p in PRIMES
)

# name: (text, code; None where it is legal; CPU seconds)
BOMBS: dict[str, tuple[str, str | None, float]] = {
    # YAML
    "flow nesting": ("a: " + "[" * 100_000, "GS0802", 0.2),
    "block nesting": ("a:\n  " + "- " * 30_000 + "a\n", "GS0802", 0.2),
    "mapping nesting": ("".join(f"{' ' * i}a:\n" for i in range(1000)), "GS0802", 0.2),
    "alias bomb": ("a0: &a0 [x]\n" + lines(1, 10, "a{i}: &a{i} [" + "*a{h}, " * 9 + "]\n"), "GS0103", 0.2),
    "merge bomb": (merges(), "GS0103", 0.2),
    "alias of itself": ("a: &a [*a]\n", "GS0103", 0.2),
    "a number of base 60": (HEAD + "params:\n  n: 1" + ":59" * 100_000 + "\n", "GS0802", 0.2),
    "a number of 5,000 digits": (HEAD + f"params:\n  n: {'9' * 5000}\n", "GS0106", 0.2),
    "a hexadecimal number": (HEAD + f"params:\n  n: 0x{'f' * 900_000}\n", "GS0802", 0.2),
    "a date that is none": (HEAD + "params:\n  n: 2024-99-99\n", None, 0.2),
    "a tag of binary junk": (HEAD + "params:\n  n: !!binary '%%%'\n", "GS0107", 0.2),
    "a tag of a wrong integer": (HEAD + "params:\n  n: !!int zz\n", "GS0107", 0.2),
    "a tag that runs code": ("a: !!python/object/apply:os.system ['touch /tmp/pwned']\n", "GS0107", 0.2),
    "directives": ("%TAG ! tag:x,2000:\n" * 20_000, "GS0108", 1.0),
    "many keys": ("graphspec: 1\nmodel: m\n" + "".join(f"k{i}: 1\n" for i in range(80_000)), None, 5.0),
    "many values": (graph(*(f"v{i}: x" for i in range(60_000))), None, 5.0),
    "a long text": (HEAD + f"doc: {'a' * 1_000_000}\n", None, 1.0),
    "too long a text": (HEAD + f"doc: {'a' * 5_000_000}\n", "GS0801", 0.2),
    "a long name": (graph(f"{'a' * 900_000}: x"), None, 1.0),
    "a key with a line break": (HEAD + 'graph:\n  "y\\n": x\n', "GS0213", 0.2),
    # expressions
    "a long sum": (graph("y: " + "x + " * 10_000 + "x"), "GS0802", 0.2),
    "a very long sum": (graph("y: " + "x + " * 200_000 + "x"), "GS0802", 0.5),
    "parentheses": (graph("y: " + "(" * 1000 + "x" + ")" * 1000), "GS0802", 0.2),
    "signs": (graph("y: " + "-" * 100_000 + "x"), "GS0802", 0.2),
    "nots": (graph("y: x |> linear(8, bias=" + "not " * 240 + "true)"), None, 0.5),
    "powers": (graph("y: x", params="  n: 2**10**10\n"), "GS0106", 0.2),
    "powers of powers": (graph("y: x", params="  n: 9**9**9\n"), "GS0106", 0.2),
    "powers, params apart": (graph("y: x", params="  a: 2**50\n  b: a * a * a\n"), "GS0106", 0.2),
    "a float power": (graph("y: x", params="  n: 2.0**64**1\n  m: n**64\n"), "GS0106", 0.2),
    "a text times a number": (graph("y: x", params="  n: 'a'\n  m: n * 10**10\n"), None, 0.2),
    "a list times a number": (graph("y: x", params="  n: [1]\n  m: n * 10**9\n"), None, 0.2),
    "lists that double": (
        graph("y: x", params="  l0: [1, 2]\n" + lines(1, 60, "  l{i}: l{h} + l{h}\n")), None, 0.5),
    "a range": (graph("y: sum(x for i in range(10**12))"), None, 0.2),
    "a product of ranges": (graph("y: sum(x for i in product(range(9999), range(9999)))"), None, 0.5),
    "a name of a function": (graph("y: x", params="  n: __import__('os').system('touch /tmp/pwned')\n"), "GS0204", 0.2),
    # expansion
    "a thousand million copies": (graph("y: x |> repeat(1000000000, tanh)"), "GS0804", 0.2),
    "copies of copies": (graph("y: x |> repeat(1000, repeat(1000, repeat(1000, tanh)))"), "GS0804", 5.0),
    "blocks that double": (doubling(40), "GS0804", 0.2),
    "blocks that double by a stage": (by_stages(40), "GS0804", 0.2),
    "blocks that double and make no value": (doubling(40).replace("x |> tanh", "x |> shift(0)"), "GS0804", 0.2),
    "blocks that double by a choice": (by_choice(40), "GS0804", 6.0),  # counted while it unfolds
    "stages that share stages": (sharing(40), "GS0804", 0.2),
    "blocks that double beyond any nesting": (doubling(400), "GS0804", 0.5),
    "blocks in a ring": (doubling(3).replace("x |> tanh", "x |> b1"), "GS0508", 0.2),
    "a chain of blocks": (HEAD + BLOCKS + "graph:\n  y: x |> b1999\n", None, 5.0),
    # graphs
    "a chain of values": (chain(3000), None, 5.0),
    "a chain of params": (graph("y: x", params="  p0: 1\n" + lines(1, 3000, "  p{i}: p{h}\n")), None, 5.0),
    "a ring": (chain(3000).replace("v0: x\n", "v0: v2999\n"), "GS0405", 5.0),
    "diamonds": (DIAMONDS, None, 2.0),
    "diamonds, asked about": (DIAMONDS + "causal:\n  v399: strict\n", "GS0401", 2.0),
    "periods of many primes": (
        HEAD + PERIODS + f"  y: {' + '.join(f'v{p}' for p in PRIMES)}\ncausal:\n  y: 22\n", None, 5.0),
    "a polynomial of dims": (sized("(a + b + c + d + e + f)**60"), None, 5.0),
    "a product of dims": (sized(" * ".join(f"(a{i} + b{i})" for i in range(30))), None, 5.0),
    "a wide layer": (graph("y: x |> linear(1000000000) |> linear(1000000000)"), None, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_answered(name: str, tmp_path: Path) -> None:
    text, code, budget = BOMBS[name]
    path = tmp_path / "m.yaml"
    path.write_text(text, encoding="utf-8")
    status, out, err, seconds, peak = lint(str(path), "--format", "json")
    found = json.loads(out)
    assert status in (0, 1) and err == ""
    assert status == int(any(d["severity"] == "error" for d in found))
    if code is not None:
        assert code in {d["code"] for d in found}
    assert all(len(d["message"]) < 1000 for d in found)
    assert peak < 500_000, f"{peak} KB"
    # for people it is short, too; the machine may have been busy with something else the first time
    status, out, err, again, _ = lint(str(path))
    assert len(err) < 60_000
    assert min(seconds, again) < budget, f"{min(seconds, again):.2f} s"
    assert not Path("/tmp/pwned").exists()


def test_a_hundred_thousand_mistakes_are_twenty_and_a_number(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("graphspec: 1\nmodel: m\n" + "".join(f"k{i}: 1\n" for i in range(20_000)))
    status, _, err, _, _ = lint(str(path))
    assert status == 1 and err.count("error[GS0130]") == 20 and "and 19,980 more errors" in err


def test_user_text_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "m\x1b[2J\u202e.yaml"
    path.write_text(graph('"y\\x1b[31m\\u202e": x', 'z: "x |> \\e]0;pwned\\a"') + "# \u009b\n".replace("\u009b", ""))
    status, out, err, _, _ = lint(str(path))
    assert status == 1
    assert not [c for c in out + err if c in "\x1b\x07\u202e\u009b"]


# ---- files ----------------------------------------------------------------------------------------------------------

LIBRARY = "graphspec: 1\nlibrary: l\nblocks:\n  soft:\n    in: x\n    out: tanh(x)\n"


@pytest.mark.parametrize(
    "name",
    [
        "../outside", "../../../../../../etc/passwd", "/etc/passwd", "/dev/zero", "C:\\\\windows\\\\win.ini",
        "\\\\\\\\host\\\\share", "file:///etc/passwd", "http://127.0.0.1:1/x", "std/../../outside", "~/x", "${HOME}/x",
        "pipe", "folder", "link_out", "link_to_zero", "a" * 5000, "", ".", "null", "sub/link_up/outside", "*", "std/*",
    ],
)  # fmt: skip
def test_a_library_is_a_regular_file_below_the_folder(name: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "outside.yaml").write_text(LIBRARY)
    os.mkfifo(root / "pipe.yaml")
    (root / "folder.yaml").mkdir()
    (root / "link_out.yaml").symlink_to(tmp_path / "outside.yaml")
    (root / "link_to_zero.yaml").symlink_to("/dev/zero")
    (root / "sub" / "link_up").symlink_to(tmp_path)
    path = root / "m.yaml"
    path.write_text(f'graphspec: 1\nmodel: m\nuse: ["{name}"]\n' + graph("y: x |> soft").split("\n", 2)[2])
    status, out, err, seconds, _ = lint(str(path), "--format", "json")
    codes = {d["code"] for d in json.loads(out)}
    assert status == 1 and err == "" and seconds < 1
    assert codes & {"GS0502", "GS0119", "GS0112", "GS0133"} and "GS0900" not in codes


def test_libraries_that_use_libraries_without_end(tmp_path: Path) -> None:
    for i in range(2000):
        (tmp_path / f"l{i}.yaml").write_text(LIBRARY.replace("blocks", f"use: [l{i + 1}]\nblocks"))
    path = tmp_path / "m.yaml"
    path.write_text("graphspec: 1\nmodel: m\nuse: [l0]\n" + graph("y: x |> soft").split("\n", 2)[2])
    status, out, err, seconds, _ = lint(str(path), "--format", "json")
    assert status == 1 and "GS0900" not in err and seconds < 15
    assert json.loads(out)


# ---- what a lint touches ---------------------------------------------------------------------------------------------

AUDITED = """
import json, os, sys
events = []
def hook(event, arguments):
    if event == "open":
        events.append([event, str(arguments[0]), str(arguments[1] or arguments[2])])
    elif event.split(".")[0] in ("socket", "subprocess", "ctypes", "urllib", "http", "ftplib", "smtplib", "webbrowser",
                                 "pty", "shutil", "tempfile", "fcntl", "signal") or event in (
        "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.putenv",
        "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate",
        "compile", "exec", "import", "pickle.find_class", "marshal.loads", "marshal.load", "code.__new__"
    ):
        events.append([event, str(arguments[0])[:200] if arguments else "", ""])
sys.addaudithook(hook)
from graphspec.__main__ import main
code = main(["lint", *sys.argv[1:]])
sys.stdout.flush()
print("AUDIT" + json.dumps([code, events]))
"""


def audited(*arguments: str, cwd: Path) -> tuple[int, list[list[str]]]:
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, *arguments], capture_output=True, text=True, timeout=60, cwd=cwd, check=True
    )
    code, events = json.loads(done.stdout.rpartition("AUDIT")[2])
    return code, events


@pytest.mark.parametrize("broken", [False, True])
def test_a_lint_reads_the_spec_its_libraries_and_the_package_and_does_nothing_else(
    broken: bool, tmp_path: Path
) -> None:
    (tmp_path / "near.yaml").write_text(LIBRARY)
    (tmp_path / "unused.yaml").write_text(LIBRARY)
    (tmp_path / "data").mkdir()
    text = "graphspec: 1\nmodel: m\nuse: [near, std/core]\n" + graph("y: x |> soft |> residual(tanh)").split("\n", 2)[2]
    text += 'data:\n  x: audio_folder("data")\n' + ("causal:\n  y: strict\noutputs: [z]\n" if broken else "")
    (tmp_path / "m.yaml").write_text(text)
    code, events = audited("m.yaml", cwd=tmp_path)
    assert code == int(broken)
    opened = [(path, mode) for event, path, mode in events if event == "open"]
    specs = {Path(path).name for path, _ in opened if path.endswith(".yaml")}
    assert specs == {"m.yaml", "near.yaml", "core.yaml"}
    rooms = (graphspec, graphspec.compiler, graphspec.ops, graphspec.runtime, graphspec.specs)
    homes = [Path(room.__path__[0]).resolve() for room in rooms]
    python = [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()]
    for path, mode in opened:
        at = Path(tmp_path, path).resolve()
        assert at.suffix == ".yaml" or any(at.is_relative_to(h) for h in (*homes, *python)), path
        assert "w" not in mode and "a" not in mode and "+" not in mode, (path, mode)
    reads = next(i for i, e in enumerate(events) if e[0] == "open" and e[1].endswith("m.yaml"))
    for event, what, _ in events:
        assert event in ("open", "import", "compile", "exec", "marshal.loads", "code.__new__"), (event, what)
    # Python's own files are code, and are loaded as such; the spec never is
    for event, what, _ in events[reads:]:
        assert event not in ("compile",) or "<" not in what or what.startswith("<frozen"), (event, what)
        assert "tanh" not in what and "strict" not in what
