"""Williams and Zipser 1989, eq. 1 and 2: s = W [x, y] + b, y = f(s)."""

import pytest
import torch


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh"])
def test_every_unit_sees_every_input_and_every_unit(one_step, nonlinearity):
    x, s, w, found = one_step("fully-connected", nonlinearity=nonlinearity)
    together = torch.cat([w["weight_ih"], w["weight_hh"]], 1)
    mapped = torch.cat([x, s["h"]], 1) @ together.t() + w["bias_ih"] + w["bias_hh"]
    torch.testing.assert_close(found, {"h": getattr(torch, nonlinearity)(mapped)})
