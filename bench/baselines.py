"""What a model must beat: bits per sample of a unigram, a bigram and order-16 linear prediction on held-out files.

    python bench/baselines.py FOLDER --bits 8 --law linear --rate 16000 --held-out 1

The files of FOLDER in natural order, mixed down to one channel; the last `--held-out` of them are the test, the rest is
counted. Levels are `graphspec.ops.modules.quantise` of float32, as the models see them. JSON goes to stdout, a table to
stderr. Every figure is the mean of -log2 p(level | levels before it in the same file) over all test samples.

unigram       p1(q) = (n(q) + 1/2) / (N + K/2), counts of the train files (Krichevsky-Trofimov).
bigram        p2(q | c) = (n(c,q) + d(c) p1(q)) / (n(c) + d(c)), where d(c) is the number of different levels seen after
              c (Witten-Bell: interpolation with the unigram; an unseen pair gets its share, an unseen context is all
              unigram). A file's first sample has no context and is unigram.
lpc_16_plain  Linear prediction in the level domain, and one histogram of the residual, adding up over the test file.
              Memory of 2048 samples. The textbook figure: no local scale, so loud and quiet share one histogram.
lpc_16        The strong one. Prediction of the dequantised amplitude with memories of 1024 and 8192 samples, each
              under a logistic and a Laplace density around the prediction, integrated over each level's bin (bins meet
              halfway between levels in the quantiser's own domain; the outer two reach to infinity). Its scale is the
              mean absolute residual of the last 32, 256 or 2048 samples times 1/2, 1 or 2. These 36 experts are
              averaged with weights proportional to their likelihood over the last 16 blocks (Bayes with forgetting),
              plus 2**-20 of uniform.

Both LPC figures are backward adaptive and untrained: all they know comes from earlier samples of the same test file.
Coefficients are least squares of order 16, solved anew every 64 samples with an exponential window (the memory) over
the blocks before. Working memory is about 300 bytes a sample of the longest test file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphspec.ops.modules.quantise import LAWS, dequantise, quantise
from graphspec.runtime.audio import BadAudio, natural_order, read

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"}
ORDER = 16
BLOCK = 64  # samples between two solutions
MEMORIES = (1024, 8192)  # samples, the predictors' exponential windows
PLAIN_MEMORY = 2048
SCALE_WINDOWS = (32, 256, 2048)  # samples
SCALE_FACTORS = (0.5, 1.0, 2.0)
TRUST_BLOCKS = 16
UNIFORM_SHARE = 2.0**-20

Levels = NDArray[np.int64]
Floats = NDArray[np.float64]


def unigram(train: list[Levels], size: int) -> Floats:
    """p1 `[K]`."""
    counts = np.sum([np.bincount(q, minlength=size) for q in train], axis=0) + 0.5
    return counts / counts.sum()


def bigram(train: list[Levels], p1: Floats) -> Floats:
    """p2 `[K context, K]`; rows sum to 1."""
    size = len(p1)
    pairs = np.zeros((size, size), np.int64)
    for q in train:
        pairs += np.bincount(q[:-1] * size + q[1:], minlength=size * size).reshape(size, size)
    different = (pairs > 0).sum(axis=1, keepdims=True)
    total = pairs.sum(axis=1, keepdims=True) + different
    return np.where(total > 0, (pairs + different * p1) / np.maximum(total, 1), p1)


def plain_lpc_probabilities(q: Levels, bits: int) -> Floats:
    """`[T]`: the probability lpc_16_plain gives each level of `q` `[T]`, knowing those before it."""
    top = (1 << bits) - 1
    predicted = _predictions(2 * q / top - 1, PLAIN_MEMORY, step=2 / top)
    surprise = q - np.rint((predicted + 1) / 2 * top).astype(np.int64) + top
    before = np.zeros(len(q))  # times this residual was seen in earlier blocks
    seen = np.zeros(2 * top + 1)
    for start in range(0, len(q), BLOCK):
        block = surprise[start : start + BLOCK]
        before[start : start + BLOCK] = seen[block]
        np.add.at(seen, block, 1)
    total = np.arange(len(q)) // BLOCK * BLOCK
    return (before + 0.5) / (total + 0.5 * len(seen))


def lpc_probabilities(q: Levels, bits: int, law: str) -> Floats:
    """`[T]`: the probability lpc_16 gives each level of `q` `[T]`, knowing those before it."""
    grid = dequantise(torch.arange(1 << bits), bits, law, torch.float64).numpy()
    edges = _bin_edges(bits, law)
    x = grid[q]
    low, high = edges[q], edges[q + 1]
    step = float(np.diff(grid).min())
    log_p = np.stack([p for memory in MEMORIES for p in _experts(x, _predictions(x, memory, step), low, high, step)])
    return (1 - UNIFORM_SHARE) * _mixture(log_p, len(q)) + UNIFORM_SHARE / len(grid)


def _bin_edges(bits: int, law: str) -> Floats:
    """`[K + 1]` amplitudes: level q owns edges[q]..edges[q+1]."""
    top = (1 << bits) - 1
    middle = (2 * np.arange(1, top + 1) - 1) / top - 1.0
    if law == "mu_law":
        middle = np.sign(middle) * np.expm1(np.abs(middle) * np.log1p(top)) / top
    return np.concatenate(([-np.inf], middle, [np.inf]))


def _predictions(x: Floats, memory: int, step: float) -> Floats:
    """`[T]`: each sample from the 16 before it, with coefficients from the blocks before its own."""
    blocks = -(-len(x) // BLOCK)
    padded = np.concatenate((np.zeros(ORDER), x, np.zeros(blocks * BLOCK - len(x))))
    rows = np.lib.stride_tricks.sliding_window_view(padded, ORDER + 1).reshape(blocks, BLOCK, ORDER + 1)
    moments = np.matmul(rows.transpose(0, 2, 1), rows)
    decay, seen = np.exp(-BLOCK / memory), np.zeros((ORDER + 1, ORDER + 1))
    for block in range(blocks):  # moments of the past: block b holds what came before b
        moments[block], seen = seen, decay * seen + moments[block]
    # Ridge of a tenth of the quantisation noise: silence stays solvable, and tones do not cancel by huge coefficients.
    ridge = np.eye(ORDER) * (memory * step**2 / 120 + 1e-12)
    coefficients = np.linalg.solve(moments[:, :ORDER, :ORDER] + ridge, moments[:, :ORDER, ORDER:])
    predicted = np.matmul(rows[:, :, :ORDER], coefficients).reshape(-1)[: len(x)]
    return np.clip(predicted, -1.0, 1.0)


def _experts(x: Floats, predicted: Floats, low: Floats, high: Floats, step: float) -> Iterator[NDArray[np.float32]]:
    """Natural log-probability `[T]` of the levels under each shape and scale."""
    residual = np.abs(x - predicted)
    total = np.concatenate(([0.0], np.cumsum(residual)))
    t = np.arange(len(x))
    for window in SCALE_WINDOWS:
        start = np.maximum(t - window, 0)
        # One imagined residual of 0.05 starts the estimate; the floor is a fifth of the finest step.
        mean = (total[t] - total[start] + 0.05) / (t - start + 1) + 0.2 * step
        for factor in SCALE_FACTORS:
            for cdf, unit in ((_logistic, 2 * np.log(2.0)), (_laplace, 1.0)):  # mean |residual| of the unit density
                scale = factor * mean / unit
                a, b = (low - predicted) / scale, (high - predicted) / scale
                flip = a + b > 0  # both far right: subtract the small tails, not two numbers near 1
                a, b = np.where(flip, -b, a), np.where(flip, -a, b)
                yield np.log(np.maximum(cdf(b) - cdf(a), 1e-30)).astype(np.float32)


def _logistic(z: Floats) -> Floats:
    return 0.5 + 0.5 * np.tanh(0.5 * np.clip(z, -70, 70))


def _laplace(z: Floats) -> Floats:
    tail = 0.5 * np.exp(-np.abs(z))
    return np.where(z > 0, 1.0 - tail, tail)


def _mixture(log_p: NDArray[np.float32], length: int) -> Floats:
    """`[T]` from `[experts, T]`: weights by the likelihood over the last blocks, this block not included."""
    starts = np.arange(0, length, BLOCK)
    per_block = np.add.reduceat(log_p, starts, axis=1, dtype=np.float64)
    total = np.concatenate((np.zeros((len(log_p), 1)), np.cumsum(per_block, axis=1)), axis=1)
    b = np.arange(len(starts))
    evidence = total[:, b] - total[:, np.maximum(b - TRUST_BLOCKS, 0)]
    weights = np.exp(evidence - evidence.max(axis=0))
    weights /= weights.sum(axis=0)
    block_of = np.arange(length) // BLOCK
    p = np.zeros(length)
    for w, lp in zip(weights, log_p, strict=True):
        p += w[block_of] * np.exp(lp, dtype=np.float64)
    return p


def measure(folder: Path, bits: int, law: str, rate: int, held_out: int) -> dict[str, Any]:
    """The figures and what they were measured on. Raises BadAudio, or ValueError if too few files are there."""
    files = natural_order(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not 1 <= held_out < len(files):
        raise ValueError(f"{folder} has {len(files)} audio files: {held_out} cannot be held out with one left to count")
    levels = [quantise(torch.from_numpy(read(f, rate, 1)[:, 0].copy()), bits, law).numpy() for f in files]
    train, test = levels[:-held_out], levels[-held_out:]
    p1 = unigram(train, 1 << bits)
    p2 = bigram(train, p1)
    total = sum(len(q) for q in test)
    spent = {
        "unigram": sum(-np.log2(p1[q]).sum() for q in test),
        "bigram": sum(-np.log2(p1[q[0]]) - np.log2(p2[q[:-1], q[1:]]).sum() for q in test),
        "lpc_16_plain": sum(-np.log2(plain_lpc_probabilities(q, bits)).sum() for q in test),
        "lpc_16": sum(-np.log2(lpc_probabilities(q, bits, law)).sum() for q in test),
    }
    return {
        "folder": folder.name,
        "bits": bits,
        "law": law,
        "rate": rate,
        "held_out": [f.name for f in files[-held_out:]],
        "train_samples": sum(len(q) for q in train),
        "test_samples": total,
        "bits_per_sample": {name: round(float(b) / total, 4) for name, b in spent.items()},
    }


def _table(report: dict[str, Any]) -> str:
    head = "{folder}, {bits}-bit {law}, {rate} Hz, {test_samples} test samples".format(**report)
    rows = [f"  {name:<14}{value:7.3f} bits/sample" for name, value in report["bits_per_sample"].items()]
    return "\n".join([f"{head} of {', '.join(report['held_out'])}", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description="Bits per sample of simple models on held-out audio files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--law", choices=LAWS, default="linear")
    parser.add_argument("--rate", type=int, default=16000)
    parser.add_argument("--held-out", type=int, default=1, help="files at the end of the natural order (default 1)")
    a = parser.parse_args()
    try:
        if not 1 <= a.bits <= 12:
            raise ValueError(f"--bits {a.bits}: 1..12, for the bigram's table grows with 4**bits")
        report = measure(a.folder, a.bits, a.law, a.rate, a.held_out)
    except (BadAudio, ValueError, OSError) as error:
        print(f"baselines: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report))
    print(_table(report), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
