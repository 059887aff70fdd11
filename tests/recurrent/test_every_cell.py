"""What holds of every cell: a file named like it with a page of its own, a new layer that runs, remembers and learns."""

import inspect

import pytest
import torch

from unstuck._discover import find
from unstuck.recurrent.layers import Recurrent

CELLS = find("recurrent.cells")


@pytest.mark.parametrize("name", CELLS)
def test_its_docstring_says_where_it_is_from_and_what_its_settings_are(name):
    text = inspect.getdoc(CELLS[name]) or ""
    assert "Source:" in text and "Returns:" in text
    settings = [p for p in inspect.signature(CELLS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert all(p.default is not p.empty and f"{p.name}:" in text for p in settings if p.name != "high")


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_a_new_layer_gives_finite_states_that_depend_on_all_parameters(name):
    torch.manual_seed(0)
    layer = Recurrent(name, 3, 6, 2, bidirectional=True)
    output, _ = layer(torch.randn(20, 4, 3))
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_it_learns_what_was_said_two_steps_ago(name):
    torch.manual_seed(0)
    layer, head = Recurrent(name, 1, 16, 2), torch.nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 1e-2)
    for _ in range(600):
        x = torch.randint(0, 2, (8, 64, 1)).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(layer(x)[0][-1]), x[-3])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3  # chance is 0.69
