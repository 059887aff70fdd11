"""Ba et al. 2016, eq. 20 to 22, beside torch's layer norm."""

import torch
import torch.nn.functional as F


def test_maps_and_content_are_normalised(one_step, maps):
    x, s, w, found = one_step("layer-norm-lstm", ("h", "c"), hidden=6)

    def norm(value, name):
        return F.layer_norm(value, value.shape[-1:]) * w[f"gain_{name}"]

    parts = zip("ifgo", maps(x, w, "ih", 4), maps(s["h"], w, "hh", 4), strict=True)
    i, f, g, o = (norm(a, f"input_{n}") + norm(b, f"hidden_{n}") + w[f"shift_{n}"] for n, a, b in parts)
    c = f.sigmoid() * s["c"] + i.sigmoid() * g.tanh()
    h = o.sigmoid() * (norm(c, "content") + w["shift_content"]).tanh()
    torch.testing.assert_close(found, {"h": h, "c": c})
