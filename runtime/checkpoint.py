"""Checkpoints: `checkpoints/STEP/` folders that are either whole and proven by SHA-256, or not there at all.

    weights.safetensors, optimizer.safetensors, ...   one file a group of tensors
    meta.json                                         step, counters, best: everything that is not a tensor
    manifest.json                                     SHA-256 and size of each file, and the Origin; written last

A folder is written as `.STEP.part` beside its final place (never across file systems), every file and the folder are
synced, then it is renamed. So a kill at any moment costs the checkpoint under way and no other. Nothing is ever read
by pickle. One process writes to a folder of checkpoints; any number may read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from graphspec.diagnostic import Diagnostic, Fix, SpecError, fail

Groups = Mapping[str, Mapping[str, Tensor]]

_FORMAT = 1
_JSON_LIMIT = 64 << 20  # bytes; a manifest or meta beyond it is not ours
_SHOWN = 5  # differences named in one message
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Origin:
    """What a checkpoint comes from: SHA-256 of the resolved spec, versions by package, processes that trained it."""

    spec: str
    versions: Mapping[str, str]
    world_size: int = 1


def save(
    folder: Path,
    step: int,
    tensors: Groups,
    meta: Mapping[str, Any],
    keep: int = 3,
    origin: Origin | None = None,
) -> Path:
    """Write the checkpoint of `step`, then delete all but the newest `keep` of this step and before. Returns its path.

    tensors: group -> name -> tensor, on any device; tensors that share memory (tied weights) are each written in full.
    meta: JSON-able. origin: goes into the manifest (`load` compares its spec, `origin_of` reads it).
    A checkpoint of the same step is replaced; those of later steps are left alone (`drop_after`).
    Raises SpecError GS0622 when it cannot be written; the checkpoints that were there are then intact.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step {step} and keep {keep}: needs step >= 0 and keep >= 1")
    if meta.get("step", step) != step:
        raise ValueError(f"meta is of step {meta['step']}, not {step}")
    meta_text = json.dumps({"step": step, **meta}, indent=1)
    folder = Path(folder)
    final = folder / f"{step:010d}"
    part, replaced = folder / f".{final.name}.part", folder / f".{final.name}.replaced"
    with _writing(final):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        part.mkdir()
        try:
            for group, named in tensors.items():
                _write_tensors(part / f"{group}.safetensors", named)
            _write(part / "meta.json", meta_text.encode())
            files = {p.name: {"sha256": _sha256(p), "size": p.stat().st_size} for p in sorted(part.iterdir())}
            manifest = {"format": _FORMAT, "step": step, "files": files}
            if origin is not None:
                manifest |= {"spec": origin.spec, "versions": dict(origin.versions), "world_size": origin.world_size}
            _write(part / "manifest.json", json.dumps(manifest, indent=1).encode())
            _sync(part)
            if final.exists():
                # A full folder cannot be renamed over; between the two renames `_complete` finds the old one.
                os.rename(final, replaced)
            os.rename(part, final)
            _sync(folder)
        except Exception:
            _put_back(replaced, final)
            shutil.rmtree(part, ignore_errors=True)
            raise
    shutil.rmtree(replaced, ignore_errors=True)
    whole = [path for at, path in _complete(folder) if at <= step and (path / "manifest.json").is_file()]
    for old in whole[keep:]:
        _remove(old)
    return final


def newest(folder: Path, report: Callable[[Diagnostic], None]) -> Path | None:
    """The latest checkpoint that verifies, or None. Each one refused is reported as a warning GS0620."""
    for _, path in _complete(Path(folder)):
        problems = verify(path)
        if not problems:
            return path
        report(_damaged(path, problems, "warning", "the one before is used"))
    return None


