"""What `data:` and `train:` may say: sources of data, optimizers, and the numbers of a run. Torch-free."""

from functools import cache
from typing import Any, Literal

from graphspec.declare import Catalogue, setting


@setting
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


@setting
def corpus(
    quantise: Literal["linear", "mu_law"] = "linear",
    pieces: int = 12,
    seconds: float = 6.0,
    held_out: int = 1,
    validation: int = 1,
) -> Any:
    """The embedded corpus: plucked and blown melodies, synthesised here, so that everything runs without a download."""


@setting
def adamw(betas: list = [0.9, 0.999], eps: float = 1e-8, weight_decay: float = 0.01) -> Any:  # noqa: B006
    """AdamW (Loshchilov & Hutter 2019). Weights tagged norm or bias do not decay."""


@setting
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


@cache
def settings() -> Catalogue:
    """All of them."""
    return Catalogue([audio_folder, corpus, adamw, train])
