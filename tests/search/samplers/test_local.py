"""Local search: up to where no neighbour is better, then anew; many neighbours at a time."""

import math

from unstuck.search.samplers.local import local
from unstuck.search.sampling import Setting
from unstuck.search.space import Draw, Point, Space


def define(draw: Draw) -> tuple:
    return tuple(draw.choice("part", range(5), of=i, ordered=True) for i in range(4))


SPACE = Space(define)
HILL = (1, 3, 0, 4)


def quality(point: Point) -> float:
    return -float(sum(abs(a - b) for a, b in zip(point.chosen, HILL, strict=True)))


def distance(a: Point, b: Point) -> int:
    return sum(abs(x - y) for x, y in zip(a.chosen, b.chosen, strict=True))


def test_it_climbs_a_hill_to_its_top():
    sampler = local(Setting(SPACE), starts=3)
    best = -math.inf
    for _ in range(3 + 16 * 8):  # at most 16 steps up, each after at most 8 neighbours
        point = sampler.ask().point
        best = max(best, quality(point))
        sampler.tell(point, quality(point))
    assert best == 0


def test_after_the_starts_all_are_neighbours_of_the_best():
    sampler = local(Setting(SPACE, 1), starts=3)
    starts = [sampler.ask() for _ in range(3)]
    for i, start in enumerate(starts):
        sampler.tell(start.point, float(-abs(i - 1)))
    near = [sampler.ask() for _ in range(4)]
    assert [p.origin for p in starts] == ["random"] * 3 and [p.origin for p in near] == ["neighbour"] * 4
    assert all(distance(p.point, starts[1].point) == 1 for p in near)


def test_where_no_neighbour_is_better_it_begins_anew():
    sampler = local(Setting(SPACE), starts=2)
    sampler.tell(SPACE.at({f"part[{i}]": v for i, v in enumerate(HILL)}), 0.0)
    origins = []
    for _ in range(2 + 6 + 2):  # two starts, six neighbours of the top, none of them better
        proposal = sampler.ask()
        origins.append(proposal.origin)
        sampler.tell(proposal.point, quality(proposal.point))
    assert origins == ["random"] * 2 + ["neighbour"] * 6 + ["random"] * 2
    assert sampler.health() == {"climbs": 2}


def test_what_comes_late_counts_only_if_it_is_better_than_its_own_climb_was():
    sampler = local(Setting(SPACE), starts=1)
    sampler.ask()
    sampler.tell(SPACE.at({f"part[{i}]": v for i, v in enumerate(HILL)}), 0.0)
    under_way = [sampler.ask() for _ in range(6)]
    start = sampler.ask()  # all neighbours are under way: another climb begins
    assert start.origin == "random"
    sampler.tell(start.point, -5.0)
    sampler.tell(under_way[0].point, -1.0)  # better than the second climb, but no better than the first was
    assert distance(sampler.ask().point, start.point) == 1
    sampler.tell(under_way[1].point, 1.0)
    assert distance(sampler.ask().point, under_way[1].point) == 1
