"""NaN or Inf, and where it began."""

from __future__ import annotations

import math

from unstuck._language import say
from unstuck.evidence import Event, Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, main_loss, progress
from unstuck.rules._words import names, number
from unstuck.verdict import Evidence, Finding

_STEEP = frozenset({"log", "div", "sqrt", "rsqrt", "exp", "norm", "acos", "asin", "atan2"})
_WHAT = {
    "input": say("input"), "activation": say("activation"), "weight": say("weight"), "loss": say("loss"), "gradient": say("gradient"),
    "target": say("target"), "value": say("value"),
}  # fmt: skip
_SIGNALS = ("weight_nonfinite", "grad_nonfinite")


def non_finite(record: Record, *, recovered: float = 0.02) -> list[Finding]:
    """A value became NaN or Inf: in an input, an activation, the loss, a gradient or a weight.

    From there it spreads to everything at the next update, so what counts is where it began. A logarithm of 0,
    a division by 0, the mean of an empty batch, the slope of a square root at 0 and an exponential that overflows
    are places where it begins out of the blue; where the numbers grew over many steps before, it is the end of a divergence, and
    what made them grow is the cause.

    Told apart:
        The watcher finds the first bad value in the graph of the first loss that is not finite. Single
        activations of minus infinity are usual under a mask, so that activations alone are no evidence: loss,
        gradients or weights must be bad as well. With a gradient scaler for mixed precision, an overflow now
        and then is how it finds its scale.

    Wrong when:
        The loss is infinite on purpose now and then (rejected samples), and the script leaves such steps out.

    Args:
        record: The run.
        recovered: Share of the steps whose loss may be bad when the run goes on well after them.

    Returns:
        One finding at most, at the first place.
    """
    learning = progress(record)
    event = next(iter(record.happened("non-finite")), None)
    bad = [place for signal in _SIGNALS for place in record.places(signal) if _still_bad(record, signal, place)]
    broken = learning.broke_at is not None or bool(bad)
    if not broken and event is None:
        return _in_evaluation(record, learning)
    if (
        not broken
        and event is not None
        and event.data.get("what") == "gradient"
        and "GradScaler" in record.program.features
    ):
        return []
    share = _bad_share(record)
    severity = "error" if broken else "note" if share <= recovered and not learning.stuck else "warning"
    layers = (event.layer,) if event is not None and event.layer else tuple(dict.fromkeys(bad))[:8]
    return finding(
        "non-finite",
        severity,
        0.97 if broken else 0.7,
        _says(event, learning.broke_at, bad),
        layers=layers,
        evidence=_evidence(record, event),
        treated_by=_remedies(record, event),
    )


def _in_evaluation(record: Record, learning: Learning) -> list[Finding]:
    """Training is sound, and what is evaluated is not."""
    event = next(iter(record.happened("eval-non-finite")), None)
    if event is None or learning.broke_at is not None:
        return []
    bad, looked = int(event.data.get("bad", 0)), int(event.data.get("batches", 0))
    where = (
        say("what it is given there holds NaN or Inf")
        if event.data.get("what") == "input"
        else say("its inputs are finite")
    )
    of = say("in {bad} of {looked} batches that were looked at, ", bad=bad, looked=looked) if looked > 1 else ""
    evaluated = record.series("eval_loss")
    return finding(
        "non-finite",
        "warning",
        0.9,
        say(
            "training is finite, but evaluated after step {step} the network gives NaN: {of}{where}; {words}",
            step=event.step,
            of=of,
            where=where,
            words=learning.words(),
        ),
        evidence=[Evidence("eval_loss", "", int(evaluated.steps[-1]), evaluated.last)] if len(evaluated) else (),
    )


def _still_bad(record: Record, signal: str, place: str) -> bool:
    series = record.series(signal, place)
    return len(series) > 0 and series.last != 0 and not math.isnan(series.last)


def _bad_share(record: Record) -> float:
    loss = record.series("loss")
    return float((~(loss.values < math.inf)).mean()) if len(loss) else 0.0


def _says(event: Event | None, broke_at: int | None, bad: list[str]) -> str:
    if event is None:
        where = say(" in {places}", places=names(bad)) if bad else say(" in the loss")
        if broke_at is None:
            return say("NaN or Inf{where}", where=where)
        return say("NaN or Inf{where} from step {step} on", where=where, step=broke_at)
    what, op, before = event.data.get("what", "value"), event.data.get("op"), event.data.get("before")
    place = say(" of {layer}", layer=event.layer) if event.layer else ""
    made = say(", made by {op}", op=op) if op else ""
    before_it = (
        say("; the largest magnitude there was {before} before", before=number(before))
        if isinstance(before, (int, float))
        else ""
    )
    if event.data.get("empty"):
        before_it = say(
            "; it is a mean over nothing: no element is left of the batch, or all of its targets are ignored"
        )
    return say(
        "the first NaN or Inf is in the {what}{place} at step {step}{made}{before}",
        what=_WHAT.get(what, what),
        place=place,
        step=event.step,
        made=made,
        before=before_it,
    )


def _evidence(record: Record, event: Event | None) -> list[Evidence]:
    found = []
    before = event.data.get("before") if event is not None else None
    if event is not None and isinstance(before, (int, float)):
        signal = "act_max" if event.data.get("what") == "activation" else "grad_rms"
        found.append(Evidence(signal, event.layer, event.step, float(before)))
    loss = record.series("loss")
    if len(loss):
        found.append(Evidence("loss", "", int(loss.steps[-1]), loss.last))
    return found


def _remedies(record: Record, event: Event | None) -> tuple[str, ...]:
    if event is not None and (event.data.get("what") in ("input", "target") or event.data.get("empty")):
        return ()
    call = main_loss(record)
    by_hand = set(call.loss_ops) if call is not None else set()
    if (event is not None and event.data.get("op") in _STEEP) or by_hand & _STEEP:
        return ("output-loss", "learning-rate", "gradient-clipping")
    return ("learning-rate", "gradient-clipping", "normalization")
