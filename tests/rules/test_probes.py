"""What rules read from the experiments."""

from __future__ import annotations

import math

import pytest

from unstuck.evidence import Event, LossCall, Task
from unstuck.rules._probes import gain_of_going_on, loss_skill, number_of, probe, reachable, shortfall, trial


def event(name, **data):
    return Event(100, "probe", data={"name": name, **data})


def rates(**changed):
    usual = {
        "factors": [0.1, 1.0, 10.0], "losses": [2.0, 1.0, None], "scores": [0.1, 0.55, None], "before": 2.303, "score_before": 0.1,
        "steps": 50, "rate": 0.1,
    }  # fmt: skip
    return {**usual, **changed}


def test_an_experiment_is_found_by_its_name(runs):
    record = runs.stuck(events=[event("noise", scale=1.0), event("modes", train=2.0), event("noise", scale=3.0)])
    assert number_of(probe(record, "noise"), "scale") == 3.0, "the last one"
    assert probe(record, "curvature") is None


def test_one_that_failed_or_was_not_made_tells_nothing(runs):
    record = runs.stuck(events=[event("noise", error="RuntimeError: no"), event("none", why="no")])
    assert probe(record, "noise") is None
    assert math.isnan(number_of(probe(record, "noise"), "scale"))


def test_null_is_no_number():
    assert math.isnan(number_of({"scale": None}, "scale"))
    assert math.isnan(number_of({"scale": "x"}, "scale"))
    assert number_of({"scale": 2}, "scale") == 2.0


def test_rates_are_compared_by_the_score(runs):
    """Chance is 0.1, so that 0.55 is half of the way."""
    found = trial(runs.stuck(events=[event("step-sizes", **rates())]), "step-sizes")
    assert found is not None
    assert found.quality == {0.1: 0.0, 1.0: pytest.approx(0.5), 10.0: -math.inf}
    assert (found.before, found.own) == (0.0, pytest.approx(0.5))
    assert found.lower == (0.1, 0.0)
    assert found.higher == (10.0, -math.inf)
    assert found.losses[10.0] == math.inf
    assert math.isnan(found.adam)


def test_without_a_score_by_the_loss(runs):
    """Of the loss of a constant, 2.303."""
    record = runs.stuck(events=[event("step-sizes", **rates(scores=[None] * 3, score_before=None))])
    found = trial(record, "step-sizes")
    assert found is not None
    assert found.quality == {0.1: pytest.approx(1 - 2 / 2.303), 1.0: pytest.approx(1 - 1 / 2.303), 10.0: -math.inf}
    assert found.before == 0.0


def test_where_chance_is_not_known_by_the_loss_before(runs):
    given = {"task": Task(), "losses": [LossCall("hand-written")]}
    data = rates(losses=[2.0, 1.0, 8.0], scores=[None] * 3, score_before=None, before=4.0)
    found = trial(runs.stuck(events=[event("step-sizes", **data)], **given), "step-sizes")
    assert found is not None
    assert found.quality == {0.1: 0.5, 1.0: 0.75, 10.0: -1.0}


def test_losses_below_zero_have_no_floor(runs):
    assert math.isnan(loss_skill(runs.stuck(), -1.0, 2.0))
    given = {"task": Task(), "losses": [LossCall("hand-written")]}
    assert math.isnan(loss_skill(runs.stuck(**given), 1.0, -2.0))


def test_the_best_of_several_rates_of_adam(runs):
    adam = {"adam_rates": [1e-3, 1e-2], "adam_losses": [1.0, None], "adam_scores": [0.55, None]}
    found = trial(runs.stuck(events=[event("from-start", **rates(**adam))]), "from-start")
    assert found is not None
    assert found.adam == pytest.approx(0.5)


def test_no_rates_on_one_side(runs):
    data = rates(factors=[1.0], losses=[1.0], scores=[0.5])
    found = trial(runs.stuck(events=[event("step-sizes", **data)]), "step-sizes")
    assert found is not None
    assert all(math.isnan(v) for v in (*found.lower, *found.higher))


def test_what_continuing_brought(runs):
    data = {"steps": 40, "losses": [2.303, 2.0, 1.0], "scores": [0.1, 0.3, 0.55], "own_losses": [2.3, 2.0, 1.0]}
    before, after, steps = gain_of_going_on(runs.learns(events=[event("go-on", **data)]))
    assert (before, after, steps) == (pytest.approx(0), pytest.approx(0.5), 40)
    data["scores"] = [None] * 3
    before, after, steps = gain_of_going_on(runs.learns(events=[event("go-on", **data)]))
    assert (before, after) == (pytest.approx(0), pytest.approx(1 - 1 / 2.303))


@pytest.mark.parametrize(("losses", "after"), [([2.0, None], -math.inf), ([None, 1.0], math.nan)])
def test_continuing_that_diverges_and_a_loss_that_was_not_finite_before(runs, losses, after):
    data = {"steps": 40, "losses": losses, "scores": [None, None]}
    assert gain_of_going_on(runs.learns(events=[event("go-on", **data)]))[1] == pytest.approx(after, nan_ok=True)


def test_what_is_reachable_and_how_far_it_is_behind(runs):
    """From 0.1 to 1: the reference is at eight ninths, the network at a third of the way."""
    data = {"linear": 0.3, "mlp": 0.9, "network": 0.4, "chance": 0.1}
    record = runs.stuck(events=[event("reference", **data)])
    assert reachable(record) == 0.9
    assert shortfall(record) == pytest.approx(8 / 9 - 1 / 3)
    assert math.isnan(reachable(runs.stuck())) and math.isnan(shortfall(runs.stuck()))
    assert math.isnan(shortfall(runs.stuck(events=[event("reference", **{**data, "network": None})])))
    assert math.isnan(reachable(runs.stuck(events=[event("reference", linear=None, mlp=None)])))
