"""Truncated backpropagation beside a window of steps that autograd goes back through."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.recurrent import layers
from unstuck.recurrent.layers import detach
from unstuck.recurrent.truncated import TruncatedBPTT

INPUT, HIDDEN, BATCH = 3, 5, 2
KINDS = [nn.LSTM, nn.GRU, nn.RNN, layers.LSTM, layers.GRU, layers.RNN]
# The same products, in sums of at most 12 in another order.
EXACT = 1e-12


def made(kind, *args, **settings) -> nn.Module:
    torch.manual_seed(0)
    return kind(INPUT, HIDDEN, *args, **settings).double()


def stream(time: int) -> Tensor:
    return torch.randn(time, BATCH, INPUT, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(layer: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in layer.parameters()]


def window(layer: nn.Module, x: Tensor, stop: int, every: int, through: int) -> tuple[Tensor, list[Tensor]]:
    """Outputs of the last steps before `stop`, and the gradient through a window by its definition."""
    start, states = max(0, stop - through), None
    if start:
        states = detach(layer(x[:start])[1])
    layer.zero_grad()
    outputs = layer(x[start:stop], states)[0][-every:]
    outputs.sin().sum().backward()
    return outputs, gradients(layer)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "through"), [(4, 4), (3, 5), (2, 8)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k.__module__}.{k.__name__}")
def test_each_gradient_is_that_through_the_last_steps(kind, every, through):
    layer = made(kind, 2)
    learner, x = TruncatedBPTT(layer, every=every, through=through), stream(12)
    for n, part in enumerate(x.split(every), start=1):
        layer.zero_grad()
        outputs, _ = learner(part)
        outputs.sin().sum().backward()
        found = gradients(layer)
        expected, true = window(layer, x, n * every, every, through)
        assert torch.allclose(outputs, expected, rtol=0, atol=EXACT)
        for f, t in zip(found, true, strict=True):
            assert (f - t).abs().max() <= EXACT * t.abs().max()


def test_outputs_and_states_are_those_of_one_run():
    layer = made(layers.LSTM, batch_first=True)
    x = stream(23).transpose(0, 1)
    learner = TruncatedBPTT(layer, every=5, through=12)
    outputs, states = zip(*(learner(part) for part in x.split(5, 1)), strict=True)
    expected, (h, c) = layer(x)
    assert [o.shape[1] for o in outputs] == [5, 5, 5, 5, 3]
    assert torch.allclose(torch.cat(outputs, 1), expected, rtol=0, atol=EXACT)
    for found, state in ((states[-1], (h, c)), (learner.states, (h, c))):
        assert all(torch.allclose(f, s, rtol=0, atol=EXACT) for f, s in zip(found, state, strict=True))
    assert not any(s.requires_grad for s in learner.states)


def test_an_optimizer_may_step_after_each_call():
    layer = made(nn.GRU)
    optimizer = torch.optim.SGD(layer.parameters(), 0.5)
    learner, x = TruncatedBPTT(layer, every=2, through=8), stream(40)
    values = []
    for part in x.split(2):
        outputs, _ = learner(part)
        value = (outputs - 0.5).square().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.1 * values[0]


def test_gradients_by_inputs_are_those_of_the_last_steps():
    layer, x = made(nn.RNN), stream(10)
    learner = TruncatedBPTT(layer, every=2, through=6)
    parts = [part.clone().requires_grad_() for part in x.split(2)]
    for part in parts:
        outputs, _ = learner(part)
    outputs.sum().backward()
    whole = x.clone().requires_grad_()
    layer(whole)[0][-2:].sum().backward()
    assert [p.grad is not None for p in parts] == [False] * 4 + [True]
    assert torch.allclose(parts[-1].grad, whole.grad[-2:], rtol=0, atol=EXACT)


def held_by_tensors() -> int:
    gc.collect()
    return sum(t.numel() * t.element_size() for t in gc.get_objects() if type(t) is Tensor)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "through"), [(100, 100), (100, 250)])
def test_memory_does_not_grow_in_ten_thousand_steps(every, through):
    layer = layers.LSTM(2, 3)
    learner, held = TruncatedBPTT(layer, every=every, through=through), []
    x = torch.randn(every, 1, 2, generator=torch.Generator().manual_seed(0))
    for n in range(10000 // every):
        outputs, ends = learner(x)
        outputs.sum().backward()
        if n in (5, 10000 // every - 1):
            del outputs, ends
            held.append(held_by_tensors())
    assert held[0] == held[1] and learner.num_kept == through - every


@pytest.mark.parametrize("kind", [nn.GRU, layers.LSTM])
def test_streams_that_begin_anew_are_like_new_ones(kind):
    layer, x = made(kind), stream(12)
    learner = TruncatedBPTT(layer, every=3, through=6)
    for part in x[:6].split(3):
        learner(part)
    others = learner.states[0][:, 0] if kind is layers.LSTM else learner.states[:, 0]
    learner.reset(torch.tensor([False, True]))
    kept = learner.states[0] if kind is layers.LSTM else learner.states
    assert torch.equal(kept[:, 0], others) and not kept[:, 1].any()
    outputs = torch.cat([learner(part)[0] for part in x[6:].split(3)])
    assert torch.allclose(outputs[:, 1], layer(x[6:])[0][:, 1], rtol=0, atol=EXACT)
    assert torch.allclose(outputs[:, 0], layer(x)[0][6:, 0], rtol=0, atol=EXACT)
    learner.reset()
    assert learner.states is None and learner.num_kept == 0
    assert torch.equal(learner(x[:3, :1])[0], layer(x[:3, :1])[0])


def test_what_cannot_be_is_said():
    for every, through in ((0, 5), (6, 5)):
        with pytest.raises(MisuseError, match="1 <= every <= through"):
            TruncatedBPTT(nn.GRU(2, 3), every=every, through=through)
    with pytest.raises(MisuseError, match="a stream, which has no end"):
        TruncatedBPTT(nn.GRU(2, 3, bidirectional=True), every=5)
    learner = TruncatedBPTT(nn.GRU(2, 3), every=5, through=8)
    for shape in ((6, 1, 2), (0, 1, 2), (5, 2)):
        with pytest.raises(MisuseError, match="from 1 to 5 steps"):
            learner(torch.zeros(shape))
    learner(torch.zeros(5, 2, 2))
    with pytest.raises(MisuseError, match="1 streams are not as many as before"):
        learner(torch.zeros(5, 1, 2))
    with pytest.raises(MisuseError, match="a truth value for each of 2 streams"):
        learner.reset(torch.tensor([True]))
