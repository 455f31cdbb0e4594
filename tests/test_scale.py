"""Large specs: 20,000 values are checked and lowered. How long it takes is for bench/lint_scale.py to say."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from scale import spec

from graphspec.cli.load import check_document
from graphspec.compiler.lower import lower
from graphspec.reader import read_text


def calls(values: int) -> Counter[str]:
    """How often each Python function is entered while a spec of this size is checked: a clock that no load disturbs."""
    document = read_text("big.yaml", spec(values))
    found: Counter[str] = Counter()

    def profile(frame: object, event: str, arg: object) -> None:
        if event == "call":
            found[frame.f_code.co_qualname] += 1  # type: ignore[attr-defined]

    check_document(document, Path(__file__).parent)  # what is cached once is cached now
    document = read_text("big.yaml", spec(values))
    sys.setprofile(profile)
    try:
        check_document(document, Path(__file__).parent)
    finally:
        sys.setprofile(None)
    return found


def test_checking_is_linear_in_the_values() -> None:
    small, large = calls(150), calls(600)
    total = large.total() / small.total()
    assert total < 4.6, f"4 times the values are {total:.1f} times the calls"
    worst = max((n for n in large if large[n] > 5000), key=lambda n: large[n] / max(1, small[n]))
    assert large[worst] / max(1, small[worst]) < 5.5, f"{worst}: {small[worst]} calls, then {large[worst]}"


@pytest.mark.full
def test_twenty_thousand_values_are_checked_lowered_and_run() -> None:
    checked = check_document(read_text("big.yaml", spec(19_990)), Path(__file__).parent)
    assert len(checked.graph.values) >= 19_900
    model = lower(checked)
    assert len(model.whole.graph.nodes) >= 19_900
    (y,) = model({"wave": torch.randn(1, 16, 4)}).values()
    assert y.isfinite().all()
