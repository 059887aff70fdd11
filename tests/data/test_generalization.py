from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.data._advice import TREATED_BY
from unstuck.data.generalization import generalization
from unstuck.data.learning_curve import SizeCurve
from unstuck.errors import MisuseError
from unstuck.verdict import CAUSES

MANY = {"num_train": 100_000, "num_train_dev": 100_000, "num_evaluation": 100_000}


def errors(train, evaluation, train_dev=None, target=0.0, **settings):
    """Shares of errors, in per cent as the book has them, of so many samples that there is no noise."""
    counts = {name: count for name, count in MANY.items() if train_dev is not None or name != "num_train_dev"}
    of_new = {} if train_dev is None else {"train_dev": train_dev / 100}
    given = {"target": target / 100, "higher_is_better": False, **of_new, **counts, **settings}
    return generalization(train / 100, evaluation / 100, **given)


@pytest.mark.parametrize(
    "found, kind, called",
    [
        (errors(1, 11), "overfitting", ["variance"]),
        (errors(15, 16), "underfitting", ["bias"]),
        (errors(15, 30), "overfitting", ["variance", "bias"]),  # both are 15, up to rounding either may come first
        (errors(0.5, 1), "fine", []),
        (errors(15, 30, target=14), "overfitting", ["variance"]),
        (errors(15, 16, target=14), "fine", []),
        (errors(1, 10, train_dev=1.5), "mismatch", ["mismatch"]),
        (errors(10, 12, train_dev=11), "underfitting", ["bias"]),
        (errors(10, 20, train_dev=11), "underfitting", ["bias", "mismatch"]),
    ],
)
def test_verdicts_are_those_of_the_book(found, kind, called):
    assert sorted(gap.name for gap in found.gaps if gap.called) == sorted(called)
    assert found.kind == kind or len(called) > 1
    assert found.certain or len(called) > 1


def test_gaps_add_up_to_the_error_beyond_the_target():
    found = errors(10, 20, train_dev=11, target=2)
    assert sum(gap.size for gap in found.gaps) == pytest.approx(0.18)
    assert [gap.name for gap in found.gaps] == ["mismatch", "bias", "variance"]


def test_a_gap_inside_noise_is_not_called():
    few = generalization(0.95, 0.88, target=0.95, chance=0.1, num_train=60, num_evaluation=60)
    assert few.kind == "too few to tell" and not few.certain
    assert "Score more samples" in few.advice[0]
    many = generalization(0.95, 0.88, target=0.95, chance=0.1, num_train=6000, num_evaluation=6000)
    assert many.kind == "overfitting" and many.certain


def test_pairs_of_seeds_tell_what_single_scores_do_not():
    train = np.array([0.80, 0.90, 0.99])  # seeds differ by far more than the gap, which is the same for all
    found = generalization(train, train - [0.10, 0.11, 0.105], chance=0.1)
    variance = next(gap for gap in found.gaps if gap.name == "variance")
    assert found.kind == "overfitting" and variance.low == pytest.approx(0.105 - 4.303 * 0.005 / 3**0.5)
    apart = generalization(train, [0.99, 0.70, 0.90], chance=0.1)
    assert not any(gap.called for gap in apart.gaps if gap.name == "variance")


def test_samples_and_seeds_both_widen_the_interval():
    scores = ([0.95, 0.96, 0.97], [0.85, 0.86, 0.87])
    widths = [
        next(gap.high - gap.low for gap in found.gaps if gap.name == "variance")
        for found in (
            generalization(*scores),
            generalization(0.96, 0.86, num_evaluation=200),
            generalization(*scores, num_evaluation=200),
        )
    ]
    assert widths[2] > max(widths[:2]) and widths[2] < sum(widths[:2])


def test_losses_of_samples_are_resampled():
    generator = np.random.default_rng(0)
    train, evaluation = generator.exponential(0.2, 4000), generator.exponential(0.6, 1000)
    found = generalization(train, evaluation, each="sample", higher_is_better=False, chance=2.3)
    variance = next(gap for gap in found.gaps if gap.name == "variance")
    half = 1.96 * np.sqrt(train.var() / 4000 + evaluation.var() / 1000)
    assert found.kind == "overfitting"
    assert (variance.low, variance.high) == pytest.approx((variance.size - half, variance.size + half), abs=0.01)


def test_of_a_loss_alone_bias_cannot_be_told():
    found = generalization(0.3, 0.9, higher_is_better=False)
    assert [gap.name for gap in found.gaps] == ["variance"] and found.kind == "overfitting" and not found.certain
    assert generalization(0.30, 0.33, higher_is_better=False).kind == "fine"


@pytest.mark.parametrize("train, kind", [(0.80, "underfitting"), (0.93, "fine")])
def test_without_a_target_what_learns_well_is_fine(train, kind):
    found = generalization(train, train - 0.01, chance=0.1, num_train=10_000, num_evaluation=10_000)
    assert found.kind == kind
    assert not (kind == "underfitting" and found.certain)


def test_what_is_at_chance_is_broken_rather_than_small():
    found = generalization(0.12, 0.1, chance=0.1, num_train=1000, num_evaluation=1000)
    assert found.kind == "underfitting" and "unstuck run" in found.advice[0]


