"""The pictures of a visit: what each treatment gained, the scores of each seed, and how the runs went without and with the change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unstuck import store
from unstuck._language import _, many, stored, tell, translated
from unstuck.errors import UnstuckError
from unstuck.evidence import EMPTY, Series
from unstuck.report._curves import smooth
from unstuck.report._search_plots import WIDE, Axis, Plot, Point, Scale, Shape, named, row
from unstuck.report._words import clean, number, score_name, signed
from unstuck.trials.visit import Cure, Prescription, Trial, words

MOST = 24  # treatments that are drawn
_LINE = 300  # points of a line
_READ = 4000  # samples that it is made of
_CHANGE_THE_LOSS = frozenset({"class-weights", "l1", "output-loss", "reduction", "smooth-loss", "weight-decay"})


def plots(cure: Cure) -> list[Plot]:
    """What there is to draw of a visit."""
    found = cure.prescription
    made = [tried(cure), *([seeds(found), *courses(found)] if found is not None else [])]
    return [plot for plot in made if plot is not None]


def measured(cure: Cure) -> list[Trial]:
    """The trials that were made, the best first."""
    made = [trial for trial in cure.trials if trial.values]
    return sorted(made, key=lambda t: -t.gain if math.isfinite(t.gain) else math.inf)


def gain_of(cure: Cure) -> str:
    """What gains are shares of."""
    return _("way from chance to perfect") if math.isfinite(cure.baseline.skill) else _("loss")


# ---------------------------------------------------------------------- what was tried


def tried(cure: Cure) -> Plot | None:
    """Gains of all that was tried, and the confirmed one with its interval, on one axis with a line at zero."""
    trials, found = measured(cure), cure.prescription
    proof = found.gain if found is not None and found.gain is not None and math.isfinite(found.gain.low) else None
    if not trials:
        return None
    shown = trials[:MOST]
    names = ([tell("✓ {treatment}", treatment=words(found.treatment))] if found and proof else []) + [
        words(t.treatment) for t in shown
    ]
    known = [t.gain for t in shown if math.isfinite(t.gain)]
    scale = Scale.of([0.0, *known, *((proof.low, proof.high) if proof else ())], cut="low")
    rows_above = len(names) - len(shown)
    places = [row(i + rows_above, len(names)) for i in range(len(shown))]
    zero = scale.share(0.0)
    dots = tuple((scale.share(t.gain), y) for t, y in zip(shown, places, strict=True) if math.isfinite(t.gain))
    broke = tuple((0.01, y) for t, y in zip(shown, places, strict=True) if not math.isfinite(t.gain))
    kept = tuple(
        (scale.share(t.gain), y) for t, y in zip(shown, places, strict=True) if t.kept and math.isfinite(t.gain)
    )
    shapes = [
        Shape("asis", _("no gain"), ((zero, 0.0), (zero, 1.0)), join="line"),
        Shape("own mean", _("best so far when it was tried"), kept),
        Shape("control dot", _("one run with one seed"), dots),
        Shape("lost", _("diverged, crashed or stopped"), broke, join="right"),
    ]
    if proof:
        y = row(0, len(names))
        span = tuple((scale.share(x), y) for x in (proof.low, proof.high))
        shapes += [
            Shape("search span", _("95% interval"), span, join="pairs"),
            Shape("search mean", _("prescribed: mean over fresh seeds"), ((scale.share(proof.mean), y),)),
        ]
    ticks = tuple((at, f"{float(text):+g}" if float(text) else "0") for at, text in scale.ticks())
    axis = Axis(tell("gain, as a share of the {whole}", whole=gain_of(cure)), ticks)
    left = len(trials) - len(shown)
    return Plot(
        "tried", _("What was tried"), axis, Axis("", named(names, 34), are_names=True), tuple(shapes), _tried_words(cure, trials, left),
        (_("treatment"), _("gain"), _("95% interval"), _("score"), _("seconds"), _("how it ended")), tuple(_tried_rows(cure, trials)),
        max(4.0, 1.65 * len(names)),
    )  # fmt: skip


def _tried_words(cure: Cure, trials: Sequence[Trial], left: int) -> str:
    found, best = cure.prescription, trials[0]
    gained = sum(t.gain > 0 for t in trials)
    told = [
        many(
            "{number} treatment was run, each once, and {gained} gained something over what it was tried on top of.",
            "{number} treatments were run, each once, and {gained} gained something over what they were tried on top of.",
            len(trials),
            gained=gained,
        )
    ]
    if math.isfinite(best.gain):
        told.append(tell("The most: {treatment}, {gain:+.2f}.", treatment=words(best.treatment), gain=best.gain))
    if found is not None and found.gain is not None:
        told.append(
            tell(
                "Confirmed with fresh seeds over the script as it is: {treatment}, {gain:+.2f} ({low:+.2f} to {high:+.2f}).",
                treatment=words(found.treatment),
                gain=found.gain.mean,
                low=found.gain.low,
                high=found.gain.high,
            )
        )
    if left > 0:
        told.append(many("{number} more is in the table.", "{number} more are in the table.", left))
    return " ".join(told)


def _tried_rows(cure: Cure, trials: Sequence[Trial]) -> list[tuple[str, ...]]:
    found, rows = cure.prescription, []
    if found is not None and found.gain is not None:
        gain = found.gain
        between = tell("{low:+.2f} to {high:+.2f}", low=gain.low, high=gain.high)
        told = many("prescribed, by {number} pair of runs", "prescribed, by {number} pairs of runs", gain.pairs)
        mean = score(_mean(found.treated))
        rows.append((clean(words(found.treatment)), f"{gain.mean:+.2f}", between, mean, "", told))
    for trial in trials:
        gain = f"{trial.gain:+.2f}" if math.isfinite(trial.gain) else "–"
        ended = clean(translated(stored(trial.why_not))) if trial.why_not else _("best so far") if trial.kept else ""
        rows.append(
            (clean(words(trial.treatment)), gain, "–", score(trial.values[0]), f"{trial.seconds:.1f}", ended or "–")
        )
    return rows


# ---------------------------------------------------------------------- the seeds


def seeds(found: Prescription) -> Plot | None:
    """The score of each fresh seed, without and with the change."""
    known = [v for v in (*found.without, *found.treated) if math.isfinite(v)]
    if not known:
        return None
    scale, count = Scale.of(known), len(found.without)
    names = [tell("seed {number}", number=i + 1) for i in range(count)]
    pairs, before, after, lost = [], [], [], []
    for i, (without, treated) in enumerate(zip(found.without, found.treated, strict=True)):
        y = row(i, count)
        for value, points in ((without, before), (treated, after)):
            (points if math.isfinite(value) else lost).append((scale.share(value) if math.isfinite(value) else 0.01, y))
        if math.isfinite(without) and math.isfinite(treated):
            pairs += [(scale.share(without), y), (scale.share(treated), y)]
    shapes = (
        Shape("own span", "", tuple(pairs), join="pairs"),
        Shape("control mean", _("without"), tuple(before)),
        Shape("search mean", _("with the change"), tuple(after)),
        Shape("lost", _("diverged"), tuple(lost), join="right"),
    )
    name = score_name(found.score)
    rows = tuple(
        (names[i], score(a), score(b), signed(b - a) if math.isfinite(b - a) else "–")
        for i, (a, b) in enumerate(zip(found.without, found.treated, strict=True))
    )
    told = tell(
        "The {score} is {without} without the change and {treated} with it. The two runs of a seed share their random numbers, and no try "
        "has used these seeds.",
        score=name,
        without=_told(found.without),
        treated=_told(found.treated),
    )
    header = (_("seed"), _("without"), _("with the change"), _("difference"))
    ticks = tuple((at, text) for at, text in scale.ticks())
    title = tell("{score} of each seed", score=_capital(name))
    return Plot("seeds", title, Axis(name, ticks), Axis("", named(names), are_names=True), shapes, told, header, rows,
                max(5.0, 2.0 * count))  # fmt: skip


# ---------------------------------------------------------------------- the course


def courses(found: Prescription) -> list[Plot]:
    """How loss and score of the first seed went, without and with the change, where their records are still there."""
    runs = next((pair for pair in found.records if all(name and Path(name).exists() for name in pair)), None)
    if runs is None:
        return []
    try:
        without, treated = (store.course(name, ("loss", "score", "eval_score"), points=_READ) for name in runs)
    except UnstuckError:  # a picture less
        return []
    changed = sorted({dose.remedy for dose in found.treatment} & _CHANGE_THE_LOSS)
    mind = tell(
        "The change is one of the loss too ({remedies}), so the two losses can't be compared.",
        remedies=", ".join(changed),
    )
    name = score_name(found.score)
    both = [
        _course("loss", _("Loss"), _("loss"), without.get("loss", EMPTY), treated.get("loss", EMPTY), mind if changed else ""),
        *(
            _course(signal, title, name, without.get(signal, EMPTY), treated.get(signal, EMPTY))
            for signal, title in (
                ("score", tell("{score} while training", score=_capital(name))),
                ("eval_score", tell("{score} in evaluation", score=_capital(name))),
            )
        ),
    ]  # fmt: skip
    return [plot for plot in both if plot is not None]


def _course(signal: str, title: str, name: str, without: Series, treated: Series, mind: str = "") -> Plot | None:
    lines = [_line(without), _line(treated)]
    values = np.concatenate([line.values for line in lines])
    if not all(map(len, lines)):
        return None
    is_loss = signal == "loss"
    is_log = bool((is_loss or name == "perplexity") and values.min() > 0 and values.max() >= WIDE * values.min())
    up = Scale.of(values.tolist(), is_log=is_log)
    across = Scale.of([float(line.steps[i]) for line in lines for i in (0, -1)], whole=True)

    def points(line: Series) -> tuple[Point, ...]:
        return tuple((across.share(float(s)), up.share(float(v))) for s, v in zip(line.steps, line.values, strict=True))

    join = "line" if min(map(len, lines)) > 1 else ""
    shapes = [
        Shape("control best", _("without"), points(lines[0]), join=join),
        Shape("search best", _("with the change"), points(lines[1]), join=join),
    ]
    if max(map(len, lines)) <= 12:
        shapes += [Shape("control dot", "", points(lines[0])), Shape("search dot", "", points(lines[1]))]
    told = tell(
        "From {a} to {b} without the change, from {c} to {d} with it; the first of the fresh seeds.",
        a=number(float(lines[0].values[0])),
        b=_end(without, is_loss=is_loss),
        c=number(float(lines[1].values[0])),
        d=_end(treated, is_loss=is_loss),
    )
    rows = tuple(_rows(lines))
    header = (_("step"), _("without"), _("with the change"))
    return Plot(f"course-{signal}", title, Axis(_("training step"), across.ticks()), Axis(name, up.ticks()), tuple(shapes),
                " ".join(filter(None, (told, mind))), header, rows)  # fmt: skip


def _line(series: Series) -> Series:
    """The series smoothed where it is long, else all that is finite."""
    soft = smooth(series, _LINE)
    return soft if len(soft) else series.finite


def _end(series: Series, *, is_loss: bool) -> str:
    """Where it ended: NaN too, where the run broke; a score that is NaN was only not measured."""
    broke = is_loss and not math.isfinite(series.last)
    return _("NaN or Inf") if broke else number(float(_line(series).values[-1]))


def _rows(lines: Sequence[Series]) -> list[tuple[str, ...]]:
    """Both lines at a few steps."""
    last = max(int(line.steps[-1]) for line in lines)
    rows = []
    for step in np.unique(np.linspace(0, last, 9).round().astype(int)).tolist():
        cells = [line.until(step + 1).last if step <= line.steps[-1] else math.nan for line in lines]
        rows.append((str(step), *(number(value) if math.isfinite(value) else "–" for value in cells)))
    return rows


# ---------------------------------------------------------------------- words


def score(value: float) -> str:
    """A score, or that there is none."""
    return number(value) if math.isfinite(value) else _("diverged")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _told(values: Sequence[float]) -> str:
    """Scores of the seeds in a few words."""
    known = [v for v in values if math.isfinite(v)]
    mean = tell("{mean} on average", mean=number(_mean(known))) if known else ""
    broke = len(values) - len(known)
    lost = tell("diverged with {broke} of {all} seeds", broke=broke, all=len(values)) if broke else ""
    return _(", ").join(filter(None, (mean, lost)))


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
