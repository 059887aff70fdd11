from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from unstuck.data.scaling import Scaled, Scaler, min_max, standardization
from unstuck.errors import MisuseError

quick = settings(max_examples=50, deadline=None, derandomize=True)
finite = st.floats(-1e6, 1e6)


def table(num_samples: int = 500, num_features: int = 4, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(num_samples, num_features)) * [1, 100, 1e-3, 5] + [0, 1e4, 3, -2]


class Items(Dataset):
    """Samples that are made one by one."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize("precision", ["float16", "float32", "float64"])
@pytest.mark.parametrize("of", ["array", "tensor"])
def test_standardization_is_that_of_scikit_learn(precision, of):
    from sklearn.preprocessing import StandardScaler

    values = (np.random.default_rng(1).normal(size=(3000, 5)) * 3 + 10).astype(precision)
    expected = StandardScaler().fit(values.astype(np.float64))
    given_values = values if of == "array" else torch.from_numpy(values)
    scaler = standardization(given_values)
    np.testing.assert_allclose(scaler.center.numpy(), expected.mean_, rtol=1e-12)
    np.testing.assert_allclose(scaler.scale.numpy(), expected.scale_, rtol=1e-12)
    scaled = scaler(given_values)
    assert type(scaled) is type(given_values) and scaled.dtype == given_values.dtype
    tolerance = 4 * float(np.finfo(precision).eps)  # numbers up to 4, rounded once
    np.testing.assert_allclose(
        np.asarray(scaled, np.float64), expected.transform(values.astype(np.float64)), atol=tolerance
    )


def test_a_range_is_that_of_scikit_learn():
    from sklearn.preprocessing import MinMaxScaler

    train, evaluation = table(), table(seed=1)
    expected = MinMaxScaler((-1, 3)).fit(train)
    scaler = min_max(train, -1, 3)
    np.testing.assert_allclose(scaler(evaluation), expected.transform(evaluation), rtol=1e-9, atol=1e-12)
    assert scaler(train).min() == -1 and scaler(train).max() == pytest.approx(3, abs=1e-15)
    np.testing.assert_allclose(scaler.inverse(scaler(evaluation)), evaluation, rtol=1e-12)


def test_only_the_training_part_counts():
    values = table()
    scaler = standardization(values[:100])
    again = standardization(np.concatenate([values[:100]]))
    assert torch.equal(scaler.center, again.center)
    scaled = scaler(values)
    assert np.abs(scaled[:100].mean(axis=0)).max() < 1e-12 and np.abs(scaled[100:].mean(axis=0)).max() > 1e-3


@quick
@given(value=st.floats(-1e6, 1e6, width=32), num_samples=st.integers(1, 300), num_batches=st.integers(1, 5))
def test_constant_features_become_zero(value, num_samples, num_batches):
    batches = [np.full((num_samples, 1), value, np.float32)] * num_batches
    for scaler in (standardization(iter(batches)), min_max(iter(batches))):
        assert scaler(batches[0]).tolist() == [[0.0]] * num_samples
        assert scaler(batches[0] + 1).tolist() == pytest.approx((np.float32(value) + 1) - batches[0])
        assert np.array_equal(scaler.inverse(scaler(batches[0])), batches[0])
    assert min_max(batches[0], -1, 1)(batches[0]).tolist() == [[-1.0]] * num_samples


def test_what_varies_only_by_rounding_is_constant():
    values = np.full((1000, 1), 0.1)
    values[::2] = 0.3 - 0.2  # the same on paper, not in float64
    assert values[0] != values[1]
    assert np.abs(standardization(values)(values)).max() < 1e-15


IMAGES = np.random.default_rng(2).normal(size=(20, 3, 4, 5)) * np.array([1, 10, 100])[:, None, None] + 7


@pytest.mark.parametrize(
    "axis, reduced",
    [(1, (0, 2, 3)), (-3, (0, 2, 3)), ((1, 2, 3), 0), (None, (0, 1, 2, 3)), (3, (0, 1, 2)), ((1, -1), (0, 2))],
)
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_the_axis_says_which_numbers_share_their_statistics(axis, reduced, convert):
    images = convert(IMAGES)
    expected = (IMAGES - IMAGES.mean(reduced, keepdims=True)) / IMAGES.std(reduced, keepdims=True)
    scaler = standardization(images, axis=axis)
    np.testing.assert_allclose(np.asarray(scaler(images)), expected, atol=1e-12)
    np.testing.assert_allclose(np.asarray(scaler.inverse(scaler(images))), IMAGES, atol=1e-10)
    least, greatest = IMAGES.min(reduced, keepdims=True), IMAGES.max(reduced, keepdims=True)
    np.testing.assert_allclose(
        np.asarray(min_max(images, axis=axis)(images)), (IMAGES - least) / (greatest - least), atol=1e-12
    )


def test_a_series_of_numbers_shares_one_mean():
    series = torch.arange(5.0)
    assert standardization(series)(series).tolist() == pytest.approx([(i - 2) / 2**0.5 for i in range(5)])


def sources(values: torch.Tensor) -> dict:
    labels = torch.arange(len(values))
    whole = TensorDataset(values, labels)
    items = [(value, int(label)) for value, label in zip(values, labels, strict=True)]

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(items)

    return {
        "tensors": (whole, 0),
        "subset": (
            Subset(TensorDataset(torch.cat([values, values + 99]), torch.zeros(2 * len(values))), range(len(values))),
            0,
        ),
        "joined": (ConcatDataset([Subset(whole, range(10)), Subset(whole, range(10, len(values)))]), 0),
        "items": (Items(items), 0),
        "second": (Items([(label, value) for value, label in items]), 1),
        "dictionaries": (Items([{"x": value.numpy(), "y": label} for value, label in items]), "x"),
        "alone": (Items(list(values)), 0),
        "stream": (Stream(), 0),
        "loader": (DataLoader(whole, batch_size=7, shuffle=True), 0),
        "batches": ((values[i : i + 9] for i in range(0, len(values), 9)), 0),
    }


@pytest.mark.parametrize("name", list(sources(torch.zeros(20, 1))))
def test_datasets_and_streams_are_fitted_as_arrays_are(name):
    values = torch.from_numpy(table(600))
    data, inputs = sources(values)[name]
    before = torch.get_rng_state()
    scaler = standardization(data, inputs=inputs)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_allclose(scaler.center.numpy(), values.numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaler.scale.numpy(), values.numpy().std(axis=0), rtol=1e-12)
    data, inputs = sources(values)[name]
    scaler = min_max(data, inputs=inputs)
    assert np.array_equal(scaler.center.numpy(), values.numpy().min(axis=0))


def test_samples_of_different_lengths_are_fitted_together():
    sequences = [torch.randn(length, 2, generator=torch.Generator().manual_seed(length)) for length in (3, 3, 8, 1)]
    scaler = standardization(Items(sequences), axis=-1)
    together = torch.cat(sequences).double()
    assert torch.allclose(scaler.center, together.mean(0)) and torch.allclose(
        scaler.scale, together.std(0, correction=0)
    )


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "make, inputs",
    [
        (lambda x, y: (x, y), 0),
        (lambda x, y: [y, x], 1),
        (lambda x, y: Pair(x, y), 0),
        (lambda x, y: {"x": x, "y": y}, "x"),
        (lambda x, y: x, 0),
        (lambda x, y: (x.numpy(), y), 0),
    ],
)
def test_a_scaled_dataset_has_its_samples_scaled_and_else_as_they_were(make, inputs):
    values = torch.from_numpy(table(20)).float()
    samples = [make(value, i) for i, value in enumerate(values)]
    scaler = standardization(values)
    scaled = Scaled(Items(samples), scaler, inputs)
    assert len(scaled) == 20
    for i, sample in enumerate(samples):
        found = scaled[i]
        assert type(found) is type(sample)
        inner = found if isinstance(sample, torch.Tensor) else found[inputs]
        assert inner.dtype in (torch.float32, np.float32)
        np.testing.assert_allclose(np.asarray(inner), scaler(values)[i].numpy(), rtol=1e-6)
        if not isinstance(sample, torch.Tensor):
            rest = found["y"] if isinstance(found, dict) else found[1 - inputs]
            assert rest == i
    loader = DataLoader(scaled, batch_size=5)
    assert len(list(loader)) == 4


def test_a_scaled_dataset_of_images_and_of_single_numbers():
    images = torch.from_numpy(IMAGES)
    scaler = standardization(images)
    assert torch.allclose(Scaled(Items(list(images)), scaler)[3], scaler(images)[3])
    numbers = [1.0, 2.0, 4.0]
    scaled = Scaled(Items(numbers), min_max(Items(numbers)))
    assert [float(scaled[i]) for i in range(3)] == pytest.approx([0, 1 / 3, 1])


def test_many_rows_and_wide_ones_are_looked_at_in_parts():
    tall, wide = np.random.default_rng(0).normal(size=(300_000, 1)), np.random.default_rng(1).normal(size=(3, 200_000))
    for values in (tall, wide):
        scaler = standardization(values)
        np.testing.assert_allclose(scaler.center.numpy(), values.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(scaler.scale.numpy(), values.std(axis=0), rtol=1e-11)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: standardization(np.zeros((0, 3))), "no samples"),
        (lambda: min_max([]), "no samples"),
        (lambda: standardization(np.array([[1, NAN], [2, 3]])), r"values of 1 of 2 features \(1\) are not finite"),
        (lambda: standardization(np.array([[NAN, 1], [2, 3]])), r"\(0\) are not finite"),
        (lambda: min_max(np.array([[1, 2], [INF, 3]])), r"\(0\) are not finite"),
        (lambda: min_max(np.array([[1, NAN], [2, 3]])), r"\(1\) are not finite"),
        (lambda: min_max(np.array([1, NAN])), "values are not finite"),
        (lambda: standardization(np.array([[1e200], [-1e200]])), "too large to be squared"),
        (lambda: min_max(np.array([[1.0]]), 1, 1), "a range from 1 to 1"),
        (lambda: standardization(np.array([["a"]])), "numbers are needed"),
        (lambda: standardization(np.zeros((2, 3)), axis=2), "axis 2 of a batch of 2 axes"),
        (lambda: standardization(np.zeros((2, 3)), axis=0), "axis 0 of a batch"),
        (lambda: standardization(np.zeros((2, 3, 4)), axis=(1, -2)), "take different ones"),
        (lambda: standardization(7), "int is no array"),
        (lambda: standardization((np.zeros((2, 3)), np.zeros(2))), "tuple is no array"),
        (lambda: standardization(np.float64(3)), "a single number"),
        (lambda: standardization(iter([np.zeros((2, 3)), np.zeros((2, 4))])), r"features \(4,\) after \(3,\)"),
        (lambda: standardization(Items([{"image": np.zeros(3)}])), r"no inputs at 0 .* \['image'\]"),
        (lambda: standardization(Items([(np.zeros(3),)]), inputs=2), "places 0 to 0"),
        (lambda: standardization(np.zeros((2, 3)))(np.zeros((2, 4))), r"features \(4,\) in a batch \(2, 4\)"),
        (lambda: Scaler()(np.float64(3)), "a single number"),
        (lambda: Scaled(DataLoader([1]), Scaler()), "DataLoader has no numbered samples"),
    ],
)
def test_what_cannot_be_scaled(make, said):
    with pytest.raises(MisuseError, match=said):
        make()
