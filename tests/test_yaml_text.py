"""A document written down as YAML reads back to the same tree: texts, numbers, and expressions as they stand."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from graphspec.diagnostic import SpecError
from graphspec.document import Mapping, Node, Scalar, Sequence
from graphspec.reader import read_text
from graphspec.yaml_text import yaml_text

WORDS = st.from_regex(r"[A-Za-z0-9_.~-][A-Za-z0-9_ ,.()|>+*\[\]{}'\":#!&%@-]{0,14}", fullmatch=True).map(str.strip)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x1FFFF), max_size=8) | st.text(
    "ab\"'\\ \n:#[]{},", max_size=10
)
DOUBLE = TEXTS.map(lambda t: '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in t) + '"')
SINGLE = TEXTS.filter(str.isprintable).map(lambda t: "'" + t.replace("'", "''") + "'")
LEAVES = WORDS | DOUBLE | SINGLE
KEYS = st.lists(LEAVES | st.sampled_from(["a", "b.c", "graph"]), min_size=1, max_size=3, unique=True)
FLOWS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]")
        | st.lists(inner, max_size=3).map(lambda each: "{" + ", ".join(f"k{i}: {e}" for i, e in enumerate(each)) + "}")
    ),
    max_leaves=5,
)
BLOCK = st.tuples(
    st.sampled_from(["|", "|-", ">", "|+", ">-"]),
    st.lists(st.text("ab |\"'\\:#  ", max_size=8), min_size=1, max_size=3),
)
FOLDED = st.lists(st.sampled_from(["a", "b c", "f(x)", "|> g", "", "'q'"]), min_size=1, max_size=4)
TREES: st.SearchStrategy[Any] = st.recursive(
    FLOWS.map(lambda x: ("flow", x)) | BLOCK.map(lambda x: ("block", x)) | FOLDED.map(lambda x: ("folded", x)),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda x: ("list", x))
        | st.tuples(KEYS, st.lists(inner, min_size=3, max_size=3)).map(lambda p: ("map", p))
    ),
    max_leaves=6,
)


def source(kind: str, x: Any, indent: str = "") -> str:
    """The YAML of a drawn tree, from behind the colon or dash that it hangs on."""
    deeper = indent + "  "
    if kind == "flow":
        return f" {x}\n"
    if kind == "folded":
        return " " + f"\n{deeper}".join(x) + "\n"
    if kind == "block":
        return f" {x[0]}\n" + "".join(f"{deeper}{line}\n" for line in x[1])
    if kind == "map":
        return "\n" + "".join(f"{deeper}{k}:{source(*v, deeper)}" for k, v in zip(*x, strict=False))
    return "\n" + "".join(f"{deeper}-{source(*v, deeper)}" for v in x)


@settings(max_examples=400, deadline=None)
@given(st.tuples(KEYS, st.lists(TREES, min_size=3, max_size=3)))
def test_trees_read_back(root: Any) -> None:
    keys, values = root
    text = "".join(f"{k}:{source(*v)}" for k, v in zip(keys, values, strict=False))
    try:
        document = read_text("written", text)
    except SpecError:
        return
    again = yaml_text(document)
    assert_same(document.root, read_text("again", again).root)


def assert_same(a: Node, b: Node) -> None:
    assert type(a) is type(b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        assert [k.text for k, _ in a.items()] == [k.text for k, _ in b.items()]
        for (_, x), (_, y) in zip(a.items(), b.items(), strict=True):
            assert_same(x, y)
    elif isinstance(a, Sequence) and isinstance(b, Sequence):
        for x, y in zip(a.items, b.items, strict=True):
            assert_same(x, y)
    elif isinstance(a, Scalar) and isinstance(b, Scalar):
        if a.value is None:
            assert b.value is None
        elif a.plain and "\n" in a.text:  # an empty line in a plain scalar is white space to an expression
            assert a.text.split() == b.text.split()
        else:
            assert (a.text, a.value, type(a.value)) == (b.text, b.value, type(b.value))
            if a.content.text == a.text and "\n" not in a.text and a.text.isprintable():
                assert b.content.text == b.text, "an expression is read as it stands"
