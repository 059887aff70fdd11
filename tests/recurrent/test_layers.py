"""Layers beside torch's: the same numbers from the same parameters, for all that can be asked of them."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unstuck.errors import MisuseError
from unstuck.recurrent.cell import tanh
from unstuck.recurrent.layers import GRU, LSTM, RNN, Recurrent, detach

PAIRS = {"lstm": (nn.LSTM, LSTM), "gru": (nn.GRU, GRU), "rnn": (nn.RNN, RNN)}
INPUT, HIDDEN = 5, 8
# Both add the same products in another order; a gradient sums up to 9 steps of 4 sequences.
TOLERANCE = 2e-6


def pair(kind, seed=0, **settings):
    """A layer of torch's and one of ours with the same parameters."""
    torch.manual_seed(seed)
    theirs, ours = (make(INPUT, HIDDEN, **settings) for make in PAIRS[kind])
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def states_of(kind, layer, batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    many = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.proj_size or HIDDEN, HIDDEN] if kind == "lstm" else [HIDDEN]
    found = tuple(torch.randn(many, batch, w, generator=generator) for w in widths)
    return found if kind == "lstm" else found[0]


def many(states):
    return (states,) if isinstance(states, torch.Tensor) else states


def results(layer, run, x):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    output, states = run(x)
    (output.sin().sum() + sum((s**2).sum() for s in many(states))).backward()
    return [output, *many(states), x.grad, *(p.grad for p in layer.parameters())]


def close(found, true):
    for a, b in zip(found, true, strict=True):
        assert a.shape == b.shape and (a - b).detach().abs().max() <= TOLERANCE * b.detach().abs().max().clamp_min(1e-3)


SHAPES = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "batch_first": True, "bias": False},
    {"bidirectional": True, "batch_first": True},
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("given", [False, True], ids=["from zero", "from states"])
@pytest.mark.parametrize("settings", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "more"), [*((k, {}) for k in PAIRS), ("lstm", {"proj_size": 3})], ids=str)
def test_outputs_states_and_gradients_equal_those_of_torch(kind, more, settings, given):
    theirs, ours = pair(kind, **settings, **more)
    first = states_of(kind, theirs, 4) if given else None
    shape = (4, 9, INPUT) if theirs.batch_first else (9, 4, INPUT)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    close(results(ours, lambda x: ours(x, first), x), results(theirs, lambda x: theirs(x, first), x))

    def packed(x):
        rows = pack_padded_sequence(x, torch.tensor([9, 3, 5, 1]), theirs.batch_first, enforce_sorted=False)
        output, last = theirs(rows, first)
        return pad_packed_sequence(output, theirs.batch_first)[0], last

    close(results(ours, lambda x: ours(x, first, lengths=[9, 3, 5, 1]), x), results(theirs, packed, x))


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("is_sorted", [False, True])
def test_packed_sequences_in_and_out(kind, is_sorted):
    theirs, ours = pair(kind, bidirectional=True)
    lengths = torch.tensor([5, 4, 1] if is_sorted else [1, 5, 4])
    rows = pack_padded_sequence(torch.randn(5, 3, INPUT), lengths, enforce_sorted=is_sorted)
    first = states_of(kind, theirs, 3)
    (found, last), (true, true_last) = ours(rows, first), theirs(rows, first)
    close([pad_packed_sequence(found)[0], *many(last)], [pad_packed_sequence(true)[0], *many(true_last)])


@pytest.mark.parametrize("kind", PAIRS)
def test_a_single_sequence_has_no_axis_for_the_batch(kind):
    theirs, ours = pair(kind, num_layers=2, batch_first=True)
    x, first = torch.randn(6, INPUT), states_of(kind, theirs, 1)
    first = tuple(s[:, 0] for s in first) if kind == "lstm" else first[:, 0]
    (found, last), (true, true_last) = ours(x, first), theirs(x, first)
    close([found, *many(last)], [true, *many(true_last)])


def test_state_dicts_go_back_to_torch():
    theirs, ours = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    theirs.load_state_dict(ours.state_dict())
    assert all(torch.equal(p, ours.state_dict()[n]) for n, p in theirs.state_dict().items())
    assert [n for n, _ in theirs.named_parameters()] == [n for n, _ in ours.named_parameters()]


