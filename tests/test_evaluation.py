"""What is asked of a trained run: bits of each channel, what channels tell of each other, ranks, faults, distances."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from graphspec.__main__ import main
from graphspec.cli.trained import open_model
from graphspec.runtime import data as datasets
from graphspec.runtime import score as scoring
from graphspec.runtime.audio import write_wav
from graphspec.runtime.corpus import pieces
from graphspec.runtime.cross_channel import cross_channel
from graphspec.runtime.data import Piece
from graphspec.runtime.quality import distance, faults, spectra
from graphspec.runtime.rank import kept, log_likelihoods

RATE, DELAY = 8000, 3
SPEC = """graphspec: 1
model: pair
use: [std/core]
params: {width: 12, bits: 5, channels: 2}
inputs:
  wave: {type: "int(2**bits)[T, channels] @ 8000", before: "2**(bits-1)"}
  temperature: {type: f32, default: 1.0}
graph:
  x: wave[t-1] |> dequantise |> linear(width)
  y: x |> conv(width, k=4) |> gelu |> conv(width, k=2) |> gelu
  dist: (x + y) |> categorical(2**bits, channels=channels)
causal: {dist: strict}
losses: {loss: "2 * nll(dist, wave)"}
metrics: {nll: "nll(dist, wave)"}
data:
  wave: audio_folder("takes", held_out=2)
train: {optimizer: adamw(), lr: 2e-2, batch: 4, crop: {T: 256}, steps: 80}
sample:
  feed: {wave: "draw(dist, temperature=temperature)"}
"""


def takes(folder: Path, count: int) -> None:
    """Stereo noise: the right channel is the left one, later and softer, and a little noise of its own."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        left = 0.3 * rng.standard_normal(RATE // 2 + DELAY)
        right = 0.8 * np.roll(left, DELAY) + 0.03 * rng.standard_normal(len(left))
        both = np.stack([left, right], 1)[DELAY:].clip(-1, 1)
        write_wav(folder / f"take{i}.wav", both.astype(np.float32), RATE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("evaluation")
    takes(folder / "takes", 5)
    (folder / "pair.yaml").write_text(SPEC)
    assert main(["train", str(folder / "pair.yaml"), "--run", f"{folder}/runs/pair", "--threads", "1"]) == 0
    return folder / "runs" / "pair"


@pytest.fixture
def opened(run: Path):
    _, model, folder = open_model(str(run), "cpu", lambda d: None)
    data = datasets.load(model.checked, folder, lambda d: None)
    return model, data, scoring.rows(data, "test")


# ---- bits of each channel --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_bits_of_each_channel_are_those_of_the_whole_file(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, given = opened
    monkeypatch.setattr(scoring, "BLOCK", 301)
    found = scoring.score(model, data, given, heads=True)
    x = torch.stack([data.tensor("wave", row["wave"]) for row in given])
    nats = model({"wave": x})["metrics.nll"]
    each = nats.mean((0, 1)) / math.log(2)
    for c in range(2):
        assert found[f"nll.bits[{c}]"] == pytest.approx(each[c].item(), rel=1e-5)
    assert found["nll.bits"] == pytest.approx(each.mean().item(), rel=1e-5)
    assert found["loss"] == pytest.approx(2 * found["nll"], rel=1e-5)  # a loss that is no bare nll is no head
    assert "loss.bits" not in found


def test_without_heads_the_scores_are_those_of_the_spec(opened) -> None:
    model, data, given = opened
    assert set(scoring.score(model, data, given[:1])) == {"loss", "nll"}


# ---- across channels -------------------------------------------------------------------------------------------------


def test_the_right_channel_owes_its_score_to_the_left_and_not_the_other_way(opened) -> None:
    left, right = cross_channel(*opened)
    assert (left.head, left.channel, right.channel) == ("nll", 0, 1)
    assert abs(left.difference) < 0.1  # the right one is later: it tells nothing
    assert right.difference > 1 and right.own + 0.5 < left.own
    assert right.error is not None and right.error < right.difference / 3
    assert cross_channel(*opened) == [left, right]
    assert cross_channel(*opened, seed=1)[1].difference != right.difference


def test_one_recording_is_shuffled_against_itself(opened) -> None:
    model, data, given = opened
    _, right = cross_channel(model, data, given[:1])
    assert right.difference > 1 and right.error is None


def test_what_is_shuffled_keeps_the_channel_and_the_length() -> None:
    from graphspec.runtime.cross_channel import _torn

    rows = [{"wave": Piece("a", np.arange(20).reshape(10, 2))}, {"wave": Piece("b", 100 + np.arange(14).reshape(7, 2))}]
    torn = _torn(rows, "wave", 0, 1, seed=0).samples
    assert torn.shape == (10, 2)
    assert (torn[:, 1] == rows[0]["wave"].samples[:, 1]).all()
    assert set(torn[:, 0]) == set(rows[1]["wave"].samples[:, 0])  # the same channel of the other file
    assert (rows[0]["wave"].samples == np.arange(20).reshape(10, 2)).all()


# ---- ranks -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_rows_are_scored_after_their_prompt_by_the_untempered_model(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, given = opened
    monkeypatch.setattr(scoring, "BLOCK", 3 * 64)  # three rows: a prompt ends inside a block
    x = torch.stack([data.tensor("wave", given[0]["wave"])[a : a + 200] for a in (0, 500, 900)])
    nats, bits = log_likelihoods(model, {"wave": x}, {"wave": 70}, {"temperature": 0.5})
    whole = model({"wave": x})["metrics.nll"][:, 70:]
    assert torch.allclose(nats, -whole.double().sum((1, 2)), rtol=1e-5)
    assert torch.allclose(bits, whole.double().mean((1, 2)) / math.log(2), rtol=1e-5)


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (2, 2), (3, 2), (10, 6), (20, 11), (100, 55)])
def test_the_lowest_forty_percent_and_the_top_five_are_dropped(n: int, rows: int) -> None:
    scores = [float((7 * i) % n) for i in range(n)]
    left = [scores[i] for i in kept(scores)]
    assert len(left) == rows and left == sorted(left)
    assert n < 3 or min(left) == int(0.4 * n)


