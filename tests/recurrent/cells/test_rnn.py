"""Elman 1990 and Le et al. 2015; tanh and ReLU beside torch's are in test_layers."""

import torch

from unstuck.recurrent.layers import RNN


def test_a_sigmoid(one_step, maps):
    x, s, w, found = one_step("rnn", nonlinearity="sigmoid")
    torch.testing.assert_close(found, {"h": (maps(x, w, "ih", 1)[0] + maps(s["h"], w, "hh", 1)[0]).sigmoid()})


def test_recurrent_weights_start_as_the_identity_of_a_relu_or_where_asked_and_input_weights_small():
    for layer, scale in ((RNN(100, 50, nonlinearity="relu"), 1.0), (RNN(100, 50, identity=0.5), 0.5)):
        assert torch.equal(layer.weight_hh_l0, scale * torch.eye(50))
        assert 0.0009 < layer.weight_ih_l0.std() < 0.0011  # 5000 draws of 0.001
