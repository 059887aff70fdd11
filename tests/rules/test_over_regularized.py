from __future__ import annotations

import dataclasses

import pytest

from unstuck.evidence import Event, Layer, Optimizer
from unstuck.rules.over_regularized import over_regularized


def dropping(runs, *rates):
    ops = [op for _ in rates for op in ("linear", "dropout")]
    given = runs.chain(*ops, "linear")
    drops = iter(rates)
    given["layers"] = [
        dataclasses.replace(layer, settings={"p": next(drops)}) if layer.op == "dropout" else layer
        for layer in given["layers"]
    ]
    return given


@pytest.mark.parametrize("rates", [(), (0.5,), (0.5, 0.5, 0.5), (0.8,), (0.6, 0.5)])
def test_usual_dropout_is_silent(runs, rates):
    assert over_regularized(runs.stuck(**dropping(runs, *rates))) == []


@pytest.mark.parametrize("rates", [(0.6, 0.6), (0.8, 0.8, 0.8), (0.9,)])
def test_strong_dropout_is_named(runs, rates):
    [finding] = over_regularized(runs.stuck(**dropping(runs, *rates)))
    assert (finding.severity, finding.treated_by) == ("error", ("dropout",))
    assert finding.layers == tuple(f"dropout{2 * i + 1}" for i in range(len(rates)))


@pytest.mark.parametrize(("state", "severities"), [("learns", ["warning"]), ("well", []), ("diverges", [])])
def test_how_severe_it_is(runs, state, severities):
    assert [f.severity for f in over_regularized(getattr(runs, state)(**dropping(runs, 0.8, 0.8)))] == severities


def test_dropout_is_a_note_where_it_came_half_of_the_way(runs):
    better = {("score", ""): 0.7 - 0.6 * runs.falling}
    assert [f.severity for f in over_regularized(runs.learns(better, **dropping(runs, 0.6, 0.6)))] == ["note"]


@pytest.mark.parametrize(("left", "found"), [(0.11, 0), (0.09, 1)])
def test_weights_that_shrink_away(runs, left, found):
    series = {("weight_rms", "linear0.weight"): [1.0, 0.5, left]}
    decay = [Optimizer("Adam", settings={"weight_decay": 1.0}, steps=100)]
    findings = over_regularized(runs.stuck(series, optimizers=decay, **runs.chain("linear")))
    assert len(findings) == found
    assert all("weight decay of 1.00" in f.says and f.treated_by == ("weight-decay",) for f in findings)


def test_shrinking_is_no_fault_where_it_learns(runs):
    series = {("weight_rms", "linear0.weight"): [1.0, 0.5, 0.01]}
    assert over_regularized(runs.learns(series, **runs.chain("linear"))) == []


def test_a_penalty_that_dwarfs_the_loss_is_named(runs):
    def penalised(part, left):
        net = runs.chain("linear", "relu", "linear")
        series = {("loss_part", "train.py:9"): [part, 0.9], ("weight_rms", "linear0.weight"): [1.0, left]}
        return over_regularized(runs.stuck(series, **net))

    [finding] = penalised(0.02, 0.3)
    assert (finding.severity, finding.confidence) == ("error", 0.9)
    assert "2.0%" in finding.says
    assert "linear0.weight" in finding.says
    assert penalised(0.02, 0.9) == [], "the weights bear it"
    assert penalised(0.9, 0.3) == []


def test_usual_dropout_is_named_where_it_hurts(runs):
    def dropped(layers, **tried):
        given = {"layers": [Layer(f"drop{i}", "dropout", settings={"p": 0.5}) for i in range(layers)]}
        events = [
            Event(99, "probe", data={"name": "unregularized", "steps": 50, "kept": 1.0, "own_kept": 1.0, **tried})
        ]
        return over_regularized(runs.learns(events=events, **given))

    better = {"without": 0.8, "own_without": 0.7}
    assert [f.severity for f in dropped(3, **better)] == ["warning"]
    assert dropped(2, **better) == [], "a quarter of the paths is enough"
    assert dropped(3, **{**better, "without": 1.1}) == [], "without it, it learns by heart"
    assert dropped(3, **{**better, "own_without": 0.95}) == []
    assert dropped(3, **{**better, "steps": 5}) == []
