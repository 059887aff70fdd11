"""Shards together are one Adam, apply what they are sent once, and go on from their checkpoints."""

import pytest
import torch

from unstuck.search.learner import Adam
from unstuck.search.policy import initial
from unstuck.search.shards import Push, Shard, Shards, owner

SHAPES = {"a": (3, 4), "b": (5,), "links[x].values": (2, 2), "lstm.weight_ih_l0": (6, 3)}


@pytest.fixture
def shard(tmp_path):
    def make(name="shard", **how):
        return Shard(tmp_path / f"{name}.pt", **{"seed": 3, "rate": 0.1, **how})

    return make


def gradient(step, shapes=SHAPES):
    rng = torch.Generator().manual_seed(step)
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def together(shards):
    return Shards(len(shards), lambda calls: [getattr(shards[i], method)(given) for i, method, given in calls])


def weights(shard, shapes=SHAPES):
    return shard.pull(shapes).weights


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_together_are_one_adam_to_the_last_bit(shard, count):
    local, adam = {name: initial(name, shape, 3) for name, shape in SHAPES.items()}, Adam(0.1)
    shards = together([shard(str(i)) for i in range(count)])
    shards.exchange(SHAPES)
    for step in range(20):
        given = {n: g for n, g in gradient(step).items() if n != "b" or step % 3}  # a name without a gradient waits
        adam.step(local, given)
        exchanged = shards.exchange(SHAPES, given, replica=1, number=step + 1)
        assert {p.fate for p in exchanged.pushed} == {"applied"} and {p.staleness for p in exchanged.pushed} == {0}
    assert same(exchanged.weights, local)


def test_a_push_that_comes_again_is_applied_once(shard):
    one = shard()
    one.pull(SHAPES)
    push = Push(0, 1, gradient(0), 0)
    assert one.push(push).fate == "applied"
    before = weights(one)
    assert one.push(push).fate == "repeated"
    assert same(weights(one), before) and one.version == 1
    assert one.push(Push(1, 1, gradient(0), 1)).fate == "applied"  # of another replica
    assert one.push(Push(0, 2, gradient(0), 1)).fate == "applied"


def test_what_was_answered_is_there_after_a_restart_and_a_repeat_of_it_does_nothing(shard):
    one = shard()
    for step in range(5):
        one.push(Push(0, step + 1, gradient(step), step))
    other = shard()
    assert (other.version, other.restarts, other.lost) == (5, 1, 0)
    assert same(weights(other), weights(one))
    assert other.push(Push(0, 5, gradient(4), 4)).fate == "repeated"
    one.push(Push(0, 6, gradient(6), 5))  # goes on as if nothing had happened: moments and their steps are back as well
    other.push(Push(0, 6, gradient(6), 5))
    assert same(weights(other), weights(one))


def test_what_was_not_in_the_checkpoint_is_counted_and_may_come_again(shard):
    one = shard(every=4)
    for step in range(6):
        one.push(Push(0, step + 1, gradient(step), step))
    other = shard(every=4)
    assert (other.version, other.restarts, other.lost) == (4, 1, 2)
    assert other.push(Push(0, 5, gradient(4), 4)).fate == "applied"
    assert (shard(every=4).lost, shard(every=4).restarts) == (3, 3)


def test_a_checkpoint_is_whole_or_not_there(shard, tmp_path, monkeypatch):
    one = shard()
    one.push(Push(0, 1, gradient(0), 0))
    before = weights(one)

    def breaks(told, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", breaks)
        with pytest.raises(KeyboardInterrupt):
            one.push(Push(0, 2, gradient(1), 1))
    other = shard()
    assert other.version == 1 and same(weights(other), before)
    assert other.push(Push(0, 2, gradient(1), 1)).fate == "applied"  # as it was never answered


def test_names_that_come_late_start_alike_whoever_meets_them_first(shard):
    pulled, pushed = shard("pulled"), shard("pushed")
    pulled.pull({"a": (3, 4)})
    assert set(weights(pulled, {})) == {"a"}
    late = {"late": torch.ones(2)}
    pulled.pull({"late": (2,)})
    for one in (pulled, pushed):
        one.push(Push(0, 1, late, 0))
    assert torch.equal(weights(pulled, {})["late"], weights(pushed, {})["late"])
    assert torch.allclose(
        weights(pushed, {})["late"], initial("late", (2,), 3) - 0.1, atol=1e-6
    )  # Adam's first step is its rate


def test_what_is_pulled_does_not_change_any_more(shard):
    one = shard()
    pulled = one.pull(SHAPES)
    before = pulled.weights["a"].clone()
    one.push(Push(0, 1, gradient(0), 0))
    assert torch.equal(pulled.weights["a"], before) and pulled.version == 0


def test_staleness_is_the_number_of_updates_between(shard):
    one = shard()
    assert [one.push(Push(r, 1, gradient(r), 0)).staleness for r in range(4)] == [0, 1, 2, 3]
    assert one.push(Push(9, 1, gradient(9), 7)).staleness == 0  # made with weights that a restart has lost


def test_just_up_to_the_cap_a_gradient_counts_whole_and_beyond_it_is_dropped_or_scaled(shard):
    free, scales, drops = shard("free"), shard("scales", cap=2), shard("drops", cap=2, beyond="drop")
    for replica in range(3):
        fates = [one.push(Push(replica, 1, gradient(replica), 0)).fate for one in (free, scales, drops)]
        assert fates == ["applied"] * 3
    assert same(weights(free), weights(scales)) and same(weights(free), weights(drops))
    fates = [one.push(Push(3, 1, gradient(3), 0)).fate for one in (free, scales, drops)]
    assert fates == ["applied", "scaled", "dropped"]
    assert (free.version, scales.version, drops.version) == (4, 4, 3)
    by_hand = shard("by hand")
    for replica in range(3):
        by_hand.push(Push(replica, 1, gradient(replica), 0))
    by_hand.push(Push(3, 1, {n: g * 0.25 for n, g in gradient(3).items()}, 3))
    assert same(weights(scales), weights(by_hand))
    assert drops.push(Push(3, 1, gradient(3), 3)).fate == "repeated"  # it has been judged


def test_every_name_has_one_owner_and_many_names_are_shared_out_evenly():
    names = [f"choice[{i}]" for i in range(1000)]
    found = [owner(name, 4) for name in names]
    assert {0, 1, 2, 3} == set(found) and found == [owner(name, 4) for name in names]
    assert all(200 <= found.count(i) <= 300 for i in range(4))  # binomial, 3.6 standard deviations


def test_pushes_come_before_pulls_and_go_to_who_holds_the_names():
    seen = []

    class Fake:
        def push(self, push):
            seen.append(("push", tuple(push.gradient), push.version))
            return "pushed"

        def pull(self, shapes):
            from unstuck.search.shards import Pulled

            seen.append(("pull", tuple(shapes)))
            return Pulled({}, 7, 0, 0)

    shards = together([Fake(), Fake()])
    shards.exchange(SHAPES, {"a": torch.ones(1)}, number=1)
    shards.exchange(SHAPES, {"a": torch.ones(1)}, number=2)
    held = [tuple(n for n in SHAPES if owner(n, 2) == i) for i in range(2)]
    pulls = [("pull", names) for names in held]
    assert seen == [("push", ("a",), 0), *pulls, ("push", ("a",), 7), *pulls]
