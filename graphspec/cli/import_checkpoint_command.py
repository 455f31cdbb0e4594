"""graphspec import-checkpoint SPEC FILE [NAME=VALUE ...] [--out RUN] [--step exp|softplus]

A SaShiMi that the s4 repository trained becomes a run that `sample` and `eval` open.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graphspec.cli.load import check_spec, show
from graphspec.diagnostic import Findings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="of the same model: sashimi_modular for the published checkpoints")
    parser.add_argument("file", metavar="FILE", help="a state dict, .pt or .safetensors")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="sizes and data, as depth=6 data=FOLDER")
    parser.add_argument("--out", metavar="RUN", help="a name under runs/, or a path (default: the model's name)")
    parser.add_argument(
        "--step",
        choices=("exp", "softplus"),
        default="",
        help="how the file keeps the step (default: softplus where norms have two numbers, else exp)",
    )


def run(options: argparse.Namespace) -> int:
    findings = Findings()
    checked = check_spec(options.spec, options.overrides, findings)
    show(findings.all())
    import torch

    from graphspec.compiler.lower import lower
    from graphspec.runtime.import_checkpoint import check, imported, keep, read_state

    torch.set_num_threads(1)
    file = Path(options.file)
    model = lower(checked)
    found = imported(model, read_state(file), options.step)
    if checked.settings.numbers["precision"] == "f64":
        model.double()
    model.load_state_dict(found.tensors)
    for name, weight in model.weights().items():
        x = weight.detach()
        numbers = f"mean {float(x.mean()):.4g}  std {float(x.std(correction=0)):.4g}"
        print(f"{name}  {list(x.shape)}  {numbers}  {found.sources[name]}")
    told = check(model)
    made = keep(options.out or checked.spec.name, checked, options.spec, options.overrides, model, file, found.sources)
    count = sum(w.numel() for w in model.parameters())
    print(f"{count:,} weights; whole == step: {told}", file=sys.stderr)
    print(made.folder)
    return 0
