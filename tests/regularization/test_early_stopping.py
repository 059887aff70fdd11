"""Early stopping: it ends where patience or Prechelt's criteria say, and the best weights are put back."""

from __future__ import annotations

import contextlib
import copy
import math

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.optim.weight_average import WeightAverage
from unstuck.regularization.early_stopping import GL, PQ, UP, EarlyStopping, generalization_loss, training_progress
from unstuck.training import Epoch, Training

NAN = float("nan")


def ended_at(stopping, values, losses=None):
    """The epoch at which it says so, None where it never does; the model holds the number of the epoch."""
    model = nn.Linear(1, 1)
    for epoch, value in enumerate(values):
        nn.init.constant_(model.weight, epoch)
        stopping.better(value, model, loss=losses[epoch] if losses else NAN)
        if stopping.ended:
            break
    else:
        epoch = None
    stopping.restore_to(model)
    return epoch, int(model.weight.item())


# ---------------------------------------------------------------------- patience


@pytest.mark.parametrize(("settings", "values", "expected"), [
    ({"patience": 2}, [3, 2, 2.5, 2.4, 1], (3, 1)),
    ({"patience": 1}, [3, 2, 2, 1], (2, 1)),  # equal is no better
    ({"patience": 3}, [3, 2, 2.5, 2.4, 1], (None, 4)),
    ({"patience": 2, "mode": "higher"}, [0.1, 0.5, 0.4, 0.5], (3, 1)),
    ({"patience": 2}, [NAN, 3, NAN, NAN, 1], (3, 1)),
    ({"patience": 2}, [NAN, NAN], (1, 1)),  # nothing was ever better: the weights stay
    ({"patience": 2}, [math.inf, 5, 4], (None, 2)),
    # By 0.4 in all, but never by more than 0.5 over what the patience counts from: the best weights are the last.
    ({"patience": 4, "smallest": 0.5}, [3, 2.9, 2.8, 2.7, 2.6, 1], (4, 4)),
    ({"patience": 2, "smallest": 0.15}, [3, 2.9, 2.8, 2.7, 2.6, 2.5], (None, 5)),  # small steps add up
    ({"patience": 2, "restore": False}, [3, 2, 4, 5], (3, 3)),
])  # fmt: skip
def test_it_ends_when_patience_is_out(settings, values, expected):
    assert ended_at(EarlyStopping(**settings), values) == expected


def test_what_it_has_seen_can_be_read_and_forgotten():
    stopping = EarlyStopping(2)
    ended_at(stopping, [3, 2, 4, 5])
    assert (stopping.best, stopping.best_epoch, stopping.waited, stopping.values) == (2, 1, 2, [3, 2, 4, 5])
    stopping.reset()
    assert (stopping.ended, stopping.best_epoch, stopping.waited, stopping.values) == (False, None, 0, [])
    model = nn.Linear(1, 1)
    before = model.weight.item()
    stopping.restore_to(model)
    assert model.weight.item() == before
    assert ended_at(stopping, [9, 10, 11]) == (2, 0)


# ---------------------------------------------------------------------- Prechelt's criteria


def test_generalization_loss_and_progress_by_hand():
    assert generalization_loss([4.0, 2.0, 3.0]) == pytest.approx(50)  # 100 (3 / 2 - 1)
    assert generalization_loss([4.0, 2.0]) == 0
    assert training_progress([5.0, 4.0, 3.0, 2.0, 1.0]) == pytest.approx(2000)  # 1000 (15 / (5 * 1) - 1)
    assert training_progress([1.0, 1.0]) == 0
    assert generalization_loss([0.0, 1.0]) == math.inf
    with pytest.raises(MisuseError, match="for errors from 0 on"):
        generalization_loss([-1.0, -0.5])


def test_gl_ends_above_its_percentage():
    values = [10, 8, 8.25, 8.5, 9, 7]  # 3.125, 6.25 and 12.5 percent above 8, exactly
    assert ended_at(EarlyStopping(criterion=GL(6.25)), values)[0] == 4  # 6.25 isn't above 6.25
    assert ended_at(EarlyStopping(criterion=GL(3)), values) == (2, 1)
    assert ended_at(EarlyStopping(criterion=GL(13)), values) == (None, 5)
    assert ended_at(EarlyStopping(criterion=GL(13), patience=2), values)[0] == 3  # whichever is first


def test_pq_waits_for_training_that_makes_progress():
    """At the end of each strip of five: GL = 100 (9 / 8 - 1) = 12.5; progress 2000, 500 and about 20 thousandths."""
    values = [10, 8, 9, 9, 9]
    fast, slow, still = [5, 4, 3, 2, 1], [2, 2, 1.5, 1, 1], [1.05, 1.02, 1.02, 1.01, 1]
    assert [training_progress(losses) for losses in (fast, slow, still)] == pytest.approx([2000, 500, 20])
    for losses, quotient in ((fast, 0.00625), (slow, 0.025), (still, 0.625)):
        assert ended_at(EarlyStopping(criterion=PQ(quotient * 0.99)), values, losses)[0] == 4
        assert ended_at(EarlyStopping(criterion=PQ(quotient * 1.01)), values, losses)[0] is None
    # It isn't asked within a strip, and the progress is that of the last one.
    assert ended_at(EarlyStopping(criterion=PQ(0.5)), [*values, *values], [*fast, *still])[0] == 9
    with pytest.raises(MisuseError, match="give it by better"):
        ended_at(EarlyStopping(criterion=PQ(0.5)), values)


