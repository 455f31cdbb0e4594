"""Loops written in YAML beside what they replace, paired in one run: CPU seconds, one thread, forward and backward.

`python bench/loops.py [--rounds N]`: a gated micro-RNN (T=1000, B=16, H=64) against nn.GRU, and a one-pole and a biquad
(T=16000, C=64) against the same recurrence as a Python loop over `unbind` and `stack`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from graphspec.cli.load import check_document
from graphspec.compiler.lower import Model, lower
from graphspec.reader import read_text

HEAD = "graphspec: 1\nmodel: loops\ninputs:\n  x: float[T, 64] @ 16000\n"
MICRO = """\
graph:
  z: sigmoid(linear(x, 64) + linear(h[t-1], 64, bias=false))
  h: z * h[t-1] + (1 - z) * tanh(linear(x, 64) + linear(h[t-1], 64, bias=false))
outputs: [h]
"""
ONE_POLE = "graph:\n  a: sigmoid(param([64], init=2.0))\n  y: a * y[t-1] + (1 - a) * x\noutputs: [y]\n"
VARYING = "graph:\n  a: sigmoid(x)\n  y: a * y[t-1] + (1 - a) * x\noutputs: [y]\n"
BIQUAD = "graph:\n  y: 0.07 * x + 1.14 * y[t-1] - 0.41 * y[t-2]\noutputs: [y]\n"


def model(text: str) -> Model:
    return lower(check_document(read_text("loops.yaml", HEAD + text), Path()))


def spent(run: Callable[[], Tensor]) -> float:
    began = time.process_time()
    run().sum().backward()
    return time.process_time() - began


def looped(a: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """One-pole by hand."""
    gains, y, out = a(x), torch.zeros_like(x[:, 0]), []
    for g, b in zip(gains.expand_as(x).unbind(1), ((1 - gains) * x).unbind(1), strict=True):
        y = g * y + b
        out.append(y)
    return torch.stack(out, 1)


def twice(x: Tensor) -> Tensor:
    """The biquad by hand."""
    y1 = y2 = torch.zeros_like(x[:, 0])
    out = []
    for b in x.unbind(1):
        y1, y2 = 0.07 * b + 1.14 * y1 - 0.41 * y2, y1
        out.append(y1)
    return torch.stack(out, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    notes = torch.randn(16, 1000, 64, requires_grad=True)
    long = torch.randn(1, 16000, 64, requires_grad=True)
    gru = torch.nn.GRU(64, 64, batch_first=True)
    micro, constant, varying, biquad = (model(t) for t in (MICRO, ONE_POLE, VARYING, BIQUAD))
    pole = torch.nn.Parameter(torch.full((64,), 2.0))
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "micro-RNN / nn.GRU": (lambda: micro({"x": notes})["h"], lambda: gru(notes)[0]),
        "loop / one-pole, constant": (
            lambda: looped(lambda x: torch.sigmoid(pole), long),
            lambda: constant({"x": long})["y"],
        ),
        "loop / one-pole, varying": (lambda: looped(torch.sigmoid, long), lambda: varying({"x": long})["y"]),
        "loop / biquad": (lambda: twice(long), lambda: biquad({"x": long})["y"]),
    }
    for name, (first, second) in pairs.items():
        spent(second)
        each = [(spent(first), spent(second)) for _ in range(rounds)]
        a, b = (statistics.median(side) for side in zip(*each, strict=True))
        ratios = sorted(x / y for x, y in each)
        print(f"{name:28} {a:7.3f} s {b:7.3f} s  {a / b:6.2f}x  ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
