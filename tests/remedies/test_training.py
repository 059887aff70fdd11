"""What remedies do to a `Training` is what they write into a script: both are run, and end with the same weights."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset

from unstuck import _discover
from unstuck.evidence import Layer, LossCall, Optimizer, Parameter, Record
from unstuck.recurrent import layers
from unstuck.remedies._training import module_of, parameters_kept, replace, set_rate, wrap
from unstuck.source import EditError, edited
from unstuck.training import Training

REMEDIES = _discover.find("remedies")
CLASSES = {"output_shape": (64, 3), "target_shape": (64,), "target_kind": "class index"}
REAL = {
    "data": "x, y = 2 + torch.randn(64, 4), 5 + 3 * torch.randn(64, 1)",
    "net": "net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))",
    "loss": "F.mse_loss(net(x), y)",
}
COLUMN = {"output_shape": (64, 1), "target_shape": (64, 1), "target_kind": "real"}
with torch.random.fork_rng(devices=()):
    torch.manual_seed(0)
    drawn = 2 + torch.randn(64, 4)
    ALL = (float(drawn.mean()), float(drawn.std(correction=0)))
SOFTMAX = {"net": "net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), nn.Softmax(dim=1))"}
LOADER = """
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.randn(64, 4), torch.randint(3, (64,))
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    for epoch in range(10):
        for a, b in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(a), b)
            loss.backward()
            optimizer.step()
"""
EVALUATED = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    x, y = torch.randn(64, 4), torch.randint(3, (64,))
    net = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Linear(64, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=2.0)
    for epoch in range(10):
        net.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x[:32]), y[:32])
        loss.backward()
        optimizer.step()
        net.eval()
        with torch.no_grad():
            val_loss = F.cross_entropy(net(x[32:]), y[32:]).item()
"""
SQUARE = {
    "net": "net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))",
    "parameters": [Parameter(f"net.{i}.weight", shape) for i, shape in ((0, (8, 4)), (2, (8, 8)), (4, (3, 8)))],
    "layers": [
        Layer(f"net.{i}", "linear", "Linear", "train.py:6", (), (f"net.{i}.weight",), (64, 3 if i == 4 else 8)) for i in (0, 2, 4)
    ],
}  # fmt: skip
RECURRENT = """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.{kind}(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])

net = Net()"""
SEQUENCES = {"data": "x, y = torch.randn(64, 5, 4), torch.randint(3, (64,))"}


def recurrent(kind):
    shown = [
        Layer("cell", kind.lower(), kind, "train.py:9", (), ("cell.weight_ih_l0",), (64, 5, 8)),
        Layer("head", "linear", "Linear"),
    ]
    return {**SEQUENCES, "net": RECURRENT.format(kind=kind), "layers": shown}


SETTINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("activation", {"to": "relu"}, {}),
    ("activation", {"to": "prelu"}, {}),
    ("initialization", {"scheme": "he"}, {}),
    ("initialization", {"scheme": "glorot"}, {}),
    ("activation", {"to": "relu", "added": True}, {"net": "net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))"}),
    ("activation", {"to": "prelu", "added": True}, {"net": "net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))"}),
    ("initialization", {"scheme": "lecun"}, {}),
    ("initialization", {"scheme": "orthogonal"}, {}),
    ("initialization", {"scheme": "orthogonal"}, recurrent("GRU")),
    ("initialization", {"scheme": "identity"}, recurrent("RNN")),
    ("initialization", {"scheme": "lsuv"}, {"inputs": {}}),
    ("gating", {"to": "open"}, recurrent("LSTM")),
    ("gating", {"to": "chrono"}, recurrent("LSTM")),
    ("residual", {}, SQUARE),
    ("l1", {"value": 0.01}, {}),
    ("escape", {"size": 0.2}, {}),
    ("escape", {"share": 0.3, "size": 0.2}, {}),
    ("escape", {"share": 0.3, "size": 0.2, "along": "curvature"}, {}),
    ("initialization", {"scheme": "default"}, {}),
    ("initialization", {"scheme": "zero"}, {}),
    ("learning-rate", {"rate": 0.5}, {}),
    ("optimizer", {"to": "Adam", "rate": 0.01}, {}),
    ("optimizer", {"to": "SGD", "rate": 0.02, "momentum": 0.9, "nesterov": True}, {}),
    ("optimizer", {"to": "Adam", "rate": 0.01}, {"optimizer": "torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)"}),
    ("optimizer", {"to": "Adam", "rate": 0.01}, {"optimizer": "torch.optim.AdamW(net.parameters(), lr=0.1)"}),
    ("optimizer", {"to": "AdamW", "rate": 0.01}, {"optimizer": "torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)"}),
    ("train-longer", {"times": 3}, {}),
    ("normalization", {"kind": "batch"}, {}),
    ("normalization", {"kind": "layer"}, {}),
    ("normalization", {"kind": "layer"}, {"net": "net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))"}),
    ("gradient-clipping", {"norm": 0.1}, {}),
    ("gradient-clipping", {"value": 0.01}, {}),
    ("output-loss", {"output": "softmax"}, {"loss_call": CLASSES}),
    ("output-loss", {"output": "linear", "loss": "cross_entropy"}, {**SOFTMAX, "loss": "F.nll_loss(net(x), y)", "loss_call": CLASSES}),
    ("output-loss", {"output": "linear"}, {**SOFTMAX, "loss_call": CLASSES}),
    ("output-loss", {"loss": "mse_loss"}, {**REAL, "loss": "F.l1_loss(net(x), y)", "loss_call": COLUMN}),
    ("output-loss", {"output": "sigmoid", "loss": "binary_cross_entropy"}, {
        **REAL, "data": "x, y = torch.randn(64, 4), torch.randint(2, (64,)).float()", "loss": "F.mse_loss(net(x), y)",
        "loss_call": {**COLUMN, "target_shape": (64,), "target_kind": "binary"},
    }),
    ("standardize-input", {"by": "feature"}, {**REAL, "inputs": {}}),
    ("standardize-input", {"by": "all"}, {**REAL, "inputs": {"all_mean": ALL[0], "all_std": ALL[1]}}),
    ("standardize-target", {"mean": 5.0, "std": 3.0}, REAL),
    ("standardize-target", {"mean": 5.0, "std": 3.0}, {**REAL, "loss": "F.l1_loss(net(x), y)"}),
    ("weight-decay", {"value": 0.1}, {}),
    ("weight-decay", {"value": 0.0}, {
        "optimizer": "torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.5)",
        "optimizers": [Optimizer("SGD", settings={"weight_decay": 0.5})],
    }),
    ("momentum", {"momentum": 0.9}, {}),
    ("momentum", {"momentum": 0.9, "nesterov": True}, {}),
    ("momentum", {"momentum": 0.0}, {"optimizer": "torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)"}),
    ("momentum", {"momentum": 0.9}, {"optimizer": "torch.optim.RMSprop(net.parameters(), lr=0.01)"}),
    ("schedule", {"kind": "cosine"}, {"meta": {"steps": 10}}),
    ("schedule", {"kind": "linear"}, {"meta": {"steps": 10}}),
    ("schedule", {"kind": "exponential"}, {"meta": {"steps": 10}}),
    ("warm-up", {"steps": 5}, {}),
    ("unfreeze", {}, {
        "net": "net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))\nnet[0].requires_grad_(False)",
        "optimizer": "torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)",
    }),
    ("all-parameters", {}, {"optimizer": "torch.optim.SGD(net[2].parameters(), lr=0.1)"}),
    ("class-weights", {"weights": [0.5, 1.0, 1.5]}, {"loss_call": CLASSES}),
    ("dropout", {"p": 0.0}, {"net": "net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.9), nn.Linear(8, 3))"}),
    ("mode", {}, {"net": "net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))\nnet.eval()"}),
    ("reduction", {}, {**REAL, "loss": "F.mse_loss(net(x), y, reduction='sum')", "loss_call": COLUMN}),
    ("shape", {}, {
        **REAL, "data": "x, y = torch.randn(64, 4), torch.randn(64)", "loss": "F.mse_loss(net(x), y)",
        "loss_call": {**COLUMN, "target_shape": (64,)},
    }),
]  # fmt: skip


def treat(name, training, record, **settings):
    sys.modules[REMEDIES[name].__module__].treat(training, record, **settings)


def ended(text):
    """The weights that a script ends with."""
    held: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(text, held)
    return [p.detach() for p in held["net"].parameters()]


