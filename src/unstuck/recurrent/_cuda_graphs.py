"""Functions of tensors as CUDA graphs: what is launched step by step from Python once is launched as one thing from then on.

A graph computes at fixed places in memory. What is given is copied there, what is found is copied from there, so that nobody sees those
places: results stay as they are when the graph runs again. A function is captured when it comes with the same shapes for the second
time, and what the graph gives is compared once with what the function gives.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Tensors = Sequence[Tensor | None]
Function = Callable[[Tensors], Tensors]
_MOST = 64
"""Graphs that are kept: each holds the memory that its function needs."""


class Captured:
    """A function as a CUDA graph.

    Args:
        function: Of tensors on one device; it waits for nothing and draws nothing.
        given: What it is given, of the shapes that it will be given.

    Raises:
        RuntimeError: It can't be captured, or its graph gives something else.
    """

    def __init__(self, function: Function, given: Tensors) -> None:
        self._given = [None if t is None else t.clone(memory_format=torch.contiguous_format) for t in given]
        stream, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(stream)
        with torch.cuda.stream(side):  # whatever is made at a first call is made before
            expected = function(self._given)
        stream.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._found = function(self._given)
        if not all(map(_equal, self(given), expected)):
            raise RuntimeError("its graph gives something else")

    def __call__(self, given: Tensors) -> Tensors:
        """What the function gives."""
        pairs = [(into, t) for into, t in zip(self._given, given, strict=True) if into is not None and t is not None]
        torch._foreach_copy_([into for into, _ in pairs], [t for _, t in pairs])  # pyright: ignore[reportPrivateImportUsage]
        self._graph.replay()
        return [None if t is None else t.clone() for t in self._found]


def _equal(found: Tensor | None, expected: Tensor | None) -> bool:
    """But for another order of sums in a product, which may be chosen otherwise."""
    if found is None or expected is None:
        return found is expected
    size = float(expected.detach().nan_to_num(0, 0, 0).abs().max()) if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=0.0, atol=1e-3 * size, equal_nan=True)


class Graphs:
    """Graphs by what they compute.

    Args:
        capture: What makes one, as `Captured`.
        most: How many are kept. One that is in use makes no room for another: making one takes as long as many calls.
    """

    def __init__(self, capture: Callable[[Function, Tensors], Function] = Captured, *, most: int = _MOST) -> None:
        self._capture, self._most = capture, most
        self._graphs: OrderedDict[Hashable, tuple[Function, int]] = OrderedDict()  # and the call that used it last
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._calls = 0
        self._lock = threading.Lock()

    def run(self, key: Hashable, function: Function, given: Tensors) -> Tensors:
        """What a function gives, by its graph where there is one.

        Args:
            key: Equal for calls that do the same with tensors of the same shapes at the same place.
            function: The function.
            given: What it is given.

        Returns:
            Tensors of their own.
        """
        with self._lock:  # a graph's places in memory are those of one call at a time
            self._calls += 1
            if key in self._graphs or (self._comes_again(key) and self._has_room()):
                return self._graph(key, function, given)(given)
        return function(given)

    def _comes_again(self, key: Hashable) -> bool:
        found = key in self._seen
        self._seen[key] = None
        if len(self._seen) > 100 * self._most:
            self._seen.popitem(last=False)
        return found

    def _has_room(self) -> bool:
        if self._graphs and len(self._graphs) >= self._most:
            oldest, (_, used) = next(iter(self._graphs.items()))
            if self._calls - used > 20 * self._most:
                del self._graphs[oldest]
        return len(self._graphs) < self._most

    def _graph(self, key: Hashable, function: Function, given: Tensors) -> Function:
        if key in self._graphs:
            graph = self._graphs.pop(key)[0]
        else:
            try:
                graph = self._capture(function, given)
            except RuntimeError as error:
                warnings.warn(f"recurrent layers run without CUDA graphs: {str(error)[:300]}", stacklevel=2)
                self._most = 0
                self._graphs.clear()
                return function
        self._graphs[key] = graph, self._calls
        return graph
