"""ReLU units that are zero on every sample, for good."""

from __future__ import annotations

import math

from unstuck.evidence import Record
from unstuck.rules._dead import WHOLE, dead_share, relu_layers
from unstuck.rules._learning import progress
from unstuck.rules._words import names, share
from unstuck.verdict import Evidence, Finding


def dead_units(record: Record, *, fraction: float = 0.5, samples: int = 64, batches: int = 3) -> list[Finding]:
    """Units of a ReLU layer give zero for every sample: no gradient passes them, so they can't come back.

    A layer whose units are all dead cuts the network in two: what lies before it gets no gradient, what lies behind sees a constant. It
    happens when a large step throws the biases far below zero, or when the weights start that way.

    Told apart:
        A unit counts as dead when it gave nothing above zero in a whole window of batches, so that units that are only rarely active
        are not counted. In healthy networks some ReLU units are dead, half of a wide layer is not rare; so what counts is
        whether the network learns: where it learns well, dead units are a note at most. The layer that is dead is named, not those
        before it whose gradients vanish for that reason.

    Wrong when:
        The window saw few different samples. Sparse activations on purpose (k-winners, very rare features) look alike.

    Args:
        record: The run.
        fraction: Share of a layer's units that must be dead. SageMaker Debugger takes 0.5, AutoTrainer and DeepDiagnosis 0.7.
        samples: Samples that the window must have seen.
        batches: Batches that the window must have seen.

    Returns:
        One finding at most, with the layers concerned, the worst first in the sentence.
    """
    dead = {
        layer.name: value
        for layer in relu_layers(record)
        if (value := dead_share(record, layer, samples=samples, batches=batches)) >= fraction
    }
    if not dead:
        return []
    learning = progress(record)
    worst = max(dead, key=lambda name: dead[name])
    whole = [name for name in dead if dead[name] >= WHOLE]
    stuck = "error" if whole else "warning"
    severity = learning.weigh(stuck=stuck, learns="warning" if dead[worst] >= 0.7 or whole else "note", unknown="warning" if whole else "note")
    born = _at_start(record, worst)
    when = "from the start" if born >= WHOLE else f"({share(born)} of the outputs were zero at step 0)" if math.isfinite(born) else ""
    others = f", and at least {share(fraction)} of those of {names([n for n in dead if n != worst])}" if len(dead) > 1 else ""
    amount = "all units" if dead[worst] >= WHOLE else f"{share(dead[worst])} of the units"
    says = f"{amount} of {worst} are zero on every sample {when}".rstrip() + f"{others}; {learning.words()}"
    confidence = 0.9 if whole and learning.stuck else 0.6
    evidence = tuple(Evidence("dead_share", name, _last_step(record, name), dead[name]) for name in [worst, *(n for n in dead if n != worst)][:4])
    return [
        Finding(
            "dead-units", "dead-units", severity, confidence, says, tuple(dead), evidence,
            ("activation", "learning-rate", "initialization", "normalization"),
        )
    ]  # fmt: skip


def _at_start(record: Record, name: str) -> float:
    return record.series("act_zero", name).finite.first


def _last_step(record: Record, name: str) -> int:
    series = record.series("dead_share", name)
    return int(series.steps[-1]) if len(series) else record.steps - 1


