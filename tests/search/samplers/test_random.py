"""Random search: all points alike."""

import math
from collections import Counter

from unstuck.search.samplers.random import random
from unstuck.search.sampling import Setting
from unstuck.search.space import Space


def test_all_points_are_as_likely_to_come_first():
    space = Space(lambda draw: (draw.choice("a", [1, 2]), draw.choice("b", [1, 2, 3])))
    first = Counter(random(Setting(space, seed)).ask().point.key for seed in range(1200))
    assert len(first) == 6
    assert all(abs(n - 200) < 5 * math.sqrt(200 * 5 / 6) for n in first.values())  # five standard deviations


def test_what_it_is_told_changes_nothing():
    space = Space(lambda draw: draw.integer("n", 1, 10**6))
    one, other = (random(Setting(space, 7)) for _ in range(2))
    for i in range(30):
        a, b = one.ask(), other.ask()
        assert a.point.key == b.point.key and a.origin == "random"
        one.tell(a.point, float(i))
        other.tell(b.point, float(-i))
    assert one.health() == {}
