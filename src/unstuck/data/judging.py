"""How well each sample is answered: losses, errors and answers, sample by sample, from outputs and targets of any loop.

`collect` goes through a loader; a `Collector` is updated in an own loop, or attached to an `unstuck.Training`. Whatever is
answered comes out in the same form: classes (also of each step of a sequence, or of each pixel), several labels at once, numbers.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unstuck._batches import outputs_and_targets
from unstuck._modes import evaluating
from unstuck.data._answers import Batch, Kind, Scale, judged_batch, kind_of, worst_first
from unstuck.data.samples import as_array, inputs_of
from unstuck.errors import MisuseError

IGNORED = -100  # the target that torch's cross-entropy leaves out


@dataclass(frozen=True, eq=False)
class Judged:
    """How each of some samples was answered, in the order in which they came.

    Attributes:
        kind: What targets are.
        losses: Cross-entropy of classes and labels, squared error of numbers; mean over all answers of a sample, shape `(samples,)`.
        errors: Share of a sample's answers that are wrong, from 0 to 1; the absolute error of numbers.
        targets: Class, or number, of samples with one answer. Of those with several, the class of the most frequent wrong answer, where
            there is one; -1 (NaN for numbers) where there is none.
        predictions: What was answered instead, in the same way.
        confidences: Probability of what was answered, mean over all answers; NaN for numbers.
        positions: Answers that count.
        num_classes: Classes, or labels; 0 for numbers.
        pairs: Class, answer and how often that came, shape `(pairs, 3)`; right ones too.
        labels: Of each of several labels how often it was rightly given, wrongly given, missed, and rightly not given, shape `(labels, 4)`.
        bins: Of answers by confidence, in fifteen equal steps: how many, sum of confidence, how many right.
        inputs: Of the worst samples, by number, where inputs were given.
    """

    kind: Kind
    losses: NDArray[np.float64]
    errors: NDArray[np.float64]
    targets: NDArray[Any]
    predictions: NDArray[Any]
    confidences: NDArray[np.float64]
    positions: NDArray[np.int64]
    num_classes: int
    pairs: NDArray[np.int64]
    labels: NDArray[np.int64]
    bins: NDArray[np.float64]
    inputs: dict[int, NDArray[Any]] = field(default_factory=dict)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether any answer of a sample is wrong; of numbers, whether there is an error at all."""
        return self.errors > 0

    @property
    def num_samples(self) -> int:
        """How many there are."""
        return len(self.losses)


