"""A trained run as a model with its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import check_document, spec_path
from graphspec.diagnostic import fail
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.compiler.lower import Model
    from graphspec.runtime.run import Run


def usable_device(name: str) -> str:
    """The device, if torch has it here."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        source = Source("<command line>", name)
        fail("GS0631", f"the device '{name[:30]}' cannot be used: {reason}", Span(source, 0, len(name)))
    return name


def open_model(name: str, device: str, warn: Callable[[Any], None]) -> tuple[Run, Model, Path]:
    """(run, model with its newest weights, the folder where the spec's data paths start)."""
    from graphspec.compiler.lower import lower
    from graphspec.reader import read_file
    from graphspec.runtime.run import open_run
    from graphspec.runtime.train import load_weights

    run = open_run(name)
    config = run.config()
    folder = spec_path(config["spec"]).parent
    checked = check_document(read_file(run.folder / "spec.yaml"), folder, config["overrides"])
    model = lower(checked, device=usable_device(device))
    load_weights(model, run, warn)
    model.eval()
    return run, model, folder
