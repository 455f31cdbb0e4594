"""The stages of a sampler compiled ahead by AOTInductor: minutes to build once, milliseconds to load ever after.

A package is cached by what the stage is: its modules with all their plain attributes, its wiring, shapes and dtypes,
the sources of these modules, torch's version and the processor. Weights are no part of that: they are put into the
loaded package, so the next checkpoint of a model needs no build. (Where the compiler kept a tensor that is none of the
stage's weights, they are part of it after all.)
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphspec.runtime import stages
from graphspec.runtime.backend import Calls, Unbuildable, checked
from graphspec.runtime.backend_onnx import quiet
from graphspec.runtime.stages import Stage
from graphspec.runtime.ticks import Ticks

if TYPE_CHECKING:
    from graphspec.runtime.sample import Sampler


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/graphspec/aoti, or ~/.cache/graphspec/aoti."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphspec" / "aoti"


# ---- what a stage is -------------------------------------------------------------------------------------------------


def key_of(ticks: Ticks, n: int) -> str:
    """The hash of all that decides what stage n compiles to, its weights' values apart."""
    stage = ticks.stages[n]
    told = [
        _surroundings(stage),
        [_plain(m) for m in stage.held],
        [(s.plain, s.named, s.noise, s.instruction.state, s.instruction.parts is None) for s in stage.steps],
        [[i for i, m in enumerate(stage.held) if m is s.instruction.module] for s in stage.steps],
        stage.counts, stage.states, stage.outputs,
        [(t.shape, t.dtype, t.device.type) for t in ticks.examples(n)],
        [(name, t.shape, t.dtype) for name, t in stage.state_dict().items()],
    ]  # fmt: skip
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def _surroundings(stage: Stage) -> str:
    """torch, the processor, and the sources of the stage's modules and of all of ops/modules that these use."""
    h = hashlib.sha256(f"{torch.__version__} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}".encode())
    h.update(repr([_code(f.__code__) for f in (Stage.forward, stages.part_of, stages._found)]).encode())
    waiting = {c.__module__ for m in stage.modules() for c in type(m).__mro__}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not name.startswith("graphspec.ops.") or name not in sys.modules:
            continue
        seen.add(name)
        for x in vars(sys.modules[name]).values():
            waiting.add(x.__name__ if isinstance(x, ModuleType) else getattr(x, "__module__", None) or "")
    for name in sorted(seen):
        file = sys.modules[name].__file__
        h.update(Path(file).read_bytes() if file else b"")
    return h.hexdigest()


def _plain(x: Any, depth: int = 0) -> Any:
    """A module, function or value as text that says all that tracing it depends on."""
    if depth > 8 or x is None or isinstance(x, (bool, int, float, str, bytes, torch.dtype)):
        return repr(x)
    if isinstance(x, Tensor):
        return (str(x.dtype), tuple(x.shape))
    if isinstance(x, nn.Module):
        own = {k: v for k, v in vars(x).items() if not k.startswith("_backward") and not k.startswith("_forward")}
        return (type(x).__module__, type(x).__qualname__, [(k, _plain(v, depth + 1)) for k, v in sorted(own.items())])
    if isinstance(x, dict):
        return [(repr(k), _plain(v, depth + 1)) for k, v in x.items()]
    if isinstance(x, (list, tuple, set, frozenset)):
        return [type(x).__name__, *(_plain(v, depth + 1) for v in x)]
    if isinstance(x, FunctionType):
        closed = [_plain(c.cell_contents, depth + 1) for c in x.__closure__ or ()]
        return (x.__module__, x.__qualname__, _code(x.__code__), closed, _plain(x.__defaults__, depth + 1))
    if hasattr(x, "__dict__") and not isinstance(x, type):
        return (type(x).__qualname__, _plain(vars(x), depth + 1))
    return getattr(x, "__qualname__", type(x).__qualname__)


def _code(code: CodeType) -> tuple[Any, ...]:
    consts = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return (code.co_code.hex(), consts, code.co_names)


def _weights_hash(stage: Stage) -> str:
    h = hashlib.sha256()
    for name, t in sorted(stage.state_dict().items()):
        h.update(name.encode())
        h.update(t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


def is_cached(ticks: Ticks) -> bool:
    return all((cache_folder() / f"{key_of(ticks, n)}.json").exists() for n in range(len(ticks.stages)))


# ---- compiling and loading -------------------------------------------------------------------------------------------


@torch.no_grad()
def compiled(module: nn.Module, examples: tuple[Tensor, ...], path: Path) -> None:
    """Compile a module of tensors into a package at `path` (.pt2). Raises what torch raises."""
    import torch._inductor

    with quiet():
        program = torch.export.export(module, examples, strict=False)
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def loader_of(path: Path) -> Any:
    from torch._C._aoti import AOTIModelPackageLoader

    return AOTIModelPackageLoader(str(path), "model", False, 1, -1)


class AotiBackend(Calls):
    """The stages as compiled packages."""

    def __init__(self, sampler: Sampler, ticks: Ticks):
        calls = []
        for n, stage in enumerate(ticks.stages):
            calls.append(self._call(ticks, n, stage.eval()))
            checked("aoti", ticks, n, calls[-1], lambda i, n=n: ticks.blamed(n, i))  # type: ignore[misc]
        super().__init__(sampler, ticks, calls)

    def _call(self, ticks: Ticks, n: int, stage: Stage) -> Any:
        folder, key = cache_folder(), key_of(ticks, n)
        package, about = folder / f"{key}.pt2", folder / f"{key}.json"
        weights = {name: t.detach() for name, t in stage.state_dict().items()}
        if about.exists() and package.exists():
            kept = json.loads(about.read_text())  # moved here when it was whole, as the package was before it
            if kept["weights"] in ("", _weights_hash(stage) if kept["weights"] else ""):
                try:
                    return self._loaded(package, weights)
                except RuntimeError:  # cut off, or of another system: made anew
                    pass
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = Path(scratch) / "stage.pt2"
                compiled(stage, ticks.examples(n), made)
                inside = set(loader_of(made).get_constant_fqns())
                own = "" if inside <= set(weights) else _weights_hash(stage)
                text = Path(scratch) / "about.json"
                text.write_text(json.dumps({"weights": own, "torch": torch.__version__}))
                shutil.move(made, package)
                shutil.move(text, about)
        except Exception as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise Unbuildable("aoti", ticks.blamed(n), first[:200]) from error
        return self._loaded(package, weights)

    def _loaded(self, package: Path, weights: dict[str, Tensor]) -> Any:
        loader = loader_of(package)
        mine = {name: weights[name] for name in loader.get_constant_fqns() if name in weights}
        if mine:
            loader.load_constants(mine, False, False, False)
        return loader.boxed_run
