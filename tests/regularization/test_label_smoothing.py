"""Soft targets: losses are those of torch where it has them, and none is below the floor."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.errors import MisuseError
from unstuck.regularization.label_smoothing import ConfidencePenalty, binary_cross_entropy, entropy, floor, soft_targets
from unstuck.training import Training

SMOOTHINGS = [0.0, 0.1, 0.5, 1.0]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_two_classes_by_one_logit_are_two_classes_by_two(smoothing):
    z = drawn(50)
    y = (drawn(50, seed=1) > 0).long()
    two = torch.stack([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(
        binary_cross_entropy(z, y, smoothing=smoothing), F.cross_entropy(two, y, label_smoothing=smoothing)
    )
    whole = binary_cross_entropy(z, y.double(), smoothing=0.0, reduction="none", pos_weight=torch.tensor(3.0).double())
    expected = F.binary_cross_entropy_with_logits(
        z, y.double(), reduction="none", pos_weight=torch.tensor(3.0).double()
    )
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_soft_targets_give_the_loss_that_torch_has_for_smoothing(smoothing, shape):
    logits, y = drawn(20, 7, *shape), drawn(20, *shape, seed=1).mul(2).long().abs() % 7
    found = soft_targets(y, 7, smoothing=smoothing, dtype=torch.float64)
    torch.testing.assert_close(found.sum(1), torch.ones(20, *shape, dtype=torch.float64))
    expected = F.cross_entropy(logits, y, label_smoothing=smoothing)
    torch.testing.assert_close(F.cross_entropy(logits, found), expected)
    again = soft_targets(F.one_hot(y, 7).movedim(-1, 1).double(), 7, smoothing=smoothing, dtype=torch.float64)
    torch.testing.assert_close(again, found)


def test_towards_a_prior_and_mixed():
    prior = torch.tensor([0.5, 0.25, 0.25])
    assert soft_targets(torch.tensor([2]), 3, smoothing=0.4, prior=prior).tolist() == [pytest.approx([0.2, 0.1, 0.7])]
    y, other = torch.tensor([0, 1]), torch.tensor([2, 1])
    mixed = 0.75 * soft_targets(y, 3) + 0.25 * soft_targets(other, 3)
    assert mixed.tolist() == [[0.75, 0, 0.25], [0, 1, 0]]
    logits = drawn(2, 3).float()
    parts = 0.75 * F.cross_entropy(logits, y) + 0.25 * F.cross_entropy(logits, other)
    torch.testing.assert_close(F.cross_entropy(logits, mixed), parts)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("classes", [2, 10])
def test_the_floor_is_reached_and_not_gone_below(smoothing, classes):
    y = torch.arange(classes)
    targets = soft_targets(y, classes, smoothing=smoothing, dtype=torch.float64)
    best = targets.clamp_min(1e-30).log()  # logits that say the targets themselves
    assert F.cross_entropy(best, y, label_smoothing=smoothing).item() == pytest.approx(
        floor(smoothing, classes), abs=1e-12
    )
    assert entropy(targets).item() == pytest.approx(floor(smoothing, classes), abs=1e-12)
    if classes == 2:
        z = best[:, 1] - best[:, 0]
        assert binary_cross_entropy(z, y, smoothing=smoothing).item() == pytest.approx(floor(smoothing), abs=1e-12)
    for seed in range(5):
        other = best + drawn(classes, classes, seed=seed)
        assert F.cross_entropy(other, y, label_smoothing=smoothing).item() > floor(smoothing, classes) - 1e-12


def test_a_training_that_is_done_stays_at_the_floor():
    x, y = torch.eye(4), torch.tensor([0, 1, 1, 0])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    loss = functools.partial(binary_cross_entropy, smoothing=0.2)
    training = Training(model, loss, torch.optim.Adam(model.parameters(), lr=0.1), [(x, y)], epochs=200)
    last = training.run()[-1].loss
    assert last == pytest.approx(floor(0.2), abs=1e-4)
    assert last > 0.3  # which looks as if little were learned
    assert floor(0.2) == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))


# ---------------------------------------------------------------------- confidence


def test_sure_outputs_cost():
    logits, y = drawn(20, 5), torch.arange(20) % 5
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    plain = F.cross_entropy(logits, y)
    torch.testing.assert_close(ConfidencePenalty(0.3)(logits, y), plain - 0.3 * entropies.mean())
    short = (1.2 - entropies).clamp_min(0).mean()
    assert 0 < short < 1.2 - entropies.min()
    torch.testing.assert_close(ConfidencePenalty(0.3, threshold=1.2)(logits, y), plain + 0.3 * short)
    targets = soft_targets(y, 5, smoothing=0.1, dtype=torch.float64)
    torch.testing.assert_close(
        ConfidencePenalty(0.3)(logits, targets), F.cross_entropy(logits, targets) - 0.3 * entropies.mean()
    )


def test_the_gradient_of_its_entropy_is_that_on_paper():
    """dH/dz_i = -p_i (log p_i + H), Pereyra et al. 2017, section 3."""
    logits = drawn(1, 6).requires_grad_()
    ConfidencePenalty(1.0, loss=lambda outputs, targets: 0 * outputs.sum())(logits, torch.tensor([0])).backward()
    p = logits.detach().softmax(1)
    entropy = -(p * p.log()).sum()
    torch.testing.assert_close(logits.grad, p * (p.log() + entropy))


def test_padding_has_no_penalty():
    logits, y = drawn(4, 5, 3), torch.arange(12).view(4, 3) % 5
    padded = y.clone()
    padded[:, 2] = -100
    torch.testing.assert_close(
        ConfidencePenalty(0.3)(logits, padded), ConfidencePenalty(0.3)(logits[:, :, :2], y[:, :2])
    )


@pytest.mark.parametrize(("call", "says"), [
    (lambda: binary_cross_entropy(torch.zeros(1), torch.zeros(1), smoothing=-0.1), "a smoothing of -0.1"),
    (lambda: soft_targets(torch.tensor([0]), 2, smoothing=1.5), "a smoothing of 1.5"),
    (lambda: soft_targets(torch.rand(3, 4), 5), r"probabilities of shape \(3, 4\)"),
    (lambda: soft_targets(torch.tensor([0]), 2, smoothing=0.1, prior=torch.ones(3) / 3), r"a prior of shape \(3,\)"),
    (lambda: floor(0.1, 1), "1 classes"), (lambda: ConfidencePenalty(-1), "strength is -1"),
    (lambda: ConfidencePenalty(threshold=-1), "threshold is -1"),
])  # fmt: skip
def test_what_cannot_be(call, says):
    with pytest.raises(MisuseError, match=says):
        call()
