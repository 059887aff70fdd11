"""Cho et al. 2014, by hand; torch's own is in test_layers."""

import torch


def test_the_state_is_reset_before_its_map_where_asked(one_step, maps):
    x, s, w, found = one_step("gru", reset_after=False)
    r, z, n = maps(x, w, "ih", 3)
    hr, hz = maps(s["h"], w, "hh", 2)
    r, z = (r + hr).sigmoid(), (z + hz).sigmoid()
    new = (n + (r * s["h"]) @ w["weight_n"].t() + w["bias_n"]).tanh()
    torch.testing.assert_close(found, {"h": (1 - z) * new + z * s["h"]})
