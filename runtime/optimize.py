"""Optimizers from their settings, groups of weights, and learning rates that follow a schedule and the validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphspec.compiler.lower import Model
from graphspec.compiler.settings import Settings
from graphspec.diagnostic import Fix, fail

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}
FUSED = {"adam", "adamw", "sgd"}  # one kernel an update, on the CPU and on CUDA; the others go through foreach
OURS = {"decay_min_dim"}  # arguments that torch does not know


@dataclass
class Plateau:
    """Lowers the learning rates when the validation loss stays where it is.

    After more than `patience` validations in a row without improvement `scale` is multiplied by `factor`. A loss
    improves if it is lower than the best by more than threshold * |best|; one that is not a number does not.
    """

    factor: float
    patience: int
    min_lr: float
    threshold: float
    scale: float = 1.0
    best: float = math.inf
    waited: int = 0

    def see(self, loss: float) -> None:
        """One more validation."""
        margin = self.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        if loss < self.best - margin:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = self.scale * self.factor, 0

    def lower(self, lr: float) -> float:
        """The rate that is used for lr; min_lr is a floor for what is lowered here, not for what was lower already."""
        return max(lr * self.scale, min(lr, self.min_lr))

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {"scale": self.scale, "best": _finite(self.best), "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.scale, self.best, self.waited = state["scale"], _loss(state["best"]), state["waited"]


@dataclass
class Stopping:
    """Ends a run when `patience` validations in a row are not below the best (None: never)."""

    patience: int | None
    best: float = math.inf
    waited: int = 0

    def see(self, loss: float) -> None:
        """One more validation."""
        better = loss < self.best
        self.best, self.waited = (loss, 0) if better else (self.best, self.waited + 1)

    @property
    def reached(self) -> bool:
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {"best": _finite(self.best), "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = _loss(state["best"]), state["waited"]


def _finite(best: float) -> float | None:
    """JSON has no infinity."""
    return best if math.isfinite(best) else None


def _loss(best: float | None) -> float:
    return math.inf if best is None else best


class Optimizing:
    """The optimizer of a model, the learning rate of each of its groups, and what validations changed of them.

    One parameter group for each way in which weights are treated: by tag (`ssm`), by the name of a value, and by
    whether they decay. Raises GS0607 (no optimizer or rate) and GS0619 (a group without weights).
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        if settings.optimizer is None or settings.lr is None:
            missing = "optimizer" if settings.optimizer is None else "lr"
            mend = Fix("write optimizer: adamw() and lr: 1e-3 under train:")
            fail("GS0607", f"'train.{missing}' is missing", None, fixes=[mend])
        self.weights = {n: p for n, p in model.weights().items() if p.requires_grad}
        name = settings.optimizer.name
        arguments = {k: v for k, v in settings.optimizer.arguments.items() if k not in OURS and k != "weight_decay"}
        groups, self.rates = _groups(model, settings)
        made: Any = OPTIMIZERS[name]
        fused = {"fused": True} if name in FUSED else {}
        self.optimizer: torch.optim.Optimizer = made(groups, lr=settings.lr.at(0), **arguments, **fused)
        given = settings.schedule.arguments if settings.schedule is not None else None
        self.plateau = Plateau(**given) if given is not None else None
        self.stopping = Stopping(settings.numbers["early_stop"])

    @property
    def lr(self) -> float:
        """The rate of the first group."""
        return self.optimizer.param_groups[0]["lr"]

    def set_rates(self, step: int) -> None:
        """The learning rates of update `step`."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            lr = rate(step)
            group["lr"] = self.plateau.lower(lr) if self.plateau is not None else lr

    def clip(self, most: float | None) -> Tensor:
        """The global gradient norm before clipping it to `most`."""
        return nn.utils.clip_grad_norm_(list(self.weights.values()), most or math.inf)

    def step(self) -> None:
        self.optimizer.step()

    def forget_gradients(self) -> None:
        for p in self.weights.values():
            p.grad = None

    def see(self, loss: float) -> None:
        """The total loss of one more validation."""
        self.stopping.see(loss)
        if self.plateau is not None:
            self.plateau.see(loss)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """`weight/key` -> tensor; a weight without a gradient so far has none."""
        state = self.optimizer.state
        named = {n: state[p] for n, p in self.weights.items() if p in state}
        return {f"{n}/{k}": t for n, held in named.items() for k, t in held.items() if isinstance(t, Tensor)}

    def counters(self) -> dict[str, Any]:
        """What is no tensor; JSON-able."""
        plateau = {"plateau": self.plateau.state()} if self.plateau is not None else {}
        return {"early_stop": self.stopping.state(), **plateau}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take both up again. Raises GS0621 for tensors that are of no weight, or of another shape."""
        found: dict[str, dict[str, Tensor]] = {}
        for key, t in tensors.items():
            name, _, leaf = key.rpartition("/")
            weight = self.weights.get(name)
            if weight is None or t.shape not in (weight.shape, torch.Size()):
                fail("GS0621", f"the checkpoint's optimizer has a '{key}' that fits no weight of the model", None)
            found.setdefault(name, {})[leaf] = t.to(weight.device)
        for name, p in self.weights.items():
            if name in found:
                self.optimizer.state[p] = found[name]
        if "early_stop" in counters:
            self.stopping.restore(counters["early_stop"])
        if self.plateau is not None and "plateau" in counters:
            self.plateau.restore(counters["plateau"])


def _groups(model: Model, settings: Settings) -> tuple[list[dict[str, Any]], list[Callable[[int], float]]]:
    """torch's parameter groups, and the learning rate of each as a function of the update."""
    assert settings.optimizer is not None and settings.lr is not None
    given = settings.optimizer.arguments
    tags = model.tags()
    for g in settings.groups:
        if not any(g.name in t for t in tags.values()):
            known = ", ".join(sorted({t for ts in tags.values() for t in ts}))
            fail("GS0619", f"no weight has the tag or value '{g.name}'", g.span, notes=[f"there are: {known}"])
    members: dict[tuple[str, float], list[nn.Parameter]] = {}
    rates: dict[tuple[str, float], Callable[[int], float]] = {}
    for name, weight in model.weights().items():
        if not weight.requires_grad:
            continue  # frozen
        plain = tags[name] & {"norm", "bias"} or weight.dim() < given.get("decay_min_dim", 0)
        decay = 0.0 if plain else float(given["weight_decay"])
        lr, label = settings.lr, "base"
        for g in settings.groups:
            if g.name in tags[name]:
                decay = g.weight_decay if g.weight_decay is not None else decay
                lr, label = (g.lr, g.name) if g.lr is not None else (lr, label)
        members.setdefault((label, decay), []).append(weight)
        rates[(label, decay)] = lr.at
    groups = [{"params": ps, "weight_decay": decay} for (_, decay), ps in members.items()]
    return groups, [rates[key] for key in members]
