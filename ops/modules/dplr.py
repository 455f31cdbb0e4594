"""Structured state space layer S4 (Gu, Goel & Re 2022, arXiv 2111.00396): diagonal plus low rank, HiPPO-LegS.

Continuous, per channel: x' = A x + B u, y = 2 Re(C x) + D u over n = state/2 complex modes, one of each conjugate pair,
with A = Lambda - P P* (P tied, Re Lambda < 0: stable, Goel et al. 2022, section 4.1). Over the pairs as real numbers
[Re; Im] that is a real system of size N = 2n whose low-rank term is p q' with q = 2p, so nothing here is complex.

Bilinear: with M = I - dt/2 A, Abar = 2/M - 1 and Bbar = dt/M B. M is diagonal plus rank one, so 1/M is too, and a tick
costs O(N). Whole sequences run in chunks: what a chunk reads from the state before it, leaves behind, and answers
within, are tables of powers of Abar made by doubling. C is the true C at any length: unlike that of the kernel by the
generating function (which absorbs I - Abar^L), no weight ever changes its meaning. A diagonal step is no option: LegS
has the real eigenvalues -1 .. -N, with eigenvectors so near to each other that float64 does not part them at N = 64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from graphspec.ops.modules.contract import State
from graphspec.ops.modules.ssm import _toeplitz

_CHUNK = 128  # longest; shorter ones for short sequences
_SMALLEST = 1e-4  # magnitudes of Re A and Im A are raised to this before storing, as the reference code does
_CLIPPED = 2.0  # |Im B| of the eigenform is cut to this, as the reference code does


def legs(state: int) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS as diagonal plus low rank: Lambda, P and B of n = state/2 modes with Im <= 0, complex128 [n] each."""
    k = torch.arange(state, dtype=torch.float64, device="cpu")
    root = torch.sqrt(2 * k + 1)
    a = -torch.tril(root[:, None] * root, -1) - torch.diag(k + 1)
    p = torch.sqrt(k + 0.5)
    normal = a + p[:, None] * p  # -1/2 and a skew-symmetric part
    im, v = torch.linalg.eigh(-1j * normal.to(torch.complex128))
    v = v[:, : state // 2]  # ascending: the negative half
    b = v.mH @ root.to(torch.complex128)
    b = torch.complex(b.real, b.imag.clamp(-_CLIPPED, _CLIPPED))
    re = normal.diagonal().mean().expand(state // 2)
    return torch.complex(re, im[: state // 2]), v.mH @ p.to(torch.complex128), b


class S4(nn.Module):
    """S4 with D u included: [B, T, channels] -> [B, T, channels]; channels do not mix.

    channels: systems H, of which those with the same number modulo `copies` (0: H) share A, P and B. state: N, real
    size of each. dt_min, dt_max: bounds of the log-uniform initial step, in ticks of the input. softplus: dt is
    softplus of its weight, not exp. both: a second C reads the future (lag -1 and on), and the layer has no step.
    Weights log_dt [H], log_a_re and a_im [S, n] (A = -exp(log_a_re) - i a_im - P P*), p and b [S, n, 2], c [H, n, 2]
    (both: [2, H, n, 2]), d [H]. State {"re", "im"}: [B, H, n].
    """

    def __init__(
        self,
        channels: int,
        state: int = 64,
        copies: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        softplus: bool = False,
        both: bool = False,
    ) -> None:
        super().__init__()
        if channels < 1 or state < 2 or state % 2:
            raise ValueError(f"channels is at least 1 and state even and at least 2, not {channels} and {state}")
        copies = copies or channels
        if copies < 1 or channels % copies:
            raise ValueError(f"s4: {copies} copies do not divide {channels} channels")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"0 < dt_min <= dt_max, not {dt_min} and {dt_max}")
        self.channels, self.state, self.copies = channels, state, copies
        self.dt_min, self.dt_max, self.softplus, self.both = dt_min, dt_max, softplus, both
        n = state // 2
        self.log_dt = nn.Parameter(torch.empty(channels))
        self.log_a_re = nn.Parameter(torch.empty(copies, n))
        self.a_im = nn.Parameter(torch.empty(copies, n))
        self.p = nn.Parameter(torch.empty(copies, n, 2))
        self.b = nn.Parameter(torch.empty(copies, n, 2))
        self.c = nn.Parameter(torch.empty(*[2] * both, channels, n, 2))
        self.d = nn.Parameter(torch.empty(channels))

    @torch.no_grad()
    def reset(self, generator: Callable[[str], torch.Generator]) -> None:
        """dt log-uniform, A, P and B of HiPPO-LegS, C complex standard normal, D standard normal."""
        a, p, b = legs(self.state)
        u = torch.rand(self.log_dt.shape, generator=generator("log_dt"), device="cpu")
        dt = torch.exp(math.log(self.dt_min) + u * math.log(self.dt_max / self.dt_min))
        self.log_dt.copy_(torch.log(torch.expm1(dt)) if self.softplus else dt.log())
        self.log_a_re.copy_((-a.real).clamp(min=_SMALLEST).log().expand_as(self.log_a_re))
        self.a_im.copy_((-a.imag).clamp(min=_SMALLEST).expand_as(self.a_im))
        self.p.copy_(torch.view_as_real(p).expand_as(self.p))
        self.b.copy_(torch.view_as_real(b).expand_as(self.b))
        self.c.copy_(torch.randn(self.c.shape, generator=generator("c"), device="cpu") * math.sqrt(0.5))
        self.d.copy_(torch.randn(self.d.shape, generator=generator("d"), device="cpu"))

    def prepare(self) -> State:
        """What a tick reads, of each channel: 1/G as `inverse`, the rank-one part of 1/M as `left` and `right`, Bbar
        and C as real rows: inverse_re and inverse_im [H, n], left, right, b [H, N], c [H, N] (both: [2, H, N]), d [H].
        """
        dt = (softplus(self.log_dt) if self.softplus else torch.exp(self.log_dt))[:, None]
        turn = self.channels // self.copies
        a_re, a_im = (-torch.exp(self.log_a_re)).repeat(turn, 1), (-self.a_im).repeat(turn, 1)
        (p_re, p_im), (b_re, b_im) = (w.repeat(turn, 1, 1).unbind(-1) for w in (self.p, self.b))
        half = dt / 2
        g_re, g_im = 1 - half * a_re, -half * a_im
        size = g_re.square() + g_im.square()
        re, im = g_re / size, -g_im / size
        p = torch.cat([p_re, p_im], -1)
        inside = _turned(re, im, p)
        left = half * inside / (1 + half * (2 * p * inside).sum(-1, keepdim=True))
        # q' / G as a row: the transpose of a rotation turns the other way.
        right = _turned(re, -im, 2 * p)
        b = torch.cat([b_re, b_im], -1)
        b = dt * (_turned(re, im, b) - left * (right * b).sum(-1, keepdim=True))
        c_re, c_im = self.c.unbind(-1)
        c = 2 * torch.cat([c_re, -c_im], -1)
        return {"inverse_re": re, "inverse_im": im, "left": left, "right": right, "b": b, "c": c, "d": self.d}

    def forward(self, u: Tensor) -> Tensor:
        """u [B, T, H] -> y [B, T, H], from the zero state."""
        with torch.autocast(u.device.type, enabled=False):  # bfloat16 states forget
            prepared = self.prepare()
            x = u.to(self.d.dtype)
            if not self.both:
                return _scanned(x, prepared, prepared["c"], None)[0].to(u.dtype)
            y, _ = _scanned(x, prepared, prepared["c"][0], None)
            behind = pad(x.flip(1)[:, :-1], (0, 0, 1, 0))  # lag -1 is the first
            back, _ = _scanned(behind, {**prepared, "d": torch.zeros_like(self.d)}, prepared["c"][1], None)
            return (y + back.flip(1)).to(u.dtype)

    def init_state(self, batch: int, like: Tensor) -> State:
        """The zero state, {"re", "im"} of [batch, H, n]."""
        if self.both:
            return {}
        zero = like.new_zeros(batch, self.channels, self.state // 2)
        return {"re": zero, "im": zero.clone()}

    def step(self, u: Tensor, state: State, prepared: State) -> tuple[Tensor, State]:
        """u [B, n, H] and the state before it -> y [B, n, H] and the state after it, for any n >= 1."""
        if self.both:
            raise NotImplementedError("an s4 that reads both ways has no step")
        with torch.autocast(u.device.type, enabled=False):
            x = u.to(prepared["d"].dtype)
            held = torch.cat([state["re"], state["im"]], -1)
            if u.shape[1] == 1:
                y, held = _tick(x, held, prepared)
            else:
                y, held = _scanned(x, prepared, prepared["c"], held)
            re, im = held.chunk(2, -1)
            return y.to(u.dtype), {"re": re.contiguous(), "im": im.contiguous()}

    def extra_repr(self) -> str:
        return f"{self.channels}, state={self.state}, copies={self.copies}, both={self.both}"


def _turned(re: Tensor, im: Tensor, x: Tensor) -> Tensor:
    """The complex factor of every mode times [Re; Im] rows `[..., N]`."""
    x_re, x_im = x.chunk(2, -1)
    return torch.cat([re * x_re - im * x_im, im * x_re + re * x_im], -1)


def _tick(u: Tensor, x: Tensor, p: State) -> tuple[Tensor, Tensor]:
    """One tick: u [B, 1, H], x [B, H, N]; O(N) a channel."""
    through = _turned(p["inverse_re"], p["inverse_im"], x) - p["left"] * (p["right"] * x).sum(-1, keepdim=True)
    x = 2 * through - x + p["b"] * u[:, 0, :, None]
    return ((p["c"] * x).sum(-1) + p["d"] * u[:, 0])[:, None], x


def _scanned(u: Tensor, p: State, c: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor]:
    """Any number of ticks: u [B, T, H] from the state x [B, H, N] (none: zero) -> y [B, T, H] and the last state."""
    batch, ticks, channels = u.shape
    size = 1 << max(0, min(_CHUNK.bit_length() - 1, max(ticks, 1).bit_length() - 1))
    size = min(size, max(16, 1 << (math.isqrt(ticks).bit_length())))
    tables = _tables(p, c, min(size, 1 << max(0, ticks.bit_length() - 1)))
    if x is None:
        x = u.new_zeros(batch, channels, c.shape[-1])
        lead = -ticks % tables.size  # silence before the start leaves the zero state zero
        y, x = _chunks(pad(u, (0, 0, lead, 0)) if lead else u, p, tables, x)
        return y[:, lead:] if lead else y, x
    whole = ticks // tables.size * tables.size
    y, x = _chunks(u[:, :whole], p, tables, x)
    pieces = [y]
    for t in range(whole, ticks):
        y, x = _tick(u[:, t : t + 1], x, {**p, "c": c})
        pieces.append(y)
    return torch.cat(pieces, 1), x


class _Tables:
    """Of a chunk: what tick k reads of the state before [H, size, N], what tick j leaves at the end [H, size, N], the
    answer within [H, size, size], and what becomes of the state [H, N, N]."""

    def __init__(self, size: int, read: Tensor, leave: Tensor, within: Tensor, power: Tensor) -> None:
        self.size, self.read, self.leave, self.within, self.power = size, read, leave, within, power


def _tables(p: State, c: Tensor, size: int) -> _Tables:
    re, im = torch.diag_embed(p["inverse_re"]), torch.diag_embed(p["inverse_im"])
    inverse = torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)
    inverse = inverse - p["left"][..., :, None] * p["right"][..., None, :]
    power = 2 * inverse - torch.eye(c.shape[-1], dtype=c.dtype, device=c.device)
    first = power
    rows, columns = c[:, None], p["b"][:, None]  # C Abar^k and Abar^k Bbar, k = 0 .. size-1
    while rows.shape[1] < size:
        rows = torch.cat([rows, rows @ power], 1)
        columns = torch.cat([columns, columns @ power.transpose(1, 2)], 1)
        power = power @ power
    taps = (rows * p["b"][:, None]).sum(-1)
    taps = torch.cat([taps[:, :1] + p["d"][:, None], taps[:, 1:]], 1)
    return _Tables(size, rows @ first, columns.flip(1), _toeplitz(taps), power)


def _chunks(u: Tensor, p: State, t: _Tables, x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole chunks: u [B, K*size, H], x [B, H, N]."""
    batch, ticks, channels = u.shape
    if not ticks:
        return u, x
    drive = u.permute(2, 0, 1).reshape(channels, -1, t.size)  # [H, B K, size]
    ends = (drive @ t.leave).unflatten(1, (batch, -1))  # what each chunk leaves by itself
    state, before = x.transpose(0, 1), []
    power = t.power.transpose(1, 2)
    for end in ends.unbind(2):
        before.append(state)
        state = torch.baddbmm(end, state, power)
    starts = torch.stack(before, 2).flatten(1, 2)  # [H, B K, N]
    y = torch.baddbmm(drive @ t.within, starts, t.read.transpose(1, 2))
    return y.reshape(channels, batch, ticks).permute(1, 2, 0), state.transpose(0, 1)
