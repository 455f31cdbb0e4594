"""What the temperature does to what is drawn: of trained runs, after a prompt, the entropy of the levels drawn.

For each run and temperature: the entropy of the levels and of their differences (bits, of their histograms), and the
likelihood that the model itself gives what was drawn, at temperature 1 (bits a sample).

    python bench/temperature.py runs/A runs/B --prompt FILE [--temperatures 0.1 1.0 2.0] [--seconds 0.5] [--rows 4]
"""

from __future__ import annotations

import argparse
from collections import Counter
from math import log2
from pathlib import Path

import torch
from torch import Tensor

from graphspec.cli.trained import open_model
from graphspec.diagnostic import SpecError
from graphspec.runtime.audio import read
from graphspec.runtime.data import audio_of
from graphspec.runtime.rank import log_likelihoods
from graphspec.runtime.sample import Sampler


def entropy(x: Tensor) -> float:
    """Of the histogram of whole numbers, in bits."""
    counts = Counter(x.flatten().tolist())
    n = sum(counts.values())
    return -sum(c / n * log2(c / n) for c in counts.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.1, 1.0, 2.0])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rows", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.runs:
        _, model, _ = open_model(name, "cpu", lambda d: None)
        (wave,) = (f.source for f in model.entries["sample"].graph.feeds)
        (law,) = (s.arguments["quantise"] for s in model.checked.settings.data.values())
        audio = audio_of(wave, law)
        sound = read(Path(arguments.prompt), audio.rate, audio.channels)[audio.rate : 2 * audio.rate]
        prompt = audio.tensor(audio.encode(sound))[None].expand(arguments.rows, -1, -1)
        for temperature in arguments.temperatures:
            sampler = Sampler(model, arguments.rows, 0, {"temperature": temperature}, backend="auto")
            sampler.prefill({wave.path: prompt})
            ticks = int(arguments.seconds * audio.rate)
            (drawn,) = sampler.draw(ticks).values()
            whole = {wave.path: torch.cat([prompt, drawn], 1)}
            told = f"{Path(name).name:12} temperature {temperature:3.1f}: levels {entropy(drawn):6.3f} bits, "
            told += f"differences {entropy(drawn.diff(dim=1)):6.3f} bits"
            try:
                _, bits = log_likelihoods(model, whole, {wave.path: prompt.shape[1]}, {}, {})
                told += f", to the model itself {float(bits.mean()):6.3f} bits a sample"
            except SpecError:  # a metric of the run reads all of a recording
                pass
            print(told, flush=True)


if __name__ == "__main__":
    main()
