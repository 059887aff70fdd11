"""Learning in recurrent layers on streams: what RTRL costs beside truncated backpropagation, and how right each gradient is.

    OMP_NUM_THREADS=1 python benchmarks/recurrent_learning.py [--rounds 5] [--only cost,elementwise,memory,gradients] [--json FILE]

Cost: processor time by step of one stream, float32, as many inputs as units, a loss at every step. *BPTT* is a forward and a backward
pass over windows of 16 steps, by our layer and by torch.nn.LSTM. All take turns in one process; a ratio is the median over rounds of
the ratios within a round, with its 95% bootstrap interval. Memory: what the way of learning holds after 100 and after 10,000 steps.
Gradients: the cosine to the true gradient, of a loss after step 100 alone; 32 units, weights drawn normally with the standard deviation
gain / √units, no biases but an LSTM's forget bias of 2; medians over ten seeds.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from measure import Estimate, machine, machine_line, table, write_json
from unstuck.recurrent.layers import GRU, LSTM, RNN, Recurrent
from unstuck.recurrent.rtrl import RTRL
from unstuck.recurrent.truncated import TruncatedBPTT

WINDOW = 16
Run = Callable[[], None]


def spent(run: Run, steps: int, least: float) -> float:
    """Processor seconds by step."""
    begun, runs = time.process_time(), 0
    while runs == 0 or time.process_time() - begun < least:
        run()
        runs += 1
    return (time.process_time() - begun) / runs / steps


def bptt(layer: nn.Module, size: int) -> Run:
    x, grad = torch.randn(WINDOW, 1, size), torch.randn(WINDOW, 1, size)
    states = (torch.zeros(1, 1, size), torch.zeros(1, 1, size))
    return lambda: layer(x, states)[0].backward(grad)


def rtrl(layer: Recurrent, mode: str, chunk: int) -> Run:
    learner = RTRL(layer, mode=mode)
    x, grad = torch.randn(chunk, 1, layer.input_size), torch.randn(chunk, 1, layer.hidden_size)
    return lambda: learner(x)[0].backward(grad)


def cost(size: int, rounds: int) -> list[dict[str, Any]]:
    """All ways in turn, by their names."""
    ours = LSTM(size, size)
    ways: dict[str, tuple[Run, int]] = {
        "BPTT": (bptt(ours, size), WINDOW),
        "BPTT, torch.nn.LSTM": (bptt(nn.LSTM(size, size), size), WINDOW),
    }
    for blocks in (1, 4, 16):
        ways[f"block, {blocks}n steps"] = (rtrl(ours, "block", blocks * size), blocks * size)
    ways["stepwise"] = (rtrl(ours, "stepwise", 1), 1)
    ways["snap1, 16 steps"] = (rtrl(ours, "snap1", WINDOW), WINDOW)
    return in_turn(ways, rounds, {"units": size})


def elementwise(size: int, rounds: int) -> list[dict[str, Any]]:
    """IndRNN by RTRL beside an LSTM by BPTT."""
    ways = {"BPTT": (bptt(LSTM(size, size), size), WINDOW)}
    ways["elementwise, IndRNN"] = (rtrl(Recurrent("indrnn", size, size), "elementwise", WINDOW), WINDOW)
    return in_turn(ways, rounds, {"units": size})


def in_turn(ways: dict[str, tuple[Run, int]], rounds: int, about: dict[str, Any]) -> list[dict[str, Any]]:
    for run, _ in ways.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (run, steps) in ways.items():
            taken[name].append(spent(run, steps, 0.1))
    found = []
    for name, seconds in taken.items():
        entry = {**about, "way": name, "us": 1e6 * statistics.median(seconds)}
        for base in ("BPTT", "BPTT, torch.nn.LSTM", "stepwise"):
            if base in taken:
                entry[base] = Estimate.of([a / b for a, b in zip(seconds, taken[base], strict=True)])
        found.append(entry)
    return found


def held(way: str, size: int, steps: int) -> int:
    """Bytes of all tensors that there are more than before, when so many steps have been learned from."""
    layer, x = LSTM(size, size), torch.randn(50, 1, size)
    layer(x)[0].sum().backward()
    before = by_tensors()
    truncated = TruncatedBPTT(layer, every=50, through=100)
    learner = truncated if way == "truncated" else RTRL(layer, mode=way)
    for _ in range(steps // 50):
        learner(x)[0].sum().backward()
    return by_tensors() - before


def by_tensors() -> int:
    gc.collect()
    return sum(t.numel() * t.element_size() for t in gc.get_objects() if type(t) is Tensor)


def drawn(make: Callable[..., Recurrent], gain: float, generator: torch.Generator, size: int = 32) -> Recurrent:
    layer = make(size, size, dtype=torch.float64)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if name.startswith("weight"):
                p.normal_(0, gain / size**0.5, generator=generator)
            else:
                p.zero_()
        if make is LSTM:
            layer.get_parameter("bias_ih_l0")[size : 2 * size] = 2
    return layer


def cosines(make: Callable[..., Recurrent], gain: float, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    layer = drawn(make, gain, generator)
    x = torch.randn(100, 1, 32, generator=generator, dtype=torch.float64)
    weights = torch.randn(32, generator=generator, dtype=torch.float64)

    def gradient(run: Callable[[Tensor], Any], every: int) -> Tensor:
        layer.zero_grad()
        outputs = [run(part)[0] for part in x.split(every)]
        (outputs[-1][-1, 0] * weights).sum().backward()
        return torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None])

    true = gradient(layer, 100)
    ways = {f"TBPTT-{k}": (TruncatedBPTT(layer, every=k), k) for k in (5, 20)}
    ways |= {mode: (RTRL(layer, mode=mode), 20) for mode in ("snap1", "block")}
    return {n: float(torch.cosine_similarity(gradient(w, k), true, dim=0)) for n, (w, k) in ways.items()}


def gradients(seeds: Sequence[int]) -> list[dict[str, Any]]:
    found = []
    for name, make in {"SRN": RNN, "GRU": GRU, "LSTM, forget bias 2": LSTM}.items():
        for gain in (1.0, 1.5):
            values = [cosines(make, gain, seed) for seed in seeds]
            found.append({"cell": name, "gain": gain} | {w: statistics.median(v[w] for v in values) for w in values[0]})
    return found


def shown(value: Any) -> str:
    return value.text(2) if isinstance(value, Estimate) else f"{value:.3g}" if isinstance(value, float) else str(value)


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    head = list(dict.fromkeys(key for row in rows for key in row))
    return table(head, [[shown(row.get(key, "")) for key in head] for row in rows])


def main(only: Sequence[str], rounds: int, out: Path | None) -> None:
    """Prints all tables."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    facts, found = machine(), {}
    print(machine_line(facts), "\n")
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "cost": lambda: [row for size in (32, 64, 128) for row in cost(size, rounds)],
        "elementwise": lambda: [row for size in (128, 512) for row in elementwise(size, rounds)],
        "memory": lambda: [
            {"way": w, "100 steps": held(w, 32, 100), "10,000 steps": held(w, 32, 10000)}
            for w in ("truncated", "block", "snap1")
        ],
        "gradients": lambda: gradients(range(10)),
    }  # fmt: skip
    for name in only:
        found[name] = parts[name]()
        print(f"## {name}\n\n{as_table(found[name])}\n", flush=True)
    plain = {
        n: [{k: vars(v) if isinstance(v, Estimate) else v for k, v in r.items()} for r in rows]
        for n, rows in found.items()
    }
    write_json(out, {"machine": facts, **plain})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="cost,elementwise,memory,gradients")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    main(options.only.split(","), options.rounds, options.json)
