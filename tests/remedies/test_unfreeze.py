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
