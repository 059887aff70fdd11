"""Long-range tasks that need no data: what a network has to remember is drawn at random, and so is how long ago it was.

Each has a length as large as one likes, a loss that a network without memory can't go below (its baseline), and a rule for what counts
as right. A task is solved when 99 in 100 of new answers are right; the papers' own rules are given with each task.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unstuck.errors import MisuseError

SOLVED = 0.99
NUM_DATA, NUM_RECALLED = 8, 10  # of copying: symbols to choose from, and how many are to be remembered
TOLERANCE = 0.08  # of adding: 4% of the answer's range


@dataclass(frozen=True)
class Task:
    """A task with all that is needed to train on it and to judge the outcome.

    Attributes:
        name: Of it.
        input_size: Channels of the inputs.
        output_size: Channels that a network must answer with.
        answers: Whether it answers after the "last" step or at "every" step. A network that answers at every step gives outputs
            `(batch, time, output)`, any other `(batch, output)`.
        draw: Makes a batch, inputs and targets, from batch size, length and generator; on the generator's device.
        loss: Of outputs and targets, the mean.
        baseline: From the length to the loss of the best answer without memory.
        right: From outputs and targets to which answers are right; of copying, only those that ask for memory.
    """

    name: str
    input_size: int
    output_size: int
    answers: Literal["last", "every"]
    draw: Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    baseline: Callable[[int], float]
    right: Callable[[Tensor, Tensor], Tensor]

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """Share of right answers, from 0 to 1."""
        return float(self.right(outputs, targets).double().mean())

    def solved(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether at least 99 in 100 answers are right; give some hundred sequences that were not trained on."""
        return self.score(outputs, targets) >= SOLVED