def verify(path: Path) -> list[str]:
    """What is wrong with a checkpoint, file by file; empty when every byte is as written."""
    path = Path(path)
    if not path.is_dir():
        return ["there is no such folder"]
    manifest, problem = _read_json(path / "manifest.json")
    if problem:
        return [problem]
    files = manifest.get("files")
    if manifest.get("format") != _FORMAT or not isinstance(files, dict):
        return [f"manifest.json is not of format {_FORMAT}"]
    problems = [] if "meta.json" in files else ["meta.json is not in the manifest"]
    for name, facts in files.items():
        # A name with a folder in it would let a stranger's manifest have any file read.
        if Path(name).name != name or not isinstance(facts, dict):
            problems.append("manifest.json names a file that cannot be part of a checkpoint")
            continue
        problems += _verify_file(path / name, facts)
    if not problems:
        meta, problem = _read_json(path / "meta.json")
        if problem:
            problems.append(problem)
        elif meta.get("step") != manifest.get("step"):
            problems.append("meta.json and manifest.json disagree on the step")
    return problems


def origin_of(path: Path) -> Origin | None:
    """The origin in a checkpoint's manifest, if it says one."""
    manifest, _ = _read_json(Path(path) / "manifest.json")
    spec, versions, world = (manifest.get(k) for k in ("spec", "versions", "world_size"))
    if not isinstance(spec, str) or not isinstance(versions, dict) or not isinstance(world, int):
        return None
    return Origin(spec, {str(k): str(v) for k, v in versions.items()}, world)


