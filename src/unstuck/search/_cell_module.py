"""The source of recurrent layers on torch alone, around the lines of a searched cell."""

from __future__ import annotations

from collections.abc import Sequence


def module_source(
    name: str, base: int, keepers: Sequence[int], lines: Sequence[str], returned: str, *, memory: bool
) -> str:
    """A Python file with a class that is called like torch.nn.LSTM.

    Args:
        name: Of the class.
        base: Leaves of the cell.
        keepers: Leaves whose biases start at 1.
        lines: Statements of a step, with `x[n]` and `h[n]` for the maps of leaf n, and `c` for the cell state.
        returned: What a step returns, the output first.
        memory: Whether there is a cell state.

    Returns:
        The source.
    """
    words = _WITH_MEMORY if memory else _WITHOUT_MEMORY
    keeps = "".join(_KEEPS.format(keeper=keeper, after=keeper + 1) for keeper in keepers)
    body = "\n".join(f"        {line}" for line in lines)
    return _MODULE.format(
        name=name, base=base, leaves=leaves(base), keeps=keeps, lines=body, returned=returned, **words
    )


def leaves(base: int) -> str:
    """How many leaves, in words."""
    return "1 leaf" if base == 1 else f"{base} leaves"


_WITH_MEMORY = {
    "what": "Output and cell state to begin with, each `(layers, batch, hidden)`",
    "returns": "and the states after the last step, in the form of `states`",
    "zeros": "(zeros, zeros)",
    "each": "(h, c) in enumerate(zip(*states))",
    "step": "h, c = self.step(mapped_x, mapped_h, c)",
    "end": "(h, c)",
    "ends": "torch.stack([h for h, _ in ends]), torch.stack([c for _, c in ends])",
    "forward": """
        self, x: Tensor, states: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]""",
    "given": """
        self, mapped_x: Tensor, mapped_h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]""",
    "does": "The output and the cell state after one step.",
}
_WITHOUT_MEMORY = {
    "what": "Output to begin with, `(layers, batch, hidden)`",
    "returns": "and the output of every layer after the last step",
    "zeros": "zeros",
    "each": "h in enumerate(states)",
    "step": "h = self.step(mapped_x, mapped_h)",
    "end": "h",
    "ends": "torch.stack(ends)",
    "forward": "self, x: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor]",
    "given": "self, mapped_x: Tensor, mapped_h: Tensor) -> Tensor",
    "does": "The output after one step.",
}

_KEEPS = """
            # Leaf {keeper} says how much is kept, and starts by keeping.
            bias_ih[{keeper} * self.hidden_size : {after} * self.hidden_size] = 1.0"""

_MODULE = '''\
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class {name}(nn.Module):
    """Recurrent layers whose cell, a tree of {leaves}, was found by a search.

    Args:
        input_size: Numbers in the input of each step.
        hidden_size: Units.
        num_layers: Layers on top of each other.
        batch_first: Inputs and outputs are `(batch, time, ...)`.
    """

    KEYS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.batch_first = batch_first
        rows = {base} * hidden_size
        for layer in range(num_layers):
            width = hidden_size if layer else input_size
            shapes = [(rows, width), (rows, hidden_size), (rows,), (rows,)]
            for key, shape in zip(self.KEYS, shapes):
                parameter = nn.Parameter(torch.empty(shape))
                self.register_parameter(f"{{key}}_l{{layer}}", parameter)
        self.reset_parameters()

    def parameters_of(self, layer: int) -> list[Tensor]:
        """Weights of the input and of the output one step before, and their biases."""
        return [getattr(self, f"{{key}}_l{{layer}}") for key in self.KEYS]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws recurrent weights orthogonal and the others by Glorot's rule."""
        for layer in range(self.num_layers):
            weight_ih, weight_hh, bias_ih, bias_hh = self.parameters_of(layer)
            for part in weight_ih.split(self.hidden_size):
                nn.init.xavier_uniform_(part)
            for part in weight_hh.split(self.hidden_size):
                nn.init.orthogonal_(part)
            bias_ih.zero_()
            bias_hh.zero_(){keeps}

    def forward({forward}:
        """Runs sequences through the layers.

        Args:
            x: Inputs, `(time, batch, input)`.
            states: {what},
                zeros unless given.

        Returns:
            Outputs of the last layer, `(time, batch, hidden)`,
            {returns}.
        """
        x = x.transpose(0, 1) if self.batch_first else x
        if states is None:
            zeros = x.new_zeros(self.num_layers, x.shape[1], self.hidden_size)
            states = {zeros}
        ends = []
        for layer, {each}:
            weight_ih, weight_hh, bias_ih, bias_hh = self.parameters_of(layer)
            outputs = []
            for mapped_x in F.linear(x, weight_ih, bias_ih):
                mapped_h = F.linear(h, weight_hh, bias_hh)
                {step}
                outputs.append(h)
            x = torch.stack(outputs)
            ends.append({end})
        last = {ends}
        return x.transpose(0, 1) if self.batch_first else x, last

    def step({given}:
        """{does}"""
        x, h = mapped_x.chunk({base}, -1), mapped_h.chunk({base}, -1)
{lines}
        return {returned}
'''
