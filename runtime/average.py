"""An exponential average of a model's weights (Polyak & Juditsky 1992), kept beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """average <- decay * average + (1 - decay) * weight after each update; it begins as the weights.

    Names are those of the model's state_dict. Buffers, and whatever is no float, are copied instead of averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        live: dict[str, Tensor] = dict(model.state_dict(keep_vars=True))
        first: dict[int, str] = {}  # a weight under two names has one average
        self._kept: dict[str, Tensor] = {}
        for name, t in live.items():
            owner = first.setdefault(id(t), name)
            self._kept[name] = t.detach().clone() if owner == name else self._kept[owner]
        self._pairs = [(self._kept[n], live[n]) for n in first.values()]
        smooth = [(a, t) for a, t in self._pairs if isinstance(t, nn.Parameter) and t.is_floating_point()]
        self._averages, self._weights = [a for a, _ in smooth], [t for _, t in smooth]
        averaged = {id(a) for a in self._averages}
        self._copied = [(a, t) for a, t in self._pairs if id(a) not in averaged]

    @torch.no_grad()
    def update(self) -> None:
        """After an update of the weights."""
        if self._averages:
            torch._foreach_lerp_(self._averages, [w.detach() for w in self._weights], 1 - self.decay)
        for average, live in self._copied:
            average.copy_(live)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average as its weights inside. Storages change places, nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """By the names of the state_dict, for a checkpoint."""
        return dict(self._kept)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take an average up again: names and shapes are those of `tensors()`."""
        for name, kept in self._kept.items():
            kept.copy_(tensors[name])

    def _swap(self) -> None:
        for average, live in self._pairs:
            average.data, live.data = live.data, average.data
