"""1-D convolution along time, and the transposed one that raises the rate."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import history, initial
from graphspec.ops.modules.contract import Generator, OverWindows, State


class CausalConv(OverWindows, nn.Module):
    """`[B, T, channels]` -> `[B, T/stride, units]`: y_j = b + sum_i W_i x_{(j+1)*stride - 1 - (k-1-i)*dilation}.

    Zeros before the start. Weights weight [units, channels/groups, k], bias [units]. State {"past"}: the last
    (k-1)*dilation + 1 - stride inputs, oldest first. A step takes a multiple of `stride` ticks. `centre` moves the
    window half of that excess ahead, and what looks ahead streams over windows.
    """

    def __init__(
        self,
        channels: int,
        units: int,
        k: int = 3,
        dilation: int = 1,
        bias: bool = True,
        stride: int = 1,
        groups: int = 1,
        centre: bool = False,
    ) -> None:
        super().__init__()
        if min(k, dilation, stride, groups) < 1:
            raise ValueError("conv: k, dilation, stride and groups are at least 1")
        if channels % groups or units % groups:
            raise ValueError(f"conv: {channels} channels and {units} units do not both split into {groups} groups")
        self.dilation, self.stride, self.groups = dilation, stride, groups
        self.reach = (k - 1) * dilation + 1
        excess = self.reach - stride  # what a group reads besides its own ticks; negative: it skips its first ones
        self.ahead = excess // 2 if centre else 0
        self.past = excess - self.ahead
        self.weight = nn.Parameter(torch.empty(units, channels // groups, k))
        self.bias = nn.Parameter(torch.empty(units)) if bias else None

    def reset(self, generator: Generator) -> None:
        """Uniform in +-1/sqrt(k*channels/groups), both."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        initial.uniform(self.weight, bound, generator("weight"))
        if self.bias is not None:
            initial.uniform(self.bias, bound, generator("bias"))

    def forward(self, x: Tensor) -> Tensor:
        return self.windows(F.pad(x, (0, 0, self.past, self.ahead)))  # what is negative, it takes away

    def prepare(self) -> State:
        """The weight as one matrix, tap by tap, so that a tick is one product: [units, k*channels].

        Depthwise a row a tap, [k, channels]; of other groups nothing, they are convolved.
        """
        if self.ahead > 0:
            return {}
        if self.groups == 1:
            return {"taps": self.weight.transpose(1, 2).flatten(1)}
        return {"taps": self.weight[:, 0].t().contiguous()} if self._depthwise else {}

    def init_state(self, batch: int, like: Tensor) -> State:
        """Silence: {"past"} [batch, (k-1)*dilation + 1 - stride, channels]; nothing where it runs over windows."""
        if self.ahead > 0:
            return {}
        return {"past": like.new_zeros(batch, max(self.past, 0), self.weight.shape[1] * self.groups)}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        if self.ahead > 0:
            raise NotImplementedError(f"a centred conv looks {self.ahead} ticks ahead, so it has no step")
        joined = torch.cat([state["past"], x], 1)
        now = joined if self.past >= 0 else joined[:, -self.past :]
        # `ahead` < 0 (fewer taps than the stride, centred): the group's last ticks are read by nobody.
        now = now if self.ahead == 0 else now[:, : self.ahead]
        if x.shape[1] == self.stride and "taps" in prepared:
            taps = now[:, :: self.dilation]
            if self.groups == 1:
                y = F.linear(taps.flatten(1), prepared["taps"], self.bias)[:, None]
            else:
                y = (taps * prepared["taps"]).sum(1, keepdim=True)
                y = y if self.bias is None else y + self.bias
        else:
            y = self.windows(now)
        return y, {"past": history.after(joined, x.shape[1])}

    @property
    def _depthwise(self) -> bool:
        return self.weight.shape[1] == 1 and self.groups == self.weight.shape[0]

    def windows(self, x: Tensor) -> Tensor:
        """The convolution of `[B, past + n + ahead, channels]`, without padding."""
        y = F.conv1d(x.transpose(1, 2), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return y.transpose(1, 2)

    def extra_repr(self) -> str:
        units, channels, k = self.weight.shape
        text = f"{channels * self.groups}, {units}, k={k}, dilation={self.dilation}"
        return f"{text}, stride={self.stride}, groups={self.groups}, ahead={self.ahead}"


class ConvUp(nn.Module):
    """`[B, T, channels]` -> `[B, T*stride, units]`: y_i = b + sum of W_{i - j*stride} x_j over the j that it reaches.

    Weights weight [channels, units, k], bias [units]. State {"tail"} [B, k - stride, units]: what past inputs add to
    the results to come, without the bias.
    """

    def __init__(self, channels: int, units: int, k: int, stride: int, bias: bool = True) -> None:
        super().__init__()
        if not 1 <= stride <= k:
            raise ValueError(f"conv_up: stride is 1 .. k, not {stride} with k = {k}")
        self.stride, self.tail = stride, k - stride
        self.weight = nn.Parameter(torch.empty(channels, units, k))
        self.bias = nn.Parameter(torch.empty(units)) if bias else None

    def reset(self, generator: Generator) -> None:
        """Uniform in +-1/sqrt(units*k), both: what torch takes for the fan-in."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        initial.uniform(self.weight, bound, generator("weight"))
        if self.bias is not None:
            initial.uniform(self.bias, bound, generator("bias"))

    def forward(self, x: Tensor) -> Tensor:
        return self._over(x, self.bias)[:, : x.shape[1] * self.stride]

    def prepare(self) -> State:
        """The weight as one matrix [k*units, channels]: what one tick adds is one product."""
        return {"taps": self.weight.permute(2, 1, 0).flatten(0, 1)}

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"tail": like.new_zeros(batch, self.tail, self.weight.shape[1])}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        n = x.shape[1] * self.stride
        if x.shape[1] == 1:
            added = F.linear(x[:, 0], prepared["taps"]).unflatten(1, (-1, self.weight.shape[1]))
        else:
            added = self._over(x, None)
        y = added + F.pad(state["tail"], (0, 0, 0, n))
        out = y[:, :n] if self.bias is None else y[:, :n] + self.bias
        return out, {"tail": history.after(y, n)}

    def _over(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """All that `[B, n, channels]` adds: `[B, n*stride + k - stride, units]`."""
        return F.conv_transpose1d(x.transpose(1, 2), self.weight, bias, self.stride).transpose(1, 2)

    def extra_repr(self) -> str:
        channels, units, k = self.weight.shape
        return f"{channels}, {units}, k={k}, stride={self.stride}"
