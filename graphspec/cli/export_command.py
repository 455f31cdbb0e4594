"""graphspec export RUN [KNOB=VALUE ...] --target pt2|onnx|aoti --out FOLDER [--entry NAME] [--rows N]

A model that feeds itself is exported as the stages of its sampler, any other as its step form for one block. A knob
that is given becomes an operand that may be set; the others are compiled in.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graphspec.cli.load import show
from graphspec.cli.playing import count, knob
from graphspec.diagnostic import did_you_mean, fail


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("overrides", nargs="*", metavar="KNOB=VALUE", help="knobs that stay settable in the files")
    parser.add_argument("--target", choices=("pt2", "onnx", "aoti"), required=True)
    parser.add_argument("--out", metavar="FOLDER", required=True, help="a folder that does not exist yet")
    parser.add_argument("--entry", metavar="NAME", help="one of the spec's entries (default: sample, if there is one)")
    parser.add_argument("--rows", type=count, default=1, help="of a batch; a file has one batch size (default 1)")


def run(options: argparse.Namespace) -> int:
    import torch

    from graphspec.cli.trained import open_model
    from graphspec.runtime.export import STEPS, export
    from graphspec.runtime.sample import Sampler
    from graphspec.runtime.score import updates

    torch.set_num_threads(1)
    run_, model, _ = open_model(options.run, "cpu", lambda d: show([d]))
    name = options.entry or ("sample" if "sample" in model.entries else "")
    if name and name not in model.entries:
        told = f"the spec has no entry '{name}'{did_you_mean(name, model.entries)}"
        fail("GS0627", told, None, notes=[f"it has: {', '.join(model.entries) or 'none'}"])
    view = model.entries[name] if name else model.outside_training
    knobs = dict(knob(text, model.graph.inputs) for text in options.overrides)
    if "step" in view.graph.inputs:
        knobs["step"] = float(updates(run_))

    def sampler() -> Sampler:
        return Sampler(model, options.rows, 0, knobs, entry=name, backend="auto")

    made = export(sampler if view.graph.feeds else None, view, options.target, Path(options.out), options.rows)
    files = len(made["stages"]) if made["kind"] == "sampler" else 1
    print(options.out)
    print(
        f"{files} {options.target} files, {len(made['states'])} states; run back over {STEPS} steps against the model",
        file=sys.stderr,
    )
    return 0
