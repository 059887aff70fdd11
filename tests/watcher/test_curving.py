"""What is measured when the script has ended, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.evidence import Series
from unstuck.watcher import curving
from unstuck.watcher.curving import measure

LOSS = Series(np.arange(0), np.arange(0.0))


@pytest.fixture
def parts_of(session_of):
    """Trains a small network for 12 steps, and gives a function of what is wanted that names the parts in their order."""
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(12, 8, 3), torch.randn(12, 8, 1)

    def script():
        for data, target in zip(x, y, strict=True):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(data), target).backward()
            optimizer.step()

    session = session_of(script, every=False, curvature={"seconds": 60.0})

    def run(**wanted):
        return [data.get("part", kind) for kind, _, data in measure(session, 60.0, wanted, LOSS)]

    run.model, run.session = model, session
    return run


@pytest.mark.slow
def test_the_surface_is_measured_last_and_only_where_all_is_wanted(parts_of):
    assert parts_of(full=True)[-1] == "surface"
    assert "surface" not in parts_of(full=True, surface=False)
    assert "surface" not in parts_of()


@pytest.mark.slow
def test_the_script_is_left_as_it_was(parts_of):
    before = [p.detach().clone() for p in parts_of.model.parameters()]
    state = torch.get_rng_state()
    parts_of(full=True)
    assert all(torch.equal(a, b) for a, b in zip(before, parts_of.model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.slow
def test_a_surface_that_fails_costs_nothing_else(parts_of, monkeypatch):
    def fails(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(curving, "surface", fails)
    found = list(measure(parts_of.session, 60.0, {"full": True}, LOSS))
    assert found[-1][2] == {"part": "surface", "failed": "RuntimeError: no"}
    assert any(data.get("part") == "density" for _, _, data in found)