class Collector:
    """Takes in outputs and targets batch by batch; what it keeps doesn't grow with the size of a sample's outputs.

    Args:
        kind: What targets are; by default whole numbers with one axis less than the outputs are classes, and those of the outputs'
            shape that are 0 or 1 are labels, all else numbers.
        scale: Whether outputs are logits (or logarithms of probabilities) or probabilities; by default probabilities where all lie
            from 0 to 1, and add up to 1 over classes.
        class_axis: Of outputs, over classes; by default the one that targets don't have, the first of these (as torch's losses have it).
        ignore_index: Target that doesn't count, of classes.
        keep: How many of the worst samples' inputs are kept.

    Example:
        >>> collector = Collector()
        >>> collector.update(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
        >>> collector.judged().wrong.tolist(), collector.judged().predictions.tolist()
        ([False, True], [0, 0])
    """

    def __init__(
        self,
        *,
        kind: Kind | None = None,
        scale: Scale | None = None,
        class_axis: int | None = None,
        ignore_index: int = IGNORED,
        keep: int = 64,
    ) -> None:
        self.kind: Kind | None = kind
        self.scale: Scale | None = scale
        self.class_axis = class_axis
        self.ignore_index, self.keep = ignore_index, keep
        self.passes: list[Judged] = []
        """What was collected in each evaluation of a training that this was attached to, the last one last."""
        self._kind: Kind | None = None
        self._scale: Scale | None = None
        self._clear()

    def _clear(self) -> None:
        self._batches: list[Batch] = []
        self._inputs: dict[int, tuple[float, np.ndarray]] = {}
        self._count = 0
        self._kind, self._scale = self.kind, self.scale

    def update(self, outputs: Any, targets: Any, inputs: Any = None) -> None:
        """Takes in a batch.

        Args:
            outputs: `(batch, class)`, `(batch, class, ...)`; `(batch, ...)` for labels and numbers. Tensors or arrays.
            targets: Of as many samples.
            inputs: Of the same, to be shown with the worst of them.

        Raises:
            MisuseError: They don't fit together.
        """
        with torch.no_grad():
            outputs, targets = _tensor(outputs), _tensor(targets)
            if not outputs.dim() or not targets.dim() or len(outputs) != len(targets):
                raise MisuseError(
                    f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}; both need the same samples on their first axis"
                )
            kind = self._kind or kind_of(outputs, targets)
            batch, scale = judged_batch(
                outputs, targets, kind, scale=self._scale, class_axis=self.class_axis, ignore_index=self.ignore_index
            )
        if self._batches and batch.num_classes != self._batches[0].num_classes:
            raise MisuseError(
                f"{batch.num_classes} classes after {self._batches[0].num_classes}; all batches need the same"
            )
        self._kind, self._scale = kind, scale  # all batches are of one kind: what the first one shows counts for all
        self._keep_inputs(batch, inputs)
        self._batches.append(batch)
        self._count += len(outputs)

    def judged(self) -> Judged:
        """All that was taken in; of a training, in its last evaluation.

        Raises:
            MisuseError: Nothing was.
        """
        if not self._batches:
            if self.passes:
                return self.passes[-1]
            raise MisuseError("nothing was collected; update it with outputs and targets first")
        columns = {n: np.concatenate([b.columns[n] for b in self._batches]) for n in self._batches[0].columns}
        num_classes = self._batches[0].num_classes
        pairs = sum((b.pairs for b in self._batches), Counter[int]())
        rows = [(*divmod(code, num_classes), count) for code, count in sorted(pairs.items())]
        return Judged(
            kind=self._batches[0].kind, num_classes=num_classes, pairs=np.array(rows, np.int64).reshape(-1, 3),
            labels=np.sum([b.labels for b in self._batches], axis=0), bins=np.sum([b.bins for b in self._batches], axis=0),
            inputs={number: values for number, (_, values) in sorted(self._inputs.items())}, **columns,
        )  # fmt: skip

    @contextlib.contextmanager
    def attached(self, training: Any) -> Iterator[Collector]:
        """While which every evaluation of an `unstuck.Training` is collected, each on its own: see `passes`.

        Args:
            training: Whose `on_eval` and `around_eval` it is in; it is taken out afterwards.
        """

        def took(training: Any, outputs: Any, targets: Any) -> None:
            self.update(outputs, targets)

        @contextlib.contextmanager
        def one_pass(training: Any) -> Iterator[None]:
            self._clear()
            yield
            if self._batches:
                self.passes.append(self.judged())

        training.on_eval.append(took)
        training.around_eval.append(one_pass)
        try:
            yield self
        finally:
            training.on_eval.remove(took)
            training.around_eval.remove(one_pass)

    def _keep_inputs(self, batch: Batch, inputs: Any) -> None:
        """Keeps those of the worst samples so far.

        Raises:
            MisuseError: Inputs are not one for each sample.
        """
        if inputs is None:
            return
        if len(inputs) != len(batch.columns["losses"]):
            raise MisuseError(f"{len(inputs)} inputs of {len(batch.columns['losses'])} samples; each needs one")
        for i in worst_first(batch.columns["losses"], batch.columns["errors"])[: self.keep].tolist():
            array = as_array(inputs[i])
            self._inputs[self._count + i] = (float(batch.columns["losses"][i]), np.array(array))
        best = sorted(self._inputs, key=lambda number: -self._inputs[number][0])[: self.keep]
        self._inputs = {number: self._inputs[number] for number in best}


def collect(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], tuple[Any, Any]] | None = None,
    inputs: int | str = 0,
    **settings: Any,
) -> Judged:
    """Goes through a loader once, in evaluation mode and without gradients; modes are as before afterwards.

    Args:
        model: The network.
        loader: Batches of inputs and targets. Samples are numbered in the order in which they come, so don't shuffle it.
        forward: Takes the model and a batch, and returns outputs and targets, where a batch is something else.
        inputs: Where the inputs are in a batch, to keep those of the worst samples; none are kept where a sample has several.
        settings: Of the `Collector`.

    Returns:
        How each sample was answered.

    Raises:
        MisuseError: There are no batches, or outputs and targets don't fit together.
    """  # noqa: DOC502
    collector = Collector(**settings)
    with evaluating(model), torch.no_grad():
        for batch in loader:
            collector.update(*(forward or outputs_and_targets)(model, batch), inputs=_shown(inputs_of(batch, inputs)))
    return collector.judged()


def _shown(inputs: Any) -> Any:
    """What is kept of the inputs of a batch: None where they are several tensors, in a tuple, list or dict."""
    parts = inputs if isinstance(inputs, tuple | list) else ()
    return None if isinstance(inputs, Mapping) or any(isinstance(part, Tensor) for part in parts) else inputs


def _tensor(values: Any) -> Tensor:
    """On the processor; a copy of arrays that can't be written to or run backwards."""
    return torch.from_numpy(np.require(as_array(values), requirements=["C", "W"]))
