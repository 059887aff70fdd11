"""How large a batch should be: gradient noise along the run, time and memory by batch size, and what follows: `unstuck batch`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch

from unstuck.optim.batch_choice import Choice, Own, choose
from unstuck.optim.batch_memory import MemoryLimit, memory_limit, update_bytes
from unstuck.optim.batch_timing import Timing, time_batches
from unstuck.optim.noise_scale import NoiseScale, critical_batch_size, noise_scale, split_batch
from unstuck.probes.accumulated import as_update, divided
from unstuck.probes.bench import Bench, Clock
from unstuck.probes.course import in_order
from unstuck.probes.critical_rate import critical_rate
from unstuck.probes.resized import Resized

SMALLEST, LARGEST = 8, 64  # times smaller and larger than the script's own
PARTS = 64  # gradients that are compared at each point, at most
FEWEST = 8  # the same at least, where there are as many samples
LARGEST_SHARE = 0.25  # of the training set that a recommended batch may be
GRADIENT_BYTES = 512 << 20  # of all gradients that are compared
MEMORY_SHARE = 0.5  # of what is free, that a batch may take which is only timed
NOISE, RATE, TIMES = 0.5, 0.15, 0.9  # of the time left, one after the other
_PLAIN = ("SGD", "LBFGS", "ASGD", "Sgd", "Sam", "SAM")  # optimizers whose steps grow with the gradient


@dataclass(frozen=True)
class Script:
    """What the watcher knows of a script, and the bench doesn't.

    Attributes:
        num_samples: In the training set; 0 when unknown.
        step_seconds: Median time of a step in the script; NaN when unknown.
        optimizer: Name of the optimizer, "" where updates are written by hand.
        num_batches: That go into each update.
    """

    num_samples: int = 0
    step_seconds: float = math.nan
    optimizer: str = ""
    num_batches: int = 1

    @property
    def adaptive(self) -> bool:
        """Whether the optimizer divides by the size of past gradients."""
        return bool(self.optimizer) and self.optimizer not in _PLAIN


def batch(bench: Bench, clock: Clock, script: Script) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measures what a batch size is chosen by, and chooses.

    Args:
        bench: The training, with its snapshots.
        clock: Ends it.
        script: What else is known of it.

    Yields:
        Name and numbers of each part: `own` (the training as it is), `noise` for each point of the run that there was time for,
        `rate` (how many times the script's rate is stable), `memory`, `size` for each batch size, and `choice`.

    Raises:
        MisuseError: Batches of another size can't be made.
    """  # noqa: DOC502
    bench.restore()
    count = script.num_batches
    recorded = bench.tapes[-1]
    bench.tapes[:] = [as_update(dataclasses.replace(tape, casts=True), count) for tape in bench.tapes]
    resized = Resized(bench)
    total = script.num_samples or 0
    size = count * resized.size
    by_samples, by_batches = divided(recorded, resized.size, count)
    grows, adds = resized.reduction == "sum" and not by_samples, count > 1 and not by_batches
    yield "own", {**_own(bench, resized, script), "reduction": "sum" if grows else "mean", "adds": adds}
    points: list[tuple[int, NoiseScale]] = []
    for step, found in noise_along(bench, resized, clock.part(NOISE), total=total):
        points.append((step, found))
        yield "noise", {"step": step, **_told(found)}
    points.sort(key=lambda point: point[0])
    bench.restore()
    stable = critical_rate(bench, clock.part(RATE), pooled=count) or {}
    bench.restore()
    if stable:
        yield "rate", {name: stable[name] for name in ("critical", "start_critical", "rate") if name in stable}
    memory = memory_of(bench, resized)
    yield "memory", {**asdict(memory), "device": str(bench.device)}
    timing = timed(bench, resized, memory, clock.part(TIMES), total=total, num_batches=count)
    bench.restore()
    if not points:
        return
    weights = spans([step for step, _ in points], bench.training.steps)
    scales = [found for _, found in points]
    times = _stable_times(stable)
    own = Own(
        size,
        adaptive=script.adaptive,
        total=total or math.inf,
        besides=besides(script.step_seconds, timing.update(resized.size, count)),
        stable=times,
        grows=grows,
        num_batches=count,
        adds=adds,
    )
    most = max(size, LARGEST_SHARE * total) if total else math.inf
    others = ladder(size, total) if count > 1 else []
    choice = choose(own, timing, scales, weights, fits=memory.size, most=most, sizes=others)
    yield from _sizes(choice, timing, memory, resized, total)
    yield "choice", {**_chosen(choice, own, scales, weights, timing), "most": most}


