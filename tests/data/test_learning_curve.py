from __future__ import annotations

import numpy as np
import pytest

from unstuck.data.learning_curve import learning_curve
from unstuck.errors import MisuseError


def test_subsets_of_a_seed_are_nested_and_those_of_another_are_others():
    seen: dict[int, list[set[int]]] = {}

    def train(indices, seed):
        assert np.all(np.diff(indices) > 0)
        seen.setdefault(seed, []).append(set(indices.tolist()))
        return len(indices) / 100, len(indices) / 200

    curve = learning_curve(train, 100, sizes=[40, 10, 100], seeds=[3, 7])
    assert curve.sizes.tolist() == [10, 40, 100]
    assert curve.evaluation.tolist() == [[0.05, 0.05], [0.2, 0.2], [0.5, 0.5]]
    assert curve.train is not None and curve.train[2].tolist() == [1.0, 1.0]
    for subsets in seen.values():
        assert subsets[0] < subsets[1] < subsets[2] == set(range(100))
    assert seen[3][0] != seen[7][0]


def test_with_labels_each_class_has_its_share_in_every_subset():
    labels = np.repeat([0, 1, 2], [60, 30, 10])

    def train(indices, seed):
        shares = np.bincount(labels[indices], minlength=3) / len(indices)
        assert np.abs(shares - [0.6, 0.3, 0.1]).max() <= 1.01 / len(indices)  # none is off by more than a sample
        return 0.5

    learning_curve(train, 100, sizes=[10, 33, 77, 100], seeds=4, labels=labels)


def test_six_sizes_by_default_the_last_all():
    curve = learning_curve(lambda indices, seed: 0.5, 1000)
    assert curve.sizes.tolist() == [95, 153, 244, 391, 625, 1000] and curve.evaluation.shape == (6, 3)
    assert curve.train is None


@pytest.mark.parametrize(
    "settings, returned, said",
    [
        ({"sizes": [0, 5]}, 0.5, "sizes"),
        ({"sizes": [5, 11]}, 0.5, "from 1 to 10"),
        ({"seeds": 0}, 0.5, "no seeds"),
        ({}, "good", "the evaluation's score is needed"),
        ({}, (1, 2, 3), "the evaluation's score is needed"),
    ],
)
def test_what_makes_no_curve(settings, returned, said):
    with pytest.raises(MisuseError, match=said):
        learning_curve(lambda indices, seed: returned, 10, **settings)
