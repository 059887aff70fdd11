"""Backpropagation through time beside real-time recurrent learning: what each costs, keeps, and how right its gradient is.

An LSTM that remembers for long (forget bias 2) reads a stream; what it learns from is an error at the very end. What one sees:

- **Full backpropagation is right and cheap, and keeps every step.** What it needs grows with the stream: on one without end it can't
  be had.
- **Truncated to k steps it is cheaper to keep, and wrong**: it knows nothing of what was before. How wrong depends on how long the network
  remembers.
- **SnAp-1 looks at all of the past, through each unit's influence on itself alone.** It is as cheap as truncation, and not right either.
- **RTRL in blocks is exactly right and keeps the same amount however long the stream is.** That amount, and the time, are large: it is for
  small networks.

Gradients and memory are checked. Times are of one run on one machine; much of those of the truncated ways is the cost of the many calls
that short parts take.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from unstuck.recurrent.layers import LSTM
from unstuck.recurrent.rtrl import RTRL
from unstuck.recurrent.truncated import TruncatedBPTT
from unstuck.report.pictures import BLUE, GREEN, ORANGE, PURPLE, VERMILION, save, styled

UNITS, STEPS, SEEDS = 32, 100, 8
LENGTHS = (100, 200, 500, 1000, 2000, 5000, 10000)
WAYS = {"full BPTT": BLUE, "TBPTT 20": GREEN, "TBPTT 5": ORANGE, "SnAp-1": PURPLE, "RTRL, block": VERMILION}


def drawn(seed: int) -> tuple[LSTM, Tensor, Tensor]:
    """A network, a stream, and how the last output's error weighs its units."""
    generator = torch.Generator().manual_seed(seed)
    layer = LSTM(UNITS, UNITS, dtype=torch.float64)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.normal_(0, UNITS**-0.5, generator=generator) if name.startswith("weight") else p.zero_()
        layer.get_parameter("bias_ih_l0")[UNITS : 2 * UNITS] = 2
    x = torch.randn(STEPS, 1, UNITS, generator=generator, dtype=torch.float64)
    return layer, x, torch.randn(UNITS, generator=generator, dtype=torch.float64)


def learner(way: str, layer: LSTM) -> tuple[Callable[[Tensor], Any], int]:
    """What runs a part of the stream, and how long the parts are."""
    if way == "full BPTT":
        return layer, STEPS
    if way.startswith("TBPTT"):
        every = int(way.split()[1])
        return TruncatedBPTT(layer, every=every), every
    return RTRL(layer, mode="snap1" if way == "SnAp-1" else "block"), STEPS // 2


def gradient(way: str, layer: LSTM, x: Tensor, weights: Tensor) -> Tensor:
    """By all parameters, of an error at the end."""
    run, every = learner(way, layer)
    layer.zero_grad()
    outputs = [run(part)[0] for part in x.split(every)]
    (outputs[-1][-1, 0] * weights).sum().backward()
    return torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None])


def cosines() -> dict[str, Tensor]:
    """Cosine to the true gradient, by way and seed."""
    found: dict[str, list[Tensor]] = {way: [] for way in WAYS}
    for seed in range(SEEDS):
        true = gradient("full BPTT", *drawn(seed))
        for way in WAYS:
            found[way].append(torch.cosine_similarity(gradient(way, *drawn(seed)), true, dim=0))
    return {way: torch.stack(values) for way, values in found.items()}


def kept(way: str) -> list[float]:
    """Megabytes that are kept to learn from, by length of the stream, in float64."""
    layer, _, _ = drawn(0)
    run, every = learner(way, layer)
    if isinstance(run, RTRL):
        run(torch.zeros(every, 1, UNITS, dtype=torch.float64))
        run(torch.zeros(every, 1, UNITS, dtype=torch.float64))
        return [run.num_bytes / 1e6] * len(LENGTHS)
    return [saved(layer, n if way == "full BPTT" else every) / 1e6 for n in LENGTHS]


def saved(layer: LSTM, steps: int) -> int:
    """Bytes that autograd keeps of a run, parameters left out."""
    found: dict[int, int] = {}
    own = {p.data_ptr() for p in layer.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            found[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs, _ = layer(torch.zeros(steps, 1, UNITS, dtype=torch.float64))
    del outputs
    return sum(found.values())


def microseconds(way: str) -> float:
    """Processor time by step, with an error at every step."""
    layer, x, _ = drawn(0)
    run, every = learner(way, layer)
    best = float("inf")
    for _ in range(20):
        start = time.process_time()
        for part in x.split(every):
            run(part)[0].sum().backward()
        best = min(best, time.process_time() - start)
    return best / STEPS * 1e6


def bars(axes: Axes, values: dict[str, float], title: str, form: str, *, least: float = 0.0) -> None:
    """One bar for each way; what it is stands beside it, at `least` at the least."""
    places = list(range(len(values)))
    axes.barh(places, list(values.values()), color=list(WAYS.values()), height=0.62)
    axes.set_yticks(places, list(values))
    axes.invert_yaxis()
    axes.set_title(title)
    axes.margins(x=0.18)
    for place, value in zip(places, values.values(), strict=True):
        at = max(value, least)
        axes.annotate(format(value, form), (at, place), (4, 0), textcoords="offset points", va="center", fontsize=9)


def draw(right: dict[str, Tensor], memory: dict[str, list[float]], times: dict[str, float], out: Path) -> None:
    """All three, side by side."""
    with styled():
        figure = Figure(figsize=(12, 3.9), layout="constrained")
        first, second, third = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
        bars(
            first, {way: float(v.median()) for way, v in right.items()}, "Cosine to the true gradient", ".3f", least=1.0
        )
        for place, values in enumerate(right.values()):
            first.plot(values, [place] * SEEDS, "|", color="black", markersize=7, alpha=0.6)
        first.set_xlabel(f"error after {STEPS} steps; ticks: {SEEDS} networks")
        for way, colour in WAYS.items():
            second.loglog(LENGTHS, memory[way], color=colour, linewidth=2)
            place = 5 if way == "full BPTT" else 0
            side = {"ha": "right", "xytext": (-8, 0)} if place else {"ha": "left", "xytext": (0, 4)}
            second.annotate(way, (LENGTHS[place], memory[way][place]), textcoords="offset points", fontsize=9, **side)
        second.set(title="What is kept, MB", xlabel="length of the stream, steps")
        bars(third, times, "Time by step, µs", ".0f")
        third.set_xlabel("an error at every step")
    save(figure, out)


def main(out: Path) -> None:
    """Measures, checks and draws."""
    torch.set_num_threads(1)
    right, memory = cosines(), {way: kept(way) for way in WAYS}
    times = {way: microseconds(way) for way in WAYS}
    for way in WAYS:
        print(f"{way}: cosine {float(right[way].median()):.4f}, {memory[way][-1]:.3f} MB, {times[way]:.0f} µs a step")
    assert float((1 - right["RTRL, block"]).abs().max()) < 1e-12
    assert float(right["TBPTT 5"].median()) < float(right["TBPTT 20"].median()) < 0.999
    assert float(right["SnAp-1"].median()) < 0.99
    assert memory["full BPTT"][-1] > 50 * memory["full BPTT"][0]
    assert all(memory[way][-1] == memory[way][0] for way in WAYS if way != "full BPTT")
    assert memory["full BPTT"][-1] > memory["RTRL, block"][-1]
    draw(right, memory, times, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    main(parser.parse_args().out)
