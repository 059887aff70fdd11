from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Data
from unstuck.rules.unshuffled_data import unshuffled_data


def batches(rows):
    return {"vectors": {("label_count", ""): rows}}


def drawn(size, count=20, classes=10):
    return batches(np.random.default_rng(0).multinomial(size, [1 / classes] * classes, count))


def sorted_by_class(held, size=32, classes=10):
    """Batches that hold `held` neighbouring classes each."""
    rows = np.zeros((classes // held, classes))
    for i, row in enumerate(rows):
        row[i * held : (i + 1) * held] = size / held
    return batches(rows)


@pytest.mark.parametrize("size", [8, 16, 64])
def test_random_batches_are_silent(runs, size):
    for state in ("stuck", "learns", "well"):
        assert unshuffled_data(getattr(runs, state)(**drawn(size))) == []


def test_rare_classes_are_expected_to_be_missing(runs):
    share = [0.91] + [0.01] * 9
    assert unshuffled_data(runs.stuck(**batches(np.random.default_rng(0).multinomial(32, share, 20)))) == []


@pytest.mark.parametrize(("distinct", "found"), [(0.2, 0), (0.22, 1)])
def test_two_classes_of_ten(runs, distinct, found):
    findings = unshuffled_data(runs.well(**sorted_by_class(2)), distinct=distinct)  # of 9.66 expected
    assert len(findings) == found


def test_sorted_batches_are_named_though_training_looks_well(runs):
    [finding] = unshuffled_data(runs.well(data=Data(batch_size=32, shuffled=False), **sorted_by_class(1)))
    assert (finding.severity, finding.layers, finding.treated_by) == ("warning", (), ("shuffle",))
    assert "does not shuffle" in finding.says


def test_evaluation_decides_how_severe_it_is(runs):
    assert [f.severity for f in unshuffled_data(runs.well({("eval_score", ""): [0.95]}, **sorted_by_class(1)))] == [
        "note"
    ]


@pytest.mark.parametrize(("count", "size", "found"), [(3, 32, 0), (4, 32, 1), (10, 7, 0), (10, 8, 1)])
def test_little_was_seen(runs, count, size, found):
    rows = np.eye(10)[:count] * size
    assert len(unshuffled_data(runs.well(**batches(rows)))) == found


def test_one_class_in_all_is_another_cause(runs):
    assert unshuffled_data(runs.stuck(**batches([[32, 0]] * 8))) == []
