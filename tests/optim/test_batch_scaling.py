from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RMSprop

from unstuck.errors import MisuseError
from unstuck.optim.batch_scaling import limited_rate, rate_factor, rescale, same_half_life, warm_up
from unstuck.optim.family import kinds, optimizer
from unstuck.optim.lamb import Lamb
from unstuck.optim.scheduler import scheduler
from unstuck.optim.schedules import Cosine, Step
from unstuck.optim.sgd import Sgd


def weights(*values, dtype=torch.float64):
    return torch.tensor(values or (1.0,), dtype=dtype, requires_grad=True)


def descend(optimizer, x, gradients):
    for gradient in gradients:
        x.grad = gradient
        optimizer.step()
    return x.detach().clone()


# ---------------------------------------------------------------------- numbers


def test_rules_with_and_without_a_noise_scale():
    assert rate_factor(8) == 8 and rate_factor(0.25) == 0.25
    assert rate_factor(16, "sqrt") == 4
    assert rate_factor(16, batch_size=32, noise_scale=1e12) == pytest.approx(16, rel=1e-6)  # noise alone: linear
    assert rate_factor(16, batch_size=32, noise_scale=math.inf) == 16
    assert rate_factor(16, batch_size=32, noise_scale=0) == 1  # no noise: a larger batch is of no use
    assert rate_factor(1e12, batch_size=32, noise_scale=96) == pytest.approx(4)  # 1 + 96/32 is all there is to win
    assert rate_factor(1e12, "sqrt", batch_size=32, noise_scale=96) == pytest.approx(2)
    one, other = limited_rate(32, 96), limited_rate(512, 96)
    assert rate_factor(16, batch_size=32, noise_scale=96) == pytest.approx(other / one)


def test_the_limit_is_the_best_rate_on_a_noisy_slope():
    """Expected loss after a step on x²/2 at x with noise of variance s²/B is (1-r)² x²/2 + r² s²/(2B); N = s²/x²."""
    x, noise, batch = 0.3, 2.0, 16
    rates = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    losses = (1 - rates) ** 2 * x**2 + rates**2 * noise**2 / batch
    assert float(rates[losses.argmin()]) == pytest.approx(limited_rate(batch, noise**2 / x**2), abs=1e-5)


def test_half_lives_are_kept_in_samples():
    for times in (2, 7, 0.5):
        steps = math.log(0.5) / math.log(0.95)
        assert math.log(0.5) / math.log(same_half_life(0.95, times)) * times == pytest.approx(steps)


def test_warm_up_begins_at_the_rate_as_it_was():
    optimizer = SGD([weights()], lr=0.1)
    rescale(optimizer, 8)
    rates = scheduler(optimizer, warm_up(8, steps_per_epoch=10, then=Cosine(100)))
    assert rates.get_last_lr() == [pytest.approx(0.1)]
    schedule = warm_up(16, steps_per_epoch=100, epochs=2.5, rule="sqrt", then=Step(3, 0.5))
    assert schedule(0) == 0.25 and schedule(250) == 1 and schedule(253) == 0.5


# ---------------------------------------------------------------------- one large step for k small ones


def small_and_large(make, times, **settings):
    """Where k small steps of the same gradient lead, and one rescaled step."""
    gradient = torch.tensor([0.7, -1.3], dtype=torch.float64)
    one, other = weights(1.0, 2.0), weights(1.0, 2.0)
    large = make([other])
    rescale(large, times, **settings)
    return descend(make([one]), one, [gradient] * times), descend(large, other, [gradient])


def test_linear_on_a_linear_loss_is_exact():
    small, large = small_and_large(lambda p: SGD(p, lr=0.01), 8)
    torch.testing.assert_close(small, large, rtol=1e-14, atol=0)


