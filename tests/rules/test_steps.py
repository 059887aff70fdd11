"""A batch that breaks a training is found as by looking at one step after the other."""

from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Record, Series
from unstuck.rules._steps import struck_at


def slowly(record, jump=20.0, calm=10, few=20):
    """The same, step by step."""
    loss = record.series("loss")
    values, norms = loss.values, record.series("grad_norm").finite
    for i in range(few, len(values)):
        before = values[i - calm : i]
        if not np.isfinite(before).all() or not values[i] > max(jump * np.abs(before).max(), 2 * np.nanmax(values[:i])):
            continue
        usual, after = norms.until(int(loss.steps[i])), values[i + 1 : i + 1 + calm]
        broke = len(after) > 0 and (not np.isfinite(after).all() or np.median(after) > 2 * np.median(before))
        learned = np.median(before) < 0.5 * values[0]
        quiet = len(usual) < calm or usual.last <= 3 * float(np.median(usual.values[-calm * 3 :]))
        return int(loss.steps[i]) if broke and learned and quiet else None
    return None


def struck(length=60, at=40, loss=90.0, after=5.0):
    """A loss that falls, until one batch stands out."""
    values = 2.0 * np.exp(-np.arange(length) / 10)
    values[at] = loss
    values[at + 1 :] = after
    return Record.of({("loss", ""): values, ("grad_norm", ""): np.ones(length)})


def test_the_step_is_told():
    assert struck_at(struck()) == 40


@pytest.mark.parametrize("given", [{"loss": 1.0}, {"after": 0.03}, {"at": 19}, {"at": 59}, {"length": 5, "at": 3}])
def test_nothing_is_told_of_others(given):
    assert struck_at(struck(**given)) is None


def random_run(seed):
    random = np.random.default_rng(seed)
    length = int(random.integers(0, 80))
    loss = 2 * np.exp(-np.arange(length) / random.uniform(3, 40)) * np.exp(0.2 * random.standard_normal(length))
    if length:
        some = random.integers(0, length, random.integers(0, 4))
        loss[some] *= random.choice([-1, 10, 50, 1e4, np.inf, np.nan], len(some))
        loss[int(random.integers(0, length)) + 1 :] *= random.choice([1, 3, 100, -1, np.nan])
    norms = np.exp(0.5 * random.standard_normal(length)) * random.choice([1, 1, 1, np.nan], length)
    steps = np.cumsum(random.integers(1, 3, length))
    return Record.of({("loss", ""): Series(steps, loss), ("grad_norm", ""): Series(steps, norms)})


def test_it_is_as_step_by_step():
    found = [struck_at(random_run(seed)) for seed in range(500)]
    assert found == [slowly(random_run(seed)) for seed in range(500)]
    assert sum(step is not None for step in found) > 20