def test_ranked_rows_are_written_in_their_order(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.wav"
    words = ["--rows", "5", "--seconds", "0.02", "--rank", "-o", str(out), "--backend", "eager"]
    assert main(["sample", str(run), *words]) == 0
    told = capsys.readouterr()
    assert told.out.split() == [str(tmp_path / f"x_{i}.wav") for i in range(3)]
    scores = [float(line.split()[2]) for line in told.err.splitlines() if line.startswith("x_")]
    assert len(scores) == 3 and scores == sorted(scores)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x_0.wav", "x_1.wav", "x_2.wav"]


# ---- faults and distances --------------------------------------------------------------------------------------------

RNG = np.random.default_rng(1)
TUNE = pieces(count=1, seconds=2.0)[0][:, 0]
N = len(TUNE)


@pytest.mark.parametrize(
    ("sound", "found"),
    [
        (TUNE, ()),
        (TUNE / np.abs(TUNE).max(), ()),  # one peak at full scale is no clipping
        (np.zeros(N), ("silence",)),
        (np.full(N, 1 / 255), ("silence",)),
        (np.full(10, 0.5), ("silence",)),
        (0.05 * np.eye(1, N, 100)[0], ("silence",)),  # one faint click
        (np.clip(2.5 * TUNE, -1, 1), ("clipping",)),
        (0.3 * RNG.standard_normal(N), ("noise",)),
        (np.concatenate([TUNE[: N // 2], RNG.uniform(-1, 1, N // 2)]), ("noise",)),
        (0.01 * RNG.standard_normal(N), ()),  # faint hiss does no harm
        (np.sign(RNG.standard_normal(N)), ("clipping", "noise")),
        (np.where(np.arange(N) == 9, np.nan, TUNE), ("not finite",)),
    ],
)
def test_faults(sound: np.ndarray, found: tuple[str, ...]) -> None:
    assert faults(sound[:, None].astype(np.float32), 16000) == found


def test_one_bad_channel_counts_and_one_silent_one_does_not() -> None:
    noise = 0.3 * np.random.default_rng(2).standard_normal(N)
    assert faults(np.stack([TUNE, noise], 1).astype(np.float32), 16000) == ("noise",)
    assert faults(np.stack([TUNE, 0 * TUNE], 1).astype(np.float32), 16000) == ()


def test_the_distance_is_that_of_two_normal_distributions() -> None:
    sounds = pieces(count=4, seconds=2.0)
    a, b = spectra(sounds[:2], 16000), spectra(sounds[2:], 16000)
    roots = np.sqrt(np.linalg.eigvals(a.covariance @ b.covariance).real.clip(0))
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance) - 2 * roots.sum()
    assert distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert distance(b, a) == pytest.approx(distance(a, b), rel=1e-6)
    assert distance(a, a) == pytest.approx(0, abs=1e-6 * np.trace(a.covariance))
    # One and the same sound at half the amplitude: every mean moves by log 4, but for what lies at the floor.
    loud = [0.2 * np.random.default_rng(i).standard_normal((16000, 1)) for i in range(2)]
    moved = distance(spectra([0.5 * x for x in loud], 16000), spectra(loud, 16000))
    assert moved == pytest.approx(a.mean.size * math.log(4) ** 2, rel=1e-3)


def test_what_channels_share_counts() -> None:
    left, right = (0.2 * np.random.default_rng(i).standard_normal(32000) for i in range(2))
    fading = np.repeat(np.random.default_rng(3).uniform(0.1, 1, 32), 1000)  # both swell together, or not
    together = spectra([np.stack([fading * left, fading * right], 1)], 16000)
    apart = spectra([np.stack([fading * left, fading[::-1] * right], 1)], 16000)
    assert distance(together, apart) > 5


# ---- from the command line -------------------------------------------------------------------------------------------


def test_eval_tells_channels_relations_and_samples(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = run.parent.parent / "samples"
    samples.mkdir(exist_ok=True)
    write_wav(samples / "silent.wav", np.zeros((RATE, 2), np.float32), RATE)
    write_wav(samples / "noise.wav", RNG.uniform(-1, 1, (RATE, 2)).astype(np.float32), RATE)
    assert main(["eval", str(run), "--threads", "1", "--cross-channel", "--samples", str(samples)]) == 0
    out = capsys.readouterr().out
    assert "nll.bits[1]" in out and "with them from elsewhere" in out
    assert "log-mel-statistics Frechet distance" in out and "silence 1" in out and "noise 1" in out
    told = json.loads((run / "test.json").read_text())
    assert [r["channel"] for r in told["cross_channel"]] == [0, 1]
    assert told["samples"]["faults"]["silent.wav"] == ["silence", "unlike"]


def test_eval_of_other_recordings(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    takes(tmp_path / "others", 4)
    assert main(["eval", str(run), f"data={tmp_path / 'others'}", "--part", "all", "--threads", "1"]) == 0
    assert "all, 4 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("GS0664", ["eval", "width=3"]),
        ("GS0616", ["eval", "data=/nowhere"]),
        ("GS0616", ["eval", "--samples", "/nowhere"]),
        ("GS0662", ["eval", "--samples", "short"]),
    ],
)
def test_misuse_has_a_code(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: str,
    words: list,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").mkdir()
    write_wav("short/a.wav", np.zeros((100, 2), np.float32), RATE)
    assert main([words[0], str(run), *words[1:]]) == 1
    assert f"error[{code}]" in capsys.readouterr().err


def test_one_channel_has_nothing_beside_it_and_what_is_not_scored_no_rank(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run.parent.parent
    mono = SPEC.replace("channels: 2", "channels: 1").replace("steps: 120", "steps: 1")
    (folder / "mono.yaml").write_text(mono)
    assert main(["train", str(folder / "mono.yaml"), "--run", f"{folder}/runs/mono", "--threads", "1"]) == 0
    assert main(["eval", f"{folder}/runs/mono", "--cross-channel", "--threads", "1"]) == 1
    assert "error[GS0660]" in capsys.readouterr().err
    unscored = mono.replace("2 * nll(dist, wave)", "l2(dist.logits, 0)").replace(
        'metrics: {nll: "nll(dist, wave)"}\n', ""
    )
    (folder / "unscored.yaml").write_text(unscored)
    assert main(["train", str(folder / "unscored.yaml"), "--run", f"{folder}/runs/unscored", "--threads", "1"]) == 0
    assert main(["sample", f"{folder}/runs/unscored", "--rank", "--rows", "2", "--backend", "eager"]) == 1
    assert "error[GS0661]" in capsys.readouterr().err
