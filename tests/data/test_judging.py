from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.data.judging import Collector, collect
from unstuck.errors import MisuseError
from unstuck.training import Training

F = nn.functional


def judged(outputs, targets, parts=3, **settings):
    collector = Collector(**settings)
    for some, known in zip(torch.tensor_split(outputs, parts), torch.tensor_split(targets, parts), strict=True):
        collector.update(some, known)
    return collector.judged()


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator) * 3


@pytest.mark.parametrize("scale", ["logits", "probabilities", "logarithms"])
def test_classes_are_judged_as_torchs_loss_does(draw, scale):
    logits, targets = draw(20, 5), torch.arange(20) % 5
    outputs = {"logits": logits, "probabilities": logits.softmax(1), "logarithms": logits.log_softmax(1)}[scale]
    found = judged(outputs, targets)
    assert found.kind == "classes" and found.num_classes == 5
    np.testing.assert_allclose(found.losses, F.cross_entropy(logits, targets, reduction="none").numpy(), rtol=1e-4)
    assert found.predictions.tolist() == logits.argmax(1).tolist()
    assert found.wrong.tolist() == (logits.argmax(1) != targets).tolist()
    np.testing.assert_allclose(found.confidences, logits.softmax(1).amax(1).numpy(), rtol=1e-5)
    counts = np.zeros((5, 5), int)
    np.add.at(counts, (targets.numpy(), found.predictions), 1)
    assert {(a, b): n for a, b, n in found.pairs.tolist()} == {
        (a, b): counts[a, b] for a in range(5) for b in range(5) if counts[a, b]
    }


@pytest.mark.parametrize("axis", [1, -1])
def test_sequences_leave_out_what_is_padding(draw, axis):
    logits, targets = draw(6, 4, 7), torch.randint(4, (6, 7), generator=torch.Generator().manual_seed(1))
    targets[0, 3:], targets[2] = -100, -100
    found = judged(logits.movedim(1, axis), targets)
    each = F.cross_entropy(logits, targets, reduction="none", ignore_index=-100)
    counts = (targets != -100).sum(1)
    expected = each.sum(1) / counts.clamp(min=1)
    np.testing.assert_allclose(found.losses, expected.numpy(), rtol=1e-4)
    assert found.positions.tolist() == counts.tolist() and found.pairs[:, 2].sum() == counts.sum()
    wrong = ((logits.argmax(1) != targets) & (targets != -100)).sum(1) / counts.clamp(min=1)
    np.testing.assert_allclose(found.errors, wrong.numpy(), rtol=1e-6)
    assert (found.targets[2], found.predictions[2]) == (-1, -1)  # nothing of it counts


def test_the_most_frequent_mistake_of_a_picture_stands_for_it():
    targets = torch.zeros(1, 4, 4, dtype=torch.long)
    answers = torch.zeros(1, 4, 4, dtype=torch.long)
    answers[0, 0, 0], answers[0, 1] = 1, 2
    found = judged(F.one_hot(answers, 3).movedim(-1, 1) * 9.0, targets, parts=1)
    assert (found.targets[0], found.predictions[0], found.errors[0]) == (0, 2, 5 / 16)


def test_a_single_bit_is_a_choice_of_two(draw):
    logits, targets = draw(12, 1), (torch.arange(12) % 2).float()[:, None]
    found = judged(logits, targets)
    assert found.kind == "classes" and found.num_classes == 2
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")[:, 0]
    np.testing.assert_allclose(found.losses, expected.numpy(), rtol=1e-5, atol=1e-6)  # torch rounds to float32
    assert found.predictions.tolist() == (logits[:, 0] > 0).long().tolist()
    as_shares = judged(logits.sigmoid(), targets)
    np.testing.assert_allclose(as_shares.losses, found.losses, rtol=1e-4)


def test_several_labels(draw):
    logits, targets = draw(10, 3), (torch.arange(30).reshape(10, 3) % 4 == 0).float()
    found = judged(logits, targets)
    given, truth = (logits > 0).numpy(), targets.numpy() > 0
    assert found.kind == "multi-label"
    expected = [(given & truth).sum(0), (given & ~truth).sum(0), (~given & truth).sum(0), (~given & ~truth).sum(0)]
    assert found.labels.T.tolist() == [column.tolist() for column in expected]
    np.testing.assert_allclose(
        found.losses, F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1).numpy(), rtol=1e-5
    )


