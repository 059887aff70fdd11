"""Regularised evolution: a random population, then children of the best of a few, and the oldest dies."""

from unstuck.search.samplers.evolution import evolution
from unstuck.search.sampling import Setting
from unstuck.search.space import Draw, Point, Space


def define(draw: Draw) -> tuple:
    return tuple(draw.choice("part", range(9), of=i) for i in range(6))


SPACE = Space(define)


def differ(a: Point, b: Point) -> int:
    return sum(x != y for x, y in zip(a.chosen, b.chosen, strict=True))


def at(*parts: int) -> Point:
    return SPACE.at({f"part[{i}]": p for i, p in enumerate(parts)})


def test_the_first_population_is_random_and_all_later_are_mutations():
    sampler = evolution(Setting(SPACE), population=10, sample=3)
    origins = []
    for i in range(30):
        proposal = sampler.ask()
        origins.append(proposal.origin)
        sampler.tell(proposal.point, float(i))
    assert origins == ["random"] * 10 + ["mutation"] * 20


def test_a_child_differs_from_the_best_of_the_sample_by_one_decision():
    sampler = evolution(Setting(SPACE), population=10, sample=10)
    known = [sampler.ask().point for _ in range(10)]
    for i, point in enumerate(known):
        sampler.tell(point, float(-abs(i - 4)))
    assert all(differ(sampler.ask().point, known[4]) == 1 for _ in range(20))


def test_the_oldest_dies_however_good_it_was():
    sampler = evolution(Setting(SPACE), population=3, sample=3)
    sampler.tell(at(8, 8, 8, 8, 8, 8), 100.0)
    for i in range(3):
        sampler.tell(at(i, i, i, i, i, i), float(i))
    assert all(differ(sampler.ask().point, at(2, 2, 2, 2, 2, 2)) == 1 for _ in range(20))


def test_points_of_others_are_its_first_population():
    sampler = evolution(Setting(SPACE), population=3, sample=3)
    for i in range(3):
        sampler.tell(at(i, i, i, i, i, i), float(i))
    assert sampler.ask().origin == "mutation"


def test_a_population_under_way_of_which_nothing_is_known_has_no_children():
    sampler = evolution(Setting(SPACE), population=3, sample=3)
    assert [sampler.ask().origin for _ in range(8)] == ["random"] * 8


def test_its_health_is_the_share_of_mutations_that_were_known():
    sampler = evolution(Setting(Space(lambda draw: draw.choice("a", [1, 2, 3]))), population=1, sample=1)
    assert sampler.health() == {"repeats": 0.0}
    for _ in range(3):
        sampler.tell(sampler.ask().point, 1.0)
    assert 0 <= sampler.health()["repeats"] < 1
