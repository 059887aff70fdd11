"""The plain loop over steps: the truth, which autograd differentiates as often as is wanted, on any device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unstuck.recurrent import _torch
from unstuck.recurrent._graph import Op, Source
from unstuck.recurrent._layout import Given, Layout
from unstuck.recurrent.cell import Cell, Group


def unrolled(cell: Cell, x: Tensor, given: Given, layout: Layout) -> tuple[Tensor, dict[str, Tensor]]:
    """The plain loop, which autograd can differentiate as often as is wanted.

    Args:
        cell: The layer's cell.
        x: Packed inputs, `(rows, input)`.
        given: First states, parameters, masks.
        layout: Where the steps lie.

    Returns:
        Packed outputs, and the last states by name.
    """
    states, outputs = given.states, []
    mapped = F.linear(x, given.weights["weight_ih"], given.weights.get("bias_ih")) if cell.inputs else x
    by_step = {m.name: given.masks[m.name].split(layout.sizes) for m in cell.masks if m.by_step}
    for t, (part, rows) in enumerate(zip(mapped.split(layout.sizes), layout.sizes, strict=True)):
        whole = rows == layout.batch
        before = states if whole else {name: state[:rows] for name, state in states.items()}
        masks = {m.name: by_step[m.name][t] if m.by_step else given.masks[m.name][:rows] for m in cell.masks}
        after = step(cell, part, before, given.weights, masks)
        outputs.append(after[cell.output])
        states = after if whole else {name: torch.cat([after[name], states[name][rows:]]) for name in states}
    if not outputs:  # nothing, which depends on all the same
        everything = x.sum() + sum(weight.sum() for weight in given.weights.values())
        return given.states[cell.output][:0] + everything, states
    return torch.cat(outputs), states


def step(
    cell: Cell, mapped: Tensor, states: Mapping[str, Tensor], weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """One step of a cell.

    Args:
        cell: The cell.
        mapped: The input's linear maps, `(batch, gates * hidden)`.
        states: Before the step, by name, `(batch, width)`.
        weights: Parameters by name.
        masks: By name, `(batch, hidden)`.

    Returns:
        The states after the step.
    """
    inputs = {g.name: n for n, g in enumerate(cell.inputs)}
    parts = mapped.chunk(len(inputs), -1) if inputs else ()
    known: dict[int, Any] = {}
    maps: dict[str, Tensor] = {}

    def load(source: Source) -> Tensor:
        kind, name = source
        if kind in ("mask", "still"):
            return masks[name]
        if kind in ("state", "vector"):
            return states[name] if kind == "state" else weights[name]
        if kind == "projection" and cell.projection is not None:
            return F.linear(known[cell.projection], weights["weight_hr"])
        if kind == "input":
            return parts[inputs[name]]
        if name not in maps:
            group = next(g for g in cell.groups if any(gate.name == name for gate in g.gates))
            maps.update(_maps(group, known[group.operand], weights))
        return maps[name] + parts[inputs[name]] if kind == "gate" else maps[name]

    for place in cell.graph.reachable([*cell.states.values(), *_operands(cell)]):
        node = cell.graph.nodes[place]
        known[place] = load(node.source) if node.op is Op.LOAD else _torch.compute(node, [known[a] for a in node.args])
    some = next(iter(states.values()))
    return {
        name: known[p] if isinstance(known[p], Tensor) else torch.full_like(some, known[p])
        for name, p in cell.states.items()
    }


def _operands(cell: Cell) -> list[int]:
    return [*(g.operand for g in cell.groups), *([cell.projection] if cell.projection is not None else [])]


def _maps(group: Group, operand: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = F.linear(operand, weights[f"weight_{group.name}"], weights.get(f"bias_{group.name}"))
    return {gate.name: part for gate, part in zip(group.gates, found.chunk(len(group.gates), -1), strict=True)}
