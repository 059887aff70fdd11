from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unstuck.signals.score import (
    Statistics,
    accuracy,
    bit_accuracy,
    chance,
    chance_loss,
    chance_score,
    kind_by_values,
    perplexity,
    r2,
    r2_pieces,
    target_kind,
)

NAN = math.nan


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


# --- kinds

one_hot = F.one_hot(whole(5, 64), 5).float()

KINDS = [
    ((64, 10), whole(10, 64), "class index"),
    ((64, 10), whole(10, 64, 1), "class index"),
    ((64, 10), whole(10, 64).int(), "class index"),
    ((8, 10, 6, 6), whole(10, 8, 6, 6), "class index"),
    ((10,), whole(10, 1).squeeze(), "class index"),
    ((64, 10), whole(10, 64).float(), "class index"),
    ((64, 5), one_hot, "one-hot"),
    ((64, 5), one_hot.long(), "one-hot"),
    ((64, 5), one_hot.bool(), "one-hot"),
    ((64, 5), 2 * one_hot - 1, "one-hot"),
    ((2, 5, 4, 4), F.one_hot(whole(5, 2, 4, 4), 5).permute(0, 3, 1, 2).float(), "one-hot"),
    ((64, 5), (normal(64, 5) > 0).float(), "multi-label"),
    ((64, 5), (normal(64, 5) > 0).float() * 2 - 1, "multi-label"),
    ((8, 1, 6, 6), (normal(8, 1, 6, 6) > 0).float(), "multi-label"),
    ((64, 1), (normal(64, 1) > 0).float(), "binary"),
    ((64,), (normal(64) > 0).float(), "binary"),
    ((64,), (normal(64) > 0), "binary"),
    ((64, 1), (normal(64) > 0).long(), "binary"),
    ((64, 1), (normal(64) > 0).float() * 2 - 1, "binary"),
    ((64, 5), normal(64, 5).softmax(1), "probability"),
    ((64, 5), normal(64, 5), "real"),
    ((64, 1), normal(64), "real"),
    ((64,), whole(100, 64), "real"),
    ((64, 10), normal(64), "real"),
    ((64, 10), whole(30, 64).float(), "real"),
    ((64, 1), torch.zeros(0), "real"),
    ((64, 5), torch.full((64, 5), NAN), "real"),
    ((), torch.tensor(0.3), "real"),
    ((64, 1), None, "none"),
]


@pytest.mark.parametrize("shape, target, kind", KINDS)
def test_kinds(shape, target, kind):
    assert kind_by_values(shape, target) == kind
    assert target_kind(shape, target) in (None, kind)


def test_shape_and_type_tell_classes_and_nothing_without_values():
    assert target_kind((64, 10), whole(10, 64)) == "class index"
    assert target_kind((8, 10), torch.empty(8, dtype=torch.long, device="meta")) == "class index"
    assert target_kind((64, 5), one_hot) is None
    assert target_kind((64, 1), torch.empty(64, device="meta")) is None


# --- scores


@pytest.mark.parametrize("shape", [(50, 7), (6, 5, 4, 3), (4, 9, 11)])
def test_accuracy_of_class_indices(shape):
    output = normal(*shape)
    target = whole(shape[1], shape[0], *shape[2:])
    target[0] = -100
    guess = output.argmax(1)
    counted = target != -100
    expected = float((guess[counted] == target[counted]).double().mean())
    assert accuracy(output, target, "class index") == pytest.approx(expected)
    assert accuracy(output, target.int(), "class index") == pytest.approx(expected)
    assert accuracy(output.half(), output.half().argmax(1), "class index") == 1


def test_accuracy_ignores_the_index_it_is_told():
    output, target = torch.eye(3), torch.tensor([0, 0, 2])
    assert accuracy(output, target, "class index", ignore_index=0) == 1
    assert accuracy(output, torch.full((3,), 7), "class index", ignore_index=7).isnan()


def test_accuracy_of_one_sample_without_a_batch():
    assert accuracy(torch.tensor([0.1, 3.0, 0.2]), torch.tensor(1), "class index") == 1


