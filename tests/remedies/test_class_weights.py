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


def test_other_losses_take_none(script):
    with pytest.raises(EditError, match="mse_loss takes no weights"):
        class_weights(script(loss="F.mse_loss(net(x), y)"), **WEIGHTS)


def test_what_is_tried(script, found):
    first, second = propose(script(task=Task("binary", 2, label_share=(0.9, 0.1))), found())
    assert first["weights"][1] / first["weights"][0] == pytest.approx(9, rel=1e-3), "to four digits"
    assert second["weights"][1] / second["weights"][0] == pytest.approx(3, rel=1e-3)
    assert propose(script(task=Task("binary", 2, label_share=(1.0, 0.0))), found()) == [], "a class that never comes"
    assert propose(script(), found()) == []
