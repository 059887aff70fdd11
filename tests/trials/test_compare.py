"""How good a run got, what it gained, and whether one that goes on can still win."""

import math

import pytest

from unstuck.store import Writer
from unstuck.trials.compare import behind, effect, gained, skill
from unstuck.trials.job import Outcome


def out(value, share=math.nan, *, status="finished", score="accuracy", **given):
    return Outcome(status, score, value, share, 1.0, given.get("steps", 100), given.get("record", "record.sqlite"))


def loss(value):
    return out(value, score="loss")


def test_how_good_is_the_way_from_chance_to_perfect_else_less_the_loss():
    assert (skill(out(0.9, 0.8)), skill(loss(2.5))) == (0.8, -2.5)


@pytest.mark.parametrize("status", ["failed", "diverged", "stopped"])
def test_what_did_not_end_well_is_worst(status):
    assert skill(out(0.9, 0.8, status=status)) == -math.inf
    assert skill(out(0.9, 0.8, record="")) == -math.inf


def test_a_gain_is_a_share_of_the_way_or_of_the_loss():
    assert gained(out(0.1, 0.0), out(0.9, 0.8)) == pytest.approx(0.8)
    assert gained(loss(4.0), loss(1.0)) == pytest.approx(0.75)
    assert gained(loss(4.0), loss(5.0)) == pytest.approx(-0.25)
    assert gained(out(0.1, 0.0, status="diverged"), out(0.9, 0.8)) == math.inf


def test_the_effect_of_pairs_by_the_way_or_by_the_loss():
    assert effect([(out(0.1, 0.0), out(0.9, 0.8))] * 3).mean == pytest.approx(0.8)
    found = effect([(loss(40.0), loss(10.0)), (loss(30.0), loss(6.0)), (loss(50.0), loss(12.0))])
    assert found.mean == pytest.approx((0.75 + 0.8 + 0.76) / 3)
    assert found.helps


def test_what_breaks_counts_as_far_below_chance():
    broke = out(math.nan, status="diverged")
    assert effect([(broke, out(0.9, 0.8))] * 3).mean == pytest.approx(1.8)
    assert effect([(out(0.9, 0.8), broke)] * 3).mean == pytest.approx(-1.8)
    assert not effect([(broke, broke)] * 3).helps


@pytest.fixture
def record(tmp_path):
    """Writes a run with a score every tenth."""

    def write(name, scores):
        path = tmp_path / f"{name}.sqlite"
        writer = Writer(path, meta={"script": "train.py"})
        task = {"kind": "classification", "num_classes": 2, "score": "accuracy", "chance_score": 0.5}
        writer.program({"task": task})
        for i, value in enumerate(scores):
            writer.row(10 * i, (("score", ""),), [value])
        writer.close(status="finished", steps=10 * len(scores))
        return path

    return write


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ([0.5] * 12, ""),  # too early to tell
        ([0.5] * 24, "far behind the best at the same step"),
        ([0.5] * 40, ""),  # so near to its end that it may end
        ([0.88] * 24, ""),
        ([0.2, 1.0] * 12, ""),  # scores of batches so small that they tell little
        ([], ""),
    ],
)
def test_what_is_far_behind_at_the_same_step_need_not_end(record, scores, why):
    best = out(0.9, 0.8, record=str(record("best", [0.9] * 40)), steps=400)
    assert behind(record("one", scores), best) == why


def test_a_training_of_few_steps_is_let_end(record):
    best = out(0.9, 0.8, record=str(record("best", [0.9] * 10)), steps=100)
    assert behind(record("one", [0.5] * 6), best) == ""


def test_nothing_is_behind_what_is_not_known(record, tmp_path):
    path = record("one", [0.5] * 6)
    assert behind(path, out(0.9, 0.8, record="")) == ""
    assert behind(path, loss(0.3)) == ""
    assert behind(tmp_path / "not-yet.sqlite", out(0.9, 0.8, record=str(path))) == ""
