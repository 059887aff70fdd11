"""Where NaN or Inf began: found in the autograd graph of the loss, at the moment it is first seen.

The loss of an unsampled step turns out not to be finite. Its graph is still there, and each node keeps the tensors that its
backward will need, so the first node in order of execution whose saved result is bad while its saved inputs are good is where
it began. Nodes have no names; they get them from the last sampled step, when the graph had the same sequence of nodes and each was known to
belong to a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unstuck.signals.numbers import measurable

MOST_NODES = 20_000
_MOVING = (
    "Cat", "Stack", "View", "UnsafeView", "Reshape", "TBackward", "Transpose", "Permute", "Slice", "Select", "Squeeze", "Unsqueeze",
    "Expand", "Clone", "Unbind", "Split", "Relu", "LeakyRelu", "MaxPool",
)  # fmt: skip
"""What nodes are called whose op gives numbers no larger than it was given."""


@dataclass(frozen=True)
class Origin:
    """Where a bad value was first seen: `what` it is, by which autograd node, and its place in the sequence of nodes."""

    what: str  # input, activation, weight, loss
    node: str  # "LogBackward0"
    position: int  # in order of execution, -1 when unknown
    parameter: Tensor | None = None
    before: float | None = None  # largest magnitude that went into it, when that was finite
    empty: bool = False  # it is a mean over no elements


def nodes_of(root: Any) -> list[Any]:
    """The nodes of a graph in the order they were made, leaves left out."""
    seen, todo, found = set(), [root], []
    while todo and len(seen) < MOST_NODES:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if not hasattr(node, "variable"):
            found.append(node)
        todo.extend(n for n, _ in node.next_functions)
    return sorted(found, key=lambda n: n._sequence_nr())


def find_origin(root: Any) -> Origin | None:
    """The first place in a loss's graph where a value isn't finite.

    Args:
        root: `grad_fn` of the loss, before its backward.

    Returns:
        The place, None when all that the graph keeps is finite.
    """
    ordered = nodes_of(root)
    position = {node: i for i, node in enumerate(ordered)}
    last, reached = -1, None
    for i, node in enumerate(ordered):
        for child, _ in node.next_functions:
            variable = getattr(child, "variable", None)
            if variable is not None and _bad(variable):
                return Origin("weight", node.name(), i, variable)
        saved = _saved(node)
        if _averages_nothing(node, saved):
            return Origin("loss", node.name(), i, empty=True)
        inputs = [t for name, t in saved.items() if "result" not in name and "output" not in name and _bad(t)]
        if inputs:
            makers = [c for c, _ in node.next_functions if c in position and not _of_leaves(c)]
            if any(c.name().startswith(("MaskedFill", "Where")) for c in makers) and not any(
                torch.isnan(t).any() for t in inputs
            ):
                continue  # -inf put there on purpose, to be masked
            if not makers:
                return Origin("input", node.name(), i)
            maker = _computed(max(makers, key=position.__getitem__), position)
            return Origin("activation", maker.name(), position[maker], before=_largest(_saved(maker)))
        if any(_bad(t) for name, t in saved.items() if "result" in name or "output" in name):
            maker = _computed(node, position)
            return Origin("activation", maker.name(), position[maker], before=_largest(_saved(maker)))
        if any(t.numel() > 1 for t in saved.values()):
            last, reached = i, saved
    if last >= 0:  # all that is kept is finite: it overflowed in the last op that keeps anything, or right behind it
        return Origin("activation", ordered[last].name(), last, before=_largest(reached or {}))
    return None


def _computed(node: Any, known: dict[Any, int]) -> Any:
    """The node that computed what this one holds: behind ops that only move or pick the numbers of one other."""
    while node.name().startswith(_MOVING):
        before = [child for child, _ in node.next_functions if child in known]
        if len(before) != 1:
            break
        node = before[0]
    return node


def _averages_nothing(node: Any, saved: dict[str, Tensor]) -> bool:
    """Whether a node is a mean over no elements, or a loss of which every target is ignored: 0 divided by 0."""
    if getattr(node, "_saved_self_sym_numel", None) == 0:
        return True
    if getattr(node, "_saved_reduction", None) != 1:  # at::Reduction::Mean
        return False
    weight, given = saved.get("_saved_total_weight"), saved.get("_saved_self")
    return (given is not None and given.numel() == 0) or (weight is not None and bool((weight == 0).all()))


def _largest(saved: dict[str, Tensor]) -> float | None:
    """Largest magnitude among saved inputs, None when one is bad or there is none."""
    good = [
        t
        for n, t in saved.items()
        if "result" not in n and "output" not in n and t.is_floating_point() and t.numel() > 1
    ]
    if not good or any(_bad(t) for t in good):
        return None
    return max(float(t.abs().max()) for t in good)


def _of_leaves(node: Any) -> bool:
    """Whether a node only turns parameters about, such as the transpose of a weight; those were looked at already."""
    leaves = [hasattr(child, "variable") for child, _ in node.next_functions if child is not None]
    return bool(leaves) and all(leaves) and not _saved(node)


def _saved(node: Any) -> dict[str, Tensor]:
    found = {}
    for name in dir(node):
        if name.startswith("_saved_"):
            try:
                value = getattr(node, name)
            except RuntimeError:  # freed, or changed in place since
                continue
            if isinstance(value, Tensor):
                found[name] = value.detach()
    return found


def _bad(tensor: Tensor) -> bool:
    if (
        not measurable(tensor)
        or not (tensor.is_floating_point() or tensor.is_complex())
        or tensor.numel() == 0
        or tensor.layout != torch.strided
    ):
        return False
    return not bool(torch.isfinite(tensor.detach()).all())
