"""Programs as Triton kernels: one for each program, made by Triton when it is first launched.

The source is made of numbers and operations alone, as that in C is (`_c`), and computes exponentials by the same series, so that what
Triton's interpreter finds on a processor holds on a device but for the order of sums and the last digits of quotients. An instance of
a kernel has a block of units of one row, or all units where there is a mean over them. Nothing here imports Triton unless
kernels are made: it comes with torch where torch is made for CUDA, and is no dependency.
"""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import os
import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unstuck.recurrent._c import buffer_slots, series
from unstuck.recurrent._graph import Node, Op, Source
from unstuck.recurrent._programs import Program, Programs
from unstuck.recurrent._torch import BY_ROW, Run, buffer_of

TYPES = {torch.float32: "tl.float32", torch.float64: "tl.float64"}
_BLOCK = 256
"""Units of an instance."""
_OPTIONS = {"enable_fp_fusion": True}
"""A product and a sum may be one operation, which rounds less; Triton is to change what it does unless told."""

# As in `_c`: exp(x) = 2^n exp(r), n in the lowest bits of `shifted`. Limits are such that what is not a number passes.
_HEAD = """import triton
import triton.language as tl


@triton.jit
def power(shifted):
    return ((shifted.to($INTEGER, bitcast=True) << $BITS) + $ONE).to($REAL, bitcast=True)


@triton.jit
def less_one(x, shifted):
    n = shifted - $ROUND
    r = (x - n * $LN2_HIGH) - n * $LN2_LOW
    return r * ($SERIES)


@triton.jit
def sigmoid(x):
    y = -x
    y = tl.where(y > $HIGH, $HIGH, y)
    y = tl.where(y < -$HIGH, -$HIGH, y)
    shifted = y * $LOG2_E + $ROUND
    scale = power(shifted)
    return 1 / (1 + (scale + scale * less_one(y, shifted)))


@triton.jit
def tanh(x):
    y = 2 * x
    y = tl.where(y > $TANH_HIGH, $TANH_HIGH, y)
    y = tl.where(y < -$TANH_HIGH, -$TANH_HIGH, y)
    shifted = y * $LOG2_E + $ROUND
    scale = power(shifted)
    e = scale * less_one(y, shifted) + (scale - 1)
    return e / (e + 2)
"""
_NUMBERS = {
    torch.float32: {
        "INTEGER": "tl.int32", "BITS": "23", "ONE": "0x3F800000", "ROUND": "12582912.0", "LN2_HIGH": "0.693359375",
        "LN2_LOW": "-2.12194440e-4", "LOG2_E": "1.44269504", "TANH_HIGH": "40.0", "HIGH": "87.0", "SERIES": series(7, "({})"),
    },
    torch.float64: {
        "INTEGER": "tl.int64", "BITS": "52", "ONE": "0x3FF0000000000000", "ROUND": "6755399441055744.0",
        "LN2_HIGH": "6.93147180369123816490e-01", "LN2_LOW": "1.90821492927058770002e-10", "LOG2_E": "1.4426950408889634",
        "TANH_HIGH": "80.0", "HIGH": "700.0", "SERIES": series(13, "({})"),
    },
}  # fmt: skip


