from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from unstuck.data._intervals import wilson
from unstuck.data.error_analysis import analyze
from unstuck.data.judging import Collector
from unstuck.errors import MisuseError

NAMES = ["cat", "dog", "owl"]


def collected(outputs, targets, **settings):
    collector = Collector(**settings)
    collector.update(torch.as_tensor(outputs), torch.as_tensor(targets))
    return collector.judged()


@pytest.fixture
def animals():
    """Ten of each; three cats are taken for dogs, one owl for a cat, more and less confidently."""
    targets = np.repeat([0, 1, 2], 10)
    answers, sure = targets.copy(), np.full(30, 2.0)
    answers[[1, 4, 7]], answers[25] = 1, 0
    sure[[1, 4, 7, 25]] = [3.0, 5.0, 4.0, 6.0]
    return collected(np.eye(3)[answers] * sure[:, None], targets)


def test_the_most_confident_errors_come_first(animals):
    found = analyze(animals, names=NAMES, worst=3)
    assert [(s.number, s.target, s.prediction) for s in found.worst] == [
        (25, "owl", "cat"), (4, "cat", "dog"), (7, "cat", "dog"),
    ]  # fmt: skip
    assert len(analyze(animals).worst) == 4  # what is right isn't listed


def test_pairs_and_the_matrix_count_what_was_taken_for_what(animals):
    found = analyze(animals, names=NAMES)
    assert found.matrix is not None and found.matrix.tolist() == [[7, 3, 0], [0, 10, 0], [1, 0, 9]]
    first = found.pairs[0]
    assert (first.target, first.prediction, first.count, first.share, first.samples) == (
        "cat",
        "dog",
        3,
        0.3,
        (4, 7, 1),
    )
    assert (first.low, first.high) == pytest.approx(wilson(0.3, 10))
    assert len(found.pairs) == 2


def test_recall_and_precision_are_those_of_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support

    generator = np.random.default_rng(0)
    outputs, targets = generator.normal(size=(200, 4)), generator.integers(4, size=200)
    found = {c.name: c for c in analyze(collected(outputs, targets)).classes}
    precision, recall, _, counts = precision_recall_fscore_support(targets, outputs.argmax(1))
    for i in range(4):
        assert found[str(i)].recall.share == pytest.approx(recall[i])
        assert found[str(i)].precision.share == pytest.approx(precision[i])
        assert found[str(i)].recall.count == counts[i]


def test_labels_have_recall_and_precision_too():
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    given = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], np.float32)
    found = {c.name: c for c in analyze(collected(given * 4 - 2, truth), names=["wet", "cold"]).classes}
    assert (found["wet"].recall.share, found["wet"].precision.share) == (0.5, 0.5)
    assert (found["cold"].recall.share, found["cold"].precision.share) == (1.0, 1.0)


def test_a_network_that_is_as_sure_as_it_is_right_is_calibrated():
    generator = np.random.default_rng(0)
    sure = generator.uniform(0.5, 1, 20_000)
    right = generator.uniform(size=20_000) < sure
    outputs = np.stack([sure, 1 - sure], axis=1)
    honest = analyze(collected(outputs, np.where(right, 0, 1), scale="probabilities")).calibration
    assert honest is not None and honest.error < 0.015  # eight bins of 2500: 0.008 each by chance
    boasting = analyze(collected(outputs, np.where(generator.uniform(size=20_000) < 0.5, 0, 1))).calibration
    assert boasting is not None and boasting.error == pytest.approx(0.25, abs=0.01)


def test_numbers_have_worst_samples_and_no_classes():
    found = analyze(collected(np.array([[1.0], [2.0], [9.0]]), np.array([1.0, 2.5, 3.2])), worst=2)
    assert [s.number for s in found.worst] == [2, 1] and found.worst[0].target == pytest.approx(3.2)
    assert found.error is None and found.matrix is None and found.classes == () and found.calibration is None


def test_inputs_come_from_where_they_are(animals):
    texts = [f"text {i}" for i in range(30)]
    assert analyze(animals, inputs=texts).worst[0].input == "text 25"
    pictures = torch.arange(30.0)[:, None, None].expand(30, 4, 4)
    dataset = torch.utils.data.TensorDataset(pictures, torch.zeros(30))
    for inputs in (pictures, pictures.numpy(), dataset):
        assert np.array_equal(analyze(animals, inputs=inputs).worst[0].input, np.full((4, 4), 25.0))
    tokens = np.stack([np.arange(30), np.arange(30) % 2 + 90], axis=1)
    assert analyze(animals, inputs=tokens, vocabulary={25: "hoot", 91: "!"}).worst[0].input == "hoot !"
    assert analyze(animals, inputs=tokens, vocabulary=["a"]).worst[0].input == "<25> <91>"


def test_it_can_be_written_as_json(animals):
    found = analyze(animals, names=NAMES, inputs=np.zeros((30, 8, 8)), groups=np.arange(30) % 2)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["worst"][0]["input"]["kind"] == "image" and told["pairs"][0]["count"] == 3
    assert len(told["slices"]) == 2 and set(told["examples"]) == {"25", "4", "7", "1"}


def test_many_classes_have_no_matrix():
    outputs = np.eye(200)[[5, 6, 7]] * 9
    found = analyze(collected(outputs, np.array([5, 6, 8])))
    assert found.matrix is None and [c.name for c in found.classes] == ["8", "5", "6", "7"]


def test_each_class_needs_a_name(animals):
    with pytest.raises(MisuseError, match="2 names of 3 classes"):
        analyze(animals, names=["a", "b"])