def load(path: Path, like: Groups | None = None, spec: str = "") -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors (on the CPU) and meta of a checkpoint, after `verify`.

    like: the tensors they will be copied to (meta tensors will do). Then only its groups are read, and names, shapes
    and dtypes must be the same: all are compared before the first tensor is read.
    spec: hash of the spec it is loaded for. Another one than the manifest's is another model, though shapes agree.
    Raises SpecError GS0620 (damaged) or GS0621 (of another model).
    """
    path = Path(path)
    problems = verify(path)
    if problems:
        raise SpecError(_damaged(path, problems, "error", "it is not loaded"))
    names = json.loads((path / "manifest.json").read_bytes())["files"]
    present = [n.removesuffix(".safetensors") for n in names if n.endswith(".safetensors")]
    if like is not None:
        absent = [group for group in like if group not in present]
        if absent:
            fail("GS0621", f"checkpoint {path} has no {absent[0]}, only {', '.join(present) or 'its meta.json'}", None)
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        if like is not None:
            differences = [d for group in like for d in _differences(path / f"{group}.safetensors", group, like[group])]
            if differences:
                raise SpecError(_different(path, differences))
        origin = origin_of(path)
        if spec and origin is not None and origin.spec != spec:
            told = f"its spec has the hash {origin.spec[:12]}, this one {spec[:12]}, though every tensor fits"
            raise SpecError(_different(path, [told, f"in the checkpoint {origin.spec}", f"here {spec}"]))
        for group in present if like is None else like:
            with safe_open(path / f"{group}.safetensors", framework="pt", device="cpu") as file:
                tensors[group] = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise SpecError(_damaged(path, [str(error)], "error", "it is not loaded")) from error
    meta, _ = _read_json(path / "meta.json")
    return tensors, meta


def drop_after(folder: Path, step: int) -> list[Path]:
    """Delete the checkpoints later than `step`: a run resumed from an earlier one leaves that future behind."""
    later = [path for at, path in _complete(Path(folder)) if at > step]
    for path in later:
        _remove(path)
    return later


def save_model(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file; a reader sees the old one or the new one. Raises SpecError GS0622."""
    path = Path(path)
    part = path.parent / f".{path.name}.part"
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()  # a folder, since safetensors puts a temporary file of its own beside the one it writes
        try:
            _write_tensors(part / path.name, tensors)
            os.replace(part / path.name, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file; a reader sees the old content or the new. Raises SpecError GS0622."""
    path = Path(path)
    part = path.parent / f".{path.name}.part"
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(part, data)
            os.replace(part, path)
            _sync(path.parent)
        except Exception:
            part.unlink(missing_ok=True)
            raise


def cannot_write(path: Path, error: Exception) -> Diagnostic:
    """The diagnostic GS0622 for a file that could not be written."""
    return Diagnostic(
        "GS0622",
        f"cannot write {path}: {error}",
        None,
        notes=("what was written before is intact",),
        fixes=(Fix("free some space there, allow writing, or name another folder for the run"),),
    )


def _damaged(path: Path, problems: list[str], severity: str, then: str) -> Diagnostic:
    return Diagnostic(
        "GS0620", f"checkpoint {path} is damaged ({problems[0]}); {then}", None, severity, notes=tuple(problems[1:])
    )


def _different(path: Path, differences: list[str]) -> Diagnostic:
    more = len(differences) - _SHOWN
    notes = [*differences[1:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    fix = Fix("resume with the spec the run was started with (its folder holds it), or start a new run")
    return Diagnostic(
        "GS0621", f"checkpoint {path} is of another model: {differences[0]}", None, notes=tuple(notes), fixes=(fix,)
    )


def _differences(file: Path, group: str, like: Mapping[str, Tensor]) -> Iterator[str]:
    """One sentence for each tensor that is missing, unknown, or of another shape or dtype. Reads the header only."""
    with safe_open(file, framework="pt", device="cpu") as opened:
        stored = set(opened.keys())
        for name, tensor in like.items():
            if name not in stored:
                yield f"{group} '{name}' {list(tensor.shape)} is not in the checkpoint"
                continue
            head = opened.get_slice(name)
            here, there = list(tensor.shape), list(head.get_shape())
            kind, kind_there = _DTYPES.get(tensor.dtype, str(tensor.dtype)), head.get_dtype()
            if here != there:
                yield f"{group} '{name}' has shape {here} here and {there} in the checkpoint"
            elif kind != kind_there:
                yield f"{group} '{name}' is {kind} here and {kind_there} in the checkpoint"
        for name in sorted(stored - set(like)):
            yield f"{group} '{name}' {list(opened.get_slice(name).get_shape())} is only in the checkpoint"


def _verify_file(file: Path, facts: Mapping[str, Any]) -> list[str]:
    try:
        if file.is_symlink() or not file.is_file():
            return [f"{file.name} is missing"]
        size = file.stat().st_size
        if size != facts.get("size"):
            return [f"{file.name} has {size} bytes, the manifest says {facts.get('size')}"]
        return (
            [] if _sha256(file) == facts.get("sha256") else [f"{file.name} is not what was written (SHA-256 differs)"]
        )
    except OSError as error:
        return [f"{file.name} cannot be read: {error}"]


def _complete(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of all checkpoints under their final name, latest first."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        name = path.name.removeprefix(".").removesuffix(".replaced")
        # `.STEP.replaced` stands in only while STEP itself is missing: a kill between the two renames of `save`.
        if name.isascii() and name.isdigit() and path.name in (name, f".{name}.replaced"):
            if path.name == name or int(name) not in found:
                found[int(name)] = path
    return sorted(found.items(), reverse=True)


def _sweep(folder: Path) -> None:
    """Remove what killed writers left."""
    for path in folder.glob(".*.replaced"):
        _put_back(path, folder / path.name.removeprefix(".").removesuffix(".replaced"))
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.part/"):
        shutil.rmtree(path)


def _put_back(replaced: Path, final: Path) -> None:
    if replaced.exists() and not final.exists():
        os.rename(replaced, final)


def _remove(path: Path) -> None:
    """Delete a checkpoint so that a kill meanwhile leaves no half of one under its name. Failing is no error."""
    part = path.parent / f".{path.name.strip('.')}.part"
    try:
        os.rename(path, part)
    except OSError:
        return
    shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise SpecError(cannot_write(path, error)) from error


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One synced safetensors file. Its header carries names, shapes and dtypes."""
    owned: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        storage = plain.untyped_storage()
        if storage.nbytes() != plain.nbytes or storage.data_ptr() in seen:
            plain = plain.clone()  # safetensors refuses memory that two tensors share
        if plain.nbytes:
            seen.add(plain.untyped_storage().data_ptr())
        owned[name] = plain
    path.touch()
    mode = path.stat().st_mode
    save_file(owned, path)
    path.chmod(mode)  # safetensors makes it readable by the owner alone, whatever the umask
    _sync(path)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> tuple[dict[str, Any], str]:
    """The object in a JSON file and "", or {} and what is wrong."""
    try:
        if path.stat().st_size > _JSON_LIMIT:
            return {}, f"{path.name} is too long"
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"{path.name} cannot be read: {error}"
    return (value, "") if isinstance(value, dict) else ({}, f"{path.name} does not hold an object")
