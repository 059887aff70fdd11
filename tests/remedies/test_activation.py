from __future__ import annotations

import pytest

from unstuck.evidence import Event, Layer, Record
from unstuck.remedies.activation import activation, propose
from unstuck.source import EditError

NETWORK = """
    import torch
    {imports}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(4, 8)
            self.act = nn.Tanh()
            self.fc2 = nn.Linear(8, 8)
            self.fc3 = nn.Linear(8, 3)

        def forward(self, x):
            {forward}

    net = Net()
"""


def network(forward, imports="import torch.nn.functional as F\n    from torch import nn"):
    return NETWORK.format(imports=imports, forward=forward)


@pytest.mark.parametrize(
    ("to", "becomes"), [("relu", "nn.ReLU()"), ("leaky_relu", "nn.LeakyReLU()"), ("prelu", "nn.PReLU()")]
)
def test_modules_of_a_sequential_on_one_line(script, to, becomes):
    made = script(
        net="net = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 1), nn.Sigmoid())"
    )
    line = f"net = nn.Sequential(nn.Linear(4, 8), {becomes}, nn.Linear(8, 8), {becomes}, nn.Linear(8, 1), nn.Sigmoid())"
    assert made.added(activation, to=to) == [line], "the last is the output's"


def test_a_class_imported_by_its_name(script):
    made = script("""
        from torch.nn import Linear, Sequential, Tanh
        net = Sequential(
            Linear(4, 8),
            Tanh(),
            Linear(8, 3),
        )
    """)
    assert made.added(activation, to="relu") == ["import torch", "    torch.nn.ReLU(),"]


def test_a_class_that_goes_by_a_variable(script):
    made = script(
        data="act = nn.Tanh", net="net = nn.Sequential(\n    nn.Linear(4, 8),\n    act(),\n    nn.Linear(8, 3),\n)"
    )
    assert made.diff(activation, to="relu") == ["-    act(),", "+    nn.ReLU(),"]


def test_not_another_call_for_one_that_goes_by_a_variable(script):
    made = script(data="act = nn.Tanh", net="net = nn.Sequential(nn.Linear(4, 8), act(), nn.Linear(8, 3))")
    assert made.added(activation, to="relu") == ["net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))"]


def test_one_module_used_twice(script):
    made = script(network("return self.fc3(self.act(self.fc2(self.act(self.fc1(x)))))"))
    assert made.diff(activation, to="relu") == ["-        self.act = nn.Tanh()", "+        self.act = nn.ReLU()"]


@pytest.mark.parametrize(
    ("forward", "to", "becomes"),
    [
        ("return self.fc3(torch.sigmoid(self.fc1(x)))", "relu", "return self.fc3(F.relu(self.fc1(x)))"),
        ("return self.fc3(self.fc1(x).sigmoid())", "tanh", "return self.fc3(torch.tanh(self.fc1(x)))"),
        ("return self.fc3(F.relu(self.fc1(x), inplace=True))", "elu", "return self.fc3(F.elu(self.fc1(x)))"),
        ("return self.fc3(F.softmax(self.fc1(x), dim=1))", "relu", "return self.fc3(F.relu(self.fc1(x)))"),
        ("return self.fc3(torch.tanh((x @ self.fc1(x))))", "relu", "return self.fc3(F.relu((x @ self.fc1(x))))"),
        ("return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))", "elu", "return self.fc3(F.elu(self.fc2(F.elu(self.fc1(x)))))"),
        ("return self.fc3(self.fc2(self.fc1(x).tanh()).tanh())", "relu", "return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))"),
    ],
)  # fmt: skip
def test_functions(script, forward, to, becomes):
    assert script(network(forward)).added(activation, to=to) == [f"        {becomes}"]


@pytest.mark.parametrize(
    ("imports", "name"),
    [
        ("from torch import nn", "nn.functional.relu"),
        ("from torch.nn import functional\n    import torch.nn as nn", "functional.relu"),
    ],
)
def test_functions_by_what_is_imported(script, imports, name):
    made = script(network("return self.fc3(torch.tanh(self.fc1(x)))", imports))
    assert made.added(activation, to="relu") == [f"        return self.fc3({name}(self.fc1(x)))"]


def test_a_function_has_no_weights(script):
    with pytest.raises(EditError, match="prelu"):
        activation(script(network("return self.fc3(torch.tanh(self.fc1(x)))")), to="prelu")


def test_none_between_layers(script):
    with pytest.raises(EditError, match="no other activation"):
        activation(script(net="net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3), nn.Softmax(1))"))


@pytest.mark.parametrize(
    ("net", "becomes"),
    [
        (
            "nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3), nn.Linear(3, 3))",
            "nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 3))",
        ),
        (
            "nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))",
            "nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))",
        ),
    ],
)
def test_where_there_is_none(script, net, becomes):
    made = script(net=f"net = {net}")
    assert made.added(activation, to="relu", added=True) == [f"net = {becomes}"]
    made.run(activation, to="relu", added=True)


def test_where_there_is_none_in_a_class(script):
    made = script(network("return self.fc3(self.fc2(self.fc1(x)))"))
    assert made.added(activation, to="relu", added=True) == [
        "        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))"
    ]
    assert made.added(activation, to="gelu", added=True) == [
        "        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x)))))"
    ]
    assert made.added(activation, to="prelu", added=True) == [
        "        self.fc1 = nn.Sequential(nn.Linear(4, 8), nn.PReLU())",
        "        self.fc2 = nn.Sequential(nn.Linear(8, 8), nn.PReLU())",
    ]


def test_where_none_is_missing(script):
    with pytest.raises(EditError, match="between all"):
        activation(script(), to="relu", added=True)


def test_hidden_and_last_layer_made_at_once(script):
    made = script(net="def linear(a, b):\n    return nn.Linear(a, b)\nnet = nn.Sequential(linear(4, 8), linear(8, 3))")
    layers = [Layer(f"net.{i}", "linear", "Linear", "train.py:11", (), ("w",)) for i in (0, 1)]
    site = {"what": "module", "file": made.path, "line": 7, "root": "Sequential", "name": "Linear"}
    events = [Event(0, "site", "", {**site, "path": path}) for path in ("0", "1")]
    made.record = Record.of({}, layers=layers, events=events)
    with pytest.raises(EditError, match="by one call"):
        activation(made, to="relu", added=True)


def test_what_is_tried(script, found):
    assert propose(script(), found("missing-nonlinearity")) == [
        {"to": "relu", "added": True},
        {"to": "tanh", "added": True},
    ]
    assert propose(script(), found()) == [{"to": "relu"}, {"to": "tanh"}]
    dead = script(net="net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))")
    assert propose(dead, found()) == [{"to": "leaky_relu"}, {"to": "elu"}]
    assert propose(script(net="net = nn.Linear(4, 3)"), found()) == []
