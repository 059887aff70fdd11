"""Does it improve without dropout and weight decay? The training continued with them and without."""

from __future__ import annotations

from typing import Any

from unstuck.probes.bench import Bench, Clock
from unstuck.probes.overfit_batch import without_dropout


def unregularized(bench: Bench, clock: Clock, *, most: int = 400) -> dict[str, Any] | None:
    """Continues on every other batch as the script would have, and without dropout and weight decay; both then evaluated.

    Args:
        bench: The training.
        clock: Half of it for each.
        most: Updates of each.

    Returns:
        `kept`, `without` (losses in evaluation mode, on the batches between), `score_kept`, `score_without`, `own_kept`,
        `own_without` (losses on the batches continued on), `steps`; None where there is neither dropout nor decay.
    """
    if not bench.steps_known or not (bench.has_dropout or any(_decays(bench))):
        return None
    held, fitted = (bench.some(part, clock, 20) for part in (bench.held, bench.fitted))
    found: dict[str, Any] = {}
    steps = most
    for name, share in (("kept", 0.5), ("without", 1.0)):
        part = clock.part(share)
        bench.restore()
        optimizer = bench.optimizer()
        if name == "without":
            for group in optimizer.param_groups:
                if "weight_decay" in group:
                    group["weight_decay"] = 0.0
            with without_dropout(bench):
                bench.train(optimizer, bench.fitted, steps, Clock(10 * clock.left + 1))
        else:
            steps = len(bench.train(optimizer, bench.fitted, most, part))
        loss, score = bench.measured(held, train=False)
        own, _ = bench.measured(fitted, train=False)
        found.update({name: loss, f"score_{name}": score, f"own_{name}": own})
    return {**found, "steps": steps}


def _decays(bench: Bench) -> list[bool]:
    return [float(group.get("weight_decay", 0.0) or 0.0) > 0 for group in bench.optimizer().param_groups]
