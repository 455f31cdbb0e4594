"""graphspec compile SPEC [PARAM=VALUE ...] [-o FOLDER]"""

from __future__ import annotations

import argparse
from pathlib import Path

from graphspec.cli.load import check_spec, show
from graphspec.diagnostic import Findings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a path (with / or .yaml), or the name of a shipped spec")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="a param (d=128) or a dotted path")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="write the report, both forms, the graph and diagrams")


def run(options: argparse.Namespace) -> int:
    findings = Findings()
    checked = check_spec(options.spec, options.overrides, findings)
    show(findings.all())
    from graphspec.compiler.lower import meta
    from graphspec.compiler.report import files, report
    from graphspec.runtime.checkpoint import write_atomic

    model = meta(checked)
    if options.output is None:
        print(report(model), end="")
        return 0
    folder = Path(options.output)
    made = dict(files(model))  # all of them, before the first is written
    for name, text in made.items():
        write_atomic(folder / name, text.encode("utf-8", "backslashreplace"))
    print(made["report.txt"], end="")
    return 0
