"""A discretised mixture of logistics over the levels of a grid (Salimans et al. 2017, PixelCNN++).

Level q of K lies at x = 2q/(K-1) - 1, and its bin reaches half way to its neighbours; the first and the last level
take the tails. Parameters are `[B, T, ..., C, A]`, for each channel M numbers of each kind, side by side:

    logits | means | log-scales | coefficients of the earlier channels, where the channels are joined

Edges are told by the level, not by the value, and computed in half bins, where they are whole numbers in float32 too:
neighbours then share an edge exactly, and the probabilities of 2**16 levels add up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import initial
from graphspec.ops.modules.contract import Generator, Stateless
from graphspec.ops.modules.knobs import Knob, bounded, per_row, wide

LevelLogProb = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(level, means, log-scales, K) -> log-probability of the level, broadcasting."""


class Parameters(NamedTuple):
    """`[..., C, M]` each; coefficients `[..., C, C-1, M]`, zero for channels that are not earlier, or none."""

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor | None


def parameters(d: Tensor, mixtures: int, joint: int = 1) -> Parameters:
    """The kinds of parameters of `[..., C, A]`, at least in float32. joint: channels that share a mixture, or 1."""
    logits, means, log_scales, *rest = wide(d).split([mixtures] * 3 + [mixtures * (joint - 1)] * (joint > 1), -1)
    return Parameters(logits, means, log_scales, rest[0].unflatten(-1, (joint - 1, mixtures)) if rest else None)


def lowest_log_scale(bits: int) -> float:
    """-7 at 8 bits, where e**-7 is a quarter of half a bin, and the same share of a bin at any other depth."""
    return -7.0 - math.log((2**bits - 1) / 255)


