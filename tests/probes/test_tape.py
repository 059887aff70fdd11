"""A tape computes the very loss again that it was recorded from, and keeps nothing of the graph."""

import dataclasses
import gc
import weakref
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unstuck.probes.tape import MOST_CALLS, Recording, Tape, walk

Pair = namedtuple("Pair", "first second")


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


def data(samples=12, inputs=6, classes=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, inputs, generator=generator), torch.arange(samples) % classes


X, Y = data()


def replayed(tape: Tape) -> torch.Tensor:
    torch.manual_seed(0)
    loss, _ = tape.replay(tape.modules, tape.trained, tape.data)
    return loss


def computed(forward) -> torch.Tensor:
    torch.manual_seed(0)
    return forward()


def parameters(*shapes):
    generator = torch.Generator().manual_seed(2)
    return [(0.3 * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]


# ---------------------------------------------------------------------- what can be computed again


class Network(nn.Module):
    """Gives its output in different wrappings."""

    def __init__(self, wrap=lambda logits, hidden: logits):
        super().__init__()
        self.one, self.two, self.wrap = nn.Linear(6, 8), nn.Linear(8, 3), wrap

    def forward(self, x):
        hidden = self.one(x).tanh()
        return self.wrap(self.two(hidden), hidden)


def module_net():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, 3))
    return lambda: nn.CrossEntropyLoss()(model(X), Y)


def functional_loss():
    model = Network()
    return lambda: F.cross_entropy(model(X), Y, label_smoothing=0.1)


def outputs_in_a_dict():
    model = Network(lambda logits, hidden: {"logits": logits, "more": {"hidden": hidden}})

    def forward():
        out = model(X)
        return F.cross_entropy(out["logits"], Y) + 0.1 * out["more"]["hidden"].pow(2).mean()

    return forward


def outputs_in_tuples():
    model = Network(lambda logits, hidden: (None, (hidden, [logits])))

    def forward():
        _, (hidden, (logits,)) = model(X)
        return F.cross_entropy(logits, Y) + hidden.abs().mean()

    return forward


def outputs_in_a_namedtuple():
    model, loss = Network(Pair), nn.L1Loss()

    def forward():
        out = model(X)
        return F.cross_entropy(out.first, Y) + loss(out.second, torch.zeros(12, 8))

    return forward


def outputs_in_a_dataclass():
    model = Network(Output)

    def forward():
        out = model(X)
        return F.cross_entropy(out.logits, Y) + out.hidden.mean()

    return forward


def plain_tensors():
    w1, b1, w2 = parameters((6, 8), (8,), (8, 3))

    def forward():
        hidden = torch.relu(X @ w1 + b1)
        log_p = hidden @ w2 - (hidden @ w2).exp().sum(1, keepdim=True).log()
        return -log_p[range(12), Y].mean()

    return forward


def functional_net():
    w1, b1, w2, b2 = parameters((8, 6), (8,), (3, 8), (3,))
    return lambda: F.nll_loss(F.log_softmax(F.linear(F.gelu(F.linear(X, w1, b1)), w2, b2), 1), Y)


def lstm_with_state():
    lstm, head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 1)
    h, c = torch.zeros(1, 12, 5), torch.zeros(1, 12, 5)

    def forward():
        out, (last, _) = lstm(X.view(12, 2, 3), (h, c))
        return F.mse_loss(head(out[:, -1]), X[:, :1]) + last.pow(2).mean()

    return forward


def recurrent_cell_by_hand():
    cell, head = nn.LSTMCell(3, 5), nn.Linear(5, 3)

    def forward():
        state = (torch.zeros(12, 5), torch.zeros(12, 5))
        for part in X.view(12, 2, 3).unbind(1):
            state = cell(part, state)
        return F.cross_entropy(head(state[0]), Y)

    return forward


def packed_sequences():
    gru = nn.GRU(3, 4, batch_first=True)

    def forward():
        packed = nn.utils.rnn.pack_padded_sequence(X.view(12, 2, 3), torch.tensor([2] * 6 + [1] * 6), batch_first=True)
        out, _ = gru(packed)
        return nn.utils.rnn.pad_packed_sequence(out, batch_first=True)[0].pow(2).mean()

    return forward


def in_place():
    w1, w2 = parameters((6, 8), (8, 3))

    def forward():
        hidden = X @ w1
        hidden += 0.1
        hidden[:, 0] = 0.5
        hidden.relu_()
        out = hidden @ w2
        out[:, 1] *= 2.0
        return F.cross_entropy(out, Y)

    return forward


