"""Replicas propose and learn as one sampler, in whatever order they answer and whichever is lost. Here they are objects of one process."""

import itertools
import math
import random

import pytest

from unstuck.errors import ClusterError
from unstuck.search import distributed as module
from unstuck.search.controller import Mixture
from unstuck.search.distributed import Distributed
from unstuck.search.learner import Recipe
from unstuck.search.replicas import Replica
from unstuck.search.sampling import Proposal, Setting
from unstuck.search.shards import Shard, Shards
from unstuck.search.space import Space

MIXTURE = Mixture(12, 0.5, 0.3)
RECIPE = Recipe(2e-2, 4, "ranked", entropy=0.1, elites=5, max_norm=1.0)


def six(draw):
    return [draw.choice(f"op{i}", list("abcde")) for i in range(6)]


def small(draw):
    return [draw.choice("kind", list("abc")), draw.links("links", 3)]


def hits(point):
    """How many of the six are right, and a bonus for neighbours that fit."""
    right = [value == target for value, target in zip(point.chosen, "aebdca", strict=True)]
    return sum(right) + 0.5 * sum(a and b for a, b in itertools.pairwise(right))


class Together:
    """Replicas and shards in this process: an order is done when reports are asked for, in any order, and now and then somebody is lost."""

    def __init__(self, tmp_path, define, *, replicas=3, shards=2, recipe=RECIPE, lost=0.0, slow=0.0, seed=0):
        self.size, self.lost, self.slow, self.rng = replicas, lost, slow, random.Random(seed)
        self.killed = {"replica": 0, "shard": 0}
        self._orders, self._paths = {}, [tmp_path / f"{i}.pt" for i in range(shards)]
        self._rate, self._make = (
            recipe.rate,
            lambda i: Replica(i, Space(define), 0, recipe, None, Shards(shards, self._call)),
        )
        self._shards = [self._shard(path) for path in self._paths]
        self._replicas = [self._make(i) for i in range(replicas)]

    def _shard(self, path):
        return Shard(path, seed=0, rate=self._rate)

    def _call(self, calls):
        return [getattr(self._shards[i], method)(given) for i, method, given in calls]

    def _kill(self, index):
        if self.rng.random() < self.lost:
            self.killed["replica"] += 1
            self._replicas[index] = self._make(index)
        if self.rng.random() < self.lost:
            self.killed["shard"] += 1
            i = self.rng.randrange(len(self._shards))
            self._shards[i] = self._shard(self._paths[i])

    def send(self, index, order):
        assert index not in self._orders  # it isn't busy
        self._orders[index] = order

    def reports(self, seconds):
        waits = [i for i in self._orders if seconds == 0.0 and self.rng.random() < self.slow]
        found = []
        for i in [i for i in self._orders if i not in waits]:
            order = self._orders.pop(i)
            if (
                self.rng.random() < self.lost
            ):  # it was done, but never answered: called again, by one that has begun anew
                self._replicas[i].work(order)
                self.killed["replica"] += 1
                self._replicas[i] = self._make(i)
            self._kill(i)
            found.append((i, self._replicas[i].work(order)))
        self.rng.shuffle(found)
        return found


class Silent:
    size = 2

    def send(self, index, order):
        pass

    def reports(self, seconds):
        return []


@pytest.fixture
def made(tmp_path):
    def make(define=six, mixture=MIXTURE, seed=0, recipe=RECIPE, crew=None, **how):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        crew = crew or Together(folder, define, recipe=recipe, **how)
        return Distributed(Setting(Space(define), seed), recipe, mixture, crew)

    return make


def searched(sampler, count, quality=hits, ahead=8, seed=0):
    """Proposals of a search whose children end in any order."""
    rng, under_way, proposals = random.Random(seed), [], []
    while len(proposals) < count or under_way:
        if len(proposals) < count and len(under_way) < ahead:
            proposals.append(sampler.ask())
            under_way.append(proposals[-1].point)
            continue
        point = under_way.pop(rng.randrange(len(under_way)))
        sampler.tell(point, quality(point))
    return proposals


@pytest.mark.slow
def test_it_finds_what_one_process_finds(made):
    found = [max(hits(p.point) for p in searched(made(seed=seed), 150)) for seed in range(3)]
    assert sorted(found)[1] >= 7.0  # 8.5 is the best there is; 150 at random give 4.5 in the median


@pytest.mark.slow
def test_it_is_the_replicas_that_learn(made):
    sampler = made(mixture=Mixture(repeats=True))
    rewards = [hits(p.point) for p in searched(sampler, 240)]
    assert sum(rewards[-40:]) / 40 > sum(rewards[:40]) / 40 + 2.0
    health = sampler.health()
    assert health["controller"] == 1.0 and 57 <= health["updates"] <= 60  # some lessons wait in each replica
    assert health["entropy_share"] < 0.95


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0.0, 0.1])
def test_replicas_and_shards_that_are_lost_cost_no_lesson_and_apply_none_twice(made, lost):
    sampler = made(mixture=Mixture(repeats=True), lost=lost, slow=0.5)
    searched(sampler, 200)
    while any(member.order for member in sampler._members):
        sampler._hear(1.0)
    health, crew = sampler.health(), sampler._crew
    waiting = sum(len(member.waiting) for member in sampler._members)
    assert health["updates"] * 4 + waiting == 200
    assert [shard.version for shard in crew._shards] == [health["updates"]] * 2  # each gradient has parts of both
    assert (health["replica_restarts"] > 0, health["shard_restarts"] > 0, health["repeated"] > 0) == (lost > 0,) * 3
    assert health["shard_restarts"] == crew.killed["shard"] and health["lost"] == 0


