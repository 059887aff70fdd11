from __future__ import annotations

import pytest

from unstuck.evidence import Layer, Task
from unstuck.remedies.output_loss import KEEP, output_loss, propose
from unstuck.source import EditError

CLASSES = {"target_kind": "class index", "output_shape": (64, 3), "target_shape": (64,)}
BITS = {"target_kind": "binary", "output_shape": (64, 1), "target_shape": (64,)}
NUMBERS = {"target_kind": "real", "output_shape": (64, 1), "target_shape": (64, 1)}
SOFTMAX = "net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))"
NETWORK = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return {returns}

    net = Net()
    loss = F.cross_entropy(net(x), y)
"""

# ---------------------------------------------------------------------- the output


@pytest.mark.parametrize(
    ("net", "output", "becomes"),
    [
        (SOFTMAX, "linear", "net = nn.Sequential(nn.Linear(4, 3))"),
        (SOFTMAX, "sigmoid", "net = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid())"),
        ("net = nn.Sequential(nn.Linear(4, 3))", "softmax", "net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))"),
        ("net = nn.Sequential(\n    nn.Linear(4, 3),\n)", "sigmoid", "    nn.Linear(4, 3), nn.Sigmoid(),"),
    ],
)
def test_the_end_of_a_sequential(script, net, output, becomes):
    assert script(net=net).added(output_loss, output=output) == [becomes]


def test_a_line_of_its_own_is_taken_away(script):
    made = script(net="net = nn.Sequential(\n    nn.Linear(4, 3),  # scores\n    nn.Softmax(1),  # shares\n)")
    assert made.diff(output_loss, output="linear") == ["-    nn.Softmax(1),  # shares"]


@pytest.mark.parametrize(
    ("returns", "output", "becomes"),
    [
        ("torch.softmax(self.fc(x), dim=1)", "linear", "self.fc(x)"),
        ("F.softmax(self.fc(x), 1)", "sigmoid", "torch.sigmoid(self.fc(x))"),
        ("self.fc(x).sigmoid()", "softmax", "torch.softmax(self.fc(x), dim=1)"),
        ("self.fc(x)", "tanh", "torch.tanh(self.fc(x))"),
    ],
)
def test_what_forward_returns(script, returns, output, becomes):
    made = script(NETWORK.format(returns=returns))
    assert made.diff(output_loss, output=output) == [f"-        return {returns}", f"+        return {becomes}"]


def test_a_network_that_is_made_elsewhere(script):
    made = script(net="net = nn.Linear(4, 3)")
    hook = "net.register_forward_hook(lambda module, args, output: torch.sigmoid(output))"
    assert made.diff(output_loss, output="sigmoid") == [f"+{hook}"]


def test_nothing_to_change(script):
    with pytest.raises(EditError, match="already"):
        output_loss(script(net=SOFTMAX), output="softmax", loss="cross_entropy")


# ---------------------------------------------------------------------- the loss


@pytest.mark.parametrize(
    ("loss", "told", "to", "becomes"),
    [
        ("F.mse_loss(net(x), y)", CLASSES, "cross_entropy", "F.cross_entropy(net(x), y.long())"),
        ("F.nll_loss(net(x), y)", CLASSES, "cross_entropy", "F.cross_entropy(net(x), y)"),
        ("F.mse_loss(net(x), y)", {**CLASSES, "target_kind": "one-hot"}, "cross_entropy", "F.cross_entropy(net(x), y)"),
        ("F.mse_loss(net(x), y)", {**CLASSES, "target_shape": (64, 1)}, "cross_entropy", "F.cross_entropy(net(x), y.reshape(-1).long())"),
        ("F.mse_loss(out, y)", BITS, "binary_cross_entropy", "F.binary_cross_entropy(out, y.reshape(out.shape))"),
        ("F.mse_loss(net(x), y)", BITS, "binary_cross_entropy", "F.binary_cross_entropy(net(x), y.reshape(-1, 1))"),
        ("F.cross_entropy(net(x), y)", NUMBERS, "mse_loss", "F.mse_loss(net(x), y.float())"),
        ("F.l1_loss(net(x), y)", NUMBERS, "mse_loss", "F.mse_loss(net(x), y)"),
    ],
)  # fmt: skip
def test_functions(script, loss, told, to, becomes):
    made = script(loss=loss, loss_call=told)
    assert made.diff(output_loss, loss=to) == [f"-    loss = {loss}", f"+    loss = {becomes}"]


def test_a_criterion(script):
    made = script(data="criterion = nn.MSELoss()", loss="criterion(net(x), y)", loss_call=CLASSES)
    assert made.diff(output_loss, loss="cross_entropy") == [
        "-criterion = nn.MSELoss()",
        "+criterion = nn.CrossEntropyLoss()",
        "-    loss = criterion(net(x), y)",
        "+    loss = criterion(net(x), y.long())",
    ]


def test_a_criterion_that_is_called_at_once(script):
    made = script(loss="nn.MSELoss()(net(x), y)", loss_call={**NUMBERS, "target_kind": "one-hot"})
    assert made.added(output_loss, loss="cross_entropy") == ["    loss = nn.CrossEntropyLoss()(net(x), y)"]


def test_a_criterion_under_another_name(script):
    made = script("""
        import torch
        from torch import nn

        def train(net, loss_fn):
            for x, y in batches:
                loss = loss_fn(net(x), y)
                loss.backward()

        criterion = nn.MSELoss()
        train(net, criterion)
    """, loss_call={**CLASSES, "name": "mse_loss", "site": "train.py:6"})  # fmt: skip
    assert made.added(output_loss, loss="cross_entropy") == [
        "        loss = nn.functional.cross_entropy(net(x), y.long())"
    ]


@pytest.mark.parametrize(
    "loss",
    [
        "((out - y) ** 2).mean()",
        "torch.mean((y - out) ** 2)",
        "-(y * torch.log(out)).sum() / len(y)",
        "squared(out, y)",
    ],
)
def test_by_hand(script, loss):
    made = script(f"""
        import torch
        import torch.nn.functional as F
        net = torch.nn.Sequential(torch.nn.Linear(4, 3))
        y = torch.randn(64)
        for step in range(10):
            out = net(x)
            loss = {loss}
            loss.backward()
    """, loss_call={**CLASSES, "target_kind": "one-hot"})  # fmt: skip
    assert made.added(output_loss, loss="cross_entropy") == ["    loss = F.cross_entropy(out, y)"]


def test_what_comes_before_the_limits_of_a_logarithm(script):
    made = script("""
        import torch
        import torch.nn.functional as F
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                self.fc = nn.Linear(4, 1)

            def forward(self, x):
                return F.relu(self.fc(x)).squeeze(1)

        net = Net()
        out = net(x).clamp(1e-7, 1 - 1e-7)
        loss = -(y * out.log() + (1 - y) * (1 - out).log()).mean()
    """, layers=[
        Layer("relu", "relu", module="Net", site="train.py:10"),
        Layer("clamp", "clamp", site="train.py:13", inputs=("relu",)),
    ], loss_call={**BITS, "name": "hand-written", "site": "train.py:14", "layer": "clamp"})  # fmt: skip
    added = made.added(output_loss, output="sigmoid")
    assert added == ["        return torch.sigmoid(self.fc(x)).squeeze(1)"]


def test_by_hand_of_what_the_network_gives(script):
    made = script(loss="((net(x) - y) ** 2).mean()", loss_call=BITS)
    line = "    loss = F.binary_cross_entropy(net(x), y.reshape(-1, 1).float())"
    assert made.added(output_loss, loss="binary_cross_entropy") == [line]


def test_by_hand_of_nothing_known(script):
    with pytest.raises(EditError, match="computed from"):
        output_loss(script(loss="compute()", loss_call=CLASSES), loss="cross_entropy")


def test_both(script):
    made = script(net=SOFTMAX, loss="F.mse_loss(net(x), y)", loss_call={**CLASSES, "target_kind": "one-hot"})
    assert made.added(output_loss, output="linear", loss="cross_entropy") == [
        "net = nn.Sequential(nn.Linear(4, 3))",
        "    loss = F.cross_entropy(net(x), y)",
    ]


def test_what_is_tried(script, found):
    def tried(loss, told, **given):
        return propose(script(loss=loss, loss_call=told, **given), found())

    linear = {"output": "linear", "loss": "cross_entropy"}
    assert tried("F.mse_loss(net(x), y)", CLASSES) == [linear, {"output": "softmax", "loss": KEEP}]
    assert tried("F.mse_loss(net(x), y)", {**CLASSES, "chain": ("linear", "softmax")}) == [linear]
    assert tried("-(y * net(x).log()).sum()", CLASSES)[1] == linear
    assert tried("F.mse_loss(net(x), y)", BITS)[0] == {"output": "sigmoid", "loss": "binary_cross_entropy"}
    assert tried("F.mse_loss(net(x), y)", {**BITS, "chain": ("sigmoid",)}) == [
        {"output": KEEP, "loss": "binary_cross_entropy"}
    ]
    assert tried("F.mse_loss(net(x), y)", NUMBERS, task=Task("regression"))[0] == {"output": "linear", "loss": KEEP}
    assert tried("F.mse_loss(net(x), y)", {}) == []
