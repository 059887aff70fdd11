"""Carries numbers from the step to the record without making the step wait.

A sampled step leaves small tensors on the device. `Sample` gathers them; when the step ends they are joined into one vector,
which on a CPU is read at once and on an accelerator is copied in the background and read at a later step. What the numbers mean
is decided then, on the host (`assemble`). The dense series (loss, rate, ...) go the same way in chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Sample:
    """The measurements of one step, still on the device.

    Each part is a tensor with a function that, given its numbers as an array of the same shape, says what they mean by adding
    to the columns.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self._parts: dict[Any, tuple[Tensor, Callable[[Columns, np.ndarray], None]]] = {}

    def put(self, key: Any, values: Tensor, means: Callable[[Columns, np.ndarray], None]) -> None:
        """Adds numbers with what they will mean; a later part of the same key replaces an earlier one."""
        self._parts[key] = (values.detach(), means)

    @property
    def parts(self) -> list[tuple[Tensor, Callable[[Columns, np.ndarray], None]]]:
        """All parts."""
        return list(self._parts.values())


class Columns:
    """The columns of one row of the record: numbers, and vectors."""

    def __init__(self) -> None:
        self.names: list[tuple[str, str]] = []
        self.values: list[float] = []
        self.vectors: list[tuple[str, str, np.ndarray]] = []

    def put(self, signal: str, place: str, value: float) -> None:
        """Adds a number."""
        self.names.append((signal, place))
        self.values.append(value)


class Pending:
    """Tensors on their way to the host, read in the order they were sent."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Any, Tensor, Callable[[np.ndarray], None]]] = deque()

    def send(self, values: Tensor, then: Callable[[np.ndarray], None]) -> None:
        """Sends a flat float32 tensor; `then` is called with its numbers, at once on a CPU."""
        if values.device.type == "cpu":
            then(values.numpy())
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.device.type == "cuda")
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event() if values.device.type == "cuda" else None
        if arrived is not None:
            arrived.record()
        self._queue.append((arrived, host, then))

    def read(self, *, wait: bool = False) -> None:
        """Reads what has arrived; with `wait` everything."""
        while self._queue:
            arrived, host, then = self._queue[0]
            if arrived is not None:
                if wait:
                    arrived.synchronize()
                elif not arrived.query():
                    return
            self._queue.popleft()
            then(host.numpy())


def send_sample(sample: Sample, pending: Pending, done: Callable[[int, Columns], None]) -> None:
    """Joins a sample's parts, sends them, and hands on its columns when they have arrived.

    Args:
        sample: The measurements.
        pending: The way to the host.
        done: Called with the step and the columns.
    """
    if not sample.parts:
        return
    by_device: dict[torch.device, list[tuple[Tensor, Callable[[Columns, np.ndarray], None]]]] = {}
    for part in sample.parts:
        by_device.setdefault(part[0].device, []).append(part)
    waiting = len(by_device)
    columns = Columns()

    def arrive(parts: list[tuple[Tensor, Callable[[Columns, np.ndarray], None]]], numbers: np.ndarray) -> None:
        nonlocal waiting
        start = 0
        for tensor, means in parts:
            stop = start + tensor.numel()
            means(columns, numbers[start:stop].reshape(tuple(tensor.shape)))
            start = stop
        waiting -= 1
        if waiting == 0:
            done(sample.step, columns)

    for parts in by_device.values():
        flat = torch.cat([t.reshape(-1).float() for t, _ in parts])
        pending.send(flat, lambda numbers, parts=parts: arrive(parts, numbers))
