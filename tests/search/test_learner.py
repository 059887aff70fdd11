import math
import random
from dataclasses import replace

import pytest
import torch

from unstuck.search.learner import Adam, Baseline, Learner, Lesson, Recipe, gradient, limited
from unstuck.search.policy import Policy
from unstuck.search.space import Space

PLAIN = Recipe(rate=1e-2, batch=2)


def pair(draw):
    return draw.choice("op", ["a", "b", "c"], of=0) + draw.choice("op", ["a", "b", "c"], of=1)


SPACE = Space(pair)


def at(chosen):
    return SPACE.at({"op[0]": chosen[0], "op[1]": chosen[1]})


def lesson(chosen, reward, **options):
    return Lesson(at(chosen), reward, **options)


def learner(recipe=PLAIN, seed=0):
    return Learner(Policy(seed), recipe)


def taught(who, lessons):
    for each in lessons:
        who.observe(each)
    return who.gradient(lessons)


def same_gradients(one, other, tolerance=1e-6):
    assert one.keys() == other.keys()
    return all(torch.allclose(g, other[name], atol=tolerance) for name, g in one.items())


def by_hand(policy, terms):
    """Gradient of minus the sum of weight times log-probability."""
    return gradient(policy, -sum(w * policy.log_probs([at(c)])[0] for c, w in terms))


def test_a_step_makes_the_better_likelier_and_the_worse_less_so():
    """The sign of the loss: a controller that goes downhill in reward is a known mistake of others."""
    who = learner()
    both = [at("ab"), at("ca")]
    before = who.policy.log_probs(both).tolist()
    Adam(1e-2).step(who.policy.tensors, taught(who, [lesson("ab", 1.0), lesson("ca", 0.0)]))
    after = who.policy.log_probs(both).tolist()
    assert after[0] > before[0] and after[1] < before[1]


def test_what_was_really_taken_is_learned_from_not_the_likeliest():
    who = learner()
    first = {str(p.chosen): float(who.policy.log_probs([p]).detach()) for p in SPACE.all()}
    unlikely, likely = min(first, key=first.__getitem__), max(first, key=first.__getitem__)
    found = taught(who, [lesson(unlikely, 1.0), lesson(likely, 0.0)])
    assert same_gradients(found, by_hand(who.policy, [(unlikely, 0.25), (likely, -0.25)]))


def test_the_loss_is_the_mean_of_minus_advantage_times_log_probability():
    who = learner()
    taught(who, [lesson("aa", 2.0), lesson("bb", 4.0)])  # the baseline is 3 from here
    found = taught(who, [lesson("ab", 5.0), lesson("cc", 2.0), lesson("ca", 3.0)])
    assert same_gradients(found, by_hand(who.policy, [("ab", 2 / 3), ("cc", -1 / 3)]))


def test_the_baseline_starts_at_the_mean_of_the_first_batch():
    """Started at 0 it would push all that is tried at first up, whatever it is worth."""
    found = taught(learner(), [lesson("ab", 0.9), lesson("ca", 0.9)])
    assert all(float(g.abs().max()) == 0.0 for g in found.values())


def test_the_baseline_moves_by_its_decay():
    baseline = Baseline(0.9)
    baseline.update([1.0, 3.0])
    assert (baseline.mean, baseline.variance) == (2.0, 1.0)
    baseline.update([4.0, 6.0])
    assert baseline.mean == pytest.approx(0.9 * 2 + 0.1 * 5)
    assert baseline.variance == pytest.approx(0.9 * 1 + 0.1 * (4 + 16) / 2)


def test_standardised_advantages_know_no_scale():
    recipe = replace(PLAIN, advantage="standardised")
    rewards = [("ab", 1.0), ("ca", 2.0), ("bb", 4.0)]
    found = []
    for scale in (1.0, 1e-3):
        who = learner(recipe)
        taught(who, [lesson(c, r * scale) for c, r in rewards])
        found.append(taught(who, [lesson("aa", 3 * scale), lesson("cb", 1.5 * scale)]))
    assert same_gradients(*found, tolerance=1e-5)


