"""The last activation, the loss and the targets don't fit together."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unstuck._language import say
from unstuck.evidence import LossCall, Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, progress
from unstuck.rules._words import number, share, then
from unstuck.verdict import Evidence, Finding, Severity

_PASSED = frozenset({"reshape", "flatten", "dropout"})
_PICKED = _PASSED | {"gather"}
_BOUNDED = frozenset({"sigmoid", "hardsigmoid", "tanh", "softsign", "hardtanh", "relu6", "logsigmoid"})
_HALF = frozenset({"relu", "softplus", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"})
_SQUASHED = frozenset({"softmax", "sigmoid", "hardsigmoid"})
_RAW = frozenset({"linear", "conv", "matmul", "relu", "clamp"})
_UNBOUNDED = frozenset(
    {"linear", "conv", "matmul", "tanh", "softsign", "hardtanh", "leaky_relu", "elu", "selu", "gelu", "silu", "relu"}
)
_DISTANCES = frozenset({"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"})
_HINGES = frozenset({"multi_margin_loss", "multilabel_margin_loss", "hinge_embedding_loss"})
_NEVER_NEGATIVE = frozenset({"cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"})
_ONE_OF_MANY = say("several labels may be true at once, but the outputs end in softmax and sum to one")
_CLASSES = ("class index", "one-hot", "probability")


@dataclass(frozen=True)
class _Misfit:
    """What doesn't fit, how sure that is, and how severe where the network learns all the same."""

    says: str
    confidence: float
    key: str = ""  # of the outputs' statistics the evidence is
    stuck: Severity = "error"
    learns: Severity = "warning"
    well: Severity = "note"
    unknown: Severity = "warning"


def output_loss_mismatch(record: Record, *, rows: float = 0.9) -> list[Finding]:
    """The last activation, the loss and the task don't fit.

    Each loss function expects outputs of one kind, and takes the others without an error:

    | loss | expects | common mistakes |
    |---|---|---|
    | cross-entropy | logits | softmax before it, which is then applied twice; ReLU or sigmoid before it |
    | negative log likelihood | log-probabilities | logits or probabilities |
    | binary cross-entropy | probabilities | softmax where several labels may be true |
    | binary cross-entropy with logits | logits | sigmoid before it |
    | KL divergence | log-probabilities | probabilities |
    | log written by hand | probabilities | anything that may be negative; ReLU divided by its sum |
    | hinge | raw scores | softmax or sigmoid: a margin of 1 can't be reached |
    | squared or absolute error | numbers | classes |

    Told apart:
        By the operations between the last layer with weights and the loss, and by the outputs themselves: rows
        that are not negative and sum to one are probabilities, whatever made them. Rows whose exponentials sum
        to one are log-probabilities; log-softmax before a cross-entropy is harmless and never named. A squared
        error on classes is legal, and is named only where the network does not learn well.

    Wrong when:
        The operation is what the author wants: logits that are bounded on purpose, a margin smaller than 1.

    Args:
        record: The run.
        rows: Share of the rows of output that must look like probabilities (or log-probabilities) to be taken
            for such.

    Returns:
        One finding at most, for the first loss that doesn't fit.
    """
    learning = progress(record)
    for call in record.program.losses:
        misfit = (_negated(call, learning) or _misfit(call, rows)) if call.trains else None
        if misfit is not None:
            return _named(record, call, misfit, learning)
    return []


def _named(record: Record, call: LossCall, misfit: _Misfit, learning: Learning) -> list[Finding]:
    severity = learning.weigh(stuck=misfit.stuck, learns=misfit.learns, well=misfit.well, unknown=misfit.unknown)
    if learning.status == "diverges" and misfit.confidence < 0.8:
        severity = "note"  # it does not even get to where this would matter
    known = misfit.key in call.output
    says = say("{says} (at {site})", says=misfit.says, site=call.site) if call.site else misfit.says
    return finding(
        "output-loss-mismatch",
        severity,
        misfit.confidence,
        then(says, learning.words()),
        layers=(_made_by(record, call.layer),),
        evidence=[Evidence(f"output_{misfit.key}", call.layer, 0, call.output[misfit.key])] if known else [],
        treated_by=("output-loss",),
    )


