"""graphspec verify SPEC [NAME=VALUE ...]: that both forms of this very spec agree, and time is as proven."""

from __future__ import annotations

import argparse

from graphspec.cli.load import check_spec, show
from graphspec.diagnostic import Findings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a path (with / or .yaml), or the name of a shipped spec")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="a smaller model is verified faster: d=16")
    parser.add_argument("--ticks", type=int, default=64, help="of the fastest input (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, inputs and cuts (default 0)")


def run(options: argparse.Namespace) -> int:
    findings = Findings()
    checked = check_spec(options.spec, options.overrides, findings)
    show(findings.all())
    from graphspec.compiler.lower import lower
    from graphspec.runtime.verify import verify

    model = lower(checked, seed=options.seed)
    for found in verify(model, max(2, options.ticks), options.seed):
        print(f"holds: {found.promise}: {found.told}", flush=True)
    return 0