def test_linear_on_a_curved_loss_is_right_to_first_order():
    """k steps with rate r against one with kr: they differ in the order of r²; a tenth of the rate, a hundredth of the difference."""
    curvature = torch.tensor([1.0, 5.0], dtype=torch.float64)

    def gap(rate):
        one, other = weights(1.0, 2.0), weights(1.0, 2.0)
        small, large = SGD([one], lr=rate), SGD([other], lr=rate)
        rescale(large, 8)
        for _ in range(8):
            descend(small, one, [curvature * one.detach()])
        descend(large, other, [curvature * other.detach()])
        return float((one - other).detach().norm())

    assert gap(1e-4) / gap(1e-5) == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("dampening", [0.0, 0.9])
def test_with_half_lives_a_gradient_moves_as_much_in_all(dampening):
    """A gradient, and then none: what it moves in the end is rate (1 - dampening) / (1 - momentum) of it, times as many."""
    torch.manual_seed(0)
    burst = torch.randn(2, dtype=torch.float64)
    nothing = torch.zeros(2, dtype=torch.float64)

    def end(times, length):
        x = weights(0.0, 0.0)
        optimizer = SGD([x], lr=0.01, momentum=0.9, dampening=dampening)
        if dampening:  # torch's first step isn't damped
            descend(optimizer, x, [nothing])
        rescale(optimizer, times, half_lives=True)
        return descend(optimizer, x, [burst] + [nothing] * length), optimizer.param_groups[0]

    small, _ = end(1, 800)
    large, group = end(4, 200)
    torch.testing.assert_close(large, 4 * small, rtol=1e-9, atol=0)
    assert group["momentum"] == pytest.approx(0.9**4)
    if dampening:
        assert group["dampening"] == group["momentum"] and group["lr"] == pytest.approx(0.04)


@pytest.mark.parametrize("make", [SGD, Sgd])
def test_what_is_in_the_sum_goes_on_as_far(make):
    """Rescaled on the way, the sum coasts k times as far as by the linear rule alone with the same half-life: as it would have, times k."""

    def coasts(half_lives):
        x = weights(0.0)
        optimizer = make([x], lr=0.01, momentum=0.9)
        before = descend(optimizer, x, [torch.ones(1, dtype=torch.float64)] * 500)
        if half_lives:
            rescale(optimizer, 2, half_lives=True)
        return float(descend(optimizer, x, [torch.zeros(1, dtype=torch.float64)] * 500) - before)

    # v = g/(1-m) coasts rate v m/(1-m); after: 2 rate (1-m²)/(1-m), v (1-m)/(1-m²), m²
    assert coasts(False) == pytest.approx(-0.01 * 10 * 0.9 / 0.1)
    assert coasts(True) == pytest.approx(-0.02 * 10 * 0.81 / 0.19)


# ---------------------------------------------------------------------- random walks

CHAINS = 20_000