def as_training(text, *, loss=None, batches=None, **given):
    """What a script makes before its loop, as a training."""
    held: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(text[: text.index("for epoch")], held)
    written = text[text.index("loss = ") + 7 :].splitlines()[0]
    function = getattr(nn.functional, written[2 : written.index("(")])
    if "sum" in written:
        function = functools.partial(function, reduction="sum")
    batches = [(held["x"], held["y"])] if batches is None else held[batches]
    return Training(held["net"], loss or function, held["optimizer"], batches, epochs=10, **given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("name", "settings", "parts"), SETTINGS, ids=lambda v: v if isinstance(v, str) else "")
def test_it_does_what_the_edits_do(script, name, settings, parts):
    made = script(**parts)
    text = made.main.text
    training = as_training(text)
    treat(name, training, made.record, **settings)
    training.run()
    expected = ended(edited(made.main, REMEDIES[name](made, **settings)))
    # numbers that are written into a script have four digits
    for mine, theirs in zip(training.model.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=2e-3, atol=2e-4)
    unchanged = ended(text)
    assert len(unchanged) != len(expected) or not all(map(torch.equal, unchanged, expected)), "else nothing is tested"


def evaluated(script):
    """A script that evaluates, and what it makes before its loop as a training."""
    made = script(EVALUATED)
    training = as_training(made.main.text)
    ((x, y),) = training.batches
    training.batches, training.evaluation = [(x[:32], y[:32])], [(x[32:], y[32:])]
    return made, training


@pytest.mark.parametrize(
    ("name", "settings", "ends_in"),
    [
        ("weight-averaging", {"decay": 0.9}, "averaged.module"),
        ("early-stopping", {}, "net"),
        ("dropout", {"p": 0.5}, "net"),
    ],
)
def test_where_it_is_evaluated_it_does_what_the_edits_do(script, name, settings, ends_in):
    made, training = evaluated(script)
    untreated = training.copy()
    treat(name, training, made.record, **settings)
    treated, _ = training.copy(), training.run()
    held: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(edited(made.main, REMEDIES[name](made, **settings)), held)
    assert training.evaluate() == pytest.approx(held["val_loss"], rel=1e-5)
    for one, other in zip(training.model.parameters(), eval(f"{ends_in}.parameters()", held), strict=True):
        torch.testing.assert_close(one, other)
    stored = [b for b in eval(f"{ends_in}.buffers()", held) if b.is_floating_point()]
    for one, other in zip((b for b in training.model.buffers() if b.is_floating_point()), stored, strict=True):
        torch.testing.assert_close(one, other)
    untreated.run()
    assert not torch.equal(untreated.model[0].weight, training.model[0].weight), "else nothing is tested"
    assert treated.evaluate() != training.evaluate()
    torch.manual_seed(0)
    exec(made.main.text[: made.main.text.index("for epoch")])  # numbers go on as they did
    treated.run()
    assert torch.equal(treated.model[0].weight, training.model[0].weight), "a copy stands for itself"


@pytest.mark.parametrize(
    ("name", "settings"),
    [("batch-size", {"size": 32}), ("batch-size", {"size": 32, "rate": 0.2}), ("shuffle", {})],
)
def test_a_loader_is_changed_as_the_edits_do(script, name, settings):
    made = script(LOADER)
    training = as_training(made.main.text, batches="loader")
    loader = training.batches
    treat(name, training, made.record, **settings)
    training.run()
    expected = ended(edited(made.main, REMEDIES[name](made, **settings)))
    for mine, theirs in zip(training.model.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs)
    assert training.batches.dataset is loader.dataset
    assert isinstance(loader.sampler, SequentialSampler)
    assert loader.batch_size == 16, "the one that was given is as it was"


# ---------------------------------------------------------------------- all of them


FOR_SCRIPTS = {"evaluation-scale", "target-scale"}  # what is done to data before they come in batches


def test_every_remedy_says_what_it_does_to_a_training():
    for name, edits in REMEDIES.items():
        module = importlib.import_module(edits.__module__)
        assert hasattr(module, "treat") == (name not in FOR_SCRIPTS), name
        if name in FOR_SCRIPTS:
            continue
        settings = [p for p in inspect.signature(edits).parameters.values() if p.kind is p.KEYWORD_ONLY]
        training, record, *own = inspect.signature(module.treat).parameters.values()
        assert (training.name, record.name) == ("training", "record")
        assert {p.name: p.default for p in own} == {p.name: p.default for p in settings}, name
        assert module.treat.__doc__


