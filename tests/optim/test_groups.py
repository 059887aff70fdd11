from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from unstuck.errors import MisuseError
from unstuck.optim.groups import decay_groups, layerwise_rates
from unstuck.optim.scheduler import scheduler
from unstuck.optim.schedules import Constant, Step
from unstuck.recurrent.cells.layer_norm_lstm import layer_norm_lstm
from unstuck.recurrent.encoder_decoder import EncoderDecoder
from unstuck.recurrent.language_model import LanguageModel
from unstuck.recurrent.layers import GRU, Recurrent
from unstuck.recurrent.sequence_classifier import SequenceClassifier


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 7, bias=False)
        self.decoder.weight = self.embedding.weight


class Vision(nn.Module):
    """A class token and positions beside layers, registered in another order than they are run."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 3, 4))
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(4, 2, 8, batch_first=True) for _ in range(3)])

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


class CustomRMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3, 4))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.GroupNorm(2, 4), nn.PReLU(),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(nn.Linear(3, 4))


NETS = {
    "linear": lambda: nn.Linear(3, 2),
    "mlp": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
    "cnn": cnn,
    "lstm": lambda: nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2),
    "attention": lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True, kdim=3, vdim=5),
    "transformer": lambda: nn.Transformer(4, 2, 1, 1, 8, batch_first=True),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(3, 4)),
    "weight norm of all": lambda: parametrizations.weight_norm(nn.Linear(3, 4), dim=None),
    "old weight norm": old_weight_norm,
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)),
    "tied": Tied,
    "vision": Vision,
    "our gru": lambda: GRU(3, 4, 2, bidirectional=True),
    "our layer-normalised lstm": lambda: Recurrent(layer_norm_lstm, 3, 4),
    "our language model": lambda: LanguageModel(11, embedding_size=4, hidden_size=4, tied=True),
    "our classifier": lambda: SequenceClassifier(3, 4, 2),
    "our encoder and decoder": lambda: EncoderDecoder(7, 8, embedding_size=4, hidden_size=6),
}


def names(groups, **wanted):
    return [n for g in groups if all(g.get(k) == v for k, v in wanted.items()) for n in g["param_names"]]


def spared(model, **settings):
    return names(decay_groups(model, 0.1, **settings), weight_decay=0.0)


@pytest.mark.parametrize("net", NETS, ids=str)
@pytest.mark.parametrize("how", ["decay", "layers", "both"])
def test_every_parameter_is_in_exactly_one_group(net, how):
    model = NETS[net]()
    decay = 0.1 if how == "both" else None
    groups = decay_groups(model, 0.1) if how == "decay" else layerwise_rates(model, 0.1, weight_decay=decay)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    own = dict(model.named_parameters())
    for group in groups:
        assert group["params"]
        assert [own[name] for name in group["param_names"]] == group["params"]
    torch.optim.AdamW(groups, lr=0.1)  # takes them
    if how != "layers":
        for name in names(groups, weight_decay=0.1):
            assert own[name].dim() >= 2 or "parametrizations" in name
            assert "bias" not in name.rpartition(".")[2] and "norm" not in name.rpartition(".")[0]


def test_norms_and_biases_are_spared():
    assert spared(cnn()) == ["0.bias", "1.weight", "1.bias", "4.weight", "4.bias", "5.weight", "7.bias"]
    attention = ["in_proj_bias", "bias_k", "bias_v", "out_proj.bias"]  # of which two have three axes
    assert sorted(spared(nn.MultiheadAttention(4, 2, add_bias_kv=True))) == sorted(attention)
    assert spared(nn.Sequential(nn.LayerNorm((2, 3)), nn.Linear(2, 3, bias=False))) == ["0.weight", "0.bias"]
    assert spared(nn.Sequential(CustomRMSNorm())) == ["0.gain"]
    ours = Recurrent(layer_norm_lstm, 3, 4)
    assert names(decay_groups(ours, 0.1), weight_decay=0.1) == ["weight_ih_l0", "weight_hh_l0"]


def test_a_weight_that_is_made_of_others_decays_as_one():
    for dim in (0, None):  # with None its length has no axis at all
        model = parametrizations.weight_norm(nn.Linear(3, 4), dim=dim)
        assert spared(model) == ["bias"]
    bias = parametrizations.weight_norm(nn.Linear(3, 4), name="bias", dim=None)
    assert set(spared(bias)) == {n for n, _ in bias.named_parameters() if "bias" in n}


def test_a_shared_parameter_is_there_once_and_spared_where_one_place_is():
    model = Tied()
    assert names(decay_groups(model, 0.1)) == ["embedding.weight", "body.weight", "body.bias"]
    assert spared(model) == ["body.bias"]
    assert spared(model, spare_embeddings=True) == ["embedding.weight", "body.bias"]


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert names(decay_groups(model, 0.1)) == ["1.weight", "1.bias"]
    # a layer that is frozen counts: what is thawed later finds its rate free
    assert [(g["stage"], g["lr"]) for g in layerwise_rates(model, 1.0, 0.5)] == [("1", 1.0)]
    model[1].requires_grad_(False)
    model[0].requires_grad_(True)
    assert [(g["stage"], g["lr"]) for g in layerwise_rates(model, 1.0, 0.5)] == [("0", 0.5)]
    model.requires_grad_(False)
    with pytest.raises(MisuseError, match="are all of them frozen"):
        decay_groups(model, 0.1)


def test_others_are_spared_by_name():
    assert {"token", "pos_embed"} <= set(spared(Vision(), spare=["token", "pos_*"]))
    with pytest.raises(MisuseError, match=r"no parameter is called 'pos_embd'"):
        decay_groups(Vision(), 0.1, spare=["pos_embd"])


def test_only_what_decays_is_pulled_to_zero():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(decay_groups(model, 0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] * (0.95 if name == "0.weight" else 1)
        torch.testing.assert_close(parameter.detach(), expected)


def test_a_lazy_layer_must_have_seen_an_input():
    for make in (decay_groups, layerwise_rates):
        with pytest.raises(MisuseError, match="0.weight has no shape yet"):
            make(nn.Sequential(nn.LazyLinear(3)), 0.1)


# ---------------------------------------------------------------------- layers


def stages(groups):
    return list(dict.fromkeys(group["stage"] for group in groups))


def test_rates_fall_from_the_last_layer_to_the_first():
    groups = layerwise_rates(cnn(), 1.0, 0.5)
    assert [(g["stage"], g["lr"]) for g in groups] == [("0", 0.25), ("3", 0.5), ("7", 1.0)]
    assert groups[0]["param_names"] == ["0.weight", "0.bias", "1.weight", "1.bias"]  # with the norm behind it
    assert groups[1]["param_names"] == ["3.weight", "4.weight", "4.bias", "5.weight"]


def test_layers_are_found_through_containers_and_only_children():
    wrapped = nn.Sequential(nn.ModuleDict({"net": cnn()}))
    assert stages(layerwise_rates(wrapped, 1.0)) == ["0.net.0", "0.net.3", "0.net.7"]
    assert stages(layerwise_rates(nn.Linear(2, 2), 1.0)) == [""]
    assert stages(layerwise_rates(nn.Sequential(nn.Linear(2, 2)), 1.0)) == ["0"]
    assert stages(layerwise_rates(Tied(), 1.0)) == ["embedding", "body"]
    groups = layerwise_rates(Tied(), 1.0, 0.5)
    assert [g["lr"] for g in groups] == [0.25, 0.5]  # the decoder is a layer, though the first has its weights


def test_the_order_may_be_that_of_execution_or_be_said():
    model = Vision()
    model.blocks[1].eval()
    assert stages(layerwise_rates(model, 1.0))[0] == "head"
    by_run = layerwise_rates(model, 1.0, 0.5, inputs=(torch.zeros(2, 2, 4),))
    assert stages(by_run) == ["blocks.0", "blocks.1", "blocks.2", "head"]
    assert model.training and not model.blocks[1].training
    assert not model.head._forward_pre_hooks
    assert {"token", "pos_embed"} <= set(names(by_run, stage="blocks.0"))
    said = layerwise_rates(model, 1.0, 0.5, stages=[["blocks.0", "blocks.1"], "blocks.2", "head"])
    assert [(g["stage"], g["lr"]) for g in said] == [("blocks.0", 0.25), ("blocks.2", 0.5), ("head", 1.0)]


def test_rates_and_decay_go_together():
    groups = layerwise_rates(cnn(), 1.0, 0.5, weight_decay=0.1)
    assert [(g["stage"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("0", 0.25, 0.1), ("0", 0.25, 0.0), ("3", 0.5, 0.1), ("3", 0.5, 0.0), ("7", 1.0, 0.1), ("7", 1.0, 0.0),
    ]  # fmt: skip
    assert names(groups, weight_decay=0.0) == spared(cnn())


def test_each_group_may_have_a_schedule_of_its_own():
    groups = layerwise_rates(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 1.0, 0.5)
    optimizer = torch.optim.SGD(groups)
    rates = scheduler(optimizer, [Constant(), Step(1, 0.1)])
    optimizer.step()
    rates.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1]


def test_it_says_what_is_wrong():
    with pytest.raises(MisuseError, match="no module blocks.7"):
        layerwise_rates(Vision(), 1.0, stages=["blocks.7", "head"])
    with pytest.raises(MisuseError, match="weight_decay is -0.1; decay is from 0"):
        decay_groups(nn.Linear(2, 2), -0.1)
    with pytest.raises(MisuseError, match="weight_decay is '0.1'"):
        layerwise_rates(nn.Linear(2, 2), 0.1, weight_decay="0.1")
    with pytest.raises(MisuseError, match="learning_rate is nan; a learning rate is from 0"):
        layerwise_rates(nn.Linear(2, 2), float("nan"))
    with pytest.raises(MisuseError, match="model is a generator, but must be an nn.Module"):
        decay_groups(nn.Linear(2, 2).parameters(), 0.1)
    with pytest.raises(MisuseError, match="factor is 0"):
        layerwise_rates(Vision(), 1.0, 0)
    model = nn.Sequential(nn.Linear(2, 2))
    model.aside = nn.Linear(2, 2)
    model.forward = lambda x: model[0](x)
    with pytest.raises(MisuseError, match="aside isn't called"):
        layerwise_rates(model, 1.0, inputs=(torch.zeros(1, 2),))
    with pytest.raises(ValueError, match="broken"):
        layerwise_rates(Broken(), 1.0, inputs=(torch.zeros(1, 2),))


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        raise ValueError("broken")