def adding(
    batch_size: int, length: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch time 2"], Float[Tensor, "batch 1"]]:
    """Random numbers, two of them marked: the sum of those two.

    Baseline: the mean squared error of always saying 1, which is 1/6. Right: within 0.08, which is 4% of the range from 0 to 2.

    Args:
        batch_size: Number of sequences.
        length: Steps of each, at least 2.
        generator: Of all randomness; the batch is on its device.

    Returns:
        Inputs, the first channel uniform in [0, 1), the second 1 at one step of each half and 0 elsewhere; and sums.

    Raises:
        MisuseError: The length is too small.

    Source:
        Hochreiter and Schmidhuber 1997, "Long short-term memory", task 4, in the form of Le et al. 2015 and Arjovsky et al. 2016. In
        the first, numbers are in [-1, 1], the first mark is among the first ten steps, and answers are right within 0.04 on a
        scale of one; it is solved once the last 2000 are right and the mean error is below 0.01.
    """
    if length < 2:
        raise MisuseError(f"a length of {length}; adding needs 2 or more")
    device, half = generator.device, length // 2
    numbers = torch.rand(batch_size, length, generator=generator, device=device)
    first = torch.randint(half, (batch_size, 1), generator=generator, device=device)
    second = torch.randint(half, length, (batch_size, 1), generator=generator, device=device)
    marked = torch.cat([first, second], dim=1)
    marks = torch.zeros_like(numbers).scatter_(1, marked, 1.0)
    return torch.stack([numbers, marks], dim=2), numbers.gather(1, marked).sum(dim=1, keepdim=True)


def copy_memory(
    batch_size: int, length: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch time 10"], Int[Tensor, "batch time"]]:
    """Ten random symbols, a wait, a sign: the ten symbols, in order.

    Symbols 0 to 7 are data, 8 is blank, 9 the sign. Baseline: knowing when to say blank and guessing among eight ten times,
    10 ln 8 / (length + 20) a step. Right: a symbol said correctly in the last ten steps.

    Args:
        batch_size: Number of sequences.
        length: Steps of the wait, the sign included, at least 1. Sequences have `length + 20` steps.
        generator: Of all randomness; the batch is on its device.

    Returns:
        Inputs as one-hot vectors: ten symbols, `length - 1` blanks, the sign, ten blanks; and classes: `length + 10` blanks and
        the ten symbols.

    Raises:
        MisuseError: The length is too small.

    Source:
        Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks", section 4.1, after task 2 of Hochreiter and
        Schmidhuber 1997. They report the loss only.
    """
    if length < 1:
        raise MisuseError(f"a length of {length}; copying needs 1 or more")
    device, blank, sign = generator.device, NUM_DATA, NUM_DATA + 1
    data = torch.randint(NUM_DATA, (batch_size, NUM_RECALLED), generator=generator, device=device)
    given = torch.full((batch_size, length + 2 * NUM_RECALLED), blank, device=device)
    targets = given.clone()
    given[:, :NUM_RECALLED] = targets[:, -NUM_RECALLED:] = data
    given[:, NUM_RECALLED + length - 1] = sign
    return F.one_hot(given, NUM_DATA + 2).float(), targets


def temporal_order(
    batch_size: int, length: int, generator: torch.Generator, *, num_marks: int = 2
) -> tuple[Float[Tensor, "batch time 8"], Int[Tensor, " batch"]]:
    """Two (or three) marks X or Y among distractors: which came first, which second.

    Symbols 0 to 3 are distractors, 4 is X, 5 is Y, 6 begins and 7 ends a sequence. Baseline: guessing, ln 4 (ln 8). Right: the
    class with the largest output.

    Args:
        batch_size: Number of sequences.
        length: Steps of each, at least 10.
        generator: Of all randomness; the batch is on its device.
        num_marks: 2 or 3.

    Returns:
        Inputs as one-hot vectors, and classes: the marks read as a binary number, X as 0 and Y as 1, the first mark first.

    Raises:
        MisuseError: The length is too small, or the number of marks neither 2 nor 3.

    Source:
        Hochreiter and Schmidhuber 1997, tasks 6a and 6b, with their places of the marks, 10-20 and 50-60 (10-20, 33-43, 66-76) of
        100 steps, in proportion to the length. Theirs have lengths from 100 to 110 at random, and an answer is right when all
        outputs are within 0.3 of 0 or 1.
    """
    if length < 10:
        raise MisuseError(f"a length of {length}; temporal order needs 10 or more")
    if num_marks not in _PLACES:
        raise MisuseError(f"temporal order of {num_marks} marks; there are forms with 2 and with 3")
    device = generator.device
    given = torch.randint(4, (batch_size, length), generator=generator, device=device)
    marks = torch.randint(2, (batch_size, num_marks), generator=generator, device=device)
    width = length // 10 + (1 if length >= 20 else 0)  # both ends count, as in 10-20
    offsets = torch.randint(width, (batch_size, num_marks), generator=generator, device=device)
    starts = torch.tensor([max(1, length * place // 100) for place in _PLACES[num_marks]], device=device)
    given.scatter_(1, starts + offsets, 4 + marks)
    given[:, 0], given[:, -1] = 6, 7
    weights = 2 ** torch.arange(num_marks - 1, -1, -1, device=device)
    return F.one_hot(given, 8).float(), (marks * weights).sum(dim=1)


_PLACES = {2: (10, 50), 3: (10, 33, 66)}


def _close(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs() <= TOLERANCE


def _recalled(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(dim=-1) == targets)[:, -NUM_RECALLED:]


def _same_class(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.argmax(dim=-1) == targets


def _every_step(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


ADDING = Task("adding", 2, 1, "last", adding, F.mse_loss, lambda length: 1 / 6, _close)
COPY_MEMORY = Task(
    "copy-memory", NUM_DATA + 2, NUM_DATA + 1, "every", copy_memory, _every_step,
    lambda length: NUM_RECALLED * math.log(NUM_DATA) / (length + 2 * NUM_RECALLED), _recalled,
)  # fmt: skip
TEMPORAL_ORDER = Task(
    "temporal-order", 8, 4, "last", temporal_order, F.cross_entropy, lambda length: math.log(4), _same_class
)
TEMPORAL_ORDER_3 = Task(
    "temporal-order-3", 8, 8, "last", partial(temporal_order, num_marks=3), F.cross_entropy, lambda length: math.log(8), _same_class
)  # fmt: skip

TASKS = {task.name: task for task in (ADDING, COPY_MEMORY, TEMPORAL_ORDER, TEMPORAL_ORDER_3)}
