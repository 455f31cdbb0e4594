"""The one place that imports torchaudio: its filterbanks and cosine transform.

torchaudio's wheel on PyPI links CUDA, so beside a CPU build of torch its extension does not load, and importing it
fails. What is needed here is Python only. Where the extension does not load, a stand-in that says so takes its place,
as torchaudio itself would say of a build without one.
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor


def _without_extension() -> types.ModuleType:
    """What torchaudio asks its extension for, of a build that has none."""
    stand_in: Any = types.ModuleType("torchaudio._extension")
    stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stand_in._IS_ALIGN_AVAILABLE = False

    def fail_if_no_align(f: Callable[..., Any]) -> Callable[..., Any]:
        return f

    def _check_cuda_version() -> None:
        return None

    stand_in.fail_if_no_align = fail_if_no_align
    stand_in._check_cuda_version = _check_cuda_version
    return stand_in


try:
    import torchaudio
except ModuleNotFoundError:
    raise  # not installed: nothing that a stand-in could mend
except (ImportError, OSError, RuntimeError):  # built for another torch, or for CUDA where there is none
    for _loaded in [m for m in sys.modules if m.partition(".")[0] == "torchaudio"]:
        del sys.modules[_loaded]
    sys.modules["torchaudio._extension"] = _without_extension()
    import torchaudio


def mel_filters(
    bins: int, mels: int, rate: Fraction, fmin: float, fmax: float | None, mel_scale: str, norm: str
) -> Tensor:
    """Triangular filters `[bins, mels]`, float32 on the CPU: magnitudes `[..., bins]` times them are mel bands.

    bins: n_fft/2 + 1. rate: of the audio, Hz. fmin, fmax: Hz; none is rate/2. mel_scale: htk (2595 log10(1 + f/700))
    or slaney (linear below 1 kHz). norm: peak (peaks of 1) or area (areas of 1). A filter narrower than a bin may
    be empty: its band is then 0. Raises ValueError for fmax above rate/2.
    """
    if fmax is not None and fmax > rate / 2:
        raise ValueError(f"fmax {fmax:g} Hz is above half the rate, {float(rate / 2):g} Hz")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        top = float(rate / 2) if fmax is None else float(fmax)
        return torchaudio.functional.melscale_fbanks(
            bins,
            float(fmin),
            top,
            mels,
            _sample_rate(rate),
            norm="slaney" if norm == "area" else None,
            mel_scale=mel_scale,
        )


def cosine_transform(mels: int, coefficients: int) -> Tensor:
    """The orthonormal DCT-II `[mels, coefficients]`, float32 on the CPU."""
    with torch.device("cpu"):
        return torchaudio.functional.create_dct(coefficients, mels, "ortho")


class _Rate(float):
    """torchaudio halves the rate by //, which would round half of an odd rate down."""

    def __floordiv__(self, n: Any) -> float:
        return float(self) / n


def _sample_rate(rate: Fraction) -> Any:
    return _Rate(rate)
