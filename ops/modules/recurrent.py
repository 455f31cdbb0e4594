"""Gated recurrent layers on torch's own kernels: whole sequences in one call (cuDNN on CUDA), single ticks by cells.

A GRU that is trained on the CPU has a gradient of its own (gru_gradient.py)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphspec.ops.modules import gru_gradient, initial
from graphspec.ops.modules.contract import Generator, State


class Recurrent(nn.Module):
    """`[B, T, channels]` -> `[B, T, units]`. State of `[B, layers, units]` each: {"h"}, for an LSTM also {"c"}.

    The weights of the layers lie stacked, so that their names do not depend on how many there are: weight_ih
    [gates*units, channels], weight_deep [layers-1, gates*units, units], weight_hh [layers, gates*units, units], bias_ih
    and bias_hh [layers, gates*units]; a learned start is a weight h0 (c0) [layers, units].
    """

    gates: ClassVar[int]
    states: ClassVar[tuple[str, ...]]

    def __init__(self, channels: int, units: int, layers: int = 1, learned: bool = False) -> None:
        super().__init__()
        if min(units, layers) < 1:
            raise ValueError(f"units and layers are at least 1, not {units} and {layers}")
        rows = self.gates * units
        self.units, self.layers, self.learned = units, layers, learned
        self.weight_ih = nn.Parameter(torch.empty(rows, channels))
        if layers > 1:
            self.weight_deep = nn.Parameter(torch.empty(layers - 1, rows, units))
        self.weight_hh = nn.Parameter(torch.empty(layers, rows, units))
        self.bias_ih = nn.Parameter(torch.empty(layers, rows))
        self.bias_hh = nn.Parameter(torch.empty(layers, rows))
        for s in self.states if learned else ():
            self.register_parameter(f"{s}0", nn.Parameter(torch.empty(layers, units)))

    def reset(self, generator: Generator) -> None:
        """Uniform in +-1/sqrt(units), a learned start zero."""
        for name, weight in self.named_parameters():
            if name in ("h0", "c0"):
                initial.constant(weight, 0.0)
            else:
                initial.uniform(weight, 1 / math.sqrt(self.units), generator(name))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self._over(x, self.init_state(x.shape[0], x))
        return y

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        """Of each of `states` [batch, layers, units]: zeros, or a copy of what was learned."""
        if not self.learned:
            return {s: like.new_zeros(batch, self.layers, self.units) for s in self.states}
        return {s: self.get_parameter(f"{s}0").to(like).repeat(batch, 1, 1) for s in self.states}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        return self._tick(x, state) if x.shape[1] == 1 else self._over(x, state)

    def _layer(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w_ih, w_hh, b_ih, b_hh of layer i, as torch's kernels want them."""
        return (self.weight_deep[i - 1] if i else self.weight_ih, self.weight_hh[i], self.bias_ih[i], self.bias_hh[i])

    def _flat(self) -> list[Tensor]:
        return [w for i in range(self.layers) for w in self._layer(i)]

    def _over(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`[B, n, channels]` from a state on."""
        raise NotImplementedError

    def _tick(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`[B, 1, channels]` from a state on."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.weight_ih.shape[1]}, {self.units}, layers={self.layers}, learned={self.learned}"


def _layers_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous()


class GRU(Recurrent):
    """h' = (1 - z) n + z h; see `Recurrent` for shapes and weights, rows in the order r, z, n."""

    gates, states = 3, ("h",)

    def _over(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self._trained(x, state)
        # `train` only makes cuDNN keep what a gradient needs; there is no dropout.
        y, h = torch.gru(x, _layers_first(state["h"]), self._flat(), True, self.layers, 0.0,
                         torch.is_grad_enabled(), False, True)  # fmt: skip
        return y, {"h": _layers_first(h)}

    def _trained(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, h = x, []
        for i, before in enumerate(state["h"].unbind(1)):
            y = gru_gradient.Layer.apply(y, before, *self._layer(i))
            h.append(y[:, -1] if y.shape[1] else before)
        return y, {"h": torch.stack(h, 1)}

    def _tick(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, h = x[:, 0], []
        for i, before in enumerate(state["h"].unbind(1)):
            y = torch.gru_cell(y, before, *self._layer(i))
            h.append(y)
        return y[:, None], {"h": torch.stack(h, 1)}


class LSTM(Recurrent):
    """c' = f c + i g, h' = o tanh(c'); see `Recurrent` for shapes and weights, rows in the order i, f, g, o."""

    gates, states = 4, ("h", "c")

    def _over(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start = [_layers_first(state["h"]), _layers_first(state["c"])]
        y, h, c = torch.lstm(x, start, self._flat(), True, self.layers, 0.0, torch.is_grad_enabled(), False, True)
        return y, {"h": _layers_first(h), "c": _layers_first(c)}

    def _tick(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, h, c = x[:, 0], [], []
        for i, before in enumerate(zip(state["h"].unbind(1), state["c"].unbind(1), strict=True)):
            y, now = torch.lstm_cell(y, before, *self._layer(i))
            h.append(y)
            c.append(now)
        return y[:, None], {"h": torch.stack(h, 1), "c": torch.stack(c, 1)}