def in_place_through_views():
    w1, w2 = parameters((6, 8), (8, 3))

    def forward():
        hidden = X @ w1
        left = hidden[:, :4]
        left.mul_(3.0)
        hidden.view(-1)[5:9].mul_(0.1).add_(1.0)
        F.relu(hidden.t(), inplace=True)
        return F.cross_entropy(hidden @ w2, Y)

    return forward


def in_place_modules():
    first, second, act = nn.Linear(6, 8), nn.Linear(8, 3), nn.ReLU(inplace=True)

    def forward():
        hidden = first(X)
        act(hidden.view(12, 2, 4)[:, 1])
        return F.cross_entropy(second(hidden), Y)

    return forward


def tied_weights():
    encoder, decoder = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
    decoder.weight = encoder.weight
    ids = torch.arange(12) % 9
    return lambda: F.cross_entropy(decoder(encoder(ids)) @ encoder.weight @ encoder.weight.T, ids)


def transposed():
    (w,) = parameters((3, 6))

    def forward():
        out = (w @ X.T).T
        return F.cross_entropy(out + (w.T.mT.detach() @ X.T).mT.contiguous(), Y) + w.T.sum()

    return forward


def penalty_on_all_weights():
    model = Network()

    def forward():
        loss = F.cross_entropy(model(X), Y)
        for p in model.parameters():
            loss = loss + 1e-2 * p.pow(2).sum()
        return loss

    return forward


def two_calls():
    model = Network(lambda logits, hidden: hidden)
    return lambda: F.cosine_embedding_loss(model(X), model(X.flip(0)), torch.ones(12))


def indexed():
    model = Network()
    chosen = torch.tensor([0, 3, 4])

    def forward():
        out = model(X)
        return -out.log_softmax(1).gather(1, Y[:, None])[chosen].mean() + out[X[:, 0] > 0, 1:].sum() + out[..., 0][2]

    return forward


def module_given_to_a_module():
    class Loss(nn.Module):
        def forward(self, model, x, y):
            return F.cross_entropy(model(x), y)

    model, loss = Network(), Loss()
    return lambda: loss(model, X, Y)


def called_by_parts():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward():
        hidden = X
        for part in model:
            hidden = part(hidden)
        return F.cross_entropy(hidden, Y)

    return forward


def stacked():
    model = Network()

    def forward():
        outs = [model(x) for x in X.split(4)]
        best, _ = torch.stack(outs).max(0)
        return F.cross_entropy(torch.cat(outs), Y) + best.mean()

    return forward


def checkpointed():
    model = Network()
    return lambda: F.cross_entropy(checkpoint(model, X, use_reentrant=False), Y)


def summed_to_a_scaled_loss():
    model = Network()
    return lambda: F.cross_entropy(model(X), Y, reduction="none").sum() / len(Y)


FORWARDS = [
    module_net, functional_loss, outputs_in_a_dict, outputs_in_tuples, outputs_in_a_namedtuple, outputs_in_a_dataclass,
    plain_tensors, functional_net, lstm_with_state, recurrent_cell_by_hand, packed_sequences, in_place, in_place_through_views,
    in_place_modules, tied_weights, transposed, penalty_on_all_weights, two_calls, indexed, module_given_to_a_module,
    called_by_parts, stacked, summed_to_a_scaled_loss,
    pytest.param(checkpointed, marks=pytest.mark.slow),  # imports the compiler
]  # fmt: skip
each_forward = pytest.mark.parametrize("make", FORWARDS, ids=lambda make: make.__name__)


@pytest.mark.slow
@each_forward
def test_the_very_loss_is_computed_again(sealed, make):
    forward = make()
    tape = sealed(forward)
    assert torch.equal(replayed(tape), computed(forward))


@pytest.mark.slow
@each_forward
def test_its_gradient_too(sealed, make):
    """Where modules and tensors are replaced by the same ones, the gradient is the script's own."""
    forward = make()
    tape = sealed(forward)
    tensors = [t for m in tape.modules for t in m.parameters()] + tape.trained
    wanted = torch.autograd.grad(computed(forward), tensors, allow_unused=True)
    found = torch.autograd.grad(replayed(tape), tensors, allow_unused=True)
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert any(b is not None for b in found)


def test_other_modules_tensors_and_data_take_their_place(sealed):
    model = nn.Linear(2, 1, bias=False)
    (scale,) = parameters((1,))
    x, y = torch.ones(4, 2), torch.zeros(4, 1)
    tape = sealed(lambda: F.mse_loss(scale * model(x), y))
    other = nn.Linear(2, 1, bias=False)
    nn.init.constant_(other.weight, 2.0)
    others = [torch.full_like(t, 3.0) if t.shape == x.shape else torch.full_like(t, 10.0) for t in tape.data]
    loss, output = tape.replay([other], [torch.tensor([0.5])], others)
    assert loss.item() == (0.5 * (2 * 3 + 2 * 3) - 10) ** 2
    assert output is not None and torch.equal(output, torch.full((4, 1), 6.0))


