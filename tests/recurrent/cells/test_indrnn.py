"""Li et al. 2018, eq. 2."""

import pytest
import torch


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_a_unit_sees_itself_and_no_other(one_step, maps, nonlinearity):
    x, s, w, found = one_step("indrnn", nonlinearity=nonlinearity)
    assert not any("hh" in name for name in w)
    mapped = maps(x, w, "ih", 1)[0] + w["recurrent"] * s["h"]
    torch.testing.assert_close(found, {"h": getattr(torch, nonlinearity)(mapped)})
