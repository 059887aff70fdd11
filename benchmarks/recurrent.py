"""Recurrent layers beside torch's: both passes of a layer, calls of one step, sequences of different lengths, the time to build a cell.

All take turns in one process; processor time, so that a busy machine counts less; a ratio is the median over rounds of ours over
theirs in the same round, with its 95% bootstrap interval. `per gate` divides by the matrix products that a cell has, four of an LSTM
being one.

    OMP_NUM_THREADS=1 python benchmarks/recurrent.py [--rounds 15] [--only speed,step,lengths,build] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from measure import Estimate, machine, machine_line, table, write_json
from unstuck.recurrent._c import Compiled
from unstuck.recurrent._recurrence import programs_of
from unstuck.recurrent.cell import Step, Value, relu, sigmoid, tanh, trace
from unstuck.recurrent.layers import GRU, LSTM, RNN, Recurrent

SHAPES = [(128, 32, 128), (128, 32, 256), (128, 32, 512), (128, 1, 128), (512, 8, 64)]


def searched(step: Step) -> Mapping[str, Value]:
    """A cell with six gates, as an architecture search may find one."""
    i, f, g, o, a, b = step.gates("i", "f", "g", "o", "a", "b")
    x = tanh(sigmoid(i) * relu(f))
    c = x * (sigmoid(g) * tanh(o)) + tanh(a) * sigmoid(b) * step.state("c")
    return {"h": tanh(c) * sigmoid(o), "c": c}


class Looped(nn.Module):
    """torch.nn.LSTMCell, called in a Python loop, as one writes a cell of one's own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(size, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        states, outputs = None, []
        for step in x:
            states = self.cell(step, states)
            outputs.append(states[0])
        return torch.stack(outputs), states


