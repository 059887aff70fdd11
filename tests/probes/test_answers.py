from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.answers import answers
from unstuck.probes.bench import Clock


def script(loss, target, out):
    def run():
        model = nn.Linear(3, out)
        with torch.no_grad():
            model.weight.zero_()
            model.bias.copy_(torch.arange(float(out)))
        optimizer = torch.optim.SGD(model.parameters(), 1e-6)
        for k in range(4):
            optimizer.zero_grad()
            loss(model(torch.ones(8, 3) * k), target(k)).backward()
            optimizer.step()

    return run


def test_labels_and_answers_by_class(bench_of):
    """The last class has the largest bias, whatever comes in; one label in eight is it."""
    found = answers(bench_of(script(F.cross_entropy, lambda k: torch.tensor([0, 1, 0, 1, 0, 1, 0, 2]), 3)), Clock(10))
    assert found == {"labels": [16.0, 12.0, 4.0], "answers": [0.0, 0.0, 32.0]}


def test_bits(bench_of):
    """A bias of 0 is a no."""
    target = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])[:, None]
    found = answers(bench_of(script(F.binary_cross_entropy_with_logits, lambda k: target, 1)), Clock(10))
    assert found["labels"] == [28.0, 4.0]
    assert sum(found["answers"]) == 32.0


def test_numbers_have_no_classes(bench_of):
    assert answers(bench_of(script(F.mse_loss, lambda k: torch.rand(8, 1), 1)), Clock(10)) is None
