"""Filters that change from frame to frame, drawn as magnitudes over frequency (DDSP, Engel et al. 2020).

The magnitudes of a frame, from 0 Hz to half the rate, make a zero-phase impulse response of L = 2 (M - 1) taps under a
Hann window, its centre at tick L/2. Every frame of `hop` samples is filtered by its own response, and what the frames
leave behind them adds up: the filter switches at the frames' edges, and the tails overlap. Where the result is cut out
of that is the framing:

    same      from tick L/2 - 2 on: the response's centre comes two samples late, and it looks ahead
    causal    from the start: late by L/2, and nothing ahead is read
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphspec.ops.modules.contract import Generator, State


def responses(magnitudes: Tensor) -> Tensor:
    """`[..., M]` at frequencies 0 .. rate/2 -> `[..., L]`, the centre at L/2."""
    length = 2 * (magnitudes.shape[-1] - 1)
    taps = torch.fft.irfft(magnitudes.to(_complex(magnitudes)), length).roll(length // 2, -1)
    return taps * torch.hann_window(length, periodic=True, dtype=taps.dtype, device=taps.device)


def filtered(frames: Tensor, magnitudes: Tensor) -> Tensor:
    """Frames of samples `[B, n, hop]`, each by its filter `[B, n, M]`, and their tails: `[B, n*hop + L - 1]`."""
    taps = responses(magnitudes)
    hop, reach = frames.shape[-1], frames.shape[-1] + taps.shape[-1] - 1
    size = convenient(reach)
    made = torch.fft.irfft(torch.fft.rfft(frames, size) * torch.fft.rfft(taps, size), size)[..., :reach]
    pieces = -(-reach // hop)
    made = F.pad(made, (0, pieces * hop - reach)).unflatten(-1, (pieces, hop))
    n = frames.shape[1]
    total = sum(F.pad(made[:, :, i], (0, 0, i, pieces - 1 - i)) for i in range(pieces))
    assert isinstance(total, Tensor)
    return total.flatten(1)[:, : (n - 1) * hop + reach]


class FrameFilter(torch.nn.Module):
    """x `[B, T*hop, 1]` by magnitudes `[B, T, M]` -> `[B, T*hop, 1]`.

    State {"tail"} [batch, L - 1], framing causal: what past frames add to the samples to come.
    """

    holds_the_end = False

    def __init__(self, bands: int, hop: int, framing: str) -> None:
        super().__init__()
        if bands < 3 or hop < 1:
            raise ValueError(f"a filter of frames has at least 3 bands and a hop of 1, not {bands} and {hop}")
        if framing not in ("same", "causal"):
            raise ValueError(f"framing is same or causal, not {framing}")
        self.hop, self.length = hop, 2 * (bands - 1)
        self.cut = self.length // 2 - 2 if framing == "same" else 0
        self.behind = -(-(self.length - 1 - self.cut) // hop)  # frames before its own that a sample hears, at most
        self.ahead = (hop - 1 + self.cut) // hop

    def reset(self, generator: Generator) -> None:
        """Draws nothing."""

    def prepare(self) -> State:
        return {}

    def forward(self, x: Tensor, mags: Tensor) -> Tensor:
        return self._all(x, mags)[:, self.cut : self.cut + x.shape[1], None]

    def init_state(self, batch: int, like: Tensor) -> State:
        """Silence; what looks ahead is run over windows, and remembers nothing."""
        return {} if self.cut else {"tail": like.new_zeros(batch, self.length - 1)}

    def step(self, x: Tensor, mags: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        """Some frames. NotImplementedError where a frame looks ahead."""
        if self.cut:
            raise NotImplementedError("framing same looks ahead, so it has no step; framing=causal has")
        made, n = self._all(x, mags), x.shape[1]
        made = made + F.pad(state["tail"], (0, n))
        return made[:, :n, None], {"tail": made[:, n:].contiguous()}

    def over(self, x: Tensor, mags: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        """Of all the frames that some whole frames of results hear."""
        return self._windows(x, mags), state

    def _windows(self, x: Tensor, mags: Tensor) -> Tensor:
        """The frames of results inside `[B, n*hop, 1]`: all but those at the edges, which are heard alone."""
        n = mags.shape[1] - self.behind - self.ahead
        start = self.behind * self.hop + self.cut
        return self._all(x, mags)[:, start : start + n * self.hop, None]

    def _all(self, x: Tensor, mags: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        frames = x[..., 0].to(wide).unflatten(1, (-1, self.hop))
        return filtered(frames, mags.to(wide)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"hop={self.hop}, taps={self.length}, cut={self.cut}"


class FilteredNoise(FrameFilter):
    """Magnitudes `[B, T, M]` -> `[B, T*hop, 1]`: noise, `[B, T*hop, 1]` in (0, 1) made (-1, 1), filtered by them."""

    def forward(self, mags: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(2 * noise - 1, mags)

    def step(self, mags: Tensor, state: State, prepared: State, noise: Tensor) -> tuple[Tensor, State]:  # type: ignore[override]
        return super().step(2 * noise - 1, mags, state, prepared)

    def over(self, mags: Tensor, state: State, prepared: State, noise: Tensor) -> tuple[Tensor, State]:  # type: ignore[override]
        """Noise comes with every frame that is read; beyond the ends magnitudes are 0, and noise may be missing."""
        x = F.pad(2 * noise - 1, (0, 0, 0, mags.shape[1] * self.hop - noise.shape[1]))
        return self._windows(x, mags), state


def convenient(size: int) -> int:
    """The next size whose only factors are 2, 3 and 5: quick to transform."""
    while True:
        rest = size
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return size
        size += 1


def _complex(like: Tensor) -> torch.dtype:
    return torch.complex128 if like.dtype == torch.float64 else torch.complex64
