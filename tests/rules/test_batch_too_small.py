from __future__ import annotations

import pytest

from unstuck.evidence import Data, Event, Optimizer
from unstuck.rules.batch_too_small import batch_too_small


def probes(*, scale=500.0, several=0.4, single=0.2, before=0.2):
    tried = {"losses": [2.0, 2.1, 1.8], "scores": [before, single, several], "steps": 50, "times": 8}
    return [
        Event(100, "probe", data={"name": "noise", "scale": scale, "signal": 1.0, "noise": scale, "batch_size": 4}),
        Event(100, "probe", data={"name": "larger-batch", **tried}),
    ]


def data(size=4, total=1000):
    return {"data": Data(batch_size=size, num_samples=total)}


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_quiet_gradients_are_silent(runs, state):
    assert batch_too_small(getattr(runs, state)(events=probes(scale=10.0), **data())) == []
    assert batch_too_small(getattr(runs, state)(**data())) == []


@pytest.mark.parametrize(("scale", "found"), [(79.0, 0), (81.0, 1), (None, 1)])
def test_twenty_times_the_batch_is_noise(runs, scale, found):
    """No scale at all is a gradient that is lost in the noise."""
    assert len(batch_too_small(runs.stuck(events=probes(scale=scale), **data()))) == found


@pytest.mark.parametrize(("several", "found"), [(0.28, 0), (0.3, 1)])
def test_larger_batches_must_do_better(runs, several, found):
    """A tenth of the way from 0.1 to 1 is 0.09: from 0.2 to 0.29."""
    assert len(batch_too_small(runs.stuck(events=probes(several=several), **data()))) == found


def test_better_than_it_was_and_than_with_single_batches(runs):
    assert batch_too_small(runs.stuck(events=probes(single=0.4), **data())) == []
    assert batch_too_small(runs.stuck(events=probes(before=0.4), **data())) == []


def test_updates_that_diverge_are_as_bad_as_can_be(runs):
    """One batch to an update diverges, eight do not; or eight do as well."""
    events = probes()
    tried = dict(events[1].data)
    for losses, scores, found in (([2.0, None, 1.8], [0.2, None, 0.4], 1), ([2.0, 2.1, None], [0.2, 0.2, None], 0)):
        both = [events[0], Event(100, "probe", data={**tried, "losses": losses, "scores": scores})]
        assert len(batch_too_small(runs.stuck(events=both, **data()))) == found


@pytest.mark.parametrize(("size", "found"), [(17, 0), (16, 1)])
def test_the_batch_is_small_as_such(runs, size, found):
    assert len(batch_too_small(runs.stuck(events=probes(scale=1e5), **data(size)))) == found


@pytest.mark.parametrize(("total", "found"), [(79, 0), (81, 1), (0, 1)])
def test_and_a_small_part_of_the_data(runs, total, found):
    """A twentieth; nothing is known of the data where no loader tells."""
    assert len(batch_too_small(runs.stuck(events=probes(), **data(total=total)))) == found


@pytest.mark.parametrize(
    ("state", "severities"), [("stuck", ["warning"]), ("learns", ["warning"]), ("well", []), ("diverges", [])]
)
def test_how_severe_it_is(runs, state, severities):
    assert [f.severity for f in batch_too_small(getattr(runs, state)(events=probes(), **data()))] == severities


def test_numbers_are_told(runs):
    (found,) = batch_too_small(runs.stuck(events=probes(), **data()))
    assert (
        "500 samples, a batch has 4: with 8 batches to an update 50 updates at the same rate go 0.222 further"
        in found.says
    )
    assert found.treated_by[0] == "batch-size"


def test_losses_that_pull_against_each_other_are_silent(runs):
    both = {"optimizers": [Optimizer(steps=100), Optimizer(steps=100)]}
    assert batch_too_small(runs.stuck(events=probes(), **both, **data())) == []
