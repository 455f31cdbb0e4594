"""Noise from a counter: every value is a pure function of its address, so no chunking, batching or rank changes it.

The mixer is Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), written in int64
tensor operations. An address is (seed, stream, update, row, absolute tick, channel):

    key      64 bits of sha256(seed, stream, update)
    counter  c0 = tick // 4, low 32 bits    c2 = channel
             c1 = row, low 32 bits          c3 = bits 32..47 of tick // 4 (low half) and of the row (high half)
    output   word tick % 4 of the four

Four consecutive ticks share one call, so audio (one channel) wastes no work, and the value at a channel does not
depend on how many channels were asked for. Addresses are distinct for |tick| < 2^49, 0 <= row < 2^48,
0 <= channel < 2^32; a negative tick (before the start of a row) is an address like any other.

Uniform values are bit-equal on every device and in float32 and float64; `normal` is as equal as `ndtri` is (a few ulp).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, the Weyl sequence of the key
_ROUNDS = 10
_WORD = 0xFFFFFFFF
_LANES_IN_CACHE = 32768  # Philox calls worked on at once on a CPU (measured: 15 ns a value; 26 ns at 131072)


def stream_id(path: str) -> int:
    """The stream of a value, from its path in the graph: 63 bits of SHA-256, so streams need no registry or order."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def uniform(
    seed: int,
    stream: int,
    rows: Tensor,
    ticks: Tensor,
    width: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    update: int = 0,
) -> Tensor:
    """Uniform noise in the open interval (0, 1), `[B, n, width]`: odd multiples of 2^-24, never 0 or 1.

    rows: int64 `[B]`, the identity of each batch row (not its place in the batch). ticks: int64 `[n]`, absolute
    element numbers, in any order. seed, stream (see `stream_id`) and update (the optimizer's step, or 0) are any
    integers. device: of the result (default: of `rows`). dtype: float32 and float64 hold the same values; bfloat16
    and float16 hold them rounded, still inside (0, 1).

    Ticks given on the CPU cost a quarter of those on an accelerator, where their sharing of a Philox call is not
    looked for (it would wait for the device). Whoever steps tick by tick draws a block of ticks ahead.

    A dropout mask is `uniform(...) >= p`: each element is kept with probability 1 - p.
    """
    device = torch.device(device) if device is not None else rows.device
    work = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    out = _uniform(_key(seed, stream, update), rows, ticks, width, work, device)
    # Rounding to fewer bits may reach 1; the largest number below it is 1 - eps / 2.
    return out if work == dtype else out.to(dtype).clamp(max=1.0 - torch.finfo(dtype).eps / 2)


def normal(
    seed: int,
    stream: int,
    rows: Tensor,
    ticks: Tensor,
    width: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    update: int = 0,
) -> Tensor:
    """Standard normal noise `[B, n, width]`: `uniform` through the inverse distribution function. Within +-5.3."""
    work = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    return torch.special.ndtri(uniform(seed, stream, rows, ticks, width, work, device, update)).to(dtype)


def philox(even: Tensor, odd: Tensor, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Philox-4x32-10. even = words (0, 2) and odd = words (1, 3) of the counters, int64 `[2, ...]` in 0 .. 2^32 - 1.

    Returns words (0, 2) and (1, 3) of the result, in the same form. The arguments are left as they were.
    """
    lanes = (2, *[1] * (even.dim() - 1))
    multipliers = even.new_tensor(_MULTIPLIERS).view(lanes)
    # All round keys at once: one copy to the device, not ten.
    keys = even.new_tensor([(k + r * s) & _WORD for r in range(_ROUNDS) for k, s in zip(key, _KEY_STEPS, strict=True)])
    for round_key in keys.view(_ROUNDS, *lanes).unbind():
        # The product needs 64 unsigned bits: int64 wraps to the same bits, and >> then only needs the mask.
        # Philox crosses the lanes here: (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0).
        product = (even * multipliers).flip(0)
        even = (product >> 32).bitwise_and_(_WORD).bitwise_xor_(odd).bitwise_xor_(round_key)
        odd = product.bitwise_and_(_WORD)
    return even, odd


def _key(seed: int, stream: int, update: int) -> tuple[int, int]:
    """Two 32-bit key words: hashing lets the three integers be any, and keeps near ones unrelated."""
    digest = hashlib.sha256(f"graphspec noise {seed} {stream} {update}".encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


def _uniform(
    key: tuple[int, int], rows: Tensor, ticks: Tensor, width: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    batch, n = rows.shape[0], ticks.shape[0]
    if not batch * n * width:
        return torch.empty(batch, n, width, dtype=dtype, device=device)
    word = ticks & 3
    if ticks.device.type == "cpu":
        blocks, place = torch.unique_consecutive(ticks >> 2, return_inverse=True)
    else:
        blocks, place = ticks >> 2, torch.arange(n, device=ticks.device)
    place = (place * 4 + word).to(device)
    blocks, rows = blocks.to(device), rows.to(device)

    many = blocks.shape[0]
    out = torch.empty(batch, many, 4, width, dtype=dtype, device=device)
    at_once = max(1, _LANES_IN_CACHE // (batch * width)) if device.type == "cpu" else many
    row = rows.view(batch, 1, 1)
    channel = torch.arange(width, device=device).view(1, 1, width)
    for start in range(0, many, at_once):
        block = blocks[start : start + at_once].view(1, -1, 1)
        shape = (batch, block.shape[1], width)
        c3 = ((block >> 32) & 0xFFFF) | ((row >> 32 & 0xFFFF) << 16)
        even = torch.stack(((block & _WORD).expand(shape), channel.expand(shape)))
        odd = torch.stack(((row & _WORD).expand(shape), c3.expand(shape)))
        part = out[:, start : start + at_once]
        for first, words in enumerate(philox(even, odd, key)):
            # 23 bits and a last bit that is always set: exact in float32, and neither 0 nor 1.
            values = words.bitwise_right_shift_(8).bitwise_or_(1)
            part[:, :, first::2] = values.permute(1, 2, 0, 3)
    return out.mul_(2.0**-24).view(batch, many * 4, width).index_select(1, place)
