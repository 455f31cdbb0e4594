"""Linear recurrences of order p: y_t = c_1 y_{t-1} + ... + c_p y_{t-p} + b_t, without a loop over time (p = 2: biquad).

The state is the last p outputs, and a block of K ticks is a p x p matrix on it, a product of companion matrices. As in
scan.py: every block runs from zero, the matrices join the blocks' ends, every block runs again from what enters it.
Constant coefficients have their matrix raised in float64; with varying ones p solutions without drive, one from each
unit state, run beside the first pass. Sampling the frequency response instead would wrap a slow decay around in time.

The backward is the same recurrence from the far end: g_t = dL/dy_t + sum_i c_{t+i,i} g_{t+i}, dL/db_t = g_t,
dL/dc_{t,i} = g_t y_{t-i}. First order only. One node, `torch.ops.graphspec.companion_scan`, to fx and torch.compile.
"""

from typing import Any

import torch
from torch import Tensor

from graphspec.ops.modules.scan import Blocks, shapes, working_dtype

_VARYING = 16
_CONSTANT = 32  # a power of two
_LAGS = 4  # the longest recurrence; the joining of blocks grows with the cube


def companion_scan(coefficients: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    """y_t = sum_i c_i y_{t-i} + b_t for lags i = 1 ... p <= 4, element by element. Differentiable once, in all three.

    b: `[B, T, ...]`, T >= 1. coefficients: lag 1 first, constant `[p, ...]` or `[B, T, p, ...]`, where any axis but p
    may be 1; time 1 is constant. y0: `[B, p, ...]` or `[1, p, ...]`, the p outputs before the first, oldest first.
    Returns `[B, T, ...]` in the common dtype; 16-bit inputs are computed in float32.
    """
    c = coefficients[None, None] if coefficients.ndim == b.ndim - 1 else coefficients
    if c.ndim != b.ndim + 1 or y0.ndim != b.ndim or b.ndim < 2 or b.shape[1] < 1:
        raise ValueError(f"c is [p, ...] or [B, T, p, ...], b [B, T, ...] and y0 [B, p, ...], not {shapes(c, b, y0)}")
    p = c.shape[2]
    if not 1 <= p <= _LAGS or y0.shape[1] != p:
        raise ValueError(f"c and y0 have the same 1 to {_LAGS} lags, not {shapes(c, b, y0)}")
    if c.shape[1] not in (1, b.shape[1]):
        raise ValueError(f"the coefficients have another time than b: {shapes(c, b, y0)}")
    dtype, work = working_dtype(c, b, y0)
    shape = torch.broadcast_shapes(b.shape, c[:, :, 0].shape, y0[:, :1].shape)
    b, y0 = b.to(work).expand(shape), y0.to(work).expand(shape[:1] + (p,) + shape[2:])
    y: Tensor = _companion_scan(c.to(work), b, y0)
    return y.to(dtype)


def _tick(gains: tuple[Tensor, ...], drive: Tensor, last: list[Tensor], out: Tensor) -> list[Tensor]:
    """One tick into `out`, which may be the oldest of `last`. gains and last: lag 1 first. Returns the new `last`."""
    torch.addcmul(drive, gains[-1], last[-1], out=out)
    for gain, y in zip(gains[:-1], last[:-1], strict=True):
        out.addcmul_(gain, y)
    return [out, *last[:-1]]


def _run(c: Tensor, b: Tensor, start: Tensor, out: Tensor, reverse: bool) -> None:
    """The recurrence over b `[B, T, ...]` into `out`, from `start` `[B, p, ...]`, oldest first, or reversed."""
    p, constant = c.shape[2], c.shape[1] == 1
    cut = Blocks(b.shape[1], _CONSTANT if constant else _VARYING, reverse)
    last = list(start.unbind(1))[::-1]
    if cut.count:
        gains = list(zip(*(cut.phases(c[:, :, i]) for i in range(p)), strict=True))
        drives = cut.phases(b)
        # First pass. Zeros are multiplied too: an infinite gain is not to be forgotten.
        ends = [b.new_zeros((b.shape[0], cut.count) + b.shape[2:]) for _ in range(p)]
        for gain, drive in zip(gains, drives, strict=True):
            ends = _tick(gain, drive, ends, ends[-1])
        matrix = _power(c, cut.block) if constant else _transition(gains)
        states = _entering(matrix, torch.stack(ends[::-1], 2), start.unsqueeze(1), reverse)
        # Second pass, the recurrence itself.
        last = list((states[:, 0] if reverse else states[:, -1]).unbind(1))[::-1]
        entered = list((states[:, 1:] if reverse else states[:, :-1]).unbind(2))[::-1]
        for gain, drive, y in zip(gains, drives, cut.phases(out), strict=True):
            entered = _tick(gain, drive, entered, y)
    after = zip(*(cut.after(c[:, :, i]) for i in range(p)), strict=True)
    for gain, drive, y in zip(after, cut.after(b), cut.after(out), strict=True):
        last = _tick(gain, drive, last, y)


def _transition(gains: list[tuple[Tensor, ...]]) -> Tensor:
    """What varying gains (a tuple of p lags a tick) make of a block's state, `[B, N, p, p, ...]` in float64.

    Its columns are the solutions without drive from the unit states. Float32 would move poles near one.
    """
    like, p = gains[0][0], len(gains[0])
    unit = torch.eye(p, dtype=torch.float64, device=like.device).reshape((p, 1, 1, p) + (1,) * (like.ndim - 2))
    free = list(unit.unbind(0))[::-1]
    for gain in gains:
        new = gain[0].double().unsqueeze(2) * free[0]
        for lag, y in zip(gain[1:], free[1:], strict=True):
            new = torch.addcmul(new, lag.double().unsqueeze(2), y)
        free = [new, *free[:-1]]
    return torch.stack(free[::-1], 2)


def _power(c: Tensor, block: int) -> Tensor:
    """The companion matrix of constant c `[B, 1, p, ...]` to the power `block`, `[B, 1, p, p, ...]` in float64."""
    p = c.shape[2]
    matrix = c.new_zeros(c.shape[:2] + (p, p) + c.shape[3:], dtype=torch.float64)
    for row in range(p - 1):
        matrix[:, :, row, row + 1] = 1
    matrix[:, :, p - 1] = c.flip(2)
    for _ in range(block.bit_length() - 1):
        matrix = _matmul(matrix, matrix)
    return matrix


def _matmul(later: Tensor, earlier: Tensor) -> Tensor:
    """later @ earlier over axes 2 and 3, `[B, N, p, p, ...]`; element-wise, as channels lie innermost."""
    out = later[:, :, :, :1] * earlier[:, :, :1]
    for i in range(1, later.shape[2]):
        out.addcmul_(later[:, :, :, i : i + 1], earlier[:, :, i : i + 1])
    return out


def _entering(matrix: Tensor, end: Tensor, start: Tensor, reverse: bool) -> Tensor:
    """What enters each block and what leaves the last: `start` `[B, 1, p, ...]`, then s_j = matrix_j s_{j-1} + end_j.

    By doubling in float64, as in scan.py, overflowed products held likewise. A constant matrix has time 1.
    """
    s = torch.cat([end, start] if reverse else [start, end], 1).double()
    N, width, top = s.shape[1], 1, torch.finfo(torch.float64).max
    constant = matrix.shape[1] == 1
    while width < N:
        matrix = matrix.nan_to_num(nan=top)  # infinities become +-top
        early, late = (s[:, width:], s[:, :-width]) if reverse else (s[:, :-width], s[:, width:])
        new = late
        for i in range(s.shape[2]):
            new = torch.addcmul(new, matrix[:, :, :, i], early[:, :, i : i + 1])
        late.copy_(new)
        if constant:
            matrix = _matmul(matrix, matrix)
        elif 2 * width < N:
            first, then = (
                (matrix[:, width:], matrix[:, :-width]) if reverse else (matrix[:, :-width], matrix[:, width:])
            )
            matrix = _matmul(then, first)
        width *= 2
    return s.to(end.dtype)


@torch.library.custom_op("graphspec::companion_scan", mutates_args=())
def _companion_scan(c: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    y = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    _run(c, b, y0, y, False)
    return y


@_companion_scan.register_fake
def _(c: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    return torch.empty(b.shape, dtype=b.dtype, device=b.device)


@torch.library.custom_op("graphspec::companion_scan_backward", mutates_args=())
def _companion_scan_backward(grad: Tensor, c: Tensor, y: Tensor, y0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    T, p, constant = y.shape[1], c.shape[2], c.shape[1] == 1
    later = c
    if not constant:
        later = torch.zeros_like(c, memory_format=torch.contiguous_format)  # what y_t weighs in y_{t+i}
        for i in range(1, min(p + 1, T)):
            later[:, : T - i, i - 1] = c[:, i:, i - 1]
    g = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    _run(later, grad, torch.zeros_like(y0), g, True)
    grad_y0 = torch.zeros(y0.shape, dtype=y.dtype, device=y.device)
    for j in range(1, p + 1):
        for i in range(j, min(p, T + j - 1) + 1):
            grad_y0[:, p - j].addcmul_(c[:, 0 if constant else i - j, i - 1], g[:, i - j])
    past = torch.cat([y0, y], 1)
    sizes = c[:, :, 0].shape
    grad_c = torch.empty(c.shape if constant else g.shape[:2] + (p,) + g.shape[2:], dtype=y.dtype, device=y.device)
    piece = max(1, T // _CONSTANT)  # as in scan.py
    for i in range(p):
        before = past[:, p - 1 - i :][:, :T]
        if constant:
            pairs = zip(g.split(piece, 1), before.split(piece, 1), strict=True)
            grad_c[:, :, i] = sum((now * then).sum_to_size(sizes) for now, then in pairs)
        else:
            torch.mul(g, before, out=grad_c[:, :, i])
    return grad_c if grad_c.shape == c.shape else grad_c.sum_to_size(c.shape), g, grad_y0


@_companion_scan_backward.register_fake
def _(grad: Tensor, c: Tensor, y: Tensor, y0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return c.new_empty(c.shape), y.new_empty(y.shape), y0.new_empty(y0.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    c, _, y0 = inputs
    ctx.save_for_backward(c, output, y0)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _companion_scan_backward(grad, *ctx.saved_tensors)


_companion_scan.register_autograd(_backward, setup_context=_save)
