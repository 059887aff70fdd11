"""The answer, from children and finalists made by hand."""

import math

import pytest

from unstuck.search.answer import Child, Finalist, answered, merged, ranked
from unstuck.search.problems import FunctionProblem
from unstuck.search.searching import Plan
from unstuck.trials.job import Outcome

PROBLEM = FunctionProblem(lambda draw: draw.number("x", 0.0, 1.0), float)


def child(number, quality, *, arm="search", score="accuracy"):
    made = Child(number, arm, PROBLEM.space.at({"x": 0.5}), "random")
    value = -quality if score == "loss" else quality
    made.took(-1, [Outcome("finished", score, value, seconds=1.0)], {})
    return made


def answer(children, finalists=(), score="accuracy"):
    arms = {
        "search": [c for c in children if c.arm == "search"],
        "control": [c for c in children if c.arm == "control"],
    }
    return answered(Plan(), PROBLEM, arms, list(finalists), health=[], says="", score=score, seconds=1.0)


def finalist(of, values, *, score="accuracy"):
    made = Finalist(of, tuple(range(len(values))))
    for seed, value in enumerate(values):
        made.took(seed, [Outcome("finished", score, value)])
    return made


def test_fresh_seeds_decide_not_the_luck_of_the_search():
    lucky, sound, control = child(0, 0.99), child(1, 0.9), child(2, 0.8, arm="control")
    found = answer(
        [lucky, sound, control],
        [finalist(lucky, [0.7, 0.71, 0.69]), finalist(sound, [0.9, 0.91, 0.89]), finalist(control, [0.8, 0.81, 0.79])],
    )
    assert found.best.child is sound
    assert found.effect.helps
    assert found.effect.mean == pytest.approx(0.1)
    assert "better beyond noise" in found.text


def test_no_claim_beyond_noise():
    best, control = child(0, 0.9), child(1, 0.8, arm="control")
    found = answer([best, control], [finalist(best, [0.9, 0.7]), finalist(control, [0.8, 0.78])])
    assert not found.effect.helps
    assert "no better beyond noise" in found.text


def test_what_is_worse_than_chance_is_called_so():
    best, control = child(0, 0.9), child(1, 0.8, arm="control")
    found = answer([best, control], [finalist(best, [0.7, 0.71, 0.69]), finalist(control, [0.9, 0.91, 0.89])])
    assert found.effect.high < 0
    assert ": worse beyond noise" in found.text


def test_of_a_loss_less_is_better():
    good, bad = child(0, -0.1, score="loss"), child(1, -0.5, score="loss")
    found = answer(
        [good, bad], [finalist(good, [0.1, 0.12], score="loss"), finalist(bad, [0.5, 0.6], score="loss")], score="loss"
    )
    assert found.best.child is good
    assert found.lower_is_better
    assert found.best.mean == pytest.approx(0.11)


def test_a_finalist_that_fails_once_is_not_the_best():
    broken, sound = child(0, 0.9), child(1, 0.5)
    odd = Finalist(broken, (0, 1))
    odd.took(0, [Outcome("finished", "accuracy", 0.95)])
    odd.took(1, [Outcome("diverged", "accuracy", 0.95)])
    assert answer([broken, sound], [odd, finalist(sound, [0.5, 0.5])]).best.child is sound


def test_chance_of_a_search_that_only_draws_is_not_small_and_of_one_that_learns_is():
    same = [child(i, q) for i, q in enumerate([0.1, 0.4, 0.2, 0.3, 0.1, 0.4, 0.2, 0.3])]
    control = [child(10 + i, q, arm="control") for i, q in enumerate([0.1, 0.2, 0.3, 0.4] * 2)]
    better = [child(i, 0.1 + 0.1 * i) for i in range(16)]
    assert answer(same + control).better_than_random > 0.3
    assert answer(better + control).better_than_random < 0.001
    assert answer(same[:3] + control[:3]).better_than_random is None


def test_chance_is_that_of_mann_and_whitney():
    """The later half 5, 6, 7, 8 against 1, 2, 3, 4: U is 16, mean 8, variance 4 * 4 * 9 / 12 = 12."""
    own = [child(i, q) for i, q in enumerate([0, 0, 0, 0, 5, 6, 7, 8])]
    theirs = [child(20 + i, q, arm="control") for i, q in enumerate([1, 2, 3, 4])]
    assert answer(own + theirs).better_than_random == pytest.approx(0.5 * math.erfc(8 / math.sqrt(24)))


def test_nothing_came_to_an_end():
    failed = Child(0, "search", PROBLEM.space.at({"x": 0.5}), "random")
    failed.took(-1, [Outcome("failed", error="CUDA out of memory")], {})
    found = answer([failed])
    assert found.best is None
    assert "nothing came to an end" in found.text
    assert failed.cause == "CUDA out of memory"


def test_an_evaluation_of_several_parts_fails_with_one():
    fine, broken = Outcome("finished", "accuracy", 0.8), Outcome("failed", error="x")
    assert merged([fine, fine]) == ("finished", 0.8, 0.8)
    status, value, quality = merged([fine, broken])
    assert (status, quality) == ("failed", -math.inf)
    assert math.isnan(value)


def test_seeds_that_agree_by_chance_prove_nothing():
    """Alone they are told apart, beside finalists whose seeds scatter they aren't."""
    best, control, other = child(0, 0.92), child(1, 0.91, arm="control"), child(2, 0.5)
    agreeing = [finalist(best, [0.92, 0.92]), finalist(control, [0.91, 0.91])]
    assert answer([best, control], agreeing).effect.helps
    assert not answer([best, control, other], [*agreeing, finalist(other, [0.4, 0.6])]).effect.helps


class Fake:
    def __init__(self, number, stage, quality, *, best=None):
        self.number, self.stage_reached, self.quality = number, stage, quality
        self.best = quality if best is None else best


def test_the_best_came_furthest():
    children = [Fake(0, 0, 0.9), Fake(1, 2, 0.5), Fake(2, 2, 0.6), Fake(3, 1, -math.inf)]
    assert [c.number for c in ranked(children)][:3] == [2, 1, 0]


def test_of_those_that_came_as_far_the_best_is_who_is_best_there_not_who_was_at_first():
    assert [c.number for c in ranked([Fake(0, 2, 0.8, best=0.85), Fake(1, 2, 0.7, best=0.95)])] == [1, 0]
