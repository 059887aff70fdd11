"""What came of a visit, in the terminal."""

from __future__ import annotations

import math
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unstuck._language import _, stored, tell
from unstuck.report._words import clean, plural, score_name, signed
from unstuck.report.text import Short, shown_on
from unstuck.trials.visit import Cure, Prescription, Trial, words

WIDEST = 100
_MANY = 99  # lines: all of them
MOST = 12  # trials that are listed


def text(cure: Cure, stream: TextIO) -> None:
    """Prints it.

    Args:
        cure: What came of the visit.
        stream: Where to.
    """
    width = None if stream.isatty() else WIDEST
    console = Console(file=stream, highlight=False, markup=False, emoji=False, width=width)
    with shown_on(console.options):
        _visit(console, cure)


def _visit(console: Console, cure: Cure) -> None:
    console.print()
    found = cure.prescription
    if found is None:
        healthy = cure.verdict.verdict == "healthy"
        console.print(
            Text(
                _("no cure needed") if healthy else _("no cure found"), style="bold green" if healthy else "bold yellow"
            )
        )
        console.print(Padding(Short(Text(clean(cure.why)), lines=_MANY), (0, 0, 0, 2)))
    else:
        _prescription(console, found)
    _tried(console, cure.trials)
    looked = plural(len(cure.trials), "treatment")
    told = tell(
        "{treatments} looked at in {seconds:.0f} s; the script as it is takes {own:.0f} s",
        treatments=looked,
        seconds=cure.seconds,
        own=cure.baseline.seconds,
    )
    console.print(f"  {told}")


def _prescription(console: Console, found: Prescription) -> None:
    console.print(Text(_("cure"), style="bold green"), Text(words(found.treatment), style="bold"))
    console.print(
        "  "
        + tell(
            "{score} over {pairs} fresh seeds: {without} without, {treated} with it",
            score=score_name(found.score),
            pairs=found.effect.pairs,
            without=_values(found.without),
            treated=_values(found.treated),
        )
    )
    console.print(
        "  "
        + tell(
            "effect on {what}: {mean}, 95% interval {low} to {high}",
            what=score_name(found.effect_of),
            mean=signed(found.effect.mean),
            low=signed(found.effect.low),
            high=signed(found.effect.high),
        )
    )
    if found.findings_after:
        console.print("  " + tell("still found: {causes}", causes=", ".join(found.findings_after)))
    console.print()
    for line in found.diff.splitlines():
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
        console.print(Text(f"  {line}", style=style), soft_wrap=True)
    console.print()


def _tried(console: Console, trials: tuple[Trial, ...]) -> None:
    made = [t for t in trials if t.values]
    if made:
        console.print(_table(made))
    if len(made) > MOST:
        console.print("  " + tell("and {number} more", number=len(made) - MOST), style="dim")
    unwritten = sorted({f"{t.treatment[-1].remedy} ({clean(stored(t.why_not))})" for t in trials if not t.values})
    if unwritten:
        console.print("  " + tell("not written: {remedies}", remedies=_("; ").join(unwritten[:3])), style="dim")


def _table(trials: list[Trial]) -> Table:
    table = Table(_("tried"), _("score"), _("gain"), box=None, padding=(0, 2, 0, 2), header_style="dim")
    for trial in sorted(trials, key=lambda t: -t.gain if math.isfinite(t.gain) else math.inf)[:MOST]:
        value = trial.values[0]
        table.add_row(
            words(trial.treatment),
            f"{value:.3g}" if math.isfinite(value) else "-",
            f"{trial.gain:+.2f}" if math.isfinite(trial.gain) else clean(stored(trial.why_not))[:40] or _("diverged"),
            style="bold" if trial.kept else "",
        )
    return table


def _values(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.3g}" if math.isfinite(v) else _("diverged") for v in values)
