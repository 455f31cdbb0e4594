"""The eager PyTorch peer: SaShiMi with S4D-Lin layers, built the textbook way, for tests and benchmarks.

This is *not* the project's model. It is re-derived from the published formulas and keeps the habits of the
reference implementations on purpose, because those habits are what the benchmarks measure against: channel first
`[B, H, L]`, a full Vandermonde table of complex exponentials for the kernel, a complex state, and Python lists in step
mode. SaShiMi: Goel et al. 2022, arXiv 2202.09729. S4D: Gu et al. 2022, arXiv 2206.11893.

    python bench/peer_sashimi.py --length 8192 --steps 2      # CPU seconds of a training step, peak RSS, as JSON
    python bench/peer_sashimi.py --generate 256               # CPU ms and steps/s of sampling
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

StepState = Any  # of one layer: a complex tensor (S4D), None (feed-forward), or a list of vectors (pools)
Pools = Sequence[int]


class PeerS4DKernel(nn.Module):
    """The S4D-Lin kernel of H independent channels, n2 = d_state / 2 complex modes each (the conjugates are implied).

    K[h, l] = 2 Re sum_n C[h, n] Bbar[h, n] exp(l dt[h] A[h, n]), with zero-order hold:
    Bbar = B (exp(dt A) - 1) / A and A = -exp(log_a_re) - i a_im.
    """

    def __init__(self, d_model: int, d_state: int = 64, dt_min: float = 0.001, dt_max: float = 0.1) -> None:
        super().__init__()
        n2 = d_state // 2
        self.log_dt = nn.Parameter(torch.empty(d_model).uniform_(math.log(dt_min), math.log(dt_max)))
        self.C = nn.Parameter(torch.randn(d_model, n2, 2) * math.sqrt(0.5))
        self.B = nn.Parameter(torch.stack([torch.ones(d_model, n2), torch.zeros(d_model, n2)], dim=-1))
        self.log_a_re = nn.Parameter(torch.full((d_model, n2), math.log(0.5)))
        # The reference stores no imaginary part below 1e-4, so the first mode is not quite real.
        self.a_im = nn.Parameter((math.pi * torch.arange(n2)).clamp(min=1e-4).expand(d_model, n2).clone())

    def discretise(self) -> tuple[Tensor, Tensor, Tensor]:
        """(dt A, Bbar, C), each complex `[H, n2]`."""
        A = torch.complex(-self.log_a_re.exp(), -self.a_im)
        z = A * self.log_dt.exp()[:, None]
        B = torch.view_as_complex(self.B) * (z.exp() - 1.0) / A
        return z, B, torch.view_as_complex(self.C)

    def forward(self, length: int) -> Tensor:
        """The first `length` taps, `[H, L]`; holds the whole `[H, n2, L]` table, as the reference does on a CPU."""
        z, B, C = self.discretise()
        vandermonde = (z[..., None] * torch.arange(length, device=z.device)).exp()
        return 2 * torch.einsum("hn,hnl->hl", C * B, vandermonde).real


class PeerS4D(nn.Module):
    """The S4D layer: convolution by the kernel plus D u, GELU, a linear map to 2H, GLU. `[B, H, L]` to `[B, H, L]`."""

    def __init__(self, d_model: int, d_state: int = 64) -> None:
        super().__init__()
        self.D = nn.Parameter(torch.randn(d_model))
        self.kernel = PeerS4DKernel(d_model, d_state)
        self.mix = nn.Linear(d_model, 2 * d_model)
        self.recurrence: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, u: Tensor) -> Tensor:
        L = u.shape[-1]
        # Length 2L keeps the circular convolution from wrapping its tail onto the first taps.
        spectrum = torch.fft.rfft(u, n=2 * L) * torch.fft.rfft(self.kernel(L), n=2 * L)
        y = torch.fft.irfft(spectrum, n=2 * L)[..., :L] + u * self.D[:, None]
        y = F.glu(self.mix(F.gelu(y).transpose(-1, -2)), dim=-1)
        return y.transpose(-1, -2)

    def prepare_step(self) -> None:
        """Freeze (Abar, Bbar, C) for step mode; call again after the weights change."""
        z, B, C = self.kernel.discretise()
        self.recurrence = (z.exp(), B, C)

    def initial_state(self, batch: int) -> Tensor:
        """Zeros, complex `[B, H, n2]`."""
        return torch.view_as_complex(self.kernel.C).new_zeros(batch, *self.kernel.C.shape[:2])

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One sample: u `[B, H]`; x' = Abar x + Bbar u, then y = 2 Re sum C x' + D u (the update comes first)."""
        if self.recurrence is None:
            raise RuntimeError("PeerS4D.step before prepare_step: call prepare_step() on the model first")
        A, B, C = self.recurrence
        state = A * state + B * u[..., None]
        y = 2 * torch.einsum("hn,bhn->bh", C, state).real + u * self.D
        return F.glu(self.mix(F.gelu(y)), dim=-1), state


