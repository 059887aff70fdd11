"""What runs a cell's programs: which kernels there are for a device and a type of numbers.

    cpu   C, where there is a compiler (`_c`)
    cuda  Triton, where it is installed (`_triton`)

Everything else, and what neither can do, is done by tensor operations (`_torch`). Kernels on a device are tried beside tensor operations
before they are used: they are made by another compiler than those they were written with, and no one is to get wrong numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent import _c, _torch, _triton
from unstuck.recurrent._graph import Source
from unstuck.recurrent._programs import Program, Programs
from unstuck.recurrent._torch import Run

BACKENDS = ("auto", "c", "triton", "torch", "plain")
"""`c`: kernels compiled by the C compiler; `triton`: kernels for CUDA; `torch`: the same kernels as tensor operations; `plain`: a loop that
autograd differentiates; `auto`: the first that can be had."""

_FOR = {"cpu": "c", "cuda": "triton"}
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}
"""Some roundings of sums that cancel; what is wrong differs in the first digit."""


@runtime_checkable
class Kernels(Protocol):
    """A cell's kernels for a type of numbers.

    Attributes:
        by_row: They leave gradients by vectors by row, rather than add them up over the rows of a step: those of a device run side by side.
    """

    by_row: bool

    def go(
        self,
        which: str,
        actions: Sequence[Any],
        buffers: Mapping[Source, Tensor],
        unit_size: int,
        steps: Sequence[tuple[int, int, int]],
    ) -> bool:
        """Goes through all steps of a pass, and says whether it could."""
        ...

    def bind(self, which: str, buffers: Mapping[Source, Tensor], unit_size: int) -> list[Run]:
        """A kernel for each level of a pass."""
        ...


_MADE: dict[object, Kernels | str] = {}
"""Kernels, or why there are none."""


def kernels_for(programs: Programs, x: Tensor, backend: str) -> Kernels | None:
    """Kernels for what is computed with, if they can be had and are asked for.

    Args:
        programs: Of the cell.
        x: What is computed with.
        backend: One of `BACKENDS`.

    Returns:
        The kernels, or None where tensor operations are to do the same.

    Raises:
        MisuseError: They are asked for and can't be had.
    """
    if backend == "torch":
        return None
    name = _FOR.get(x.device.type) if backend == "auto" else backend
    found = _made(name, programs, x.dtype, x.device)
    if not isinstance(found, str):
        return found
    if backend != "auto":
        raise MisuseError(f"compiled kernels can't be had: {found}")
    return None


def _made(name: str | None, programs: Programs, dtype: torch.dtype, device: torch.device) -> Kernels | str:
    key = (name, programs, dtype, device)
    found = _MADE.get(key)
    if found is None:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return "a CUDA graph is being captured, and nothing can be tried meanwhile: run the layer once before"
        found = _MADE[key] = _make(name, programs, dtype, device)
    return found


def _make(name: str | None, programs: Programs, dtype: torch.dtype, device: torch.device) -> Kernels | str:
    interpreted = (name, device.type) == ("triton", "cpu") and _triton.is_interpreted()
    if not (_FOR.get(device.type, "") == name or interpreted) or dtype not in _TOLERANCE:
        return f"there are none for {dtype} on {device}"
    if name == "triton":
        return _tried(programs, dtype, device) if _triton.is_installed() else "Triton is not installed"
    try:
        return _c.Compiled(programs, dtype)
    except OSError as error:
        return str(error)


def _tried(programs: Programs, dtype: torch.dtype, device: torch.device) -> Kernels | str:
    try:
        made = _triton.Kernels(programs, dtype)
        far = difference(programs, made, dtype, device)
        why = "" if far <= _TOLERANCE[dtype] else f"they differ from tensor operations by {far:.1g}"
    except Exception as error:  # noqa: BLE001  # a compiler, an assembler, a linker and a driver may fail, each in its own way
        made, why = None, f"{type(error).__name__}: {str(error).strip()[:300]}"
    if made is not None and not why:
        return made
    cell = programs.cell.name
    warnings.warn(f"Triton's kernels of the cell {cell} aren't used, but tensor operations: {why}", stacklevel=2)
    return why


@torch.no_grad()
def difference(programs: Programs, kernels: Kernels, dtype: torch.dtype, device: torch.device) -> float:
    """How far kernels are from tensor operations, on random numbers.

    Args:
        programs: Of the cell.
        kernels: The kernels.
        dtype: Their type of numbers.
        device: Where to try them.

    Returns:
        The largest difference in what a kernel leaves in a buffer, relative to the largest number there; infinite where something is
        not a number.
    """
    rows, units = (2, 1, 3, 1), 300  # more than one block of a kernel, and a part of another
    found = [0.0]
    for which, passed in (("forward", programs.forward), ("backward", programs.backward)):
        drawn = _drawn(passed, len(programs.columns), units, dtype, device)
        for level, program in enumerate(passed):
            ours, theirs = ({s: b.clone() for s, b in drawn.items()} for _ in range(2))
            kernels.bind(which, ours, units)[level](*rows)
            _torch.kernel(program, theirs, units)(*rows)
            for source in {_torch.buffer_of(target) for target, _ in program.stores}:
                a, b = ours[source], theirs[source]
                if source[0] == "dvector" and kernels.by_row:
                    a, b = a.sum(0), b.sum(0)
                found.append(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)))
    return max(math.inf if math.isnan(f) else f for f in found)


def _drawn(
    passed: Sequence[Program], columns: int, units: int, dtype: torch.dtype, device: torch.device
) -> dict[Source, Tensor]:
    """Random numbers for all that a pass loads and stores, zeros for what it adds to."""
    generator = torch.Generator("cpu").manual_seed(0)
    added = {target for program in passed for target, _ in program.stores if target[0] == "dvector"}
    found = {}
    for source in dict.fromkeys(_torch.buffer_of(source) for program in passed for source in program.sources):
        width = columns * units if source[0] in ("col", "dcol") else units
        shape = (units,) if source[0] == "vector" else (6, width)
        numbers = torch.randn(shape, generator=generator, device="cpu").to(device, dtype)
        found[source] = torch.zeros_like(numbers) if source in added else numbers
    return found
