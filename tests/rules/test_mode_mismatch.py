from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Data, Event, Layer, Series
from unstuck.rules.mode_mismatch import mode_mismatch

NORMED = [
    Layer("fc1", "linear"),
    Layer("bn1", "batch_norm", inputs=("fc1",)),
    Layer("relu1", "relu", inputs=("bn1",)),
    Layer("bn2", "batch_norm", inputs=("relu1",)),
]
DROPPING = [Layer("fc1", "linear"), Layer("drop", "dropout", inputs=("fc1",), settings={"p": 0.5})]


def modes(train, evaluation, losses=(0.5, 0.5)):
    data = {"name": "modes", "train": losses[0], "eval": losses[1], "score_train": train, "score_eval": evaluation}
    return Event(100, "probe", "", data)


def evaluations(in_train, batches=10, passes=4):
    data = {"batches": batches, "in_train_mode": in_train, "train_mode": in_train > 0, "samples": 64}
    return [Event(25 * (i + 1), "eval", "", {**data, "passes": i + 1}) for i in range(passes)]


def turn(step, training, *, dropout=0, batch_norm=0):
    data = {"model": "net", "training": training, "dropout": dropout, "batch_norm": batch_norm}
    return Event(step, "mode", "", data)


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_the_right_modes_are_silent(runs, state):
    given = {"layers": NORMED, "events": [*evaluations(0), modes(0.9, 0.88)]}
    assert mode_mismatch(getattr(runs, state)(**given)) == []


# ---------------------------------------------------------------------- evaluated in train mode


@pytest.mark.parametrize(("in_train", "found"), [(0, 0), (8, 0), (9, 1), (10, 1)])
def test_evaluations_that_are_nearly_all_in_train_mode(runs, in_train, found):
    given = {"layers": DROPPING, "events": [*evaluations(in_train), modes(0.8, 0.95)]}
    assert len(mode_mismatch(runs.learns(**given))) == found


def test_only_the_late_evaluations_count(runs):
    both = [*evaluations(10)[:2], *evaluations(0)[2:]]
    assert mode_mismatch(runs.learns(layers=DROPPING, events=[*both, modes(0.8, 0.95)])) == []


@pytest.mark.parametrize(("train", "severity"), [(0.94, "note"), (0.9, "warning")])
def test_what_is_lost_in_train_mode_decides(runs, train, severity):
    given = {"layers": DROPPING, "events": [*evaluations(10), modes(train, 0.95)]}
    [finding] = mode_mismatch(runs.learns(**given))
    assert finding.severity == severity
    assert finding.layers == ("drop",)
    assert "0.950 in evaluation mode" in finding.says


def test_without_an_experiment_it_is_a_note(runs):
    assert [f.severity for f in mode_mismatch(runs.learns(layers=DROPPING, events=evaluations(10)))] == ["note"]


def test_without_an_experiment_batch_norm_on_odd_batches_shows_in_the_score(runs):
    series = {("eval_score", ""): Series.of([0.2], [99])}
    assert [f.severity for f in mode_mismatch(runs.well(series, layers=NORMED, events=evaluations(10)))] == ["warning"]
    assert [f.severity for f in mode_mismatch(runs.well(series, layers=DROPPING, events=evaluations(10)))] == ["note"]


def test_losses_decide_where_there_is_no_score(runs):
    for train, severity in ((0.9, "note"), (1.1, "warning")):
        events = [*evaluations(10), modes(None, None, (train, 0.5))]
        assert [f.severity for f in mode_mismatch(runs.learns(layers=DROPPING, events=events))] == [severity]


# ---------------------------------------------------------------------- trained in evaluation mode


@pytest.mark.parametrize(("since", "found"), [(50, 0), (49, 1)])
def test_half_of_all_steps_in_evaluation_mode(runs, since, found):
    findings = mode_mismatch(runs.learns(layers=NORMED, events=[turn(since, False, batch_norm=2)]))
    assert len(findings) == found
    assert all(f.severity == "warning" and f.layers == ("bn1", "bn2") and "net" in f.says for f in findings)


def test_steps_after_a_turn_back_do_not_count(runs):
    turns = [turn(0, False, batch_norm=2), turn(40, True)]
    assert mode_mismatch(runs.learns(layers=NORMED, events=turns)) == []
    assert mode_mismatch(runs.learns(layers=NORMED, events=[turns[0], turn(60, True)]))


