from __future__ import annotations

import pytest

from unstuck.remedies.unfreeze import unfreeze
from unstuck.source import EditError


@pytest.mark.parametrize(
    "given", ["net.parameters()", "net[2].parameters()", "filter(lambda p: p.requires_grad, net.parameters())"]
)
def test_before_the_optimizer(script, given):
    made = script(optimizer=f"torch.optim.SGD({given}, lr=0.1)")
    assert made.diff(unfreeze) == ["+net.requires_grad_(True)"]
    assert made.main.text[unfreeze(made)[0].start :].startswith("optimizer = ")


def test_a_network_that_a_function_is_given(script):
    made = script("""
        from torch import nn, optim

        def train(model):
            opt = optim.Adam(model.head.parameters())

        class Net(nn.Module):
            def __init__(self):
                self.head = nn.Linear(4, 3)

            def forward(self, x):
                return self.head(x)

        train(Net())
    """)
    assert made.added(unfreeze) == ["    model.requires_grad_(True)"]


def test_no_network(script):
    with pytest.raises(EditError, match="no module"):
        unfreeze(script("opt = optim.SGD([w], lr=0.1)\n"))


@pytest.mark.parametrize(
    "freezing",
    [
        "for p in net[0].parameters():\n    p.requires_grad = False",
        "net.requires_grad_(False)",
        "for layer in net.children():\n    layer.requires_grad_(False)",
        "net[0].requires_grad_(False)",
    ],
)
@pytest.mark.parametrize("after", [True, False])
def test_what_freezes_is_taken_away(script, freezing, after):
    made = "optimizer = torch.optim.SGD(net.parameters(), lr=0.1)"
    lines = [made, freezing] if after else [freezing, made]
    text = (
        "from torch import nn\nimport torch\nnet = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))\n"
        + "\n".join(lines)
    )
    made = script(f"{text}\nfor x, y in ():\n    net(x).mean().backward()\n")
    assert made.diff(unfreeze) == [f"-{line}" for line in freezing.splitlines()]
    assert all(p.requires_grad for p in made.run(unfreeze)["net"].parameters())


@pytest.mark.parametrize(
    "freezing",
    [
        "teacher.requires_grad_(False)",
        "for p in net.parameters():\n    p.requires_grad = False\n    count += 1",
        "for n, p in net.named_parameters():\n    p.requires_grad = n.startswith('2')",
    ],
)
def test_what_else_freezes_stays(script, freezing):
    assert script(data=f"net = nn.Linear(4, 3)\n{freezing}").diff(unfreeze) == ["+net.requires_grad_(True)"]


def test_a_network_that_freezes_itself(script):
    made = script("""
        from torch import nn, optim
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)
                for p in self.body.parameters():
                    p.requires_grad = False

            def forward(self, x):
                return self.head(self.body(x))

        net = Net()
        optimizer = optim.Adam(net.parameters())
    """)
    assert [line.strip() for line in made.diff(unfreeze)] == [
        "-        for p in self.body.parameters():",
        "-            p.requires_grad = False",
    ]
