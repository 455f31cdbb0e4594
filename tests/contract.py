"""The contract of an op (DESIGN 5), held by one function against any checked graph.

`verify_contract(checked)` lowers the graph and holds every promise for each of its outputs:

    type      declared type == the tensor's shape and dtype, in float32 and float64; classes lie in range
    reset     every weight is drawn, from its own name's generator and nothing else
    time      the ticks an element reads, found by changing them one by one, are the declared ones
    future    NaN in a tick outside the declared window reaches no element
    batch     a row is what it is alone, and NaN in another row does not reach it
    stream    whole == pieces of any length, whatever looks ahead: values and gradients
    step      whole == steps of any size, long prefill then ticks among them: values and gradients
    state     keeps its names, shapes and dtypes; a step writes to nothing it was given, nor to the module

It raises AssertionError with the promise's name first. A result without time has no streaming form and is tested whole
only; what looks ahead streams but has no step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

import torch
from subject import Subject, Tensors
from torch import Tensor, nn

from graphspec.compiler.lower import lower
from graphspec.compiler.pipeline import Checked
from graphspec.graph import Value

TOLERANCE = 1e-9  # float64, relative to the largest element
CHANGED = 1e-10  # less than this is rounding, not a reading
LOUD = 1e30  # where NaN is known to spread: times an exact zero it is still zero


def verify_contract(checked: Checked, *, ticks: int = 24, tight: bool = True, spreads_nan: bool = False) -> None:
    """Every promise above, for every output of the graph. Raises AssertionError at the first that is broken.

    ticks: of T. tight: the ends of the declared windows must really be read. spreads_nan: the whole form multiplies
    ticks outside the window by exact zeros, so that NaN among them spreads; they are made very loud instead.
    """
    subject = Subject(checked, ticks)
    verify_reset(subject)
    verify_types(subject)  # leaves the model in float64
    verify_time(subject, tight)
    verify_future(subject, LOUD if spreads_nan else float("nan"))
    verify_batch(subject)
    verify_cannot_step(subject)
    if subject.streamed:
        verify_step(subject)
        verify_state(subject)
    verify_flow(subject)


# ---- one promise each --------------------------------------------------------------------------------------------


def verify_reset(s: Subject) -> None:
    """Weights are a function of (seed, their name): no other weight, no global generator, nothing left undrawn."""
    for value, module in s.model.modules_of.items():
        weights = set(dict(module.named_parameters()))
        before = torch.random.get_rng_state()
        (first, asked), (again, _) = _drawn(module, {}), _drawn(module, {})
        untouched = torch.equal(before, torch.random.get_rng_state())
        assert untouched, f"reset: {value.path} draws from torch's own generator"
        assert asked <= weights, f"reset: {value.path} draws {sorted(asked - weights)}, which are no weights"
        for name in weights:
            assert first[name].isfinite().all(), f"reset: {value.path} leaves {name} undrawn"
            assert torch.equal(first[name], again[name]), f"reset: {value.path}.{name} is drawn differently each time"
        for name in asked:
            other, _ = _drawn(module, {name: 2})
            moved = {n for n in weights if not torch.equal(other[n], first[n])}
            assert moved <= {name}, f"reset: the draw of {value.path}.{name} changes {sorted(moved - {name})}"
    s.model.reset(0)
    torch.manual_seed(12345)
    twin = lower(s.checked, seed=0)
    for name, w in twin.weights().items():
        assert torch.equal(w, s.model.weights()[name]), f"reset: {name} differs between two lowerings"


def _drawn(module: nn.Module, seeds: Mapping[str, int]) -> tuple[Tensors, set[str]]:
    """The weights after a reset with these seeds (others 1), and the names it asked a generator for."""
    asked: set[str] = set()

    def generator(name: str) -> torch.Generator:
        asked.add(name)
        return torch.Generator().manual_seed(seeds.get(name, 1))

    with torch.no_grad():
        for w in module.parameters():
            w.fill_(float("nan"))
        module.reset(generator)
    return {n: w.detach().clone() for n, w in module.named_parameters()}, asked


def verify_types(s: Subject) -> None:
    """Shapes and dtypes are the declared ones, whatever float the model runs in."""
    for dtype in (torch.float32, torch.float64):
        s.model.to(dtype)
        for kind, batch in ((1, 2), (0, 1)):
            out = s.model(s.draw(batch, kind, 1, dtype), s.noise(batch, 2, dtype))
            for name, v in s.model.targets.items():
                want = {"int": torch.int64, "bool": torch.bool, "float": dtype}[v.type.dtype.kind]
                want = torch.float32 if v.type.dtype.concrete else want
                y = out[name]
                assert y.dtype == want, f"type: {v} is {y.dtype} where {want} is declared"
                shape = s.shape(v.type, batch)
                assert tuple(y.shape) == shape, f"type: {v} is {list(y.shape)} where {list(shape)} is declared"
                classes = v.type.dtype.classes if v.type.meaning is None else None
                if classes:
                    assert 0 <= int(y.min()) and int(y.max()) < classes, f"type: {v} holds {y.min()} .. {y.max()}"


def verify_time(s: Subject, tight: bool) -> None:
    """Change one tick of one input at a time: only elements that declare to read it change; the ends do change."""
    for source in _timed(s):
        length = s.shape(s.inputs[source], 1)[1]
        timed = {n: v for n, v in s.model.targets.items() if v.type.timed}
        changed = {n: torch.zeros(length, s.shape(v.type, 1)[1], dtype=torch.bool) for n, v in timed.items()}
        declared = {n: _declared(s, source, v) for n, v in timed.items()}
        for trial in range(30):  # a draw or a comparison changes rarely; a few trials do for the rest
            kind = trial % 3
            inputs, noise = _repeated(s.draw(1, kind, 10 + trial), length), _repeated(s.noise(1, 40 + trial), length)
            rows = torch.arange(length)  # and one row more, which stays as it is
            inputs[source][rows, rows] = s.draw(1, kind, 70 + trial)[source][0]
            out = s.model(inputs, noise)
            for name in timed:
                changed[name] |= _differs(out[name][:-1], out[name][-1:]).flatten(2).any(-1)
            unread = {n: declared[n][1] & ~changed[n] for n in timed}
            if trial >= 2 and not (tight and any(u.any() for u in unread.values())):
                break
        for name, value in timed.items():
            _none(changed[name] & ~declared[name][0], s, source, value, "is read by")
            if tight:
                _none(unread[name], s, source, value, "is never read by")


def _none(wrong: Tensor, s: Subject, source: str, value: Value, what: str) -> None:
    """Complains of the first (tick, element) that is wrong."""
    reach = s.checked.time.of[source].get(value)
    for j, k in wrong.nonzero().tolist():
        declared = "nothing" if reach is None else f"{reach.first_at(k)} .. {reach.last_at(k)}"
        raise AssertionError(f"time: tick {j} of {source} {what} element {k} of {value}; declared: {declared}")


def _declared(s: Subject, source: str, value: Value) -> tuple[Tensor, Tensor]:
    """[ticks of the source, elements of the value]: may be read; is an end of the window, so must be read."""
    ticks, elements = s.shape(s.inputs[source], 1)[1], s.shape(value.type, 1)[1]
    allowed, ends = torch.zeros(2, ticks, elements, dtype=torch.bool)
    reach = s.checked.time.of[source].get(value)
    for k in range(elements) if reach is not None else ():
        first, last = reach.first_at(k), reach.last_at(k)
        inside = [j for j in range(ticks) if first <= j <= last]
        allowed[inside, k] = True
        # A finite end outside the crop says nothing about the crop's edge: taps may be far apart.
        edges = (0 if first == -inf else first, ticks - 1 if last == inf else last)
        ends[[j for j in inside if j in edges], k] = reach.exact
    return allowed, ends


def verify_future(s: Subject, poison: float) -> None:
    """NaN in one tick: an element that does not declare to read it is what it was."""
    for source in _timed(s):
        if s.inputs[source].dtype.kind != "float":
            continue
        length = s.shape(s.inputs[source], 1)[1]
        inputs, noise = _repeated(s.draw(1, 1, 40), length), _repeated(s.noise(1, 41), length)
        rows = torch.arange(length)
        inputs[source][rows, rows] = poison
        for name, y in s.model(inputs, noise).items():
            value = s.model.targets[name]
            if value.type.timed:
                spoilt = _differs(y[:-1], y[-1:]).flatten(2).any(-1) & ~_declared(s, source, value)[0]
                for j, k in spoilt.nonzero().tolist():
                    raise AssertionError(f"future: {poison} in tick {j} of {source} reaches element {k} of {value}")


def verify_batch(s: Subject) -> None:
    """Rows do not know of each other: three together are three alone, and NaN stays in its row."""
    inputs, noise = s.draw(3, 1, 50), s.noise(3, 51)
    floats = [n for n, x in inputs.items() if x.is_floating_point()]
    broken = {n: x.clone() for n, x in inputs.items()}
    for n in floats:
        broken[n][1] = float("nan")

    def held(run: Callable[[Tensors, Tensors], Tensors], form: str) -> None:
        together, spoilt = run(inputs, noise), run(broken, noise) if floats else {}
        for row in range(3):
            alone = run(_rows(inputs, row), _rows(noise, row))
            for name, y in alone.items():
                _close(together[name][row : row + 1], y, f"batch: row {row} of {name} is not what it is alone ({form})")
                if row != 1 and spoilt:
                    _close(spoilt[name][row : row + 1], y, f"batch: NaN in row 1 reaches row {row} of {name} ({form})")

    held(s.model, "whole")
    if s.streamed:
        chunks = next(s.chunkings(0))
        held(lambda x, z: s.stepped(x, z, chunks), "step")


def verify_cannot_step(s: Subject) -> None:
    """An op that makes a static value of a timed one says that it has no streaming form."""
    for v in s.values:
        if v.op is None or v.type.timed or not any(o.type.timed for o in v.values()):
            continue
        try:
            s.model.modules_of[v].step(*[torch.zeros(1, 1, 1)] * len(v.operands), state={}, prepared={})
        except NotImplementedError:
            continue
        raise AssertionError(f"step: {v.path} reads all of time, but steps")


def verify_step(s: Subject) -> None:
    """whole == step, values and gradients with respect to float inputs and weights, for many chunkings."""
    weights = s.model.weights()
    silent = all(v.op is None or v.op.training_noise for v in s.values if v.noise is not None)
    for kind in (0, 1):
        inputs, noise = s.draw(2, kind, 60), {} if kind and silent else s.noise(2, 61)
        names = [*(n for n, x in inputs.items() if x.is_floating_point()), *weights]
        ends = [weights[n] if n in weights else inputs[n].requires_grad_() for n in names]
        whole = {n: y for n, y in s.model(inputs, noise).items() if n in s.streamed}
        g = torch.Generator().manual_seed(62)
        pull = {n: torch.randn(y.shape, generator=g, dtype=torch.float64) for n, y in whole.items()}
        want = _gradients(whole, pull, ends)
        for chunks in s.chunkings(63 + kind):
            found = s.stepped(inputs, noise, chunks)
            for name, y in whole.items():
                _close(found[name], y, f"step: {name} in chunks {chunks} is not the whole form's")
            for name, a, b in zip(names, _gradients(found, pull, ends), want, strict=True):
                _close(a, b, f"step: gradient of {name} in chunks {chunks} is not the whole form's")


def verify_flow(s: Subject) -> None:
    """whole == stream, values and gradients, whatever looks ahead, in pieces of any length."""
    if s.flow is None:
        return
    weights = s.model.weights()
    silent = all(v.op is None or v.op.training_noise for v in s.values if v.noise is not None)
    for kind in (0, 1):
        inputs, noise = s.draw(2, kind, 64), {} if kind and silent else s.noise(2, 65)
        names = [*(n for n, x in inputs.items() if x.is_floating_point()), *weights]
        ends = [weights[n] if n in weights else inputs[n].requires_grad_() for n in names]
        timed = [n for n, v in s.model.targets.items() if v.type.timed]
        whole = {n: y for n, y in s.model(inputs, noise).items() if n in timed}
        g = torch.Generator().manual_seed(66)
        pull = {n: torch.randn(y.shape, generator=g, dtype=torch.float64) for n, y in whole.items()}
        want = _gradients(whole, pull, ends)
        for cuts in (0, 3, 40):
            found = s.flowed(inputs, noise, cuts, 67 + kind)
            for name, y in whole.items():
                _close(found[name], y, f"stream: {name} in {cuts + 1} pieces is not the whole form's")
            for name, a, b in zip(names, _gradients(found, pull, ends), want, strict=True):
                _close(a, b, f"stream: gradient of {name} in {cuts + 1} pieces is not the whole form's")


@torch.no_grad()
def verify_state(s: Subject) -> None:
    """A step is pure: state, prepared, inputs and the module's own tensors stay as they were."""
    for dtype in (torch.float32, torch.float64):
        s.model.to(dtype)
        inputs, noise = s.draw(2, 1, 70, dtype), s.noise(2, 71, dtype)
        like = torch.empty(0, dtype=dtype)
        state, prepared = s.model.init_state(2, like), s.model.prepare()
        for name, y in s.model.prepare().items():
            _close(y, prepared[name], f"state: prepare is not the same twice: {name}")
        for name, x in state.items():
            assert x.shape[0] == 2, f"state: {name} is {list(x.shape)}, not one row for each of the batch"
        owned = {**dict(s.model.named_parameters()), **dict(s.model.named_buffers())}
        kept = {n: {k: x.clone() for k, x in d.items()} for n, d in (
            ("state", state), ("prepared", prepared), ("input", inputs), ("module", owned)
        )}  # fmt: skip
        n, start = s.blocks, 0
        growing = {v.path for v in s.values if v.op is not None and v.op.grows}
        for count in (1, 2, n - 3) if n > 3 else (n,):
            given = s.part(inputs, start, count), state, prepared, s.part(noise, start, count)
            y, new = s.model.step(*given)
            twice, _ = s.model.step(*given)
            for name in y:
                _close(twice[name], y[name], f"state: the same step twice differs in {name}: a step must be pure")
                want = s.model.targets[name].type.dtype
                assert want.kind != "float" or y[name].dtype == dtype or want.concrete, f"type: {name} steps in {dtype}"
            for what, now in (("state", state), ("prepared", prepared), ("input", inputs), ("module", owned)):
                for name, x in now.items():
                    same = torch.equal(x, kept[what][name])
                    assert same, f"state: a step writes to its {what} {name}: a step must be pure"
            assert set(new) == set(state), f"state: {sorted(set(new) ^ set(state))} come or go"
            for name, x in new.items():
                a, b = (tuple(x.shape), x.dtype), (tuple(state[name].shape), state[name].dtype)
                if name.rpartition("/")[0] in growing:  # its ticks are the second axis
                    a, b = (a[0][:1] + a[0][2:], a[1]), (b[0][:1] + b[0][2:], b[1])
                assert a == b, f"state: {name} turns from {b} into {a}"
            state, kept["state"], start = new, {k: x.clone() for k, x in new.items()}, start + count


