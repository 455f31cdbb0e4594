"""`graphspec sample` of an entry that draws nothing: controls, or a recording they are computed of, to sound."""

from __future__ import annotations

import argparse
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import show
from graphspec.cli.playing import SOUND, files_of, form_of, knob, recording, write
from graphspec.diagnostic import Diagnostic, Fix, did_you_mean, fail

if TYPE_CHECKING:
    from graphspec.graph import Value


def rendered_entry(options: argparse.Namespace, model: Any) -> str | None:
    """The entry, where it is one that draws nothing; `render` where the spec has no `sample`."""
    name = options.entry
    if name == "sample" and name not in model.entries and "render" in model.entries:
        name = "render"
    view = model.entries.get(name)
    if view is None or view.graph.feeds:
        if options.input:
            others = [n for n, v in model.entries.items() if not v.graph.feeds]
            fixes = [Fix(f"name it: --entry {others[0]}")] if others else []
            fail("GS0629", f"--input is for an entry that draws nothing, and '{name}' is none", None, fixes=fixes)
        return None
    return str(name)


def render_it(options: argparse.Namespace, run: Any, model: Any, entry: str) -> int:
    """Write what the entry gives of --given and --input."""
    from graphspec.runtime.render import computed, render, wanted
    from graphspec.runtime.score import updates

    view = model.entries[entry]
    hears = wanted(view)
    knobs = dict(knob(text, view.graph.inputs) for text in options.overrides)
    if "step" in view.graph.inputs:  # a schedule stands where training left it
        knobs["step"] = float(updates(run))
    given: dict[str, Any] = {}
    for text in options.given:
        given |= _controls(text, hears, model)
    missing = [n for n in hears if n not in given]
    if options.input and missing:
        given |= computed(model, missing, _heard(options.input, model))
    given = _of_one_time(given, hears)
    forms = {n: form_of(n, v, model) for n, v in view.graph.outputs.items()}
    files = files_of(options, run.samples, forms)
    began = time.process_time()
    given = {n: x.expand(options.rows, *x.shape[1:]) for n, x in given.items()}
    made = render(model.eval(), view, given, knobs, options.seed)
    spent = time.process_time() - began
    for name, x in made.items():
        write(files[name], x.to("cpu"), name, view.graph.outputs[name], forms[name])
    seconds = max(float(x.shape[1] / view.graph.outputs[n].type.rate) for n, x in made.items())
    print(f"{seconds:.2f} s of '{entry}' in {spent:.1f} CPU seconds", file=sys.stderr)
    return 0


def _controls(text: str, hears: dict[str, Value], model: Any) -> dict[str, Any]:
    """NAME=FILE, or an .npz file with an array for each name."""

    name, equals, file = text.partition("=")
    if not equals and text.endswith(".npz"):
        return _archive(Path(text), hears)
    if not equals or name not in hears:
        told = f"'{name[:60]}' is not heard by this entry{did_you_mean(name, hears)}"
        fail("GS0629", told, None, notes=[f"heard are: {', '.join(hears) or 'none'}; --given NAME=FILE"])
    if file.endswith(".csv"):
        return {name: _table(Path(file), name, hears[name])}
    return {name: recording(Path(file), name, hears[name], model, 86_400)}


def _archive(path: Path, hears: dict[str, Value]) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {n: found[n] for n in found.files if n in hears}
    except (OSError, ValueError, EOFError) as error:
        fail("GS0652", f"'{path.name}' cannot be read as arrays of numbers: {str(error)[:120]}", None)
    if not arrays:
        fail("GS0629", f"'{path.name}' has none of {', '.join(hears)}", None)
    return {n: _fitting(a, path.name, n, hears[n]) for n, a in arrays.items()}


def _table(path: Path, name: str, value: Value) -> Any:
    """Frames as lines, channels as columns; a line of names may come first."""
    import numpy as np

    try:
        lines = path.read_text().splitlines()
        head = bool(lines) and any(c.isalpha() and c not in "eEnaif" for c in lines[0])
        array = np.loadtxt(lines[head:], delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        fail("GS0652", f"'{path.name}' cannot be read as a table of numbers: {str(error)[:120]}", None)
    return _fitting(array, path.name, name, value)


def _fitting(array: Any, file: str, name: str, value: Value) -> Any:
    """`[1, frames, ...]` of what fits the type. Raises GS0653."""
    import torch

    sizes = [d.as_int() for d in value.type.after_time]
    array = array[:, None] if array.ndim == 1 and sizes == [1] else array
    array = array[0] if array.ndim == len(sizes) + 2 and len(array) == 1 else array
    if list(array.shape[1:]) != sizes or not len(array):
        wanted = ", ".join(["frames", *map(str, sizes)])
        fail("GS0653", f"'{name}' of '{file}' has shape {list(array.shape)}, and is [{wanted}]", None)
    kind = {"int": torch.int64, "bool": torch.bool}.get(value.type.dtype.kind, torch.float32)
    return torch.from_numpy(array.copy()).to(kind)[None]


def _heard(file: str, model: Any) -> dict[str, Any]:
    """The recording as the spec's input of sound, as long as its `require` can take."""

    inputs = {n: i.value for n, i in model.graph.inputs.items() if (i.value.type.rate or 0) >= SOUND}
    if len(inputs) != 1:
        fail("GS0629", f"--input is for a spec with one input of sound; this has {len(inputs)}", None)
    (name, value) = next(iter(inputs.items()))
    x = recording(Path(file), name, value, model, 86_400)
    whole = 1
    for symbol in value.type.length.symbols():
        whole = model.graph.facts.multiple(symbol)
    if x.shape[1] < whole:
        fail("GS0629", f"the recording has {x.shape[1]} samples; the spec wants a multiple of {whole}", None)
    return {name: x[:, : x.shape[1] // whole * whole]}


def _of_one_time(given: dict[str, Any], hears: dict[str, Value]) -> dict[str, Any]:
    """As much of each as all of them have; tells of what is left out, if it is more than a frame."""
    if not given:
        return given
    rates = {n: hears[n].type.rate or Fraction(1) for n in given}
    lasts = {n: x.shape[1] / rates[n] for n, x in given.items()}
    short, long = min(lasts, key=lambda n: lasts[n]), max(lasts, key=lambda n: lasts[n])
    if lasts[long] - lasts[short] > 1 / min(rates.values()):
        told = f"'{long}' lasts {float(lasts[long]):.4g} s and '{short}' {float(lasts[short]):.4g} s"
        notes = tuple(
            f"a frame of '{n}' is {float(1000 / rates[n]):.4g} ms; {given[n].shape[1]} are given" for n in (long, short)
        )
        show([Diagnostic("GS0683", f"{told}: what is beyond is left out", None, "warning", notes=notes)])
    return {n: x[:, : int(lasts[short] * rates[n])] for n, x in given.items()}
