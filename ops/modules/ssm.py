"""Diagonal state space layer S4D (Gu et al. 2022, arXiv 2206.11893): one linear system per channel.

Continuous, per channel: x' = A x + B u, y = 2 Re(C x) + D u, with n = state/2 complex modes, one of each conjugate
pair. Discretised with the channel's own step dt: x_t = Abar x_{t-1} + Bbar u_t. Bbar only scales the modes, so the code
carries s = x / Bbar instead: s_t = w s_{t-1} + u_t, y_t = Re(q s_t) + D u_t, with w = Abar and q = 2 C Bbar. Nothing
divides by Bbar, the drive is the plain real input, and the impulse response is Re(q w^t) + D [t = 0].

Whole sequences run in chunks of about sqrt(B T) ticks, all of it real matrix products: within a chunk a Toeplitz matrix
of the first impulse responses, between chunks the modes. Against the textbook way (a Vandermonde product of length T,
then an FFT) there is no kernel of length T, powers of w stop at one chunk, and a state enters and leaves exactly.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

_BLOCK = 16  # up to this many chunks are carried one after the other; more go in blocks of it
_SEGMENT = 1 << 18  # longest piece of a prefill held at once, in ticks x batch rows
_SMALLEST = 1e-4  # magnitudes of Re A and Im A are raised to this before storing, as the reference code does


def _powers(log_re: Tensor, log_im: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """exp(k (log_re + i log_im)) as a real pair. [H, n] and [K] -> two of [H, K, n].

    Straight from exp, cos and sin: squaring float32 powers up to k would multiply their rounding error by k.
    """
    k = exponents[:, None]
    modulus, angle = torch.exp(log_re[:, None] * k), log_im[:, None] * k
    return modulus * torch.cos(angle), modulus * torch.sin(angle)


def _carry(re: Tensor, im: Tensor, log_re: Tensor, log_im: Tensor, reverse: bool = False) -> None:
    """In place e_k += w e_{k-1} along K, from the far end if `reverse`. re, im [H, B, K, n]; log w [H, n].

    Many chunks go in blocks: a carry inside all blocks at once, one over the block ends, then every block takes the end
    of the one before it. Two short loops instead of a long one keep kernel launches few.
    """
    if re.shape[2] > _BLOCK:
        re, im = re.unflatten(2, (-1, _BLOCK)), im.unflatten(2, (-1, _BLOCK))
    axis = re.ndim - 2
    ranks = torch.arange(1, re.shape[axis] + 1, device=re.device, dtype=re.dtype)
    p_re, p_im = _powers(log_re, log_im, ranks)
    w_re, w_im = p_re[:, :1], p_im[:, :1]  # [H, 1, n]
    if axis == 3:
        w_re, w_im = w_re[:, None], w_im[:, None]
    step = -1 if reverse else 1
    re_k, im_k = re.unbind(axis)[::step], im.unbind(axis)[::step]
    for k in range(1, len(re_k)):
        re_k[k].addcmul_(re_k[k - 1], w_re).addcmul_(im_k[k - 1], w_im, value=-1)
        im_k[k].addcmul_(im_k[k - 1], w_re).addcmul_(re_k[k - 1], w_im)
    if axis == 2:
        return
    _carry(re_k[-1], im_k[-1], log_re * _BLOCK, log_im * _BLOCK, reverse)
    if reverse:
        before, after, inside = slice(1, None), slice(None, -1), slice(1, None)
        p_re, p_im = p_re.flip(1)[:, 1:], p_im.flip(1)[:, 1:]
    else:
        before, after, inside = slice(None, -1), slice(1, None), slice(None, -1)
        p_re, p_im = p_re[:, :-1], p_im[:, :-1]
    p_re, p_im = p_re[:, None, None], p_im[:, None, None]
    end_re, end_im = re_k[-1][:, :, before, None], im_k[-1][:, :, before, None]
    re[:, :, after, inside].addcmul_(end_re, p_re).addcmul_(end_im, p_im, value=-1)
    im[:, :, after, inside].addcmul_(end_im, p_re).addcmul_(end_re, p_im)


def _channel_first(x: Tensor) -> Tensor:
    """[B, T, H] -> [H, B T], contiguous: a plain 2-D transpose, which torch copies fast."""
    return x.reshape(-1, x.shape[-1]).t().contiguous()


def _toeplitz(taps: Tensor) -> Tensor:
    """[H, c] -> [H, c, c] with [h, j, t] = taps[h, t - j], zero for j > t."""
    c = taps.shape[1]
    return pad(taps, (c - 1, 0)).unfold(1, c, 1).flip(1)


def _toeplitz_adjoint(grad: Tensor) -> Tensor:
    """[H, c, c] -> [H, c]: the sums along the diagonals t - j = 0 ... c-1."""
    c = grad.shape[1]
    skewed = pad(grad.flip(1), (0, c)).flatten(1)[:, : c * (2 * c - 1)]
    return skewed.unflatten(1, (c, 2 * c - 1)).sum(1)[:, c - 1 :]


class _ChunkScan(torch.autograd.Function):
    """s_t = w s_{t-1} + u_t, y_t = Re(q s_t) + d u_t over chunks of c ticks, with the adjoint derived by hand.

    u [B, T, H] with T % c == 0; log w and q as real pairs [H, n]; d [H]; s [B, H, 2n] = [re | im] or None for zero.
    Returns y [B, T, H] and the last s.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, log_re: Tensor, log_im: Tensor, q_re: Tensor, q_im: Tensor, d: Tensor,
                s: Tensor | None, c: int) -> tuple[Tensor, Tensor]:  # fmt: skip
        (B, T, H), n = u.shape, log_re.shape[1]
        drive = _channel_first(u).view(H, -1, c)  # [H, B K, c]
        p_re, p_im = _powers(log_re, log_im, torch.arange(c + 1, device=u.device, dtype=u.dtype))
        q_re, q_im = q_re[:, None], q_im[:, None]
        # Row k reads Re(q w^k s) from a state held as [re | im]; row j gathers what tick j leaves at the chunk's end.
        read = torch.cat([p_re * q_re - p_im * q_im, -p_re * q_im - p_im * q_re], 2)  # [H, c+1, 2n]
        gather = torch.cat([p_re[:, :c], p_im[:, :c]], 2).flip(1)  # [H, c, 2n]
        taps = read[:, :c, :n].sum(2)
        taps[:, 0] += d
        within = _toeplitz(taps)
        end = torch.bmm(drive, gather).view(H, B, -1, 2 * n)  # each chunk's own contribution, then with all before it
        re, im = end[..., :n], end[..., n:]
        first = end.new_zeros(H, B, 1, 2 * n)
        if s is not None:
            first.copy_(s.transpose(0, 1)[:, :, None])
            s_re, s_im, w_re, w_im = first[:, :, 0, :n], first[:, :, 0, n:], p_re[:, c:], p_im[:, c:]
            re[:, :, 0].addcmul_(s_re, w_re).addcmul_(s_im, w_im, value=-1)
            im[:, :, 0].addcmul_(s_im, w_re).addcmul_(s_re, w_im)
        _carry(re, im, log_re * c, log_im * c)
        before = torch.cat([first, end[:, :, :-1]], 2).view(H, -1, 2 * n)
        y = torch.bmm(drive, within).baddbmm_(before, read[:, 1:].transpose(1, 2))
        ctx.save_for_backward(drive, log_re, log_im, q_re, q_im, p_re, p_im, read, gather, within, before)
        ctx.batch = B
        ctx.set_materialize_grads(False)
        return y.view(H, -1).t().contiguous().view(B, T, H), end[:, :, -1].transpose(0, 1).contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, grad_end: Tensor | None) -> tuple[Tensor | None, ...]:
        drive, log_re, log_im, q_re, q_im, p_re, p_im, read, gather, within, before = ctx.saved_tensors
        (H, _, c), n = drive.shape, log_re.shape[1]
        if grad_y is None and grad_end is None:
            return (None,) * 8
        B = ctx.batch
        # Adjoint of the state at each chunk's end: what later chunks read from it, carried from the far end.
        late = drive.new_zeros(H, B, 1, 2 * n)
        if grad_end is not None:
            late.copy_(grad_end.transpose(0, 1)[:, :, None])
        if grad_y is None:
            grad_y = drive.new_zeros(B, drive.shape[1] // B * c, H)
        out = _channel_first(grad_y).view(H, -1, c)
        read_grad = torch.bmm(out, read[:, 1:]).view(H, B, -1, 2 * n)
        lam = torch.cat([read_grad[:, :, 1:], late], 2)
        lam_re, lam_im = lam[..., :n], lam[..., n:]
        _carry(lam_re, lam_im, log_re * c, -log_im * c, reverse=True)
        w_re, w_im = p_re[:, c], p_im[:, c]
        grad_s = None
        if ctx.needs_input_grad[6]:
            v_re, v_im, lead = w_re[:, None], w_im[:, None], read_grad[:, :, 0]
            lead[..., :n].addcmul_(lam_re[:, :, 0], v_re).addcmul_(lam_im[:, :, 0], v_im)
            lead[..., n:].addcmul_(lam_im[:, :, 0], v_re).addcmul_(lam_re[:, :, 0], v_im, value=-1)
            grad_s = lead.transpose(0, 1).contiguous()
        lam = lam.view(H, -1, 2 * n)
        grad_u = None
        if ctx.needs_input_grad[0]:
            grad_u = torch.bmm(out, within.transpose(1, 2)).baddbmm_(lam, gather.transpose(1, 2))
            grad_u = grad_u.view(H, -1).t().contiguous().view(grad_y.shape)
        taps = _toeplitz_adjoint(torch.bmm(drive.transpose(1, 2), out))
        # Rows k = 0 ... c of the two tables, as gradients of q w^k (signs of `read`) and of w^k.
        reads = pad(torch.bmm(out.transpose(1, 2), before), (0, 0, 1, 0))
        reads[:, :c, :n] += taps[..., None]
        gathers = torch.bmm(drive.transpose(1, 2), lam).flip(1)
        # conj(w^k) times either gradient; sums over k and over k times it give those of q and log w.
        a_re = p_re * reads[..., :n] - p_im * reads[..., n:]
        a_im = -p_re * reads[..., n:] - p_im * reads[..., :n]
        b_re = p_re[:, :c] * gathers[..., :n] + p_im[:, :c] * gathers[..., n:]
        b_im = p_re[:, :c] * gathers[..., n:] - p_im[:, :c] * gathers[..., :n]
        k = torch.arange(c + 1, device=drive.device, dtype=drive.dtype)
        ka_re, ka_im = k @ a_re, k @ a_im
        b_re, b_im = k[:c] @ b_re, k[:c] @ b_im
        q_re, q_im = q_re[:, 0], q_im[:, 0]
        x_re, x_im, l_re, l_im = before[..., :n], before[..., n:], lam[..., :n], lam[..., n:]
        e_re, e_im = (x_re * l_re + x_im * l_im).sum(1), (x_re * l_im - x_im * l_re).sum(1)
        grad_log_re = q_re * ka_re + q_im * ka_im + b_re + c * (w_re * e_re + w_im * e_im)
        grad_log_im = q_re * ka_im - q_im * ka_re + b_im + c * (w_re * e_im - w_im * e_re)
        return grad_u, grad_log_re, grad_log_im, a_re.sum(1), a_im.sum(1), taps[:, 0], grad_s, None


def _chunk(rows: int) -> int:
    """Chunk length for T x B `rows`: a power of two near sqrt(rows), where tables and carries cost the same."""
    return 1 << min(6, max(4, math.isqrt(rows).bit_length() - 1))


def _initial_modes(init: str, n: int, state: int) -> tuple[Tensor, Tensor]:
    """-Re A and the magnitude of Im A of `n` modes, for S4D-Lin, S4D-Inv or S4D-Real. Both float64 [n]."""
    k = torch.arange(n, dtype=torch.float64, device="cpu")
    if init == "lin":
        return torch.full_like(k, 0.5), math.pi * k
    if init == "inv":
        return torch.full_like(k, 0.5), state / math.pi * (state / (2 * k + 1) - 1)
    if init == "real":
        return k + 1, torch.zeros_like(k)
    raise ValueError(f"init is lin, inv or real, not {init!r}")


class S4D(nn.Module):
    """S4D with D u included: [B, T, channels] -> [B, T, channels]; channels do not mix.

    channels: independent systems H. state: N, real size of each; N/2 complex modes. init: `lin` (Im A = pi n), `inv` or
    `real`. disc: `zoh` or `bilinear`. dt_min, dt_max: bounds of the log-uniform initial step, in ticks of the input.
    Weights (per channel, never shared): log_dt [H], log_a_re and a_im [H, n] (A = -exp(log_a_re) - i a_im), b and c
    [H, n, 2], d [H]. State {"re", "im"}: [B, H, n], the modes divided by Bbar (`discretise` has Bbar).
    """

    def __init__(
        self,
        channels: int,
        state: int = 64,
        init: str = "lin",
        disc: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        if channels < 1 or state < 2 or state % 2:
            raise ValueError(f"channels is at least 1 and state even and at least 2, not {channels} and {state}")
        if disc not in ("zoh", "bilinear"):
            raise ValueError(f"disc is zoh or bilinear, not {disc!r}")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"0 < dt_min <= dt_max, not {dt_min} and {dt_max}")
        self.channels, self.state, self.init, self.disc = channels, state, init, disc
        self.dt_min, self.dt_max = dt_min, dt_max
        n = state // 2
        _initial_modes(init, n, state)
        self.log_dt = nn.Parameter(torch.empty(channels))
        self.log_a_re = nn.Parameter(torch.empty(channels, n))
        self.a_im = nn.Parameter(torch.empty(channels, n))
        self.b = nn.Parameter(torch.empty(channels, n, 2))
        self.c = nn.Parameter(torch.empty(channels, n, 2))
        self.d = nn.Parameter(torch.empty(channels))
        self.reset(lambda name: torch.default_generator)

    @torch.no_grad()
    def reset(self, generator: Callable[[str], torch.Generator]) -> None:
        """Draw the weights: dt log-uniform, A by `init`, B = 1, C complex standard normal, D standard normal."""
        if self.log_dt.is_meta:
            return
        H, n = self.log_a_re.shape
        u = torch.rand(H, generator=generator("log_dt"), device="cpu")
        re, im = _initial_modes(self.init, n, self.state)
        self.set_continuous(
            dt=torch.exp(math.log(self.dt_min) + u * math.log(self.dt_max / self.dt_min)),
            a_re=-re.expand(H, n),
            a_im=-im.expand(H, n),
            b=torch.tensor([1.0, 0.0], device="cpu").expand(H, n, 2),
            c=torch.randn(H, n, 2, generator=generator("c"), device="cpu") * math.sqrt(0.5),
            d=torch.randn(H, generator=generator("d"), device="cpu"),
        )

    @torch.no_grad()
    def set_continuous(self, dt: Tensor, a_re: Tensor, a_im: Tensor, b: Tensor, c: Tensor, d: Tensor) -> None:
        """Set the weights from dt [H], A (negative real part; two of [H, n]), B and C as real pairs [H, n, 2], D [H].

        A mode with positive imaginary part is stored as its conjugate together with its B and C: the same system.
        """
        flip = (a_im > 0)[..., None] & torch.tensor([False, True], device=a_im.device)
        self.log_dt.copy_(dt.log())
        self.log_a_re.copy_((-a_re).clamp(min=_SMALLEST).log())
        self.a_im.copy_(a_im.abs().clamp(min=_SMALLEST))
        self.b.copy_(torch.where(flip, -b, b))
        self.c.copy_(torch.where(flip, -c, c))
        self.d.copy_(d)

    def discretise(self) -> dict[str, Tensor]:
        """abar, bbar and log abar of the discrete system as real pairs, each [H, n]: keys `abar_re`, `log_re`, ..."""
        dt = torch.exp(self.log_dt)[:, None]
        a_re, a_im = -torch.exp(self.log_a_re), -self.a_im
        z_re, z_im = a_re * dt, a_im * dt
        b_re, b_im = self.b.unbind(-1)
        if self.disc == "zoh":
            log_re, log_im = z_re, z_im
            abar_re, abar_im = torch.exp(z_re) * torch.cos(z_im), torch.exp(z_re) * torch.sin(z_im)
            # (e^z - 1) / A without cancellation for small z: e^z - 1 = expm1(Re z) cos - 2 sin^2(Im z / 2) + i Im e^z.
            num_re = torch.expm1(z_re) * torch.cos(z_im) - 2 * torch.sin(z_im / 2).square()
            size = a_re.square() + a_im.square()
            gain_re, gain_im = (num_re * a_re + abar_im * a_im) / size, (abar_im * a_re - num_re * a_im) / size
        else:
            half_re, half_im = z_re / 2, z_im / 2
            size = (1 - half_re).square() + half_im.square()  # |1 - z/2|^2
            abar_re, abar_im = (1 - half_re.square() - half_im.square()) / size, z_im / size
            gain_re, gain_im = dt * (1 - half_re) / size, dt * half_im / size
            # log |abar|^2 = log1p(2 Re z / size): exact for slow poles. Near a pole at zero the plain quotient is.
            shrink = 2 * z_re / size
            near = ((1 + half_re).square() + half_im.square()).clamp(min=torch.finfo(z_re.dtype).tiny) / size
            log_re = 0.5 * torch.where(shrink > -0.5, torch.log1p(shrink.clamp(min=-0.5)), near.log())
            log_im = torch.atan2(half_im, 1 + half_re) + torch.atan2(half_im, 1 - half_re)
        return {
            "abar_re": abar_re, "abar_im": abar_im,
            "bbar_re": b_re * gain_re - b_im * gain_im, "bbar_im": b_re * gain_im + b_im * gain_re,
            "log_re": log_re, "log_im": log_im,
        }  # fmt: skip

    def prepare(self) -> dict[str, Tensor]:
        """Everything `step` reads: abar, bbar, log abar and q = 2 C Bbar as real pairs [H, n], and d [H]."""
        system = self.discretise()
        (c_re, c_im), b_re, b_im = self.c.unbind(-1), system["bbar_re"], system["bbar_im"]
        q_re, q_im = 2 * (c_re * b_re - c_im * b_im), 2 * (c_re * b_im + c_im * b_re)
        return {**system, "q_re": q_re, "q_im": q_im, "d": self.d}

    def kernel(self, length: int) -> Tensor:
        """The impulse response without D, [H, length]: Re(q w^t). For inspection; `forward` never makes it."""
        p = self.prepare()
        ticks = torch.arange(length, device=self.d.device, dtype=self.d.dtype)
        p_re, p_im = _powers(p["log_re"], p["log_im"], ticks)
        return (p_re * p["q_re"][:, None] - p_im * p["q_im"][:, None]).sum(-1)

    def forward(self, u: Tensor) -> Tensor:
        """u [B, T, H] -> y [B, T, H], from the zero state."""
        p = self.prepare()
        B, T, _ = u.shape
        c = min(_chunk(B * T), T)
        grain = c * _BLOCK if T > c * _BLOCK else c
        # Silence before the start leaves the zero state zero.
        lead = -T % grain
        y, _ = _scan(pad(u, (0, 0, lead, 0)) if lead else u, p, None, c)
        return y[:, lead:] if lead else y

    def init_state(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """The zero state, {"re", "im"} of [batch, H, n]."""
        zero = like.new_zeros(batch, self.channels, self.state // 2)
        return {"re": zero, "im": zero.clone()}

    def step(
        self, u: Tensor, state: dict[str, Tensor], prepared: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """u [B, n, H] and the state before it -> y [B, n, H] and the state after it, for any n >= 1."""
        p, re, im = prepared, state["re"], state["im"]
        B, n, _ = u.shape
        if n == 1:
            x = u.transpose(1, 2)
            w_re, w_im = p["abar_re"], p["abar_im"]
            re, im = (
                torch.addcmul(torch.addcmul(x, re, w_re), im, w_im, value=-1),
                torch.addcmul(im * w_re, re, w_im),
            )
            read = torch.addcmul(re * p["q_re"], im, p["q_im"], value=-1)
            return torch.addcmul(read.sum(-1)[:, None], u, p["d"]), {"re": re, "im": im}
        s, pieces = torch.cat([re, im], -1), []
        while n:
            c = min(_chunk(min(B * n, _SEGMENT)), n)
            count = min(n // c, max(1, _SEGMENT // (B * c)))
            if count > _BLOCK:
                count -= count % _BLOCK
            piece, u = u[:, : c * count], u[:, c * count :]
            y, s = _scan(piece, p, s, c)
            pieces.append(y)
            n -= c * count
        re, im = s.chunk(2, -1)
        return torch.cat(pieces, 1), {"re": re, "im": im}


def _scan(u: Tensor, p: dict[str, Tensor], s: Tensor | None, c: int) -> tuple[Tensor, Tensor]:
    # Under autocast the recurrence still runs in the weights' precision: bfloat16 states forget.
    with torch.autocast(u.device.type, enabled=False):
        x = u.to(p["d"].dtype)
        y, s = _ChunkScan.apply(x, p["log_re"], p["log_im"], p["q_re"], p["q_im"], p["d"], s, c)
    return y.to(u.dtype), s
