"""Tells graphs apart that differ by more than the order in which their nodes are listed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Graph:
    """What each node is, which ones lead to it, and which ones it leads to."""

    labels: Sequence[tuple[Any, ...]]
    inputs: Sequence[tuple[int, ...]]
    outputs: Sequence[tuple[int, ...]]


def form(graph: Graph) -> tuple[Any, ...]:
    """The same for graphs that are the same but for the order of nodes, and for no others.

    Source: colour refinement with individualisation (McKay and Piperno 2014). Nodes are told apart by what leads to them and what they lead
    to; of those that are still alike one is set apart, the one that gives the least form.
    """
    return _form(graph, _ranks(graph.labels), thorough=True)


def _form(graph: Graph, colours: list[int], *, thorough: bool) -> tuple[Any, ...]:
    colours = _refined(graph, colours)
    alike = _first_alike(colours)
    if not alike:
        order = sorted(range(len(colours)), key=colours.__getitem__)
        return tuple((graph.labels[v], tuple(sorted(colours[i] for i in graph.inputs[v]))) for v in order)
    if len({(graph.inputs[v], graph.outputs[v]) for v in alike}) == 1:  # twins: whichever is first
        return _form(graph, _set_apart(colours, alike), thorough=thorough)
    if not thorough:
        return _form(graph, _set_apart(colours, alike[:1]), thorough=False)
    different: dict[Any, int] = {}  # those that give the same form are mirror images
    for v in alike:
        different.setdefault(_form(graph, _set_apart(colours, [v]), thorough=False), v)
    return min(_form(graph, _set_apart(colours, [v]), thorough=True) for v in different.values())


def _refined(graph: Graph, colours: list[int]) -> list[int]:
    while True:
        found = _ranks(
            [
                (c, sorted([colours[i] for i in before]), sorted([colours[o] for o in after]))
                for c, before, after in zip(colours, graph.inputs, graph.outputs, strict=True)
            ]
        )
        if max(found) == max(colours):
            return colours
        colours = found


def _ranks(signs: Sequence[Any]) -> list[int]:
    """Numbers from 0 on by sign, in the order of the signs."""
    order = sorted(range(len(signs)), key=signs.__getitem__)
    found, rank = [0] * len(signs), 0
    for before, v in itertools.pairwise(order):
        rank += signs[v] != signs[before]
        found[v] = rank
    return found


def _first_alike(colours: list[int]) -> list[int]:
    """The nodes of the first colour that several have."""
    if max(colours) + 1 == len(colours):
        return []
    first = min(c for c in colours if colours.count(c) > 1)
    return [v for v, c in enumerate(colours) if c == first]


def _set_apart(colours: list[int], nodes: Sequence[int]) -> list[int]:
    """Colours in which these come before others of their colour, each by itself."""
    places = {v: n for n, v in enumerate(nodes)}
    return _ranks([(c, places.get(v, len(nodes))) for v, c in enumerate(colours)])
