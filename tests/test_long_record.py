"""Long records: thinned without losing a spike, asked for in parts, judged as they would be without any short cut."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from unstuck import evidence, store
from unstuck.doctor import diagnose
from unstuck.evidence import Record, Series, remembered

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
long_record = pytest.importorskip("long_record", reason="the benchmarks are not here")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20,000 steps and 10 layers."""
    folder = tmp_path_factory.mktemp("run")
    long_record.make(folder / "record.sqlite", steps=20_000, layers=10)
    return folder


def slowly(series: Series, points: int) -> list[int]:
    """Steps that are left, found one after another."""
    keep = {0, len(series) - 1}
    for part in np.array_split(np.arange(len(series)), points // 2):
        finite = [i for i in part if np.isfinite(series.values[i])]
        broken = [i for i in part if not np.isfinite(series.values[i])]
        if finite:
            keep |= {min(finite, key=lambda i: series.values[i]), max(finite, key=lambda i: series.values[i])}
        keep |= set(broken[:1])
    return series.steps[sorted(keep)].tolist()


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 100, 1003])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_thinning_keeps_ends_extremes_and_what_is_not_finite(length: int, share: float):
    random = np.random.default_rng(length)
    values = random.normal(size=length)
    values[random.random(length) < share] = np.inf
    values[random.random(length) < share / 2] = np.nan
    series = Series(np.arange(length) * 3, values)
    thin = series.thinned(10)
    assert thin.steps.tolist() == (slowly(series, 10) if length > 10 else series.steps.tolist())
    assert np.array_equal(thin.values, values[thin.steps // 3], equal_nan=True)
    assert len(thin) <= 17


def test_a_single_spike_and_a_single_nan_in_a_million_are_left():
    values = np.zeros(1_000_000)
    values[[123_457, 777_777]] = 5.0, np.nan
    thin = Series.of(values).thinned(100)
    assert thin.values[thin.steps == 123_457].tolist() == [5.0]
    assert np.isnan(thin.values[thin.steps == 777_777]).all()
    assert 777_777 in thin.steps
    assert len(thin) < 160


def test_a_course_is_a_part_of_the_record(run: Path):
    whole = store.read(run)
    parts = store.course(run, ["loss", "eval_score", "nothing"], points=200)
    assert list(parts) == ["loss", "eval_score"]
    for signal, part in parts.items():
        expected = whole.series(signal).thinned(200)
        assert np.array_equal(part.steps, expected.steps)
        assert np.array_equal(part.values, expected.values, equal_nan=True)
    assert len(parts["loss"]) <= 203


def test_the_benchmark_makes_what_the_watcher_would(run: Path):
    record = store.read(run)
    assert record.steps == len(record.series("loss")) == 20_000
    sampled = record.series("back_rms", "net.0").steps
    assert sampled[:8].tolist() == [0, 1, 2, 4, 8, 16, 32, 64]
    assert 50 < len(sampled) < 200
    assert len(record.happened("epoch")) == 20
    assert np.isnan(record.series("loss").values).sum() == 1


def test_what_is_remembered_changes_no_verdict(run: Path):
    """Numbers that rules ask for again are kept; a record whose numbers are asked for the first time gives the same."""
    record = store.read(run)
    first, again, fresh = diagnose(record), diagnose(record), diagnose(store.read(run))
    assert first == again == fresh
    assert "rule_errors" not in first.run


def test_a_function_is_worked_out_once_for_each_record():
    calls = []

    @remembered
    def length(record: Record) -> int:
        calls.append(record)
        return len(record.series("loss"))

    one, other = Record.of({("loss", ""): [1.0, 2.0]}), Record.of({("loss", ""): [1.0]})
    assert [length(one), length(one), length(other), length(one)] == [2, 2, 1, 2]
    assert [id(record) for record in calls] == [id(one), id(other)]


def test_finite_and_median_are_those_of_the_values():
    series = Series.of([3.0, np.nan, 1.0, np.inf, 2.0])
    assert series.finite.values.tolist() == series.finite.values.tolist() == [3.0, 1.0, 2.0]
    assert series.finite.finite is series.finite
    assert series.median() == series.median() == 2.0
    assert np.isnan(evidence.EMPTY.median())
    assert evidence.EMPTY.finite is evidence.EMPTY


@pytest.mark.slow
def test_a_page_does_not_grow_with_the_run(tmp_path: Path):
    from unstuck.report import html

    sizes = []
    for steps in (20_000, 200_000):
        folder = tmp_path / str(steps)
        folder.mkdir()
        long_record.make(folder / "record.sqlite", steps=steps, layers=10)
        record = store.read(folder)
        sizes.append(len(html.render(diagnose(record), record)))
    assert sizes[1] < 1.3 * sizes[0]
