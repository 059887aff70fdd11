"""What all samplers share: no point twice, until none is left."""

import math
from random import Random

from unstuck.search.sampling import TRIES, Novelty, Proposal, finite
from unstuck.search.space import Space


def novelty(size: int) -> Novelty:
    return Novelty(Space(lambda draw: draw.integer("n", 1, size)), Random(0))


def test_repeats_are_dropped_and_counted():
    one = novelty(9)
    numbers = iter([3, 3, 3, 5])

    def propose() -> Proposal:
        return Proposal(one.space.at({"n": next(numbers)}), "model")

    assert [one.take(propose).point.chosen for _ in range(2)] == [3, 5]
    assert (one.repeats, one.proposals) == (2, 4)


def test_where_all_proposals_are_known_it_is_a_random_one():
    one = novelty(9)
    stuck = one.space.at({"n": 4})
    got = [one.take(lambda: Proposal(stuck, "model")) for _ in range(2)]
    assert [p.origin for p in got] == ["model", "random"] and one.repeats == TRIES


def test_who_has_none_to_propose_gets_a_random_one():
    assert novelty(9).take(lambda: None).origin == "random"


def test_every_point_comes_once_and_then_none():
    one = novelty(100)
    got = [one.take(lambda: None) for _ in range(100)]
    assert sorted(p.point.chosen for p in got) == list(range(1, 101))
    assert one.take(lambda: None) is None and one.take(lambda: None) is None


def test_what_somebody_else_proposed_is_known():
    one = novelty(3)
    one.note(one.space.at({"n": 2}))
    assert sorted(one.take(lambda: None).point.chosen for _ in range(2)) == [1, 3]
    assert one.take(lambda: None) is None


def test_what_failed_counts_as_the_worst():
    assert finite(-math.inf, 0.25) == 0.25 and finite(math.nan, 0.25) == 0.25 and finite(0.5, 0.25) == 0.5
