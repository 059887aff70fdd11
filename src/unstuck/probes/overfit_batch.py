"""Can the network fit a single batch? What can't is broken, or too small."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from torch import nn

from unstuck.probes.bench import Bench, Clock


def overfit_batch(bench: Bench, clock: Clock, *, most: int = 400, samples: int = 32) -> dict[str, Any] | None:
    """Fits a few samples with Adam, dropout switched off, from the end and from the start (Karpathy 2019; CS231n).

    Args:
        bench: The training.
        clock: Shared out among the tries.
        most: Updates of each try.
        samples: Of the last batch that are fitted.

    Returns:
        `before`, `after`, `score_before`, `score_after` of the better try from the end; `start_before`, ... from the
        start; `samples`, `steps`; `falling` where one of the two was cut short while its
        loss still fell: what it hasn't fitted it might have.
    """
    batch = bench.batches[-1]
    data, count = _some(bench, batch, samples)
    found: dict[str, Any] = {"samples": count}
    falling: dict[str, bool] = {}
    tries = [(prefix, rate) for prefix in ("", "start_") for rate in (1e-2, 1e-3) if not prefix or bench.starts]
    for i, (prefix, rate) in enumerate(tries):
        share = clock.part(1 / (len(tries) - i))
        bench.restore(start=bool(prefix))
        with without_dropout(bench):
            before, score_before = bench.measured([batch], data=lambda _: data)
            optimizer, losses = bench.adam(rate), [before]
            while len(losses) <= most and share.left and math.isfinite(losses[-1]):
                losses.append(bench.step(optimizer, batch, data=lambda _: data))
            after, score = bench.measured([batch], data=lambda _: data)
        known = found.get(prefix + "after")
        if math.isfinite(after) and (known is None or after < known):
            found.update({
                prefix + "before": before, prefix + "after": after, prefix + "score_before": score_before,
                prefix + "score_after": score, "steps": max(len(losses) - 1, found.get("steps", 0)),
            })  # fmt: skip
            falling[prefix] = len(losses) <= most and _falls(losses)
    if any(falling.values()):
        found["falling"] = True
    return found if "after" in found else None


def _falls(losses: list[float]) -> bool:
    """Whether the last tenth lies a tenth lower than that in the middle, or there are too few to tell; no where it broke."""
    if not math.isfinite(losses[-1]):
        return False
    part, middle = len(losses) // 10, len(losses) // 2
    if part < 1:
        return True
    return median(losses[-part:]) < 0.9 * median(losses[middle : middle + part])


def _some(bench: Bench, batch: int, samples: int) -> tuple[list[Any], int]:
    tape = bench.tapes[batch]
    sizes = {tape.data[i].shape[0] for i in (*tape.inputs, *tape.targets) if tape.data[i].dim()}
    if len(sizes) != 1 or not tape.inputs or not tape.targets or min(sizes) <= samples:
        return list(tape.data), bench.training.batch_size
    size = sizes.pop()
    data = [t[:samples] if t.dim() and t.shape[0] == size else t for t in tape.data]
    try:
        bench.forward(batch, data=data)
    except Exception:  # noqa: BLE001 - the script wants its own batch size: then all of it
        return list(tape.data), bench.training.batch_size
    return data, samples


class without_dropout:  # noqa: N801 - reads as a statement
    """Within it the bench's dropout layers take nothing away; afterwards they are as they were.

    Args:
        bench: Whose.
    """

    def __init__(self, bench: Bench) -> None:
        self.parts = [p for m in bench.modules for p in m.modules() if isinstance(p, nn.modules.dropout._DropoutNd)]
        self.shares = [p.p for p in self.parts]

    def __enter__(self) -> None:
        for part in self.parts:
            part.p = 0.0

    def __exit__(self, *_: object) -> None:
        for part, share in zip(self.parts, self.shares, strict=True):
            part.p = share
