from __future__ import annotations

import numpy as np
import pytest

from unstuck.data.epoch_curve import course
from unstuck.errors import MisuseError

EPOCHS = np.arange(40)


def test_training_that_settled_is_not_improving():
    found = course(np.exp(-EPOCHS / 4) + 0.1, None, higher_is_better=False)
    assert found.improving is False and found.turned_at is None


def test_a_straight_fall_is_improving_and_its_last_quarter_is_a_quarter():
    found = course(2 - EPOCHS / 40, None, higher_is_better=False)
    assert found.improving is True
    assert found.last_quarter == pytest.approx(
        0.25 / (1 - 0.125 - 0.05), abs=0.03
    )  # means over the ends shorten the way
    assert course(EPOCHS / 40, None).improving is True


def test_progress_within_noise_is_none():
    noise = np.random.default_rng(0).normal(0, 0.2, 40)
    assert course(1 + noise, None, higher_is_better=False).improving is False


def test_where_evaluation_turned():
    evaluation = np.where(EPOCHS <= 12, 2 - EPOCHS / 10, 0.8 + (EPOCHS - 12) / 20)
    found = course(np.exp(-EPOCHS / 4), evaluation, higher_is_better=False)
    assert found.turned_at == 12
    assert found.got_worse == pytest.approx(0.05 * 27, rel=0.1)
    assert course(None, -evaluation / 3).turned_at == 12  # scores, of which higher is better


@pytest.mark.parametrize("rise", [0.15, 0.25])
def test_evaluation_turns_when_it_rises_by_a_fifth(rise):
    evaluation = np.where(EPOCHS <= 10, 2 - EPOCHS / 10, 1 + rise * (EPOCHS - 10) / 28)
    assert (course(None, evaluation, higher_is_better=False).turned_at is not None) == (rise > 0.2)


def test_one_odd_evaluation_is_no_turn():
    evaluation = 1 / (1 + EPOCHS)
    evaluation[-1] = 5.0
    assert course(None, evaluation, higher_is_better=False).turned_at is None


def test_too_few_say_nothing():
    found = course([1.0, 0.5, 0.2], [1.0, 2.0, 3.0], higher_is_better=False)
    assert found.improving is None and found.turned_at is None


def test_scores_of_several_seeds_are_refused():
    with pytest.raises(MisuseError, match="one score for each epoch"):
        course(np.zeros((3, 4)), None)