@pytest.mark.slow
def test_remedies_for_scripts_need_no_torch():
    import subprocess

    code = "import sys; from unstuck._discover import find; find('remedies'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------- what scripts can't be compared by


def made(net=None, loss=nn.functional.cross_entropy, optimizer=None, batches=None, **given):
    torch.manual_seed(0)
    net = net or nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    batches = batches or [(torch.randn(64, 4), torch.randint(3, (64,)))]
    return Training(net, loss, optimizer or torch.optim.SGD(net.parameters(), lr=0.1), batches, **given)


def held(training):
    return [p for group in training.optimizer.param_groups for p in group["params"]]


def is_whole(training):
    """Whether the optimizer has just the parameters that the model has."""
    return {id(p) for p in held(training)} == {id(p) for p in training.model.parameters()}


NOTHING = Record.of({}, losses=[LossCall("cross_entropy", output_shape=(64, 3), target_shape=(64,))])


def test_wider_layers_are_joined_and_trained():
    net = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3, bias=False)
    )
    training = made(net)
    treat("wider", training, NOTHING, times=2)
    shapes = [tuple(m.weight.shape) for m in training.model if hasattr(m, "weight")]
    assert shapes == [(16, 4), (16,), (12, 16), (12,), (3, 12)]
    assert training.model[5].bias is None
    assert is_whole(training)
    training.run()
    with pytest.raises(EditError, match="no hidden layer's output"):
        treat("wider", made(nn.Linear(4, 3)), NOTHING)


def test_wider_and_narrower_layers_of_other_kinds():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4, eps=0.1), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(24, 3)
    )  # fmt: skip
    training = made(net, batches=[(torch.randn(8, 1, 4, 4), torch.randint(3, (8,)))])
    treat("wider", training, NOTHING, times=0.5)
    assert (net[0].out_channels, net[1].num_features, net[2].in_channels, net[2].out_channels) == (2, 2, 2, 6)
    assert (net[0].stride, net[0].bias, net[1].eps) == ((2, 2), None, 0.1)
    assert is_whole(training)
    training.run()
    training = made(Reads(nn.RNN, nonlinearity="relu"), batches=[(torch.randn(16, 5, 4), torch.randint(3, (16,)))])
    treat("wider", training, NOTHING, times=2)
    assert (training.model.cell.hidden_size, training.model.head.in_features) == (16, 16)
    assert (training.model.cell.nonlinearity, training.model.cell.batch_first) == ("relu", True)
    assert is_whole(training)
    training.run()


class Reads(nn.Module):
    def __init__(self, kind, **settings):
        super().__init__()
        self.cell, self.head = kind(4, 8, batch_first=True, **settings), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def test_gates():
    batches = [(torch.randn(16, 5, 4), torch.randint(3, (16,)))]
    training = made(Reads(nn.RNN, num_layers=2), batches=batches)
    treat("gating", training, NOTHING, to="GRU")
    assert isinstance(training.model.cell, nn.GRU)
    assert (training.model.cell.num_layers, training.model.cell.batch_first) == (2, True)
    assert is_whole(training)
    training.run()
    with pytest.raises(EditError, match="a nonlinearity is chosen"):
        treat("gating", made(Reads(nn.RNN, nonlinearity="relu"), batches=batches), NOTHING, to="GRU")
    with pytest.raises(EditError, match="no simple recurrent layer"):
        treat("gating", training, NOTHING, to="GRU")
    training = made(Reads(nn.RNN, num_layers=2), batches=batches)
    treat("gating", training, NOTHING, to="LSTM")
    output, hidden = training.copy().model.cell(batches[0][0])
    assert torch.equal(output[:, -1], hidden[-1]), "a hidden state as the simple layer's"
    training.run()
    cell = made(nn.Sequential(nn.RNNCell(4, 8), nn.Linear(8, 3)))
    with pytest.raises(EditError, match="made use of"):
        treat("gating", cell, NOTHING, to="LSTM")
    training = made(Reads(nn.LSTM), batches=batches)
    treat("gating", training, NOTHING, to="open")
    assert training.model.cell.bias_ih_l0[8:16].tolist() == [1.0] * 8
    with pytest.raises(EditError, match="no LSTM"):
        treat("gating", made(), NOTHING, to="open")


