"""Pruning: the smallest go, exactly as many as asked for, and none comes back while training goes on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from unstuck.errors import MisuseError
from unstuck.optim.weight_average import WeightAverage
from unstuck.regularization.pruning import Cubic, Pruning, apply_masks, magnitude_masks, sparsity
from unstuck.training import Training


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 3)
    )


def batches():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 2, 8, generator=generator)
    return list(zip(x.split(16), x[:, 0, :3].argmax(1).split(16), strict=True))


def training_of(model, make=torch.optim.SGD, *, epochs=5, **settings):
    optimizer = make(model.parameters(), **{"lr": 0.05} | settings)
    return Training(model, nn.functional.cross_entropy, optimizer, batches(), epochs=epochs)


WEIGHTS = ("0.weight", "4.weight", "6.weight")


# ---------------------------------------------------------------------- what goes


def test_globally_the_same_go_as_by_torch():
    model = net()
    other = copy.deepcopy(model)
    masks = magnitude_masks(model, 0.6)
    assert tuple(masks) == WEIGHTS
    prune.global_unstructured(
        [(other[i], "weight") for i in (0, 4, 6)], pruning_method=prune.L1Unstructured, amount=0.6
    )
    for name, mask in masks.items():
        assert torch.equal(mask, other[int(name[0])].weight_mask.bool())
    apply_masks(model, masks)
    assert sparsity(model).share == sparsity(other).share == pytest.approx(0.6, abs=1e-3)


def test_in_each_layer_the_same_go_as_by_torch():
    model = net()
    for name, mask in magnitude_masks(model, 0.25, scope="layer").items():
        layer = copy.deepcopy(model[int(name[0])])
        prune.l1_unstructured(layer, "weight", amount=0.25)
        assert torch.equal(mask, layer.weight_mask.bool())


@pytest.mark.parametrize("norm", [1, 2])
def test_units_go_with_their_biases_and_the_last_layer_stays(norm):
    model = net()
    masks = magnitude_masks(model, 0.5, by="unit", norm=norm, scope="layer")
    assert set(masks) == {"0.weight", "0.bias", "4.weight", "4.bias"}
    for path in ("0", "4"):
        layer = copy.deepcopy(model[int(path)])
        prune.ln_structured(layer, "weight", amount=0.5, n=norm, dim=0)
        assert torch.equal(masks[f"{path}.weight"], layer.weight_mask.bool())
        assert torch.equal(masks[f"{path}.bias"], layer.weight_mask.bool().flatten(1).any(1))
    apply_masks(model, masks)
    assert [(one.dead_units, one.units) for one in sparsity(model).layers] == [(3, 6), (10, 20), (0, 3)]


def test_across_layers_a_unit_counts_by_the_mean_of_its_weights():
    """A unit of four weights of 0.5 has half the norm of one of sixteen of 0.4, and is larger in the mean."""
    model = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 2))
    nn.init.constant_(model[0].weight, 0.5)
    nn.init.constant_(model[1].weight, 0.4)
    for norm in (1, 2):
        masks = magnitude_masks(model, 0.25, by="unit", norm=norm)
        assert masks["0.weight"].all()
        assert int(masks["1.bias"].sum()) == 8


def test_exactly_as_many_go_among_equals_and_each_layer_keeps_some():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    nn.init.constant_(model[0].weight, 0.1)
    nn.init.constant_(model[1].weight, -1.0)
    masks = magnitude_masks(model, 0.33)
    assert [int((~m).sum()) for m in masks.values()] == [66, 0]
    masks = magnitude_masks(model, 0.7, least=3)
    assert [int(m.sum()) for m in masks.values()] == [3, 57]
    assert sum(int(m.sum()) for m in magnitude_masks(model, 1.0).values()) == 2
    assert all(m.all() for m in magnitude_masks(model, 0.0).values())


def test_what_was_pruned_stays_so():
    model = net()
    first = magnitude_masks(model, 0.3)
    with torch.no_grad():  # what was pruned grows, the rest shrinks
        for name, parameter in model.named_parameters():
            if name in first:
                parameter.copy_(torch.where(first[name], 0.01 * parameter, 10.0))
    second = magnitude_masks(model, 0.5, masks=first)
    assert all((second[name] <= first[name]).all() for name in first)
    assert sum(int((~m).sum()) for m in second.values()) == round(0.5 * sum(m.numel() for m in second.values()))
    units = magnitude_masks(model, 0.25, by="unit")
    more = magnitude_masks(model, 0.5, by="unit", masks=units)
    assert all((more[name] <= units[name]).all() for name in units)


# ---------------------------------------------------------------------- when


def test_the_schedule_is_that_on_paper():
    """s_f + (s_i - s_f) (1 - (t - t0) / (n dt))³ at t0, t0 + dt, ..., t0 + n dt."""
    cubic = Cubic(0.9, steps=400, first=100, every=100, start=0.1)
    expected = [0.9 - 0.8 * (1 - n / 4) ** 3 for n in range(5)]
    assert [cubic(step) for step in (100, 200, 300, 400, 500)] == pytest.approx(expected)
    assert [cubic(step) for step in (99, 199, 999)] == pytest.approx([0, expected[0], 0.9])
    uneven = Cubic(0.5, steps=10, every=4)  # ends where it should, though 10 is no multiple
    assert uneven(9) == uneven(8) < uneven(10) == 0.5


def test_a_training_is_pruned_by_the_schedule():
    model = net()
    training = training_of(model, momentum=0.9)
    pruning, seen = Pruning(Cubic(0.8, steps=20, first=4, every=5)), []
    pruning.attach(training)
    training.on_step.append(lambda t: seen.append(sparsity(t.model).share))
    training.run()
    assert seen == pytest.approx([pruning.share(step) for step in range(1, 31)], abs=1e-3)
    assert seen[-1] == pytest.approx(0.8, abs=1e-3)


# ---------------------------------------------------------------------- nothing comes back


@pytest.mark.slow
@pytest.mark.parametrize(("make", "settings"), [
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}), (torch.optim.Adam, {"amsgrad": True}),
    (torch.optim.AdamW, {"weight_decay": 0.1}),
    (torch.optim.RMSprop, {"lr": 0.001, "momentum": 0.9, "centered": True}),
])  # fmt: skip
def test_optimizers_that_remember_move_no_pruned_weight_neither_now_nor_later(make, settings):
    model = net()
    training = training_of(model, make, **settings)
    training.run()  # by now there is momentum
    copied = training.copy()
    pruning = Pruning(0.7)
    pruning.attach(training)
    training.run()
    zeros = {name: p == 0 for name, p in model.named_parameters() if name in WEIGHTS}
    assert sum(int(z.sum()) for z in zeros.values()) == round(0.7 * sum(z.numel() for z in zeros.values()))
    for name, parameter in model.named_parameters():
        for value in training.optimizer.state[parameter].values():
            if name in WEIGHTS and value.shape == parameter.shape:
                assert (value[zeros[name]] == 0).all()
                assert (value[~zeros[name]] != 0).any()

    def step_without_gradient(training):
        for parameter in training.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        training.optimizer.step()

    step_without_gradient(training)  # without hooks: made permanent
    assert all((p[zeros[n]] == 0).all() for n, p in model.named_parameters() if n in WEIGHTS)
    apply_masks(copied.model, pruning.masks)
    step_without_gradient(copied)  # whose optimizer remembers
    assert any((p[zeros[n]] != 0).any() for n, p in copied.model.named_parameters() if n in WEIGHTS)


def test_gradients_of_pruned_weights_count_in_no_norm():
    model = net()
    training = training_of(model, epochs=1)
    pruning = Pruning(0.9)
    pruning.step(model)
    pruning.attach(training)
    training.on_gradients.append(lambda t: seen.append({n: p.grad.clone() for n, p in t.model.named_parameters()}))
    seen = []
    training.run()
    for gradients in seen:
        assert all((gradients[name][~mask] == 0).all() for name, mask in pruning.masks.items())
    assert seen[0]["4.weight"].abs().sum() > 0


def test_the_model_stays_what_it_is():
    model, names = net(), list(net().state_dict())
    parameters = list(model.parameters())
    training = training_of(model)
    Pruning(0.5).attach(training)
    training.run()
    assert list(model.state_dict()) == names
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    copied = training.copy()  # with masks of its own
    copied.run()
    assert sparsity(copied.model).share == sparsity(model).share == pytest.approx(0.5, abs=1e-3)
    net().load_state_dict(model.state_dict())


def test_it_goes_on_from_a_checkpoint():
    whole, broken = training_of(net(), epochs=2), training_of(net(), epochs=1)
    prunings = [Pruning(Cubic(0.8, steps=10, every=1)) for _ in range(3)]
    prunings[0].attach(whole)
    whole.run()
    prunings[1].attach(broken)
    broken.run()
    prunings[2].load_state_dict(copy.deepcopy(prunings[1].state_dict()))
    broken.on_step.clear()
    broken.on_gradients.clear()
    prunings[2].attach(broken)
    broken.run()
    for one, other in zip(whole.model.parameters(), broken.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("settings", [{"decay": 0.9}, {"kind": "equal"}, {"dtype": torch.float64}])
def test_an_average_of_the_weights_is_pruned_with_them(settings):
    """It has the zeros of the masks whenever it is evaluated; elsewhere it is the average of the weights that there were."""
    model = net()
    training = training_of(model)
    training.average, training.evaluation = WeightAverage(model, **settings), batches()[:1]
    pruning, shares, seen = Pruning(Cubic(0.8, steps=20, every=5)), [], []
    pruning.attach(training)
    training.on_step.append(lambda _: seen.append([p.detach().clone() for p in model.parameters()]))
    training.on_eval.append(lambda *_: shares.append(sparsity(model).share))
    training.run()
    assert shares == pytest.approx([pruning.share(step) for step in (6, 12, 18, 24, 30)], abs=0.01)
    assert sparsity(model).share == pytest.approx(0.8, abs=0.01)
    kept = 1.0 if "kind" in settings else settings.get("decay", 0.999)
    counts = [kept ** (len(seen) - 1 - step) for step in range(len(seen))]
    for i, (name, parameter) in enumerate(model.named_parameters()):
        mean = sum(count * weights[i] for count, weights in zip(counts, seen, strict=True)) / sum(counts)
        mask = pruning.masks.get(name, torch.ones(()))
        torch.testing.assert_close(parameter.detach(), mean * mask, rtol=1e-4, atol=1e-6)  # sums in float32


def test_a_lottery_ticket_is_early_weights_with_late_masks():
    model = net()
    early = copy.deepcopy(model.state_dict())
    training = training_of(model, torch.optim.Adam)
    pruning = Pruning(0.6)
    pruning.attach(training)
    training.run()
    pruning.rewind(model, early, training.optimizer)
    for name, value in model.state_dict().items():
        mask = pruning.masks.get(name)
        assert torch.equal(value, early[name] if mask is None else early[name] * mask)
    assert not training.optimizer.state
    training.run()
    assert sparsity(model).share == pytest.approx(0.6, abs=1e-3)


# ---------------------------------------------------------------------- what is told, and what cannot be


def test_zeros_are_counted_as_they_are_used():
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1, 0, 2, 3], [1, 1, 1, 1]]))
    model = nn.Sequential(layer, nn.BatchNorm1d(3), nn.Linear(3, 2))
    found = sparsity(model)
    assert [(one.name, one.zeros, one.size, one.dead_units, one.units) for one in found.layers] == [
        ("0.weight", 5, 12, 1, 3), ("2.weight", 0, 6, 0, 2),
    ]  # fmt: skip
    assert str(found).splitlines()[:2] == [
        "5 of 18 weights are zero (27.8%)", "  0.weight: 5 of 12 (41.7%); 1 of 3 outputs have none left",
    ]  # fmt: skip
    prune.l1_unstructured(model[2], "weight", amount=2)
    assert sparsity(model).layers[1].zeros == 2
    assert model.training


def test_what_cannot_be():
    model = net()
    for settings, says in [
        ({"share": 1.2}, "share of zeros of 1.2"), ({"share": 0.5, "by": "row"}, "by is 'row'"),
        ({"share": 0.5, "scope": "all"}, "scope is 'all'"), ({"share": 0.5, "norm": 3}, "norm is 3"),
        ({"share": 0.5, "spare": ("7",)}, "'7' is to be spared"),
    ]:  # fmt: skip
        with pytest.raises(MisuseError, match=says):
            magnitude_masks(model, **settings)
    with pytest.raises(MisuseError, match="a mask of shape"):
        apply_masks(model, {"0.weight": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(MisuseError, match="none of that name"):
        apply_masks(model, {"fc.weight": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(MisuseError, match="start <= end"):
        Cubic(0.5, steps=10, start=0.6)
    with pytest.raises(MisuseError, match="must be from 1 on"):
        Cubic(0.5, steps=0)
