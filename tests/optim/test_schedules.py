from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, RMSprop, lr_scheduler

from unstuck.errors import MisuseError
from unstuck.optim.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    Hold,
    InverseTime,
    OneCycle,
    Polynomial,
    Step,
    Steps,
    WarmUp,
    WarmUpPlateau,
    scheduler,
)
from unstuck.training import Training

RATE = 0.7
ALL = [
    Constant(0.5),
    Step(3, 0.5),
    Steps((2, 5, 5), 0.5),
    Exponential(0.9, floor=0.2),
    InverseTime(10, 0.5),
    Polynomial(20, 2.0, 0.1),
    Cosine(20, 0.1),
    CosineRestarts(5, 2, 0.1, 0.8),
    OneCycle(20),
    OneCycle(20, shape="linear"),
    WarmUp(5, then=Hold(3, then=Cosine(10))),
    WarmUp(5, then=Step(2), shape="exponential"),
]


def parameter():
    return torch.zeros(1, requires_grad=True)


def rates(optimizer, rates, steps):
    found = []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        rates.step()
    return found


def of_torch(make, steps):
    optimizer = SGD([parameter()], lr=RATE)
    return rates(optimizer, make(optimizer), steps)


def of_ours(schedule, steps, **settings):
    optimizer = SGD([parameter()], lr=RATE)
    return rates(optimizer, scheduler(optimizer, schedule, **settings), steps)


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Step(7, 0.3), lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
        (Steps((4, 9, 9), 0.3), lambda o: lr_scheduler.MultiStepLR(o, [4, 9, 9], 0.3)),
        (Exponential(0.93), lambda o: lr_scheduler.ExponentialLR(o, 0.93)),
        (Polynomial(20, 2.5), lambda o: lr_scheduler.PolynomialLR(o, 20, 2.5)),
        (Polynomial(20, floor=0.25), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.25, 20)),
        (WarmUp(6, start=0.2), lambda o: lr_scheduler.LinearLR(o, 0.2, 1.0, 6)),
        (CosineRestarts(5, floor=0.1), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 1, 0.1 * RATE)),
        (CosineRestarts(5, 3), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 3)),
        (InverseTime(4, 0.5), lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / math.sqrt(1 + t / 4))),
    ],
    ids=lambda value: repr(value) if not callable(value) or hasattr(value, "__dataclass_fields__") else "",
)
def test_it_is_the_schedule_of_torch(schedule, make):
    assert of_ours(schedule, 40) == pytest.approx(of_torch(make, 40), abs=1e-12, rel=1e-12)


def test_cosine_is_that_of_torch_up_to_its_end_and_stays_there():
    ours = of_ours(Cosine(20, 0.1), 40)
    assert ours[:21] == pytest.approx(
        of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, 20, 0.1 * RATE), 21), abs=1e-12
    )
    assert ours[20:] == [0.1 * RATE] * 20


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


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_it_is_plain_data(schedule):
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert [again(t) for t in range(60)] == [schedule(t) for t in range(60)]
    assert schedule(10**9) >= 0


@pytest.mark.parametrize(
    ("schedule", "end"),
    [(Polynomial(20, 2.0, 0.1), 20), (Cosine(20, 0.1), 20), (OneCycle(20), 19), (WarmUp(5, Hold(3, Cosine(10))), 18)],
    ids=repr,
)
def test_over_the_end_it_holds(schedule, end):
    assert {schedule(t) for t in range(end, end + 100)} == {schedule(end)}
    assert schedule(end - 1) > schedule(end)


def test_warm_up_rises_to_where_the_next_begins():
    linear, exponential = WarmUp(4, Step(2), 0.2), WarmUp(4, Constant(0.5), 0.0625, "exponential")
    assert [linear(t) for t in range(8)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.1, 0.1])
    assert [exponential(t) for t in range(6)] == pytest.approx([0.03125, 0.0625, 0.125, 0.25, 0.5, 0.5])
    assert WarmUp(0, Step(2))(0) == 1
    assert WarmUp(4, OneCycle(20))(4) == OneCycle(20)(0)


def test_hold_then_fall():
    trapezoid = WarmUp(2, Hold(3, Polynomial(2)), start=0.5)
    assert [trapezoid(t) for t in range(9)] == pytest.approx([0.5, 0.75, 1, 1, 1, 1, 0.5, 0, 0])


def test_restarts_may_start_lower_each_time():
    schedule = CosineRestarts(4, 2, floor=0.1, peak=0.5)
    assert [schedule(t) for t in (0, 4, 12)] == pytest.approx([1, 0.1 + 0.9 / 2, 0.1 + 0.9 / 4])


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


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_it_goes_on_from_its_state_and_from_a_step(schedule):
    whole = of_ours(schedule, 25)
    optimizer = SGD([parameter()], lr=RATE)
    ours = scheduler(optimizer, schedule)
    rates(optimizer, ours, 9)
    saved = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "rates": ours.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved)  # weights_only: nothing but numbers
    fresh = SGD([parameter()], lr=123.0)
    resumed = scheduler(fresh, schedule)
    fresh.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["rates"])
    assert rates(fresh, resumed, 16) == whole[9:]
    alone = SGD([parameter()], lr=123.0)
    resumed = scheduler(alone, schedule)
    resumed.load_state_dict(state["rates"])
    assert rates(alone, resumed, 16) == whole[9:]
    assert of_ours(schedule, 16, step=9) == whole[9:]


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
        (lambda: Step(0), "every is 0"),
        (lambda: Cosine(10.5), "steps is 10.5"),
        (lambda: Steps((3, 2)), "must ascend"),
        (lambda: CosineRestarts(5, 0), "growth is 0"),
        (lambda: OneCycle(1), "from 2 on"),
        (lambda: OneCycle(10, rise=1.5), "rise is 1.5"),
        (lambda: OneCycle(10, rise=0.1), "more than one of them"),
        (lambda: OneCycle(10, shape="round"), '"cosine" or "linear"'),
        (lambda: WarmUp(-1), "from 0 on"),
        (lambda: WarmUp(5, start=0.0), "above 0"),
        (lambda: WarmUp(5, shape="cosine"), '"linear" or "exponential"'),
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
