from __future__ import annotations

import math

import numpy as np
import pytest

from unstuck.data.wrong_labels import by_epochs, by_folds
from unstuck.errors import MisuseError


def test_confident_disagreement_on_paper():
    # thresholds, means of a class' own probability over its samples: (0.9 + 0.8 + 0.1) / 3 = 0.6, and (0.9 + 0.3) / 2 = 0.6
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.1, 0.9], [0.7, 0.3]])
    found = by_folds(chances, [0, 0, 0, 1, 1])
    assert [(s.number, s.label, s.suggests) for s in found] == [(2, 0, 1), (4, 1, 0)]
    assert found[0].strength == pytest.approx(0.8)
    assert not by_folds(chances[:2], [0, 0])


@pytest.mark.slow
def test_labels_that_were_exchanged_are_among_the_suspects():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    inputs, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    bad = generator.choice(len(labels), 50, replace=False)
    labels[bad] = (labels[bad] + generator.integers(1, 10, 50)) % 10
    chances = cross_val_predict(LogisticRegression(max_iter=300), inputs / 16, labels, cv=4, method="predict_proba")
    found = by_folds(chances, labels, inputs=inputs.reshape(-1, 8, 8))
    first = {s.number for s in found[:50]}
    assert len(first & set(bad.tolist())) >= 30  # by chance it would be one or two
    assert len(found) < 80
    assert found[0].input.shape == (8, 8) and found[0].to_json()["input"]["kind"] == "image"


def test_what_stays_less_likely_than_chance_is_suspected():
    epochs, samples = 10, 60
    losses = np.tile(np.linspace(2.5, 0.05, epochs)[:, None], (1, samples))
    losses[:, 7] = 4.0
    losses[:, 9] = np.where(np.arange(epochs) < 9, 3.0, 0.1)  # learned by heart in the end
    losses[:, 11] = np.where(np.arange(epochs) % 2, 3.0, 0.1)  # now and then
    found = by_epochs(losses, np.arange(samples) % 10, 10)
    assert [(s.number, s.suggests) for s in found] == [(7, None), (9, None)]
    assert found[0].strength == pytest.approx(4.0 / math.log(10))


def test_a_network_that_never_learned_suspects_nothing():
    assert by_epochs(np.full((10, 20), 2.3), np.zeros(20, int), 10) == ()
    assert by_epochs(np.full((2, 20), 0.1), np.zeros(20, int), 10) == ()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: by_folds(np.zeros((3, 2)), [0, 1]), "are needed"),
        (lambda: by_folds(np.zeros((2, 2)), [0.0, 1.0]), "are needed"),
        (lambda: by_folds(np.zeros((2, 2)), [0, 2]), "no classes"),
        (lambda: by_folds(np.full((2, 2), 3.0), [0, 1]), "take the softmax"),
        (lambda: by_epochs(np.zeros(3), [0, 1, 2], 3), "are needed"),
        (lambda: by_epochs(np.zeros((3, 2)), [0, 1], 1), "at least two"),
    ],
)
def test_what_does_not_fit(make, said):
    with pytest.raises(MisuseError, match=said):
        make()
