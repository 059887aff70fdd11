"""Labels that tell nothing: constant, scaled away, or out of the loss's range."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import LossCall, Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import alternates, batch_size, main_loss, progress
from unstuck.rules._words import number
from unstuck.verdict import Evidence, Finding

_PLAIN = frozenset({
    "softmax", "log_softmax", "add", "bias", "reshape", "flatten", "dropout", "relu", "sigmoid", "tanh",
})  # fmt: skip
_ON_PROBABILITIES = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits"})
_PLAIN_LOSS = 12  # operations of a loss written by hand; of a longer one it is doubtful what its target is


def degenerate_targets(record: Record, *, samples: int = 32, solved: float = 0.5) -> list[Finding]:
    """The labels are constant, scaled away, or outside what the loss is made for.

    A network can only learn what its targets tell. When every label is the same, the loss falls quickly to
    nothing while nothing is learned: labels divided by 255 along with the pixels and made whole numbers again
    are all 0. Targets of a binary cross-entropy outside 0 to 1 (labels -1 and 1, or 1 and 2) make the loss
    negative without bound.

    Told apart:
        Constant labels of a classification fool the training score (it is 1, as is chance), so this looks at
        the targets alone. Contrastive losses ask for class 0 on purpose; there the logits are products of
        features, here they come straight from a layer with weights. Constant targets of a regression count only
        when they are not 0 (residuals are compared with 0 on purpose). Where several losses alternate, as in a
        GAN, whose labels are all ones and all zeros in turn, nothing is said.

    Wrong when:
        Data come sorted by class and the run was so short that only one class was seen.

    Args:
        record: The run.
        samples: Targets that must have been seen to call them constant; 32 draws of the same class are a coin's
            32 heads.
        solved: Share of the loss of a uniform guess (ln of the number of classes) that the loss must fall
            below, since nothing is easier than to answer one class.

    Returns:
        One finding at most, for the main loss.
    """
    call = main_loss(record)
    if call is None or not call.target or alternates(record):
        return []
    said = _out_of_range(call)
    if said is None and _seen(record, call) >= samples:
        said = _constant(record, call, solved)
    if said is None:
        return []
    known = [key for key in ("min", "max") if key in call.target]
    evidence = [Evidence(f"target_{key}", call.layer, 0, call.target[key]) for key in known]
    return finding("degenerate-targets", "error", 0.95, said, evidence=evidence, treated_by=("target-scale",))


def _seen(record: Record, call: LossCall) -> float:
    looks = max(len(record.vectors("label_count")), len(record.series("score").finite), min(call.calls, 3))
    per_batch = call.target_shape[0] if call.target_shape else batch_size(record)
    return looks * per_batch


def _constant(record: Record, call: LossCall, solved: float) -> str | None:
    low, high = call.target.get("min", math.nan), call.target.get("max", math.nan)
    share = record.program.task.label_share
    if call.target_kind in ("class index", "one-hot") and share and max(share) == 1.0 and call.num_classes > 1:
        learning = progress(record)
        if learning.last > solved * math.log(call.num_classes) or not _PLAIN.issuperset(call.chain[1:]):
            return None
        return say(
            "every label seen is {label}, though the network can tell {classes} classes: the loss "
            "falls to {last} with nothing learned",
            label=share.index(1.0),
            classes=call.num_classes,
            last=number(learning.last),
        )
    if low != high or not math.isfinite(low) or len(call.loss_ops) > _PLAIN_LOSS:
        return None
    if call.target_kind == "binary" or (call.target_kind == "real" and low != 0):
        return say("every target seen is {value}, so that there is nothing to learn from the inputs", value=number(low))
    return None


def _out_of_range(call: LossCall) -> str | None:
    low, high = call.target.get("min", math.nan), call.target.get("max", math.nan)
    if call.name in _ON_PROBABILITIES and (low < -1e-3 or high > 1 + 1e-3):
        where = say(" at {site}", site=call.site) if call.site else ""
        span = say("from {low} to {high}", low=number(low), high=number(high))
        return say(
            "targets run {span}, but the binary cross-entropy{where} takes them from 0 to 1", span=span, where=where
        )
    return None
