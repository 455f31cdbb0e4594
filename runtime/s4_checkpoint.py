"""A state dict of the s4 repository (github.com/state-spaces/s4, versions 3 and 4), read as blocks in their order.

Both of its SaShiMis are understood: the standalone one, and the modular one of the published checkpoints, with norms of
two numbers, weight-normed pools, and systems that channels share. So is version 3's naming (`log_dt`, `w_imag`, one
folder fewer). A system is told in one form: dt, A = diag(a) - p p*, B, and the true C. The repository trains, in place
of C, what its kernel of l ticks wants, C (I - Abar^l), and keeps l beside it; here that is undone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import softplus

_PLACE = re.compile(r"(d_layers|c_layers|u_layers)\.((?:\d+\.)+)(.+)")
_STAGE = re.compile(r"(?:^|(?<=\.))[dcu]_layers\.")
_RENAMED = (  # to the names of version 4, standalone
    (re.compile(r"\.parametrizations\.weight\.original0$"), ".weight_g"),
    (re.compile(r"\.parametrizations\.weight\.original1$"), ".weight_v"),
    (re.compile(r"\bkernel\.kernel\."), "kernel."),
    (re.compile(r"(?<!layer\.)layer\.(kernel\.|D$)"), r"layer.layer.\1"),
    (re.compile(r"\bnorm\.norm\."), "norm."),
    (re.compile(r"kernel\.L$"), "kernel.l_kernel"),
    (re.compile(r"kernel\.(?:inv|log)_w_real$"), "kernel.A_real"),
)
_NO_WEIGHT = re.compile(r"(?:^|\.)(?:l_kernel|omega|z|num_batches_tracked)$")  # buffers
KERNEL = "layer.layer.kernel."


@dataclass
class Block:
    """One block: `pool`, `ssm` or `ff`. name: as in the file. leaves: canonical name -> (name in the file, tensor)."""

    kind: str
    name: str
    leaves: dict[str, tuple[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """S systems, of which channel h takes number h mod S, in complex128: a, b and p [S, n] (p None: diagonal).

    c [H, n], or [2, H, n] for both directions; dt [H] in ticks.
    """

    dt: Tensor
    a: Tensor
    b: Tensor
    p: Tensor | None
    c: Tensor


class Checkpoint:
    """The blocks of a state dict, what stands outside them, and which of its names have been read."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.names = [name for name in state if not _NO_WEIGHT.search(_canonical(name))]
        self.used: set[str] = set()
        places: dict[tuple[str, tuple[int, ...]], Block] = {}
        outside: dict[str, tuple[str, Tensor]] = {}
        starts = [name[: found.start()] for name in state if (found := _STAGE.search(name))]
        self.prefix = min(starts, key=len, default="")
        for name, tensor in state.items():
            plain = _canonical(name.removeprefix(self.prefix))
            found = _PLACE.fullmatch(plain)
            if found is None:
                outside[plain] = (name, tensor)
                continue
            stage, numbers, leaf = found.groups()
            at = (stage, tuple(int(n) for n in numbers.split(".")[:-1]))
            block = places.setdefault(at, Block("", name[: len(name) - len(found[3])].rstrip(".")))
            block.leaves[leaf] = (name, tensor)
        order = {"d_layers": 0, "c_layers": 1, "u_layers": 2}
        self.blocks = [places[at] for at in sorted(places, key=lambda at: (order[at[0]], at[1]))]
        for block in self.blocks:
            block.kind = _kind(block.leaves)
        self.ends = Block("ends", self.prefix.rstrip("."), _ends(outside))
        self.scalar = any("norm.s" in block.leaves for block in self.blocks)

    def unread(self) -> list[str]:
        return [name for name in self.names if name not in self.used]

    def system(self, block: Block, step: str, differ: Callable[[str, Tensor], None]) -> System | None:
        """The system of an ssm block, in float64; None where a part of it is missing or misshapen (`differ` hears)."""
        parts: dict[str, Tensor] = {}
        for leaf in ("dt", "A_real", "A_imag", "B", "C", "P"):
            for name in _spellings(leaf):
                if KERNEL + name in block.leaves:
                    parts[name] = self.read(block, KERNEL + name)
        log_dt = parts.pop("log_dt", None)
        inv_dt = parts.pop("inv_dt", None) if log_dt is None else log_dt
        if "w_imag" in parts:  # version 3 keeps Im A, version 4 its negative
            parts["A_imag"] = -parts.pop("w_imag")
        if inv_dt is None or not {"A_real", "A_imag", "B", "C"} <= set(parts):
            return None
        a = torch.complex(-torch.exp(parts["A_real"]), -parts["A_imag"])
        b, c = _complex(parts["B"]), _complex(parts["C"])
        p = _complex(parts["P"]) if "P" in parts else None
        n, width = a.shape[-1], c.shape[-2]
        for name, x in (("B", b), ("P", p)):
            if x is not None and x.numel() != a.numel():  # P of a higher rank, too
                differ(KERNEL + name, parts[name])
                return None
        if a.dim() != 2 or inv_dt.numel() != width or c.shape[-1] != n or width % len(a):
            differ(KERNEL + "A_real", parts["A_real"])
            return None
        exponential = log_dt is not None or step == "exp"
        dt = inv_dt.reshape(-1).exp() if exponential else softplus(inv_dt.reshape(-1))
        made = System(dt, a, b.reshape(a.shape), p.reshape(a.shape) if p is not None else None, c)
        length = block.leaves.get(KERNEL + "l_kernel")
        ticks = int(length[1].reshape(-1)[0]) if length is not None and length[1].numel() else 0
        return true_c(made, ticks) if p is not None and ticks > 0 else made

    def read(self, block: Block, leaf: str) -> Tensor:
        name, tensor = block.leaves[leaf]
        self.used.add(name)
        return tensor.to(torch.float64)


