"""What one measurement of a tensor costs, against the plain way to write it in torch.

Each statistic of `unstuck.signals` and a plain torch version of it take turns on the same tensor, in blocks of about a
millisecond; of each the fastest block counts (on a shared machine the others measure the neighbours), and the ratio is
that of the two. Caches are warm: in a training, expect half as much again. The plain versions are what one writes first,
and read all numbers: for a tensor of a million the ratio shows what sampling saves. Run with one thread, since threads
that wait for each other on a busy machine would decide everything: `--threads 0` leaves torch's own number.

    python benchmarks/signals.py [--threads 1] [--seconds 0.3] [--device cpu] [--only describe,gradient] [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measure import machine, machine_line, table, write_json
from unstuck.signals.lag import memory
from unstuck.signals.moments import describe, gradient, gradients
from unstuck.signals.rate import hand_rate
from unstuck.signals.score import accuracy
from unstuck.signals.summary import features, label_counts
from unstuck.signals.units import UnitWindow, alive
from unstuck.signals.updates import ratios, snapshot


@dataclass(frozen=True)
class Case:
    """One statistic of one tensor, ours and written plainly."""

    name: str
    of: str
    ours: Callable[[], Any]
    plain: Callable[[], Any] | None


@dataclass(frozen=True)
class Cost:
    """Microseconds a call."""

    name: str
    of: str
    ours: float
    plain: float | None

    @property
    def ratio(self) -> float | None:
        """Ours over plain."""
        return None if self.plain is None else self.ours / self.plain


# ---------------------------------------------------------------------- the plain ways


def plain_describe(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    finite = torch.isfinite(x)
    good = torch.where(finite, x, 0.0)
    std, mean = torch.std_mean(good)
    low, high = bounds or (-1.0, 1.0)
    share = [(good == 0), ~finite, (good > high - 0.02) | (good < low + 0.02), good < 0]
    between = good.var(0).mean().sqrt() / std
    return torch.stack([mean, std, good.abs().max(), *(s.float().mean() for s in share), between])


def plain_gradient(x: Tensor) -> Tensor:
    finite = torch.isfinite(x)
    good = torch.where(finite, x, 0.0)
    shares = [(good == 0).float().mean(), (~finite).float().mean()]
    return torch.stack([good.square().mean().sqrt(), good.abs().max(), *shares])


def plain_gradients(tensors: list[Tensor]) -> Tensor:
    return torch.stack([plain_gradient(x) for x in tensors])


def plain_alive(x: Tensor, axis: int) -> Tensor:
    return (x > 0).movedim(axis, -1).flatten(0, -2).any(0)


def plain_ratios(before: list[Tensor], after: list[Tensor]) -> Tensor:
    changes = torch._foreach_norm(torch._foreach_sub(after, before))
    return torch.stack([u / w for u, w in zip(changes, torch._foreach_norm(before), strict=True)])


def plain_rate(before: list[Tensor], after: list[Tensor], grads: list[Tensor]) -> Tensor:
    change = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])
    slope = torch.cat([g.flatten() for g in grads])
    return -(change @ slope) / (slope @ slope)


def plain_features(x: Tensor) -> Tensor:
    axes = [i for i in range(x.dim()) if i != (1 if x.dim() > 3 else x.dim() - 1)]
    return torch.stack([*reversed(torch.std_mean(x, axes)), x.amin(axes), x.amax(axes)])


def plain_memory(module: nn.LSTM, x: Tensor) -> Tensor:
    """Through autograd, a call of the layer for each step."""
    h, c = (torch.zeros(1, x.shape[1], module.hidden_size, requires_grad=True) for _ in range(2))
    states = [(h, c)]
    for now in x.split(1):
        _, state = module(now, states[-1])
        states.append(state)
    grads = torch.autograd.grad(states[-1][0].sum(), [part for state in states[:-1] for part in state])
    return torch.stack(torch._foreach_norm(grads))


# ---------------------------------------------------------------------- cases


def activations(device: torch.device) -> dict[str, tuple[Tensor, tuple[float, float] | None, int]]:
    """By name: a tensor, its bounds, the axis of its units."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)

    return {
        "32 x 10": (normal(32, 10), None, -1),
        "128 x 256, relu": (normal(128, 256).relu(), None, -1),
        "128 x 256, tanh": (normal(128, 256).tanh(), (-1.0, 1.0), -1),
        "128 x 256, bfloat16": (normal(128, 256).bfloat16(), None, -1),
        "128 x 256, one NaN": (normal(128, 256).index_fill(0, torch.tensor([4], device=device), torch.nan), None, -1),
        "128 x 8192": (normal(128, 8192).relu(), None, -1),
        "16 x 64 x 32 x 32": (normal(16, 64, 32, 32).relu(), None, 1),
        "same, channels last": (normal(16, 64, 32, 32).relu().to(memory_format=torch.channels_last), None, 1),
        "64 x 128 x 128, transposed": (normal(128, 64, 128).transpose(0, 1), None, -1),
    }


