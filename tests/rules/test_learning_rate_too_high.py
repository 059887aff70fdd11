from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Event, Optimizer, Series
from unstuck.rules.learning_rate_too_high import learning_rate_too_high


def loss(values):
    return {("loss", ""): np.asarray(values, float)}


@pytest.mark.parametrize("state", ["stuck", "learns", "well"])
def test_a_quiet_loss_is_silent(runs, state):
    assert learning_rate_too_high(getattr(runs, state)(**runs.chain("linear"))) == []


@pytest.mark.parametrize(("peak", "found"), [(6.8, 0), (7.0, 1)])
def test_a_loss_that_rises_to_nan(runs, peak, found):
    rising = [*np.linspace(2.3, peak, 10), np.nan, np.nan]
    findings = learning_rate_too_high(runs.stuck(loss(rising)))
    assert len(findings) == found
    assert all("no longer finite" in f.says and "0.1" in f.says for f in findings)


def test_a_few_steps_to_nan_are_enough(runs):
    (found,) = learning_rate_too_high(runs.stuck(loss([1.4, 2e7, 2e14, 8e30, *[np.nan] * 20])))
    assert "rises from 1.40 to 8e30 before it is no longer finite" in found.says


def test_a_nan_out_of_the_blue_is_silent(runs):
    assert learning_rate_too_high(runs.stuck(loss([*np.linspace(2.3, 0.1, 50), np.nan, np.nan]))) == []


def test_an_old_peak_is_not_what_led_to_nan(runs):
    assert learning_rate_too_high(runs.stuck(loss([2.3, 50, *np.linspace(2.3, 0.1, 50), np.nan, np.nan]))) == []


@pytest.mark.parametrize(("top", "found"), [(11.4, 0), (11.7, 1)])
def test_a_jump_from_which_it_never_recovers(runs, top, found):
    flat = np.full(100, 2.303)
    flat[30] = top
    assert len(learning_rate_too_high(runs.stuck(loss(flat)))) == found


@pytest.mark.parametrize(("top", "at", "found"), [(22, 5, 0), (24, 5, 1), (24, 50, 0)])
def test_where_it_learns_the_jump_must_be_larger_and_early(runs, top, at, found):
    falling = 1.2 + 1.1 * runs.falling
    falling[at] = top
    assert len(learning_rate_too_high(runs.learns(loss(falling)))) == found


def test_a_network_that_learns_well_is_left_alone(runs):
    falling = 0.05 + 2.2 * runs.falling
    falling[3] = 1e6
    assert learning_rate_too_high(runs.well(loss(falling))) == []


def updates(runs, size, start=None):
    return {("update_ratio", "linear0.weight"): [size if start is None else start] + [size] * 4}


@pytest.mark.parametrize(("end", "found"), [(2.45, 0), (2.6, 1)])
def test_a_loss_that_ends_above_chance(runs, end, found):
    series = {**loss(np.full(100, end)), **updates(runs, 0.01)}
    assert len(learning_rate_too_high(runs.stuck(series, **runs.chain("linear")))) == found


def test_above_chance_but_hardly_moving_is_silent(runs):
    series = {**loss(np.full(100, 3.0)), **updates(runs, 1e-5)}
    assert learning_rate_too_high(runs.stuck(series, **runs.chain("linear"))) == []


def test_above_chance_but_falling_is_silent(runs):
    series = {**loss(np.linspace(9, 3, 100)), **updates(runs, 0.01)}
    assert learning_rate_too_high(runs.stuck(series, **runs.chain("linear"))) == []


@pytest.mark.parametrize(("size", "found"), [(0.02, 0), (0.04, 1)])
def test_large_updates_in_vain(runs, size, found):
    assert len(learning_rate_too_high(runs.stuck(updates(runs, size), **runs.chain("linear")))) == found


@pytest.mark.parametrize(("largest", "found"), [(0.05, 0), (0.2, 1)])
def test_updates_that_kill_all_units(runs, largest, found):
    series = {**updates(runs, 1e-6, start=largest), ("act_zero", "relu1"): [0.5, 0.9, 1.0, 1.0, 1.0]}
    findings = learning_rate_too_high(runs.stuck(series, **runs.chain("linear", "relu", "linear")))
    assert len(findings) == found
    assert all("relu1" in f.says for f in findings)


def test_units_that_were_born_dead_say_nothing(runs):
    series = {**updates(runs, 1e-6, start=0.2), ("act_zero", "relu1"): [1.0] * 5}
    assert learning_rate_too_high(runs.stuck(series, **runs.chain("linear", "relu", "linear"))) == []


