from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent.sequence_classifier import SequenceClassifier
from unstuck.recurrent.tasks import TEMPORAL_ORDER

CELLS = ["lstm", "gru", "rnn"]
LENGTHS = torch.tensor([6, 1, 4])


def classifier(**options) -> SequenceClassifier:
    torch.manual_seed(0)
    return SequenceClassifier(3, 5, 4, **options).double()


def sequences() -> Tensor:
    return torch.randn(3, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(model: SequenceClassifier, sequence: Tensor) -> Tensor:
    """The answer to one sequence, from the layers' outputs at its steps, read one by one."""
    outputs = model.recurrent(sequence[None])[0][0]
    if model.reads == "mean":
        total = torch.zeros_like(outputs[0])
        for output in outputs:
            total = total + output
        seen = total / len(outputs)
    else:
        seen = torch.cat([outputs[-1, :5], outputs[0, 5:]])  # what the way back ends with stands at the first step
    return model.output.weight @ seen + model.output.bias


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reads", ["last", "mean"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_reads_each_sequence_as_if_it_were_alone(cell, reads, bidirectional):
    model = classifier(cell=cell, reads=reads, bidirectional=bidirectional, num_layers=2)
    together = model(sequences(), LENGTHS)
    for answer, sequence, length in zip(together, sequences(), LENGTHS.tolist(), strict=True):
        torch.testing.assert_close(answer, by_hand(model, sequence[:length]), rtol=1e-12, atol=1e-14)  # float64


@pytest.mark.parametrize("reads", ["last", "mean"])
def test_what_is_padded_changes_nothing(reads):
    model, inputs = classifier(reads=reads, bidirectional=True), sequences()
    answers = model(inputs, LENGTHS)
    changed = inputs.masked_fill(torch.arange(6)[None, :, None] >= LENGTHS[:, None, None], 99.0)
    assert torch.equal(model(changed, LENGTHS), answers)
    longer = F.pad(changed, (0, 0, 0, 5), value=-7.0)
    torch.testing.assert_close(model(longer, LENGTHS), answers, rtol=1e-12, atol=1e-14)  # float64


@pytest.mark.parametrize("reads", ["last", "mean"])
def test_without_lengths_all_steps_count(reads):
    model = classifier(reads=reads)
    torch.testing.assert_close(
        model(sequences()), model(sequences(), torch.tensor([6, 6, 6])), rtol=1e-12, atol=1e-14
    )  # float64


def test_a_sequence_without_steps_has_the_answer_of_zeros():
    for reads in ("last", "mean"):
        model = classifier(reads=reads)
        assert torch.equal(model(sequences(), torch.tensor([6, 0, 2]))[1], model.output.bias)


def test_the_mean_reaches_every_step_and_the_last_output_goes_through_all():
    model, inputs = classifier(reads="mean", cell=no_memory), sequences().requires_grad_()
    model(inputs, LENGTHS)[0].sum().backward()
    assert inputs.grad is not None and bool((inputs.grad[0].abs().sum(dim=1) > 0).all())
    model, inputs = classifier(reads="last", cell=no_memory), sequences().requires_grad_()
    model(inputs, LENGTHS)[2].sum().backward()
    assert inputs.grad is not None
    assert (inputs.grad[2].abs().sum(dim=1) > 0).tolist() == [False, False, False, True, False, False]


def no_memory(step):
    return {"h": 2.0 * step.input("h")}


def test_settings_go_to_the_layers():
    model = classifier(cell="lstm", proj_size=2, bidirectional=True, horizon=50)
    assert model(sequences()).shape == (3, 4) and model.output.in_features == 4
    assert model.recurrent.horizon == 50 and model.recurrent.proj_size == 2
    model = classifier(dropout=0.5)
    assert not torch.equal(model(sequences()), model(sequences()))
    assert torch.equal(model.eval()(sequences()), model(sequences()))


def test_misuse_is_told():
    with pytest.raises(MisuseError, match="reads is 'max': give 'last' or 'mean'"):
        classifier(reads="max")


@pytest.mark.slow
@pytest.mark.parametrize("reads", ["last", "mean"])
def test_it_learns_which_of_two_marks_came_first(reads):
    torch.manual_seed(0)
    model, generator = SequenceClassifier(8, 24, 4, cell="gru", horizon=30, reads=reads), torch.Generator()
    generator.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        inputs, targets = TEMPORAL_ORDER.draw(32, 30, generator)
        loss = TEMPORAL_ORDER.loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs, targets = TEMPORAL_ORDER.draw(500, 30, generator)
    assert TEMPORAL_ORDER.solved(model(inputs), targets)
