"""How a network answers a batch, wherever it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unstuck._batches import outputs_and_targets
from unstuck.errors import MisuseError


class Given(nn.Module):
    """Gives back what it is given."""

    def __init__(self, device):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), device=device))

    def forward(self, inputs):
        return inputs


X, Y = torch.arange(6.0).reshape(3, 2), torch.arange(3)


def test_inputs_and_targets_are_moved_to_where_the_model_is():
    """The device without memory stands in for another one."""
    batch = [{"a": X, "many": (X, [X])}, (Y, "a word")]
    outputs, (targets, word) = outputs_and_targets(Given("meta"), batch)
    assert outputs["a"].is_meta and outputs["many"][0].is_meta and outputs["many"][1][0].is_meta
    assert type(outputs["many"]) is tuple and type(outputs["many"][1]) is list
    assert targets.is_meta and word == "a word"
    assert not X.is_meta


def test_where_it_is_already_nothing_is_copied():
    outputs, targets = outputs_and_targets(Given("cpu"), (X, Y))
    assert outputs is X and targets is Y
    outputs, targets = outputs_and_targets(nn.Identity(), (X, Y))
    assert outputs is X and targets is Y


@pytest.mark.parametrize(
    ("batch", "said"),
    [((X, Y, Y), "a tuple of 3"), ({"x": X, "y": Y}, "a dict of 2"), (X, "a Tensor of 3"), (3, "an? int,")],
)
def test_what_else_a_batch_may_be_is_asked_for(batch, said):
    with pytest.raises(MisuseError, match=f"{said}.*forward="):
        outputs_and_targets(Given("cpu"), batch)
