"""Steps that are too small."""

from __future__ import annotations

import math

from unstuck.evidence import Record
from unstuck.rules._depth import is_weight
from unstuck.rules._learning import alternates, progress
from unstuck.rules._steps import fastest, rate
from unstuck.rules._words import number, plural
from unstuck.verdict import Evidence, Finding


def learning_rate_too_low(record: Record, *, travel: float = 0.1, ratio: float = 3e-4, few: int = 10) -> list[Finding]:
    """Steps are so small that the weights hardly move in the whole run.

    Either the rate is low, or the optimizer's usual rate is (plain SGD at 0.001, Adadelta at 0.001).

    Told apart:
        Not by the rate, which means nothing across optimizers, but by how far the weights came: the update relative to the weight, times
        the number of steps, is the longest way they can have gone. Where that is a tenth of their size and the network has not
        learned, steps are too small. The weight that moves most decides, since a vanishing gradient makes the others slow
        whatever the rate. With a gradient of exactly zero nothing is said of the rate.

    Wrong when:
        Weights start so large that moving them by a tenth is much. Fine-tuning, which is meant to move little, learns well.

    Args:
        record: The run.
        travel: Longest way relative to the size of the weights.
        ratio: Median update relative to the weight, of the weight that moves most. CS231n's rule of thumb is 1e-3; TheDeepChecker
            calls less than 1e-4 too small.
        few: Steps below which it is rather the number of steps that is too small.

    Returns:
        One finding at most.
    """
    learning = progress(record)
    if learning.status not in ("at chance", "learns", "unknown") or alternates(record) or learning.steps < few:
        return []
    name, size = fastest(record)
    gradients = [record.series("grad_rms", p.name).median() for p in record.program.parameters if is_weight(p)]
    alive = any(g > 0 for g in gradients)
    at = rate(record)
    stopped = at == 0 and alive
    way = size * record.steps
    if not stopped and not (alive and 0 < size < ratio and way < travel):
        return []
    if learning.status == "unknown" and not stopped:
        return []
    amount = f"{number(size)} of its size a step, at most {number(way)} in all {plural(record.steps, 'step')}" if not stopped else "not at all"
    at_rate = f" at a rate of {number(at)}" if math.isfinite(at) else ""
    says = f"the weights hardly move{at_rate}: {name or 'the fastest one'} changes by {amount}; {learning.words()}"
    evidence = (Evidence("update_ratio", name, record.steps - 1, size), Evidence("lr", "", record.steps - 1, at))
    severity = learning.weigh(stuck="error")
    confidence = 0.85 if learning.stuck else 0.7
    return [
        Finding(
            "learning-rate-too-low", "learning-rate-too-low", severity, confidence, says, (), evidence, ("learning-rate", "optimizer", "train-longer")
        )
    ]  # fmt: skip