def test_gates_of_layers_of_ours():
    batches = [(torch.randn(16, 5, 4), torch.randint(3, (16,)))]
    training = made(Reads(layers.RNN, num_layers=2, variational=True, dropout=0.1, horizon=50), batches=batches)
    treat("gating", training, NOTHING, to="GRU")
    cell = training.model.cell
    assert isinstance(cell, layers.GRU)
    assert (cell.num_layers, cell.batch_first, cell.variational, cell.dropout, cell.horizon) == (2, True, True, 0.1, 50)
    training.run()
    with pytest.raises(EditError, match="a nonlinearity is chosen"):
        treat("gating", made(Reads(layers.RNN, nonlinearity="relu"), batches=batches), NOTHING, to="GRU")
    training = made(Reads(layers.LSTM, forget_bias=0.0), batches=batches)
    treat("gating", training, NOTHING, to="open")
    assert training.model.cell.bias_ih_l0[8:16].tolist() == [1.0] * 8
    with pytest.raises(EditError, match="no LSTM"):  # what is a quarter of its biases is no gate's
        treat("gating", made(Reads(layers.LSTM, coupled=True), batches=batches), NOTHING, to="open")


def test_wider_layers_of_ours():
    batches = [(torch.randn(16, 5, 4), torch.randint(3, (16,)))]
    training = made(Reads(layers.LSTM, peephole=True, zoneout=0.1), batches=batches)
    treat("wider", training, NOTHING, times=2)
    cell = training.model.cell
    assert (cell.hidden_size, training.model.head.in_features) == (16, 16)
    assert (cell.settings, cell.zoneout, cell.batch_first) == ({"peephole": True}, 0.1, True)
    training.run()
    training = made(Reads(layers.RNN, nonlinearity="relu"), batches=batches)
    treat("wider", training, NOTHING, times=2)
    assert training.model.cell.settings == {"nonlinearity": "relu"}
    training.run()


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return torch.softmax(self.fc2(torch.tanh(self.fc1(x))), dim=1)


def test_functions_that_forward_calls_are_left_to_the_user():
    layers = [
        Layer("fc1", "linear", "Linear", parameters=("fc1.weight",)), Layer("net.py:9 tanh", "tanh", "Functional"),
        Layer("fc2", "linear", "Linear", parameters=("fc2.weight",)), Layer("net.py:9 softmax", "softmax", "Functional", role="output"),
    ]  # fmt: skip
    loss = LossCall("nll_loss", layer="net.py:9 softmax", output_shape=(64, 3), target_shape=(64,))
    record = Record.of({}, layers=layers, losses=[loss])
    with pytest.raises(EditError, match="'net.py:9 tanh' is a function that the model calls"):
        treat("activation", made(Functional()), record, to="relu")
    with pytest.raises(EditError, match="'net.py:9 softmax' is a function that the model calls"):
        treat("output-loss", made(Functional()), record, output="linear")
    training = made(Functional())
    treat("normalization", training, record)
    assert isinstance(training.model.fc1[1], nn.BatchNorm1d)
    assert is_whole(training)
    training.run()


def test_an_output_behind_a_model_of_ones_own():
    layers = [Layer("fc2", "linear", "Linear", parameters=("fc2.weight",))]
    record = Record.of({}, layers=layers, losses=[LossCall("cross_entropy", layer="fc2", output_shape=(64, 3))])
    training = made(Reads(nn.GRU), batches=[(torch.randn(16, 5, 4), torch.randint(3, (16,)))])
    treat("output-loss", training, record, output="softmax")
    other = training.copy()
    rows = other.model(torch.randn(16, 5, 4))
    torch.testing.assert_close(rows.sum(1), torch.ones(16))


def test_criteria_are_changed_and_not_those_that_others_use():
    criterion = nn.CrossEntropyLoss(reduction="sum")
    training = made(loss=criterion)
    treat("class-weights", training, NOTHING, weights=[1.0, 2.0, 3.0])
    treat("reduction", training, NOTHING)
    assert training.loss.weight.tolist() == [1.0, 2.0, 3.0]
    assert (training.loss.reduction, criterion.reduction, criterion.weight) == ("mean", "sum", None)
    with pytest.raises(EditError, match="takes no weights by class"):
        treat(
            "class-weights", made(loss=lambda o, t: nn.functional.cross_entropy(o, t)), NOTHING, weights=[1.0, 2.0, 3.0]
        )


