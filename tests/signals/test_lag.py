from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unstuck.signals.lag import by_call, memory


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(kind: type[nn.RNNBase], *sizes: int, seed: int = 0, gain: float = 1.0, **options) -> nn.RNNBase:
    """A layer with known weights, whatever the global randomness is."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    module = kind(*sizes, **options)
    torch.set_rng_state(state)
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(gain)
    return module


def fixed(size: int) -> Tensor:
    return torch.cos(2.399963 * torch.arange(1, size + 1, dtype=torch.float64))


def by_autograd(module: nn.RNNBase, x: Tensor) -> np.ndarray:
    """The same from torch's own layer, fed one step at a time with its state, in float64. `x` has time first."""
    module, x = copy.deepcopy(module).double(), x.double()
    module.batch_first = False
    is_lstm = isinstance(module, nn.LSTM)
    size = module.proj_size or module.hidden_size
    h = torch.zeros(module.num_layers, x.shape[1], size, dtype=torch.float64, requires_grad=True)
    c = torch.zeros(module.num_layers, x.shape[1], module.hidden_size, dtype=torch.float64, requires_grad=True)
    states = [(h, c) if is_lstm else (h,)]
    for now in x.split(1):
        output, state = module(now, states[-1] if is_lstm else states[-1][0])
        states.append(state if is_lstm else (state,))
    target = (output[0] * fixed(size)).sum()
    each = len(states[0])
    grads = (
        torch.autograd.grad(target, [part for state in states[-2:0:-1] for part in state]) if len(states) > 2 else ()
    )
    pairs = [torch.cat([g.flatten() for g in grads[i : i + each]]) for i in range(0, len(grads), each)]
    return np.array([1.0] + [float(pair.norm() / (fixed(size).norm() * math.sqrt(x.shape[1]))) for pair in pairs])


