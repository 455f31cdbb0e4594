"""STFT magnitudes for losses: framing, window, transform and absolute value as one function with its own backward.

Step by step, autograd would take a full complex FFT for the gradient of a real one, a slow complex absolute value, and
keep the windowed frames besides the spectra.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

NEAR_ZERO = 1e-20  # what a magnitude is at least where a gradient is divided by it: at 0 the gradient is 0, never NaN


def stft_magnitudes(x: Tensor, window: Tensor, size: int, hop: int) -> Tensor:
    """Of every whole frame of `[rows, samples]`: `[rows, frames, size/2 + 1]`.

    window: `[n]` with n <= size, under which a frame lies; zeros fill it up to `size`, which is even. A frame comes
    every hop samples. The gradient of a magnitude of 0 is 0. Differentiable once.
    """
    return _Magnitudes.apply(x, window, size, hop)


class _Magnitudes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, window: Tensor, size: int, hop: int) -> Tensor:  # type: ignore[override]
        spectra = torch.fft.rfft(x.unfold(1, len(window), hop) * window, size)
        magnitudes = (spectra.real.square() + spectra.imag.square()).sqrt()
        ctx.save_for_backward(spectra, magnitudes, window)
        ctx.samples, ctx.size, ctx.hop = x.shape[1], size, hop  # type: ignore[attr-defined]
        return magnitudes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        spectra, magnitudes, window = ctx.saved_tensors  # type: ignore[attr-defined]
        samples, size, hop = ctx.samples, ctx.size, ctx.hop  # type: ignore[attr-defined]
        # The inverse transform counts the bins between the first and the last twice, the magnitudes had them once.
        share = gradient / magnitudes.clamp(min=NEAR_ZERO)
        share[..., 1:-1] *= 0.5
        frames = torch.fft.irfft(spectra * share, size, norm="forward")[..., : len(window)] * window
        return _overlap_add(frames, hop, samples), None, None, None


def _overlap_add(frames: Tensor, hop: int, samples: int) -> Tensor:
    """`[rows, frames, n]`, a frame every hop samples -> `[rows, samples]`: the transpose of cutting frames."""
    rows, many, n = frames.shape
    if n % hop:
        folded = F.fold(frames.transpose(1, 2), (1, (many - 1) * hop + n), (1, n), stride=(1, hop))
        return F.pad(folded[:, 0, 0], (0, samples - folded.shape[-1]))
    parts = frames.view(rows, many, n // hop, hop)
    added = frames.new_zeros(rows, many + n // hop - 1, hop)
    for part in range(n // hop):
        added[:, part : part + many] += parts[:, :, part]
    return F.pad(added.flatten(1), (0, samples - added.shape[1] * hop))
