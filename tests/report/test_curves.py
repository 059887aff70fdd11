"""Series made fit to look at keep what matters: spikes, gaps, and flatness."""

from __future__ import annotations

import math

import numpy as np

from unstuck.evidence import Event, Record, Series, Task
from unstuck.report._curves import broke_at, by_step, courses, shown_until, smooth, spark, split_gaps, thin
from unstuck.verdict import Verdict

NAN = math.nan


def test_thin_keeps_spikes_and_ends_and_few_points() -> None:
    values = np.sin(np.arange(100_000) / 1000)
    values[54_321] = 50.0
    values[12_345] = -50.0
    thinned = thin(Series.of(values), 400)
    assert len(thinned) <= 802
    assert {0, 12_345, 54_321, 99_999} <= set(thinned.steps.tolist())
    assert (np.diff(thinned.steps) > 0).all()


def test_steps_without_a_measurement_are_no_gap_but_long_runs_and_the_end_are() -> None:
    sparse = split_gaps(Series.of([1.0, NAN, 2.0, NAN, 3.0]))
    assert sparse.steps.tolist() == [0, 2, 4]
    broken = split_gaps(Series.of([1.0, 2.0, NAN, math.inf, NAN]))
    assert broken.steps.tolist() == [0, 1, 2]
    assert math.isnan(broken.values[-1])
    hole = np.arange(1000.0)
    hole[300:400] = NAN
    assert np.isnan(split_gaps(Series.of(hole)).values).sum() == 1


def test_a_gap_survives_thinning() -> None:
    values = np.ones(10_000)
    values[7000:] = NAN
    thinned = thin(Series.of(values))
    assert math.isnan(thinned.last)
    assert thinned.steps[-1] == 7000


def test_smooth_is_the_running_median() -> None:
    values = np.arange(1000.0)
    values[500] = 1e9
    soft = smooth(Series.of(values))
    assert len(soft) == 200
    # The median of a straight line is the line; one spike moves it by at most one place.
    inner = (soft.steps > 20) & (soft.steps < 980)
    assert np.abs(soft.values - soft.steps)[inner].max() <= 1
    assert not len(smooth(Series.of([1.0, 2.0])))


def test_spark_is_flat_for_noise_and_marks_what_has_no_height() -> None:
    assert spark([2.30, 2.31, 2.30, 2.305], "linear").strip("▄▅") == ""
    assert spark([0, 1], "linear") == "▁█"
    assert spark([1e-16, 1e-8, 1.0, 0.0, NAN, math.inf], "log") == "▁▅█0××"
    assert spark([0.0, 0.5, 1.0], "share") == "▁▅█"
    assert not spark([], "linear")
    assert spark([NAN], "linear") == "×"
    assert spark([0.0, 0.0], "linear") == "▅▅"


def test_by_step_averages_and_holds_and_breaks() -> None:
    assert by_step(Series.of([1, 3, 5, 7]), 2, broken=False).tolist() == [2, 6]
    assert by_step(Series.of([1.0, NAN, NAN, 4.0]), 4, broken=False).tolist() == [1, 1, 1, 4]
    end = by_step(Series.of([1.0, 2.0, NAN, NAN]), 4, broken=True)
    assert end[:2].tolist() == [1, 2]
    assert np.isnan(end[2:]).all()
    assert len(by_step(Series.of([]), 10, broken=False)) == 0
    assert np.isnan(by_step(Series.of([NAN, NAN]), 10, broken=False)).all()
    assert by_step(Series.of([NAN, NAN, 3.0, 3.0]), 4, broken=False).tolist() == [3, 3, 3, 3]


def test_courses_tell_first_last_and_chance() -> None:
    record = Record.of(
        {("loss", ""): [2.3] * 50 + [1.0] * 50, ("score", ""): [0.1] * 50 + [0.9] * 50},
        task=Task("classification", 10, "accuracy", 2.302, 0.1),
    )
    loss, score = courses(Verdict("healthy"), record)
    assert str(loss) == "loss 2.30 → 1.00 (chance 2.30)"
    assert str(score) == "accuracy 0.100 → 0.900 (chance 0.100)"
    assert score.scale == "share"


def test_a_loss_that_ended_in_nan_says_so_and_one_unmeasured_does_not() -> None:
    series = {("loss", ""): [1.0, 0.9, NAN]}
    assert courses(Verdict("unknown"), Record.of(series))[0].last == 0.9
    broken = courses(Verdict("sick"), Record.of(series, events=[Event(2, "non-finite")]))[0]
    assert str(broken) == "loss 1.00 → NaN"


def test_pictures_of_a_run_that_broke_early_end_soon_after() -> None:
    broken = Record.of({("loss", ""): [9.0, 1.0, 8.0] * 5 + [NAN] * 985}, events=[Event(15, "non-finite")])
    late = Record.of({("loss", ""): [1.0] * 90 + [NAN] * 10}, events=[Event(90, "non-finite")])
    well = Record.of({("loss", ""): [1.0] * 100})
    assert [broke_at(record) for record in (broken, late, well)] == [15, 90, None]
    assert [shown_until(record) for record in (broken, late, well)] == [30, None, None]
    (course,) = courses(Verdict("sick"), broken)
    assert course.series.steps.tolist() == list(range(31))
    assert spark(by_step(course.series, 31, broken=True), course.scale).startswith("█▁█" * 5 + "×")


def test_an_evaluation_has_a_course_of_its_own_beside_that_of_training() -> None:
    series = {("eval_score", ""): [0.2, NAN, 0.7]}
    task = Task("classification", 10, "accuracy", 2.302, 0.1)
    assert [course.name for course in courses(Verdict("healthy"), Record.of(series, task=task))] == ["accuracy"]
    both = courses(Verdict("healthy"), Record.of(series | {("score", ""): [0.1, 0.5, 0.9]}, task=task))
    assert [str(course) for course in both] == [
        "accuracy 0.100 → 0.900 (chance 0.100)",
        "evaluation 0.200 → 0.700",
    ]
    assert both[1].scale == "share"


def test_nothing_measured_has_no_course() -> None:
    assert courses(Verdict("unknown"), Record()) == []
    assert courses(Verdict("unknown", run={"score": {"name": "", "first": None, "last": None}}), Record()) == []
