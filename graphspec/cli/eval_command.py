"""graphspec eval RUN [data=FOLDER]: the held-out recordings, scored whole with state carried."""

from __future__ import annotations

import argparse
import json
from typing import Any

from graphspec.cli.load import show


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)


def run(options: argparse.Namespace) -> int:
    import torch

    from graphspec.cli.trained import open_model
    from graphspec.runtime import data as datasets
    from graphspec.runtime.score import score

    if options.threads:
        torch.set_num_threads(options.threads)

    def warn(d: Any) -> None:
        show([d])

    run_, model, folder = open_model(options.run, options.device, warn)
    data = datasets.load(model.checked, folder, warn)
    pieces = data.test if options.part == "test" else data.validation
    found = score(
        model,
        data,
        pieces,
        lambda name, row: print(f"{name}: " + "  ".join(f"{k} {v:.4f}" for k, v in row.items()), flush=True),
    )
    print(f"{options.part}, {len(pieces)} files: " + "  ".join(f"{k} {v:.4f}" for k, v in found.items()))
    (run_.folder / f"{options.part}.json").write_text(
        json.dumps({"files": [p.name for p in pieces], **found}, indent=1)
    )
    return 0