def test_lists_of_batches():
    x, y = torch.arange(12.0)[:, None], torch.arange(12)
    training = made(nn.Linear(1, 12), batches=list(zip(x.split(6), y.split(6), strict=True)))
    treat("batch-size", training, NOTHING, size=4)
    assert [len(a) for a, _ in training.batches] == [4, 4, 4]
    treat("shuffle", training, NOTHING)
    inputs, targets = (torch.cat(parts) for parts in zip(*training.batches, strict=True))
    assert [len(a) for a, _ in training.batches] == [4, 4, 4]
    assert torch.equal(inputs[:, 0], targets.float())
    assert not torch.equal(targets, y)
    with pytest.raises(EditError, match="made by a dict_values"):
        treat("shuffle", made(nn.Linear(1, 12), batches={1: (x, y)}.values()), NOTHING)
    with pytest.raises(EditError, match="no pairs of tensors"):
        treat("batch-size", made(batches=[{"x": x}]), NOTHING)


def test_loaders_keep_what_they_had():
    data = TensorDataset(torch.randn(64, 4), torch.randint(3, (64,)))
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(data, 16, shuffle=True, drop_last=True, generator=generator, collate_fn=tuple)
    training = made(batches=loader)
    treat("batch-size", training, NOTHING, size=24)
    assert isinstance(training.batches.sampler, RandomSampler)
    assert (training.batches.generator, training.batches.collate_fn, training.batches.drop_last) == (
        generator,
        tuple,
        True,
    )
    assert [len(batch) for batch in training.batches] == [24, 24]
    with pytest.raises(EditError, match="draws by a sampler"):
        treat("shuffle", training, NOTHING)
    own = made(batches=DataLoader(data, batch_sampler=[[0, 1], [2, 3]]))
    with pytest.raises(EditError, match="made by a sampler"):
        treat("batch-size", own, NOTHING, size=2)


def test_a_penalty_is_taken_away_with_the_weight_decay():
    training = made(penalty=lambda model: model[0].weight.square().sum())
    treat("weight-decay", training, NOTHING, value=0.0)
    assert training.penalty is None
    with pytest.raises(EditError, match="has no weight decay"):
        treat("weight-decay", training, NOTHING, value=0.0)


def test_groups_that_are_not_decayed_stay_so():
    net = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(
        [{"params": [net.weight]}, {"params": [net.bias], "weight_decay": 0.0}], lr=0.1, weight_decay=0.1
    )
    training = made(net, optimizer=optimizer)
    treat("weight-decay", training, NOTHING, value=0.01)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.0]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("zero-grad", {}, "clears gradients before each backward already"),
        ("mode", {}, "in training mode already"),
        ("unfreeze", {}, "no parameter is frozen"),
        ("all-parameters", {}, "given all parameters"),
        ("dropout", {"p": 0.0}, "no dropout layer of another share than 0"),
        ("dropout", {"p": 0.5}, "neither dropout nor a hidden activation"),
        ("mode", {"of": "evaluation"}, "in evaluation mode already"),
        ("weight-averaging", {}, "evaluates nothing"),
        ("early-stopping", {}, "evaluates nothing"),
        ("residual", {}, "as much as it takes"),
        ("reduction", {}, "a mean already"),
        ("smooth-loss", {}, "cross_entropy is no loss of overlap"),
        ("initialization", {"scheme": "identity"}, "no recurrent layer"),
        ("gating", {"to": "chrono"}, "no LSTM"),
        ("momentum", {}, "Adam takes no momentum"),
        ("shape", {}, "of different size"),
        ("learning-rate", {"rate": 0.1, "optimizer": 1}, "one optimizer only"),
        ("optimizer", {"to": "Unheard"}, "no optimizer 'Unheard'"),
        ("optimizer", {"to": "Adam", "momentum": 0.9}, "Adam doesn't take"),
        ("activation", {"to": "relu"}, "no other activation"),
        ("normalization", {}, "no hidden layer"),
        ("output-loss", {}, "of that kind already"),
    ],
)
def test_what_is_refused(name, settings, words):
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    training = made(net, optimizer=torch.optim.Adam(net.parameters()))
    with pytest.raises(EditError, match=words) as refused:
        treat(name, training, NOTHING, **settings)
    assert not str(refused.value).endswith(".")


