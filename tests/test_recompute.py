"""train.recompute: the same numbers from less memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from graphspec.cli.load import check_document, compile_spec
from graphspec.compiler.lower import Model, lower
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text
from graphspec.runtime.forward import training_noise

LOOPED = """\
graphspec: 1
model: looped
inputs:
  x: float[T, 4] @ 100
graph:
  a: x |> linear(8) |> dropout(0.5) |> tanh
  parts: a |> split(u=4, v=4)
  y: 0.9 * y[t-1] + parts.u
  b: parts.v |> gru(6) |> linear(4)
  z: (y + b + x) |> linear(16) |> gelu |> linear(4)
losses:
  fit: l2(z, x)
outputs: [z]
"""


def small(spec: str) -> Model:
    return compile_spec(spec, ["d=8", "depth=2", "state=4"]).double().train()


def looped() -> Model:
    return lower(check_document(read_text("looped.yaml", LOOPED), Path())).double().train()


def run(model: Model, inputs: dict[str, Tensor], recompute: bool) -> tuple[dict[str, Tensor], int]:
    """Gradients by name, and how many bytes were kept for backward besides the weights."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(x: Tensor) -> Tensor:
        s = x.untyped_storage()
        if s.data_ptr() not in own:
            kept[s.data_ptr()] = s.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        found = model(inputs, training_noise(model, inputs, 3, 0), recompute)
        total = sum(x.mean() for n, x in found.items() if n.startswith("losses."))
    size = sum(kept.values())
    model.zero_grad()
    total.backward()
    return {n: p.grad.clone() for n, p in model.weights().items() if p.grad is not None}, size


@pytest.mark.parametrize("spec", ["sashimi_small", "looped"])
def test_gradients_are_the_same_and_less_is_kept(spec: str) -> None:
    model = looped() if spec == "looped" else small(spec)
    torch.manual_seed(1)
    if spec == "looped":
        inputs = {"x": torch.randn(2, 64, 4, dtype=torch.float64)}
    else:
        inputs = {"wave": torch.randint(256, (2, 512, 1))}
    plain, much = run(model, inputs, False)
    again, little = run(model, inputs, True)
    assert plain.keys() == again.keys() and len(plain) == len(model.weights())
    for name, g in plain.items():
        assert torch.allclose(g, again[name], rtol=1e-12, atol=1e-12), name
    assert little < 0.6 * much, f"{little} of {much} bytes are kept"


def test_what_fails_inside_a_piece_is_told_with_its_value() -> None:
    model = looped()
    with pytest.raises(SpecError) as caught:
        model({"x": torch.randn(2, 64, 4)}, {}, True)  # float32 where the weights are float64
    (d,) = caught.value.diagnostics
    assert d.code == "GS0901" and "a.linear" in d.message
