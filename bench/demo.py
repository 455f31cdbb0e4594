"""`make demo`: train a shipped spec on the embedded corpus, sample it, check what it learnt, draw it.

    python bench/demo.py [--steps 800] [--seconds 0.75] [--folder demo]

Everything it makes lies in the folder. Eight takes are sampled at once, each going on from the opening of a tune that
was not trained on; the first that the detector (graphspec/runtime/detector.py) takes for the corpus becomes sample.wav.
Exit code 1 if the model is not below the bigram model of the corpus, or no take is accepted.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import baselines

from graphspec.__main__ import main as graphspec
from graphspec.cli.load import check_spec
from graphspec.runtime import data as datasets
from graphspec.runtime.audio import read, write_wav
from graphspec.runtime.detector import accept, describe

SPEC = "sashimi_small"
TAKES = 8
PROMPT_SECONDS = 0.5
KNOBS = ["temperature=0.85", "top_p=0.95"]  # cooler than the data: minutes of training leave some noise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seconds", type=float, default=0.75)
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    options = parser.parse_args()
    began = time.perf_counter()
    folder = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    overrides = [f"steps={options.steps}", "train.validate_every=100", "train.save_every=100"]

    say("the spec holds: shapes, rates and causality are proven before torch is loaded")
    run(["lint", SPEC, *overrides])
    say("report, generated Python, graph and diagrams")
    run(["compile", SPEC, *overrides, "-o", str(folder / "compiled")])
    say(f"training {options.steps} updates on the embedded corpus")
    run(["train", SPEC, *overrides, "--run", str(folder / "run"), "--threads", "1"])
    data = datasets.load(check_spec(SPEC, overrides), Path("."), lambda d: None)
    say(f"sampling {TAKES} takes of {options.seconds} s, going on from {PROMPT_SECONDS} s of a tune it never heard")
    accepted = takes(folder, data, options.seconds)
    before, after = validation_bits(folder / "run" / "metrics.csv")
    bigram = bigram_bits(data)
    say(f"validation bits per sample: {before:.3f} before, {after:.3f} after; bigram model {bigram:.3f}")
    if accepted:
        shutil.copyfile(accepted[0], folder / "sample.wav")
        print(f"{len(accepted)} of {TAKES} takes sound like the corpus; {folder / 'sample.wav'} is the first of them")
    say(f"everything lies in {folder}/ ({time.perf_counter() - began:.0f} s)")
    return 0 if after < bigram and accepted else 1


def takes(folder: Path, data: datasets.Dataset, seconds: float) -> list[Path]:
    """Sample the takes and print what the detector says of each; those it accepts."""
    rate, size = data.audio.rate, int(seconds * data.audio.rate)
    opening = data.validation[0].samples[: int(PROMPT_SECONDS * rate)]
    prompt = folder / "prompt.wav"
    write_wav(prompt, sound(data, opening), rate)
    told = ["--seconds", str(seconds), "--prompt", str(prompt), "--prompt-seconds", str(PROMPT_SECONDS)]
    run(["sample", str(folder / "run"), *KNOBS, *told, "--rows", str(TAKES), "-o", str(folder / "take.wav")])
    references = [
        describe(sound(data, p.samples[a : a + size])[:, 0], rate)
        for p in data.train
        for a in range(0, p.frames - size + 1, size)
    ]
    accepted = []
    for path in sorted(folder.glob("take_*.wav")):
        heard = describe(read(path, rate, 1)[len(opening) :, 0], rate)
        verdict = accept(heard, references)
        print(f"{path}: rms {heard.rms:.4f}, flatness {heard.flatness:.4f}: {verdict.reason or 'accepted'}")
        if verdict.ok:
            accepted.append(path)
    return accepted


def sound(data: datasets.Dataset, levels: np.ndarray) -> np.ndarray:
    """Levels [frames, 1] as the model hears them, float32."""
    return data.audio.decode(data.audio.tensor(levels))


def run(arguments: list[str]) -> None:
    print(f"$ graphspec {' '.join(arguments)}", flush=True)
    code = graphspec(arguments)
    if code:
        sys.exit(code)


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def bigram_bits(data: datasets.Dataset) -> float:
    """Bits per sample of the validation pieces under bench/baselines.py's bigram model of the training pieces."""
    train = [p.samples[:, 0].astype(np.int64) for p in data.train]
    pairs = baselines.bigram(train, baselines.unigram(train, 1 << (data.audio.bits or 8)))
    each = [-np.log2(pairs[q[:-1], q[1:]]) for p in data.validation for q in [p.samples[:, 0].astype(np.int64)]]
    return float(np.concatenate(each).mean())


def validation_bits(path: Path) -> tuple[float, float]:
    with path.open() as file:
        rows = [r["valid.bits_per_sample"] for r in csv.DictReader(file)]
    told = [float(r) for r in rows if r]
    return told[0], told[-1]


if __name__ == "__main__":
    sys.exit(main())
