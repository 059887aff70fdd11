from __future__ import annotations

import pytest

from unstuck.evidence import Event, Layer, Record
from unstuck.remedies.dropout import dropout, propose
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("nn.Dropout(0.9)", "nn.Dropout(0)"),
        ("nn.Dropout(p=0.9)", "nn.Dropout(p=0)"),
        ("nn.Dropout()", "nn.Dropout(p=0)"),
        ("nn.Dropout(rate)", "nn.Dropout(0)"),
        ("nn.Dropout(inplace=True)", "nn.Dropout(inplace=True, p=0)"),
    ],
)
def test_layers(script, written, becomes):
    made = script(net=f"net = nn.Sequential(nn.Linear(4, 8), {written}, nn.Linear(8, 8), {written}, nn.Linear(8, 3))")
    line = f"net = nn.Sequential(nn.Linear(4, 8), {becomes}, nn.Linear(8, 8), {becomes}, nn.Linear(8, 3))"
    assert made.added(dropout, p=0.0) == [line]


def test_a_constant(script):
    made = script(
        data="p = 0.9", net="net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(p), nn.Dropout(p), nn.Linear(8, 3))"
    )
    assert made.added(dropout, p=0.2) == ["p = 0.2"]


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("F.dropout(x, 0.9, self.training)", "F.dropout(x, 0.2, self.training)"),
        ("F.dropout(x, training=self.training)", "F.dropout(x, training=self.training, p=0.2)"),
        ("F.dropout(self.fc1(x), p=0.9)", "F.dropout(self.fc1(x), p=0.2)"),
    ],
)
def test_functions(script, written, becomes):
    made = script(f"""
        class Net(nn.Module):
            def __init__(self):
                self.fc1 = nn.Linear(4, 8)

            def forward(self, x):
                return {written}

        net = Net()
    """)
    assert made.added(dropout, p=0.2) == [f"        return {becomes}"]


def test_there_is_none(script):
    with pytest.raises(EditError, match="no dropout"):
        dropout(script())


def test_of_that_share_already(script):
    with pytest.raises(EditError, match=r"another share than 0\.5"):
        dropout(script(net="net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(p=0.5), nn.Linear(8, 3))"), p=0.5)


TRAINING = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 4, 3)
            self.fc1 = nn.Linear(8, 8)
            self.fc2 = nn.Linear(8, 3)

        def forward(self, x):
            x = F.relu(self.conv(x)).flatten(1)
            {hidden}
            return self.fc2(x)

    x, y = torch.ones(8, 1, 4), torch.zeros(8, dtype=torch.long)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    seen = []
    for epoch in range(2):
        for step in range(2):
            seen.append(net.training)
            F.cross_entropy(net(x), y).backward()
        with torch.no_grad():
            {evaluate}
            seen.append(net.training)
            out = net(x)
"""


def test_put_in_where_there_is_none(script):
    made = script(TRAINING.format(hidden="x = F.relu(self.fc1(x))", evaluate="pass"))
    assert made.added(dropout, p=0.5) == [
        "        x = F.dropout(F.relu(self.fc1(x)), 0.5, self.training)",
        "    net.train()",
        "    net.eval()",
    ]
    assert made.run(dropout, p=0.5)["seen"] == [True, True, False] * 2


def test_put_in_where_modes_are_set_by_half(script):
    made = script(TRAINING.format(hidden="pass", evaluate="net.eval()"))
    assert made.added(dropout, p=0.5) == [
        "        x = F.dropout(F.relu(self.conv(x)), 0.5, self.training).flatten(1)",
        "    net.train()",
    ], "behind the only activation there is"


def test_put_into_a_sequential(script):
    text = """
        import torch
        from torch import nn
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3), nn.Sigmoid())
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for x, y in batches:
            net(x).sum().backward()
        net.eval()
        net.train()
    """
    line = "nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)"
    assert script(text).added(dropout, p=0.3) == [f"net = nn.Sequential({line}, nn.Sigmoid())"]


def test_put_into_a_list_of_layers(script):
    made = script("""
        import torch
        from torch import nn
        layers = [nn.Linear(4, 8), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(8, 3))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for x, y in ():
            net.train()
            net(x).sum().backward()
        net.eval()
    """)
    sites = [(3, "0", "Linear"), (3, "1", "ReLU"), (4, "2", "Linear")]
    events = [
        Event(
            0,
            "site",
            "",
            {"what": "module", "file": made.path, "line": line, "path": path, "root": "Sequential", "name": name},
        )
        for line, path, name in sites
    ]
    layers = [Layer(f"net.{i}", op, parameters=("w",)) for i, op in enumerate(("linear", "relu", "linear"))]
    made.record = Record.of(
        {}, layers=layers, events=[e for e in made.record.events if e.data.get("what") != "module"] + events
    )
    assert "layers = [nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5)]" in made.added(dropout, p=0.5)


def test_an_evaluation_that_cannot_be_told_from_training(script):
    with pytest.raises(EditError, match="evaluates nothing"):
        dropout(script(), p=0.5)


def test_what_is_tried(script, found):
    assert propose(script(), found("over-regularized")) == [{"p": 0.0}]
    assert propose(script(), found("overfitting")) == [{"p": 0.5}, {"p": 0.2}]
