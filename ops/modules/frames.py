"""Features of overlapping frames without a window function: where a frame lies, and how frames go by in a stream.

Frame k of `size` samples comes every hop samples, zeros where it reaches beyond the ends. Its framing says where it is:

    same      around sample k*hop: from k*hop - size/2 to k*hop + size/2 - 1
    causal    the last samples there are when its hop has come in: from (k+1)*hop - size to (k+1)*hop - 1
    ahead     from sample k*hop on: to k*hop + size - 1
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import history
from graphspec.ops.modules.contract import Generator, OverWindows, State

FRAMINGS = ("same", "causal", "ahead")


class Frames(OverWindows, nn.Module):
    """`[B, T, 1]` -> `[B, T/hop, 1]`: one number a frame, which `measure` finds. Base class.

    At least in float32 inside; the result has the dtype of x. State {"past"}: what a frame reads before its hop.
    """

    def __init__(self, size: int, hop: int, framing: str) -> None:
        super().__init__()
        if not 1 <= hop <= size:
            raise ValueError(f"hop is 1..size samples, so that every sample is in a frame, not {hop} of {size}")
        if framing not in FRAMINGS:
            raise ValueError(f"framing is {', '.join(FRAMINGS)}, not {framing}")
        self.size, self.hop, self.framing = size, hop, framing
        # Samples of a frame before its hop.
        self.before = {"same": size // 2, "causal": size - hop, "ahead": 0}[framing]
        self.behind = max(0, size - self.before - hop)  # and after it

    def measure(self, x: Tensor) -> Tensor:
        """Of every whole frame of `[B, samples]`, a frame every hop samples: `[B, frames]`."""
        raise NotImplementedError

    def reset(self, generator: Generator) -> None:
        """Draws nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return self._over(F.pad(x, (0, 0, self.before, self.behind)))

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        """Silence: {"past"} [batch, before, 1]; nothing for a frame that looks ahead, which runs by windows."""
        return {} if self.behind else {"past": like.new_zeros(batch, self.before, 1)}

    def step(self, x: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        """Some hops of samples. NotImplementedError where a frame looks ahead of its hop."""
        if self.behind:
            raise NotImplementedError(f"framing {self.framing} looks ahead, so it has no step; framing=causal has")
        joined = torch.cat([state["past"], x], 1)
        return self._over(joined), {"past": history.after(joined, x.shape[1])}

    def windows(self, x: Tensor) -> Tensor:
        """Frames of exactly what they read."""
        return self._over(x)

    def _over(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        return self.measure(x[..., 0].to(wide))[..., None].to(x.dtype)

    def extra_repr(self) -> str:
        return f"size={self.size}, hop={self.hop}, framing={self.framing}"
