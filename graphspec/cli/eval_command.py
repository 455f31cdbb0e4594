"""graphspec eval RUN [data=FOLDER] [--part PART] [--cross-channel] [--samples FOLDER]: held-out recordings, scored
whole with state carried, in bits a sample and channel."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import check_document, show
from graphspec.diagnostic import fail
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.compiler.pipeline import Checked
    from graphspec.runtime.cross_channel import Relation
    from graphspec.runtime.judge import Judgement
    from graphspec.runtime.run import Run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("overrides", nargs="*", metavar="data=FOLDER", help="other recordings than those of the run")
    parser.add_argument(
        "--part", choices=("test", "validation", "all"), default="test", help="which files (default: test)"
    )
    parser.add_argument(
        "--cross-channel",
        action="store_true",
        help="score each channel also beside channels of other recordings: what the model has learnt between them",
    )
    parser.add_argument("--seed", type=int, default=0, help="of which other recordings these are")
    parser.add_argument("--samples", metavar="FOLDER", help="compare generated files with the recordings, as sound")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)


def run(options: argparse.Namespace) -> int:
    import torch

    from graphspec.cli.trained import open_model
    from graphspec.runtime import data as datasets
    from graphspec.runtime.cross_channel import cross_channel
    from graphspec.runtime.judge import judge
    from graphspec.runtime.score import rows, score, updates, whole_crops

    if options.threads:
        torch.set_num_threads(options.threads)

    def warn(d: Any) -> None:
        show([d])

    run_, model, folder = open_model(options.run, options.device, warn)
    data = datasets.load(_with_data(run_, model.checked, folder, options.overrides), folder, warn)
    parts = ("train", "validation", "test") if options.part == "all" else (options.part,)
    given = [row for part in parts for row in rows(data, part)]
    if not given:
        fail("GS0613", f"there is no {options.part} file; held_out is 0", None)
    if why := whole_crops(model):
        print(f"{why}, so each crop of train.crop is scored by itself", file=sys.stderr)
    step = updates(run_) if "step" in model.graph.inputs else 0

    def tell(name: str, row: dict[str, float]) -> None:
        print(f"{name}: {_told(row)}", flush=True)

    found = score(model, data, given, tell, step, heads=True)
    print(f"{options.part}, {len(given)} files: {_told(found)}")
    names = [next(iter(row.values())).name for row in given]
    report: dict[str, Any] = {"files": names, **found}
    if options.overrides:
        report["data"] = options.overrides
    if options.cross_channel:
        relations = cross_channel(model, data, given, options.seed, step, lambda told: print(told, file=sys.stderr))
        _tell_relations(relations)
        report["cross_channel"] = [{**asdict(r), "difference": r.difference} for r in relations]
    if options.samples:
        judged = judge(Path(options.samples), data, [next(iter(row.values())) for row in given], warn)
        _tell_judgement(judged)
        report["samples"] = {"folder": options.samples, **asdict(judged)}
    (run_.folder / f"{options.part}.json").write_text(json.dumps(report, indent=1))
    return 0


def _with_data(run_: Run, checked: Checked, folder: Path, overrides: list[str]) -> Checked:
    """The spec with the data that the command line names, which is all that it may change: the weights are trained."""
    from graphspec.reader import read_file

    if not overrides:
        return checked
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name != "data" and not name.startswith("data."):
            span = Span(Source("<command line>", text), 0, len(text))
            fail("GS0664", f"'{name[:60]}' was settled when the run was trained; eval takes data=FOLDER", span)
    settled = [o for o in run_.config()["overrides"] if o.partition("=")[0].strip() != "data"]
    return check_document(read_file(run_.folder / "spec.yaml"), folder, [*settled, *overrides])


def _told(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in scores.items())


def _tell_relations(relations: list[Relation]) -> None:
    print("across channels, bits a sample:")
    for r in relations:
        error = f", standard error {r.error:.4f}" if r.error is not None else ""
        print(
            f"{r.head}[{r.channel}]: {r.own:.4f} with the others as they are, {r.shuffled:.4f} with them from "
            f"elsewhere: {r.difference:+.4f}{error}"
        )


def _tell_judgement(judged: Judgement) -> None:
    yardstick = f", of other recordings {judged.yardstick:.2f}" if judged.yardstick is not None else ""
    made, recorded = judged.frames
    print(
        f"samples, {len(judged.files)} files: log-mel-statistics Frechet distance {judged.distance:.2f}{yardstick} "
        f"({made} frames against {recorded})"
    )
    print("  ".join(f"{fault} {count}" for fault, count in judged.counts.items()))
    for name, found in judged.faults.items():
        print(f"{name}: {', '.join(found)}")
