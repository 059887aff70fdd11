"""Recurrent layers whose gradient reaches back fewer steps than the sequence is long."""

from __future__ import annotations

import numpy as np

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, alternates, progress, skill
from unstuck.rules._probes import reachable
from unstuck.rules._words import number, plural
from unstuck.verdict import Evidence, Finding

_GATED = ("lstm", "gru")
_HALF = 0.5  # of the way from chance to perfect: far from well below it


def short_memory(
    record: Record,
    *,
    lag_ratio: float = 1e-3,
    part: float = 1 / 3,
    length: int = 20,
    patience: int = 200,
    better: float = 0.3,
) -> list[Finding]:
    """The gradient of a recurrent layer reaches back a few steps only, while its sequences are many times as long.

    What lies further back than the gradient reaches can't be learned. A plain RNN forgets because each step shrinks the
    gradient; an LSTM or GRU as initialised forgets half of its content at every step, since its gates start half open:
    after ten steps a thousandth is left. A forget bias of 1 and more (Jozefowicz et al. 2015), gates initialised for
    the span of the task (Tallec and Ollivier 2018), or a shorter way to what counts makes it last.

    Told apart:
        By the gradient of the hidden state, lag by lag, relative to that at the end, as last measured: most networks
        learn to remember in time. It is no fault in itself, as most tasks need less memory than their sequences are
        long. So it must go with a network that is at chance, or, as a note, less than half of the way to perfect, after
        time to learn. A small reference network on the same samples that does well shows that the inputs hold the
        answer. Where layers shrink the gradient along depth as well, that is told as `vanishing-gradient`.

    Wrong when:
        Something else keeps the network at chance, and only recent steps matter.

    Args:
        record: The run.
        lag_ratio: Gradient relative to that at the end, below which a step is out of reach.
        part: Steps within reach relative to the length of the sequence.
        length: Steps that a sequence must have.
        patience: Steps of training before it is judged.
        better: How far a reference must be ahead, as a share of the way from chance to perfect, to make it more
            certain.

    Returns:
        One finding at most, for the layer that reaches back least.
    """
    learning = progress(record)
    if learning.well or learning.skill > _HALF or alternates(record) or record.steps < patience:
        return []
    if learning.before not in ("at chance", "learns"):
        return []
    found = {
        place: (reach, curve) for place, curve in _curves(record).items() if (reach := _reach(curve, lag_ratio)) > 0
    }
    found = {
        place: (reach, curve)
        for place, (reach, curve) in found.items()
        if len(curve) >= length and reach < part * len(curve)
    }
    if not found:
        return []
    place, (reach, curve) = min(found.items(), key=lambda item: item[1][0] / len(item[1][1]))
    says = say(
        "the gradient of {place} reaches back {steps} of {length} before less than {ratio} of it is left; {words}",
        place=place,
        steps=plural(reach, "step"),
        length=len(curve),
        ratio=number(lag_ratio),
        words=learning.words(),
    )
    return finding(
        "short-memory",
        learning.weigh(learns="note"),
        _confidence(record, learning, place, better),
        says,
        layers=found,
        evidence=[Evidence("lag_grad", place, record.vectors("lag_grad", place)[-1].step, float(curve[reach]))],
        treated_by=("gating", "initialization"),
    )


def _confidence(record: Record, learning: Learning, place: str, better: float) -> float:
    if not learning.stuck:
        return 0.4
    if skill(record, reachable(record)) - max(learning.skill, 0.0) > better:
        return 0.85
    layer = record.layers.get(place)
    gated = layer is not None and layer.op.startswith(_GATED)
    return 0.8 if gated else 0.6


def _curves(record: Record) -> dict[str, np.ndarray]:
    """Gradient by time lag as last measured, by layer; lags between those measured are filled in."""
    found = {}
    for place in record.places("lag_grad"):
        vectors = [v.values for v in record.vectors("lag_grad", place) if np.isfinite(v.values).any()]
        if vectors:
            known = np.flatnonzero(np.isfinite(vectors[-1]))
            found[place] = np.interp(np.arange(len(vectors[-1])), known, vectors[-1][known])
    return found


def _reach(curve: np.ndarray, lag_ratio: float) -> int:
    """The first lag from which on the gradient stays below the ratio; 0 when it doesn't."""
    above = np.flatnonzero(curve >= lag_ratio)
    reach = int(above[-1]) + 1 if len(above) else 0
    return reach if reach < len(curve) else 0
