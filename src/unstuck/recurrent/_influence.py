"""How derivatives by a layer's parameters are kept: by what is multiplied with what at each step.

The gradient by a matrix is a sum over steps of outer products of gradients by columns of the slab with what was mapped. A gate's
numbers (its rows of the input's weight, of a state's weight and its bias) have the same gradient by the column in front, so they are one
*piece*, as wide as what is mapped: the input, the state and a one, side by side. Biases that are added to each other are one number here.
Vectors and the projection are pieces as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.recurrent._cotangents import Back, Passed
from unstuck.recurrent._loop import Loop


@dataclass(frozen=True)
class Piece:
    """Parameters that have the same thing mapped.

    Attributes:
        kind: `columns`, `vector` or `projection`.
        columns: Which columns of the slab.
        mapped: What is mapped, see `operands`.
        name: Of the vector.
        width: Numbers in front of each outer product.
        size: Numbers that are mapped.
    """

    kind: str
    columns: range
    mapped: str
    name: str
    width: int
    size: int

    def source(self, back: Back) -> Tensor:
        """Its gradients, `(rows of all steps, width)`."""
        if self.kind == "vector":
            return back.vectors[self.name]
        if self.kind == "projection":
            assert back.projected is not None
            return back.projected
        units = self.width // len(self.columns)
        return back.slab[:, self.columns.start * units : self.columns.stop * units]


def pieces(loop: Loop) -> list[Piece]:
    """A layer's parameters in pieces."""
    columns, units = loop.programs.columns, loop.units
    sizes = _sizes(loop)
    found: list[Piece] = []
    for n, column in enumerate(columns):
        mapped = f"{column.kind} {column.group}"
        size = sizes[mapped]
        last = found[-1] if found else None
        if last and last.mapped == mapped:
            found[-1] = Piece("columns", range(last.columns.start, n + 1), mapped, "", last.width + units, size)
        else:
            found.append(Piece("columns", range(n, n + 1), mapped, "", units, size))
    found += [Piece("vector", range(0), "one", v.name, units, 1) for v in loop.cell.vectors]
    if loop.cell.projection is not None:
        found.append(Piece("projection", range(0), "projection", "", loop.given.weights["weight_hr"].shape[0], units))
    return found


def _sizes(loop: Loop) -> dict[str, int]:
    weights, bias = loop.given.weights, _has_bias(loop)
    found = {}
    for column in loop.programs.columns:
        inputs = weights["weight_ih"].shape[1] if column.kind != "linear" else 0
        group = weights[f"weight_{loop.cell.groups[column.group].name}"].shape[1] if column.group >= 0 else 0
        found[f"{column.kind} {column.group}"] = inputs + group + bias
    return found


def _has_bias(loop: Loop) -> bool:
    return any(name.startswith("bias_") for name in loop.given.weights)


def operands(passed: Passed) -> dict[str, Tensor]:
    """What was mapped at each step, `(time, batch, size)`, by name.

    Args:
        passed: The steps.

    Returns:
        Tensors by `Piece.mapped`.
    """
    loop, buffers = passed.loop, passed.buffers
    x = passed.by_step(loop.x)
    one = x.new_ones(passed.time, passed.batch, 1)
    found = {"one": one}
    if loop.cell.projection is not None:
        found["projection"] = passed.by_step(buffers.operands["hr"])
    for column in loop.programs.columns:
        parts = [x] if column.kind != "linear" else []
        if column.group >= 0:
            group = loop.cell.groups[column.group]
            rows = buffers.operands[group.name] if group.state is None else buffers.states[group.state]
            parts.append(passed.by_step(rows))
        name = f"{column.kind} {column.group}"
        if name not in found:
            found[name] = torch.cat([*parts, one] if _has_bias(loop) else parts, -1)
    return found


def by_parameter(loop: Loop, cut: Sequence[Piece], found: Sequence[Tensor]) -> dict[str, Tensor]:
    """Derivatives in pieces as derivatives by the parameters.

    Args:
        loop: Of the layer.
        cut: The pieces.
        found: Of each, `(..., width, size)`.

    Returns:
        By name, `(..., *shape)`.
    """
    front = found[0].shape[:-2]
    made = {name: found[0].new_zeros(*front, *w.shape) for name, w in loop.given.weights.items()}
    for piece, part in zip(cut, found, strict=True):
        if piece.kind == "vector":
            made[piece.name].copy_(part[..., 0])
        elif piece.kind == "projection":
            made["weight_hr"].copy_(part)
        else:
            for n, column in enumerate(part.split(loop.units, -2)):
                _put(loop, made, piece.columns[n], column)
    return made


def _put(loop: Loop, made: dict[str, Tensor], number: int, part: Tensor) -> None:
    """The derivatives of one column: `(..., hidden, size)`."""
    column, units, start = loop.programs.columns[number], loop.units, 0
    names: list[tuple[str, list[str]]] = []
    if column.kind != "linear":
        names.append(("ih", [g.name for g in loop.cell.inputs]))
    if column.group >= 0:
        group = loop.cell.groups[column.group]
        names.append((group.name, [g.name for g in group.gates]))
    for name, gates in names:
        rows = slice(gates.index(column.name) * units, (gates.index(column.name) + 1) * units)
        into = made[f"weight_{name}"]
        into[..., rows, :] = part[..., start : start + into.shape[-1]]
        start += into.shape[-1]
        if f"bias_{name}" in made:
            made[f"bias_{name}"][..., rows] = part[..., -1]
