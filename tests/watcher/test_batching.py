"""What a session hands on when it is asked which batch size is best."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.evidence import Series
from unstuck.watcher.batching import _of_processor, measure

pytestmark = pytest.mark.slow


def script(*, steps=30, accumulated=1):
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    draw = torch.Generator().manual_seed(0)

    def run():
        for _ in range(steps):
            optimizer.zero_grad()
            for _ in range(accumulated):
                x = torch.randn(8, 5, generator=draw)
                F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            optimizer.step()

    return run


def parts(session, seconds=5.0):
    return list(measure(session, seconds, Series.of([0.01] * 30)))


def test_all_parts_are_plain_numbers(session_of):
    found = parts(session_of(script(), batch={"seconds": 5.0}))
    names = [part["part"] for part in found]
    assert names[0] == "own"
    assert names[-1] == "choice"
    assert {"noise", "memory", "size"} <= set(names)
    numbers = [v for part in found for v in part.values() if isinstance(v, float)]
    assert all(math.isfinite(v) for v in numbers)
    assert found[0]["optimizer"] == "SGD"


def test_random_numbers_and_weights_are_as_before(session_of):
    session = session_of(script(), batch={"seconds": 5.0})
    weights = [p.detach().clone() for p in session.capture.tapes[-1].modules[0].parameters()]
    state = torch.get_rng_state()
    parts(session, 1.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b) for a, b in zip(weights, session.capture.tapes[-1].modules[0].parameters(), strict=True)
    )


def test_batches_that_are_added_up(session_of):
    found = parts(session_of(script(accumulated=3), batch={"seconds": 5.0}), 2.0)
    own = found[0]
    assert (own["size"], own["micro_size"], own["num_batches"], own["adds"]) == (24, 8, 3, True)
    assert found[-1]["part"] == "choice"
    assert found[-1]["own"] == 24


def test_nothing_was_trained(session_of):
    (found,) = parts(session_of(lambda: None, batch={"seconds": 5.0}))
    assert found == {"part": "none", "why": "no sampled step led to a loss"}


def test_nothing_is_kept_where_it_was_not_asked_for(session_of):
    session = session_of(script())
    assert session.snapshots is None
    assert session.marks == []


def test_processor_time_of_a_step_is_a_median_by_steps():
    """Ten steps of 1 s, one of 50 s, five of 2 s: the middle one of sixteen takes 1 s."""
    assert _of_processor([(0, 0.0), (10, 10.0), (11, 60.0), (16, 70.0)]) == 1.0
    assert math.isnan(_of_processor([(3, 1.0)]))


def test_marks_are_thinned_out(session_of, monkeypatch):
    monkeypatch.setattr("unstuck.watcher.session._MOST_MARKS", 8)
    session = session_of(script(), batch={"seconds": 5.0})
    assert 4 <= len(session.marks) <= 8
    assert session.marks[-1][0] == 30
    assert [step for step, _ in session.marks] == sorted(step for step, _ in session.marks)


@pytest.mark.parametrize("workers", [0, 2])
def test_with_loading_processes_the_time_of_the_wall_counts(session_of, workers):
    from unstuck.watcher.batching import _step_seconds

    session = session_of(script(), batch={"seconds": 5.0})
    loader = SimpleNamespace(num_workers=workers)
    session.data.loaders.append(SimpleNamespace(trained=5, ref=lambda: loader))
    found = _step_seconds(session, Series.of([9.0] * 30), alone=True)
    assert (found == 9.0) is (workers > 0)
    session.data.loaders.clear()
