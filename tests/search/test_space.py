"""Spaces: decisions and their values, conditions, points that mean the same, all of them, neighbours."""

import itertools
import json
import math
from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest

from unstuck.errors import MisuseError
from unstuck.search.space import Choice, Draw, Links, Range, Space, same


def conditional(draw: Draw) -> dict:
    kind = draw.choice("kind", ["SGD", "Adam"])
    momentum = draw.choice("momentum", [0.0, 0.5, 0.9], ordered=True) if kind == "SGD" else None
    return {"kind": kind, "momentum": momentum, "layers": draw.integer("layers", 1, 3)}


def test_a_choice_gives_what_is_behind_its_label():
    space = Space(lambda draw: draw.choice("activation", {"up": math.ceil, "down": math.floor}))
    point = space.at({"activation": "down"})
    assert point.chosen is math.floor and point.values == {"activation": "down"}


def test_only_what_matters_is_drawn():
    space = Space(conditional)
    assert list(space.at({"kind": "Adam", "momentum": 0.9, "layers": 1}).values) == ["kind", "layers"]
    assert list(space.at({"kind": "SGD", "momentum": 0.9, "layers": 1}).values) == ["kind", "momentum", "layers"]


def test_all_are_all_once():
    points = list(Space(conditional).all())
    assert len(points) == len({p.key for p in points}) == 3 * 3 + 3


def test_all_whole_numbers_of_a_wide_range_and_all_links():
    space = Space(lambda draw: [draw.integer("width", 1, 40, log=True), draw.links("from", 3)])
    found = {(p.values["width"], tuple(p.values["from"])) for p in space.all()}
    assert found == set(itertools.product(range(1, 41), itertools.product((0, 1), repeat=3)))


def test_random_points_are_of_every_kind_alike():
    rng = Random(0)
    kinds = Counter(Space(conditional).random(rng).chosen["kind"] for _ in range(2000))
    assert abs(kinds["SGD"] - 1000) < 5 * math.sqrt(500)  # five standard deviations of a fair coin


def test_a_logarithmic_range_gives_all_ratios_alike():
    decision, rng = Range("rate", "rate", 1e-4, 1.0, log=True), Random(0)
    drawn = [decision.sample(rng) for _ in range(4000)]
    assert min(drawn) >= 1e-4 and max(drawn) <= 1.0
    assert all(
        abs(sum(low <= v < 10 * low for v in drawn) - 1000) < 5 * math.sqrt(750) for low in (1e-4, 1e-3, 1e-2, 0.1)
    )


def test_numbers_have_four_digits_and_stay_in_their_range():
    decision = Range("x", "x", 0.123456, 0.98765432)
    assert decision.rounded(0.456789) == 0.4568
    assert decision.rounded(0.12) == decision.low and decision.rounded(1.5) == decision.high
    assert Range("n", "n", 1, 9, whole=True).rounded(11.7) == 9


@pytest.mark.parametrize("log", [False, True])
def test_levels_go_from_end_to_end_and_know_which_is_nearest(log):
    decision = Range("x", "x", 0.001, 10.0, log=log)
    levels = decision.levels()
    assert (levels[0], levels[-1]) == (0.001, 10.0) and list(levels) == sorted(levels)
    assert [decision.nearest(v) for v in levels] == list(range(len(levels)))
    assert decision.share(0.1) == pytest.approx(0.5 if log else 0.0099, rel=1e-3)


def test_the_neighbours_of_a_number_are_a_step_down_and_a_step_up():
    decision, rng = Range("n", "n", 1, 5, whole=True), Random(0)
    assert {n for _ in range(50) for n in decision.near(3, rng)} == {2, 4}
    assert {n for _ in range(50) for n in decision.near(1, rng)} == {2}
    real = Range("x", "x", 0.0, 1.0)
    steps = [n - 0.5 for _ in range(200) for n in real.near(0.5, rng)]
    assert sum(s < 0 for s in steps) == sum(s > 0 for s in steps) and all(0 < abs(s) < 0.4 for s in steps)


def test_the_neighbours_of_a_choice_are_all_others_or_those_beside_it():
    rng = Random(0)
    assert Choice("a", "a", (1, 2, 3, 4)).near(2, rng) == [1, 3, 4]
    assert Choice("a", "a", (1, 2, 3, 4), ordered=True).near(2, rng) == [1, 3]
    assert Choice("a", "a", (1, 2, 3, 4), ordered=True).near(4, rng) == [3]


