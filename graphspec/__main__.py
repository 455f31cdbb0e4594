"""The command line: `graphspec COMMAND`. Each command is a small file under cli/, imported only when it is called."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from typing import Any

COMMANDS = {
    "lint": "check a spec: shapes, rates, causality; says what is wrong and how to mend it",
    "compile": "report values, parameters and cost; write both forms, the graph and diagrams",
    "draw": "the diagram of a spec, as Mermaid or DOT",
    "resolve": "the spec with all that it extends; --why KEY tells where a value comes from",
    "explain": "what a diagnostic code means, with an example",
    "schema": "the JSON Schema of specs, for editors",
    "latency": "how late a stream of it is, where that comes from, and what would save most",
    "verify": "run both forms of a spec against each other, and against what was proven of time",
    "data": "prepare recordings: channels mixed, split or kept, resampled; goes on where it was stopped",
    "train": "train a spec",
    "sweep": "train a grid of settings, and compare them on one page",
    "eval": "score a run on the held-out recordings, whole",
    "plot": "a page of a run: values over time, spectrograms of target and output, losses",
    "compare": "runs side by side: the settings that differ, last and best values, a page of their curves",
    "stream": "sound through a trained model, block by block, with its real-time factor",
    "sample": "make sound with a trained run",
    "export": "write a trained run's step as .pt2, ONNX or a compiled package, its states named",
    "import-checkpoint": "weights that the s4 repository trained, checked, as a run of a spec",
}

SHORT = ("lint", "draw", "resolve", "explain", "schema", "latency", "compare")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code (0 fine, 1 errors in the user's files, 2 usage, 70 our fault)."""
    parser = argparse.ArgumentParser(
        prog="graphspec", description="Audio models as YAML graphs: proved, trained, sampled."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    argv = sys.argv[1:] if argv is None else argv
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:  # only the command that is called is imported
            _command(name).arguments(sub)
    options, rest = parser.parse_known_args(argv)
    if rest:  # NAME=VALUE may stand anywhere among the options
        if not hasattr(options, "overrides") or any(r.startswith("-") or "=" not in r for r in rest):
            parser.error(f"not understood: {' '.join(rest)}")
        options.overrides = [*options.overrides, *rest]
    return _guarded(_command(options.command), options)


def _command(name: str) -> Any:
    return importlib.import_module(f"graphspec.cli.{name.replace('-', '_')}_command")


def _guarded(command: object, options: argparse.Namespace) -> int:
    from graphspec.cli.load import failed
    from graphspec.diagnostic import SpecError

    try:
        return command.run(options)  # type: ignore[attr-defined]
    except SpecError as error:
        return failed(error, getattr(options, "format", "human"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # a fault of ours: said in one line, the trace on request
        if os.environ.get("GRAPHSPEC_TRACEBACK"):
            raise
        print(
            f"error[GS0900]: graphspec failed: {type(error).__name__}: {str(error)[:300]}\n"
            "  = note: this is our fault, not the spec's; GRAPHSPEC_TRACEBACK=1 shows where",
            file=sys.stderr,
        )
        return 70


def run() -> None:
    """The command of a process of its own."""
    if sys.argv[1:2] and sys.argv[1] in SHORT:
        gc.disable()  # a fraction of a second and a few MB: collecting cycles would only cost time
    sys.exit(main())


if __name__ == "__main__":
    run()
