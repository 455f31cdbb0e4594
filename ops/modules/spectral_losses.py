"""Distances between the STFT magnitudes of two sounds, at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from graphspec.ops.modules.at_once import row_by_row
from graphspec.ops.modules.contract import CannotStep, Generator
from graphspec.ops.modules.magnitudes import stft_magnitudes

_OF_DIFFERENCE: dict[str, Callable[[Tensor], Tensor]] = {
    "magnitude": lambda d: d,
    "delta_time": lambda d: d.diff(dim=1),
    "delta_frequency": lambda d: d.diff(dim=2),
    "sum_frequency": lambda d: d.cumsum(2),
}
"""Linear in the magnitudes, so taken of their difference."""
TERMS = (*_OF_DIFFERENCE, "logarithm", "convergence")


class MultiscaleSTFT(CannotStep):
    """Two sounds `[B, T, C]` -> `[B]`: weighted terms, each a mean over frames, bins and channels, over all sizes.

    At least in float32 inside. ValueError for lists that do not go together and, with `reflect`, for a clip that is
    not longer than half of the largest size.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        windows: Sequence[int] = (),
        hops: Sequence[int] = (),
        *,
        weights: Mapping[str, float],
        log_eps: str = "add",
        eps: float = 1e-5,
        distance: str = "l1",
        framing: str = "ahead",
        normalized: bool = False,
        floor: float = 0.0,
        over_sizes: str = "sum",
    ) -> None:
        super().__init__()
        windows = tuple(windows) or tuple(sizes)
        hops = tuple(hops) or tuple(w // 4 for w in windows)
        self.scales = tuple(zip(sizes, windows, hops, strict=True))
        for size, window, hop in self.scales:
            if not 4 <= window <= size or not 1 <= hop <= window or size % 2:
                raise ValueError(
                    "multiscale_stft wants even sizes, windows of 4 samples up to the size and hops of 1 up to the "
                    f"window, not size {size}, window {window}, hop {hop}"
                )
        self.terms = {name: float(w) for name, w in weights.items() if w}
        unknown = set(self.terms) - set(TERMS)
        if unknown or log_eps not in ("add", "clamp", "where") or framing not in ("ahead", "reflect"):
            raise ValueError(f"multiscale_stft: {sorted(unknown) or (log_eps, framing)} is not there")
        self.log_eps, self.eps, self.distance, self.framing = log_eps, eps, distance, framing
        self.normalized, self.floor, self.over_sizes = normalized, floor, over_sizes
        for window in sorted(set(windows)):
            self.register_buffer(f"hann{window}", torch.empty(window), persistent=False)

    def reset(self, generator: Generator) -> None:
        """Draws nothing; fills in the windows."""
        for name, window in self.named_buffers():
            n = int(name.removeprefix("hann"))
            # DDSP's Hann window is periodic where n is even and symmetric where it is odd, as TensorFlow's is.
            window.copy_(torch.hann_window(n, periodic=n % 2 == 0, dtype=torch.float64, device="cpu"))

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        dtype = torch.promote_types(estimate.dtype, target.dtype)
        wide = torch.promote_types(dtype, torch.float32)
        rows = max(estimate.shape[0], target.shape[0])  # a static row goes with any batch
        found = row_by_row(self._of, *(x.to(wide).expand(rows, -1, -1) for x in (estimate, target)))
        return found.to(dtype)

    def _of(self, *sounds: Tensor) -> Tensor:
        """Of two sounds `[B, T, C]`, both wide: `[B]`."""
        each, channels = [x.transpose(1, 2).flatten(0, 1) for x in sounds], sounds[0].shape[2]
        total = sounds[0].new_zeros(sounds[0].shape[0])
        for scale in self.scales:
            terms = self._distances(*(self.magnitudes(x, *scale) for x in each), channels)
            total = total + sum(self.terms[name] * found for name, found in terms.items())
        return total / len(self.scales) if self.over_sizes == "mean" else total

    def magnitudes(self, x: Tensor, size: int, window: int, hop: int) -> Tensor:
        """Of sounds `[rows, T]` -> `[rows, frames, size/2 + 1]`."""
        hann = self.get_buffer(f"hann{window}").to(x.dtype)
        found = stft_magnitudes(self._padded(x, size, window, hop), hann, size, hop)
        if self.normalized:
            found = found / size**0.5
        return found.clamp(min=self.floor) if self.floor else found

    def _padded(self, x: Tensor, size: int, window: int, hop: int) -> Tensor:
        """As long as all its frames, the first of which begins with it."""
        length = x.shape[1]
        if self.framing == "ahead":
            last = (-(-length // hop) - 1) * hop  # where the last frame begins: every hop, even a broken one, has one
            return F.pad(x, (0, last + window - length))
        if length <= size // 2:
            raise ValueError(
                f"multiscale_stft: framing=reflect mirrors {size // 2} samples at each end, but the clip has {length}"
            )
        begin = (size - window) // 2  # a shorter window lies in the middle of the transform's samples
        x = F.pad(x[:, None], (size // 2, size // 2), mode="reflect")[:, 0]
        return x[:, begin : begin + length // hop * hop + window]

    def _distances(self, estimate: Tensor, target: Tensor, channels: int) -> dict[str, Tensor]:
        """Terms of one size, by name, each `[B]`; of magnitudes `[B*C, frames, bins]`."""
        found, difference = {}, estimate - target

        def mean(x: Tensor) -> Tensor:
            x = x.abs() if self.distance == "l1" else x.square()
            # One frame has no differences from frame to frame: nothing to add.
            return x.reshape(-1, channels * x.shape[1] * x.shape[2]).mean(-1) if x.numel() else x.new_zeros(())

        for name in self.terms:
            if name == "logarithm":
                found[name] = mean(self._log(estimate) - self._log(target))
            elif name == "convergence":
                apart, whole = (x.reshape(-1, channels * x.shape[1] * x.shape[2]) for x in (difference, target))
                whole = torch.linalg.vector_norm(whole, dim=-1)
                found[name] = torch.linalg.vector_norm(apart, dim=-1) / whole.clamp(min=self.eps)
            else:
                found[name] = mean(_OF_DIFFERENCE[name](difference))
        return found

    def _log(self, magnitude: Tensor) -> Tensor:
        if self.log_eps == "add":
            return (magnitude + self.eps).log()
        if self.log_eps == "clamp":
            return magnitude.clamp(min=self.eps).log()
        return torch.where(magnitude <= 0, self.eps, magnitude).log()

    def extra_repr(self) -> str:
        return f"sizes={[size for size, _, _ in self.scales]}, {', '.join(f'{n} {w:g}' for n, w in self.terms.items())}"
