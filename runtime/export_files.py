"""The files of an export: exported programs, ONNX models, compiled packages, and the manifest beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from graphspec.compiler.emit import LoopStepper
from graphspec.diagnostic import fail
from graphspec.graph import Value
from graphspec.ops.modules.recurrence import CompanionScan, LinearScan

FORMAT = 1
LOOPS = (LoopStepper, LinearScan, CompanionScan)  # what may hold a scan


def _affine_ticks(a: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    """`graphspec::affine_scan` for the few ticks of a step, in ops that every format knows."""
    ticks, y = [], y0
    for t in range(b.shape[1]):
        y = a[:, t if a.shape[1] > 1 else 0] * y + b[:, t]
        ticks.append(y)
    return torch.stack(ticks, 1)


def _companion_ticks(c: Tensor, b: Tensor, y0: Tensor) -> Tensor:
    """`graphspec::companion_scan`, likewise."""
    ticks, past = [], list(y0.unbind(1))
    for t in range(b.shape[1]):
        y = b[:, t]
        for lag in range(c.shape[2]):
            y = y + c[:, t if c.shape[1] > 1 else 0, lag] * past[-1 - lag]
        past.append(y)
        ticks.append(y)
    return torch.stack(ticks, 1)


def _smoothing_ticks(a: Tensor, x: Tensor, y0: Tensor, keeps: bool) -> Tensor:
    """`graphspec::smoothing_scan`, likewise."""
    gain, rest = (a, 1 - a) if keeps else (1 - a, a)
    return _affine_ticks(gain, rest * x, y0)


def _scans() -> dict[Any, Any]:
    import graphspec.ops.modules.companion
    import graphspec.ops.modules.scan
    import graphspec.ops.modules.smoothing  # noqa: F401  (all three register their ops)

    known = torch.ops.graphspec
    return {
        known.affine_scan.default: _affine_ticks,
        known.companion_scan.default: _companion_ticks,
        known.smoothing_scan.default: _smoothing_ticks,
    }


@torch.no_grad()
def program_of(module: nn.Module, examples: tuple[Tensor, ...]) -> Any:
    """A module of tensors as an exported program. Scans, which only this package has, become their ticks."""
    program = torch.export.export(module, examples, strict=False)
    scans = _scans()
    if any(n.target in scans for n in program.graph.nodes):
        program = program.run_decompositions(scans)
    ours = [str(n.target) for n in program.graph.nodes if str(n.target).startswith("graphspec.")]
    if ours:
        raise RuntimeError(f"the op {ours[0]} has no form that other programs know")
    return program


def _traceable(program: Any) -> nn.Module:
    """A program as a module that the traced exporter takes: without checks, always evaluating."""
    module: Any = program.module(check_guards=False)
    for node in list(module.graph.nodes):
        if str(node.target).startswith("aten._assert"):
            module.graph.erase_node(node)
    module.recompile()
    module.train = lambda mode=True: module
    return cast(nn.Module, module)


def write(
    target: str, folder: Path, stem: str, module: nn.Module, examples: tuple[Tensor, ...], names: Any, last: Value
) -> str:
    """One file of the target. Returns its name; `last` is blamed."""
    from torch._inductor import aoti_compile_and_package

    from graphspec.runtime.backend_onnx import onnx_bytes, quiet

    file = f"{stem}.onnx" if target == "onnx" else f"{stem}.pt2"
    try:
        with quiet():
            if target == "onnx":
                # Traced as it is, which takes seconds; only scans have to be taken apart first.
                scans = any(isinstance(m, LOOPS) for m in module.modules())
                plain = _traceable(program_of(module.eval(), examples)) if scans else module.eval()
                (folder / file).write_bytes(onnx_bytes(plain, examples, *names))
                return file
            program = program_of(module.eval(), examples)
            if target == "pt2":
                torch.export.save(program, folder / file)
            else:
                aoti_compile_and_package(program, package_path=str(folder / file))
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        fail("GS0646", f"{target} cannot say what computes {last.path}: {first}", last.span)
    return file


def told(x: Tensor, key: str, values: dict[str, Tensor]) -> dict[str, Any]:
    """Shape, dtype and beginning of a tensor: one number, or `values`, where it is under `key`."""
    flat = x.flatten()
    constant = flat.numel() > 0 and bool((flat == flat[0]).all())
    if not constant:
        values[key] = x.detach().clone().contiguous()
    init = (flat[0].item() if constant else "values") if flat.numel() else 0
    return {"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch."), "init": init}


def finish(folder: Path, manifest: dict[str, Any], values: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(values, folder / "values.safetensors")
    (folder / "state.json").write_text(json.dumps(manifest, indent=1) + "\n")


def head(kind: str, target: str, rows: int, name: str) -> dict[str, Any]:
    return {"graphspec_export": FORMAT, "kind": kind, "model": name, "target": target, "rows": rows}


def rate_of(v: Value) -> str | None:
    return None if v.type.rate is None else str(v.type.rate)