class PeerFF(nn.Module):
    """Position-wise feed-forward on `[B, H, L]`: 1x1 convolution to ff*H, GELU, and back."""

    def __init__(self, d_model: int, ff: int = 2) -> None:
        super().__init__()
        self.expand = nn.Conv1d(d_model, ff * d_model, 1)
        self.contract = nn.Conv1d(ff * d_model, d_model, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x)))

    def initial_state(self, batch: int) -> None:
        return None

    def step(self, x: Tensor, state: None) -> tuple[Tensor, None]:
        """x `[B, H]`."""
        return self.forward(x[..., None])[..., 0], None


class PeerResidual(nn.Module):
    """x + layer(LayerNorm(x)), the norm over channels of `[B, H, L]`, affine, eps 1e-5."""

    def __init__(self, d_model: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model, eps=1e-5)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(self.norm(x.transpose(-1, -2)).transpose(-1, -2))

    def initial_state(self, batch: int) -> StepState:
        return self.layer.initial_state(batch)

    def step(self, x: Tensor, state: StepState) -> tuple[Tensor, StepState]:
        """x `[B, H]`."""
        y, state = self.layer.step(self.norm(x), state)
        return x + y, state


class PeerDownPool(nn.Module):
    """`[B, H, L]` to `[B, H*expand, L/pool]`: a linear map of each window, channel-major, oldest sample first."""

    def __init__(self, d_model: int, pool: int, expand: int) -> None:
        super().__init__()
        self.pool = pool
        self.linear = nn.Conv1d(d_model * pool, d_model * expand, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, H, L = x.shape
        windows = x.reshape(B, H, L // self.pool, self.pool).transpose(-1, -2)
        return self.linear(windows.reshape(B, H * self.pool, L // self.pool))

    def initial_state(self, batch: int) -> list[Tensor]:
        return []

    def step(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor | None, list[Tensor]]:
        """x `[B, H]`; emits `[B, H*expand]` with the last sample of each window, None otherwise."""
        state = [*state, x]
        if len(state) < self.pool:
            return None, state
        return self.linear(torch.stack(state, dim=-1).flatten(1)[..., None])[..., 0], []


class PeerUpPool(nn.Module):
    """`[B, H, L]` to `[B, H/expand, L*pool]`, delayed by one coarse frame so that no output sees its own window."""

    def __init__(self, d_model: int, pool: int, expand: int) -> None:
        super().__init__()
        self.pool = pool
        self.d_out = d_model // expand
        self.linear = nn.Conv1d(d_model, self.d_out * pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, _, L = x.shape
        # Shifted after the map: the first window is zeros, not the bias.
        y = F.pad(self.linear(x)[..., :-1], (1, 0))
        return y.reshape(B, self.d_out, self.pool, L).transpose(-1, -2).reshape(B, self.d_out, L * self.pool)

    def initial_state(self, batch: int) -> list[Tensor]:
        return [self.linear.weight.new_zeros(batch, self.d_out) for _ in range(self.pool)]

    def step(self, x: Tensor | None, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Pops one `[B, H/expand]`; the call that empties the queue needs x `[B, H]` to refill it."""
        y, *state = state
        if not state:
            state = list(self.linear(x[..., None]).reshape(-1, self.d_out, self.pool).unbind(dim=-1))
        return y, state


class PeerBackbone(nn.Module):
    """Multirate S4D stages joined by pools, with skips across each stage and a final LayerNorm. `[B, L, H]` both ends.

    The down path holds pools only; `n_layers` pairs of (S4D, FF) sit at the centre and after each up-pool.
    """

    def __init__(
        self, d_model: int, n_layers: int = 8, pool: Pools = (4, 4), expand: int = 2, ff: int = 2, d_state: int = 64
    ) -> None:
        super().__init__()
        self.pool = tuple(pool)

        def stage(width: int) -> list[nn.Module]:
            pairs = [(PeerS4D(width, d_state), PeerFF(width, ff)) for _ in range(n_layers)]
            return [PeerResidual(width, layer) for pair in pairs for layer in pair]

        width = d_model
        self.down = nn.ModuleList()
        for p in pool:
            self.down.append(PeerDownPool(width, p, expand))
            width *= expand
        self.center = nn.ModuleList(stage(width))
        self.up = nn.ModuleList()
        for p in reversed(pool):
            head = PeerUpPool(width, p, expand)
            width //= expand
            self.up.append(nn.ModuleList([head, *stage(width)]))
        self.norm = nn.LayerNorm(d_model, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Whole sequences; ValueError when L is not a multiple of the product of the pools."""
        if x.shape[1] % math.prod(self.pool):
            raise ValueError(f"length {x.shape[1]} is not a multiple of prod(pool) = {math.prod(self.pool)}")
        x = x.transpose(-1, -2)
        skips = [x]
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        for layer in self.center:
            x = layer(x)
        x = x + skips.pop()
        for head, *layers in self.up:
            entry = x = head(x) + skips.pop()
            for layer in layers:
                x = layer(x)
            x = x + entry
        return self.norm(x.transpose(-1, -2))

    def initial_state(self, batch: int) -> list[list[StepState]]:
        """One list per group: down pools, centre, then each up stage."""
        return [[layer.initial_state(batch) for layer in group] for group in (self.down, self.center, *self.up)]

    def step(self, x: Tensor, state: list[list[StepState]]) -> tuple[Tensor, list[list[StepState]]]:
        """One fine sample, x `[B, H]`: a down pool that emits nothing leaves every deeper layer untouched."""
        down, center, *up = (list(group) for group in state)
        coarse: Tensor | None = x
        skips = []
        for i, layer in enumerate(self.down):
            skips.append(coarse)
            coarse, down[i] = layer.step(coarse, down[i])
            if coarse is None:
                break
        if coarse is not None:
            coarse = self._run(self.center, center, coarse) + coarse
        for i in range(len(self.up) - len(skips), len(self.up)):
            fine, up[i][0] = self.up[i][0].step(coarse, up[i][0])
            entry = fine + skips.pop()
            coarse = self._run(self.up[i], up[i], entry, first=1) + entry
        return self.norm(coarse), [down, center, *up]

    @staticmethod
    def _run(layers: nn.ModuleList, states: list[StepState], x: Tensor, first: int = 0) -> Tensor:
        """Step x through `layers[first:]`, replacing their entries in `states`."""
        for i in range(first, len(layers)):
            x, states[i] = layers[i].step(x, states[i])
        return x


class PeerSashimi(nn.Module):
    """Embedding, backbone (which ends in a LayerNorm) and a linear head: tokens `[B, L]` to logits `[B, L, vocab]`.

    The output at t sees tokens up to and including t, so the targets are the inputs shifted by one. The other keywords
    are PeerBackbone's: n_layers=8, pool=(4, 4), expand=2, ff=2, d_state=64.
    """

    def __init__(self, d_model: int = 64, *, vocab: int = 256, **backbone: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model)
        self.backbone = PeerBackbone(d_model, **backbone)
        self.head = nn.Linear(d_model, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.backbone(self.embedding(tokens)))

    def prepare_step(self) -> None:
        """Discretise every S4D layer for step mode; call again after the weights change."""
        for module in self.modules():
            if isinstance(module, PeerS4D):
                module.prepare_step()

    def initial_state(self, batch: int) -> list[list[StepState]]:
        return self.backbone.initial_state(batch)

    def step(self, token: Tensor, state: list[list[StepState]]) -> tuple[Tensor, list[list[StepState]]]:
        """token `[B]` to logits `[B, vocab]`; does not change the state passed in."""
        y, state = self.backbone.step(self.embedding(token), state)
        return self.head(y), state


# From the golden's module paths to this file's, applied in this order.
GOLDEN_RENAMES = (
    *(("enc/", "embedding/"), ("dec/", "head/"), ("net/", "backbone/")),
    *(("d_layers/", "down/"), ("c_layers/", "center/"), ("u_layers/", "up/")),
    *(("layer/layer/", "layer/"), ("output_linear/0/", "mix/"), ("ff/0/0/", "expand/"), ("ff/2/", "contract/")),
    *(("kernel/inv_dt", "kernel/log_dt"), ("kernel/A_real", "kernel/log_a_re"), ("kernel/A_imag", "kernel/a_im")),
)


def peer_name(golden: str) -> str:
    """The dotted name here of a golden's module or parameter path: `net/u_layers/0/1/norm/bias`, no `param/` prefix."""
    for old, new in GOLDEN_RENAMES:
        golden = golden.replace(old, new)
    return golden.replace("/", ".")


def load_golden(model: PeerSashimi, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy every `param/...` array into `model`; ValueError unless they cover its parameters exactly."""
    source = {peer_name(key.removeprefix("param/")): arrays[key] for key in arrays if key.startswith("param/")}
    target = dict(model.named_parameters())
    if source.keys() != target.keys():
        raise ValueError(f"golden and model disagree about {sorted(source.keys() ^ target.keys())}")
    with torch.no_grad():
        for name, parameter in target.items():
            # The golden keeps singleton axes (one head, one copy); only those may differ.
            if [n for n in source[name].shape if n != 1] != [n for n in parameter.shape if n != 1]:
                raise ValueError(f"{name}: golden {source[name].shape}, model {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(source[name]).reshape(parameter.shape))


def peak_rss_bytes() -> int:
    """High-water resident memory of this program (Linux); getrusage would also count its parent's before exec."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def median_seconds(action: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Median process CPU and wall seconds of `action`, run `repeats` >= 2 times; the first is a warm-up, left out."""
    if repeats < 2:
        raise ValueError(f"{repeats} repeat(s): the first is the warm-up, so at least 2 are needed")
    cpu, wall = [], []
    for _ in range(repeats):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        action()
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    return statistics.median(cpu[1:]), statistics.median(wall[1:])


def measure_training(model: PeerSashimi, length: int, steps: int, batch: int = 1) -> dict[str, float]:
    """Process CPU and wall seconds of forward + backward + AdamW; the first of `steps` warms up."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.004, weight_decay=0.0)
    tokens = torch.randint(model.head.out_features, (batch, length + 1))

    def train_once() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(model(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:]).backward()
        optimiser.step()

    cpu, wall = median_seconds(train_once, steps)
    return {"length": length, "cpu_s": cpu, "wall_s": wall, "measured_steps": steps - 1}


@torch.no_grad()
def measure_generation(model: PeerSashimi, steps: int, batch: int = 1, period: int = 16) -> dict[str, float]:
    """CPU ms and wall rate of sampling with the categorical draw: medians over whole multirate periods."""
    model.prepare_step()
    state = model.initial_state(batch)
    token = torch.full((batch,), model.head.out_features // 2)

    def sample_period() -> None:
        nonlocal state, token
        for _ in range(period):
            logits, state = model.step(token, state)
            token = torch.distributions.Categorical(logits=logits).sample()

    periods = math.ceil(steps / period)
    cpu, wall = median_seconds(sample_period, 1 + periods)
    return {"cpu_ms_per_step": 1e3 * cpu / period, "steps_per_s": period / wall, "measured_steps": periods * period}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the eager SaShiMi peer at paper size, fp32, on the CPU.")
    parser.add_argument("--length", type=int, default=8192, help="samples per training step")
    parser.add_argument("--steps", type=int, default=2, help="training steps; the first is the warm-up")
    parser.add_argument("--generate", type=int, metavar="N", help="measure N sampling steps instead of training")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = PeerSashimi()
    if args.generate is None:
        figures = measure_training(model, args.length, args.steps, args.batch)
    else:
        figures = measure_generation(model, args.generate, args.batch)
    figures |= {"batch": args.batch, "threads": args.threads, "torch": torch.__version__}
    print(json.dumps(figures | {"peak_rss_gb": peak_rss_bytes() / 1e9}))


if __name__ == "__main__":
    main()
