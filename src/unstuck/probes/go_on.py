"""Is it merely unfinished? The training continued, as the script would have."""

from __future__ import annotations

import math
from typing import Any

from unstuck.probes.bench import Bench, Clock


def go_on(bench: Bench, clock: Clock, *, share: float = 1.0, most: int = 2000) -> dict[str, Any] | None:
    """Continues on every other kept batch, and looks at those and at the rest.

    Args:
        bench: The training.
        clock: Ends it.
        share: Updates, relative to those that the script made.
        most: Updates.

    Returns:
        `steps`; `losses` and `scores` at the beginning, at 1/4, 1/2, 3/4 and at the end, on the batches continued with; `held_losses`,
        `held_scores` on the others, empty when there is only one batch.
    """
    if not bench.steps_known:
        return None
    bench.restore()
    trained, held = (bench.batches[::2], bench.batches[1::2]) if len(bench.tapes) > 1 else (bench.batches, [])
    steps = max(4, min(most, round(share * bench.training.steps)))
    optimizer = bench.optimizer()
    found: dict[str, Any] = {"losses": [], "scores": [], "held_losses": [], "held_scores": []}
    done = 0

    def look() -> None:
        loss, score = bench.measured(trained[-8:])
        found["losses"].append(loss if math.isfinite(loss) else None)
        found["scores"].append(score if math.isfinite(score) else None)
        if held:
            loss, score = bench.measured(held[-8:])
            found["held_losses"].append(loss if math.isfinite(loss) else None)
            found["held_scores"].append(score if math.isfinite(score) else None)

    look()
    for quarter in range(4):
        part = clock.part(1 / (4 - quarter))
        losses = bench.train(optimizer, trained, steps // 4, part)
        done += len(losses)
        look()
    return {"steps": done, **found}
