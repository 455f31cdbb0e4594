"""Effects on signals and controls: rooms, fixed filters, delays that move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import history, initial
from graphspec.ops.modules.companion import companion_scan
from graphspec.ops.modules.contract import Generator, State
from graphspec.ops.modules.elementwise import Joined
from graphspec.ops.modules.frame_filter import convenient
from graphspec.types import Type

_DIRECT = 64  # up to so many taps a sum over them is quicker than transforms
_PIECE = 1024  # ticks of a step that find the spectrum of the response ready


class Reverb(nn.Module):
    """`[B, T, c]` -> the same: x plus its causal convolution with `ir` [length, c], whose tick 0 counts as 0.

    State {"past"} [B, length - 1, c].
    """

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        if length < 2:
            raise ValueError(f"reverb: length is at least 2, not {length}")
        self.ir = nn.Parameter(torch.empty(length, channels))

    @torch.no_grad()
    def reset(self, generator: Generator) -> None:
        """Normal, of standard deviation 1e-6: a room that is hardly there."""
        initial.normal(self.ir, generator("ir"))
        self.ir.mul_(1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self._wet(F.pad(x, (0, 0, self.ir.shape[0] - 1, 0)), x) if self._short else x + self._whole(x)

    def prepare(self) -> State:
        """The spectrum of the response for pieces that are not long; none where it is short itself."""
        return {} if self._short else {"spectrum": torch.view_as_real(self._spectrum(self._size))}

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"past": like.new_zeros(batch, self.ir.shape[0] - 1, self.ir.shape[1])}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        joined = torch.cat([state["past"], x], 1)
        known = torch.view_as_complex(prepared["spectrum"].contiguous()) if "spectrum" in prepared else None
        return self._wet(joined, x, known), {"past": history.after(joined, x.shape[1])}

    @property
    def _short(self) -> bool:
        return self.ir.shape[0] <= _DIRECT

    @property
    def _size(self) -> int:
        return convenient(self.ir.shape[0] + _PIECE)

    def _spectrum(self, size: int) -> Tensor:
        return torch.fft.rfft(F.pad(self.ir[1:], (0, 0, 1, 0)), size, 0)

    def _whole(self, x: Tensor) -> Tensor:
        size = convenient(x.shape[1] + min(x.shape[1], self.ir.shape[0]) - 1)
        heard = self.ir[: x.shape[1]]  # what is longer is never heard, and would come around again
        spectrum = torch.fft.rfft(F.pad(heard[1:], (0, 0, 1, 0)), size, 0)
        return torch.fft.irfft(torch.fft.rfft(x, size, 1) * spectrum, size, 1)[:, : x.shape[1]]

    def _wet(self, joined: Tensor, x: Tensor, known: Tensor | None = None) -> Tensor:
        """x `[B, n, c]` with what the room makes of it and its past `[B, length - 1 + n, c]`."""
        if self._short:
            taps = self.ir[1:].flip(0).t()[:, None]
            back = F.conv1d(joined[:, :-1].transpose(1, 2), taps, groups=self.ir.shape[1])
            return x + back.transpose(1, 2)
        # What comes around falls on the past: of `size` ticks the first length - 1 are not looked at.
        size = self._size if known is not None and joined.shape[1] <= self._size else convenient(joined.shape[1])
        spectrum = known if known is not None and size == self._size else self._spectrum(size)
        made = torch.fft.irfft(torch.fft.rfft(joined, size, 1) * spectrum, size, 1)
        return x + made[:, self.ir.shape[0] - 1 : joined.shape[1]]

    def extra_repr(self) -> str:
        return f"length={self.ir.shape[0]}, channels={self.ir.shape[1]}"


class FIR(nn.Module):
    """`[B, T, ...]` -> the same: sum_i taps_i x_{t-i}. State {"past"}: the last len(taps) - 1 ticks, oldest first."""

    def __init__(self, x: Type, taps: Sequence[float]) -> None:
        super().__init__()
        if not taps or not all(isinstance(t, (int, float)) for t in taps):
            raise ValueError(f"fir: taps are numbers, at least one, not {list(taps)}")
        self.taps = tuple(float(t) for t in taps)
        self.sizes = tuple(int(d.as_int() or 1) for d in x.after_time)

    def reset(self, generator: Generator) -> None:
        """Draws nothing."""

    def prepare(self) -> State:
        return {}

    def forward(self, x: Tensor) -> Tensor:
        return self._sum(torch.cat([x.new_zeros(x.shape[0], len(self.taps) - 1, *x.shape[2:]), x], 1))

    def init_state(self, batch: int, like: Tensor) -> State:
        """Silence."""
        return {"past": like.new_zeros(batch, len(self.taps) - 1, *self.sizes)}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        joined = torch.cat([state["past"], x], 1)
        return self._sum(joined), {"past": history.after(joined, x.shape[1])}

    def _sum(self, x: Tensor) -> Tensor:
        """Of `[B, len(taps) - 1 + n, ...]`, oldest first: `[B, n, ...]`."""
        n, last = x.shape[1] - len(self.taps) + 1, len(self.taps) - 1
        total = self.taps[0] * x[:, last:]
        for i, tap in enumerate(self.taps[1:], 1):
            total = torch.add(total, x[:, last - i : last - i + n], alpha=tap)
        return total

    def extra_repr(self) -> str:
        return f"taps={list(self.taps)}"


class CentredFIR(FIR):
    """The same with its middle tap at the tick itself, and x held beyond both ends.

    State {"first"} [B, 1, ...]: the first tick. {"ago"} [B, 1]: how many ticks have been made, up to those behind.
    """

    holds_the_end = True

    def __init__(self, x: Type, taps: Sequence[float]) -> None:
        super().__init__(x, taps)
        if len(self.taps) % 2 == 0:
            raise ValueError(f"fir: a centre is one of an odd number of taps, not of {len(self.taps)}")
        self.reach = len(self.taps) // 2  # back and ahead

    def forward(self, x: Tensor) -> Tensor:
        before, beyond = [x[:, :1]] * self.reach, [x[:, -1:]] * self.reach
        return self._sum(torch.cat([*before, x, *beyond], 1))

    def init_state(self, batch: int, like: Tensor) -> State:
        return {"first": like.new_zeros(batch, 1, *self.sizes), "ago": like.new_zeros(batch, 1)}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        if self.reach:
            raise NotImplementedError("a centred fir looks ahead, so it has no step; it streams over windows")
        return self._sum(x), state

    def over(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        """Of `[B, reach + n + reach, ...]`: what is before the start is the first tick."""
        ago = state["ago"].view(-1, *[1] * (x.ndim - 1))
        first = torch.where(ago == 0, x[:, self.reach : self.reach + 1], state["first"])
        place = torch.arange(self.reach, device=x.device).view(1, -1, *[1] * (x.ndim - 2))
        past = torch.where(place < self.reach - ago, first, x[:, : self.reach])
        made = self._sum(torch.cat([past, x[:, self.reach :]], 1))
        return made, {"first": first, "ago": (state["ago"] + made.shape[1]).clamp(max=self.reach)}


class Biquad(Joined):
    """x `[B, T, ...]` and a cutoff in Hz that joins it -> y_t = sum_i b_i x_{t-i} - sum_i a_i y_{t-i}, from rest.

    State {"heard", "past"}: the last two of x and of y, oldest first.
    """

    def __init__(self, x: Type, cutoff: Type, mode: str, q: float) -> None:
        super().__init__(x, cutoff)
        if x.rate is None or not q > 0:
            raise ValueError(f"biquad: x is timed and q above 0, not {x} and {q:g}")
        self.rate, self.mode, self.q = float(x.rate), mode, q
        wide = max((t.after_time for t in (x, cutoff)), key=lambda d: math.prod(n.as_int() or 1 for n in d))
        self.sizes = tuple(int(d.as_int() or 1) for d in wide)

    def init_state(self, batch: int, like: Tensor) -> State:
        return {name: like.new_zeros(batch, 2, *self.sizes) for name in ("heard", "past")}

    def forward(self, x: Tensor, cutoff: Any) -> Tensor:
        rest = x.new_zeros(x.shape[0], 2, *self.sizes)
        return self._from(x, cutoff, rest, rest)[0]

    def step(self, x: Tensor, cutoff: Any, state: State, prepared: State) -> tuple[Tensor, State]:
        y, heard = self._from(x, cutoff, state["heard"], state["past"])
        past = torch.cat([state["past"], y], 1)
        return y, {"heard": history.after(heard, x.shape[1]), "past": history.after(past, x.shape[1])}

    def _from(self, x: Tensor, cutoff: Any, heard: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        x, cutoff = self.lined_up(x, cutoff)
        x = x.expand(*x.shape[:2], *self.sizes)
        n = x.shape[1]
        joined = torch.cat([heard, x], 1)
        b, a = self.coefficients(cutoff, x)
        drive = b[0] * x + b[1] * joined[:, 1 : n + 1] + b[2] * joined[:, :n]
        gains = -torch.stack(a, 2)
        return companion_scan(gains, drive, past), joined

    def coefficients(self, cutoff: Any, like: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """b_0 .. b_2 and a_1, a_2, each `[b, 1 or T, ...]`."""
        if not isinstance(cutoff, Tensor):
            cutoff = like.new_full((1,) * like.ndim, float(cutoff))
        angle = 2 * math.pi / self.rate * cutoff.clamp(1e-6 * self.rate, 0.499 * self.rate)
        cos, alpha = torch.cos(angle), torch.sin(angle) / (2 * self.q)
        # 1 - cos of a small angle keeps its digits as twice the square of a sine.
        low, one = 2 * torch.sin(angle / 2).square(), torch.ones_like(cos)
        numerator = {
            "low": (low / 2, low, low / 2),
            "high": ((1 + cos) / 2, -1 - cos, (1 + cos) / 2),
            "band": (alpha, torch.zeros_like(cos), -alpha),
            "notch": (one, -2 * cos, one),
            "all": (1 - alpha, -2 * cos, 1 + alpha),
        }[self.mode]
        whole = 1 + alpha
        return [b / whole for b in numerator], [-2 * cos / whole, (1 - alpha) / whole]

    def extra_repr(self) -> str:
        return f"{self.mode}, q={self.q:g}, rate={self.rate:g}"


class ModDelay(nn.Module):
    """x `[B, T, c]` and ticks `[B, T, 1]` in 0 .. longest -> `[B, T, c]`, straight between two ticks of x.

    State {"past"}: the last `longest` ticks of x.
    """

    def __init__(self, channels: int, longest: int) -> None:
        super().__init__()
        if longest < 1:
            raise ValueError(f"mod_delay: longest is at least 1, not {longest}")
        self.channels, self.longest = channels, longest

    def reset(self, generator: Generator) -> None:
        """Draws nothing."""

    def prepare(self) -> State:
        return {}

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return self._moved(F.pad(x, (0, 0, self.longest, 0)), by)

    def init_state(self, batch: int, like: Tensor) -> State:
        """Silence."""
        return {"past": like.new_zeros(batch, self.longest, self.channels)}

    def step(self, x: Tensor, by: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        joined = torch.cat([state["past"], x], 1)
        return self._moved(joined, by), {"past": history.after(joined, x.shape[1])}

    def _moved(self, joined: Tensor, by: Tensor) -> Tensor:
        """Of `[B, longest + n, c]`."""
        by = by.clamp(0, self.longest)
        whole = torch.nan_to_num(by.detach()).floor().clamp(max=self.longest - 1)  # not a number: y is none, too
        here = torch.arange(by.shape[1], device=by.device)[None, :, None] + self.longest - whole.long()
        here = here.expand(-1, -1, joined.shape[2])
        return torch.lerp(joined.gather(1, here), joined.gather(1, here - 1), by - whole)

    def extra_repr(self) -> str:
        return f"longest={self.longest}"
