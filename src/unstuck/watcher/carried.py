"""Finds graphs that reach back past the step: a state handed on without `detach`, a sum of losses never let go.

Autograd numbers its nodes in the order they are made. The number that was next when a step began therefore tells the
nodes made since from older ones, and the graph a backward is about to go through shows whether it holds such. A graph
that reaches one step back may be meant (a GAN's generator is trained on what it made for the step of its critic); one
that reaches two steps and more back is carried.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LOOKS = 6  # sampled steps that are looked at when nothing is found
MOST_TOLD = 8
MOST_NEAR = 2  # of those, that reach one step back only
MOST_NODES = 4096  # of a graph that are looked at
_LEAF = 2**64 - 1  # number of the nodes that gather a parameter's gradient
_next_number = torch._C._autograd._get_sequence_nr  # pyright: ignore[reportAttributeAccessIssue]


class CarriedGraphs:
    """Looks at the graphs of the first sampled steps, and of later ones where those reached back."""

    def __init__(self) -> None:
        self._starts: list[tuple[int, int]] = []  # sampled steps, and the number that was next when they began
        self._looked = -1  # the last step that was looked at
        self._clean = self._told = self._near = 0

    def begins(self, step: int) -> None:
        """A sampled step begins."""
        if self._wanted and (not self._starts or self._starts[-1][0] < step):
            self._starts.append((step, _next_number()))

    @property
    def _wanted(self) -> bool:
        return self._clean < LOOKS and self._told < MOST_TOLD

    def look(self, root: Tensor, producers: Mapping[Any, Any]) -> tuple[str, dict[str, Any]] | None:
        """Looks at the graph that a backward is about to go through.

        Args:
            root: The tensor backward starts from.
            producers: Calls of this step by autograd node.

        Returns:
            Name of the layer that took what is older, and the data of a `carried-graph` event; None when all is of this
            step.
        """
        if not self._wanted or root.grad_fn is None or not self._starts or self._starts[-1][0] == self._looked:
            return None
        self._looked, since = self._starts[-1]
        older, oldest, way = _older(root.grad_fn, since)
        if not older:
            self._clean += 1
            return None
        if (
            self._looked == self._starts[0][0]
        ):  # nothing can be older than the first step: these are numbers of another thread
            self._clean = LOOKS
            return None
        age = self._age(oldest)
        if age == 1:
            self._near += 1
            if self._near > MOST_NEAR:
                self._clean += 1
                return None
        self._told += 1
        call = next((producers[node] for node in way if node in producers), None)
        layer = call.layer if call is not None else None
        data = {
            "steps": age,
            "nodes": older,
            "made_by": way[0].name(),
            "model": layer.model if layer else "",
        }
        return layer.name if layer else "", data

    def _age(self, number: int) -> int:
        """How many steps back a node was made, at least."""
        after = next(step for step, start in self._starts if number < start)
        return self._looked - after + 1


def _older(root: Any, since: int) -> tuple[int, int, list[Any]]:
    """How many nodes of a graph are older than a number, the oldest's, and the way from the first found to the root.

    The oldest known node is always followed first, which leads quickly to what is old.
    """
    count = itertools.count()  # nodes can't be compared
    came_from: dict[Any, Any] = {root: None}
    heap = [(root._sequence_nr(), next(count), root)]
    found, oldest, first = 0, since, None
    for _ in range(MOST_NODES):
        if not heap:
            break
        number, _, node = heapq.heappop(heap)
        if number < since:
            found, oldest, first = found + 1, min(oldest, number), first or node
        for source, _ in node.next_functions:
            if source is not None and source not in came_from:
                came_from[source] = node
                number = source._sequence_nr()
                if number < _LEAF:
                    heapq.heappush(heap, (number, next(count), source))
    way = [first] if first is not None else []
    while way and (node := came_from[way[-1]]) is not None:
        way.append(node)
    return found, oldest, way
