"""One number a row, whose gradient is found in the forward pass, some rows at a time.

A loss of long clips makes many spectra and logarithms of each, which autograd would keep for all rows until the
backward pass. But a row's number depends on that row alone, so its gradient, as small as the row, can be had before the
next row is looked at: memory is that of some rows, and what they make stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Measure = Callable[..., Tensor]
SAMPLES_ON_CPU, SAMPLES_ELSEWHERE = 2**16, 2**23
"""How much of each operand is looked at together: what fits a cache; what keeps an accelerator busy."""


def row_by_row(measure: Measure, *operands: Tensor) -> Tensor:
    """`measure(*operands)`, which makes `[B]` of operands `[B, ...]`, each row of its own. Differentiable once."""
    wanted = torch.is_grad_enabled()
    return _RowByRow.apply(measure, *(o if wanted else o.detach() for o in operands))


class _RowByRow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, measure: Measure, *operands: Tensor) -> Tensor:  # type: ignore[override]
        wanted = ctx.needs_input_grad[1:]
        whole = SAMPLES_ON_CPU if operands[0].device.type == "cpu" else SAMPLES_ELSEWHERE
        rows = max(1, whole // max(1, operands[0][0].numel()))
        numbers, gradients = [], []
        for part in zip(*(o.split(rows) for o in operands), strict=True):
            leaves = [p.detach().requires_grad_(w) for p, w in zip(part, wanted, strict=True)]
            with torch.set_grad_enabled(any(wanted)):
                number = measure(*leaves)
                if any(wanted):
                    gradients.append(torch.autograd.grad(number.sum(), [x for x in leaves if x.requires_grad]))
            numbers.append(number.detach())
        joined = [torch.cat(each) for each in zip(*gradients, strict=True)]
        ctx.save_for_backward(*joined)
        ctx.wanted = wanted
        return torch.cat(numbers)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scaled = (g * gradient.view(-1, *[1] * (g.dim() - 1)) for g in ctx.saved_tensors)
        return (None, *(next(scaled) if wanted else None for wanted in ctx.wanted))