def test_the_neighbours_of_links_have_one_the_other_way():
    assert Links("l", "l", 3).near([1, 0, 0], Random(0)) == [[0, 0, 0], [1, 1, 0], [1, 0, 1]]


def test_true_is_not_one():
    decision = Choice("x", "x", (True, 1, False, 0))
    assert [decision.nearest(v) for v in (True, 1, False, 0)] == [0, 1, 2, 3]
    assert not same(True, 1) and same(1, 1.0)
    assert not Choice("x", "x", (1, 2)).admits(True) and not Range("x", "x", 0, 1).admits(True)


def test_neighbours_differ_by_one_decision_and_by_what_depends_on_it():
    space, rng = Space(conditional), Random(0)
    found = {
        json.dumps(p.chosen) for p in space.neighbours(space.at({"kind": "SGD", "momentum": 0.5, "layers": 2}), rng)
    }
    expected = [("Adam", None, 2), ("SGD", 0.0, 2), ("SGD", 0.9, 2), ("SGD", 0.5, 1), ("SGD", 0.5, 3)]
    assert found == {json.dumps({"kind": k, "momentum": m, "layers": n}) for k, m, n in expected}


def test_a_mutation_is_a_neighbour():
    space, rng = Space(conditional), Random(0)
    parent = space.at({"kind": "SGD", "momentum": 0.5, "layers": 2})
    near = {p.key for p in space.neighbours(parent, rng)}
    assert {space.mutated(parent, rng).key for _ in range(200)} == near


def test_points_that_mean_the_same_are_the_same():
    @dataclass
    class Sum:
        parts: list

        def canonical(self):
            return sorted(self.parts)

    space = Space(lambda draw: Sum([draw.choice("part", [1, 2, 3], of=i) for i in range(2)]))
    assert space.at({"part[0]": 1, "part[1]": 3}).key == space.at({"part[0]": 3, "part[1]": 1}).key
    assert len(list(space.all())) == 6  # of 9, as in combinations with repetition
    assert len({p.key for p in space.neighbours(space.at({"part[0]": 1, "part[1]": 1}), Random(0))}) == 2


def test_what_cannot_be_told_is_told_apart_by_its_values():
    space = Space(lambda draw: (lambda n: lambda: n)(draw.choice("n", [1, 2])))
    assert len(list(space.all())) == 2


def test_a_point_comes_back_from_what_json_keeps_of_it():
    space, rng = Space(lambda d: [d.number("x", 1e-5, 1.0, log=True), d.links("l", 3), d.flag("f")]), Random(0)
    for _ in range(50):
        point = space.random(rng)
        again = space.at(json.loads(json.dumps(point.values)))
        assert again.key == point.key and again.values == point.values


def test_a_point_of_another_space_says_what_is_missing():
    with pytest.raises(MisuseError, match="momentum is missing"):
        Space(conditional).at({"kind": "SGD", "layers": 2})
    with pytest.raises(MisuseError, match="layers is 7"):
        Space(conditional).at({"kind": "Adam", "layers": 7})
    assert Space(conditional).at({"kind": "Adam", "layers": 7}, Random(0)).values["layers"] in (1, 2, 3)


def test_a_name_drawn_twice_gives_the_same_value_and_never_other_ones():
    space = Space(lambda draw: [draw.choice("a", [1, 2]), draw.choice("a", [1, 2])])
    assert sorted(p.chosen for p in space.all()) == [[1, 1], [2, 2]]
    with pytest.raises(MisuseError, match="drawn twice"):
        Space(lambda draw: [draw.choice("a", [1, 2]), draw.choice("a", [1, 3])]).random(Random(0))


@pytest.mark.parametrize(
    ("define", "says"),
    [
        (lambda draw: draw.choice("a", []), "must be some"),
        (lambda draw: draw.choice("a", [[1], [2]]), "have labels"),
        (lambda draw: draw.number("a", 2, 1), "the least must come first"),
        (lambda draw: draw.number("a", 0, 1, log=True), "above 0"),
        (lambda draw: draw.number("a", 0, math.inf), "finite"),
    ],
)
def test_a_space_that_cannot_be_says_why(define, says):
    with pytest.raises(MisuseError, match=says):
        Space(define).random(Random(0))


def test_what_is_chosen_for_several_parts_has_one_role():
    point = Space(lambda draw: [draw.integer("width", 1, 3, of=i) for i in range(2)]).random(Random(0))
    assert [(d.name, d.role) for d in point.decisions] == [("width[0]", "width"), ("width[1]", "width")]
