"""Paired measurements of paper-size SaShiMi: a training step against the eager peer, and what the schedule saves.

Both sides of a pair run in one process on one thread, turn by turn (A, B, A, B, ...), so that what else the machine
does falls on both alike. Figures are medians of process CPU time; nothing is written.

    python bench/steps.py train --rounds 3     # forward + backward + AdamW, 8,192 samples, the first round warms up
    python bench/steps.py sample --ticks 320   # multirate, against every level at every tick, against the peer
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphspec.cli.load import compile_spec
from graphspec.compiler.lower import Model
from graphspec.graph import Value
from graphspec.runtime.instructions import Delay, Instruction, gathered
from graphspec.runtime.sample import Sampler

Turn = Callable[[], object]


def peer() -> ModuleType:
    """bench/peer_sashimi.py: bench/ is a folder of programs, not a package, so it is loaded from its path."""
    path = Path(__file__).with_name("peer_sashimi.py")
    spec = importlib.util.spec_from_file_location("peer_sashimi", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paired(turns: Mapping[str, Turn], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """CPU seconds of each turn, `rounds` times in turn; the warm-up rounds are left out. rounds >= 1."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for k in range(warm_up + rounds):
        for name, turn in turns.items():
            start = time.process_time()
            turn()
            if k >= warm_up:
                seconds[name].append(time.process_time() - start)
    return seconds


# ---- training --------------------------------------------------------------------------------------------------------


def training(rounds: int, length: int, batch: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """One update of each model from `[batch, length]` tokens, both with the same fused AdamW."""
    torch.manual_seed(0)
    theirs_of = peer()
    ours = compile_spec("sashimi", overrides)
    params = ours.graph.params
    theirs = theirs_of.PeerSashimi(
        params["d"], vocab=2 ** params["bits"], n_layers=params["depth"], d_state=params["state"]
    )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    tokens = torch.randint(2 ** params["bits"], (batch, length + 1))

    def our_loss() -> Tensor:
        return ours({"wave": tokens[:, 1:, None]})["losses.nll"].mean()

    def their_loss() -> Tensor:
        return F.cross_entropy(theirs(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:])

    seconds = paired({"graphspec": _update(ours, our_loss), "peer": _update(theirs, their_loss)}, rounds)
    return {"length": length, "batch": batch, **_told(seconds, "cpu_s", 1.0, "peer", "graphspec")}


def _update(model: torch.nn.Module, loss: Callable[[], Tensor]) -> Turn:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.004, weight_decay=0.0, fused=True)

    def turn() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return turn


# ---- sampling --------------------------------------------------------------------------------------------------------


class EveryLevel:
    """A sampler that also pays for what is not due: each value's last instruction is run again at every tick.

    The results of these extra runs are dropped, so it draws the same samples; only the cost is that of a model whose
    levels all step at the fastest rate.
    """

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.owner: dict[Instruction | Delay, Value] = {}
        made = [f for f in sampler.plan.fires if f.value.part is None]
        written = [(at, i) for at, tick in enumerate(sampler.program) for i in tick]
        assert len(made) == len(written)
        for fire, (at, instruction) in zip(made, written, strict=True):
            assert fire.at == at
            self.owner[instruction] = fire.value
        self.last: dict[Value, Instruction | Delay] = {}
        self.extra = self.ticks = 0  # further runs, in so many ticks since every value has run

    @torch.no_grad()
    def tick(self) -> None:
        k = self.sampler.tick % self.sampler.plan.block
        self.sampler.draw(1)
        due = {self.owner[i]: i for half in (2 * k, 2 * k + 1) for i in self.sampler.program[half]}
        for value, instruction in self.last.items():
            if value not in due:
                self._again(instruction)
                self.extra += 1
        self.ticks += len(self.last) == len(set(self.owner.values()))
        self.extra *= self.ticks > 0
        self.last |= due

    def _again(self, made: Instruction | Delay) -> None:
        registers, states = self.sampler.registers, self.sampler.states
        if isinstance(made, Delay):
            kept = registers[made.register]
            made.run(registers, states, None)
            registers[made.register] = kept
            return
        given = [gathered(p, registers) for p in made.plain]
        named = {k: gathered(p, registers) for k, p in made.named.items()}
        if made.stateless:
            made.call(*given, **named)
        else:
            own = states[made.state] if made.state is not None else {}
            made.call(*given, state=own, prepared=made.prepared, **named)


def sampling(ticks: int, batch: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """CPU ms a tick of whole schedule periods, taken in turn by the three ways to sample."""
    torch.manual_seed(0)
    theirs_of = peer()
    model: Model = compile_spec("sashimi", overrides)
    params = model.graph.params
    multirate = Sampler(model, batch, seed=0)
    every = EveryLevel(Sampler(model, batch, seed=0))
    theirs = theirs_of.PeerSashimi(
        params["d"], vocab=2 ** params["bits"], n_layers=params["depth"], d_state=params["state"]
    )
    theirs.prepare_step()
    state, token = theirs.initial_state(batch), torch.full((batch,), 2 ** (params["bits"] - 1))
    block = multirate.plan.block

    def every_level() -> None:
        for _ in range(block):
            every.tick()

    @torch.no_grad()
    def peers() -> None:
        nonlocal state, token
        for _ in range(block):
            logits, state = theirs.step(token, state)
            token = torch.distributions.Categorical(logits=logits).sample()

    turns = {"multirate": lambda: multirate.draw(block), "every_level": every_level, "peer": peers}
    periods = max(1, ticks // block)
    seconds = paired(turns, periods, warm_up=2)  # the first makes the last instruction of every value known
    due = sum(len(p) for p in multirate.program) / block
    return {
        "batch": batch,
        "ticks": periods * block,
        "instructions_per_tick": due,
        "instructions_per_tick_every_level": due + every.extra / every.ticks,
        **_told(seconds, "cpu_ms_per_tick", 1e3 / block, "every_level", "multirate"),
        "peer_over_multirate": statistics.median(seconds["peer"]) / statistics.median(seconds["multirate"]),
    }


def _told(seconds: Mapping[str, Sequence[float]], unit: str, scale: float, slow: str, fast: str) -> dict[str, Any]:
    """Medians, the ratio of medians, and the range of the ratio over the pairs."""
    ratios = [s / f for s, f in zip(seconds[slow], seconds[fast], strict=True)]
    return {
        **{f"{name}_{unit}": scale * statistics.median(each) for name, each in seconds.items()},
        f"{slow}_over_{fast}": statistics.median(seconds[slow]) / statistics.median(seconds[fast]),
        "ratio_of_pairs": [min(ratios), statistics.median(ratios), max(ratios)],
        "rounds": len(ratios),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "sample"))
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="params of the spec, as d=16 depth=1")
    parser.add_argument("--rounds", type=int, default=3, help="training: measured updates of each model")
    parser.add_argument("--length", type=int, default=8192, help="training: samples of an update")
    parser.add_argument("--ticks", type=int, default=320, help="sampling: measured ticks of each way")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_intermixed_args(argv)
    torch.set_num_threads(1)
    if options.what == "train":
        figures = training(options.rounds, options.length, options.batch, options.overrides)
    else:
        figures = sampling(options.ticks, options.batch, options.overrides)
    figures |= {"threads": 1, "torch": torch.__version__, "load_average": os.getloadavg()[0]}
    print(json.dumps({"what": options.what, **figures}))


if __name__ == "__main__":
    main()
