"""What came of a visit, in the terminal."""

from __future__ import annotations

import math
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unstuck.report._words import plural
from unstuck.trials.visit import Cure, Prescription, Trial, words

WIDEST = 100
MOST = 12  # trials that are listed


def text(cure: Cure, stream: TextIO) -> None:
    """Prints it.

    Args:
        cure: What came of the visit.
        stream: Where to.
    """
    width = None if stream.isatty() else WIDEST
    console = Console(file=stream, highlight=False, markup=False, emoji=False, width=width)
    console.print()
    found = cure.prescription
    if found is None:
        healthy = cure.verdict.verdict == "healthy"
        console.print(
            Text("no cure needed" if healthy else "no cure found", style="bold green" if healthy else "bold yellow")
        )
        console.print(f"  {cure.why}")
    else:
        _prescription(console, found)
    _tried(console, cure.trials)
    looked = plural(len(cure.trials), "treatment")
    console.print(
        f"  {looked} looked at in {cure.seconds:.0f} s; the script as it is takes {cure.baseline.seconds:.0f} s"
    )


def _prescription(console: Console, found: Prescription) -> None:
    console.print(Text("cure", style="bold green"), Text(words(found.treatment), style="bold"))
    console.print(
        f"  {found.score} over {found.effect.pairs} fresh seeds: {_values(found.without)} without, {_values(found.treated)} with it"
    )
    console.print(
        f"  effect on {found.effect_of}: {found.effect.mean:+.3g}, 95% interval {found.effect.low:+.3g} to {found.effect.high:+.3g}"
    )
    if found.findings_after:
        console.print(f"  still found: {', '.join(found.findings_after)}")
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
        console.print(f"  and {len(made) - MOST} more", style="dim")
    unwritten = sorted({f"{t.treatment[-1].remedy} ({t.why_not})" for t in trials if not t.values})
    if unwritten:
        console.print(f"  not written: {'; '.join(unwritten[:3])}", style="dim")


def _table(trials: list[Trial]) -> Table:
    table = Table("tried", "score", "gain", box=None, padding=(0, 2, 0, 2), header_style="dim")
    for trial in sorted(trials, key=lambda t: -t.gain if math.isfinite(t.gain) else math.inf)[:MOST]:
        value = trial.values[0]
        table.add_row(
            words(trial.treatment),
            f"{value:.3g}" if math.isfinite(value) else "-",
            f"{trial.gain:+.2f}" if math.isfinite(trial.gain) else trial.why_not[:40] or "diverged",
            style="bold" if trial.kept else "",
        )
    return table


def _values(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.3g}" if math.isfinite(v) else "diverged" for v in values)
