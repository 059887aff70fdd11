"""The samples that a network gets most wrong: labels that were exchanged are among them."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Bench, Clock
from unstuck.probes.worst import MOST_LETTERS, worst


def script(loss, x, y, model, steps=60, rate=0.2):
    optimizer = torch.optim.SGD(model.parameters(), rate)

    def run():
        for i in range(steps):
            rows = slice(16 * (i % 4), 16 * (i % 4) + 16)
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()

    run.model = model
    return run


def pictures(size=(1, 8, 8)):
    torch.manual_seed(0)
    x = torch.randn(64, *size) * 0.3
    y = torch.arange(64) % 2
    x[y == 1] += 1
    return x, y


@pytest.fixture
def found(trained):
    def look(run):
        bench = Bench(trained(run))
        before = [t.clone() for t in bench.tensors]
        made = worst(bench, Clock(5.0))
        bench.restore()
        assert all(torch.equal(a, b) for a, b in zip(before, bench.tensors, strict=True))
        return made

    return look


@pytest.mark.slow
def test_exchanged_labels_are_told_with_their_pictures(found):
    x, y = pictures()
    y[[3, 20, 33]] = 1 - y[[3, 20, 33]]
    made = found(script(F.cross_entropy, x, y, nn.Sequential(nn.Flatten(), nn.Linear(64, 2))))
    assert made["kind"] == "classes" and made["wrong"] >= 3
    assert len(made["samples"]) == 3  # each of them once, though it was seen in several epochs
    assert [(s["target"], s["prediction"]) for s in made["samples"]].count(("0", "1")) in (1, 2)
    assert all(s["input"]["kind"] == "image" and s["input"]["height"] == 8 for s in made["samples"])


@pytest.mark.slow
def test_a_network_that_is_always_right_has_none(found):
    x, y = pictures()
    made = found(script(F.cross_entropy, x, y, nn.Sequential(nn.Flatten(), nn.Linear(64, 2))))
    assert made["wrong"] == 0 and made["samples"] == []


def test_numbers_are_told_with_their_inputs(found):
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    y = x.sum(1, keepdim=True)
    y[5] += 30
    made = found(script(F.mse_loss, x, y, nn.Linear(3, 1), rate=0.01))
    assert made["kind"] == "regression" and len(made["samples"]) == 12
    assert made["samples"][0]["target"] == pytest.approx(float(y[5]), rel=1e-5)
    assert made["samples"][0]["input"]["numbers"] == pytest.approx(x[5].tolist(), rel=1e-3)


def test_large_pictures_leave_the_record_small(found):
    torch.manual_seed(0)
    x, y = torch.randn(64, 3, 96, 96), torch.randint(2, (64,))
    made = found(
        script(F.cross_entropy, x, y, nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 2)), steps=4, rate=1e-6)
    )
    assert 5 <= len(made["samples"]) <= 12
    assert len(json.dumps(made)) < 50_000 and MOST_LETTERS < 50_000


@pytest.mark.slow
def test_a_loss_of_its_own_tells_nothing(found):
    x, _ = pictures()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    assert found(script(lambda out, _: out.square().mean(), x, x, model, rate=1e-3)) is None