def test_epochs_say_whether_it_was_trained_to_the_end():
    falling = 2.3 - np.arange(20) / 20
    found = generalization(0.6, 0.6, chance=0.1, train_by_epoch=falling)
    assert found.causes[0] == "undertrained" and found.remedies[0] == "train-longer"
    settled = generalization(0.6, 0.6, chance=0.1, train_by_epoch=1 + np.exp(-np.arange(20)))
    assert "undertrained" not in settled.causes and not any("longer" in line for line in settled.advice)


def test_where_evaluation_turned_early_stopping_comes_first():
    epochs = np.arange(30)
    found = generalization(
        0.99, 0.8, chance=0.1, train_by_epoch=np.exp(-epochs / 5), evaluation_by_epoch=1 + np.abs(epochs - 8) / 10
    )
    assert found.remedies[0] == "early-stopping" and "epoch 8" in found.advice[0] and "epoch 8" in found.says


@pytest.mark.slow
@pytest.mark.parametrize("exponent, helps", [(0.6, True), (0.02, False)])
def test_the_learning_curve_says_whether_more_data_would_help(exponent, helps):
    sizes = np.array([100, 200, 400, 800, 1600])
    curve = SizeCurve(sizes, 1 - 0.15 * (sizes / 1600) ** -exponent)
    found = generalization(0.99, 0.85, target=0.99, chance=0.1, by_size=curve)
    assert ("may bring little" in " ".join(found.advice)) != helps
    assert "3200 samples" in found.says


def test_new_samples_that_score_better_are_odd():
    found = generalization(0.80, 0.95, target=0.96, chance=0.1, num_train=2000, num_evaluation=2000)
    assert any("dropout or augmentation" in line for line in found.advice)


def test_causes_are_codes_and_remedies_are_those_that_rules_prescribe():
    from unstuck.report._page import page
    from unstuck.rules import overfitting, too_little_capacity, train_test_mismatch, undertrained

    assert set(TREATED_BY) <= set(CAUSES)
    for module in (overfitting, too_little_capacity, train_test_mismatch, undertrained):
        name = module.__name__.rsplit(".", 1)[1]
        rule = page(name.replace("_", "-"), getattr(module, name))
        assert set(TREATED_BY[name.replace("_", "-")]) == set(rule.treated_by)


def test_scores_of_another_scale_go_by_target_and_chance():
    found = generalization([27.0, 27.1, 26.9], [20.0, 20.1, 19.9], target=30, chance=10)
    share = generalization([0.85, 0.855, 0.845], [0.5, 0.505, 0.495], target=1, chance=0)
    assert found.kind == share.kind == "overfitting"
    assert [gap.size for gap in found.gaps] == pytest.approx([20 * gap.size for gap in share.gaps])


def test_it_can_be_written_as_json():
    sizes = np.array([100, 200, 400, 800])
    found = generalization([0.99, 0.98], [0.8, 0.81], by_size=SizeCurve(sizes, 1 - sizes**-0.3), train_by_epoch=[1.0])
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["kind"] == "overfitting" and told["law"]["twice"]["num_samples"] == 1600


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"train": float("nan")}, "train is nan"),
        ({"train": []}, "a finite score"),
        ({"train": [0.9, 0.8], "evaluation": [0.7, 0.6, 0.5]}, "different numbers of seeds"),
        ({"train": 2.0, "num_train": 10}, "counts go with shares"),
        ({"num_evaluation": 0}, "counts go with shares"),
        ({"target": 0.1, "chance": 0.1}, "nothing to learn"),
        ({"target": float("inf")}, "target is inf"),
        ({"each": "epoch"}, "each='epoch'"),
        ({"train": 98, "evaluation": 89}, "train is 98, and 1 is perfect: give percentages as shares"),
        ({"train": 0.4, "evaluation": 2.5, "chance": 2.3}, "evaluation is 2.5, and 1 is perfect"),
    ],
)
def test_what_cannot_be_judged(settings, said):
    with pytest.raises(MisuseError, match=said):
        generalization(**{"train": 0.9, "evaluation": 0.8, **settings})


# ---------------------------------------------------------------------- planted, on real data


def planted(kind: str, seed: int):
    """A network on digits that is made to underfit, overfit, be fine, or meet shifted pictures."""
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    inputs = (inputs / 16).astype(np.float32)
    torch.manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    num_train, hidden, epochs = {"underfitting": (900, 2, 15), "overfitting": (80, 64, 80)}.get(kind, (1000, 64, 40))
    train, dev, test = order[:num_train], order[1000:1400], order[1400:]
    model = nn.Sequential(nn.Linear(64, hidden), nn.Tanh() if hidden == 2 else nn.ReLU(), nn.Linear(hidden, 10))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    for _ in range(epochs):
        for batch in torch.from_numpy(train)[torch.randperm(num_train)].split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    shifted = x.reshape(-1, 8, 8).roll(1, 2).reshape(-1, 64) if kind == "mismatch" else x
    with torch.no_grad():
        parts = ((x, train), (x, dev), (shifted, test))
        right = [float((model(values[part]).argmax(1) == y[part]).float().mean()) for values, part in parts]
    counts = {"num_train": num_train, "num_train_dev": len(dev), "num_evaluation": len(test)}
    return generalization(right[0], right[2], train_dev=right[1], chance=0.1, target=0.98, **counts)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["underfitting", "overfitting", "mismatch", "fine"])
def test_what_was_planted_on_digits_is_found(kind):
    found = [planted(kind, seed).kind for seed in range(5)]
    assert found.count(kind) >= 4, found