# ---------------------------------------------------------------------- noise


def noise_along(bench: Bench, resized: Resized, clock: Clock, *, total: int = 0) -> Iterator[tuple[int, NoiseScale]]:
    """The noise scale at the end of the run, at its start, and at its snapshots from the middle outwards.

    Args:
        bench: The training.
        resized: Its data.
        clock: Ends it after the first point, and limits how many gradients are compared at each.
        total: Samples in the training set; 0 when unknown.

    Yields:
        Step and noise scale.
    """
    points = in_order(bench, ())
    before = clock.left
    resized.gradient(resized.size, 0, seed=0)
    each = max(1e-6, before - clock.left)
    size, parts = split(bench, resized, afford=int(clock.left / each / (len(points) + 1)))
    if parts < 3:
        return
    whole = total if total >= parts * size else 0
    yield bench.training.steps, _noise(resized, size, parts, whole)
    for snapshot in points:
        if clock.left < parts * each:
            break
        bench.put(snapshot.values)
        yield snapshot.step, _noise(resized, size, parts, whole)
    bench.restore()


def split(bench: Bench, resized: Resized, *, afford: int) -> tuple[int, int]:
    """Samples in a part, and parts that are compared.

    Parts are whole batches where there are enough of them, else smaller; with a batch norm they are whole batches in any case, as
    samples that are normalised by fewer others have other gradients.

    Args:
        bench: The training.
        resized: Its data.
        afford: Gradients of batches that there is time for.

    Returns:
        Both; fewer than three parts where there is too little data.
    """
    bytes_each = sum(p.numel() * p.element_size() for p in bench.learned)
    most = min(PARTS, max(FEWEST, afford), max(4, GRADIENT_BYTES // max(1, bytes_each)))
    size = resized.size
    if not resized.batch_norms and resized.count < 4 * FEWEST * size:
        size = max(1, min(size, resized.count // (2 * FEWEST)))
    return size, min(most, resized.count // size)


def _noise(resized: Resized, size: int, parts: int, total: int) -> NoiseScale:
    gradients = (resized.gradient(size, k * size, seed=k) for k in range(parts))
    return noise_scale(split_batch(gradients, size), total=total)


def spans(steps: Sequence[int], last: int) -> list[float]:
    """How much of a run each point stands for: up to the middle between it and the next.

    Args:
        steps: Of the points, ascending.
        last: Updates that the run made.

    Returns:
        Updates, at least 1 each.

    Example:
        >>> spans([0, 10, 40], 40)
        [5.0, 20.0, 15.0]
    """
    middles = [0.0, *((a + b) / 2 for a, b in pairwise(steps)), float(last)]
    return [max(1.0, b - a) for a, b in pairwise(middles)]


def _told(found: NoiseScale) -> dict[str, Any]:
    return {
        "scale": found.scale, "low": found.low, "high": found.high, "noise": found.noise, "signal": found.signal,
        "samples": found.num_samples, "parts": found.num_parts, "known": found.is_known,
    }  # fmt: skip


# ---------------------------------------------------------------------- time and memory


def ladder(size: int, total: int = 0) -> list[int]:
    """Samples to an update, halved up to three times where that is possible, as they are, and doubled up to six times.

    Args:
        size: Samples to an update as it is.
        total: Samples in the training set, above which there is no batch; 0 when unknown.
    """
    few = [size // 2**k for k in range(1, SMALLEST.bit_length()) if size % 2**k == 0]
    many = [size * 2**k for k in range(1, LARGEST.bit_length())]
    return [*few, size, *(n for n in many if n <= max(total, size) or not total)]


def timed(
    bench: Bench, resized: Resized, memory: MemoryLimit, clock: Clock, *, total: int = 0, num_batches: int = 1
) -> Timing:
    """Seconds of an update at sizes from an eighth to 64 times the script's own.

    Args:
        bench: The training; its optimizer makes the updates, at a rate of 0.
        resized: Its data.
        memory: What fits: sizes that take more than half of it aren't tried, but for the script's own.
        clock: Limits which sizes are timed, and how often.
        total: Samples in the training set, above which there is no batch; 0 when unknown.
        num_batches: That go into an update of the script; its own updates are timed too where it's more than one.

    Returns:
        The times.
    """
    own = resized.size
    between = [n for n in ladder(own, num_batches * own) if n >= own]  # ways to make the script's own updates
    wanted = dict.fromkeys([*ladder(num_batches * own, total), *between])
    sizes = [n for n in wanted if n <= max(own, MEMORY_SHARE * memory.size)]
    optimizer = bench.optimizer(0.0) if bench.steps_known else torch.optim.SGD(bench.learned, lr=0.0)
    step = stepped(bench, resized, optimizer)
    several = (own, num_batches) if num_batches > 1 else None
    return time_batches(
        step, sizes, accumulated=several, seconds=clock.left, device=bench.device, repeats=15, least=num_batches * own
    )


def stepped(bench: Bench, resized: Resized, optimizer: Any) -> Callable[..., object]:
    """Makes updates on a bench with one or several batches of any size, whose data is made once."""
    made: dict[int, list[torch.Tensor]] = {}

    def step(size: int, num_batches: int = 1) -> object:
        if size not in made:
            made[size] = resized.data(size)
        return bench.step(optimizer, *[resized.number] * num_batches, data=lambda _: made[size])

    return step


def memory_of(bench: Bench, resized: Resized) -> MemoryLimit:
    """The largest batch that fits into memory."""
    optimizer = bench.optimizer(0.0) if bench.steps_known else torch.optim.SGD(bench.learned, lr=0.0)
    bench.step(optimizer, resized.number)  # what the optimizer keeps is there from now on
    kept = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]

    def measure(size: int) -> float:
        data = resized.data(size)
        held = [*bench.tensors, *kept, *(data[i] for i in resized.batched)]

        def step() -> None:
            bench.step(optimizer, resized.number, data=lambda _: data)

        return update_bytes(step, lambda: resized.loss(data), held)

    own = resized.size
    found = memory_limit(measure, [own, 2 * own], device=bench.device)
    bench.restore()
    return found


def besides(seconds: float, update: float) -> float:
    """Seconds of a step in a script that are none of the update's: loading data, printing."""
    return max(0.0, seconds - update) if math.isfinite(seconds) else 0.0


def _stable_times(found: dict[str, Any]) -> float:
    """How many times the script's rate is stable, by the start of the run where that is known."""
    value = found.get("start_critical", found.get("critical"))
    return float(value) if value is not None else math.inf


# ---------------------------------------------------------------------- what is told


def _own(bench: Bench, resized: Resized, script: Script) -> dict[str, Any]:
    training, optimizer = bench.training, bench.training.optimizer
    return {
        "size": script.num_batches * resized.size, "micro_size": resized.size, "num_batches": script.num_batches,
        "num_samples": script.num_samples or None, "updates": training.steps,
        "step_seconds": script.step_seconds, "optimizer": script.optimizer, "adaptive": script.adaptive,
        "rate": training.first_rate if math.isfinite(training.first_rate) else training.rate,
        "by_hand": optimizer is None, "batch_norms": resized.batch_norms,
        "dropout": bench.has_dropout, "clipping": training.clipping, "samples": resized.count,
        "threads": torch.get_num_threads(), "device": str(bench.device),
    }  # fmt: skip


def _sizes(
    choice: Choice, timing: Timing, memory: MemoryLimit, resized: Resized, total: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    for option in choice.options:
        size, count = option.micro_size, option.num_batches
        yield "size", {
            **asdict(option), "micro_size": size,
            "update_seconds": timing.update(size, count), "update_error": timing.error(size, count),
            "epoch_seconds": timing.epoch(size, total, count) if total else None,
            "bytes": memory.bytes_of(size),
            "repeated": size > resized.count,
        }  # fmt: skip


def _chosen(
    choice: Choice, own: Own, scales: Sequence[NoiseScale], weights: Sequence[float], timing: Timing
) -> dict[str, Any]:
    critical = critical_batch_size(own.size, [s.scale for s in scales], weights)
    return {
        "own": choice.own, "recommended": choice.recommended, "num_batches": choice.num_batches,
        "fastest": choice.fastest, "why": choice.why,
        "beyond": choice.beyond, "critical": critical, "known": any(s.is_known for s in scales), "besides": own.besides,
        "stable": own.stable, "waited": timing.waited, "lines": [asdict(line) for line in timing.lines],
    }  # fmt: skip