def walk(make, *, batch, samples, curvature=1.0, noise=1.0, begin=0.0, seed=0):
    """Many coordinates that descend h x²/2 with gradients of noise variance s²/batch, for as many samples."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((CHAINS,), begin, dtype=torch.float64, requires_grad=True)
    optimizer = make([x])
    if isinstance(
        optimizer, RMSprop
    ):  # its first steps are huge, as nothing corrects its average for having begun at zero
        rate, optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"], 0.0
        descend(optimizer, x, [torch.zeros_like(x)])
        optimizer.state[x]["square_avg"].fill_(noise**2 / batch)
        optimizer.param_groups[0]["lr"] = rate
    for _ in range(samples // batch):
        drawn = torch.randn(CHAINS, generator=generator, dtype=torch.float64)
        x.grad = curvature * x.detach() + noise / math.sqrt(batch) * drawn
        optimizer.step()
    return x.detach()


def scaled(make, times, **settings):
    def made(params):
        optimizer = make(params)
        rescale(optimizer, times, **settings)
        return optimizer

    return made


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 4, 16])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_by_the_linear_rule_hovers_at_the_same_height(times, momentum):
    """In theory the variance is r s² / (2 B h (1 - m)) to first order, whatever k: r/B is the same.

    Exactly it is, with a = r h and m the momentum (the stationary variance of a recurrence of second order, from its two equations),
    r² s²/B (1 + m) / ((1 - m) a (2 (1 + m) - a)).
    """
    rate, curvature, noise = 0.01, 0.5, 3.0
    found = walk(
        scaled(lambda p: SGD(p, lr=rate, momentum=momentum), times), batch=times, samples=1600, curvature=curvature,
        noise=noise,
    ).var()  # fmt: skip
    first_order = rate * noise**2 / (2 * curvature * (1 - momentum))
    r = rate * times
    a = r * curvature
    exact = r**2 * noise**2 / times * (1 + momentum) / ((1 - momentum) * a * (2 * (1 + momentum) - a))
    assert float(found) == pytest.approx(
        exact, rel=0.03
    )  # 20,000 chains: a variance is known to 1%; 1600 samples: to e⁻¹⁶
    assert exact == pytest.approx(first_order, rel=0.05)


@pytest.mark.slow
def test_with_half_lives_it_hovers_there_as_well():
    def make(params):
        return SGD(params, lr=0.004, momentum=0.9)

    small = walk(make, batch=1, samples=1600).var()
    large = walk(scaled(make, 8, half_lives=True), batch=8, samples=1600).var()
    # kept, the momentum spans eight times as many samples; rescaled it doesn't, and the way is the same on the whole
    begun_small = walk(make, batch=1, samples=64, begin=1.0).mean()
    begun_large = walk(scaled(make, 8, half_lives=True), batch=8, samples=64, begin=1.0).mean()
    begun_kept = walk(scaled(make, 8), batch=8, samples=64, begin=1.0).mean()
    assert float(large) == pytest.approx(float(small), rel=0.2)
    assert abs(begun_large - begun_small) < 0.35 * abs(begun_kept - begun_small)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda p: Adam(p, lr=2e-3, betas=(0.9, 0.999), eps=0.01),
        lambda p: RMSprop(p, lr=2e-3, alpha=0.999, eps=0.01),
    ],
    ids=["Adam", "RMSprop"],
)
def test_adam_by_the_root_makes_the_same_way_and_by_the_linear_rule_does_not(make):
    """Gradients that are nearly noise alone: x = 1, s = 30. Mean and variance after as many samples are those of the small batch."""
    begin = {"noise": 30.0, "begin": 1.0, "samples": 12_800}

    def fared(made, batch):
        x = walk(made, batch=batch, seed=batch, **begin)
        return float(x.mean()), float(x.var())

    mean, variance = fared(make, 8)
    by_root = fared(scaled(make, 4), 32)
    by_line = fared(scaled(make, 4, rule="linear"), 32)
    assert by_root == (pytest.approx(mean, abs=0.03), pytest.approx(variance, rel=0.06))
    assert abs(by_line[0] - mean) > 0.09 and by_line[1] > 1.5 * variance


@pytest.mark.slow
@pytest.mark.parametrize(("half_lives", "drift"), [(None, 0.05), (True, 0.03)])
def test_lamb_drifts_and_decays_alike(half_lives, drift):
    """Gradients are noise alone: how far weights spread, and what is left of where they were, after as many samples.

    With the first beta to the 16th power and the rate by the root alone they spread a fourteenth as far: 0.0094 in place of 0.13.
    """

    def walked(times, decay):
        generator = torch.Generator().manual_seed(times)
        layers = [torch.ones(20, 20, dtype=torch.float64, requires_grad=True) for _ in range(24)]
        optimizer = Lamb(layers, lr=2e-3, betas=(0.9, 0.99), eps=1e-12, weight_decay=decay)
        rescale(optimizer, times, half_lives=half_lives)
        for _ in range(1600 // times):
            for layer in layers:
                layer.grad = torch.randn(20, 20, generator=generator, dtype=torch.float64) / times**0.5
            optimizer.step()
        found = torch.stack([layer.detach() for layer in layers]).flatten(1)
        return float(found.mean()), float(found.var(1).mean())

    _, spread = walked(1, 0.0)
    assert walked(16, 0.0)[1] == pytest.approx(spread, rel=0.15)
    left, _ = walked(1, 0.02)
    assert left < 0.8 and walked(16, 0.02)[0] == pytest.approx(left, abs=drift)


# ---------------------------------------------------------------------- what is set


def test_what_is_set_by_kind():
    def after(make, times=4, **settings):
        optimizer = make([weights()])
        done = rescale(optimizer, times, **settings)
        return optimizer.param_groups[0], done

    group, done = after(lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01))
    assert (group["lr"], group["momentum"], group["weight_decay"], done.rate) == (0.4, 0.9, 0.01, 4)
    group, _ = after(lambda p: Adam(p, lr=0.1, betas=(0.9, 0.99), weight_decay=0.01))
    assert (group["lr"], group["eps"], group["weight_decay"]) == (0.2, 0.5e-8, 0.01)
    assert group["betas"] == pytest.approx((0.9**4, 0.99**4))
    for make in (AdamW, lambda p, **more: NAdam(p, decoupled_weight_decay=True, **more)):
        group, _ = after(lambda p, make=make: make(p, lr=0.1, weight_decay=0.01))
        assert group["lr"] * group["weight_decay"] == pytest.approx(4 * 0.1 * 0.01)
    assert group["momentum_decay"] == pytest.approx(4 * 4e-3)
    group, _ = after(lambda p: RMSprop(p, lr=0.1, alpha=0.99))
    assert group["alpha"] == pytest.approx(0.99**4)
    group, done = after(lambda p: Lamb(p, lr=0.1, betas=(0.9, 0.99), weight_decay=0.01))
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.2, (0.9, pytest.approx(0.99**4)), 0.02)
    assert "the second beta to the power 4" in done.says
    group, done = after(lambda p: AdamW(p, lr=0.1, betas=(0.9, 0.99)), rule="linear", half_lives=False)
    assert (group["lr"], group["betas"], group["eps"], done.rule) == (0.4, (0.9, 0.99), 1e-8, "linear")


def test_there_and_back_is_where_it_was():
    for make in (lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: AdamW(p, lr=0.1)):
        optimizer = make([weights()])
        before = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
        rescale(optimizer, 6, half_lives=True)
        rescale(optimizer, 1 / 6, half_lives=True)
        for key, value in before.items():
            assert optimizer.param_groups[0][key] == (pytest.approx(value) if value is not None else None), key


def test_every_group_and_rates_that_are_tensors():
    rate = torch.tensor(0.1)
    optimizer = SGD([{"params": [weights()], "lr": rate}, {"params": [weights()], "lr": 0.01}], lr=1.0)
    rescale(optimizer, 4)
    assert optimizer.param_groups[0]["lr"] is rate and float(rate) == pytest.approx(0.4)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.04)


def test_a_class_that_is_derived_has_the_rule_of_its_base_and_others_none():
    class Mine(Adam):
        pass

    class Other(Optimizer):
        pass

    assert rescale(Mine([weights()]), 4).rule == "sqrt"
    with pytest.raises(MisuseError, match="no rule is known for Other"):
        rescale(Other([weights()], {"lr": 0.1}), 4)
    assert rescale(Other([weights()], {"lr": 0.1}), 4, rule="linear").rate == 4


@pytest.mark.parametrize("name", kinds())
def test_it_knows_the_whole_family(name):
    made = optimizer(name, nn.Linear(2, 2), learning_rate=0.01)
    done = rescale(made, 4)
    proportional = name in ("sgd", "momentum", "nesterov", "sam")
    assert done.rule == ("linear" if proportional else "sqrt")
    assert {group["lr"] for group in made.param_groups} == {0.04 if proportional else 0.02}
    assert name not in ("momentum", "nesterov") or made.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rate_factor(0), "above 0"),
        (lambda: rate_factor(2, "cubic"), '"linear" or "sqrt"'),
        (lambda: rate_factor(2, noise_scale=5.0), "both are needed"),
        (lambda: warm_up(0.5, steps_per_epoch=10), "only a larger one"),
    ],
)
def test_it_says_what_is_wrong(call, message):
    with pytest.raises(MisuseError, match=message):
        call()
