"""What is learned at one place where a loss is computed."""

import math

import pytest
import torch

from unstuck.watcher.loss_state import LOOKED_AT, LossState, thin
from unstuck.watcher.recorder import Columns, Sample


def look(method, *given):
    """What one step's measurement adds to the columns."""
    sample, columns = Sample(0), Columns()
    method(*given, sample)
    for values, means in sample.parts:
        means(columns, values.numpy())
    return columns


def state(**known):
    made = LossState("mse_loss", "train.py:1", looks=1)
    for name, value in known.items():
        setattr(made, name, value)
    return made


def test_outputs_keep_their_extremes_and_average_the_rest():
    seen = state()
    look(seen.look_at_output, torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    assert (seen.output["sums_to_one"], seen.output["log_sums_to_one"]) == (1.0, 0.0)
    seen.looks = 2
    look(seen.look_at_output, torch.full((2, 2), 1.5))
    assert (seen.output["min"], seen.output["max"], seen.output["mean"]) == (0.25, 1.5, 1.0)
    assert (seen.output["sums_to_one"], seen.output["constant"]) == (0.5, (0.5 + 1.0) / 2)


def test_logarithms_of_shares_are_told():
    seen = state()
    look(seen.look_at_output, torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log())
    assert (seen.output["sums_to_one"], seen.output["log_sums_to_one"]) == (0.0, 1.0)


def test_one_output_has_no_rows_to_compare():
    seen = state()
    look(seen.look_at_output, torch.tensor(2.0))
    assert seen.output == {"min": 2.0, "max": 2.0, "mean": 2.0, "std": 0.0}


def test_targets_of_all_steps_make_the_spread():
    seen, batches = state(kind="real"), [torch.tensor([0.0, 1.0, 5.0]), torch.tensor([-2.0, 1.5])]
    for batch in batches:
        look(seen.look_at_target, batch)
    every = torch.cat(batches).double()
    assert seen.spread == pytest.approx(float(every.std(unbiased=False)))
    assert seen.target == pytest.approx(
        {"min": -2.0, "max": 5.0, "mean": 1.1, "std": seen.spread, "unique": 5.0, "integer": 0.0}
    )
    assert seen.absolute == 1.75, "of the last batch"


@pytest.mark.parametrize("batch", [[0.0, 0.5], [0.0, 2.0], [-2.0, 1.0]])
def test_targets_that_turn_out_to_be_numbers(batch):
    seen = state(kind="binary", num_classes=2, score="accuracy")
    look(seen.look_at_target, torch.tensor([0.0, 1.0]))
    assert (seen.kind, seen.num_classes, seen.score) == ("binary", 2, "accuracy")
    look(seen.look_at_target, torch.tensor(batch))
    assert (seen.kind, seen.num_classes, seen.score) == ("real", 0, "r2")


def test_a_constant_factor_is_told_from_a_mixture_that_varies():
    steady, varying = state(), state()
    for part in (0.25, 0.3, 0.35, 0.4):
        look(steady.watch_part, torch.tensor([0.25]), 1)
        look(varying.watch_part, torch.tensor([part]), 1)
    assert (steady.scale(1.0), varying.scale(1.0)) == (4.0, 1.0)
    columns = look(varying.watch_part, torch.tensor([0.5]), 3)
    assert (columns.names, columns.values) == ([("loss_part", "train.py:1")], [1.5])
    assert math.isnan(varying.scale(1.0)), "a sum over a varying number of calls"


@pytest.mark.parametrize(
    ("name", "lowest", "threshold"),
    [("binary_cross_entropy_with_logits", 0.0, 0.0), ("binary_cross_entropy", 0.0, 0.5), ("hand-written", -1.0, 0.0)],
)
def test_what_a_binary_output_must_exceed(name, lowest, threshold):
    assert LossState(name, "", target={"min": lowest}).threshold == threshold


def test_thinning_keeps_what_is_small_and_spreads_over_the_rest():
    assert thin(torch.ones(2, 3)).shape == (6,)
    few = thin(torch.arange(5 * LOOKED_AT))
    assert LOOKED_AT / 2 < few.numel() <= LOOKED_AT
    assert few[-1] > 4.9 * LOOKED_AT
