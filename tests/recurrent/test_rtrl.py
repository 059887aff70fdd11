"""Real-time recurrent learning beside backpropagation through all steps by autograd, in float64."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

from unstuck._discover import find
from unstuck.errors import MisuseError
from unstuck.recurrent.cell import sigmoid, tanh
from unstuck.recurrent.layers import LSTM, RNN, Recurrent
from unstuck.recurrent.rtrl import RTRL

pytestmark = pytest.mark.slow

INPUT, HIDDEN, TIME, BATCH = 3, 5, 12, 2
# Sums of 24 products in another order, in float64; what is asked for is 1e-12.
EXACT = 1e-12

VARIANTS = [
    ("lstm", {"peephole": True}),
    ("lstm", {"coupled": True}),
    ("lstm", {"forget": False}),
    ("lstm", {"proj_size": 3}),
    ("lstm", {"bias": False}),
    ("gru", {"reset_after": False}),
    ("rnn", {"nonlinearity": "relu"}),
]
CELLS = [*((name, {}) for name in find("recurrent.cells")), *VARIANTS]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(cell, *, seed: int = 0, scale: float = 0.3, **settings) -> Recurrent:
    layer = Recurrent(cell, INPUT, HIDDEN, dtype=torch.float64, **settings)
    layer.reset_parameters(generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for n, p in enumerate(layer.parameters()):
            p += scale * normal(*p.shape, seed=100 + n)
    return layer


def loss(outputs: Tensor, weights: Tensor) -> Tensor:
    return (outputs.sin() * weights).sum()


def through_time(layer: nn.Module, x: Tensor, weights: Tensor) -> list[Tensor]:
    """The gradient by the plain loop, which autograd differentiates."""
    layer.zero_grad()
    layer.backend, before = "plain", layer.backend
    loss(layer(x)[0], weights).backward()
    layer.backend = before
    return [p.grad.clone() for p in layer.parameters()]


def online(learner: RTRL, x: Tensor, weights: Tensor, chunk: int) -> list[Tensor]:
    learner.layer.zero_grad()
    for part, given in zip(x.split(chunk), weights.split(chunk), strict=True):
        loss(learner(part)[0], given).backward()
    return [p.grad.clone() for p in learner.layer.parameters()]


def error(found: list[Tensor], true: list[Tensor]) -> float:
    assert all(t.abs().max() > 0 for t in true)
    return max(float((f - t).abs().max() / t.abs().max()) for f, t in zip(found, true, strict=True))


def streams(layer: Recurrent) -> tuple[Tensor, Tensor]:
    return normal(TIME, BATCH, INPUT, seed=1), normal(TIME, BATCH, layer.proj_size or HIDDEN, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "chunk"), [("block", 5), ("stepwise", 1)])
@pytest.mark.parametrize(("cell", "settings"), CELLS, ids=lambda v: getattr(v, "__name__", str(v)))
def test_with_a_loss_at_every_step_it_is_the_gradient_through_all_time(cell, settings, mode, chunk):
    # A ReLU's states grow without end with weights as large as the others', and their sine then is noise.
    layer = made(cell, scale=0.1 if "nonlinearity" in settings else 0.3, **settings)
    x, weights = streams(layer)
    assert error(online(RTRL(layer, mode=mode), x, weights, chunk), through_time(layer, x, weights)) < EXACT


@pytest.mark.parametrize("mode", ["block", pytest.param("stepwise", marks=pytest.mark.slow), "elementwise"])
def test_so_it_is_without_a_compiler(mode):
    for cell in ["indrnn"] if mode == "elementwise" else ["lstm", "minimal-gated", "layer-norm-lstm"]:
        layer = made(cell, backend="torch")
        x, weights = streams(layer)
        assert error(online(RTRL(layer, mode=mode), x, weights, 5), through_time(layer, x, weights)) < EXACT


def long_kept(step):
    """Two states, and units that see themselves alone (Irie et al. 2023 have such a cell)."""
    keep = sigmoid(step.input("f", bias=1.0) + step.vector("see_f", low=-1.0, high=1.0) * step.h)
    new = tanh(step.input("z") + step.vector("see_z", low=-1.0, high=1.0) * step.h)
    c = keep * step.state("c") + (1.0 - keep) * new
    return {"h": tanh(c) * sigmoid(step.input("o")), "c": c}


@pytest.mark.parametrize("mode", ["elementwise", "snap1"])
@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("cell", ["indrnn", long_kept], ids=lambda v: getattr(v, "__name__", str(v)))
def test_units_that_see_themselves_alone_are_taken_one_by_one(cell, chunk, mode):
    layer = made(cell)
    x, weights = streams(layer)
    assert error(online(RTRL(layer, mode=mode), x, weights, chunk), through_time(layer, x, weights)) < EXACT


def other_widths(step):
    """Two linear maps of two states, a vector and a product that is mapped."""
    mixed = step.hidden("a", of=step.state("c")) * step.vector("v", low=-1.0, high=1.0)
    c = tanh(step.gate("b") + mixed)
    return {"h": sigmoid(step.hidden("d", of=c * step.h)) * c, "c": c}


@pytest.mark.parametrize("mode", ["block", "stepwise"])
def test_any_cell_of_a_users_own(mode):
    layer = made(other_widths)
    x, weights = streams(layer)
    assert error(online(RTRL(layer, mode=mode), x, weights, 4), through_time(layer, x, weights)) < EXACT


@pytest.mark.parametrize("mode", ["block", "stepwise"])
def test_more_steps_than_are_gone_through_at_once(mode):
    layer = made("gru")
    x, weights = normal(60, 1, INPUT, seed=1), normal(60, 1, HIDDEN, seed=2)
    assert error(online(RTRL(layer, mode=mode), x, weights, 50), through_time(layer, x, weights)) < EXACT


@pytest.mark.parametrize("mode", ["block", "stepwise"])
def test_losses_may_be_left_out_and_may_be_of_the_last_states(mode):
    layer = made("lstm", batch_first=True)
    x = normal(BATCH, TIME, INPUT, seed=1)
    output, (h, c) = layer(x)
    (output[:, 7:8].sum() + (c**3).sum() + h.sin().sum()).backward()
    true = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    learner = RTRL(layer, mode=mode)
    learner(x[:, :3])
    with torch.no_grad():
        learner(x[:, 3:6])
    learner(x[:, 6:9])[0][:, 1:2].sum().backward()
    output, (h, c) = learner(x[:, 9:])
    assert output.shape == (BATCH, 3, HIDDEN) and torch.equal(learner.states[1], c)
    ((c**3).sum() + h.sin().sum()).backward()
    assert error([p.grad for p in layer.parameters()], true) < EXACT


@pytest.mark.parametrize("mode", ["block", "stepwise"])
@pytest.mark.parametrize(
    "settings", [{"zoneout": 0.3}, {"recurrent_dropout": 0.3}], ids=lambda v: getattr(v, "__name__", str(v))
)
def test_random_masks_are_those_of_the_forward_pass(settings, mode):
    layer = made("lstm", **settings)
    x, weights = streams(layer)
    torch.manual_seed(7)
    states, total = None, 0.0
    for part, given in zip(x.split(5), weights.split(5), strict=True):
        output, states = layer(part, states)
        total = total + loss(output, given)
    total.backward()
    true = [p.grad.clone() for p in layer.parameters()]
    torch.manual_seed(7)
    assert error(online(RTRL(layer, mode=mode), x, weights, 5), true) < EXACT


@pytest.mark.parametrize(("mode", "cell"), [("block", "lstm"), ("stepwise", "gru"), ("elementwise", "indrnn")])
def test_sensitivities_are_derivatives_of_the_states(mode, cell):
    layer, x = made(cell), normal(7, 2, INPUT, seed=1)
    learner = RTRL(layer, mode=mode)
    for part in x.split([3, 4]):
        learner(part)
    found, named = learner.sensitivities(), dict(layer.named_parameters())
    _, last = layer(x)
    for state, value in zip(layer.cell.states, (last,) if isinstance(last, Tensor) else last, strict=True):
        for sample, unit in [(0, 0), (1, 3)]:
            true = torch.autograd.grad(value[0, sample, unit], list(named.values()), retain_graph=True)
            for (name, parameter), t in zip(named.items(), true, strict=True):
                part = found[state][name]
                assert part.shape == (2, HIDDEN, *parameter.shape)
                assert (part[sample, unit] - t).abs().max() <= EXACT * t.abs().max().clamp_min(1)


def snap1(layer: LSTM, x: Tensor, weights: Tensor) -> Tensor:
    """SnAp-1 as it is defined, from whole Jacobians, for one stream: of influences only those within one step are kept."""
    named = dict(layer.named_parameters())
    flat = torch.cat([p.detach().flatten() for p in named.values()])

    def step(parameters: Tensor, state: Tensor, t: int) -> Tensor:
        parts = parameters.split([p.numel() for p in named.values()])
        given = {n: v.view(p.shape) for (n, p), v in zip(named.items(), parts, strict=True)}
        states = state.view(2, 1, 1, HIDDEN).unbind(0)
        _, last = torch.func.functional_call(layer, given, (x[t : t + 1], tuple(states)))
        return torch.stack(last).flatten()

    unit = torch.cat([torch.arange(HIDDEN).repeat(4).repeat_interleave(p[0].numel()) for p in named.values()])
    own = unit == torch.arange(HIDDEN).repeat(2)[:, None]
    state, kept, total = torch.zeros_like(flat[: 2 * HIDDEN]), torch.zeros(2 * HIDDEN, len(flat), dtype=flat.dtype), 0.0
    for t in range(len(x)):
        by_parameter, by_state = torch.func.jacrev(step, (0, 1))(flat, state, t)
        kept = (by_state @ kept + by_parameter) * own
        state = step(flat, state, t)
        total = total + (state[:HIDDEN].cos() * weights[t, 0]) @ kept[:HIDDEN]
    return total


@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_snap1_is_what_is_left_of_whole_jacobians(chunk):
    layer = made("lstm", backend="plain")
    x, weights = normal(6, 1, INPUT, seed=1), normal(6, 1, HIDDEN, seed=2)
    true = snap1(layer, x, weights)
    found = torch.cat([g.flatten() for g in online(RTRL(layer, mode="snap1"), x, weights, chunk)])
    assert (found - true).abs().max() < EXACT * true.abs().max()
    whole = torch.cat([g.flatten() for g in through_time(layer, x, weights)])
    assert (found - whole).abs().max() > 0.01 * whole.abs().max()


def test_gradients_by_inputs_are_those_within_the_chunk():
    layer, weights = made("lstm"), normal(5, BATCH, HIDDEN, seed=2)
    x = normal(10, BATCH, INPUT, seed=1)
    learner = RTRL(layer)
    learner(x[:5])
    states = learner.states
    given, true = (x[5:].clone().requires_grad_() for _ in range(2))
    loss(learner(given)[0], weights).backward()
    loss(layer(true, states)[0], weights).backward()
    assert (given.grad - true.grad).abs().max() < EXACT * true.grad.abs().max()


@pytest.mark.parametrize(("mode", "cell"), [("block", "lstm"), ("stepwise", "lstm"), ("snap1", "gru")])
def test_streams_that_begin_anew_are_like_new_ones(mode, cell):
    layer = made(cell)
    x, weights = streams(layer)
    learner, fresh = RTRL(layer, mode=mode), RTRL(layer, mode=mode)
    learner(x[:6])
    learner.reset(torch.tensor([False, True]))
    found = online(learner, x[6:, 1:2].expand(-1, BATCH, -1), weights[6:] * torch.tensor([0, 1.0])[:, None], 3)
    true = online(fresh, x[6:, 1:2], weights[6:, 1:2], 3)
    assert error(found, true) < EXACT
    learner.reset()
    assert learner.states is None and learner.num_bytes == 0 and learner.sensitivities() == {}
    assert (
        error(online(learner, x[:, :1], weights[:, :1], 5), online(RTRL(layer, mode=mode), x[:, :1], weights[:, :1], 5))
        == 0
    )


def held_by_tensors() -> int:
    gc.collect()
    return sum(t.numel() * t.element_size() for t in gc.get_objects() if type(t) is Tensor)


@pytest.mark.parametrize(
    ("mode", "chunk"), [("block", 100), ("snap1", 100), pytest.param("stepwise", 20, marks=pytest.mark.slow)]
)
def test_memory_does_not_grow_in_ten_thousand_steps(mode, chunk):
    layer = RNN(2, 3)
    learner, held = RTRL(layer, mode=mode), []
    x = torch.randn(chunk, 1, 2, generator=torch.Generator().manual_seed(0))
    for n in range(10000 // chunk):
        outputs, _ = learner(x)
        outputs.sum().backward()
        if n in (1, 10000 // chunk - 1):
            del outputs
            held.append((learner.num_bytes, held_by_tensors()))
    assert held[0][0] > 0 and held[0] == held[1]


@pytest.mark.slow
def test_it_learns_from_what_was_many_chunks_ago():
    """A first input that counts after 12 steps, in chunks of 3: truncated to a chunk, there is no gradient by it at all."""
    torch.manual_seed(0)
    layer, head = LSTM(2, 6), nn.Linear(6, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 0.02)
    learner, losses = RTRL(layer), []
    for _ in range(60):
        learner.reset()
        x = torch.zeros(12, 2, 2)
        x[0, :, 0] = torch.tensor([1.0, -1.0])
        x[-1, :, 1] = 1
        for part in x.split(3):
            outputs, _ = learner(part)
        value = (head(outputs[-1]).squeeze(-1) - x[0, :, 0]).square().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert sum(losses[:5]) / 5 > 0.8 and sum(losses[-5:]) / 5 < 0.05


def test_what_cannot_be_is_said():
    for settings in ({"num_layers": 2}, {"bidirectional": True}):
        with pytest.raises(MisuseError, match="one layer and one direction"):
            RTRL(LSTM(2, 3, **settings))
    with pytest.raises(MisuseError, match="a layer of unstuck.recurrent.layers is expected, not LSTM"):
        RTRL(nn.LSTM(2, 3))
    with pytest.raises(MisuseError, match="no mode 'fast'; there are block, stepwise"):
        RTRL(LSTM(2, 3), mode="fast")
    with pytest.raises(MisuseError, match="units of the cell lstm see each other"):
        RTRL(LSTM(2, 3), mode="elementwise")
    with pytest.raises(MisuseError, match="SnAp-1 saves nothing"):
        RTRL(Recurrent("layer-norm-lstm", 2, 3), mode="snap1")
    learner = RTRL(LSTM(2, 3))
    with pytest.raises(MisuseError, match=r"inputs of shape \(0, 1, 2\)"):
        learner(torch.zeros(0, 1, 2))
    with pytest.raises(MisuseError, match="float64, the layer's weights torch.float32"):
        learner(torch.zeros(1, 1, 2, dtype=torch.float64))
    first, _ = learner(torch.zeros(4, 2, 2))
    with pytest.raises(MisuseError, match="3 streams are not as many as before"):
        learner(torch.zeros(4, 3, 2))
    with pytest.raises(MisuseError, match="a truth value for each of 2 streams"):
        learner.reset(torch.tensor([1, 0]))
    second, _ = learner(torch.zeros(4, 2, 2))
    with pytest.raises(MisuseError, match="or the next chunk has been run"):
        first.sum().backward()
    second.sum().backward(retain_graph=True)
    with pytest.raises(MisuseError, match="gradient was taken before"):
        second.sum().backward()


def test_parameters_that_were_changed_in_between_are_noticed():
    layer = LSTM(2, 3)
    outputs, _ = RTRL(layer)(torch.zeros(4, 1, 2))
    with torch.no_grad():
        layer.weight_hh_l0 += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()
