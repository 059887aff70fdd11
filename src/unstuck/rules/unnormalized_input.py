"""Inputs that are not centred or scaled."""

from __future__ import annotations

from unstuck._language import say
from unstuck.evidence import Record
from unstuck.rules._depth import LINEAR, NORMS, weighted
from unstuck.rules._finding import finding
from unstuck.rules._inputs import Inputs, inputs
from unstuck.rules._learning import progress
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding

_UNDOING = frozenset(
    {"batch_norm", "instance_norm"}
)  # by channel: what a scale and a shift of the input change there, they take away
_FAR = 2 / 3  # of the way from chance to perfect: where a scale is hardly to blame


def unnormalized_input(record: Record, *, size: float = 10.0, off_centre: float = 5.0) -> list[Finding]:
    """Input features are far from zero mean and unit deviation.

    Large inputs make large gradients and steep curvature: a rate that suits the rest overshoots, units die or
    saturate. Features that sit far from zero compared to how much they vary look all alike to the network: it
    has to learn their mean away first.

    Told apart:
        The features of the model's input, as it comes in, over all sampled batches: their size, and how far off
        centre they are. Pixels from 0 to 1 and sparse counts are no fault, nor are features that hardly ever
        vary, such as the margin of pictures, nor is anything that goes through a normalisation layer or an
        embedding first. Batch norm right behind the first layer undoes one scale for all features, and any shift
        (Ioffe and Szegedy 2015, section 3.3), not a scale for each of them. Where the network came two thirds of the way
        from chance to perfect all the same, it is a note.

    Wrong when:
        The network scales its input itself in a way that was not seen.

    Args:
        record: The run.
        size: Root mean square of the features. Raw pixels have 80 and more; UMLAUT and DeepDiagnosis warn
            beyond 1 already, which most working programs break.
        off_centre: Distance of the mean from 0 in standard deviations, typical over the features. Pixels of
            photographs from 0 to 1 have 1 to 2.

    Returns:
        One finding at most, for the worst input.
    """
    if _normalised_first(record):
        return []
    undone = _normalised_next(record)
    found = [
        (words, item)
        for item in inputs(record)
        if not (undone and item.alike) and (words := _odd(item, size, off_centre))
    ]
    if not found:
        return []
    words, item = max(found, key=lambda pair: pair[1].size)
    learning = progress(record)
    evidence = [
        Evidence("input_mean", item.place, 0, float(item.mean[abs(item.mean).argmax()])),
        Evidence("input_std", item.place, 0, float(item.std.max())),
    ]
    says = say(
        "{size} (from {low} to {high}); {words}",
        size=words,
        low=number(float(item.low.min())),
        high=number(float(item.high.max())),
        words=learning.words(),
    )
    return finding(
        "unnormalized-input",
        learning.weigh(learns="warning" if not learning.skill > _FAR else "note"),
        0.85 if learning.stuck else 0.7,
        says,
        layers=_first(record),
        evidence=evidence,
        treated_by=("standardize-input", "normalization"),
    )


def _odd(item: Inputs, size: float, off_centre: float) -> str:
    if item.size > size:
        return say("the input has a size of {size} (root mean square) where 1 is usual", size=number(item.size))
    if item.off_centre > off_centre:
        return say("input features lie {number} of their standard deviations from 0", number=number(item.off_centre))
    return ""


def _normalised_first(record: Record) -> bool:
    first = next((layer for layer in record.program.layers if layer.parameters or layer.op in NORMS), None)
    return first is not None and first.op in NORMS


def _normalised_next(record: Record) -> bool:
    """Whether batch norm stands right behind each of the layers that the input goes into."""
    firsts = [item.layer for item in weighted(record) if item.depth == 0]
    readers = [[layer.op for layer in record.program.layers if first.name in layer.inputs] for first in firsts]
    linear = all(first.op in LINEAR for first in firsts)  # what a recurrent layer makes of a scale, nothing undoes
    return bool(firsts) and linear and all(ops and _UNDOING.issuperset(ops) for ops in readers)


def _first(record: Record) -> tuple[str, ...]:
    return next(((layer.name,) for layer in record.program.layers if layer.parameters), ())
