"""One step of a layer beside what its equations say."""

import pytest
import torch

from unstuck.recurrent.layers import Recurrent

HIDDEN = 4


@pytest.fixture
def one_step():
    """Makes a layer with random parameters and runs a step: its input, states, parameters without `_l0`, and the new states."""

    def run(cell, states=("h",), *, hidden=HIDDEN, **settings):
        torch.manual_seed(0)
        layer = Recurrent(cell, 3, hidden, dtype=torch.float64, **settings)
        with torch.no_grad():
            for p in layer.parameters():
                p.normal_()
        x = torch.randn(2, 3, dtype=torch.float64)
        given = {name: torch.randn(2, hidden, dtype=torch.float64) for name in states}
        first = tuple(s[None] for s in given.values())
        output, last = layer(x[None], first if len(first) > 1 else first[0])
        last = (last,) if isinstance(last, torch.Tensor) else last
        found = dict(zip(states, (s[0].detach() for s in last), strict=True))
        assert torch.equal(output[0], last[0][0])
        return x, given, {n.removesuffix("_l0"): p.detach() for n, p in layer.named_parameters()}, found

    return run


@pytest.fixture
def maps():
    """The gates' linear maps of an input or a state, in the order of a weight's rows."""

    def of(value, weights, name, gates):
        return (value @ weights[f"weight_{name}"].t() + weights[f"bias_{name}"]).chunk(gates, -1)

    return of
