from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from unstuck.data.scaler import Scaler
from unstuck.data.scaling import min_max, standardization
from unstuck.errors import MisuseError

IMAGES = np.random.default_rng(0).normal(3, 2, size=(6, 3, 4, 5))


def table(num_samples: int = 500, num_features: int = 4, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(num_samples, num_features)) * [1, 100, 1e-3, 5] + [0, 1e4, 3, -2]


def test_a_scaler_is_saved_and_loaded_without_trust():
    values = table()
    for scaler in (standardization(values), min_max(values, -1, 1), standardization(IMAGES, axis=(1, 2, 3))):
        file = io.BytesIO()
        torch.save(scaler.state_dict(), file)
        file.seek(0)
        loaded = Scaler()
        loaded.load_state_dict(torch.load(file, weights_only=True))
        data = IMAGES if scaler.center.ndim == 3 else values
        assert np.array_equal(loaded(data), scaler(data)) and loaded.axis == scaler.axis


def test_a_scaler_takes_batches_of_all_shapes_and_precisions_in_turn_and_goes_to_another_process():
    scaler = standardization(IMAGES, axis=1)
    batches = [
        IMAGES,
        IMAGES[:2],
        IMAGES[:, :, :2],
        IMAGES[:, :, 0],
        torch.from_numpy(IMAGES),
        torch.from_numpy(IMAGES).float(),
    ]
    for batch in [*batches, *reversed(batches)]:
        copy = pickle.loads(pickle.dumps(scaler))
        assert copy._last is None
        assert np.array_equal(np.asarray(scaler(batch)), np.asarray(copy(batch)))
    scaler.load_state_dict(standardization(IMAGES * 2, axis=1).state_dict())
    np.testing.assert_allclose(scaler(IMAGES * 2), copy(IMAGES), rtol=1e-9)
    with pytest.raises(MisuseError, match="features"):
        scaler(IMAGES[:, :2])


def test_the_scaler_without_arguments_changes_nothing():
    values = table()
    assert np.array_equal(Scaler()(values), values) and np.array_equal(Scaler().inverse(values), values)


def test_scaling_can_be_differentiated_through():
    values = torch.tensor([[1.0, 5.0], [3.0, 9.0]], dtype=torch.float64, requires_grad=True)
    scaler = standardization(values)
    assert torch.autograd.gradcheck(scaler, values) and torch.autograd.gradcheck(scaler.inverse, values)
    assert not scaler.center.requires_grad


def test_whole_numbers_become_floating_point():
    pictures = np.arange(12, dtype=np.uint8).reshape(2, 6)
    assert min_max(pictures, axis=None)(pictures).dtype == np.float64
    assert min_max(torch.from_numpy(pictures), axis=None)(torch.from_numpy(pictures)).dtype == torch.float32
    assert min_max(pictures, axis=None)(pictures).ravel().tolist() == pytest.approx([i / 11 for i in range(12)])


def test_float32_far_from_zero_is_scaled_as_well_as_it_is_given():
    values = (np.random.default_rng(0).normal(size=(1000, 1)) + 1_000_000.04).astype(np.float32)
    scaler, exact = standardization(values), values.astype(np.float64)
    expected = (exact - exact.mean()) / exact.std()
    # a center in float32 would be off by 0.02; three roundings of numbers up to 4 are 7e-7
    np.testing.assert_allclose(scaler(values), expected, atol=1e-6)
    np.testing.assert_allclose(scaler(torch.from_numpy(values)).numpy(), expected, atol=1e-6)
    assert np.array_equal(scaler.inverse(scaler(values)), values)


@pytest.mark.parametrize("axis, samples", [(1, (5, 3)), (1, (5, 3, 8, 8)), (2, (5, 7, 3))])
def test_a_single_sample_is_refused_with_what_to_do(axis, samples):
    x = torch.randn(samples, dtype=torch.float64)
    scaler = standardization(x, axis=axis)
    if axis < x[0].dim():
        with pytest.raises(MisuseError, match=r"is it a single sample\? then scaler\(x\[None\]\)\[0\]"):
            scaler(x[0])
    assert torch.equal(scaler(x[:1])[0], scaler(x)[0])
    with pytest.raises(MisuseError, match="fitted on") as refused:
        scaler(torch.zeros(5, 4, 4, 4)[(slice(None),) * x.dim()])
    assert "single" not in str(refused.value)
