"""Is it merely unfinished? The training continued, as the script would have."""

from __future__ import annotations

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
        `steps`; `own_losses` at the beginning, at 1/4, 1/2, 3/4 and at the end, on the batches continued with; `losses`
        and `scores` on the others, which are the same when there is only one.
    """
    if not bench.steps_known:
        return None
    bench.restore()
    steps = max(4, min(most, round(share * bench.training.steps)))
    optimizer = bench.optimizer()
    found: dict[str, list[float]] = {"losses": [], "scores": [], "own_losses": []}
    done = 0

    held, fitted = (bench.some(part, clock, 40) for part in (bench.held, bench.fitted))

    def look() -> None:
        loss, score = bench.measured(held)
        found["losses"].append(loss)
        found["scores"].append(score)
        found["own_losses"].append(bench.loss(fitted) if held != fitted else loss)

    look()
    for quarter in range(4):
        done += len(bench.train(optimizer, bench.fitted, steps // 4, clock.part(1 / (4 - quarter))))
        look()
    return {"steps": done, **found}