def networks(device: torch.device) -> dict[str, list[Tensor]]:
    """Shapes of the parameters of some networks."""
    shapes = {
        "mlp, 4 tensors": [(128, 784), (128,), (10, 128), (10,)],
        "100 small tensors": [(64, 64), (64,)] * 50,
        "transformer, 26 tensors": [(256, 256), (256,)] * 8 + [(256, 1024), (1024,), (1024, 256), (256,), (256,)] * 2,
        "2 of a million": [(512, 2048)] * 2,
    }
    return {name: [torch.randn(s).to(device) for s in sizes] for name, sizes in shapes.items()}


def cases(device: torch.device) -> list[Case]:
    """All that is measured."""
    found = []
    for name, (x, bounds, axis) in activations(device).items():
        found.append(
            Case("describe", name, lambda x=x, b=bounds: describe(x, b), lambda x=x, b=bounds: plain_describe(x, b))
        )
        found.append(Case("gradient", name, lambda x=x: gradient(x), lambda x=x: plain_gradient(x)))
        found.append(Case("alive", name, lambda x=x, a=axis: alive(x, a), lambda x=x, a=axis: plain_alive(x, a)))
    for name, tensors in networks(device).items():
        changed, state = [0.999 * t for t in tensors], snapshot(tensors)
        after = snapshot(changed)
        found += [
            Case("gradients", name, lambda t=tensors: gradients(t), lambda t=tensors: plain_gradients(t)),
            Case("snapshot", name, lambda t=tensors: snapshot(t), lambda t=tensors: [x.clone() for x in t]),
            Case(
                "ratios", name, lambda s=state, c=changed: ratios(s, c), lambda t=tensors, c=changed: plain_ratios(t, c)
            ),
            Case(
                "rate",
                name,
                lambda s=state, a=after: hand_rate(s, a, s),
                lambda t=tensors, c=changed: plain_rate(t, c, t),
            ),
        ]
    window, units = UnitWindow(), alive(torch.randn(128, 256, device=device))
    window.add(units)
    found += [
        Case("window, add", "256 units", lambda: window.add(units), None),
        Case("window, dead share", "256 units", window.dead_share, None),
    ]
    output, labels = torch.randn(128, 10, device=device), torch.randint(10, (128,), device=device)
    found += [
        Case(
            "accuracy", "128 x 10", lambda: accuracy(output, labels, "class index"),
            lambda: (output.argmax(1) == labels).float().mean(),
        ),
        Case("label counts", "128 of 10", lambda: label_counts(labels, 10), lambda: F.one_hot(labels, 10).sum(0)),
    ]  # fmt: skip
    for name, x in {"128 x 784": torch.rand(128, 784), "64 x 3 x 224 x 224": torch.rand(64, 3, 224, 224)}.items():
        x = x.to(device)
        found.append(Case("features", name, lambda x=x: features(x), lambda x=x: plain_features(x)))
    lstm, sequence = nn.LSTM(128, 128).to(device), torch.randn(200, 4, 128, device=device)
    plain = None if device.type != "cpu" else lambda: plain_memory(lstm, sequence)
    found.append(Case("memory", "LSTM 128, 200 steps", lambda: memory(lstm, sequence), plain))
    return found


# ---------------------------------------------------------------------- measuring


def cost(case: Case, *, seconds: float, device: torch.device) -> Cost:
    """Times ours and the plain way in turn.

    Args:
        case: What is measured.
        seconds: For each of the two.
        device: Where the tensors are; it is waited for at the end of each block.

    Returns:
        The fastest of each.
    """
    ways = [way for way in (case.ours, case.plain) if way is not None]
    best = [float("inf")] * len(ways)
    single = [min(block(way, 1, device) for _ in range(5)) for way in ways]  # the first call is slower
    calls = [max(1, min(50, int(1e-3 / seconds))) for seconds in single]
    end = time.perf_counter() + seconds * len(ways)
    while time.perf_counter() < end:
        for i, way in enumerate(ways):
            best[i] = min(best[i], block(way, calls[i], device) / calls[i])
    return Cost(case.name, case.of, best[0] * 1e6, best[1] * 1e6 if len(best) > 1 else None)


def block(way: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Seconds of some calls."""
    start = time.perf_counter()
    for _ in range(calls):
        way()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(time.perf_counter() - start, 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description="What one measurement of a tensor costs.")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads; 0 leaves them as they are")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each of the two ways")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="names, by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    wanted = {name for name in options.only.split(",") if name}
    facts = machine(options.device)
    costs = [
        cost(case, seconds=options.seconds, device=device)
        for case in cases(device)
        if not wanted or case.name in wanted
    ]
    rows = [
        (
            c.name,
            c.of,
            f"{c.ours:.1f}",
            "" if c.plain is None else f"{c.plain:.1f}",
            "" if c.ratio is None else f"{c.ratio:.2f}",
        )
        for c in costs
    ]
    print(machine_line(facts), "\n")
    print(table(("statistic", "of", "us", "us, plainly", "ratio"), rows))
    write_json(options.json, {"machine": facts, "costs": [{**asdict(c), "ratio": c.ratio} for c in costs]})


if __name__ == "__main__":
    main()
