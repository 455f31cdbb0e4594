"""Multi-head softmax attention: to the whole sequence, to a window or a group of it, to a context.

Inside, queries, keys and values are `[B, n, heads, d]`. A mask is true where a query may read a key. Masked scores are
-inf and their weights exactly 0, but scaled_dot_product_attention still multiplies values by them: a NaN among the
masked values of one block spreads through that block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules import history, initial
from graphspec.ops.modules.contract import Generator, State

BLOCK = 128  # queries at least in one block of the banded form: smaller ones starve the matrix products
AXIAL_BASE = 10000.0
Turns = tuple[Tensor, Tensor]


class Rope:
    """Rotary position embedding: the pair (i, i + d/2) of a head turns by the position times base**(-2i/d).

    The scores then depend on differences of positions only (Su et al. 2021). base 0 turns nothing. [rows, cols]:
    element t stands at row t // cols and column t % cols; half of the pairs turn by the one, half by the other.
    """

    def __init__(self, base: float | Sequence[float], d: int) -> None:
        self.grid = tuple(int(n) for n in base) if isinstance(base, (list, tuple)) else ()
        self.base = AXIAL_BASE if self.grid else float(base)  # type: ignore[arg-type]
        self.parts = len(self.grid) or 1
        self.d = d
        if len(self.grid) not in (0, 2) or min(self.grid, default=1) < 1:
            raise ValueError(f"attention: rope is a base, or [rows, cols] of at least 1, not {base}")
        if self.base and d % (2 * self.parts):
            raise ValueError(f"attention: rope needs heads of a multiple of {2 * self.parts} channels, not {d}")

    def frequencies(self, like: Tensor) -> Tensor:
        """Radians an element for each pair of one axis, `[d/2]` (a grid: `[d/4]`), in float32 at least."""
        pairs = self.d // 2 // self.parts
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.exp(torch.arange(pairs, device=like.device, dtype=dtype) * (-math.log(self.base) / pairs))

    def turns(self, positions: Tensor, frequencies: Tensor) -> Turns:
        """Cosines and sines of the angles, each `[n, d/2]`, at `[n]` whole numbers."""
        axes = (positions // self.grid[1], positions % self.grid[1]) if self.grid else (positions,)
        angles = torch.cat([axis.to(frequencies.dtype)[:, None] * frequencies for axis in axes], -1)
        return angles.cos(), angles.sin()

    def at(self, start: int, n: int, like: Tensor, prepared: State | None = None) -> Turns | None:
        """Of n positions in a row; none where nothing turns."""
        if not self.base:
            return None
        frequencies = self.frequencies(like) if prepared is None else prepared["frequencies"]
        return self.turns(torch.arange(start, start + n, device=like.device), frequencies)

    def check(self, length: int) -> None:
        """Raises ValueError where a grid is not as long as the sequence."""
        if self.grid and length != math.prod(self.grid):
            grid, wanted = list(self.grid), math.prod(self.grid)
            raise ValueError(f"attention: rope={grid} is for a sequence of {wanted} elements, not {length}")


def rotated(x: Tensor, turns: Turns | None) -> Tensor:
    """`[B, n, heads, d]` turned by n angles a pair."""
    if turns is None:
        return x
    cos, sin = (t[:, None] for t in turns)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q k' / sqrt(d)) v over `[B, n, heads, d]`; mask broadcasts to `[B, heads, queries, keys]`."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)


class Attention(nn.Module):
    """The four projections; which keys a query reads is the subclasses' matter.

    Weights q and out [channels, channels], k and v [channels, source]; with `bias` q_bias, k_bias, v_bias and out_bias
    [channels]. Channel h*d + i of a projection is element i of head h.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    q_bias: Tensor | None
    k_bias: Tensor | None
    v_bias: Tensor | None
    out_bias: Tensor | None

    def __init__(self, channels: int, source: int, heads: int, rope: float | Sequence[float], bias: bool) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"attention: {heads} heads do not divide {channels} channels")
        self.channels, self.heads, self.d = channels, heads, channels // heads
        self.rope = Rope(rope, self.d)
        for name, columns in (("q", channels), ("k", source), ("v", source), ("out", channels)):
            self.register_parameter(name, nn.Parameter(torch.empty(channels, columns)))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.empty(channels)) if bias else None)

    def reset(self, generator: Generator) -> None:
        """Matrices uniform in +-1/sqrt(columns), biases 0."""
        for name in ("q", "k", "v", "out"):
            weight, bias = getattr(self, name), getattr(self, f"{name}_bias")
            initial.uniform(weight, 1 / math.sqrt(weight.shape[1]), generator(name))
            if bias is not None:
                initial.constant(bias, 0.0)

    def projected(self, name: str, x: Tensor) -> Tensor:
        """`[B, n, columns]` -> `[B, n, heads, d]`."""
        return F.linear(x, getattr(self, name), getattr(self, f"{name}_bias")).unflatten(-1, (self.heads, self.d))

    def joined(self, y: Tensor) -> Tensor:
        """`[B, n, heads, d]` -> `[B, n, channels]`, through the output projection."""
        return F.linear(y.flatten(2), self.out, self.out_bias)

    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}"


