"""`make demo`: train a shipped spec on the embedded corpus, sample a WAV, check that it sounds like the corpus, draw.

    python bench/demo.py [--steps 600] [--seconds 1] [--folder demo]

Everything it makes lies in the folder. Exit code 1 if the model is not below the bigram model of the corpus, or the
sound is refused by the detector (graphspec/runtime/detector.py).
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
from graphspec.runtime.audio import read
from graphspec.runtime.detector import accept, describe

SPEC = "sashimi_small"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=1.0)
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
    say(f"sampling {options.seconds} seconds")
    wav = folder / "sample.wav"
    knobs = ["temperature=0.8", "--seconds", str(options.seconds)]  # cooler: minutes of training leave some noise
    run(["sample", str(folder / "run"), *knobs, "--threads", "1", "-o", str(wav)])

    checked = check_spec(SPEC, overrides)
    data = datasets.load(checked, Path("."), lambda d: None)
    bigram = bigram_bits(data)
    before, after = validation_bits(folder / "run" / "metrics.csv")
    say(f"validation bits per sample: {before:.3f} before, {after:.3f} after; bigram model {bigram:.3f}")
    rate = data.audio.rate
    sample = describe(read(wav, rate, 1)[:, 0], rate)
    size = int(options.seconds * rate)
    crops = [
        describe(data.audio.decode(data.audio.tensor(p.samples[a : a + size]))[:, 0], rate)
        for p in data.train
        for a in range(0, p.frames - size + 1, size)
    ]
    verdict = accept(sample, crops)
    say(
        f"{wav}: rms {sample.rms:.4f}, flatness {sample.flatness:.4f}: "
        + ("sounds like the corpus" if verdict.ok else verdict.reason)
    )
    say(f"everything lies in {folder}/ ({time.perf_counter() - began:.0f} s)")
    return 0 if after < bigram and verdict.ok else 1


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
