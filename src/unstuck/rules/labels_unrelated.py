"""Labels that don't follow from the inputs."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import alternates, progress, skill
from unstuck.rules._probes import number_of, probe, quality_of, reachable
from unstuck.rules._words import number, plural, then
from unstuck.verdict import Evidence, Finding


def labels_unrelated(
    record: Record,
    *,
    samples: int = 200,
    near: float = 0.05,
    apart: float = 0.3,
    errors: float = 2.5,
    most: float = 0.8,
) -> list[Finding]:
    """Labels have nothing to do with the inputs: shuffled apart, misaligned, sorted differently, or of another set.

    A network can learn such samples by heart, but nothing that holds for others.

    Told apart:
        By small reference learners on the kept samples, half of them held out. They fit their own half, and on the other
        they are no better than a constant; nor is the network itself on evaluation data, where the script has any.
        A network that does better than chance on new data shows that labels do follow, whatever the reference says; so
        does one that, trained anew, gets better on other batches with its labels than with permuted ones.

    Wrong when:
        The task is learnable only by a network made for it, such as long sequences or the parity of many bits, which the script's is
        not either. Without an evaluation nothing is said of a network that learns, and of one that doesn't a warning at most.

    Args:
        record: The run.
        samples: Samples that the reference must have had.
        near: Score above chance on the held-out half that counts as none, as a share of the way to perfect.
        apart: Least distance between its score on its own half and on the other, as such a share: it could learn by heart.
        errors: Standard errors that the held-out score may be above chance; where these are more than three times `near`, nothing
            is said.
        most: Score of the best constant answer above which nothing is said: the reference stays with it, too.

    Returns:
        One finding at most.
    """
    learning, data = progress(record), probe(record, "reference")
    if data is None or alternates(record) or number_of(data, "samples") < samples:
        return []
    held, fitted = reachable(record), number_of(data, "fitted")
    classes = record.program.task.num_classes
    chance = max(number_of(data, "chance"), 1 / classes if classes > 1 else 0.0)  # the constant may have had bad luck
    error = math.sqrt(max(chance * (1 - chance), 0.0) / (number_of(data, "samples") / 3)) if 0 < chance < 1 else 0.03
    if errors * error > 3 * near * (1 - chance) or chance > most:
        return []  # too few samples, or too few of any other label, to tell
    if not (held - chance) < max(near * (1 - chance), errors * error) or not (fitted - held) > apart * (1 - chance):
        return []
    seen = learning.eval_score
    if math.isfinite(seen) and skill(record, seen) > max(near, errors * error):
        return []
    if _follow(record, near):
        return []
    if math.isnan(seen) and not learning.stuck:
        return []  # it may have found what the reference can't, or have learned by heart
    says = say(
        "on {samples}, half of them held out, a reference fits its own half to {fitted} and the "
        "other to {held}, chance {chance}: the labels don't follow from the inputs",
        samples=plural(int(number_of(data, "samples")), "sample"),
        fitted=number(fitted),
        held=number(held),
        chance=number(chance),
    )
    return finding(
        "labels-unrelated",
        "error" if math.isfinite(seen) else "warning",
        0.8 if math.isfinite(seen) else 0.6,
        then(says, learning.words()),
        evidence=[Evidence("reference_score", "", record.steps, held), *learning.evidence(record)],
        treated_by=(),
    )


def _follow(record: Record, near: float) -> bool:
    """Whether training anew brought more on other batches with the labels as they are than with permuted ones."""
    tried = probe(record, "permuted-labels")
    if tried is None:
        return False
    _, real, permuted = (
        quality_of(record, loss, score, tried) for loss, score in zip(tried["losses"], tried["scores"], strict=True)
    )
    return real - max(permuted, 0.0) > 3 * near
