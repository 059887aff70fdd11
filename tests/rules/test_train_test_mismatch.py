from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Event, Record, Series, Task
from unstuck.rules.train_test_mismatch import train_test_mismatch

FEATURES = 8


def inputs(mean=0.0, std=1.0, *, eval_mean=0.0, eval_std=1.0, samples=64, rows=3):
    """Inputs of eight features in training and in evaluation; numbers or one for each feature."""
    vectors = {}
    for prefix, centre, spread in (("input", mean, std), ("eval_input", eval_mean, eval_std)):
        centre, spread = np.broadcast_to(centre, FEATURES), np.broadcast_to(spread, FEATURES)
        parts = {"mean": centre, "std": spread, "min": centre - 2 * spread, "max": centre + 2 * spread}
        vectors |= {(f"{prefix}_{name}", "input"): [part] * rows for name, part in parts.items()}
    return {"vectors": vectors, "events": [Event(50, "eval", "", {"samples": samples, "batches": 4})]}


def evaluated(score):
    return {("eval_score", ""): Series.of([score], [99])}


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_data_of_one_kind_are_silent(runs, state):
    assert train_test_mismatch(getattr(runs, state)(evaluated(0.1), **inputs(eval_mean=0.1, eval_std=1.2))) == []


@pytest.mark.parametrize(("std", "found"), [(1.9, 0), (2.1, 1), (0.52, 0), (0.48, 1)])
def test_twice_the_size_or_half_of_it(runs, std, found):
    assert len(train_test_mismatch(runs.well(evaluated(0.3), **inputs(eval_std=std)))) == found


def test_the_size_is_a_threshold(runs):
    record = runs.well(evaluated(0.3), **inputs(eval_std=3.0))
    assert train_test_mismatch(record)
    assert train_test_mismatch(record, scale=4.0) == []


@pytest.mark.parametrize(("shift", "found"), [(1.9, 0), (2.1, 1)])
def test_two_standard_deviations(runs, shift, found):
    given = inputs(eval_mean=10 + shift, mean=10.0)
    assert len(train_test_mismatch(runs.well(evaluated(0.3), **given))) == found


@pytest.mark.parametrize(("moved", "found"), [(4, 0), (5, 1)])
def test_more_than_half_of_the_features_must_have_moved(runs, moved, found):
    given = inputs(mean=10.0, eval_mean=[13.0] * moved + [10.0] * (FEATURES - moved))
    assert len(train_test_mismatch(runs.well(evaluated(0.3), **given))) == found


@pytest.mark.parametrize(("times", "found"), [(2.9, 0), (3.1, 1)])
def test_features_of_which_each_is_off_by_another_factor(runs, times, found):
    given = inputs(eval_std=[times, 1 / times] * 3 + [1.0, 1.0])  # neither larger nor smaller as a whole
    findings = train_test_mismatch(runs.well(evaluated(0.3), **given), scale=10.0)
    assert len(findings) == found
    assert all("75% of the input features" in f.says and "3.10 times" in f.says for f in findings)


def test_one_large_feature_is_no_other_scale(runs):
    given = inputs(eval_std=[100.0] + [1.0] * (FEATURES - 1))
    assert train_test_mismatch(runs.well(evaluated(0.3), **given)) == []


def test_features_that_never_vary_are_silent(runs):
    given = inputs(mean=1.0, std=0.0, eval_mean=1.0, eval_std=0.0)
    assert train_test_mismatch(runs.well(evaluated(0.3), **given)) == []


def test_rare_features_that_were_not_drawn_are_silent(runs):
    rare = np.array([0.1, 0, 0, 0.1, 0, 0, 0, 0])
    given = inputs(std=0.04, eval_std=rare)
    assert train_test_mismatch(runs.well(evaluated(0.3), **given)) == []


@pytest.mark.parametrize(("samples", "found"), [(31, 0), (32, 1)])
def test_few_evaluated_samples_are_silent(runs, samples, found):
    given = inputs(eval_std=20.0, samples=samples)
    assert len(train_test_mismatch(runs.well(evaluated(0.3), **given))) == found


@pytest.mark.parametrize(
    ("score", "severity"), [(0.97, "note"), (0.8, "note"), (0.7, "warning"), (0.3, "warning"), (0.12, "error")]
)
def test_how_much_worse_evaluation_is_decides(runs, score, severity):
    [finding] = train_test_mismatch(runs.well(evaluated(score), **inputs(eval_std=20.0)))
    assert finding.severity == severity
    assert "20.0 times" in finding.says


@pytest.mark.parametrize(
    ("loss", "score", "severity"), [(5.0, 0.35, "warning"), (4.0, 0.35, "note"), (5.0, 0.42, "note")]
)
def test_a_loss_far_above_chance_shows_it_where_the_score_is_but_somewhat_worse(runs, loss, score, severity):
    """Chance is at 2.30, and training at an accuracy of 0.49."""
    series = {**evaluated(score), ("eval_loss", ""): Series.of([loss], [99])}
    assert [f.severity for f in train_test_mismatch(runs.learns(series, **inputs(eval_std=50.0)))] == [severity]


