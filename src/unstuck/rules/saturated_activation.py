"""Sigmoid, tanh and softsign units on their flat parts."""

from __future__ import annotations

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._depth import inner
from unstuck.rules._finding import finding
from unstuck.rules._learning import late, progress
from unstuck.rules._words import names, share, then
from unstuck.verdict import Evidence, Finding

_BOUNDED = frozenset({"sigmoid", "tanh", "softsign", "hardtanh", "hardsigmoid"})


def saturated_activation(record: Record, *, fraction: float = 0.5) -> list[Finding]:
    """Bounded units sit at their bounds, where the slope is next to nothing: no gradient passes them.

    Told apart:
        Only sigmoid, tanh, softsign and their hard versions are looked at, never linear outputs, logits or a
        softmax. An output (no layer with weights follows) at its bounds is a network that is sure of its
        answers, so outputs count only where the network is at chance. Hidden units are judged by the median
        over the second half of the run, up to where it broke if it did; where the network learns well in spite
        of them, they are a note.

    Wrong when:
        Units are meant to be gates or codes of 0 and 1.

    Args:
        record: The run.
        fraction: Share of a layer's outputs within 1% of a bound. SageMaker Debugger and DeepDiagnosis call a
            layer saturated when more than half of it is.

    Returns:
        One finding at most, with all layers concerned.
    """
    learning, hidden = progress(record), inner(record)
    found = {}
    for layer in record.program.layers:
        if layer.op not in _BOUNDED or layer.role == "loss":
            continue
        value = late(record.series("act_saturated", layer.name), learning).median()
        if value >= fraction and (layer.name in hidden or learning.status == "at chance"):
            found[layer.name] = value
    if not found:
        return []
    worst = max(found, key=lambda name: found[name])
    start = record.series("act_saturated", worst).finite.first
    others = [name for name in found if name != worst]
    more = (
        say(
            ", as are at least {share} of {layers}",
            share=share(min(found[n] for n in others)),
            layers=names(others),
        )
        if others
        else ""
    )
    says = say(
        "{share} of the outputs of {worst} are within 1% of a bound ({start} at step 0){more}",
        share=share(found[worst]),
        worst=worst,
        start=share(start),
        more=more,
    )
    step = max(0, learning.end - 1)
    return finding(
        "saturated-activation",
        learning.weigh(stuck="error" if found[worst] >= 0.8 else "warning"),
        0.75 if learning.stuck else 0.5,
        then(says, learning.words()),
        layers=found,
        evidence=[Evidence("act_saturated", name, step, found[name]) for name in [worst, *others][:4]],
        treated_by=("initialization", "normalization", "activation", "standardize-input", "learning-rate"),
    )
