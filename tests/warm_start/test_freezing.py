"""What is frozen doesn't move, neither weights nor statistics, and what thaws is trained as if it had just begun."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import unstuck
from unstuck.errors import MisuseError
from unstuck.warm_start.freezing import Thaw, freeze, gradually


def network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(
        OrderedDict(low=nn.Linear(3, 4), norm=nn.BatchNorm1d(4), drop=nn.Dropout(0.5), high=nn.Linear(4, 4))
    )
    return nn.Sequential(OrderedDict(body=body, last=nn.Dropout(0.5), head=nn.Linear(4, 1)))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def trained(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def modes(model: nn.Module) -> dict[str, bool]:
    return {path: module.training for path, module in model.named_modules()}


BATCHES = [(torch.randn(8, 3, generator=torch.Generator().manual_seed(i)) + 5, torch.ones(8, 1)) for i in range(3)]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, to_none: bool = True) -> None:
    """An epoch as people write it."""
    model.train()
    for x, y in BATCHES:
        optimizer.zero_grad(set_to_none=to_none)
        mse_loss(model(x), y).backward()
        optimizer.step()


OPTIMIZERS = [
    lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.1),
    lambda ps: torch.optim.Adam(ps, lr=0.1, weight_decay=0.1),
    lambda ps: torch.optim.AdamW(ps, lr=0.1, weight_decay=0.1),
    lambda ps: torch.optim.RMSprop(ps, lr=0.1, momentum=0.9, weight_decay=0.1),
]


# ---------------------------------------------------------------------- freezing


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("warmed", [False, True])
def test_nothing_frozen_moves_by_momentum_decay_or_statistics(make, to_none, warmed):
    model = network()
    optimizer = make(model.parameters())
    if warmed:  # momentum is there, and gradients are left over
        train(model, optimizer)
    frozen, before = freeze(model, "body"), state(model)
    train(model, optimizer, to_none=to_none)
    assert changed(model, before) == {"head.weight", "head.bias"}
    frozen.undo()
    train(model, optimizer)
    assert changed(model, before) == set(before)


def test_what_people_usually_do_lets_statistics_drift():
    model = network()
    for p in model.body.parameters():
        p.requires_grad_(False)
    before = state(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    statistics = {f"body.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed(model, before) == {"head.weight", "head.bias", *statistics}


def test_modes_of_what_is_frozen_stay_and_those_of_the_rest_follow():
    model = network().train()
    frozen = freeze(model, "body")
    expected = {path: not path.startswith("body") for path in modes(model)}
    assert modes(model) == expected
    for mode in (False, True):
        assert model.train(mode) is model
        assert modes(model) == {path: mode and other for path, other in expected.items()}
    frozen.undo()
    assert all(modes(model).values())
    assert all("train" not in vars(module) for module in model.modules())


def test_all_but_the_head_leaves_the_dropout_before_it():
    model = network().train()
    freeze(model, but="head")
    assert trained(model) == ["head.weight", "head.bias"]
    assert [path for path, mode in modes(model).items() if mode] == ["", "last", "head"]


def test_a_norm_without_parameters_is_kept_as_well():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1))
    freeze(model, but="2")
    before = state(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert changed(model, before) == {"2.weight", "2.bias"}


@pytest.mark.parametrize(
    ("which", "frozen"),
    [
        (["body.low"], ["body.low.weight", "body.low.bias"]),
        (["body.low.bias"], ["body.low.bias"]),
        (["*.bias"], ["body.low.bias", "body.norm.bias", "body.high.bias", "head.bias"]),
        (["b*.low", "head.weight"], ["body.low.weight", "body.low.bias", "head.weight"]),
    ],
)
def test_names_paths_and_patterns(which, frozen):
    model = network()
    assert list(freeze(model, *which).names) == frozen
    assert sorted(trained(model) + frozen) == sorted(name for name, _ in model.named_parameters())


def test_modules_and_parameters_themselves():
    model = network()
    assert freeze(model, model.body.low, model.head.bias).names == ("body.low.weight", "body.low.bias", "head.bias")
    assert freeze(model, model.body, but=[model.body.low, "*.bias"]).names == ("body.norm.weight", "body.high.weight")


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("bodi", r"no module or parameter 'bodi'; did you mean 'body'\?"),
        ("low", r"did you mean 'body\.low'\?"),
        ("xyz*", r"no module or parameter 'xyz\*'; there is body, body\.low"),
        (nn.Linear(1, 1), "no such module; is it one of another model, or of a copy"),
    ],
)
def test_what_is_not_there_is_told(which, says):
    model = network()
    with pytest.raises(MisuseError, match=says):
        freeze(model, which)
    assert len(trained(model)) == 8


def test_it_ends_with_the_block_also_by_an_exception():
    model = network().train()
    with pytest.raises(KeyError), freeze(model):
        assert trained(model) == [] and not any(modes(model).values())
        model.train()
        assert not any(modes(model).values())
        raise KeyError
    assert len(trained(model)) == 8 and all(modes(model).values())


def test_all_frozen_in_training_and_thawed_in_evaluation():
    model = network().train()
    frozen = freeze(model)
    model.eval()
    frozen.undo()
    assert not any(modes(model).values())


def test_what_was_not_trained_before_is_not_trained_after():
    model = network().train()
    model.body.low.weight.requires_grad_(False)
    model.body.norm.eval()
    frozen = freeze(model, "body")
    assert "body.low.weight" not in frozen.names
    frozen.undo()
    assert "body.low.weight" not in trained(model) and len(trained(model)) == 7
    assert [path for path, mode in modes(model).items() if not mode] == ["body.norm"]


def test_a_part_is_thawed():
    model = network().train()
    frozen = freeze(model, "body")
    frozen.thaw("body.high", "body.norm.bias")
    assert frozen.names == ("body.low.weight", "body.low.bias", "body.norm.weight")
    assert [path for path, mode in modes(model).items() if not mode] == ["body.low"]


def test_one_thaws_within_another():
    model = network()
    outer = freeze(model, "body")
    with freeze(model):
        assert trained(model) == []
    assert trained(model) == ["head.weight", "head.bias"]
    assert not model.train().body.norm.training
    outer.undo()
    assert all(modes(model.train()).values())


def test_a_tied_parameter_is_frozen_under_both_names():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model.head.weight = model.embed.weight
    frozen = freeze(model, "embed")
    assert frozen.names == ("embed.weight", "head.weight") and trained(model) == []
    frozen.undo()
    assert trained(model) == ["embed.weight"]


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_frozen_as_well_and_apart(twin):
    model = network().train()
    frozen = freeze(model, "body")
    other = twin(model)
    frozen.undo()
    assert not other.train().body.norm.training and trained(other) == ["head.weight", "head.bias"]
    assert model.body.norm.training


# ---------------------------------------------------------------------- thawing by schedule


def test_what_is_frozen_by_epoch():
    model = network()
    thaw = Thaw(model, {0: ["head"], 2: ["body.high"], 4: "body.norm"})
    seen = []
    for epoch in range(6):
        thaw.at(epoch)
        seen.append(trained(model))
    head, high, norm = ([f"{path}.weight", f"{path}.bias"] for path in ("head", "body.high", "body.norm"))
    assert seen == [head, head, high + head, high + head, norm + high + head, norm + high + head]
    assert thaw.at(1) == () and trained(model) == head  # back again
    assert thaw.at(9) == tuple(norm + high) and thaw.epoch == 9
    thaw.undo()
    assert len(trained(model)) == 8


def test_from_the_top():
    one, other = network(), network()
    thaw, by_hand = (
        gradually(one, ["head", "body.high", "body"], every=2),
        Thaw(other, {0: "head", 2: "body.high", 4: "body"}),
    )
    for epoch in range(6):
        thaw.at(epoch)
        by_hand.at(epoch)
        assert trained(one) == trained(other)
    with pytest.raises(MisuseError, match="every is 0"):
        gradually(one, ["head"], every=0)


def test_schedules_that_train_nothing_or_begin_nowhere_are_refused():
    model = network()
    for stages, says in (({1: "head"}, "nothing is thawed at epoch 0"), ({0: "head", -1: "body"}, "counted from 0")):
        with pytest.raises(MisuseError, match=says):
            Thaw(model, stages)
    with pytest.raises(MisuseError, match="nothing is thawed at epoch 0"):
        gradually(model, [])
    assert len(trained(model)) == 8


@pytest.mark.parametrize("average", [0.1, None])
def test_what_thaws_begins_as_if_it_had_just_been_made(average):
    """Adam's first step is as long as the rate, whatever the gradient: so its state begins with the thaw."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.1 if average else 0.0)
    thaw = gradually(model, ["head", "body.high"])
    for _ in range(3):
        train(model, optimizer)
    assert {name for name, p in model.named_parameters() if p in optimizer.state} == {"head.weight", "head.bias"}
    thaw.at(1, optimizer)
    before = model.body.high.bias.detach().clone()
    model.train()
    optimizer.zero_grad()
    mse_loss(model(BATCHES[0][0]), BATCHES[0][1]).backward()
    moves = model.body.high.bias.grad.abs() > 1e-6  # but for units that dropout took out
    optimizer.step()
    assert moves.any()
    torch.testing.assert_close(
        (model.body.high.bias - before).abs()[moves], torch.full((int(moves.sum()),), 1e-3), rtol=1e-2, atol=0
    )


