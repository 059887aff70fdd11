import math
import random

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.search.policy import Policy, initial
from unstuck.search.space import Links, Range, Space


def mixed(draw):
    """A condition, a depth, links, and ranges of all kinds."""
    layers = draw.depth("layers", 1, 4)
    parts = [(draw.choice("width", [8, 16, 32], of=i), draw.links("skip", i, of=i)) for i in range(layers)]
    kind = draw.choice("kind", ["SGD", "Adam"])
    momentum = draw.number("momentum", 0.0, 0.99) if kind == "SGD" else None
    return parts, kind, momentum, draw.number("rate", 1e-5, 1.0, log=True), draw.integer("batch", 1, 500, log=True)


def cell(draw):
    return [draw.choice("op", ["a", "b", "c"], of=i) for i in range(3)]


def linked(draw):
    return [draw.links("skip", i, of=i) for i in range(1, 5)]


def points(space, count=8, seed=0, **options):
    policy = Policy(seed, **options)
    return policy, [policy.propose(space, random.Random(i)) for i in range(count)]


def stirred(policy, scale=1.0):
    """Weights that have gone somewhere: at the start all is nearly alike, which hides mistakes."""
    for name, tensor in policy.weights().items():
        policy.load({name: tensor + scale * initial(name, tensor.shape, 99) * 8})
    return policy


def chance_along(policy, point):
    """Product of the step-by-step probabilities."""
    total, chances = 0.0, policy.chances(point)
    for decision in point.decisions:
        value, p = point.values[decision.name], chances[decision.name]
        if isinstance(decision, Links):
            total += sum(math.log(q if bit else 1 - q) for q, bit in zip(p.tolist(), value, strict=True))
        else:
            total += math.log(p[decision.nearest(value)])
    return total


def test_log_probs_are_those_of_the_steps():
    policy, several = points(Space(mixed), seed=3)
    stirred(policy)
    steps = [chance_along(policy, point) for point in several]
    assert len({len(point.decisions) for point in several}) > 1  # of several lengths: padding is tried
    assert policy.log_probs(several).tolist() == pytest.approx(steps, abs=1e-4)  # float32, sums of some 15 terms


def test_the_network_is_the_lstm_of_torch():
    """One layer after the other with `nn.LSTM`, the heads by hand."""
    policy, several = points(Space(cell), count=1)
    stirred(policy)
    weights, size = policy.weights(), policy.hidden_size
    lstm = nn.LSTM(size, size, 2)
    lstm.load_state_dict({name.removeprefix("lstm."): w for name, w in weights.items() if name.startswith("lstm.")})
    (head,) = (w for name, w in weights.items() if name.startswith("choice[op/"))
    x, state, expected = weights["start"], None, 0.0
    for i in range(3):
        hidden, state = lstm(x, state)
        taken = "abc".index(several[0].values[f"op[{i}]"])
        expected += float((head[:, :size] @ hidden[0].detach() + head[:, size]).log_softmax(0)[taken])
        x = head[taken : taken + 1, size + 1 :]
    assert policy.log_probs(several).tolist() == pytest.approx([expected], abs=1e-5)


def test_links_are_decided_by_anchors():
    """sigmoid(v tanh(W_prev h_j + W_curr h_i)), h_j of the link decisions before; the first part has none and a vector instead."""
    policy, (point,) = points(Space(linked), count=1)
    stirred(policy)
    weights = policy.weights()
    previous, current, v, first, values = (
        weights[f"links[skip].{n}"] for n in ("previous", "current", "vector", "first", "values")
    )
    lstm = nn.LSTM(35, 35, 2)
    lstm.load_state_dict({name.removeprefix("lstm."): w for name, w in weights.items() if name.startswith("lstm.")})
    x, state, anchors, expected = weights["start"], None, [first[0]], 0.0
    for i in range(1, 5):
        hidden, state = lstm(x, state)
        bits = point.values[f"skip[{i}]"]
        for anchor, bit in zip(anchors, bits, strict=True):
            p = torch.sigmoid(v @ torch.tanh(previous @ anchor + current @ hidden[0])).detach()
            expected += float(p.log() if bit else (1 - p).log())
        anchors.append(hidden[0])
        chosen = [values[j] for j, bit in enumerate(bits) if bit] + [values[-1]]
        x = torch.stack(chosen).mean(0)[None]
    assert policy.log_probs([point]).tolist() == pytest.approx([expected], abs=1e-4)


