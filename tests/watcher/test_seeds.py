"""Seeds are shifted, what isn't seeded is seeded, and 0 changes nothing that the script seeds itself."""

import random

import numpy as np
import pytest
import torch

from unstuck.watcher import seeds


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """All that is replaced is put back afterwards, and the random numbers go on where they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for owner, name in [
        (random, "seed"), (np.random, "seed"), (torch, "manual_seed"), (torch.random, "manual_seed"),
        (torch.cuda, "manual_seed"), (torch.cuda, "manual_seed_all"), (seeds, "begun"),
    ]:  # fmt: skip
        monkeypatch.setattr(owner, name, getattr(owner, name))
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seeded(by):
    random.seed(by)
    np.random.seed(by)
    torch.manual_seed(by)
    return drawn()


def test_every_seed_is_shifted():
    expected = seeded(12)
    seeds.shift(5)
    assert seeded(7) == expected


def test_zero_leaves_what_is_seeded_as_it_is_and_seeds_the_rest():
    kept = random.seed, np.random.seed, torch.manual_seed
    expected, unseeded = seeded(7), seeded(0)
    seeds.shift(0)
    assert drawn() == unseeded
    assert seeded(7) == expected
    assert (random.seed, np.random.seed, torch.manual_seed) == kept


def test_what_is_not_seeded_follows_the_shift():
    expected = seeded(5)
    seeds.shift(5)
    assert drawn() == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda s: random.seed(a=s),
        lambda s: np.random.seed(seed=s),
        lambda s: torch.manual_seed(seed=s),
        lambda s: torch.random.manual_seed(s),
        lambda s: torch.manual_seed(np.int64(s)),
        lambda s: random.seed(s, 2),
    ],
)
def test_however_it_is_called(call):
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    call(12)
    expected = drawn()
    seeds.shift(5)
    random.seed(-5), np.random.seed(2**32 - 5), torch.manual_seed(-5)  # 0, when shifted
    call(7)
    assert drawn() == expected


def test_seeds_that_are_no_numbers_are_given_on():
    random.seed("words")
    expected = random.random()
    seeds.shift(5)
    random.seed("words")
    assert random.random() == expected
    np.random.seed([1, 2])
    random.seed()


def test_seeds_stay_in_the_range_that_numpy_takes():
    seeds.shift(1000)
    np.random.seed(2**32 - 1)
    torch.manual_seed(2**63)


def test_generators_of_the_scripts_own_are_left_alone():
    def own():
        return (
            float(torch.rand((), generator=torch.Generator().manual_seed(3))),
            float(np.random.default_rng(3).random()),
            random.Random(3).random(),
        )

    expected = own()
    seeds.shift(5)
    assert own() == expected


def test_what_was_seeded_before_torch_came_is_not_seeded_again():
    expected = seeded(12)
    seeds.shift_without_torch(5)
    random.seed(7)
    np.random.seed(7)
    seeds.shift(5)
    torch.manual_seed(7)
    assert drawn() == expected
    random.seed(7)
    assert random.random() == expected[0]  # shifted once, not twice


@pytest.mark.parametrize("by", [0, 5])
def test_seeds_are_shifted_for_a_while_only(by):
    expected = seeded(12 + by)
    functions = random.seed, np.random.seed, torch.manual_seed, torch.random.manual_seed, torch.cuda.manual_seed
    drawn()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(KeyError), seeds.shifted(by):
        assert seeded(12) == expected
        raise KeyError
    assert functions == (
        random.seed,
        np.random.seed,
        torch.manual_seed,
        torch.random.manual_seed,
        torch.cuda.manual_seed,
    )
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_what_is_not_seeded_is_for_a_while():
    found = []
    for _ in range(2):
        drawn()
        with seeds.shifted(3):
            found.append(drawn())
    assert found[0] == found[1]
