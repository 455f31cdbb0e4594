"""graphspec stream RUN IN OUT [--block N] [--value NAME]: sound through a trained model, block by block.

IN is a recording, an .npz with an array for each input along time (controls), or `-`: raw signed 16-bit little-endian
samples at the input's rate on stdin. OUT is a .wav file, or `-` for such samples on stdout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.cli.load import show
from graphspec.diagnostic import did_you_mean, fail

if TYPE_CHECKING:
    from graphspec.graph import Value
    from graphspec.runtime.stream import Stream


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("input", metavar="IN", help="a recording, an .npz of controls, or - for raw samples on stdin")
    parser.add_argument("output", metavar="OUT", help="a .wav file, or - for raw 16-bit samples on stdout")
    parser.add_argument(
        "--block", type=int, default=64, help="ticks of the fastest input handed over at a time (default 64)"
    )
    parser.add_argument(
        "--value", metavar="NAME", help="which of the spec's outputs (default: the first that is sound)"
    )
    parser.add_argument("--knob", action="append", default=[], metavar="NAME=NUMBER", help="an input without time")
    parser.add_argument("--seed", type=int, default=0, help="of the noise a model makes (default 0)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)


def run(options: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from graphspec.cli.trained import open_model
    from graphspec.runtime.audio import write_wav
    from graphspec.runtime.score import updates
    from graphspec.runtime.stream import Stream

    torch.set_num_threads(options.threads)
    if options.block < 1:
        fail("GS0638", f"a block is 1 sample or more, not {options.block}", None)
    run_, model, _ = open_model(options.run, options.device, lambda d: show([d]))
    name = options.value or _first_sound(model)
    knobs = _knobs(model, options.knob)
    if "step" in model.graph.inputs:  # a schedule stands where training left it
        knobs["step"] = float(updates(run_))
    stream = Stream(model.outside_training, [name], knobs=knobs, seed=options.seed)
    out = stream.values[name]
    if out.type.dtype.kind != "float" or len(out.type.dims) != 2:
        fail("GS0638", f"'{name}' is {out.type}, which is no sound; name another with --value", None)
    late = stream.plan(name)
    stream.warm()
    made: list[Any] = []
    worst = spent = 0.0
    ticks = Fraction(0)
    for given in _blocks(options, stream, model):
        tensors = {n: x[None].to(options.device) for n, x in given.items()}
        began = time.perf_counter()
        block = stream.push(tensors)[name]
        took = time.perf_counter() - began
        worst, spent = max(worst, took), spent + took
        _hand_on(options, block, made)
    ticks = max(stream.flow.pushed(stream.state, v) for v in stream.sources.values())
    _hand_on(options, stream.flush()[name], made)
    if options.output != "-":
        sound = np.concatenate(made) if made else np.zeros((1, 1), np.float32)
        write_wav(Path(options.output), sound, int(out.type.rate or 0))
        print(options.output)
    seconds = float(ticks / stream.rate)
    print(
        f"{seconds:.2f} s of sound in {spent:.2f} s, real-time factor {spent / max(seconds, 1e-9):.3f}; "
        f"the slowest of the blocks of {options.block} took {1000 * worst:.1f} ms; "
        f"latency {late.ticks} samples, {1000 * float(late.seconds):.2f} ms",
        file=sys.stderr,
    )
    return 0


def _first_sound(model: Any) -> str:
    """Of the outputs that are float, of one or two channels, the first at the highest rate."""
    rates = [i.value.type.rate for i in model.graph.inputs.values() if i.value.type.rate is not None]
    sounds = {
        n: v.type.rate
        for n, v in model.graph.outputs.items()
        if v.type.rate is not None and v.type.dtype.kind == "float" and v.type.meaning is None
        if len(v.type.dims) == 2 and v.type.channels <= 2 and v.type.rate >= max(rates, default=0)
    }
    for name, rate in sounds.items():
        if rate == max(sounds.values()):
            return name
    fail("GS0638", "none of the spec's outputs is sound; name one with --value", None)


def _knobs(model: Any, given: list[str]) -> dict[str, float]:
    """Static inputs by name: their defaults, and what is given on the command line."""
    static = {n: i for n, i in model.graph.inputs.items() if not i.value.type.timed}
    out = {n: float(i.default) for n, i in static.items() if i.default is not None}
    for each in given:
        name, _, number = each.partition("=")
        if name not in static:
            fail("GS0638", f"there is no input '{name}' without time{did_you_mean(name, static)}", None)
        try:
            out[name] = float(number)
        except ValueError:
            fail("GS0638", f"--knob {each}: '{number}' is not a number", None)
    missing = [n for n in static if n not in out]
    if missing:
        fail("GS0638", f"the input '{missing[0]}' has no default: give it with --knob {missing[0]}=NUMBER", None)
    return out


def _law(model: Any, name: str) -> str:
    source = model.checked.settings.data.get(name)
    return source.arguments.get("quantise", "linear") if source is not None else "linear"


def _blocks(options: argparse.Namespace, stream: Stream, model: Any) -> Iterator[Mapping[str, Any]]:
    """For each block a tensor [n, C] of each input: the ticks that begin within it, fewer at the end."""
    if options.input == "-" or not options.input.endswith(".npz"):
        if len(stream.sources) != 1:
            names = ", ".join(stream.sources)
            fail("GS0638", f"the model hears {names}: give an .npz with an array for each", None)
        ((name, source),) = stream.sources.items()
        from graphspec.runtime.data import audio_of

        sound = audio_of(source, _law(model, name))
        for samples in _samples(options, sound):
            yield {name: sound.tensor(sound.encode(samples))}
        return
    arrays = _arrays(options.input, stream.sources)
    steps = {n: stream.flow.step_of[v] for n, v in stream.sources.items()}
    ticks = max(len(x) * steps[n] for n, x in arrays.items())
    for start in range(0, -(-ticks // 1), options.block):
        first = {n: -(-start // step) for n, step in steps.items()}
        end = {n: -(-(start + options.block) // step) for n, step in steps.items()}
        yield {n: x[first[n] : end[n]] for n, x in arrays.items()}


def _arrays(path: str, sources: Mapping[str, Value]) -> dict[str, Any]:
    """The controls of an .npz, [n, C] each, or [n] where there is one channel."""
    import zipfile

    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            found = {n: file[n] for n in sources if n in file.files}
            names = list(file.files)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        fail("GS0618", f"{path} cannot be read: {error}", None)
    out = {}
    for name, v in sources.items():
        if name not in found:
            fail("GS0618", f"{path} has no array '{name}'; it has {', '.join(names) or 'none'}", None)
        x = found[name]
        sizes = [int(d.as_int() or 1) for d in v.type.tensor_axes[1:]]
        x = x[:, None] if x.ndim == 1 and sizes == [1] else x
        if list(x.shape[1:]) != sizes or x.dtype.kind not in "fiu":
            fail("GS0618", f"'{name}' in {path} is {x.dtype} {list(x.shape)}; it should be {v.type}", None)
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            fail("GS0618", f"'{name}' in {path} is not finite everywhere", None)
        kind = torch.int64 if v.type.dtype.kind == "int" else torch.float32
        classes = v.type.dtype.classes
        if classes and len(x) and not 0 <= x.min() <= x.max() < classes:
            fail("GS0618", f"'{name}' in {path} has levels outside 0..{classes - 1}", None)
        out[name] = torch.from_numpy(np.ascontiguousarray(x)).to(kind)
    return out


def _samples(options: argparse.Namespace, sound: Any) -> Iterator[Any]:
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
