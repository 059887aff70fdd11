"""Experiments are made in order, within their time, and none costs the others."""

import math
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes import schedule
from unstuck.probes.schedule import ORDER, experiments

pytestmark = pytest.mark.slow


def script():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def run():
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            x = torch.randn(16, 4, generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()

    run.model = model
    return run


@pytest.fixture
def order(monkeypatch):
    """Replaces the experiments: `order(("name", probe, share), ...)`."""

    def replace(*probes):
        monkeypatch.setattr(schedule, "ORDER", probes)

    return replace


def test_names_are_there_once():
    names = [name for name, _, _ in ORDER]
    assert len(set(names)) == len(names)
    assert all(0 < share <= 1 for _, _, share in ORDER)


def test_all_are_made_in_order(trained):
    made = list(experiments(trained(script()), 4.0))
    assert [name for name, _ in made] == [name for name, _, _ in ORDER]
    assert not [found["error"] for _, found in made if "error" in found]
    assert all(found["seconds"] >= 0 for _, found in made)


def test_each_begins_at_the_end_of_the_script(trained, order):
    seen = []

    def spoil(bench, clock):
        seen.append([t.clone() for t in bench.tensors])
        for tensor in bench.tensors:
            tensor.data.fill_(7.0)
        return {}

    run = script()
    order(("one", spoil, 0.5), ("two", spoil, 0.5))
    assert [name for name, _ in experiments(trained(run), 1.0)] == ["one", "two"]
    for values in seen:
        assert all(torch.equal(a, b) for a, b in zip(values, run.model.parameters(), strict=True))


def test_one_that_fails_gives_its_error_and_the_others_go_on(trained, order):
    def fails(bench, clock):
        bench.tensors[0].data.zero_()
        raise RuntimeError("no" * 400)

    order(("one", fails, 0.5), ("two", lambda bench, clock: {"loss": bench.loss()}, 0.5))
    one, two = experiments(trained(script()), 1.0)
    assert one[0] == "one" and one[1]["error"].startswith("RuntimeError: nono") and len(one[1]["error"]) == 300
    assert two[0] == "two" and math.isfinite(two[1]["loss"])


def test_what_has_nothing_to_say_is_left_out(trained, order):
    order(("one", lambda bench, clock: None, 0.5), ("two", lambda bench, clock: {}, 0.5))
    assert [name for name, _ in experiments(trained(script()), 1.0)] == ["two"]


def test_numbers_are_plain(trained, order):
    found = {"a": math.nan, "b": [1.0, math.inf, None], "c": (2, "x"), "d": {"e": -math.inf}, "f": True}
    order(("one", lambda bench, clock: found, 0.5))
    ((_, data),) = experiments(trained(script()), 1.0)
    del data["seconds"]
    assert data == {"a": None, "b": [1.0, None, None], "c": [2, "x"], "d": {"e": None}, "f": True}


def test_where_no_copy_can_be_made_the_reason_is_given(trained):
    run = script()
    run.model.lock = (i for i in range(3))  # a generator can't be copied
    training = trained(run)
    ((name, data),) = experiments(training, 1.0)
    assert name == "none" and "generator" in data["why"]


# ---------------------------------------------------------------------- time


def busy(bench, clock):
    while clock.left:
        bench.loss([0])
    return {}


@pytest.mark.parametrize("shares", [(0.1, 0.5, 1.0), (0.5, 0.5, 0.5)])
def test_each_gets_its_share_of_what_is_left(trained, order, shares):
    given = []

    def looks(bench, clock):
        given.append(clock.left)
        return busy(bench, clock)

    order(*((str(i), looks, share) for i, share in enumerate(shares)))
    list(experiments(trained(script()), 0.3))
    left = 0.3
    for share, time_given in zip(shares, given, strict=True):
        assert time_given == pytest.approx(share * left, abs=0.06)
        left -= time_given


def test_nothing_is_begun_when_time_is_over(trained, order):
    order(*((str(i), busy, 1.0) for i in range(4)))
    assert [name for name, _ in experiments(trained(script()), 0.05)] == ["0"]
    assert list(experiments(trained(script()), 0.0)) == []


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_the_time_is_kept(trained, seconds):
    """Within a factor of two of the processor's time: forward passes and quick experiments aren't broken off."""
    training = trained(script())
    start = time.thread_time()
    made = list(experiments(training, seconds))
    assert made
    assert time.thread_time() - start < 2 * seconds
