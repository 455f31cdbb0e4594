"""Streams of random graphs: whatever loops, looks ahead, pools, remembers and joins, in pieces of any length the stream
is what the whole form computes, and it is late by exactly what the planner says."""

import random
from fractions import Fraction
from math import floor
from pathlib import Path

import pytest
import torch
from subject import Subject
from torch import Tensor

from graphspec.cli.load import check_document
from graphspec.compiler.latency import plan
from graphspec.diagnostic import SpecError
from graphspec.reader import read_text

torch.set_num_threads(1)
HERE = Path(__file__).parent
TICKS = 288
BLOCKS = """\
blocks:
  fold_bins:
    in: x
    out: rearrange("f c -> (f c)", x) |> linear(2)
  split_pair:
    in: x
    graph:
      both: split(x, a=1, b=1)
    out: cat(both.b, both.a)
"""


class Writer:
    """A random spec as text, of one or two inputs: values at rates 2**a 3**b of the first, each named v0, v1, ..."""

    RATES = {Fraction(2) ** a * Fraction(3) ** b for a in (-3, -2, -1, 0, 1) for b in (-1, 0)}

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.every = 0  # ticks of the first input for one of the second
        self.inputs = ["wave: float[T, 2] @ 960"]
        self.lines: list[str] = []
        self.values: list[tuple[str, Fraction]] = []
        self.write("wave |> linear(2)", Fraction(1))
        if rng.random() < 0.3:
            self.every = rng.choice([1, 4, 6])
            self.inputs.append(f"control: float[N, 2] @ {960 // self.every}")
            self.write("control |> linear(2)", Fraction(1, self.every))
        if rng.random() < 0.3:
            self.inputs.append("knob: float[2]")
        for _ in range(rng.randint(3, 10)):
            self.grow()
        if rng.random() < 0.4:
            self.loop()
        for _ in range(rng.randint(0, 2)):
            self.grow()

    def write(self, text: str, rate: Fraction) -> None:
        name = f"v{len(self.values)}"
        self.lines.append(f"{name}: {text}")
        self.values.append((name, rate))

    def grow(self) -> None:
        rng = self.rng
        name, rate = rng.choice(self.values[-4:])
        p, k = rng.choice([2, 3]), rng.randint(1, 5)
        same = [
            f"{name} |> linear(2) |> tanh",
            f"{name}[t-{rng.randint(1, 6)}]",
            f"{name} |> shift({rng.randint(1, 4)}, before={rng.choice([0, 1])})",
            f"{name} |> conv(2, k={k}, dilation={rng.randint(1, 3)})",
            f"{name} |> conv(2, k={k}, dilation={rng.randint(1, 3)}, centre=true)",
            f"{name} |> conv(2, k={k + 1}, groups=2, centre=true)",
            f"outer({name}, param([3])) |> conv2d(2, k={rng.choice([3, 4])}) |> fold_bins",
            f"{name} |> attention(1, window={rng.randint(1, 5)})",
            f"{name} |> attention(1, chunk={rng.randint(2, 5)}, causal=false)",
            f"{name} |> attention(1)",
            f"{name} |> s4d(4)",
            f"{name} |> gru(2)",
            f"{name} |> delta(order={rng.randint(1, 2)})",
            f"{name} + 0.1*normal_like({name})",
            f"split_pair({name})",
        ]
        if "knob: float[2]" in self.inputs:
            same.append(f"{name} * knob")
        forms = [(text, rate) for text in rng.sample(same, 5)]
        if rate / p in self.RATES:
            forms += [
                (f"{name} |> fold({p}) |> linear(2)", rate / p),
                (f"{name} |> {rng.choice(['max_pool', 'mean_pool', 'downsample'])}({p})", rate / p),
                (f"{name} |> conv(2, k={p + k - 1}, stride={p}, centre={rng.choice(['true', 'false'])})", rate / p),
                # The square: of a bin that is 0 but for rounding, the magnitude's gradient is any.
                (f"{name} |> take(0) |> spectrogram({rng.choice([4, 8])}, hop={p}, power=2) |> linear(2)", rate / p),
                (f"{name} |> resample(up=1, down={p}, zeros=6)", rate / p),
            ]
        if rate * p in self.RATES:
            forms += [
                (f"{name} |> linear({2 * p}) |> unfold({p})", rate * p),
                (f"{name} |> upsample({p}, method={rng.choice(['hold', 'linear', 'window'])})", rate * p),
                (f"{name} |> conv_up(2, k={p + k - 1}, stride={p})", rate * p),
                (f"{name} |> resample(up={p}, down=1, zeros=6)", rate * p),
            ]
        if rate * Fraction(3, 2) in self.RATES:
            forms.append((f"{name} |> resample(up=3, down=2, zeros=6)", rate * Fraction(3, 2)))
        peers = [v for v in self.values if v[1] == rate and v[0] != name]
        if peers:
            other, _ = rng.choice(peers)
            joins = [f"{name} + {other}", f"cat({name}, {other}) |> linear(2)", f"{name} * tanh({other})"]
            forms += [(text, rate) for text in joins]
        self.write(*rng.choice(forms))

    def loop(self) -> None:
        rng = self.rng
        name, rate = rng.choice(self.values[-3:])
        n, k = len(self.values), rng.randint(1, 3)
        peers = [v for v, r in self.values if r == rate]
        other = rng.choice(peers)
        form = rng.choice(
            [
                [f"0.8*v{n}[t-{k}] + {name}"],
                [f"sigmoid({other}) * v{n}[t-1] + {name}"],
                [f"tanh(v{n}[t-{k}] |> linear(2)) + {name}"],
                [f"tanh(v{n + 1}[t-1] + {name})", f"0.5*v{n} + 0.2*v{n + 1}[t-{k}] + {other}"],
                [f"0.5*v{n}[t-1] - 0.3*v{n}[t-2] + {name}"],
                [f"tanh(v{n}[t-1] + {name}[t-2]) |> conv(2, k=2)"],
            ]
        )
        for line in form:
            self.write(line, rate)

    def spec(self) -> str:
        names = [name for name, _ in self.values]
        some = sorted({names[-1], *self.rng.sample(names, min(2, len(names)))})
        return (
            "graphspec: 1\nmodel: wild\nrequire:\n  - T % 144 == 0\n"
            + (f"  - T == N * {self.every}\n" if self.every else "")
            + "inputs:\n"
            + "".join(f"  {line}\n" for line in self.inputs)
            + BLOCKS
            + "graph:\n"
            + "".join(f"  {line}\n" for line in self.lines)
            + f"outputs: [{', '.join(some)}]\n"
        )


