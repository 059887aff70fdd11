"""Recurrent layers of any cell, called like torch's.

    layer = LSTM(40, 256, num_layers=2, bidirectional=True, batch_first=True)
    outputs, (h, c) = layer(x, lengths=lengths)

`LSTM`, `GRU` and `RNN` take the arguments of those in `torch.nn`, have parameters of the same names and shapes, so that a
`state_dict` goes from the one to the other and back, and give the same results. `Recurrent` makes layers of any other cell, by its
name or by a function of a user's own (see `cell`). What differs from torch is how they start: recurrent weights are orthogonal and
gates start by keeping what they have (`reset_parameters`), since a new layer of torch's has forgotten all but a thousandth after
ten steps; and that lengths can be given, which costs less than padding, where a `PackedSequence` of torch's costs several times as
much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unstuck._discover import get
from unstuck.errors import MisuseError
from unstuck.recurrent import packing
from unstuck.recurrent._backends import BACKENDS
from unstuck.recurrent._layout import Given, shapes
from unstuck.recurrent._recurrence import recur
from unstuck.recurrent.cell import Cell, Definition, Gate, trace

States = Tensor | tuple[Tensor, ...]


class Recurrent(nn.Module):
    """Stacked recurrent layers of one cell.

    Args:
        cell: Name of a cell ("layer-norm-lstm"), or a function that makes one.
        input_size: Numbers in the input of each step.
        hidden_size: Units.
        num_layers: Layers on top of each other.
        bias: Whether linear maps have biases.
        batch_first: Inputs and outputs are `(batch, time, ...)` rather than `(time, batch, ...)`. States are `(layers, batch, ...)`
            in any case.
        dropout: Rate at which outputs of all layers but the last are dropped in training.
        bidirectional: Each layer reads the sequences from both ends.
        proj_size: Width that the output is projected to; 0 for none.
        variational: `dropout` drops the same units at all steps of a sequence (Gal and Ghahramani 2016).
        recurrent_dropout: Rate at which units of the output state are dropped on the way into its linear maps, the same for a whole
            sequence.
        zoneout: Rate at which units of the states keep what they hold, of all states or by name (Krueger et al. 2017).
        horizon: Steps over which gates should remember to start with, see `reset_parameters`.
        backend: What computes it: `auto`, `c`, `triton`, `torch` or `plain`.
        device: Where parameters are.
        dtype: Their type.
        **settings: For the cell.

    Raises:
        MisuseError: A size or rate that can't be, or a cell that isn't one.
    """

    def __init__(
        self,
        cell: str | Definition,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: Mapping[str, float] | float = 0.0,
        horizon: int | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        _check(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= proj_size < max(hidden_size, 1):
            raise MisuseError(f"a projection to {proj_size} is none of {hidden_size} units to fewer")
        if not (0 <= dropout <= 1 and 0 <= recurrent_dropout < 1):
            raise MisuseError(f"dropout rates from 0 to 1 are expected, not {dropout} and {recurrent_dropout}")
        if backend not in BACKENDS:
            raise MisuseError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
        self.input_size, self.hidden_size, self.num_layers, self.proj_size = (
            input_size,
            hidden_size,
            num_layers,
            proj_size,
        )
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout, self.variational, self.recurrent_dropout, self.zoneout = (
            dropout,
            variational,
            recurrent_dropout,
            zoneout,
        )
        self.horizon, self.backend, self.settings = horizon, backend, settings
        self.definition: Definition = get("recurrent.cells", cell) if isinstance(cell, str) else cell
        self._cells: dict[bool, Cell] = {}
        self._parameters_of: list[dict[str, str]] = []  # by layer and direction: our name by that of the cell
        for place, width in self._places():
            found = shapes(self.cell, width, hidden_size, proj_size, bias=bias)
            for name, shape in found.items():
                setattr(self, f"{name}_{place}", nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
            self._parameters_of.append({name: f"{name}_{place}" for name in found})
        self.reset_parameters()

    @property
    def cell(self) -> Cell:
        """The cell as it is now, in training or in evaluation."""
        if self.training not in self._cells:
            self._cells[self.training] = trace(
                self.definition, training=self.training, project=self.proj_size > 0, zoneout=self.zoneout,
                drop_state=self.recurrent_dropout, **self.settings,
            )  # fmt: skip
        return self._cells[self.training]

    @property
    def num_directions(self) -> int:
        """2 where sequences are read from both ends, 1 otherwise."""
        return 1 + self.bidirectional

    def _places(self) -> list[tuple[str, int]]:
        """What the names of each layer's and direction's parameters end in, and the width of its input."""
        output = (self.proj_size or self.hidden_size) * self.num_directions
        return [
            (f"l{layer}{suffix}", output if layer else self.input_size)
            for layer in range(self.num_layers)
            for suffix in ("", "_reverse")[: self.num_directions]
        ]

    def _weights(self, n: int) -> dict[str, Tensor]:
        """Parameters of a layer and direction, as its cell calls them."""
        return {name: getattr(self, ours) for name, ours in self._parameters_of[n].items()}

    @property
    def _first_weight(self) -> Tensor:
        return getattr(self, next(iter(self._parameters_of[0].values())))

    @torch.no_grad()
    def reset_parameters(self, *, horizon: int | None = None, generator: torch.Generator | None = None) -> None:
        """Draws parameters anew.

        Input weights as Glorot and Bengio (2010), recurrent ones orthogonal (Saxe et al. 2014) or as the cell says, each gate by itself;
        biases where the cell says. With a horizon, biases of gates that keep are drawn so that units forget over all spans up to it, by
        the chrono rule (Tallec and Ollivier 2018): log u, u uniform from 1 to horizon - 1; those of gates that let in are the opposite.

        Args:
            horizon: Steps; that of the layer unless given.
            generator: What to draw from; torch's own unless given.

        Raises:
            MisuseError: A horizon below 3 steps.
        """
        steps = self.horizon if horizon is None else horizon
        if steps is not None and steps < 3:
            raise MisuseError(f"a horizon of {steps} steps is too short: 3 at least")
        for n in range(self.num_layers * self.num_directions):
            _draw(self.cell, self._weights(n), self.hidden_size, steps, generator)

    def flatten_parameters(self) -> None:
        """Does nothing; there for what is written for torch's layers."""

    def forward(
        self,
        x: Tensor | PackedSequence,
        states: States | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Any, States]:
        """Runs sequences through the layers.

        Args:
            x: Inputs, shape `(time, batch, input)`, `(batch, time, input)` with `batch_first`, or `(time, input)` for a single
                sequence; or packed ones.
            states: To begin with, each `(layers * directions, batch, width)`: one tensor where the cell has one state, a tuple
                where it has several; zeros unless given.
            lengths: Steps of each sequence, where they are of different length; what comes after is not looked at.

        Returns:
            Outputs of the last layer in the form of `x`, 0 after a sequence's end, and the states after each sequence's last step
            in the form of `states`.

        Raises:
            MisuseError: The shape or type of something isn't as expected.
        """
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise MisuseError("packed sequences know their lengths: don't give lengths as well")
            packed = packing.by_sizes(x.batch_sizes.tolist(), x.sorted_indices, device=x.data.device)
            output, last = self._run(x.data, packed, self._given_states(states, packed, x.data, single=False))
            return PackedSequence(output, x.batch_sizes, x.sorted_indices, x.unsorted_indices), self._form(last, packed)
        single = x.dim() == 2
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            raise MisuseError(f"inputs of shape {tuple(x.shape)} are not sequences of {self.input_size} numbers a step")
        padded = x.unsqueeze(1) if single else x.transpose(0, 1) if self.batch_first else x
        time, batch = padded.shape[:2]
        full = lengths is None
        packed = packing.full(time, batch) if full else packing.by_lengths(lengths, time, batch, device=x.device)
        given = self._given_states(states, packed, padded, single=single)
        rows, last = self._run(packed.pack(padded), packed, given)
        output = packed.unpack(rows, time)
        output = output.squeeze(1) if single else output.transpose(0, 1) if self.batch_first else output
        return output, self._form(last, packed, single=single)

    def _given_states(
        self, states: States | None, packed: packing.Packing, x: Tensor, *, single: bool
    ) -> dict[str, Tensor]:
        """First states by name, sequences in packed order.

        Raises:
            MisuseError: They aren't as the cell has them.
        """
        names, layers, batch = list(self.cell.states), self.num_layers * self.num_directions, packed.layout.batch
        widths = [self.proj_size or self.hidden_size, *[self.hidden_size] * (len(names) - 1)]
        if states is None:
            weight = self._first_weight
            return {n: weight.new_zeros(layers, batch, w) for n, w in zip(names, widths, strict=True)}
        found = (states,) if isinstance(states, Tensor) else tuple(states)
        found = tuple(s.unsqueeze(1) for s in found) if single else found
        expected = [(layers, batch, w) for w in widths]
        if [tuple(s.shape) for s in found] != expected:
            shapes_given = ", ".join(str(tuple(s.shape)) for s in found)
            raise MisuseError(f"states {', '.join(names)} of shapes {expected} are expected, not {shapes_given}")
        return {n: packed.sorted(s) for n, s in zip(names, found, strict=True)}

    def _form(self, last: dict[str, Tensor], packed: packing.Packing, *, single: bool = False) -> States:
        found = tuple(packed.unsorted(s).squeeze(1) if single else packed.unsorted(s) for s in last.values())
        return found[0] if len(found) == 1 else found

    def _run(self, x: Tensor, packed: packing.Packing, states: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """All layers on packed rows.

        Raises:
            MisuseError: They are of another type than the parameters.
        """
        weight = self._first_weight
        if torch.is_autocast_enabled(x.device.type):
            # Rounded at every step, states would lose what they are to keep.
            x, states = x.to(weight.dtype), {n: s.to(weight.dtype) for n, s in states.items()}
            with torch.autocast(x.device.type, enabled=False):
                return self._run(x, packed, states)
        if x.dtype != weight.dtype:
            raise MisuseError(f"inputs are {x.dtype}, the layer's weights {weight.dtype}")
        last: dict[str, list[Tensor]] = {name: [] for name in states}
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = self._drop(x, packed)
            outputs = []
            for direction in range(self.num_directions):
                n = layer * self.num_directions + direction
                found, ends = self._one(x, n, packed, {name: s[n] for name, s in states.items()})
                outputs.append(found)
                for name, end in ends.items():
                    last[name].append(end)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        return x, {name: ends[0][None] if len(ends) == 1 else torch.stack(ends) for name, ends in last.items()}

    def _one(
        self, x: Tensor, n: int, packed: packing.Packing, states: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One layer and direction."""
        given = Given(states, self._weights(n), self._masks(packed, x))
        if n % self.num_directions == 0:
            return recur(self.cell, x, given, packed.layout, backend=self.backend)
        output, last = recur(self.cell, packed.reverse(x), given, packed.layout, backend=self.backend)
        return packed.reverse(output), last

    def _masks(self, packed: packing.Packing, x: Tensor) -> dict[str, Tensor]:
        found = {}
        for mask in self.cell.masks:
            rows = packed.layout.rows if mask.by_step else packed.layout.batch
            found[mask.name] = (torch.rand(rows, self.hidden_size, device=x.device) < mask.rate).to(x.dtype) * mask.high
        return found

    def _drop(self, x: Tensor, packed: packing.Packing) -> Tensor:
        if not self.variational:
            return F.dropout(x, self.dropout)
        return x * packed.by_row(F.dropout(x.new_ones(packed.layout.batch, x.shape[-1]), self.dropout))

    def extra_repr(self) -> str:
        """What differs from the default, in the layer's line of a printed model."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        if type(self) is Recurrent:
            parts.insert(0, getattr(self.definition, "__name__", "cell"))
        defaults = {
            "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False, "proj_size": 0,
            "variational": False, "recurrent_dropout": 0.0, "zoneout": 0.0, "horizon": None, "backend": "auto",
        }  # fmt: skip
        given = {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}
        return ", ".join([*parts, *(f"{name}={value}" for name, value in (given | self.settings).items())])


class LSTM(Recurrent):
    """Long short-term memory, in the place of torch.nn.LSTM; see `cells.lstm` for its settings: `peephole`, `coupled`, `forget_bias`.

    Args:
        input_size: Numbers in the input of each step.
        hidden_size: Units.
        num_layers: Layers on top of each other.
        bias: As of torch.nn.LSTM, like the next four.
        batch_first: Inputs and outputs are `(batch, time, ...)`.
        dropout: Rate between layers.
        bidirectional: Both directions.
        proj_size: Width of a projected output.
        **settings: Of `Recurrent` and of the cell.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, proj_size: int = 0, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, proj_size=proj_size, **settings,
        )  # fmt: skip


class GRU(Recurrent):
    """Gated recurrent units, in the place of torch.nn.GRU; see `cells.gru` for its settings: `reset_after`, `update_bias`.

    Args:
        input_size: Numbers in the input of each step.
        hidden_size: Units.
        num_layers: Layers on top of each other.
        bias: As of torch.nn.GRU, like the next three.
        batch_first: Inputs and outputs are `(batch, time, ...)`.
        dropout: Rate between layers.
        bidirectional: Both directions.
        **settings: Of `Recurrent` and of the cell.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, **settings,
        )  # fmt: skip


class RNN(Recurrent):
    """Simple recurrent units, in the place of torch.nn.RNN; see `cells.rnn` for its settings.

    Args:
        input_size: Numbers in the input of each step.
        hidden_size: Units.
        num_layers: Layers on top of each other.
        nonlinearity: tanh, relu or sigmoid.
        bias: As of torch.nn.RNN, like the next three.
        batch_first: Inputs and outputs are `(batch, time, ...)`.
        dropout: Rate between layers.
        bidirectional: Both directions.
        **settings: Of `Recurrent` and of the cell.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True, batch_first:
        bool = False, dropout: float = 0.0, bidirectional: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            "rnn", input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, nonlinearity=nonlinearity, **settings,
        )  # fmt: skip


def detach(states: States) -> States:
    """States that no gradient goes through, to begin the next part of a long sequence with."""
    return states.detach() if isinstance(states, Tensor) else tuple(s.detach() for s in states)


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if not (isinstance(size, int) and size > 0):
            raise MisuseError(f"{name} must be a whole number above 0, not {size!r}")


def _draw(
    cell: Cell, weights: Mapping[str, Tensor], units: int, horizon: int | None, generator: torch.Generator | None
) -> None:
    some = next(iter(weights.values()))
    spans = torch.rand(units, generator=generator, device=some.device, dtype=some.dtype) * ((horizon or 2.0) - 2) + 1
    for name, gates in [("ih", cell.inputs), *((g.name, g.gates) for g in cell.groups)]:
        for n, gate in enumerate(gates):
            part = slice(n * units, (n + 1) * units)
            _draw_weight(cell, name, weights[f"weight_{name}"][part], generator)
            if f"bias_{name}" in weights:
                weights[f"bias_{name}"][part] = _bias(gate, spans if horizon else None)
    if "weight_hr" in weights:
        _orthogonal(weights["weight_hr"], generator)
    for vector in cell.vectors:
        weights[vector.name].uniform_(vector.low, vector.high, generator=generator)


def _draw_weight(cell: Cell, name: str, weight: Tensor, generator: torch.Generator | None) -> None:
    if name != "ih" and cell.identity is not None:
        nn.init.eye_(weight).mul_(cell.identity)
    elif name != "ih":
        _orthogonal(weight, generator)
    elif cell.input_scale is not None:
        weight.normal_(0.0, cell.input_scale, generator=generator)
    else:
        bound = math.sqrt(6 / sum(weight.shape))
        weight.uniform_(-bound, bound, generator=generator)


def _orthogonal(weight: Tensor, generator: torch.Generator | None) -> None:
    precise = weight if weight.dtype is torch.float64 else weight.float()  # half precision has no QR
    weight.copy_(nn.init.orthogonal_(precise, generator=generator))


def _bias(gate: Gate, spans: Tensor | None) -> Tensor | float:
    return gate.bias if spans is None or gate.keeps == 0 else gate.keeps * spans.log()
