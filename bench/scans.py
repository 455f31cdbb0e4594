"""The blocked scans against the loop over time they replace: forward and backward, CPU time, one thread, one process.

    python bench/scans.py [--ticks 16000] [--channels 64] [--repetitions 3]

Every row runs loop and scan in turn and compares medians, so that a loaded machine slows both. The loop is the one a
reader of the formula would write for speed: `unbind`, Python over time, `stack`; autograd does its backward. Error is
the largest difference to the float64 loop, over the largest value. The last columns: the bar a row has to clear.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from graphspec.ops.modules.companion import companion_scan
from graphspec.ops.modules.scan import affine_scan, constant_scan

Scan = Callable[[Tensor, Tensor, Tensor], Tensor]


def affine_loop(a: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    y, ys = y0, []
    for gain, drive in zip(a.unbind(1), b.unbind(1), strict=True):
        y = gain * y + drive
        ys.append(y)
    return torch.stack(ys, 1)


def constant_loop(a: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    y, ys = y0, []
    for drive in b.unbind(1):
        y = a * y + drive
        ys.append(y)
    return torch.stack(ys, 1)


def biquad_loop(c: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    (y2, y1), ys = y0.unbind(1), []
    c1, c2 = c.unbind(0)
    for drive in b.unbind(1):
        y2, y1 = y1, c1 * y1 + c2 * y2 + drive
        ys.append(y1)
    return torch.stack(ys, 1)


def varying_biquad_loop(c: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    (y2, y1), ys = y0.unbind(1), []
    c1, c2 = c.unbind(2)
    for first, second, drive in zip(c1.unbind(1), c2.unbind(1), b.unbind(1), strict=True):
        y2, y1 = y1, first * y1 + second * y2 + drive
        ys.append(y1)
    return torch.stack(ys, 1)


def seconds(scan: Scan, operands: tuple[Tensor, ...]) -> float:
    """CPU seconds of one forward and backward."""
    start = time.process_time()
    y = scan(*operands)
    torch.autograd.grad(y, operands, torch.ones_like(y))
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=16000)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    T, C, repetitions = arguments.ticks, arguments.channels, arguments.repetitions
    torch.set_num_threads(1)
    torch.manual_seed(0)
    radius, angle = 0.9 + 0.0999 * torch.rand(C), 3 * torch.rand(C)
    poles = torch.stack([2 * radius * torch.cos(angle), -radius.square()])
    drive, zero = torch.randn(1, T, C), torch.zeros(1, C)
    gains = 0.5 + 0.4999 * torch.rand(1, T, C)
    rows: list[tuple[str, Scan, Scan, tuple[Tensor, ...], int]] = [
        ("one-pole, varying", affine_loop, affine_scan, (gains, drive, zero), 40),
        ("one-pole, constant", constant_loop, constant_scan, (gains[0, 0], drive, zero), 80),
        ("biquad, constant", biquad_loop, companion_scan, (poles, drive, torch.zeros(1, 2, C)), 20),
        ("biquad, varying", varying_biquad_loop, companion_scan,
         (poles.expand(1, T, 2, C).contiguous(), drive, torch.zeros(1, 2, C)), 0),
    ]  # fmt: skip
    print(f"T = {T}, C = {C}, float32, forward and backward, CPU ms (medians of {repetitions} loops)")
    print(f"{'':20}{'loop':>9}{'scan':>9}{'ratio':>8}{'bar':>6}{'loop err':>11}{'scan err':>11}")
    missed = 0
    for name, loop, scan, values, bar in rows:
        with torch.no_grad():
            exact = loop(*(v.double() for v in values))
            errors = [((f(*values) - exact).abs().max() / exact.abs().max()).item() for f in (loop, scan)]
        operands = tuple(v.clone().requires_grad_() for v in values)
        seconds(scan, operands)
        loops, scans = [], []
        for _ in range(repetitions):
            loops.append(seconds(loop, operands))
            scans += [seconds(scan, operands) for _ in range(9)]
        slow, fast = statistics.median(loops), statistics.median(scans)
        missed += slow / fast < bar
        times = f"{slow * 1e3:9.1f}{fast * 1e3:9.1f}{slow / fast:8.1f}{bar or '-':>6}"
        print(f"{name:20}{times}{errors[0]:11.1e}{errors[1]:11.1e}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
