from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent.tasks import ADDING, COPY_MEMORY, TASKS, TEMPORAL_ORDER, TEMPORAL_ORDER_3, adding, temporal_order


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perfect(name: str, inputs: Tensor) -> Tensor:
    """The right outputs, read off the inputs by a plain loop."""
    answers = []
    for sequence in inputs.tolist():
        if name == "adding":
            answers.append([sum(number for number, mark in sequence if mark == 1)])
            continue
        symbols = [step.index(1) for step in sequence]
        if name == "copy-memory":
            classes = [8] * (len(symbols) - 10) + symbols[:10]
            answers.append([[float(symbol == number) for number in range(9)] for symbol in classes])
        else:
            marks = "".join(str(symbol - 4) for symbol in symbols if symbol in (4, 5))
            answers.append([float(int(marks, 2) == number) for number in range(2 ** len(marks))])
    return torch.tensor(answers)


def without_memory(name: str, targets: Tensor) -> Tensor:
    """The best outputs of a network that remembers nothing."""
    if name == "adding":
        return torch.ones_like(targets)
    if name == "copy-memory":
        outputs = torch.full((*targets.shape, 9), -100.0)
        outputs[:, :-10, 8] = 0.0
        outputs[:, -10:, :8] = 0.0
        return outputs
    return torch.zeros(len(targets), TASKS[name].output_size)


@pytest.mark.parametrize("length", [20, 47])
@pytest.mark.parametrize("name", TASKS)
def test_the_answer_is_in_the_inputs_and_solves_it(name, length):
    task = TASKS[name]
    inputs, targets = task.draw(50, length, seeded())
    outputs = perfect(name, inputs)
    assert inputs.shape == (50, length + (20 if name == "copy-memory" else 0), task.input_size)
    assert outputs.shape == (*inputs.shape[: 2 if task.answers == "every" else 1], task.output_size)
    assert task.score(outputs, targets) == 1 and task.solved(outputs, targets)
    assert float(task.loss(1000 * outputs if name != "adding" else outputs, targets)) < 1e-6


@pytest.mark.parametrize("name", TASKS)
def test_the_baseline_is_the_loss_without_memory_and_solves_nothing(name):
    task = TASKS[name]
    _, targets = task.draw(40_000 if name == "adding" else 200, 30, seeded())
    outputs = without_memory(name, targets)
    # adding: the standard deviation of the squared error is 0.18, so the mean is known to 0.001
    assert float(task.loss(outputs, targets)) == pytest.approx(
        task.baseline(30), abs=4e-3 if name == "adding" else 1e-6
    )
    assert not task.solved(outputs, targets)


def test_baselines_of_the_papers():
    assert ADDING.baseline(100) == ADDING.baseline(700) == 1 / 6
    assert COPY_MEMORY.baseline(500) == pytest.approx(10 * math.log(8) / 520)
    assert TEMPORAL_ORDER.baseline(100) == pytest.approx(math.log(4))
    assert TEMPORAL_ORDER_3.baseline(100) == pytest.approx(math.log(8))


def test_marks_of_adding_are_anywhere_in_each_half():
    inputs, _ = adding(4000, 11, seeded())
    assert float(inputs[..., 0].min()) >= 0 and float(inputs[..., 0].max()) < 1
    first, second = inputs[:, :5, 1], inputs[:, 5:, 1]
    assert bool((first.sum(dim=1) == 1).all() and (second.sum(dim=1) == 1).all())
    assert bool((first.mean(dim=0) > 0.16).all() and (second.mean(dim=0) > 0.12).all())  # 1/5 and 1/6, six errors off
    assert float(inputs[..., 0].mean()) == pytest.approx(0.5, abs=0.01)


def test_copying_looks_as_in_the_paper():
    inputs, targets = COPY_MEMORY.draw(300, 6, seeded())
    symbols = inputs.argmax(dim=2)
    assert symbols.shape == targets.shape == (300, 26)
    assert bool((symbols[:, 10:15] == 8).all() and (symbols[:, 15] == 9).all() and (symbols[:, 16:] == 8).all())
    assert bool((targets[:, :16] == 8).all()) and torch.equal(targets[:, 16:], symbols[:, :10])
    assert symbols[:, :10].unique().tolist() == list(range(8))


@pytest.mark.parametrize("num_marks, places", [(2, [(10, 20), (50, 60)]), (3, [(10, 20), (33, 43), (66, 76)])])
def test_marks_of_temporal_order_are_where_the_paper_has_them(num_marks, places):
    inputs, targets = temporal_order(3000, 100, seeded(), num_marks=num_marks)
    symbols = inputs.argmax(dim=2)
    assert bool((symbols[:, 0] == 6).all() and (symbols[:, -1] == 7).all())
    times = ((symbols == 4) | (symbols == 5)).nonzero()[:, 1].reshape(3000, num_marks)
    for number, (first, last) in enumerate(places):
        assert (int(times[:, number].min()), int(times[:, number].max())) == (first, last)
    assert symbols[:, 1:9].unique().tolist() == [0, 1, 2, 3]
    counts = targets.bincount(minlength=2**num_marks) / 3000
    assert counts.tolist() == pytest.approx([0.5**num_marks] * 2**num_marks, abs=0.04)


@pytest.mark.parametrize("length", range(10, 40))
def test_marks_never_fall_on_each_other_or_on_the_ends(length):
    for num_marks in (2, 3):
        symbols = temporal_order(200, length, seeded(), num_marks=num_marks)[0].argmax(dim=2)
        assert bool((((symbols == 4) | (symbols == 5)).sum(dim=1) == num_marks).all())
        assert bool((symbols[:, 0] == 6).all() and (symbols[:, -1] == 7).all())


def test_an_answer_is_right_up_to_the_tolerance_and_a_task_solved_from_99_in_100():
    targets = torch.full((200, 1), 0.5)
    outputs = targets + 0.0799
    assert ADDING.score(outputs, targets) == 1
    outputs[:2] = 0.5 - 0.0801
    assert ADDING.score(outputs, targets) == pytest.approx(0.99) and ADDING.solved(outputs, targets)
    outputs[2] = math.nan
    assert not ADDING.solved(outputs, targets)


def test_of_copying_only_what_asks_for_memory_counts():
    _, targets = COPY_MEMORY.draw(20, 100, seeded())
    blanks = torch.zeros(20, 120, 9)
    blanks[..., 8] = 1
    assert COPY_MEMORY.score(blanks, targets) == 0  # though 110 of 120 are right


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_told_by_its_seed_alone(name):
    before = torch.get_rng_state()
    first, again, other = (TASKS[name].draw(5, 30, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name, least", [("adding", 2), ("copy-memory", 1), ("temporal-order", 10)])
def test_too_short(name, least):
    TASKS[name].draw(3, least, seeded())
    with pytest.raises(MisuseError, match=f"{least} or more"):
        TASKS[name].draw(3, least - 1, seeded())


def test_other_numbers_of_marks():
    with pytest.raises(MisuseError, match="4 marks"):
        temporal_order(3, 30, seeded(), num_marks=4)
