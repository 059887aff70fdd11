from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Event, Optimizer
from unstuck.rules.critical_point import critical_point

FACTORS = [0.01, 0.1, 1.0, 10.0, 100.0]


def probes(
    *, gain=0.001, lower=2.303, top=5.0, bottom=-1.0, error=0.01, start=0.5, adam=0.1, reference=0.1, gradient=1e-4
):
    """Experiments on a classifier of ten classes at chance, whose loss is 2.303: what no step lowers, though `start` was reached."""
    rates = {"factors": FACTORS, "before": 2.303, "score_before": 0.1, "steps": 50, "rate": 0.1}
    found = [
        {"name": "critical-rate", "critical": 1.0, "best": 0.0, "gain": gain, "rate": 0.1},
        {**rates, "name": "step-sizes", "losses": [2.303, 2.303, 2.303, lower, None], "scores": [0.1] * 4 + [None]},
        {
            **rates, "name": "from-start", "losses": [2.3, 2.2, 2.0, None, None], "scores": [0.1, start, 0.1, None, None],
            "adam_rates": [1e-3], "adam_losses": [2.0], "adam_scores": [adam],
        },
        {"name": "curvature", "top": top, "bottom": bottom, "top_error": error, "bottom_error": error, "gradient": gradient},
        {"name": "reference", "linear": reference, "mlp": reference, "network": 0.1, "chance": 0.1, "samples": 400},
    ]  # fmt: skip
    return [Event(100, "probe", data=data) for data in found]


def norms(end, start=1.0):
    return {("grad_norm", ""): np.linspace(start, end, 100) if end > start else [start] * 70 + [end] * 30}


@pytest.mark.parametrize("state", ["learns", "well", "diverges"])
def test_a_network_that_moves_is_silent(runs, state):
    assert critical_point(getattr(runs, state)(norms(0.001), events=probes())) == []


def test_without_experiments_nothing_is_said(runs):
    assert critical_point(runs.stuck(norms(0.001))) == []
    for left_out in ("critical-rate", "step-sizes", "curvature"):
        events = [e for e in probes() if e.data["name"] != left_out]
        assert critical_point(runs.stuck(norms(0.001), events=events)) == []


@pytest.mark.parametrize(("end", "found"), [(0.051, 0), (0.049, 1)])
def test_the_gradient_of_several_batches_is_a_small_part_of_that_at_the_start(runs, end, found):
    assert len(critical_point(runs.stuck(norms(0.5), events=probes(gradient=end)))) == found


def test_a_gradient_of_zero_from_the_start_is_another_matter(runs):
    assert critical_point(runs.stuck(norms(0.0, start=0.0), events=probes())) == []


@pytest.mark.parametrize(("gain", "found"), [(0.011, 0), (0.009, 1)])
def test_a_step_that_lowers_the_loss_is_a_way_out(runs, gain, found):
    assert len(critical_point(runs.stuck(norms(0.001), events=probes(gain=gain)))) == found


@pytest.mark.parametrize(("lower", "found"), [(2.27, 0), (2.29, 1)])
def test_so_is_another_rate(runs, lower, found):
    assert len(critical_point(runs.stuck(norms(0.001), events=probes(lower=lower)))) == found


@pytest.mark.parametrize(
    ("reached", "found"),
    [
        ({"start": 0.18}, 0),
        ({"start": 0.2}, 1),
        ({"start": 0.1, "adam": 0.2}, 1),
        ({"start": 0.1, "reference": 0.2}, 1),
    ],
)
def test_something_else_gets_further(runs, reached, found):
    """A tenth of the way from 0.1 to 1 is at 0.19. Else there may be nothing to learn, and the loss is as low as it can be."""
    assert len(critical_point(runs.stuck(norms(0.001), events=probes(**reached)))) == found


@pytest.mark.parametrize(
    ("hessian", "words", "remedy"),
    [
        ({"top": 5.0, "bottom": -0.07}, "a saddle", "escape"),
        ({"top": 5.0, "bottom": -0.05}, "a local minimum", "initialization"),
        ({"top": 5.0, "bottom": -1.0, "error": 0.99}, "a local minimum", "initialization"),
        ({"top": 5.0, "bottom": 0.0}, "a local minimum", "initialization"),
        ({"top": 1e-7, "bottom": 0.0}, "a plateau", "initialization"),
    ],
)
def test_the_hessian_tells_which_it_is(runs, hessian, words, remedy):
    """A saddle has an eigenvalue below zero by a hundredth of the largest, beyond its error of 0.01."""
    (found,) = critical_point(runs.stuck(norms(0.001), events=probes(**hessian)))
    assert words in found.says
    assert found.treated_by[0] == remedy
    assert found.severity == "error"
    assert ("eigenvalue" in found.says) == (words != "a plateau")


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert critical_point(runs.stuck(norms(0.001), events=probes(), **both)) == []


def measured(**given):
    """Curvature as it is measured where that was asked for."""
    usual = {
        "top": 5.0,
        "bottom": -1.0,
        "top_error": 0.01,
        "bottom_error": 0.01,
        "gradient": 1e-4,
        "loss": 2.303,
        "gain": 1e-6,
    }
    return Event(100, "curvature", data={"part": "point", **usual, **given})


@pytest.mark.parametrize(
    ("kind", "bottom", "words"),
    [
        ("saddle", -1.0, "a saddle"),
        ("minimum", 0.0, "a local minimum"),
        ("flat", 0.0, "a plateau"),
        ("gradient-flat", -1.0, "a plateau"),
        ("not critical", -1.0, "a saddle"),
    ],
)
def test_the_measured_kind_of_point_is_told(runs, kind, bottom, words):
    (found,) = critical_point(runs.stuck(norms(0.001), events=[*probes(), measured(kind=kind, bottom=bottom)]))
    assert words in found.says


@pytest.mark.parametrize(("gain", "found"), [(0.02, 1), (0.024, 0)])
def test_a_gradient_along_which_the_loss_can_fall_makes_no_critical_point(runs, gain, found):
    """A hundredth of 2.303 is 0.023."""
    events = [*probes(), measured(kind="not critical", gain=gain)]
    assert len(critical_point(runs.stuck(norms(0.001), events=events))) == found


def test_what_failed_to_be_measured_leaves_the_experiment(runs):
    events = [*probes(), Event(100, "curvature", data={"part": "point", "failed": "no"})]
    assert len(critical_point(runs.stuck(norms(0.001), events=events))) == 1
