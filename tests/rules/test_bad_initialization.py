from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from unstuck.evidence import Event, Task
from unstuck.rules.bad_initialization import bad_initialization

NET = ("linear", "relu", "linear", "relu", "linear")


def start(runs, ops=NET, **initial):
    """A network whose named weights start as given: start(runs, linear0={"std": 0.0})."""
    given = runs.chain(*ops)
    given["parameters"] = [
        dataclasses.replace(p, initial={**p.initial, **initial.get(p.name.removesuffix(".weight"), {})})
        for p in given["parameters"]
    ]
    return given


def alive(**sizes):
    gradients = {"linear0": 0.1, "linear2": 0.1, "linear4": 0.1, **sizes}
    return {("grad_rms", f"{name}.weight"): [size] * 5 for name, size in gradients.items()}


ZERO = {"std": 0.0, "max": 0.0, "zero_share": 1.0, "identical_rows": 1.0}
ONES = {**ZERO, "max": 1.0, "zero_share": 0.0}


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_usual_weights_are_silent(runs, state):
    assert bad_initialization(getattr(runs, state)(alive(), **start(runs))) == []


def test_zero_weights_that_never_move_are_named(runs):
    [finding] = bad_initialization(runs.stuck(alive(linear0=0.0), **start(runs, linear0=ZERO)))
    assert (finding.severity, finding.layers) == ("error", ("linear0",))
    assert "no gradient" in finding.says


def test_zero_weights_that_move_are_silent(runs):
    assert bad_initialization(runs.learns(alive(), **start(runs, linear2=ZERO))) == []


def test_a_zero_last_layer_is_good_practice(runs):
    assert bad_initialization(runs.learns(alive(linear4=0.0), **start(runs, linear4=ZERO))) == []


def test_constant_weights_are_named(runs):
    [finding] = bad_initialization(runs.learns(alive(), **start(runs, linear0=ONES)))
    assert (finding.severity, finding.layers) == ("warning", ("linear0",))
    assert bad_initialization(runs.well(alive(), **start(runs, linear0=ONES))) == []


def test_weights_that_are_all_alike_stay_alike(runs):
    [finding] = bad_initialization(runs.stuck(alive(), **start(runs, linear0=ONES, linear2=ONES, linear4=ONES)))
    assert "stay alike" in finding.says
    assert finding.layers == ("linear0", "linear2")


LARGE = {"std": 1.0, "fan_in": 784.0}


@pytest.mark.parametrize(("loss", "found"), [(6.8, 0), (7.0, 1)])
def test_large_weights_with_a_loss_above_chance(runs, loss, found):
    high = {("loss", ""): np.linspace(loss, 2.0, 100), **alive()}
    findings = bad_initialization(runs.learns(high, **start(runs, linear0=LARGE)))
    assert len(findings) == found
    assert all(f.layers == ("linear0",) for f in findings)


@pytest.mark.parametrize(("std", "found"), [(0.99, 0), (1.01, 1)])
def test_a_gain_above_four(runs, std, found):
    high = {("loss", ""): np.linspace(9, 2.0, 100), **alive()}
    given = start(runs, linear2={"std": std, "fan_in": 16.0})
    assert len(bad_initialization(runs.learns(high, **given))) == found


def test_large_weights_without_a_consequence_are_silent(runs):
    assert bad_initialization(runs.learns(alive(), **start(runs, linear0=LARGE))) == []


def test_large_weights_that_saturate(runs):
    series = {**alive(), ("act_saturated", "sigmoid1"): [0.63] * 5}
    ops = ("linear", "sigmoid", "linear", "relu", "linear")
    [finding] = bad_initialization(runs.learns(series, **start(runs, ops, linear0=LARGE)))
    assert "saturated" in finding.says


def test_large_inputs_are_the_cause_not_the_weights(runs):
    high = {("loss", ""): np.linspace(20, 2.0, 100), **alive()}
    pixels = {
        ("input_mean", "input"): [[30.0]],
        ("input_std", "input"): [[70.0]],
        ("input_min", "input"): [[0.0]],
        ("input_max", "input"): [[255.0]],
    }
    assert bad_initialization(runs.learns(high, vectors=pixels, **start(runs, linear0=LARGE))) == []


def test_a_penalty_makes_a_loss_large_without_large_outputs(runs):
    high = {("loss", ""): np.linspace(168, 4.0, 100), ("act_std", "out"): [0.1] * 5, **alive()}
    assert bad_initialization(runs.stuck(high, **start(runs))) == []


def test_loaded_weights_start_where_they_should(runs):
    high = {("loss", ""): np.linspace(20, 2.0, 100), **alive()}
    assert bad_initialization(runs.learns(high, events=[Event(0, "reloaded")], **start(runs, linear0=LARGE))) == []


SMALL = {"std": 0.01, "fan_in": 100.0}


def constant(runs):
    return [runs.loss_call(output={"constant": 1.0})]


@pytest.mark.parametrize(("std", "found"), [(0.016, 0), (0.014, 1)])
def test_small_weights_with_a_constant_output(runs, std, found):
    given = start(runs, linear0={"std": std, "fan_in": 100.0})
    findings = bad_initialization(runs.stuck(alive(), losses=constant(runs), **given))
    assert len(findings) == found
    assert all(f.severity == "warning" and f.layers == ("linear0",) for f in findings)


def test_small_weights_are_no_fault_with_normalisation_or_learning(runs):
    normed = start(runs, ("linear", "layer_norm", "linear", "relu", "linear"), linear0=SMALL)
    assert bad_initialization(runs.stuck(alive(), losses=constant(runs), **normed)) == []
    assert bad_initialization(runs.learns(alive(), losses=constant(runs), **start(runs, linear0=SMALL))) == []
    assert bad_initialization(runs.stuck(alive(), **start(runs, linear0=SMALL))) == [], "the output varies"


@pytest.mark.parametrize(("fade", "found"), [(0.02, False), (0.005, True)])
def test_outputs_that_fade_along_a_deep_network(runs, fade, found):
    def deep(activation, depth):
        net = runs.chain(*["linear", activation] * depth, "linear")
        names = [layer.name for layer in net["layers"] if layer.op == "linear"]
        sizes = np.geomspace(1.0, fade, len(names))
        return {("act_std", n): [s] for n, s in zip(names, sizes, strict=True)}, net

    for state in (runs.learns, runs.stuck):
        series, net = deep("relu", 8)
        assert bool(bad_initialization(state(series, **net))) is found
    for activation, depth in (("tanh", 8), ("relu", 2)):
        series, net = deep(activation, depth)
        assert bad_initialization(runs.learns(series, **net)) == []


def test_an_absurd_start_is_a_warning_even_where_it_recovers(runs):
    given = {"task": Task("classification", 10, "accuracy", 2.303, 0.1)}
    large = start(runs, linear0={"std": 2.0, "fan_in": 16.0})
    for first, severity in ((30.0, "note"), (300.0, "warning")):
        loss = np.append(first, 0.05 + 2.25 * np.exp(-np.arange(99) / 10))
        [finding] = bad_initialization(runs.well({("loss", ""): loss, ("act_std", "out"): [9.0]}, **given, **large))
        assert finding.severity == severity
