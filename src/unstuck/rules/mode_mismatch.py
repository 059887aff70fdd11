"""Evaluation in train mode, training in evaluation mode, and batch statistics that don't carry over."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unstuck._language import say, say_many
from unstuck.evidence import Event, Layer, Record
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, alternates, batch_size, progress, skill
from unstuck.rules._probes import number_of, probe
from unstuck.rules._words import both, names, number, plural, share, then
from unstuck.verdict import Evidence, Finding

_SMALL = 4  # samples of which batch norm's statistics are mostly noise
_BATCHES = 8  # that the experiment compares
_SETTLED = 100  # steps: ten times the memory of running statistics of the usual momentum (0.1), which lag while weights move fast


def mode_mismatch(
    record: Record,
    *,
    gap: float = 0.1,
    wide: float = 0.4,
    dropped: float = 0.03,
    ratio: float = 2.0,
    part: float = 0.5,
    passes: float = 0.9,
) -> list[Finding]:
    """The network is evaluated in another mode than the one it should be in, or its batch norms do not carry over.

    In train mode dropout drops and batch norm takes the batch's own mean and variance; in evaluation mode dropout is
    off and batch norm takes the running ones. Without `model.eval()` an evaluation is worse than the network, and its
    batch norms learn from the evaluation data. Without `model.train()` afterwards, dropout and batch norm do nothing
    from the second epoch on. With batches of one or two, a momentum that is too small, or very few steps, running
    statistics are no likeness of what the network was trained with, and evaluation fails though all modes are right.

    Told apart:
        By the modes the network was in when it was evaluated and trained, which count only where dropout or unfrozen
        batch norm is there to mind them; and by an experiment: the same training batches in both modes. Where they come
        out alike, it is a note. A script that evaluates in evaluation mode as well knows the difference and means what
        it does. A gap in favour of evaluation mode is what dropout does and no fault as long as evaluation has it off;
        without dropout the modes must agree. After very few steps the statistics have not caught up yet, which more
        steps cure: a note.

    Wrong when:
        Dropout is left on to estimate uncertainty (Gal and Ghahramani 2016), or a loaded network is kept in evaluation
        mode to save its statistics.

    Args:
        record: The run.
        gap: Distance between the modes by which running statistics don't carry over, as a share of the way from chance
            to perfect. In the middle of a training at a high rate evaluation lags by less than a tenth as a rule.
        wide: Such a distance that leaves evaluation worthless.
        dropped: Such a distance that counts where evaluation is in train mode, as all of it is lost for nothing.
        ratio: Loss in the one mode relative to the other, where there is no score (TheDeepChecker: 1.5).
        part: Share of the steps that were made in evaluation mode.
        passes: Share of the evaluated batches, in the last half of the evaluations, that were in train mode.

    Returns:
        One finding at most.
    """
    if alternates(record):
        return []
    learning = progress(record)
    return (
        _evaluated_in_train_mode(record, learning, dropped, wide, ratio, passes)
        or _trained_in_evaluation_mode(record, learning, part)
        or _statistics(record, learning, gap, wide, ratio)
    )


# ---------------------------------------------------------------------- evaluated in train mode


def _evaluated_in_train_mode(
    record: Record, learning: Learning, dropped: float, wide: float, ratio: float, passes: float
) -> list[Finding]:
    evaluations = record.happened("eval")
    late = evaluations[len(evaluations) // 2 :]
    batches = sum(int(e.data.get("batches", 0)) for e in late)
    in_train = sum(int(e.data.get("in_train_mode", 0)) for e in late)
    if not batches or in_train < passes * batches:
        return []
    what = _modal(record)
    lost = abs(_gap(record))
    apart = lost > dropped if math.isfinite(lost) else abs(math.log(_loss_ratio(record))) > math.log(ratio)
    normed = any(layer.op == "batch_norm" for layer in what)  # whose statistics the evaluation's own batches make
    apart = apart or (normed and skill(record, learning.score_last) - skill(record, learning.eval_score) > wide)
    says = say("evaluation runs in train mode{doing}: model.eval() is missing", doing=_doing(what))
    return finding(
        "mode-mismatch",
        "warning" if apart and learning.status != "diverges" else "note",
        0.9 if apart else 0.7,
        then(says, _both(record, learning)) if probe(record, "modes") is not None else says,
        layers=[layer.name for layer in what],
        evidence=[Evidence("in_train_mode", "", late[-1].step, in_train / batches)],
        treated_by=("mode",),
    )


def _modal(record: Record) -> list[Layer]:
    """Layers that mind the mode."""
    return [
        layer
        for layer in record.program.layers
        if layer.op == "batch_norm" or (layer.op == "dropout" and layer.settings.get("p", 0.0) > 0)
    ]


def _doing(layers: Sequence[Layer]) -> str:
    norms = [layer.name for layer in layers if layer.op == "batch_norm"]
    drops = [layer.name for layer in layers if layer.op == "dropout"]
    said = [say_many("{layers} drops", "{layers} drop", len(drops), layers=names(drops))] if drops else []
    said += (
        [
            say_many(
                "{layers} takes the statistics of each batch",
                "{layers} take the statistics of each batch",
                len(norms),
                layers=names(norms),
            )
        ]
        if norms
        else []
    )
    return say(", where {said}", said=both(said)) if said else ""


# ---------------------------------------------------------------------- trained in evaluation mode


def _trained_in_evaluation_mode(record: Record, learning: Learning, part: float) -> list[Finding]:
    turns = [e for e in record.happened("mode") if e.data.get("dropout") or e.data.get("batch_norm")]
    if not turns or record.steps == 0:
        return []
    model = str(turns[0].data.get("model", ""))
    turns = [e for e in record.happened("mode") if e.data.get("model") == model]
    steps = _steps_in_evaluation_mode(turns, record.steps)
    if not steps > part * record.steps:
        return []
    most = max(turns, key=lambda e: int(e.data.get("dropout", 0)) + int(e.data.get("batch_norm", 0)))
    norms, drops = int(most.data.get("batch_norm", 0)), int(most.data.get("dropout", 0))
    idle = [plural(norms, "batch norm")] * (norms > 0) + [plural(drops, "dropout")] * (drops > 0)
    overfits = skill(record, learning.score_last) - skill(record, learning.eval_score) > 0.15
    harms = (norms > 0 and not learning.well) or (drops > 0 and overfits)
    since = say("from step {step} on", step=turns[0].step) if turns[0].step else say("from the start")
    says = say_many(
        "{model} is trained in evaluation mode {since} ({share} of all steps), so that {idle} does nothing: "
        "model.train() is missing",
        "{model} is trained in evaluation mode {since} ({share} of all steps), so that {idle} do nothing: "
        "model.train() is missing",
        norms + drops,
        model=model or say("the model"),
        since=since,
        share=share(steps / record.steps),
        idle=both(idle),
    )
    return finding(
        "mode-mismatch",
        "warning" if harms and not record.happened("reloaded") else "note",
        0.75 if harms else 0.5,
        then(says, learning.words()),
        layers=[layer.name for layer in record.program.layers if norms and layer.op == "batch_norm"],
        evidence=[Evidence("steps_in_evaluation_mode", "", record.steps - 1, float(steps))],
        treated_by=("mode",),
    )


def _steps_in_evaluation_mode(turns: Sequence[Event], steps: int) -> int:
    """Steps between a turn to evaluation mode and the next to train mode, or the end."""
    ends = [turn.step for turn in turns[1:]] + [steps]
    return sum(end - turn.step for turn, end in zip(turns, ends, strict=True) if not turn.data.get("training", True))


# ---------------------------------------------------------------------- statistics that don't carry over


def _statistics(record: Record, learning: Learning, gap: float, wide: float, ratio: float) -> list[Finding]:
    norms = [layer.name for layer in record.program.layers if layer.op == "batch_norm"]
    if not norms or learning.status in ("unknown", "diverges"):
        return []
    size, tried = batch_size(record), probe(record, "modes") is not None
    small, few = size <= _SMALL, record.steps < _SETTLED
    if tried:
        apart, lost = _apart(record, gap, ratio)
    else:
        lost = _behind(record, learning)
        apart = small and not learning.stuck and lost > wide
    if not apart:
        return []
    with_what = (
        say(", with batches of {size:.0f}", size=size)
        if small
        else say(", after only {steps}", steps=plural(record.steps, "step"))
        if few
        else ""
    )
    how = (
        _both(record, learning)
        if tried
        else say("{words}, {score} in evaluation", words=learning.words(), score=number(learning.eval_score))
    )
    return finding(
        "mode-mismatch",
        "note" if few and not small else "error" if tried and lost > wide else "warning",
        0.6 if not tried else 0.9 if small or lost > wide else 0.75,
        say(
            "the running statistics of {layers} are unlike those it was trained with{with_what}: {how}",
            layers=names(norms),
            with_what=with_what,
            how=how,
        ),
        layers=norms,
        evidence=[Evidence("mode_gap", norms[0], record.steps, lost)] if math.isfinite(lost) else (),
        treated_by=("normalization", "batch-size", "mode"),
    )


def _apart(record: Record, gap: float, ratio: float) -> tuple[bool, float]:
    """Whether the modes come out too far apart for batch norm alone, and how much better train mode is by the score."""
    drops = any(layer.op == "dropout" for layer in _modal(record))
    lost, losses = _gap(record), _loss_ratio(record)
    if math.isnan(lost):
        return losses > ratio or (not drops and losses < 1 / ratio), lost
    far = lost if drops else abs(lost)  # dropout takes away from train mode, batch norm from neither
    return far > gap and far > 2 * _error(record), lost


def _behind(record: Record, learning: Learning) -> float:
    """How far evaluation in evaluation mode is behind training, as a share of the way from chance to perfect."""
    if any(e.data.get("train_mode") for e in record.happened("eval")):
        return math.nan
    return skill(record, learning.score_last) - skill(record, learning.eval_score)


# ---------------------------------------------------------------------- the experiment


def _gap(record: Record) -> float:
    """How much better train mode is on the same batches, as a share of the way to perfect; NaN when unknown."""
    data = probe(record, "modes")
    train, evaluated = (skill(record, number_of(data, f"score_{mode}")) for mode in ("train", "eval"))
    return float(np.clip(train, -1.0, 1.0) - np.clip(evaluated, -1.0, 1.0))  # an R2 has no lower end


def _error(record: Record) -> float:
    """Standard error of the gap, from the few samples that were compared."""
    data, task = probe(record, "modes"), record.program.task
    shares = [number_of(data, f"score_{mode}") for mode in ("train", "eval")]
    if task.score != "accuracy" or not task.chance_score < 1:
        return 0.0
    return math.sqrt(sum(max(0.0, p * (1 - p)) for p in shares) / (_BATCHES * batch_size(record))) / (
        1 - task.chance_score
    )


def _loss_ratio(record: Record) -> float:
    """Loss in evaluation mode over that in train mode; 1 when unknown."""
    data = probe(record, "modes")
    train, evaluated = number_of(data, "train"), number_of(data, "eval")
    return evaluated / train if train > 0 and evaluated > 0 else 1.0


def _both(record: Record, learning: Learning) -> str:
    data = probe(record, "modes")
    train, evaluated = number_of(data, "score_train"), number_of(data, "score_eval")
    what = learning.score_name
    if not (math.isfinite(train) and math.isfinite(evaluated)):
        what, train, evaluated = say("the loss"), number_of(data, "train"), number_of(data, "eval")
    return say(
        "on the same batches {what} is {evaluated} in evaluation mode, {train} in train mode",
        what=what,
        evaluated=number(evaluated),
        train=number(train),
    )
