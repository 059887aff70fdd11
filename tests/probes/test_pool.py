"""Other batches are drawn from where the script drew its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from unstuck.probes.bench import Bench
from unstuck.probes.pool import drawn

X = torch.arange(100.0)[:, None] * torch.tensor([1.0, -1.0])
Y = torch.arange(100) % 3


def training(batches):
    model = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)

    def script():
        for cut in batches:
            optimizer.zero_grad()
            x, y = cut() if callable(cut) else cut
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return script


def last(trained, batches):
    return trained(training(batches)).tapes[-1]


def check(tapes, size=10):
    """Rows of the whole, no sample in two batches, inputs and targets still together."""
    seen = []
    for tape in tapes:
        x, y = tape.data[tape.inputs[0]], tape.data[tape.targets[0]]
        assert x.shape == (size, 2) and tape.fresh
        numbers = x[:, 0].long()
        assert torch.equal(x, X[numbers]) and torch.equal(y, Y[numbers])
        seen += numbers.tolist()
    assert len(set(seen)) == len(seen)


CUTS = {
    "slice": lambda: (X[10:20], Y[10:20]),
    "index": lambda: (X[torch.arange(3, 13)], Y[torch.arange(3, 13)]),
    "list": lambda: (X[list(range(10))], Y[list(range(10))]),
}


@pytest.mark.parametrize("kind", CUTS)
def test_batches_that_were_cut_out_of_a_whole(trained, kind):
    tapes = drawn(last(trained, [CUTS[kind]] * 3))
    assert len(tapes) == 10
    check(tapes)


def test_batches_of_a_loader(trained):
    loader = DataLoader(TensorDataset(X, Y), batch_size=10, shuffle=True)
    tapes = drawn(last(trained, loader))
    assert len(tapes) == 10
    check(tapes)


WHOLE = TensorDataset(X, Y)
PARTS = {
    "random_split": (random_split(WHOLE, [60, 40], torch.Generator().manual_seed(0))[0], 6),
    "nested": (Subset(Subset(WHOLE, range(50, 100)), range(0, 50, 1)), 5),
    "joined": (ConcatDataset([Subset(WHOLE, range(70, 100)), Subset(WHOLE, range(20))]), 5),
}


@pytest.mark.parametrize("kind", PARTS)
def test_batches_of_a_part(trained, kind):
    """None of them holds a sample that the script doesn't train on."""
    part, count = PARTS[kind]
    tapes = drawn(last(trained, DataLoader(part, batch_size=10, shuffle=True)))
    assert len(tapes) == count
    check(tapes)
    mine = {int(x[0]) for x, _ in part}
    assert {int(i) for tape in tapes for i in tape.data[tape.inputs[0]][:, 0]} == mine


def test_batches_of_a_part_by_its_sampler(trained):
    sampler = SubsetRandomSampler(range(40, 80), generator=torch.Generator().manual_seed(0))
    tapes = drawn(last(trained, DataLoader(WHOLE, 10, sampler=sampler)))
    check(tapes)
    assert sorted(int(i) for tape in tapes for i in tape.data[tape.inputs[0]][:, 0]) == list(range(40, 80))


def test_a_part_some_of_which_is_drawn_more_often(trained):
    part = Subset(WHOLE, range(90, 40, -1))
    weights = [10.0 if y == 2 else 0.0 for _, y in part]
    tapes = drawn(last(trained, DataLoader(part, 10, sampler=WeightedRandomSampler(weights, 50))))
    assert len(tapes) == 5
    assert all((tape.data[tape.targets[0]] == 2).all() for tape in tapes)


def test_a_part_of_what_was_written_into_is_none(trained):
    x = X.clone()
    loader = DataLoader(Subset(TensorDataset(x, Y), range(60)), 10, shuffle=True)
    tape = last(trained, loader)
    assert drawn(tape)
    x += 1
    assert drawn(tape) == []


