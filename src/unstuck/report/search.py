"""What came of a search, in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unstuck._language import _, tell, translated
from unstuck.report import _search_facts as facts
from unstuck.report import _words as words
from unstuck.report._search_facts import Told
from unstuck.report.text import shown_on

WIDEST = 100
TOP = 6  # children that are listed
MANY = 10  # decisions, from which on they stand in two columns
CAUSES = 5  # that are listed
COLUMNS = 3  # decisions in the list of children
_COLOURS = {"healthy": "green", "unknown": "yellow", "sick": "red"}


def text(told: Mapping[str, Any], stream: TextIO) -> None:
    """Prints it.

    Args:
        told: What came of the search, as `unstuck search --json` writes it.
        stream: Where to.
    """
    width = None if stream.isatty() else WIDEST
    console = Console(file=stream, highlight=False, markup=False, emoji=False, width=width)
    with shown_on(console.options):
        _search(console, told)


def _search(console: Console, told: Told) -> None:
    console.print()
    _verdict(console, told)
    if told["best"] is not None:
        _chosen(console, told)
        _top(console, told)
    _notes(console, told)


def _verdict(console: Console, told: Told) -> None:
    found = facts.judged(told)
    console.print(Text(found.headline, style=f"bold {_COLOURS[found.kind]}"))
    for name, one in (
        (_("the script as it stands"), told.get("own")),
        (tell("the search's best, {who}", who=facts.who(told["best"])) if told["best"] else "", told["best"]),
        (tell("the best at random, {who}", who=facts.who(told["control"])) if told["control"] else "", told["control"]),
    ):
        if one is not None and one["scores"]:
            seeds = words.plural(len(one["scores"]), "fresh seed")
            _say(
                console,
                tell(
                    "{name}: {scores} over {seeds}, mean {mean}",
                    name=name,
                    scores=_scores(one["scores"]),
                    seeds=seeds,
                    mean=words.number(one["mean"]),
                ),
            )
    for sentence in found.sentences:
        _say(console, sentence)
    console.print()


def _say(console: Console, sentence: str) -> None:
    console.print(Padding(sentence, (0, 0, 0, 2), expand=False))


def _scores(values: Mapping[str, float | None]) -> str:
    return ", ".join(_("failed") if v is None else words.number(v) for v in values.values())


def _chosen(console: Console, told: Told) -> None:
    """What was chosen: the change of a script, where there is one, else decisions and values."""
    rows = facts.chosen(facts.winner(told)["values"])
    blocks = 2 if len(rows) > MANY else 1
    table = Table(*[_("chosen"), _("value")] * blocks, box=None, padding=(0, 2, 0, 2), header_style="dim")
    for column in table.columns:
        column.overflow = "fold"
    half = -(-len(rows) // blocks)
    for i in range(half):
        table.add_row(*(cell for block in range(blocks) for cell in _row(rows, i + block * half)))
    console.print(table)
    console.print()
    for line in (told.get("diff") or "").splitlines():
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
        console.print(Text(f"  {line}", style=style), soft_wrap=True)
    if told.get("diff"):
        console.print()


def _row(rows: Sequence[tuple[str, str]], i: int) -> tuple[str, str]:
    return rows[i] if i < len(rows) else ("", "")


def _top(console: Console, told: Told) -> None:
    """The best children, with the decisions that mattered most."""
    best = facts.ranked(told)
    shown = [name for name, _ in facts.important(told)] or list(facts.winner(told)["values"])
    columns = {
        _("epochs"): facts.trained,
        _("parameters"): lambda c: words.count(c["parameters"]) if c["parameters"] else "",
        _("time"): lambda c: words.duration(c["seconds"]) if c["seconds"] and c["seconds"] >= 0.05 else "",
        **{words.clean(name): _of(name) for name in shown[:COLUMNS]},
    }
    cells = {name: [facts.shortened(cell(c), 24) for c in best[:TOP]] for name, cell in columns.items()}
    cells = {name: column for name, column in cells.items() if any(column)}
    table = Table(_("best children"), facts.score(told), *cells, box=None, padding=(0, 1, 0, 2), header_style="dim")
    for column in table.columns:
        column.no_wrap = True
    for i, child in enumerate(best[:TOP]):
        own = child["number"] == facts.winner(told)["number"]
        table.add_row(
            facts.who(child),
            words.number(child["score"]),
            *(column[i] for column in cells.values()),
            style="bold" if own else "",
        )
    console.print(table)
    if len(best) > TOP:
        console.print("  " + tell("and {number} more", number=len(best) - TOP), style="dim")
    console.print()


def _of(name: str) -> Any:
    return lambda child: facts.value(child["values"][name]) if name in child["values"] else "-"


def _notes(console: Console, told: Told) -> None:
    """What mattered, what failed, how the sampler was doing, where the time went."""
    for label, said in (
        (_("sampler"), words.clean(": ".join(filter(None, (told["plan"].get("sampler"), told["says"]))))),
        (_("mattered"), mattered(told)),
        (_("broken off"), _failed(told)),
        *((_("health"), words.clean(v)) for v in told.get("verdicts") or ()),
        (_("time"), spent(told)),
    ):
        if said:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(width=12, style="dim")
            grid.add_column(overflow="fold")
            grid.add_row(f"  {label}", said)
            console.print(grid)


def mattered(told: Told) -> str:
    """Which decisions mattered, in a sentence; "" where that was not asked."""
    every, some = told.get("importance") or (), facts.important(told)
    if not every:
        return ""
    if not some:
        return _("no decision can be told from chance")
    others = len(every) - len(some)
    rest = tell("; {others} can't be told from chance", others=words.plural(others, "other")) if others else ""
    more = tell(" and {number} more", number=len(some) - 6) if len(some) > 6 else ""
    return tell(
        "{decisions}{more} of the differences{rest}",
        decisions=", ".join(f"{words.clean(name)} {words.percent(share)}" for name, share in some[:6]),
        more=more,
        rest=rest,
    )


def _failed(told: Told) -> str:
    """How many children were broken off, and why."""
    found = facts.failures(told)
    if not found:
        return ""
    over = sum(facts.is_over(c) for c in told["children"])
    why = _("; ").join(f"{f.count} {f.cause}" for f in found[:CAUSES])
    more = tell("; and {number} other causes", number=len(found) - CAUSES) if len(found) > CAUSES else ""
    return tell(
        "{number} of {children}: {why}{more}",
        number=sum(f.count for f in found),
        children=facts.children(over),
        why=why,
        more=more,
    )


def spent(told: Told) -> str:
    """Where the time went."""
    arms = Counter(facts.NAMES.get(c["arm"], words.clean(c["arm"])) for c in told["children"])
    made = _(", ").join(f"{translated(arm)} {count}" for arm, count in arms.items())
    where = facts.times(told)
    together = sum(seconds for _, seconds in where)
    took = tell("; they took {time}", time=words.duration(together)) if together >= 0.1 else ""
    split = (
        _(", ").join(f"{what} {words.duration(seconds)}" for what, seconds in where) if len(where) > 1 and took else ""
    )
    parts = _(": ") + split if split else ""
    return tell(
        "{time} for {children} ({made}){took}{parts}",
        time=words.duration(told["seconds"]),
        children=facts.children(len(told["children"])),
        made=made,
        took=took,
        parts=parts,
    )
