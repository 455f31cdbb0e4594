"""First-order linear recurrences y_t = a_t y_{t-1} + b_t over whole sequences, without a loop over time.

Time goes in blocks of K ticks. One pass runs every block at once from zero and keeps what it leaves at its end and the
product of its gains; the same recurrence over those ends (itself in blocks) gives what enters every block; a second
pass runs every block from there. Both passes take K vectorised steps, whatever T is. The second pass is the recurrence
itself, so nothing is divided by a product of gains, which underflows, and a = 0, NaN and infinity act as in the loop.

The backward is the same scan from the far end: g_t = dL/dy_t + a_{t+1} g_{t+1}, dL/db_t = g_t, dL/da_t = g_t y_{t-1},
dL/dy_0 = a_1 g_1 (the adjoint method; Martin & Cundy 2018, arXiv 1709.04057, for the parallel form). First order only.

Each scan is one node (`torch.ops.graphspec.affine_scan`) to fx, torch.compile and torch.export.
"""

from typing import Any

import torch
from torch import Tensor

_VARYING = 16  # ticks in a block; 8 to 32 cost about the same, and short products of gains stay in range
_CONSTANT = 32
_MANY = 64  # blocks


def affine_scan(a: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    """y_t = a_t y_{t-1} + b_t, element by element, from y_{-1} = y0. Differentiable once, in all three.

    b: `[B, T, ...]`, T >= 1. a: `[B, T, ...]`, any axis may be 1; with time 1 the gain is constant and costs less.
    y0: `[B, ...]` or `[1, ...]`. Returns `[B, T, ...]` in the common dtype; 16-bit inputs are computed in float32.
    """
    if a.ndim != b.ndim or y0.ndim != b.ndim - 1 or b.ndim < 2 or b.shape[1] < 1:
        raise ValueError(f"a and b are [B, T, ...] and y0 is [B, ...], not {shapes(a, b, y0)}")
    if a.shape[1] not in (1, b.shape[1]):
        raise ValueError(f"a has another time than b: {shapes(a, b, y0)}")
    dtype, work = working_dtype(a, b, y0)
    # Only the gain keeps its axes of size 1: a gain shared by rows or channels is multiplied up once for all of them.
    shape = torch.broadcast_shapes(b.shape, a.shape, y0.unsqueeze(1).shape)
    b, y0 = b.to(work).expand(shape), y0.to(work).expand(shape[:1] + shape[2:])
    y: Tensor = _affine_scan(a.to(work), b, y0)
    return y.to(dtype)


def constant_scan(a: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    """`affine_scan` with a gain that is constant over time and shared by the batch: a `[...]`, b `[B, T, ...]`.

    The gain's powers are formed in float64, so that a pole near one is no further off than in the loop.
    """
    if a.ndim != b.ndim - 2:
        raise ValueError(f"a is [...], b is [B, T, ...] and y0 is [B, ...], not {shapes(a, b, y0)}")
    return affine_scan(a[None, None], b, y0)


def working_dtype(*operands: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The common dtype of the operands, which the result has, and the one to compute in: float32 or float64."""
    dtype = operands[0].dtype
    for operand in operands[1:]:
        dtype = torch.promote_types(dtype, operand.dtype)
    if not dtype.is_floating_point:
        raise TypeError(f"a scan takes real floating point operands, not {dtype}")
    return dtype, dtype if dtype == torch.float64 else torch.float32


class Blocks:
    """How T ticks are cut: `count` whole blocks from the side the scan starts at, then `rest` ticks."""

    def __init__(self, ticks: int, block: int, reverse: bool) -> None:
        self.ticks, self.block, self.reverse = ticks, block, reverse
        self.count = ticks // block if ticks >= 2 * block else 0
        self.rest = ticks - self.count * block

    def phases(self, x: Tensor) -> list[Tensor]:
        """`[B, T, ...]` -> the first, second, ... tick the scan meets in every block, views `[B, count, ...]`.

        Time 1 is constant: the same view for every tick, here and in `after`.
        """
        if x.shape[1] == 1 and self.ticks > 1:
            return [x] * self.block
        x = x[:, self.rest :] if self.reverse else x[:, : self.ticks - self.rest]
        views = x.unflatten(1, (self.count, self.block)).unbind(2)
        return list(reversed(views) if self.reverse else views)

    def after(self, x: Tensor) -> list[Tensor]:
        """`[B, T, ...]` -> the ticks after the blocks in the scan's order, views `[B, ...]`."""
        if x.shape[1] == 1 and self.ticks > 1:
            return [x[:, 0]] * self.rest
        views = (x[:, : self.rest] if self.reverse else x[:, self.ticks - self.rest :]).unbind(1)
        return list(reversed(views) if self.reverse else views)


def shapes(*tensors: Tensor) -> str:
    """For a message: the shapes of the operands."""
    return ", ".join(str(list(t.shape)) for t in tensors)


def _run(a: Tensor, b: Tensor, start: Tensor, out: Tensor, reverse: bool) -> None:
    """out_t = a_t out_{t-1} + b_t from `start`, or from the far end. a of time 1 is constant."""
    constant = a.shape[1] == 1
    cut = Blocks(b.shape[1], _CONSTANT if constant else _VARYING, reverse)
    last = start
    if cut.count:
        gains, drives = cut.phases(a), cut.phases(b)
        # First pass. The zero that a block starts from meets its first gain: a gain of infinity is not to be forgotten.
        end = torch.addcmul(drives[0], gains[0], b.new_zeros(()))
        product = a.double() if constant else gains[0].to(torch.float64, copy=True)
        for gain, drive in zip(gains[1:], drives[1:], strict=True):
            torch.addcmul(drive, gain, end, out=end)
            if not constant:
                product.mul_(gain)
        states = _entering(product**cut.block if constant else product, end, start.unsqueeze(1), reverse)
        # Second pass, the recurrence itself.
        last, states = (states[:, 0], states[:, 1:]) if reverse else (states[:, -1], states[:, :-1])
        for gain, drive, y in zip(gains, drives, cut.phases(out), strict=True):
            states = torch.addcmul(drive, gain, states, out=y)
    for gain, drive, y in zip(cut.after(a), cut.after(b), cut.after(out), strict=True):
        last = torch.addcmul(drive, gain, last, out=y)


def _entering(product: Tensor, end: Tensor, start: Tensor, reverse: bool) -> Tensor:
    """What enters each block and what leaves the last: `start` `[B, 1, ...]`, then y_j = product_j y_{j-1} + end_j.

    By doubling (Hillis & Steele 1986): after log2 N additions, sums over windows of 1, 2, 4, ... blocks are sums over
    all. In float64, as products of many gains near one lose digits that the loop keeps; it is one value in K. Products
    come in float64 too, a constant one with time 1. Those that overflow are held at the largest number: the loop has
    none, and what is still zero has to stay zero under an unstable gain.
    """
    if end.shape[1] > _MANY and product.shape[1] > 1:  # doubling passes over all blocks again and again: in blocks, too
        y, top = torch.empty(end.shape, dtype=torch.float64, device=end.device), torch.finfo(torch.float64).max
        _run(product.clamp(-top, top), end.double(), start[:, 0].double(), y, reverse)
        return torch.cat([y, start.double()] if reverse else [start.double(), y], 1).to(end.dtype)
    y = torch.cat([end, start] if reverse else [start, end], 1).double()
    N, s, top = y.shape[1], 1, torch.finfo(torch.float64).max
    constant = product.shape[1] == 1
    while s < N:
        product = product.clamp(-top, top)
        early, late = (y[:, s:], y[:, :-s]) if reverse else (y[:, :-s], y[:, s:])
        late.copy_(torch.addcmul(late, product, early))
        if constant:
            product = product.square()
        elif 2 * s < N:
            product = product[:, s:] * product[:, :-s]
        s *= 2
    return y.to(end.dtype)


@torch.library.custom_op("graphspec::affine_scan", mutates_args=())
def _affine_scan(a: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    y = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    _run(a, b, y0, y, False)
    return y


@_affine_scan.register_fake
def _(a: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    return torch.empty(b.shape, dtype=b.dtype, device=b.device)


@torch.library.custom_op("graphspec::affine_scan_backward", mutates_args=())
def _affine_scan_backward(grad: Tensor, a: Tensor, y: Tensor, y0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    T = y.shape[1]
    constant = a.shape[1] == 1
    g = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    g[:, -1] = grad[:, -1]
    if T > 1:
        _run(a if constant else a[:, 1:], grad[:, :-1], grad[:, -1], g[:, :-1], True)
    if constant:
        # In pieces: a product as long as the sequence would cost more to allocate than to add up.
        piece = max(1, T // _CONSTANT)
        grad_a = (g[:, :1] * y0.unsqueeze(1)).sum_to_size(a.shape)
        for late, early in zip(g[:, 1:].split(piece, 1), y[:, :-1].split(piece, 1), strict=True):
            grad_a = grad_a + (late * early).sum_to_size(a.shape)
    else:
        grad_a = torch.empty_like(g)
        torch.mul(g[:, 1:], y[:, :-1], out=grad_a[:, 1:])
        torch.mul(g[:, 0], y0, out=grad_a[:, 0])
        grad_a = grad_a if a.shape == g.shape else grad_a.sum_to_size(a.shape)
    return grad_a, g, a[:, 0] * g[:, 0]


@_affine_scan_backward.register_fake
def _(grad: Tensor, a: Tensor, y: Tensor, y0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), y.new_empty(y.shape), y0.new_empty(y0.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    a, _, y0 = inputs
    ctx.save_for_backward(a, output, y0)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _affine_scan_backward(grad, *ctx.saved_tensors)


_affine_scan.register_autograd(_backward, setup_context=_save)
