"""What an entry computes of what it is given, at once, where nothing is drawn: a decoder over controls, say.

What it wants that is not given, a feature of the spec (pitch, loudness, ...), is computed of a recording first: that
is how one instrument plays what another one played.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphspec.compiler.lower import Model, alone
from graphspec.compiler.running import Running
from graphspec.diagnostic import Fix, fail
from graphspec.graph import Value
from graphspec.runtime.chance import Noise
from graphspec.runtime.sample import chosen_knobs


def wanted(view: Running) -> dict[str, Value]:
    """The inputs along time of an entry, by name."""
    return {n: i.value for n, i in view.graph.inputs.items() if i.value.type.timed}


def computed(model: Model, names: list[str], heard: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values of the spec by name, computed of the spec's inputs along time. Raises GS0629 for what cannot be."""
    values, needed = [], []
    for name in names:
        value = model.graph.named.get(name)
        if not isinstance(value, Value):
            fail("GS0629", f"'{name}' is no value that is computed of a recording", None)
        values.append(value)
        needed += model.graph.needed_for([value])
    absent = next((v.path for v in needed if v.is_input and v.type.timed and v.path not in heard), None)
    if absent is not None:
        fail("GS0629", f"'{absent}' is heard for '{names[0]}', and not given", None)
    learned = next((v for v in needed if v.op is not None and v.op.weights), None)
    running: Running = model.outside_training if learned is not None else alone(model.checked, values)
    like = next(model.parameters())
    with torch.no_grad():
        found = running.evaluate(values, heard)
    return {n: x.to(like.device, like.dtype) for n, x in zip(names, found, strict=True)}


@torch.no_grad()
def render(
    model: Model, view: Running, given: Mapping[str, Tensor], knobs: Mapping[str, float], seed: int
) -> dict[str, Tensor]:
    """The values an entry gives, `[B, n, ...]` by name. given: its inputs along time, whole.

    Raises GS0629 where one is absent, of another shape, or holds what is not finite.
    """
    absent = [n for n in wanted(view) if n not in given]
    if absent:
        fixes = [Fix(f"give it: --given {absent[0]}=FILE"), Fix("or a recording it is computed of: --input FILE")]
        fail("GS0629", f"nothing says what '{absent[0]}' is", None, fixes=fixes)
    for name, x in given.items():
        if x.is_floating_point() and not x.isfinite().all():
            frame = int((~x.isfinite()).flatten(2).any(-1)[0].nonzero()[0])
            fail("GS0629", f"'{name}' is not finite in frame {frame}", None)
    like = next(model.parameters())
    name, x = next(iter(given.items()))
    rate = view.graph.inputs[name].value.type.rate
    assert rate is not None

    def elements(v: Value) -> int:
        assert v.noise is not None and v.noise.rate is not None
        return int(x.shape[1] * v.noise.rate / rate)

    noise = Noise(seed, torch.arange(len(x)), like).of(view.graph.values, elements)
    inputs = {**{n: y.to(like.device) for n, y in given.items()}, **chosen_knobs(view.graph, knobs)}
    return view.forward({n: y for n, y in inputs.items() if n in view.graph.inputs}, noise)
