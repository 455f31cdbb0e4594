"""Amplitude to level and back, on one fixed symmetric grid.

The grid has K = 2**bits levels and both ends: level q stands for v = 2q/(K-1) - 1, so level 0 is -1 and level
K-1 is +1 (the grid of the discretised mixture of logistics). `linear` puts amplitudes on it as they are; `mu_law` first
bends them with mu = K - 1 (ITU-T G.711's continuous law), which spends the levels where the ear hears them. The grid
never depends on the crop: two crops of one recording share one scale, and quantise(dequantise(q)) == q for every level.

Neither direction has a gradient: levels are targets and tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Law = Literal["linear", "mu_law"]
LAWS: tuple[str, ...] = ("linear", "mu_law")

# float32 has 24 bits of mantissa; above 16 bits the rounding of (v + 1)/2 * (K-1) reaches whole levels.
MAX_BITS = 16


def quantise(x: Tensor, bits: int, law: Law) -> Tensor:
    """Levels of amplitudes: float `x` of any shape in [-1, 1] -> int64 of the same shape in [0, 2**bits - 1].

    Amplitudes outside [-1, 1] are clipped. The result is always a legal level; which level NaN becomes is not promised
    (the reader of audio files refuses NaN). Half precision is widened to float32 first.
    Raises ValueError for bits outside 1..16 or an unknown law.
    """
    top = _top_level(bits, law)
    v = _wide(x).clamp(-1.0, 1.0)
    if law == "mu_law":
        v = v.sign() * torch.log1p(v.abs() * top) / math.log1p(top)
    q = ((v + 1.0) * (0.5 * top)).round().to(torch.int64)
    return q.clamp(0, top)  # after the cast: NaN casts to an arbitrary integer


def dequantise(q: Tensor, bits: int, law: Law, dtype: torch.dtype) -> Tensor:
    """Amplitudes of levels: integer `q` of any shape in [0, 2**bits - 1] -> `dtype` of the same shape in [-1, 1].

    Raises ValueError for bits outside 1..16 or an unknown law.
    """
    top = _top_level(bits, law)
    wide = torch.promote_types(dtype, torch.float32)
    v = (2 * q.to(torch.int64) - top).to(wide) / top  # exact in float32, so the grid is symmetric
    if law == "mu_law":
        v = (v.sign() * torch.expm1(v.abs() * math.log1p(top)) / top).clamp(-1.0, 1.0)
    return v.to(dtype)


def silence_level(bits: int) -> int:
    """The level of amplitude 0, for either law: 2**(bits - 1). Its own amplitude is half a step above 0."""
    return (_top_level(bits, "linear") + 1) // 2


class _Weightless(nn.Module):
    """A map with no weights and no memory: its step is its forward."""

    def __init__(self, bits: int, law: Law) -> None:
        super().__init__()
        _top_level(bits, law)
        self.bits, self.law = bits, law

    def reset(self, generator: Callable[[str], torch.Generator]) -> None:
        """Draws nothing."""

    def prepare(self) -> dict[str, Tensor]:
        return {}

    def init_state(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        return {}

    def step(
        self, x: Tensor, state: dict[str, Tensor], prepared: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self(x), state

    def extra_repr(self) -> str:
        return f"bits={self.bits}, law={self.law!r}"


class Quantise(_Weightless):
    """`[B, T, ..., C]` float in [-1, 1] -> `[B, T, ..., C]` int64 levels. See `quantise`."""

    def forward(self, x: Tensor) -> Tensor:
        return quantise(x, self.bits, self.law)


class Dequantise(_Weightless):
    """`[B, T, ..., C]` integer levels -> `[B, T, ..., C]` amplitudes in the module's float dtype. See `dequantise`.

    Levels carry no float dtype, so the module keeps an empty tensor that `.to(dtype)` converts with the model.
    """

    dtype_witness: Tensor

    def __init__(self, bits: int, law: Law) -> None:
        super().__init__(bits, law)
        self.register_buffer("dtype_witness", torch.empty(0), persistent=False)

    def forward(self, q: Tensor) -> Tensor:
        return dequantise(q, self.bits, self.law, self.dtype_witness.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _top_level(bits: int, law: str) -> int:
    """K - 1, after checking both settings."""
    if law not in LAWS:
        raise ValueError(f"law is {law!r}; it is one of {', '.join(LAWS)}")
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits is {bits}; it is 1..{MAX_BITS}")
    return (1 << bits) - 1
