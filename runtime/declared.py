"""What `data:` and `train:` may say: sources of data, optimizers, and the numbers of a run. Torch-free."""

from functools import cache
from typing import Any, Literal

from graphspec.declare import Catalogue, setting


@setting("source")
def audio_folder(
    path: str,
    quantise: Literal["linear", "mu_law"] = "linear",
    held_out: int = 1,
    validation: int = 1,
) -> Any:
    """Recordings of a folder, in natural order of their names; resampled to the input's rate.

    path: the folder, inside the spec's own folder (a path on the command line may lie anywhere).
    quantise: law of integer inputs, on the fixed symmetric grid. held_out: so many last files are never trained on
    (the test set). validation: so many files before those are validated on.
    """
    _parts(held_out, validation)


@setting("source")
def corpus(
    quantise: Literal["linear", "mu_law"] = "linear",
    pieces: int = 12,
    seconds: float = 6.0,
    held_out: int = 1,
    validation: int = 1,
) -> Any:
    """The embedded corpus: plucked and blown melodies, synthesised here, so that everything runs without a download."""
    _parts(held_out, validation)
    if not (1 <= pieces <= 1000 and 0.5 <= seconds <= 600):
        raise ValueError("pieces is 1 to 1000 and seconds 0.5 to 600")


@setting("optimizer")
def adamw(betas: list = [0.9, 0.999], eps: float = 1e-8, weight_decay: float = 0.01) -> Any:  # noqa: B006
    """AdamW (Loshchilov & Hutter 2019). Weights tagged norm or bias do not decay."""
    if len(betas) != 2 or not all(isinstance(b, (int, float)) and 0 <= b < 1 for b in betas):
        raise ValueError(f"betas are two numbers from 0 to below 1, not {betas}")
    if eps <= 0 or weight_decay < 0:
        raise ValueError("eps is more than 0 and weight_decay 0 or more")


@setting("run")
def train(
    steps: int = 1000,
    batch: int = 1,
    clip: float | None = None,
    seed: int = 0,
    validate_every: int = 500,
    save_every: int = 500,
    log_every: int = 10,
) -> Any:
    """A run. steps: optimizer updates. clip: global gradient norm. *_every: in updates."""


def _parts(held_out: int, validation: int) -> None:
    if held_out < 0 or validation < 1:
        raise ValueError("held_out is 0 or more and validation 1 or more")


@cache
def settings() -> Catalogue:
    """All of them."""
    return Catalogue([audio_folder, corpus, adamw, train])