def test_what_a_data_set_of_ones_own_makes_of_its_tensors_is_not_known(trained):
    class Brighter(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + 1, y

    assert drawn(last(trained, DataLoader(Brighter(X, Y), batch_size=10))) == []


def test_looking_at_a_part_draws_no_random_numbers(trained):
    loader = DataLoader(PARTS["random_split"][0], batch_size=10, shuffle=True)
    plain, watched = training(loader), training(loader)
    torch.manual_seed(0)  # as for what is watched
    plain()
    state = torch.get_rng_state()
    trained(watched)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_drawn_is_repeatable(trained):
    tape = last(trained, [CUTS["slice"]] * 3)
    assert all(torch.equal(a, b) for one, other in zip(drawn(tape), drawn(tape), strict=True)
               for a, b in zip(one.data, other.data, strict=True))  # fmt: skip
    assert len(drawn(tape, most=4, samples=0)) == 4
    assert len(drawn(tape, most=4, samples=60)) == 6


def test_the_bench_has_them(trained):
    bench = Bench(trained(training([CUTS["slice"]] * 3)))
    assert len(bench.tapes) == 10
    assert bench.loss() > 0


@pytest.mark.parametrize(("size", "found"), [(33, 3), (34, 0)])
def test_fewer_than_three_are_none(trained, size, found):
    assert len(drawn(last(trained, [lambda: (X[:size], Y[:size])] * 3))) == found


def test_where_the_whole_is_not_known_there_are_none(trained):
    rows = torch.arange(10)
    assert drawn(last(trained, [lambda: (X[rows] + 0.0, Y[rows])] * 3)) == [], "augmented"
    assert drawn(last(trained, [(X[:10].clone(), Y[:10].clone())] * 3)) == []


def test_wholes_of_different_length_are_none(trained):
    assert drawn(last(trained, [lambda: (X[:10], Y[5:][:10])] * 3)) == []


def test_a_whole_that_was_written_into_is_none(trained):
    """As the memory of an agent: what is there now is not what it was trained on."""
    x, y = X.clone(), Y.clone()
    tape = last(trained, [lambda: (x[10:20], y[10:20])] * 3)
    assert drawn(tape)
    x[50] = 7.0
    assert drawn(tape) == []


def test_a_loader_that_draws_some_more_often(trained):
    """So do ours, and no sample is in an even and in an odd batch."""
    weights = torch.where(Y == 2, 10.0, 1.0)
    loader = DataLoader(TensorDataset(X, Y), 10, sampler=WeightedRandomSampler(weights.tolist(), 100))
    tapes = drawn(last(trained, loader))
    assert len(tapes) == 10
    rows = [[tape.data[tape.inputs[0]][:, 0].long() for tape in tapes[k::2]] for k in (0, 1)]
    even, odd = (torch.cat(part) for part in rows)
    assert not set(even.tolist()) & set(odd.tolist())
    share = (Y[torch.cat([even, odd])] == 2).float().mean()
    assert share.item() == pytest.approx(330 / (330 + 67), abs=0.15)


def test_a_sampler_that_nobody_knows_gives_none(trained):
    loader = DataLoader(TensorDataset(X, Y), 10, sampler=list(range(50)))
    assert drawn(last(trained, loader)) == []
    loader = DataLoader(TensorDataset(X, Y), batch_sampler=[list(range(10))] * 4)
    assert drawn(last(trained, loader)) == []


def test_batches_whose_targets_are_unlike_the_whole_give_none(trained):
    """The script chooses by hand what it draws: here always the same class."""
    chosen = torch.nonzero(Y == 2)[:, 0]
    batches = [lambda k=k: (X[chosen[10 * k : 10 * k + 10]], Y[chosen[10 * k : 10 * k + 10]]) for k in range(3)]
    made = trained(training(batches * 2))
    assert drawn(made.tapes[-1]), "nothing is known of the others"
    assert drawn(made.tapes[-1], made.tapes) == []
