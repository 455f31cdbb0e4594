"""Gates: one half of the channels decides how much of the other passes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from graphspec.ops.modules.contract import Stateless


class GLU(Stateless):
    """`[B, T, ..., 2C]` -> `[B, T, ..., C]`: a * sigmoid(b), a the first half."""

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(x, -1)


class SwiGLU(Stateless):
    """`[B, T, ..., 2C]` -> `[B, T, ..., C]`: silu(a) * b, a the first half."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return F.silu(a) * b