def level_log_prob(q: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """log P of level q under one logistic, exact to rounding wherever it lies; no threshold and no fallback.

    log(sigma(a) - sigma(b)) = log sigma(a) + log sigma(-b) + log(1 - exp(b - a)), with a and b the upper and the lower
    edge in scales: nothing cancels.
    """
    place = 2 * q - (levels - 1)  # in half bins from the middle of the grid, a whole number
    at = means * (levels - 1)
    inverse = torch.exp(-log_scales) / (levels - 1)
    below = F.logsigmoid(((place + 1).to(at.dtype) - at) * inverse)
    above = F.logsigmoid((at - (place - 1).to(at.dtype)) * inverse)
    inside = below + above + _log_of_width(math.log(2 / (levels - 1)) - log_scales)
    return torch.where(q == 0, below, torch.where(q == levels - 1, above, inside))


def _log_of_width(log_w: Tensor) -> Tensor:
    """log(1 - exp(-w)); for narrow bins by its series, where w itself may be too small for a float."""
    w = log_w.exp()
    # Each branch is finite where the other is taken: else its gradient would be NaN, not 0.
    near = log_w - w / 2 + w.clamp(max=1e-3).square() / 24
    return torch.where(w < 1e-3, near, torch.log(-torch.expm1(-w.clamp(min=1e-3))))


def position(q: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Levels -> where they lie in [-1, 1]."""
    return (2 * q - (levels - 1)).to(dtype) / (levels - 1)


class DML(Stateless):
    """`[B, T, ..., C_in]` -> parameters `[B, T, ..., channels, A]`.

    Weights weight [rows, C_in] and bias [rows]. The rows of a channel are its logits, means and log-scales, channel
    after channel; joined channels have one set of logits, then the means of all, their log-scales, and for each
    channel after the first a coefficient for each earlier one and mixture, through tanh.
    """

    def __init__(
        self, width: int, mixtures: int, channels: int = 1, joint: bool = False, log_scale_min: float = -7.0
    ) -> None:
        super().__init__()
        self.mixtures, self.channels = mixtures, channels
        self.joint = joint and channels > 1
        self.log_scale_min = log_scale_min
        kinds = (1 + 2 * channels + channels * (channels - 1) // 2) if self.joint else 3 * channels
        self.weight = nn.Parameter(torch.empty(kinds * mixtures, width))
        self.bias = nn.Parameter(torch.empty(kinds * mixtures))

    def reset(self, generator: Generator) -> None:
        """As `linear`: means about 0, scales about 1. Scales that begin narrow were tried, and end worse."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        initial.uniform(self.weight, bound, generator("weight"))
        initial.uniform(self.bias, bound, generator("bias"))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias).unflatten(-1, (-1, self.mixtures))
        c = self.channels
        if not self.joint:
            logits, means, log_scales = y.unflatten(-2, (c, 3)).unbind(-2)
            return torch.cat([logits, means, log_scales.clamp(min=self.log_scale_min)], -1)
        logits, means, log_scales, pairs = y.split([1, c, c, c * (c - 1) // 2], -2)
        pairs, each = pairs.tanh(), []
        for i in range(c):
            mine = pairs[..., i * (i - 1) // 2 : i * (i + 1) // 2, :]
            each.append(F.pad(mine, (0, 0, 0, c - 1 - i)).flatten(-2))
        log_scales = log_scales.clamp(min=self.log_scale_min)
        return torch.cat([logits.expand_as(means), means, log_scales, torch.stack(each, -2)], -1)


class _OfMixture(Stateless):
    """A function of the distribution: how its tensor is laid out, and which form its probabilities take."""

    def __init__(self, mixtures: int, bits: int, joint: int = 1, log_prob: LevelLogProb = level_log_prob) -> None:
        super().__init__()
        self.mixtures, self.levels, self.joint, self.log_prob = mixtures, 2**bits, joint, log_prob

    def told(self, d: Tensor) -> Parameters:
        return parameters(d, self.mixtures, self.joint)

    def events(self, d: Parameters, q: Tensor) -> Tensor:
        """log P of levels `[..., C]`, `[..., C]`; of joined channels that of each given the earlier ones."""
        means = d.means
        if d.coefficients is not None:
            x = position(q[..., :-1], self.levels, means.dtype)
            means = means + (d.coefficients * x[..., None, :, None]).sum(-2)
        parts = self.log_prob(q[..., None], means, d.log_scales, self.levels)
        if d.coefficients is None:
            return torch.logsumexp(d.logits.log_softmax(-1) + parts, -1)
        # One component speaks for all channels: P(first c of them), and each given the earlier by the ratio.
        so_far = torch.logsumexp(d.logits.log_softmax(-1) + parts.cumsum(-2), -1)
        return so_far - F.pad(so_far[..., :-1], (1, 0))

    def placed(self, mean: Tensor, spread: Tensor) -> Tensor:
        """Where mean + spread (in half bins) lies, its level. A NaN is some level too, as an embedding needs."""
        q = ((mean * (self.levels - 1) + spread + (self.levels - 1)) / 2).round().clamp(0, self.levels - 1)
        return q.nan_to_num(0.0).long()

    def chain(self, means: Tensor, coefficients: Tensor | None, spread: Tensor) -> Tensor:
        """Levels `[..., C]` of one component a channel, of means and spreads `[..., C]`, as `placed` tells.

        coefficients `[..., C, C-1]`: each channel then hears the levels of those before it.
        """
        if coefficients is None:
            return self.placed(means, spread)
        out: list[Tensor] = []
        for c in range(means.shape[-1]):
            mean = means[..., c]
            for j, q in enumerate(out):
                mean = mean + coefficients[..., c, j] * position(q, self.levels, mean.dtype)
            out.append(self.placed(mean, spread[..., c]))
        return torch.stack(out, -1)


class DMLNLL(_OfMixture):
    """Parameters `[B, T, ..., C, A]` and levels `[B, T, ..., C]` -> -log P of each, nats `[B, T, ..., C]`."""

    def forward(self, d: Tensor, x: Tensor) -> Tensor:
        return -self.events(self.told(d), x)


class DMLMode(_OfMixture):
    """Parameters `[B, T, ..., C, A]` -> levels `[B, T, ..., C]`: the best of M, each component's own likeliest."""

    def forward(self, d: Tensor) -> Tensor:
        p = self.told(d)
        logits, means, log_scales = (t.unsqueeze(-3) for t in p[:3])
        coefficients = p.coefficients.unsqueeze(-4) if p.coefficients is not None else None
        # One row a candidate, which is a level of each channel: [..., M, C].
        found = self.chain(
            p.means.mT, None if p.coefficients is None else p.coefficients.movedim(-1, -3), p.log_scales.mT
        )
        score = self.events(Parameters(logits, means, log_scales, coefficients), found)
        if coefficients is not None:  # a candidate is taken as a whole
            score = score.sum(-1, keepdim=True).expand_as(found)
        return found.gather(-2, score.argmax(-2, keepdim=True)).squeeze(-2)

    def placed(self, mean: Tensor, log_scale: Tensor) -> Tensor:
        """The likeliest level of a logistic: its mean's, or an end that takes a longer tail."""
        inner = super().placed(mean, torch.zeros_like(mean))
        found = torch.stack([inner, torch.zeros_like(inner), torch.full_like(inner, self.levels - 1)], -1)
        best = self.log_prob(found, mean[..., None], log_scale[..., None], self.levels).argmax(-1, keepdim=True)
        return found.gather(-1, best).squeeze(-1)


class DMLDraw(_OfMixture):
    """Parameters `[B, T, ..., C, A]`, uniform `noise` `[B, T, ..., C, M+1]` in (0, 1) -> levels `[B, T, ..., C]`.

    The first M numbers choose the component (Gumbel-max; those of the first channel, where the channels are joined),
    the last is where the logistic's distribution function stands. Rounded to the grid, a draw has just the
    probabilities that `nll` tells. temperature divides the logits and multiplies the scales: towards 0 a draw is the
    mean of the likeliest component.
    """

    def __init__(
        self,
        mixtures: int,
        bits: int,
        joint: int = 1,
        log_prob: LevelLogProb = level_log_prob,
        margin: float = 2.0**-25,
    ) -> None:
        super().__init__(mixtures, bits, joint, log_prob)
        self.margin = margin

    def forward(self, d: Tensor, *, noise: Tensor, temperature: Knob = None) -> Tensor:
        p, u = self.told(d), wide(noise)
        # A uniform number of exactly 0 or 1 has no logarithm.
        u = u.clamp(self.margin, 1 - max(self.margin, torch.finfo(u.dtype).eps / 2))
        z, spread = p.logits, p.log_scales.exp()
        if isinstance(temperature, Tensor) or temperature not in (None, 1):
            limits = torch.finfo(z.dtype)
            t = per_row(temperature, z)
            z = (z - z.amax(-1, keepdim=True)) / bounded(t, limits.tiny, limits.max)
            spread = spread * bounded(t, 0.0, limits.max)
        k = (z - torch.log(-torch.log(u[..., :-1]))).argmax(-1, keepdim=True)
        if p.coefficients is not None:
            k = k[..., :1, :].expand_as(k)
        place = u[..., -1]
        noise_ = (place.log() - torch.log1p(-place)) * spread.gather(-1, k).squeeze(-1) * (self.levels - 1)
        coefficients = p.coefficients
        if coefficients is not None:
            which = k[..., None].expand(*k.shape[:-1], coefficients.shape[-2], 1)
            coefficients = coefficients.gather(-1, which).squeeze(-1)
        return self.chain(p.means.gather(-1, k).squeeze(-1), coefficients, noise_)


class DMLField(Stateless):
    """Parameters `[B, T, ..., C, A]` -> what one kind of them says, `[B, T, ..., C, M]`, or the mixture's entropy
    `[B, T, ..., C]`, in nats."""

    def __init__(self, name: str, mixtures: int, joint: int = 1) -> None:
        super().__init__()
        self.name, self.mixtures, self.joint = name, mixtures, joint

    def forward(self, d: Tensor) -> Tensor:
        p = parameters(d, self.mixtures, self.joint)
        if self.name == "logits":
            return p.logits
        if self.name == "means":
            return p.means
        if self.name == "scale":
            return p.log_scales.exp()
        return entropy(p.logits)


def entropy(logits: Tensor) -> Tensor:
    """Of the classes that logits `[..., n]` tell, nats `[...]`."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
