from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError, NotFiniteError
from unstuck.recurrent.horizon import horizon, module_horizon


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(kind: type[nn.RNNBase], *sizes: int, seed: int = 0, **options) -> nn.RNNBase:
    """A layer with known weights, whatever the global randomness is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*sizes, **{"batch_first": True} | options)


def forgetting(size: int, bias: Tensor | float, *, inputs: int = 10, gate: Tensor | float = 0.0) -> nn.RNNBase:
    """An LSTM with given biases of its forget and input gates, and no others."""
    module = made(nn.LSTM, inputs, size)
    with torch.no_grad():
        module.bias_ih_l0.zero_()
        module.bias_hh_l0.zero_()
        module.bias_ih_l0[size : 2 * size] = bias
        module.bias_ih_l0[:size] = gate
    return module


def by_autograd(module: nn.RNNBase, x: Tensor, seed: int) -> list[float]:
    """All steps in one graph, in float64; the cotangent is drawn as the module under test draws it."""
    module, state, states = module.double(), None, []
    for now in x.double().unbind(1):
        output, state = module(now.unsqueeze(1), state)
        states.append(state if isinstance(state, tuple) else (state,))
    v = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed)).double()
    found = [0.0]
    for parts in states[-2::-1]:
        grads = torch.autograd.grad(output, parts, v, retain_graph=True)
        found.append(math.log10(float(torch.cat([g.flatten() for g in grads]).norm() / v.norm())))
    return found


LAYERS = {
    "rnn": made(nn.RNN, 5, 7),
    "rnn relu, 3 layers": made(nn.RNN, 5, 7, 3, nonlinearity="relu"),
    "gru": made(nn.GRU, 5, 7),
    "gru, 2 layers": made(nn.GRU, 5, 7, 2),
    "lstm": made(nn.LSTM, 5, 7),
    "lstm, 3 layers": made(nn.LSTM, 5, 7, 3),
    "lstm, projected": made(nn.LSTM, 5, 7, proj_size=3),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_what_autograd_says_of_the_whole_sequence(name):
    module, x = LAYERS[name].float(), normal(3, 25, 5)
    found = module_horizon(module, x, seed=3)
    # float32 over 24 steps against float64
    np.testing.assert_allclose(found.log10, by_autograd(module, x, 3), rtol=0, atol=1e-4)
    in_double = module_horizon(module.double(), x.double(), seed=3)
    np.testing.assert_allclose(in_double.log10, by_autograd(module, x, 3), rtol=0, atol=1e-12)


def test_a_step_function_of_two_states_is_the_module_that_computes_the_same():
    module, cell, x = made(nn.LSTM, 5, 7), nn.LSTMCell(5, 7), normal(3, 20, 5)
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in module.state_dict().items()})
    zeros = (torch.zeros(3, 7), torch.zeros(3, 7))
    found = horizon(cell, x, zeros, reads=lambda state: state[0])
    of_module = module_horizon(module, x, tuple(part.unsqueeze(0) for part in zeros))
    assert found.log10.shape == (21,)  # with a given first state the gradient by that counts, too
    assert found.steps == of_module.steps
    # both draw one number for each unit of h, in the same order
    np.testing.assert_allclose(found.log10, of_module.log10, rtol=0, atol=1e-5)


def test_a_power_of_a_matrix_is_its_decay():
    turn = torch.linalg.qr(normal(6, 6, seed=1)).Q
    found = horizon(lambda x, h: 0.8 * h @ turn + x, normal(4, 40, 6), torch.zeros(4, 6))
    np.testing.assert_allclose(found.log10, np.arange(41) * math.log10(0.8), atol=1e-5)
    assert found.steps == 30 and not found.at_least  # 0.8^30 = 1.24e-3, 0.8^31 = 9.9e-4
    assert found.ratio == 1e-3


@pytest.mark.parametrize("ratio, steps", [(0.9, 0), (0.5, 3), (0.1, 10)])
def test_the_horizon_is_the_last_lag_at_or_above_the_ratio(ratio, steps):
    found = horizon(lambda x, h: 0.8 * h, torch.zeros(1, 40, 2), torch.zeros(1, 2), ratio=ratio)
    assert found.steps == steps and not found.at_least


def test_what_comes_back_after_it_was_gone_does_not_count():
    factors = iter([1.0, 1e6, 1e-6, 0.5, 0.5])  # of the five steps, the last at lag 1
    found = horizon(lambda x, h: next(factors) * h, torch.zeros(1, 5, 1), torch.zeros(1, 1))
    np.testing.assert_allclose(10**found.log10, [1, 0.5, 0.25, 2.5e-7, 0.25, 0.25], rtol=1e-5)
    assert found.steps == 2


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_a_memory_longer_than_the_input_is_at_least_that(factor):
    found = horizon(lambda x, h: factor * h, torch.zeros(2, 30, 3), torch.zeros(2, 3))
    assert found.steps == 30 and found.at_least


@pytest.mark.parametrize("factor", [1e-3, 1e-25, 1e3, 1e25])
def test_sizes_far_outside_of_float32(factor):
    found = horizon(lambda x, h: factor * h, torch.zeros(2, 400, 3), torch.zeros(2, 3))
    np.testing.assert_allclose(found.log10, math.log10(factor) * np.arange(401), rtol=1e-6)


def test_a_gradient_that_ends_is_exactly_nothing():
    found = horizon(
        lambda x, h: torch.where(x > 0, 0.5 * h, 0 * h), torch.tensor([[[0.0], [1.0], [1.0]]]), torch.zeros(1, 1)
    )
    assert found.log10.tolist() == [0.0, math.log10(0.5), math.log10(0.25), -math.inf] and found.steps == 2
    cut = horizon(lambda x, h: x, torch.zeros(1, 4, 1), torch.zeros(1, 1))  # the state before plays no part
    assert cut.log10.tolist() == [0.0] + [-math.inf] * 4 and cut.steps == 0


def test_what_is_read_at_the_end_may_be_a_part_of_the_state():
    def step(x, state):
        kept, faded = state
        return kept, 0.1 * faded

    start, x = (torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2, 10, 1)
    assert horizon(step, x, start, reads=lambda state: state[1], ratio=0.05).steps == 1
    assert horizon(step, x, start, reads=lambda state: state[0], ratio=0.05).at_least
    assert horizon(step, x, start, ratio=0.05).at_least


def test_only_the_last_steps_are_looked_at_with_max_lag():
    module, x = made(nn.GRU, 5, 7), normal(2, 60, 5)
    short, whole = module_horizon(module, x, max_lag=15), module_horizon(module, x)
    assert short.log10.shape == (16,)
    np.testing.assert_allclose(short.log10, whole.log10[:16], rtol=0, atol=1e-6)


# Of cells with 128 units, 16 samples and few inputs, computed in float64 by autograd. Another draw of weights differs by up to 3.
DRAWN = math.log10(3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, at_10, at_50, steps",
    [
        ("lstm", 3e-3, 8e-11, 11),
        ("gru", 5e-3, 8e-11, 12),
        ("forget bias 1", 0.065, 1.6e-4, 35),
        ("chrono", 0.47, 0.42, None),
    ],
)
def test_known_cells_at_initialization(name, at_10, at_50, steps):
    chrono = torch.log(torch.empty(128).uniform_(1, 999, generator=torch.Generator().manual_seed(0)))
    module = {
        "lstm": lambda: made(nn.LSTM, 10, 128),
        "gru": lambda: made(nn.GRU, 10, 128),
        "forget bias 1": lambda: forgetting(128, 1.0),
        "chrono": lambda: forgetting(128, chrono, gate=-chrono),
    }[name]()
    found = module_horizon(module, normal(16, 120, 10, seed=1))
    assert float(found.log10[10]) == pytest.approx(math.log10(at_10), abs=DRAWN)
    assert float(found.log10[50]) == pytest.approx(math.log10(at_50), abs=DRAWN)
    assert found.at_least if steps is None else abs(found.steps - steps) <= 3


def test_nothing_is_touched():
    module, x = made(nn.LSTM, 5, 7, 2, dropout=0.5), normal(2, 12, 5).requires_grad_()
    module.eval()
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    state = torch.get_rng_state()
    found = module_horizon(module, x)
    assert torch.equal(torch.get_rng_state(), state) and not module.training and x.grad is None
    assert not found.log10.requires_grad and torch.is_grad_enabled()
    assert all(torch.equal(weight, before[name]) and weight.grad is None for name, weight in module.named_parameters())


def test_it_works_where_gradients_are_off_and_with_frozen_weights():
    module, x = made(nn.GRU, 5, 7), normal(2, 12, 5)
    expected = module_horizon(module, x).log10
    module.requires_grad_(False)
    with torch.no_grad():
        found = module_horizon(module, x).log10
    torch.testing.assert_close(
        found, expected, rtol=0, atol=1e-6
    )  # another kernel of torch's, where nothing needs a gradient


def test_time_first_modules_are_called_time_first():
    x, options = normal(3, 9, 5), {"seed": 2}
    first, last = made(nn.GRU, 5, 7), made(nn.GRU, 5, 7, batch_first=False)
    a, b = module_horizon(first, x, **options).log10, module_horizon(last, x, **options).log10
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_the_vector_at_the_end_comes_from_the_seed():
    module, x = made(nn.GRU, 5, 7), normal(3, 9, 5)
    one, again, other = (module_horizon(module, x, seed=seed).log10 for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_what_has_no_horizon():
    x = normal(2, 6, 5)
    with pytest.raises(MisuseError, match="bidirectional"):
        module_horizon(made(nn.LSTM, 5, 7, bidirectional=True), x)
    with pytest.raises(MisuseError, match=r"Ignoring returned no \(output, state\)"):
        module_horizon(Ignoring(), x)
    with pytest.raises(MisuseError, match="1 steps"):
        module_horizon(made(nn.LSTM, 5, 7), x[:, :1])
    for options, said in [
        ({"ratio": 0.0}, "ratio of 0"),
        ({"ratio": math.nan}, "ratio"),
        ({"max_lag": 0}, "max_lag 0"),
    ]:
        with pytest.raises(MisuseError, match=said):
            horizon(lambda x, h: h, x, torch.zeros(2, 3), **options)
    with pytest.raises(MisuseError, match="at least one step"):
        horizon(lambda x, h: h, x[:, :0], torch.zeros(2, 3))
    with pytest.raises(NotFiniteError, match="1 steps before the end"):
        horizon(lambda x, h: h * math.inf, x, torch.zeros(2, 3))


class Ignoring(nn.Linear):
    """A module that takes a state and gives none back."""

    def __init__(self) -> None:
        super().__init__(5, 7)

    def forward(self, x, state):
        return super().forward(x)
