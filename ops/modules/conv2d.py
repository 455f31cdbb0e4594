"""2-D convolution along time and the axis after it, and the transposed one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import history, initial
from graphspec.ops.modules.contract import Generator, OverWindows, State


class _Kernel(OverWindows, nn.Module):
    """A square kernel, a bias, and how the excess k - stride is laid out along time and frequency."""

    def __init__(self, shape: tuple[int, int], units: int, bins: int, k: int, stride: int, causal: bool, bias: bool):
        super().__init__()
        if not 1 <= stride <= k:
            raise ValueError(f"conv2d: stride is 1 .. k, not {stride} with k = {k}")
        self.bins, self.k, self.stride = bins, k, stride
        self.excess = k - stride
        self.after = self.excess // 2  # along frequency, and along time
        self.before = self.excess - self.after
        self.ahead = 0 if causal else self.after
        self.weight = nn.Parameter(torch.empty(*shape, k, k))
        self.bias = nn.Parameter(torch.empty(units)) if bias else None

    def reset(self, generator: Generator) -> None:
        """Uniform in +-1/sqrt(k*k times the weight's second size), both."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        initial.uniform(self.weight, bound, generator("weight"))
        if self.bias is not None:
            initial.uniform(self.bias, bound, generator("bias"))

    def prepare(self) -> State:
        return {}

    def extra_repr(self) -> str:
        return f"{list(self.weight.shape)}, stride={self.stride}, ahead={self.ahead}"


class Conv2d(_Kernel):
    """`[B, T, bins, channels]` -> `[B, T/stride, bins/stride, units]`; weight [units, channels, k, k], bias [units].

    State {"past"} [B, k - stride, bins, channels]: the last inputs. A step takes a multiple of `stride` ticks.
    """

    def __init__(
        self,
        channels: int,
        units: int,
        bins: int,
        k: int = 3,
        stride: int = 1,
        causal: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__((units, channels), units, bins, k, stride, causal, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.windows(F.pad(x, (0, 0, 0, 0, self.excess - self.ahead, self.ahead)))

    def init_state(self, batch: int, like: Tensor) -> State:
        """Silence; nothing where it runs over windows."""
        if self.ahead:
            return {}
        return {"past": like.new_zeros(batch, self.excess, self.bins, self.weight.shape[1])}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        if self.ahead:
            raise NotImplementedError(f"conv2d looks {self.ahead} ticks ahead, so it has no step")
        joined = torch.cat([state["past"], x], 1)
        return self.windows(joined), {"past": history.after(joined, x.shape[1])}

    def windows(self, x: Tensor) -> Tensor:
        """Of `[B, k - stride + n, bins, channels]`, padded along frequency only."""
        x = F.pad(x, (0, 0, self.before, self.after))
        return F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, self.stride).permute(0, 2, 3, 1)


class Conv2dUp(_Kernel):
    """`[B, T, bins, channels]` -> `[B, T*stride, bins*stride, units]`; weight [channels, units, k, k], bias [units].

    State {"tail"} [B, k - stride, bins*stride, units]: what past inputs add to results to come, without the bias.
    """

    def __init__(
        self,
        channels: int,
        units: int,
        bins: int,
        k: int = 4,
        stride: int = 2,
        causal: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__((channels, units), units, bins, k, stride, causal, bias)
        self.first = 0 if causal else self.before  # results dropped at the start: so many are looked ahead

    def forward(self, x: Tensor) -> Tensor:
        return self._over(x, self.bias)[:, self.first : self.first + x.shape[1] * self.stride]

    def init_state(self, batch: int, like: Tensor) -> State:
        if self.first:
            return {}
        return {"tail": like.new_zeros(batch, self.excess, self.bins * self.stride, self.weight.shape[1])}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        if self.first:
            raise NotImplementedError("a conv2d_up that is not causal looks ahead, so it has no step")
        n = x.shape[1] * self.stride
        y = self._over(x, None) + F.pad(state["tail"], (0, 0, 0, 0, 0, n))
        out = y[:, :n] if self.bias is None else y[:, :n] + self.bias
        return out, {"tail": history.after(y, n)}

    def windows(self, x: Tensor) -> Tensor:
        """Of inputs with those before and after them that reach into their results."""
        past, future = (self.k - 1 - self.first) // self.stride, (self.stride - 1 + self.first) // self.stride
        start, n = past * self.stride + self.first, x.shape[1] - past - future
        return self._over(x, self.bias)[:, start : start + n * self.stride]

    def _over(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """All that `[B, n, bins, channels]` adds along time, cut along frequency: `[B, n*stride + k - stride, ...]`."""
        y = F.conv_transpose2d(x.permute(0, 3, 1, 2), self.weight, bias, self.stride)
        return y[..., self.before : self.before + x.shape[2] * self.stride].permute(0, 2, 3, 1)
