"""Backends of the sampler at paper size, on one thread: built, then run in turn beside eager and the eager peer.

Turn by turn (eager, onnx, aoti, peer, eager, ...), so that what else the machine does falls on all alike; figures are
process CPU time. AOTInductor's packages come from its cache if they are there: run it once before.

    python bench/sampler.py --rows 1 --rounds 12            # ms a tick, ratios, what a build costs
    python bench/sampler.py --rows 8 --rounds 8
    python bench/sampler.py --agree 2000                    # the samples against eager's, held to them
    python bench/sampler.py --profile                       # where a tick goes, and the bandwidth it needs
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from steps import paired, peer
from torch import Tensor

from graphspec.cli.load import compile_spec
from graphspec.compiler.lower import Model
from graphspec.runtime.agreement import disagreements
from graphspec.runtime.sample import Sampler


def cpu() -> float:
    """CPU seconds of this process and of the compilers it started."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def built(model: Model, rows: int, name: str) -> tuple[Sampler, dict[str, float]]:
    """A sampler that has drawn one tick, and the seconds until then."""
    wall, spent = time.perf_counter(), cpu()
    sampler = Sampler(model, rows, seed=0, backend=name)
    sampler.draw(1)
    return sampler, {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(cpu() - spent, 2)}


def peers(model: Model, rows: int, ticks: int) -> Callable[[], None]:
    """A turn of the eager peer."""
    params = model.graph.params
    theirs = peer().PeerSashimi(
        params["d"], vocab=2 ** params["bits"], n_layers=params["depth"], d_state=params["state"]
    )
    theirs.prepare_step()
    held: list[Any] = [theirs.initial_state(rows), torch.full((rows,), 2 ** (params["bits"] - 1))]

    @torch.no_grad()
    def turn() -> None:
        state, token = held
        for _ in range(ticks):
            logits, state = theirs.step(token, state)
            token = torch.distributions.Categorical(logits=logits).sample()
        held[:] = state, token

    return turn


def measured(model: Model, rows: int, rounds: int, ticks: int, names: Sequence[str]) -> dict[str, Any]:
    """Median CPU ms a tick of each, and the ratios of the pairs to eager and to the peer."""
    samplers, builds = {"eager": Sampler(model, rows, seed=0)}, {}
    for name in names:
        samplers[name], builds[name] = built(model, rows, name)
    turns: dict[str, Callable[[], object]] = {n: lambda s=s: s.draw(ticks) for n, s in samplers.items()}  # type: ignore[misc]
    turns["peer"] = peers(model, rows, ticks)
    seconds = paired(turns, rounds)
    told: dict[str, Any] = {"rows": rows, "ticks": ticks, "rounds": rounds, "build": builds}
    told["cpu_ms_per_tick"] = {n: round(1e3 * statistics.median(s) / ticks, 3) for n, s in seconds.items()}
    for slow in ("eager", "peer"):
        for name in names:
            pairs = [a / b for a, b in zip(seconds[slow], seconds[name], strict=True)]
            medians = statistics.median(seconds[slow]) / statistics.median(seconds[name])
            told[f"{slow}_over_{name}"] = [round(x, 2) for x in (medians, min(pairs), max(pairs))]
    return told


def agreement(model: Model, rows: int, ticks: int, names: Sequence[str]) -> dict[str, Any]:
    """How many of a backend's draws eager, held to them, makes otherwise; and how many of these are no edge."""
    told = {}
    for name in names:
        drawn = built(model, rows, name)[0]
        tokens = torch.cat([_first(model, rows, name), drawn.draw(ticks - 1)["wave"]], 1)
        found = list(disagreements(Sampler(model, rows, seed=0), {"wave": tokens}))
        told[name] = {"draws": ticks * rows, "differ": len(found), "no_edge": sum(not excused for *_, excused in found)}
    return told


def _first(model: Model, rows: int, name: str) -> Tensor:
    return Sampler(model, rows, seed=0, backend=name).draw(1)["wave"]


# ---- profile ---------------------------------------------------------------------------------------------------------