@pytest.mark.slow
def test_staleness_comes_of_replicas_that_do_not_wait_for_each_other(made):
    alone, many = (made(mixture=Mixture(repeats=True), replicas=n, slow=slow) for n, slow in ((1, 0.0), (6, 0.7)))
    for sampler in (alone, many):
        searched(sampler, 120, ahead=24)
    assert alone.health()["push_staleness_max"] == 0.0
    assert 1.0 < many.health()["push_staleness"] <= many.health()["push_staleness_max"]


@pytest.mark.slow
@pytest.mark.parametrize("mixture", [Mixture(), Mixture(4, 0.5, 0.5)])
def test_no_point_is_proposed_twice_by_whichever_replica_and_then_there_are_none(made, mixture):
    sampler, keys = made(small, mixture, replicas=4), []
    while proposal := sampler.ask():
        keys.append(proposal.point.key)
        if len(keys) % 3:
            sampler.tell(proposal.point, float(len(keys) % 5))
    assert len(keys) == len(set(keys)) == 3 * 8
    assert sampler.ask() is None


def test_repeats_are_made_where_they_may_be(made):
    sampler = made(small, Mixture(repeats=True))
    keys = [p.point.key for p in searched(sampler, 60, lambda p: float(p.chosen[0] == "a"))]
    assert len(keys) == 60 > len(set(keys))


@pytest.mark.slow
def test_what_was_asked_for_before_is_learned_and_not_asked_for_again(made):
    past = searched(made(seed=1), 110)
    sampler = made(seed=2, slow=0.5)
    for proposal in past:
        sampler.again(Proposal(sampler._space.at(proposal.point.values), proposal.origin))
    for proposal in past[:100]:
        sampler.tell(proposal.point, hits(proposal.point))
    following = searched(sampler, 30)
    assert not {p.point.key for p in past} & {p.point.key for p in following}
    assert [p.origin for p in following].count(
        "random"
    ) < 6  # those at first have been made; others where a replica knows nothing new
    first = next(p for p in following if p.origin == "controller")
    assert sampler._asked[first.point.key].source.updates >= 20  # it was drawn when the past had been learned
    rewards = [hits(p.point) for p in following]
    assert sum(rewards) / 30 > sum(hits(p.point) for p in past[:30]) / 30 + 1.0


def test_it_knows_its_own_decisions_also_those_before(made):
    sampler = made()
    rng, space = random.Random(0), Space(six)
    points = [space.random(rng) for _ in range(14)]
    for i, point in enumerate(points[:13]):
        sampler.again(Proposal(point, "random" if i < 12 else "mutation"))
    for point in points:  # the last was never asked for
        sampler.tell(point, 1.0)
    assert [lesson.own for lesson in sampler._history] == [True] * 12 + [False] * 2


def test_children_of_replicas_are_shared_out(made):
    sampler = made(mixture=Mixture(), replicas=4)
    for _ in range(16):
        sampler.ask()
    assert [member.outstanding for member in sampler._members] == [4] * 4


def test_a_mutation_stands_in_where_all_are_busy(made, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    sampler = made(mixture=Mixture(4, 0.01, 0.3))
    searched(sampler, 20)
    monkeypatch.setattr(sampler._crew, "reports", lambda seconds: [])
    for member in sampler._members:
        member.stock.clear()
    proposals = searched(sampler, 30, ahead=2)
    assert [p.origin for p in proposals] == ["mutation"] * 30
    assert 25 <= sampler.health()["stand_ins"] <= 30  # some are drawn anyway


def test_none_stands_in_for_a_controller_without_mutations_and_silence_ends_the_search(made, monkeypatch):
    monkeypatch.setattr(module, "_LIMIT", 0.05)
    sampler = made(mixture=Mixture(), crew=Silent())
    with pytest.raises(ClusterError, match=r"no replica .* for 0 s: .* resume"):
        sampler.ask()


def test_it_goes_on_where_everything_fails(made):
    sampler = made()
    proposals = searched(sampler, 60, lambda p: -math.inf)
    assert len({p.point.key for p in proposals}) == 60
    assert sampler.health()["failed"] == 60
    assert all(math.isfinite(value) for value in sampler.health().values())


def test_its_health_is_numbers_from_the_first(made):
    sampler = made(crew=Silent())
    assert all(math.isfinite(value) for value in sampler.health().values())


def test_a_replica_that_has_just_begun_anew_leaves_no_gap_in_the_health(made):
    sampler = made(mixture=Mixture(repeats=True), replicas=2)
    searched(sampler, 40)
    before = sampler.health()
    sampler._crew._replicas[0] = sampler._crew._make(0)
    sampler._order(sampler._members[0])
    while any(member.order for member in sampler._members):
        sampler._hear(1.0)
    after = sampler.health()
    assert after.keys() == before.keys() and after["replica_restarts"] == 1.0
