"""The reader: what it accepts, where everything stands, and every mistake at its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphspec import codes
from graphspec.diagnostic import Diagnostic, SpecError
from graphspec.document import Mapping, Node, Scalar, Sequence
from graphspec.reader import read_file, read_text

READER_CODES = [
    c for c in codes.all() if "GS0101" <= c.number <= "GS0119" or c.number in ("GS0801", "GS0802", "GS0803")
]

# where each code's failing spec goes wrong: line, column
PLACES = {
    "GS0101": (8, 3),
    "GS0102": (7, 3),
    "GS0103": (4, 6),
    "GS0104": (8, 13),
    "GS0105": (4, 11),
    "GS0106": (4, 10),
    "GS0107": (4, 6),
    "GS0108": (1, 1),
    "GS0109": (3, 9),
    "GS0110": (4, 8),
    "GS0111": (7, 1),
    "GS0112": (1, 1),
    "GS0113": (4, 3),
    "GS0114": (3, 6),
    "GS0115": (4, 1),
    "GS0116": (3, 19),
    "GS0117": (6, 6),
    "GS0118": (8, 10),
    "GS0119": (1, 1),
    "GS0801": (1, 1),
    "GS0802": (4, 40),
    "GS0803": (4, 149_984),
}


def mistakes(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        read_text("m.yaml", text)
    return caught.value.diagnostics


def only(text: str) -> Diagnostic:
    found = mistakes(text)
    assert len(found) == 1, [f"{d.span} {d.code} {d.message}" for d in found]
    return found[0]


def at(d: Diagnostic) -> tuple[str, int, int]:
    assert d.span is not None
    return d.code, d.span.line, d.span.column


def mended(text: str, d: Diagnostic, number: int = 0) -> str:
    """`text` after the edits of one fix."""
    for edit in sorted(d.fixes[number].edits, key=lambda e: -e.span.start):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


def root(text: str) -> Mapping:
    return read_text("m.yaml", text).root


def scalar(text: str, *names: str) -> Scalar:
    node: Node | None = root(text)
    for name in names:
        assert isinstance(node, Mapping)
        node = node.get(name)
    assert isinstance(node, Scalar)
    return node


# codes


@pytest.mark.parametrize("code", READER_CODES, ids=lambda c: c.number)
def test_every_code_fires_on_its_failing_spec_and_not_on_its_passing_one(code: codes.Code, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    if code.number != "GS0119":  # a missing file cannot be written down
        path.write_bytes(code.failing if isinstance(code.failing, bytes) else code.failing.encode())
    with pytest.raises(SpecError) as caught:
        read_file(path)
    assert {d.code for d in caught.value.diagnostics} == {code.number}
    assert at(caught.value.diagnostics[0]) == (code.number, *PLACES[code.number])
    path.write_text(code.passing, encoding="utf-8")
    read_file(path)


@pytest.mark.parametrize("code", READER_CODES, ids=lambda c: c.number)
def test_every_edit_mends_its_mistake(code: codes.Code) -> None:
    if isinstance(code.failing, bytes) or not code.failing:
        return
    for d in mistakes(code.failing):
        for number, fix in enumerate(d.fixes):
            if fix.edits:
                text = mended(code.failing, d, number)
                with_it = () if _reads(text) else mistakes(text)
                assert at(d) not in [at(other) for other in with_it], text


def _reads(text: str) -> bool:
    try:
        read_text("m.yaml", text)
    except SpecError:
        return False
    return True


def test_every_code_of_the_reader_has_a_place_here() -> None:
    assert {c.number for c in READER_CODES} == set(PLACES)


def test_codes_are_found_by_number_and_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    code = codes.find("GS0101")
    assert code is not None and code == codes.CODES["GS0101"]
    assert codes.find("GS9999") is None
    from graphspec.codes import limits, syntax

    monkeypatch.setattr(limits, "CODES", (*limits.CODES, syntax.CODES[0]))
    codes._assembled.cache_clear()
    try:
        with pytest.raises(ValueError, match="GS0101 is given twice"):
            codes.all()
    finally:
        monkeypatch.undo()
        codes._assembled.cache_clear()


# what a scalar means


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1E+3", 1000.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("none", "none"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ("16k", "16k"),
        ("2*d", "2*d"),
        ("-x", "-x"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("|-\n  1", "1"),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_core_says(written: str, value: object) -> None:
    got = scalar(f"a: {written}\n", "a")
    assert got.value == value and type(got.value) is type(value)
    assert got.plain == (written[:1] not in ("'", '"', "|"))


@pytest.mark.parametrize(
    ("written", "code", "write"),
    [
        ("017", "GS0105", "17"),
        ("-007", "GS0105", "-7"),
        ("019", "GS0105", "19"),
        ("1:30", "GS0105", "90"),
        ("1:02:03", "GS0105", "3723"),
        ("0x10", "GS0105", "16"),
        ("0o17", "GS0105", "15"),
        ("0b101", "GS0105", "5"),
        ("1_000", "GS0105", "1000"),
        ("16,000", "GS0105", "16000"),
        ("1e", "GS0105", None),
        (".inf", "GS0106", None),
        ("-.INF", "GS0106", None),
        (".nan", "GS0106", None),
        ("1e999", "GS0106", None),
        ("9007199254740993", "GS0106", None),
        ("1" * 5000, "GS0106", None),
    ],
)
def test_odd_numbers_are_refused_with_what_to_write(written: str, code: str, write: str | None) -> None:
    text = f"a:\n  b: {written}  # c\n"
    d = only(text)
    assert at(d) == (code, 2, 6)
    assert d.span is not None and d.span.text == written
    assert len(d.message) < 160
    if write is not None:
        assert f"write {write}" in d.fixes[0].title
        assert mended(text, d) == f"a:\n  b: {write}  # c\n"


# places


def test_every_span_is_where_it_was_written() -> None:
    text = "é𝄞: {ü: 1, v: [x, 'y z']}\r\nblocks:\r\n  b:\r\n    in: x   # c\r\n\r\nlast: 2\r\n"
    document = read_text("m.yaml", text)
    top = document.root
    assert [key.text for key, _ in top.items()] == ["é𝄞", "blocks", "last"]
    assert top.span.text == text.rstrip()
    flow, blocks = top.get("é𝄞"), top.get("blocks")
    assert isinstance(flow, Mapping) and flow.span.text == "{ü: 1, v: [x, 'y z']}"
    v = flow.get("v")
    assert isinstance(v, Sequence) and v.span.text == "[x, 'y z']"
    assert [item.span.text for item in v.items] == ["x", "'y z'"]
    assert isinstance(blocks, Mapping) and blocks.span.text == "b:\r\n    in: x"
    key = top.key("last")
    assert key is not None and (key.span.line, key.span.column) == (6, 1)
    assert top.get("absent") is None and top.key("absent") is None


def test_the_content_of_a_plain_scalar_over_several_lines_is_the_raw_stretch() -> None:
    text = "graph:\n  y: wave\n    |> conv(16)\n\n    |> tanh  # the end\n  z: y\n"
    y = scalar(text, "graph", "y")
    assert y.plain and y.span == y.content
    assert y.content.text == "wave\n    |> conv(16)\n\n    |> tanh"
    assert y.text == "wave |> conv(16)\n|> tanh"
    place = y.content.source.place(y.content.start + y.content.text.index("tanh"))
    assert place == (5, 8)


@pytest.mark.parametrize(
    ("written", "span", "content", "text"),
    [
        ("'f(a, b)'", "'f(a, b)'", "f(a, b)", "f(a, b)"),
        ('"f(a)"  # c', '"f(a)"', "f(a)", "f(a)"),
        ("'it''s'", "'it''s'", "it''s", "it's"),
        ("''", "''", "", ""),
        ("|  # c\n    x\n    |> f\n\n", "|  # c\n    x\n    |> f", "x\n    |> f", "x\n|> f\n"),
        (">-\n    x\n    |> f", ">-\n    x\n    |> f", "x\n    |> f", "x |> f"),
        ("|2\n  x", "|2\n  x", "x", "x"),
        ("|", "|", "", ""),
        ("", "", "", ""),
    ],
)
def test_spans_of_quoted_and_block_scalars(written: str, span: str, content: str, text: str) -> None:
    got = scalar(f"a: {written}", "a")
    assert (got.span.text, got.content.text, got.text) == (span, content, text)


def test_an_empty_value_stands_behind_its_colon() -> None:
    a = scalar("a:\nb: 1\n", "a")
    assert (a.span.start, a.span.end, a.value, a.plain) == (2, 2, None, True)


def test_what_is_fine_in_flow_collections_stays_fine() -> None:
    text = "a: {dist: {late: strict}, w: a > 0}\nb: [d, 2*d, flat |> g(n), (a + b)*c]\nc: {x: 'f(a, b)'}\n"
    b = root(text).get("b")
    assert isinstance(b, Sequence) and [i.span.text for i in b.items] == ["d", "2*d", "flat |> g(n)", "(a + b)*c"]
    assert root("---\na: 1\n...\n").get("a") is not None


# mistakes


def test_a_duplicate_key_shows_both_places() -> None:
    d = only("blocks:\n  enc:\n    k: 1\n    c: 2\n    k: 3\n")
    assert at(d) == ("GS0101", 5, 5)
    assert d.message == "key 'k' is given twice in 'blocks.enc', first in line 3"
    assert [(r.span.line, r.span.column) for r in d.related] == [(3, 5)]


@pytest.mark.parametrize(
    ("text", "expression", "column"),
    [
        ("nll: {is: nll(dist, wave), weight: 2}", "nll(dist, wave)", 11),
        ("h: {next: h[t-1]}", "h[t-1]", 11),
        ("in: {x: float[T, c]}", "float[T, c]", 9),
        ("a: [h[t-1], 2]", "h[t-1]", 5),
        ("a: {is: f(a, [b, c]), w: 2}", "f(a, [b, c])", 9),
        ("a: {b: {is: f(a, x='(,', y=c)}}", "f(a, x='(,', y=c)", 13),
        ("a:\n  - {is: f(a, b)}", "f(a, b)", 10),
        ('a: {is: einsum("en,n->e", h)}', 'einsum("en,n->e", h)', 9),
    ],
)
def test_the_flow_trap_is_named_and_mended(text: str, expression: str, column: int) -> None:
    d = only(text + "\n")
    assert d.code == "GS0104" and d.span is not None
    assert (d.span.text, d.span.column) == (expression, column)
    for number in range(len(d.fixes)):
        after = read_text("m.yaml", mended(text + "\n", d, number))
        assert expression in after.source.text
    assert any(fix.edits for fix in d.fixes)


def test_the_block_style_fix_of_the_flow_trap() -> None:
    text = "losses:\n  nll: {is: nll(dist, wave), weight: 2}  # c\n  l: {mask: f(a, b)}\n"
    first, second = mistakes(text)
    assert mended(text, first).startswith("losses:\n  nll:\n    is: nll(dist, wave)\n    weight: 2  # c\n")
    assert at(second) == ("GS0104", 3, 13)


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("a: 1\nbcd\ne: 2\n", "GS0102", 2, 1),
        ("a: 1\nb = 2\n", "GS0102", 2, 1),
        ("train:\n  lr:1e-3\n  batch: 8\n", "GS0102", 2, 3),
        ("train:\n  batch: 8\n  lr:1e-3\n", "GS0102", 3, 3),
        ("a:\n   b: 1\n  c: 2\n", "GS0102", 3, 3),
        ("a:\n  b: 1\n    c: 2\n", "GS0102", 3, 5),
        ("a:\n- b\nc: 1\n- d\n", "GS0102", 4, 1),
        ('a: "x" y\n', "GS0102", 1, 8),
        ('a: "x" |> f\n', "GS0102", 1, 8),
        ("a: x\n|> f\n", "GS0102", 2, 1),
        ("a: - b\n", "GS0102", 1, 4),
        ("a: ]\n", "GS0102", 1, 4),
        ("a: {b: 1,, c: 2}\n", "GS0102", 1, 10),
        ('a: "\\q"\n', "GS0102", 1, 5),
        ("a: *d * 2\n", "GS0103", 1, 4),
        ("a: *d, x\n", "GS0103", 1, 4),
        ("b:\n  - *d\n", "GS0103", 2, 5),
        ("<<: {a: 1}\n", "GS0103", 1, 1),
        ("a: &x\n  b: 1\n", "GS0103", 1, 4),
        ("a: !!python/object/apply:os.system [ls]\n", "GS0107", 1, 4),
        ("a: !foo!bar 1\n", "GS0107", 1, 4),
        ("a: 1\n%TAG ! x\n", "GS0108", 2, 1),
        ("a: x\0\n", "GS0110", 1, 5),
        ("a: x\rb: 1\n", "GS0110", 1, 5),
        ("\ufeffa: 1\n", "GS0110", 1, 1),
        ("a: x\u2028\n", "GS0110", 1, 5),
        ("a: \ud800\n", "GS0110", 1, 4),
        ("a: 1\n...\nb: 2\n", "GS0111", 3, 1),
        ("hello\n", "GS0112", 1, 1),
        ("a:1\n", "GS0112", 1, 1),
        ("", "GS0112", 1, 1),
        ("# only a comment\n", "GS0112", 1, 1),
        ("null: 1\n", "GS0113", 1, 1),
        ("a: {true: 1}\n", "GS0113", 1, 5),
        ("017: 1\n", "GS0113", 1, 1),
        ("? [a, b]\n: 1\n", "GS0113", 1, 3),
        ("a: {{b}}\n", "GS0113", 1, 5),
        (": 3\n", "GS0113", 1, 1),
        ("a: 'x\nb: 2\n", "GS0114", 1, 4),
        ("a: {b: 1\nc: 2\n", "GS0114", 1, 4),
        ("a: {b: [1, 2}\n", "GS0114", 1, 8),
        ("a:\n  b: 1\n\tc: 2\n", "GS0115", 3, 1),
        ("a: f(x): 2\n", "GS0116", 1, 8),
        ("a: f(x, y: 2)\n", "GS0116", 1, 10),
        ("a: {b: c: 1}\n", "GS0116", 1, 9),
        ("a: @x\n", "GS0117", 1, 4),
        ("a: * d\n", "GS0117", 1, 4),
        ("a: {x: |> f}\n", "GS0117", 1, 8),
        ("a: {b:1, c: 2}\n", "GS0118", 1, 5),
    ],
)
def test_mistakes_at_their_place(text: str, code: str, line: int, column: int) -> None:
    assert at(only(text)) == (code, line, column)


def test_edits_of_slips_with_colons() -> None:
    for text, after in [
        ("train:\n  lr:1e-3\n", "train:\n  lr: 1e-3\n"),
        ("a: f(x, y: 2)\n", "a: f(x, y=2)\n"),
        ("a: {b:1}\n", "a: {b: 1}\n"),
        ("a: 1\nb = 2\n", "a: 1\nb: 2\n"),
    ]:
        if text.startswith("train"):
            text, after = text + "  batch: 8\n", after + "  batch: 8\n"
        d = only(text)
        assert mended(text, d) == after


def test_all_independent_mistakes_come_in_one_run() -> None:
    text = (
        "%YAML 1.1\n---\ngraphspec: 1\nparams:\n  k: 017\n  k: 2\n  d: &x 3\ndoc: a: b\nlosses:\n"
        "  nll: {is: nll(a, b), w: 1}\n  l: |> f\ngraph:\n  y wave\n  z: *x\n"
    )
    assert [at(d) for d in mistakes(text)] == [
        ("GS0108", 1, 1),
        ("GS0105", 5, 6),
        ("GS0101", 6, 3),
        ("GS0103", 7, 6),
        ("GS0116", 8, 7),
        ("GS0104", 10, 13),
        ("GS0117", 11, 6),
        ("GS0102", 13, 3),
        ("GS0103", 14, 6),
    ]
    assert len(mistakes("".join(f"k{i}: 017\n" for i in range(100)))) == 20
