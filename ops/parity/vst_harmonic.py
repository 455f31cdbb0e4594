"""The harmonic synth of the DDSP plug-in (magenta/ddsp 3.7, `VSTSynthesize`), a hop at a time.

Kept to be compared with; `graphspec.ops.modules.synth.Harmonic` is the one to use. What differs: the two frames that a
hop knows, the last one's and its own, are spread over it as over two frames, so that controls go straight to the new
frame's in the first half of a hop and stand still in the second; nothing is silenced sample by sample above half the
rate. So what it makes in pieces is not what the training's synth makes of the whole.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hop_of(
    loud: Tensor, f0: Tensor, before: tuple[Tensor, Tensor], phase: Tensor, hop: int, rate: float
) -> tuple[Tensor, Tensor]:
    """One hop `[B, hop]` and the fundamental's phase behind it, `[B]` in radians.

    loud: how loud each harmonic is, `[B, K]`, and f0 `[B, 1]` in Hz; before: of the last hop, zeros at first.
    """
    way = torch.cat([torch.arange(hop // 2) / (hop // 2), torch.ones(hop - hop // 2)]).to(loud)[:, None]
    loud_t, f0_t = (a[:, None] + (b - a)[:, None] * way for a, b in zip(before, (loud, f0), strict=True))
    turned = phase[:, None, None] + 2 * math.pi / rate * f0_t.cumsum(1)
    k = torch.arange(1, loud.shape[-1] + 1).to(loud)
    return (loud_t * torch.sin(k * turned)).sum(-1), turned[:, -1, 0].remainder(2 * math.pi)
