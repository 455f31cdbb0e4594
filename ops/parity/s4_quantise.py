"""The quantiser of the published S4/SaShiMi code (state-spaces/s4, 2024-02): min-max per example, floor core, mu-law.

Kept to read its checkpoints and to be compared with; `graphspec.ops.modules.quantise` is the one to use. What differs:
each example is stretched to its own minimum and maximum (so gain and offset depend on the crop), the core floors
instead of rounding, and a level decodes to the left edge of its bin, so encode(decode(q)) is q for about half of the
levels and q-1 for the rest. The order of the float32 operations is part of the behaviour: levels at bin edges depend
on it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def encode(x: Tensor, bits: int, law: Literal["linear", "mu_law"]) -> Tensor:
    """`[B, T, C]` float -> `[B, T, C]` int64 levels, each example scaled by its own range over time and channel."""
    if law == "linear":
        return floor_core(min_max(x, 0.0, 1.0), bits)
    return mu_law_core(min_max(x, -1.0, 1.0), bits)


def decode(q: Tensor, bits: int, law: Literal["linear", "mu_law"]) -> Tensor:
    """Integer levels -> float32 left edges of the bins, in [-1, 1 - 2**(1-bits)] (mu-law: bent by the inverse law)."""
    v = q.to(torch.float32) / (1 << (bits - 1)) - 1.0
    if law == "linear":
        return v
    mu = (1 << bits) - 1
    return v.sign() * ((1 + mu) ** v.abs() - 1.0) / mu


def min_max(x: Tensor, low: float, high: float) -> Tensor:
    """`[B, T, C]` stretched per example to [low, high]; the 1e-6 keeps a constant example finite (it becomes `low`)."""
    least, most = x.amin(dim=(1, 2), keepdim=True), x.amax(dim=(1, 2), keepdim=True)
    return (x - least) / (most - least + 1e-6) * (high - low) + low


def floor_core(unit: Tensor, bits: int) -> Tensor:
    """Values in [0, 1] -> int64 levels, floor(s * (2**bits - 0.01) + 0.005)."""
    return (unit * ((1 << bits) - 0.01) + 0.005).to(torch.int64)  # the cast truncates: floor, for s >= 0


def mu_law_compand(x: Tensor, bits: int) -> Tensor:
    """Values in [-1, 1] bent by mu = 2**bits - 1; the 1e-8 sits inside the modulus."""
    mu = (1 << bits) - 1
    return x.sign() * torch.log1p(mu * (x + 1e-8).abs()) / math.log1p(mu)


def mu_law_core(x: Tensor, bits: int) -> Tensor:
    """Values in [-1, 1] -> int64 levels through `mu_law_compand` and `floor_core`, no min-max."""
    return floor_core((mu_law_compand(x, bits) + 1.0) / 2.0, bits)