@pytest.mark.parametrize("kind", ["one-hot", "probability"])
def test_accuracy_of_rows_of_classes(kind):
    output = normal(64, 5)
    expected = float((output.argmax(1) == one_hot.argmax(1)).float().mean())
    assert accuracy(output, one_hot, kind) == pytest.approx(expected)
    assert accuracy(output, one_hot * 2 - 1, kind) == pytest.approx(expected)
    assert accuracy(output, 0.9 * one_hot + 0.02, kind) == pytest.approx(expected)


@pytest.mark.parametrize(
    "targets",
    [lambda y: y.float(), lambda y: y, lambda y: y.long(), lambda y: 2 * y.float() - 1, lambda y: y[:, 0].float()],
)
def test_binary_accuracy_of_logits_and_of_probabilities(targets):
    logits, y = normal(40, 1), normal(40, 1, seed=1) > 0
    expected = float(((logits > 0) == y).float().mean())
    assert accuracy(logits, targets(y), "binary") == pytest.approx(expected)
    assert accuracy(logits.sigmoid(), targets(y), "binary", threshold=0.5) == pytest.approx(expected)


def test_bit_accuracy_of_labels_and_maps():
    logits, y = normal(4, 3, 5, 5), normal(4, 3, 5, 5, seed=1) > 0
    expected = float(((logits > 0) == y).float().mean())
    assert bit_accuracy(logits, y) == pytest.approx(expected)
    assert bit_accuracy(logits.sigmoid(), y.float(), threshold=0.5) == pytest.approx(expected)


def test_an_output_that_is_nan_is_wrong():
    output = torch.full((4, 3), NAN)
    assert accuracy(output, torch.zeros(4, dtype=torch.long), "class index") == 0
    assert accuracy(output, torch.eye(4)[:, :3], "one-hot") == 0
    assert bit_accuracy(output, torch.zeros(4, 3)) == 0


@pytest.mark.parametrize(
    "output, target, kind",
    [
        (normal(4, 3), whole(3, 5), "class index"), (normal(4, 3), normal(4, 2), "one-hot"), (normal(4, 3), normal(4), "binary"),
        (normal(4, 3), normal(4, 3), "real"), (torch.zeros(0, 3), whole(3, 0), "class index"),
        (torch.tensor(1.0), whole(3, 1), "class index"),
    ],
)  # fmt: skip
def test_what_does_not_fit_has_no_score(output, target, kind):
    assert accuracy(output, target, kind).isnan()


def test_of_very_large_batches_some_samples_are_scored():
    target = whole(2, 40_000)
    output = torch.full((40_000, 128), -1.0)
    output[:, :2] = F.one_hot(target, 2)
    assert output.numel() > 1 << 22
    assert accuracy(output, target, "class index") == 1


def test_r2_joins_batches():
    target, output = normal(100) + 50, normal(100) + 50 + 0.3 * normal(100, seed=1)
    pieces = [r2_pieces(o, t).numpy() for o, t in zip(output.split(17), target.split(17), strict=True)]
    y, p = target.double(), output.double()
    expected = float(1 - (y - p).square().sum() / (y - y.mean()).square().sum())
    assert r2(pieces) == pytest.approx(expected, rel=1e-4)  # sums of float32 numbers near 50


def test_r2_of_the_mean_is_zero_also_for_outputs_of_different_means():
    target = normal(60, 3) + torch.tensor([0.0, 100.0, -5.0])
    assert r2([r2_pieces(target.mean(0).expand(60, 3), target).numpy()]) == pytest.approx(0, abs=1e-4)
    assert r2([r2_pieces(target, target).numpy()]) == 1


@pytest.mark.parametrize("target", [normal(8, 3, 4), normal(8, 100), normal(8, 1), normal(8)])
def test_r2_pieces_of_any_shape(target):
    output = target.reshape(-1) + 0.5
    found = r2([r2_pieces(output, target).numpy()])
    spread = target if target.dim() == 2 and target.shape[1] <= 64 else target.reshape(-1, 1)
    expected = 1 - 0.25 * target.numel() / float((spread - spread.mean(0)).square().sum())
    assert found == pytest.approx(expected, rel=1e-4)


def test_r2_without_variance_or_fit_is_nan():
    assert math.isnan(r2([r2_pieces(torch.ones(4), torch.ones(4)).numpy()]))
    assert r2_pieces(torch.ones(4), torch.ones(5)).isnan().all()