def test_a_loss_thrown_above_chance_again_and_again(runs):
    swinging = 1.2 + 1.1 * runs.falling
    swinging[50::10] = 9.0
    assert learning_rate_too_high(runs.learns({**loss(swinging), **updates(runs, 0.02)}, **runs.chain("linear")))
    assert learning_rate_too_high(runs.learns({**loss(swinging), **updates(runs, 0.001)}, **runs.chain("linear"))) == []


def test_more_signs_make_it_surer(runs):
    one = learning_rate_too_high(runs.diverges())[0]
    more = learning_rate_too_high(runs.diverges(updates(runs, 0.1, start=50.0), **runs.chain("linear")))[0]
    assert more.confidence > one.confidence
    assert one.severity == "error"


def test_without_gradient_nothing_is_said_of_the_rate(runs):
    series = {**loss(np.full(100, 3.0)), ("grad_norm", ""): np.zeros(100)}
    assert learning_rate_too_high(runs.stuck(series)) == []


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert learning_rate_too_high(runs.diverges(**both)) == []


def test_a_loss_that_may_be_negative_is_silent(runs):
    noise = np.random.default_rng(0).normal(0, 1, 100)
    noise[50] = 1e3
    assert learning_rate_too_high(runs.stuck(loss(noise))) == []


@pytest.mark.parametrize(
    ("losses", "found"), [([2.3, 2.2e3], 0), ([2.3, 2.4e3], 1), ([2.3, 1e9, 1e6], 1), ([2.3, 1e9, 2.0], 0)]
)
def test_a_few_steps_that_throw_the_loss_far_off_are_enough(runs, losses, found):
    """As where the script gives up at once: binary cross-entropy raises an error when it is given a NaN."""
    findings = learning_rate_too_high(runs.stuck({("loss", ""): losses, ("score", ""): [0.1] * len(losses)}))
    assert [f.severity for f in findings] == ["error"] * found
    assert all("the loss jumps from 2.30 to" in f.says for f in findings)


# ---------------------------------------------------------------------- tried as an experiment


def tried(name, lower, own=0.1, *, before=0.1, losses=(0.9, 2.3, None)):
    """Accuracies of ten classes with a tenth of the rate and with the script's: 0.18 is a fifth of the way."""
    data = {
        "name": name, "factors": [0.1, 1.0, 10.0], "losses": list(losses), "scores": [lower, own, None], "before": 2.303,
        "score_before": before, "steps": 50, "rate": 1.0,
    }  # fmt: skip
    return [Event(100, "probe", data=data)]


def critical(start):
    return [Event(100, "probe", data={"name": "critical-rate", "critical": 4.0, "start_critical": start, "rate": 1.0})]


@pytest.mark.parametrize(("lower", "found"), [(0.27, 0), (0.29, 1)])
@pytest.mark.parametrize("state", ["stuck", "learns"])
def test_smaller_steps_from_the_same_start_get_further(runs, state, lower, found):
    findings = learning_rate_too_high(getattr(runs, state)(events=tried("from-start", lower)))
    assert len(findings) == found
    assert all("from the same start 0.1 times the rate takes accuracy to 0.29" in f.says for f in findings)


@pytest.mark.parametrize(("own", "found"), [(0.55, 0), (0.4, 1), (None, 1)])
def test_further_than_the_scripts_own(runs, own, found):
    """Which may diverge."""
    losses = (0.9, None if own is None else 1.5, None)
    findings = learning_rate_too_high(runs.stuck(events=tried("from-start", 0.6, own, losses=losses)))
    assert len(findings) == found
    assert all(("the script's diverges" if own is None else "the script's to 0.400") in f.says for f in findings)


@pytest.mark.parametrize("name", ["from-start", "step-sizes"])
@pytest.mark.parametrize(("losses", "found"), [((2.0, 1.9, None), 0), ((1.9, 2.0, None), 1)])
def test_a_better_score_at_a_higher_loss_is_chance(runs, name, losses, found):
    """One sample of six more that is right is a sixth of the way."""
    assert len(learning_rate_too_high(runs.stuck(events=tried(name, 0.6, 0.4, losses=losses)))) == found


@pytest.mark.parametrize(("scores", "found"), [((0.1, 0.7), 0), ((-3.0, -1.0), 1)])
def test_going_on_excuses_what_gets_there_not_what_stays_below_chance(runs, scores, found):
    """An R2 has no lower end."""
    on = Event(100, "probe", data={"name": "go-on", "steps": 50, "losses": [4.0, 2.0], "scores": list(scores)})
    given = runs.regression(np.linspace(1.0, 2.5, 100))
    moving = {**given.pop("series"), ("update_ratio", "linear0.weight"): [0.5] * 100}
    findings = learning_rate_too_high(runs.stuck(moving, **given, **runs.chain("linear"), events=[on]))
    assert len(findings) == found


