from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unstuck.signals import updates
from unstuck.signals.updates import ratios, snapshot

NAN = math.nan


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow(before: Tensor, after: Tensor) -> float:
    old, new = before.double(), after.double()
    keep = (new - old).isfinite()
    weight = old[keep].square().sum()
    return float((new - old)[keep].square().sum().div(weight).sqrt()) if weight > 0 else NAN


SMALL = [normal(30, 20), normal(7), torch.tensor(2.5), normal(3, 4, 2, 2), normal(40, 50).t(), 1e-3 * normal(9, seed=1)]


def device_ratios(before: updates.Snapshot, after: updates.Snapshot) -> Tensor:
    old, new = before.groups[0], after.groups[0]
    return updates._ratios_on_device(old.numbers, new.numbers, old.sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_parameters_are_compared_whole(dtype):
    weights = [w.to(dtype) for w in SMALL]
    state = snapshot(weights)
    changed = [w + 10.0 ** -(i % 4) * normal(*w.shape, seed=i).to(dtype) for i, w in enumerate(weights)]
    expected = [slow(a, b) for a, b in zip(weights, changed, strict=True)]
    # a change of 1e-3 in numbers of about 1 keeps four digits in float32
    np.testing.assert_allclose(ratios(state, changed), expected, rtol=1e-4)
    np.testing.assert_allclose(device_ratios(state, snapshot(changed)), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "weight", [normal(300, 400), normal(400, 300).t(), normal(64, 64, 3, 3).to(memory_format=torch.channels_last)]
)
def test_large_parameters_are_sampled_at_the_same_places(weight):
    state = snapshot([weight])
    assert state.groups[0].numbers.numel() <= 4096
    weight.mul_(0.99)  # in place, as an optimizer does
    assert ratios(state, [weight])[0] == pytest.approx(0.01, rel=1e-3)
    rest = normal(*weight.shape, seed=5)
    state = snapshot([weight])
    weight.add_(0.01 * rest)
    assert ratios(state, [weight])[0] == pytest.approx(0.01, rel=0.06)  # 4096 numbers: 1.6% (one sigma)


def test_a_snapshot_is_a_copy():
    weight = normal(4, 4)
    state = snapshot([weight])
    weight.zero_()
    assert state.groups[0].numbers.abs().sum() > 0
    assert ratios(state, [weight]).item() == 1


def test_no_update_is_zero_and_zero_weights_are_nan():
    weights = [normal(5), torch.zeros(5)]
    state = snapshot(weights)
    found = ratios(state, [weights[0], torch.ones(5)])
    assert found[0] == 0 and found[1].isnan()


def test_what_is_not_finite_does_not_count():
    weights = [torch.tensor([3.0, NAN, 4.0, 1.0]), torch.full((3,), NAN), torch.tensor([1.0, 2.0])]
    after = [torch.tensor([1.5, 1.0, 2.0, math.inf]), torch.ones(3), torch.tensor([0.5, 1.0])]
    state = snapshot(weights)
    for found in (ratios(state, after), device_ratios(state, snapshot(after))):
        assert found[0] == pytest.approx(0.5) and found[1].isnan() and found[2] == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype):
    weight = torch.full((10, 10), 100.0, dtype=dtype)
    state = snapshot([weight, normal(3)])
    assert ratios(state, [weight * 2, normal(3)]).tolist() == [1.0, 0.0]


def test_what_cannot_be_measured_is_nan_and_leaves_the_others_alone():
    weights = [torch.zeros(0), torch.tensor([3.0, 4.0]), torch.ones(2, 2).to_sparse()]
    state = snapshot(weights)
    found = ratios(state, [weights[0], torch.tensor([0.0, 0.0]), weights[2]])
    assert found[0].isnan() and found[1] == 1 and found[2].isnan()


def test_parameters_of_another_shape_are_nan():
    assert ratios(snapshot([normal(4, 4)]), [normal(5, 4)]).isnan().all()
    assert ratios(snapshot([]), []).shape == (0,)


def test_nothing_is_touched(untouched):
    weights = [torch.nn.Parameter(w.clone()) for w in SMALL] + [torch.nn.Parameter(normal(300, 300))]
    weights[0].grad = torch.ones_like(weights[0])
    with untouched(*weights):
        state = snapshot(weights)
        assert not ratios(state, weights).requires_grad
        assert not state.groups[0].numbers.requires_grad


def test_no_number_is_looked_at_on_an_accelerator():
    weights = [torch.empty(300, 300, device="meta"), torch.empty((), device="meta")]
    assert ratios(snapshot(weights), weights).device.type == "meta"


def test_ratios_of_several_devices_meet_where_nothing_waits():
    weights = [torch.ones(3), torch.empty(2, device="meta")]
    found = ratios(snapshot(weights), weights)
    assert found.device.type == "meta" and found.shape == (2,)