def test_perplexity_of_a_uniform_guess_is_the_number_of_tokens():
    loss = F.cross_entropy(torch.zeros(20, 37), whole(37, 20))
    assert perplexity(loss) == pytest.approx(37, rel=1e-5)


def test_nothing_is_touched(untouched):
    output, target, labels = normal(20, 5).requires_grad_(), normal(20, 5), whole(5, 20)
    with untouched(output, target, labels):
        found = [
            accuracy(output, labels, "class index"),
            bit_accuracy(output, target),
            r2_pieces(output, target),
            perplexity(output),
        ]
        kind_by_values(output.shape, target)
        assert not any(f.requires_grad for f in found)


def test_no_number_is_looked_at_on_an_accelerator():
    output, labels = torch.empty(20, 5, device="meta"), torch.empty(20, dtype=torch.long, device="meta")
    assert accuracy(output, labels, "class index").device.type == "meta"
    assert accuracy(output, output, "one-hot").shape == ()
    assert accuracy(output, output, "binary").shape == () and bit_accuracy(output, output).shape == ()
    assert r2_pieces(output, output).shape == (4, 5) and perplexity(output[0, 0]).shape == ()


# --- chance: what the best constant really gets, found by trying


def best_constant(loss, target: Tensor, start: Tensor) -> float:
    """The least loss of one prediction for all samples, found by looking for it in float64."""
    wide = (target.shape[0], *start.shape)
    if loss is F.l1_loss:  # has a corner at its minimum, which is one of the targets
        columns = target.reshape(len(target), -1).unbind(1)
        return sum(min(float((c - value).abs().mean()) for value in c.unique()) for c in columns) / len(columns)
    guess = start.double().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([guess], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(guess.expand(wide), target)
        value.backward()
        return value

    optimizer.step(closure)
    return float(closure().detach())


def statistics(target: Tensor, share: Tensor | None = None) -> Statistics:
    y = target.double()
    absolute = float((y - y.median()).abs().mean())
    return Statistics([] if share is None else share.tolist(), float(y.mean()), float(y.std(correction=0)), absolute)


labels = torch.tensor([0] * 12 + [1] * 6 + [2] * 2)
share = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
rows = F.one_hot(labels, 3).double()
bits = torch.tensor([1.0] * 6 + [0.0] * 14, dtype=torch.float64)
real = normal(400).double() * 1.7 + 3

CHANCE = [
    ("class index", "cross_entropy", F.cross_entropy, labels, torch.zeros(3), share),
    ("one-hot", "cross_entropy", F.cross_entropy, rows, torch.zeros(3), share),
    ("probability", "cross_entropy", F.cross_entropy, 0.8 * rows + 0.2 / 3, torch.zeros(3), 0.8 * share + 0.2 / 3),
    ("one-hot", "mse_loss", F.mse_loss, rows, torch.zeros(3), share),
    ("one-hot", "mse_loss", F.mse_loss, 2 * rows - 1, torch.zeros(3), share),
    ("one-hot", "l1_loss", F.l1_loss, rows, torch.full((3,), 0.2), share),
    ("one-hot", "binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, rows, torch.zeros(3), share),
    ("binary", "binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, bits, torch.tensor(0.0), None),
    (
        "binary",
        "binary_cross_entropy",
        lambda o, t: F.binary_cross_entropy(o.sigmoid(), t),
        bits,
        torch.tensor(0.0),
        None,
    ),
    ("binary", "soft_margin_loss", F.soft_margin_loss, 2 * bits - 1, torch.tensor(0.0), None),
    ("binary", "mse_loss", F.mse_loss, bits, torch.tensor(0.5), None),
    ("binary", "mse_loss", F.mse_loss, 2 * bits - 1, torch.tensor(0.0), None),
    ("binary", "l1_loss", F.l1_loss, 2 * bits - 1, torch.tensor(-0.5), None),
    ("binary", "smooth_l1_loss", F.smooth_l1_loss, bits, torch.tensor(0.5), None),
    (
        "multi-label",
        "binary_cross_entropy_with_logits",
        F.binary_cross_entropy_with_logits,
        rows,
        torch.zeros(3),
        share,
    ),
    ("real", "mse_loss", F.mse_loss, real, torch.tensor(0.0), None),
    ("real", "l1_loss", F.l1_loss, real, torch.tensor(0.0), None),
    ("real", "poisson_nll_loss", F.poisson_nll_loss, real.abs(), torch.tensor(0.0), None),
    (
        "real",
        "gaussian_nll_loss",
        lambda o, t: F.gaussian_nll_loss(o, t, real.var(correction=0).expand_as(t)),
        real,
        torch.tensor(2.0),
        None,
    ),
]


@pytest.mark.parametrize("kind, name, loss, target, start, share", CHANCE)
def test_chance_loss_is_what_the_best_constant_gets(kind, name, loss, target, start, share):
    expected = best_constant(loss, target, start)
    known = statistics(target, share) if target.is_floating_point() else Statistics(share.tolist())
    assert chance_loss(kind, name, known) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("deviation", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("name", ["huber_loss", "smooth_l1_loss"])
def test_chance_of_huber_losses_of_normal_targets(name, deviation):
    grid = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    weight = torch.exp(-(grid**2) / 2)
    expected = float(
        (F.huber_loss(deviation * grid, torch.zeros_like(grid), reduction="none") * weight).sum() / weight.sum()
    )
    assert chance_loss("real", name, Statistics(std=deviation)) == pytest.approx(expected, rel=1e-6)


def test_chance_losses_known_on_paper():
    assert chance_loss("class index", "nll_loss", Statistics([0.1] * 10)) == pytest.approx(math.log(10))
    assert chance_loss("binary", "binary_cross_entropy", Statistics(mean=0.5, std=0.5)) == pytest.approx(math.log(2))
    assert chance_loss("class index", "cross_entropy", Statistics([1.0, 0.0])) == 0
    assert chance_loss("real", "huber_loss", Statistics(std=0.0)) == 0


@pytest.mark.parametrize(
    "kind, name, known, reduction",
    [
        ("class index", "cross_entropy", Statistics(), "mean"), ("class index", "cross_entropy", Statistics([0.5, 0.5]), "sum"),
        ("binary", "binary_cross_entropy", Statistics(), "mean"), ("real", "mse_loss", Statistics(), "mean"),
        ("real", "hand-written", Statistics(mean=1.0, std=1.0), "mean"), ("real", "ctc_loss", Statistics(), "mean"),
        ("real", "huber_loss", Statistics(), "mean"), ("real", "binary_cross_entropy", Statistics(mean=3.0, std=1.0), "mean"),
        ("real", "gaussian_nll_loss", Statistics(std=0.0), "mean"),
    ],
)  # fmt: skip
def test_an_unknown_chance_is_nan(kind, name, known, reduction):
    assert math.isnan(chance_loss(kind, name, known, reduction=reduction))


def test_chance_scores():
    assert chance_score("class index", "accuracy", Statistics([0.2, 0.5, 0.3])) == 0.5
    assert chance_score("one-hot", "accuracy", Statistics([0.2, 0.5, 0.3])) == 0.5
    assert chance_score("binary", "accuracy", Statistics(mean=0.3, std=math.sqrt(0.21))) == pytest.approx(0.7)
    assert chance_score("binary", "accuracy", Statistics(mean=0.6, std=0.8)) == pytest.approx(0.8)  # of -1 and 1
    assert chance_score("multi-label", "bit_accuracy", Statistics(mean=0.1, std=0.3)) == pytest.approx(0.9)
    assert chance_score("multi-label", "bit_accuracy", Statistics([0.9, 0.4])) == pytest.approx(0.75)
    assert chance_score("real", "r2", Statistics()) == 0
    assert chance_score("class index", "perplexity", Statistics([0.25] * 4)) == pytest.approx(4)
    for score in ("accuracy", "bit_accuracy", "perplexity", ""):
        assert math.isnan(chance_score("class index", score, Statistics()))


def test_chance_gives_both_from_numpy_numbers():
    found = chance(
        "class index",
        "cross_entropy",
        "accuracy",
        share=np.array([0.5, 0.5]),
        mean=NAN,
        std=NAN,
        absolute=NAN,
        reduction="mean",
    )
    assert found == (pytest.approx(math.log(2)), 0.5)
    assert chance("real", "mse_loss", "r2", std=2.0) == (4.0, 0.0)
