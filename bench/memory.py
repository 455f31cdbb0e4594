"""Peak memory and CPU time of a training step against the length of its crop, with and without `train.recompute`.

Each measurement runs in a process of its own (a peak never goes down), one thread, batch 1.

    python bench/memory.py sashimi --lengths 8192 16000 65536 131072
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

from graphspec.cli.load import compile_spec
from graphspec.compiler.lower import Model
from graphspec.runtime.terms import Terms


def step(model: Model, length: int, recompute: bool, precision: str) -> float:
    """CPU seconds of forward, backward and an AdamW update on random classes `[1, length, C]`."""
    torch.manual_seed(0)
    inputs = {}
    for name, declared in model.graph.inputs.items():
        v = declared.value
        if v.type.timed:
            shape = (1, length, *(int(d.as_int() or 1) for d in v.type.dims[1:]))
            inputs[name] = torch.randint(v.type.dtype.classes or 2, shape)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    terms = Terms(model.graph)
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found = model(inputs, {}, recompute)
    _, total = terms.means(found, {})
    total.backward()
    optimizer.step()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 16000, 65536])
    parser.add_argument("--precision", nargs="+", default=["f32"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        length, recompute, precision = arguments.one
        model = compile_spec(arguments.spec)
        step(model.train(), 256, recompute == "1", precision)  # forms are made once
        seconds = step(model, int(length), recompute == "1", precision)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        told = f"{precision} L={length:>7} recompute={'yes' if recompute == '1' else 'no '}"
        print(f"{told} {peak:6.2f} GB {seconds:7.1f} CPU s", flush=True)
        return
    for length in arguments.lengths:
        for precision in arguments.precision:
            for recompute in "01":
                one = ["--one", str(length), recompute, precision]
                subprocess.run([sys.executable, __file__, arguments.spec, *one], check=True)


if __name__ == "__main__":
    main()
