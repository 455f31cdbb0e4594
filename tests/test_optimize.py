"""Optimizers, groups, schedules and the average of the weights: against torch's own, and through a checkpoint."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from graphspec.compiler.arguments import fitting
from graphspec.compiler.settings import Group, Schedule, Setting, Settings
from graphspec.runtime.average import Average
from graphspec.runtime.declared import settings
from graphspec.runtime.optimize import OPTIMIZERS, OURS, Optimizing, Plateau, Stopping


class Small(nn.Module):
    """What Optimizing asks of a Model: weights by name, with their tags."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(3, 4, generator=draw))
        self.vector = nn.Parameter(torch.randn(4, generator=draw))
        self.bias = nn.Parameter(torch.randn(3, generator=draw))

    def weights(self):
        return dict(self.named_parameters())

    def tags(self):
        return {"matrix": {"y"}, "vector": {"y"}, "bias": {"y", "bias"}}

    def gradients(self, step):
        draw = torch.Generator().manual_seed(step + 1)
        for p in self.parameters():
            p.grad = torch.randn(p.shape, generator=draw)


def setting(name, **given):
    declared = settings().ops[name]
    arguments = {p.name: fitting(name, p, given.get(p.name, p.default), None) for p in declared.parameters}
    return Setting(declared, arguments, None)


def constant(lr):
    return Schedule(None, {}, lr)


def optimizing(model, optimizer, lr=0.1, schedule=None, groups=(), early_stop=None):
    numbers = {"early_stop": early_stop}
    made = Settings(optimizer=optimizer, lr=constant(lr), schedule=schedule, groups=groups, numbers=numbers)
    return Optimizing(model, made)


CASES = {
    "adam": {"amsgrad": True, "weight_decay": 0.1},
    "adamw": {"betas": [0.8, 0.9], "weight_decay": 0.1},
    "nadam": {"momentum_decay": 0.01},
    "radam": {"weight_decay": 0.1},
    "sgd": {"momentum": 0.9, "nesterov": True},
    "rmsprop": {"alpha": 0.9, "momentum": 0.5, "centered": True},
    "adagrad": {"initial_accumulator_value": 0.1},
}


def test_every_optimizer_is_declared_and_built():
    assert {n for n, d in settings().ops.items() if d.role == "optimizer"} == OPTIMIZERS.keys() == CASES.keys()