def subject(seed: int) -> Subject:
    text = Writer(seed).spec()
    try:
        sizes = {"N": TICKS // every} if (every := Writer(seed).every) else {}
        s = Subject(check_document(read_text("wild.yaml", text), HERE), TICKS, **sizes)
    except SpecError as error:
        raise AssertionError(f"{error}\n{text}") from error
    s.model.reset(seed)
    s.model.double().eval()
    assert s.flow is not None, text
    return s


def holds(seed: int, gradients: bool) -> None:
    """The stream is the whole, in one piece and in many; its measured latency is the planned one."""
    s = subject(seed)
    text = Writer(seed).spec()
    inputs, noise = s.draw(2, 0, seed), s.noise(2, seed)
    weights = list(s.model.weights().values())
    ends = [*weights, *(x.requires_grad_() for x in inputs.values())] if gradients else []
    with torch.set_grad_enabled(gradients):
        whole = s.model(inputs, noise)
        for cuts in (1, 12, 200):
            found = s.flowed(inputs, noise, cuts, seed)
            for name, y in whole.items():
                assert found[name].shape == y.shape, f"{name} of seed {seed}\n{text}"
                error = float(((found[name] - y).abs().max() / y.abs().max().clamp(min=1e-3)).detach())
                assert error <= 1e-9, f"{name} is off by {error:.1e}, seed {seed}\n{text}"
            if gradients:
                want, got = (_gradients(made, ends) for made in (whole, found))
                for a, b in zip(got, want, strict=True):
                    assert float((a - b).abs().max()) <= 1e-9 * max(1.0, float(b.abs().max())), f"seed {seed}\n{text}"
    for v, ready in measured(s, inputs, noise).items():
        planned = plan(s.graph, v, s.checked.regions, s.flow.rate)
        assert max(late(s, v, ready), default=0) <= planned.ticks, f"{v} of seed {seed}\n{text}"
        # The start is never later; after it has come to rest the plan is met to the tick.
        if planned.ticks < TICKS // 3:
            assert max(late(s, v, ready)) == planned.ticks, f"{v}, planned {planned.ticks}, seed {seed}\n{text}"


def late(s: Subject, v, ready: list[int]) -> list[int]:
    step = s.flow.step_of[v]
    return [at - floor(k * step) for k, at in enumerate(ready)]


@torch.no_grad()
def measured(s: Subject, inputs: dict[str, Tensor], noise: dict[str, Tensor]) -> dict:
    """For each target the tick of the fastest input after which each element came out, before the end."""
    flow = s.flow
    prepared = flow.prepare(lambda vs: s.model.evaluate(vs, inputs, noise), inputs)
    state = flow.begin(2, torch.empty(0, dtype=torch.float64), prepared)
    ready: dict = {v: [] for v in flow.targets}
    given_so_far = dict.fromkeys((v.path for v in flow.sources), 0)
    fastest = max(inputs[v.path].shape[1] for v in flow.sources)

    def drawn(v, first, count):
        z = noise.get(v.path)
        return None if z is None else z[:, first : first + count]

    for tick in range(fastest):
        given = {}
        for v in flow.sources:
            begun = floor(tick / flow.step_of[v]) + 1
            given[v.path] = inputs[v.path][:, given_so_far[v.path] : begun]
            given_so_far[v.path] = begun
        made, state = flow.push(given, state, prepared, drawn)
        for v, y in zip(flow.targets, made, strict=True):
            ready[v] += [tick] * y.shape[1]
    return ready


def _gradients(made: dict[str, Tensor], ends: list[Tensor]) -> list[Tensor]:
    g = torch.Generator().manual_seed(3)
    pulled = sum((y * torch.randn(y.shape, generator=g, dtype=y.dtype)).sum() for _, y in sorted(made.items()))
    found = torch.autograd.grad(pulled, ends, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if f is None else f for f, x in zip(found, ends, strict=True)]


@pytest.mark.parametrize("seed", range(40))
def test_a_random_graph_streams(seed: int) -> None:
    holds(seed, gradients=seed % 5 == 0)


@pytest.mark.full
def test_five_hundred_random_graphs_stream() -> None:
    for seed in range(1000, 1500):
        holds(seed, gradients=seed % 5 == 0)
