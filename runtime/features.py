"""Features that a spec has computed once (`cache: true`): pitch, loudness, ... of whole recordings, kept on the disk.

A feature is known by what computes it and what it is computed of, both hashed: the same recording under another name
is found again, another hop or another tracker is not. The user's folders are not written to; what is kept lies in
$XDG_CACHE_HOME/graphspec/features (else ~/.cache), and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from functools import cache
from math import lcm
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import graphspec
from graphspec import ops
from graphspec.compiler.lower import alone
from graphspec.compiler.pipeline import Checked
from graphspec.compiler.running import Running
from graphspec.diagnostic import Diagnostic, SpecError, fail
from graphspec.graph import Value
from graphspec.runtime.checkpoint import write_atomic
from graphspec.runtime.data import Audio, Numbers, Piece
from graphspec.runtime.run import resolved

Warn = Callable[[Diagnostic], None]


def computed(
    checked: Checked, found: Mapping[str, Mapping[str, Piece]], forms: Mapping[str, Audio | Numbers], warn: Warn
) -> dict[str, dict[str, Piece]]:
    """For each cached feature its pieces `[frames, channels]`, float32, by the names of the recordings.

    found: the pieces of each input with data. Raises SpecError GS0681 where a feature is not finite.
    """
    graph = checked.graph
    out: dict[str, dict[str, Piece]] = {}
    for name, value in graph.cached.items():
        needed = graph.needed_for([value])
        read = [v.path for v in needed if v.is_input]
        absent = [n for n in read if n not in found]
        if absent:
            fail("GS0608", f"'{name}' is computed of '{absent[0]}', which has no data", value.span)
        told = "\n".join([graphspec.__version__, _sources(), *map(resolved, needed)])
        keys = [k for k in found[read[0]] if all(k in found[n] for n in read)]
        running = None
        out[name] = {}
        still: list[str] = []
        for key in keys:
            pieces = {n: found[n][key] for n in read}
            file = next(iter(pieces.values())).name
            digest = hashlib.sha256(told.encode())
            for n, piece in pieces.items():
                digest.update(f"\n{forms[n]} {piece.samples.dtype} {piece.samples.shape}\n".encode())
                digest.update(np.ascontiguousarray(piece.samples).tobytes())
            kept = folder() / f"{digest.hexdigest()}.npy"
            made = _read(kept)
            if made is None:
                running = running or alone(checked, [value])
                made = _made(checked, running, value, pieces, forms)
                if not np.isfinite(made).all():
                    frame = int(np.argwhere(~np.isfinite(made))[0][0])
                    fail("GS0681", f"'{name}' of {file} is not finite in frame {frame}", value.span)
                _keep(kept, made, warn)
            if len(made) > 1 and (made == made[0]).all():
                still.append(f"{file} ({', '.join(f'{v:.6g}' for v in made[0, :3])})")
            out[name][key] = Piece(file, made)
        if still:
            more = f" and {len(still) - 3} more" if len(still) > 3 else ""
            told = f"'{name}' never changes in {len(still)} of {len(keys)} recordings: {', '.join(still[:3])}{more}"
            warn(Diagnostic("GS0682", told, value.span, "warning"))
    return out


def folder() -> Path:
    """Where features are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphspec" / "features"


@torch.no_grad()
def _made(
    checked: Checked, running: Running, value: Value, pieces: Mapping[str, Piece], forms: Mapping[str, Audio | Numbers]
) -> NDArray[np.float32]:
    """Of as much of a recording as keeps the spec's `require`."""
    graph, inputs = checked.graph, {}
    for n, piece in pieces.items():
        length = graph.inputs[n].value.type.length
        whole = lcm(1, *(graph.facts.multiple(s) for s in length.symbols()))
        frames = piece.frames // whole * whole
        x = forms[n].tensor(piece.samples[:frames])[None]
        inputs[n] = x
    (y,) = running.evaluate([value], inputs)
    return np.ascontiguousarray(y[0].float().numpy())


def _read(path: Path) -> NDArray[np.float32] | None:
    """What is kept there; none if there is nothing that can be read."""
    try:
        made = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return made if isinstance(made, np.ndarray) and made.dtype == np.float32 else None


def _keep(path: Path, made: NDArray[np.float32], warn: Warn) -> None:
    held = io.BytesIO()
    np.save(held, made)
    try:
        write_atomic(path, held.getvalue())
    except SpecError as error:  # a full disk does not end a run that has what it needs
        for d in error.diagnostics:
            warn(Diagnostic(d.code, f"{d.message}; the feature is computed again next time", None, "warning"))


@cache
def _sources() -> str:
    """The hash of what computes: the source of all ops."""
    digest = hashlib.sha256()
    for path in sorted(Path(ops.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
