import math
import random

import pytest
import torch

from unstuck.search.learner import Adam, Learner, Lesson, Recipe
from unstuck.search.policy import Policy
from unstuck.search.samplers.zoph_le import zoph_le
from unstuck.search.sampling import Setting
from unstuck.search.space import Space


def network(draw):
    layers = draw.depth("layers", 2, 7)
    return [(draw.choice("width", [24, 36, 48, 64], of=i), draw.links("skip", i, of=i)) for i in range(layers)]


def told(sampler, count, quality):
    points = []
    for _ in range(count):
        points.append(sampler.ask().point)
        sampler.tell(points[-1], quality(points[-1]))
    return points


def test_it_draws_what_its_controller_draws():
    points = told(zoph_le(Setting(Space(network), 3)), 8, lambda point: 0.5)
    policy, rng = Policy(3, grown=True), random.Random(3)
    expected = [policy.propose(Space(network), rng, depth=lambda decision: 2) for _ in range(20)]
    new = list({point.key: point for point in expected}.values())[:8]
    assert [p.values for p in points] == [p.values for p in new]


@pytest.mark.parametrize(
    ("score", "quality", "reward"),
    [
        ("accuracy", 0.5, 0.125),
        ("perplexity", -20.0, 80 / 400),
        ("r2", -3.0, -3.0),
        ("", -20.0, 80 / 400),
        ("", 0.5, 0.125),
    ],
)
def test_its_rewards_are_those_of_the_paper(score, quality, reward):
    sampler = zoph_le(Setting(Space(network), score=score))
    told(sampler, 8, lambda point: quality)
    assert sampler.health()["baseline"] == pytest.approx(reward)


def test_an_update_is_a_step_of_adam_on_reward_less_baseline():
    sampler = zoph_le(Setting(Space(network), 1, score="accuracy"))
    qualities = iter([0.9, 0.1, 0.5, 0.7, 0.8, 0.3, 0.2, 0.6] * 2)
    points = told(sampler, 16, lambda point: next(qualities))
    policy = Policy(1, grown=True)
    learner, adam = Learner(policy, Recipe(6e-4, 8)), Adam(6e-4)
    lessons = [Lesson(p, q**3) for p, q in zip(points, [0.9, 0.1, 0.5, 0.7, 0.8, 0.3, 0.2, 0.6] * 2, strict=True)]
    for batch in (lessons[:8], lessons[8:]):
        for each in batch:
            learner.observe(each)
        adam.step(policy.tensors, learner.gradient(batch))
    assert all(torch.equal(w, sampler.policy.weights()[name]) for name, w in policy.weights().items())


def test_networks_grow_with_the_search():
    sampler = zoph_le(Setting(Space(network)), every=10, step=2)
    depths = [p.values["layers"] for p in told(sampler, 60, lambda point: 0.5)]
    assert depths == [2] * 10 + [4] * 10 + [6] * 10 + [7] * 30


def test_points_come_again_only_where_they_may():
    def small(draw):
        return draw.choice("a", [0, 1]), draw.choice("b", [0, 1])

    keys = {
        r: [p.key for p in told(zoph_le(Setting(Space(small)), repeats=r), 4, lambda p: 0.5)] for r in (False, True)
    }
    again = zoph_le(Setting(Space(small)), repeats=True)
    assert len(set(keys[False])) == 4
    assert len({p.key for p in told(again, 40, lambda p: 0.5)}) == 4  # and it goes on
    assert again.health()["repeats"] >= 0.9


@pytest.mark.slow
def test_links_can_be_drawn_to_a_density():
    def linked(draw):
        return [draw.links("skip", i, of=i) for i in range(1, 6)]

    def density(weight):
        sampler = zoph_le(Setting(Space(linked)), rate=2e-2, density_weight=weight, density=0.2)
        points = told(sampler, 200, lambda point: 0.5)
        return sum(sum(map(sum, p.values.values())) for p in points[-40:]) / (40 * 15)

    assert density(0.8) == pytest.approx(0.2, abs=0.08)
    assert density(0.0) == pytest.approx(0.5, abs=0.08)


@pytest.mark.slow
def test_in_hundreds_of_children_it_learns_next_to_nothing():
    space = Space(lambda draw: [draw.choice("width", [24, 36, 48, 64], of=i) for i in range(8)])
    sampler = zoph_le(Setting(space))
    told(sampler, 160, lambda point: sum(point.chosen) / (8 * 64))
    health = sampler.health()
    assert health["entropy_share"] > 0.99 and health["updates"] == 20 and health["controller"] == 1.0
    assert not math.isnan(health["advantage_sd"])