def test_up_ends_after_strips_that_got_worse_in_a_row():
    ends = [5, 4, 4.1, 4.2, 4.0, 4.1, 4.2, 4.3]
    values = [v for end in ends for v in (9, 9, 9, 9, end)]  # only ends of strips are compared
    assert ended_at(EarlyStopping(criterion=UP(1)), values)[0] == 5 * 3 - 1
    assert ended_at(EarlyStopping(criterion=UP(2)), values)[0] == 5 * 4 - 1
    assert ended_at(EarlyStopping(criterion=UP(3)), values)[0] == 5 * 8 - 1
    assert ended_at(EarlyStopping(criterion=UP(4)), values)[0] is None
    assert ended_at(EarlyStopping(criterion=UP(2, strip=1)), ends)[0] == 3


def test_a_criterion_of_ones_own():
    class After:
        def ends(self, values, losses):
            return len(values) == 3

    assert ended_at(EarlyStopping(criterion=After()), [3, 2, 1, 0]) == (2, 2)


# ---------------------------------------------------------------------- of a Training


def overfitting(**given):
    """A wide network on thirty points of noise."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator), torch.randint(2, (60,), generator=generator)
    model = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.BatchNorm1d(64), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    parts = [(x[:30], y[:30])], [(x[30:], y[30:])]
    return Training(model, nn.functional.cross_entropy, optimizer, parts[0], evaluation=parts[1], epochs=60, **given)


def hooked(training, stopping):
    training.on_epoch.append(stopping.look)
    training.on_end.append(stopping.put_back)
    return training


def test_a_training_ends_early_and_has_its_best_weights():
    stopping = EarlyStopping(4)
    training = hooked(overfitting(), stopping)
    found = training.run()
    evaluations = [epoch.evaluation for epoch in found]
    best = min(range(len(found)), key=evaluations.__getitem__)
    assert len(found) == best + 5 < 60
    assert (stopping.best_epoch, stopping.best) == (best, evaluations[best])
    assert training.evaluate() == pytest.approx(evaluations[best])  # running statistics included
    assert stopping.losses == [epoch.loss for epoch in found]

    plain = overfitting()
    plain.epochs = best + 1
    plain.run()
    for one, other in zip(plain.model.state_dict().values(), training.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_by_the_loss_in_training():
    training = hooked(overfitting(), EarlyStopping(3, by="loss", smallest=0.2))
    assert len(training.run()) < 60


@pytest.mark.parametrize("by", ["evaluation", "loss"])
def test_what_was_evaluated_is_kept_also_where_it_is_not_what_is_trained(by):
    training = overfitting()

    @contextlib.contextmanager
    def doubled(training):
        with torch.no_grad():
            training.model[3].weight.mul_(2)
            yield
            training.model[3].weight.div_(2)

    training.around_eval.append(doubled)
    stopping = EarlyStopping(4, by=by)
    found = hooked(training, stopping).run()
    training.around_eval.clear()
    assert training.evaluate() == pytest.approx(found[stopping.best_epoch].evaluation)


@pytest.mark.parametrize("by", ["evaluation", "loss"])
def test_of_averaged_weights_the_averages_are_kept(by):
    stopping = EarlyStopping(4, by=by, smallest=0.01)
    training = overfitting(stopping=stopping)
    training.average = WeightAverage(training.model, decay=0.9)
    found = training.run()
    assert training.evaluate() == pytest.approx(found[stopping.best_epoch].evaluation)


def test_a_copy_of_the_training_has_its_own():
    stopping = EarlyStopping(4)
    training = hooked(overfitting(), stopping)
    copied = training.copy()
    assert len(copied.run()) < 60
    assert stopping.values == []
    stopping.reset()
    assert len(training.run()) == len(stopping.values)


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_been():
    values = [5, 4, 4.5, 3, 3.5, 3.4, 3.3, 3.2]
    whole, first, model = EarlyStopping(3), EarlyStopping(3), nn.Linear(1, 1)
    expected = ended_at(whole, values)
    for epoch, value in enumerate(values[:5]):
        nn.init.constant_(model.weight, epoch)
        first.better(value, model)
    state = copy.deepcopy(first.state_dict())
    second = EarlyStopping(3)
    second.load_state_dict(state)
    for epoch, value in enumerate(values[5:], 5):
        nn.init.constant_(model.weight, epoch)
        second.better(value, model)
        if second.ended:
            break
    second.restore_to(model)
    assert (epoch, int(model.weight.item())) == expected == (6, 3)
    assert (second.values, second.best_epoch) == (whole.values, whole.best_epoch)


def test_there_must_be_an_evaluation_to_stop_by():
    training = overfitting()
    training.evaluation = None
    with pytest.raises(MisuseError, match='or by="loss"'):
        EarlyStopping(3).look(training, Epoch(1.0))


@pytest.mark.parametrize(("settings", "says"), [
    ({}, "nothing says when to stop"), ({"patience": 0}, "patience is 0"), ({"patience": 2.5}, "patience is 2.5"),
    ({"patience": 1, "smallest": -1}, "smallest is -1"), ({"patience": 1, "by": "accuracy"}, "by is 'accuracy'"),
    ({"patience": 1, "mode": "min"}, "mode is 'min'"), ({"criterion": GL(1), "mode": "higher"}, 'mode must be "lower"'),
])  # fmt: skip
def test_what_cannot_be(settings, says):
    with pytest.raises(MisuseError, match=says):
        EarlyStopping(**settings)
