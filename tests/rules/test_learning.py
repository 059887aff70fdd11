"""How far a run came."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from unstuck.evidence import Event, Optimizer, Record, Series, Task
from unstuck.rules._learning import alternates, late, progress


@pytest.mark.parametrize(
    ("state", "status"),
    [("stuck", "at chance"), ("learns", "learns"), ("well", "learns well"), ("diverges", "diverges")],
)
def test_each_state_is_told(runs, state, status):
    assert progress(getattr(runs, state)()).status == status


def test_nothing_measured_is_unknown():
    learning = progress(Record())
    assert (learning.status, learning.steps) == ("unknown", 0)
    assert math.isnan(learning.skill)


def test_few_steps_are_unknown():
    assert progress(Record.of({("loss", ""): [2.3, 2.2, 2.1, 2.0]})).status == "unknown"


def test_a_loss_that_hovers_around_zero_is_unknown_not_divergence():
    noise = np.random.default_rng(0).normal(0, 0.1, 500)
    assert progress(Record.of({("loss", ""): noise})).status == "unknown"


def test_a_loss_without_chance_that_halves_is_learning():
    assert progress(Record.of({("loss", ""): np.linspace(4, 1, 50)})).status == "learns"


def test_a_score_at_chance_is_doubted_when_the_loss_falls_to_nothing():
    record = Record.of(
        {("loss", ""): np.linspace(2.3, 0.01, 50), ("score", ""): np.full(50, 0.1)},
        task=Task("classification", 10, "accuracy", math.nan, 0.1),
    )
    assert progress(record).status == "learns"


def test_noise_is_not_mistaken_for_learning():
    scores = [0, 1, 1, 0, 1]  # batches of one sample, two classes
    task = Task("binary", 2, "accuracy", 0.693, 0.5)
    record = Record.of(
        {("loss", ""): np.full(200, 0.693), ("score", ""): Series.of(scores, [0, 150, 160, 170, 180])}, task=task
    )
    assert progress(record).status == "at chance"


def test_a_squared_error_is_judged_by_the_loss_of_every_step():
    task = Task("regression", 0, "r2", 1.0, 0.0, 0.0, 1.0)
    lucky = Series.of([0.0, 0.5, 0.6, 0.7], [0, 80, 90, 99])
    from unstuck.evidence import LossCall

    record = Record.of(
        {("loss", ""): np.full(100, 1.0), ("score", ""): lucky}, task=task, losses=[LossCall("mse_loss")]
    )
    assert progress(record).status == "at chance"


def test_scores_count_from_the_last_third_of_the_steps_not_of_the_samples():
    early = Series.of([0.1] * 30 + [0.9, 0.9, 0.9], [*range(30), 80, 90, 99])
    task = Task("classification", 10, "accuracy", 2.3, 0.1)
    assert progress(
        Record.of({("loss", ""): np.linspace(2.3, 0.2, 100), ("score", ""): early}, task=task)
    ).score_last == pytest.approx(0.9)


def test_perplexity_is_better_when_it_is_lower():
    task = Task("tokens", 50, "perplexity", math.log(39), 39.0)
    record = Record.of({("loss", ""): np.full(100, math.log(4)), ("score", ""): np.full(100, 4.0)}, task=task)
    assert progress(record).skill == pytest.approx(1 - math.log(4) / math.log(39))


def test_a_loss_that_was_not_measured_at_times_is_not_broken():
    loss = np.where(np.arange(100) % 2, 2.3, np.nan)
    assert progress(Record.of({("loss", ""): loss[::-1]})).broke_at is None


def test_a_loss_that_stays_nan_is_broken_from_there_on():
    loss = [2.3] * 20 + [math.nan] * 10
    learning = progress(Record.of({("loss", ""): loss}))
    assert (learning.status, learning.broke_at, learning.end) == ("diverges", 20, 20)


def test_a_single_nan_at_the_end_needs_an_event():
    loss = [2.3] * 20 + [math.nan]
    assert progress(Record.of({("loss", ""): loss})).broke_at is None
    assert progress(Record.of({("loss", ""): loss}, events=[Event(20, "non-finite", "fc")])).broke_at == 20


def test_late_samples_are_chosen_by_step(runs):
    series = Series.of(range(13), [*range(10), 60, 80, 99])
    learning = progress(runs.stuck())
    assert late(series, learning).steps.tolist() == [60, 80, 99]
    assert late(series, learning, share=0.1).steps.tolist() == [60, 80, 99], "at least three"


def test_two_updating_optimizers_alternate():
    assert alternates(Record.of({("loss", ""): [1.0]}, optimizers=[Optimizer(steps=9), Optimizer(steps=9)]))
    assert not alternates(Record.of({("loss", ""): [1.0]}, optimizers=[Optimizer(steps=9), Optimizer(steps=0)]))


@pytest.mark.parametrize(("steps", "backwards", "turns"), [(9, 0.0, False), (9, 1.0, True), (4, 0.0, True)])
def test_two_that_step_after_one_backward_do_not(steps, backwards, turns):
    both = [Optimizer(steps=9), Optimizer(steps=steps, backwards_per_step=backwards)]
    assert alternates(Record.of({("loss", ""): [1.0] * 9}, optimizers=both)) is turns


def test_a_network_that_fell_back_to_a_constant_prediction_is_at_chance(runs):
    loss = np.concatenate([np.linspace(2.3, 1.0, 50), np.full(50, 2.303)])
    score = Series.of([0.1, 0.6, 0.6, 0.1], [0, 40, 70, 99])
    fell = runs.learns({("loss", ""): loss, ("score", ""): score})
    assert progress(fell).collapsed
    assert progress(fell).status == "at chance"
    evaluated = runs.learns({("loss", ""): loss, ("score", ""): score, ("eval_score", ""): [0.6]})
    assert progress(evaluated).status == "learns", "its evaluation says otherwise"
    assert not progress(runs.learns()).collapsed


def test_an_r2_of_something_else_than_the_loss_tells_nothing(runs):
    def hand_written(loss):
        given = runs.regression(loss, name="hand-written")
        task = dataclasses.replace(given["task"], chance_loss=math.nan)
        score = Series.of([0.5, 0.6, 0.7, 0.8], [0, 30, 60, 90])
        return runs.learns({**given.pop("series"), ("score", ""): score}, **{**given, "task": task})

    left = 1 - np.interp(np.arange(100), [0, 30, 60, 90], [0.5, 0.6, 0.7, 0.8])
    for of_the_loss in (3.0 * left, np.sqrt(left)):
        assert progress(hand_written(of_the_loss)).score_last == pytest.approx(0.7)
    assert math.isnan(progress(hand_written(np.geomspace(100, 0.01, 100))).skill)


@pytest.mark.parametrize(("kind", "found"), [("regression", True), ("classification", False)])
def test_a_network_that_makes_its_own_targets_tells_little_by_its_loss(kind, found):
    record = Record.of({("loss", ""): [1.0]}, features=["targets of its own"], task=Task(kind))
    assert alternates(record) is found
    series = {("loss", ""): np.full(50, 0.1), ("score", ""): np.full(50, 0.9)}
    record = Record.of(
        series, features=["targets of its own"], task=Task(kind, score="r2", chance_loss=1.0, chance_score=0.0)
    )
    assert math.isnan(progress(record).skill) is found
