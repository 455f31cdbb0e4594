"""A layer of a GRU with a gradient derived by hand, for the CPU: torch's own takes longer and keeps more.

Going back through time only the state's gradient d_t is a recursion. At each tick the gradients of the three sums of
gates are d_t times factors that do not depend on it. So a tick is one product with those factors and one matrix
product; all else, the gradients of weights and of the input too, is done for many ticks at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE = 64  # ticks of which the factors are in memory


class Layer(torch.autograd.Function):
    """x `[B, T, C]` from the state h0 `[B, H]` on: `[B, T, H]`. Weights `[3H, C]`, `[3H, H]`, `[3H]`, rows r, z, n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        units, ticks = h0.shape[1], x.shape[1]
        gates = torch.nn.functional.linear(x, w_ih, b_ih)  # what the input says to them; tick by tick, what they are
        said = gates.new_empty(ticks, len(x), units)  # V h + d of n, before r
        h = gates.new_empty(ticks + 1, len(x), units)
        h[0] = h0
        both = gates.new_empty(len(x), 3 * units)
        both_rz, both_n = both.split([2 * units, units], -1)
        rz, n = gates.split([2 * units, units], -1)
        r, z = rz.split(units, -1)
        across = w_hh.t()
        # `unbind` once: indexing every tick costs as much as its arithmetic.
        each = [*(v.unbind(1) for v in (rz, r, z, n)), *(v.unbind(0) for v in (said, h[:-1], h[1:]))]
        for rz_t, r_t, z_t, n_t, said_t, now, after in zip(*each, strict=True):
            torch.addmm(b_hh, now, across, out=both)
            rz_t.add_(both_rz).sigmoid_()
            said_t.copy_(both_n)
            n_t.addcmul_(r_t, said_t).tanh_()
            torch.lerp(n_t, now, z_t, out=after)
        ctx.save_for_backward(x, gates, said, h, w_ih, w_hh)
        return h[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, gates, said, h, w_ih, w_hh = ctx.saved_tensors
        ticks, batch, units = said.shape
        to_gates = torch.empty_like(gates)  # of what the input says to them
        grad_w, grad_b = torch.zeros_like(w_hh), w_hh.new_zeros(3 * units)
        back = h.new_zeros(batch, units)
        for end in range(ticks, 0, -AT_ONCE):
            some = slice(max(0, end - AT_ONCE), end)
            r, z, n = gates[:, some].transpose(0, 1).split(units, -1)
            before = h[some]
            bend = (1 - z) * (1 - n * n)  # of h by what is under the tanh
            factors = h.new_empty(len(before), batch, 3, units)  # of h by what the state says to r, z and n
            torch.mul(bend, r, out=factors[:, :, 2])
            factors[:, :, 0] = factors[:, :, 2] * said[some] * (1 - r)
            factors[:, :, 1] = (before - n) * z * (1 - z)
            d = h.new_empty(len(before), batch, units)
            each = zip(*(v.unbind(0) for v in (given[:, some].transpose(0, 1), d, factors, z)), strict=True)
            for given_t, d_t, factors_t, z_t in reversed(list(each)):
                torch.add(given_t, back, out=d_t)
                factors_t.mul_(d_t[:, None])
                back = torch.mm(factors_t.view(batch, 3 * units), w_hh).addcmul_(d_t, z_t)
            flat = factors.view(-1, 3 * units)
            grad_w.addmm_(flat.t(), before.reshape(-1, units))
            grad_b += flat.sum(0)
            factors[:, :, 2] = bend.mul_(d)  # what the input says to n does not pass r
            to_gates[:, some] = factors.flatten(2).transpose(0, 1)
        flat = to_gates.view(-1, 3 * units)
        grad_x = (flat @ w_ih).view_as(x) if ctx.needs_input_grad[0] else None
        return grad_x, back, flat.t() @ x.reshape(len(flat), -1), grad_w, flat.sum(0), grad_b
