from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.recurrent.delays import delayed
from unstuck.recurrent.tdnn import TDNN


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(*sizes, seed: int = 0, **options) -> TDNN:
    return TDNN(*sizes, generator=torch.Generator().manual_seed(seed), **options).double().eval()


def by_hand(network: TDNN, x: Tensor) -> Tensor:
    """Every unit at every step as a sum over its delays, nothing outside the sequence. `x` is `(time, input)`."""
    for number, layer in enumerate(network.layers):
        weight, step = layer.weight, layer.dilation[0]
        kernel, time = weight.shape[2], len(x)
        ahead = 0 if network.causal else (kernel - 1) * step // 2
        rows = []
        for now in range(time):
            total = layer.bias.clone()
            for tap in range(kernel):
                seen = now + ahead - (kernel - 1 - tap) * step
                if 0 <= seen < time:
                    total = total + weight[:, :, tap] @ x[seen]
            rows.append(total)
        x = torch.stack(rows)
        x = x if number == len(network.layers) - 1 else torch.relu(x)
    return x


NETWORKS = {
    "linear filter": ((3, [], 2), {"kernel_size": 4}),
    "causal": ((3, [5, 4], 2), {"kernel_size": [3, 2, 1], "dilation": [1, 2, 1]}),
    "centred": ((3, [5, 4], 2), {"kernel_size": 3, "dilation": [1, 2, 4], "causal": False}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_a_sum_over_delays(name):
    sizes, options = NETWORKS[name]
    network, x = made(*sizes, **options), normal(2, 11, 3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))  # biases too
    torch.testing.assert_close(network(x), torch.stack([by_hand(network, one) for one in x]))


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_is_as_if_each_sequence_were_alone(name):
    sizes, options = NETWORKS[name]
    network, x, lengths = made(*sizes, **options), normal(3, 12, 3), torch.tensor([12, 5, 1])
    nn.init.constant_(network.layers[0].bias, 1.0)  # so that hidden units in the padding are not zero by themselves
    padded = x.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = math.nan
    found = network(padded, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row, :length], network(x[row : row + 1, :length])[0])
        assert not found[row, length:].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_an_output_is_told_from_its_receptive_field_and_nothing_else(name):
    sizes, options = NETWORKS[name]
    network = made(*sizes, **options, activation=torch.tanh)
    x = normal(1, 41, 3).requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[0, 20].sum(), x)
    seen = slope[0].abs().sum(dim=1).nonzero().flatten().tolist()
    half = network.receptive_field // 2
    first, last = (20 - network.receptive_field + 1, 20) if network.causal else (20 - half, 20 + half)
    assert (seen[0], seen[-1]) == (first, last)


def test_without_hidden_layers_it_is_a_linear_map_of_delays():
    network, x = made(2, [], 3, kernel_size=4, dilation=2), normal(2, 15, 2)
    weight = network.layers[0].weight.flip(2).transpose(1, 2).flatten(1)  # nearest delay first
    expected = delayed(x, [0, 2, 4, 6]) @ weight.T + network.layers[0].bias
    torch.testing.assert_close(network(x)[:, network.receptive_field - 1 :], expected)


@pytest.mark.parametrize("hidden", [[64], [64, 64, 64]])
def test_the_first_weights_keep_the_size_of_a_signal(hidden):
    network = made(32, hidden, 16, kernel_size=5)
    x = normal(8, 100, 32)
    assert network(x)[:, network.receptive_field :].std().item() == pytest.approx(1, abs=0.3)  # one draw of weights


def test_it_finds_a_delay():
    x = normal(16, 60, 1)
    network = made(1, [8], 1, kernel_size=[4, 4], seed=3)
    target = torch.zeros_like(x)
    target[:, 6:] = x[:, :-6].relu()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(250):
        loss = (network(x) - target)[:, 6:].square().mean() / target.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


def test_dropout_is_of_hidden_units_and_in_training_only():
    network, x = made(2, [50], 1, dropout=0.5), normal(1, 5, 2)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))
    alone = made(2, [], 1, dropout=0.5).train()
    assert torch.equal(alone(x), alone(x))


def test_the_first_weights_come_from_the_generator():
    first, again, other = made(2, [4], 1), made(2, [4], 1), made(2, [4], 1, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_layers_without_bias_give_nothing_from_nothing():
    network = made(2, [4], 1, bias=False)
    assert not network(torch.zeros(1, 5, 2).double()).any()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"kernel_size": [3, 3, 3]}, "kernel_size .* for 2 layers"),
        ({"dilation": 0}, "dilation"),
        ({"kernel_size": 2, "causal": False}, "odd"),
    ],
)
def test_networks_that_cannot_be(options, said):
    with pytest.raises(MisuseError, match=said):
        TDNN(2, [4], 1, **options)


@pytest.mark.parametrize("lengths", [[4, 6], [0, 5]])
def test_lengths_that_do_not_fit(lengths):
    with pytest.raises(MisuseError, match="2 sequences of 5 steps"):
        made(3, [], 1)(normal(2, 5, 3), torch.tensor(lengths))
