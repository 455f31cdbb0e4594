"""graphspec eval RUN: the held-out recordings, scored whole with state carried."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from graphspec.cli.load import show
from graphspec.diagnostic import fail


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)


def run(options: argparse.Namespace) -> int:
    import torch

    from graphspec.cli.trained import open_model
    from graphspec.runtime import data as datasets
    from graphspec.runtime.score import rows, score, updates, whole_crops

    if options.threads:
        torch.set_num_threads(options.threads)

    def warn(d: Any) -> None:
        show([d])

    run_, model, folder = open_model(options.run, options.device, warn)
    data = datasets.load(model.checked, folder, warn)
    given = rows(data, options.part)
    if not given:
        fail("GS0613", f"there is no {options.part} file; held_out is 0", None)
    if why := whole_crops(model):
        print(f"{why}, so each crop of train.crop is scored by itself", file=sys.stderr)
    step = updates(run_) if "step" in model.graph.inputs else 0
    found = score(model, data, given, lambda name, row: print(f"{name}: {_told(row)}", flush=True), step)
    print(f"{options.part}, {len(given)} files: {_told(found)}")
    names = [next(iter(row.values())).name for row in given]
    (run_.folder / f"{options.part}.json").write_text(json.dumps({"files": names, **found}, indent=1))
    return 0


def _told(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
