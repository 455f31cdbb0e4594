"""The reader against bombs, odd files and any text at all: an answer, at once, with places inside the file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphspec import codes
from graphspec.diagnostic import Diagnostic, SpecError
from graphspec.document import Mapping, Node, Scalar
from graphspec.reader import MAX_BYTES, read_file, read_text


def mistakes(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        read_text("m.yaml", text)
    return caught.value.diagnostics


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: " + "[" * 100_000, "GS0802"),
        ("a:\n  " + "- " * 30_000 + "a\n", "GS0802"),
        ("a: " + "{x: " * 30_000, "GS0802"),
        ("? " * 30_000 + "a", "GS0113"),
        ("a: &a [x,x,x]\n" + "".join(f"b{i}: &b{i} [*a, *a, *a]\n" for i in range(9)), "GS0103"),
        ("a: &a [*a]\n", "GS0103"),
        ("%TAG ! !\n" * 50_000, "GS0108"),
        ("a: " + "9" * 1_000_000, "GS0106"),
        ("".join(f"k{i}: [h[t-1]]\n" for i in range(20_000)), "GS0104"),
        ("a: b: c\n" * 50_000, "GS0116"),
    ],
    ids=["[", "-", "{", "?", "alias bomb", "alias of itself", "directives", "digits", "traps", "colons"],
)
def test_bombs_are_answered_at_once(text: str, code: str) -> None:
    started = time.process_time()
    found = mistakes(text)
    assert time.process_time() - started < 2
    assert code in {d.code for d in found} and len(found) <= 20
    assert all(len(d.message) < 300 for d in found)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "s.yaml"))
    try:
        cases = {fifo: "a pipe", tmp_path: "a folder", tmp_path / "s.yaml": "a socket", Path("/dev/zero"): "a device"}
        for path, kind in cases.items():
            with pytest.raises(SpecError) as caught:
                read_file(path)
            (d,) = caught.value.diagnostics
            assert d.code == "GS0119" and kind in d.message
    finally:
        bound.close()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "wavenet.yaml").write_text("a: 1\n")
    for path, words in [
        (tmp_path / "wavnet.yaml", "did you mean 'wavenet.yaml'?"),
        (tmp_path / "wavenet.yaml" / "x", "no file"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(SpecError) as caught:
            read_file(path)
        (d,) = caught.value.diagnostics
        assert d.code == "GS0119" and words in d.message


def test_a_large_file_is_refused_and_bytes_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    for data, code in [
        (b"#" * (2 << 20), "GS0801"),
        (b"#" * (MAX_BYTES + 1), "GS0801"),
        (b"a: \xe9\n", "GS0109"),
        ("a: 1\n".encode("utf-16"), "GS0109"),
        (b"a: \x00\n", "GS0110"),
        (b"\xef\xbb\xbfa: 1\n", "GS0110"),
    ]:
        path.write_bytes(data)
        with pytest.raises(SpecError) as caught:
            read_file(path, shown="shown.yaml")
        (d,) = caught.value.diagnostics
        assert d.code == code and d.span is not None and d.span.source.path == "shown.yaml"
    path.write_bytes(b"a: 1\n" + b"#" * (MAX_BYTES - 5))
    assert read_file(path).source.path == str(path)


def test_a_spec_of_200_lines_reads_in_15_ms() -> None:
    text = "graph:\n" + "".join(f"  y{i}: x{i} + f(a, b) |> conv(64, k={i})  # c\n" for i in range(200))
    best = min(_cpu(text) for _ in range(5))
    assert best < 0.015


def _cpu(text: str) -> float:
    started = time.process_time()
    read_text("m.yaml", text)
    return time.process_time() - started


def test_reading_loads_nothing_heavy() -> None:
    script = (
        "import sys; from graphspec import reader, report, document, codes; reader.read_text('m', 'a: 1');"
        "print(sorted({'torch','numpy','jsonschema','networkx','lark','graphspec.codes.syntax'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# fmt: off
_PIECES = [
    "a", "k", ": ", ":", "\n", "\n  ", "\n\t", "- ", "[", "]", "{", "}", "(", ")", ", ", "|> ", "|", ">", "*a", "&a ",
    "!t ", "'", '"', "# ", "017", "1e-4", "? ", "%", "---\n", "@", "é", "\\", "<<", "f(b, y)", "[t-1]", "\r\n", " ",
]
# fmt: on


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(_PIECES), max_size=24).map("".join))
def test_any_text_is_read_or_refused_with_places_inside_it(text: str) -> None:
    try:
        document = read_text("m.yaml", text)
    except SpecError as error:
        assert 1 <= len(error.diagnostics) <= 20
        for d in error.diagnostics:
            assert codes.find(d.code) is not None
            assert d.span is not None and 0 <= d.span.start <= d.span.end <= len(text)
            assert "xx" not in d.message  # what was blanked out to read on never shows
    else:
        _inside(document.root, 0, len(text))


def _inside(node: Node, start: int, end: int) -> None:
    assert start <= node.span.start <= node.span.end <= end
    if isinstance(node, Scalar):
        assert node.span.start <= node.content.start <= node.content.end <= node.span.end
        return
    inner = [part for k, v in node.items() for part in (k, v)] if isinstance(node, Mapping) else list(node.items)
    for one in inner:
        _inside(one, node.span.start, node.span.end)