@pytest.mark.parametrize(("name", "given"), CASES.items())
def test_an_optimizer_is_torchs_own_and_goes_on_after_a_checkpoint(name, given):
    ours, theirs, resumed = Small(), Small(), Small()
    made = optimizing(ours, setting(name, **given))
    decay = made.optimizer.param_groups[0]["weight_decay"]
    plain = {k: v for k, v in given.items() if k != "weight_decay"}
    form = [{"params": [theirs.matrix, theirs.vector], "weight_decay": decay}]
    form.append({"params": [theirs.bias], "weight_decay": 0.0})
    reference = OPTIMIZERS[name](form, lr=0.1, **plain)
    later = None
    for step in range(6):
        if step == 3:
            resumed.load_state_dict(ours.state_dict())
            later = optimizing(resumed, setting(name, **given))
            later.restore({k: t.clone() for k, t in made.tensors().items()}, made.counters())
        for model, step_ in ((ours, made.step), (theirs, reference.step), (resumed, later.step if later else None)):
            model.gradients(step)
            if step_ is not None:
                step_()
    for a, b, c in zip(ours.parameters(), theirs.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # ours may be the fused kernel
        assert torch.equal(a, c)


def test_a_checkpoint_before_the_first_update_has_no_moments():
    made = optimizing(Small(), setting("adamw"))
    assert made.tensors() == {}
    made.restore({}, made.counters())


def test_tensors_of_another_model_are_refused():
    made = optimizing(Small(), setting("adamw"))
    for key, t in (("nothing/exp_avg", torch.zeros(3)), ("matrix/exp_avg", torch.zeros(4, 3))):
        with pytest.raises(Exception, match="GS0621"):
            made.restore({key: t}, {})


def test_groups_by_tag_and_by_dimension():
    group = Group("bias", constant(0.5), None, None)
    made = optimizing(Small(), setting("adamw", decay_min_dim=2, weight_decay=0.3), groups=(group,))
    told = [(g["weight_decay"], [tuple(p.shape) for p in g["params"]]) for g in made.optimizer.param_groups]
    assert told == [(0.3, [(3, 4)]), (0.0, [(4,)]), (0.0, [(3,)])]
    made.set_rates(0)
    assert [g["lr"] for g in made.optimizer.param_groups] == [0.1, 0.1, 0.5]
    assert OURS == {"decay_min_dim"}


def test_frozen_weights_are_left_alone():
    model = Small()
    model.vector.requires_grad_(False)
    made = optimizing(model, setting("sgd"))
    assert set(made.weights) == {"matrix", "bias"}
    assert sum(len(g["params"]) for g in made.optimizer.param_groups) == 2


# ---- rates -----------------------------------------------------------------------------------------------------------


def test_plateau_is_torchs_reduce_on_plateau():
    draw = torch.Generator().manual_seed(0)
    losses = (1 / torch.arange(1, 200).float() + 0.05 * torch.rand(199, generator=draw)).tolist()
    ours = Plateau(factor=0.5, patience=3, min_lr=1e-3, threshold=1e-2)
    p = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(p, factor=0.5, patience=3, min_lr=1e-3, threshold=1e-2, eps=0)
    rates = []
    for loss in losses:
        ours.see(loss)
        theirs.step(loss)
        rates.append(ours.lower(0.1))
        assert rates[-1] == pytest.approx(p.param_groups[0]["lr"], rel=1e-12)
    assert len(set(rates)) > 4 and rates[-1] == 1e-3


def test_plateau_of_negative_losses_and_of_nan():
    plateau = Plateau(factor=0.5, patience=0, min_lr=0.0, threshold=0.1)
    plateau.see(-1.0)
    plateau.see(-1.05)  # not by a tenth
    assert plateau.scale == 0.5
    plateau.see(-1.2)
    assert plateau.best == -1.2 and plateau.scale == 0.5
    plateau.see(math.nan)
    assert plateau.scale == 0.25


def test_the_floor_lifts_no_rate_that_was_lower():
    plateau = Plateau(factor=0.1, patience=0, min_lr=1e-3, threshold=0.0, scale=0.1)
    assert plateau.lower(1e-3) == 1e-3 and plateau.lower(1e-4) == 1e-4 and plateau.lower(1.0) == 0.1


def test_stopping_counts_validations_in_a_row():
    stopping = Stopping(2)
    for loss, reached in ((3.0, False), (3.0, False), (2.0, False), (2.5, False), (2.0, True)):
        stopping.see(loss)
        assert stopping.reached is reached
    again = Stopping(2)
    again.restore(stopping.state())
    assert again.reached
    never = Stopping(None)
    for _ in range(9):
        never.see(1.0)
    assert not never.reached


def test_counters_survive_a_checkpoint():
    made = optimizing(Small(), setting("sgd"), schedule=setting("plateau", patience=0, factor=0.5), early_stop=5)
    later = optimizing(Small(), setting("sgd"), schedule=setting("plateau", patience=0, factor=0.5), early_stop=5)
    later.restore({}, made.counters())  # nothing seen so far
    assert later.counters() == made.counters()
    for loss in (2.0, 3.0, 1.0, 4.0):
        made.see(loss)
    later.restore({}, made.counters())
    assert later.counters() == made.counters()
    later.set_rates(0)
    assert later.lr == 0.1 * 0.25


# ---- the average -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(2))
        self.b = self.a
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)


def test_the_average_is_the_formula_and_takes_its_place():
    model = Tied()
    average = Average(model, 0.9)
    expected, weight = torch.zeros(2, dtype=torch.float64), model.a
    for step in range(1, 6):
        with torch.no_grad():
            model.a += 1
            model.count += 1
        average.update()
        expected = 0.9 * expected + 0.1 * step
    kept = {k: t.clone() for k, t in average.tensors().items()}
    assert kept.keys() == model.state_dict().keys() == {"a", "b", "count"}
    torch.testing.assert_close(kept["a"].double(), expected, rtol=1e-6, atol=0)
    assert kept["count"] == 5
    with average.in_place():
        assert model.a is weight and torch.equal(model.a, kept["a"]) and torch.equal(model.b, kept["a"])
    assert torch.equal(model.a, torch.full((2,), 5.0)) and torch.equal(average.tensors()["b"], kept["a"])
    other = Average(Tied(), 0.9)
    other.restore(kept)
    assert torch.equal(other.tensors()["a"], kept["a"])


def test_what_optimizing_needs_of_a_spec_is_said():
    with pytest.raises(Exception, match="GS0607"):
        Optimizing(Small(), SimpleNamespace(optimizer=None, lr=None))