class Peephole(nn.Module):
    """A peephole LSTM in a Python loop of tensor operations, the products with the input made at once."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.input, self.hidden = nn.Linear(size, 4 * size), nn.Linear(size, 4 * size)
        self.peephole = nn.Parameter(torch.zeros(3, size))

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        h = c = x.new_zeros(x.shape[1:])
        outputs = []
        for step in self.input(x).unbind(0):
            i, f, g, o = (step + self.hidden(h)).chunk(4, -1)
            c = (f + self.peephole[0] * c).sigmoid() * c + (i + self.peephole[1] * c).sigmoid() * g.tanh()
            h = (o + self.peephole[2] * c).sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs), (h, c)


def passes(run: Callable[[], Tensor]) -> tuple[float, float]:
    """Processor seconds of a forward pass, and of both passes."""
    start = time.process_time()
    output = run()
    middle = time.process_time()
    output.sum().backward()
    return middle - start, time.process_time() - start


def turns(runs: Mapping[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of all, one after the other, round by round; the first round is left out."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name, run in runs.items():
            taken = passes(run)
            if n:
                found[name].append(taken)
    return found


def ratio(
    found: dict[str, list[tuple[float, float]]], name: str, base: str, which: int, gates: float = 1.0
) -> Estimate:
    """The one over the other, by rounds."""
    return Estimate.of([a[which] / b[which] / gates for a, b in zip(found[name], found[base], strict=True)])


def speed(rounds: int) -> list[dict[str, Any]]:
    """One layer, inputs as wide as it has units."""
    rows = []
    for time_steps, batch, size in SHAPES:
        x = torch.randn(time_steps, batch, size, requires_grad=True)
        layers: dict[str, tuple[nn.Module, str, float]] = {
            "nn.LSTM": (nn.LSTM(size, size), "nn.LSTM", 1),
            "LSTM": (LSTM(size, size), "nn.LSTM", 1),
            "LSTM, without a compiler": (LSTM(size, size, backend="torch"), "nn.LSTM", 1),
            "peephole LSTM": (LSTM(size, size, peephole=True), "nn.LSTM", 1),
            "peephole LSTM, Python loop": (Peephole(size), "nn.LSTM", 1),
            "layer-normalised LSTM": (Recurrent("layer-norm-lstm", size, size), "nn.LSTM", 1),
            "a searched cell of six gates": (Recurrent(searched, size, size), "nn.LSTM", 6 / 4),
            "nn.LSTMCell, Python loop": (Looped(size), "nn.LSTM", 1),
            "nn.GRU": (nn.GRU(size, size), "nn.GRU", 1),
            "GRU": (GRU(size, size), "nn.GRU", 1),
            "nn.RNN": (nn.RNN(size, size), "nn.RNN", 1),
            "RNN": (RNN(size, size), "nn.RNN", 1),
        }
        runs = {name: (lambda m=module, x=x: m(x)[0]) for name, (module, _, _) in layers.items()}
        found = turns(runs, max(3, rounds * 128 // size) if batch > 1 else 2 * rounds)
        for name, (_, base, gates) in layers.items():
            if name != base:
                rows.append(
                    {
                        "steps, sequences, units": f"{time_steps}, {batch}, {size}",
                        "layer": name,
                        "over": base,
                        "forward": ratio(found, name, base, 0).text(2),
                        "both": ratio(found, name, base, 1).text(2),
                        "both, per gate": ratio(found, name, base, 1, gates).text(2),
                    }
                )
    return rows


def step(rounds: int, *, calls: int = 100) -> list[dict[str, Any]]:
    """Calls of one step each, from a state, as in decoding and on streams: inference, and a forward pass that can be differentiated."""
    rows = []
    for batch in (1, 32):
        x = torch.randn(1, batch, 128)
        for ours, theirs in ((LSTM(128, 128), nn.LSTM(128, 128)), (GRU(128, 128), nn.GRU(128, 128))):
            _, state = theirs(x)
            found: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(rounds):
                for differentiable, ratios in found.items():
                    with torch.set_grad_enabled(differentiable):
                        seconds = [_seconds(lambda m=m, x=x, s=state: m(x, s), calls) for m in (ours, theirs)]
                    ratios.append(seconds[0] / seconds[1])
            rows.append(
                {
                    "sequences, units": f"{batch}, 128",
                    "layer": type(ours).__name__,
                    "over": f"nn.{type(theirs).__name__}",
                    "inference": Estimate.of(found[False]).text(2),
                    "forward": Estimate.of(found[True]).text(2),
                }
            )
    return rows


def _seconds(run: Callable[[], Any], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        run()
    return time.process_time() - start


def lengths(rounds: int) -> list[dict[str, Any]]:
    """Sequences of 32 to 128 steps, uniformly."""
    rows = []
    for size in (128, 256):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(128, 32, size, requires_grad=True)
        given = torch.randint(32, 129, (32,), generator=generator)
        given[0] = 128
        theirs, ours = nn.LSTM(size, size), LSTM(size, size)

        def packed(x: Tensor = x, given: Tensor = given, theirs: nn.LSTM = theirs) -> Tensor:
            output, _ = theirs(pack_padded_sequence(x, given, enforce_sorted=False))
            return pad_packed_sequence(output)[0]

        runs = {
            "nn.LSTM, padded": lambda x=x, theirs=theirs: theirs(x)[0],
            "nn.LSTM, PackedSequence": packed,
            "LSTM, padded": lambda x=x, ours=ours: ours(x)[0],
            "LSTM, lengths": lambda x=x, given=given, ours=ours: ours(x, lengths=given)[0],
        }
        found = turns(runs, max(3, rounds * 128 // size))
        rows.append(
            {
                "units": size,
                "mean length": f"{given.float().mean() / 128:.2f}",
                "over LSTM, padded": ratio(found, "LSTM, lengths", "LSTM, padded", 1).text(2),
                "over nn.LSTM, padded": ratio(found, "LSTM, lengths", "nn.LSTM, padded", 1).text(2),
                "over PackedSequence": ratio(found, "LSTM, lengths", "nn.LSTM, PackedSequence", 1).text(2),
            }
        )
    return rows


def build(rounds: int) -> list[dict[str, Any]]:
    """From a traced cell to kernels, compiler included, nothing cached."""
    from unstuck.recurrent import _c

    definitions = {"lstm": LSTM(2, 2).definition, "gru": GRU(2, 2).definition, "searched": searched}
    definitions["layer-norm-lstm"] = Recurrent("layer-norm-lstm", 2, 2).definition
    rows = []
    for name, definition in definitions.items():
        seconds = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                _c._folder.cache_clear()
                os.environ["XDG_CACHE_HOME"] = folder
                start = _processor()
                Compiled(programs_of(trace(definition)), torch.float32)
                seconds.append(_processor() - start)
        rows.append({"cell": name, "processor seconds to build": Estimate.of(seconds).text(2)})
    return rows


def _processor() -> float:
    """Seconds of this process and of those that it started."""
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="speed,step,lengths,build")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    facts, found = machine(), {}
    print(machine_line(facts))
    for name, measure in {"speed": speed, "step": step, "lengths": lengths, "build": build}.items():
        if name in asked.only.split(","):
            found[name] = measure(asked.rounds)
            print()
            print(table(list(found[name][0]), [list(row.values()) for row in found[name]]))
    if asked.json:
        write_json(asked.json, {"machine": facts, **found})


if __name__ == "__main__":
    main()
