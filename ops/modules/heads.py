"""The categorical distribution: its head, its loss, its draws. Logits are `[B, T, ..., C, classes]`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules.contract import Stateless
from graphspec.ops.modules.dense import Linear
from graphspec.ops.modules.knobs import Knob, bounded, per_row, wide


class Categorical(Linear):
    """`[B, T, ..., C_in]` -> logits `[B, T, ..., channels, classes]`; weight [channels*classes, C_in]."""

    def __init__(self, width: int, classes: int, channels: int = 1) -> None:
        super().__init__(width, channels * classes)
        self.channels, self.classes = channels, classes

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).unflatten(-1, (self.channels, self.classes))


class CategoricalNLL(Stateless):
    """Logits `[B, T, ..., C, classes]` and classes `[B, T, ..., C]` -> -log p of each, nats `[B, T, ..., C]`."""

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        return -F.log_softmax(wide(logits), -1).gather(-1, x[..., None]).squeeze(-1)


class CategoricalMode(Stateless):
    """Logits `[B, T, ..., C, classes]` -> the likeliest class of each `[B, T, ..., C]`."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits.argmax(-1)


class CategoricalDraw(Stateless):
    """Logits `[B, T, ..., C, classes]` and uniform `noise` `[B, T, ..., C]` in (0, 1) -> classes `[B, T, ..., C]`.

    The class is where the cumulative distribution first exceeds the noise: one number an event, whatever the batch.
    Masks come first (top-k, then top-p of what is left), then temperature. A class of probability 0, so a masked one,
    is never drawn, however close to 1 the noise is.
    """

    def __init__(self, top_k: int = 0) -> None:
        super().__init__()
        self.top_k = top_k

    def forward(self, logits: Tensor, *, noise: Tensor, temperature: Knob = None, top_p: Knob = None) -> Tensor:
        # Knobs left at their neutral number cost nothing.
        if not isinstance(top_p, Tensor) and top_p is not None and top_p >= 1:
            top_p = None
        z = self._masked(wide(logits), top_p)
        if isinstance(temperature, Tensor) or temperature not in (None, 1):
            # Differences to the largest, so that dividing by next to nothing gives 0 and -inf: the argmax.
            limits = torch.finfo(z.dtype)
            z = (z - z.amax(-1, keepdim=True)) / bounded(per_row(temperature, z), limits.tiny, limits.max)
        p = z.softmax(-1)
        reached = (p.cumsum(-1) > noise[..., None]) & (p > 0)
        # argmax gives the first of equals: the first class reached, or, where rounding leaves none, the likeliest.
        return torch.where(reached, 2.0, p).argmax(-1)

    def _masked(self, z: Tensor, top_p: Knob) -> Tensor:
        if top_p is None and not 0 < self.top_k < z.shape[-1]:
            return z
        top, order = z.sort(dim=-1, descending=True, stable=True)
        if self.top_k:
            top, order = top[..., : self.top_k], order[..., : self.top_k]
        if top_p is not None:
            # The probability of all likelier classes; rounded above 1 it would cut the tail even of top_p = 1.
            before = F.pad(top.softmax(-1).cumsum(-1).clamp(max=1.0)[..., :-1], (1, 0))
            top = top.masked_fill(before > bounded(per_row(top_p, z), 0.0, 1.0), -torch.inf)
        return torch.full_like(z, -torch.inf).scatter(-1, order, top)


class CategoricalField(Stateless):
    """Logits `[B, T, ..., C, classes]` -> themselves, or the entropy `[B, T, ..., C]` of each in nats."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, logits: Tensor) -> Tensor:
        if self.name == "logits":
            return logits
        log_p = wide(logits).log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


class LogProb(Stateless):
    """Of whatever distribution: its `nll` with the sign turned."""

    def __init__(self, nll: nn.Module) -> None:
        super().__init__()
        self.nll = nll

    def forward(self, d: Tensor, x: Tensor) -> Tensor:
        return -self.nll(d, x)
