"""What would larger batches do, at the same rate?"""

from __future__ import annotations

from typing import Any

from unstuck.probes.bench import Bench, Clock

LEAST = 8  # updates, of which fewer tell nothing


def larger_batch(
    bench: Bench, clock: Clock, *, times: int = 8, least: int = 4, most: int = 100, small: int = 16
) -> dict[str, Any] | None:
    """Continues with the script's rate on single batches, and with each update on the mean gradient of several.

    Where noise throws the network about, the mean of several batches carries it further in as many updates. A rate that is too
    high for any batch is no better with them.

    Args:
        bench: The training.
        clock: Limits the updates.
        times: Batches to an update, or half of those at hand.
        least: Of them.
        most: Updates.
        small: Largest batch size of which it is asked.

    Returns:
        `steps`, `times`, and the mean `losses` and `scores` of batches that weren't trained on: before, after updates on single
        batches, and after as many on several. A loss is None where it diverged.
    """
    times = min(times, len(bench.fitted) // 2)
    if not bench.steps_known or bench.training.batch_size > small or times < least:
        return None
    steps = int(min(most, clock.left / ((times + 1) * 4 * bench.cost)))
    if steps < LEAST:
        return None
    bench.restore()
    look = bench.some(bench.held, clock, 40)
    found = [bench.measured(look)]
    for count in (1, times):
        bench.restore()
        losses = bench.train(bench.optimizer(), bench.fitted, steps, pooled=count)
        found.append(bench.measured_after(losses, look))
    losses, scores = zip(*found, strict=True)
    return {"steps": steps, "times": times, "losses": list(losses), "scores": list(scores)}