# ---- comparing ---------------------------------------------------------------------------------------------------


def _timed(s: Subject) -> list[str]:
    return [n for n, t in s.inputs.items() if t.timed]


def _repeated(tensors: Tensors, n: int) -> Tensors:
    """n + 1 equal rows of each."""
    return {name: x.expand(n + 1, *x.shape[1:]).clone() for name, x in tensors.items()}


def _rows(tensors: Tensors, row: int) -> Tensors:
    return {n: x[row : row + 1] for n, x in tensors.items()}


def _differs(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors differ by more than rounding; NaN equals NaN."""
    if not a.is_floating_point():
        return a != b
    size = b[b.isfinite()].abs().max().clamp(min=1) if b.isfinite().any() else 1.0
    same = (a == b) | ((a - b).abs() <= CHANGED * size) | (a.isnan() & b.isnan())
    return ~same


def _close(a: Tensor, b: Tensor, what: str) -> None:
    assert a.dtype == b.dtype and a.shape == b.shape, f"{what}: {a.dtype} {list(a.shape)}, {b.dtype} {list(b.shape)}"
    if not a.is_floating_point():
        assert torch.equal(a, b), what
        return
    a, b = a.detach(), b.detach()
    finite = a.isfinite() & b.isfinite()
    odd = ~finite & ~((a == b) | (a.isnan() & b.isnan()))
    assert not odd.any(), f"{what}: {int(odd.sum())} elements are not finite in one only"
    if finite.any():
        tolerance = TOLERANCE if a.dtype == torch.float64 else 1e-5
        error = float((a[finite] - b[finite]).abs().max() / b[finite].abs().max().clamp(min=1e-3))
        assert error <= tolerance, f"{what}: relative error {error:.1e}"


def _gradients(outputs: Tensors, pull: Tensors, ends: list[Tensor]) -> list[Tensor]:
    """Of the outputs' product with `pull`; zero where nothing depends."""
    pulled = [(y * pull[n]).sum() for n, y in outputs.items() if y.requires_grad]
    if not pulled or not ends:
        return [torch.zeros_like(x) for x in ends]
    found = torch.autograd.grad(sum(pulled[1:], pulled[0]), ends, allow_unused=True)
    return [torch.zeros_like(x) if f is None else f for f, x in zip(found, ends, strict=True)]
