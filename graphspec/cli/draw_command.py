"""graphspec draw SPEC [PARAM=VALUE ...] [--format mermaid|dot] [--detail named|full] [-o FILE]"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from graphspec.cli.load import check_spec, show
from graphspec.diagnostic import Findings, fail


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a path (with / or .yaml), or the name of a shipped spec")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="a param (d=128) or a dotted path")
    parser.add_argument("--format", choices=("mermaid", "dot"), default="mermaid")
    parser.add_argument("--detail", choices=("named", "full"), default="named", help="the names of graph:, or every op")
    parser.add_argument("-o", "--output", metavar="FILE", help="write there (default: standard output)")


def run(options: argparse.Namespace) -> int:
    findings = Findings()
    checked = check_spec(options.spec, options.overrides, findings)
    from graphspec.compiler.diagram import dot, mermaid

    show(findings.all())
    draw = dot if options.format == "dot" else mermaid
    text = draw(checked.graph, checked.time, options.detail)
    if options.output is None:
        print(text, end="")
    else:
        _write(Path(options.output), text)
    return 0


def _write(path: Path, text: str) -> None:
    """The whole file or nothing. (The checkpoints' own write_atomic would import torch.)"""
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not path.is_file():  # a pipe, /dev/stdout
            path.write_text(text, encoding="utf-8")
            return
        part.unlink(missing_ok=True)  # were it a link, the text would go where it points
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        fail("GS0622", f"cannot write {path}: {error}", None)
