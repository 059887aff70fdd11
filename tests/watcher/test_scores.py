"""How good outputs are, in training and in evaluation, and how good chance is."""

import math

import numpy as np
import pytest
import torch

from unstuck.watcher.loss_state import LossState
from unstuck.watcher.scores import evaluated, r2, score, score_name, score_of, task_of
from unstuck.watcher.trace import LossSeen, Trace

OUTPUT, TARGET = torch.tensor([[2.0, 1, 0], [0, 2, 1], [0, 1, 2], [3, 1, 0]]), torch.tensor([0, 1, 2, 1])


def classes(**known):
    return LossState("cross_entropy", "train.py:1", kind="class index", num_classes=3, score="accuracy", **known)


def numbers(**known):
    """A regression on targets of -1 and 1."""
    total = np.array([4.0, 0.0, 4.0])
    return LossState("mse_loss", "train.py:1", kind="real", score="r2", total=total, target={"mean": 0.0}, **known)


def seen(name, output, target, value):
    return LossSeen(name, None, None, output, target, {}, "eval.py:1", torch.tensor(value))


@pytest.mark.parametrize(
    ("name", "kind", "tokens", "expected"),
    [
        ("cross_entropy", "class index", False, "accuracy"),
        ("cross_entropy", "class index", True, "perplexity"),
        ("cross_entropy", "probability", False, "accuracy"),
        ("kl_div", "probability", False, ""),
        ("mse_loss", "real", False, "r2"),
        ("binary_cross_entropy", "multi-label", False, "bit_accuracy"),
        ("triplet_margin_loss", "none", False, ""),
    ],
)
def test_names_of_scores(name, kind, tokens, expected):
    assert score_name(LossState(name, "", kind=kind), tokens=tokens) == expected


def test_scores():
    assert score_of(classes(), OUTPUT, TARGET) == 0.75
    assert score_of(numbers(), torch.tensor([1.0, -1, 0, 0]), torch.tensor([1.0, -1, 1, -1])) == 0.5
    assert score_of(numbers(), torch.zeros(4, 1), torch.tensor([1.0, -1, 1, -1])) == 0.0, "one axis more"
    assert math.isnan(score_of(numbers(), torch.zeros(3), torch.zeros(4)))
    assert math.isnan(score_of(None, OUTPUT, TARGET))
    assert math.isnan(r2(1.0, 0.0))


def test_perplexity_is_made_of_the_loss():
    words = LossState("cross_entropy", "", kind="class index", num_classes=3, score="perplexity")
    found = score(words, OUTPUT, TARGET, torch.tensor(math.log(7.0)))
    assert found is not None and float(found) == pytest.approx(7.0)
    assert score(words, OUTPUT, TARGET, None) is None


def test_the_logarithm_of_counts_is_what_poisson_losses_take():
    counts = torch.tensor([1.0, 2.0, 4.0])
    state = LossState("poisson_nll_loss", "", kind="real", score="r2")
    assert score(state, counts.log(), counts, None).item() < 1e-12, "rounding of the logarithm"
    state.settings = {"log_input": False}
    assert score(state, counts, counts, None).item() == 0.0


def test_evaluation_by_its_loss():
    trace = Trace(losses=[seen("l1_loss", OUTPUT, OUTPUT, 9.0), seen("cross_entropy", OUTPUT, TARGET, 2.0)])
    assert evaluated(trace, classes(), []).tolist() == [2.0, 0.75, 4.0], "of the main loss, on four samples"


def test_evaluation_by_what_the_script_compares():
    trace = Trace(compared=[(OUTPUT.argmax(1), TARGET, OUTPUT.argmax(1) == TARGET)])
    loss, value, weight = evaluated(trace, classes(), []).tolist()
    assert math.isnan(loss) and (value, weight) == (0.75, 4.0)


def test_evaluation_by_the_batch():
    loss, value, weight = evaluated(Trace(root_outputs=[OUTPUT]), classes(), [torch.zeros(4, 6), TARGET]).tolist()
    assert math.isnan(loss) and (value, weight) == (0.75, 4.0)
    assert evaluated(Trace(root_outputs=[OUTPUT]), classes(), [torch.zeros(4, 6), TARGET[:3]]) is None


def test_evaluation_by_a_difference():
    pair = (torch.tensor([1.0, -1, 0, 0]), torch.tensor([1.0, -1, 1, -1]))
    loss, value, weight = evaluated(Trace(subtracted=[pair]), numbers(), []).tolist()
    assert math.isnan(loss) and (value, weight) == (0.5, 4.0)


@pytest.mark.parametrize("compares", [False, True])
def test_what_is_on_an_accelerator_stays_there(compares):
    """`meta` stands for it: what is on two devices can't be stacked there either."""
    loss = LossSeen("cross_entropy", None, None, None, None, {}, "eval.py:1", torch.tensor(0.5, device="meta"))
    compared = [(OUTPUT.argmax(1), TARGET, OUTPUT.argmax(1) == TARGET)] if compares else []
    found = evaluated(Trace(losses=[loss], compared=compared), classes(), [])
    assert found is not None
    assert (found.device.type, found.shape) == ("meta", (3,))


def test_nothing_is_told_of_nothing():
    assert evaluated(Trace(), classes(), []) is None
    assert evaluated(Trace(root_outputs=[OUTPUT]), None, [TARGET]) is None


def test_chance_of_classes():
    share = np.array([2.0, 1.0, 1.0])
    task = task_of(classes(labels=share, reduction="mean"), 1.0)
    assert (task.kind, task.chance_score, task.label_share) == ("classification", 0.5, (0.5, 0.25, 0.25))
    assert task.chance_loss == pytest.approx(1.5 * math.log(2)), "the entropy"
    scaled = task_of(classes(labels=share, reduction="mean", parts=[0.5] * 4), 1.0)
    assert scaled.chance_loss == pytest.approx(3 * math.log(2))


def test_weights_of_classes_have_a_chance_of_their_own():
    task = task_of(classes(labels=np.array([2.0, 1.0, 1.0]), settings={"weighted": True}), 1.0)
    assert math.isnan(task.chance_loss) and task.chance_score == pytest.approx(1 / 3)


def test_chance_of_numbers_is_their_variance():
    task = task_of(numbers(reduction="mean"), 1.0)
    assert (task.kind, task.target_mean, task.target_std) == ("regression", 0.0, 1.0)
    assert (task.chance_loss, task.chance_score) == (1.0, 0.0)


def test_no_targets_no_task():
    assert task_of(None, 1.0) == task_of(LossState("hand-written", ""), 1.0)
    assert task_of(None, 1.0).score == ""
