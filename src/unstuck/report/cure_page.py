"""What came of a visit as one HTML page: self-contained, offline, for desktop, phone and paper, in light and dark.

As with the other pages everything is in the one file, and a content security policy forbids it any request; there is no script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from unstuck._language import _, many, stored, tell, translated
from unstuck.report import _words
from unstuck.report._cure_plots import measured, plots, score
from unstuck.report.html import _asset, _policy, _template
from unstuck.report.output import write_text
from unstuck.trials.visit import Cure, Prescription, words
from unstuck.verdict import CAUSES

_STYLES = ("page.css", "search.css", "cure.css")
_MOST_LINES = 2000  # of a diff


@np.errstate(all="ignore")
def render(cure: Cure, name: str = "", command: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        cure: What came of the visit.
        name: What was visited: the script's name.
        command: The script and its arguments, for the commands that go on from here; none where it was no script.

    Returns:
        An HTML document that needs nothing but itself.
    """
    found = cure.prescription
    kind, badge = _kind(cure)
    return _template("cure.html").render(
        cure=cure,
        found=found,
        name=name,
        kind=kind,
        badge=badge,
        headline=words(found.treatment) if found else _words.sentence(translated(cure.why or _("nothing was found"))),
        says=_words.sentence(translated(found.text)) if found else "",
        stats=_stats(cure),
        plots=plots(cure),
        diff=_diff(found.diff) if found else "",
        commands=_commands(found, command),
        before=[(f.cause, f.severity, _words.sentence(translated(f.says))) for f in cure.verdict.loud],
        after=_after(cure),
        unwritten=_unwritten(cure),
        spent=_spent(cure),
        policy=_policy([]),
        styles=[Markup(_asset(style)) for style in _STYLES],
    )


def write(cure: Cure, path: str | Path, *, name: str = "", command: Sequence[str] = ()) -> None:
    """Write the page to a file.

    Args:
        cure: What came of the visit.
        path: The file; what was there is replaced.
        name: What was visited.
        command: The script and its arguments.

    Raises:
        MisuseError: `path` is a folder, or in a folder that doesn't exist.
        RecordError: The system refuses to write there.
    """  # noqa: DOC502
    write_text(path, render(cure, name, command))


def _kind(cure: Cure) -> tuple[str, str]:
    """How the page looks, and its badge."""
    if cure.prescription is not None:
        return "cured", _("cure")
    if cure.verdict.verdict == "healthy":
        return "healthy", _("no cure needed")
    return "unknown", _("no cure found")


def _stats(cure: Cure) -> list[tuple[str, str, str]]:
    """The numbers at the top: what, how much, and what more is to be said of it."""
    found, looked = cure.prescription, [t for t in cure.trials if t.values]
    name = _words.score_name(cure.baseline.score or "score")
    refused = len(cure.trials) - len(looked)
    more = many("{number} could not be written", "{number} could not be written", refused) if refused else ""
    tries = (_("tried"), str(len(looked)), more)
    time = (_("the visit took"), _words.duration(cure.seconds), "")
    if found is None:
        is_known = math.isfinite(cure.baseline.value) or cure.verdict.run.get(
            "steps"
        )  # what took no step didn't diverge
        reached = score(cure.baseline.value) if is_known else "–"
        return [(tell("{score} as it is", score=name), reached, ""), tries, time]
    effect, of = found.effect, _words.score_name(found.effect_of)
    between = tell("95% interval {low} to {high}", low=_words.signed(effect.low), high=_words.signed(effect.high))
    runs = many("{number} pair of fresh seeds", "{number} pairs of fresh seeds", effect.pairs)
    return [
        (tell("effect on the {what}", what=of), _words.signed(effect.mean), between),
        (tell("{score} without", score=name), _mean(found.without), runs),
        (tell("{score} with the change", score=name), _mean(found.treated), runs),
        tries,
        time,
    ]


def _mean(values: Sequence[float]) -> str:
    broke = sum(not math.isfinite(v) for v in values)
    if broke:
        return tell("diverged in {broke} of {all}", broke=broke, all=len(values))
    return score(sum(values) / len(values))


def _diff(diff: str) -> Markup:
    """A change, line by line: added and removed ones are told by their sign, and by words for who only hears them."""
    kinds = {"+": ("ins", "added"), "-": ("del", "gone")}
    lines = diff.splitlines()
    made = []
    for line in lines[:_MOST_LINES]:
        is_head = line.startswith(("+++", "---", "@@"))
        tag, kind = ("span", "head") if is_head else kinds.get(line[:1], ("span", "same"))
        made.append(Markup('<{} class="{}">{}</{}>').format(Markup(tag), kind, _line(line), Markup(tag)))
    left = len(lines) - len(made)
    told = (
        [Markup('<span class="head">{}</span>').format(many("and {number} line more", "and {number} lines more", left))]
        if left
        else []
    )
    return Markup("").join([*made, *told])


def _line(line: str) -> str:
    """A line of code as it is, but for what can't be seen or turns text about."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line.expandtabs(8)) or " "


def _commands(found: Prescription | None, command: Sequence[str]) -> list[tuple[str, str]]:
    """What to type next, and what it does."""
    if not command:
        return []
    script = " ".join(command)
    if found is None:
        return [(f"unstuck run --html report.html {script}", _("what is wrong, with all that was measured"))]
    return [
        (f"unstuck cure --diff {script} | patch -p1", _("makes the change; what has run is not run again")),
        (f"unstuck cure --json cure.json {script}", _("keeps the change, for the next command")),
        (f"unstuck run --with cure.json {script}", _("trains with the change, and leaves the script as it is")),
    ]


def _after(cure: Cure) -> list[tuple[str, str, str]]:
    """Causes before and after, and what became of each."""
    if cure.prescription is None:
        return []
    before, after = [f.cause for f in cure.verdict.loud], cure.prescription.findings_after
    rows = [(cause, _("still found") if cause in after else _("gone")) for cause in dict.fromkeys(before)]
    rows += [(cause, _("new")) for cause in dict.fromkeys(after) if cause not in before]
    return [(cause, _(CAUSES[cause]) if cause in CAUSES else "", became) for cause, became in rows]


def _unwritten(cure: Cure) -> list[tuple[str, str]]:
    """Treatments that could not be tried, and why."""
    found = {
        (_words.clean(words(t.treatment)), _words.clean(translated(stored(t.why_not))) or "–")
        for t in cure.trials
        if not t.values
    }
    return sorted(found)


def _spent(cure: Cure) -> list[tuple[str, str]]:
    """Where time went."""
    trials = measured(cure)
    rows = [
        (_("the whole visit"), _words.duration(cure.seconds)),
        (_("one run of the script as it is"), _words.duration(cure.baseline.seconds)),
        (
            many("{number} run of a treatment, added up", "{number} runs of treatments, added up", len(trials)),
            _words.duration(sum(t.seconds for t in trials)),
        ),
    ]
    return [(what, much) for what, much in rows if much]
