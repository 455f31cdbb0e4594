"""graphspec: audio models written as YAML graphs. A lazy face: importing it loads nothing else."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "compile":
        from graphspec.cli.load import compile_spec

        return compile_spec
    raise AttributeError(f"module 'graphspec' has no attribute {name!r}")
