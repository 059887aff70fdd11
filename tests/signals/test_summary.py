from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unstuck.signals import summary
from unstuck.signals.numbers import as_float
from unstuck.signals.summary import features, label_counts, prediction_counts

NAN, INF = math.nan, math.inf


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow(x: Tensor, axis: int) -> np.ndarray:
    columns = np.moveaxis(x.double().numpy(), axis, -1).reshape(-1, x.shape[axis])
    found = []
    for column in columns.T:
        good = column[np.isfinite(column)]
        found.append([good.mean(), good.std(), good.min(), good.max()] if good.size else [NAN] * 4)
    return np.array(found).T


INPUTS = {
    "table": (normal(50, 10) * torch.arange(10) + 100, 1),
    "sequence": (normal(6, 20, 8) + torch.arange(8), 2),
    "images": (normal(4, 3, 12, 12) + torch.arange(3).reshape(3, 1, 1), 1),
    "channels last": (normal(4, 3, 12, 12).to(memory_format=torch.channels_last), 1),
    "volumes": (normal(2, 3, 4, 5, 6), 1),
    "constant": (torch.full((20, 2), 0.1), 1),
    "far from zero": (1e6 + normal(40, 3), 1),
    "nan": (torch.where(normal(50, 4) > 1, NAN, normal(50, 4, seed=1)), 1),
    "inf": (torch.where(normal(50, 4) > 1, INF, normal(50, 4, seed=1)), 1),
    "a feature all nan": (torch.cat([torch.full((5, 1), NAN), normal(5, 2)], 1), 1),
    "first sample nan": (torch.cat([torch.full((1, 3), NAN), 5 + normal(9, 3)]), 1),
    "one sample": (normal(1, 5), 1),
    "double": (normal(30, 4).double(), 1),
}


@pytest.mark.parametrize("name", INPUTS)
def test_features(name):
    x, axis = INPUTS[name]
    device = summary._by_row(as_float(x).movedim(axis, 0).flatten(1))
    tolerance = 1e-4 if name == "far from zero" else 1e-5  # of 1e6, float32 keeps a step of 0.06
    for found in (features(x), device):
        np.testing.assert_allclose(found, slow(x, axis), rtol=tolerance, atol=1e-6 if name != "far from zero" else 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool])
def test_features_of_any_type(dtype):
    x = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    assert features(x).tolist() == [[0.5, 1], [0.5, 0], [0, 1], [1, 1]]


def test_at_most_64_features_are_kept():
    x = torch.arange(784.0).expand(8, 784).contiguous()
    found = features(x)
    assert found.shape == (4, 61) and found[0].tolist() == list(range(0, 784, 13))
    assert features(torch.zeros(2, 200, 5, 5)).shape == (4, 50)


def test_a_large_input_is_sampled():
    x = normal(64, 3, 100, 100) + torch.tensor([0.0, 10.0, -5.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(
        features(x)[:2], [[0, 10, -5], [1, 1, 1]], atol=0.1
    )  # 2700 numbers each: 0.02 (one sigma)


def test_one_axis_is_one_feature():
    assert features(torch.tensor([1.0, 3.0])).tolist() == [[2.0], [1.0], [1.0], [3.0]]
    assert features(torch.tensor(5.0)).tolist() == [[5.0], [0.0], [5.0], [5.0]]


def test_what_cannot_be_measured_has_no_features():
    assert features(torch.zeros(0, 3)).shape == (4, 0)
    assert features(torch.ones(3, 3).to_sparse()).shape == (4, 0)


def test_labels_are_counted():
    labels = torch.randint(7, (40, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(label_counts(labels, 7).long(), torch.bincount(labels.flatten(), minlength=7))
    assert label_counts(labels.int(), 9).shape == (9,) and label_counts(labels, 9).sum() == 120


def test_labels_out_of_range_and_ignored_ones_do_not_count():
    assert label_counts(torch.tensor([-100, 0, 1, 5, -1]), 2).tolist() == [1.0, 1.0]
    assert label_counts(torch.tensor([0, 0, 1]), 2, ignore_index=0).tolist() == [0.0, 1.0]
    assert label_counts(torch.zeros(0, dtype=torch.long), 2).tolist() == [0.0, 0.0]


def test_predictions_are_counted():
    output = normal(30, 5)
    assert torch.equal(prediction_counts(output).long(), torch.bincount(output.argmax(1), minlength=5))
    maps = normal(2, 4, 6, 6)
    assert torch.equal(prediction_counts(maps).long(), torch.bincount(maps.argmax(1).flatten(), minlength=4))
    assert prediction_counts(torch.tensor([0.0, 2.0])).tolist() == [0.0, 1.0]


def test_predictions_at_ignored_labels_do_not_count():
    output, target = torch.eye(3), torch.tensor([0, -100, 2])
    assert prediction_counts(output, target).tolist() == [1.0, 0.0, 1.0]
    assert prediction_counts(output, target, ignore_index=2).tolist() == [1.0, 1.0, 0.0]
    assert prediction_counts(output, torch.tensor([0])).sum() == 3  # targets that don't fit say nothing


def test_nothing_is_touched(untouched):
    x, wide, labels = normal(20, 5).requires_grad_(), normal(100, 200), torch.zeros(20, dtype=torch.long)
    with untouched(x, wide, labels):
        found = [features(x), features(wide), label_counts(labels, 3), prediction_counts(x, labels)]
        assert not any(f.requires_grad for f in found)


def test_no_number_is_looked_at_on_an_accelerator():
    x, labels = torch.empty(20, 5, device="meta"), torch.empty(20, dtype=torch.long, device="meta")
    assert features(torch.empty(64, 3, 99, 99, device="meta")).shape == (4, 3)
    assert label_counts(labels, 5).shape == (5,) and prediction_counts(x, labels).shape == (5,)