def bandwidth(size: int) -> float:
    """Bytes a second at which one thread reads `size` bytes again and again."""
    x = torch.ones(size // 4)
    best = 0.0
    for _ in range(5):
        begun, n = time.perf_counter(), max(1, 400_000_000 // size)
        for _ in range(n):
            x.sum()
        best = max(best, n * size / (time.perf_counter() - begun))
    return best


def touched(sampler: Sampler) -> float:
    """Bytes a tick reads and writes on average: the weights each step uses, and its states twice."""
    from graphspec.runtime.ticks import Ticks

    total = 0
    ticks = Ticks(sampler)
    for t in ticks.ticks:
        for step in ticks.stages[t.stage].steps:
            run = step.instruction
            used = [p for n, p in run.prepared.items() if not n.startswith(("log_", "bbar"))]
            if type(run.module).__name__ == "Embed":
                used = [run.module.weight[0, 0]]
            elif not used:
                used = list(run.module.parameters())
            total += sum(p.numel() * p.element_size() for p in used)
        for slot, name in ticks.stages[t.stage].states:
            x = sampler.states[slot][name]
            total += 2 * x.numel() * x.element_size()
    return total / len(ticks.ticks)


def profile(model: Model, rows: int, ticks: int, names: Sequence[str]) -> dict[str, Any]:
    """CPU us of each stage by itself, what the loop around them adds, ONNX Runtime's time by op."""
    eager = Sampler(model, rows, seed=0)
    used = touched(eager)
    near, far = bandwidth(4_000_000), bandwidth(256_000_000)
    told: dict[str, Any] = {
        "bytes_per_tick": int(used),
        "GB_per_s": {"4 MB": round(near / 1e9, 1), "256 MB": round(far / 1e9, 1)},
        "limit_us_per_tick": {"4 MB": round(1e6 * used / near, 1), "256 MB": round(1e6 * used / far, 1)},
    }
    for name in names:
        sampler = built(model, rows, name)[0]
        running: Any = sampler.running
        every = running.ticks
        counts = Counter(t.stage for t in every.ticks)
        stages = []
        for n in range(len(every.stages)):
            stages.append(_stage_us(running, n, every.examples(n), ticks // 2))
        sampler.draw(ticks)  # every binding is made
        begun = time.process_time()
        sampler.draw(ticks)
        whole = 1e6 * (time.process_time() - begun) / ticks
        inside = sum(stages[n] * c for n, c in counts.items()) / len(every.ticks)
        told[name] = {
            "us_per_tick": round(whole),
            "us_of_stages": [round(s) for s in stages],
            "stages_mean": round(inside),
        }
    if "onnx" in names:
        told["onnx_by_op_percent"] = _by_op(model, rows)
    return told


def _stage_us(running: Any, n: int, examples: tuple[Tensor, ...], times: int) -> float:
    if hasattr(running, "sessions"):
        k = next(k for k, t in enumerate(running.ticks.ticks) if t.stage == n)
        binding, run = running._binding(0, k), running.sessions[n].run_with_iobinding

        def call() -> None:
            run(binding)

    else:

        def call() -> None:
            running.calls[n](list(examples))

    call()
    begun = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - begun) / times


def _by_op(model: Model, rows: int) -> dict[str, int]:
    """Percent of ONNX Runtime's time in each kind of node, over 64 ticks."""
    import onnxruntime

    from graphspec.runtime import backend_onnx

    real = backend_onnx.session

    def profiled(data: bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling, options.profile_file_prefix = True, "/tmp/graphspec_onnx"
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    backend_onnx.session = profiled
    try:
        sampler = built(model, rows, "onnx")[0]
    finally:
        backend_onnx.session = real
    sampler.draw(64)
    spent: Counter[str] = Counter()
    for s in sampler.running.sessions:  # type: ignore[union-attr]
        file = s.end_profiling()
        with open(file) as f:
            for event in json.load(f):
                if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                    spent[event["args"]["op_name"]] += event["dur"]
        os.remove(file)
    total = sum(spent.values())
    return {op: round(100 * us / total) for op, us in spent.most_common(8)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="params of the spec, as d=16 depth=1")
    parser.add_argument("--backends", default="onnx,aoti")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--ticks", type=int, default=96, help="of a turn; whole blocks of 16 compare best")
    parser.add_argument("--agree", type=int, metavar="TICKS", help="compare the samples instead")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_intermixed_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = compile_spec("sashimi", options.overrides)
    names = options.backends.split(",")
    if options.agree:
        figures = agreement(model, options.rows, options.agree, names)
    elif options.profile:
        figures = profile(model, options.rows, 192, names)
    else:
        figures = measured(model, options.rows, options.rounds, options.ticks, names)
    print(json.dumps({**figures, "threads": 1, "torch": torch.__version__, "load_average": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