def _made_by(record: Record, name: str) -> str:
    """The layer that computed what the loss takes: behind those that only pick from it or reshape it."""
    while (layer := record.layers.get(name)) is not None and layer.op in _PICKED and len(layer.inputs) == 1:
        name = layer.inputs[0]
    return name


def _misfit(call: LossCall, rows: float) -> _Misfit | None:
    last = _last(call.chain)
    match call.name:
        case "cross_entropy" | "linear_cross_entropy":
            return _to_cross_entropy(call, last, rows)
        case "nll_loss":
            return _to_log_likelihood(call, last, rows)
        case "kl_div":
            return _to_divergence(call, rows)
        case "binary_cross_entropy":
            return _to_binary(call, last)
        case "binary_cross_entropy_with_logits" | "multilabel_soft_margin_loss":
            return _to_binary_with_logits(call, last)
        case "hand-written":
            return _to_hand_written(call, last, rows)
    if call.name in _DISTANCES:
        return _to_distance(call, last)
    if call.name in _HINGES and last in _SQUASHED:
        return _hinge(call, last)
    return None


def _last(chain: tuple[str, ...]) -> str:
    """The last op that makes the outputs what they are; a clamp of probabilities, for safety's sake, is none."""
    ops = [op for op in chain if op not in _PASSED]
    while len(ops) > 1 and ops[-1] == "clamp" and ops[-2] in _SQUASHED:
        ops.pop()
    return ops[-1] if ops else ""


def _scaled_to_one(call: LossCall, rows: float) -> str:
    """The op whose outputs are divided by their sum, so that rows sum to one; "" where that isn't done."""
    ops = [op for op in call.chain if op not in (*_PASSED, "clamp")]
    if len(ops) < 2 or ops[-1] != "div" or not _share(call, "sums_to_one") >= rows:
        return ""
    return ops[-2] if ops[-2] in ("relu", "relu6", "sigmoid", "hardsigmoid", "tanh") else ""


def _maker(chain: tuple[str, ...]) -> str:
    """The op that makes outputs what they are, before they are clamped or divided by something; a bias is its matmul's."""
    ops = [op for op in chain if op not in (*_PASSED, "clamp", "div")]
    while len(ops) > 1 and ops[-1] in ("add", "bias") and ops[-2] in ("add", "bias", "matmul", "linear", "conv"):
        ops.pop()
    return ops[-1] if ops else ""


def _negated(call: LossCall, learning: Learning) -> _Misfit | None:
    if call.name not in _NEVER_NEGATIVE or not learning.last < -1 or learning.status == "learns well":
        return None
    return _Misfit(
        say(
            "{name} is never negative, but the loss falls to {last}: a wrong sign",
            name=call.name.replace("_", " "),
            last=number(learning.last),
        ),
        0.85,
    )


def _to_cross_entropy(call: LossCall, last: str, rows: float) -> _Misfit | None:
    if call.num_classes == 1 and call.target_kind in _CLASSES:
        return _Misfit(
            say("the cross-entropy is taken over a single output, so that it is 0 whatever the network does"),
            0.98,
            well="error",
        )
    if last == "softmax" or (last != "log_softmax" and _share(call, "sums_to_one") >= rows and call.num_classes > 1):
        floor = math.log(math.e + call.num_classes - 1) - 1 if call.num_classes > 1 else math.nan
        bound = say(", and can't fall below {floor}", floor=number(floor)) if math.isfinite(floor) else ""
        return _Misfit(
            say(
                "softmax is applied twice: the cross-entropy, which applies its own, is given probabilities{bound}",
                bound=bound,
            ),
            0.97,
            "sums_to_one",
            well="warning",
        )
    if last in _BOUNDED:
        return _Misfit(
            say("the logits of the cross-entropy end in {last}, so that no class can become certain", last=last),
            0.9,
            "max",
            well="warning",
        )
    if last == "relu":
        return _Misfit(
            say(
                "the logits of the cross-entropy end in relu, so that a class whose logit falls below 0 gets no gradient"
            ),
            0.92,
            "min",
        )
    return None


