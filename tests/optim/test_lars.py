import pytest
import torch

from unstuck.errors import MisuseError
from unstuck.optim import _many
from unstuck.optim.lars import Lars
from unstuck.optim.sgd import Sgd

SHAPES = [(3, 4), (4,), (2, 3, 2, 2), (), (5, 1)]


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in SHAPES]


def gradients(steps=12):
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES] for _ in range(steps)]


def run(optimizer, params, rates=None):
    for step, row in enumerate(gradients()):
        for param, grad in zip(params, row, strict=True):
            param.grad = grad
        if rates is not None:
            optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
    return [p.detach().clone() for p in params]


def by_the_paper(w, grads, rates, *, momentum, decay, trust, eps, adapted=True):
    """You et al. 2017, algorithm 1, one parameter."""
    v = torch.zeros_like(w)
    for g, lr in zip(grads, rates, strict=True):
        local = trust * w.norm() / (g.norm() + decay * w.norm() + eps) if adapted else 1
        v = momentum * v + lr * local * (g + decay * w)
        w = w - v
    return w


@pytest.fixture(params=["at once", "in pieces"], autouse=True)
def way(request, monkeypatch):
    if request.param == "in pieces":
        monkeypatch.setattr(_many, "CACHE", 40)  # five numbers


@pytest.mark.parametrize("rates", [[0.5] * 12, [0.1 * i for i in range(12)]])
@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9, "weight_decay": 0.0},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.0, "weight_decay": 0.1, "eps": 0.3},
        {"momentum": 0.0, "weight_decay": 0.0, "trust": 0.5},
    ],
)
def test_it_is_algorithm_1(settings, rates):
    params = parameters()
    starts = [p.detach().clone() for p in params]
    found = run(Lars(params, 0.5, **{"trust": 0.02, **settings}), params, rates)
    known = {"trust": 0.02, "eps": 1e-8, **settings}
    known["decay"] = known.pop("weight_decay")
    for i, (start, end) in enumerate(zip(starts, found, strict=True)):
        told = by_the_paper(start, [row[i] for row in gradients()], rates, adapted=start.dim() > 1, **known)
        torch.testing.assert_close(end, told, rtol=1e-11, atol=1e-11)


def test_a_step_does_not_depend_on_the_scale_of_gradients():
    weights = [torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2)]
    for weight, scale in zip(weights, (1.0, 1024.0), strict=True):
        weight.grad = scale * torch.arange(6.0).reshape(3, 2)
        Lars([weight], 1.0, trust=0.1, eps=0).step()
    assert torch.allclose(*weights, rtol=1e-6)
    assert float((weights[0].detach() - 1).norm()) == pytest.approx(0.1 * 6**0.5, rel=1e-5)


def test_without_the_ratio_it_is_sgd():
    ours, theirs = parameters(), parameters()
    found = run(Lars(ours, 0.05, weight_decay=0.1, adapt=False), ours)
    for a, b in zip(found, run(Sgd(theirs, 0.05, 0.9, weight_decay=0.1), theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_all_are_adapted_on_demand():
    bias = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    bias.grad = torch.tensor([0.0, 100.0])
    Lars([bias], 1.0, trust=0.1, eps=0, adapt=True).step()
    assert torch.allclose(bias, torch.tensor([3.0, 3.5]))


def test_what_has_no_length_takes_steps_of_ratio_1():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    Lars([weight], 0.1).step()
    assert torch.allclose(weight, torch.full((2, 2), -0.1))
    still = torch.nn.Parameter(torch.ones(2, 2))
    still.grad = torch.zeros(2, 2)
    Lars([still], 0.1, weight_decay=0.5).step()
    assert torch.allclose(still, torch.full((2, 2), 0.95))


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": 1.0, "momentum": -0.1}, "momentum is -0.1"),
        ({"lr": 1.0, "weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"lr": 1.0, "trust": -1.0}, "trust is -1.0"),
        ({"lr": 1.0, "eps": -1.0}, "eps is -1.0"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(MisuseError, match=says):
        Lars([torch.nn.Parameter(torch.ones(1))], **settings)
