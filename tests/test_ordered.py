"""`sashimi_ordered`: one channel after the other within a tick; the second hears the first, and not the other way."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from graphspec.cli.load import check_spec
from graphspec.compiler.lower import lower
from graphspec.runtime import data as datasets
from graphspec.runtime.data import crop_lengths
from graphspec.runtime.run import new_run
from graphspec.runtime.sample import Sampler
from graphspec.runtime.train import train
from graphspec.runtime.verify import verify

SMALL = ("d=8", "depth=1", "bits=3", "state=8")
ORDERS = pytest.mark.parametrize("order", ["[0, 1]", "[1, 0]"])


def levels(seed: int, ticks: int) -> dict[str, torch.Tensor]:
    drawn = torch.randint(8, (1, ticks, 2), generator=torch.Generator().manual_seed(seed))
    return {"left": drawn[..., :1], "right": drawn[..., 1:]}


@ORDERS
@pytest.mark.parametrize("head", ["classes", "logistics"])
@torch.no_grad()
def test_the_second_hears_the_first_of_its_tick(order: str, head: str) -> None:
    model = lower(check_spec("sashimi_ordered", (*SMALL, f"order={order}", f"head={head}"))).double()
    first, second = ("left", "right") if order == "[0, 1]" else ("right", "left")
    inputs, at = levels(0, 64), 20
    before = model(inputs)
    for changed, hears in ((first, {f"{second}_dist": at}), (second, {})):
        other = {n: x.clone() for n, x in inputs.items()}
        other[changed][:, at] = (other[changed][:, at] + 5) % 8
        after = model(other)
        for name in ("left_dist", "right_dist"):
            moved = (after[name] - before[name]).abs().flatten(2).sum(-1)[0].nonzero()[:, 0]
            assert int(moved[0]) == hears.get(name, at + 1), f"{changed} moves {name} at {int(moved[0])}"


def test_it_holds() -> None:
    held = list(verify(lower(check_spec("sashimi_ordered", SMALL)), 48, seed=0))  # raises what does not
    assert "drawn one by one" in str(held[-1])


def test_what_is_drawn_second_follows_what_was_drawn_first(tmp_path: Path) -> None:
    """Trained where both channels are the same, of noise: all that can be known of one is the other."""
    folder = tmp_path / "stereo"
    folder.mkdir()
    for i in range(4):
        one = np.random.default_rng(i).uniform(-0.99, 0.99, 16000)
        sf.write(folder / f"{i}.wav", np.stack([one, one], -1), 16000)
    overrides = (*SMALL, "order=[1, 0]", "steps=150", "train.crop.T=256", f"data={folder}", "train.clip=none")
    checked = check_spec("sashimi_ordered", overrides)
    model = lower(checked, seed=0)
    data = datasets.load(checked, Path("."), print, crop_lengths(checked))
    outcome = train(model, data, new_run(str(tmp_path / "run"), checked, "sashimi_ordered", list(overrides), 1))
    assert outcome.last["right_bits"] > 2.9 and outcome.last["left_bits"] < 1.5
    wave = Sampler(model.eval(), 2, seed=0).draw(200)["wave"]
    assert wave.shape == (2, 200, 2) and (wave[..., 0] == wave[..., 1]).float().mean() > 0.5
