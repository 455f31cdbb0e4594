"""graphspec stream RUN IN OUT [--block N] [--value NAME]: sound through a trained model, block by block.

IN and OUT are audio files, or `-`: raw signed 16-bit little-endian samples at the input's rate on stdin and stdout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import show
from graphspec.diagnostic import fail

if TYPE_CHECKING:
    from graphspec.runtime.data import Audio


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("input", metavar="IN", help="a recording, or - for raw 16-bit samples on stdin")
    parser.add_argument("output", metavar="OUT", help="a .wav file, or - for raw 16-bit samples on stdout")
    parser.add_argument("--block", type=int, default=64, help="samples handed over at a time (default 64)")
    parser.add_argument(
        "--value", metavar="NAME", help="which of the spec's outputs (default: the first that is sound)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)


def run(options: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from graphspec.cli.trained import open_model
    from graphspec.runtime.audio import write_wav
    from graphspec.runtime.data import audio_of
    from graphspec.runtime.stream import Stream

    torch.set_num_threads(options.threads)
    if options.block < 1:
        fail("GS0638", f"a block is 1 sample or more, not {options.block}", None)
    _, model, _ = open_model(options.run, options.device, lambda d: show([d]))
    name = options.value or _first_sound(model)
    knobs = {n: float(i.default) for n, i in model.graph.inputs.items() if i.default is not None}
    stream = Stream(model, [name], knobs=knobs)
    sound = audio_of(stream.source, _law(model, stream.source.path))
    made: list[Any] = []
    worst = spent = 0.0
    samples = 0
    for block in _blocks(options, sound):
        samples += len(block)
        given = sound.tensor(sound.encode(block))[None].to(options.device)
        began = time.perf_counter()
        out = stream.push(given)[name]
        took = time.perf_counter() - began
        worst, spent = max(worst, took), spent + took
        _hand_on(options, out, made)
    for out in stream.flush().values():
        _hand_on(options, out, made)
    rate = float(stream.values[name].type.rate or 0)
    if options.output != "-":
        write_wav(Path(options.output), np.concatenate(made) if made else np.zeros((1, 1), np.float32), int(rate))
        print(options.output)
    seconds = samples / float(stream.rate)
    print(
        f"{seconds:.2f} s of sound in {spent:.2f} s, real-time factor {spent / max(seconds, 1e-9):.3f}; "
        f"the slowest of the blocks of {options.block} took {1000 * worst:.1f} ms",
        file=sys.stderr,
    )
    return 0


def _first_sound(model: Any) -> str:
    """The first output that is sound: float, one or two channels, at the rate of an input."""
    rates = {i.value.type.rate for i in model.graph.inputs.values() if i.value.type.timed}
    for name, v in model.graph.outputs.items():
        if v.type.timed and v.type.rate in rates and v.type.dtype.kind == "float" and v.type.meaning is None:
            if len(v.type.dims) == 2 and v.type.channels <= 2:
                return name
    fail("GS0638", "none of the spec's outputs is sound; name one with --value", None)


def _law(model: Any, name: str) -> str:
    source = model.checked.settings.data.get(name)
    return source.arguments.get("quantise", "linear") if source is not None else "linear"


def _blocks(options: argparse.Namespace, sound: Audio) -> Iterator[Any]:
    """float32 [n, channels], n the block or, at the end, less."""
    import numpy as np

    from graphspec.runtime.audio import BadAudio, read

    if options.input == "-":
        size = 2 * sound.channels * options.block
        while data := sys.stdin.buffer.read(size):
            whole = np.frombuffer(data[: len(data) // (2 * sound.channels) * 2 * sound.channels], "<i2")
            yield (whole.reshape(-1, sound.channels) / 32768).astype(np.float32)
        return
    try:
        samples = read(options.input, sound.rate, sound.channels)
    except BadAudio as bad:
        fail("GS0618", f"the recording cannot be used: {bad}", None)
    for start in range(0, len(samples), options.block):
        yield samples[start : start + options.block]


def _hand_on(options: argparse.Namespace, out: Any, made: list[Any]) -> None:
    import numpy as np

    sound = out[0].float().cpu().numpy()
    if options.output != "-":
        made.append(sound)
    elif len(sound):
        pcm = (np.clip(sound, -1, 1) * 32767).round().astype("<i2")
        sys.stdout.buffer.write(pcm.tobytes())
        sys.stdout.buffer.flush()
