"""What a trained cell of a sweep is asked once: its size, the time of its passes, and what it sounds like."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphspec.compiler.lower import Model
from graphspec.runtime.audio import write_wav
from graphspec.runtime.data import Audio, Dataset, crop_lengths
from graphspec.runtime.dump import evaluated, first_crop, output_sounds
from graphspec.runtime.forward import training_forward, training_noise, with_step
from graphspec.runtime.terms import Terms

REPEATS = 3
PATIENCE = 20.0  # seconds, after which no pass is repeated


def timed_passes(model: Model, data: Dataset) -> dict[str, float]:
    """`forward_seconds` and `backward_seconds` of one micro-batch, the shortest of a few; `parameters`."""
    n = model.checked.settings.numbers
    like = next(model.parameters())
    drawn = data.batches(crop_lengths(model.checked), n["batch"], n["seed"], 0)
    crops = {k: x.to(like.device, like.dtype) if x.is_floating_point() else x.to(like.device) for k, x in drawn.items()}
    inputs = with_step(model, crops, 0)
    noise = training_noise(model, inputs, n["seed"], 0)
    terms = Terms(model.graph)
    model.train()
    each: list[tuple[float, float]] = []
    began = _now(like)
    while len(each) <= REPEATS and (not each or _now(like) - began < PATIENCE):  # the first one warms up
        model.zero_grad(set_to_none=True)
        start = _now(like)
        _, total = terms.means(training_forward(model, inputs, noise, n["precision"], n["recompute"]), {})
        middle = _now(like)
        total.backward()
        each.append((middle - start, _now(like) - middle))
    model.zero_grad(set_to_none=True)
    forward, backward = zip(*(each[1:] or each), strict=True)
    size = sum(p.numel() for p in model.parameters())
    return {"parameters": size, "forward_seconds": min(forward), "backward_seconds": min(backward)}


def sounds(model: Model, data: Dataset, folder: Path, name: str, slowest: float, step: int) -> dict[str, Path]:
    """WAV files of the first validation crop: each output that is sound, beside each input that is. None without one.

    slowest: Hz, below which nothing is sound. Returns the files by what they are.
    """
    heard = output_sounds(model, slowest)
    if not heard:
        return {}
    crop = first_crop(model, data)
    arrays, _ = evaluated(model, heard, crop, seed=model.checked.settings.numbers["seed"], step=step)
    found: dict[str, tuple[Any, int]] = {}
    for track in data.tracks.values():
        if isinstance(track.audio, Audio):
            decoded = track.audio.decode(crop[track.input][0].cpu())
            found[f"{track.input} (target)"] = (decoded, track.audio.rate)
    found |= {n: (arrays[n], int(v.type.rate or 0)) for n, v in heard.items() if (v.type.rate or 0).denominator == 1}
    return {title: _written(folder / f"{name}.{i}.wav", x, rate) for i, (title, (x, rate)) in enumerate(found.items())}


def _written(path: Path, sound: Any, rate: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, np.nan_to_num(np.asarray(sound, dtype=np.float32)), rate)
    return path


def _now(like: torch.Tensor) -> float:
    if like.device.type == "cuda":
        torch.cuda.synchronize(like.device)
    return time.perf_counter()


def can_draw(model: Model) -> bool:
    """Whether `graphspec sample` can play the spec's `sample`."""
    view = model.entries.get("sample")
    return view is not None and bool(view.graph.feeds)
