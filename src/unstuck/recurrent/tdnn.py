"""TDNN: layers that see a few steps of the layer below, the same at every time, so that each layer sees further than the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unstuck.errors import MisuseError


class TDNN(nn.Module):
    """Time-delay network: stacked one-dimensional convolutions over delays.

    There is an output for every step of the input. Before the start, and after the end where layers look ahead, all layers see zeros:
    the first `receptive_field - 1` outputs are told from less than a full window.

    Args:
        input_size: Channels of the input.
        hidden_sizes: Units of each hidden layer; none makes a linear filter.
        output_size: Channels of the output.
        kernel_size: How many delays a layer sees; one number for all layers, or one for each, the output layer included.
        dilation: Steps from one delay to the next, likewise.
        causal: Whether a layer looks back only. Otherwise it looks as far ahead as back, and kernel sizes must be odd.
        activation: Of hidden units.
        dropout: Share of hidden units that is dropped in training.
        bias: Whether layers have a bias.
        generator: Of the first weights; by default torch's own, as with all modules of torch.

    Attributes:
        receptive_field: How many steps of the input an output is told from.

    Raises:
        MisuseError: Numbers of layers, kernel sizes or dilations don't fit each other.

    Source:
        Waibel, Hanazawa, Hinton, Shikano and Lang 1989, "Phoneme recognition using time-delay neural networks", section II. Theirs
        has sizes 16, 8, 3 with kernels of 3 and 5, sigmoid units, no steps outside the input, and sums the squares of its last
        layer over time. Dilation as in Peddinti et al. 2015.

    Example:
        >>> tdnn = TDNN(16, [8], 3, kernel_size=[3, 5])
        >>> tdnn(torch.zeros(2, 15, 16)).shape, tdnn.receptive_field
        (torch.Size([2, 15, 3]), 7)
    """

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int],
        output_size: int,
        *,
        kernel_size: int | Sequence[int] = 3,
        dilation: int | Sequence[int] = 1,
        causal: bool = True,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        dropout: float = 0.0,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = [input_size, *hidden_sizes, output_size]
        kernels = _each_layer("kernel_size", kernel_size, len(sizes) - 1)
        dilations = _each_layer("dilation", dilation, len(sizes) - 1)
        if not causal and any(kernel % 2 == 0 for kernel in kernels):
            raise MisuseError(f"kernel sizes {kernels} with causal=False; as far ahead as back needs odd ones")
        self.causal, self.activation, self.dropout = causal, activation, nn.Dropout(dropout)
        self.reaches = [(kernel - 1) * step for kernel, step in zip(kernels, dilations, strict=True)]
        self.receptive_field = 1 + sum(self.reaches)
        layers = [
            cast(nn.Conv1d, nn.utils.skip_init(nn.Conv1d, *pair, kernel, dilation=step, bias=bias))
            for pair, kernel, step in zip(pairwise(sizes), kernels, dilations, strict=True)
        ]
        for layer in layers:
            follows = "linear" if layer is layers[-1] else "relu"
            nn.init.kaiming_uniform_(layer.weight, nonlinearity=follows, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    def forward(
        self, x: Float[Tensor, "batch time input"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch time output"]:
        """Runs over whole sequences.

        Args:
            x: The sequences.
            lengths: Steps of each, where they are padded to a common length; what is in the padding doesn't matter, NaN included.

        Returns:
            An output for every step; zeros beyond the end of a sequence, which gives the rest what it would give alone.
        """
        outside = None if lengths is None else _outside(lengths, *x.shape[:2])
        x = x.transpose(1, 2)
        for layer, reach in zip(self.layers, self.reaches, strict=True):
            if layer is not self.layers[0]:
                x = self.dropout(self.activation(x))
            x = x if outside is None else x.masked_fill(outside, 0)
            x = layer(F.pad(x, (reach, 0) if self.causal else (reach // 2, reach // 2)))
        return (x if outside is None else x.masked_fill(outside, 0)).transpose(1, 2)


def _each_layer(name: str, given: int | Sequence[int], layers: int) -> list[int]:
    found = [given] * layers if isinstance(given, int) else list(given)
    if len(found) != layers or min(found) < 1:
        raise MisuseError(f"{name} {found} for {layers} layers; give one number of at least 1, or {layers} of them")
    return found


def _outside(lengths: Tensor, batch: int, time: int) -> Bool[Tensor, "batch 1 time"]:
    if lengths.shape != (batch,) or not bool(((lengths >= 1) & (lengths <= time)).all()):
        raise MisuseError(
            f"lengths {lengths.tolist()} for {batch} sequences of {time} steps; give one from 1 to {time} for each"
        )
    return (torch.arange(time, device=lengths.device) >= lengths[:, None]).unsqueeze(1)
