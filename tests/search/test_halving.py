"""Stages, and who goes on from one to the next."""

import itertools
import math
import random

import pytest

from unstuck.search.halving import Halving, stages


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, (1,)), (5, (5,)), (6, (3, 6)), (27, (3, 9, 27)), (50, (3, 9, 50)), (81, (3, 9, 27, 81))],
)
def test_stages_grow_by_three_from_three_epochs_on(epochs, expected):
    assert stages(epochs) == expected


def test_the_last_stage_is_all_epochs_and_a_good_step_from_the_one_before():
    for epochs in range(1, 300):
        found = stages(epochs)
        assert found[-1] == epochs
        assert all(b >= 2 * a for a, b in itertools.pairwise(found))


def test_a_third_goes_on_the_best_first():
    halving = Halving()
    for child, quality in enumerate([0.1, 0.9, 0.5, 0.7, 0.3, 0.2]):
        halving.note(child, 0, quality)
    gone = []
    while (found := halving.next()) is not None:
        halving.went_on(*found)
        gone.append(found)
    assert gone == [(1, 0), (3, 0)]


def test_nobody_goes_on_before_there_are_three_and_one_does_at_the_end():
    halving = Halving()
    halving.note(0, 0, 0.5)
    halving.note(1, 0, 0.6)
    assert halving.next() is None
    assert halving.next(over=1) == (1, 0)


def test_later_stages_come_first():
    halving = Halving(eta=2)
    for child in range(4):
        halving.note(child, 0, child / 10)
    for child in (3, 2):
        halving.went_on(child, 0)
        halving.note(child, 1, child / 10)
    assert halving.next() == (3, 1)


def test_nobody_goes_on_from_a_stage_that_is_not_over_where_its_end_is_waited_for():
    halving = Halving()
    for child in range(9):
        halving.note(child, 0, child / 10)
    assert halving.next(over=0) is None
    assert halving.next(over=1) == (8, 0)


def test_the_earliest_stage_comes_first_where_its_end_is_waited_for():
    """Else the only one that has come to the end of a stage would go on, as the best of one."""
    halving = Halving()
    for child in range(9):
        halving.note(child, 0, child / 10)
    halving.went_on(8, 0)
    halving.note(8, 1, 0.8)
    assert halving.next(over=math.inf) == (7, 0)


def test_what_failed_never_goes_on():
    halving = Halving()
    for child in range(9):
        halving.note(child, 0, -math.inf)
    assert halving.next() is None
    assert halving.next(over=math.inf) is None


def test_the_best_of_a_pool_is_found_with_a_small_part_of_the_epochs():
    """Children whose order is known after each stage but for some noise: how the epochs of 81 children are spent."""
    rng = random.Random(0)
    found, spent = 0, 0
    for _ in range(40):
        true = [rng.random() for _ in range(81)]
        halving, ends, epochs = Halving(), stages(81), 0
        for child in range(81):
            epochs += ends[0]
            halving.note(child, 0, true[child] + rng.gauss(0, 0.02))
        best, reached = 0, {c: 0 for c in range(81)}
        while (went := halving.next(over=math.inf)) is not None:
            child, stage = went
            halving.went_on(child, stage)
            epochs += ends[stage + 1] - ends[stage]
            reached[child] = stage + 1
            if stage + 2 < len(ends):
                halving.note(child, stage + 1, true[child] + rng.gauss(0, 0.01))
        best = max(reached, key=lambda c: (reached[c], true[c]))
        found += best == max(range(81), key=lambda c: true[c])
        spent += epochs / (81 * 81)
    assert found >= 38
    assert spent / 40 < 0.12
