"""A replica learns as the controller in one process does, and one that is lost is made up for by what others know."""

import torch

from unstuck.search.controller import Growth
from unstuck.search.learner import Adam, Learner, Lesson, Recipe
from unstuck.search.policy import Policy
from unstuck.search.replicas import Order, Replica, bare
from unstuck.search.shards import Shard, Shards
from unstuck.search.space import Space

RECIPE = Recipe(2e-2, 4, "ranked", entropy=0.1, elites=3, max_norm=1.0)


def grows(draw):
    """Roles that are met late: only where the kind is b, and links only of deep ones."""
    kind = draw.choice("kind", ["a", "b"])
    rate = draw.number("rate", 1e-3, 1.0, log=True) if kind == "b" else None
    depth = draw.depth("depth", 1, 4)
    return [kind, rate, [(draw.choice("op", list("xyz"), of=i), draw.links("links", i, of=i)) for i in range(depth)]]


def crew(tmp_path, replicas=1, shards=2, recipe=RECIPE, growth=None):
    held = [Shard(tmp_path / f"{i}.pt", seed=5, rate=recipe.rate) for i in range(shards)]

    def call(calls):
        return [getattr(held[i], method)(given) for i, method, given in calls]

    def made(index):
        return Replica(index, Space(grows), 5, recipe, growth, Shards(shards, call))

    return made, [made(i) for i in range(replicas)], held


def lessons(count, seed=0, own=True):
    from random import Random

    rng = Random(seed)
    points = [Space(grows).random(rng) for _ in range(count)]
    return [
        Lesson(bare(p), float(len(p.decisions)) + rng.random(), own=own and i % 3 > 0) for i, p in enumerate(points)
    ]


def told(replica, several, *, after, number, **more):
    return replica.work(Order(after, several, several, number, **more))


def tensors(policy):
    return {name: tensor.detach().clone() for name, tensor in policy.tensors.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_one_replica_is_the_controller_of_one_process_to_the_last_bit(tmp_path):
    _, [replica], _ = crew(tmp_path)
    policy = Policy(5)
    learner, adam = Learner(policy, RECIPE), Adam(RECIPE.rate)
    several = lessons(40)
    for i in range(0, 40, 4):
        batch = several[i : i + 4]
        for lesson in batch:
            learner.observe(lesson)
        adam.step(policy.tensors, learner.gradient(batch))
        report = told(replica, batch, after=i, number=i // 4 + 1)
        assert (report.seen, report.refused) == (i + 4, False)
        assert (report.entropy, report.baseline) == (
            learner.entropy,
            (learner.baseline.mean, learner.baseline.variance),
        )
    assert same(tensors(replica.policy), tensors(policy))
    assert len(policy.tensors) > 12  # of all roles


def test_one_that_has_begun_anew_refuses_and_with_all_lessons_is_where_it_was(tmp_path):
    made, [replica], _ = crew(tmp_path)
    several = lessons(24)
    for i in range(0, 20, 4):
        last = told(replica, several[i : i + 4], after=i, number=i // 4 + 1)
    again = made(0)
    order = Order(20, several[20:], several[20:], 6, wanted=3, seed="x", baseline=last.baseline)
    refused = again.work(order)
    assert (refused.refused, refused.seen, refused.proposals) == (True, 0, [])
    assert refused.born != last.born
    taken = again.work(Order(0, several, several[20:], 6, wanted=3, seed="x", baseline=last.baseline))
    assert not taken.refused and {p.fate for p in taken.pushed} == {"applied"}
    repeated = replica.work(order)  # what it would have done itself
    assert {p.fate for p in repeated.pushed} == {"repeated"}
    assert taken.proposals == repeated.proposals and len(taken.proposals) == 3
    assert [e.point.key for e in again.learner.elites] == [e.point.key for e in replica.learner.elites]
    assert taken.entropy == repeated.entropy and taken.baseline == repeated.baseline


def test_an_order_that_comes_again_after_it_was_done_is_refused(tmp_path):
    _, [replica], held = crew(tmp_path)
    order = Order(0, lessons(4), lessons(4), 1)
    assert not replica.work(order).refused
    versions = [shard.version for shard in held]
    assert replica.work(order).refused and [shard.version for shard in held] == versions


def test_replicas_learn_of_each_other_through_the_shards_with_names_that_only_one_has_met(tmp_path):
    _, replicas, _ = crew(tmp_path, replicas=2)
    mine = [lesson for lesson in lessons(40) if lesson.point.values["kind"] == "b"][:4]
    told(replicas[0], mine, after=0, number=1)
    assert not any("rate" in name for name in replicas[1].policy.tensors)
    replicas[1].work(Order(0))
    assert same(tensors(replicas[0].policy), tensors(replicas[1].policy))
    assert any("rate" in name for name in replicas[1].policy.tensors)
    point = mine[0].point
    assert torch.equal(*(replica.policy.log_probs([point]) for replica in replicas))


def test_a_gradient_is_made_with_the_weights_of_the_latest_proposals(tmp_path):
    _, replicas, _ = crew(tmp_path, replicas=3)
    several = lessons(4)
    staleness = [told(r, several, after=0, number=1).pushed for r in replicas]
    assert [{p.staleness for p in pushed} for pushed in staleness] == [{0}, {1}, {2}]


def test_where_every_child_has_failed_nothing_is_pushed(tmp_path):
    _, [replica], held = crew(tmp_path)
    failed = [Lesson(lesson.point, float("-inf")) for lesson in lessons(4)]
    assert told(replica, failed, after=0, number=1).pushed == []
    assert [shard.version for shard in held] == [0, 0]


def test_proposals_are_those_of_the_weights_and_the_seed(tmp_path):
    _, [replica], _ = crew(tmp_path)
    one, again, other = (replica.work(Order(0, wanted=5, seed=seed)).proposals for seed in "aab")
    assert one == again != other
    assert all(Space(grows).at(values).values == values for values in one)


def test_what_grows_goes_by_the_children_of_the_whole_search(tmp_path):
    _, [replica], _ = crew(tmp_path, growth=Growth(step=1, every=10))
    for children, depth in ((0, 1), (9, 1), (10, 2), (35, 4), (99, 4)):
        proposals = replica.work(Order(0, wanted=4, told=children, seed="s")).proposals
        assert {p["depth"] for p in proposals} == {depth}
