from __future__ import annotations

import numpy as np
import pytest

from unstuck.evidence import Data, Event
from unstuck.rules.batch_too_large import batch_too_large


def short(runs, steps=50, batch=500, samples=1000, loss=None, state="learns", **given):
    """A run of few steps whose loss falls to the end."""
    falling = np.linspace(2.3, 1.3, steps) if loss is None else loss
    series = {("loss", ""): falling, ("score", ""): [], ("lr", ""): np.full(steps, 0.1)}
    data = Data(batch_size=batch, loader="DataLoader", num_samples=samples)
    return getattr(runs, state)(series, **{"data": data, **given})


@pytest.mark.parametrize("state", ["stuck", "learns", "well", "diverges"])
def test_many_small_batches_are_silent(runs, state):
    data = Data(batch_size=32, loader="DataLoader", num_samples=1000)
    assert batch_too_large(getattr(runs, state)(data=data)) == []


@pytest.mark.parametrize(("steps", "found"), [(100, 0), (99, 1)])
def test_a_hundred_updates(runs, steps, found):
    findings = batch_too_large(short(runs, steps))
    assert len(findings) == found
    assert all(f.severity == "warning" and "99 updates" in f.says for f in findings)


@pytest.mark.parametrize(("samples", "found"), [(5100, 0), (4900, 1)])
def test_a_tenth_of_the_data(runs, samples, found):
    assert len(batch_too_large(short(runs, batch=500, samples=samples))) == found


@pytest.mark.parametrize(("size", "found"), [(63, 0), (64, 1)])
def test_a_batch_that_could_be_smaller(runs, size, found):
    assert len(batch_too_large(short(runs, batch=size, samples=120))) == found


@pytest.mark.parametrize(("steps", "found"), [(11, 0), (12, 1)])
def test_few_passes_are_too_little_training_instead(runs, steps, found):
    assert len(batch_too_large(short(runs, steps, batch=250, samples=1000))) == found


def test_a_loss_that_has_settled_is_silent(runs):
    settled = 1.3 + np.exp(-np.arange(50) / 5)
    assert batch_too_large(short(runs, loss=settled)) == []


@pytest.mark.parametrize(("scale", "found"), [(510.0, 0), (490.0, 1), (None, 1)])
def test_the_noise_scale_tells_whether_smaller_batches_would_do(runs, scale, found):
    probe = Event(50, "probe", "", {"name": "noise", "scale": scale, "batch_size": 500})
    assert len(batch_too_large(short(runs, events=[probe]))) == found


def test_a_batch_that_is_always_the_same_is_all_of_the_data(runs):
    data = Data(batch_size=500, batch_from="input")
    same = {("input_mean", "input"): [[0.1, 0.2]] * 4}
    [finding] = batch_too_large(short(runs, data=data, vectors=same))
    assert "100% of it" in finding.says
    other = {("input_mean", "input"): [[0.1, 0.2], [0.1, 0.21], [0.1, 0.2], [0.1, 0.2]]}
    assert batch_too_large(short(runs, data=data, vectors=other)) == []
    assert batch_too_large(short(runs, data=data)) == []