LAYERS = {
    "rnn": made(nn.RNN, 5, 7),
    "rnn relu": made(nn.RNN, 5, 7, nonlinearity="relu"),
    "rnn, 3 layers, no bias": made(nn.RNN, 5, 7, 3, bias=False),
    "gru": made(nn.GRU, 5, 7),
    "gru, 2 layers, no bias": made(nn.GRU, 5, 7, 2, bias=False),
    "gru, large weights": made(nn.GRU, 5, 7, gain=4.0),
    "lstm": made(nn.LSTM, 5, 7),
    "lstm, 3 layers": made(nn.LSTM, 5, 7, 3),
    "lstm, no bias": made(nn.LSTM, 5, 7, bias=False),
    "lstm, projected": made(nn.LSTM, 5, 7, proj_size=3),
    "lstm, projected, 2 layers": made(nn.LSTM, 5, 7, 2, proj_size=3),
    "lstm, large weights": made(nn.LSTM, 5, 7, gain=4.0),
    "lstm, dropout": made(nn.LSTM, 5, 7, 2, dropout=0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_memory_is_what_autograd_says(name):
    module = LAYERS[name]
    x = normal(24, 3, 5)
    expected = by_autograd(module.eval(), x)
    np.testing.assert_allclose(memory(copy.deepcopy(module).double(), x.double()), expected, rtol=1e-10)
    np.testing.assert_allclose(memory(module.train(), x), expected, rtol=1e-4)  # float32 over 24 steps


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_bidirectional_layer_is_two_layers_of_which_the_longer_memory_counts(kind):
    both = made(kind, 5, 7, bidirectional=True)
    forward, backward = made(kind, 5, 7), made(kind, 5, 7)
    with torch.no_grad():
        for name, weight in both.named_parameters():
            (backward if name.endswith("_reverse") else forward).get_parameter(name.removesuffix("_reverse")).copy_(
                weight
            )
    x = normal(15, 3, 5)
    expected = np.maximum(by_autograd(forward, x), by_autograd(backward, x.flip(0)))
    np.testing.assert_allclose(memory(both, x), expected, rtol=1e-4)


def test_stacked_bidirectional_layers_count_one_by_one():
    module = made(nn.LSTM, 5, 7, 2, bidirectional=True, proj_size=3).double()
    x = normal(15, 2, 5).double()
    first = made(nn.LSTM, 5, 7, bidirectional=True, proj_size=3).double()
    second = made(nn.LSTM, 6, 7, bidirectional=True, proj_size=3).double()
    with torch.no_grad():
        for name, weight in module.named_parameters():
            layer = first if "_l0" in name else second
            layer.get_parameter(name.replace("_l1", "_l0")).copy_(weight)
        between, _ = first(x)
    expected = np.maximum(memory(first, x).numpy(), memory(second, between.detach()).numpy())
    np.testing.assert_allclose(memory(module, x), expected, rtol=1e-10)


def test_batch_first_and_unbatched_inputs():
    x = normal(12, 3, 5)
    plain, first = made(nn.GRU, 5, 7), made(nn.GRU, 5, 7, batch_first=True)
    assert torch.equal(memory(plain, x), memory(first, x.transpose(0, 1)))
    assert torch.equal(memory(plain, x[:, :1]), memory(plain, x[:, 0]))
    assert torch.equal(memory(first, x[:, :1].transpose(0, 1)), memory(first, x[:, 0]))
    assert torch.equal(memory(plain, x), memory(plain, (x, torch.zeros(1, 3, 7))))


def test_sizes_far_below_the_smallest_float32():
    module = made(nn.RNN, 3, 4, gain=0.2)
    found = memory(module, normal(300, 2, 3))
    expected = by_autograd(module, normal(300, 2, 3))
    assert found.dtype == torch.float64 and 0 < found[200] < 1e-150
    np.testing.assert_allclose(found[:150], expected[:150], rtol=1e-3)  # beyond, the squares underflow even in float64


def test_sizes_far_above_the_largest_float32():
    module = made(nn.RNN, 3, 4, nonlinearity="relu", bias=False)
    with torch.no_grad():
        module.weight_hh_l0.copy_(3 * torch.eye(4))
        module.weight_ih_l0.fill_(1e-38)
    found = memory(module, torch.ones(150, 2, 3))
    assert found[100] > 1e38
    np.testing.assert_allclose(found, 3.0 ** np.arange(150), rtol=1e-4)


def test_a_gate_that_forgets_all_leaves_exactly_nothing():
    module = made(nn.RNN, 3, 4, nonlinearity="relu")
    with torch.no_grad():
        module.bias_ih_l0.fill_(-100)
    assert memory(module, normal(10, 2, 3)).tolist() == [1.0] + [0.0] * 9


def test_a_long_input_is_looked_at_from_its_end():
    module = made(nn.LSTM, 5, 7)
    x = normal(400, 2, 5)
    found = memory(module, x, max_steps=30)
    assert found.shape == (31,)
    np.testing.assert_allclose(
        found, by_autograd(module, x[-100:])[:31], rtol=1e-3
    )  # 70 steps bring the state to where it is


def test_lags_end_with_the_first_input():
    module = made(nn.LSTM, 5, 7)
    assert memory(module, normal(6, 2, 5)).shape == (6,)
    assert memory(module, normal(1, 2, 5)).tolist() == [1.0]


def test_only_a_few_samples_spread_over_the_batch_are_looked_at():
    module, x = made(nn.GRU, 5, 7), normal(10, 16, 5)
    assert torch.equal(memory(module, x, max_batch=4), memory(module, x[:, ::4]))
    assert torch.equal(memory(module, x, max_batch=100), memory(module, x, max_batch=16))


def test_forget_bias_lengthens_memory():
    short, long = made(nn.LSTM, 8, 32), made(nn.LSTM, 8, 32)
    with torch.no_grad():
        long.bias_ih_l0[32:64] += 3
    x = normal(60, 4, 8)
    assert memory(long, x)[50] > 1e3 * memory(short, x)[50]


def test_what_is_no_fused_layer_or_has_packed_input_has_no_memory():
    module, x = made(nn.LSTM, 5, 7), normal(6, 2, 5)
    packed = nn.utils.rnn.pack_padded_sequence(x, [6, 4])
    assert memory(module, packed) is None and memory(module, (packed,)) is None
    assert memory(nn.Linear(5, 7), x) is None and memory(nn.LSTMCell(5, 7), x[0]) is None
    assert memory(module, ()) is None and memory(module, None) is None and memory(module, x[:0]) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    module = made(nn.LSTM, 5, 7)
    x = normal(10, 2, 5)
    np.testing.assert_allclose(memory(module.to(dtype), x.to(dtype)), memory(module.float(), x), rtol=0.1)


def test_autocast_is_left_out():
    module, x = made(nn.LSTM, 5, 7), normal(10, 2, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = memory(module, x)
    assert torch.equal(found, memory(module, x))


def test_nan_gives_nan_and_no_error():
    assert memory(made(nn.LSTM, 5, 7), torch.full((6, 2, 5), math.nan))[1:].isnan().all()


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_nothing_is_touched(kind, untouched):
    module, x = made(kind, 5, 7, 2, dropout=0.5), normal(9, 3, 5).requires_grad_()
    for weight in module.parameters():
        weight.grad = torch.ones_like(weight)
    with untouched(x, *module.parameters()):
        assert not memory(module, x).requires_grad
    module.weight_ih_l0.requires_grad_(False)
    memory(module, x)
    assert not module.weight_ih_l0.requires_grad


@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_number_is_looked_at_on_an_accelerator(bidirectional):
    module = made(nn.LSTM, 5, 7, bidirectional=bidirectional).to("meta")
    assert memory(module, torch.empty(9, 3, 5, device="meta")).shape == (9,)


# --- cells called once a time step


def test_gradient_by_call_becomes_gradient_by_lag():
    assert by_call([1.0, 2.0, 4.0]).tolist() == [1.0, 0.5, 0.25]


def test_calls_after_the_last_gradient_do_not_count():
    assert by_call([1.0, 4.0, 0.0, 0.0]).tolist() == [1.0, 0.25]


def test_calls_that_were_not_measured_are_nan():
    np.testing.assert_array_equal(by_call({0: 0.5, 3: 2.0, 4: 4.0}), [1.0, 0.5, np.nan, np.nan, 0.125])


def test_without_any_gradient_there_are_no_lags():
    assert by_call([]).size == 0 and by_call([0.0, 0.0]).size == 0 and by_call([math.nan]).size == 0


def test_tiny_norms_keep_their_ratio():
    assert by_call([1e-300, 1e-200])[1] == pytest.approx(1e-100)