def test_a_thaw_that_the_optimizer_does_not_know_of_is_refused_before_anything_changes():
    model = network()
    thaw = gradually(model, ["head", "body.high"])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with pytest.raises(MisuseError, match=r"body\.high\.weight is to be thawed, but isn't in the optimizer"):
        thaw.at(1, optimizer)
    assert trained(model) == ["head.weight", "head.bias"] and thaw.epoch == 0
    optimizer.add_param_group({"params": model.body.high.parameters(), "lr": 0.01})
    thaw.at(1, optimizer)
    assert len(trained(model)) == 4


def training(model: nn.Module, epochs: int = 3) -> unstuck.Training:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return unstuck.Training(model, mse_loss, optimizer, BATCHES, evaluation=BATCHES, epochs=epochs)


def test_as_a_hook_of_a_training():
    model = network().train()
    made = training(model)
    thaw = gradually(model, ["head", "body.high", "body.norm"])
    seen = []
    made.on_step.append(lambda one: seen.append((len(trained(one.model)), one.model.body.norm.training)))
    made.on_epoch.append(thaw)
    made.run()
    assert seen == [(2, False)] * 3 + [(4, False)] * 3 + [(6, True)] * 3  # the evaluation between them put modes back
    assert thaw.epoch == 3


def test_a_copy_of_a_training_thaws_its_own_model():
    model = network().train()
    made = training(model, epochs=1)
    made.on_epoch.append(gradually(model, ["head", "body.high"]))
    other = made.copy()
    other.run()
    assert len(trained(other.model)) == 4 and len(trained(model)) == 2
    assert changed(model, state(network())) == set()
