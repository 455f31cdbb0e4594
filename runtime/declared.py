"""What `data:` and `train:` may say: sources of data, optimizers, schedules, and the numbers of a run. Torch-free."""

from functools import cache
from typing import Any, Literal

from graphspec.declare import Catalogue, setting


@setting("source")
def audio_folder(
    path: str,
    quantise: Literal["linear", "mu_law"] = "linear",
    held_out: int = 1,
    validation: int = 1,
    stereo: Literal["mix", "left", "right", "refuse"] = "mix",
    mono: Literal["duplicate", "refuse"] = "duplicate",
    max_bad: float = 0.5,
) -> Any:
    """Recordings of a folder, in natural order of their names; resampled to the input's rate.

    path: the folder, inside the spec's own folder (a path on the command line may lie anywhere).
    quantise: law of integer inputs, on the fixed symmetric grid. held_out: so many last files are never trained on
    (the test set). validation: so many files before those are validated on.
    stereo: what a file of several channels becomes for an input of one. mono: what a file of one channel becomes for
    an input of several. A file that is refused or broken is skipped; max_bad: the share of such files that is borne.
    """
    _parts(held_out, validation)
    if not 0 <= max_bad <= 1:
        raise ValueError("max_bad is a share, from 0 to 1")


@setting("source")
def array_folder(path: str, held_out: int = 1, validation: int = 1) -> Any:
    """Arrays of a folder, one `.npy` file a piece: int codes or float features [frames, channels] at the input's rate.

    path, held_out, validation: as of audio_folder. With data for several inputs, files match by name.
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
def adam(betas: list = [0.9, 0.999], eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False) -> Any:  # noqa: B006
    """Adam (Kingma & Ba 2015); decay is added to the gradient."""
    _moments(betas, eps, weight_decay)


@setting("optimizer")
def adamw(
    betas: list = [0.9, 0.999],  # noqa: B006
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    amsgrad: bool = False,
    decay_min_dim: int = 0,
) -> Any:
    """AdamW (Loshchilov & Hutter 2019).

    Weights tagged norm or bias do not decay, nor those of fewer than decay_min_dim dimensions.
    """
    _moments(betas, eps, weight_decay)
    if decay_min_dim < 0:
        raise ValueError(f"decay_min_dim is 0 or more, not {decay_min_dim}")


@setting("optimizer")
def nadam(
    betas: list = [0.9, 0.999],  # noqa: B006
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
) -> Any:
    """Adam with Nesterov momentum (Dozat 2016)."""
    _moments(betas, eps, weight_decay)
    if momentum_decay < 0:
        raise ValueError(f"momentum_decay is 0 or more, not {momentum_decay}")


@setting("optimizer")
def radam(
    betas: list = [0.9, 0.999],  # noqa: B006
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
) -> Any:
    """Rectified Adam, which needs no warm-up (Liu et al. 2020)."""
    _moments(betas, eps, weight_decay)


@setting("optimizer")
def sgd(momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0, weight_decay: float = 0.0) -> Any:
    """Stochastic gradient descent, with momentum if given (Sutskever et al. 2013)."""
    _from_zero(momentum=momentum, weight_decay=weight_decay)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError("nesterov needs a momentum above 0 and no dampening")


@setting("optimizer")
def rmsprop(
    alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0, centered: bool = False, weight_decay: float = 0.0
) -> Any:
    """RMSprop (Tieleman & Hinton 2012). alpha: of the running mean square. centered: the variance instead."""
    _from_zero(alpha=alpha, momentum=momentum, weight_decay=weight_decay)
    if eps <= 0:
        raise ValueError("eps is more than 0")


@setting("optimizer")
def adagrad(
    lr_decay: float = 0.0, eps: float = 1e-10, initial_accumulator_value: float = 0.0, weight_decay: float = 0.0
) -> Any:
    """Adagrad (Duchi et al. 2011)."""
    _from_zero(lr_decay=lr_decay, initial_accumulator_value=initial_accumulator_value, weight_decay=weight_decay)
    if eps <= 0:
        raise ValueError("eps is more than 0")


@setting("schedule")
def plateau(factor: float = 0.2, patience: int = 20, min_lr: float = 0.0, threshold: float = 1e-4) -> Any:
    """Multiply the learning rates by `factor` when the total validation loss has not improved.

    patience: so many validations without improvement are let pass; the next one acts. threshold: the smallest
    improvement that counts, as a part of the best loss. min_lr: no rate is lowered below it.
    """
    if not 0 < factor < 1:
        raise ValueError(f"factor is between 0 and 1, not {factor}")
    _from_zero(patience=patience, min_lr=min_lr, threshold=threshold)


@setting("run")
def train(
    steps: int = 1000,
    batch: int = 1,
    accumulate: int = 1,
    precision: Literal["f32", "bf16", "f64"] = "f32",
    recompute: bool = False,
    ema: float | None = None,
    clip: float | None = None,
    seed: int = 0,
    nonfinite: Literal["stop", "skip"] = "stop",
    early_stop: int | None = None,
    validate_every: int = 500,
    save_every: int = 500,
    log_every: int = 10,
    dump: list = [],  # noqa: B006
    dump_every: int = 100,
) -> Any:
    """A run. steps: optimizer updates. batch: rows of one forward pass; accumulate: passes an update.

    precision: bf16 computes matrix products in bfloat16, with float32 weights; f64 is for exact comparisons.
    recompute: keep little of the forward pass and compute the rest again in backward, so that long crops fit.
    ema: decay of an exponential average of the weights, which is then what is validated and sampled.
    clip: global gradient norm. nonfinite: what to do with an update that is not finite. early_stop: end when so many
    validations in a row have not improved. dump: values to write down, of the first validation crop, as .npz under
    dumps/. *_every: in updates.
    """
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"train.ema is between 0 and 1, not {ema}")


def _moments(betas: list, eps: float, weight_decay: float) -> None:
    if len(betas) != 2 or not all(isinstance(b, (int, float)) and 0 <= b < 1 for b in betas):
        raise ValueError(f"betas are two numbers from 0 to below 1, not {betas}")
    if eps <= 0 or weight_decay < 0:
        raise ValueError("eps is more than 0 and weight_decay 0 or more")


def _from_zero(**numbers: float) -> None:
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"{name} is 0 or more, not {number}")


def _parts(held_out: int, validation: int) -> None:
    if held_out < 0 or validation < 1:
        raise ValueError("held_out is 0 or more and validation 1 or more")


@cache
def settings() -> Catalogue:
    """All of them."""
    sources = [audio_folder, array_folder, corpus]
    optimizers = [adam, adamw, nadam, radam, sgd, rmsprop, adagrad]
    return Catalogue([*sources, *optimizers, plateau, train])