@pytest.mark.parametrize(
    ("time", "lengths"), [(0, None), (0, [0, 0]), (1, None), (4, [0, 4]), (4, [0, 0]), (4, [1, 0])]
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_steps_and_sequences_of_length_zero(time, lengths, bidirectional):
    layer = LSTM(INPUT, HIDDEN, 2, bidirectional=bidirectional)
    first = states_of("lstm", layer, 2)
    x = torch.randn(time, 2, INPUT, requires_grad=True)
    output, (h, c) = layer(x, first, lengths=lengths)
    assert output.shape == (time, 2, HIDDEN * (1 + bidirectional))
    for b, length in enumerate(lengths or [time, time]):
        assert not output[length:, b].any()
        if length == 0:
            assert torch.equal(h[:, b], first[0][:, b]) and torch.equal(c[:, b], first[1][:, b])
    (output.sum() + h.sum() + c.sum()).backward()
    assert x.grad is not None and all(p.grad is not None for p in layer.parameters())


def test_padding_is_not_looked_at():
    layer = GRU(INPUT, HIDDEN, 2, bidirectional=True)
    x = torch.randn(6, 3, INPUT)
    dirty = x.clone()
    dirty[4:, 1] = float("nan")
    (clean_output, clean_last), (output, last) = (layer(v, lengths=[6, 4, 6]) for v in (x, dirty))
    assert torch.equal(clean_output, output) and torch.equal(clean_last, last)


def test_a_sequence_in_parts_is_the_whole():
    layer = LSTM(INPUT, HIDDEN, 2)
    x = torch.randn(9, 3, INPUT)
    whole, last = layer(x)
    first, states = layer(x[:4])
    second, end = layer(x[4:], detach(states))
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(end, last)
    assert not any(s.requires_grad for s in detach(states)) and not detach(states[0]).requires_grad


def test_dropout_between_layers_is_there_in_training_only_and_the_same_along_a_sequence_when_variational():
    layer = Recurrent(lambda step: {"h": step.input("h")}, 40, 40, 2, dropout=0.5, variational=True, bias=False)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.eye(40))
    x = torch.ones(6, 3, 40)
    dropped = layer(x, lengths=[6, 2, 0])[0]
    assert set(dropped[0, 0].tolist()) == {0.0, 2.0}
    assert torch.equal(dropped[0, 0], dropped[5, 0]) and torch.equal(dropped[0, 1], dropped[1, 1])
    assert not torch.equal(dropped[0, 0], dropped[0, 1])
    layer.variational = False
    assert not torch.equal(*layer(x)[0][:2, 0])
    assert torch.equal(layer.eval()(x)[0], x)


def test_zoneout_keeps_units_at_random_and_in_evaluation_in_the_mean():
    layer = Recurrent(lambda step: {"h": step.input("h")}, 50, 50, zoneout=0.25, bias=False)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(50))
    first = torch.full((1, 40, 50), 3.0)
    kept = layer(torch.ones(1, 40, 50), first)[0] == 3.0
    assert abs(kept.float().mean() - 0.25) < 0.05  # 2000 draws: five standard errors
    assert torch.allclose(layer.eval()(torch.ones(1, 40, 50), first)[0], torch.tensor(0.25 * 3 + 0.75))


def test_recurrent_dropout_scales_what_is_left():
    def shown(step):
        return {"h": step.hidden("h")}

    layer = Recurrent(shown, 1, 100, recurrent_dropout=0.5, bias=False)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.eye(100))
    output, _ = layer(torch.zeros(2, 1, 1), torch.ones(1, 1, 100))
    assert set(output[0, 0].tolist()) == {0.0, 2.0} and set(output[1, 0].tolist()) == {0.0, 4.0}
    assert torch.equal(layer.eval()(torch.zeros(2, 1, 1), torch.ones(1, 1, 100))[0][1, 0], torch.ones(100))


def test_new_layers_keep_what_they_have():
    lstm = LSTM(INPUT, 64)
    assert lstm.bias_ih_l0[64:128].eq(1).all() and not lstm.bias_ih_l0[:64].any() and not lstm.bias_hh_l0.any()
    for gate in lstm.weight_hh_l0.chunk(4):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(64), atol=1e-5, rtol=0)
    assert torch.equal(RNN(INPUT, 64, nonlinearity="relu").weight_hh_l0, torch.eye(64))
    assert GRU(INPUT, 64).bias_ih_l0[64:128].eq(1).all()


def test_a_horizon_spreads_what_gates_keep_over_all_spans():
    lstm = LSTM(INPUT, 500, horizon=1000)
    keep, enter = lstm.bias_ih_l0[500:1000], lstm.bias_ih_l0[:500]
    assert torch.equal(keep, -enter)
    spans = keep.exp()
    assert spans.min() >= 1 and spans.max() <= 999 and 400 < spans.mean() < 600  # uniform from 1 to 999
    with pytest.raises(MisuseError, match="horizon of 2"):
        lstm.reset_parameters(horizon=2)


def test_parameters_are_drawn_from_a_given_generator():
    layers = [LSTM(INPUT, HIDDEN), LSTM(INPUT, HIDDEN)]
    for layer in layers:
        layer.reset_parameters(generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(layers[0].parameters(), layers[1].parameters(), strict=True))


