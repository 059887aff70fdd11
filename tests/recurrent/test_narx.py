from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.recurrent.narx import NARX, autoregression


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(*sizes: int, seed: int = 0, **options) -> NARX:
    return NARX(*sizes, generator=torch.Generator().manual_seed(seed), **options).double()


def sunspots() -> np.ndarray:
    datasets = pytest.importorskip("statsmodels.datasets")
    return datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(float)


def by_hand(network: NARX, target: Tensor, inputs: Tensor | None, time: int) -> Tensor:
    """The answer at one time, from a plain reading of the definition."""
    known = [target[:, time - lag] for lag in network.target_lags]
    if inputs is not None:
        known += [inputs[:, time - lag] for lag in network.input_lags]
    x = torch.cat(known, dim=1)
    total = torch.zeros(1, dtype=x.dtype)
    if network.linear is not None:
        total = x @ network.linear.weight.T + network.linear.bias
    if network.hidden is not None:
        *inner, outer = network.hidden
        for layer in inner:
            x = torch.tanh(x @ layer.weight.T + layer.bias)
        total = total + x @ outer.weight.T + outer.bias
    return total


KINDS = {
    "linear": {"target_delays": 3, "input_delays": [1, 4]},
    "hidden": {"target_delays": 3, "input_delays": [0, 2], "hidden_sizes": [6]},
    "direct, two hidden layers": {"target_delays": [2, 7], "input_delays": 2, "hidden_sizes": [6, 5], "direct": True},
    "four steps ahead": {"target_delays": 2, "input_delays": [-3, 1], "horizon": 4, "hidden_sizes": [6]},
    "inputs alone": {"target_delays": 0, "input_delays": [0, 1, 2], "hidden_sizes": [6]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_and_free_running_are_the_definition(kind):
    network = made(2, 3, **KINDS[kind])
    target, inputs = normal(4, 15, 2), normal(4, 25, 3, seed=1)
    told = network(target, inputs[:, :15])
    assert told.shape == (4, 15 - network.span, 2)
    for row in range(told.shape[1]):
        torch.testing.assert_close(told[:, row], by_hand(network, target, inputs, network.span + row))
    free = network.forecast(target, inputs, steps=10)
    known = target
    for time in range(15, 25):
        known = torch.cat([known, by_hand(network, known, inputs, time).unsqueeze(1)], dim=1)
    torch.testing.assert_close(free, known[:, 15:])


@pytest.mark.slow
def test_an_autoregression_is_statsmodels():
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.ar_model import AutoReg

    series = sunspots()
    network = autoregression(9).double()
    network.fit_least_squares(torch.tensor(series).reshape(1, -1, 1))
    expected = AutoReg(series, lags=9, trend="c").fit()
    assert network.linear is not None
    found = [network.linear.bias.item(), *network.linear.weight[0].tolist()]
    np.testing.assert_allclose(found, expected.params, rtol=1e-9, atol=1e-9)  # float64, condition of some hundreds
    free = network.forecast(torch.tensor(series).reshape(1, -1, 1), steps=50)
    np.testing.assert_allclose(free.detach().flatten(), expected.forecast(50), rtol=1e-8)


def test_a_linear_narx_is_least_squares_of_numpy_over_all_series():
    target, inputs = normal(3, 40, 2), normal(3, 40, 2, seed=1)
    network = made(2, 2, target_delays=[1, 3], input_delays=[0, 2], horizon=2)
    network.fit_least_squares(target, inputs)
    rows, answers = [], []
    for series in range(3):
        for time in range(4, 40):
            rows.append(np.concatenate([target[series, time - 2], target[series, time - 4],
                                        inputs[series, time - 1], inputs[series, time - 3], np.ones(1)]))  # fmt: skip
            answers.append(target[series, time].numpy())
    expected = np.linalg.lstsq(np.stack(rows), np.stack(answers), rcond=None)[0]
    np.testing.assert_allclose(network.linear.weight.detach().T, expected[:-1], rtol=1e-9, atol=1e-12)  # float64
    np.testing.assert_allclose(network.linear.bias.detach(), expected[-1], rtol=1e-9, atol=1e-12)


def test_gradients_lead_to_least_squares():
    series = torch.tensor(sunspots()).reshape(1, -1, 1)
    series = (series - series.mean()) / series.std()
    fitted, trained = autoregression(9).double(), autoregression(9, generator=torch.Generator().manual_seed(0)).double()
    fitted.fit_least_squares(series)
    optimizer = torch.optim.LBFGS(trained.parameters(), max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14)

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (trained(series) - series[:, trained.span :]).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    torch.testing.assert_close(trained.linear.weight, fitted.linear.weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(trained.linear.bias, fitted.linear.bias, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "hidden", "four steps ahead"])
def test_gradients_flow_through_the_feedback(kind):
    network = made(1, 2, **KINDS[kind])
    target, inputs = normal(2, 8, 1), normal(2, 15, 2, seed=1)

    def end(known: Tensor, others: Tensor) -> Tensor:
        return network.forecast(known, others, steps=7)[:, -1]

    assert torch.autograd.gradcheck(end, (target.requires_grad_(), inputs.requires_grad_()))
    end(target, inputs).sum().backward()
    assert bool((target.grad.abs().sum(dim=1) > 0).all())  # seven steps on, it is fed with nothing of the target itself


def test_a_doubled_series_doubles_on_and_so_does_its_gradient():
    network = autoregression(1, bias=False).double()
    network.fit_least_squares(torch.tensor([1.0, 2, 4, 8]).double().reshape(1, 4, 1))
    start = torch.ones(1, 1, 1, dtype=torch.float64, requires_grad=True)
    free = network.forecast(start, steps=10)
    np.testing.assert_allclose(free.detach().flatten(), 2.0 ** np.arange(1, 11), rtol=1e-9)
    free[0, -1].backward()
    assert start.grad.item() == pytest.approx(1024, rel=1e-9)


def test_with_hidden_layers_training_goes_on_from_least_squares():
    target, inputs = normal(1, 60, 1), normal(1, 60, 2, seed=1)
    delays = {"target_delays": 3, "input_delays": 2}
    linear, both = made(1, 2, **delays), made(1, 2, **delays, hidden_sizes=[8], direct=True)
    linear.fit_least_squares(target, inputs, ridge=0.1)
    both.fit_least_squares(target, inputs, ridge=0.1)
    torch.testing.assert_close(both(target, inputs), linear(target, inputs))
    both(target, inputs).square().sum().backward()
    assert float(both.hidden[-1].weight.grad.norm()) > 0  # it learns from there
    with pytest.raises(MisuseError, match="direct=True"):
        made(1, 2, **delays, hidden_sizes=[8]).fit_least_squares(target, inputs)


@pytest.mark.slow
def test_a_hidden_layer_tells_what_a_linear_map_cannot():
    values = [0.3]
    for _ in range(300):
        values.append(3.9 * values[-1] * (1 - values[-1]))  # the logistic map: a line tells a quarter of it
    series = torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)
    errors = {}
    for sizes in ([], [8]):
        network = made(1, target_delays=1, hidden_sizes=sizes)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
        for _ in range(400):
            error = (network(series) - series[:, 1:]).square().mean() / series.var()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        errors[len(sizes)] = error.item()
    assert errors[0] > 0.6 and errors[1] < 0.1


def test_the_first_weights_come_from_the_generator():
    options = {"target_delays": 3, "hidden_sizes": [4]}
    first, again, other = made(1, **options), made(1, **options), made(1, seed=1, **options)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.hidden[0].weight, other.hidden[0].weight)


