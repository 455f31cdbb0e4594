"""How well a trained DDSP run plays held-out recordings again, from their pitch and loudness alone.

Multi-scale spectral distance (the training's: sizes 2048 to 64, magnitudes and logarithms, summed) of the run, of the
same spec before training, driven by the same controls, and of two baselines that are no sound but magnitudes, which
makes them stronger: the mean spectrum of the training recordings in every frame, and that spectrum as loud in a frame
as the recording is. Then the pitch of what was rendered, found by the spec's own tracker, beside the pitch it was asked
for: cents over the frames in which both are voiced, and the share of frames in which both say the same of voicing.

    python bench/resynthesis.py RUN [--part test] [--write FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphspec.cli.load import show
from graphspec.cli.trained import open_model
from graphspec.compiler.lower import Model, lower
from graphspec.ops.modules.spectral_losses import MultiscaleSTFT
from graphspec.runtime import data as datasets
from graphspec.runtime.audio import write_wav
from graphspec.runtime.render import computed, render
from graphspec.runtime.score import updates

SIZES = (2048, 1024, 512, 256, 128, 64)


def distance() -> MultiscaleSTFT:
    found = MultiscaleSTFT(SIZES, weights={"magnitude": 1.0, "logarithm": 1.0})
    found.reset(torch.Generator())
    return found


def mean_spectra(measure: MultiscaleSTFT, sounds: list[Tensor]) -> list[Tensor]:
    """For each size `[bins]`: the mean magnitudes of all frames."""
    return [torch.cat([measure.magnitudes(x, *s)[0] for x in sounds]).mean(0) for s in measure.scales]


def of_mean_spectrum(measure: MultiscaleSTFT, means: list[Tensor], x: Tensor, follow: bool) -> float:
    """The distance of `x` `[1, T]` to its size's mean spectrum, in each frame as loud as it is if `follow`."""
    total = 0.0
    for scale, mean in zip(measure.scales, means, strict=True):
        target = measure.magnitudes(x, *scale)[0]
        guess = mean * (target.sum(-1, keepdim=True) / mean.sum()) if follow else mean.expand_as(target)
        total += float((guess - target).abs().mean() + (measure._log(guess) - measure._log(target)).abs().mean())
    return total


def played(model: Model, given: dict[str, Tensor], step: int) -> Tensor:
    """`[1, T, 1]` of the entry `render`."""
    view = model.entries["render"]
    knobs = {"step": float(step)} if "step" in view.graph.inputs else {}
    return render(model.eval(), view, given, knobs, 0)["out"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--write", metavar="FOLDER", help="the recordings, and what was rendered, as WAV")
    options = parser.parse_args()

    run, model, folder = open_model(options.run, "cpu", lambda d: show([d]))
    fresh = lower(model.checked, seed=0)
    data = datasets.load(model.checked, folder, lambda d: None)
    track = data.tracks["audio"]
    rate = int(track.rate)
    measure, step = distance(), updates(run)
    sounds = [track.audio.tensor(p.samples)[None, :, 0].float() for p in data.train]
    means = mean_spectra(measure, sounds)
    print(
        "recording                         trained  untrained  mean spectrum  as loud   cents median  95%  <25  voicing"
    )
    for piece in getattr(data, options.part):
        hop = int(model.checked.graph.params["hop"])
        x = track.audio.tensor(piece.samples)[None].float()
        x = x[:, : x.shape[1] // hop * hop]
        given = computed(model, ["f0", "loud"], {"audio": x})
        ours, theirs = played(model, given, step), played(fresh, given, 0)
        scores = [float(measure(y, x)) for y in (ours, theirs)]
        scores += [of_mean_spectrum(measure, means, x[..., 0], follow) for follow in (False, True)]
        again = computed(model, ["f0"], {"audio": ours})["f0"][0, :, 0].numpy()
        asked = given["f0"][0, :, 0].numpy()
        both = (again > 0) & (asked > 0)
        cents = np.abs(1200 * np.log2(again[both] / asked[both]))
        agree = np.mean((again > 0) == (asked > 0))
        print(
            f"{piece.name:32s} {scores[0]:8.3f} {scores[1]:10.3f} {scores[2]:14.3f} {scores[3]:8.3f} "
            f"{np.median(cents):14.2f} {np.percentile(cents, 95):4.0f} {np.mean(cents < 25):4.1%} {agree:8.1%}"
        )
        if options.write:
            stem = Path(options.write) / Path(piece.name).stem
            stem.parent.mkdir(parents=True, exist_ok=True)
            write_wav(f"{stem}.wav", x[0].numpy(), rate)
            write_wav(f"{stem}_rendered.wav", ours[0].numpy(), rate)
            write_wav(f"{stem}_untrained.wav", theirs[0].numpy(), rate)


if __name__ == "__main__":
    main()