def test_a_module_used_twice_is_replaced_twice(sealed):
    model = nn.Linear(2, 2, bias=False)
    tape = sealed(lambda: model(model(torch.ones(1, 2))).sum())
    other = nn.Linear(2, 2, bias=False)
    nn.init.eye_(other.weight)
    assert len(tape.modules) == 1
    assert tape.replay([other], [], tape.data)[0].item() == 2.0


# ---------------------------------------------------------------------- what is data, and which is which


def roles(tape):
    return [tape.data[i] for i in tape.inputs], [tape.data[i] for i in tape.targets]


def same(found, wanted):
    return len(found) == len(wanted) and all(f.data_ptr() == w.data_ptr() for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss()])
def test_inputs_and_targets_are_told_apart(sealed, loss):
    model = Network()
    inputs, targets = roles(sealed(lambda: loss(model(X), Y)))
    assert same(inputs, [X]) and same(targets, [Y])


def test_targets_of_a_loss_by_hand(sealed):
    w, b = parameters((6, 1), (1,))
    y = X[:, :1] * 2
    inputs, targets = roles(sealed(lambda: ((X @ w + b - y) ** 2).mean()))
    assert same(inputs, [X]) and same(targets, [y])


def test_weights_of_a_loss_are_no_targets(sealed):
    model, weight = Network(), torch.tensor([1.0, 2.0, 3.0])
    inputs, targets = roles(sealed(lambda: F.cross_entropy(model(X), Y, weight=weight)))
    assert same(inputs, [X]) and same(targets, [Y])


def test_a_second_input_is_an_input(sealed):
    left, right = nn.Linear(6, 3), nn.Linear(2, 3)
    extra = torch.randn(12, 2)
    inputs, targets = roles(sealed(lambda: F.cross_entropy(left(X) + right(extra), Y)))
    assert same(inputs, [X, extra]) and same(targets, [Y])


def test_the_output_is_what_the_loss_function_took(sealed):
    model = Network(lambda logits, hidden: {"logits": logits})
    tape = sealed(lambda: F.cross_entropy(model(X)["logits"], Y) + 0.0)
    _, output = tape.replay(tape.modules, tape.trained, tape.data)
    assert torch.equal(output, model(X)["logits"])


def test_modes_are_kept_as_they_were(sealed):
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))
    model[2].eval()
    assert sealed(lambda: F.cross_entropy(model(X), Y)).modes == [[True, True, True, False]]


def test_only_what_leads_to_the_loss_is_kept(sealed):
    model, (idle,) = Network(), parameters((6, 2))

    def forward():
        (X @ idle).sum()
        out = model(X)
        out.mean().log()
        return F.cross_entropy(out, Y)

    tape = sealed(forward)
    assert len(tape.calls) == 2 and not tape.trained


# ---------------------------------------------------------------------- fresh data


def test_data_that_the_script_writes_into_are_stale(sealed):
    model, x = Network(), X.clone()
    tape = sealed(lambda: F.cross_entropy(model(x), Y))
    assert tape.fresh
    x.mul_(2)
    assert not tape.fresh


def test_a_slice_of_a_data_set_lets_go_of_the_rest(sealed):
    model, every = Network(), [torch.randn(100_000, 6)]
    tape = sealed(lambda: F.cross_entropy(model(every[0][24:36]), Y))
    whole, wanted = weakref.ref(every[0]), replayed(tape).detach()
    tape.leave_large_memory()
    assert torch.equal(replayed(tape), wanted)
    assert tape.fresh
    assert all(t.untyped_storage().nbytes() <= 2 * t.numel() * t.element_size() for t in tape.data)
    every[0].zero_()
    assert tape.fresh
    every.clear()
    assert whole() is None


def test_small_data_are_not_copied(sealed):
    model = Network()
    tape = sealed(lambda: F.cross_entropy(model(X[:12]), Y))
    tape.leave_large_memory()
    assert same(roles(tape)[0], [X])


# ---------------------------------------------------------------------- what can't be computed again


def carried_state():
    cell, x = nn.RNNCell(6, 3), X
    state = cell(x, torch.zeros(12, 3))  # by an earlier step, not watched
    return lambda: F.cross_entropy(cell(x, state), Y)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


def function_of_the_script():
    model = Network()
    return lambda: F.cross_entropy(Square.apply(model(X)), Y)


def written_into_a_buffer():
    model = Network()

    def forward():
        out = torch.zeros(12, 3)
        out[:] = model(X)
        return F.cross_entropy(out, Y)

    return forward


