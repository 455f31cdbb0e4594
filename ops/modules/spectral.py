"""Short-time spectra of one channel: the transform, its magnitude, mel bands, cepstral coefficients.

A frame is n_fft samples under a periodic Hann window, zeros where it reaches beyond the ends. The window is 0 at its
first sample, so a frame reads n_fft - 1 samples. Where frame k lies is its framing:

    same      centred on sample k*hop: from k*hop - n_fft/2 + 1 to k*hop + n_fft/2 - 1
    causal    the last samples there are when its hop has come in: from (k+1)*hop - n_fft + 1 to (k+1)*hop - 1
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import history
from graphspec.ops.modules.contract import Generator, OverWindows, State
from graphspec.types import Type


class STFT(OverWindows, nn.Module):
    """`[B, T, 1]` -> `[B, T/hop, n_fft/2 + 1, 2]`, real and imaginary part, without a factor (Allen & Rabiner 1977).

    At least in float32 inside; the result has the dtype of x. State {"past"}: what a frame reads before its hop.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop: int = 0, framing: str = "same") -> None:
        super().__init__()
        hop = hop or n_fft // 4
        if n_fft < 4 or n_fft % 2 or not 1 <= hop <= n_fft:
            raise ValueError(f"n_fft is even and at least 4, hop is 1..n_fft, not {n_fft} and {hop}")
        if framing not in ("same", "causal"):
            raise ValueError(f"framing is same or causal, not {framing}")
        self.n_fft, self.hop, self.framing = n_fft, hop, framing
        self.before = n_fft // 2 if framing == "same" else n_fft - hop  # samples of a frame before its hop
        self.ahead = max(0, n_fft - self.before - hop)  # and behind it
        # Constants of the module are filled in by `reset`, as weights are, because modules are made without storage.
        self.register_buffer("window", torch.empty(n_fft), persistent=False)

    def reset(self, generator: Generator) -> None:
        """Draws nothing; fills in the constants."""
        self.window.copy_(torch.hann_window(self.n_fft, periodic=True, dtype=torch.float64, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        return self._over(F.pad(x, (0, 0, self.before, self.ahead)))

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        """Silence: {"past"} [batch, before, 1]; nothing where it runs over windows."""
        if self.ahead:
            return {}
        return {"past": like.new_zeros(batch, self.before, 1)}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        """Some hops of samples. NotImplementedError where a frame looks ahead of its hop."""
        if self.ahead:
            raise NotImplementedError("framing same looks ahead, so it has no step; framing=causal has")
        joined = torch.cat([state["past"], x], 1)
        return self._over(joined), {"past": history.after(joined, x.shape[1])}

    def windows(self, x: Tensor) -> Tensor:
        """Frames of what they read, which is all but their first sample."""
        return self._over(F.pad(x, (0, 0, 1, 0)))

    def features(self, z: Tensor) -> Tensor:
        """Of complex spectra `[B, N, bins]`."""
        return torch.view_as_real(z)

    def _over(self, x: Tensor) -> Tensor:
        """Of every whole frame of `[B, samples, 1]`."""
        wide = torch.promote_types(x.dtype, torch.float32)
        frames = x[..., 0].to(wide).unfold(1, self.n_fft, self.hop)
        # The sample under the window's 0 is left out, not multiplied: 0 times infinity would not be 0.
        frames = F.pad(frames[..., 1:] * self.window[1:].to(wide), (1, 0))
        return self.features(torch.fft.rfft(frames)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"n_fft={self.n_fft}, hop={self.hop}, framing={self.framing}"


class Spectrogram(STFT):
    """`[B, T, 1]` -> `[B, T/hop, n_fft/2 + 1]`: |STFT| (power 1) or its square (power 2)."""

    def __init__(self, n_fft: int, hop: int = 0, power: int = 1, framing: str = "same") -> None:
        super().__init__(n_fft, hop, framing)
        if power not in (1, 2):
            raise ValueError(f"power is 1 or 2, not {power}")
        self.power = power

    def features(self, z: Tensor) -> Tensor:
        return z.abs() if self.power == 1 else z.real.square() + z.imag.square()


class LogMel(Spectrogram):
    """`[B, T, 1]` -> `[B, T/hop, mels]`: the natural logarithm of mel bands, of at least eps each."""

    filters: Tensor

    def __init__(
        self,
        x: Type,
        n_fft: int,
        hop: int = 0,
        mels: int = 80,
        fmin: float = 0.0,
        fmax: float | None = None,
        eps: float = 1e-5,
        power: int = 1,
        mel_scale: str = "htk",
        norm: str = "peak",
        framing: str = "same",
    ) -> None:
        super().__init__(n_fft, hop, power, framing)
        if x.rate is None:
            raise ValueError("mel bands are of a timed value: its rate says what the frequencies are")
        if fmax is not None and fmax > x.rate / 2:
            raise ValueError(f"fmax {fmax:g} Hz is above half the rate, {float(x.rate / 2):g} Hz")
        self.rate, self.mels, self.fmin, self.fmax = x.rate, mels, fmin, fmax
        self.eps, self.mel_scale, self.norm = eps, mel_scale, norm
        self.register_buffer("filters", torch.empty(n_fft // 2 + 1, mels), persistent=False)

    def reset(self, generator: Generator) -> None:
        from graphspec.ops.modules.filterbanks import mel_filters

        super().reset(generator)
        bins, mels = self.filters.shape
        self.filters.copy_(mel_filters(bins, mels, self.rate, self.fmin, self.fmax, self.mel_scale, self.norm))

    def features(self, z: Tensor) -> Tensor:
        magnitudes = super().features(z)
        return (magnitudes @ self.filters.to(magnitudes.dtype)).clamp(min=self.eps).log()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mels={self.mels}, rate={self.rate}"


class MFCC(LogMel):
    """`[B, T, 1]` -> `[B, T/hop, coefficients]`: the first of the orthonormal DCT-II of the log mel bands."""

    cosines: Tensor

    def __init__(self, x: Type, coefficients: int, n_fft: int, hop: int = 0, mels: int = 128, **mel: object) -> None:
        super().__init__(x, n_fft, hop, mels, **mel)  # type: ignore[arg-type]
        if not 1 <= coefficients <= mels:
            raise ValueError(f"mfcc: coefficients is 1..mels, not {coefficients} of {mels}")
        self.register_buffer("cosines", torch.empty(mels, coefficients), persistent=False)

    def reset(self, generator: Generator) -> None:
        from graphspec.ops.modules.filterbanks import cosine_transform

        super().reset(generator)
        self.cosines.copy_(cosine_transform(*self.cosines.shape))

    def features(self, z: Tensor) -> Tensor:
        bands = super().features(z)
        return bands @ self.cosines.to(bands.dtype)
