from __future__ import annotations

import pytest
import torch

from unstuck.evidence import Event, Layer, Parameter, Record
from unstuck.remedies.residual import residual
from unstuck.source import EditError

CLASS = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(4, 8)
            self.fc2 = nn.Linear(8, 8)
            self.fc3 = nn.Linear(8, 3)

        def forward(self, x):
            x = F.relu(self.fc1(x))
            {hidden}
            return self.fc3(x)

    net = Net()
"""


def chain(*sizes, sites=(), module="Linear", names=None):
    """Linear layers of some sizes, each given what the last gives."""
    names = names or [f"fc{i + 1}" for i in range(len(sizes) - 1)]
    layers, before = [], ()
    for i, (name, width) in enumerate(zip(names, sizes[1:], strict=True)):
        site = f"train.py:{sites[i] if sites else 1}"
        layers.append(Layer(name, "linear", module, site, before, (f"{name}.weight",), (64, width)))
        before = (name,)
    weights = [Parameter(f"{name}.weight", (b, a)) for name, a, b in zip(names, sizes, sizes[1:], strict=False)]
    return {"layers": layers, "parameters": weights}


@pytest.mark.parametrize(
    ("hidden", "becomes"),
    [
        ("x = F.relu(self.fc2(x))", "x = x + F.relu(self.fc2(x))"),
        ("x = self.fc2(x)", "x = x + self.fc2(x)"),
        ("x = self.fc2(x).relu()", "x = x + self.fc2(x).relu()"),
        ("x = F.dropout(F.relu(self.fc2(x)), 0.5, self.training)", "x = x + F.dropout(F.relu(self.fc2(x)), 0.5, self.training)"),
    ],
)  # fmt: skip
def test_in_forward(script, hidden, becomes):
    made = script(CLASS.format(hidden=hidden), **chain(4, 8, 8, 3, sites=(13, 14, 15)))
    assert made.added(residual) == [f"        {becomes}"]


def test_what_it_computes(script):
    made = script(CLASS.format(hidden="x = F.relu(self.fc2(x))"), **chain(4, 8, 8, 3, sites=(13, 14, 15)))
    net = made.run(residual)["net"]
    x = torch.randn(5, 4)
    hidden = net.fc1(x).relu()
    torch.testing.assert_close(net(x), net.fc3(hidden + net.fc2(hidden).relu()))


def test_in_a_sequential(script):
    made = script(
        data="x = 0",
        net="net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))",
        **chain(4, 8, 8, 3, names=["net.0", "net.2", "net.5"]),
    )
    assert made.added(residual) == [
        "",
        "",
        "class Residual(nn.Sequential):",
        "    def forward(self, x):",
        "        return x + super().forward(x)",
        "",
        "",
        "net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), Residual(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh()), nn.Linear(8, 3))",
    ]


def test_in_a_list(script):
    made = script(
        """
        import torch
        from torch import nn
        layers = [nn.Linear(4, 8), nn.Tanh()]
        for _ in range(2):
            layers += [nn.Linear(8, 8), nn.Tanh()]
        net = nn.Sequential(*layers, nn.Linear(8, 3))
        """,
        **chain(4, 8, 8, 8, 3, names=["net.0", "net.2", "net.4", "net.6"]),
    )
    line = {"net.0": 3, "net.2": 5, "net.4": 5, "net.6": 6}
    sites = [
        Event(
            0,
            "site",
            "",
            {"what": "module", "file": made.path, "line": at, "path": name[4:], "root": "Sequential", "name": "Linear"},
        )
        for name, at in line.items()
    ]
    made.record = Record.of({}, events=sites, **chain(4, 8, 8, 8, 3, names=[*line]))
    assert "    layers += [Residual(nn.Linear(8, 8), nn.Tanh())]" in made.added(residual)
    net = made.run(residual)["net"]
    x = torch.randn(5, 8)
    torch.testing.assert_close(net[2](x), x + net[2][0](x).tanh())


def test_the_first_layer_too(script):
    made = script(
        net="net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))",
        **chain(4, 4, 3, names=["net.0", "net.2"]),
    )
    assert made.added(residual)[-1] == "net = nn.Sequential(Residual(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3))"


def test_none_that_gives_as_much_as_it_takes(script):
    with pytest.raises(EditError, match="as much as it takes"):
        residual(script(**chain(4, 8, 16, 3, names=["net.0", "net.2", "net.4"])))


def test_one_that_is_passed_already(script):
    known = chain(4, 8, 8, 3, sites=(13, 14, 15))
    known["layers"].insert(2, Layer("add", "add", "Net", "train.py:14", ("fc1", "fc2"), (), (64, 8)))
    with pytest.raises(EditError, match="as much as it takes"):
        residual(script(CLASS.format(hidden="x = x + self.fc2(x)"), **known))


@pytest.mark.parametrize(
    "hidden", ["h = F.relu(self.fc2(x)); x = h", "x = F.relu(self.fc2(y))", "x, h = self.fc2(x), 0"]
)
def test_other_ways_to_write_it(script, hidden):
    with pytest.raises(EditError, match="not called as in"):
        residual(script(CLASS.format(hidden=hidden), **chain(4, 8, 8, 3, sites=(13, 14, 15))))


def test_layers_of_other_sizes_on_the_same_line(script):
    with pytest.raises(EditError, match="changes the size"):
        residual(script(CLASS.format(hidden="x = self.fc2(self.fc1(x))"), **chain(4, 8, 8, 3, sites=(14, 14, 15))))
