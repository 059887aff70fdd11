from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unstuck.errors import MisuseError, NotFiniteError
from unstuck.recurrent.delays import delayed, design_matrix, lags, least_squares


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_delays_are_counted_from_the_first_step_not_known():
    assert lags(3) == (1, 2, 3) and lags(0) == () and lags([]) == ()
    assert lags([5, 1], horizon=6) == (10, 6)
    assert lags([0, -5], horizon=6, smallest=0) == (5, 0)  # known ahead, up to the time of the answer


@pytest.mark.parametrize(
    "delays, options, said",
    [
        (2, {"horizon": 0}, "horizon of 0"),
        (-1, {}, "-1 delays"),
        ([1, 2, 1], {}, "twice"),
        ([0], {}, "delay 0 at horizon 1"),
        ([-1], {"smallest": 0}, "the least is 0"),
        ([-6], {"horizon": 6, "smallest": 0}, "the least is -5"),
    ],
)
def test_delays_that_cannot_be(delays, options, said):
    with pytest.raises(MisuseError, match=said):
        lags(delays, **options)


@pytest.mark.parametrize("distances", [[0], [1], [3, 1], [0, 2, 5]])
def test_delayed_is_each_value_looked_up_one_by_one(distances):
    series = normal(2, 9, 3)
    found = delayed(series, distances)
    first = max(distances)
    assert found.shape == (2, 9 - first, 3 * len(distances))
    for row in range(9 - first):
        for place, distance in enumerate(distances):
            assert torch.equal(found[:, row, 3 * place : 3 * place + 3], series[:, first + row - distance])


def test_rows_after_the_end_as_far_as_they_are_known():
    series = normal(1, 6, 1)
    assert torch.equal(delayed(series, [3, 4], first=6, stop=9)[0, :, 0], series[0, 3:, 0])
    with pytest.raises(MisuseError, match="6 steps has no values for rows 6 to 9"):
        delayed(series, [3, 4], first=6, stop=10)
    with pytest.raises(MisuseError, match="rows 3"):
        delayed(series, [3, 4], first=3)
    with pytest.raises(MisuseError, match="no delays"):
        delayed(series, [])


@pytest.mark.parametrize("horizon", [1, 4])
def test_a_row_of_the_design_matrix_holds_what_is_known_that_far_ahead(horizon):
    target, inputs = normal(2, 20, 1), normal(2, 20, 2, seed=1)
    features, answers = design_matrix(target, inputs, target_delays=2, input_delays=[1, 5], horizon=horizon)
    first = 5 + horizon - 1
    assert features.shape == (2, 20 - first, 2 + 4) and torch.equal(answers, target[:, first:])
    for row in range(20 - first):
        now = first + row - horizon  # the last step known
        expected = [target[:, now], target[:, now - 1], inputs[:, now], inputs[:, now - 4]]
        assert torch.equal(features[:, row], torch.cat(expected, dim=1))


def test_inputs_alone_make_a_design_matrix_too():
    target, inputs = normal(1, 8, 1), normal(1, 8, 2, seed=1)
    features, answers = design_matrix(target, inputs, target_delays=0, input_delays=[0])
    assert torch.equal(features, inputs) and torch.equal(answers, target)


def test_a_design_matrix_of_what_does_not_go_together():
    target = normal(1, 8, 1)
    with pytest.raises(MisuseError, match="go together"):
        design_matrix(target, target, target_delays=2)
    with pytest.raises(MisuseError, match="go together"):
        design_matrix(target, target_delays=2, input_delays=[1])
    with pytest.raises(MisuseError, match="no delays"):
        design_matrix(target, target_delays=0)
    with pytest.raises(MisuseError, match="of 8 steps"):
        design_matrix(target, target_delays=9)


@pytest.mark.parametrize("bias", [True, False])
def test_least_squares_is_numpys(bias):
    x, y = normal(60, 5) + 3, normal(60, 2, seed=1)
    weight, constant = least_squares(x, y, bias=bias)
    whole = np.hstack([x, np.ones((60, 1))]) if bias else x.numpy()
    expected = np.linalg.lstsq(whole, y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(weight.T, expected[:5], rtol=1e-9, atol=1e-12)  # float64, condition below 100
    np.testing.assert_allclose(constant, expected[5] if bias else np.zeros(2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_ridge_is_where_the_penalized_error_has_no_slope(bias):
    x, y = normal(40, 6) + 1, normal(40, 1, seed=1)
    weight, constant = (part.requires_grad_() for part in least_squares(x, y, ridge=2.5, bias=bias))
    loss = (x @ weight.T + constant - y).square().sum() + 2.5 * weight.square().sum()
    by_weight, by_constant = torch.autograd.grad(loss, (weight, constant))
    assert float(by_weight.abs().max()) < 1e-10  # rounding of sums of some tens in float64
    assert (float(by_constant.abs()) < 1e-10) == bias


def test_features_that_depend_on_each_other_get_the_smallest_weight():
    x = normal(30, 1)
    weight, _ = least_squares(torch.cat([x, x], dim=1), 2 * x)
    assert weight.flatten().tolist() == pytest.approx([1.0, 1.0])


def test_float32_is_fitted_in_float64():
    x = normal(50, 3).float()
    weight, constant = least_squares(x, x @ torch.tensor([[1.0], [2.0], [3.0]]))
    assert weight.dtype == constant.dtype == torch.float64


def test_what_cannot_be_fitted():
    x = normal(4, 2)
    with pytest.raises(MisuseError, match="ridge of -1"):
        least_squares(x, x, ridge=-1.0)
    with pytest.raises(MisuseError, match="no rows"):
        least_squares(x[:0], x[:0])
    with pytest.raises(NotFiniteError, match="fill the gaps"):
        least_squares(x, x.log())