def tensors_in_an_object():
    class Loss(nn.Module):
        def forward(self, output):
            return F.cross_entropy(output.logits, Y)

    model, loss = Network(Output), Loss()
    return lambda: loss(model(X))


def made_inside_of_a_module():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(6, 3)

        def forward(self, x):
            self.hidden = self.part(x)
            return self.hidden.tanh()

    model = Leaky()

    def forward():
        return F.cross_entropy(model(X), Y) + model.hidden.pow(2).mean()

    return forward


CANNOT = [carried_state, function_of_the_script, written_into_a_buffer, tensors_in_an_object, made_inside_of_a_module]


@pytest.mark.parametrize("make", CANNOT, ids=lambda make: make.__name__)
def test_what_cannot_be_computed_again_is_refused(sealed, make):
    with pytest.raises(ValueError, match="the loss is made of"):
        sealed(make())


def test_a_detached_state_is_data(sealed):
    cell, state = nn.RNNCell(6, 3), torch.randn(12, 3)
    tape = sealed(lambda: F.cross_entropy(cell(X, state), Y))
    assert torch.equal(replayed(tape), F.cross_entropy(cell(X, state), Y))


def test_functions_of_the_script_inside_of_modules_are_no_matter(sealed):
    model = Network(lambda logits, hidden: Square.apply(logits))
    tape = sealed(lambda: F.cross_entropy(model(X), Y))
    assert torch.equal(replayed(tape), F.cross_entropy(model(X), Y))


def test_too_many_calls_are_refused():
    recording = Recording()
    w = torch.ones(1, requires_grad=True)
    out = w
    for _ in range(MOST_CALLS + 1):
        following = torch.mul(out, 1.0)
        recording.note(torch.mul, (out, 1.0), {}, following)
        out = following
    with pytest.raises(ValueError, match="too many calls"):
        recording.seal(out, output=None, target=None)


# ---------------------------------------------------------------------- nothing stays alive


@pytest.mark.slow
@each_forward
def test_nothing_of_the_graph_stays_alive(sealed, make):
    """When the script lets go of its loss, all that was computed is gone, and no garbage has to be collected."""
    forward = make()
    seen = []

    def watched():
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(weakref.ref(t)) or t, lambda t: t):
            loss = forward()
        seen.append(weakref.ref(loss))
        return loss

    gc.disable()
    try:
        tape = sealed(watched)
        kept = {id(t) for t in (*tape.trained, *tape.data)}
        kept |= {id(t) for module in tape.modules for t in (*module.parameters(), *module.buffers())}
        alive = [
            t for ref in seen if (t := ref()) is not None and id(t) not in kept and t.requires_grad and not t.is_leaf
        ]
    finally:
        gc.enable()
    assert not alive
    assert not any(t.requires_grad for t in tape.data)


def test_nothing_refused_stays_alive(session_of):
    forward, seen = function_of_the_script(), []

    def script():
        loss = forward()
        seen.append(weakref.ref(loss))
        loss.backward()

    gc.disable()
    try:
        session = session_of(script)
        assert "inside of a module" in session.capture.why_not
        assert seen[0]() is None
    finally:
        gc.enable()


# ---------------------------------------------------------------------- walking


def test_tensors_are_found_with_their_paths():
    a, b, c = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    found = dict((t, p) for p, t in walk({"a": [a, 3], "b": Pair(Output(b, c), None), "c": slice(1, 2)}))
    assert found[a] == ("a", 0)
    assert [t for _, t in walk((a, [b], {"c": c}))] == [a, b, c]
    assert len(found) == 3


def test_a_walk_goes_neither_deep_nor_into_modules():
    a = torch.zeros(1)
    assert not list(walk([[[[[a]]]]]))
    assert not list(walk(nn.Linear(2, 2)))
    assert not list(walk(nn.Linear(2, 2).forward))
    around = [a]
    around.append(around)
    assert {id(t) for _, t in walk(around)} == {id(a)}


def test_autocast_is_gone_through_again_where_that_is_asked_for(sealed):
    """As they were made: the layer in bfloat16, the loss, made outside of autocast, of what it gave."""
    model = nn.Linear(64, 8)
    x = torch.randn(4, 64)

    def forward():
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        return F.mse_loss(out.float(), torch.zeros(4, 8))

    tape = sealed(forward)
    exact, cast = (
        dataclasses.replace(tape, casts=casts).replay([model], tape.trained, tape.data)[0] for casts in (False, True)
    )
    assert torch.equal(cast, forward())
    assert torch.allclose(exact, F.mse_loss(model(x), torch.zeros(4, 8)))
    assert not torch.equal(exact, cast)
    assert not torch.is_autocast_enabled("cpu")