def test_standardised_advantages_are_limited():
    who = learner(replace(PLAIN, advantage="standardised", limit=3.0))
    taught(who, [lesson("aa", 1.0), lesson("bb", 3.0)])  # mean 2, deviation 1
    found = taught(who, [lesson("ab", 4.0), lesson("ca", -1000.0)])
    assert same_gradients(found, by_hand(who.policy, [("ab", 2 / 2), ("ca", -3 / 2)]))


def test_equal_rewards_have_no_advantage():
    who = learner(replace(PLAIN, advantage="standardised"))
    taught(who, [lesson("aa", 1.0)])  # one only: no variance
    found = taught(who, [lesson("ab", 1.0), lesson("ca", 1.0)])
    assert all(float(g.abs().max()) == 0.0 for g in found.values())


def test_ranks_are_blind_to_how_rewards_are_measured():
    recipe = replace(PLAIN, advantage="ranked")
    rewards = [("ab", 0.1), ("ca", 0.5), ("bb", 0.9), ("cc", 0.2)]
    found = [
        taught(learner(recipe), [lesson(c, measure(r)) for c, r in rewards])
        for measure in (float, lambda r: -math.exp(9 / r))
    ]
    assert same_gradients(*found)
    assert any(float(g.abs().max()) > 0 for g in found[0].values())


def test_what_others_proposed_is_masked():
    """A mutation's reward says nothing of the controller's own decisions."""
    found = [taught(learner(), [lesson("ab", r, own=False), lesson("ca", 1.0), lesson("cb", 0.0)]) for r in (-5.0, 5.0)]
    assert same_gradients(*found)
    assert all(float(g.abs().max()) == 0 for g in taught(learner(), [lesson("ab", 1.0, own=False)]).values())


def test_what_is_stale_counts_less():
    who = learner()
    taught(who, [lesson("aa", 2.0), lesson("bb", 4.0)])
    found = taught(who, [lesson("ab", 5.0, weight=0.25)])
    assert same_gradients(found, by_hand(who.policy, [("ab", 0.5)]))


def test_what_failed_is_as_bad_as_the_worst():
    who = learner()
    taught(who, [lesson("aa", 1.0), lesson("bb", 3.0)])
    found = taught(who, [lesson("ab", -math.inf), lesson("ca", math.nan)])
    assert who.failed == 2
    assert same_gradients(found, by_hand(who.policy, [("ab", -0.5), ("ca", -0.5)]))
    assert who.baseline.mean == pytest.approx(0.95 * 2 + 0.05 * 1)


def test_while_all_fail_nothing_is_learned():
    who = learner(replace(PLAIN, elites=3, entropy=0.1))
    assert taught(who, [lesson("ab", -math.inf), lesson("ca", -math.inf)]) == {}
    assert who.elites == [] and who.baseline.mean is None


def test_elites_are_the_best_each_once():
    who = learner(replace(PLAIN, elites=2))
    for each in (
        lesson("ab", 1.0),
        lesson("ca", 3.0),
        lesson("ca", 4.0, own=False),
        lesson("bb", 2.0, own=False),
        lesson("cc", -math.inf),
    ):
        who.observe(each)
    assert [e.point.chosen for e in who.elites] == ["ca", "bb"]


def test_elites_are_imitated():
    who = learner(replace(PLAIN, elites=2, imitation=0.5))
    found = taught(who, [lesson("ab", 1.0, own=False), lesson("ca", 3.0, own=False)])
    assert same_gradients(found, by_hand(who.policy, [("ab", 0.25), ("ca", 0.25)]))


