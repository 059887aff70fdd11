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

HOOKED = [
    "for module in net.modules():",
    "    if isinstance(module, nn.Linear) and module.in_features == module.out_features:",
    "        module.register_forward_hook(lambda module, args, output: args[0] + output)",
]


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
def test_other_ways_to_write_it_take_a_hook(script, hidden):
    made = script(CLASS.format(hidden=hidden), **chain(4, 8, 8, 3, sites=(13, 14, 15)))
    assert made.added(residual) == HOOKED


def test_layers_of_other_sizes_on_the_same_line_take_a_hook(script):
    made = script(CLASS.format(hidden="x = self.fc2(self.fc1(x))"), **chain(4, 8, 8, 3, sites=(14, 14, 15)))
    assert made.added(residual) == HOOKED


def test_other_layers_take_none(script):
    known = chain(4, 8, 8, 3, sites=(13, 14, 15), module="Own")
    with pytest.raises(EditError, match="not called as in"):
        residual(script(CLASS.format(hidden="x = F.relu(self.fc2(y))"), **known))


LOOP = """
    import torch
    from torch import nn

    layers = [nn.Linear(4, 8)]
    for _ in range({depth}):
        layers.append(nn.ReLU())
        layers.append(nn.Linear(8, 8))
    layers.append(nn.Linear(8, 3))
    net = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
"""


@pytest.mark.parametrize(("depth", "share"), [(2, 1.0), (16, 0.25)])
def test_layers_that_are_made_in_a_loop(script, depth, share):
    names = [str(i) for i in (0, *range(2, 2 * depth + 1, 2), 2 * depth + 1)]
    made = script(LOOP.format(depth=depth), **chain(4, *[8] * (depth + 1), 3, names=names))
    torch.manual_seed(0)
    net = made.run(residual)["net"]
    x = torch.randn(5, 8)
    plain = torch.nn.functional.linear(x, net[2].weight, net[2].bias)
    assert torch.allclose(net[2](x), x + share * plain, atol=1e-6)
    assert net[-1](x).shape == (5, 3)


def test_an_output_as_wide_as_its_input_is_no_hidden_layer(script):
    made = script(
        LOOP.format(depth=2).replace("nn.Linear(8, 3)", "nn.Linear(8, 8)"),
        **chain(4, 8, 8, 8, 8, names=["0", "2", "4", "5"]),
    )
    with pytest.raises(EditError):
        residual(made)