def _to_log_likelihood(call: LossCall, last: str, rows: float) -> _Misfit | None:
    if last in ("log_softmax", "logsigmoid") or not _known(call, "log_sums_to_one"):
        return None
    if _share(call, "log_sums_to_one") > 1 - rows or call.num_classes < 2:
        return None
    given = say("probabilities") if _share(call, "sums_to_one") >= rows else say("something else")
    low, high = number(call.output.get("min", math.nan)), number(call.output.get("max", math.nan))
    return _Misfit(
        say(
            "the negative log likelihood expects log-probabilities, but is given {given} (from {low} to "
            "{high}; {share} of the rows are log-probabilities)",
            given=given,
            low=low,
            high=high,
            share=share(_share(call, "log_sums_to_one")),
        ),
        0.96,
        "log_sums_to_one",
        well="warning",
    )


def _to_divergence(call: LossCall, rows: float) -> _Misfit | None:
    if not _known(call, "log_sums_to_one") or _share(call, "log_sums_to_one") > 1 - rows:
        return None
    if not _share(call, "sums_to_one") >= rows:
        return None  # pixels or other independent probabilities: their logarithms need not sum to anything
    return _Misfit(say("the KL divergence expects log-probabilities, but is given probabilities"), 0.93, "sums_to_one")


def _to_binary(call: LossCall, last: str) -> _Misfit | None:
    if last == "softmax" and call.output_shape[-1:] == (1,):
        return _Misfit(say("softmax over a single output is always 1"), 0.9, "min", well="error")
    if last == "softmax" and call.target_kind == "multi-label":
        return _Misfit(_ONE_OF_MANY, 0.93, "sums_to_one")
    if last in _RAW or call.chain in (("add",), ("bias",)):
        return _Misfit(
            say("the binary cross-entropy expects probabilities, but the outputs end in {last}", last=last), 0.85, "min"
        )
    return None


def _to_binary_with_logits(call: LossCall, last: str) -> _Misfit | None:
    if last in ("sigmoid", "hardsigmoid"):
        return _Misfit(
            say("sigmoid is applied twice: the loss, which applies its own, is given probabilities, so that no answer is "
            "surer than 0.73"), 0.97, "max", well="warning",
        )  # fmt: skip
    if last == "softmax":
        return _Misfit(
            say("the binary cross-entropy with logits is given the outputs of a softmax"),
            0.95,
            "sums_to_one",
            well="warning",
        )
    if last in ("relu", "tanh"):
        return _Misfit(say("the logits of the binary cross-entropy end in {last}", last=last), 0.85, "min")
    return None


def _to_distance(call: LossCall, last: str) -> _Misfit | None:
    error = say("absolute error") if call.name == "l1_loss" else say("squared error")
    if last == "softmax" and call.output_shape[-1:] == (1,):
        return _Misfit(say("softmax over a single output is always 1"), 0.9, "min", well="error")
    if call.target_kind == "one-hot":
        certain = 0.75 if call.name == "l1_loss" else 0.5
        return _Misfit(
            say("classes are learned by their {error} instead of a cross-entropy", error=error), certain, unknown="note"
        )
    if call.target_kind == "multi-label" and last == "softmax":
        return _Misfit(_ONE_OF_MANY, 0.93, "sums_to_one")
    if call.target_kind == "real" and last == "softmax":
        return _Misfit(
            say("numbers are to be predicted, but the outputs end in softmax and sum to one"), 0.85, "sums_to_one"
        )
    if call.target_kind == "binary" and call.target.get("std") != 0 and last in ("sigmoid", "tanh", "linear"):
        return _Misfit(
            say("two classes are learned by their {error} instead of a cross-entropy", error=error),
            0.35,
            stuck="warning",
            learns="note",
            unknown="note",
        )
    if call.name in _DISTANCES and _counts_classes(call):
        classes = int(call.target["max"] - call.target["min"]) + 1
        return _Misfit(
            say(
                "{classes} classes are learned as the numbers {low} to {high} by their {error}",
                classes=classes,
                low=number(call.target["min"]),
                high=number(call.target["max"]),
                error=error,
            ),
            0.35,
            stuck="warning",
            learns="note",
            unknown="note",
        )
    return None


