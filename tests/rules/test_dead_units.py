from __future__ import annotations

import pytest

from unstuck.evidence import Data
from unstuck.rules.dead_units import dead_units


def relu(share, window=8, zero=0.5, born=0.5):
    return {
        ("dead_share", "relu1"): [share] * 5,
        ("dead_window", "relu1"): [window] * 5,
        ("act_zero", "relu1"): [born] + [zero] * 4,
    }


def layers(runs):
    return runs.chain("linear", "relu", "linear")


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_living_units_are_silent(runs, state):
    assert dead_units(getattr(runs, state)(relu(0.1), **layers(runs))) == []


@pytest.mark.parametrize(("share", "found"), [(0.49, 0), (0.5, 1)])
def test_half_of_a_layer(runs, share, found):
    assert len(dead_units(runs.stuck(relu(share), **layers(runs)))) == found
    assert len(dead_units(runs.stuck(relu(share), **layers(runs)), fraction=0.4)) == 1


@pytest.mark.parametrize(
    ("state", "share", "severity"),
    [("stuck", 1.0, "error"), ("stuck", 0.85, "warning"), ("stuck", 0.6, "note"), ("learns", 0.85, "warning"), ("learns", 0.6, "note"),
     ("well", 1.0, "note")],
)  # fmt: skip
def test_how_severe_it_is(runs, state, share, severity):
    [finding] = dead_units(getattr(runs, state)(relu(share), **layers(runs)))
    assert (finding.severity, finding.layers) == (severity, ("relu1",))


def test_it_says_since_when(runs):
    assert "from the start" in dead_units(runs.stuck(relu(1.0, zero=1.0, born=1.0), **layers(runs)))[0].says
    assert (
        "50% of its outputs were zero at step 0" in dead_units(runs.stuck(relu(1.0, zero=1.0), **layers(runs)))[0].says
    )


@pytest.mark.parametrize(("window", "batch", "found"), [(2, 64, 0), (3, 64, 1), (8, 4, 0), (16, 4, 1)])
def test_the_window_must_have_seen_enough(runs, window, batch, found):
    record = runs.stuck(relu(1.0, window), data=Data(batch_size=batch), **layers(runs))
    assert len(dead_units(record)) == found


@pytest.mark.parametrize(("zero", "found"), [(0.96, 0), (0.97, 1)])
def test_in_a_short_run_outputs_that_are_nearly_all_zero_count_as_dead(runs, zero, found):
    growing = {**relu(0.1, zero=zero), ("dead_window", "relu1"): [1, 2, 3, 4, 5]}
    assert len(dead_units(runs.stuck(growing, **layers(runs)))) == found


def test_sparse_outputs_of_living_units_are_silent(runs):
    assert dead_units(runs.stuck(relu(0.1, zero=0.99), **layers(runs))) == []


def test_all_layers_are_one_finding(runs):
    both = {**relu(1.0), ("dead_share", "relu3"): [0.9] * 5, ("dead_window", "relu3"): [8] * 5}
    [finding] = dead_units(runs.stuck(both, **runs.chain("linear", "relu", "linear", "relu", "linear")))
    assert finding.layers == ("relu1", "relu3")
    assert finding.says.startswith("all units of relu1")


def test_other_activations_are_never_dead(runs):
    series = {("dead_share", "gelu1"): [1.0] * 5, ("dead_window", "gelu1"): [8] * 5, ("act_zero", "gelu1"): [1.0] * 5}
    assert dead_units(runs.stuck(series, **runs.chain("linear", "gelu", "linear"))) == []
