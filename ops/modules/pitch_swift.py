"""The pitch of whole recordings by the package swift-f0 (extra `f0`), on the CPU, brought to a frame rate."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphspec.diagnostic import Fix, fail
from graphspec.ops.modules.contract import CannotStep
from graphspec.types import Type

LOWEST, HIGHEST = 46.875, 2093.75  # Hz, of its model


class Swift(CannotStep):
    """`[B, T, 1]` -> `[B, T/hop, 1]`: Hz, 0 where not voiced, or the confidence 0 .. 1; without a gradient.

    The model names a pitch every 16 ms, from 16 kHz. Between two such times the logarithm of the pitch goes straight;
    one that is not confident counts as the confident one before it. SpecError GS0680 where the package is not there.
    """

    def __init__(
        self, x: Type, hop: int, *, fmin: float, fmax: float, voiced: float = 0.5, wanted: str = "pitch"
    ) -> None:
        super().__init__()
        if x.rate is None or x.rate.denominator != 1:
            raise ValueError(f"tracker=swift wants a whole number of samples a second, not {x.rate}")
        if not LOWEST <= fmin < fmax <= HIGHEST:
            raise ValueError(f"tracker=swift finds {LOWEST} to {HIGHEST} Hz, not {fmin:g} to {fmax:g}")
        self.rate, self.hop, self.fmin, self.fmax = int(x.rate), hop, fmin, fmax
        self.voiced, self.wanted = voiced, wanted

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        sounds = x[..., 0].to("cpu", torch.float32).numpy()
        times = np.arange(x.shape[1] // self.hop) * (self.hop / self.rate)
        found = np.stack([self._of(sound, times) for sound in sounds])
        return torch.from_numpy(found).to(x.device, x.dtype)[..., None]

    def _of(self, sound: NDArray[np.float32], times: NDArray[np.float64]) -> NDArray[np.float64]:
        found = detector().detect(sound, self.rate, fmin=self.fmin, fmax=self.fmax)
        sure = found.confidence
        if self.wanted == "voicing":
            return np.interp(times, found.timestamps, sure)
        voiced = sure >= self.voiced
        if not voiced.any():
            return np.zeros(len(times))
        held = np.maximum.accumulate(np.where(voiced, np.arange(len(voiced)), -1))
        held[held < 0] = voiced.argmax()
        pitch = np.exp(np.interp(times, found.timestamps, np.log(found.pitch_hz[held])))
        nearest = np.clip(np.rint(times / (found.timestamps[1] if len(voiced) > 1 else 1)), 0, len(voiced) - 1)
        return np.where(voiced[nearest.astype(int)], pitch, 0.0)

    def extra_repr(self) -> str:
        return f"hop={self.hop}, fmin={self.fmin:g}, fmax={self.fmax:g}, wanted={self.wanted}"


@cache
def detector() -> Any:
    """The package's detector, made once a process."""
    try:
        from swift_f0 import SwiftF0
    except ImportError as error:
        fail(
            "GS0680",
            "tracker=swift needs the package swift-f0, which is not installed",
            None,
            notes=[str(error)],
            fixes=[Fix("pip install graphspec[f0]"), Fix("or leave tracker away: yin needs nothing")],
        )
    return SwiftF0(spin=False)