def test_inputs_are_standardised_once_and_in_copies_too():
    x = 100 + 7 * torch.randn(64, 4)
    x[:, 2] = 5.0
    training = made(batches=[(x, torch.randint(3, (64,)))])
    treat("standardize-input", training, NOTHING)
    seen = []
    other = training.copy()
    other.model[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    other.run()
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].std(0), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    with pytest.raises(EditError, match="standardised already"):
        treat("standardize-input", other, NOTHING)
    with pytest.raises(EditError, match="aren't known"):
        treat("standardize-input", made(nn.Embedding(9, 3), batches=[(torch.arange(3), torch.arange(3))]), NOTHING)


@pytest.mark.parametrize("order", [("weight-averaging", "early-stopping"), ("early-stopping", "weight-averaging")])
def test_the_best_of_averages_is_kept_with_its_weights(script, order):
    made, training = evaluated(script)
    for name in order:
        treat(name, training, made.record, **({"decay": 0.5} if name == "weight-averaging" else {}))
    for _ in range(2):  # a second run begins another average, and looks for another best
        epochs = training.run()
        assert training.evaluate() == pytest.approx(min(epoch.evaluation for epoch in epochs))
        assert training.evaluate() < epochs[-1].evaluation


def dice(p, y):
    return 1 - 2 * (p * y).sum() / (p.sum() + y.sum() + 1e-6)


class DiceOfLogits(nn.Module):
    def forward(self, outputs, targets):
        return dice(outputs.sigmoid(), targets)


@pytest.mark.parametrize(
    ("loss", "output", "kind"),
    [
        (dice, {"min": 0.1, "max": 0.9}, "binary_cross_entropy"),
        (dice, {"min": -2.0, "max": 3.0}, "binary_cross_entropy_with_logits"),
        (DiceOfLogits(), {"min": 0.1, "max": 0.9}, "binary_cross_entropy_with_logits"),
    ],
)
def test_cross_entropy_is_trained_beside_overlap(loss, output, kind):
    record = Record.of({}, losses=[LossCall("hand-written", output=output)])
    training = made(nn.Linear(4, 3), loss=loss)
    treat("smooth-loss", training, record)
    p, y = torch.rand(5, 3), torch.randint(2, (5, 3))
    expected = loss(p, y) + getattr(nn.functional, kind)(p, y.float())
    torch.testing.assert_close(training.loss(p, y), expected)
    with torch.no_grad():
        torch.testing.assert_close(training.loss(p, y), loss(p, y))
    with pytest.raises(EditError, match="isn't known as one of overlap"):
        treat("smooth-loss", made(loss=lambda outputs, targets: (outputs - targets).abs().mean()), record)


def test_dropout_behind_functions_and_shared_modules():
    named = [
        Layer("model.0", "linear", "Linear"),
        Layer("model.1", "tanh", "Tanh"),
        Layer("model.2", "linear", "Linear"),
    ]
    training = made()
    training.model.eval()
    treat("dropout", training, Record.of({}, layers=named), p=0.5)
    assert [m.training for m in training.model.modules() if isinstance(m, nn.Dropout)] == [True], "it is for training"
    function = [named[0], Layer("net.py:9 tanh", "tanh", "Functional"), named[2]]
    with pytest.raises(EditError, match="is a function that the model calls"):
        treat("dropout", made(), Record.of({}, layers=function), p=0.5)
    shared = [
        Layer("model.0", "conv", "Conv2d"),
        Layer("model.1", "tanh", "Tanh"),
        named[0],
        Layer("model.1 after model.0", "tanh"),
        named[2],
    ]
    with pytest.raises(EditError, match="stands behind several layers"):
        treat("dropout", made(), Record.of({}, layers=shared), p=0.5)
    with pytest.raises(EditError, match="no module whose share could be set"):
        treat("dropout", made(), Record.of({}, layers=[Layer("net.py:9 dropout", "dropout", "Functional")]), p=0.5)


def test_group_norm_in_place_of_batch_norm_of_images():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    training = made(net, batches=[(torch.randn(8, 1, 4, 4), torch.randint(3, (8,)))])
    treat("normalization", training, NOTHING, kind="layer")
    assert (type(net[1]), net[1].num_groups, net[1].num_channels) == (nn.GroupNorm, 1, 4)
    assert is_whole(training)
    training.run()


