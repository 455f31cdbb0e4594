"""A bank of oscillators at whole multiples of one phase, summed: y(m) = sum_k a_k(m) sin(2 pi k phi(m)), by frames.

Within a frame of `hop` samples every amplitude goes from its value at the frame to that at the next along one curve,
a_k(m) = (1 - w(m)) A_k + w(m) A'_k. With k = i J + j the angle sum takes the bank apart,

    sin(k t) = sin(i J t) cos(j t) + cos(i J t) sin(j t),

so that the sums over j are one product of matrices a frame, and sines are taken of t and J t alone: powers of a complex
number give their multiples. What is held is about 7 sqrt(K) numbers a sample, and of a few frames at a time; the
backward makes them again, so nothing as large as samples times partials is ever there.

A partial at or above half the rate is silent, sample by sample. Where it falls silent inside a frame it is left out of
the product and made by itself.

One node, `torch.ops.graphspec.harmonic_bank`, to fx, torch.compile and torch.export; first order only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_AT_ONCE = 2**13  # samples worked on together: their tables stay in a processor's cache ...
_ON_ACCELERATOR = 2**20  # ... and keep an accelerator busy
_ALONE = 2**20  # numbers of partials that fall silent inside a frame, at once


def harmonic_bank(phase: Tensor, pitch: Tensor, here: Tensor, there: Tensor, curve: Tensor, limit: float) -> Tensor:
    """The sum of all partials, `[F, hop]`. Differentiable once in phase, here and there.

    phase: `[F, hop]` of the fundamental, in cycles. pitch: `[F, 2]`, the fundamental at the frame and at the next, in
    Hz; between them it goes straight. here, there: `[F, K]`, amplitudes at the frame and at the next, of partials
    1 .. K. curve: `[hop]`, how far from the one to the other. limit: Hz from which a partial is silent.
    """
    out: Tensor = _bank(phase, pitch, here, there, curve, limit)
    return out


def below(pitch: Tensor, partials: int, limit: float) -> Tensor:
    """Which partials are below a limit, usually half the rate: pitch [..., 1] -> [..., partials]. Of NaN none is."""
    return pitch * torch.arange(1, partials + 1, device=pitch.device, dtype=pitch.dtype) < limit


class _Tables:
    """Powers of e^(i t) for some frames at a time, in memory that is taken once for all of them.

    As real matrices: a row a multiple, a column pair (real, imaginary) a sample.
    """

    def __init__(self, phase: Tensor, partials: int) -> None:
        self.J = max(1, math.isqrt(3 * partials))
        self.I = partials // self.J + 1  # k = 0 has a place too, and is silent
        self.phase, (frames, self.hop) = phase, phase.shape
        at_once = _AT_ONCE if phase.device.type == "cpu" else _ON_ACCELERATOR
        self.size = min(frames, max(1, at_once // self.hop))
        kind = torch.complex128 if phase.dtype == torch.float64 else torch.complex64
        self._fine = torch.empty(self.size, self.J, self.hop, dtype=kind, device=phase.device)
        self._coarse = torch.empty(self.size, self.I, self.hop, dtype=kind, device=phase.device)
        self._sums = phase.new_empty(self.size, 2, self.I, 2 * self.hop)

    def parts(self) -> Iterator[slice]:
        """The frames in pieces, with the tables filled for each."""
        for start in range(0, self.phase.shape[0], self.size):
            part = slice(start, min(start + self.size, self.phase.shape[0]))
            phase = self.phase[part]
            n = phase.shape[0]
            fine, coarse = self._fine[:n], self._coarse[:n]
            _powers(phase, 1.0, fine)
            _powers(phase * -self.J, 1.0j, coarse)  # i conj(z): sine and cosine of i J t
            self.fine = torch.view_as_real(fine).view(n, self.J, 2 * self.hop)
            self.coarse = torch.view_as_real(coarse).view(n, 1, self.I, 2 * self.hop)
            self.sums = self._sums[:n]
            yield part

    def amplitudes(self, here: Tensor, there: Tensor, heard: Tensor) -> Tensor:
        """Of both ends [F, K], those heard all through the frame: [F, 2 * I, J]."""
        F, K = here.shape
        out = here.new_zeros(F, 2, self.I * self.J)
        torch.mul(here, heard, out=out[:, 0, 1 : K + 1])
        torch.mul(there, heard, out=out[:, 1, 1 : K + 1])
        return out.view(F, 2 * self.I, self.J)

    def heard(self, amplitudes: Tensor, curve: Tensor) -> Tensor:
        """The sum of partials, sines with `coarse` as it is: [F, hop]."""
        torch.bmm(amplitudes, self.fine, out=self.sums.view(-1, 2 * self.I, 2 * self.hop))
        ends = self.sums.mul_(self.coarse).sum(2).view(-1, 2, self.hop, 2).sum(3)
        return torch.lerp(ends[:, 0], ends[:, 1], curve)

    def told(self, grad: Tensor, curve: Tensor, partials: int) -> Tensor:
        """The gradient of the amplitudes, from that of `heard`: [F, 2, K]."""
        later = grad * curve
        ends = torch.stack([grad - later, later], 1)[:, :, None, :, None]  # [F, 2, 1, hop, 1]
        F = grad.shape[0]
        torch.mul(self.coarse.view(F, 1, self.I, self.hop, 2), ends, out=self.sums.view(F, 2, self.I, self.hop, 2))
        told = torch.bmm(self.sums.view(F, 2 * self.I, 2 * self.hop), self.fine.transpose(1, 2))
        return told.view(F, 2, self.I * self.J)[:, :, 1 : partials + 1]

    def quarter_turn(self) -> None:
        """From here on `coarse` is for cosines."""
        self.coarse = torch.view_as_real(torch.view_as_complex(self.coarse.view(-1, self.I, self.hop, 2)) * -1j).view(
            -1, 1, self.I, 2 * self.hop
        )


def _powers(phase: Tensor, first: complex, out: Tensor) -> None:
    """first * e^(2 pi i n phase) for n = 0 .. count - 1 into [F, count, hop], each half of twice as many at once."""
    out[:, 0].fill_(first)
    count = out.shape[1]
    angle = (phase - phase.floor()).mul_(2 * math.pi)
    turn = torch.empty(phase.shape, dtype=out.dtype, device=phase.device)
    pairs = torch.view_as_real(turn)
    pairs[..., 0] = torch.cos(angle)
    pairs[..., 1] = torch.sin(angle)
    n = 1
    while n < count:
        m = min(n, count - n)
        torch.mul(out[:, :m], turn[:, None], out=out[:, n : n + m])
        turn, n = turn * turn, 2 * n


class _Alone:
    """Partials that fall silent inside their frame: one row each, [P, hop]."""

    def __init__(self, phase: Tensor, pitch: Tensor, curve: Tensor, frame: Tensor, k: Tensor, limit: float) -> None:
        self.frame, self.k = frame, k
        self.number = (k + 1).to(phase.dtype)[:, None]
        turns = self.number * phase[frame]
        self.angle = (turns - turns.floor()) * (2 * math.pi)
        hop = phase.shape[1]
        straight = torch.arange(hop, device=phase.device, dtype=phase.dtype) / hop
        audible = self.number * torch.lerp(pitch[frame, :1], pitch[frame, 1:], straight) < limit
        self.later = curve * audible
        self.first = (1 - curve) * audible

    def amplitude(self, here: Tensor, there: Tensor) -> Tensor:
        return self.first * here[self.frame, self.k, None] + self.later * there[self.frame, self.k, None]


def _changing(phase: Tensor, pitch: Tensor, curve: Tensor, partials: int, limit: float) -> Iterator[_Alone]:
    """The partials that are heard at one end of their frame and not at the other, in pieces."""
    ends = below(pitch[..., None], partials, limit)
    frame, k = torch.nonzero(ends[:, 0] ^ ends[:, 1], as_tuple=True)
    size = max(1, _ALONE // phase.shape[1])
    for f, n in zip(frame.split(size), k.split(size), strict=True):
        if len(f):
            yield _Alone(phase, pitch, curve, f, n, limit)


@torch.library.custom_op("graphspec::harmonic_bank", mutates_args=())
def _bank(phase: Tensor, pitch: Tensor, here: Tensor, there: Tensor, curve: Tensor, limit: float) -> Tensor:
    K = here.shape[1]
    out = torch.empty(phase.shape, dtype=phase.dtype, device=phase.device)
    tables = _Tables(phase, K)
    for part in tables.parts():
        heard = below(pitch[part, :, None], K, limit).all(1)
        out[part] = tables.heard(tables.amplitudes(here[part], there[part], heard), curve)
    for alone in _changing(phase, pitch, curve, K, limit):
        out.index_add_(0, alone.frame, alone.amplitude(here, there) * torch.sin(alone.angle))
    return out


@_bank.register_fake
def _(phase: Tensor, pitch: Tensor, here: Tensor, there: Tensor, curve: Tensor, limit: float) -> Tensor:
    return torch.empty(phase.shape, dtype=phase.dtype, device=phase.device)


@torch.library.custom_op("graphspec::harmonic_bank_backward", mutates_args=())
def _bank_backward(
    grad: Tensor,
    phase: Tensor,
    pitch: Tensor,
    here: Tensor,
    there: Tensor,
    curve: Tensor,
    limit: float,
    of_phase: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    K = here.shape[1]
    grad_here, grad_there = (torch.empty(here.shape, dtype=here.dtype, device=here.device) for _ in range(2))
    grad_phase = torch.zeros(phase.shape if of_phase else (0, 0), dtype=phase.dtype, device=phase.device)
    number = torch.arange(1, K + 1, device=here.device, dtype=here.dtype)
    tables = _Tables(phase, K)
    for part in tables.parts():
        heard = below(pitch[part, :, None], K, limit).all(1)
        told = tables.told(grad[part], curve, K)
        torch.mul(told[:, 0], heard, out=grad_here[part])
        torch.mul(told[:, 1], heard, out=grad_there[part])
        if of_phase:
            tables.quarter_turn()
            faster = tables.amplitudes(here[part] * number, there[part] * number, heard)
            torch.mul(tables.heard(faster, curve), grad[part], out=grad_phase[part])
    for alone in _changing(phase, pitch, curve, K, limit):
        pulled = grad[alone.frame] * torch.sin(alone.angle)
        grad_here[alone.frame, alone.k] = (pulled * alone.first).sum(1)
        grad_there[alone.frame, alone.k] = (pulled * alone.later).sum(1)
        if of_phase:
            slope = alone.amplitude(here, there) * torch.cos(alone.angle) * alone.number
            grad_phase.index_add_(0, alone.frame, slope * grad[alone.frame])
    return grad_phase.mul_(2 * math.pi), grad_here, grad_there


@_bank_backward.register_fake
def _(
    grad: Tensor,
    phase: Tensor,
    pitch: Tensor,
    here: Tensor,
    there: Tensor,
    curve: Tensor,
    limit: float,
    of_phase: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return phase.new_empty(phase.shape if of_phase else (0, 0)), here.new_empty(here.shape), there.new_empty(here.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.limit = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None, None]:
    of_phase = ctx.needs_input_grad[0]
    phase, here, there = _bank_backward(grad, *ctx.saved_tensors, ctx.limit, of_phase)
    return phase if of_phase else None, None, here, there, None, None


_bank.register_autograd(_backward, setup_context=_save)
