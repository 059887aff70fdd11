"""Gaussian process: the model predicts what its formula says, learns what matters, and children at a time differ."""

import math
from random import Random

import numpy as np
import pytest

from unstuck.search.samplers.gaussian_process import _Model, _scores, gaussian_process
from unstuck.search.sampling import Setting
from unstuck.search.space import Draw, Point, Space


def define(draw: Draw) -> dict:
    parts = [draw.choice("part", [0, 1, 2], of=i) for i in range(3)]
    more = draw.number("more", 0.0, 1.0) if parts[0] == 0 else 0.0
    return {
        "parts": parts,
        "more": more,
        "links": draw.links("links", 2),
        "size": draw.choice("size", [1, 2, 4], ordered=True),
    }


SPACE = Space(define)


def squared_distance(a: Point, b: Point) -> float:
    """As the docstring says: 1 for each choice that differs, (1.5 x share)^2 for numbers, 1 for each link."""
    total = sum(1.0 for x, y in zip(a.chosen["parts"], b.chosen["parts"], strict=True) if x != y)
    total += sum(1.0 for x, y in zip(a.chosen["links"], b.chosen["links"], strict=True) if x != y)
    total += (0.75 * ([1, 2, 4].index(a.chosen["size"]) - [1, 2, 4].index(b.chosen["size"]))) ** 2
    taken = ["more" in p.values for p in (a, b)]
    total += 1.0 if taken[0] != taken[1] else 0.0
    return total + (1.5 * (a.chosen["more"] - b.chosen["more"])) ** 2


def test_scores_are_quantiles_of_the_normal_distribution_whatever_the_worst_is():
    scores = _scores(np.array([3.0, -math.inf, 5.0, -math.inf]))
    quantiles = [-0.674490, 0.318639, 1.150349]  # of 1/4, 5/8 and 7/8
    assert scores == pytest.approx([quantiles[1], quantiles[0], quantiles[2], quantiles[0]], abs=1e-5)
    assert _scores(np.array([2.0, 2.0, 2.0])) == pytest.approx([0, 0, 0], abs=1e-12)


def test_it_predicts_what_the_formula_says():
    rng = Random(0)
    points, new = ([SPACE.random(rng) for _ in range(n)] for n in (6, 4))
    qualities = [rng.random() for _ in points]
    model = _Model()
    model.fit(points, qualities, [])  # too few to learn scales of: 0.3, noise 0.1
    expected, unsure = model.predict(new)
    kernel = np.array([[math.exp(-0.3 * squared_distance(a, b)) for b in points] for a in points]) + 0.1 * np.eye(6)
    cross = np.array([[math.exp(-0.3 * squared_distance(a, b)) for b in points] for a in new])
    assert expected == pytest.approx(cross @ np.linalg.solve(kernel, _scores(np.array(qualities))), abs=1e-9)
    assert unsure**2 == pytest.approx(1 - (cross * np.linalg.solve(kernel, cross.T).T).sum(1), abs=1e-9)


def test_it_learns_which_decisions_matter():
    space = Space(lambda draw: [draw.choice(name, [0, 1, 2, 3]) for name in ("much", "little", "none", "nothing")])
    rng, model = Random(0), _Model()
    points = [space.random(rng) for _ in range(60)]
    model.fit(points, [10.0 * p.chosen[0] + p.chosen[1] + 0.01 * rng.random() for p in points], [])
    scales = model._scales
    assert scales["much"] > scales["none"] and scales["little"] > scales["none"]
    assert model.noise < 0.1


def test_where_all_is_luck_it_says_so():
    rng = Random(0)
    sampler = gaussian_process(Setting(SPACE))
    for _ in range(60):
        sampler.tell(sampler.ask().point, rng.gauss(0, 1))
    assert sampler.health()["noise"] > 0.3


def test_the_first_are_random_then_the_model_has_its_say():
    sampler = gaussian_process(Setting(SPACE), starts=4)
    origins = []
    for i in range(8):
        proposal = sampler.ask()
        origins.append(proposal.origin)
        sampler.tell(proposal.point, float(i))
    assert origins == ["random"] * 4 + ["model"] * 4


def test_children_at_a_time_are_not_all_alike():
    space = Space(lambda draw: [draw.number("x", 0.0, 1.0), draw.number("y", 0.0, 1.0)])
    sampler = gaussian_process(Setting(space, workers=8))
    for _ in range(12):
        point = sampler.ask().point
        sampler.tell(point, -((point.chosen[0] - 0.3) ** 2) - (point.chosen[1] - 0.3) ** 2)
    several = np.array([sampler.ask().point.chosen for _ in range(8)])
    apart = np.linalg.norm(several[:, None] - several, axis=2)[~np.eye(8, dtype=bool)]
    assert apart.min() > 0.01