def test_a_cell_of_ones_own():
    def leaky(step, *, rate=0.5):
        return {"h": (1 - rate) * step.h + rate * tanh(step.gate("h"))}

    layer = Recurrent(leaky, 1, 2, rate=0.25, bias=False)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.tensor([[1.0], [0.0]]))
        layer.weight_hh_l0.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    output, _ = layer(torch.tensor([[2.0], [0.0]]))
    first = 0.25 * torch.tensor(2.0).tanh()
    torch.testing.assert_close(output, torch.stack([torch.stack([first, torch.tensor(0.0)]),
                                                    torch.stack([0.75 * first, 0.25 * first.tanh()])]))  # fmt: skip


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LSTM(0, 4), "input_size must be a whole number above 0"),
        (lambda: LSTM(3, 4, 0), "num_layers"),
        (lambda: LSTM(3, 4, proj_size=4), "projection to 4"),
        (lambda: LSTM(3, 4, dropout=2.0), "dropout rates"),
        (lambda: LSTM(3, 4, backend="cuda"), "no backend 'cuda'"),
        (lambda: GRU(3, 4, proj_size=2), "no projection"),
        (lambda: Recurrent("lstn", 3, 4), "did you mean 'lstm'"),
        (lambda: RNN(3, 4, nonlinearity="gelu"), "no nonlinearity 'gelu'"),
        (lambda: LSTM(3, 4, coupled=True, forget=False), "isn't there"),
        (lambda: LSTM(3, 4)(torch.zeros(5, 2, 4)), r"inputs of shape \(5, 2, 4\)"),
        (lambda: LSTM(3, 4)(torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)), "states h, c of shapes"),
        (lambda: LSTM(3, 4)(torch.zeros(5, 2, 3), (torch.zeros(1, 3, 4),) * 2), "states h, c of shapes"),
        (lambda: LSTM(3, 4)(torch.zeros(5, 2, 3).double()), "inputs are torch.float64"),
        (lambda: LSTM(3, 4)(torch.zeros(5, 2, 3), lengths=[6, 1]), "don't fit sequences of 5 steps"),
        (lambda: LSTM(3, 4)(pack_padded_sequence(torch.zeros(2, 1, 3), [2]), lengths=[2]), "know their lengths"),
    ],
)
def test_what_can_not_be_is_refused_with_the_reason(make, says):
    with pytest.raises(ValueError if "did you" not in says else LookupError, match=says):
        make()


def test_a_layer_is_copied_pickled_and_printed():
    layer = LSTM(INPUT, HIDDEN, 2, peephole=True)
    x = torch.randn(4, 2, INPUT)
    expected = layer(x)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0], expected)
    assert str(layer) == "LSTM(5, 8, num_layers=2, peephole=True)"
    assert str(Recurrent("indrnn", 3, 4)) == "Recurrent(indrnn, 3, 4)"


def test_under_autocast_states_are_not_rounded():
    layer = LSTM(INPUT, HIDDEN)
    x = torch.randn(6, 2, INPUT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = layer(x)
    assert output.dtype is torch.float32 and torch.equal(output, layer(x)[0])


def test_half_precision_runs_by_tensor_operations():
    layer = LSTM(INPUT, HIDDEN).to(torch.bfloat16)
    x = torch.randn(6, 2, INPUT, dtype=torch.bfloat16)
    output, _ = layer(x)
    output.sum().backward()
    expected = layer.float()(x.float())[0]
    torch.testing.assert_close(output.float(), expected, atol=0.03, rtol=0)  # bfloat16 has 8 bits


def test_outputs_may_be_changed_in_place():
    layer = RNN(INPUT, HIDDEN)
    x = torch.randn(4, 2, INPUT, requires_grad=True)
    layer(x)[0].mul_(2).sum().backward()
    twice, x.grad = x.grad, None
    (layer(x)[0] * 2).sum().backward()
    assert torch.equal(twice, x.grad)


COMPILED = """
import torch
from torch import nn
from unstuck.recurrent.layers import LSTM


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = LSTM(5, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.layer(x * 2)[0].relu()).sin()


torch.manual_seed(0)
model, x = Model(), torch.randn(4, 2, 5)
output = torch.compile(model, backend="aot_eager")(x)
torch.testing.assert_close(output, model(x))
output.sum().backward()
found = [p.grad.clone() for p in model.parameters()]
model.zero_grad()
model(x).sum().backward()
torch.testing.assert_close(found, [p.grad for p in model.parameters()])
"""


@pytest.mark.slow
def test_a_model_around_a_layer_may_be_compiled():
    """In a process of its own, where nothing checks shapes: the compiler follows what does so, and stumbles."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
