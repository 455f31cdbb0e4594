"""The blocks of std/ddsp against goldens, loops written out, and their own schedules."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphspec.cli.load import check_document
from graphspec.compiler.lower import Model, lower
from graphspec.reader import read_text

torch.set_num_threads(1)
GOLDEN = {k: torch.from_numpy(v) for k, v in np.load(Path(__file__).parent / "goldens" / "recurrences.npz").items()}
FRAMES = 250  # a second


def block(stage: str) -> Model:
    """The stage on three channels, in float64."""
    text = (
        f"graphspec: 1\nmodel: block\nuse: [std/ddsp]\ninputs:\n  x: f32[T, 3] @ {FRAMES}\n"
        f"graph:\n  y: x |> {stage}\noutputs: [y]\n"
    )
    return lower(check_document(read_text("block.yaml", text), Path())).double()


def run(m: Model, x: Tensor, **knobs: float) -> Tensor:
    given = {n: torch.full((1,), v, dtype=torch.float64) for n, v in knobs.items()}
    with torch.no_grad():
        return m({"x": x[None], **given})["y"][0]


def test_micro_rnn_is_the_golden_one() -> None:
    m = block("micro_rnn(4)")
    by = {n.removeprefix("y.micro_rnn."): w for n, w in m.weights().items()}
    names = {"z.linear": "Wz", "z.linear_2": "Uz", "h.linear": "Wx", "h.linear_2": "Uh"}
    assert set(by) == {*(f"{n}.weight" for n in names), "z.linear.bias", "h.linear.bias"}
    with torch.no_grad():
        for name, golden in names.items():
            by[f"{name}.weight"].copy_(GOLDEN[f"micro_{golden}"])
        by["h.linear.bias"].zero_()
        by["z.linear.bias"].fill_(-1.0)  # takes back `hold`
    assert (run(m, GOLDEN["micro_x"]) - GOLDEN["micro_h_nobias"]).abs().max() < 1e-9


def test_mix_fades_at_equal_power() -> None:
    x = GOLDEN["x"]
    for level, a, b in ((1.0, 1.0, 0.0), (0.5, 0.5**0.5, 0.5**0.5), (0.0, 0.0, 1.0)):
        y = run(block(f"mix(square(x), 0*sum(x, axis=-1) + {level})"), x)
        assert (y - (a * x + b * x.square())).abs().max() < 1e-12


@pytest.mark.parametrize("coefficient", ["fixed", "learned"])
def test_one_pole_smooth_begins_with_its_first_value(coefficient: str) -> None:
    x, cutoff = GOLDEN["x"], 6.0
    y = run(block(f'one_pole_smooth({FRAMES}, {cutoff}, "{coefficient}")'), x)
    a, held, want = math.exp(-2 * math.pi * cutoff / FRAMES), x[0], []
    for now in x:
        held = a * held + (1 - a) * now
        want.append(held)
    tolerance = 1e-9 if coefficient == "fixed" else 1e-7  # a weight begins in float32
    assert (y - torch.stack(want)).abs().max() < tolerance
    assert torch.equal(y[0], x[0])


def test_a_learned_corner_is_one_for_each_channel() -> None:
    m = block(f'one_pole_smooth({FRAMES}, 4.0, "learned")')
    (weight,) = m.weights().values()
    corners = torch.tensor([1.0, 5.0, 40.0], dtype=torch.float64)
    with torch.no_grad():
        weight.copy_(corners.log())
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    apart = [run(block(f"one_pole_smooth({FRAMES}, {float(c)})"), x)[:, i] for i, c in enumerate(corners)]
    assert (run(m, x) - torch.stack(apart, -1)).abs().max() < 1e-9
    m({"x": x[None]})["y"].square().sum().backward()
    assert weight.grad is not None and weight.grad.abs().min() > 1e-4


@pytest.mark.parametrize("smooth", [f"one_pole_smooth({FRAMES}, ", "biquad_smooth("])
def test_a_scheduled_corner_moves_to_its_end(smooth: str) -> None:
    m = block(f'{smooth}4.0, "scheduled", 40.0, 1000)')
    for step, corner in ((0, 40.0), (500, 22.0), (1000, 4.0), (5000, 4.0)):
        want = run(block(f"{smooth}{corner})"), GOLDEN["x"])
        assert (run(m, GOLDEN["x"], step=step) - want).abs().max() < 1e-9


def test_biquad_smooth_is_butterworths_and_begins_at_rest_there() -> None:
    """Bilinear, of second order, as if its first value had always been; at the corner 3 dB down."""
    x, cutoff = GOLDEN["x"], 20.0
    w = 2 * math.pi * cutoff / FRAMES
    alpha, cos = math.sin(w) * math.sqrt(0.5), math.cos(w)
    b = [(1 - cos) / 2, 1 - cos, (1 - cos) / 2]
    a = [1 + alpha, -2 * cos, 1 - alpha]
    before, past, want = [x[0], x[0]], [x[0], x[0]], []
    for now in x:
        y = (b[0] * now + b[1] * before[0] + b[2] * before[1] - a[1] * past[0] - a[2] * past[1]) / a[0]
        before, past = [now, before[0]], [y, past[0]]
        want.append(y)
    m = block(f"biquad_smooth({cutoff})")
    assert (run(m, x) - torch.stack(want)).abs().max() < 1e-9
    tone = torch.sin(w * torch.arange(2000, dtype=torch.float64))[:, None].expand(2000, 3)
    passed = run(m, tone)[1000:].square().mean().sqrt() / tone[1000:].square().mean().sqrt()
    assert abs(20 * math.log10(float(passed)) + 3.01) < 0.02