class CrossAttention(Attention):
    """`[b, S, channels]` and context `[b', M, source]` -> `[B, S, channels]`: every element reads all of the context.

    Either batch may be 1. No positions: rope does not apply. A static context (`timed` false) is projected again in
    every step, since state is made before it is known.
    """

    def __init__(self, channels: int, source: int, heads: int, *, bias: bool = False, timed: bool = False) -> None:
        super().__init__(channels, source, heads, 0.0, bias)
        self.timed = timed

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        rows = max(x.shape[0], context.shape[0])
        q, k, v = self.projected("q", x), self.projected("k", context), self.projected("v", context)
        q, k, v = (t.expand(rows, -1, -1, -1) for t in (q, k, v))
        return self.joined(attended(q, k, v))

    def prepare(self) -> State:
        return {}

    def init_state(self, batch: int, like: Tensor) -> State:
        return {}

    def step(self, x: Tensor, *more: Any, state: State, prepared: State, **named: Any) -> tuple[Tensor, State]:
        if self.timed:
            raise NotImplementedError("attention reads all of a timed context, so it cannot run step by step")
        return self(x, *more, **named), state


class SelfAttention(Attention):
    """`[B, S, channels]` -> the same: each element reads all of them, or (`causal`) itself and those before it.

    State {"k", "v"} [batch, ticks so far, heads, d], the keys turned to their own positions. A static sequence (`timed`
    false) has no state, and a step is the whole.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        causal: bool = True,
        rope: float | Sequence[float] = 10000.0,
        bias: bool = False,
        timed: bool = True,
    ) -> None:
        super().__init__(channels, channels, heads, rope, bias)
        self.causal, self.timed = causal, timed

    def forward(self, x: Tensor) -> Tensor:
        self.rope.check(x.shape[1])
        q, k, v = (self.projected(name, x) for name in "qkv")
        return self.joined(self.over(q, k, v))

    def over(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention within one sequence, positions from 0."""
        turns = self.rope.at(0, q.shape[1], q)
        return attended(rotated(q, turns), rotated(k, turns), v, causal=self.causal)

    def prepare(self) -> State:
        """The three projections as one matrix [3*channels, channels], so that a tick is one product; and rope's."""
        if not self.timed or not self.causal:
            return {}
        prepared = {"qkv": torch.cat([self.q, self.k, self.v])}
        if self.q_bias is not None and self.k_bias is not None and self.v_bias is not None:
            prepared["qkv_bias"] = torch.cat([self.q_bias, self.k_bias, self.v_bias])
        return {**prepared, **self.tables()} if self.rope.base else prepared

    def tables(self) -> State:
        """What rope needs in every step."""
        return {"frequencies": self.rope.frequencies(self.q)}

    def init_state(self, batch: int, like: Tensor) -> State:
        """No keys yet."""
        return self.empty(batch, 0, like) if self.timed and self.causal else {}

    def empty(self, batch: int, ticks: int, like: Tensor) -> State:
        """Room for so many keys and values, zeros."""
        return {name: like.new_zeros(batch, ticks, self.heads, self.d) for name in ("k", "v")}

    def step(self, x: Tensor, *more: Any, state: State, prepared: State) -> tuple[Tensor, State]:
        if not self.timed:
            return self(x), state
        if not self.causal:
            raise NotImplementedError("attention that is not causal reads the future, so it cannot run step by step")
        qkv = F.linear(x, prepared["qkv"], prepared.get("qkv_bias"))
        q, k, v = qkv.unflatten(-1, (3, self.heads, self.d)).unbind(2)
        y, state = self.continued(q, k, v, state, prepared)
        return self.joined(y), state

    def continued(self, q: Tensor, k: Tensor, v: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        """New queries, keys and values after those of the state; and the state after them."""
        past, n = state["k"].shape[1], q.shape[1]
        turns = self.rope.at(past, n, q, prepared)
        keys = torch.cat([state["k"], rotated(k, turns).to(state["k"].dtype)], 1)
        values = torch.cat([state["v"], v.to(state["v"].dtype)], 1)
        first = past == 0
        mask = None if n == 1 or first else q.new_ones(n, past + n, dtype=torch.bool).tril(past)
        y = attended(rotated(q, turns).to(keys.dtype), keys, values, mask, causal=first)
        return y, {"k": keys, "v": values}


class BandedAttention(SelfAttention):
    """`[B, T, channels]` -> the same: each element reads itself and the `past` before it, in blocks of at least 128.

    Cost and memory grow as T * past. Keys turn to their place in the block, so positions may be as large as they like.
    State {"k", "v"} [batch, past, heads, d], oldest first, not turned; {"seen"} [batch], how many of them there are.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        past: int,
        *,
        causal: bool = True,
        rope: float | Sequence[float] = 10000.0,
        bias: bool = False,
        timed: bool = True,
    ) -> None:
        super().__init__(channels, heads, causal=causal, rope=rope, bias=bias, timed=timed)
        if self.rope.grid:
            raise ValueError("attention: rope=[rows, cols] is for a whole sequence, without window or chunk")
        self.past = past

    def over(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[1] <= self.past + 1:  # nothing falls out of the band
            return super().over(q, k, v)
        before = (0, 0, 0, 0, self.past, 0)
        return self.banded(q, F.pad(k, before), F.pad(v, before), torch.zeros(1, dtype=torch.long, device=q.device))

    def init_state(self, batch: int, like: Tensor) -> State:
        """{"k", "v"} of zeros, none of them seen."""
        if not self.timed or not self.causal:
            return {}
        return {**self.empty(batch, self.past, like), "seen": torch.zeros(batch, dtype=torch.long, device=like.device)}

    def continued(self, q: Tensor, k: Tensor, v: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        keys = torch.cat([state["k"], k.to(state["k"].dtype)], 1)
        values = torch.cat([state["v"], v.to(state["v"].dtype)], 1)
        n = q.shape[1]
        turns = (prepared["cos"], prepared["sin"]) if self.rope.base and n == 1 else None
        y = self.banded(q.to(keys.dtype), keys, values, state["seen"], turns)
        return y, {"k": history.after(keys, n), "v": history.after(values, n), "seen": self.counted(state["seen"], n)}

    def counted(self, seen: Tensor, n: int) -> Tensor:
        """`seen` after n more."""
        return (seen + n).clamp(max=self.past)

    def tables(self) -> State:
        """The turns of all places there are when one tick comes: [past + 1, d/2]."""
        turns = self.rope.at(0, self.past + 1, self.q)
        return {} if turns is None else {"cos": turns[0], "sin": turns[1]}

    def banded(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, turns: Turns | None = None) -> Tensor:
        """q `[B, n, heads, d]`; k, v `[B, past + n, heads, d]`, whose first `past` are those of the state."""
        n, size = q.shape[1], max(self.past + 1, BLOCK)
        if n <= size:
            return self.block(q, k, v, self.mask(n, seen), turns)
        head, edge = size, self.past + size
        y = self.block(q[:, :head], k[:, :edge], v[:, :edge], self.mask(head, seen))
        count = -(-(n - head) // size)
        after = (0, 0, 0, 0, 0, head + count * size - n)  # what is padded is read by padded queries only
        queries = F.pad(q[:, head:], after).unflatten(1, (count, size)).flatten(0, 1)
        keys, values = (self.overlapping(F.pad(t[:, head:], after), size) for t in (k, v))
        starts = head + size * torch.arange(count, device=q.device)
        rest = self.block(queries, keys, values, self.mask(size, seen, starts))
        return torch.cat([y, rest.reshape(q.shape[0], count * size, *q.shape[2:])[:, : n - head]], 1)

    def overlapping(self, x: Tensor, size: int) -> Tensor:
        """`[B, past + count*size, heads, d]` -> `[B*count, past + size, heads, d]`."""
        return x.unfold(1, self.past + size, size).movedim(-1, 2).flatten(0, 1)

    def block(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, turns: Turns | None = None) -> Tensor:
        """q `[B, n, heads, d]`, k and v `[B, past + n, heads, d]`: query i stands at key past + i."""
        turns = turns or self.rope.at(0, k.shape[1], k)
        own = None if turns is None else (turns[0][self.past :], turns[1][self.past :])
        return attended(rotated(q, own), rotated(k, turns), v, mask)

    def mask(self, n: int, seen: Tensor, starts: Tensor | None = None) -> Tensor:
        """Which of `past + n` keys n queries may read: of the first block, or of the blocks at `starts`."""
        i, j = _places(n, self.past, seen.device)
        band = (j >= i) & (j <= i + self.past)
        if starts is not None:  # a block in, and everything before it has been seen
            return band
        return (band & (j >= self.past - seen[:, None, None]))[:, None]


class ChunkedAttention(BandedAttention):
    """`[B, T, channels]` -> the same: each element reads those of its group of `size` consecutive ones.

    `causal`: not those after it. State as BandedAttention's, {"seen"} being the ticks of the group that is begun; where
    it is not causal none, and a step takes whole groups.
    """

    def __init__(self, channels: int, heads: int, size: int, **settings: Any) -> None:
        super().__init__(channels, heads, size - 1, **settings)
        self.size = size

    def over(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, n = q.shape[:2]
        whole = n // self.size * self.size
        parts = []
        if whole:
            groups = (t[:, :whole].unflatten(1, (-1, self.size)).flatten(0, 1) for t in (q, k, v))
            parts.append(SelfAttention.over(self, *groups).reshape(rows, whole, self.heads, self.d))
        if whole < n:  # the last group is not full
            parts.append(SelfAttention.over(self, *(t[:, whole:] for t in (q, k, v))))
        return torch.cat(parts, 1)

    def step(self, x: Tensor, *more: Any, state: State, prepared: State) -> tuple[Tensor, State]:
        if self.timed and not self.causal:  # whole groups, or the last one
            return self(x), state
        return super().step(x, *more, state=state, prepared=prepared)

    def counted(self, seen: Tensor, n: int) -> Tensor:
        return (seen + n) % self.size

    def mask(self, n: int, seen: Tensor, starts: Tensor | None = None) -> Tensor:
        i, j = _places(n, self.past, seen.device)
        at = seen if starts is None else (seen[:, None] + starts).flatten()
        at = at[:, None, None]
        same = (at + i) // self.size == (at + j - self.past) // self.size  # before the start the group is -1
        return (same & (j <= i + self.past))[:, None]


def _places(n: int, past: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Queries `[n, 1]` and keys `[past + n]`, numbered."""
    return torch.arange(n, device=device)[:, None], torch.arange(past + n, device=device)
