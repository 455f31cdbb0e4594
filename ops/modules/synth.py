"""Sound from controls: what makes amplitudes of a network's numbers, and the harmonic oscillator bank (DDSP)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from graphspec.ops.modules.bank import below, harmonic_bank
from graphspec.ops.modules.contract import State, Stateless
from graphspec.types import Type


class ExpSigmoid(Stateless):
    """max * sigmoid(x)^ln(exponent) + threshold, element by element.

    By the logarithm of the sigmoid: far to the left the sigmoid itself is 0 in float32, and its power has no gradient.
    """

    def __init__(self, exponent: float, max: float, threshold: float) -> None:
        super().__init__()
        if not exponent > 1 or not max > 0:
            raise ValueError(f"exp_sigmoid: exponent is above 1, max above 0, not {exponent:g} and {max:g}")
        self.power, self.max, self.threshold = math.log(exponent), max, threshold

    def forward(self, x: Tensor) -> Tensor:
        return self.max * torch.exp(self.power * F.logsigmoid(x)) + self.threshold


class HarmonicShape(Stateless):
    """`[B, T, K]` and a pitch `[B, T, 1]` in Hz -> `[B, T, K]`: 0 from half the rate on, the rest adding up to 1."""

    def __init__(self, f0: Type, hop: int) -> None:
        super().__init__()
        self.limit = half_rate(f0, hop)

    def forward(self, x: Tensor, f0: Tensor) -> Tensor:
        heard = torch.where(below(f0, x.shape[-1], self.limit), x, 0)
        total = heard.sum(-1, keepdim=True)
        # All silent is silence, and no gradient of a division by nothing.
        return heard / torch.where(total == 0, 1, total)


class Harmonic(Stateless):
    """f0 `[B, N, 1]` in Hz, amp `[B, N, 1]`, shape `[B, N, K]` -> `[B, N*hop, 1]`.

    The pitch goes straight from frame to frame, so its sum inside one is a closed form, and only one number a frame is
    added up: the phase at its beginning, in cycles, wrapped. Those sums are in float64 (a number a frame): in float32
    what is rounded off a frame's advance is the same at every frame of a steady pitch, and piles up.

    State {"phase"} [batch, 2]: cycles at the beginning of the next frame, and what rounding took off.
    """

    holds_the_end = True

    def __init__(self, f0: Type, hop: int, method: str, pitch: str) -> None:
        super().__init__()
        if hop < 1:
            raise ValueError(f"harmonic: hop is at least 1, not {hop}")
        self.hop, self.method, self.glides = hop, method, pitch == "linear"
        self.limit = half_rate(f0, hop)

    def forward(self, f0: Tensor, amp: Tensor, shape: Tensor) -> Tensor:
        loud = amp * shape
        f0 = torch.cat([f0, f0[:, -1:]], 1) if self.glides else f0
        loud = loud if self.method == "hold" else torch.cat([loud, loud[:, -1:]], 1)
        return self._from(f0, loud, f0.new_zeros(f0.shape[0], 2))[0]

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"phase": like.new_zeros(batch, 2)}

    def step(self, f0: Tensor, amp: Tensor, shape: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        if self.glides or self.method != "hold":
            raise NotImplementedError("harmonic looks a frame ahead, so it has no step; with all of it held it has")
        return self.over(f0, amp, shape, state, prepared)

    def over(self, f0: Tensor, amp: Tensor, shape: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        """Of n frames, and of each control that looks ahead the frame behind them."""
        y, phase = self._from(f0, amp * shape, state["phase"])
        return y, {"phase": phase}

    def _from(self, f0: Tensor, loud: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The samples of n frames, and the phase behind them."""
        a, b = (f0[:, :-1], f0[:, 1:]) if self.glides else (f0, f0)
        here, there = (loud, loud) if self.method == "hold" else (loud[:, :-1], loud[:, 1:])
        begins, last = self._begins(a[..., 0], b[..., 0], past)
        phase = self._inside(begins, a, b)
        frames = phase.shape[0] * phase.shape[1]
        pitch = torch.cat([a, b], 2).reshape(frames, 2).detach()
        y = harmonic_bank(
            phase.reshape(frames, self.hop),
            pitch,
            here.reshape(frames, -1),
            there.reshape(frames, -1),
            self.curve(loud),
            self.limit,
        )
        return y.view(f0.shape[0], -1, 1), last

    def _begins(self, a: Tensor, b: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Cycles at the beginning of each frame [B, n], and behind the last as the state has it."""
        hop = self.hop
        # A frame without a pitch is silent or not a number itself; those behind it go on.
        a, b = (torch.nan_to_num(x.double(), 0.0, 0.0, 0.0) for x in (a, b))
        advance = ((hop + 1) * a + (hop - 1) * b) / (4 * self.limit)
        ends = past.double().sum(1, keepdim=True) + advance.cumsum(1)
        begins = (ends - advance).remainder(1).to(past.dtype)
        last = ends[:, -1:].remainder(1)
        whole = last.to(past.dtype)
        rest = (last - whole.double()).to(past.dtype).detach()
        return begins, torch.cat([whole, rest], 1)

    def _inside(self, begins: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Cycles at every sample, [B, n, hop]: m + 1 increments are (m+1) a + m (m+1) / (2 hop) (b - a)."""
        rate = 2 * self.limit
        m = torch.arange(self.hop, device=a.device, dtype=a.dtype)
        slow = a / rate
        # A multiple of 1/4096 of few bits times a whole number is exact, so whole cycles are taken off without loss.
        coarse = ((slow * 4096).round() / 4096).detach()
        turns = (m + 1) * coarse
        rest = (m + 1) * (slow - coarse) + (m * (m + 1) / (2 * self.hop)) * ((b - a) / rate)
        return begins[..., None] + (turns - turns.floor()) + rest

    def curve(self, like: Tensor) -> Tensor:
        """How far amplitudes have gone to the next frame's, [hop]."""
        m = torch.arange(self.hop, device=like.device, dtype=like.dtype) / self.hop
        if self.method == "hold":
            return torch.zeros_like(m)
        return m if self.method == "linear" else 0.5 - 0.5 * torch.cos(torch.pi * m)

    def extra_repr(self) -> str:
        return f"hop={self.hop}, method={self.method}, rate={2 * self.limit:g}"


def half_rate(f0: Type, hop: int) -> float:
    """Half the rate of the samples, Hz, when a frame of controls is `hop` of them."""
    if f0.rate is None:
        raise ValueError("a pitch is timed: its rate says what the frequencies are")
    return float(f0.rate * hop / 2)
