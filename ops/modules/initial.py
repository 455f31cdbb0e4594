"""First values of weights: drawn in float32 on the CPU, the same on every device and in every dtype."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def uniform(weight: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill a weight from [-bound, bound)."""
    weight.copy_((2 * torch.rand(weight.shape, generator=generator, dtype=torch.float32, device="cpu") - 1) * bound)


@torch.no_grad()
def normal(weight: Tensor, generator: torch.Generator) -> None:
    """Fill a weight from the standard normal distribution."""
    weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float32, device="cpu"))


@torch.no_grad()
def constant(weight: Tensor, value: float) -> None:
    weight.fill_(value)
