"""Dropout: kept in expectation, the same by the same seed, and only what is to be dropped."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_sequence, pad_sequence

from unstuck.errors import MisuseError, NotFoundError
from unstuck.recurrent.layers import LSTM
from unstuck.regularization import dropout
from unstuck.regularization.dropout import (
    Curriculum,
    Dropout,
    EmbeddingDropout,
    KeepSchedule,
    LockedDropout,
    WordDropout,
    drop_weights,
    set_keep,
)
from unstuck.training import Training


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("keep", [0.8, 0.5, 0.1])
def test_it_draws_the_very_numbers_of_torch(keep):
    x = torch.randn(50, 40, generator=seeded())
    torch.manual_seed(3)
    ours = Dropout(keep)(x)
    torch.manual_seed(3)
    torch.testing.assert_close(ours, nn.Dropout(1 - keep)(x))
    assert torch.equal(Dropout(keep).eval()(x), x)
    assert torch.equal(Dropout(1.0)(x), x)


@pytest.mark.parametrize("make", [
    lambda: Dropout(0.8, generator=seeded()), lambda: Dropout(0.3), lambda: Dropout(torch.tensor([0.9, 0.5, 0.2]), generator=seeded()),
    lambda: LockedDropout(0.4, generator=seeded()),
])  # fmt: skip
def test_expectation_and_spread_are_those_on_paper(make):
    """Mean 1 in training as in evaluation; variance (1 - keep) / keep. Five standard errors of 20,000 draws each."""
    torch.manual_seed(0)
    drop, draws = make(), 20_000
    x = torch.ones(1, draws, 3)  # LockedDropout: one step
    found = drop(x)[0]
    keep = torch.as_tensor(drop.keep).expand(3)
    spread = ((1 - keep) / keep).sqrt()
    assert ((found.mean(0) - 1).abs() <= 5 * spread / math.sqrt(draws)).all()
    fourth = ((1 - keep) ** 3 + keep**3) / (keep * (1 - keep))  # kurtosis of a coin
    assert ((found.var(0) - spread**2).abs() <= 5 * spread**2 * ((fourth - 1) / draws).sqrt() + 1e-3).all()
    for unit in range(3):
        values = torch.tensor([0.0, 1 / float(keep[unit])])
        torch.testing.assert_close(found[:, unit].unique(), values)
    assert torch.equal(drop.eval()(x), x)


def test_the_same_seed_gives_the_same_mask_and_leaves_torchs_numbers_alone():
    x = torch.ones(7, 5, 6)
    state = torch.get_rng_state()
    for kind in (Dropout, LockedDropout):
        one, other = kind(0.5, generator=seeded(1)), kind(0.5, generator=seeded(1))
        first = one(x)
        assert torch.equal(first, other(x))
        assert not torch.equal(first, one(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_probability_by_unit_goes_with_the_model_but_not_into_its_checkpoint():
    model = nn.Sequential(nn.Linear(3, 3), Dropout(torch.tensor([1.0, 1.0, 0.5])))
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    assert model.to("meta")[1].keep.device.type == "meta"
    again = copy.deepcopy(nn.Sequential(Dropout(torch.tensor([1.0, 0.25]), generator=seeded(2))))
    assert (again(torch.ones(100, 2))[:, 0] == 1).all()
    half = Dropout(torch.tensor([0.5, 1.0]))(torch.ones(4, 2, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16


def test_gradients_pass_where_units_are_kept():
    x = torch.ones(100, requires_grad=True)
    found = Dropout(0.5, generator=seeded())(x)
    found.sum().backward()
    assert torch.equal(x.grad, found.detach())


# ---------------------------------------------------------------------- sequences and words


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_locked_mask_is_the_same_at_all_steps_and_another_for_each_sequence(batch_first):
    time = 1 if batch_first else 0
    x = torch.ones(20, 20, 16)
    found = LockedDropout(0.5, batch_first=batch_first, generator=seeded())(x)
    assert (found == found.narrow(time, 0, 1)).all()
    across = found.select(time, 0)
    assert not (across == across[:1]).all()
    assert set(found.unique().tolist()) == {0.0, 2.0}


def test_packed_sequences_are_dropped_as_padded_ones():
    sequences = [torch.randn(n, 6, generator=seeded(n)) for n in (3, 7, 1, 5)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    one = LockedDropout(0.5, generator=seeded(4))(packed)
    padded = LockedDropout(0.5, generator=seeded(4))(pad_sequence(sequences))
    for n, (sequence, original) in enumerate(zip(nn.utils.rnn.unpack_sequence(one), sequences, strict=True)):
        assert torch.equal(sequence, padded[: len(sequence), n])
        assert len(sequence) == len(original)
    assert LockedDropout(0.5).eval()(packed) is packed
    descending = pack_sequence(sorted(sequences, key=len, reverse=True))  # no indices then
    assert LockedDropout(0.5, generator=seeded(4))(descending).data.shape == packed.data.shape


def test_one_sequence_alone_and_what_is_none():
    single = LockedDropout(0.5, batch_first=True, generator=seeded())(torch.ones(9, 8))
    assert (single == single[:1]).all()
    with pytest.raises(MisuseError, match=r"shape \(2, 3, 4, 5\)"):
        LockedDropout(0.5)(torch.ones(2, 3, 4, 5))


def test_a_dropped_word_is_zero_wherever_it_stands():
    embedding = nn.Embedding(50, 4)
    drop = EmbeddingDropout(embedding, 0.5, generator=seeded())
    tokens = torch.arange(50).repeat(3)
    found = drop(tokens).view(3, 50, 4)
    assert (found == found[:1]).all()
    kept = found[0].abs().sum(1) > 0
    assert 10 < int(kept.sum()) < 40
    torch.testing.assert_close(found[0][kept], 2 * embedding.weight[kept])
    found.sum().backward()
    assert (embedding.weight.grad[~kept] == 0).all()
    assert torch.equal(drop.eval()(tokens), embedding(tokens))


def test_words_become_the_unknown_one_but_those_that_are_spared():
    tokens = torch.arange(2000).view(20, 100) % 10
    drop = WordDropout(99, 0.7, spared=(0, 5), generator=seeded())
    found = drop(tokens)
    for word in range(10):
        share = (found[tokens == word] == word).float().mean().item()
        # five standard errors of 200 coins
        assert share == (1.0 if word in (0, 5) else pytest.approx(0.7, abs=5 * math.sqrt(0.21 / 200)))
    assert set(found[found != tokens].tolist()) == {99}
    assert found.dtype == tokens.dtype
    assert torch.equal(drop.eval()(tokens), tokens)


# ---------------------------------------------------------------------- weights


def test_weights_are_dropped_and_have_their_mean_in_evaluation():
    torch.manual_seed(0)
    layer, x = nn.Linear(30, 20), torch.randn(8, 30)
    plain = layer(x).detach()
    original = layer.weight.detach().clone()
    optimizer = torch.optim.SGD([layer.weight], lr=0.1)
    (mask,) = drop_weights(layer, {"weight": 0.5}, generator=seeded())
    drawn = layer.weight
    assert ((drawn == 0) | torch.isclose(drawn, 2 * original)).all()
    assert 0.4 < (drawn == 0).float().mean() < 0.6  # of 600: 0.5 but for five standard errors
    layer(x).sum().backward()
    optimizer.step()  # which still has the weight that is trained
    assert not torch.equal(layer.eval().weight, original)
    layer.parametrizations.weight.original.data.copy_(original)
    torch.testing.assert_close(layer(x), plain)
    assert isinstance(mask, dropout.WeightMask)
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert torch.equal(layer.weight, original)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, LSTM])
def test_recurrent_weights_are_dropped_in_ours_and_in_torchs(kind):
    torch.manual_seed(0)
    layer, x = kind(3, 8), torch.randn(5, 2, 3)
    plain = layer(x)[0].detach()
    before = layer.weight_hh_l0.detach().clone()
    drop_weights(layer, {"weight_hh_l0": 0.5}, generator=seeded())
    one, other = layer(x)[0], layer(x)[0]
    assert torch.equal(one[0], plain[0])  # nothing recurs at the first step
    assert not torch.allclose(one, plain)
    assert not torch.allclose(one, other)
    one.sum().backward()
    assert layer.parametrizations.weight_hh_l0.original.grad is not None
    copied = copy.deepcopy(layer)  # nothing with a graph is left in it
    torch.testing.assert_close(copied.eval()(x)[0], plain)

    by_hand = kind(3, 8)  # with the same mask
    by_hand.load_state_dict(
        {n.replace("parametrizations.", "").replace(".original", ""): p for n, p in layer.state_dict().items()}
    )
    mask = torch.empty_like(before).bernoulli_(0.5, generator=seeded()) * 2
    with torch.no_grad():
        by_hand.weight_hh_l0.copy_(mask * before)
    torch.testing.assert_close(by_hand(x)[0], one)


def test_two_weights_of_a_layer_are_read_once_each():
    torch.manual_seed(0)
    layer = nn.LSTM(3, 8, num_layers=2)
    drop_weights(layer, {"weight_hh_l0": 0.5})
    drop_weights(layer, {"weight_hh_l1": 0.5})
    assert len(layer._forward_pre_hooks) == 1
    torch.manual_seed(1)
    one = layer(torch.ones(4, 1, 3))[0]
    torch.manual_seed(2)
    assert not torch.allclose(one, layer(torch.ones(4, 1, 3))[0])
    with pytest.raises(RuntimeError):
        layer(torch.ones(4, 1, 7))
    copy.deepcopy(layer)  # also after a pass that failed


def test_a_weight_that_is_not_there():
    with pytest.raises(NotFoundError, match="LSTM has no parameter 'weight_hh_0'; did you mean 'weight_hh_l0'"):
        drop_weights(nn.LSTM(2, 2), {"weight_hh_0": 0.5})


# ---------------------------------------------------------------------- probabilities


def net():
    return nn.Sequential(
        nn.Linear(4, 16), nn.ReLU(), Dropout(0.9), nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.1)), nn.Linear(16, 2)
    )


def test_probabilities_are_set_by_path_or_for_all():
    model = net()
    set_keep(model, {"2": 0.8, "3": 0.7})
    assert (model[2].keep, model[3][1].p) == (0.8, pytest.approx(0.3))
    set_keep(model, 0.6)
    assert (model[2].keep, model[3][1].p) == (0.6, pytest.approx(0.4))
    set_keep(model, {"2": torch.full((16,), 0.5)})
    assert model[2].keep.tolist() == [0.5] * 16
    set_keep(model, {"2": 0.9})
    assert model[2].keep == 0.9
    with pytest.raises(NotFoundError, match="no module '3.7'; did you mean '3.1'"):
        set_keep(model, {"3.7": 0.5})
    with pytest.raises(MisuseError, match="no dropout in '0'"):
        set_keep(model, {"0": 0.5})
    with pytest.raises(MisuseError, match="one probability, not one by unit"):
        set_keep(model, {"3": torch.ones(16)})


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan"), torch.tensor([0.5, 0.0]), torch.tensor(2.0)])
def test_what_is_no_probability(keep):
    with pytest.raises(MisuseError, match="above 0 and at most 1"):
        Dropout(keep)


def test_a_curriculum_starts_at_one_and_ends_where_it_should():
    curriculum = Curriculum(0.5, 100)
    assert curriculum(0) == 1
    assert curriculum(10) == pytest.approx(0.5 + 0.5 / math.e)
    assert curriculum(100) == pytest.approx(0.5, abs=1e-4)


def test_a_schedule_sets_them_behind_each_step_and_goes_on_from_a_checkpoint():
    model, schedule = net(), KeepSchedule(lambda step: {"2": 1 - 0.1 * step})
    batches = [(torch.randn(4, 4, generator=seeded()), torch.tensor([0, 1, 1, 0]))] * 3
    training = Training(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), batches)
    training.on_step.append(schedule)
    other = training.copy()
    training.run()
    assert model[2].keep == pytest.approx(0.7)
    assert other.model[2].keep == 0.9
    again = KeepSchedule(schedule.keep)
    again.load_state_dict(schedule.state_dict())
    again.step(model)
    assert model[2].keep == pytest.approx(0.6)