def test_entropy_is_pushed_up():
    who = learner(replace(PLAIN, entropy=0.1))
    point = at("ab")
    for _ in range(30):
        Adam(1e-2).step(who.policy.tensors, gradient(who.policy, -who.policy.log_probs([point]).sum()))
    before = float(who.policy.read([point]).entropy.detach())
    Adam(1e-2).step(who.policy.tensors, taught(who, [Lesson(point, 1.0)]))
    assert float(who.policy.read([point]).entropy.detach()) > before


@pytest.mark.slow
def test_density_of_links_is_drawn_to_what_is_wanted():
    space = Space(lambda draw: [draw.links("skip", i, of=i) for i in range(1, 6)])
    who, adam, rng = learner(replace(PLAIN, density=0.2, density_weight=0.8)), Adam(2e-2), random.Random(0)
    for _ in range(60):
        lessons = [Lesson(who.policy.propose(space, rng), 1.0) for _ in range(4)]
        adam.step(who.policy.tensors, taught(who, lessons))
    chances = torch.cat([torch.from_numpy(p) for p in who.policy.chances(lessons[0].point).values()])
    assert float(chances.mean()) == pytest.approx(0.2, abs=0.05)


def test_a_gradient_is_limited_over_all_names():
    found = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}
    assert {n: float(g) for n, g in limited(found, 1.0).items()} == pytest.approx({"a": 0.6, "b": 0.8})
    assert limited(found, 5.1)["a"] is found["a"] and limited(found, None) == found


@pytest.mark.slow
def test_it_finds_the_best_of_nine():
    who, adam, rng = learner(replace(PLAIN, advantage="standardised", entropy=0.02)), Adam(1e-2), random.Random(0)
    for _ in range(80):
        several = [who.policy.propose(SPACE, rng) for _ in range(4)]
        lessons = [Lesson(p, (p.chosen[0] == "b") + (p.chosen[1] == "c") / 2) for p in several]
        adam.step(who.policy.tensors, taught(who, lessons))
    assert float(who.policy.log_probs([at("bc")]).detach().exp()) > 0.9


def test_adam_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(5, generator=generator)}
    theirs = {n: w.clone().requires_grad_() for n, w in weights.items()}
    adam, reference = Adam(1e-2), torch.optim.Adam(theirs.values(), lr=1e-2)
    for i in range(5):
        names = ["a", "b"] if i != 2 else ["a"]  # one has no gradient for a while
        grads = {n: torch.randn(weights[n].shape, generator=generator) for n in names}
        for n, w in theirs.items():
            w.grad = grads.get(n)
        adam.step(weights, grads)
        reference.step()
    assert all(torch.allclose(w, theirs[n], atol=1e-6) for n, w in weights.items())


def test_shards_that_each_hold_some_names_do_what_one_does():
    def steps(shards):
        policy = Policy(1)
        for _ in range(3):
            found = gradient(policy, -policy.log_probs([at("ab"), at("ca")]).mean())
            for names, adam in shards:
                adam.step(policy.tensors, {n: g for n, g in found.items() if names(n)})
        return policy.weights()

    whole = steps([(lambda n: True, Adam(1e-2))])
    parts = steps([(lambda n: "lstm" in n, Adam(1e-2)), (lambda n: "lstm" not in n, Adam(1e-2))])
    assert all(torch.equal(w, parts[n]) for n, w in whole.items())


def test_adam_goes_on_from_its_state():
    found = [
        {"a": torch.tensor([1.0, -2.0])},
        {"a": torch.tensor([0.5, 3.0]), "late": torch.ones(2)},
        {"a": torch.ones(2)},
    ]
    one, weights = Adam(1e-2), {"a": torch.zeros(2), "late": torch.zeros(2)}
    for g in found[:2]:
        one.step(weights, g)
    other, copies = Adam(1e-2), {n: w.clone() for n, w in weights.items()}
    other.load(one.state())
    one.step(weights, found[2])
    other.step(copies, found[2])
    assert all(torch.equal(w, copies[n]) for n, w in weights.items())
