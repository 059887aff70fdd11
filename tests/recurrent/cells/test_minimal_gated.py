"""Zhou et al. 2016, eq. 9 to 11."""

import torch


def test_one_gate_resets_and_replaces(one_step, maps):
    x, s, w, found = one_step("minimal-gated")
    f, n = maps(x, w, "ih", 2)
    f = (f + maps(s["h"], w, "hh", 1)[0]).sigmoid()
    new = (n + (f * s["h"]) @ w["weight_n"].t() + w["bias_n"]).tanh()
    torch.testing.assert_close(found, {"h": (1 - f) * s["h"] + f * new})
