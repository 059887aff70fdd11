"""What holds of every sampler: no point twice, none where none is left, the same again for the same, and better than chance."""

import inspect
import math
from random import Random

import pytest

from unstuck._discover import find
from unstuck.search.sampling import Sampler, Setting
from unstuck.search.space import Draw, Point, Space

pytestmark = pytest.mark.slow

SAMPLERS = find("search.samplers")
CHANCE = {"random", "zoph-le"}  # the controller as it was published learns from thousands of points, not from a hundred
EACH = [
    pytest.param(name, marks=pytest.mark.slow) if name == "tpe" else name for name in SAMPLERS
]  # Optuna takes its time


def small(draw: Draw) -> dict:
    kind = draw.choice("kind", ["SGD", "Adam", "none"])
    momentum = draw.choice("momentum", [0.0, 0.5, 0.9], ordered=True) if kind == "SGD" else None
    links = draw.links("links", 2) if kind != "none" else None
    return {"kind": kind, "momentum": momentum, "links": links, "depth": draw.depth("depth", 1, 2)}


SMALL = (3 * 4 + 4 + 1) * 2


def mixed(draw: Draw) -> dict:
    kind = draw.choice("kind", ["a", "b", "c"])
    bonus = draw.number("bonus", 0.0, 1.0) if kind == "a" else 0.0
    rate = draw.number("rate", 1e-6, 1.0, log=True)
    width = draw.integer("width", 1, 256, log=True)
    parts = [draw.choice("part", [0, 1, 2, 3], of=i) for i in range(5)]
    return {"kind": kind, "bonus": bonus, "rate": rate, "width": width, "parts": parts}


def quality(point: Point) -> float:
    """The best there is is 0: kind a, bonus 1, a rate of 1e-3, a width of 32, all parts 2."""
    chosen = point.chosen
    off = abs(math.log10(chosen["rate"] / 1e-3)) / 3 + abs(math.log2(chosen["width"] / 32)) / 5
    return -(off + (1.0 - chosen["bonus"]) + 0.3 * sum(p != 2 for p in chosen["parts"]))


def made(name: str, define=mixed, seed: int = 0, evaluations: int | None = 100, workers: int = 1) -> Sampler:
    return SAMPLERS[name](Setting(Space(define), seed, evaluations, workers))


def searched(sampler: Sampler, count: int) -> list[tuple[str, float]]:
    found = []
    for _ in range(count):
        point = sampler.ask().point
        found.append((point.key, quality(point)))
        sampler.tell(point, found[-1][1])
    return found


def events(sampler: Sampler, chance: Random, count: int, ahead: int) -> list[tuple[str, Point, float]]:
    """Asks and tells, as they come about where points end in any order."""
    seen, under_way = [], []
    for _ in range(count):
        if under_way and (len(under_way) == ahead or chance.random() < 0.4):
            point = under_way.pop(chance.randrange(len(under_way)))
            worth = -math.inf if chance.random() < 0.1 else quality(point)
            sampler.tell(point, worth)
            seen.append(("tell", point, worth))
        else:
            under_way.append(sampler.ask().point)
            seen.append(("ask", under_way[-1], 0.0))
    return seen


@pytest.mark.parametrize("name", SAMPLERS)
def test_its_docstring_says_where_it_is_from_and_what_its_settings_are(name):
    text = inspect.getdoc(SAMPLERS[name]) or ""
    assert "Source:" in text and "Returns:" in text
    settings = [p for p in inspect.signature(SAMPLERS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert all(p.default is not p.empty and f"{p.name}:" in text for p in settings)


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("name", EACH)
def test_it_asks_for_every_point_once_and_then_for_none(name, told):
    sampler = made(name, small)
    keys = []
    while proposal := sampler.ask():
        keys.append(proposal.point.key)
        if told:
            sampler.tell(proposal.point, float(len(keys) % 7))
    assert len(keys) == len(set(keys)) == SMALL
    assert sampler.ask() is None


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_space_of_one_point_is_asked_for_once(name):
    sampler = made(name, lambda draw: {"only": draw.choice("only", ["one"])})
    sampler.tell(sampler.ask().point, 1.0)
    assert sampler.ask() is None and sampler.ask() is None


@pytest.mark.parametrize("name", SAMPLERS)
def test_its_points_have_the_values_that_matter_and_no_others(name):
    sampler, space = made(name, small), Space(small)
    for i in range(25):
        point = sampler.ask().point
        again = space.at(point.values)  # raises where one is missing
        assert (again.key, again.values) == (point.key, point.values)
        sampler.tell(point, float(i % 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_and_the_same_answers_give_the_same_points(name):
    first, again, other = (searched(made(name, seed=seed), 25) for seed in (3, 3, 4))
    assert first == again and first != other


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_what_a_journal_says_brings_it_where_it_was(name):
    sampler, chance = made(name, workers=8), Random(0)
    past = events(sampler, chance, 70, ahead=8)
    again, space = made(name, workers=8), Space(mixed)
    for kind, point, worth in past:
        if kind == "ask":
            assert again.ask().point.key == point.key
        else:
            again.tell(space.at(point.values), worth)  # another object that means the same
    assert [sampler.ask().point.key for _ in range(5)] == [again.ask().point.key for _ in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_it_may_be_asked_for_many_before_it_is_told_of_one(name):
    sampler = made(name, workers=32)
    seen = events(sampler, Random(1), 100, ahead=32)
    asked = [point.key for kind, point, _ in seen if kind == "ask"]
    assert len(asked) == len(set(asked))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_it_never_asks_for_what_it_was_told(name):
    sampler, rng = made(name, small), Random(0)
    known = {(point := Space(small).random(rng)).key: point for _ in range(10)}
    for i, point in enumerate(known.values()):
        sampler.tell(point, float(i))
    asked = []
    while proposal := sampler.ask():
        asked.append(proposal.point.key)
        sampler.tell(proposal.point, 0.5)
    assert not known.keys() & set(asked) and len(asked) == SMALL - len(known)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_it_goes_on_where_everything_fails(name):
    sampler = made(name)
    keys = set()
    for _ in range(60):
        proposal = sampler.ask()
        keys.add(proposal.point.key)
        sampler.tell(proposal.point, -math.inf)
    assert len(keys) == 60
    assert all(math.isfinite(value) for value in sampler.health().values())


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_its_health_is_numbers(name):
    sampler = made(name)
    before = sampler.health()
    searched(sampler, 40)
    assert all(math.isfinite(value) for health in (before, sampler.health()) for value in health.values())


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in CHANCE])
def test_it_finds_better_points_than_chance(name, fails):
    wins, rounds = 0, 12
    for seed in range(rounds):
        best = {}
        for method in (name, "random"):
            sampler = made(method, seed=100 + seed)
            best[method] = -math.inf
            for _ in range(100):
                point = sampler.ask().point
                worth = -math.inf if fails and point.chosen["kind"] == "b" else quality(point)
                best[method] = max(best[method], worth)
                sampler.tell(point, worth)
        wins += best[name] > best["random"]
    assert wins >= 11  # by chance in 13 of 4096 cases