def test_probabilities_of_all_points_sum_to_one():
    space = Space(mixed_small)
    policy = stirred(Policy(1))
    assert float(policy.log_probs(list(space.all())).detach().exp().sum()) == pytest.approx(1.0, abs=1e-4)


def mixed_small(draw):
    kind = draw.choice("kind", ["a", "b"])
    return kind, draw.flag("twice") if kind == "a" else draw.links("skip", 2), draw.integer("layers", 1, 3)


@pytest.mark.slow
def test_proposals_come_as_often_as_their_probability_says():
    space = Space(cell)
    policy = stirred(Policy(2), 0.5)
    rng, drawn = random.Random(0), 4000
    met: dict[tuple[str, ...], int] = {}
    for _ in range(drawn):
        chosen = tuple(policy.propose(space, rng).chosen)
        met[chosen] = met.get(chosen, 0) + 1
    every = list(space.all())
    chances = policy.log_probs(every).exp().tolist()
    chi2 = sum(
        (met.get(tuple(p.chosen), 0) - drawn * q) ** 2 / (drawn * q) for p, q in zip(every, chances, strict=True)
    )
    assert chi2 < 26 + 4 * math.sqrt(2 * 26)  # 27 outcomes: mean 26, four standard deviations above


def test_entropy_is_the_mean_surprise():
    """Over all points, weighted by how likely they are, the entropies of the steps are -log p of the point."""
    every = list(Space(mixed_small).all())
    reading = stirred(Policy(1)).read(every)
    log_p, entropy = reading.log_prob.detach(), reading.entropy.detach()
    assert float((log_p.exp() * entropy).sum()) == pytest.approx(float(-(log_p.exp() * log_p).sum()), abs=1e-4)


def test_highest_entropy_counts_the_options():
    policy, (point,) = points(Space(cell), count=1)
    assert float(policy.read([point]).highest) == pytest.approx(3 * math.log(3), abs=1e-5)
    assert float(policy.read([point]).entropy.detach()) == pytest.approx(
        3 * math.log(3), rel=0.01
    )  # it starts near chance


def test_divergence_of_density_is_zero_where_links_are_as_wanted():
    policy, several = points(Space(linked), count=2)
    with torch.no_grad():
        policy.tensors["links[skip].vector"].zero_()  # every link has the probability 1/2
    assert policy.read(several, density=0.5).density.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    ten_links = 10 * (0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8))
    assert policy.read(several, density=0.2).density.tolist() == pytest.approx([ten_links] * 2, abs=1e-4)


def test_gradients_are_those_of_finite_differences():
    policy, several = points(Space(mixed), count=4, seed=5)
    stirred(policy)
    policy.log_probs(several).sum().backward()
    rng = random.Random(1)
    for name, tensor in policy.tensors.items():
        at = rng.randrange(tensor.numel())
        sides = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                tensor.view(-1)[at] += step
                sides.append(float(policy.log_probs(several).detach().double().sum()))
                tensor.view(-1)[at] -= step
        expected = (sides[0] - sides[1]) / 2e-2
        got = 0.0 if tensor.grad is None else float(tensor.grad.view(-1)[at])
        assert got == pytest.approx(expected, rel=0.02, abs=5e-3), name  # a difference of float32 sums of about 60