def test_without_bias_nothing_comes_from_nothing():
    network = made(1, target_delays=2, hidden_sizes=[4], direct=True, bias=False)
    assert not network.forecast(torch.zeros(1, 4, 1).double(), steps=5).any()
    network.fit_least_squares(normal(1, 30, 1))
    assert isinstance(network.linear, nn.Linear) and network.linear.bias is None


def test_an_input_is_needed_as_far_as_the_forecast_looks_at_it():
    network = made(1, 1, target_delays=1, input_delays=[2])
    target = normal(1, 5, 1)
    assert network.forecast(target, normal(1, 6, 1), steps=3).shape == (1, 3, 1)
    with pytest.raises(MisuseError, match="no values"):
        network.forecast(target, normal(1, 5, 1), steps=3)


@pytest.mark.parametrize(
    "sizes, options, said",
    [
        ((1, 2), {"target_delays": 2}, "2 input channels and 0 input delays"),
        ((1,), {"target_delays": 2, "input_delays": [1]}, "0 input channels and 1 input delays"),
        ((1,), {"target_delays": 0}, "no delays"),
        ((1,), {"target_delays": [0]}, "not known yet"),
    ],
)
def test_networks_that_cannot_be(sizes, options, said):
    with pytest.raises(MisuseError, match=said):
        NARX(*sizes, **options)


def test_series_that_do_not_fit():
    network = made(1, 2, target_delays=3, input_delays=1)
    target, inputs = normal(1, 9, 1), normal(1, 9, 2)
    for known, others, said in [
        (inputs, inputs, "target of 2 channels"),
        (target, None, "inputs of 0 channels"),
        (target, target, "inputs of 1 channels"),
    ]:
        with pytest.raises(MisuseError, match=said):
            network(known, others)
    with pytest.raises(MisuseError, match="0 steps after"):
        network.forecast(target, inputs, steps=0)
    with pytest.raises(MisuseError, match="a series of 2"):
        network.forecast(target[:, :2], inputs, steps=1)
