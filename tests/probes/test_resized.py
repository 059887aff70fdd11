"""Batches of any size are made of those that were kept, with inputs and targets still together."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.errors import MisuseError
from unstuck.probes.resized import Resized

SIZE = 6
X = torch.arange(60.0)[:, None] * torch.tensor([1.0, -1.0])
Y = torch.arange(60) % 3


def script_of(loss, *parts, batches=None):
    """A script that takes batches of `SIZE` in turn; the loss is given them."""
    parameters = [p for part in parts for p in part.parameters()]
    optimizer = torch.optim.SGD(parameters, 1e-6)

    def script():
        for k in range(4) if batches is None else batches:
            optimizer.zero_grad()
            loss(X[k * SIZE : (k + 1) * SIZE].clone(), Y[k * SIZE : (k + 1) * SIZE].clone()).backward()
            optimizer.step()

    return script


@pytest.fixture
def linear(bench_of):
    model = nn.Linear(2, 3)
    return Resized(bench_of(script_of(lambda x, y: F.cross_entropy(model(x), y), model)))


@pytest.mark.parametrize(("size", "first"), [(1, 0), (3, 2), (6, 0), (20, 7), (50, 23)])
def test_rows_come_in_order_and_again_from_the_first(linear, size, first):
    tape = linear.bench.tapes[-1]
    data = linear.data(size, first)
    x, y = data[tape.inputs[0]], data[tape.targets[0]]
    numbers = (torch.arange(size) + first) % 24
    assert torch.equal(x, X[numbers])
    assert torch.equal(y, Y[numbers])


def test_what_is_known_of_them(linear):
    assert (linear.size, linear.count, linear.reduction, linear.batch_norms) == (6, 24, "mean", [])


def test_the_loss_of_more_samples_is_that_of_the_network(linear):
    data = linear.data(24)
    layer = linear.bench.modules[0]
    assert float(linear.loss(data).detach()) == pytest.approx(float(F.cross_entropy(layer(X[:24]), Y[:24]).detach()))


def test_gradients_are_means(linear):
    parts = [linear.gradient(6, 6 * k, seed=k) for k in range(4)]
    whole = linear.gradient(24, 0, seed=0)
    assert torch.allclose(sum(p[0] for p in parts) / 4, whole[0], atol=1e-6)


def test_a_sum_is_told_from_a_mean(bench_of):
    model = nn.Linear(2, 3)
    made = Resized(bench_of(script_of(lambda x, y: F.cross_entropy(model(x), y, reduction="sum"), model)))
    assert made.reduction == "sum"


@pytest.mark.parametrize("numbers", [torch.arange, range])
def test_numbers_of_samples_are_made_anew(bench_of, numbers):
    """As in a loss that picks the answer out of each row by its number."""
    model = nn.Linear(2, 3)

    def loss(x, y):
        return -model(x).log_softmax(1)[numbers(len(y)), y].mean()

    made = Resized(bench_of(script_of(loss, model)))
    expected = F.cross_entropy(made.bench.modules[0](X[:20]), Y[:20])
    assert float(made.loss(made.data(20)).detach()) == pytest.approx(float(expected.detach()))


def test_a_batch_behind_the_time_axis(bench_of):
    """Inputs of shape (time, batch, 2): samples lie along the second axis."""
    lstm, head = nn.LSTM(2, 4), nn.Linear(4, 3)

    def loss(x, y):
        out, _ = lstm(x.expand(5, *x.shape).contiguous())
        return F.cross_entropy(head(out[-1]), y)

    made = Resized(bench_of(script_of(loss, lstm, head)))
    data = made.data(10)
    assert data[made.bench.tapes[-1].inputs[0]].shape == (5, 10, 2)
    assert made.loss(data).isfinite()


def test_a_first_hidden_state_goes_with_the_batch(bench_of):
    lstm, head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

    def loss(x, y):
        state = (torch.zeros(1, len(x), 4), torch.zeros(1, len(x), 4))
        out, _ = lstm(x[:, None], state)
        return F.cross_entropy(head(out[:, -1]), y)

    made = Resized(bench_of(script_of(loss, lstm, head)))
    assert made.loss(made.data(13)).isfinite()


def test_targets_of_all_steps_in_a_row(bench_of):
    """Four targets a sample, one sample's behind the other's, as `targets.view(-1)` has them."""
    model = nn.Linear(2, 12)

    def loss(x, y):
        return F.cross_entropy(model(x).view(-1, 3), y.repeat_interleave(4))

    made = Resized(bench_of(script_of(loss, model)))
    data = made.data(9, 2)
    assert torch.equal(data[made.bench.tapes[-1].targets[0]], Y[2:11].repeat_interleave(4))


def test_a_network_that_takes_its_own_size_only(bench_of):
    model = nn.Linear(2 * SIZE, 3 * SIZE)

    def loss(x, y):
        return F.cross_entropy(model(x.view(1, 2 * SIZE)).view(SIZE, 3), y)

    with pytest.raises(MisuseError, match="takes batches of .* only"):
        Resized(bench_of(script_of(loss, model)))


def test_samples_that_act_on_each_other(bench_of):
    """The sum of all pairs grows with the square of their number."""
    model = nn.Linear(2, 3)

    def loss(x, y):
        out = model(x)
        return (out @ out.T).square().sum() + 0 * F.cross_entropy(out, y)

    with pytest.raises(MisuseError, match="4 times that of the batch.*act on each other"):
        Resized(bench_of(script_of(loss, model)))


def test_batch_norms_are_named(bench_of):
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    made = Resized(bench_of(script_of(lambda x, y: F.cross_entropy(model(x), y), model)))
    assert made.batch_norms == ["1"]


def test_the_bench_is_as_before(bench_of):
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    bench = bench_of(script_of(lambda x, y: F.cross_entropy(model(x), y), model))
    before = [t.detach().clone() for t in bench.tensors]
    Resized(bench)
    assert all(torch.equal(a, b) for a, b in zip(before, bench.tensors, strict=True))


LENGTHS = [1 + (3 * k) % 5 for k in range(24)]
STARTS = torch.tensor([0, *LENGTHS]).cumsum(0)
WORDS = torch.arange(int(STARTS[-1])) % 7


def bags(numbers, *, ends=False):
    """Words of samples, one behind the other, and where each begins; and where the last one ends too."""
    pieces = [WORDS[STARTS[k] : STARTS[k + 1]] for k in numbers]
    starts = torch.tensor([0, *(len(piece) for piece in pieces)]).cumsum(0)
    return torch.cat(pieces), starts if ends else starts[:-1]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_samples_of_several_lengths_with_their_offsets(bench_of, ends, weighted):
    """As `nn.EmbeddingBag` takes them: words, and maybe a weight of each, one sample's behind the other's."""
    bag = nn.EmbeddingBag(7, 4, mode="sum", include_last_offset=ends)
    head = nn.Linear(4, 3)
    optimizer = torch.optim.SGD([*bag.parameters(), *head.parameters()], 1e-6)

    def loss(numbers, bag, head):
        words, starts = bags(numbers, ends=ends)
        weights = {"per_sample_weights": 1.0 + 0.5 * words} if weighted else {}
        return F.cross_entropy(head(bag(words, starts, **weights)), Y[numbers])

    def script():
        for k in range(4):
            optimizer.zero_grad()
            loss(torch.arange(k * SIZE, (k + 1) * SIZE), bag, head).backward()
            optimizer.step()

    made = Resized(bench_of(script))
    assert (made.size, made.count, made.reduction) == (SIZE, 24, "mean")
    for size, first in ((1, 0), (5, 3), (20, 7), (50, 23)):
        numbers = (torch.arange(size) + first) % 24
        found = made.loss(made.data(size, first))
        assert float(found.detach()) == pytest.approx(float(loss(numbers, *made.bench.modules).detach()), rel=1e-5)