def test_arrays_that_cannot_be_written_to_or_run_backwards(draw):
    logits, targets = draw(6, 3).numpy(), np.arange(6) % 3
    expected = judged(torch.from_numpy(logits), torch.from_numpy(targets)).losses
    collector, backwards = Collector(), np.ascontiguousarray(logits[::-1])
    logits.flags.writeable = False
    collector.update(backwards[::-1], targets)
    collector.update(logits, targets)
    assert np.array_equal(collector.judged().losses, np.concatenate([expected, expected]))


def test_numbers(draw):
    outputs, targets = draw(8, 1), draw(8)
    found = judged(outputs, targets)
    assert found.kind == "regression" and not len(found.pairs)
    np.testing.assert_allclose(found.losses, ((outputs[:, 0] - targets) ** 2).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.targets, targets.numpy(), rtol=1e-6)


def test_bins_of_confidence_hold_all_answers(draw):
    logits, targets = draw(50, 3), torch.arange(50) % 3
    found = judged(logits, targets)
    assert found.bins[:, 0].sum() == 50 and found.bins[:, 2].sum() == (~found.wrong).sum()
    assert found.bins[:, 1].sum() == pytest.approx(found.confidences.sum())
    assert not found.bins[:5, 0].any()  # of three classes the best has a third


def test_a_model_is_gone_through_in_evaluation_mode_and_left_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3))
    model[1].eval()
    x, y = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    found = collect(model, DataLoader(TensorDataset(x, y), batch_size=7), keep=5)
    expected = F.cross_entropy(model[2](x.flatten(1)), y, reduction="none")
    np.testing.assert_allclose(found.losses, expected.detach().numpy(), rtol=1e-4)
    assert model.training and not model[1].training and model[2].training
    assert sorted(found.inputs) == sorted(np.argsort(-found.losses)[:5].tolist())
    assert all(np.array_equal(values, x[number].numpy()) for number, values in found.inputs.items())


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_of_several_inputs_to_a_sample_none_are_kept_and_all_else_is_told(kind):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)

        def forward(self, parts):
            return self.last(torch.cat(list(parts.values() if isinstance(parts, dict) else parts), 1))

    model, x, y = Both(), torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    parts = {"left": x[:, :2], "right": x[:, 2:]}
    found = collect(model, [(parts if kind is dict else kind(parts.values()), y)])
    expected = F.cross_entropy(model.last(x), y, reduction="none")
    np.testing.assert_allclose(found.losses, expected.detach().numpy(), rtol=1e-4)
    assert not found.inputs


def test_modes_are_put_back_when_a_batch_is_refused():
    model = nn.Linear(2, 2)
    with pytest.raises(MisuseError, match="forward="):
        collect(model, [{"x": torch.zeros(3, 2)}])
    assert model.training


def test_each_evaluation_of_a_training_is_collected_on_its_own():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(12, 4), torch.arange(12) % 3
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    training = Training(
        model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.5), batches, evaluation=batches, epochs=3
    )
    collector = Collector()
    with collector.attached(training):
        training.run()
    assert [found.num_samples for found in collector.passes] == [12, 12, 12]
    assert collector.passes[2].losses.mean() < collector.passes[0].losses.mean()
    expected = F.cross_entropy(model(x), y, reduction="none").detach()
    np.testing.assert_allclose(collector.judged().losses, expected.numpy(), rtol=1e-4)
    assert training.on_eval == [] and training.around_eval == []


def test_a_probability_of_nothing_keeps_its_loss_finite():
    found = judged(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), parts=1)
    assert found.losses[0] == pytest.approx(-math.log(1e-300))


@pytest.mark.parametrize(
    "outputs, targets, settings, said",
    [
        (torch.zeros(3, 2), torch.zeros(4), {}, "same samples"),
        (torch.zeros(()), torch.zeros(()), {}, "same samples"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), {}, "a target of 2 and 2 classes"),
        (torch.zeros(3, 2, 5), torch.zeros(3, 4, dtype=torch.long), {}, "axis of classes"),
        (torch.zeros(3, 2, 5), torch.zeros(3, 5, dtype=torch.long), {"class_axis": 2}, "axis of classes"),
        (torch.zeros(3, 2), torch.randn(3, 5), {}, "the same shape"),
    ],
)
def test_what_does_not_fit(outputs, targets, settings, said):
    with pytest.raises(MisuseError, match=said):
        Collector(**settings).update(outputs, targets)


def test_batches_of_one_kind_only():
    collector = Collector()
    collector.update(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    with pytest.raises(MisuseError, match="5 classes after 2"):
        collector.update(torch.zeros(3, 5), torch.tensor([0, 1, 1]))
    with pytest.raises(MisuseError, match="2 inputs of 3 samples"):
        collector.update(torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.zeros(2, 4))
    with pytest.raises(MisuseError, match="nothing was collected"):
        Collector().judged()
