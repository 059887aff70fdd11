from __future__ import annotations

import math

import numpy as np
import pytest

from unstuck.evidence import Event
from unstuck.rules.non_finite import non_finite

NAN = math.nan


def event(layer="train.py:9 log", **data):
    return Event(40, "non-finite", layer, {"what": "activation", "op": "log", "before": 3.0, "how": "", **data})


def test_finite_runs_are_silent(runs):
    for state in ("stuck", "learns", "well"):
        assert non_finite(getattr(runs, state)()) == []


def test_the_first_place_is_named(runs):
    [finding] = non_finite(runs.diverges(events=[event()]))
    assert (finding.severity, finding.layers) == ("error", ("train.py:9 log",))
    assert "step 40" in finding.says
    assert "log" in finding.says
    assert finding.treated_by[0] == "output-loss"


def test_a_loss_that_ends_in_nan_is_named_without_an_event(runs):
    [finding] = non_finite(runs.diverges())
    assert (finding.severity, finding.layers) == ("error", ())
    assert "step 40" in finding.says


def test_a_loss_that_was_not_measured_is_silent(runs):
    assert non_finite(runs.well({("loss", ""): np.where(np.arange(100) % 3, 0.1, NAN)})) == []


def test_weights_that_stay_bad_are_named(runs):
    [finding] = non_finite(runs.stuck({("weight_nonfinite", "fc.weight"): [0, 0, 0.5]}))
    assert (finding.severity, finding.layers) == ("error", ("fc.weight",))
    assert non_finite(runs.stuck({("grad_nonfinite", "fc.weight"): [0, 0.5, 0]})) == [], "it recovered"


def test_masked_activations_are_silent(runs):
    assert non_finite(runs.well({("act_nonfinite", "log_softmax"): [0.3] * 5})) == []


@pytest.mark.parametrize(("bad", "severity"), [(2, "note"), (3, "warning")])
def test_what_recovers_is_no_error(runs, bad, severity):
    loss = np.full(100, 0.5)
    loss[10 : 10 + bad] = math.inf
    assert [f.severity for f in non_finite(runs.well({("loss", ""): loss}, events=[event()]))] == [severity]


def test_a_gradient_scaler_finds_its_scale(runs):
    overflow = event(what="gradient", op="")
    assert non_finite(runs.well(events=[overflow], features=["GradScaler"])) == []
    assert non_finite(runs.well(events=[overflow]))


def test_bad_data_have_no_remedy_here(runs):
    [finding] = non_finite(runs.diverges(events=[event(what="input", op="", before=None)]))
    assert finding.treated_by == ()


def evaluated(what="output", **data):
    return Event(90, "eval-non-finite", "", {"what": what, "passes": 2, "bad": 1, "batches": 3, **data})


@pytest.mark.parametrize("state", ["stuck", "learns", "well"])
def test_evaluation_alone(runs, state):
    [finding] = non_finite(getattr(runs, state)(events=[evaluated()]))
    assert finding.severity == "warning"
    assert "evaluated after step 90" in finding.says
    assert "1 of 3 batches" in finding.says
    assert "its inputs are finite" in finding.says
    [finding] = non_finite(getattr(runs, state)(events=[evaluated("input")]))
    assert "what it is given there holds NaN" in finding.says


def test_evaluation_of_a_broken_network_is_no_cause(runs):
    [finding] = non_finite(runs.diverges(events=[event(), evaluated()]))
    assert "evaluated" not in finding.says


def test_a_mean_over_nothing_is_said(runs):
    [finding] = non_finite(
        runs.diverges(events=[event("train.py:20 nll_loss", what="loss", op="nll_loss", empty=True)])
    )
    assert "a mean over nothing" in finding.says
    assert finding.treated_by == ()
