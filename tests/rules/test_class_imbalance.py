from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from unstuck.evidence import Event, Optimizer, Task, Vector
from unstuck.rules.class_imbalance import class_imbalance


def counts(labels, predictions, rows=10, *, evaluated=False):
    prefix = "eval_" if evaluated else ""
    return {(f"{prefix}label_count", ""): [labels] * rows, (f"{prefix}prediction_count", ""): [predictions] * rows}


def task(classes, kind="classification", chance=0.9):
    return Task(kind, classes, "accuracy", 0.33, chance)


def losses(end=0.3, score=0.9):
    return {("loss", ""): np.linspace(0.7, end, 100), ("score", ""): np.full(100, score)}


def sampled(record, vectors, start=90):
    """The record with vectors sampled from a step on, every step."""
    made = {
        key: tuple(Vector(start + i, np.asarray(row, float)) for i, row in enumerate(rows))
        for key, rows in vectors.items()
    }
    return dataclasses.replace(record, _vectors={**record._vectors, **made})


def run(runs, labels, predictions, **given):
    """A run that learns something, over a hundred steps of which the last ten are sampled."""
    return sampled(runs.learns(losses(), task=task(len(labels)), **given), counts(labels, predictions))


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_even_labels_are_silent(runs, state):
    record = getattr(runs, state)(vectors=counts([3.2] * 10, [32.0] + [0.0] * 9))
    assert class_imbalance(record) == []


@pytest.mark.parametrize(("named", "found"), [(4.0, 0), (0.0, 1)])
def test_a_rare_class_that_is_named_is_silent(runs, named, found):
    assert len(class_imbalance(run(runs, [90, 10], [100 - named, named]))) == found


@pytest.mark.parametrize(("named", "found"), [(0.6, 0), (0.4, 1)])
def test_hardly_ever_is_a_twentieth_of_its_labels(runs, named, found):
    assert len(class_imbalance(run(runs, [90, 10], [100 - named, named]))) == found


@pytest.mark.parametrize(("rare", "found"), [(18, 0), (16, 1)])
def test_five_times_as_frequent(runs, rare, found):
    assert len(class_imbalance(run(runs, [100 - rare, rare], [100, 0]))) == found
    assert len(class_imbalance(run(runs, [80, 20], [100, 0]), ratio=4.0)) == 1


@pytest.mark.parametrize(("rare", "found"), [(0.5, 0), (0.7, 1)])
def test_a_class_must_have_come_to_be_missed(runs, rare, found):
    assert len(class_imbalance(run(runs, [100 - rare, rare], [100, 0]))) == found


@pytest.mark.parametrize(("size", "found"), [(9, 0), (11, 1)])
def test_few_labels_in_all_are_silent(runs, size, found):
    record = run(runs, [0.9 * size, 0.1 * size], [size, 0])
    assert len(class_imbalance(record, labels=1)) == found


def test_only_the_frequent_class_is_a_warning_and_one_of_many_a_note(runs):
    [only] = class_imbalance(run(runs, [90, 6, 4], [100, 0, 0]))
    assert only.severity == "warning"
    assert "classes (1, 2)" in only.says
    assert "balanced accuracy is 0.333 at most" in only.says
    [one] = class_imbalance(run(runs, [50, 46, 4], [52, 48, 0]))
    assert one.severity == "note"
    assert "class 2, 4.0% of the labels" in one.says


@pytest.mark.parametrize(("largest", "severity"), [(50, "note"), (60, "warning")])
def test_half_of_all_labels_make_the_frequent_class_worth_answering(runs, largest, severity):
    [finding] = class_imbalance(run(runs, [largest, *[9] * 6], [largest + 54, *[0] * 6]))
    assert finding.severity == severity


def test_a_network_at_chance_makes_it_less_certain(runs):
    vectors = counts([29, 3], [32, 0])
    stuck = runs.stuck(
        {("loss", ""): np.full(100, 0.33), ("score", ""): np.full(100, 0.9)}, task=task(2), vectors=vectors
    )
    [finding] = class_imbalance(stuck, late=1.0)
    assert finding.confidence == 0.5


def test_what_was_answered_early_does_not_count(runs):
    early = run(runs, [90, 10], [100, 0])
    vectors = counts([90, 10], [50, 50], rows=5)
    both = {key: (*sampled(early, vectors, 0)._vectors[key], *early._vectors[key]) for key in vectors}
    record = dataclasses.replace(early, _vectors=both)
    assert class_imbalance(record)
    assert class_imbalance(record, late=1.0) == []


def test_evaluation_counts_too(runs):
    record = run(runs, [90, 10], [100, 0])
    assert class_imbalance(sampled(record, counts([90, 10], [90, 10], evaluated=True))) == []


def test_several_bits_are_a_note_unless_nothing_is_learned(runs):
    record = run(runs, [95, 5], [100, 0])
    bits = dataclasses.replace(record.program, task=Task("multi-label", 8, "bit_accuracy", 0.5, 0.95))
    [finding] = class_imbalance(dataclasses.replace(record, program=bits))
    assert finding.severity == "note"


@pytest.mark.parametrize("kind", ["tokens", "regression", "unknown"])
def test_tasks_without_a_few_classes_are_silent(runs, kind):
    record = run(runs, [90, 10], [100, 0])
    other = dataclasses.replace(record.program, task=task(2, kind))
    assert class_imbalance(dataclasses.replace(record, program=other)) == []


def test_two_that_take_turns_are_silent(runs):
    both = [Optimizer(steps=100), Optimizer(steps=100)]
    assert class_imbalance(run(runs, [90, 10], [100, 0], optimizers=both)) == []


def test_what_was_counted_at_the_end_counts(runs):
    """Two rare labels late in the run tell nothing; with four more at the end they do, unless they are answered."""
    few = counts([588, 2], [590, 0], rows=1)
    for answered, found in (([400, 0], 1), ([398, 2], 0)):
        probed = Event(100, "probe", data={"name": "answers", "labels": [396, 4], "answers": answered})
        record = sampled(runs.learns(losses(), task=task(2), events=[probed]), few)
        assert len(class_imbalance(record)) == found
    assert class_imbalance(sampled(runs.learns(losses(), task=task(2)), few)) == []
