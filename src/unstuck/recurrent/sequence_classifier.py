"""A class, or a few numbers, for a whole sequence."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.recurrent.cell import Definition
from unstuck.recurrent.layers import Recurrent


class SequenceClassifier(nn.Module):
    """Recurrent layers over a sequence, and a linear map of what they have found.

    Args:
        input_size: Numbers in the input of each step.
        hidden_size: Units of each layer and direction.
        num_classes: Numbers to answer with: logits of classes, or what a regression is to tell.
        cell: Name of a cell, or a function that makes one, see `layers.Recurrent`.
        num_layers: Layers on top of each other.
        bidirectional: Sequences are read from both ends.
        reads: What the linear map sees of the last layer: its output after the "last" step of each direction, or the "mean" of its
            outputs over the steps that a sequence has. The mean gives every step a short way to the loss; the last output suits
            answers that are only known at the end.
        dropout: Rate, between layers and before the linear map.
        **settings: Of `layers.Recurrent` and of the cell, such as `horizon`.

    Attributes:
        recurrent: The layers.
        output: The linear map.

    Raises:
        MisuseError: `reads` is something else, or a size or setting can't be.

    Example:
        >>> classifier = SequenceClassifier(12, 32, 9, cell="gru", reads="mean")
        >>> classifier(torch.zeros(5, 20, 12), torch.tensor([20, 7, 12, 20, 3])).shape
        torch.Size([5, 9])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        *,
        cell: str | Definition = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        reads: str = "last",
        dropout: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        if reads not in ("last", "mean"):
            raise MisuseError(f"reads is {reads!r}: give 'last' or 'mean'")
        self.reads = reads
        self.recurrent = Recurrent(
            cell, input_size, hidden_size, num_layers,
            batch_first=True, bidirectional=bidirectional, dropout=dropout, **settings,
        )  # fmt: skip
        width = (self.recurrent.proj_size or hidden_size) * self.recurrent.num_directions
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, num_classes)

    def forward(
        self, inputs: Float[Tensor, "batch time input"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch class"]:
        """Answers for a batch of sequences.

        Args:
            inputs: The sequences.
            lengths: Steps of each; what comes after is not looked at. All steps unless given.

        Returns:
            Logits.
        """
        outputs, states = self.recurrent(inputs, lengths=lengths)
        if self.reads == "mean":
            return self.output(self.dropout(_mean(outputs, lengths)))
        last = states if isinstance(states, Tensor) else states[0]
        return self.output(self.dropout(torch.cat(last[-self.recurrent.num_directions :].unbind(), dim=1)))


def _mean(outputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean over the true steps of outputs that are 0 after them; 0 where there is no step."""
    if lengths is None:
        return outputs.mean(dim=1)
    return outputs.sum(dim=1) / lengths.to(outputs.device).clamp_min(1)[:, None]