def true_c(system: System, ticks: int) -> System:
    """The system of a C that is C (I - Abar^ticks): C itself, over the modes and their conjugates, in complex128."""
    assert system.p is not None
    turn = len(system.dt) // len(system.a)
    a, p = (torch.cat([x, x.conj()], -1).repeat(turn, 1) for x in (system.a, system.p))
    half = system.dt[:, None, None] / 2
    continuous = torch.diag_embed(a) - p[:, :, None] * p.conj()[:, None, :]
    one = torch.eye(a.shape[-1], dtype=a.dtype)
    stepped = torch.linalg.solve(one - half * continuous, one + half * continuous)
    lost = one - torch.linalg.matrix_power(stepped, ticks)
    c = torch.cat([system.c, system.c.conj()], -1)
    whole = torch.linalg.solve(lost.mT, c[..., None])[..., 0]
    return System(system.dt, system.a, system.b, system.p, whole[..., : system.a.shape[-1]])


def _canonical(name: str) -> str:
    for pattern, new in _RENAMED:
        name = pattern.sub(new, name)
    return name


def _spellings(leaf: str) -> tuple[str, ...]:
    return {"dt": ("inv_dt", "log_dt"), "A_imag": ("A_imag", "w_imag")}.get(leaf, (leaf,))


def _kind(leaves: Mapping[str, object]) -> str:
    for start, kind in (("linear.", "pool"), ("layer.layer.", "ssm"), ("layer.ff.", "ff")):
        if any(leaf.startswith(start) for leaf in leaves):
            return kind
    return "unknown"


def _ends(outside: Mapping[str, tuple[str, Tensor]]) -> dict[str, tuple[str, Tensor]]:
    """The last norm by its name; the table of the encoder and the decoder's map, however they are called, by shape."""
    found = {name: kept for name, kept in outside.items() if name in ("norm.weight", "norm.bias")}
    matrices = [name for name, (_, x) in outside.items() if name.endswith("weight") and x.dim() == 2]
    heads = [name for name in matrices if name.removesuffix("weight") + "bias" in outside]
    tables = [name for name in matrices if name not in heads]
    if len(heads) == 1:
        found["head.weight"] = outside[heads[0]]
        found["head.bias"] = outside[heads[0].removesuffix("weight") + "bias"]
    if len(tables) == 1:
        found["table"] = outside[tables[0]]
    return found


def _complex(x: Tensor) -> Tensor:
    """`[1, ..., 2]` -> complex `[...]`, the leading axis of one (a head, a rank) dropped."""
    x = torch.view_as_complex(x.contiguous())
    return x[0] if x.dim() == 3 and len(x) == 1 else x


def kinds(blocks: list[Block]) -> Iterator[str]:
    """What a person reads: `pool, pool, 8 x (ssm, ff), ...`."""
    at = 0
    names = [block.kind for block in blocks]
    while at < len(names):
        pairs = 0
        while names[at + 2 * pairs : at + 2 * pairs + 2] == ["ssm", "ff"]:
            pairs += 1
        yield f"{pairs} x (ssm, ff)" if pairs else names[at]
        at += 2 * pairs or 1
