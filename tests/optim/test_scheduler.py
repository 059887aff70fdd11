"""What makes optimizers follow schedules: with one group or several, from a state, copied, and in a training."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, RMSprop, lr_scheduler

from unstuck.errors import MisuseError
from unstuck.optim.scheduler import WarmUpPlateau, scheduler
from unstuck.optim.schedules import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Step,
    WarmUp,
)
from unstuck.training import Training

RATE = 0.7


def parameter():
    return torch.zeros(1, requires_grad=True)


def rates(optimizer, rates, steps):
    found = []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        rates.step()
    return found


def of_ours(schedule, steps, **settings):
    optimizer = SGD([parameter()], lr=RATE)
    return rates(optimizer, scheduler(optimizer, schedule, **settings), steps)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize(("optimizer_class", "key"), [(SGD, "momentum"), (Adam, "betas")])
def test_one_cycle_is_that_of_torch_with_its_momentum(shape, optimizer_class, key):
    def made():
        more = {"momentum": 0.9} if key == "momentum" else {}
        return optimizer_class([parameter()], lr=RATE, **more)

    cycle = OneCycle(30, rise=0.4, start=0.1, end=0.1 / 50, shape=shape)
    one, other = made(), made()
    ours = scheduler(one, cycle, momentum=cycle.momentum(0.8, 0.93))
    theirs = lr_scheduler.OneCycleLR(
        other, RATE, 30, pct_start=0.4, div_factor=10, final_div_factor=50, base_momentum=0.8, max_momentum=0.93,
        anneal_strategy="cos" if shape == "cosine" else "linear",
    )  # fmt: skip
    for step in range(30):
        mine, its = one.param_groups[0], other.param_groups[0]
        assert float(mine["lr"]) == pytest.approx(its["lr"], abs=1e-12), step
        assert mine[key] == pytest.approx(its[key], abs=1e-12), step
        for optimizer, rate in ((one, ours), (other, theirs)):
            optimizer.step()
            if step < 29:
                rate.step()
    assert cycle(29) == pytest.approx(0.1 / 50) and cycle(1000) == cycle(29)


def test_groups_keep_their_proportions_or_have_schedules_of_their_own():
    def made():
        return SGD([{"params": [parameter()], "lr": 1.0}, {"params": [parameter()], "lr": 0.1}], lr=RATE)

    optimizer = made()
    both = scheduler(optimizer, Step(1, 0.5))
    optimizer.step()
    both.step()
    assert [g["lr"] for g in optimizer.param_groups] == both.get_last_lr() == [0.5, 0.05]
    optimizer = made()
    each = scheduler(optimizer, [Step(1, 0.5), Constant()])
    optimizer.step()
    each.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1]
    with pytest.raises(MisuseError, match="3 schedules for 2 parameter groups"):
        scheduler(made(), [Constant()] * 3)


def test_a_group_that_joins_later_follows():
    optimizer = SGD([parameter()], lr=1.0)
    both, each = scheduler(optimizer, Exponential(0.5)), SGD([parameter()], lr=1.0)
    optimizer.step()
    both.step()
    optimizer.add_param_group({"params": [parameter()], "lr": 0.8})
    optimizer.step()
    both.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.25, 0.2])
    rates = scheduler(each, [Exponential(0.5)])
    each.add_param_group({"params": [parameter()], "lr": 0.8})
    each.step()
    with pytest.raises(MisuseError, match="group 1 joined later"):
        rates.step()


def test_a_rate_that_is_a_tensor_is_written_to():
    rate = torch.tensor(0.8)
    optimizer = Adam([parameter()], lr=rate)
    ours = scheduler(optimizer, Step(1, 0.5))
    for _ in range(2):
        optimizer.step()
        ours.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.2)
    assert float(ours.base_lrs[0]) == pytest.approx(0.8)


def test_it_goes_on_from_its_state_and_from_a_step(every_schedule):
    whole = of_ours(every_schedule, 25)
    optimizer = SGD([parameter()], lr=RATE)
    ours = scheduler(optimizer, every_schedule)
    rates(optimizer, ours, 9)
    saved = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "rates": ours.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved)  # weights_only: nothing but numbers
    fresh = SGD([parameter()], lr=123.0)
    resumed = scheduler(fresh, every_schedule)
    fresh.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["rates"])
    assert rates(fresh, resumed, 16) == whole[9:]
    alone = SGD([parameter()], lr=123.0)
    resumed = scheduler(alone, every_schedule)
    resumed.load_state_dict(state["rates"])
    assert rates(alone, resumed, 16) == whole[9:]
    assert of_ours(every_schedule, 16, step=9) == whole[9:]


def test_a_group_that_joined_behind_the_last_step_goes_on_too():
    def made():
        optimizer = SGD([parameter()], lr=RATE)
        return optimizer, scheduler(optimizer, Exponential(0.5))

    def joined(optimizer):
        optimizer.add_param_group({"params": [parameter()], "lr": 0.2})

    optimizer, rates_ = made()
    rates(optimizer, rates_, 2)
    joined(optimizer)
    other, others = made()
    joined(other)
    other.load_state_dict(optimizer.state_dict())
    others.load_state_dict(rates_.state_dict())
    for _ in range(3):
        assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]
        for stepped in (optimizer, rates_, other, others):
            stepped.step()
    with pytest.raises(MisuseError, match="of 2 parameter groups, and the optimizer has 1: give it the same groups"):
        made()[1].load_state_dict(rates_.state_dict())


def test_functions_of_numpy_make_checkpoints_that_torch_loads():
    optimizer = SGD([parameter()], lr=RATE, momentum=0.9)
    scheduled = scheduler(optimizer, lambda t: 0.5 * (1 + np.cos(t / 10)), momentum=lambda t: np.float64(0.9))
    rates(optimizer, scheduled, 2)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), scheduled.state_dict()), file)
    file.seek(0)
    assert torch.load(file, weights_only=True)[1] == scheduled.state_dict()
    assert Cosine(np.int64(10))(5) == Cosine(10)(5)


def test_momentum_goes_on_too():
    cycle = OneCycle(20)
    optimizer = SGD([parameter()], lr=RATE, momentum=0.9)
    ours = scheduler(optimizer, cycle, momentum=cycle.momentum())
    rates(optimizer, ours, 6)
    other = SGD([parameter()], lr=RATE, momentum=0.9)
    scheduler(other, cycle, momentum=cycle.momentum()).load_state_dict(ours.state_dict())
    assert other.param_groups[0]["momentum"] == optimizer.param_groups[0]["momentum"] == cycle.momentum()(6)


def test_it_is_copied_with_its_optimizer():
    optimizer = SGD([parameter()], lr=RATE)
    ours = scheduler(optimizer, Cosine(20))
    rates(optimizer, ours, 5)
    memo = {}
    other = copy.deepcopy(optimizer, memo)
    again = copy.deepcopy(ours, memo)
    assert again.optimizer is other
    assert pickle.loads(pickle.dumps(ours)).last_epoch == 5


def test_it_serves_a_training_and_its_copy():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    batches = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(3)]
    seen = []
    training = Training(
        model, nn.functional.mse_loss, optimizer, batches, epochs=2,
        schedule=scheduler(optimizer, WarmUp(2, Cosine(4), start=0.5)), schedule_each="step",
    )  # fmt: skip
    training.on_step.append(lambda training: seen.append(training.optimizer.param_groups[0]["lr"]))
    training.copy().run()
    schedule = WarmUp(2, Cosine(4), start=0.5)
    assert seen == pytest.approx([0.1 * schedule(t) for t in range(1, 7)])
    assert optimizer.param_groups[0]["lr"] == 0.05  # of the original, which made no step


def test_any_function_of_the_step_will_do():
    assert of_ours(lambda step: 1 / (1 + step), 3) == pytest.approx([RATE, RATE / 2, RATE / 3])


# ---------------------------------------------------------------------- plateau


def test_warm_up_and_then_a_plateau():
    optimizer = SGD([{"params": [parameter()], "lr": 1.0}, {"params": [parameter()], "lr": 0.1}], lr=1.0)
    ours = WarmUpPlateau(optimizer, WarmUp(4, start=0.2), factor=0.5, patience=1)
    seen = []
    for epoch in range(6):
        for _ in range(2):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            ours.warm()
        ours.step(1.0)  # never gets better
        assert optimizer.param_groups[1]["lr"] == pytest.approx(0.1 * optimizer.param_groups[0]["lr"]), epoch
    # Warm after two epochs; the second is none better, and the third is one too many.
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25])


def test_when_it_is_warm_it_is_that_of_torch():
    metrics = [3.0, 2.0, 2.1, 2.2, 1.9, 1.95, 1.95, 1.95, 1.95, 1.0]
    one, other = SGD([parameter()], lr=RATE), SGD([parameter()], lr=RATE)
    ours = WarmUpPlateau(one, WarmUp(0), factor=0.3, patience=1, cooldown=1)
    theirs = lr_scheduler.ReduceLROnPlateau(other, factor=0.3, patience=1, cooldown=1)
    for metric in metrics:
        ours.warm()
        ours.step(metric)
        theirs.step(metric)
        assert one.param_groups[0]["lr"] == other.param_groups[0]["lr"]


def test_the_plateau_goes_on_from_its_state():
    def made():
        optimizer = SGD([parameter()], lr=torch.tensor(1.0))
        return optimizer, WarmUpPlateau(optimizer, WarmUp(4, start=0.2), patience=0)

    optimizer, ours = made()
    ours.warm()
    ours.step(1.0)
    other, again = made()
    other.load_state_dict(optimizer.state_dict())
    again.load_state_dict(ours.state_dict())
    for rates in (ours, again):
        for _ in range(5):
            rates.warm()
        assert rates.is_warm
        rates.step(2.0)
    assert float(optimizer.param_groups[0]["lr"]) == float(other.param_groups[0]["lr"]) == pytest.approx(0.1)


def test_torch_can_not_chain_them():
    """What the class's docstring says of torch: should this fail, torch has learned it."""
    optimizer = SGD([parameter()], lr=1.0)
    parts = [lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 1), lr_scheduler.ReduceLROnPlateau(optimizer)]
    with pytest.raises((TypeError, ValueError)):
        chained = lr_scheduler.SequentialLR(optimizer, parts, [1])
        for _ in range(3):
            optimizer.step()
            chained.step()


def test_a_plateau_serves_a_training():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    plateau = WarmUpPlateau(optimizer, WarmUp(3), patience=0, threshold=1.0)  # nothing is better by all there is
    batches = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(2)]
    training = Training(model, nn.functional.mse_loss, optimizer, batches, epochs=3, schedule=plateau)
    training.on_step.append(lambda training: training.schedules[0].scheduler.warm())
    training.run()
    assert plateau.is_warm
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


# ---------------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scheduler(SGD([parameter()], lr=1.0), 0.5), "function of the step"),
        (
            lambda: scheduler(torch.optim.Adagrad([parameter()]), Constant(), momentum=Constant()),
            "neither momentum nor",
        ),
        (lambda: WarmUpPlateau(SGD([parameter()], lr=1.0), Cosine(5)), "must be a WarmUp"),
    ],
)
def test_it_says_what_is_wrong(make, message):
    with pytest.raises(MisuseError, match=message):
        make()


def test_rmsprop_has_a_momentum_to_be_set():
    optimizer = RMSprop([parameter()], momentum=0.5)
    scheduler(optimizer, Constant(), momentum=Constant(0.75))
    assert optimizer.param_groups[0]["momentum"] == 0.75
