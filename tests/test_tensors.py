"""The tensor behind a Type, and the operands as a value's module is called with them."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from graphspec.cli.load import check_document
from graphspec.compiler.tensors import dtype_of, filled
from graphspec.dims import Dim
from graphspec.graph import Constant, Value
from graphspec.reader import read_text
from graphspec.types import BOOL, FLOAT, DType, Meaning, Type

INT = DType("int", 16)
DIST = Meaning("categorical", (16,), (16,), INT)
TIMED = {"dims": (Dim.symbol("T"), Dim.of(3)), "rate": Fraction(100)}


@pytest.mark.parametrize(
    "type_, dtype, shape",
    [
        (Type(FLOAT, **TIMED), torch.float64, (2, 5, 3)),
        (Type(BOOL, **TIMED), torch.bool, (2, 5, 3)),
        (Type(INT, **TIMED), torch.int64, (2, 5, 3)),
        (Type(FLOAT, **TIMED, meaning=DIST), torch.float64, (2, 5, 3, 16)),
        (Type(INT, **TIMED, meaning=DIST), torch.float64, (2, 5, 3, 16)),  # its parameters, not what it is over
        (Type(INT, (Dim.of(3),)), torch.int64, (2, 5, 3)),
    ],
    ids=str,
)
def test_what_is_filled_is_of_the_type(type_: Type, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    like = torch.empty(0, dtype=torch.float64)
    assert dtype_of(type_, torch.float64) == dtype
    made = filled(type_, 2, 5, 1, like)
    assert made.dtype == dtype and made.shape == shape and bool((made == 1).all())
    assert filled(type_, 2, 0, 0, like).shape == (2, 0, *shape[2:])


SPEC = """\
graphspec: 1
model: called
inputs:
  x: float[T, 4] @ 100
  y: float[T, 4] @ 100
graph:
  a: x |> attention(2, context=y, chunk=4)
  b: where(x > 0, y, 0.5)
outputs: [a, b]
"""


def test_operands_are_given_in_order_and_the_optional_ones_by_name() -> None:
    graph = check_document(read_text("called.yaml", SPEC), Path()).graph

    def told(i: int, o: Value | Constant) -> str:
        return f"{i} {o.path if isinstance(o, Value) else o.value}"

    found = {v.op.name: v.called(told) for v in graph.values if v.op is not None}
    assert found["attention"] == (["0 x"], {"context": "1 y"})
    assert found["where"][0][1:] == ["1 y", "2 0.5"] and not found["where"][1]
    (attention,) = (v.op for v in graph.values if v.op is not None and v.op.name == "attention")
    assert "context" in attention.optional and attention.optional is attention.optional
