"""Frequencies as pitch numbers and back; what is not voiced is 0 in both."""

from __future__ import annotations

import torch
from torch import Tensor

from graphspec.ops.modules.contract import Stateless


class HzToMidi(Stateless):
    """Hz -> 69 + 12 log2(f / 440), element by element; 0, without a gradient, where f is 0 or less."""

    def forward(self, f: Tensor) -> Tensor:
        unvoiced = f <= 0
        # The logarithm never sees a 0: its gradient there is infinite, and infinity times 0 is NaN.
        return torch.where(unvoiced, 0.0, 12 * torch.log2(torch.where(unvoiced, 440.0, f) / 440) + 69)


class MidiToHz(Stateless):
    """69 + 12 log2(f / 440) -> f in Hz; with `silence` 0, without a gradient, where the number is 0 or less."""

    def __init__(self, silence: bool = True) -> None:
        super().__init__()
        self.silence = silence

    def forward(self, midi: Tensor) -> Tensor:
        f = 440 * torch.exp2((midi - 69) / 12)
        return torch.where(midi <= 0, 0.0, f) if self.silence else f

    def extra_repr(self) -> str:
        return f"silence={self.silence}"