def is_interpreted() -> bool:
    """Triton runs kernels on the processor, by its interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def is_installed() -> bool:
    """Triton can be imported."""
    return importlib.util.find_spec("triton") is not None


def source_of(programs: Programs, dtype: torch.dtype) -> str:
    """The Python source of a cell's kernels.

    Args:
        programs: The cell's.
        dtype: A key of `TYPES`.

    Returns:
        Kernels `forward0`, `backward0` and so on.
    """
    head = string.Template(_HEAD).substitute(_NUMBERS[dtype], REAL=TYPES[dtype])
    slots = buffer_slots(programs)
    passes = {"forward": programs.forward, "backward": programs.backward}
    return head + "".join(
        _kernel(f"{name}{n}", p, slots, TYPES[dtype]) for name, found in passes.items() for n, p in enumerate(found)
    )


def _kernel(name: str, program: Program, slots: Mapping[Source, int], real: str) -> str:
    buffers = [f"p{n}, s{n}" for n in _slots_of(program, slots)]
    loads = {p: program.graph.nodes[p] for p in program.places}
    lines = [
        "",
        "",
        '@triton.jit(do_not_specialize=["row", "prev", "step"])',
        f"def {name}({', '.join([*buffers, 'row', 'prev', 'step', 'H', 'BLOCK: tl.constexpr'])}):",
        "    b = tl.program_id(0)",
        "    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)",
        "    there = j < H",
        "    at_row = (row + b).to(tl.int64)",
        "    at_prev = (prev + b).to(tl.int64)",
        "    at_step = step.to(tl.int64)",
        "    at_sequence = b.to(tl.int64)",
        *(f"    v{p} = {_expression(node, p, program, slots, real)}" for p, node in loads.items()),
        *(f"    tl.store({_address(t, slots, stored=True)}, v{p}, mask=there)" for t, p in program.stores),
    ]
    return "\n".join([*lines, ""])


def _slots_of(program: Program, slots: Mapping[Source, int]) -> list[int]:
    return sorted({slots[buffer_of(source)] for source in program.sources})


def _address(source: Source, slots: Mapping[Source, int], *, stored: bool) -> str:
    slot, kind = slots[buffer_of(source)], source[0]
    if kind == "vector":
        return f"p{slot} + j"
    by_row = kind in BY_ROW or (kind == "dvector" and stored)
    row = "at_row" if by_row else {"prev": "at_prev", "dvector": "at_step"}.get(kind, "at_sequence")
    column = f"{int(source[1])} * H + " if kind in ("col", "dcol") else ""
    return f"p{slot} + {row} * s{slot} + {column}j"


def _expression(node: Node, place: int, program: Program, slots: Mapping[Source, int], real: str) -> str:
    args = [f"v{a}" for a in node.args]
    if node.op is Op.LOAD:
        return f"tl.load({_address(node.source, slots, stored=False)}, mask=there, other=0.0)"
    if node.op is Op.CONST:
        return f"tl.full([BLOCK], {node.value!r}, {real})"
    forms = {
        Op.ADD: "{} + {}", Op.SUB: "{} - {}", Op.MUL: "{} * {}", Op.SIGMOID: "sigmoid({})", Op.TANH: "tanh({})",
        Op.RELU: "tl.where({0} < 0, 0.0, {0})", Op.RELU_GRAD: "tl.where({1} <= 0, 0.0, {0})", Op.RSQRT: "1 / tl.sqrt({})",
        Op.MEAN: "tl.sum(tl.where(there, {}, 0.0), 0) / H",
    }  # fmt: skip
    return forms[node.op].format(*args)


class Kernels:
    """A cell's kernels.

    Attributes:
        by_row: They leave gradients by vectors by row, see `_backends`.
    """

    by_row = True

    def __init__(self, programs: Programs, dtype: torch.dtype) -> None:
        self._slots = buffer_slots(programs)
        self._programs = {"forward": programs.forward, "backward": programs.backward}
        self._module = _run(source_of(programs, dtype))

    def go(
        self,
        which: str,
        actions: Sequence[Any],
        buffers: Mapping[Source, Tensor],
        unit_size: int,
        steps: Sequence[tuple[int, int, int]],
    ) -> bool:
        """Never goes through the steps by itself."""
        return False

    def bind(self, which: str, buffers: Mapping[Source, Tensor], unit_size: int) -> list[Run]:
        """The kernels of a pass, for these buffers.

        Args:
            which: `forward` or `backward`.
            buffers: By source, see `_loop`.
            unit_size: Number of units.

        Returns:
            A kernel for each level.
        """
        return [self._bound(f"{which}{n}", p, buffers, unit_size) for n, p in enumerate(self._programs[which])]

    def _bound(self, name: str, program: Program, buffers: Mapping[Source, Tensor], units: int) -> Run:
        kernel, sources = self._module[name], {n: s for s, n in self._slots.items()}
        given = [buffers[sources[n]] for n in _slots_of(program, self._slots)]
        arguments = [value for b in given for value in (b, b.stride(0) if b.dim() > 1 else 0)]
        whole = 1 << (units - 1).bit_length()
        block = whole if _has_mean(program) else min(whole, _BLOCK)

        def run(row: int, prev: int, rows: int, step: int) -> None:
            if not (rows and program.stores):
                return
            with torch.cuda.device_of(given[0]):  # where Triton launches is the current device
                kernel[rows, -(-units // block)](*arguments, row, prev, step, units, BLOCK=block, **_OPTIONS)

        return run


def _has_mean(program: Program) -> bool:
    return any(program.graph.nodes[p].op is Op.MEAN for p in program.places)


def _run(source: str) -> dict[str, Any]:
    """What a source defines. Triton looks up the lines of a kernel where tracebacks do."""
    name = f"<unstuck cell {hashlib.sha256(source.encode()).hexdigest()[:24]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    found: dict[str, Any] = {"__name__": "unstuck.recurrent._triton.cell"}
    exec(compile(source, name, "exec"), found)
    return found
