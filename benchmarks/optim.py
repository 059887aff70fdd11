"""What a step of an optimizer costs, against `torch.optim.AdamW(foreach=True)` on the same tensors.

Each optimizer has parameters and gradients of its own, of equal shapes. They step in turn, a round each; a ratio is the median over rounds
of its time by AdamW's time in the same round, with its bootstrap interval. In one thread the time is that of the thread (`clock`:
processor), so that others on the machine count less; with more it is the wall's, and the machine should be idle. Gradients stay
as they are: a training has them in the cache or not, as its network is small or large.

    python benchmarks/optim.py [--threads 1] [--rounds 60] [--device cpu] [--only lamb,lars] [--json FILE]

| set | tensors |
|---|---|
| `mixed` | 200 of a convolutional and a transformer network: 88 vectors of 64 to 512, 40 convolutions, 72 matrices up to 1024 x 512 |
| `small` | 200 of at most 128 x 64: what each tensor costs by itself |
| `large` | 8 matrices of 2048 x 1024: what each number costs |
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from measure import Estimate, machine, machine_line, table, write_json
from unstuck.optim.lamb import Lamb
from unstuck.optim.lars import Lars
from unstuck.optim.sgd import Sgd
from unstuck.optim.weight_average import WeightAverage

Step = Callable[[], Any]
BASE = "AdamW, foreach"


def shapes() -> dict[str, list[tuple[int, ...]]]:
    """By name of the set."""
    vectors = [(64 * 2 ** (i % 4),) for i in range(88)]
    widths = (64, 64, 128, 128, 256, 256)
    convolutions = [(widths[i % 6], widths[(i + 1) % 6], *((3, 3) if i % 2 else (1, 1))) for i in range(40)]
    matrices = [((256, 256), (512, 256), (512, 512), (1024, 512))[i % 4] for i in range(72)]
    small = [(64, 64), (64,), (128, 64), (10,)] * 50
    return {"mixed": vectors + convolutions + matrices, "small": small, "large": [(2048, 1024)] * 8}


def network(sizes: list[tuple[int, ...]], device: torch.device) -> nn.ParameterList:
    """Parameters with gradients."""
    generator = torch.Generator().manual_seed(0)
    made = nn.ParameterList(0.05 * torch.randn(size, generator=generator) for size in sizes).to(device)
    for param in made:
        param.grad = 0.01 * torch.randn(param.shape, generator=generator).to(device)
    return made


def steps(sizes: list[tuple[int, ...]], device: torch.device, only: set[str]) -> dict[str, Step]:
    """By name: AdamW first, then all that is measured."""
    ways: dict[str, Callable[[nn.ParameterList], Step]] = {
        BASE: lambda p: torch.optim.AdamW(p.parameters(), foreach=True).step,
        "AdamW again": lambda p: torch.optim.AdamW(p.parameters(), foreach=True).step,
        "AdamW, fused": lambda p: torch.optim.AdamW(p.parameters(), fused=True).step,
        "torch SGD, momentum, foreach": lambda p: torch.optim.SGD(p.parameters(), 1e-3, 0.9, foreach=True).step,
        "Sgd, momentum": lambda p: Sgd(p.parameters(), 1e-3, 0.9).step,
        "Lars": lambda p: Lars(p.parameters(), 1e-3, weight_decay=0.01).step,
        "Lamb": lambda p: Lamb(p.parameters(), 1e-3, weight_decay=0.01).step,
        "Lamb, capturable": lambda p: Lamb(p.parameters(), 1e-3, weight_decay=0.01, capturable=True).step,
        "WeightAverage.update": lambda p: WeightAverage(p, decay=0.999).update,
    }
    return {
        name: way(network(sizes, device))
        for name, way in ways.items()
        if name == BASE or not only or any(word in name.lower() for word in only)
    }


def measured(step: Step, device: torch.device, clock: Callable[[], float]) -> float:
    """Seconds of one step."""
    began = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def race(
    ways: dict[str, Step], rounds: int, device: torch.device, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each, round by round, in another order each time."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for name in names * 3:
        measured(ways[name], device, clock)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(measured(ways[name], device, clock))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="What a step of an optimizer costs.")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads; 0 leaves them as they are")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sets", default="mixed,small,large")
    parser.add_argument("--only", default="", help="words in names, by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    alone = torch.get_num_threads() == 1 and device.type == "cpu"
    clock = time.thread_time if alone else time.perf_counter
    facts = machine(options.device)
    rows, kept = [], {}
    for name in options.sets.split(","):
        sizes = shapes()[name]
        only = {word.strip().lower() for word in options.only.split(",") if word.strip()}
        seconds = race(steps(sizes, device, only), options.rounds, device, clock)
        kept[name] = seconds
        for way, values in seconds.items():
            ratio = Estimate.of([v / base for v, base in zip(values, seconds[BASE], strict=True)])
            rows.append((name, way, f"{1000 * Estimate.of(values).middle:.2f}", "" if way == BASE else ratio.text(2)))
    print(machine_line(facts), f"{torch.get_num_threads()} threads,", f"{'processor' if alone else 'wall'} time.", "\n")
    print(table(("set", "step of", "ms", "ratio to AdamW, foreach"), rows))
    write_json(options.json, {"machine": facts, "threads": torch.get_num_threads(), "seconds": kept})


if __name__ == "__main__":
    main()