def test_what_a_role_starts_with_does_not_depend_on_when_it_is_met():
    one, other = Policy(4), Policy(4)
    one.propose(Space(cell), random.Random(0))
    one.propose(Space(linked), random.Random(0))
    other.propose(Space(linked), random.Random(1))
    other.propose(Space(cell), random.Random(1))
    assert one.weights().keys() == other.weights().keys()
    assert all(torch.equal(w, other.weights()[name]) for name, w in one.weights().items())
    name = "links[skip].previous"
    assert torch.equal(one.weights()[name], initial(name, (35, 35), 4))
    assert not torch.equal(one.weights()[name], initial(name, (35, 35), 5))
    assert float(one.weights()[name].abs().max()) <= 0.08


def test_a_replica_that_loads_the_weights_agrees():
    policy, several = points(Space(mixed), seed=6)
    stirred(policy)
    replica = Policy(7)
    replica.load(policy.weights())  # before it has met any role
    assert torch.equal(replica.log_probs(several), policy.log_probs(several))
    space = Space(mixed)
    drawn = [p.propose(space, random.Random(3)).values for p in (policy, replica)]
    assert drawn[0] == drawn[1]


def test_weights_of_other_sizes_are_refused():
    with pytest.raises(MisuseError, match=r"start has the shape \(1, 35\), what is loaded has \(1, 10\)"):
        Policy().load(Policy(hidden_size=10).weights())


def test_weights_given_out_are_copies():
    policy = Policy()
    policy.weights()["start"].zero_()
    assert float(policy.weights()["start"].abs().max()) > 0


def test_a_role_may_have_other_levels_elsewhere():
    space = Space(lambda draw: [draw.integer("from", 0, i, of=i) for i in range(1, 4)])
    policy, several = points(space, count=3)
    assert [len(p) for p in policy.chances(several[0]).values()] == [2, 3, 4]
    assert policy.log_probs(several).tolist() == pytest.approx([-math.log(24)] * 3, rel=0.05)


@pytest.mark.parametrize(
    "decision",
    [
        Range("r", "r", 1e-5, 1.0, log=True),
        Range("m", "m", -1.0, 0.99),
        Range("b", "b", 1, 500, log=True, whole=True),
        Range("w", "w", 0, 100, whole=True),
    ],
    ids=lambda d: d.name,
)
def test_numbers_are_drawn_from_around_their_level(decision):
    space = Space(lambda draw: draw._draw(decision))
    _, several = points(space, count=60)
    levels = decision.levels()
    assert any(p.values[decision.name] not in levels for p in several)
    assert all(decision.admits(p.values[decision.name]) for p in several)
    # All levels are met by chance, and the ends are reached from both sides of the range.
    assert len({decision.nearest(p.values[decision.name]) for p in several}) >= len(levels) - 2


def test_what_grows_is_set_by_the_schedule_and_is_no_step():
    space = Space(mixed)
    policy = Policy(grown=True)
    point = policy.propose(space, random.Random(0), depth=lambda decision: decision.low + 2)
    assert point.values["layers"] == 3
    assert "layers" not in policy.chances(point)
    assert not any(name.startswith("choice[layers") for name in policy.weights())
    assert "layers" in Policy().chances(point)


def test_a_point_of_one_scheduled_decision_is_certain():
    space = Space(lambda draw: draw.depth("layers", 1, 4))
    policy = Policy(grown=True)
    point = policy.propose(space, random.Random(0), depth=lambda decision: 2)
    assert policy.log_probs([point, point]).tolist() == [0.0, 0.0]


def test_large_weights_give_sure_decisions_and_no_warnings():
    policy, several = points(Space(mixed), count=3)
    for name, tensor in policy.weights().items():
        policy.load({name: tensor * 1e4})
    reading = policy.read(several)
    assert torch.isfinite(reading.entropy).all()
    policy.propose(Space(mixed), random.Random(0))
    assert all(((p >= 0) & (p <= 1)).all() for p in policy.chances(several[0]).values())