def test_a_model_to_which_modes_are_one_is_silent(runs):
    assert mode_mismatch(runs.learns(events=[turn(0, False)])) == []


@pytest.mark.parametrize(("state", "severity"), [("stuck", "warning"), ("learns", "warning"), ("well", "note")])
def test_batch_norm_that_stands_still_matters_where_it_does_not_learn_well(runs, state, severity):
    [finding] = mode_mismatch(getattr(runs, state)(layers=NORMED, events=[turn(0, False, batch_norm=2)]))
    assert finding.severity == severity


@pytest.mark.parametrize(("score", "severity"), [(0.9, "note"), (0.6, "warning")])
def test_dropout_that_does_nothing_matters_where_it_overfits(runs, score, severity):
    series = {("eval_score", ""): Series.of([score], [99])}
    assert [f.severity for f in mode_mismatch(runs.well(series, events=[turn(0, False, dropout=1)]))] == [severity]


def test_a_loaded_network_may_be_kept_in_evaluation_mode(runs):
    events = [turn(0, False, batch_norm=2), Event(0, "reloaded", "", {"model": "net"})]
    assert [f.severity for f in mode_mismatch(runs.learns(layers=NORMED, events=events))] == ["note"]


# ---------------------------------------------------------------------- statistics that don't carry over


@pytest.mark.parametrize(("evaluation", "found"), [(0.87, 0), (0.84, 1)])
def test_a_tenth_of_the_way_behind(runs, evaluation, found):
    findings = mode_mismatch(runs.learns(layers=NORMED, events=[*evaluations(0), modes(0.95, evaluation)]))
    assert len(findings) == found
    assert all(f.severity == "warning" and f.layers == ("bn1", "bn2") for f in findings)


def test_an_evaluation_that_is_worth_nothing_is_an_error(runs):
    [finding] = mode_mismatch(runs.learns(layers=NORMED, events=[modes(0.95, 0.2)]))
    assert (finding.severity, finding.confidence) == ("error", 0.9)


def test_small_batches_are_named(runs):
    data = Data(batch_size=2)
    [finding] = mode_mismatch(runs.learns(layers=NORMED, events=[modes(0.95, 0.2)], data=data))
    assert "batches of 2" in finding.says


def test_few_samples_compared_must_be_farther_apart(runs):
    given = {"layers": NORMED, "events": [modes(0.75, 0.5)]}
    assert mode_mismatch(runs.learns(data=Data(batch_size=32), **given))
    assert mode_mismatch(runs.learns(data=Data(batch_size=1), **given)) == []


def test_very_few_steps_are_a_note(runs):
    short = {("loss", ""): [2.3, 2.0, 1.8, 1.6, 1.4, 1.2], ("score", ""): [0.5] * 6, ("lr", ""): [0.1] * 6}
    [finding] = mode_mismatch(runs.learns(short, layers=NORMED, events=[modes(0.8, 0.3)]))
    assert (finding.severity, "only 6 steps" in finding.says) == ("note", True)


@pytest.mark.parametrize(("steps", "severity"), [(99, "note"), (100, "error")])
def test_statistics_lag_while_weights_move_fast(runs, steps, severity):
    series = {("loss", ""): np.linspace(2.3, 1.2, steps), ("score", ""): [0.5] * steps, ("lr", ""): [0.1] * steps}
    [finding] = mode_mismatch(runs.learns(series, layers=NORMED, events=[modes(0.8, 0.3)]))
    assert finding.severity == severity


def test_dropout_alone_keeps_train_mode_behind(runs):
    assert mode_mismatch(runs.learns(layers=[*NORMED, *DROPPING[1:]], events=[modes(0.6, 0.95)])) == []
    assert mode_mismatch(runs.learns(layers=NORMED, events=[modes(0.6, 0.95)]))  # without dropout they must agree
    assert mode_mismatch(runs.learns(layers=DROPPING, events=[modes(0.95, 0.6)])) == []  # nor has it statistics


def test_without_an_experiment_only_small_batches_are_to_blame(runs):
    series = {("eval_score", ""): Series.of([0.2], [99])}
    given = {"layers": NORMED, "events": evaluations(0)}
    assert mode_mismatch(runs.well(series, data=Data(batch_size=32), **given)) == []
    [finding] = mode_mismatch(runs.well(series, data=Data(batch_size=2), **given))
    assert (finding.severity, finding.confidence) == ("warning", 0.6)
