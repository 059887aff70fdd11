from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Event, Optimizer, Parameter
from unstuck.rules.parameters_not_trained import parameters_not_trained


def weight(name, **given):
    return Parameter(f"{name}.weight", (16, 16), (name,), **given)


def test_trained_parameters_are_silent(runs):
    assert parameters_not_trained(runs.stuck(**runs.chain("linear", "relu", "linear"))) == []


WAYS = {
    "in no optimizer": {"optimizers": (), "changed": False},
    "no gradient": {"got_grad": False, "changed": False},
    "anew": {"remade": True},
}


@pytest.mark.parametrize("words", WAYS)
def test_each_way_is_named_with_its_layers(runs, words):
    given = {
        **runs.chain("linear", "relu", "linear"),
        "parameters": [weight("linear0", **WAYS[words]), weight("linear2")],
    }
    [finding] = parameters_not_trained(runs.stuck(**given))
    assert (finding.severity, finding.layers) == ("error", ("linear0",))
    assert words in finding.says
    assert "50%" in finding.says


@pytest.mark.parametrize(("state", "severity"), [("stuck", "error"), ("learns", "warning"), ("well", "note")])
def test_what_is_left_out_on_purpose_is_a_note(runs, state, severity):
    parameters = [weight("backbone", optimizers=(), changed=False), weight("head")]
    assert [f.severity for f in parameters_not_trained(getattr(runs, state)(parameters=parameters))] == [severity]


def test_loaded_weights_may_stay_as_they_are(runs):
    parameters = [weight("backbone", optimizers=(), changed=False), weight("head")]
    loaded = {"parameters": parameters, "events": [Event(0, "reloaded")]}
    assert [f.severity for f in parameters_not_trained(runs.learns(**loaded))] == ["note"]


@pytest.mark.parametrize(("steps", "found"), [(4, 0), (5, 1)])
def test_the_first_steps_are_too_early_to_tell(runs, steps, found):
    short = {("loss", ""): [2.3] * steps, ("score", ""): [], ("lr", ""): [0.1] * steps}
    parameters = [weight("late", optimizers=(), changed=False)]
    assert len(parameters_not_trained(runs.stuck(short, parameters=parameters))) == found


def test_unused_layers_are_silent(runs):
    assert (
        parameters_not_trained(
            runs.stuck(parameters=[weight("spare", used=False, optimizers=(), got_grad=False), weight("head")])
        )
        == []
    )


def test_without_any_optimizer_nothing_is_said(runs):
    assert (
        parameters_not_trained(runs.stuck(parameters=[weight("a", optimizers=(), changed=None)], optimizers=[])) == []
    )


def test_all_without_gradient_while_layers_receive_one_is_another_fault(runs):
    given = {**runs.chain("linear"), "parameters": [weight("linear0", got_grad=False, changed=False)]}
    assert parameters_not_trained(runs.stuck({("back_rms", "linear0"): [0.1] * 5}, **given)) == []


@pytest.mark.parametrize(("share", "found"), [(1, 0), (3, 1)])
def test_random_frozen_weights_are_mentioned_when_they_are_most(runs, share, found):
    frozen = [weight(f"frozen{i}", trainable=False, used=False, changed=None, optimizers=()) for i in range(share)]
    parameters = [*frozen, weight("a"), weight("b")]
    assert len(parameters_not_trained(runs.stuck(parameters=parameters))) == found


def test_frozen_weights_are_legal(runs):
    frozen = weight("backbone", trainable=False, changed=None, optimizers=())
    assert (
        parameters_not_trained(
            runs.stuck(parameters=[weight("trained", trainable=False, changed=True), weight("head")])
        )
        == []
    )
    assert parameters_not_trained(runs.stuck(parameters=[frozen, weight("head")], events=[Event(0, "reloaded")])) == []
    for state, severity in (("well", "note"), ("learns", "note"), ("stuck", "warning")):
        assert [f.severity for f in parameters_not_trained(getattr(runs, state)(parameters=[frozen]))] == [severity]


@pytest.mark.parametrize(("spread", "severity"), [(1.0, "warning"), (0.7, "note")])
def test_frozen_weights_that_are_as_torch_draws_them_were_never_trained(runs, spread, severity):
    known = {"mean": 0.0, "std": spread * 0.05 / 3**0.5, "max": 0.05 - 1e-5, "fan_in": 400.0}
    frozen = weight("backbone", trainable=False, changed=None, optimizers=(), initial=known)
    assert [f.severity for f in parameters_not_trained(runs.learns(parameters=[frozen, weight("head")]))] == [severity]
    assert [f.severity for f in parameters_not_trained(runs.well(parameters=[frozen, weight("head")]))] == ["note"]


@pytest.mark.parametrize(("features", "severity"), [((), "warning"), (("targets of its own",), "note")])
def test_a_copy_that_makes_the_targets_is_in_no_optimizer_by_right(runs, features, severity):
    copied = [weight("net"), weight("target", optimizers=(), changed=None)]
    given = runs.regression(np.linspace(1.0, 0.6, 100))
    found = parameters_not_trained(
        runs.learns(given.pop("series"), **given, parameters=copied, features=list(features))
    )
    assert [f.severity for f in found] == [severity]


def test_inputs_that_a_gradient_is_taken_by_are_no_parameters(runs):
    given = [Parameter("t", (64, 1), optimizers=(), changed=None) for _ in range(5)]
    assert parameters_not_trained(runs.stuck(parameters=[*given, weight("net")])) == []


def test_a_second_optimizer_counts(runs):
    both = {"optimizers": [Optimizer(steps=9), Optimizer(steps=9)]}
    assert parameters_not_trained(runs.stuck(parameters=[weight("a"), weight("b", optimizers=(1,))], **both)) == []
