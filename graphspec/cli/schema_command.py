"""graphspec schema [--out FILE]: the JSON Schema of specs, for editors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from graphspec.diagnostic import fail
from graphspec.span import Source, Span


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write it there (default: print it); the first line of a spec names it to editors: "
        "# yaml-language-server: $schema=FILE",
    )


def run(options: argparse.Namespace) -> int:
    text = schema_text()
    if options.out is None:
        print(text, end="")
        return 0
    try:
        Path(options.out).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        argument = Source("<command line>", options.out)
        fail("GS0622", f"cannot write {options.out[:200]}: {error}", Span(argument, 0, len(options.out)))
    return 0


def schema_text() -> str:
    """The schema over the shipped ops, one key a line, so that a change of one op is a change of a few lines."""
    from graphspec.ops import catalogue
    from graphspec.runtime.declared import settings
    from graphspec.schema import schema

    return json.dumps(schema(catalogue(), settings()), indent=1) + "\n"