def _to_hand_written(call: LossCall, last: str, rows: float) -> _Misfit | None:
    ops = call.loss_ops
    if call.target_kind == "multi-label" and last == "softmax":
        return _Misfit(_ONE_OF_MANY, 0.93, "sums_to_one")
    scaled = _scaled_to_one(call, rows)
    if scaled and call.num_classes > 1 and call.target_kind in _CLASSES:
        return _Misfit(
            say(
                "classes are to be told apart, but the outputs end in {last} and are divided by their sum; "
                "softmax makes probabilities of any output",
                last=scaled,
            ),
            0.5 if scaled in _SQUASHED else 0.93,
            "min",
            stuck="warning" if scaled in _SQUASHED else "error",
            learns="note" if scaled in _SQUASHED else "warning",
        )
    if (
        ops[:1] == ("mul",)
        and ({"clamp", "relu"} & set(ops))
        and call.target_kind in ("one-hot", "binary", "multi-label")
    ):
        return _hinge(call, last) if last in _SQUASHED else None
    if (
        "log" in ops[:2]
        and call.target_kind in ("one-hot", "binary", "multi-label", "probability")
        and last not in _SQUASHED
    ):
        maker = _maker(call.chain)
        low, high = call.output.get("min", math.nan), call.output.get("max", math.nan)
        fitted = bool({"clamp", "div"} & set(call.chain))
        if (
            maker in _UNBOUNDED
            and not _share(call, "sums_to_one") >= rows
            and (fitted or not (low >= 0 and high <= 1.001))
        ):
            how = say(" and are only made to fit into the logarithm's range") if fitted else ""
            return _Misfit(
                say(
                    "the logarithm in the loss is taken of no probabilities: the outputs end in {maker}{how}",
                    maker=maker,
                    how=how,
                ),
                0.93,
                "sums_to_one",
            )
        if last != "clamp" and (low < 0 or high > 1.001) and not _share(call, "sums_to_one") >= rows:
            return _Misfit(
                say(
                    "the logarithm in the loss is taken of no probabilities, but of {low} to {high}",
                    low=number(low),
                    high=number(high),
                ),
                0.9,
                "min",
            )
    return None


def _hinge(call: LossCall, last: str) -> _Misfit:
    classes = say(" of {num_classes} classes", num_classes=call.num_classes) if call.num_classes > 2 else ""
    return _Misfit(
        say(
            "the hinge loss asks for scores beyond 1 and -1, but the outputs{classes} end in {last}: from 0 to 1",
            classes=classes,
            last=last,
        ),
        0.92,
        "max",
        well="warning",
    )


def _counts_classes(call: LossCall) -> bool:
    """Targets of one output that are the whole numbers 0, 1, 2, ..."""
    target, size = call.target, math.prod(call.output_shape[1:]) if call.output_shape else 0
    if size != 1 or not target.get("integer") or call.target_kind != "real":
        return False
    values = target["max"] - target["min"] + 1
    return target["min"] in (0, 1) and 3 <= values <= 30 and target.get("unique", 0) == values


def _share(call: LossCall, key: str) -> float:
    value = call.output.get(key)
    return math.nan if value is None else float(value)


def _known(call: LossCall, key: str) -> bool:
    return math.isfinite(_share(call, key))
