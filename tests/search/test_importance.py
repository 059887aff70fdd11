"""Which decisions mattered: known truths are found, chance and company are not taken for them."""

import math
from collections import defaultdict

import numpy as np
import pytest

from unstuck.search.answer import Child
from unstuck.search.importance import importance
from unstuck.search.space import Point


def child(values, quality, origin="random", status="finished"):
    return Child(0, "search", Point(values, (), None, ""), origin, quality=quality, status=status)


def drawn(count, seed, quality, noise=0.2):
    """Children at random: a rate, an activation, a choice of 40 texts, five decisions that don't matter."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        values = {
            "rate": float(10 ** rng.uniform(-4, 0)), "activation": ["relu", "tanh", "sigmoid"][rng.integers(3)],
            "name": f"text {rng.integers(40)}", "whole": int(rng.integers(1, 30)), "real": float(rng.random()),
            "flag": bool(rng.integers(2)), "nothing": [None, "some"][rng.integers(2)],
            "links": [int(v) for v in rng.integers(0, 2, 4)],
        }  # fmt: skip
        found.append(child(values, quality(values) + noise * float(rng.normal())))
    return found


def shares(children, **given):
    return {i.name: i.share for i in importance(children, **given)}


def one_way(groups, quality):
    """Kelley's epsilon squared of ranks, one group after the other."""
    ranks = [sum(b < a for b in quality) + (1 + sum(b == a for b in quality)) / 2 for a in quality]
    by_group = defaultdict(list)
    for group, rank in zip(groups, ranks, strict=True):
        by_group[group].append(rank)
    mean = sum(ranks) / len(ranks)
    total = sum((r - mean) ** 2 for r in ranks)
    within = sum((r - sum(g) / len(g)) ** 2 for g in by_group.values() for r in g)
    return 1 - (within / (len(ranks) - len(by_group))) / (total / (len(ranks) - 1))


def hump(values):
    return -((math.log10(values["rate"]) + 2) ** 2) + 0.6 * (values["activation"] == "relu")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [100, 300])
def test_one_matters_one_a_bit_and_the_others_do_not(count, seed):
    found = importance(drawn(count, seed, hump))
    assert [i.name for i in found[:2]] == ["rate", "activation"]
    assert found[0].share > 0.6
    assert 0 < found[1].share < 0.2
    assert all(i.share == 0 for i in found[2:])
    assert len(found) == 8


def test_the_share_is_the_epsilon_squared_of_ranks():
    children = drawn(120, 0, lambda values: {"relu": 3.0, "tanh": 1.0, "sigmoid": 0.0}[values["activation"]], noise=1.0)
    slow = one_way([c.point.values["activation"] for c in children], [c.quality for c in children])
    assert shares(children)["activation"] == pytest.approx(slow, rel=1e-12)
    assert 0.4 < slow < 0.9


@pytest.mark.slow
def test_chance_is_taken_for_nothing():
    # of 100 searches of noise 5 name a decision, as the level is of all decisions together; more than 12 do by a chance of 0.15%
    named = sum(max(shares(drawn(50, seed, lambda values: 0.0)).values()) > 0 for seed in range(100))
    assert named <= 12


def test_a_choice_of_many_values_looks_important_by_chance_and_is_not():
    children = drawn(60, 1, lambda values: 0.0)
    groups, quality = [c.point.values["name"] for c in children], np.array([c.quality for c in children])
    between = sum(len(own) * own.mean() ** 2 for g in set(groups) if len(own := quality[[x == g for x in groups]]))
    assert between / (quality**2).sum() > 0.4  # what it would be without a correction
    assert shares(children)["name"] == 0


def test_a_decision_that_is_drawn_now_and_then_is_judged_among_those_that_have_it():
    rng = np.random.default_rng(0)

    def made(matters):
        found = []
        for _ in range(150):
            values = {"kind": ["SGD", "Adam"][rng.integers(2)]}
            sgd = values["kind"] == "SGD"
            values |= {"momentum": float(rng.random())} if sgd else {}
            found.append(child(values, 2.0 * sgd + matters * values.get("momentum", 0) + 0.3 * rng.normal()))
        return shares(found)

    without, with_it = made(0.0), made(3.0)
    assert without["kind"] > 0.6
    assert without["momentum"] == 0
    assert with_it["momentum"] > 0.1
    assert with_it["kind"] > with_it["momentum"]


def test_failures_rank_last():
    children = drawn(100, 3, lambda values: 0.0)
    for c in children:
        c.quality = -math.inf if c.point.values["rate"] > 0.1 else c.quality
        c.status = "diverged" if c.point.values["rate"] > 0.1 else c.status
    found = shares(children)
    assert found["rate"] > 0.3
    assert sum(found.values()) == found["rate"]


def test_only_ranks_count_and_shares_add_up_to_one_at_most():
    plain, bent = drawn(100, 4, hump), drawn(100, 4, hump)
    for c in bent:
        c.quality = math.exp(10 * c.quality)
    assert shares(plain) == shares(bent)
    assert sum(shares(drawn(100, 4, hump, noise=0.0)).values()) <= 1


def test_one_link_of_some_is_found():
    found = shares(drawn(100, 5, lambda values: 1.0 * values["links"][2]))
    assert found["links"] > 0.5
    assert sum(found.values()) == found["links"]


def test_what_goes_along_with_the_best_is_not_taken_for_its_cause():
    """A sampler keeps to one value of `flag` from where it has found a good rate, by chance."""
    children = drawn(30, 6, hump)
    for i in range(100):
        children.append(child({**children[0].point.values, "rate": 0.01, "flag": True}, 0.5 + 0.001 * i, "neighbour"))
    by_all = one_way([c.point.values["flag"] for c in children], [c.quality for c in children])
    assert by_all > 0.1  # what it seems to be
    found = shares(children)
    assert found["flag"] == 0
    assert found["rate"] > 0.3


def test_children_of_a_sampler_are_judged_by_where_there_are_no_others():
    children = drawn(100, 7, hump)
    for c in children:
        c.origin = "controller"
    assert shares(children)["rate"] > 0.6


def test_children_under_way_are_left_out():
    children = drawn(60, 8, hump)
    assert shares([*children, child({"other": 1}, -math.inf, status="")]) == shares(children)


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_of_few_children_nothing_is_said(count):
    found = importance(drawn(count, 9, hump))
    assert all(i.share == 0 for i in found)
    assert len(found) == (8 if count else 0)


def test_nothing_is_said_where_all_are_alike():
    assert set(shares(drawn(50, 0, lambda values: 1.0, noise=0.0)).values()) == {0.0}


def test_the_same_seed_tells_the_same():
    children = drawn(60, 10, hump, noise=1.0)
    assert importance(children, seed=3) == importance(children, seed=3)
