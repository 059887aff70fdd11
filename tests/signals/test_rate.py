from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unstuck.signals import rate as rates
from unstuck.signals.rate import hand_rate
from unstuck.signals.updates import snapshot


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def planted(rate: float, noise: float = 0.0, scale: float = 1.0) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Parameters before and after a step by hand, and its gradients."""
    before = [normal(50, 40), normal(40, seed=1), normal(300, 200, seed=2), torch.tensor(0.5)]
    grads = [scale * normal(*w.shape, seed=i + 10) for i, w in enumerate(before)]
    after = [
        w - rate * g + rate * scale * noise * normal(*w.shape, seed=20) for w, g in zip(before, grads, strict=True)
    ]
    return before, after, grads


def both_ways(before: list[Tensor], after: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    states = [snapshot(x) for x in (before, after, grads)]
    return [hand_rate(*states), rates._on_device(*(s.groups[0].numbers for s in states))]


@pytest.mark.parametrize("rate", [1e-4, 0.1, 20.0, -0.5])
def test_a_plain_gradient_step_gives_its_rate_back(rate):
    for found in both_ways(*planted(rate)):
        # parameters of about 1 change by 1e-4: rounding at 6e-8 leaves three digits
        assert found[0] == pytest.approx(rate, rel=1e-3)
        assert found[1] < 2e-3


def test_the_residual_is_what_the_gradient_does_not_explain():
    for found in both_ways(*planted(0.1, noise=1.0)):
        assert found[1] == pytest.approx(math.sqrt(0.5), rel=0.05)
    before, _, grads = planted(0.1)
    unrelated = [w + normal(*w.shape, seed=99) for w in before]
    for found in both_ways(before, unrelated, grads):
        assert found[1] > 0.99


def test_weight_decay_and_momentum_show():
    before, after, grads = planted(0.1)
    decayed = [a - 0.1 * w for a, w in zip(after, before, strict=True)]
    assert hand_rate(*map(snapshot, (before, decayed, grads)))[1] > 0.5


def test_tiny_gradients_do_not_underflow():
    for found in both_ways(*planted(1e24, scale=1e-25)):
        assert found[0] == pytest.approx(1e24, rel=1e-3)


def test_what_is_not_finite_does_not_count():
    before, after, grads = planted(0.1)
    after[0][3, 4], grads[1][2] = math.nan, math.inf
    for found in both_ways(before, after, grads):
        assert found[0] == pytest.approx(0.1, rel=1e-3) and found[1] < 2e-3


def test_without_an_update_the_residual_is_unknown_and_without_a_gradient_the_rate():
    before, after, grads = planted(0.1)
    for found in both_ways(before, before, grads):
        assert found[0] == 0 and found[1].isnan()
    for found in both_ways(before, after, [torch.zeros_like(g) for g in grads]):
        assert found[0].isnan()


def test_samples_of_different_places_say_nothing():
    before, after, grads = planted(0.1)
    assert hand_rate(snapshot(before), snapshot(after), snapshot(grads[:2])).isnan().all()
    assert hand_rate(snapshot([]), snapshot([]), snapshot([])).isnan().all()
    turned = [g.t().contiguous().t() if g.dim() == 2 else g for g in grads]
    assert hand_rate(snapshot(before), snapshot(after), snapshot(turned)).isnan().all()


def test_nothing_is_touched(untouched):
    before, after, grads = planted(0.1)
    with untouched(*before, *after, *grads):
        assert not hand_rate(*map(snapshot, (before, after, grads))).requires_grad


def test_no_number_is_looked_at_on_an_accelerator():
    state = snapshot([torch.empty(30, 300, device="meta")])
    assert hand_rate(state, state, state).device.type == "meta"
