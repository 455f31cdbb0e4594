"""Exponential smoothing y_t = a_t y_{t-1} + (1 - a_t) x_t as one scan: the linear scan, in half the memory.

Written as a linear scan, (1 - a) x is a sequence of its own, and so is each of its gradients; on long sequences making
them costs as much as the scan. Here they are made where the result and its gradient are kept. The backward is that of
scan.py with g_t = dL/dy_t + a_{t+1} g_{t+1}: dL/dx_t = (1 - a_t) g_t and dL/da_t = (y_{t-1} - x_t) g_t. First order
only.

One node, `torch.ops.graphspec.smoothing_scan`, to fx, torch.compile and torch.export.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphspec.ops.modules.recurrence import LinearScan
from graphspec.ops.modules.scan import _run, shapes, working_dtype

_PIECES = 8  # a product as long as the sequence would cost more to allocate than to make


class SmoothingScan(LinearScan):
    """a, b -> y with y_t = a_t y_{t-1} + (1 - a_t) b_t; `solve` takes the past, too."""

    def solve(self, a: Tensor, b: Tensor, before: Tensor, keeps: bool = True) -> Tensor:
        """a broadcasts to b `[B, T, ...]`; before `[B, ...]`. keeps: a is the gain of the past, else of b."""
        return smoothing_scan(a, b, before, keeps)


def smoothing_scan(a: Tensor, x: Tensor, y0: Tensor, keeps: bool = True) -> Tensor:
    """y_t = a_t y_{t-1} + (1 - a_t) x_t from y_{-1} = y0, or without `keeps` y_t = (1 - a_t) y_{t-1} + a_t x_t.

    x: `[B, T, ...]`, T >= 1. a: `[B, T, ...]`, any axis may be 1; with time 1 it is constant and costs less.
    y0: `[B, ...]` or `[1, ...]`. Returns `[B, T, ...]` in the common dtype; 16-bit inputs are computed in float32.
    """
    if a.ndim != x.ndim or y0.ndim != x.ndim - 1 or x.ndim < 2 or x.shape[1] < 1 or a.shape[1] not in (1, x.shape[1]):
        raise ValueError(f"a and x are [B, T, ...] and y0 is [B, ...], not {shapes(a, x, y0)}")
    dtype, work = working_dtype(a, x, y0)
    shape = torch.broadcast_shapes(x.shape, a.shape, y0.unsqueeze(1).shape)
    x, y0 = x.to(work).expand(shape), y0.to(work).expand(shape[:1] + shape[2:])
    y: Tensor = _smoothing_scan(a.to(work), x, y0, keeps)
    return y.to(dtype)


@torch.library.custom_op("graphspec::smoothing_scan", mutates_args=())
def _smoothing_scan(a: Tensor, x: Tensor, y0: Tensor, keeps: bool) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if keeps and a.shape == y.shape:
        torch.sub(a.new_ones(()), a, out=y)
        y.mul_(x)
    else:
        torch.mul(1 - a if keeps else a, x, out=y)
    _run(a if keeps else 1 - a, y, y0, y, False)  # each drive is read before its result takes its place
    return y


@_smoothing_scan.register_fake
def _(a: Tensor, x: Tensor, y0: Tensor, keeps: bool) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("graphspec::smoothing_scan_backward", mutates_args=())
def _smoothing_scan_backward(
    grad: Tensor, a: Tensor, x: Tensor, y: Tensor, y0: Tensor, keeps: bool
) -> tuple[Tensor, Tensor, Tensor]:
    T, constant = y.shape[1], a.shape[1] == 1
    gain = a if keeps else 1 - a
    g = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    g[:, -1] = grad[:, -1]
    if T > 1:
        _run(gain if constant else gain[:, 1:], grad[:, :-1], grad[:, -1], g[:, :-1], True)
    grad_y0 = gain[:, 0] * g[:, 0]
    piece = max(1, T // _PIECES)
    whole = a.shape == y.shape
    grad_a = torch.empty_like(y) if whole else torch.zeros(a.shape, dtype=a.dtype, device=a.device)
    for start in range(0, T, piece):
        end = min(T, start + piece)
        at = slice(start, end)
        now = slice(0, 1) if constant else at
        part, heard = g[:, at], x[:, at]
        last = torch.cat([y0.unsqueeze(1), y[:, : end - 1]], 1) if start == 0 else y[:, start - 1 : end - 1]
        told = torch.sub(last, heard, out=grad_a[:, at]) if whole else last - heard
        told.mul_(part)
        if not whole:
            grad_a[:, now] += told.sum_to_size(grad_a[:, now].shape)
        part.mul_(1 - a[:, now] if keeps else a[:, now])  # from here on the gradient of x
    return grad_a if keeps else grad_a.neg_(), g, grad_y0


@_smoothing_scan_backward.register_fake
def _(grad: Tensor, a: Tensor, x: Tensor, y: Tensor, y0: Tensor, keeps: bool) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), y.new_empty(y.shape), y0.new_empty(y0.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, x, y0, keeps = inputs
    ctx.save_for_backward(a, x, output, y0)
    ctx.keeps = keeps


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    return *_smoothing_scan_backward(grad, *ctx.saved_tensors, ctx.keeps), None


_smoothing_scan.register_autograd(_backward, setup_context=_save)
