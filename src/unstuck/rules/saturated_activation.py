"""Sigmoid, tanh and softsign units on their flat parts."""

from __future__ import annotations

from unstuck.evidence import Record
from unstuck.rules._learning import progress
from unstuck.rules._words import names, share
from unstuck.verdict import Evidence, Finding

_BOUNDED = frozenset({"sigmoid", "tanh", "softsign", "hardtanh", "hardsigmoid"})


def saturated_activation(record: Record, *, fraction: float = 0.5) -> list[Finding]:
    """Bounded units sit at their bounds, where the slope is next to nothing: no gradient passes them.

    Told apart:
        Only sigmoid, tanh, softsign and their hard versions are looked at, never linear outputs, logits or a softmax. An output
        sigmoid at its bounds is a network that is sure of its answers, so outputs count only where the network is at chance. Hidden
        units are judged by the median over the second half of the run; a network that learns well in spite of them gets a note.

    Wrong when:
        Units are meant to be gates or codes of 0 and 1.

    Args:
        record: The run.
        fraction: Share of a layer's outputs within 1% of a bound. SageMaker Debugger and DeepDiagnosis call a layer saturated when
            more than half of it is.

    Returns:
        One finding at most, with the layers concerned.
    """
    learning = progress(record)
    found = {}
    for layer in record.program.layers:
        if layer.op not in _BOUNDED or layer.role == "loss" or (layer.role == "output" and not learning.stuck):
            continue
        value = record.series("act_saturated", layer.name).finite.tail(0.5).median()
        if value >= fraction:
            found[layer.name] = value
    if not found:
        return []
    worst = max(found, key=lambda name: found[name])
    start = record.series("act_saturated", worst).finite.first
    others = f", as are {names([n for n in found if n != worst])}" if len(found) > 1 else ""
    says = (
        f"{share(found[worst])} of the outputs of {worst} are within 1% of a bound ({share(start)} at step 0){others}; {learning.words()}"
    )
    evidence = tuple(Evidence("act_saturated", name, int(record.series("act_saturated", name).steps[-1]), value) for name, value in list(found.items())[:4])
    severity = learning.weigh(stuck="error" if found[worst] >= 0.8 else "warning")
    return [
        Finding(
            "saturated-activation", "saturated-activation", severity, 0.75 if learning.stuck else 0.5, says, tuple(found), evidence,
            ("initialization", "normalization", "activation", "standardize-input", "learning-rate"),
        )
    ]  # fmt: skip
