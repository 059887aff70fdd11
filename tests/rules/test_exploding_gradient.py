from __future__ import annotations

import re

import numpy as np
import pytest

from unstuck.evidence import Optimizer
from unstuck.rules._steps import struck_at
from unstuck.rules._words import number
from unstuck.rules.exploding_gradient import exploding_gradient
from unstuck.rules.learning_rate_too_high import learning_rate_too_high

DEEP = ("linear", "relu") * 3 + ("linear",)


def up_to(ratio, later=1.0):
    return {("grad_rms", f"linear{2 * i}.weight"): [size, later] for i, size in enumerate(np.geomspace(ratio, 1, 4))}


@pytest.mark.parametrize("state", ["stuck", "learns", "well"])
def test_even_gradients_are_silent(runs, state):
    steady = {**up_to(2.0), ("grad_norm", ""): np.ones(100)}
    assert exploding_gradient(getattr(runs, state)(steady, **runs.chain(*DEEP))) == []


@pytest.mark.parametrize(("ratio", "found"), [(900, 0), (1100, 1)])
def test_growth_along_depth(runs, ratio, found):
    assert len(exploding_gradient(runs.stuck(up_to(ratio), **runs.chain(*DEEP)))) == found


def test_only_the_first_step_need_explode(runs):
    [finding] = exploding_gradient(runs.stuck(up_to(1e7, later=0.0), **runs.chain(*DEEP)))
    assert (finding.severity, finding.layers) == ("error", ("linear0", "linear2", "linear4"))


@pytest.mark.parametrize(("end", "found"), [(90, 0), (110, 1)])
def test_growth_along_time_at_any_step(runs, end, found):
    curves = [np.geomspace(1, end, 30), np.zeros(30), np.zeros(30)]
    findings = exploding_gradient(runs.stuck(vectors={("lag_grad", "rnn"): curves}))
    assert len(findings) == found
    assert all(f.layers == ("rnn",) for f in findings)


@pytest.mark.parametrize(("first", "found"), [(900, 0), (1100, 1)])
def test_a_first_step_far_above_the_rest(runs, first, found):
    norms = {("grad_norm", ""): [first] + [1.0] * 20}
    assert len(exploding_gradient(runs.stuck(norms))) == found
    assert exploding_gradient(runs.learns(norms)) == [], "it has far to go"


def test_a_first_step_after_which_everything_is_saturated(runs):
    norms = {("grad_norm", ""): [1.5e7] + [0.0] * 20}
    assert exploding_gradient(runs.stuck(norms))
    adam = [Optimizer("Adam", settings={"lr": 1.0}, steps=100)]
    assert exploding_gradient(runs.stuck(norms, optimizers=adam)) == [], (
        "its step is as long as the rate, not as the gradient"
    )


def spiked(height, after):
    norms, loss = np.ones(100), np.full(100, 2.0)
    norms[50], loss[51:] = height, after
    return {("grad_norm", ""): norms, ("loss", ""): loss}


@pytest.mark.parametrize(("height", "after", "found"), [(90, 9.0, 0), (110, 9.0, 1), (1e6, 2.0, 0), (110, np.nan, 1)])
def test_a_spike_counts_where_the_loss_is_worse_for_it(runs, height, after, found):
    assert len(exploding_gradient(runs.learns(spiked(height, after)))) == found


def test_large_norms_as_such_are_silent(runs):
    assert exploding_gradient(runs.learns({("grad_norm", ""): np.full(100, 1e9)})) == []


def test_a_network_that_learns_well_is_left_alone(runs):
    assert exploding_gradient(runs.well(up_to(1e9), **runs.chain(*DEEP))) == []


def struck(at=60, height=50.0, rising=0, grad_before=1.0):
    """A loss that had settled at 0.2 jumps at a step and stays high; maybe steps before lead up to it."""
    loss = 0.2 + 2.1 * np.exp(-np.arange(100) / 8)
    loss[at:] = 5.0
    loss[at] = height
    for i in range(1, rising + 1):
        loss[at - i] = height / 4**i
    norm = np.ones(100)
    norm[at - 1] = grad_before
    norm[at:] = 500.0
    return {("loss", ""): loss, ("grad_norm", ""): norm}


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, 60), ({"at": 12}, None), ({"height": 3.9}, None), ({"rising": 3}, None), ({"grad_before": 4.0}, None)],
    ids=["out of the blue", "at the start", "not much higher", "the loss rose before", "the gradient rose before"],
)
def test_a_batch_that_strikes(runs, given, found):
    record = runs.learns(struck(**given))
    assert struck_at(record) == found
    [finding] = exploding_gradient(record)
    assert ("the batch of step 60" in finding.says) == (found is not None)
    assert finding.confidence == (0.5 if found is None else 0.85)
    if found is not None:
        assert learning_rate_too_high(record) == []


def first_spike_slowly(record, spike):
    """The step of the first spike after which the loss is worse, and the median before it, step by step."""
    loss, norms = record.series("loss"), record.series("grad_norm").finite
    for i in range(9, len(norms)):
        median, now, step = float(np.median(norms.values[1:i])), norms.values[i], int(norms.steps[i])
        before, after = loss.until(step).finite.values[-10:], loss.after(step + 1).values[:10]
        if now > spike * median > 0 and len(before) >= 3 and len(after):
            worse = np.median(after) > 2 * abs(np.median(before))
            if not np.isfinite(after).all() or worse:
                return step, median
    return None


@pytest.mark.slow
def test_the_first_spike_is_as_step_by_step(runs):
    spikes = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        length, calm = int(random.integers(1, 60)), int(random.integers(0, 30))
        norms = np.exp(random.standard_normal(length)) * random.choice([1, 1, 1, 0, 30, np.nan], length)
        loss = np.exp(random.uniform(0, 1) * random.standard_normal(length)) * random.choice(
            [1] * 20 + [-1, np.nan], length
        )
        loss[calm:] *= random.choice([1, 2, 4])
        record = runs.learns({("grad_norm", ""): norms, ("loss", ""): np.append(loss, [1.0, 1.0])})
        spike = random.choice([3, 10, 30])
        expected = first_spike_slowly(record, spike)
        found = [f for f in exploding_gradient(record, spike=spike, start=np.inf) if " jumps from " in f.says]
        if found:
            [finding] = found
            told = re.search(r"jumps from (\S+) to \S+ at step (\d+)", finding.says)
            assert (int(told[2]), told[1]) == (expected[0], number(expected[1]))
            spikes += 1
        else:
            assert expected is None
    assert spikes > 30
