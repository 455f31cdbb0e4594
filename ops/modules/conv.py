"""1-D causal convolution along time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import history, initial
from graphspec.ops.modules.contract import Generator, State


class CausalConv(nn.Module):
    """`[B, T, channels]` -> `[B, T, units]`: y_t = b + sum_j W_j x_{t - (k-1-j)*dilation}, zeros before the start.

    Weights weight [units, channels, k], bias [units]. State {"past"}: the last (k-1)*dilation inputs, oldest first.
    """

    def __init__(self, channels: int, units: int, k: int = 3, dilation: int = 1, bias: bool = True) -> None:
        super().__init__()
        if k < 1 or dilation < 1:
            raise ValueError(f"conv: k and dilation are at least 1, not {k} and {dilation}")
        self.dilation, self.past = dilation, (k - 1) * dilation
        self.weight = nn.Parameter(torch.empty(units, channels, k))
        self.bias = nn.Parameter(torch.empty(units)) if bias else None

    def reset(self, generator: Generator) -> None:
        """Uniform in +-1/sqrt(channels*k), both."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        initial.uniform(self.weight, bound, generator("weight"))
        if self.bias is not None:
            initial.uniform(self.bias, bound, generator("bias"))

    def forward(self, x: Tensor) -> Tensor:
        return self._over(F.pad(x, (0, 0, self.past, 0)))

    def prepare(self) -> State:
        """The weight as one matrix [units, k*channels], tap by tap: a tick is then one product."""
        return {"taps": self.weight.transpose(1, 2).flatten(1)}

    def init_state(self, batch: int, like: Tensor) -> State:
        """Silence: {"past"} [batch, (k-1)*dilation, channels]."""
        return {"past": like.new_zeros(batch, self.past, self.weight.shape[1])}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        joined = torch.cat([state["past"], x], 1)
        if x.shape[1] == 1:
            y = F.linear(joined[:, :: self.dilation].flatten(1), prepared["taps"], self.bias)[:, None]
        else:
            y = self._over(joined)
        return y, {"past": history.after(joined, x.shape[1])}

    def _over(self, x: Tensor) -> Tensor:
        """The convolution of `[B, past + n, channels]`, without padding."""
        return F.conv1d(x.transpose(1, 2), self.weight, self.bias, dilation=self.dilation).transpose(1, 2)
