"""Gers et al. 2002 and Greff et al. 2017, by hand; torch's own is in test_layers."""

import torch


def test_peepholes_see_the_content_before_and_the_output_gate_the_one_after(one_step, maps):
    x, s, w, found = one_step("lstm", ("h", "c"), peephole=True)
    i, f, g, o = (a + b for a, b in zip(maps(x, w, "ih", 4), maps(s["h"], w, "hh", 4), strict=True))
    i, f = i + w["peephole_i"] * s["c"], f + w["peephole_f"] * s["c"]
    c = f.sigmoid() * s["c"] + i.sigmoid() * g.tanh()
    h = (o + w["peephole_o"] * c).sigmoid() * c.tanh()
    torch.testing.assert_close(found, {"h": h, "c": c})


def test_coupled_gates_replace_what_is_forgotten(one_step, maps):
    x, s, w, found = one_step("lstm", ("h", "c"), coupled=True)
    f, g, o = (a + b for a, b in zip(maps(x, w, "ih", 3), maps(s["h"], w, "hh", 3), strict=True))
    c = f.sigmoid() * s["c"] + (1 - f.sigmoid()) * g.tanh()
    torch.testing.assert_close(found, {"h": o.sigmoid() * c.tanh(), "c": c})


def test_without_a_forget_gate_all_content_stays(one_step, maps):
    x, s, w, found = one_step("lstm", ("h", "c"), forget=False)
    i, g, o = (a + b for a, b in zip(maps(x, w, "ih", 3), maps(s["h"], w, "hh", 3), strict=True))
    c = s["c"] + i.sigmoid() * g.tanh()
    torch.testing.assert_close(found, {"h": o.sigmoid() * c.tanh(), "c": c})
