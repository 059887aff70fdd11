from __future__ import annotations

import pytest

from unstuck.evidence import Task
from unstuck.remedies.class_weights import class_weights, propose
from unstuck.source import EditError

WEIGHTS = {"weights": [0.5, 2.0]}


@pytest.mark.parametrize(
    ("loss", "becomes"),
    [
        ("F.cross_entropy(net(x), y)", "F.cross_entropy(net(x), y, weight=torch.tensor([0.5, 2]))"),
        ("F.nll_loss(net(x), y, weight=w)", "F.nll_loss(net(x), y, weight=torch.tensor([0.5, 2]))"),
        (
            "F.binary_cross_entropy_with_logits(net(x), y)",
            "F.binary_cross_entropy_with_logits(net(x), y, pos_weight=torch.tensor([4]))",
        ),
    ],
)
def test_functions(script, loss, becomes):
    assert script(loss=loss).added(class_weights, **WEIGHTS) == [f"    loss = {becomes}"]


@pytest.mark.parametrize(
    ("made", "becomes"),
    [
        ("nn.CrossEntropyLoss()", "nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2]))"),
        ("nn.CrossEntropyLoss(label_smoothing=0.1)", "nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.tensor([0.5, 2]))"),
        ("nn.CrossEntropyLoss(w)", "nn.CrossEntropyLoss(torch.tensor([0.5, 2]))"),
        ("nn.BCEWithLogitsLoss()", "nn.BCEWithLogitsLoss(pos_weight=torch.tensor([4]))"),
    ],
)  # fmt: skip
def test_criteria(script, made, becomes):
    written = script(data=f"criterion = {made}", loss="criterion(net(x), y)")
    assert written.added(class_weights, **WEIGHTS) == [f"criterion = {becomes}"]


def test_torch_is_imported(script):
    made = script("""
        from torch.nn.functional import cross_entropy
        for x, y in batches:
            loss = cross_entropy(net(x), y)
            loss.backward()
    """)
    assert made.added(class_weights, **WEIGHTS)[0] == "import torch"


@pytest.mark.parametrize(
    ("data", "moved", "device"),
    [
        ("device = 'cuda'", ".to(device)", "device"),
        ("", ".to('cuda')", '"cuda"'),
        ("", ".cuda()", '"cuda"'),
        ("cuda = torch.cuda.is_available()", ".cuda() if cuda else net", "y.device"),
    ],
)
def test_on_the_device_of_the_network(script, data, moved, device):
    made = script(data=data, net=f"net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)){moved}")
    line = f"    loss = F.cross_entropy(net(x), y, weight=torch.tensor([0.5, 2], device={device}))"
    assert made.added(class_weights, **WEIGHTS) == [line]


def test_a_criterion_on_the_device_of_the_network(script):
    given = {"data": "device = pick()\ncriterion = nn.CrossEntropyLoss()", "loss": "criterion(net(x), y)"}
    made = script(net="net = nn.Linear(4, 3).to(device)", **given)
    line = "criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2], device=device))"
    assert made.added(class_weights, **WEIGHTS) == [line]
    made = script(net="net = nn.Linear(4, 3)\nif torch.cuda.is_available():\n    net.cuda()", **given)
    with pytest.raises(EditError, match="which device"):
        class_weights(made, **WEIGHTS)


def test_a_device_that_is_not_known_where_the_criterion_is_made(script):
    made = script("""
        import torch
        from torch import nn
        criterion = nn.CrossEntropyLoss()

        def main(device):
            net = nn.Linear(4, 3).to(device)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            for x, y in batches:
                loss = criterion(net(x), y)
                loss.backward()

        main("cuda")
    """)
    with pytest.raises(EditError, match="which device"):
        class_weights(made, **WEIGHTS)


def test_other_losses_take_none(script):
    with pytest.raises(EditError, match="mse_loss takes no weights"):
        class_weights(script(loss="F.mse_loss(net(x), y)"), **WEIGHTS)


def test_what_is_tried(script, found):
    first, second = propose(script(task=Task("binary", 2, label_share=(0.9, 0.1))), found())
    assert first["weights"][1] / first["weights"][0] == pytest.approx(9, rel=1e-3), "to four digits"
    assert second["weights"][1] / second["weights"][0] == pytest.approx(3, rel=1e-3)
    assert propose(script(task=Task("binary", 2, label_share=(1.0, 0.0))), found()) == [], "a class that never comes"
    assert propose(script(), found()) == []
