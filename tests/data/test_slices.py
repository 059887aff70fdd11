from __future__ import annotations

import numpy as np
import pytest
import torch

from unstuck.data._intervals import fisher
from unstuck.data.judging import Collector
from unstuck.data.slices import slices
from unstuck.errors import MisuseError


def collected(outputs, targets):
    collector = Collector()
    collector.update(torch.as_tensor(outputs), torch.as_tensor(targets))
    return collector.judged()


def wrong_in(wrong: np.ndarray):
    return collected(np.eye(2)[wrong.astype(int)] * 4.0, np.zeros(len(wrong), int))


def test_a_group_that_does_worse_is_found_and_its_neighbours_are_not():
    group, generator = np.repeat(["day", "dusk", "night"], 200), np.random.default_rng(0)
    wrong = generator.uniform(size=600) < np.where(group == "night", 0.25, 0.05)
    found = slices(wrong_in(wrong), group)
    assert [s.name for s in found if s.worse] == ["night"]
    night = found[0]
    assert (night.count, night.error, night.rest) == (200, wrong[400:].mean(), wrong[:400].mean())
    assert night.chance == pytest.approx(fisher(int(wrong[400:].sum()), 200, int(wrong[:400].sum()), 400))


def test_of_many_groups_without_a_difference_none_is_named():
    times = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        found = slices(wrong_in(generator.uniform(size=400) < 0.2), generator.integers(20, size=400))
        times += any(s.worse for s in found)
    assert times <= 3  # of 20 at a level of 0.05; uncorrected it would be most of them


def test_several_groupings_are_corrected_together_and_told_by_name():
    wrong = np.arange(60) % 5 == 0
    found = slices(wrong_in(wrong), {"half": np.arange(60) // 30, "all": np.zeros(60)})
    assert sorted(s.name for s in found) == ["half 0", "half 1"]  # a group of all has nothing to be compared with


def test_numbers_and_sequences_are_compared_by_exchange():
    generator, group = np.random.default_rng(0), np.arange(200) % 2
    errors = generator.normal(size=200) * np.where(group == 1, 3.0, 1.0)
    found = slices(collected(errors, np.zeros(200) + 0.5), group)
    assert [s.name for s in found if s.worse] == ["1"]
    answers = (generator.uniform(size=(200, 6)) < np.where(group == 1, 0.5, 0.1)[:, None]).astype(int)
    found = slices(collected(np.moveaxis(np.eye(2)[answers], -1, 1) * 4.0, np.zeros((200, 6), int)), group)
    assert [s.name for s in found if s.worse] == ["1"] and found[0].error in (answers[1::2].mean(), answers[::2].mean())


def test_each_sample_needs_a_group():
    with pytest.raises(MisuseError, match="one for each of 4 samples"):
        slices(wrong_in(np.zeros(4, bool)), [1, 2])
    with pytest.raises(MisuseError, match="4 of 4 groups are missing"):
        slices(wrong_in(np.zeros(4, bool)), [np.nan] * 4)