@pytest.mark.parametrize(("state", "lower", "found"), [("stuck", 0.27, 0), ("stuck", 0.29, 1), ("learns", 0.8, 0)])
def test_from_where_it_ended_only_where_it_is_stuck(runs, state, lower, found):
    """Near the end of every training smaller steps help."""
    assert len(learning_rate_too_high(getattr(runs, state)(events=tried("step-sizes", lower)))) == found


def test_not_where_it_was_there_before(runs):
    assert learning_rate_too_high(runs.stuck(events=tried("step-sizes", 0.5, before=0.45))) == []


@pytest.mark.parametrize(("start", "found"), [(1.1, 0), (1.0, 1), (0.01, 1), (0.0, 0), (None, 0)])
def test_a_first_step_that_raises_its_own_loss(runs, start, found):
    """At a multiple of 0 no step lowers it, however short: that is none of the rate's doing."""
    findings = learning_rate_too_high(runs.stuck(events=critical(start)))
    assert len(findings) == found
    assert all(f.severity == "warning" and "raises the loss of its own batch" in f.says for f in findings)


def test_a_first_step_that_raises_its_own_loss_is_no_matter_where_it_learns(runs):
    assert learning_rate_too_high(runs.learns(events=critical(0.1))) == []


@pytest.mark.parametrize(("less", "own", "found"), [(0.03, 2.4, 0), (0.02, 2.4, 1), (0.02, 2.3, 0), (None, 2.4, 0)])
def test_a_network_that_learns_well_is_outdone_by_smaller_steps(runs, less, own, found):
    """Its loss ends at 0.05: half of that in a few steps, where its own first steps go up from 2.303."""
    findings = learning_rate_too_high(runs.well(events=tried("from-start", 0.99, 0.1, losses=(less, own, None))))
    assert len(findings) == found
    assert all(f.severity == "warning" and "from the same start 0.1 times the rate" in f.says for f in findings)


def bears(edge):
    """Curvature as the experiment measures it: the rate over the largest that it bears."""
    return [Event(100, "probe", data={"name": "curvature", "top": 20.0, "edge": edge})]


RISING = np.concatenate([np.full(50, 1.5), np.full(25, 1.6), np.full(25, 1.8)])
SWINGING = 1.6 + 0.3 * (-1.0) ** np.arange(100)


@pytest.mark.parametrize("course", [RISING, SWINGING], ids=["rising", "swinging"])
@pytest.mark.parametrize(("edge", "found"), [(1.9, 0), (2.1, 1), (None, 0)])
def test_a_rate_beyond_what_the_curvature_bears(runs, course, edge, found):
    findings = learning_rate_too_high(runs.learns(loss(course), events=bears(edge)))
    assert len(findings) == found
    assert all("2.10 times what the curvature bears" in f.says for f in findings)


@pytest.mark.parametrize("edge", [1.1, 3.0, 30.0])
def test_beyond_it_with_a_falling_loss_all_is_normal(runs, edge):
    """At the edge of stability the loss falls in jerks (Cohen et al. 2021)."""
    jerks = np.where(np.arange(100) % 7 == 0, 1.3, 1.0)
    falling = (1.2 + 1.1 * runs.falling) * jerks
    assert learning_rate_too_high(runs.learns(loss(falling), events=bears(edge))) == []
    assert learning_rate_too_high(runs.learns(loss(np.linspace(2.3, 0.8, 100) * jerks), events=bears(edge))) == []
    assert learning_rate_too_high(runs.well(events=bears(edge))) == []


def test_noise_is_neither_a_rise_nor_a_swing(runs):
    """Of fifty losses that are noise of a fifth of their size none is taken for one, at any rate."""
    random = np.random.default_rng(0)
    found = [
        learning_rate_too_high(runs.learns(loss(1.2 + 0.24 * random.standard_normal(100)), events=bears(3.0)))
        for _ in range(50)
    ]
    assert sum(map(len, found)) <= 1


def test_the_course_counts_as_well_in_its_second_half(runs):
    for steps, count in ([0, 20, 40, 99], 0), ([0, 20, 60, 99], 1):
        edge = {("edge", ""): Series.of([9.0, 9.0, 9.0, 0.5], steps)}
        assert len(learning_rate_too_high(runs.learns({**loss(RISING), **edge}))) == count