def test_an_evaluation_without_a_score_is_judged_by_its_loss(runs):
    for loss, severity in ((0.06, "note"), (1.0, "warning")):
        series = {("eval_loss", ""): Series.of([loss], [99])}
        assert [f.severity for f in train_test_mismatch(runs.well(series, **inputs(eval_std=20.0)))] == [severity]
    assert [f.severity for f in train_test_mismatch(runs.well(**inputs(eval_std=20.0)))] == ["note"]


UNITS = np.array([650.0, 90.0, 20.0, 14.0, 0.1, 0.05, 0.03, 0.004])  # what features are about, in units of their own
NOISE = np.array([0.12, -0.1, 0.05, -0.14, 0.02, 0.1, -0.06, 0.0])  # of the mean of fifty samples, in deviations


def test_standardised_for_training_and_raw_in_evaluation(runs):
    [finding] = train_test_mismatch(runs.well(evaluated(0.1), **inputs(eval_mean=UNITS, eval_std=UNITS / 4)))
    assert finding.severity == "error" and finding.treated_by[0] == "evaluation-scale"
    assert "what is trained on is standardised by feature, what is evaluated is not" in finding.says


@pytest.mark.parametrize("std", [UNITS / 4, np.full(FEATURES, 2.5)])
def test_raw_for_training_and_standardised_in_evaluation(runs, std):
    given = inputs(mean=10 * std, std=std, eval_mean=NOISE, eval_std=1 + NOISE)
    [finding] = train_test_mismatch(runs.well(evaluated(0.1), **given))
    assert finding.severity == "error"
    assert "what is evaluated is standardised by feature, what is trained on is not" in finding.says


def test_standardised_each_by_its_own_numbers_is_silent(runs):
    given = inputs(mean=-0.1 * NOISE, std=1 + NOISE / 4, eval_mean=NOISE, eval_std=1 + NOISE)
    assert train_test_mismatch(runs.well(evaluated(0.1), **given)) == []


@pytest.mark.parametrize(("unit", "zero"), [(1.0, 0.0), (UNITS / 4, UNITS)])
def test_one_scale_for_both_is_silent(runs, unit, zero):
    given = inputs(mean=zero, std=unit, eval_mean=zero + 2 * NOISE * unit, eval_std=unit * (1 + 2 * NOISE))
    assert train_test_mismatch(runs.well(evaluated(0.1), **given)) == []


@pytest.mark.parametrize(("unit", "zero"), [(1.0, 0.0), (10.0, 15.0), (UNITS / 4, UNITS)])
def test_a_later_time_is_no_error(runs, unit, zero):
    """It lies four deviations on and varies half as much again; how it is scaled is the same."""
    given = inputs(mean=zero, std=unit, eval_mean=zero + 4 * unit, eval_std=1.5 * unit)
    [finding] = train_test_mismatch(runs.well(evaluated(0.05), **given))
    assert finding.severity == "warning"
    assert "by nature" in finding.says and "standardised" not in finding.says


@pytest.mark.parametrize(
    ("times", "severity"), [(2.9, "warning"), (3.1, "error"), (1 / 2.9, "warning"), (1 / 3.1, "error")]
)
def test_what_varies_three_times_as_much_is_scaled_otherwise(runs, times, severity):
    given = inputs(mean=1.0, std=0.5, eval_mean=times, eval_std=0.5 * times)
    [finding] = train_test_mismatch(runs.well(evaluated(0.05), **given))
    assert finding.severity == severity


def test_different_numbers_of_features_cannot_be_compared(runs):
    given = inputs(eval_std=20.0)
    given["vectors"] = {
        key: [row[:4] for row in rows] if key[0].startswith("eval") else rows for key, rows in given["vectors"].items()
    }
    assert train_test_mismatch(runs.well(evaluated(0.3), **given)) == []


def labels(trained, tested):
    return {"vectors": {("label_count", ""): [trained] * 4, ("eval_label_count", ""): [tested]}}


ALL = [10.0] * 10


@pytest.mark.parametrize(("part", "found"), [(0.25, 0), (0.35, 1)])
def test_labels_that_training_never_shows(runs, part, found):
    given = labels([10.0] * 8 + [0.0] * 2, [(1 - part) * 100 / 8] * 8 + [part * 50] * 2)
    findings = train_test_mismatch(runs.well(evaluated(0.1), **given))
    assert len(findings) == found
    assert all("(8, 9)" in f.says and f.severity == "error" for f in findings)


def test_an_evaluation_sorted_by_class_is_silent(runs):
    assert train_test_mismatch(runs.well(evaluated(0.3), **labels(ALL, [100.0] + [0.0] * 9))) == []


def test_few_labels_do_not_tell_which_classes_there_are(runs):
    few = labels([2.0] * 8 + [0.0] * 2, [0.0] * 8 + [50.0] * 2)
    assert train_test_mismatch(runs.well(evaluated(0.1), **few)) == []


def test_a_run_too_short_to_judge_is_silent():
    given = inputs(eval_std=20.0)
    assert train_test_mismatch(Record.of({("loss", ""): [1.0, 0.5]}, task=Task("regression", 0, "r2"), **given)) == []