def test_a_layer_outside_of_a_sequential_is_not_passed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc2(self.fc1(x).relu())

    layers = [
        Layer(f"net.{name}", "linear", "Linear", "", (), (f"{name}.weight",), (64, width)) for name, width in (("fc1", 4), ("fc2", 3))
    ]  # fmt: skip
    record = Record.of({}, layers=layers, parameters=[Parameter("fc1.weight", (4, 4)), Parameter("fc2.weight", (3, 4))])
    with pytest.raises(EditError, match="'fc1' stands in no Sequential"):
        treat("residual", made(Net()), record)


def test_nesterov_where_momentum_is_damped():
    net = nn.Linear(4, 3)
    training = made(net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, dampening=0.1))
    with pytest.raises(EditError, match="damped"):
        treat("momentum", training, NOTHING, nesterov=True)


# ---------------------------------------------------------------------- rates


def scheduled(kind=lr_scheduler.CosineAnnealingLR, **settings):
    net = nn.Linear(4, 3)
    optimizer = torch.optim.SGD([{"params": [net.weight]}, {"params": [net.bias], "lr": 0.01}], lr=0.1)
    schedule = kind(optimizer, **settings)
    return made(net, optimizer=optimizer, schedule=schedule, schedule_each="step", epochs=4)


def rates(training):
    found = []
    training.on_step.append(lambda training: found.append([g["lr"] for g in training.optimizer.param_groups]))
    training.run()
    return torch.tensor(found)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (lr_scheduler.CosineAnnealingLR, {"T_max": 4}), (lr_scheduler.LambdaLR, {"lr_lambda": lambda step: 1 / (1 + step)}),
        (lr_scheduler.LinearLR, {"total_iters": 3}), (lr_scheduler.StepLR, {"step_size": 2}),
        (lr_scheduler.OneCycleLR, {"max_lr": [1.0, 0.1], "total_steps": 8}),
        (lr_scheduler.CyclicLR, {"base_lr": [0.1, 0.01], "max_lr": [1.0, 0.1], "step_size_up": 2, "cycle_momentum": False}),
    ],
)  # fmt: skip
def test_schedules_go_on_from_another_rate(kind, settings):
    usual = rates(scheduled(kind, **settings))
    for name, more in (("learning-rate", {}), ("optimizer", {"to": "Adam"})):
        training = scheduled(kind, **settings).copy()
        treat(name, training, NOTHING, rate=2.0 * float(training.optimizer.param_groups[0]["initial_lr"]), **more)
        torch.testing.assert_close(rates(training), 2 * usual, msg=f"{name} {kind.__name__}")


def test_a_schedule_that_rises_to_a_rate_of_its_own():
    usual = rates(scheduled(lr_scheduler.OneCycleLR, max_lr=[1.0, 0.1], total_steps=8))
    training = scheduled(lr_scheduler.OneCycleLR, max_lr=[1.0, 0.1], total_steps=8)
    record = Record.of({("lr", ""): [0.5] * 3})
    treat("learning-rate", training, record, rate=0.05)  # a tenth of what it was in the run
    torch.testing.assert_close(rates(training), 0.1 * usual)


def test_a_rate_of_zero_is_set():
    training = made(optimizer=None)
    training.optimizer.param_groups[0]["lr"] = 0.0
    set_rate(training, 0.3)
    assert training.optimizer.param_groups[0]["lr"] == 0.3


# ---------------------------------------------------------------------- modules


def test_modules_are_found_where_they_were():
    training = made(nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Linear(8, 3)))
    inner, last = training.model[0][0], training.model[1]
    assert module_of(training, Layer("model.0.0")) is inner
    assert module_of(training, Layer("net.1 after net.0.1")) is last
    wrap(training, inner, nn.ReLU())
    assert module_of(training, Layer("model.0.0")) is inner
    other = training.copy()
    assert module_of(other, Layer("model.0.0")) is other.model[0][0][0]
    with pytest.raises(EditError, match="'train.py:3 relu' is no module of the model"):
        module_of(training, Layer("train.py:3 relu"))


def test_a_module_in_two_places_and_at_the_root():
    act = nn.Tanh()
    training = made(nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3)))
    new = nn.ReLU()
    replace(training, act, new)
    assert training.model[1] is training.model[3] is new
    training = made(nn.Linear(4, 3))
    with parameters_kept(training):
        replace(training, training.model, nn.Linear(4, 3, bias=False))
    assert len(held(training)) == 1
    assert is_whole(training)
    training.run()
