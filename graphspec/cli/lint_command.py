"""graphspec lint SPEC [PARAM=VALUE ...]"""

from __future__ import annotations

import argparse

from graphspec.cli.load import check_spec, show
from graphspec.diagnostic import Findings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a path (with / or .yaml), or the name of a shipped spec")
    parser.add_argument(
        "overrides", nargs="*", metavar="NAME=VALUE", help="a param (d=128) or a dotted path (train.batch=8)"
    )
    parser.add_argument("--format", choices=("human", "json"), default="human")


def run(options: argparse.Namespace) -> int:
    findings = Findings()
    checked = check_spec(options.spec, options.overrides, findings)
    if options.format == "json":
        show(findings.all(), "json")
        return 0
    show(findings.all())
    proven = [a.name for a in checked.graph.assertions]
    print(
        f"{checked.spec.name}: {len(checked.graph.values)} values, no errors"
        + (f"; causal: {', '.join(proven)} proven" if proven else "")
    )
    return 0
