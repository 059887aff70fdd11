"""Penalties: their values and gradients are those on paper, and only weights are penalized."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from unstuck.errors import MisuseError
from unstuck.regularization.dropout import EmbeddingDropout, drop_weights
from unstuck.regularization.penalties import L1, L2, ElasticNet, GroupLasso, SoftThreshold, weights
from unstuck.training import Training


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def number(tensor):
    return tensor.detach().item()


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def loss_of(model):
    return nn.functional.cross_entropy(
        model(torch.randn(8, 3, generator=seeded(), dtype=torch.float64)), torch.arange(8) % 2
    )


# ---------------------------------------------------------------------- what is penalized


def test_biases_and_norms_are_spared_and_shared_weights_count_once():
    model = nn.ModuleDict({
        "embedding": nn.Embedding(7, 5), "conv": nn.Conv1d(2, 3, 3), "norm": nn.LayerNorm((3, 4)), "batch_norm": nn.BatchNorm1d(3),
        "lstm": nn.LSTM(2, 3), "attention": nn.MultiheadAttention(4, 2), "prelu": nn.PReLU(3), "out": nn.Linear(5, 7),
    })  # fmt: skip
    model["out"].weight = model["embedding"].weight
    found = weights(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in found] == [
        "embedding.weight", "conv.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0",
        "attention.in_proj_weight", "attention.out_proj.weight",
    ]  # fmt: skip
    model["conv"].weight.requires_grad_(False)
    assert [names[id(p)] for p in weights(model, spare=("embedding", "attention"))] == [
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
    ]
    with pytest.raises(MisuseError, match="'conf' is to be spared"):
        weights(model, spare=("conf",))
    with pytest.raises(MisuseError, match="no trained weights"):
        L2(0.1)(nn.BatchNorm1d(3))


def test_an_embedding_that_is_dropped_is_still_one():
    assert [tuple(w.shape) for w in weights(EmbeddingDropout(nn.Embedding(7, 5)))] == [(7, 5)]
    lstm = nn.LSTM(2, 3)
    drop_weights(lstm, {"weight_hh_l0": 0.5})
    assert [tuple(w.shape) for w in weights(lstm)] == [(12, 2), (12, 3)]


def test_of_a_parametrized_weight_the_original_is_penalized():
    layer = parametrizations.orthogonal(nn.Linear(3, 3))
    assert [id(p) for p in weights(layer)] == [id(layer.parametrizations.weight.original)]
    norm = nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 3)), nn.LayerNorm((2, 3)))
    assert len(weights(norm)) == 1


# ---------------------------------------------------------------------- values and gradients


def test_values_are_those_on_paper():
    model = small()
    w = [model[0].weight.detach(), model[2].weight.detach()]
    ones, squares = (sum(float(f(x).sum()) for x in w) for f in (torch.abs, torch.square))
    assert number(L1(0.1)(model)) == pytest.approx(0.1 * ones)
    assert number(L2(0.1)(model)) == pytest.approx(0.05 * squares)
    assert number(ElasticNet(0.1, share=0.3)(model)) == pytest.approx(0.1 * (0.3 * ones + 0.35 * squares))
    rows = sum(math.sqrt(x.shape[1]) * float(row.square().sum().sqrt()) for x in w for row in x)
    columns = sum(math.sqrt(x.shape[0]) * float(column.square().sum().sqrt()) for x in w for column in x.T)
    assert number(GroupLasso(0.1)(model)) == pytest.approx(0.1 * rows)
    assert number(GroupLasso(0.1, by="input")(model)) == pytest.approx(0.1 * columns)
    assert number(L1(0.1, spare=("2",))(model)) == pytest.approx(0.1 * float(w[0].abs().sum()))


def test_units_of_convolutions_are_filters_also_of_transposed_ones():
    conv, transposed = nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(2, 3, 3)
    by_hand = sum(math.sqrt(18) * number(conv.weight[i].norm()) for i in range(3))
    assert number(GroupLasso(1.0)(conv)) == pytest.approx(by_hand, rel=1e-5)
    by_hand = sum(math.sqrt(18) * number(transposed.weight[:, i].norm()) for i in range(3))
    assert number(GroupLasso(1.0)(transposed)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(("penalty", "gradient"), [
    (L1(0.1), lambda w: 0.1 * w.sign()), (L2(0.1), lambda w: 0.1 * w),
    (ElasticNet(0.1, share=0.3), lambda w: 0.03 * w.sign() + 0.07 * w),
    (GroupLasso(0.1), lambda w: 0.1 * math.sqrt(w.shape[1]) * w / w.norm(dim=1, keepdim=True).clamp_min(1e-300)),
])  # fmt: skip
def test_gradients_are_those_on_paper_also_at_zero(penalty, gradient):
    model = small()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].weight[1, 2] = 0
    penalty(model).backward()
    for layer in (model[0], model[2]):
        torch.testing.assert_close(layer.weight.grad, gradient(layer.weight.detach()))
        assert layer.bias.grad is None


def test_squares_of_small_weights_in_half_precision_are_not_lost():
    layer = nn.Linear(1000, 1000, bias=False, dtype=torch.float16)
    nn.init.constant_(layer.weight, 1e-4)  # whose square is below what float16 has
    assert number(L2(2.0)(layer)) == pytest.approx(1e6 * number(layer.weight[0, 0]) ** 2, rel=1e-3)
    assert number(L1(1.0)(layer)) == pytest.approx(1e6 * number(layer.weight[0, 0]), rel=1e-3)


@pytest.mark.parametrize(
    "make", [lambda: L1(-1), lambda: L2(float("nan")), lambda: GroupLasso(math.inf), lambda: SoftThreshold(-0.1)]
)
def test_what_is_no_strength(make):
    with pytest.raises(MisuseError, match="must be a number from 0 on"):
        make()


def test_what_is_no_unit_or_share():
    with pytest.raises(MisuseError, match='by "output" or "input"'):
        GroupLasso(0.1, by="row")
    with pytest.raises(MisuseError, match='by "output" or "input"'):
        SoftThreshold(0.1, by="row")
    with pytest.raises(MisuseError, match="from 0 .all L2. to 1"):
        ElasticNet(0.1, share=1.5)


# ---------------------------------------------------------------------- L2 is decay, but under Adam


def test_under_sgd_it_is_the_optimizers_decay():
    ways = [small(), small()]
    plain = torch.optim.SGD(ways[0].parameters(), lr=0.1, momentum=0.9)
    names = ("0.weight", "2.weight")
    named = dict(ways[1].named_parameters())
    groups = [
        {"params": [named[n] for n in names], "weight_decay": 0.01},
        {"params": [p for n, p in named.items() if n not in names]},
    ]
    decayed = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    for _ in range(5):
        for model, optimizer, penalty in ((ways[0], plain, L2(0.01)), (ways[1], decayed, None)):
            optimizer.zero_grad()
            loss = loss_of(model) + (penalty(model) if penalty else 0)
            loss.backward()
            optimizer.step()
    for one, other in zip(ways[0].parameters(), ways[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_under_adam_a_penalty_decays_weights_with_large_gradients_less_and_decoupled_decay_all_the_same():
    """The loss pulls at two weights to and fro, at one a hundred times as hard, and leaves both where they are on average."""
    rate, strength, steps = 4e-3, 0.1, 500
    sizes = torch.tensor([[0.1, 10.0]], dtype=torch.float64)
    left = {}
    for kind in ("penalty", "decoupled"):
        layer = nn.Linear(2, 1, bias=False, dtype=torch.float64)
        nn.init.ones_(layer.weight)
        make = torch.optim.Adam if kind == "penalty" else torch.optim.AdamW
        optimizer = make(layer.parameters(), lr=rate, weight_decay=0 if kind == "penalty" else strength)
        for step in range(steps):
            optimizer.zero_grad()
            loss = (layer.weight * sizes).sum() * (-1) ** step
            (loss + L2(strength)(layer) if kind == "penalty" else loss).backward()
            optimizer.step()
        left[kind] = layer.weight.detach()[0]
    # what gradients do to and fro cancels but for a few steps of at most the rate
    assert left["decoupled"].tolist() == pytest.approx([(1 - rate * strength) ** steps] * 2, abs=3 * rate)
    assert left["penalty"][0] < 0.2  # 0.1 as large as the gradients: moved by about rate * strength * w / 0.1 a step
    assert 0.97 < left["penalty"][1] < 1  # a hundred times less


# ---------------------------------------------------------------------- exact zeros


def least_squares():
    """Three of ten coefficients count."""
    x = torch.randn(200, 10, generator=seeded(), dtype=torch.float64)
    truth = torch.tensor([2.0, -1.0, 0.5] + [0.0] * 7, dtype=torch.float64)
    return x, (x @ truth + 0.1 * torch.randn(200, generator=seeded(1), dtype=torch.float64))[:, None]


def half_mse(outputs, targets):
    return nn.functional.mse_loss(outputs, targets) / 2


def fitted(strength, *, soft, rate=0.1, epochs=400):
    torch.manual_seed(0)
    layer = nn.Linear(10, 1, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate)
    training = Training(
        layer, half_mse, optimizer, [least_squares()], epochs=epochs, penalty=None if soft else L1(strength)
    )
    if soft:
        training.on_step.append(SoftThreshold(strength))
    training.run()
    return layer.weight.detach()[0]


def lasso(strength):
    """Coordinate descent: each coefficient by its closed form until nothing moves (Friedman et al. 2010, equation 5)."""
    x, y = least_squares()
    w = torch.zeros(10, dtype=torch.float64)
    for _ in range(200):
        for j in range(10):
            rest = y[:, 0] - x @ w + x[:, j] * w[j]
            pull = (x[:, j] @ rest) / 200
            w[j] = pull.sign() * (pull.abs() - strength).clamp_min(0) / (x[:, j].square().mean())
    return w


@pytest.mark.slow
def test_the_proximal_step_finds_the_lasso_with_exact_zeros_and_the_gradient_of_l1_makes_none():
    expected = lasso(0.1)
    assert (expected == 0).sum() == 7
    soft, by_gradient = fitted(0.1, soft=True), fitted(0.1, soft=False)
    torch.testing.assert_close(soft, expected, rtol=0, atol=1e-12)
    assert torch.equal(soft == 0, expected == 0)
    assert (by_gradient != 0).all()  # it hops about zero, within rate * strength
    assert by_gradient[expected == 0].abs().max() < 0.02


def test_units_become_zero_together():
    """One step from known weights: a unit's norm loses rate * strength * root of its size."""
    layer = nn.Linear(4, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0, 4, 0], [0.1, 0.1, 0.1, 0.1], [0, 0, 0, 0]]))
    bias = layer.bias.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    SoftThreshold(0.5, by="output").apply(layer, optimizer)  # 0.5 * 0.5 * 2 = 0.5; norms are 5, 0.2 and 0
    expected = torch.tensor([[2.7, 0, 3.6, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(layer.weight.detach(), expected)
    assert torch.equal(layer.bias, bias)


def test_rates_are_those_of_the_groups_and_what_is_not_trained_stays():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    for layer in model:
        nn.init.constant_(layer.weight, -1.0)
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": torch.tensor(0.4)}]
    SoftThreshold(1.0).apply(model, torch.optim.SGD(groups, lr=0.5))
    assert [layer.weight.item() for layer in model] == pytest.approx([-0.9, -0.6, -1.0])


def test_as_a_penalty_of_a_training_copies_stand_for_themselves():
    x, y = least_squares()
    torch.manual_seed(0)
    layer = nn.Linear(10, 1, dtype=torch.float64)
    training = Training(
        layer, half_mse, torch.optim.SGD(layer.parameters(), lr=0.1), [(x, y)], penalty=L2(1.0), epochs=200
    )
    copied = training.copy()
    copied.run()
    assert number(copied.model.weight.norm()) < 1.5  # unpenalized: 2.3
    ridge = torch.linalg.solve(
        torch.block_diag(torch.eye(10, dtype=torch.float64), torch.zeros(1, 1)) + with_one(x).T @ with_one(x) / 200,
        with_one(x).T @ y / 200,
    )
    torch.testing.assert_close(copied.model.weight.detach().T, ridge[:-1], rtol=0, atol=1e-6)  # the closed form
    assert torch.equal(layer.weight, training.model.weight)


def with_one(x):
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
